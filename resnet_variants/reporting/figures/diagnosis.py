"""Figures of diagnoses: gradients, paths, lesions, distances to the identity, sensitivity.

A line is the mean over a network's seeds, its band spans them. Networks differ in colour, line and
marker, and have the same in all figures. ``DIAGNOSIS_FIGURES`` lists what is drawn of each table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import PermutationMethod, pearsonr

from resnet_variants.analysis.diagnosis import largest_over_smallest
from resnet_variants.records.diagnosis import NOISE, OUTPUT, TABLES, Diagnosis
from resnet_variants.reporting.figures.style import (
    headline,
    line_styles,
    plain,
    shortened,
    styled,
)
from resnet_variants.reporting.text import p_value, span

_MARKED = 25  # points of a line that have markers
_CORRELATED = 6  # networks that a rank correlation takes at least
_UNIT = "unit (0: the first)"
_UNIT_AND_END = f"{_UNIT[:-1]}; last: the output)"


@dataclass(frozen=True)
class _Drawing:
    """What the figures of a diagnosis share."""

    styles: dict[Hashable, dict[str, Any]]  # of each model, as matplotlib's keywords
    dataset: str


@dataclass(frozen=True)
class _Along:
    """A statistic over the units of a network, drawn over the epochs."""

    title: str
    of: Callable[[Any], pd.DataFrame]


_MEDIAN = _Along("median of the units", lambda groups: groups.median())


def _gradient_flow(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Norm of the gradient at each unit's input, alone and times that of the input, by epoch."""
    scaled = frame.assign(scaled=frame["grad_norm"] * frame["input_norm"])
    measures = {
        "grad_norm": "gradient of the cross entropy\nat the unit's input, norm",
        "scaled": "that times\nthe norm of the input",
    }
    along = _Along("largest over smallest", largest_over_smallest)
    return _by_epoch(scaled, measures, drawing, along, scale="log", unit=_UNIT_AND_END)


def _identity_distance(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Size of each unit's branch, and the cosine of its input and output, by epoch."""
    measures = {
        "branch_to_shortcut": "norm of the branch\nover that of the shortcut",
        "cosine": "cosine of input and output\n(compares within one order)",
    }
    return _by_epoch(frame, measures, drawing, _MEDIAN, scale="linear", unit=_UNIT)


def _any_table(frame: pd.DataFrame, drawing: _Drawing) -> Figure | None:
    """Each number of a table that has a row per unit, by unit; its median over them by epoch."""
    numbers = frame.select_dtypes("number").columns.difference(["seed", "epoch", "unit", "n"])
    measures = {str(name): str(name).replace("_", " ") for name in numbers}
    return _by_epoch(frame, measures, drawing, _MEDIAN, scale="linear", unit=_UNIT)


def _by_epoch(
    frame: pd.DataFrame,
    measures: Mapping[str, str],
    drawing: _Drawing,
    along: _Along,
    *,
    scale: str,
    unit: str,
) -> Figure | None:
    """A row per measure; a column per state of the networks, and one for ``along`` by epoch.

    None where nothing was measured.
    """
    shown = [name for name in measures if frame[name].notna().any()]
    if not shown:
        return None
    states = _states(frame)
    figure, grid = _figure(len(shown), len(states) + 1, frame, drawing, sharey=False)
    inside = frame[frame["name"] != OUTPUT]
    epochs = along.of(inside.groupby(["model", "seed", "epoch"], sort=False)[shown]).reset_index()
    for row, name in zip(grid, shown, strict=True):
        for axes, (title, own) in zip(row[:-1], states.items(), strict=True):
            if axes is not row[0]:
                axes.sharey(row[0])
                axes.tick_params(labelleft=False)
            _draw(axes, own, "unit", name, drawing)
            axes.set_title(title, loc="left")
            axes.set_xlabel(unit)
        _draw(row[-1], epochs, "epoch", name, drawing)
        row[-1].set_title(f"{along.title}, by epoch", loc="left")
        row[-1].set_xlabel("epoch (0: initial weights)")
        for axes in row:
            axes.set_yscale(scale)
        row[0].set_ylabel(measures[name])
    return _with_legend(figure, frame, drawing)


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
        panels[0].axhline(
            own["acc"].mean(), color=drawing.styles[model]["color"], lw=0.8, alpha=0.6
        )
    for model, own in moved.groupby("model", sort=False):
        panels[2].plot(own["kendall_tau"], own["acc"], **_point(drawing, model))
    panels[2].invert_xaxis()
    for axes, title, label in zip(
        panels,
        ("one unit deleted", "several deleted", "units exchanged"),
        (_UNIT, "units deleted at random", "rank correlation with the right order"),
        strict=True,
    ):
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
    panels[0].set_ylabel("accuracy (thin: the whole network)")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    return _with_legend(figure, frame, drawing)


def _paths(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """How many paths of each length there are, what gradient each carries, and all together."""
    figure, (panels,) = _figure(1, 3, frame, drawing, sharey=False)
    measures = {
        "share": "share of all paths",
        "grad_norm": f"gradient of one path (mean of {frame['draws'].max():.0f})",
        "contribution": "share of what all carry",
    }
    for axes, (name, label) in zip(panels, measures.items(), strict=True):
        _draw(axes, frame[frame[name].notna()], "length", name, drawing)
        axes.set_xlabel("length of the path (branches)")
        axes.set_title(label, loc="left")
    panels[1].set_yscale("log")
    return _with_legend(figure, frame, drawing)


def _sensitivity(frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    """Growth of a small disturbance by unit, accuracy under noise, and one against the other."""
    growth, noise = (frame[frame["kind"] == kind] for kind in ("growth", "noise"))
    figure, (panels,) = _figure(1, 3, frame, drawing, sharey=False)
    _draw(panels[0], growth, "unit", "growth", drawing)
    _draw(panels[1], noise, "noise_sd", "acc", drawing)
    _draw_runs(panels[2], growth, noise, drawing)
    labels = (
        ("relative change over that of the image", _UNIT_AND_END),
        ("accuracy under noise", "noise on the image (standard deviation, of 1)"),
    )
    for axes, (title, label) in zip(panels, labels, strict=False):
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
    panels[2].set_xlabel("relative change at the last output")
    for axes in panels[1:]:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return _with_legend(figure, frame, drawing)


@dataclass(frozen=True)
class DiagnosisFigure:
    """What is drawn of one diagnosis table."""

    caption: str
    draw: Callable[[pd.DataFrame, _Drawing], Figure | None]


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
}
DIAGNOSIS_FIGURES = {
    name: _FIGURES.get(name) or DiagnosisFigure(f"{name.replace('_', ' ')} by unit", _any_table)
    for name in TABLES
}


def diagnosis_figure(name: str, tables: Diagnosis, dataset: str) -> Figure | None:
    """The figure of one table; ``None`` where the table has nothing to show.

    Args:
        name: of the table.
        tables: of runs of one data set.
        dataset: its name.
    """
    table = tables[name]
    if table.empty:
        return None
    models = pd.concat([other["model"] for other in tables.values()])
    with styled():
        return DIAGNOSIS_FIGURES[name].draw(table, _Drawing(line_styles(models), dataset))


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
    rows: int, columns: int, frame: pd.DataFrame, drawing: _Drawing, *, sharey: Any
) -> tuple[Figure, np.ndarray]:
    seeds = frame.groupby("model")["seed"].nunique()
    n = f"n = {span(seeds)} seed" + ("s, bands span them" if seeds.max() > 1 else "")
    size = (0.9 + min(3.5, 14 / columns) * max(columns, 2), 0.9 + 2.7 * rows)
    figure = Figure(figsize=size, layout="constrained")
    images = " and ".join(f"{count:.0f}" for count in sorted(frame["n"].unique()))
    about = f"{shortened(drawing.dataset)}: {n}; {images} validation images"
    headline(figure, about)
    return figure, figure.subplots(rows, columns, sharey=sharey, squeeze=False)


def _draw(axes: Axes, frame: pd.DataFrame, x: str, y: str, drawing: _Drawing) -> None:
    """A line per model: mean over the seeds, and their band."""
    for model, own in frame.dropna(subset=[x, y]).groupby("model", sort=False):
        by_seed = own.groupby([x, "seed"])[y].mean().groupby(x).agg(["mean", "min", "max"])
        if x == "unit":  # a gap where it was not measured
            by_seed = by_seed.reindex(range(int(by_seed.index.max()) + 1))
        style: dict[str, Any] = {**drawing.styles[model]}
        if len(by_seed) >= _MARKED:
            style["marker"] = ""
        axes.plot(by_seed.index, by_seed["mean"], **style, markersize=3, lw=1.2)
        band = (by_seed.index, by_seed["min"], by_seed["max"])
        axes.fill_between(*band, color=style["color"], alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=x != "noise_sd"))


