"""What the script of the page draws: rounded numbers by column, no NaN, no more than it shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import KEY, with_recipe
from resnet_variants.models.variant import FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.files import Json
from resnet_variants.records.run_folder import DONE
from resnet_variants.reporting.figures.style import COSTS

RUNS_DRAWN = 2_000  # beyond that a browser answers slowly
CURVE_POINTS = 6_000  # of all curves together: a third of a megabyte
PERCENT = (
    *("test_acc_mean", "test_acc_ci_low", "test_acc_ci_high"),
    *("delta", "delta_ci_low", "delta_ci_high", "front_probability", "test_acc_common"),
)


@dataclass(frozen=True)
class Choice:
    """What may stand on an axis of a plot; ``scale`` leads from the table to the label's unit."""

    column: str
    label: str
    scale: float = 1.0


COST_CHOICES = tuple(Choice(column, *about) for column, about in COSTS.items())
SCORES = (
    Choice("test_acc_mean", "test accuracy (%)"),
    Choice("delta", "difference to the baseline (points)"),
)
CURVES = (
    Choice("val_err", "validation error (%)"),
    Choice("val_acc", "validation accuracy (%)"),
    Choice("train_loss", "training loss"),
)


def text(value: object) -> str:
    """A cell as a label; whole numbers without a point, missing ones as nothing."""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value)


def group_labels(frame: pd.DataFrame) -> pd.Series:
    """In words what each row may be compared with; rows of two labels never are."""
    names = [frame[name].map(text).astype(str) for name in KEY]
    dataset, img_size, epochs, recipe, precision, device = names
    return (
        (dataset + ", " + img_size + " px, " + epochs + " epochs, recipe ")
        + (recipe + ", " + precision + " on ")
        + device
    )


def varied(summary: pd.DataFrame) -> list[str]:
    """The axes in which the variants differ."""
    return [
        axis
        for axis in shown_as(SIZE, MAIN) + shown_as(FURTHER)
        if summary[axis].nunique(dropna=False) > 1
    ]


def known(summary: pd.DataFrame, choices: Sequence[Choice]) -> list[Choice]:
    """Those choices that at least one row has a number for."""
    return [choice for choice in choices if _finite(summary, choice.column).notna().any()]


def payload(
    summary: pd.DataFrame, runs: pd.DataFrame, epochs: pd.DataFrame, labels: Sequence[str]
) -> Json:
    """Everything that is drawn, ready for ``json_text``.

    Args:
        summary: as in ``page.Content``.
        runs: ``records.RUN_COLUMNS``.
        epochs: ``records.EPOCH_COLUMNS``.
        labels: the distinct ``group_labels`` of ``summary``, in the order of the page.
    """
    done = runs[runs["status"] == DONE]
    owners = _owners(done, summary)
    few = len(runs) <= RUNS_DRAWN
    return {
        "groups": list(labels),
        "rows": _rows(summary, labels),
        "runs": _runs(done, owners) if few else [],
        "curves": _curves(epochs, dict(zip(done["run_id"], owners, strict=True))),
        "labels": {choice.column: choice.label for choice in (*COST_CHOICES, *SCORES, *CURVES)},
    }


def json_text(value: object) -> str:
    """JSON that may stand in an HTML ``script`` element whatever its strings say.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    escapes = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return written.translate(escapes)


def _owners(runs: pd.DataFrame, summary: pd.DataFrame) -> list[int]:
    """The row of the summary that each run belongs to; -1 where there is none."""
    place = {key: i for i, key in enumerate(_keys(summary))}
    return [place.get(key, -1) for key in _keys(with_recipe(runs))]


def _keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["model"].map(text), group_labels(frame), strict=True))


def _rows(summary: pd.DataFrame, labels: Sequence[str]) -> Json:
    """The summary by column, numbers in the units of the plots' axes."""
    groups = [labels.index(label) for label in group_labels(summary)]
    place = {(text(m), g): i for i, (m, g) in enumerate(zip(summary["model"], groups, strict=True))}
    pairs = zip(summary["baseline"].map(text), groups, strict=True)
    scales = {cost.column: cost.scale for cost in COST_CHOICES} | dict.fromkeys(PERCENT, 100.0)
    return {
        **{axis: summary[axis].map(text).tolist() for axis in ("model", *varied(summary))},
        **{name: _numbers(scale * _finite(summary, name)) for name, scale in scales.items()},
        "n": [int(n) for n in summary["n"]],
        "verdict": summary["verdict"].map(text).tolist(),
        "group": groups,
        "baseline": [place.get(pair, -1) for pair in pairs],
    }


def _runs(done: pd.DataFrame, owners: Sequence[int]) -> list[list[object]]:
    """Row of the summary, seed, id and test accuracy of each run that has one."""
    scores = _numbers(100 * _finite(done, "test_acc"))
    columns = zip(owners, done["seed"], done["run_id"], scores, strict=True)
    return [
        [owner, int(seed), str(run_id), score]
        for owner, seed, run_id, score in columns
        if owner >= 0 and score is not None
    ]


def _curves(epochs: pd.DataFrame, owners: dict[object, int]) -> list[Json]:
    """Mean, lowest and highest over the seeds by epoch; one curve per row of the summary."""
    own = epochs.assign(row=epochs["run_id"].map(lambda run_id: owners.get(run_id, -1)))
    own = own[own["row"] >= 0]
    if own.empty:
        return []
    values = {
        "val_acc": 100 * _finite(own, "val_acc"),
        "train_loss": _finite(own, "train_loss"),
    }
    by_epoch = own.assign(**values).groupby(["row", "epoch"])
    table = by_epoch[[*values]].agg(["mean", "min", "max"])
    step = math.ceil(len(table) / CURVE_POINTS)
    seeds = own.groupby("row")["run_id"].nunique()
    return [
        _curve(table.loc[row], step) | {"row": int(row), "seeds": int(n)}
        for row, n in zip(seeds.index.tolist(), seeds, strict=True)
    ]


def _curve(table: pd.DataFrame, step: int) -> Json:
    """Every ``step``-th epoch, the last among them."""
    kept = table.iloc[::-1].iloc[::step].iloc[::-1]
    return {
        "epoch": [int(epoch) for epoch in kept.index],
        **{
            name: [_numbers(kept[(name, part)], 5) for part in ("mean", "min", "max")]
            for name in ("val_acc", "train_loss")
        },
    }


def _finite(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column's numbers; NaN where it holds none."""
    return frame[column].astype(float).replace([np.inf, -np.inf], np.nan)


def _numbers(values: pd.Series, digits: int = 6) -> list[float | None]:
    """More digits than a screen shows; None is what JSON has for a missing number."""
    return [None if math.isnan(value) else _short(value, digits) for value in values]


def _short(value: float, digits: int) -> float:
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
