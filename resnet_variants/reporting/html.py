"""``report.html``: one file that needs no network, made from tables.

The page works as plain tables. Its script sorts and filters them and shows the figures, which are
made in ``figures.interactive``. What comes from a run, an experiment or a class name is text in
every place: the template escapes HTML, the data are in base 64, and the policy in the head allows
no script but the two whose digests it names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import KEY, Comparison, summary_table
from resnet_variants.analysis.depths import ERRORS
from resnet_variants.models.variant import FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.results_folder import MISSING, STATUSES
from resnet_variants.records.run_folder import DIVERGED, FAILED
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES
from resnet_variants.reporting.figures.interactive import (
    BANDS,
    CURVE_POINTS,
    LAYOUT,
    MEASURES,
    SCORES,
    SYMBOLS,
    cost_figure,
    curves_figure,
    known_columns,
    styles_by_value,
)
from resnet_variants.reporting.figures.style import COSTS
from resnet_variants.reporting.summary import PAGE, summary_cells
from resnet_variants.reporting.text import (
    POINTS,
    cell_text,
    interval,
    p_value,
    readable_comparisons,
    readable_diagnoses,
    readable_errors,
)

if TYPE_CHECKING:
    import jinja2

BAD = {FAILED, DIVERGED, MISSING}
RUNS_DRAWN = 2_000  # beyond that a browser answers slowly
TRACEBACKS = 100_000  # characters on the page; the runs' folders have the rest
AXES = (*shown_as(SIZE, MAIN), *shown_as(FURTHER))
# What a cell with a number looks like: `1,234`, `<0.001`, `+0.10 [-0.20, 0.40]`, `80 %`.
NUMBER = re.compile(r"<?[-+]?[\d,]*\.?\d+( [%\[(].*)?")
_FEW = 6  # variants whose curves can be told apart by colour
_CAPTIONS = {
    ERRORS: "Test and training error by depth, a line per design",
    **{name: figure.caption for name, figure in DIAGNOSIS_FIGURES.items()},
}


@dataclass(frozen=True)
class Failure:
    """A run that failed or diverged."""

    run_id: str
    status: str
    error: str
    traceback: str  # empty where the raw runs are not here


@dataclass(frozen=True)
class Picture:
    """A figure that is shown as it is."""

    name: str  # of its file
    svg: bytes

    @property
    def url(self) -> str:
        """The picture itself, as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()

    @property
    def table(self) -> str:
        """The name of the table that has its numbers."""
        return next(name for name in _CAPTIONS if self.name.startswith(name))

    @property
    def caption(self) -> str:
        """What it shows, and where its numbers are."""
        return f"{_CAPTIONS[self.table]}; the numbers are in {self.table}.csv."


