"""Figures of effects: a forest of intervals, interactions, and error against depth."""

from __future__ import annotations

import itertools
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.effects import INTERACTION, MAIN, factors, is_complete
from resnet_variants.analysis.formats import POINTS
from resnet_variants.analysis.plots import INTERVAL
from resnet_variants.analysis.statistics import estimate
from resnet_variants.analysis.style import LINES, MARKERS, PALETTE, STYLE, looks, plain

MOST = 60  # effects in one figure, main effects first; the table has all
_COLOURS = {MAIN: PALETTE[0], INTERACTION: PALETTE[1]}
_KINDS = {MAIN: "s", INTERACTION: "o"}


def forest(effects: pd.DataFrame) -> Figure:
    """Each effect with its 95 % interval; the line at zero is no effect.

    Args:
        effects: rows of one group that have an estimate, ``effects.EFFECT_COLUMNS``.
    """
    total, effects = len(effects), effects[:MOST]
    height = 1.3 + 0.28 * len(effects)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="0.4", lw=1)
        for at, row in enumerate(effects.to_dict("records")):
            mean, low, high = (POINTS * row[name] for name in ("estimate", "ci_low", "ci_high"))
            axes.errorbar(
                [mean],
                [-at],
                xerr=None if np.isnan(low) else [[mean - low], [high - mean]],
                color=_COLOURS[row["kind"]],
                marker=_KINDS[row["kind"]],
                markersize=5,
                capsize=2,
                label=row["kind"],
            )
        labels = effects["effect"] + ": " + effects["contrast"]
        axes.set_yticks(-np.arange(len(effects)), labels.tolist(), parse_math=False)
        axes.set_xlabel("effect on test accuracy, points [95 % interval]")
        first = effects.iloc[0]
        _head(
            figure,
            f"{first['cells']} variants on {first['dataset']}, {first['seeds']} seeds as blocks; "
            "squares: main effects, circles: interactions"
            + (f"; the first {MOST} of {total}" if total > MOST else ""),
        )
    return figure


def _head(figure: Figure, text: str) -> None:
    """A line over the whole figure, which may be wider than its axes."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, parse_math=False)


def interactions(summary: pd.DataFrame) -> Figure | None:
    """Mean accuracy by one axis for each choice of another; lines in parallel: no interaction.

    Args:
        summary: rows of one group with a mean, ``tables.SUMMARY_COLUMNS``.

    Returns:
        A panel per pair of axes, or ``None`` where fewer than two axes vary, or not all their
        combinations are there.
    """
    found = factors(summary)
    pairs = list(itertools.combinations(map(str, found), 2))
    if not pairs or not is_complete(found):
        return None
    scored = found.assign(mean=summary["test_acc_mean"].astype(float))
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.6 + 3.4 * columns, 0.6 + 2.9 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (inner, outer) in zip(grid.flat, pairs, strict=False):
            if found[inner].nunique() < found[outer].nunique():
                inner, outer = outer, inner
            _interaction(axes, scored, inner, outer)
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("mean test accuracy")
        first = summary.iloc[0]
        _head(figure, f"{first['dataset']}, {_seeds(summary)}; means over all other axes")
    return figure


def _seeds(summary: pd.DataFrame) -> str:
    low, high = summary["n"].min(), summary["n"].max()
    return f"n = {low} seeds" if low == high else f"n = {low} to {high} seeds"


def _interaction(axes: Axes, scored: pd.DataFrame, inner: str, outer: str) -> None:
    means = scored.pivot_table(index=inner, columns=outer, values="mean", sort=False)
    colours, lines = looks(scored[outer], PALETTE), looks(scored[outer], LINES)
    markers = looks(scored[outer], MARKERS)
    for level in means:
        axes.plot(
            range(len(means)),
            means[level],
            color=colours[level],
            linestyle=cast("Any", lines[level]),
            marker=markers[level],
            markersize=5,
            label=plain(level),
        )
    axes.set_xticks(range(len(means)), [str(level) for level in means.index], parse_math=False)
    axes.margins(x=0.15)
    axes.set_xlabel(inner.replace("_", " "))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(title=outer.replace("_", " "), fontsize=8, title_fontsize=8)


def error_vs_depth(summary: pd.DataFrame, last: pd.DataFrame) -> Figure | None:
    """Test and training error by depth, a line per design: the degradation problem.

    (arXiv:1512.03385, figures 1 and 6: a plain net's training error rises with its depth.)

    Args:
        summary: rows of one group with a mean, ``tables.SUMMARY_COLUMNS``.
        last: each done run's last epoch: columns model and train_acc.

    Returns:
        ``None`` where no design has two depths.
    """
    found = factors(summary)
    others = [str(axis) for axis in found if "depth" not in str(axis).split("/")]
    if len(others) == found.shape[1]:
        return None
    names = summary["family"].astype(str) if not others else found[others].agg(", ".join, axis=1)
    names = names.where(summary["shortcut"] != "none", "plain net (" + names + ")")
    rows = summary.assign(design=names)
    rows = rows[rows.groupby("design")["depth"].transform("nunique") > 1]
    if rows.empty:
        return None
    training = _training_error(rows, last)
    panels = {"test error": _test_error(rows)}
    if not training.empty:
        panels["training error, last epoch"] = training
    with mpl.rc_context(STYLE):
        height = 3.2 + 0.1 * rows["design"].nunique()  # two designs to a line of the legend
        figure = Figure(figsize=(0.8 + 3.6 * len(panels), height), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(grid, panels.items(), strict=True):
            _depths(axes, points)
            axes.set_title(title, loc="left")
        _head(figure, f"{summary.iloc[0]['dataset']}, {_seeds(summary)}, 95 % Student intervals")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _test_error(rows: pd.DataFrame) -> pd.DataFrame:
    low, high = (1 - rows[name].astype(float) for name in reversed(INTERVAL))
    return rows[["design", "depth"]].assign(error=1 - rows["test_acc_mean"], low=low, high=high)


def _training_error(rows: pd.DataFrame, last: pd.DataFrame) -> pd.DataFrame:
    known = last.dropna(subset=["train_acc"])
    points = []
    for row in rows.to_dict("records"):
        errors = 1 - known.loc[known["model"] == row["model"], "train_acc"].to_numpy(float)
        if len(errors):
            found = estimate(errors)
            points.append(
                {"design": row["design"], "depth": row["depth"], "error": found.mean}
                | {"low": found.low, "high": found.high}
            )
    return pd.DataFrame(points)


def _depths(axes: Axes, points: pd.DataFrame) -> None:
    colours, lines = looks(points["design"], PALETTE), looks(points["design"], LINES)
    markers = looks(points["design"], MARKERS)
    for name, own in points.sort_values("depth").groupby("design", sort=False):
        spread = np.abs(own[["low", "high"]].to_numpy(float).T - own["error"].to_numpy(float))
        axes.errorbar(
            own["depth"],
            own["error"],
            yerr=np.nan_to_num(spread),
            color=colours[name],
            linestyle=cast("Any", lines[name]),
            marker=markers[name],
            markersize=5,
            capsize=2,
            label=plain(name),
        )
    axes.set_xticks(sorted(points["depth"].unique()))
    axes.set_xlabel("depth (layers)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
