"""Runs to tables: one row per variant, compared with its baseline seed by seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import (
    BASELINE,
    estimate,
    holm,
    pairs_needed,
    pareto_front,
    sign_flip_p,
    verdict,
)
from resnet_variants.records import COST_COLUMNS, FURTHER_COLUMNS, VARIANT_COLUMNS, recipe_digest
from resnet_variants.run_folder import DIVERGED, DONE, FAILED

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
)
# A comparison never mixes what these tell apart; `recipe` is the digest in the run's id.
GROUP = ("dataset", "img_size", "epochs", "recipe", "precision", "device")


def summarise(runs: pd.DataFrame, baselines: Mapping[str, str]) -> pd.DataFrame:
    """One row per variant, data set and recipe: ``SUMMARY_COLUMNS``.

    Failed and diverged runs are counted in ``failed`` and enter no mean. ``delta`` is the mean
    paired difference to ``baseline`` over the seeds that both have; ``p_value`` is the exact
    sign-flip p before, and ``verdict`` follows from it after, Holm's correction over the group.

    Args:
        runs: ``records.RUN_COLUMNS``.
        baselines: model name -> name of the model it is compared with.
    """
    groups = [_group(group, baselines) for _, group in by_group(runs)]
    if not groups:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    return pd.concat(groups, ignore_index=True)[list(SUMMARY_COLUMNS)]


def by_group(runs: pd.DataFrame) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    """The runs that may be compared with one another, with their values of ``GROUP``."""
    marked = runs.assign(recipe=runs["run_id"].map(recipe_digest))
    return [(tuple(key), own) for key, own in marked.groupby([*GROUP], sort=False)]


def _group(runs: pd.DataFrame, baselines: Mapping[str, str]) -> pd.DataFrame:
    done = runs[runs["status"] == DONE]
    scores = {
        str(model): own.set_index("seed")["test_acc"].astype(float)
        for model, own in done.groupby("model", sort=False)
    }
    rows = [
        _row(own, scores.get(str(model)), scores.get(baselines.get(str(model), "")))
        | {"baseline": baselines.get(str(model), "")}
        for model, own in runs.groupby("model", sort=False)
    ]
    frame = pd.DataFrame(rows)
    p_values = frame["p_value"].to_numpy(float)
    needed = pairs_needed(frame["pairs"].gt(0).sum())
    rows = zip(frame["delta"], holm(p_values), frame["pairs"], strict=True)
    frame["verdict"] = [verdict(delta, p, enough=n >= needed) if n else "" for delta, p, n in rows]
    frame.loc[frame["model"] == frame["baseline"], "verdict"] = BASELINE
    scored = frame["n"] > 0
    front = pareto_front(
        frame.loc[scored, "macs"].to_numpy(), frame.loc[scored, "test_acc_mean"].to_numpy()
    )
    frame["on_pareto_front"] = False
    frame.loc[scored, "on_pareto_front"] = front
    return frame


def _row(runs: pd.DataFrame, scores: pd.Series | None, base: pd.Series | None) -> dict[str, object]:
    first = runs.iloc[0]
    row: dict[str, object] = {
        column: first[column]
        for column in (*VARIANT_COLUMNS, *COST_COLUMNS, *GROUP, *FURTHER_COLUMNS)
    }
    row |= {"n": 0, "seeds": "", "failed": int(runs["status"].isin([FAILED, DIVERGED]).sum())}
    row |= dict.fromkeys(
        ("test_acc_mean", "test_acc_sd", "test_acc_ci_low", "test_acc_ci_high"), np.nan
    )
    row |= dict.fromkeys(("delta", "delta_ci_low", "delta_ci_high", "p_value"), np.nan)
    row |= {"images_per_second": runs["images_per_second"].astype(float).median(), "pairs": 0}
    if scores is None:
        return row
    own = estimate(scores.to_numpy())
    row |= {"n": len(scores), "seeds": " ".join(map(str, sorted(scores.index)))}
    row |= {"test_acc_mean": own.mean, "test_acc_sd": own.sd}
    row |= {"test_acc_ci_low": own.low, "test_acc_ci_high": own.high}
    differences = (scores - base).dropna().to_numpy() if base is not None else np.array([])
    if len(differences) and base is not scores:
        paired = estimate(differences)
        row |= {"delta": paired.mean, "delta_ci_low": paired.low, "delta_ci_high": paired.high}
        row |= {"p_value": sign_flip_p(differences), "pairs": len(differences)}
    return row


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as a reader wants it, all text: percent, intervals, MACs in millions."""
    return pd.DataFrame(
        {
            "model": summary["model"],
            **{key: summary[key] for key in GROUP if summary[key].nunique() > 1},
            "stem": summary["stem"],
            "stride": summary["stride"],
            "shortcut": summary["shortcut"],
            "order": summary["order"],
            "params": summary["params"].map("{:,}".format),
            "MACs (M)": (summary["macs"] / 1e6).map("{:.3f}".format),
            "n": summary["n"],
            "test accuracy % [95 %]": [
                _interval(*row)
                for row in _columns(summary, "test_acc_mean", "test_acc_ci_low", "test_acc_ci_high")
            ],
            "delta, points [95 %]": [
                _interval(*row, sign="+")
                for row in _columns(summary, "delta", "delta_ci_low", "delta_ci_high")
            ],
            "verdict": summary["verdict"],
            "front": summary["on_pareto_front"].map({True: "*", False: ""}),
            "failed": summary["failed"],
        }
    )


def markdown(frame: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    return frame.to_markdown(index=False, disable_numparse=True)


def summary_markdown(summary: pd.DataFrame) -> str:
    """``readable`` in Markdown."""
    return markdown(readable(summary))


def _columns(frame: pd.DataFrame, *names: str) -> zip[tuple[float, ...]]:
    return zip(*(frame[name].astype(float) for name in names), strict=True)


def _interval(mean: float, low: float, high: float, *, sign: str = "") -> str:
    if np.isnan(mean):
        return ""
    text = f"{100 * mean:{sign}.2f}"
    return text if np.isnan(low) else f"{text} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"
