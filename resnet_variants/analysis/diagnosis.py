"""What diagnoses come to: a few measures of each network, compared with its baseline."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from resnet_variants.analysis.pairs import COMPARED, DIFFERENCE, MEAN, compared, judged
from resnet_variants.analysis.statistics import SHARE
from resnet_variants.analysis.tables import GROUP, by_group
from resnet_variants.records.diagnosis import NOISE, OUTPUT, Diagnosis, of_runs
from resnet_variants.reporting.text import interval, number_interval, p_value


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
}
COLUMNS = ("model", "measure", "baseline", *COMPARED)
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


def summarise_diagnoses(
    tables: Diagnosis, baselines: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """One row per network and measure, over the seeds: ``COLUMNS``.

    The measures: ``acc``, of the whole network on the validation images; ``lost_by_one_unit`` and
    ``lost_by_worst_unit``, accuracy lost by deleting a unit, the median and the largest, of those
    that keep the shape, as a plain net has no others; ``gradient_ratio_initial`` and
    ``gradient_ratio_trained``, largest over smallest gradient norm at the inputs of units, and
    ``scaled_ratio_...``, of the norm times that of the input, which compares orders whose maps have
    other scales; ``branch_to_shortcut``, median over the units of the trained network; ``growth``
    of a small disturbance, at the last output; ``acc_under_noise``, of deviation 0.1.

    Of gradient ratios means are geometric, and ``difference`` is a quotient. Differences are of
    pairs of seeds, with Student's interval and the sign-flip p; Holm's correction is over the
    networks of the table, within a measure: each of these is a question of its own, and who looks
    for any difference in all of them has to correct for that too.

    Args:
        tables: of runs that may be compared.
        baselines: model name -> name of the model it is compared with.
    """
    ids = pd.concat([tables[name]["run_id"] for name in _MEASURE]).unique()
    columns = ["model", "seed", *MEASURES]
    runs = pd.DataFrame([_row(tables, str(run_id)) for run_id in ids], columns=columns)
    factors = [name for name, measure in MEASURES.items() if measure.factor]
    # A gradient that vanishes altogether has an infinite ratio, whose mean has no interval.
    with np.errstate(divide="ignore", invalid="ignore"):
        runs[factors] = np.log(runs[factors].astype(float))
        frame = pd.DataFrame(_rows(runs, baselines or {}), columns=[*COLUMNS])
        for _, own in frame.groupby("measure"):
            frame.loc[own.index] = judged(own)
    told, rows = [*MEAN, *DIFFERENCE], frame["measure"].isin(factors)
    frame.loc[rows, told] = np.exp(frame.loc[rows, told].astype(float))
    return frame


def _rows(runs: pd.DataFrame, baselines: Mapping[str, str]) -> Iterator[dict[str, object]]:
    by_model = {str(model): own.set_index("seed") for model, own in _by_model(runs)}
    for model, own in by_model.items():
        base = baselines.get(model, "")
        others = by_model.get(base) if base != model else None
        for name, measure in MEASURES.items():
            other = None if others is None else others[name].astype(float)
            yield {
                **{"model": model, "measure": name, "baseline": base},
                **compared(own[name].astype(float), other, measure.limits),
            }


def _by_model(frame: pd.DataFrame) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    return iter(frame.groupby("model", sort=False))


def diagnosis_summary(
    runs: pd.DataFrame, tables: Diagnosis, baselines: Mapping[str, str]
) -> pd.DataFrame:
    """``summarise_diagnoses`` of each group of runs that may be compared, with ``GROUP``."""
    parts = []
    for key, own in by_group(runs):
        group: dict[str, Any] = dict(zip(GROUP, key, strict=True))
        part = summarise_diagnoses(of_runs(tables, own["run_id"]), baselines)
        parts.append(part.assign(**group))
    filled = [part for part in parts if not part.empty]
    empty = pd.DataFrame(columns=[*COLUMNS, *GROUP])
    return pd.concat(filled, ignore_index=True) if filled else empty


def _row(tables: Diagnosis, run_id: str) -> dict[str, object]:
    """The measures of a run; NaN of a table that it lacks."""
    own = of_runs(tables, [run_id])
    known = next(own[name] for name in _MEASURE if len(own[name]))
    row: dict[str, object] = dict.fromkeys(MEASURES, np.nan)
    row |= {"model": known["model"].iloc[0], "seed": known["seed"].iloc[0]}
    for name, measure in _MEASURE.items():
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


_MEASURE = {
    "lesion": _of_lesions,
    "gradient_flow": _of_gradients,
    "identity_distance": _of_distances,
    "sensitivity": _of_disturbances,
}


def largest_over_smallest(groups: Any) -> Any:
    """Of each group of numbers: a series or a frame of them, grouped."""
    return groups.max() / groups.min()


def readable_diagnoses(summary: pd.DataFrame) -> pd.DataFrame:
    """A network a row, all text: its measures with their intervals, of rows of one group."""
    told = summary.assign(cell=_cells(summary, MEAN), title=_titles(summary))
    rows = [
        {"model": model, "seeds": own["seeds"].max()}  # a plain net lacks some measures
        | dict(zip(own["title"], own["cell"], strict=True))
        for model, own in _by_model(told)
    ]
    return pd.DataFrame(rows)


def readable_comparisons(summary: pd.DataFrame) -> pd.DataFrame:
    """What differs from the baselines, all text: a row per network and measure."""
    rows = summary[summary["pairs"] > 0]
    return pd.DataFrame(
        {
            "model": rows["model"],
            "measure": _titles(rows),
            "against": rows["baseline"],
            "difference or quotient [95 %]": _cells(rows, DIFFERENCE, sign="+"),
            "pairs": rows["pairs"],
            "p (Holm)": rows["p_adjusted"].astype(float).map(p_value),
            "verdict": rows["verdict"],
        }
    )


def _titles(rows: pd.DataFrame) -> list[str]:
    return [MEASURES[name].title for name in rows["measure"]]


def _cells(rows: pd.DataFrame, names: Sequence[str], *, sign: str = "") -> list[str]:
    """A mean or a difference with its interval; a difference has a sign, a quotient an x."""
    cells = []
    for name, *numbers in rows[["measure", *names]].itertuples(index=False):
        measure = MEASURES[name]
        if measure.share:
            cells.append(interval(*numbers, sign=sign))
        elif measure.factor and sign:
            cells.append(f"x {number_interval(*numbers)}")
        else:
            cells.append(number_interval(*numbers, sign=sign))
    return cells
