"""Figures of diagnoses: gradients, paths, lesions, distances to the identity, sensitivity.

A line is the mean over a network's seeds, its band spans them. ``DIAGNOSIS_FIGURES`` lists what is
drawn of each table; class maps are drawn in a file of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from resnet_variants.analysis.diagnosis import largest_over_smallest
from resnet_variants.records.diagnosis import NOISE, OUTPUT, TABLES, Diagnosis
from resnet_variants.reporting.figures.arms import Arms, arms_by_name, drawn
from resnet_variants.reporting.figures.class_maps import class_maps_figure
from resnet_variants.reporting.figures.style import (
    COLUMN,
    counted,
    headline,
    legend_below,
    logarithmic,
    shortened,
    styled,
)
from resnet_variants.reporting.text import p_value, span

_MARKED = 25  # points of a line that have markers
_POINT: dict[str, Any] = {"linestyle": "", "markersize": 4, "alpha": 0.8}  # of a run
_CORRELATED = 6  # networks that a rank correlation takes at least
_UNIT = "unit (0: the first)"
_UNIT_AND_END = f"{_UNIT[:-1]}; last: the output)"


@dataclass(frozen=True)
class _Drawing:
    """What the figures of a diagnosis share."""

    arms: Arms
    data: str

    def look(self, model: object) -> dict[str, Any]:
        """Of one network, as matplotlib's keywords."""
        return drawn(self.arms.look(str(model)))


@dataclass(frozen=True)
class _Along:
    """One number for each state of a network, from its units; drawn by epoch."""

    title: str
    reduce: Callable[[Any], pd.DataFrame]


_MEDIAN = _Along("median of the units", lambda groups: groups.median())


@dataclass(frozen=True)
class _Measure:
    """A column that is drawn, and its axis."""

    column: str
    label: str
    is_ratio: bool = False  # drawn on a logarithmic axis


