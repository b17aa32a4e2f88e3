"""The report in words: two sentences that answer, and how to read the numbers."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd

from resnet_variants.analysis.effects import ADDITIVE
from resnet_variants.analysis.statistics import (
    ALPHA,
    BASELINE,
    BETTER,
    DRAWS,
    EXACT,
    INCONCLUSIVE,
    TOO_FEW,
    WORSE,
    pairs_needed,
)
from resnet_variants.analysis.tables import GROUP
from resnet_variants.records.run_folder import Provenance
from resnet_variants.reporting.text import DELTA, POINTS, interval, span

_NAMED = 4  # variants or effects that a sentence names
_LITTLE = 1.2  # times as many runs


def answer(summary: pd.DataFrame, effects: pd.DataFrame) -> tuple[str, ...]:
    """What came out, per group of runs that may be compared.

    The verdict, the effects of axes, what the best costs, and which runs are in no mean.

    Args:
        summary: ``tables.SUMMARY_COLUMNS``.
        effects: ``effects.EFFECT_COLUMNS``.
    """
    groups = [own for _, own in summary.groupby([*GROUP], sort=False)]
    sentences: list[str] = []
    for own in groups:
        place = f"On {_group_name(own, summary)}: " if len(groups) > 1 else ""
        told = effects[(effects[[*GROUP]] == own[[*GROUP]].iloc[0]).all(axis=1)]
        said = _verdict(own), _effects(told), _cost(own), _lost(own)
        sentences += [f"{place}{said[0]}", *filter(None, said[1:])]
    return tuple(sentences)


def _group_name(own: pd.DataFrame, summary: pd.DataFrame) -> str:
    told = [name for name in GROUP if summary[name].nunique() > 1]
    return ", ".join(f"{name.replace('_', ' ')} {own[name].iloc[0]}" for name in told)


def _verdict(own: pd.DataFrame) -> str:
    if not own["n"].gt(0).any():
        return "No run has finished, so there is nothing to compare yet."
    compared = own[own["pairs"] > 0]
    if compared.empty and own["n"].gt(0).sum() == 1:
        return f"Only {own.loc[own['n'] > 0, 'model'].iloc[0]} has finished: nothing to compare."
    if compared.empty:
        return "No variant shares a finished seed with a baseline, so none can be compared."
    bases = ", ".join(compared["baseline"].unique())
    count = f"{len(compared)} variant{'s' if len(compared) > 1 else ''}"
    seeds = span(compared["pairs"])
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


def _effects(told: pd.DataFrame) -> str:
    """Those effects that have a verdict; the main ones are named first."""
    known = told[told["estimate"].notna()]
    if known.empty:
        return ""
    found = [
        f"{row['effect']} {row['contrast']}, {row['verdict']} "
        f"({interval(row['estimate'], row['ci_low'], row['ci_high'], sign='+')} points)"
        for row in known.to_dict("records")
        if not row["verdict"].startswith(INCONCLUSIVE)
    ]
    shown = found[:_NAMED] + (["..."] if len(found) > _NAMED else [])
    rest = len(known) - len(found)
    if rest:
        shown.append(f"{rest} effect{'s' if rest > 1 else ''} inconclusive")
    return f"Averaged over the grid: {'; '.join(shown)}."


def _lost(own: pd.DataFrame) -> str:
    """The runs that are in no mean: what is left may be the better part."""
    lost = own[own["failed"] > 0]
    if lost.empty:
        return ""
    named = [
        f"{row['model']} ({row['failed']} of {row['failed'] + row['n']})"
        for row in lost.sort_values("failed", ascending=False, kind="stable")[:_NAMED].to_dict(
            "records"
        )
    ]
    more = ", ..." if len(lost) > _NAMED else ""
    return f"Failed or diverged, and in no mean: {', '.join(named)}{more}."


def _cost(own: pd.DataFrame) -> str:
    ranked = own[own["test_acc_common"].notna()]
    if ranked.empty:
        return ""
    means = ranked["test_acc_common"].astype(float).round(12)
    best = ranked[means == means.max()]
    text = f"The best mean over common seeds, {POINTS * means.max():.2f} %, is that of {_few(best)}"
    base = ranked[ranked["model"] == best["baseline"].iloc[0]]
    if len(best) == 1 and best["verdict"].iloc[0] == BASELINE:
        text += ", the baseline itself"
    elif len(best) == 1 and len(base):
        text += f", at {best['macs'].iloc[0] / base['macs'].iloc[0]:.2f} times the baseline's MACs"
    front = ranked[ranked["on_pareto_front"]].sort_values("macs", kind="stable")
    text += f"; by their means the Pareto front of accuracy against MACs is {_few(front)}"
    fewer = len(own) - len(ranked)
    return text + (f" ({fewer} with too few seeds not ranked)." if fewer else ".")


def _few(rows: pd.DataFrame) -> str:
    return ", ".join(rows["model"][:_NAMED]) + (", ..." if len(rows) > _NAMED else "")


_METHODS = (
    "Intervals are Student's, of 95 %; where there is one seed, or all scores are equal, there is "
    "none. An accuracy's interval ends at 0 and 100 %.",
    "Differences are paired: the same seed means the same split, order of images and augmentation "
    f"for all variants. The p value is that of the sign-flip test (exact up to {EXACT} pairs, "
    "beyond that over as many drawn patterns), adjusted by Holm over all comparisons of a table; a "
    f"verdict takes an adjusted p below 0.05, so {pairs_needed(1)} pairs of seeds for one "
    f"comparison and {pairs_needed(11)} for eleven. Intervals are of one difference each and not "
    "adjusted: one may leave zero out where the verdict is inconclusive.",
    "Variants are ranked by their means over common seeds; those that share too few with the "
    "others are not. P(front) is how often one is on the Pareto front in "
    f"{DRAWS:,} draws of the seeds with replacement, from {pairs_needed(1)} seeds on; the cheapest "
    "always is. The best of many means flatters: on new images it will do a little less well.",
    "An effect is a contrast of variants, taken within each seed and tested as a difference is; "
    "the effects of a table are adjusted together.",
    "1 MAC is 2 FLOPs; convolutions and linear layers are counted. Training time per image is that "
    "of the fastest finished run: what else the machine did can only slow one.",
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
            f"as many runs ({len(pairs)} x {span(pairs)} pairs)"
            + (": here the seeds have little in common." if gain < _LITTLE else "."),
        )
    lines += _test_images(summary)
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


def _test_images(summary: pd.DataFrame) -> list[str]:
    """What another test set would do, by the normal approximation of the binomial."""
    known = summary.dropna(subset=["n_test", "test_acc_mean"])
    lines = []
    for dataset, own in known.groupby("dataset", sort=False):
        n = float(own["n_test"].max())
        accuracies = own["test_acc_mean"].astype(float)
        variance = (accuracies * (1 - accuracies)).max()
        half = NormalDist().inv_cdf(1 - ALPHA / 2) * (variance / n) ** 0.5
        lines.append(
            f"All intervals are over seeds, on the same {n:.0f} test images of {dataset}. Another "
            f"draw of so many images would move an accuracy by up to {POINTS * half:.2f} points "
            "either way (95 %), and a difference the less, the more often two networks err on the "
            "same images, which is not recorded."
        )
    return lines
