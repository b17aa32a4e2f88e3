"""Training curves: loss and error by epoch, with bands over the seeds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from textwrap import fill
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.reporting.figures.style import (
    LINES,
    PALETTE,
    headline,
    marker_label,
    plain,
    shortened,
    styled,
    styles,
)
from resnet_variants.reporting.text import span

_LETTERS_PER_INCH = 14  # of a caption


def training_curves(comparison: Comparison) -> Figure | None:
    """Training loss and validation error by epoch; bands span the seeds.

    A column per order, and per network size where there are several. ``None`` without epochs.
    """
    if comparison.done_epochs.empty:
        return None
    runs = comparison.done
    runs = runs.assign(label=marker_label(runs, sizes=()), panel=_panel)
    frame = comparison.done_epochs.merge(runs[["run_id", "panel", "stem", "label"]], on="run_id")
    frame = frame.assign(val_err=1 - frame["val_acc"])
    panels = [panel for panel in runs["panel"].unique() if panel in set(frame["panel"])]
    colours, lines = styles(frame["label"], PALETTE), styles(frame["stem"], LINES)
    measures = {"train_loss": "training loss", "val_err": "validation error"}
    with styled():
        figure = Figure(figsize=(1.5 + 3.6 * len(panels), 5.6), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for j, panel in enumerate(panels):
            grid[0, j].set_title(panel, loc="left")
            grid[1, j].set_xlabel("epoch")
            curves = frame[frame["panel"] == panel].groupby("model", sort=False)
            for i, measure in enumerate(measures):
                for model, curve in curves:
                    first = curve.iloc[0]
                    _curve(grid[i, j], curve, measure, colours[first["label"]])
                    grid[i, j].lines[-1].set_linestyle(lines[first["stem"]])
                    grid[i, j].lines[-1].set_gid(str(model))
        cut = _scales(list(grid[:, 0]), list(measures.values()), frame["val_err"])
        headline(figure, fill(_caption(runs) + cut, int(_LETTERS_PER_INCH * figure.get_figwidth())))
        figure.legend(handles=_curve_legend(colours, lines), loc="outside lower center", ncols=3)
    return figure


def _caption(runs: pd.DataFrame) -> str:
    seeds = runs.groupby("model")["seed"].nunique()
    spread = ", bands from the lowest to the highest" if seeds.max() > 1 else ""
    return f"{shortened(runs['dataset'].iloc[0])}, means over n = {span(seeds)} seeds{spread}"


def _curve_legend(colours: dict[Hashable, str], lines: dict[Hashable, str]) -> list[Line2D]:
    by_colour = [Line2D([], [], color=c, label=plain(text)) for text, c in colours.items()]
    return by_colour + [
        Line2D([], [], color="0.4", linestyle=cast("Any", line), label=plain(f"{stem} stem"))
        for stem, line in lines.items()
    ]


def _panel(runs: pd.DataFrame) -> pd.Series:
    """The column a run is drawn in: its order, after its size where sizes differ."""
    sizes = ("ResNet-" + runs["depth"].astype(str) + " (" + runs["family"] + ")").str.cat(
        "stem stride " + runs["stem_stride"].astype(str), sep=", "
    )
    return runs["order"] if sizes.nunique() < 2 else sizes + ", " + runs["order"]


def _scales(first: Sequence[Axes], labels: Sequence[str], errors: pd.Series) -> str:
    """Scales are shared along a row, so that the first column sets them for all.

    Returns:
        What the caption says of errors that are not shown.
    """
    for axes, label in zip(first, labels, strict=True):
        axes.set_ylabel(label)
    loss, mistakes = first
    if any((np.asarray(line.get_ydata(), float) > 0).any() for line in loss.lines):
        loss.set_yscale("log")
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
    mistakes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mistakes.yaxis.set_major_formatter(PercentFormatter(1.0))
    top = 3 * (float(errors.median()) + 0.05)
    cut = bool(errors.max() > top)
    mistakes.set_ylim(0, top if cut else min(1.0, mistakes.get_ylim()[1]))
    return f"; errors above {100 * top:.0f} % are cut off" if cut else ""


def _curve(axes: Axes, curve: pd.DataFrame, measure: str, colour: str) -> None:
    by_epoch = curve.groupby("epoch")[measure]
    mean = by_epoch.mean()
    axes.plot(mean.index, mean, color=colour, lw=1.2)
    axes.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.1, lw=0)
