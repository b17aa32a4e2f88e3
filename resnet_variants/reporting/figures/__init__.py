"""The figures of a report: one function each, which takes a ``Comparison``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.depths import ERRORS
from resnet_variants.records.pictures import HARDEST
from resnet_variants.reporting.figures.arms import arms_of
from resnet_variants.reporting.figures.classes import class_accuracies, confusions
from resnet_variants.reporting.figures.cost import COSTS_DRAWN, accuracy_vs_cost
from resnet_variants.reporting.figures.curves import training_curves
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES, diagnosis_figure
from resnet_variants.reporting.figures.effects import error_vs_depth, forest, interactions
from resnet_variants.reporting.figures.images import hardest_images
from resnet_variants.reporting.figures.probabilities import ensemble_curves, reliability
from resnet_variants.reporting.figures.robustness import heat_map, search_curves


def _diagnosis(comparison: Comparison, name: str) -> Figure | None:
    return diagnosis_figure(name, comparison.diagnosis, comparison.data, arms_of(comparison))


# Name of the file -> what draws it; None where the comparison has nothing to show.
FIGURES: dict[str, Callable[[Comparison], Figure | None]] = {
    **{f"accuracy_vs_{name}": partial(accuracy_vs_cost, name=name) for name in COSTS_DRAWN},
    "training_curves": training_curves,
    "effects": forest,
    "interactions": interactions,
    "robustness": heat_map,
    "search": search_curves,
    "classes": class_accuracies,
    "confusion": confusions,
    HARDEST: hardest_images,
    "calibration": reliability,
    "ensembles": ensemble_curves,
    ERRORS: error_vs_depth,
    **{name: partial(_diagnosis, name=name) for name in DIAGNOSIS_FIGURES},
}
