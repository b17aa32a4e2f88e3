"""Figures of predicted probabilities: can they be trusted, and what do the seeds gain together?"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.reporting.figures.arms import arms_of, drawn
from resnet_variants.reporting.figures.style import (
    COLUMN,
    counted,
    headline,
    legend_below,
    shortened,
    styled,
)

_LEAST = 0.001  # of an arm's images; bins with fewer say little


def reliability(comparison: Comparison) -> Figure | None:
    """Accuracy by confidence, a line for each arm; on the diagonal confidence is right.

    Bins of all seeds together; those with hardly any images are left out. ``None`` without logits.
    """
    table = comparison.calibration
    if table.empty:
        return None
    sums = table.assign(
        confidence=table["confidence"] * table["images"],
        accuracy=table["accuracy"] * table["images"],
    )
    by_bin = sums.groupby(["model", "bin"], sort=False)[["images", "confidence", "accuracy"]].sum()
    arms = arms_of(comparison)
    with styled():
        figure = Figure(figsize=(COLUMN, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#595959", linewidth=0.8, linestyle=":")
        for model, own in by_bin.groupby(level="model", sort=False):
            shown = own[own["images"] >= _LEAST * own["images"].sum()].sort_index(level="bin")
            points = shown["confidence"] / shown["images"], shown["accuracy"] / shown["images"]
            axes.plot(*points, **drawn(arms.look(str(model))), markersize=4, linewidth=1.2)
        axes.set_xlabel("confidence: the largest probability")
        axes.set_ylabel("test accuracy")
        axes.set_aspect("equal")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        notes = [shortened(comparison.data), "all seeds; below the diagonal: too confident"]
        headline(figure, notes)
        legend_below(figure, arms.legend(by_bin.index.get_level_values("model")))
    return figure


def ensemble_curves(comparison: Comparison) -> Figure | None:
    """Accuracy of the mean probabilities of some seeds by their number, a line for each arm.

    ``None`` without logits, or where no arm has two seeds.
    """
    table = comparison.ensembles
    if table.empty or table["members"].max() < 2:
        return None
    arms = arms_of(comparison)
    with styled():
        figure = Figure(figsize=(COLUMN, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for model, own in table.groupby("model", sort=False):
            look = drawn(arms.look(str(model)))
            axes.plot(own["members"], own["accuracy"], **look, markersize=4, linewidth=1.2)
            ends = own["lowest"], own["highest"]
            axes.fill_between(own["members"], *ends, color=look["color"], alpha=0.1, linewidth=0)
        axes.set_xlabel("seeds whose probabilities are averaged")
        axes.set_ylabel("test accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        most = counted(table.groupby("model")["members"].max(), "seed")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        note = f"of {most}; bands: orders in which they join"
        headline(figure, [shortened(comparison.data), note])
        legend_below(figure, arms.legend(table["model"]))
    return figure