def _gradient_flow(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Norm of the gradient at each unit's input, alone and times that of the input, by epoch."""
    scaled = frame.assign(scaled=frame["grad_norm"] * frame["input_norm"])
    measures = (
        _Measure("grad_norm", "gradient norm\nat the unit's input", is_ratio=True),
        _Measure("scaled", "gradient norm times\nnorm of the input", is_ratio=True),
    )
    along = _Along("largest over smallest unit", largest_over_smallest)
    return _by_epoch(scaled, measures, drawing, along, _UNIT_AND_END)


def _identity_distance(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Size of each unit's branch, and the cosine of its input and output, by epoch."""
    measures = (
        _Measure("branch_to_shortcut", "norm of the branch\nover the shortcut's", is_ratio=True),
        _Measure("cosine", "cosine of input and output\n(compare within one order)"),
    )
    return _by_epoch(frame, measures, drawing, _MEDIAN, _UNIT)


def _any_table(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Each number of a table that has a row per unit, by unit; its median over them by epoch."""
    numbers = frame.select_dtypes("number").columns.difference(["seed", "epoch", "unit", "n"])
    measures = [_Measure(str(name), str(name).replace("_", " ")) for name in numbers]
    return _by_epoch(frame, measures, drawing, _MEDIAN, _UNIT)


def _by_epoch(
    frame: pd.DataFrame,
    measures: Sequence[_Measure],
    drawing: _Drawing,
    along: _Along,
    unit: str,
) -> Figure | None:
    """A row per measure; a column per state of the networks, and one for ``along`` by epoch.

    None where nothing was measured.
    """
    shown = [measure for measure in measures if frame[measure.column].notna().any()]
    if not shown:
        return None
    states = _states(frame)
    figure, grid = _figure(len(shown), len(states) + 1, frame, drawing)
    inside = frame[frame["name"] != OUTPUT]
    columns = [measure.column for measure in shown]
    units = inside.groupby(["model", "seed", "epoch"], sort=False)[columns]
    epochs = along.reduce(units).reset_index()
    for row, measure in zip(grid, shown, strict=True):
        for axes, (title, own) in zip(row[:-1], states.items(), strict=True):
            if axes is not row[0]:
                axes.sharey(row[0])
                axes.tick_params(labelleft=False)
            _draw(axes, own, "unit", measure.column, drawing)
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_xlabel(unit)
        _draw(row[-1], epochs, "epoch", measure.column, drawing)
        row[-1].set_xlabel("epoch (0: initial weights)")
        row[0].set_ylabel(measure.label)
        row[-1].set_ylabel(along.title)
        if measure.is_ratio:
            for axes in (row[0], row[-1]):  # the others share the first one's scale
                logarithmic(axes, "y")
    return figure


def _lesion(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """Accuracy without each unit, without several, and with units exchanged."""
    figure, (panels,) = _figure(1, 3, frame, drawing, sharey=True)
    whole = frame[frame["kind"] == "none"]
    one, several, moved = (
        frame[frame["kind"] == kind] for kind in ("delete", "delete_random", "permute")
    )
    _draw(panels[0], one, "unit", "acc", drawing)
    _draw(panels[1], pd.concat([whole, several]), "deleted", "acc", drawing)
    for model, own in whole.groupby("model", sort=False):
        look = drawing.look(model)
        line = {name: look[name] for name in ("color", "linestyle")}
        panels[0].axhline(own["acc"].mean(), **line, lw=0.8, alpha=0.6)
    for model, own in moved.groupby("model", sort=False):
        panels[2].plot(own["kendall_tau"], own["acc"], **drawing.look(model) | _POINT)
    panels[2].invert_xaxis()
    for axes, title, label in zip(
        panels,
        ("one unit deleted", "several deleted", "units exchanged"),
        (_UNIT, "units deleted at random", "rank correlation with the right order"),
        strict=True,
    ):
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel(label)
    panels[0].set_ylabel("accuracy (thin: the whole network)")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _paths(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """How many paths of each length there are, what gradient each carries, and all together."""
    figure, (panels,) = _figure(1, 3, frame, drawing)
    measures = {
        "share": "share of all paths",
        "grad_norm": f"gradient of one path (mean of {frame['draws'].max():.0f})",
        "contribution": "share of what all carry",
    }
    for axes, (name, label) in zip(panels, measures.items(), strict=True):
        _draw(axes, frame[frame[name].notna()], "length", name, drawing)
        axes.set_xlabel("length of the path (branches)")
        axes.set_ylabel(label)
    logarithmic(panels[1], "y")
    return figure


def _sensitivity(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """Growth of a small disturbance by unit, accuracy under noise, and one against the other."""
    growth, noise = (frame[frame["kind"] == kind] for kind in ("growth", "noise"))
    figure, (panels,) = _figure(1, 3, frame, drawing)
    _draw(panels[0], growth, "unit", "growth", drawing)
    _draw(panels[1], noise, "noise_sd", "acc", drawing)
    _draw_runs(panels[2], growth, noise, drawing)
    labels = (
        (_UNIT_AND_END, "relative change, of the image's"),
        ("noise on the image (standard deviation)", "accuracy under noise"),
        ("relative change at the last output", f"share of accuracy lost by noise of {NOISE:g}"),
    )
    for axes, (x, y) in zip(panels, labels, strict=True):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
    logarithmic(panels[0], "y")
    logarithmic(panels[2], "x")
    for axes in panels[1:]:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _shifts(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """Accuracy and equal answers by the size of the shift."""
    figure, (panels,) = _figure(1, 2, frame, drawing)
    labels = {"acc": "accuracy", "kept": "answers as on the image itself"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        _draw(axes, frame, "share", column, drawing)
        axes.set_xlabel("shift (share of the image's side)")
        axes.set_ylabel(label)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _class_maps(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    return class_maps_figure(frame, drawing.arms.labels, drawing.data)


@dataclass(frozen=True)
class DiagnosisFigure:
    """What is drawn of one diagnosis table."""

    caption: str
    draw: Callable[[pd.DataFrame, _Drawing], Figure | None]
    has_lines: bool = True  # which a legend explains


_FIGURES = {  # by the name of the table
    "gradient_flow": DiagnosisFigure(
        "Gradient of the cross entropy at each unit's input: its norm, and that times "
        "the norm of the input",
        _gradient_flow,
    ),
    "paths": DiagnosisFigure(
        "Paths through branches and shortcuts by length: how many there are, the gradient of "
        "one, and the share of all that those of one length carry",
        _paths,
    ),
    "lesion": DiagnosisFigure(
        "Accuracy without one unit, without several, and with units in another order", _lesion
    ),
    "identity_distance": DiagnosisFigure(
        "Size of each unit's branch beside its shortcut, and cosine of its input and output",
        _identity_distance,
    ),
    "sensitivity": DiagnosisFigure(
        "Growth of a small disturbance from unit to unit, accuracy under noise, and the "
        "one against the other",
        _sensitivity,
    ),
    "shifts": DiagnosisFigure(
        "Accuracy on images shifted up, down, left and right, and the share of answers that the "
        "shift leaves as they are",
        _shifts,
    ),
    "class_maps": DiagnosisFigure(
        "Class activation maps over their images: places that speak for a class, and against it",
        _class_maps,
        has_lines=False,
    ),
}
DIAGNOSIS_FIGURES = {
    name: _FIGURES.get(name) or DiagnosisFigure(f"{name.replace('_', ' ')} by unit", _any_table)
    for name in TABLES
}


def diagnosis_figure(
    name: str, tables: Diagnosis, data: str, arms: Arms | None = None
) -> Figure | None:
    """The figure of one table; ``None`` where the table has nothing to show.

    Args:
        name: of the table.
        tables: of runs of one data set.
        data: what the caption calls the images.
        arms: the networks among those of other figures; alone if None.
    """
    table = tables[name]
    if table.empty:
        return None
    models = pd.concat([other["model"] for other in tables.values()]).unique()
    arms = arms or arms_by_name({str(model): str(model) for model in models})
    with styled():
        drawn_as = DIAGNOSIS_FIGURES[name]
        figure = drawn_as.draw(table, _Drawing(arms, data))
        if figure is not None and drawn_as.has_lines and table["model"].nunique() > 1:
            legend_below(figure, arms.legend(table["model"]))
    return figure


# --- parts ------------------------------------------------------------------------------------


def _states(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of the initial weights, of an epoch between that all runs have, of the trained."""
    last = frame["run_id"].map(frame.groupby("run_id")["epoch"].max())
    before, trained = frame[frame["epoch"] < last], frame[frame["epoch"] == last]
    by_epoch = before.groupby("epoch")["run_id"].nunique()
    common = by_epoch.index[by_epoch == frame["run_id"].nunique()].tolist()
    between = common[1:][len(common[1:]) // 2 :][:1]
    states = {
        f"after epoch {epoch}" if epoch else "initial weights": before[before["epoch"] == epoch]
        for epoch in [*common[:1], *between]
    }
    return states | {f"trained (epoch {span(trained['epoch'])})": trained}


def _figure(
    rows: int, columns: int, frame: pd.DataFrame, drawing: _Drawing, *, sharey: bool = False
) -> tuple[Figure, np.ndarray]:
    seeds = frame.groupby("model")["seed"].nunique()
    size = (COLUMN + min(3.0, 8.4 / (columns - 1)) * (columns - 1), 0.9 + 2.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    images = " and ".join(f"{count:.0f}" for count in sorted(frame["n"].unique()))
    notes = [shortened(drawing.data), f"n = {counted(seeds, 'seed')}"]
    notes += ["bands span them"] if seeds.max() > 1 else []
    headline(figure, [*notes, f"{images} validation images"])
    return figure, figure.subplots(rows, columns, sharey=sharey, squeeze=False)


def _draw(axes: Axes, frame: pd.DataFrame, x: str, y: str, drawing: _Drawing) -> None:
    """A line per model: mean over the seeds, and their band."""
    for model, own in frame.dropna(subset=[x, y]).groupby("model", sort=False):
        by_seed = own.groupby([x, "seed"])[y].mean().groupby(x).agg(["mean", "min", "max"])
        if x == "unit":  # a gap where it was not measured
            by_seed = by_seed.reindex(range(int(by_seed.index.max()) + 1))
        look = drawing.look(model)
        marker: dict[str, Any] = {"marker": ""} if len(by_seed) >= _MARKED else {}
        axes.plot(by_seed.index, by_seed["mean"], **look | marker, markersize=3, lw=1.2)
        band = (by_seed.index, by_seed["min"], by_seed["max"])
        axes.fill_between(*band, color=look["color"], alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=x not in ("noise_sd", "share")))


def _draw_runs(axes: Axes, growth: pd.DataFrame, noise: pd.DataFrame, drawing: _Drawing) -> None:
    """A point per run: how far a disturbance grows, and which share of its accuracy noise costs."""
    last = growth.loc[growth.groupby("run_id")["unit"].idxmax()].set_index("run_id")["growth"]
    by_noise = noise.pivot_table(index=["run_id", "model"], columns="noise_sd", values="acc")
    runs = (1 - by_noise[NOISE] / by_noise[0.0]).rename("lost").reset_index()
    runs["growth"] = runs["run_id"].map(last)
    axes.set_title(_correlation(runs), loc="left", fontsize=9)
    for model, own in runs.groupby("model", sort=False):
        axes.plot(own["growth"], own["lost"], **drawing.look(model) | _POINT)


def _correlation(runs: pd.DataFrame) -> str:
    """Spearman's rank correlation of the networks' means; seeds do not count as networks."""
    means = runs.groupby("model")[["growth", "lost"]].mean()
    if len(means) < _CORRELATED or means.nunique().min() < 2:
        return ""
    ranks = (means["growth"].rank(), means["lost"].rank())
    # All orders of up to 7 networks; of more networks, the same number of random orders.
    from scipy.stats import PermutationMethod, pearsonr  # which take most of a second to import

    orders = PermutationMethod(n_resamples=math.factorial(7), rng=np.random.default_rng(0))
    result: Any = pearsonr(*ranks, method=orders)
    correlation = f"rank correlation {result.statistic:+.2f}, p {p_value(result.pvalue)}"
    return f"{correlation} ({len(means)} networks)"
