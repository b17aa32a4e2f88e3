"""Figures of effects: a forest of intervals, interactions, and error against depth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.depths import TEST, TRAINING
from resnet_variants.analysis.effects import DEPENDS, INTERACTION, MAIN, SIMPLE
from resnet_variants.analysis.factors import factors, is_complete
from resnet_variants.analysis.statistics import MEAN, SHARE, estimate
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.reporting.figures.arms import Look, arms_of, drawn
from resnet_variants.reporting.figures.style import (
    COLUMN,
    counted,
    headline,
    intervals_named,
    legend_below,
    plain,
    robust_range,
    shortened,
    styled,
)
from resnet_variants.reporting.text import POINTS

MOST = 60  # effects in one figure, main effects first; the table has all
_LONG = 34  # letters of an effect's name, from where on it takes two lines
# Grey: colours are those of networks.
_KINDS = {MAIN: ("0.2", "s"), SIMPLE: ("0.35", "D"), INTERACTION: ("0.55", "o")}
_PANELS = {TEST: "test error", TRAINING: "training error, last epoch"}


def forest(comparison: Comparison) -> Figure | None:
    """Each effect with its 95 % interval; the line at zero is no effect.

    ``None`` where no effect has an estimate.
    """
    known = comparison.effects[comparison.effects["estimate"].notna()]
    if known.empty:
        return None
    total, effects = len(known), known[:MOST]
    numbers = POINTS * effects[["estimate", "ci_low", "ci_high"]].to_numpy(float)
    limits = robust_range(np.append(numbers, 0.0))
    with styled():
        figure = Figure(figsize=(5.6, 1.4 + 0.3 * len(effects)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color="0.4", lw=1)
        rows = effects[["kind", "verdict"]].itertuples(index=False)
        for at, ((kind, verdict), own) in enumerate(zip(rows, numbers, strict=True)):
            _effect(axes, -at, kind, own, limits, is_open=verdict in (UNDECIDED, DEPENDS))
        axes.set_xlim(limits)
        names = (effects["effect"] + ": " + effects["contrast"]).tolist()
        names = [name if len(name) < _LONG else name.replace(": ", ":\n") for name in names]
        axes.set_yticks(-np.arange(len(effects)), names, parse_math=False)
        axes.set_xlabel("effect on test accuracy, points [95 % interval]")
        first = effects.iloc[0]
        notes = [
            f"{counted([first['cells']], 'variant')} on {shortened(comparison.data)}",
            f"{counted([first['seeds']], 'seed')} as blocks",
            "squares: main effects",
            *(["diamonds: simple effects"] if (effects["kind"] == SIMPLE).any() else []),
            *(["circles: interactions"] if (effects["kind"] == INTERACTION).any() else []),
            "intervals are of one effect each",
            "filled: there is a verdict",
            *([f"the first {MOST} of {total}"] if total > MOST else []),
        ]
        headline(figure, notes)
    return figure


def _effect(
    axes: Axes,
    at: float,
    kind: str,
    numbers: np.ndarray,
    limits: tuple[float, float] | None,
    *,
    is_open: bool,
) -> None:
    """A mark with its interval; where it is beyond the limits, at the edge with its value."""
    mean, low, high = numbers
    shown = float(np.clip(mean, *(limits or (-np.inf, np.inf))))
    colour, marker = _KINDS[kind]
    axes.errorbar(
        [shown],
        [at],
        xerr=None if np.isnan(low) or shown != mean else [[mean - low], [high - mean]],
        color=colour,
        marker=marker,
        markerfacecolor="white" if is_open else colour,
        markersize=5,
        capsize=2,
        clip_on=shown == mean,
    )
    if shown != mean:
        left = mean > shown
        axes.annotate(
            f"{mean:+.1f} →" if left else f"← {mean:+.1f}",
            (shown, at),
            xytext=(-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )


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
    arms = arms_of(comparison)
    size = (COLUMN + 2.8 * (columns - 1), 0.6 + 2.7 * rows)
    with styled():
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, (inner, outer) in zip(grid.flat, pairs, strict=False):
            if levels[inner].nunique() < levels[outer].nunique():
                inner, outer = outer, inner
            means = values.groupby([levels[outer], levels[inner]], sort=False).mean()
            _interaction(axes, means, arms.by_level(outer))
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("mean test accuracy")
        seeds = f"means over {counted([scores.shape[0]], 'seed')} and all other axes"
        notes = [shortened(comparison.data), seeds, intervals_named(scores.shape[0])]
        headline(figure, notes)
    return figure


def _interaction(axes: Axes, values: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    """A line per choice of the first level of the index; values by seed, as means over cells."""
    outer, inner = (str(name).replace("_", " ") for name in values.index.names)
    lines, choices = (values.index.unique(level) for level in (0, 1))
    places = {level: i for i, level in enumerate(choices)}
    for i, level in enumerate(lines):
        line = values.loc[level]
        told = [estimate(row, SHARE) for row in line.to_numpy(float)]
        ends = np.array([(each.mean, each.low, each.high) for each in told])
        # Side by side, so that no interval hides another.
        x = [places[choice] + 0.06 * (i - (len(lines) - 1) / 2) for choice in line.index]
        _intervals(axes, x, ends, looks[str(level)], str(level))
    axes.set_xticks(range(len(choices)), [str(level) for level in choices], parse_math=False)
    axes.margins(x=0.25)
    axes.set_xlabel(inner)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(title=outer, fontsize=8, title_fontsize=8, handlelength=2.8)


def _intervals(axes: Axes, x: Sequence[float], y: np.ndarray, look: Look, label: str) -> None:
    """A line through means with intervals; ``y``, (points, 3), are mean, lower and upper end."""
    mean, low, high = y.T
    axes.errorbar(
        x,
        mean,
        yerr=np.abs([mean - low, high - mean]),
        **drawn(look),
        markersize=5,
        elinewidth=1,
        capsize=2,
        label=plain(label),
    )


def error_vs_depth(comparison: Comparison) -> Figure | None:
    """Test and training error by depth, a line per design: the degradation problem.

    ``None`` where no design has two depths.
    """
    table = comparison.errors_by_depth
    if table.empty:
        return None
    looks = arms_of(comparison).designs(
        dict(table.drop_duplicates("design")[["design", "model"]].itertuples(index=False))
    )
    panels = {title: table[table["split"] == split] for split, title in _PANELS.items()}
    panels = {title: points for title, points in panels.items() if len(points)}
    with styled():
        figure = Figure(figsize=(0.6 + 2.8 * len(panels), 3.4), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, points) in zip(grid, panels.items(), strict=True):
            for name, line in points.sort_values("depth").groupby("design", sort=False):
                told = line[[*MEAN]].to_numpy(float)
                _intervals(axes, line["depth"].tolist(), told, looks[str(name)], str(name))
            axes.set_xticks(sorted(points["depth"].unique()))
            axes.set_xlabel("depth (layers)")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_title(title, loc="left", fontsize=9)
        grid[0].set_ylabel("error")
        seeds = table["seeds"]
        notes = [shortened(comparison.data), f"n = {counted(seeds, 'seed')}"]
        headline(figure, [*notes, intervals_named(seeds.max())])
        handles, _ = grid[0].get_legend_handles_labels()
        legend_below(figure, handles)
    return figure
