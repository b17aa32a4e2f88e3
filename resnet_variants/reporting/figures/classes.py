"""Figures by class: accuracy of the arms side by side, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.images import confusion
from resnet_variants.registry import one_line
from resnet_variants.reporting.figures.arms import LISTED, Arms, arms_of, drawn
from resnet_variants.reporting.figures.style import (
    counted,
    headline,
    intervals_named,
    legend_below,
    plain,
    shortened,
    styled,
)
from resnet_variants.reporting.text import POINTS

_MOST = 20  # classes that a figure shows
_WRITTEN = 12  # classes up to which cells have numbers
_LETTERS = 24  # of a class
_LEAST = 0.05  # percent; less would be written as 0.0


def class_accuracies(comparison: Comparison) -> Figure | None:
    """Accuracy of each arm by class, the classes that are hardest on average first.

    ``None`` without predictions. Of many classes the hardest are shown, of many arms the first.
    """
    return by_class(comparison.by_class, arms_of(comparison), comparison.data)


def by_class(table: pd.DataFrame, arms: Arms, data: str) -> Figure | None:
    """The same from a table like ``classes.csv``, whose ``model`` the arms name."""
    if table.empty:
        return None
    models = [*dict.fromkeys(table["model"])][:LISTED]
    every = table.groupby("class", sort=False)["mean"].mean().sort_values(kind="stable").index
    classes = [*map(str, every[:_MOST])]
    with styled():
        figure = Figure(figsize=(2 + 0.55 * len(classes), 3.8), layout="constrained")
        axes = figure.add_subplot()
        for at, model in enumerate(models):
            own = table[table["model"] == model].set_index("class").loc[classes]
            x = np.arange(len(classes)) + 0.7 * (at - (len(models) - 1) / 2) / len(models)
            look = drawn(arms.look(model)) | {"linestyle": "", "markersize": 4}
            error = [own["mean"] - own["ci_low"], own["ci_high"] - own["mean"]]
            axes.errorbar(x, own["mean"], yerr=np.nan_to_num(error), elinewidth=0.8, **look)
        axes.set_xticks(range(len(classes)), _titles(classes))
        axes.tick_params(axis="x", rotation=_rotation(_titles(classes)))
        axes.set_ylabel("test accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        left_out = len(every) - len(classes)
        notes = [f"the hardest {_MOST} of {len(every)} classes"] if left_out else []
        headline(
            figure,
            [
                shortened(data),
                f"means over n = {counted(table['seeds'], 'seed')}",
                intervals_named(int(table["seeds"].max())),
                *notes,
            ],
        )
        legend_below(figure, arms.legend(models))
    return figure


def confusions(comparison: Comparison) -> Figure | None:
    """What images of a class are taken for: by the arm with the best mean, and by its baseline.

    ``None`` without predictions. Of many classes those with most errors are shown.
    """
    answers = comparison.answers
    if not answers:
        return None
    best = max(answers, key=lambda model: float(answers[model].right.mean()))
    models = [*dict.fromkeys((comparison.baselines.get(best, best), best))]
    models = [model for model in models if model in answers]
    shares = {model: confusion(answers[model]) for model in models}
    errors = 1 - np.diag(shares[best])
    kept = np.sort(np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable")[:_MOST])
    names = _titles([answers[best].classes[number] for number in kept])
    side = 1.6 + 0.36 * len(kept)
    with styled():
        figure = Figure(figsize=(side * len(models) + 0.6, side + 0.5), layout="constrained")
        panels = figure.subplots(1, len(models), squeeze=False)[0]
        for axes, model in zip(panels, models, strict=True):
            cells = POINTS * shares[model][np.ix_(kept, kept)]
            image = axes.imshow(_errors_only(cells), cmap="Reds", vmin=0)
            axes.set_title(plain(comparison.labels[model]), loc="left", fontsize=9)
            axes.grid(visible=False)
            axes.set_xticks(range(len(kept)), names, rotation=2 * _rotation(names))
            axes.set_yticks(range(len(kept)), names if axes is panels[0] else [])
            axes.set_xlabel("answer")
            if len(kept) <= _WRITTEN:
                _write(axes, cells)
            figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class, errors")
        panels[0].set_ylabel("class")
        headline(figure, [shortened(comparison.data), "diagonal: % right; all seeds together"])
    return figure


def _titles(classes: Sequence[str]) -> list[str]:
    """The names of classes as an axis has room for them."""
    return [plain(shortened(one_line(name), _LETTERS)) for name in classes]


def _rotation(names: Sequence[str]) -> float:
    """Of the names of classes below an axis, in degrees; digits need no room."""
    return 30.0 if max(map(len, names)) > 3 else 0.0


def _write(axes: Axes, cells: np.ndarray) -> None:
    """The percentages into the cells."""
    dark = 0.6 * np.nanmax(_errors_only(cells))
    # Inside its cell a number needs no room of its own, which takes long to find.
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "in_layout": False}
    for (row, column), share in np.ndenumerate(cells):
        if share >= _LEAST:
            color = "white" if row != column and share > dark else "black"
            axes.text(column, row, f"{share:.1f}", color=color, **style)


def _errors_only(cells: np.ndarray) -> np.ndarray:
    """The cells without the diagonal, which would outshine them."""
    return np.where(np.eye(len(cells), dtype=bool), np.nan, cells)
