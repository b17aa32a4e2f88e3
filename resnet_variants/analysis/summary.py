"""The summary: one row per network, compared with its baseline seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.published import paper_effect
from resnet_variants.analysis.statistics import (
    BASELINE,
    SHARE,
    front_probability,
    paired_comparison,
    pareto_front,
    with_verdicts,
)
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
)
LEAST_MORE = 0.1  # percent of MACs, below which nothing is bought with them
LATENCY_OF = ("model", "img_size", "precision", "device")


def summarise(
    runs: pd.DataFrame,
    scores: pd.DataFrame,
    common: pd.DataFrame,
    baselines: Mapping[str, str],
    latencies: Mapping[tuple[str, ...], float],
) -> pd.DataFrame:
    """One row per network of runs that may be compared.

    Failed and diverged runs are counted in ``failed`` and enter no mean. ``delta`` is the mean
    paired difference to ``baseline`` over the ``pairs`` seeds that both have. ``p_value`` is the
    sign-flip p, ``p_adjusted`` the same after Holm's correction over all rows; ``verdict`` follows
    from it. Networks are ranked by ``test_acc_common``, the mean over the seeds of ``common``, and
    so is the Pareto front. ``images_per_second`` is the median of the runs. ``train_ms_per_image``
    is that of the fastest finished run, as other work on a machine can only slow a run.
    ``points_per_percent_macs`` is ``delta`` in points over the additional MACs in percent of the
    baseline's; it is missing where the network needs no more MACs.

    Args:
        runs: ``RUN_COLUMNS``.
        scores: test accuracy, (seeds, models).
        common: the part of ``scores`` without gaps.
        baselines: model name -> name of the model it is compared with.
        latencies: milliseconds for one image by ``LATENCY_OF``.
    """
    rows = [
        _row(own, scores, baselines.get(str(model), ""))
        for model, own in runs.groupby("model", sort=False)
    ]
    frame = with_verdicts(pd.DataFrame(rows), "delta", "pairs")
    frame.loc[frame["model"] == frame["baseline"], "verdict"] = BASELINE
    _add_cost_of_difference(frame)
    _add_ranking(frame, common)
    keys = frame[[*LATENCY_OF]].astype(str).itertuples(index=False, name=None)
    frame["latency_ms"] = [latencies.get(key, np.nan) for key in keys]
    return frame


def _row(runs: pd.DataFrame, scores: pd.DataFrame, baseline: str) -> dict[str, object]:
    """The columns that follow from the runs of one network and of its baseline."""
    first = runs.iloc[0]
    model = str(first["model"])
    none = pd.Series(dtype=float)
    own = scores[model].dropna() if model in scores else none
    base = scores[baseline] if baseline in scores and baseline != model else None
    compared = paired_comparison(own, base, SHARE)
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
        "seeds": " ".join(map(str, own.index)),
        "test_acc_mean": compared.own.mean,
        "test_acc_sd": compared.own.sd,
        "test_acc_ci_low": compared.own.low,
        "test_acc_ci_high": compared.own.high,
        "delta": compared.difference.mean,
        "delta_ci_low": compared.difference.low,
        "delta_ci_high": compared.difference.high,
        "p_value": compared.p_value,
        "pairs": compared.pairs,
    }


def _add_cost_of_difference(frame: pd.DataFrame) -> None:
    """Add what the difference to the baseline costs, and what a paper found for it."""
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    by_model = {row["model"]: row for row in rows}
    gains, deltas, papers = [], [], []
    for row in rows:
        base = by_model.get(row["baseline"])
        more = 0.0 if base is None else 100 * (row["macs"] / base["macs"] - 1)
        gains.append(100 * row["delta"] / more if more > LEAST_MORE else np.nan)
        effect = None if base is None or base is row else paper_effect(row, base)
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
