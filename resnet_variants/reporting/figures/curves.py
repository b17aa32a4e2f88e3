"""Training curves: loss and error by epoch, with bands over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.reporting.figures.arms import LISTED, Arms, arms_of, drawn
from resnet_variants.reporting.figures.style import (
    COLUMN,
    counted,
    headline,
    legend_below,
    logarithmic,
    plain,
    shortened,
    styled,
)

_MARKED = 10  # epochs of a curve that have markers
_STEP = 0.1  # epochs between networks, where there is one epoch and networks are side by side
_MEASURES = {"train_loss": "training loss", "val_err": "validation error"}


def training_curves(comparison: Comparison) -> Figure | None:
    """Training loss and validation error by epoch; bands span the seeds.

    A column for each choice of the factor that networks show last, where there are several
    factors. Of a single epoch each seed is a point. ``None`` without epochs.
    """
    return curves(comparison.done_epochs, arms_of(comparison), comparison.data)


def curves(epochs: pd.DataFrame, arms: Arms, data: str) -> Figure | None:
    """The same from the epochs of finished runs, whose ``model`` the arms name."""
    if epochs.empty:
        return None
    titles = arms.panels()
    frame = epochs.assign(val_err=1 - epochs["val_acc"], panel=epochs["model"].map(titles))
    panels = [title for title in titles.unique() if title in set(frame["panel"])]
    bands = frame.groupby("panel")["model"].nunique().max() <= LISTED  # more cover one another
    with styled():
        figure = Figure(figsize=(COLUMN + 3 * (len(panels) - 1), 5), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for column, panel in zip(grid.T, panels, strict=True):
            column[0].set_title(plain(panel), loc="left", fontsize=9)
            column[1].set_xlabel("epoch")
            groups = frame[frame["panel"] == panel].groupby("model", sort=False)
            for at, (model, curve) in enumerate(groups):
                look = drawn(arms.look(str(model))) | {"gid": str(model)}
                for axes, measure in zip(column, _MEASURES, strict=True):
                    by_epoch = curve.pivot_table(index="epoch", columns="seed", values=measure)
                    if frame["epoch"].nunique() > 1:
                        _curve(axes, by_epoch, look, bands=bands)
                    else:
                        _points(axes, by_epoch, look, _STEP * (at - (len(groups) - 1) / 2))
        cut = _scales([*grid[:, 0]], frame)
        headline(figure, _caption(frame, data, bands=bands) + cut)
        legend_below(figure, arms.legend(frame["model"]) if frame["model"].nunique() > 1 else [])
    return figure


def _caption(frame: pd.DataFrame, data: str, *, bands: bool) -> list[str]:
    seeds = frame.groupby("model")["seed"].nunique()
    notes = [shortened(data), f"means over n = {counted(seeds, 'seed')}"]
    several = frame["epoch"].nunique() > 1
    if seeds.max() > 1 and (bands or not several):
        notes.append("bands from the lowest to the highest" if several else "faint points: seeds")
    return notes


def _scales(first: Sequence[Axes], frame: pd.DataFrame) -> list[str]:
    """Scales are shared along a row, so that the first column sets them for all.

    Returns:
        What the caption says of errors that are not shown.
    """
    for axes, label in zip(first, _MEASURES.values(), strict=True):
        axes.set_ylabel(label)
    loss, mistakes = first
    if (frame["train_loss"] > 0).any():
        logarithmic(loss, "y")
    if frame["epoch"].nunique() > 1:
        mistakes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        epoch = frame["epoch"].iloc[0]
        mistakes.set_xticks([epoch])
        mistakes.set_xlim(epoch - 0.5, epoch + 0.5)
    mistakes.yaxis.set_major_formatter(PercentFormatter(1.0))
    top = 3 * (float(frame["val_err"].median()) + 0.05)
    cut = bool(frame["val_err"].max() > top)
    mistakes.set_ylim(0, top if cut else min(1.0, mistakes.get_ylim()[1]))
    return [f"errors above {100 * top:.0f} % are cut off"] if cut else []


def _curve(axes: Axes, by_epoch: pd.DataFrame, look: dict[str, Any], *, bands: bool) -> None:
    """A line of means; ``by_epoch`` is (epochs, seeds)."""
    mean = by_epoch.mean(axis=1)
    marker: dict[str, Any] = {} if len(mean) < _MARKED else {"marker": ""}
    axes.plot(mean.index, mean, **look | marker, markersize=3.5, linewidth=1.2)
    if bands:
        ends = (by_epoch.min(axis=1), by_epoch.max(axis=1))
        axes.fill_between(mean.index, *ends, color=look["color"], alpha=0.1, linewidth=0)


def _points(axes: Axes, by_epoch: pd.DataFrame, look: dict[str, Any], shift: float) -> None:
    """A mark for the mean of a single epoch, and faint points for its seeds."""
    x, seeds = float(by_epoch.index.to_numpy()[0]) + shift, by_epoch.iloc[0]
    axes.plot(np.full(len(seeds), x), seeds, ".", color=look["color"], alpha=0.4)
    mark: dict[str, Any] = look | {"linestyle": ""}
    axes.plot([x], [seeds.mean()], **mark, markersize=7)
