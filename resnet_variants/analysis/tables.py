"""Runs to tables: one row per variant, compared with its baseline seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.published import paper_effect
from resnet_variants.analysis.statistics import (
    BASELINE,
    SHARE,
    estimate,
    front_probability,
    pairing_gain,
    pareto_front,
    sign_flip_p,
    verdicts,
)
from resnet_variants.records.results_folder import COST_COLUMNS, FURTHER_COLUMNS, VARIANT_COLUMNS
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED, recipe_digest

SUMMARY_COLUMNS = (
    *VARIANT_COLUMNS,
    "dataset",
    "n",
    "seeds",
    "test_acc_mean",
    "test_acc_sd",
    "test_acc_ci_low",
    "test_acc_ci_high",
    "baseline",
    "delta",
    "delta_ci_low",
    "delta_ci_high",
    "p_value",
    "verdict",
    "on_pareto_front",
    *COST_COLUMNS,
    "images_per_second",
    "failed",
    "img_size",
    "epochs",
    "recipe",
    "precision",
    "device",
    *FURTHER_COLUMNS,
    "pairs",
    "p_adjusted",
    "front_probability",
    "points_per_percent_macs",
    "train_ms_per_image",
    "latency_ms",
    "paper_delta",
    "paper",
    "test_acc_common",
    "n_test",
)
# A comparison never mixes what these tell apart; `recipe` is the digest in the run's id.
GROUP = ("dataset", "img_size", "epochs", "recipe", "precision", "device")
LEAST_MORE = 0.1  # percent of MACs, below which nothing is bought with them
LATENCY_OF = ("model", "img_size", "precision", "device")


def summarise(
    runs: pd.DataFrame,
    baselines: Mapping[str, str],
    latencies: Mapping[tuple[str, ...], float] | None = None,
) -> pd.DataFrame:
    """One row per variant, data set and recipe: ``SUMMARY_COLUMNS``.

    Failed and diverged runs are counted in ``failed`` and enter no mean. ``delta`` is the mean
    paired difference to ``baseline`` over the ``pairs`` seeds that both have; ``p_value`` is the
    sign-flip p, ``p_adjusted`` the same after Holm's correction over the group, from which
    ``verdict`` follows. Variants are ranked by ``test_acc_common``, the mean over the seeds that
    all ranked ones have (``complete``), and so is the Pareto front. ``images_per_second`` is the
    median of the runs, ``train_ms_per_image`` that of the fastest finished one, as other work on a
    machine can only slow it. ``points_per_percent_macs`` is ``delta`` in points over the MACs that
    it takes beyond the baseline's, in percent, where it takes more.

    Args:
        runs: ``records.RUN_COLUMNS``.
        baselines: model name -> name of the model it is compared with.
        latencies: milliseconds for one image by ``LATENCY_OF``, where measured.
    """
    groups = [_group(group, baselines) for _, group in by_group(runs)]
    if not groups:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    frame = pd.concat(groups, ignore_index=True)
    known = latencies or {}
    keys = frame[[*LATENCY_OF]].astype(str).itertuples(index=False, name=None)
    frame["latency_ms"] = [known.get(key, np.nan) for key in keys]
    return frame[list(SUMMARY_COLUMNS)]


def by_group(runs: pd.DataFrame) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    """The runs that may be compared with one another, with their values of ``GROUP``."""
    marked = with_recipe(runs)
    return [(tuple(key), own) for key, own in marked.groupby([*GROUP], sort=False)]


def with_recipe(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the digest of their recipe."""
    return runs.assign(recipe=runs["run_id"].map(recipe_digest))


def _group(runs: pd.DataFrame, baselines: Mapping[str, str]) -> pd.DataFrame:
    scores = scores_by_seed(runs)
    rows = [
        _row(own, scores, baselines.get(str(model), ""))
        for model, own in runs.groupby("model", sort=False)
    ]
    frame = pd.DataFrame(rows)
    found = frame["delta"], frame["p_value"], frame["pairs"]
    frame["p_adjusted"], frame["verdict"] = verdicts(*(c.to_numpy(float) for c in found))
    frame.loc[frame["model"] == frame["baseline"], "verdict"] = BASELINE
    _compare_with_baseline(frame)
    _rank(frame, complete(scores))
    return frame


