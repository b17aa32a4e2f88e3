"""A report as a notebook shows it: the answer, and the table with the differences drawn."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from resnet_variants.reporting.summary import DELTA, TERMINAL, summary_cells
from resnet_variants.reporting.text import POINTS

_WIDTH, _HEIGHT = 160, 14  # pixels of a drawn interval


def html(headline: Sequence[str], summary: pd.DataFrame) -> str:
    """Sentences and table as HTML that needs no style sheet; all text is escaped."""
    cells = summary_cells(summary, TERMINAL)
    cells.insert(1, "difference", drawn(summary))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in cells)
    rows = [
        "".join(
            f"<td>{cell if name == 'difference' else escape(str(cell))}</td>"
            for name, cell in row.items()
        )
        for row in cells.to_dict("records")
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in headline)
    return (
        f"<div>{sentences}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def drawn(summary: pd.DataFrame) -> list[str]:
    """Each arm's difference to its baseline with its interval, as SVG on one scale; zero marked."""
    points = POINTS * summary[[*DELTA]].astype(float)
    reach = points.abs().max().fillna(0.0).max() or 1.0
    places = _WIDTH / 2 + (_WIDTH / 2 - 4) * points / reach
    return [_svg(*row) for row in places.itertuples(index=False)]


def _svg(middle: float, low: float, high: float) -> str:
    if middle != middle:  # nothing to compare with
        return ""
    y, marks = _HEIGHT / 2, [f"M{_WIDTH / 2} 0V{_HEIGHT}"]
    if low == low:
        marks.append(f"M{low:.1f} {y}H{high:.1f}")
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="interval">'
        f'<path d="{"".join(marks)}" stroke="currentColor" fill="none"/>'
        f'<circle cx="{middle:.1f}" cy="{y}" r="3.5" fill="currentColor"/></svg>'
    )
