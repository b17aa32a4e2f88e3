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

from resnet_variants.analysis.comparison import KEY, with_recipe
from resnet_variants.analysis.depths import ERRORS
from resnet_variants.models.variant import FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.results_folder import MISSING, STATUSES
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES
from resnet_variants.reporting.figures.interactive import (
    BANDS,
    CURVE_POINTS,
    LAYOUT,
    MEASURES,
    SCORES,
    SYMBOLS,
    cell_text,
    cost_figure,
    curves_figure,
    known_columns,
    styles_by_value,
)
from resnet_variants.reporting.figures.style import COSTS
from resnet_variants.reporting.text import (
    POINTS,
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
ALWAYS = tuple(shown_as(MAIN))  # axes in the table even where nothing varies
OPTIONAL = {  # columns that are left out where they say nothing about any variant
    *("p (Holm)", "training ms per image", "latency, ms per image", "front probability"),
    *("points per +1 % MACs", "paper's delta, points", "paper"),
}
# What a cell with a number looks like: `1,234`, `<0.001`, `+0.10 [-0.20, 0.40]`, `80 %`.
NUMBER = re.compile(r"<?[-+]?[\d,]*\.?\d+( [%\[].*)?")
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
    summary: pd.DataFrame  # SUMMARY_COLUMNS
    runs: pd.DataFrame  # RUN_COLUMNS
    epochs: pd.DataFrame  # EPOCH_COLUMNS
    effects: pd.DataFrame  # one row per main effect or interaction; may be empty
    failures: Sequence[Failure]
    provenance: Mapping[str, Sequence[str]]  # label -> distinct values
    reproduce: Sequence[str]  # shell commands
    notes: Sequence[str]  # how to read the numbers
    depths: pd.DataFrame | None = None  # comparison.depths_table
    diagnosis: pd.DataFrame | None = None  # comparison.diagnosis_table
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
class Part:
    """The tables of runs that may be compared."""

    label: str
    summary: pd.DataFrame
    done: pd.DataFrame
    done_epochs: pd.DataFrame
    effects: pd.DataFrame
    depths: pd.DataFrame
    diagnosis: pd.DataFrame


def _parts(content: Content) -> list[Part]:
    none = pd.DataFrame(columns=[*KEY])
    done = with_recipe(content.runs[content.runs["status"] == DONE])
    depths = none if content.depths is None else content.depths
    diagnosis = none if content.diagnosis is None else content.diagnosis
    frames = [content.summary, done, content.effects, depths, diagnosis]
    labels = [_group_labels(frame if len(frame) else none) for frame in frames]
    parts = []
    for label in dict.fromkeys([*labels[0], *labels[2]]):
        summary, runs, effects, errors, insides = (
            frame[own == label] if len(frame) else frame
            for frame, own in zip(frames, labels, strict=True)
        )
        epochs = content.epochs[content.epochs["run_id"].isin(runs["run_id"])]
        parts.append(Part(label, summary, runs, epochs, effects, errors, insides))
    return parts


def _group_labels(frame: pd.DataFrame) -> pd.Series:
    """In words what each row may be compared with; rows of two labels never are."""
    names = [frame[name].map(cell_text).astype(str) for name in KEY]
    dataset, img_size, epochs, recipe, precision, device = names
    return (
        (dataset + ", " + img_size + " px, " + epochs + " epochs, recipe ")
        + (recipe + ", " + precision + " on ")
        + device
    )


def render(content: Content) -> str:
    """The whole page; the same content gives the same bytes."""
    summary = content.summary.reset_index(drop=True)
    parts = _parts(replace(content, summary=summary))
    axes = varied(summary)
    data = _data(content, parts, axes)
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
            tables=_tables(summary, parts, axes),
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
            left_out=RUNS_DRAWN if len(content.runs) > RUNS_DRAWN else 0,
            style=_asset("page.css"),
            scripts=scripts,
            digests=[_digest(script) for script in scripts],
            data=packed(data),
        )
    )
    return html.lstrip()


