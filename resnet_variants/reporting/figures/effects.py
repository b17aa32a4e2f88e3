"""Figures of effects: a forest of intervals, interactions, and error against depth."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.depths import TEST, TRAINING
from resnet_variants.analysis.effects import INTERACTION, MAIN, factors, is_complete
from resnet_variants.analysis.statistics import INCONCLUSIVE, SHARE, TOO_FEW, estimate
from resnet_variants.reporting.figures.style import (
    LINES,
    MARKERS,
    PALETTE,
    looks,
    plain,
    shortened,
    styled,
)
from resnet_variants.reporting.text import POINTS, span

MOST = 60  # effects in one figure, main effects first; the table has all
OPEN = (INCONCLUSIVE, TOO_FEW)  # verdicts whose marker is not filled
_COLOURS = {MAIN: PALETTE[0], INTERACTION: PALETTE[1]}
_PANELS = {TEST: "test error", TRAINING: "training error, last epoch"}
_KINDS = {MAIN: "s", INTERACTION: "o"}


def forest(effects: pd.DataFrame) -> Figure:
    """Each effect with its 95 % interval; the line at zero is no effect.

    Args:
        effects: rows of one group that have an estimate, ``effects.EFFECT_COLUMNS``.
    """
    total, effects = len(effects), effects[:MOST]
    height = 1.5 + 0.28 * len(effects)
    with styled():
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
                markerfacecolor="white" if row["verdict"] in OPEN else _COLOURS[row["kind"]],
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
            f"{first['cells']} variants on {shortened(first['dataset'])}, "
            f"{first['seeds']} seeds as blocks; squares: main effects, circles: interactions\n"
            "intervals are of one effect each; filled: p below 0.05 after Holm's correction"
            + (f"; the first {MOST} of {total}" if total > MOST else ""),
        )
    return figure


def _head(figure: Figure, text: str) -> None:
    """A line over the whole figure, which may be wider than its axes."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, parse_math=False)


def interactions(summary: pd.DataFrame, scores: pd.DataFrame) -> Figure | None:
    """Mean accuracy by one axis for each choice of another; lines in parallel: no interaction.

    Args:
        summary: rows of one group with a mean, ``tables.SUMMARY_COLUMNS``.
        scores: those that the effects are taken from, ``tables.complete``.

    Returns:
        A panel per pair of axes, or ``None`` where fewer than two axes vary, or not all their
        combinations are there.
    """
    summary = summary[summary["model"].isin(scores.columns)]
    if summary.empty:
        return None
    found = factors(summary)
    pairs = list(itertools.combinations(map(str, found), 2))
    if not pairs or not is_complete(found):
        return None
    values = scores[summary["model"]].T.set_axis(found.index)  # a row per cell, a column per seed
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    with styled():
        figure = Figure(
            figsize=(0.6 + 3.4 * max(columns, 2), 0.6 + 2.9 * rows), layout="constrained"
        )
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (inner, outer) in zip(grid.flat, pairs, strict=False):
            if found[inner].nunique() < found[outer].nunique():
                inner, outer = outer, inner
            _interaction(axes, values.groupby([found[outer], found[inner]], sort=False).mean())
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("mean test accuracy")
        about = f"{shortened(summary.iloc[0]['dataset'])}, n = {scores.shape[0]} seeds"
        _head(figure, f"{about}; means over all other axes, {_spread(scores.shape[0])}")
    return figure


def _spread(seeds: int) -> str:
    return "95 % Student intervals" if seeds > 1 else "one seed: no interval"


def _interaction(axes: Axes, values: pd.DataFrame) -> None:
    """A line per choice of the first level of the index; values by seed, as means over cells."""
    outer, inner = values.index.names
    lines, choices = (values.index.unique(level).to_series() for level in (0, 1))
    colours, styles, markers = (looks(lines, shown) for shown in (PALETTE, LINES, MARKERS))
    places = {level: i for i, level in enumerate(choices)}
    for i, level in enumerate(lines):
        own = values.loc[level]
        told = [estimate(row, SHARE) for row in own.to_numpy(float)]
        axes.errorbar(
            # Side by side, so that no interval hides another.
            [places[choice] + 0.06 * (i - (len(lines) - 1) / 2) for choice in own.index],
            [one.mean for one in told],
            yerr=np.abs([[one.low - one.mean, one.high - one.mean] for one in told]).T,
            color=colours[level],
            linestyle=cast("Any", styles[level]),
            marker=markers[level],
            markersize=5,
            elinewidth=1,
            capsize=2,
            label=plain(level),
        )
    axes.set_xticks(range(len(choices)), [str(level) for level in choices], parse_math=False)
    axes.margins(x=0.25)
    axes.set_xlabel(str(inner).replace("_", " "))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(title=str(outer).replace("_", " "), fontsize=8, title_fontsize=8)


def error_vs_depth(table: pd.DataFrame) -> Figure:
    """Test and training error by depth, a line per design: the degradation problem.

    Args:
        table: rows of one group, ``depths.COLUMNS``.
    """
    panels = {title: table[table["split"] == split] for split, title in _PANELS.items()}
    panels = {title: points for title, points in panels.items() if len(points)}
    with styled():
        height = 3.2 + 0.1 * table["design"].nunique()  # two designs to a line of the legend
        figure = Figure(figsize=(0.8 + 3.6 * len(panels), height), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(grid, panels.items(), strict=True):
            _depths(axes, points)
            axes.set_title(title, loc="left")
        about = f"{shortened(table.iloc[0]['dataset'])}, n = {span(table['seeds'])} seeds"
        _head(figure, f"{about}, {_spread(table['seeds'].max())}")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _depths(axes: Axes, points: pd.DataFrame) -> None:
    colours, lines = looks(points["design"], PALETTE), looks(points["design"], LINES)
    markers = looks(points["design"], MARKERS)
    for name, own in points.sort_values("depth").groupby("design", sort=False):
        spread = np.abs(own[["ci_low", "ci_high"]].to_numpy(float).T - own["mean"].to_numpy(float))
        axes.errorbar(
            own["depth"],
            own["mean"],
            yerr=spread,
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
