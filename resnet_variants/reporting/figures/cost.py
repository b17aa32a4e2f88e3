"""Accuracy against cost: one marker per network, with its interval, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.statistics import pareto_front
from resnet_variants.analysis.verdicts import BASELINE
from resnet_variants.reporting.figures.arms import Arms, arms_of, drawn
from resnet_variants.reporting.figures.style import (
    COLUMN,
    COSTS,
    counted,
    headline,
    intervals_named,
    legend_below,
    logarithmic,
    plain,
    robust_range,
    shortened,
    styled,
)
from resnet_variants.reporting.summary import ACCURACY
from resnet_variants.reporting.text import POINTS

# A ring around each point of the front, so that a front of one shows too.
FRONT: dict[str, Any] = {
    "color": "0.6",
    "linestyle": "-",
    "linewidth": 1,
    "marker": "o",
    "markersize": 12,
    "markerfacecolor": "none",
    "zorder": 1,
}
MAIN = "macs"  # the figure that each report has
_LITTLE = 0.02  # of itself; a cost that spans less tells no networks apart
_MANY = 20.0  # times as much, from where on costs are drawn on a logarithmic axis
_BAND: dict[str, Any] = {"color": "0.9", "linewidth": 0, "zorder": 0}
_SLOWER: dict[str, Any] = {"linewidth": 5, "alpha": 0.25, "solid_capstyle": "butt", "zorder": 1}
_GAP = 7.0  # points from a mark's middle to its label


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
    MAIN: Cost("macs", ("flops", 2.0), "MACs"),
    "params": Cost("params", noun="parameters"),
    "train_time": Cost("train_ms_per_image"),
    "latency": Cost("latency_ms"),
}


def accuracy_vs_cost(comparison: Comparison, name: str = MAIN) -> Figure | None:
    """Test accuracy with its interval against a cost; a line joins the Pareto front.

    Networks of equal cost are drawn side by side in a grey band.

    Args:
        comparison: networks without a score or without the cost are left out.
        name: one of ``COSTS_DRAWN``.

    Returns:
        ``None`` where no network is left, or where a cost other than ``MAIN`` is nearly the same
        for all of them.
    """
    cost = COSTS_DRAWN[name]
    summary = comparison.summary
    rows = summary[(summary["n"] > 0) & summary[cost.column].notna()]
    if rows.empty:
        return None
    costs = rows[cost.column].astype(float)
    alike = _excess(costs) < _LITTLE
    if alike and name != MAIN:
        return None
    arms = arms_of(comparison)
    limits = robust_range(rows[[*ACCURACY]].to_numpy(float))
    shown = rows["test_acc_mean"].clip(*(limits or (None, None)))
    rows = rows.assign(y=shown, edge=shown != rows["test_acc_mean"])
    rows = rows.assign(slower=_slower(rows, cost.column))
    with styled():
        figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
        axes = figure.add_subplot()
        places, bands = _places(costs * COSTS[cost.column][1], exact=bool(cost.noun), alike=alike)
        rows = rows.assign(x=places)
        for band in bands:
            axes.axvspan(band.left, band.right, **_BAND)
        for row in rows.to_dict("records"):
            _point(axes, row, drawn(arms.look(row["model"])))
        front = on_front(rows, cost.column).sort_values("x")
        axes.plot(front["x"], front["y"], **FRONT)
        _scales(axes, costs, cost, alike=alike)
        axes.set_ylim(limits)
        headline(figure, _caption(rows, cost, comparison, alike=alike))
        if len(rows) > 1:
            legend_below(figure, _legend(arms, rows, front, cost, bands))
            _name_points(figure, axes, rows, front.index, arms)
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


def _excess(costs: pd.Series) -> float:
    """How much more than the lowest cost the highest one is, as a part of it."""
    return float(costs.max() / costs.min()) - 1


# --- places on the axis -----------------------------------------------------------------------


def dodged(costs: pd.Series) -> pd.Series:
    """Costs, pushed apart in their order where markers would hide each other."""
    values = costs.to_numpy(float)
    step = _step(costs)
    order = np.argsort(values, kind="stable")
    clusters: list[list[float]] = []  # of neighbours that touch: their costs
    for value in values[order]:
        clusters.append([value])
        while len(clusters) > 1 and _start(clusters[-1], step) < _end(clusters[-2], step) + step:
            last = clusters.pop()
            clusters[-1] += last
    places = [_start(own, step) + step * i for own in clusters for i in range(len(own))]
    return pd.Series(np.array(places)[np.argsort(order)], index=costs.index)


def _step(costs: pd.Series) -> float:
    width = float(np.ptp(costs)) or 0.5 * float(costs.max())
    return width * min(0.035, 0.5 / len(costs))


def _start(cluster: list[float], step: float) -> float:
    return sum(cluster) / len(cluster) - step * (len(cluster) - 1) / 2


def _end(cluster: list[float], step: float) -> float:
    return _start(cluster, step) + step * (len(cluster) - 1)


@dataclass(frozen=True)
class _Band:
    """A part of the cost axis in which networks are side by side."""

    left: float
    right: float
    excess: float  # of the highest of their costs over the lowest


def _places(costs: pd.Series, *, exact: bool, alike: bool) -> tuple[pd.Series, list[_Band]]:
    """Where each network is drawn on the cost axis, and the bands."""
    if not exact:
        return costs, []
    into, back = (np.log10, lambda x: 10**x) if _is_wide(costs) else (np.array, np.array)
    own = pd.Series(into(costs), index=costs.index)
    if alike:
        own[:] = own.mean()
    step = _step(own)
    places = dodged(own).sort_values()
    groups = [group for _, group in places.groupby((places.diff() > 1.01 * step).cumsum())]
    bands = [
        _Band(
            float(back(group.iloc[0] - 0.7 * step)),
            float(back(group.iloc[-1] + 0.7 * step)),
            _excess(costs[group.index]),
        )
        for group in groups
        if len(group) > 1
    ]
    return pd.Series(back(places), index=places.index), bands


def _is_wide(costs: pd.Series) -> bool:
    return bool(costs.max() > _MANY * costs.min())


# --- what is drawn ----------------------------------------------------------------------------


def _point(axes: Axes, row: dict[Hashable, Any], look: dict[str, Any]) -> None:
    """A network's mark and interval; at the edge of the frame its mark alone."""
    x, y = row["x"], row["y"]
    mean, low, high = (row[name] for name in ACCURACY)
    if row["slower"]:
        axes.plot([x, x + row["slower"]], [y, y], color=look["color"], **_SLOWER)
    drawn_bar = axes.errorbar(
        [x],
        [y],
        yerr=None if np.isnan(low) or row["edge"] else [[mean - low], [high - mean]],
        **look,
        markersize=6,
        elinewidth=1,
        capsize=2,
        clip_on=not row["edge"],
    )
    for bar in drawn_bar.lines[2]:
        bar.set_linestyle(look["linestyle"])


