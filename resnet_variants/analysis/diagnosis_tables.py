"""What diagnoses come to: one row per network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from resnet_variants.analysis.tables import GROUP, by_group
from resnet_variants.diagnosis_files import Diagnosis, of_runs

COLUMNS = (
    "model",
    "seeds",
    "acc",
    "lost_by_one_unit",
    "lost_by_worst_unit",
    "gradient_ratio_initial",
    "gradient_ratio_trained",
    "scaled_ratio_initial",
    "scaled_ratio_trained",
    "branch_to_shortcut",
    "growth",
    "acc_under_noise",
)
CAPTIONS = {  # of each table's figure
    "gradient_flow": "Gradient of the cross entropy at each unit's input: its norm, and that times "
    "the norm of the input",
    "paths": "Paths through branches and shortcuts by length: how many there are, the gradient of "
    "one, and the share of all that those of one length carry",
    "lesion": "Accuracy without one unit, without several, and with units in another order",
    "identity_distance": "Size of each unit's branch beside its shortcut, and cosine of its input "
    "and output",
    "sensitivity": "Growth of a small disturbance from unit to unit, accuracy under noise, and the "
    "one against the other",
}
NOISE = 0.1  # standard deviation, of values from 0 to 1


def summarise_diagnoses(tables: Diagnosis) -> pd.DataFrame:
    """Means over the seeds of what each run's tables come to: ``COLUMNS``.

    ``acc``: of the whole network on the validation images. ``lost_by_one_unit``,
    ``lost_by_worst_unit``: accuracy lost by deleting a unit, the median and the largest, of those
    that keep the shape, as a plain net has no others.
    ``gradient_ratio_initial``, ``gradient_ratio_trained``: largest over smallest gradient norm at
    the inputs of units; ``scaled_ratio_...``: of the norm times that of the input, which compares
    orders whose maps have other scales; geometric means over the seeds. ``branch_to_shortcut``:
    median over the units of the trained network. ``growth``: of a small disturbance, at the last
    output. ``acc_under_noise``: of deviation 0.1.
    """
    rows = [_row(tables, str(run_id)) for run_id in tables["lesion"]["run_id"].unique()]
    runs = pd.DataFrame(rows, columns=["model", *COLUMNS[2:]])
    ratios = [name for name in COLUMNS if "_ratio_" in name]
    runs[ratios] = np.log(runs[ratios].astype(float))
    by_model = runs.groupby("model", sort=False)
    means = by_model.mean().assign(seeds=by_model.size()).reset_index()
    means[ratios] = np.exp(means[ratios])
    return means[list(COLUMNS)]


def diagnosis_summary(runs: pd.DataFrame, tables: Diagnosis) -> pd.DataFrame:
    """``summarise_diagnoses`` of each group of runs that may be compared, with ``GROUP``."""
    parts = []
    for key, own in by_group(runs):
        group: dict[str, Any] = dict(zip(GROUP, key, strict=True))
        parts.append(summarise_diagnoses(of_runs(tables, own["run_id"])).assign(**group))
    filled = [part for part in parts if not part.empty]
    empty = pd.DataFrame(columns=[*COLUMNS, *GROUP])
    return pd.concat(filled, ignore_index=True) if filled else empty


def _row(tables: Diagnosis, run_id: str) -> dict[str, object]:
    own = of_runs(tables, [run_id])
    lesion, sensitivity = own["lesion"], own["sensitivity"]
    whole = lesion.loc[lesion["kind"] == "none", "acc"].iloc[0]
    distance = own["identity_distance"]
    trained = distance[distance["epoch"] == distance["epoch"].max()]
    single = lesion[lesion["kind"] == "delete"]
    lost = whole - single.loc[single["keeps_shape"] == 1, "acc"]
    flow = own["gradient_flow"]
    flow = flow[flow["branch_norm"].notna()]
    raw = _spreads(flow["grad_norm"], flow["epoch"])
    scaled = _spreads(flow["grad_norm"] * flow["input_norm"], flow["epoch"])
    growth = sensitivity.loc[sensitivity["kind"] == "growth", "growth"]
    return {
        "model": lesion["model"].iloc[0],
        "acc": whole,
        "lost_by_one_unit": lost.median(),
        "lost_by_worst_unit": lost.max(),
        "gradient_ratio_initial": raw.iloc[0],
        "gradient_ratio_trained": raw.iloc[-1],
        "scaled_ratio_initial": scaled.iloc[0],
        "scaled_ratio_trained": scaled.iloc[-1],
        "branch_to_shortcut": trained["branch_to_shortcut"].median(),
        "growth": growth.iloc[-1],
        "acc_under_noise": sensitivity.loc[sensitivity["noise_sd"] == NOISE, "acc"].mean(),
    }


def _spreads(norms: pd.Series, epochs: pd.Series) -> pd.Series:
    """Largest over smallest, by epoch."""
    by_epoch = norms.groupby(epochs)
    return by_epoch.max() / by_epoch.min()


def readable_diagnoses(summary: pd.DataFrame) -> pd.DataFrame:
    """``summarise_diagnoses`` as a reader wants it, all text."""
    percent = ("acc", "lost_by_one_unit", "lost_by_worst_unit", "acc_under_noise")
    names = {
        "acc": "validation accuracy %",
        "lost_by_one_unit": "lost without a unit (median), points",
        "lost_by_worst_unit": "lost without the worst, points",
        "gradient_ratio_initial": "gradient max/min, initial",
        "gradient_ratio_trained": "gradient max/min, trained",
        "scaled_ratio_initial": "gradient x input max/min, initial",
        "scaled_ratio_trained": "gradient x input max/min, trained",
        "branch_to_shortcut": "branch/shortcut (median)",
        "growth": "growth of a disturbance",
        "acc_under_noise": f"accuracy % under noise {NOISE}",
    }
    columns = {
        name: summary[name].map(lambda value: _number(100 * value, ".2f"))
        if name in percent
        else summary[name].map(lambda value: _number(value, ".3g"))
        for name in names
    }
    told = pd.DataFrame({"model": summary["model"], "seeds": summary["seeds"], **columns})
    return told.rename(columns=names)


def _number(value: Any, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
