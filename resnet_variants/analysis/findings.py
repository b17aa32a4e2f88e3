"""The report in words: two sentences that answer, and how to read the numbers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.formats import DELTA, POINTS, interval
from resnet_variants.analysis.statistics import (
    BASELINE,
    BETTER,
    DRAWS,
    TOO_FEW,
    WORSE,
    pairs_needed,
)
from resnet_variants.analysis.tables import GROUP
from resnet_variants.run_folder import Provenance

_NAMED = 4  # variants that a sentence names


def answer(summary: pd.DataFrame) -> tuple[str, ...]:
    """Two sentences per group of runs that may be compared: the verdict, and what it costs."""
    groups = [own for _, own in summary.groupby([*GROUP], sort=False)]
    sentences: list[str] = []
    for own in groups:
        place = f"On {_group_name(own, summary)}: " if len(groups) > 1 else ""
        said = _verdict(own), _cost(own)
        sentences += [f"{place}{said[0]}", *filter(None, said[1:])]
    return tuple(sentences)


def _group_name(own: pd.DataFrame, summary: pd.DataFrame) -> str:
    told = [name for name in GROUP if summary[name].nunique() > 1]
    return ", ".join(f"{name.replace('_', ' ')} {own[name].iloc[0]}" for name in told)


def _verdict(own: pd.DataFrame) -> str:
    if not own["n"].gt(0).any():
        return "No run has finished, so there is nothing to compare yet."
    compared = own[own["pairs"] > 0]
    if compared.empty:
        return "No variant shares a finished seed with a baseline, so none can be compared."
    bases = ", ".join(compared["baseline"].unique())
    count = f"{len(compared)} variant{'s' if len(compared) > 1 else ''}"
    seeds = _range(compared["pairs"])
    if (compared["verdict"] == TOO_FEW).all():
        needed = pairs_needed(len(compared))
        return (
            f"Too few seeds for a verdict: {count} compared with {bases} take {needed} pairs of "
            f"seeds each, and there are {seeds}."
        )
    found = [
        f"{len(own)} {word} ({_named(own)})" if word in (BETTER, WORSE) else f"{len(own)} {word}"
        for word, own in compared.groupby("verdict", sort=True)
    ]
    return f"Of {count} compared with {bases} over {seeds} paired seeds: {', '.join(found)}."


def _named(own: pd.DataFrame) -> str:
    rows = own.reindex(own["delta"].abs().sort_values(ascending=False).index)[:_NAMED]
    names = [
        f"{row['model']} by {interval(*(row[name] for name in DELTA), sign='+')} points"
        for row in rows.to_dict("records")
    ]
    return ", ".join(names) + (", ..." if len(own) > _NAMED else "")


def _cost(own: pd.DataFrame) -> str:
    scored = own[own["n"] > 0]
    if len(scored) < 2:
        return ""
    at = int(scored["test_acc_mean"].to_numpy(float).argmax())
    best = cast("dict[str, Any]", scored.iloc[at].to_dict())
    text = f"The best mean, {POINTS * best['test_acc_mean']:.2f} %, is that of {best['model']}"
    base = scored[scored["model"] == best["baseline"]]
    if best["verdict"] == BASELINE:
        text += ", the baseline itself"
    elif len(base):
        text += f", at {best['macs'] / base['macs'].iloc[0]:.2f} times the MACs of the baseline"
    front = scored[scored["on_pareto_front"]].sort_values("macs")
    names = ", ".join(front["model"][:_NAMED]) + (", ..." if len(front) > _NAMED else "")
    return f"{text}; by their means the Pareto front of accuracy against MACs is {names}."


def _range(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return str(low) if low == high else f"{low} to {high}"


_METHODS = (
    "Intervals are Student's, of 95 %; where there is one seed, or all scores are equal, there is "
    "none. An accuracy's interval ends at 0 and 100 %.",
    "Differences are paired: the same seed means the same split, order of images and augmentation "
    "for all variants. The p value is that of the exact sign-flip test, adjusted by Holm over all "
    "comparisons of a table; a verdict takes an adjusted p below 0.05, so "
    f"{pairs_needed(1)} pairs of seeds for one comparison and {pairs_needed(11)} for eleven.",
    f"P(front) is how often a variant is on the Pareto front in {DRAWS:,} draws of the seeds with "
    "replacement.",
    "Effects are contrasts of a linear model with a mean per variant and the seeds as blocks; "
    "their p values are from its t tests, adjusted by Holm.",
    "1 MAC is 2 FLOPs; convolutions and linear layers are counted. Training time per image and "
    "latency are measured, on a machine that may have done other things beside.",
)


def notes(
    summary: pd.DataFrame, gain: float, *, twice: int = 0, provenance: Provenance
) -> list[str]:
    """How to read the numbers.

    Args:
        summary: ``tables.SUMMARY_COLUMNS``.
        gain: ``tables.pairing`` of the same runs.
        twice: runs that lie in several folders.
        provenance: where the runs come from.
    """
    lines = [*_METHODS]
    if not np.isnan(gain):
        pairs = summary.loc[summary["pairs"] > 1, "pairs"]
        lines.insert(
            2,
            f"Pairing: with independent seeds, intervals of the same width would take {gain:.2f} "
            f"times as many runs ({len(pairs)} comparisons of {_range(pairs)} pairs).",
        )
    if summary["paper"].ne("").any():
        lines.append(
            "A paper's difference is for the same change of architecture on its own data, depth "
            "and recipe: compare signs and sizes, never levels."
        )
    if any("with changes" in commit for commit in provenance.get("git commit", [])):
        lines.append("Some runs were trained from a working tree with uncommitted changes.")
    if twice:
        lines.append(f"{twice} runs lie in several of the folders; the first one counts.")
    return lines
