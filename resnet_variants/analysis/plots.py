"""Figures from tables, in one style; nothing is computed here that a table does not hold.

Against cost, colour and line of the interval are the activation order, the marker's shape is the
downsampling, and a filled marker is the deep stem: nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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

# Okabe and Ito's palette: distinct under the common colour vision deficiencies.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("s", "o", "D", "^", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
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
INTERVAL = ("test_acc_ci_low", "test_acc_ci_high")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``; return both paths."""
    FigureCanvasAgg(figure)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".svg")]
    with mpl.rc_context(STYLE):
        figure.savefig(paths[0], dpi=DPI)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _looks(values: pd.Series, looks: Sequence[str]) -> dict[Hashable, str]:
    """One look per distinct value, in order of appearance."""
    return {value: looks[i % len(looks)] for i, value in enumerate(values.unique())}


def _downsample(frame: pd.DataFrame) -> pd.Series:
    return frame["stride"] + " stride, " + frame["shortcut"] + " shortcut"


def accuracy_vs_macs(summary: pd.DataFrame) -> Figure:
    """Test accuracy with its interval against MACs; the line joins the Pareto front.

    Args:
        summary: rows of one data set, ``tables.SUMMARY_COLUMNS``.
    """
    rows = summary[summary["n"] > 0].assign(downsample=_downsample, x=_dodged)
    colours, lines = _looks(rows["order"], PALETTE), _looks(rows["order"], LINES)
    markers = _looks(rows["downsample"], MARKERS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for row in rows.to_dict("records"):
            order = row["order"]
            _point(axes, row, colours[order], markers[row["downsample"]], lines[order])
        front = rows[rows["on_pareto_front"]].sort_values("x")
        axes.plot(front["x"], front["test_acc_mean"], color="0.6", lw=1, zorder=1)
        axes.set_xlabel("MACs per image (millions; 1 MAC = 2 FLOPs)")
        axes.set_ylabel("test accuracy")
        axes.margins(x=0.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(_caption(rows), loc="left", fontsize=9, parse_math=False)
        axes.legend(
            handles=_legend(colours, lines, markers, list(rows["stem"].unique())),
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


def _point(axes: Axes, row: dict[Hashable, Any], colour: str, marker: str, line: str) -> None:
    x, mean, low, high = (row[key] for key in ("x", "test_acc_mean", *INTERVAL))
    error = None if np.isnan(low) else [[mean - low], [high - mean]]
    drawn = axes.errorbar(
        [x],
        [mean],
        yerr=error,
        color=colour,
        marker=marker,
        markersize=6,
        markerfacecolor=colour if row["stem"] == "deep" else "white",
        elinewidth=1,
        capsize=2,
    )
    for bar in drawn.lines[2]:
        bar.set_linestyle(cast("Any", line))
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


def _legend(
    colours: dict[Hashable, str],
    lines: dict[Hashable, str],
    markers: dict[Hashable, str],
    stems: list[str],
) -> list[Line2D]:
    def entry(label: object, **look: Any) -> Line2D:
        return Line2D([], [], **{"linestyle": "", "markersize": 6, "label": str(label)} | look)

    return [
        *(
            entry(order, color=colour, linestyle=lines[order], markersize=0)
            for order, colour in colours.items()
        ),
        *(
            entry(text, marker=marker, color="0.4", markerfacecolor="white")
            for text, marker in markers.items()
        ),
        *(
            entry(
                f"{stem} stem",
                marker="o",
                color="0.4",
                markerfacecolor="0.4" if stem == "deep" else "white",
            )
            for stem in stems
        ),
        Line2D([], [], color="0.6", lw=1, label="Pareto front of the means"),
    ]


def training_curves(epochs: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Training loss and validation error by epoch, a column per order; bands span the seeds.

    Args:
        epochs: ``records.EPOCH_COLUMNS``.
        runs: ``records.RUN_COLUMNS``, of one data set.
    """
    keys = ["run_id", "stem", "stride", "shortcut", "order"]
    frame = epochs.merge(runs[keys], on="run_id")
    frame = frame.assign(downsample=_downsample, val_err=1 - frame["val_acc"])
    orders = list(frame["order"].unique())
    colours, lines = _looks(frame["downsample"], PALETTE), _looks(frame["stem"], LINES)
    measures = {"train_loss": "training loss", "val_err": "validation error"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 + 3.6 * len(orders), 5.6), layout="constrained")
        grid = figure.subplots(2, len(orders), sharex=True, sharey="row", squeeze=False)
        for (i, (measure, text)), (j, order) in _cells(measures, orders):
            axes: Axes = grid[i, j]
            own = frame[frame["order"] == order]
            for (stem, downsample), curve in own.groupby(["stem", "downsample"], sort=False):
                _curve(axes, curve, measure, colours[downsample], lines[stem])
            axes.set_yscale("log" if measure == "train_loss" else "linear")
            if i == 0:
                axes.set_title(order, loc="left")
            else:
                axes.set_xlabel("epoch")
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
                axes.set_ylim(0, min(1.0, 3 * float(frame["val_err"].median() + 0.05)))
            if j == 0:
                axes.set_ylabel(text)
        handles = [Line2D([], [], color=c, label=str(text)) for text, c in colours.items()]
        handles += [
            Line2D([], [], color="0.4", linestyle=cast("Any", line), label=f"{stem} stem")
            for stem, line in lines.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _cells(
    measures: dict[str, str], orders: list[str]
) -> list[tuple[tuple[int, tuple[str, str]], tuple[int, str]]]:
    return [(m, o) for m in enumerate(measures.items()) for o in enumerate(orders)]


def _curve(axes: Axes, curve: pd.DataFrame, measure: str, colour: str, line: str) -> None:
    by_epoch = curve.groupby("epoch")[measure]
    mean = by_epoch.mean()
    axes.plot(mean.index, mean, color=colour, linestyle=line, lw=1.2)
    axes.fill_between(mean.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.1, lw=0)
