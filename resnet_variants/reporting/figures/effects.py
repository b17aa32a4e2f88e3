"""Figures of effects: a forest of intervals, interactions, and error against depth."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.depths import TEST, TRAINING
from resnet_variants.analysis.effects import INTERACTION, MAIN
from resnet_variants.analysis.factors import factors, is_complete
from resnet_variants.analysis.statistics import INCONCLUSIVE, SHARE, TOO_FEW, estimate
from resnet_variants.reporting.figures.style import (
    PALETTE,
    headline,
    intervals_named,
    line_styles,
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


def forest(comparison: Comparison) -> Figure | None:
    """Each effect with its 95 % interval; the line at zero is no effect.

    ``None`` where no effect has an estimate.
    """
    known = comparison.effects[comparison.effects["estimate"].notna()]
    if known.empty:
        return None
    total, effects = len(known), known[:MOST]
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
        headline(
            figure,
            f"{first['cells']} variants on {shortened(comparison.key['dataset'])}, "
            f"{first['seeds']} seeds as blocks; squares: main effects, circles: interactions\n"
            "intervals are of one effect each; filled: p below 0.05 after Holm's correction"
            + (f"; the first {MOST} of {total}" if total > MOST else ""),
        )
    return figure


def interactions(comparison: Comparison) -> Figure | None:
    """Mean accuracy by one axis for each choice of another; parallel lines: no interaction.

    A panel per pair of axes. ``None`` where fewer than two axes vary, or where some of their
    combinations are missing.
    """
    scores = comparison.common_scores
    cells = comparison.cells[comparison.cells["model"].isin(scores.columns)]
    if cells.empty:
        return None
    levels = factors(cells)
    pairs = list(itertools.combinations(map(str, levels), 2))
    if not pairs or not is_complete(levels):
        return None
    values = scores[cells["model"]].T.set_axis(levels.index)  # (cells, seeds)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    with styled():
        figure = Figure(
            figsize=(0.6 + 3.4 * max(columns, 2), 0.6 + 2.9 * rows), layout="constrained"
        )
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (inner, outer) in zip(grid.flat, pairs, strict=False):
            if levels[inner].nunique() < levels[outer].nunique():
                inner, outer = outer, inner
            _interaction(axes, values.groupby([levels[outer], levels[inner]], sort=False).mean())
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("mean test accuracy")
        about = f"{shortened(comparison.key['dataset'])}, n = {scores.shape[0]} seeds"
        headline(figure, f"{about}; means over all other axes, {intervals_named(scores.shape[0])}")
    return figure


def _interaction(axes: Axes, values: pd.DataFrame) -> None:
    """A line per choice of the first level of the index; values by seed, as means over cells."""
    outer, inner = values.index.names
    lines, choices = (values.index.unique(level).to_series() for level in (0, 1))
    style = line_styles(lines)
    places = {level: i for i, level in enumerate(choices)}
    for i, level in enumerate(lines):
        line = values.loc[level]
        means = [estimate(row, SHARE) for row in line.to_numpy(float)]
        axes.errorbar(
            # Side by side, so that no interval hides another.
            [places[choice] + 0.06 * (i - (len(lines) - 1) / 2) for choice in line.index],
            [mean.mean for mean in means],
            yerr=np.abs([[mean.low - mean.mean, mean.high - mean.mean] for mean in means]).T,
            **style[level],
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


def error_vs_depth(comparison: Comparison) -> Figure | None:
    """Test and training error by depth, a line per design: the degradation problem.

    ``None`` where no design has two depths.
    """
    table = comparison.errors_by_depth
    if table.empty:
        return None
    panels = {title: table[table["split"] == split] for split, title in _PANELS.items()}
    panels = {title: points for title, points in panels.items() if len(points)}
    with styled():
        height = 3.2 + 0.1 * table["design"].nunique()  # two designs to a line of the legend
        figure = Figure(figsize=(0.8 + 3.6 * len(panels), height), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(grid, panels.items(), strict=True):
            _depths(axes, points)
            axes.set_title(title, loc="left")
        about = f"{shortened(comparison.key['dataset'])}, n = {span(table['seeds'])} seeds"
        headline(figure, f"{about}, {intervals_named(table['seeds'].max())}")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _depths(axes: Axes, points: pd.DataFrame) -> None:
    style = line_styles(points["design"])
    for name, line in points.sort_values("depth").groupby("design", sort=False):
        mean = line["mean"].to_numpy(float)
        axes.errorbar(
            line["depth"],
            line["mean"],
            yerr=np.abs(line[["ci_low", "ci_high"]].to_numpy(float).T - mean),
            **style[name],
            markersize=5,
            capsize=2,
            label=plain(name),
        )
    axes.set_xticks(sorted(points["depth"].unique()))
    axes.set_xlabel("depth (layers)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
