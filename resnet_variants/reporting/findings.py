"""The report in words: a few sentences that answer, and how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from statistics import NormalDist

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import KEY, Comparison
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
    pairing_gain,
    pairs_needed,
)
from resnet_variants.records.run_folder import Provenance
from resnet_variants.reporting.summary import DELTA
from resnet_variants.reporting.text import POINTS, interval, span

_NAMED = 4  # networks or effects that a sentence names
_LITTLE = 1.2  # times as many runs


def answer(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out of each comparison, a sentence each.

    The verdict, the effects of axes, what the best network costs, and which runs are in no mean.
    """
    varied = [name for name in KEY if len({part.key[name] for part in comparisons}) > 1]
    sentences: list[str] = []
    for part in comparisons:
        place = ", ".join(f"{name.replace('_', ' ')} {part.key[name]}" for name in varied)
        first = _verdict(part.summary)
        sentences.append(f"On {place}: {first}" if len(comparisons) > 1 else first)
        further = _effects(part.effects), _cost(part.summary), _lost(part.summary)
        sentences += filter(None, further)
    return tuple(sentences)


def _verdict(summary: pd.DataFrame) -> str:
    scored = summary.loc[summary["n"] > 0, "model"]
    compared = summary[summary["pairs"] > 0]
    if scored.empty:
        return "No run has finished, so there is nothing to compare yet."
    if compared.empty and len(scored) == 1:
        return f"Only {scored.iloc[0]} has finished: nothing to compare."
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
    parts = [
        f"{len(rows)} {word}" + (f" ({_by_how_much(rows)})" if word in (BETTER, WORSE) else "")
        for word, rows in compared.groupby("verdict", sort=True)
    ]
    return f"Of {count} compared with {bases} over {seeds} paired seeds: {', '.join(parts)}."


def _by_how_much(rows: pd.DataFrame) -> str:
    largest = rows.reindex(rows["delta"].abs().sort_values(ascending=False).index)
    return _listed(
        f"{row['model']} by {interval(*(row[name] for name in DELTA), sign='+')} points"
        for row in largest.to_dict("records")
    )


def _effects(effects: pd.DataFrame) -> str:
    """The effects that have a verdict; the table begins with the main effects."""
    known = effects[effects["estimate"].notna()]
    if known.empty:
        return ""
    decided = [
        f"{row['effect']} {row['contrast']}, {row['verdict']} "
        f"({interval(row['estimate'], row['ci_low'], row['ci_high'], sign='+')} points)"
        for row in known.to_dict("records")
        if not row["verdict"].startswith(INCONCLUSIVE)
    ]
    shown = decided[:_NAMED] + (["..."] if len(decided) > _NAMED else [])
    rest = len(known) - len(decided)
    if rest:
        shown.append(f"{rest} effect{'s' if rest > 1 else ''} inconclusive")
    return f"Averaged over the grid: {'; '.join(shown)}."


def _lost(summary: pd.DataFrame) -> str:
    """The runs that are in no mean: the finished ones may be the better part."""
    lost = summary[summary["failed"] > 0].sort_values("failed", ascending=False, kind="stable")
    if lost.empty:
        return ""
    named = _listed(
        f"{row['model']} ({row['failed']} of {row['failed'] + row['n']})"
        for row in lost.to_dict("records")
    )
    return f"Failed or diverged, and in no mean: {named}."


def _cost(summary: pd.DataFrame) -> str:
    ranked = summary[summary["test_acc_common"].notna()]
    if ranked.empty:
        return ""
    means = ranked["test_acc_common"].astype(float).round(12)
    best = ranked[means == means.max()]
    names = _listed(best["model"])
    text = f"The best mean over common seeds, {POINTS * means.max():.2f} %, is that of {names}"
    base = ranked[ranked["model"] == best["baseline"].iloc[0]]
    if len(best) == 1 and best["verdict"].iloc[0] == BASELINE:
        text += ", the baseline itself"
    elif len(best) == 1 and len(base):
        text += f", at {best['macs'].iloc[0] / base['macs'].iloc[0]:.2f} times the baseline's MACs"
    front = ranked[ranked["on_pareto_front"]].sort_values("macs", kind="stable")
    names = _listed(front["model"])
    text += f"; by their means the Pareto front of accuracy against MACs is {names}"
    fewer = len(summary) - len(ranked)
    return text + (f" ({fewer} with too few seeds not ranked)." if fewer else ".")


def _listed(texts: Iterable[str]) -> str:
    """The first few, and whether there are more."""
    first = [*islice(texts, _NAMED + 1)]
    return ", ".join([*first[:_NAMED], *(["..."] if len(first) > _NAMED else [])])


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


def notes(comparisons: Sequence[Comparison], provenance: Provenance) -> list[str]:
    """How to read the numbers."""
    lines = [*_METHODS]
    gain = pairing_gain([*chain.from_iterable(part.pairs for part in comparisons)])
    if not np.isnan(gain):
        pairs = pd.concat([part.summary["pairs"] for part in comparisons])
        pairs = pairs[pairs > 1]
        lines.insert(
            2,
            f"Pairing: for the same standard error, independent seeds would take {gain:.2f} times "
            f"as many runs ({len(pairs)} x {span(pairs)} pairs)"
            + (": here the seeds have little in common." if gain < _LITTLE else "."),
        )
    lines += _test_images(comparisons)
    if any((part.effects["model"] == ADDITIVE).any() for part in comparisons):
        lines.append(
            "Where variants of the whole product are missing, the axes are taken to add up in the "
            "effects, and no interaction can be told."
        )
    if any(part.summary["paper"].ne("").any() for part in comparisons):
        lines.append(
            "A paper's difference is for the same change of architecture on its own data, depth "
            "and recipe: compare signs and sizes, never levels."
        )
    if len(provenance.get("device", [])) > 1:
        lines.append("Runs of several devices: times per image are not of one machine.")
    if any("with changes" in commit for commit in provenance.get("git commit", [])):
        lines.append("Some runs were trained from a working tree with uncommitted changes.")
    return lines


def _test_images(comparisons: Sequence[Comparison]) -> list[str]:
    """How much another test set would matter, by the normal approximation of the binomial."""
    lines = []
    for dataset in dict.fromkeys(part.key["dataset"] for part in comparisons):
        tables = [part.summary for part in comparisons if part.key["dataset"] == dataset]
        known = pd.concat(tables).dropna(subset=["n_test", "test_acc_mean"])
        if known.empty:
            continue
        n = float(known["n_test"].max())
        accuracies = known["test_acc_mean"].astype(float)
        variance = (accuracies * (1 - accuracies)).max()
        half = NormalDist().inv_cdf(1 - ALPHA / 2) * (variance / n) ** 0.5
        lines.append(
            f"All intervals are over seeds, on the same {n:.0f} test images of {dataset}. Another "
            f"draw of so many images would move an accuracy by up to {POINTS * half:.2f} points "
            "either way (95 %), and a difference the less, the more often two networks err on the "
            "same images, which is not recorded."
        )
    return lines
