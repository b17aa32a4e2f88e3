"""``report.html``: one file that needs no network, made from tables.

The page works as plain tables; its script sorts, filters and draws them. What comes from a run, an
experiment or a class name is text in every place: the template escapes HTML, ``json_text`` escapes
the data, and the policy in the head lets no other script run than the two whose digests it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from resnet_variants.analysis.depths import ERRORS
from resnet_variants.records.results_folder import MISSING, STATUSES
from resnet_variants.records.run_folder import DIVERGED, FAILED
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES
from resnet_variants.reporting.page_data import (
    COST_CHOICES,
    CURVES,
    RUNS_DRAWN,
    SCORES,
    Choice,
    group_labels,
    json_text,
    known,
    payload,
    text,
    varied,
)
from resnet_variants.reporting.page_tables import (
    FOREST_WIDTH,
    effect_tables,
    group_tables,
    summary_tables,
)
from resnet_variants.reporting.text import (
    readable_comparisons,
    readable_diagnoses,
    readable_errors,
)

if TYPE_CHECKING:
    import jinja2

SHOWN = (*STATUSES, MISSING)
BAD = {FAILED, DIVERGED, MISSING}
FEW = 6  # curves that can be told apart
_CAPTIONS = {
    ERRORS: "Test and training error by depth, a line per design",
    **{name: figure.caption for name, figure in DIAGNOSIS_FIGURES.items()},
}
TRACEBACKS = 100_000  # characters on the page; the runs' folders have the rest


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
    summary: pd.DataFrame  # tables.SUMMARY_COLUMNS
    runs: pd.DataFrame  # records.RUN_COLUMNS
    epochs: pd.DataFrame  # records.EPOCH_COLUMNS
    effects: pd.DataFrame  # one row per main effect or interaction; may be empty
    failures: Sequence[Failure]
    provenance: Mapping[str, Sequence[str]]  # label -> distinct values
    reproduce: Sequence[str]  # shell commands
    notes: Sequence[str]  # how to read the numbers
    depths: pd.DataFrame | None = None  # depths.COLUMNS; none or empty: no two depths
    diagnosis: pd.DataFrame | None = None  # diagnosis_tables.diagnosis_summary; none or empty: none
    pictures: Sequence[Picture] = ()  # of error by depth and of the diagnosis


def render(content: Content) -> str:
    """The whole page; the same content gives the same bytes."""
    frames = [group_labels(frame) for frame in (content.summary, content.effects) if len(frame)]
    labels = list(dict.fromkeys(label for frame in frames for label in frame))
    data = payload(content.summary, content.runs, content.epochs, labels)
    choices = _choices(content.summary)
    drawn = choices["scores"] or data["curves"]
    scripts = [*([_plotly()] if drawn else []), _asset("page.js")]
    page = _environment().get_template("page.html.j2")
    html = page.render(
        content=content,
        counts=_counts(content.counts),
        bad=BAD,
        failures=_shortened(content.failures),
        labels=labels,
        groups=list(enumerate(labels)),
        summary_tables=summary_tables(content.summary, labels),
        error_pictures=[p for p in content.pictures if p.table == ERRORS],
        diagnosis_pictures=[p for p in content.pictures if p.table != ERRORS],
        effect_tables=effect_tables(content.effects, labels),
        depth_tables=group_tables(content.depths, labels, readable_errors),
        diagnosis_tables=group_tables(content.diagnosis, labels, readable_diagnoses),
        comparison_tables=group_tables(content.diagnosis, labels, readable_comparisons),
        forest_width=FOREST_WIDTH,
        filters=_filters(content.summary),
        **choices,
        curves=_named(CURVES) if data["curves"] else [],
        too_many=len(content.runs) > RUNS_DRAWN,
        runs_drawn=RUNS_DRAWN,
        style=_asset("page.css"),
        scripts=scripts,
        digests=[_digest(script) for script in scripts],
        data=json_text(data),
    )
    return html.lstrip()


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
    order = (*SHOWN, *sorted(set(counts) - {*SHOWN}))
    return [(status, counts[status]) for status in order if counts.get(status)]


def _filters(summary: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The columns a reader may filter by, with their values."""

    def values(column: str) -> list[str]:
        distinct: Any = summary[column].drop_duplicates()
        numeric = pd.api.types.is_numeric_dtype(distinct)
        return [text(value) for value in (distinct.sort_values() if numeric else distinct)]

    columns = [*varied(summary), *(["verdict"] if summary["verdict"].nunique() > 1 else [])]
    return [(column, values(column)) for column in columns]


def _choices(summary: pd.DataFrame) -> dict[str, object]:
    """What may stand on the axes of the plots, and what may colour them."""
    axes = varied(summary)
    few = len(summary) <= FEW
    return {
        "costs": _named(known(summary, COST_CHOICES)),
        "scores": _named(known(summary, SCORES)),
        "axes": [(axis, axis.replace("_", " ")) for axis in ("model", *axes)],
        "point_colour": "order" if "order" in axes else [*axes, "model"][0],
        "curve_colour": "model" if few or not axes else axes[0],
    }


def _named(choices: Sequence[Choice]) -> list[tuple[str, str]]:
    return [(choice.column, choice.label) for choice in choices]


def _shortened(failures: Sequence[Failure]) -> list[Failure]:
    """The failures with as many whole tracebacks as the page has room for."""
    room, kept = TRACEBACKS, []
    for failure in failures:
        room -= len(failure.traceback)
        far = "" if room >= 0 else "(no room on this page; see log.txt in the run's folder)"
        kept.append(replace(failure, traceback=far or failure.traceback))
    return kept
