"""A report as a notebook shows it: the answer, and the table with the differences drawn."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.reporting.forest import forest
from resnet_variants.reporting.summary import DELTA, TERMINAL, summary_cells

_WIDTH = 160  # pixels of a drawn interval


def html(headline: Sequence[str], summary: pd.DataFrame) -> str:
    """Sentences and table as HTML that needs no style sheet; all text is escaped."""
    drawn = forest(summary, DELTA, summary["verdict"] != UNDECIDED)
    cells = summary_cells(summary, TERMINAL).map(lambda cell: escape(str(cell)))
    cells.columns = [escape(str(name)) for name in cells]
    scale = f"-{drawn.reach} to {drawn.reach} points"
    cells.insert(1, scale, [f'<div style="width:{_WIDTH}px">{svg}</div>' for svg in drawn.svgs])
    head = "".join(f"<th>{name}</th>" for name in cells)
    body = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for row in cells.itertuples(index=False)
    )
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in headline)
    return (
        f"<div>{sentences}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