def _rank(frame: pd.DataFrame, common: pd.DataFrame) -> None:
    """Add what compares all variants with one another, where there are two."""
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


def complete(scores: pd.DataFrame) -> pd.DataFrame:
    """The part of ``scores_by_seed`` without gaps that holds most pairs of runs of one seed.

    A mean over other seeds is another thing. The part is of all variants that have at least so many
    seeds, and of the seeds that they all have: one run that is lost takes its seed away, a variant
    that lost most of its runs goes itself; of two parts that are equal the one with more seeds. It
    is empty where no two variants share a seed.
    """
    counts = scores.notna().sum().to_numpy()
    parts = [scores[scores.columns[counts >= n]].dropna() for n in np.unique(counts)[::-1]]
    largest = max(parts, key=_pairs, default=scores.iloc[:0])
    return largest if _pairs(largest) else scores.iloc[:0, :0]


def _pairs(scores: pd.DataFrame) -> int:
    seeds, variants = scores.shape
    return seeds * variants * (variants - 1) // 2


def scores_by_seed(runs: pd.DataFrame, score: str = "test_acc") -> pd.DataFrame:
    """A column of the done runs of one group: a row per seed, a column per model."""
    done = runs[runs["status"] == DONE]
    return done.pivot(index="seed", columns="model", values=score).astype(float)


def pairing(runs: pd.DataFrame, baselines: Mapping[str, str]) -> float:
    """``statistics.pairing_gain`` over all comparisons with a baseline, in all groups."""
    pairs = []
    for _, group in by_group(runs):
        scores = scores_by_seed(group)
        for model in scores:
            base = baselines.get(str(model), "")
            if base in scores and base != model:
                both = scores[[model, base]].dropna()
                pairs.append((both[model].to_numpy(), both[base].to_numpy()))
    return pairing_gain(pairs)


def _compare_with_baseline(frame: pd.DataFrame) -> None:
    """Add what the difference costs, and what a paper found for it."""
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    by_model = {row["model"]: row for row in rows}
    gains, deltas, papers = [], [], []
    for row in by_model.values():
        base = by_model.get(row["baseline"])
        more = 0.0 if base is None else 100 * (row["macs"] / base["macs"] - 1)
        gains.append(100 * row["delta"] / more if more > LEAST_MORE else np.nan)
        found = None if base is None or base is row else paper_effect(row, base)
        delta, where = found or (np.nan, "")
        deltas.append(delta)
        papers.append(where)
    frame["points_per_percent_macs"] = gains
    frame["paper_delta"], frame["paper"] = deltas, papers


def _row(runs: pd.DataFrame, scores: pd.DataFrame, baseline: str) -> dict[str, object]:
    first = runs.iloc[0]
    model = str(first["model"])
    row: dict[str, object] = {
        column: first[column]
        for column in (*VARIANT_COLUMNS, *COST_COLUMNS, *GROUP, *FURTHER_COLUMNS)
    }
    speeds = runs["images_per_second"].astype(float)
    speed = speeds[speeds > 0].median()
    fastest = speeds[runs["status"] == DONE].max()
    row |= {"images_per_second": speed, "train_ms_per_image": 1000 / fastest, "baseline": baseline}
    row |= {"n_test": runs["n_test"].max()}
    row |= {"failed": int(runs["status"].isin([FAILED, DIVERGED]).sum())}
    own = scores[model].dropna() if model in scores else pd.Series(dtype=float)
    row |= {"n": len(own), "seeds": " ".join(map(str, own.index))}
    row |= _columns("test_acc", own.to_numpy(), limits=SHARE)
    both = pd.Series(dtype=float)
    if len(own) and baseline in scores and baseline != model:
        both = (own - scores[baseline]).dropna()
    row |= _columns("delta", both.to_numpy(), limits=(-1.0, 1.0))
    row["delta"] = row.pop("delta_mean")
    return row | {"p_value": sign_flip_p(both.to_numpy()), "pairs": len(both)}


def _columns(name: str, values: np.ndarray, *, limits: tuple[float, float]) -> dict[str, float]:
    """Mean, deviation and interval, NaN without values."""
    names = [f"{name}_{what}" for what in ("mean", "sd", "ci_low", "ci_high")]
    found = estimate(values, limits)
    return dict(zip(names, (found.mean, found.sd, found.low, found.high), strict=True))
