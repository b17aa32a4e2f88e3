"""The tables of the page as text, and the geometry of the forest plot beside the effects."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from resnet_variants.models.variant import MAIN, shown_as
from resnet_variants.reporting.page_data import group_labels, text, varied
from resnet_variants.reporting.text import interval, p_value

# Left out where they say nothing about any variant.
OPTIONAL = {
    *("p (Holm)", "training ms per image", "latency, ms per image", "front probability"),
    *("points per +1 % MACs", "paper's delta, points", "paper"),
}
ALWAYS = tuple(shown_as(MAIN))
# What a cell with a number looks like: `1,234`, `<0.001`, `+0.10 [-0.20, 0.40]`, `80 %`.
NUMBER = re.compile(r"<?[-+]?[\d,]*\.?\d+( [%\[].*)?")
FOREST_WIDTH, FOREST_MARGIN = 200.0, 8.0


@dataclass(frozen=True)
class Table:
    """Cells as text, of rows that may be compared with one another."""

    group: str
    cells: Mapping[str, Sequence[str]]  # by column title; the first names the row
    places: Sequence[int]  # of each row in the frame behind
    forest: Forest | None = None

    @property
    def rows(self) -> list[tuple[int, tuple[str, ...]]]:
        """The place and the cells of each row."""
        return list(zip(self.places, zip(*self.cells.values(), strict=True), strict=True))

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        filled = [[cell for cell in column if cell] for column in self.cells.values()]
        return [bool(own) and all(map(NUMBER.fullmatch, own)) for own in filled]


@dataclass(frozen=True)
class Forest:
    """One interval a row on a common scale that is symmetric about zero, in pixels."""

    marks: Sequence[tuple[float, float, float] | None]  # low, estimate, high
    ticks: Sequence[tuple[float, str]]


def summary_tables(summary: pd.DataFrame, labels: Sequence[str]) -> list[Table]:
    """One table per group, all with the same columns."""
    cells = _summary_cells(summary, list(dict.fromkeys((*varied(summary), *ALWAYS))))
    return _split(cells, group_labels(summary), labels)


def _summary_cells(summary: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    columns = {
        "variant": summary["model"],
        **{axis.replace("_", " "): summary[axis] for axis in axes},
        "n": summary["n"],
        "test accuracy % [95 %]": _intervals(summary, "test_acc_mean", "test_acc_ci"),
        "delta, points [95 %]": _intervals(summary, "delta", "delta_ci", sign="+"),
        "p (Holm)": _written(summary, "p_adjusted", p_value),
        "verdict": summary["verdict"],
        "MACs (M)": (summary["macs"] / 1e6).map("{:.3f}".format),
        "FLOPs (M)": (summary["flops"] / 1e6).map("{:.3f}".format),
        "params": summary["params"].map("{:,}".format),
        "activations": summary["acts"].map("{:,}".format),
        "training ms per image": _written(summary, "train_ms_per_image", "{:.3f}".format),
        "latency, ms per image": _written(summary, "latency_ms", "{:.3f}".format),
        "Pareto front": summary["on_pareto_front"].map({True: "yes", False: ""}),
        "front probability": _written(summary, "front_probability", lambda v: f"{100 * v:.0f} %"),
        "points per +1 % MACs": _written(summary, "points_per_percent_macs", "{:+.3f}".format),
        "paper's delta, points": _written(summary, "paper_delta", lambda v: f"{100 * v:+.2f}"),
        "paper": summary["paper"],
        "failed": summary["failed"],
    }
    said = {name: column.map(text) for name, column in columns.items()}
    return pd.DataFrame(
        {name: column for name, column in said.items() if name not in OPTIONAL or column.any()}
    )


def effect_tables(effects: pd.DataFrame, labels: Sequence[str]) -> list[Table]:
    """One table per group, each with a forest plot of its own scale."""
    if effects.empty:
        return []
    columns = {
        **{name: effects[name] for name in ("effect", "kind", "contrast")},
        "estimate, points [95 %]": _intervals(effects, "estimate", "ci", sign="+"),
        "p": _written(effects, "p_value", p_value),
        "p (Holm)": _written(effects, "p_adjusted", p_value),
        **{name: effects[name] for name in ("verdict", "cells", "seeds")},
    }
    cells = pd.DataFrame({name: column.map(text) for name, column in columns.items()})
    points = 100 * effects[["estimate", "ci_low", "ci_high"]].astype(float)
    return [
        replace(table, forest=_forest(points.iloc[list(table.places)]))
        for table in _split(cells, group_labels(effects), labels)
    ]


def group_tables(
    frame: pd.DataFrame | None,
    labels: Sequence[str],
    readable: Callable[[pd.DataFrame], pd.DataFrame],
) -> list[Table]:
    """One table per group, as ``readable`` tells its rows; none of what is not there."""
    if frame is None or frame.empty:
        return []
    groups = group_labels(frame)
    told = {label: readable(frame[groups == label]).map(text) for label in labels}
    return [
        Table(label, {str(name): cells[name].tolist() for name in cells}, range(len(cells)))
        for label, cells in told.items()
        if len(cells)
    ]


def _split(cells: pd.DataFrame, groups: pd.Series, labels: Sequence[str]) -> list[Table]:
    places = {label: [i for i, own in enumerate(groups) if own == label] for label in labels}
    return [
        Table(label, {str(name): cells[name].iloc[own].tolist() for name in cells}, own)
        for label, own in places.items()
        if own
    ]


def _forest(points: pd.DataFrame) -> Forest:
    numbers = points.to_numpy(float)
    largest = float(np.nanmax(np.abs(numbers), initial=0.0)) or 1.0

    def x(value: float) -> float:
        middle = FOREST_WIDTH / 2
        return round(middle + value / largest * (middle - FOREST_MARGIN), 1)

    def mark(estimate: float, low: float, high: float) -> tuple[float, float, float] | None:
        if math.isnan(estimate):
            return None
        ends = (estimate, estimate) if math.isnan(low) else (low, high)
        return x(ends[0]), x(estimate), x(ends[1])

    tick = _round_below(largest)
    ticks = [(x(value), f"{value:+g}" if value else "0") for value in (-tick, 0.0, tick)]
    return Forest([mark(*row) for row in numbers], ticks)


def _round_below(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(round(m * power, 12) for m in (1, 2, 5) if m * power <= value)


def _written(frame: pd.DataFrame, column: str, write: Callable[[float], str]) -> pd.Series:
    values = frame[column].to_numpy(float)
    return pd.Series(["" if math.isnan(v) else write(v) for v in values], index=frame.index)


def _intervals(frame: pd.DataFrame, mean: str, bound: str, *, sign: str = "") -> pd.Series:
    columns = (frame[name].astype(float) for name in (mean, f"{bound}_low", f"{bound}_high"))
    cells = [interval(*row, sign=sign) for row in zip(*columns, strict=True)]
    return pd.Series(cells, index=frame.index)
