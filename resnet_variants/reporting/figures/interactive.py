"""The page's interactive figures as Plotly's JSON: accuracy against cost, and training curves.

A figure has a pair of traces per arm. For each choice that the page offers (cost, measure, colour)
it has the attributes of the traces and of the layout that this choice sets. The page's script sets
the chosen ones and hides traces; it computes no number, text or colour. Text has the colours of the
page's style sheet; all other colours can be seen on a light and on a dark page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from resnet_variants.reporting.figures.arms import Look
from resnet_variants.reporting.figures.places import Places, on_front, placed
from resnet_variants.reporting.figures.style import COSTS, GREY
from resnet_variants.reporting.summary import ACCURACY
from resnet_variants.reporting.text import POINTS, cell_text, interval

MEASURES = {
    "val_err": "validation error (%)",
    "val_acc": "validation accuracy (%)",
    "train_loss": "training loss",
}
CURVE_POINTS = 6_000  # of all curves together
BANDS = 6  # arms beyond which bands only blur
# How Plotly and the page's legend draw the looks of `figures.arms`.
_SYMBOLS = {
    **{"s": ("square", "■"), "o": ("circle", "●"), "D": ("diamond", "◆"), "P": ("cross", "✚")},
    **{"^": ("triangle-up", "▲"), "v": ("triangle-down", "▼"), "X": ("x", "✖")},
    **{"<": ("triangle-left", "◀"), ">": ("triangle-right", "▶"), "*": ("star", "★")},
    **{"p": ("pentagon", "⬟"), "h": ("hexagon", "⬢")},
}
_DASHES = {"-": "solid", "--": "7px,3px", ":": "2px,3px", "-.": "7px,3px,2px,3px"}
_MANY_DOTS = "9px,2px,2px,2px,2px,2px"
_FILLS = {"full": "", "none": "-open", "top": "-dot"}  # Plotly has no halves of markers: a dot
_HALF = "-open-dot"
_LETTERS = 40  # of a name on one line of a hover text: more do not fit on a narrow screen
_AXIS = {
    "gridcolor": f"{GREY}4d",
    "linecolor": GREY,
    "showline": True,
    "zeroline": False,
    "automargin": True,
}
LAYOUT: dict[str, Any] = {
    "showlegend": False,
    "hovermode": "closest",
    "margin": {"l": 48, "r": 8, "t": 32, "b": 40},
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#16191d"},
    "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"size": 11}},
    "modebar": {"bgcolor": "#ffffff00", "color": GREY, "activecolor": GREY},
    "template": {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}},
}

Part = dict[str, Any]  # some attributes of a trace or of the layout
# Attribute (`marker.color`) -> its value for each trace, in order. An option leaves alone a trace
# whose value is None, and those after the last value.
Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True)
class Style:
    """How the arms that share a value are drawn."""

    colour: str
    symbol: str
    dash: str
    character: str  # of the legend
    filling: str  # of this character: a class of the style sheet


def style_of(look: Look) -> Style:
    """A look for Plotly and for the page's legend."""
    symbol, character = _SYMBOLS[look["marker"]]
    filling = _FILLS.get(look["fill"], _HALF)
    dash = _DASHES.get(look["linestyle"], _MANY_DOTS)
    return Style(look["color"], symbol + filling, dash, character, f"fill{filling}")


@dataclass(frozen=True)
class Option:
    """What one choice sets in the traces and in the layout."""

    columns: Columns
    layout: Part


@dataclass(frozen=True)
class Interactive:
    """A figure; its traces are of a few kinds.

    Attributes:
        kinds: name of a kind -> what its traces have in common.
        columns: what they do not; ``name`` is the kind, ``meta`` the arm's number on the page.
        options: for each choice and value, what it sets.
        layout: what no choice sets.
    """

    kinds: Mapping[str, Part]
    columns: Columns
    options: Mapping[str, Mapping[str, Option]]
    layout: Part