def _scales(axes: Axes, costs: pd.Series, cost: Cost, *, alike: bool) -> None:
    label, scale = COSTS[cost.column]
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy")
    axes.margins(x=0.12, y=0.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if alike:  # room that says nothing of costs, around a single tick
        middle = scale * float(costs.mean())
        axes.set_xlim(0.7 * middle, 1.3 * middle)
        axes.set_xticks([middle], [f"{middle:.4g}"])
    elif _is_wide(costs):
        logarithmic(axes, "x")
    if cost.second:
        column, factor = cost.second
        top = axes.secondary_xaxis("top", functions=(_times(factor), _times(1 / factor)))
        top.set_xlabel(COSTS[column][0])
        if alike or _is_wide(costs):
            ticks = axes.get_xticks()
            top.set_xticks(factor * ticks, [f"{factor * tick:.4g}" for tick in ticks])


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def _caption(rows: pd.DataFrame, cost: Cost, comparison: Comparison, *, alike: bool) -> list[str]:
    sizes = [
        f"ResNet-{depth} ({family})"
        for family, depth in rows[["family", "depth"]].drop_duplicates().to_numpy()
    ]
    networks = ", ".join(sizes) if len(sizes) < 3 else f"{len(sizes)} depths"
    notes = [
        f"{networks} on {shortened(comparison.data)}",
        counted([comparison.key["epochs"]], "epoch"),
        f"n = {counted(rows['n'], 'seed')}",
        intervals_named(rows["n"].max()),
    ]
    if alike and len(rows) > 1:
        notes.append(f"all have nearly the same {cost.noun}")
    if rows["edge"].any():
        notes.append("an arrow: beyond the frame, with its value")
    return notes


def _legend(
    arms: Arms, rows: pd.DataFrame, front: pd.DataFrame, cost: Cost, bands: Sequence[_Band]
) -> list[Artist]:
    handles: list[Artist] = [*arms.legend(rows["model"])]
    bases = {plain(arms.labels[model]) for model in rows.loc[rows["verdict"] == BASELINE, "model"]}
    for handle in handles:
        if handle.get_label() in bases:
            handle.set_label(f"{handle.get_label()} (baseline)")
    if len(front):
        handles.append(Line2D([], [], **FRONT, label="Pareto front of the means"))
    if bands:
        excess = POINTS * max(band.excess for band in bands)
        equal = f"equal {cost.noun}" if excess == 0 else f"{cost.noun} equal to {excess:.1g} %"
        handles.append(Patch(color=_BAND["color"], label=f"{equal}, side by side"))
    if rows["slower"].any():
        handles.append(Line2D([], [], color="0.4", **_SLOWER, label="to the median run"))
    return handles


# --- labels -----------------------------------------------------------------------------------


def _name_points(
    figure: Figure, axes: Axes, rows: pd.DataFrame, front: pd.Index, arms: Arms
) -> None:
    """Labels beside the marks, where there is room for one.

    A label covers no mark, line or other label; one without room is left out, as the legend has
    it. Values of marks at the edge come first, then baselines and the Pareto front.
    """
    figure.draw_without_rendering()  # the layout decides how much room there is
    points = figure.dpi / 72
    rows = _in_pixels(axes, rows)
    taken = [box for row in rows.itertuples() for box in _covered(row, points)]
    taken += _along(rows.loc[front, ["left", "middle"]].to_numpy())
    rank = 4 * rows["edge"] + 2 * (rows["verdict"] == BASELINE) + rows.index.isin(front)
    for row in rows.loc[rank.sort_values(ascending=False, kind="stable").index].itertuples():
        label = axes.annotate(
            plain(_name(row, arms.labels[row.model])),
            (row.x, row.y),
            (0, 0),
            textcoords="offset points",
            color=arms.look(row.model)["color"],
            fontsize=8,
            va="bottom",
        )
        box = label.get_window_extent()
        places = [Bbox.from_bounds(*at, box.width, box.height) for at in _around(row, box, points)]
        inside = (place for place in places if axes.bbox.count_contains(place.corners()) == 4)
        # A value is nowhere else in the figure.
        last = places[0] if row.edge else None
        place = next((one for one in inside if not one.count_overlaps(taken)), last)
        if place is None:
            label.remove()
            continue
        label.set_position(((place.x0 - row.left) / points, (place.y0 - row.middle) / points))
        taken.append(place)


def _name(row: Any, text: str) -> str:
    """What is written beside a mark."""
    if not row.edge:
        return text
    return f"{text} {POINTS * row.test_acc_mean:.1f} % {'↓' if row.test_acc_mean < row.y else '↑'}"


def _in_pixels(axes: Axes, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the pixels of marks, of intervals and of the bars to median times."""

    def pixels(x: pd.Series, y: pd.Series) -> np.ndarray:
        return axes.transData.transform(np.column_stack([x, y])).T

    left, middle = pixels(rows["x"], rows["y"])
    right, _ = pixels(rows["x"] + rows["slower"], rows["y"])
    low, high = (
        pixels(rows["x"], rows[name].where(~rows["edge"]).fillna(rows["y"]))[1]
        for name in ACCURACY[1:]
    )
    return rows.assign(left=left, right=right, middle=middle, low=low, high=high)


def _covered(row: Any, points: float) -> Iterator[Bbox]:
    """The boxes of a network's mark, of its interval and of the bar to its median time."""
    mark, line, bar = 6 * points, 2 * points, 3 * points
    x, y = row.left, row.middle
    yield Bbox.from_extents(x - mark, y - mark, x + mark, y + mark)
    yield Bbox.from_extents(x - line, row.low, x + line, row.high)
    yield Bbox.from_extents(x, y - bar, row.right, y + bar)


def _along(corners: np.ndarray) -> list[Bbox]:
    """Small boxes along a line through these pixels."""
    parts = np.linspace(0, 1, 40)[:, None]
    steps = [start + parts * (end - start) for start, end in pairwise(corners)]
    return [Bbox([at - 1, at + 1]) for line in steps for at in line]


def _around(row: Any, box: Bbox, points: float) -> list[tuple[float, float]]:
    """Where a label may begin, the best place first."""
    gap = _GAP * points
    right, left, centre = row.left + gap, row.left - gap - box.width, row.left - box.width / 2
    half, down = row.middle - box.height / 2, row.middle - box.height
    beside = [(x, y) for y in (half, row.middle, down) for x in (right, left)]
    over = max(row.high, row.middle + gap) + points
    under = min(row.low, row.middle - gap) - points - box.height
    return [*beside, (centre, over), (centre, under)]
