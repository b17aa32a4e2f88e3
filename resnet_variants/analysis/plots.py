"""Figures from tables, in one style; nothing is computed here that a table does not hold.

Against cost, colour and line of the interval are the activation order, the marker's filling is the
stem, its shape everything else: nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from resnet_variants.records import FURTHER_COLUMNS

# Okabe and Ito's palette: distinct under the common colour vision deficiencies.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("s", "o", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
FILLS = ("none", "full", "left", "top", "right", "bottom")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "resnet_variants",  # the same data gives the same bytes
    "svg.fonttype": "none",
}
DPI = 200
# A ring around each point of the front, so that a front of one shows too.
FRONT: dict[str, Any] = {
    "color": "0.6",
    "linestyle": "-",
    "linewidth": 1,
    "marker": "o",
    "markersize": 13,
    "markerfacecolor": "none",
    "zorder": 1,
}
INTERVAL = ("test_acc_ci_low", "test_acc_ci_high")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``; return both paths."""
    FigureCanvasAgg(figure)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    with mpl.rc_context(STYLE):
        layout = figure.get_layout_engine()
        if layout is not None:  # once for both
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(paths[0], dpi=DPI)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _looks(values: pd.Series, looks: Sequence[Any]) -> dict[Hashable, Any]:
    """One look per distinct value, in order of appearance."""
    return {value: looks[i % len(looks)] for i, value in enumerate(values.unique())}


@dataclass(frozen=True)
class _Looks:
    """How the choices of each axis are drawn."""

    colour: dict[Hashable, str]  # by order
    line: dict[Hashable, Any]  # by order
    marker: dict[Hashable, str]  # by all other axes
    fill: dict[Hashable, str]  # by stem


def _design(frame: pd.DataFrame) -> pd.Series:
    """Downsampling, and whatever else the rows differ in."""
    text = frame["stride"] + " stride, " + frame["shortcut"] + " shortcut"
    for axis in ("stem_stride", *FURTHER_COLUMNS):
        if frame[axis].nunique() > 1:
            text += f", {axis.replace('_', ' ')} " + frame[axis].astype(str)
    return text