def known_columns(frame: pd.DataFrame, columns: Iterable[str]) -> list[str]:
    """The columns that have a finite number in at least one row."""
    return [name for name in columns if np.isfinite(frame[name].astype(float)).any()]


# --- accuracy against cost --------------------------------------------------------------------


def cost_figure(
    arms: pd.DataFrame, runs: pd.DataFrame, styles: Mapping[str, Mapping[str, Style]]
) -> Interactive | None:
    """Test accuracy against each cost: single runs, means with intervals, a front for each cost.

    Args:
        arms: the summary of one comparison with short labels as ``arm``; its index numbers the
            arms of the page.
        runs: the comparison's finished runs that are to be drawn.
        styles: for each axis that may colour the figure, the style of each value.

    Returns:
        ``None`` where no arm has a score.
    """
    arms = arms[arms["test_acc_mean"].notna()]
    if arms.empty:
        return None
    by_model = {str(model): own for model, own in runs.groupby("model")}
    own_runs = [by_model.get(str(model), runs[:0]) for model in arms["model"]]
    fronts = {
        column: on_front(arms[arms[column].notna()], column).sort_values(column) for column in COSTS
    }
    mean, low, high = (POINTS * arms[name].astype(float) for name in ACCURACY)
    n = len(arms)
    return Interactive(
        kinds=_COST_KINDS,
        columns={
            "name": ["runs"] * n + ["means"] * n + ["front"] * len(fronts),
            "meta": arms.index.tolist() * 2,
            "text": [
                *([_escaped(run_id) for run_id in own["run_id"]] for own in own_runs),
                *([text] for text in map(_hover_text, arms.to_dict("records"))),
            ],
            "y": [
                *(finite_numbers(POINTS * own["test_acc"]) for own in own_runs),
                *([y] for y in finite_numbers(mean)),
                *(finite_numbers(mean[own.index]) for own in fronts.values()),
            ],
            "error_y.array": [*[None] * n, *([y] for y in finite_numbers(high - mean))],
            "error_y.arrayminus": [*[None] * n, *([y] for y in finite_numbers(mean - low))],
        },
        options={
            "cost-x": {column: _cost(column, arms, own_runs, fronts) for column in COSTS},
            "colour": {
                axis: _markers([own[cell_text(value)] for value in arms[axis]])
                for axis, own in styles.items()
            },
        },
        layout={"yaxis": {"title": {"text": "test accuracy (%)"}}},
    )


# Single runs faint, means with intervals, and the fronts, of which one is shown.
_COST_KINDS: dict[str, Part] = {
    "runs": {
        **{"mode": "markers", "opacity": 0.5},
        "hovertemplate": "%{text}<br>test accuracy %{y:.2f} %<extra></extra>",
    },
    "means": {
        "mode": "markers",
        "error_y": {"type": "data", "symmetric": False, "thickness": 1, "width": 3},
        "marker": {"size": 10, "line": {"width": 1.5, "color": GREY}},
        "hovertemplate": "%{text}<extra></extra>",
    },
    "front": {
        **{"mode": "lines+markers", "line": {"color": GREY, "width": 1}, "connectgaps": True},
        "marker": {"symbol": "circle-open", "size": 18, "color": GREY},
        **{"visible": False, "hoverinfo": "skip"},
    },
}


def _hover_text(arm: Mapping[Hashable, Any]) -> str:
    score = interval(*(arm[name] for name in ACCURACY))
    return (
        f"<b>{_escaped(arm['arm'])}</b><br>{score} %, n = {arm['n']}<br>{_escaped(arm['verdict'])}"
    )


