"""Accuracy against cost: one marker per variant, with its interval, and the Pareto front.

Colour and line of the interval are the activation order, the marker's filling is the stem, its
shape everything else: nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.statistics import BASELINE, pareto_front
from resnet_variants.reporting.figures.style import (
    COSTS,
    FILLS,
    LINES,
    MARKERS,
    PALETTE,
    intervals_named,
    marker_label,
    plain,
    shortened,
    styled,
    styles,
)
from resnet_variants.reporting.summary import ACCURACY
from resnet_variants.reporting.text import span

# A ring around each point of the front, so that a front of one shows too.
FRONT: dict[str, Any] = {
    "color": "0.6",
    "linestyle": "-",
    "linewidth": 1,
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "zorder": 1,
}


@dataclass(frozen=True)
class Cost:
    """A column of the summary to draw accuracy against.

    Attributes:
        second: the column on the upper axis, and its units per unit of this one.
        noun: of an exact cost, whose ties are drawn side by side; empty for a measured cost.
    """

    column: str
    second: tuple[str, float] | None = None
    noun: str = ""


COSTS_DRAWN = {  # by the name of the figure: accuracy_vs_NAME
    "macs": Cost("macs", ("flops", 2.0), "MACs"),
    "params": Cost("params", noun="parameters"),
    "train_time": Cost("train_ms_per_image"),
    "latency": Cost("latency_ms"),
}


@dataclass(frozen=True)
class _Styles:
    """How the choices of each axis are drawn."""

    colour: dict[Hashable, str]  # by order
    line: dict[Hashable, Any]  # by order
    marker: dict[Hashable, str]  # by all other axes
    fill: dict[Hashable, str]  # by stem


def accuracy_vs_cost(comparison: Comparison, name: str = "macs") -> Figure | None:
    """Test accuracy with its interval against a cost; a line joins the Pareto front.

    Args:
        comparison: networks without a score or without the cost are left out.
        name: one of ``COSTS_DRAWN``.

    Returns:
        ``None`` where no network is left.
    """
    cost = COSTS_DRAWN[name]
    label, scale = COSTS[cost.column]
    summary = comparison.summary
    rows = summary[(summary["n"] > 0) & summary[cost.column].notna()]
    if rows.empty:
        return None
    x = dodged(rows[cost.column]) if cost.noun else rows[cost.column]
    rows = rows.assign(label=marker_label, x=x * scale, slower=_slower(rows, cost.column))
    style = _Styles(
        colour=styles(rows["order"], PALETTE),
        line=styles(rows["order"], LINES),
        marker=styles(rows["label"], MARKERS),
        fill=styles(rows["stem"], FILLS),
    )
    with styled():
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for row in rows.to_dict("records"):
            _point(axes, row, style)
        front = on_front(rows, cost.column).sort_values("x")
        axes.plot(front["x"], front["test_acc_mean"], **FRONT)
        _scales(axes, label, cost.second)
        caption = _caption(rows, cost, comparison.key)
        axes.set_title(caption, loc="left", fontsize=9, parse_math=False)
        handles = _legend(style, front=not front.empty)
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def on_front(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The ranked networks on the Pareto front; none for training times, which are too noisy.

    (``bench`` interleaves its measurements of latency; a sweep does not interleave its runs.)
    """
    ranked = rows[rows["test_acc_common"].notna()]
    if column == "train_ms_per_image":
        return ranked[:0]
    return ranked[pareto_front(*ranked[[column, "test_acc_common"]].to_numpy(float).T)]


def _slower(rows: pd.DataFrame, column: str) -> pd.Series:
    """How much slower than the fastest run the median was."""
    if column != "train_ms_per_image":
        return pd.Series(0.0, index=rows.index)
    return (1000 / rows["images_per_second"] - rows[column]).clip(lower=0.0)


