"""Figures of diagnoses: gradients, paths, lesions, distances to the identity, sensitivity.

A line is the mean over a network's seeds, its band spans them. Networks differ in colour and line,
and look the same in all figures.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import spearmanr

from resnet_variants.analysis.diagnosis_tables import NOISE
from resnet_variants.analysis.formats import span
from resnet_variants.analysis.style import LINES, PALETTE, STYLE, looks, plain, shortened
from resnet_variants.diagnosis_files import Diagnosis

_MOST_EPOCHS = 3  # panels: the first, one between, the last
_MARKED = 25  # points of a line that have markers
_CORRELATED = 4  # runs that a rank correlation takes at least
_UNIT = "unit (0: the first)"


@dataclass(frozen=True)
class _Look:
    """How each model is drawn, and what the figures are of."""

    colours: dict[Hashable, str]
    lines: dict[Hashable, Any]
    dataset: str


def _gradient_flow(frame: pd.DataFrame, look: _Look) -> Figure:
    """Norm of the loss gradient at each unit's input, a panel per epoch."""
    epochs = _epochs(frame)
    figure, (panels,) = _figure(1, len(epochs), frame, look, sharey=True)
    for axes, epoch in zip(panels, epochs, strict=True):
        _draw(axes, frame[frame["epoch"] == epoch], "unit", "grad_norm", look)
        axes.set_yscale("log")
        axes.set_title(_when(epoch), loc="left")
        axes.set_xlabel(_UNIT)
    panels[0].set_ylabel("norm of the loss gradient\nat the unit's input")
    return _with_legend(figure, panels[0])


def _identity_distance(frame: pd.DataFrame, look: _Look) -> Figure:
    """Size of each unit's branch, and the cosine of its input and output, a column per epoch."""
    epochs = _epochs(frame)
    measures = {
        "branch_to_shortcut": "norm of the branch\nover that of the shortcut",
        "cosine": "cosine of input and output",
    }
    shown = [name for name in measures if frame[name].notna().any()]
    figure, grid = _figure(len(shown), len(epochs), frame, look, sharey="row")
    for row, name in zip(grid, shown, strict=True):
        for axes, epoch in zip(row, epochs, strict=True):
            _draw(axes, frame[frame["epoch"] == epoch], "unit", name, look)
            axes.set_title(_when(epoch), loc="left")
            axes.set_xlabel(_UNIT)
        row[0].set_ylabel(measures[name])
    return _with_legend(figure, grid[-1][0])


def _lesion(frame: pd.DataFrame, look: _Look) -> Figure:
    """Accuracy without each unit, without several, and with units exchanged."""
    figure, (panels,) = _figure(1, 3, frame, look, sharey=True)
    whole = frame[frame["kind"] == "none"]
    one, several, moved = (
        frame[frame["kind"] == kind] for kind in ("delete", "delete_random", "permute")
    )
    _draw(panels[0], one, "unit", "acc", look)
    _draw(panels[1], pd.concat([whole, several]), "deleted", "acc", look)
    _draw(panels[2], pd.concat([whole, moved]), "exchanged", "acc", look)
    for model, own in whole.groupby("model", sort=False):
        panels[0].axhline(own["acc"].mean(), color=look.colours[model], lw=0.8, alpha=0.6)
    for axes, title, label in zip(
        panels,
        ("one unit deleted", "several deleted", "units exchanged"),
        (_UNIT, "units deleted at random", "pairs exchanged, one after another"),
        strict=True,
    ):
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
    panels[0].set_ylabel("accuracy (thin: the whole network)")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    return _with_legend(figure, panels[1])


def _paths(frame: pd.DataFrame, look: _Look) -> Figure:
    """How many paths of each length there are, what gradient each carries, and all together."""
    figure, (panels,) = _figure(1, 3, frame, look, sharey=False)
    measures = {
        "share": "share of all paths",
        "grad_norm": "gradient of one path",
        "contribution": "share of what all carry",
    }
    for axes, (name, label) in zip(panels, measures.items(), strict=True):
        _draw(axes, frame[frame[name].notna()], "length", name, look)
        axes.set_xlabel("length of the path (branches)")
        axes.set_title(label, loc="left")
    panels[1].set_yscale("log")
    return _with_legend(figure, panels[0])


def _sensitivity(frame: pd.DataFrame, look: _Look) -> Figure:
    """Growth of a small disturbance by unit, accuracy under noise, and one against the other."""
    growth, noise = (frame[frame["kind"] == kind] for kind in ("growth", "noise"))
    figure, (panels,) = _figure(1, 3, frame, look, sharey=False)
    _draw(panels[0], growth, "unit", "growth", look)
    _draw(panels[1], noise, "noise_sd", "acc", look)
    _draw_runs(panels[2], growth, noise, look)
    labels = (
        ("relative change over that of the image", _UNIT),
        ("accuracy under noise", "noise on the image (standard deviation, of 1)"),
    )
    for axes, (title, label) in zip(panels, labels, strict=False):
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
    panels[2].set_xlabel("relative change at the last output")
    for axes in panels[1:]:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return _with_legend(figure, panels[0])