def _draw_runs(axes: Axes, growth: pd.DataFrame, noise: pd.DataFrame, drawing: _Drawing) -> None:
    """A point per run: how far a disturbance grows, and which share of its accuracy noise costs."""
    last = growth.loc[growth.groupby("run_id")["unit"].idxmax()].set_index("run_id")["growth"]
    by_noise = noise.pivot_table(index=["run_id", "model"], columns="noise_sd", values="acc")
    runs = (1 - by_noise[NOISE] / by_noise[0.0]).rename("lost").reset_index()
    runs["growth"] = runs["run_id"].map(last)
    axes.set_title(f"share of accuracy lost by noise of {NOISE:g}{_correlation(runs)}", loc="left")
    for model, own in runs.groupby("model", sort=False):
        axes.plot(own["growth"], own["lost"], **_point(drawing, model))


def _point(drawing: _Drawing, model: Hashable) -> dict[str, Any]:
    return drawing.styles[model] | {"linestyle": "", "markersize": 4, "alpha": 0.8}


def _correlation(runs: pd.DataFrame) -> str:
    """Spearman's rank correlation of the networks' means; seeds do not count as networks."""
    means = runs.groupby("model")[["growth", "lost"]].mean()
    if len(means) < _CORRELATED or means.nunique().min() < 2:
        return ""
    ranks = (means["growth"].rank(), means["lost"].rank())
    # All orders of up to 7 networks; of more networks, the same number of random orders.
    orders = PermutationMethod(n_resamples=math.factorial(7), rng=np.random.default_rng(0))
    result: Any = pearsonr(*ranks, method=orders)
    correlation = f"rank correlation {result.statistic:+.2f}, p {p_value(result.pvalue)}"
    return f"\n({correlation}, {len(means)} networks)"


def _with_legend(figure: Figure, frame: pd.DataFrame, drawing: _Drawing) -> Figure:
    handles = [
        Line2D([], [], **drawing.styles[model], markersize=4, label=plain(model))
        for model in frame["model"].unique()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure
