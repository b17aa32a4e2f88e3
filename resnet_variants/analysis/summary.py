"""The summary: one row per network, compared with its baseline seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.arms import network_of
from resnet_variants.analysis.published import paper_effect
from resnet_variants.analysis.statistics import (
    SHARE,
    PairedComparison,
    front_probability,
    paired_comparison,
    pareto_front,
)
from resnet_variants.analysis.verdicts import BASELINE, Plan, with_verdicts
from resnet_variants.records.results_folder import COST_COLUMNS, FURTHER_COLUMNS, VARIANT_COLUMNS
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED

SUMMARY_COLUMNS = (
    *VARIANT_COLUMNS,
    *("dataset", "n", "seeds"),
    *("test_acc_mean", "test_acc_sd", "test_acc_ci_low", "test_acc_ci_high"),
    *("baseline", "delta", "delta_ci_low", "delta_ci_high", "p_value", "verdict"),
    "on_pareto_front",
    *COST_COLUMNS,
    *("images_per_second", "failed"),
    *("img_size", "epochs", "recipe", "precision", "device"),
    *FURTHER_COLUMNS,
    *("pairs", "p_adjusted", "front_probability", "points_per_percent_macs"),
    *("train_ms_per_image", "latency_ms", "paper_delta", "paper", "test_acc_common", "n_test"),
    *("detectable", "more_seeds", "more_hours"),
)
LEAST_MORE = 0.1  # percent of MACs, below which nothing is bought with them
LATENCY_OF = ("model", "img_size", "precision", "device")


def summarise(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    common: pd.DataFrame,
    baselines: Mapping[str, str],
    latencies: Mapping[tuple[str, ...], float],
    plan: Plan,
    settings: pd.DataFrame,
) -> pd.DataFrame:
    """One row per network of runs that may be compared.

    Failed and diverged runs are counted in ``failed`` and enter no mean. ``delta`` is the mean
    paired difference to ``baseline`` over the ``pairs`` seeds that both have. ``p_value`` is the
    sign-flip p of one row, ``p_adjusted`` that of joint flips over all rows, and ``verdict`` what
    follows from it. An undecided row has the difference that was ``detectable``, and the
    ``more_seeds`` that the margin, or without one the difference seen, would take; ``more_hours``
    is the time of these runs of the network and of its baseline, one at a time. Networks are ranked
    by ``test_acc_common``, the mean over the seeds of ``common``, and so is the Pareto front.
    ``images_per_second`` is the median of the runs. ``train_ms_per_image`` is that of the fastest
    finished run, as other work on a machine can only slow a run.
    ``points_per_percent_macs`` is ``delta`` in points over the additional MACs in percent of the
    baseline's; it is missing where the network needs no more MACs.

    Args:
        runs: ``RUN_COLUMNS``.
        scores: test accuracy, (seeds, models).
        common: the part of ``scores`` without gaps.
        baselines: model name -> name of the model it is compared with.
        latencies: milliseconds for one image by ``LATENCY_OF``.
        plan: what was fixed before the first run.
        settings: those that vary, (models, settings).
    """
    by_model = {str(model): own for model, own in runs.groupby("model", sort=False)}
    compared = [_compared(scores, model, baselines.get(model, "")) for model in by_model]
    rows = [
        _row(own, baselines.get(model, ""), each)
        for (model, own), each in zip(by_model.items(), compared, strict=True)
    ]
    frame = with_verdicts(pd.DataFrame(rows), [each.differences for each in compared], plan)
    frame.loc[frame["model"] == frame["baseline"], "verdict"] = BASELINE
    seconds = runs.groupby("model")["seconds"].mean()
    pair = frame["model"].map(seconds) + frame["baseline"].map(seconds)
    frame["more_hours"] = frame["more_seeds"] * pair / 3600
    _add_cost_of_difference(frame, settings)
    _add_ranking(frame, common)
    networks = frame.assign(model=frame["model"].map(network_of))
    keys = networks[[*LATENCY_OF]].astype(str).itertuples(index=False, name=None)
    frame["latency_ms"] = [latencies.get(key, np.nan) for key in keys]
    return frame


def _compared(scores: pd.DataFrame, model: str, baseline: str) -> PairedComparison:
    own = scores[model] if model in scores else pd.Series(dtype=float)
    base = scores[baseline] if baseline in scores and baseline != model else None
    return paired_comparison(own, base, SHARE)


def _row(runs: pd.DataFrame, baseline: str, compared: PairedComparison) -> dict[str, object]:
    """The columns that follow from the runs of one network and from its comparison."""
    first = runs.iloc[0]
    speeds = runs["images_per_second"].astype(float)
    axes = (*VARIANT_COLUMNS, *COST_COLUMNS, *FURTHER_COLUMNS)
    return {
        **{name: first[name] for name in (*axes, "dataset", "img_size", "precision", "device")},
        "images_per_second": speeds[speeds > 0].median(),
        "train_ms_per_image": 1000 / speeds[runs["status"] == DONE].max(),
        "baseline": baseline,
        "n_test": runs["n_test"].max(),
        "failed": int(runs["status"].isin([FAILED, DIVERGED]).sum()),
        "n": compared.seeds,
        "seeds": " ".join(map(str, compared.scores.index)),
        "test_acc_mean": compared.own.mean,
        "test_acc_sd": compared.own.sd,
        "test_acc_ci_low": compared.own.low,
        "test_acc_ci_high": compared.own.high,
        "delta": compared.difference.mean,
        "delta_ci_low": compared.difference.low,
        "delta_ci_high": compared.difference.high,
        "pairs": compared.pairs,
    }


def _add_cost_of_difference(frame: pd.DataFrame, settings: pd.DataFrame) -> None:
    """Add what the difference to the baseline costs, and what a paper found for it."""
    rows = cast("list[dict[str, Any]]", frame.join(settings, on="model").to_dict("records"))
    by_model = {row["model"]: row for row in rows}
    gains, deltas, papers = [], [], []
    for row in rows:
        base = by_model.get(row["baseline"])
        more = 0.0 if base is None else 100 * (row["macs"] / base["macs"] - 1)
        gains.append(100 * row["delta"] / more if more > LEAST_MORE else np.nan)
        effect = None if base is None else paper_effect(row, base, [*map(str, settings)])
        delta, where = effect or (np.nan, "")
        deltas.append(delta)
        papers.append(where)
    frame["points_per_percent_macs"] = gains
    frame["paper_delta"], frame["paper"] = deltas, papers


def _add_ranking(frame: pd.DataFrame, common: pd.DataFrame) -> None:
    """Add what compares all networks with one another, where there are two."""
    frame["test_acc_common"] = frame["front_probability"] = np.nan
    frame["on_pareto_front"] = False
    if common.empty:
        return
    ranked = frame["model"].isin(common.columns)
    values = common[frame.loc[ranked, "model"]].to_numpy(float)
    macs, means = frame.loc[ranked, "macs"].to_numpy(float), values.mean(axis=0)
    frame.loc[ranked, "test_acc_common"] = means
    frame.loc[ranked, "on_pareto_front"] = pareto_front(macs, means)
    frame.loc[ranked, "front_probability"] = front_probability(macs, values)