def _scales(axes: Axes, label: str, second: tuple[str, float] | None) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.margins(x=0.12)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if second:
        column, factor = second
        top = axes.secondary_xaxis("top", (_times(factor), _times(1 / factor)))
        top.set_xlabel(COSTS[column][0])


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def dodged(costs: pd.Series) -> pd.Series:
    """Costs, pushed apart in their order where markers would hide each other."""
    values = costs.to_numpy(float)
    width = float(np.ptp(values)) or 0.5 * float(values.max())
    step = width * min(0.025, 0.5 / len(values))
    order = np.argsort(values, kind="stable")
    clusters: list[list[float]] = []  # of neighbours that touch: their costs
    for value in values[order]:
        clusters.append([value])
        while len(clusters) > 1 and _start(clusters[-1], step) < _end(clusters[-2], step) + step:
            last = clusters.pop()
            clusters[-1] += last
    places = [_start(own, step) + step * i for own in clusters for i in range(len(own))]
    return pd.Series(np.array(places)[np.argsort(order)], index=costs.index)


def _start(cluster: list[float], step: float) -> float:
    return sum(cluster) / len(cluster) - step * (len(cluster) - 1) / 2


def _end(cluster: list[float], step: float) -> float:
    return _start(cluster, step) + step * (len(cluster) - 1)


def _point(axes: Axes, row: dict[Hashable, Any], style: _Styles) -> None:
    x, mean, low, high = (row[key] for key in ("x", *ACCURACY))
    colour = style.colour[row["order"]]
    drawn = axes.errorbar(
        [x],
        [mean],
        yerr=None if np.isnan(low) else [[mean - low], [high - mean]],
        xerr=[[0.0], [row["slower"]]] if row["slower"] else None,
        color=colour,
        marker=style.marker[row["label"]],
        markersize=6,
        **_filling(style.fill[row["stem"]], colour),
        elinewidth=1,
        capsize=2,
    )
    for bar in drawn.lines[2]:
        bar.set_linestyle(cast("Any", style.line[row["order"]]))
    text = f"{row['preset']} (baseline)" if row["verdict"] == BASELINE else row["preset"]
    if text:
        axes.annotate(
            plain(text.strip()),
            (x, mean),
            xytext=(4, 4 - 12 * (list(style.colour).index(row["order"]) % 2)),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            fontweight="bold",
        )


def _caption(rows: pd.DataFrame, cost: Cost, key: Mapping[str, Any]) -> str:
    sizes = [
        f"ResNet-{depth} ({family})"
        for family, depth in rows[["family", "depth"]].drop_duplicates().to_numpy()
    ]
    networks = ", ".join(sizes) if len(sizes) < 3 else f"{len(sizes)} depths"
    beside = f"equal {cost.noun} stand side by side" if cost.noun else ""
    if rows["slower"].any():
        beside = "bars to the right: the median run"
    return (
        f"{networks} on {shortened(key['dataset'])} at {key['img_size']} px, "
        f"{key['epochs']} epochs; n = {span(rows['n'])} seeds, {intervals_named(rows['n'].max())}\n"
        + "; ".join(filter(None, ["letters: ResNet-A to D", beside]))
    )


def _filling(fill: str, colour: str) -> dict[str, Any]:
    """A marker's filling on white ground, which hides the interval behind it."""
    if fill == "none":
        return {"markerfacecolor": "white"}
    return {"markerfacecolor": colour, "markerfacecoloralt": "white", "fillstyle": fill}


def _legend(style: _Styles, *, front: bool) -> list[Line2D]:
    def entry(label: object, **changes: Any) -> Line2D:
        grey = {"linestyle": "", "markersize": 6, "color": "0.4", "label": plain(label)}
        return Line2D([], [], **grey | changes)

    # A shape without another meaning.
    unused = next((m for m in MARKERS if m not in style.marker.values()), "o")
    return [
        *(
            entry(order, color=colour, linestyle=style.line[order])
            for order, colour in style.colour.items()
        ),
        *(
            entry(text, marker=marker, **_filling("none", "0.4"))
            for text, marker in style.marker.items()
        ),
        *(
            entry(f"{stem} stem", marker=unused, **_filling(fill, "0.4"))
            for stem, fill in style.fill.items()
        ),
        *([entry("Pareto front of the means", **FRONT)] if front else []),
    ]