def _data(content: Content, parts: Sequence[Part], axes: Sequence[str]) -> dict[str, Any]:
    """What the script shows: figures, their legends, and the values that rows are filtered by."""
    rows = {
        name: content.summary[name].map(cell_text).tolist() for name in ("model", *axes, "verdict")
    }
    styles = {axis: styles_by_value(rows[axis]) for axis in ("model", *axes)}
    most = max(1, CURVE_POINTS // max(1, len(content.summary)))
    few = len(content.runs) <= RUNS_DRAWN
    cost = [cost_figure(p.summary, p.done if few else p.done[:0], styles) for p in parts]
    curves = [curves_figure(p.summary, p.done_epochs, styles, most=most) for p in parts]
    return {
        "groups": [part.label for part in parts],
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
    summary: pd.DataFrame, parts: Sequence[Part], axes: Sequence[str]
) -> dict[str, list[tuple[int, Table]]]:
    """The tables of each section of the page, with the numbers of their comparisons."""
    cells = _summary_cells(summary, list(dict.fromkeys((*axes, *ALWAYS))))
    tables = {
        "summary": [_table(cells.loc[p.summary.index]) for p in parts],
        "effects": [_effects_table(p.effects) for p in parts],
        "depths": [_table(_readable(p.depths, readable_errors)) for p in parts],
        "diagnosis": [_table(_readable(p.diagnosis, readable_diagnoses)) for p in parts],
        "compared": [_table(_readable(p.diagnosis, readable_comparisons)) for p in parts],
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


def _summary_cells(summary: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    columns = {
        "variant": summary["model"],
        **{axis.replace("_", " "): summary[axis] for axis in axes},
        "n": summary["n"],
        "test accuracy % [95 %]": _intervals(summary, "test_acc_mean", "test_acc_ci"),
        "delta, points [95 %]": _intervals(summary, "delta", "delta_ci", sign="+"),
        "p (Holm)": _written(summary, "p_adjusted", p_value),
        "verdict": summary["verdict"],
        "MACs (M)": (summary["macs"] / 1e6).map("{:.3f}".format),
        "FLOPs (M)": (summary["flops"] / 1e6).map("{:.3f}".format),
        "params": summary["params"].map("{:,}".format),
        "activations": summary["acts"].map("{:,}".format),
        "training ms per image": _written(summary, "train_ms_per_image", "{:.3f}".format),
        "latency, ms per image": _written(summary, "latency_ms", "{:.3f}".format),
        "Pareto front": summary["on_pareto_front"].map({True: "yes", False: ""}),
        "front probability": _written(summary, "front_probability", lambda v: f"{100 * v:.0f} %"),
        "points per +1 % MACs": _written(summary, "points_per_percent_macs", "{:+.3f}".format),
        "paper's delta, points": _written(summary, "paper_delta", lambda v: f"{100 * v:+.2f}"),
        "paper": summary["paper"],
        "failed": summary["failed"],
    }
    said = {name: column.map(cell_text) for name, column in columns.items()}
    return pd.DataFrame(
        {name: column for name, column in said.items() if name not in OPTIONAL or column.any()}
    )


def _effects_table(effects: pd.DataFrame) -> Table:
    if effects.empty:
        return Table({})
    columns = {
        **{name: effects[name] for name in ("effect", "kind", "contrast")},
        "estimate, points [95 %]": _intervals(effects, "estimate", "ci", sign="+"),
        "p": _written(effects, "p_value", p_value),
        "p (Holm)": _written(effects, "p_adjusted", p_value),
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


def _written(frame: pd.DataFrame, column: str, write: Callable[[float], str]) -> pd.Series:
    values = frame[column].to_numpy(float)
    return pd.Series(["" if math.isnan(v) else write(v) for v in values], index=frame.index)


def _intervals(frame: pd.DataFrame, mean: str, bound: str, *, sign: str = "") -> pd.Series:
    columns = (frame[name].astype(float) for name in (mean, f"{bound}_low", f"{bound}_high"))
    cells = [interval(*row, sign=sign) for row in zip(*columns, strict=True)]
    return pd.Series(cells, index=frame.index)