@dataclass(frozen=True)
class Content:
    """All that the page says."""

    title: str  # the experiment's name
    question: str  # may be empty
    expect: str  # what was expected; may be empty
    answer: tuple[str, ...]  # the verdict, a sentence each
    counts: Mapping[str, int]  # runs by status
    comparisons: Sequence[Comparison]
    failures: Sequence[Failure]
    provenance: Mapping[str, Sequence[str]]  # label -> distinct values
    reproduce: Sequence[str]  # shell commands
    notes: Sequence[str]  # how to read the numbers
    pictures: Sequence[Picture] = ()  # of error by depth and of the diagnosis


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    cells: Mapping[str, Sequence[str]]  # by column title; the first names the row
    first: int = 0  # the page's number of the first row
    forest: Forest | None = None

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of each row."""
        return list(zip(*self.cells.values(), strict=True))

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        filled = [[cell for cell in column if cell] for column in self.cells.values()]
        return [bool(cells) and all(map(NUMBER.fullmatch, cells)) for cells in filled]


@dataclass(frozen=True)
class Forest:
    """An interval for each row of a table, drawn beside it."""

    marks: Sequence[tuple[float, ...] | None]  # low, estimate, high in percent of the width
    scale: str  # what the width spans


@dataclass(frozen=True)
class Section:
    """A comparison on the page."""

    label: str
    comparison: Comparison
    summary: pd.DataFrame  # the comparison's; its index numbers the page's rows


def _sections(content: Content) -> list[Section]:
    sections, first = [], 0
    for comparison in content.comparisons:
        rows = pd.RangeIndex(first, first + len(comparison.summary))
        summary = comparison.summary.set_axis(rows)
        sections.append(Section(_label(comparison.key), comparison, summary))
        first = rows.stop
    return sections


def _label(key: Mapping[str, object]) -> str:
    """In words what the runs of a comparison share."""
    dataset, img_size, epochs, recipe, precision, device = (cell_text(key[name]) for name in KEY)
    return f"{dataset}, {img_size} px, {epochs} epochs, recipe {recipe}, {precision} on {device}"


def render(content: Content) -> str:
    """The whole page; the same content gives the same bytes."""
    summary, sections = summary_table(content.comparisons), _sections(content)
    axes, runs = varied(summary), sum(len(part.runs) for part in content.comparisons)
    data = _data(summary, sections, axes, runs=runs)
    drawn = [name for name, figures in data["figures"].items() if any(figures)]
    scripts = [*([_plotly()] if drawn else []), _asset("page.js")]
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            content=content,
            counts=_counts(content.counts),
            bad=BAD,
            failures=_shortened(content.failures),
            labels=data["groups"],
            groups=list(enumerate(data["groups"])),
            tables=_tables(summary, sections),
            error_pictures=[p for p in content.pictures if p.table == ERRORS],
            diagnosis_pictures=[p for p in content.pictures if p.table != ERRORS],
            filters=_filters(summary, axes),
            drawn=drawn,
            costs=[(name, COSTS[name][0]) for name in known_columns(summary, COSTS)],
            scores=[(name, SCORES[name][0]) for name in known_columns(summary, SCORES)],
            measures=list(MEASURES.items()),
            axes=[(axis, axis.replace("_", " ")) for axis in ("model", *axes)],
            cost_colour="order" if "order" in axes else [*axes, "model"][0],
            curves_colour="model" if len(summary) <= _FEW else [*axes, "model"][0],
            left_out=RUNS_DRAWN if runs > RUNS_DRAWN else 0,
            style=_asset("page.css"),
            scripts=scripts,
            digests=[_digest(script) for script in scripts],
            data=packed(data),
        )
    )
    return html.lstrip()


def _data(
    summary: pd.DataFrame, sections: Sequence[Section], axes: Sequence[str], *, runs: int
) -> dict[str, Any]:
    """What the script shows: figures, their legends, and the values that rows are filtered by."""
    rows = {name: summary[name].map(cell_text).tolist() for name in ("model", *axes, "verdict")}
    styles = {axis: styles_by_value(rows[axis]) for axis in ("model", *axes)}
    most = max(1, CURVE_POINTS // max(1, len(summary)))
    drawn = runs if runs <= RUNS_DRAWN else 0
    cost = [cost_figure(s.summary, s.comparison.done[:drawn], styles) for s in sections]
    curves = [
        curves_figure(s.summary, s.comparison.done_epochs, styles, most=most) for s in sections
    ]
    return {
        "groups": [section.label for section in sections],
        "rows": rows,
        "legends": {
            axis: [
                {"value": value, "glyph": SYMBOLS[style.symbol], **asdict(style)}
                for value, style in own.items()
            ]
            for axis, own in styles.items()
        },
        "layout": LAYOUT,
        "bands": BANDS,
        "figures": {
            name: [figure and asdict(figure) for figure in figures]
            for name, figures in (("cost", cost), ("curves", curves))
        },
    }


def packed(value: object) -> str:
    """JSON, compressed, in base 64: no text of a run can leave the element that holds it.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(written.encode(), mtime=0)).decode()


def _environment() -> jinja2.Environment:
    import jinja2  # only who reports pays for it

    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_asset),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return (resources.files("resnet_variants.reporting") / "assets" / name).read_text(
        encoding="utf-8"
    )


