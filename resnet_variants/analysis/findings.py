"""The report in words: two sentences that answer, and how to read the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from resnet_variants.analysis.effects import ADDITIVE
from resnet_variants.analysis.formats import DELTA, POINTS, interval
from resnet_variants.analysis.statistics import (
    BASELINE,
    BETTER,
    DRAWS,
    TOO_FEW,
    WORSE,
    pairs_needed,
)
from resnet_variants.analysis.tables import GROUP, most_seeds
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
    ranked = own[most_seeds(own)]
    if len(ranked) < 2:
        return ""
    means = ranked["test_acc_mean"].astype(float)
    best = ranked[means >= means.max() - 1e-12]
    seeds = f"{ranked['n'].iloc[0]} seed{'s' if ranked['n'].iloc[0] > 1 else ''}"
    text = f"The best mean of {seeds}, {POINTS * means.max():.2f} %, is that of {_few(best)}"
    base = ranked[ranked["model"] == best["baseline"].iloc[0]]
    if len(best) == 1 and best["verdict"].iloc[0] == BASELINE:
        text += ", the baseline itself"
    elif len(best) == 1 and len(base):
        text += f", at {best['macs'].iloc[0] / base['macs'].iloc[0]:.2f} times the baseline's MACs"
    front = ranked[ranked["on_pareto_front"]].sort_values("macs", kind="stable")
    text += f"; by their means the Pareto front of accuracy against MACs is {_few(front)}"
    fewer = int((own["n"] < ranked["n"].iloc[0]).sum())
    return text + (f" ({fewer} with fewer seeds not ranked)." if fewer else ".")


def _few(rows: pd.DataFrame) -> str:
    return ", ".join(rows["model"][:_NAMED]) + (", ..." if len(rows) > _NAMED else "")


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
    "The Pareto front is of the variants that have most seeds; P(front) is how often one is on it "
    f"in {DRAWS:,} draws of the seeds with replacement.",
    "An effect is a contrast of variants, taken within each seed and tested as a difference is.",
    "1 MAC is 2 FLOPs; convolutions and linear layers are counted. Training time per image and "
    "latency are measured, on a machine that may have done other things beside.",
)


def notes(
    summary: pd.DataFrame, effects: pd.DataFrame, gain: float, provenance: Provenance
) -> list[str]:
    """How to read the numbers.

    Args:
        summary: ``tables.SUMMARY_COLUMNS``.
        effects: ``effects.EFFECT_COLUMNS``.
        gain: ``tables.pairing`` of the same runs.
        provenance: where the runs come from.
    """
    lines = [*_METHODS]
    if not np.isnan(gain):
        pairs = summary.loc[summary["pairs"] > 1, "pairs"]
        lines.insert(
            2,
            f"Pairing: for the same standard error, independent seeds would take {gain:.2f} times "
            f"as many runs ({len(pairs)} x {_range(pairs)} pairs).",
        )
    if (effects["model"] == ADDITIVE).any():
        lines.append(
            "Where variants of the whole product are missing, the axes are taken to add up in the "
            "effects, and no interaction can be told."
        )
    if summary["paper"].ne("").any():
        lines.append(
            "A paper's difference is for the same change of architecture on its own data, depth "
            "and recipe: compare signs and sizes, never levels."
        )
    if len(provenance.get("device", [])) > 1:
        lines.append("Runs of several devices: times per image are not of one machine.")
    if any("with changes" in commit for commit in provenance.get("git commit", [])):
        lines.append("Some runs were trained from a working tree with uncommitted changes.")
    return lines
