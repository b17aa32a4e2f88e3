"""Measures of each diagnosed network, compared with its baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import (
    DIFFERENCE,
    MEAN,
    SHARE,
    PairedComparison,
    paired_comparison,
)
from resnet_variants.analysis.verdicts import COMPARED, DIRECTIONS, Plan, with_verdicts
from resnet_variants.records.diagnosis import NOISE, OUTPUT, SHIFT, Diagnosis, of_runs


@dataclass(frozen=True)
class Measure:
    """How a number is averaged over the seeds, compared and written."""

    title: str
    limits: tuple[float, float] = (-np.inf, np.inf)  # of a share, written in percent
    factor: bool = False  # means and differences are taken of its logarithm

    @property
    def share(self) -> bool:
        """Whether it is one of images."""
        return bool(np.isfinite(self.limits).all())


MEASURES = {
    "acc": Measure("validation accuracy %", SHARE),
    "lost_by_one_unit": Measure("lost without a unit (median), points", (-1.0, 1.0)),
    "lost_by_worst_unit": Measure("lost without the worst, points", (-1.0, 1.0)),
    "gradient_ratio_initial": Measure("gradient max/min, initial", factor=True),
    "gradient_ratio_trained": Measure("gradient max/min, trained", factor=True),
    "scaled_ratio_initial": Measure("gradient x input max/min, initial", factor=True),
    "scaled_ratio_trained": Measure("gradient x input max/min, trained", factor=True),
    "branch_to_shortcut": Measure("branch/shortcut (median)"),
    "growth": Measure("growth of a disturbance"),
    "acc_under_noise": Measure(f"accuracy % under noise {NOISE}", SHARE),
    "acc_under_shift": Measure("accuracy % shifted by an eighth", SHARE),
    "kept_under_shift": Measure("same answers % shifted by an eighth", SHARE),
}
DIAGNOSIS_COLUMNS = ("model", "measure", "baseline", *COMPARED)


def summarise_diagnoses(
    tables: Diagnosis, baselines: Mapping[str, str] | None = None, plan: Plan | None = None
) -> pd.DataFrame:
    """One row per network and measure, over the seeds: ``DIAGNOSIS_COLUMNS``.

    The measures: ``acc``, of the whole network on the validation images; ``lost_by_one_unit`` and
    ``lost_by_worst_unit``, accuracy lost by deleting a unit, the median and the largest, of those
    that keep the shape, as a plain net has no others; ``gradient_ratio_initial`` and
    ``gradient_ratio_trained``, largest over smallest gradient norm at the inputs of units, and
    ``scaled_ratio_...``, of the norm times that of the input, which compares orders whose maps have
    other scales; ``branch_to_shortcut``, median over the units of the trained network; ``growth``
    of a small disturbance, at the last output; ``acc_under_noise``, of deviation 0.1;
    ``acc_under_shift`` by an eighth of the side, and ``kept_under_shift``, the share of answers
    that the shift does not change. A measure that no run has is left out.

    Of gradient ratios means are geometric, and ``difference`` is a quotient. Differences are of
    pairs of seeds, with Student's interval and the sign-flip p; the networks of the table are
    adjusted together, within a measure. Each measure is a question of its own: looking for any
    difference in all of them needs a further correction.

    Args:
        tables: of runs that may be compared.
        baselines: model name -> name of the model it is compared with.
        plan: what was fixed before the first run.
    """
    ids = pd.concat([tables[name]["run_id"] for name in _MEASURES_OF]).unique()
    if not len(ids):
        return pd.DataFrame(columns=[*DIAGNOSIS_COLUMNS])
    runs = pd.DataFrame([_row(tables, str(run_id)) for run_id in ids])
    factors = [name for name in runs.columns.intersection([*MEASURES]) if MEASURES[name].factor]
    # A gradient that vanishes altogether has an infinite ratio, whose mean has no interval.
    with np.errstate(divide="ignore", invalid="ignore"):
        runs[factors] = np.log(runs[factors].astype(float))
        about, compared = zip(*_rows(runs, baselines or {}), strict=True)
        frame = pd.DataFrame([row | each.row for row, each in zip(about, compared, strict=True)])
        judged = [
            with_verdicts(own, [compared[at].differences for at in own.index], plan or Plan())
            for _, own in frame.groupby("measure")
        ]
    frame = pd.concat(judged).sort_index()[[*DIAGNOSIS_COLUMNS]]
    frame["verdict"] = frame["verdict"].replace(DIRECTIONS)
    numbers, rows = [*MEAN, *DIFFERENCE], frame["measure"].isin(factors)
    frame.loc[rows, numbers] = np.exp(frame.loc[rows, numbers].astype(float))
    return frame


def _rows(
    runs: pd.DataFrame, baselines: Mapping[str, str]
) -> Iterator[tuple[dict[str, object], PairedComparison]]:
    by_model = {
        str(model): own.set_index("seed") for model, own in runs.groupby("model", sort=False)
    }
    for model, own in by_model.items():
        base = baselines.get(model, "")
        others = by_model.get(base) if base != model else None
        for name in own.columns.intersection([*MEASURES], sort=False):
            measure = MEASURES[name]
            other = None if others is None else others[name].astype(float)
            compared = paired_comparison(own[name].astype(float), other, measure.limits)
            yield {"model": model, "measure": name, "baseline": base}, compared


def _row(tables: Diagnosis, run_id: str) -> dict[str, object]:
    """The measures of a run, of the tables that it has."""
    own = of_runs(tables, [run_id])
    known = next(own[name] for name in _MEASURES_OF if len(own[name]))
    row: dict[str, object] = {name: known[name].iloc[0] for name in ("model", "seed")}
    for name, measure in _MEASURES_OF.items():
        if len(own[name]):
            row |= measure(own[name])
    return row


def _of_lesions(table: pd.DataFrame) -> dict[str, object]:
    whole = table.loc[table["kind"] == "none", "acc"].iloc[0]
    single = table[table["kind"] == "delete"]
    lost = whole - single.loc[single["keeps_shape"] == 1, "acc"]
    return {"acc": whole, "lost_by_one_unit": lost.median(), "lost_by_worst_unit": lost.max()}


def _of_gradients(table: pd.DataFrame) -> dict[str, object]:
    flow = table[table["name"] != OUTPUT]
    raw = largest_over_smallest(flow["grad_norm"].groupby(flow["epoch"]))
    scaled = largest_over_smallest((flow["grad_norm"] * flow["input_norm"]).groupby(flow["epoch"]))
    return {
        "gradient_ratio_initial": raw.iloc[0],
        "gradient_ratio_trained": raw.iloc[-1],
        "scaled_ratio_initial": scaled.iloc[0],
        "scaled_ratio_trained": scaled.iloc[-1],
    }


def _of_distances(table: pd.DataFrame) -> dict[str, object]:
    trained = table[table["epoch"] == table["epoch"].max()]
    return {"branch_to_shortcut": trained["branch_to_shortcut"].median()}


def _of_disturbances(table: pd.DataFrame) -> dict[str, object]:
    return {
        "growth": table.loc[table["kind"] == "growth", "growth"].iloc[-1],
        "acc_under_noise": table.loc[table["noise_sd"] == NOISE, "acc"].mean(),
    }


def _of_shifts(table: pd.DataFrame) -> dict[str, object]:
    moved = table[table["share"] == SHIFT]
    return {"acc_under_shift": moved["acc"].mean(), "kept_under_shift": moved["kept"].mean()}


_MEASURES_OF: dict[str, Callable[[pd.DataFrame], dict[str, object]]] = {
    "lesion": _of_lesions,
    "gradient_flow": _of_gradients,
    "identity_distance": _of_distances,
    "sensitivity": _of_disturbances,
    "shifts": _of_shifts,
}


def largest_over_smallest(groups: Any) -> Any:
    """The quotient within each group of a grouped series or frame."""
    return groups.max() / groups.min()
