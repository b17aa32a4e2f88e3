"""Accuracy against cost: one marker per network, with its interval, and the Pareto front."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
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
from resnet_variants.analysis.verdicts import BASELINE
from resnet_variants.reporting.figures.arms import Arms, arms_of, drawn
from resnet_variants.reporting.figures.places import Places, is_alike, on_front, placed
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
_BAND: dict[str, Any] = {"color": "0.9", "linewidth": 0, "zorder": 0}
_SLOWER: dict[str, Any] = {"linewidth": 5, "alpha": 0.25, "solid_capstyle": "butt", "zorder": 1}
_GAP = 7.0  # points from a mark's middle to its label


COSTS_DRAWN = {  # by the name of the figure, accuracy_vs_NAME: the column of the summary
    MAIN: "macs",
    "params": "params",
    "train_time": "train_ms_per_image",
    "latency": "latency_ms",
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
    column = COSTS_DRAWN[name]
    summary = comparison.summary
    rows = summary[(summary["n"] > 0) & summary[column].notna()]
    if rows.empty or (name != MAIN and is_alike(rows[column].astype(float))):
        return None
    arms = arms_of(comparison)
    limits = robust_range(rows[[*ACCURACY]].to_numpy(float))
    shown = rows["test_acc_mean"].clip(*(limits or (None, None)))
    places = placed(rows[column], column)
    edge, slower = shown != rows["test_acc_mean"], _slower(rows, column)
    rows = rows.assign(x=places.x, y=shown, edge=edge, slower=slower)
    with styled():
        figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for band in places.bands:
            axes.axvspan(band.left, band.right, **_BAND)
        for row in rows.to_dict("records"):
            _point(axes, row, drawn(arms.look(row["model"])))
        front = on_front(rows, column).sort_values("x")
        axes.plot(front["x"], front["y"], **FRONT)
        _scales(axes, column, places)
        axes.set_ylim(limits)
        headline(figure, _caption(rows, places, comparison))
        if len(rows) > 1:
            legend_below(figure, _legend(arms, rows, front, places))
            _name_points(figure, axes, rows, front.index, arms)
    return figure


def _slower(rows: pd.DataFrame, column: str) -> pd.Series:
    """How much slower than the fastest run the median was."""
    if column != "train_ms_per_image":
        return pd.Series(0.0, index=rows.index)
    return (1000 / rows["images_per_second"] - rows[column]).clip(lower=0.0)


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


def _scales(axes: Axes, column: str, places: Places) -> None:
    axes.set_xlabel(COSTS[column].label)
    axes.set_ylabel("test accuracy")
    axes.margins(x=0.12, y=0.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if places.alike is not None:  # a single tick
        axes.set_xlim(places.limits)
        axes.set_xticks([places.alike], [f"{places.alike:.4g}"])
    elif places.wide:
        logarithmic(axes, "x")
    if column == "macs":  # one MAC is two FLOPs
        functions: Any = (lambda macs: 2 * macs, lambda flops: flops / 2)
        top = axes.secondary_xaxis("top", functions=functions)
        top.set_xlabel(COSTS["flops"].label)
        if places.alike is not None or places.wide:
            ticks = axes.get_xticks()
            top.set_xticks(2 * ticks, [f"{2 * tick:.4g}" for tick in ticks])


def _caption(rows: pd.DataFrame, places: Places, comparison: Comparison) -> list[str]:
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
    if places.notes["alike"]:
        notes.append(places.notes["alike"])
    if rows["edge"].any():
        notes.append("an arrow: beyond the frame, with its value")
    return notes


def _legend(arms: Arms, rows: pd.DataFrame, front: pd.DataFrame, places: Places) -> list[Artist]:
    handles: list[Artist] = [*arms.legend(rows["model"])]
    bases = {plain(arms.labels[model]) for model in rows.loc[rows["verdict"] == BASELINE, "model"]}
    for handle in handles:
        if handle.get_label() in bases:
            handle.set_label(f"{handle.get_label()} (baseline)")
    if len(front):
        handles.append(Line2D([], [], **FRONT, label="Pareto front of the means"))
    if places.bands:
        handles.append(Patch(color=_BAND["color"], label=places.notes["bands"]))
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
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)  # it decides how much room there is
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