def accuracy_vs_macs(summary: pd.DataFrame) -> Figure:
    """Test accuracy with its interval against MACs; the line joins the Pareto front.

    Args:
        summary: rows of one data set, ``tables.SUMMARY_COLUMNS``.
    """
    rows = summary[summary["n"] > 0].assign(design=_design, x=_dodged)
    looks = _Looks(
        colour=_looks(rows["order"], PALETTE),
        line=_looks(rows["order"], LINES),
        marker=_looks(rows["design"], MARKERS),
        fill=_looks(rows["stem"], FILLS),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for row in rows.to_dict("records"):
            _point(axes, row, looks)
        front = rows[rows["on_pareto_front"]].sort_values("x")
        axes.plot(front["x"], front["test_acc_mean"], **FRONT)
        axes.set_xlabel("MACs per image (millions; 1 MAC = 2 FLOPs)")
        axes.set_ylabel("test accuracy")
        axes.margins(x=0.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(_caption(rows), loc="left", fontsize=9, parse_math=False)
        axes.legend(
            handles=_legend(looks),
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
    return figure


def _dodged(frame: pd.DataFrame) -> pd.Series:
    """Millions of MACs, spread a little where equal, so that no marker hides another."""
    macs = frame["macs"]
    rank, size = macs.groupby(macs).cumcount(), macs.groupby(macs).transform("size")
    span = (macs.max() - macs.min()) or 0.5 * macs.max()
    return (macs + 0.025 * span * (rank - (size - 1) / 2)) / 1e6


def _point(axes: Axes, row: dict[Hashable, Any], looks: _Looks) -> None:
    x, mean, low, high = (row[key] for key in ("x", "test_acc_mean", *INTERVAL))
    colour = looks.colour[row["order"]]
    drawn = axes.errorbar(
        [x],
        [mean],
        yerr=None if np.isnan(low) else [[mean - low], [high - mean]],
        color=colour,
        marker=looks.marker[row["design"]],
        markersize=6,
        **_filling(looks.fill[row["stem"]], colour),
        elinewidth=1,
        capsize=2,
    )
    for bar in drawn.lines[2]:
        bar.set_linestyle(cast("Any", looks.line[row["order"]]))
    if row["preset"]:
        axes.annotate(
            str(row["preset"]),
            (x, mean),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            fontweight="bold",
        )


def _caption(rows: pd.DataFrame) -> str:
    first, low, high = rows.iloc[0], rows["n"].min(), rows["n"].max()
    n = f"n = {low}" if low == high else f"n = {low} to {high}"
    spread = "95 % Student intervals" if high > 1 else "one seed: no interval"
    networks = ", ".join(
        f"ResNet-{depth} ({family})"
        for family, depth in rows[["family", "depth"]].drop_duplicates().to_numpy()
    )
    return (
        f"{networks} on {first['dataset']} at {first['img_size']} px, {first['epochs']} epochs; "
        f"{n} seeds, {spread}\nletters: ResNet-A to D; equal MACs stand side by side"
    )


def _filling(fill: str, colour: str) -> dict[str, Any]:
    """A marker's filling on white ground, which hides the interval behind it."""
    if fill == "none":
        return {"markerfacecolor": "white"}
    return {"markerfacecolor": colour, "markerfacecoloralt": "white", "fillstyle": fill}


def _legend(looks: _Looks) -> list[Line2D]:
    def entry(label: object, **look: Any) -> Line2D:
        grey = {"linestyle": "", "markersize": 6, "color": "0.4", "label": str(label)}
        return Line2D([], [], **grey | look)

    return [
        *(
            entry(order, color=colour, linestyle=looks.line[order])
            for order, colour in looks.colour.items()
        ),
        *(
            entry(text, marker=marker, **_filling("none", "0.4"))
            for text, marker in looks.marker.items()
        ),
        *(
            entry(f"{stem} stem", marker="o", **_filling(fill, "0.4"))
            for stem, fill in looks.fill.items()
        ),
        entry("Pareto front of the means", **FRONT),
    ]


def training_curves(epochs: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Training loss and validation error by epoch; bands span the seeds.

    A column per order, and per network size where there are several.

    Args:
        epochs: ``records.EPOCH_COLUMNS``.
        runs: ``records.RUN_COLUMNS``, of one data set and recipe.
    """
    runs = runs.assign(design=_design, panel=_panel)
    keys = ["run_id", "panel", "stem", "design"]
    frame = epochs.merge(runs[keys], on="run_id").assign(val_err=lambda f: 1 - f["val_acc"])
    panels = [panel for panel in runs["panel"].unique() if panel in set(frame["panel"])]
    colours, lines = _looks(frame["design"], PALETTE), _looks(frame["stem"], LINES)
    measures = {"train_loss": "training loss", "val_err": "validation error"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 3.6 * len(panels), 5.6), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for j, panel in enumerate(panels):
            own = frame[frame["panel"] == panel]
            grid[0, j].set_title(panel, loc="left")
            grid[1, j].set_xlabel("epoch")
            for i, measure in enumerate(measures):
                for model, curve in own.groupby("model", sort=False):
                    look = curve.iloc[0]
                    _curve(grid[i, j], curve, measure, colours[look["design"]])
                    grid[i, j].lines[-1].set_linestyle(lines[look["stem"]])
                    grid[i, j].lines[-1].set_gid(str(model))
        _scales(list(grid[:, 0]), list(measures.values()), float(frame["val_err"].median()))
        figure.legend(handles=_curve_legend(colours, lines), loc="outside lower center", ncols=3)
    return figure


def _curve_legend(colours: dict[Hashable, str], lines: dict[Hashable, str]) -> list[Line2D]:
    by_colour = [Line2D([], [], color=c, label=str(text)) for text, c in colours.items()]
    return by_colour + [
        Line2D([], [], color="0.4", linestyle=cast("Any", line), label=f"{stem} stem")
        for stem, line in lines.items()
    ]


def _panel(runs: pd.DataFrame) -> pd.Series:
    """The column a run is drawn in: its order, after its size where sizes differ."""
    sizes = ("ResNet-" + runs["depth"].astype(str) + " (" + runs["family"] + ")").str.cat(
        "stem stride " + runs["stem_stride"].astype(str), sep=", "
    )
    return runs["order"] if sizes.nunique() < 2 else sizes + ", " + runs["order"]


def _scales(first: Sequence[Axes], labels: Sequence[str], error: float) -> None:
    """Scales are shared along a row, so that the first column sets them for all."""
    for axes, label in zip(first, labels, strict=True):
        axes.set_ylabel(label)
    loss, mistakes = first
    loss.set_yscale("log")
    mistakes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mistakes.yaxis.set_major_formatter(PercentFormatter(1.0))
    mistakes.set_ylim(0, min(1.0, 3 * (error + 0.05)))


def _curve(axes: Axes, curve: pd.DataFrame, measure: str, colour: str) -> None:
    by_epoch = curve.groupby("epoch")[measure]
    mean = by_epoch.mean()
    axes.plot(mean.index, mean, color=colour, lw=1.2)
    axes.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.1, lw=0)