def _cost(
    column: str,
    arms: pd.DataFrame,
    runs: Sequence[pd.DataFrame],
    fronts: Mapping[str, pd.DataFrame],
) -> Option:
    """The arms at their costs, equal ones side by side in a band, and the front by this cost."""
    known = arms[column].dropna()
    places = placed(known, column) if len(known) else None
    x = places.x.reindex(arms.index) if places else pd.Series(np.nan, index=arms.index)
    at = finite_numbers(x)
    columns: Columns = {
        "x": [
            *([x] * len(own) for x, own in zip(at, runs, strict=True)),
            *([x] for x in at),
            *(finite_numbers(x[own.index]) for own in fronts.values()),
        ],
        "visible": [*([None] * 2 * len(arms)), *(name == column for name in fronts)],
    }
    return Option(columns, _cost_axis(column, places))


def _cost_axis(column: str, places: Places | None) -> Part:
    """The axis of a cost, which says what the bands are."""
    label = COSTS[column].label
    if places is None:
        return {"xaxis": {"title": {"text": label}}}
    bands, alike = places.notes["bands"], places.notes["alike"]
    notes = filter(None, [bands and f"grey: {bands}", alike])
    axis: Part = {"title": {"text": "<br>".join([label, *notes])}}
    if places.wide:
        axis |= {"type": "log"}
    if places.limits:
        axis |= {"range": places.limits, "tickvals": [places.alike], "tickformat": ".4"}
    shapes = [_BAND | {"x0": band.left, "x1": band.right} for band in places.bands]
    return {"xaxis": axis, "shapes": shapes}


_BAND: Part = {
    **{"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"},
    **{"fillcolor": f"{GREY}33", "line": {"width": 0}},
}


def _markers(styles: Sequence[Style]) -> Option:
    columns: Columns = {
        "marker.color": [style.colour for style in styles] * 2,
        "marker.symbol": [style.symbol for style in styles] * 2,
    }
    return Option(columns, {})


# --- training curves --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """Means, lowest and highest values of an arm's runs by epoch."""

    arm: int  # its number on the page
    label: str
    seeds: int
    table: pd.DataFrame  # by epoch; columns: measure, then mean, min, max

    @property
    def epochs(self) -> list[int]:
        """The epochs that are drawn."""
        return self.table.index.tolist()


# A line for each curve, and a band over its seeds for each curve that has several.
_CURVE_KINDS: dict[str, Part] = {
    "mean": {
        "line": {"width": 1.75},
        "marker": {"size": 8},
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.3f}, from %{customdata[0]:.3f} to "
        "%{customdata[1]:.3f} over the seeds<extra></extra>",
    },
    "band": {
        **{"mode": "lines", "line": {"width": 0}, "fill": "toself", "opacity": 0.1},
        "hoverinfo": "skip",
    },
}


def curves_figure(
    arms: pd.DataFrame,
    epochs: pd.DataFrame,
    styles: Mapping[str, Mapping[str, Style]],
    *,
    most: int,
) -> Interactive | None:
    """Each measure by epoch: a line per arm, and a band over its seeds.

    Args:
        arms: as in ``cost_figure``.
        epochs: ``EPOCH_COLUMNS`` of the comparison's finished runs.
        styles: as in ``cost_figure``.
        most: points of one curve; longer curves are thinned.

    Returns:
        ``None`` where no epoch is recorded.
    """
    curves = _curves(arms, epochs, most)
    if not curves:
        return None
    banded = [curve for curve in curves if curve.seeds > 1]
    few = all(curve.epochs[-1] < 10 for curve in curves)  # no half epochs on the axis
    styles_by_axis = {
        axis: {arm: own[cell_text(value)] for arm, value in arms[axis].items()}
        for axis, own in styles.items()
    }
    return Interactive(
        kinds=_CURVE_KINDS,
        columns={
            "name": ["mean"] * len(curves) + ["band"] * len(banded),
            "meta": [curve.arm for curve in (*curves, *banded)],
            "x": [*(c.epochs for c in curves), *(c.epochs + c.epochs[::-1] for c in banded)],
            "text": [[f"<b>{_escaped(c.label)}</b>, n = {c.seeds}"] * len(c.table) for c in curves],
            "mode": ["lines" if len(curve.epochs) > 1 else "markers" for curve in curves],
        },
        options={
            "curves-y": {measure: _measure(measure, curves, banded) for measure in MEASURES},
            "colour": {axis: _lines(curves, banded, own) for axis, own in styles_by_axis.items()},
        },
        layout={"xaxis": {"title": {"text": "epoch"}, **({"dtick": 1} if few else {})}},
    )


