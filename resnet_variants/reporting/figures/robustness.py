"""The heat map of differences by the value of a setting, such as the learning rate."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.robustness import by_value
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.reporting.figures.style import headline, shortened, styled
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