def _plotly() -> str:
    """The library as its Python package ships it."""
    file = resources.files("plotly") / "package_data" / "plotly.min.js"
    return file.read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """How a content security policy names an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _counts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Runs by status, those that there are, in the order of a run's life."""
    known = (*STATUSES, MISSING)
    order = (*known, *sorted(set(counts) - {*known}))
    return [(status, counts[status]) for status in order if counts.get(status)]


def _shortened(failures: Sequence[Failure]) -> list[Failure]:
    """The failures with as many whole tracebacks as the page has room for."""
    room, kept = TRACEBACKS, []
    for failure in failures:
        room -= len(failure.traceback)
        far = "" if room >= 0 else "(no room on this page; see log.txt in the run's folder)"
        kept.append(replace(failure, traceback=far or failure.traceback))
    return kept


# --- tables -----------------------------------------------------------------------------------


def varied(summary: pd.DataFrame) -> list[str]:
    """The axes in which the variants differ."""
    return [axis for axis in AXES if summary[axis].nunique(dropna=False) > 1]


def _filters(summary: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The columns that a reader may filter by, with their values."""
    verdict = ["verdict"] if summary["verdict"].nunique() > 1 else []
    return [(name, _values(summary[name])) for name in (*axes, *verdict)]


def _values(column: pd.Series) -> list[str]:
    distinct = column.drop_duplicates()
    numeric = pd.api.types.is_numeric_dtype(distinct)
    return [cell_text(value) for value in (distinct.sort_values() if numeric else distinct)]


def _tables(
    summary: pd.DataFrame, sections: Sequence[Section]
) -> dict[str, list[tuple[int, Table]]]:
    """The tables of each section of the page, with the numbers of their comparisons."""
    cells = summary_cells(summary, PAGE)
    cells = cells[[name for name in cells if cells[name].ne("").any()]]
    parts = [section.comparison for section in sections]
    insides = [part.diagnosis_summary for part in parts]
    tables = {
        "summary": [_table(cells.loc[section.summary.index]) for section in sections],
        "effects": [_effects_table(part.effects) for part in parts],
        "depths": [_table(_readable(part.errors_by_depth, readable_errors)) for part in parts],
        "diagnosis": [_table(_readable(table, readable_diagnoses)) for table in insides],
        "compared": [_table(_readable(table, readable_comparisons)) for table in insides],
    }
    return {
        name: [(at, table) for at, table in enumerate(own) if table.rows]
        for name, own in tables.items()
    }


def _table(cells: pd.DataFrame) -> Table:
    first = int(cells.index[0]) if len(cells) else 0
    return Table({str(name): cells[name].map(cell_text).tolist() for name in cells}, first)


def _readable(
    frame: pd.DataFrame, readable: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    return readable(frame) if len(frame) else pd.DataFrame()


def _effects_table(effects: pd.DataFrame) -> Table:
    if effects.empty:
        return Table({})
    ends = effects[["estimate", "ci_low", "ci_high"]].astype(float)
    estimates = ends.itertuples(index=False)
    columns = {
        **{name: effects[name] for name in ("effect", "kind", "contrast")},
        "estimate, points [95 %]": [interval(*row, sign="+") for row in estimates],
        "p": effects["p_value"].astype(float).map(p_value),
        "p (Holm)": effects["p_adjusted"].astype(float).map(p_value),
        **{name: effects[name] for name in ("verdict", "cells", "seeds")},
    }
    return replace(_table(pd.DataFrame(columns)), forest=_forest(effects))


def _forest(effects: pd.DataFrame) -> Forest:
    """Intervals on a scale that is symmetric about zero and ends at a number of one digit."""
    points = POINTS * effects[["ci_low", "estimate", "ci_high"]].astype(float)
    largest = float(np.nanmax(points.abs().to_numpy(), initial=0.0)) or 1.0
    digit = 10.0 ** math.floor(math.log10(largest))
    reach = math.ceil(largest / digit) * digit
    low, middle, high = (50 + 50 * points[name] / reach for name in points)
    ends = zip(low.fillna(middle), middle, high.fillna(middle), strict=True)
    marks = [None if math.isnan(end[1]) else tuple(round(x, 1) for x in end) for end in ends]
    return Forest(marks, f"points, -{reach:g} to +{reach:g}")