def _curves(arms: pd.DataFrame, epochs: pd.DataFrame, most: int) -> list[_Curve]:
    percent = {"val_err": 100 - 100 * epochs["val_acc"], "val_acc": 100 * epochs["val_acc"]}
    numbers = epochs.assign(**percent)[[*MEASURES]].astype(float)
    numbers = numbers.replace([np.inf, -np.inf], np.nan)
    tables = numbers.groupby([epochs["model"], epochs["epoch"]]).agg(["mean", "min", "max"])
    runs = epochs.groupby("model")["run_id"].nunique().to_dict()
    return [
        _Curve(arm, label, runs[model], _thinned(tables.loc[model], most))
        for arm, model, label in arms[["model", "arm"]].itertuples(name=None)
        if model in runs
    ]


def _thinned(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most ``most`` rows, the last one among them."""
    step = math.ceil(len(table) / most)
    return table.iloc[::-1].iloc[::step].iloc[::-1]


def _measure(measure: str, curves: Sequence[_Curve], banded: Sequence[_Curve]) -> Option:
    def values(curve: _Curve, name: str) -> list[float | None]:
        return finite_numbers(curve.table[(measure, name)], 5)

    columns: Columns = {
        "y": [
            *(values(curve, "mean") for curve in curves),
            *(values(curve, "max") + values(curve, "min")[::-1] for curve in banded),
        ],
        "customdata": [
            [list(ends) for ends in zip(values(curve, "min"), values(curve, "max"), strict=True)]
            for curve in curves
        ],
    }
    title = {"title": {"text": MEASURES[measure]}}
    scale = {"type": "log"} if measure == "train_loss" else {"range": _range(measure, curves)}
    return Option(columns, {"yaxis": title | scale})


def _range(measure: str, curves: Sequence[_Curve]) -> list[float]:
    """Errors from 0 to what is not far above the median.

    The first epochs of an untrained network would flatten all later ones.
    """
    errors = pd.concat([curve.table["val_err"] for curve in curves])
    top = min(100.0, max(1.0, 1.05 * errors["max"].max()), 3 * (errors["mean"].median() + 5))
    return [0.0, top] if measure == "val_err" else [100.0 - top, 100.0]


def _lines(
    curves: Sequence[_Curve], banded: Sequence[_Curve], styles: Mapping[Hashable, Style]
) -> Option:
    lines, bands = ([styles[curve.arm] for curve in own] for own in (curves, banded))
    columns: Columns = {
        "line.color": [style.colour for style in lines],
        "line.dash": [style.dash for style in lines],
        "marker.color": [style.colour for style in lines],
        "marker.symbol": [style.symbol for style in lines],
        "fillcolor": [*([None] * len(lines)), *(style.colour for style in bands)],
    }
    return Option(columns, {})


# --- values -----------------------------------------------------------------------------------


def finite_numbers(values: pd.Series, digits: int = 6) -> list[float | None]:
    """Rounded for JSON, with more digits than a screen shows; ``None`` for a missing number."""
    return [_rounded(value, digits) for value in values.astype(float)]


def _rounded(value: float, digits: int) -> float | None:
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _escaped(value: object) -> str:
    """Text for Plotly, which reads some HTML; long names are broken into lines."""
    text = str(value)
    lines = [text[at : at + _LETTERS] for at in range(0, len(text), _LETTERS)]
    return "<br>".join(html.escape(line, quote=False) for line in lines)