_FIGURES: dict[str, Callable[[pd.DataFrame, _Look], Figure]] = {
    "gradient_flow": _gradient_flow,
    "paths": _paths,
    "lesion": _lesion,
    "identity_distance": _identity_distance,
    "sensitivity": _sensitivity,
}


def diagnosis_figures(tables: Diagnosis, dataset: str) -> dict[str, Figure]:
    """A figure of each table that has rows, by its name.

    Args:
        tables: of runs of one data set.
        dataset: its name.
    """
    models = tables["gradient_flow"]["model"]
    look = _Look(looks(models, PALETTE), looks(models, LINES), dataset)
    with mpl.rc_context(STYLE):
        return {
            name: draw(tables[name], look) for name, draw in _FIGURES.items() if len(tables[name])
        }


# --- parts ------------------------------------------------------------------------------------


def _epochs(frame: pd.DataFrame) -> list[int]:
    """The first, the last, and one in the middle that all runs have."""
    runs = frame["run_id"].nunique()
    by_epoch = frame.groupby("epoch")["run_id"].nunique()
    common = by_epoch.index[by_epoch == runs].tolist() or by_epoch.index.tolist()
    places = np.unique(np.linspace(0, len(common) - 1, min(len(common), _MOST_EPOCHS)).round())
    return [common[int(i)] for i in places]


def _when(epoch: int) -> str:
    return f"after epoch {epoch}" if epoch else "initial weights"


def _figure(
    rows: int, columns: int, frame: pd.DataFrame, look: _Look, *, sharey: Any
) -> tuple[Figure, np.ndarray]:
    seeds = frame.groupby("model")["seed"].nunique()
    n = f"n = {span(seeds)} seed" + ("s, bands span them" if seeds.max() > 1 else "")
    size = (0.9 + 3.5 * max(columns, 2), 0.9 + 2.7 * rows)
    figure = Figure(figsize=size, layout="constrained")
    images = " and ".join(f"{count:.0f}" for count in sorted(frame["n"].unique()))
    about = f"{shortened(look.dataset)}: {n}; {images} validation images"
    figure.suptitle(about, x=0.01, ha="left", fontsize=9, parse_math=False)
    return figure, figure.subplots(rows, columns, sharey=sharey, squeeze=False)


def _draw(axes: Axes, frame: pd.DataFrame, x: str, y: str, look: _Look) -> None:
    """A line per model: mean over the seeds, and their band."""
    for model, own in frame.dropna(subset=[x, y]).groupby("model", sort=False):
        by_seed = own.groupby([x, "seed"])[y].mean().groupby(x).agg(["mean", "min", "max"])
        if x == "unit":  # a gap where it was not measured
            by_seed = by_seed.reindex(range(int(by_seed.index.max()) + 1))
        colour = look.colours[model]
        axes.plot(
            by_seed.index,
            by_seed["mean"],
            color=colour,
            linestyle=look.lines[model],
            marker="." if len(by_seed) < _MARKED else "",
            lw=1.2,
            label=plain(model),
        )
        band = (by_seed.index, by_seed["min"], by_seed["max"])
        axes.fill_between(*band, color=colour, alpha=0.15, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=x != "noise_sd"))


def _draw_runs(axes: Axes, growth: pd.DataFrame, noise: pd.DataFrame, look: _Look) -> None:
    """A point per run: how far a disturbance grows, and what noise costs."""
    last = growth.loc[growth.groupby("run_id")["unit"].idxmax()].set_index("run_id")["growth"]
    by_noise = noise.pivot_table(index=["run_id", "model"], columns="noise_sd", values="acc")
    lost = by_noise[0.0] - by_noise[NOISE]
    axes.set_title(f"accuracy lost by noise of {NOISE:g}{_correlation(last, lost)}", loc="left")
    for (run_id, model), value in lost.items():  # type: ignore[misc]
        axes.plot([last[run_id]], [value], "o", color=look.colours[model], markersize=4)


def _correlation(last: pd.Series, lost: pd.Series) -> str:
    """Spearman's rank correlation over all runs, where there are enough to have one."""
    if len(lost) < _CORRELATED or min(last.nunique(), lost.nunique()) < 2:
        return ""
    ranked = spearmanr(last[lost.index.get_level_values("run_id")], lost)
    return f"\n(rank correlation {cast('Any', ranked).statistic:+.2f} over {len(lost)} runs)"


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure
