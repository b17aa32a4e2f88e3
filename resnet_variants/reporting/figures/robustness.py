"""Figures by the value of a setting, such as the learning rate: differences, and a search."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.arms import tuned_in
from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.robustness import by_value
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.reporting.figures.arms import arms_of, drawn
from resnet_variants.reporting.figures.style import (
    COLUMN,
    headline,
    legend_below,
    plain,
    shortened,
    styled,
)
from resnet_variants.reporting.text import POINTS


def heat_map(comparison: Comparison) -> Figure | None:
    """The difference of each arm to its baseline, at each value of the robust settings.

    ``None`` where arms are not compared at several values.
    """
    table = by_value(comparison.summary, comparison.varied, comparison.robust)
    if table["value"].nunique() < 2:
        return None
    values = [*dict.fromkeys(table["value"])]
    arms = [*dict.fromkeys(table["model"])]
    cells = table.pivot(index="model", columns="value", values=["delta", "verdict"])
    points = POINTS * cells["delta"].loc[arms, values].to_numpy(float)
    verdicts = cells["verdict"].loc[arms, values].to_numpy()
    most = float(np.nanmax(np.abs(points))) or 1.0
    with styled():
        size = (2.6 + 0.9 * len(values), 1.3 + 0.35 * len(arms))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(points, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        for (row, column), point in np.ndenumerate(points):
            if np.isfinite(point):
                is_bold = verdicts[row, column] != UNDECIDED
                axes.text(
                    *(column, row, f"{point:+.1f}"),
                    **{"ha": "center", "va": "center", "fontsize": 8},
                    color="white" if abs(point) > 0.6 * most else "black",
                    fontweight="bold" if is_bold else "normal",
                )
        axes.grid(visible=False)
        axes.set_xticks(range(len(values)), values, parse_math=False)
        labels = [str(comparison.labels.get(arm, arm)) for arm in arms]
        axes.set_yticks(range(len(arms)), labels, parse_math=False)
        axes.set_xlabel(", ".join(name.replace("_", " ") for name in comparison.robust))
        figure.colorbar(image, label="difference to the baseline, points")
        headline(figure, [shortened(comparison.data), "bold: there is a verdict"])
    return figure


def search_curves(comparison: Comparison) -> Figure | None:
    """Validation accuracy by the value that a search tried, a line for each arm.

    ``None`` where there was no search of one setting with numbers.
    """
    names = tuned_in(comparison.searched)
    table = comparison.search
    if len(names) != 1:
        return None
    (name,) = names
    if table[name].dtype.kind not in "iuf":  # texts, truth values or lists
        return None
    values = table[name].sort_values().unique()
    arms = arms_of(comparison)
    with styled():
        figure = Figure(figsize=(COLUMN, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for arm, own in table.groupby("arm", sort=False):
            label = plain(comparison.labels.get(str(arm), arm))
            axes.plot(own[name], own["val_acc"], **drawn(arms.look(str(arm))), label=label)
        if values[0] > 0:
            axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(name.replace("_", " "))
        axes.set_ylabel("validation accuracy")
        headline(figure, [shortened(comparison.data), "the search before: runs of other seeds"])
        legend_below(figure, axes.get_legend_handles_labels()[0])
    return figure
