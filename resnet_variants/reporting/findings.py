"""The report in words: a few sentences that answer, and how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from statistics import NormalDist

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import Comparison
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
from resnet_variants.reporting.names import conditions
from resnet_variants.reporting.summary import DELTA
from resnet_variants.reporting.text import POINTS, interval, span

_NAMED = 4  # networks or effects that a sentence names
_LITTLE = 1.2  # times as many runs


def headline(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out in at most two plain sentences, without intervals."""
    summaries = _labelled(comparisons)
    if len(summaries) == 1:
        return tuple(filter(None, (_plain_verdict(summaries[0]), _plain_best(summaries[0]))))
    if not any(len(part.pairs) for part in comparisons):
        none = f"None of {len(summaries)} comparisons has a network beside its baseline"
        return (f"{none}, so there is no verdict.",)
    compared = [summary[summary["pairs"] > 0] for summary in summaries]
    words = pd.concat([rows["verdict"] for rows in compared])
    if (words == TOO_FEW).all():
        needed = span(pd.Series([pairs_needed(len(rows)) for rows in compared if len(rows)]))
        there = span(pd.concat([rows["pairs"] for rows in compared]))
        few = f"too few seeds for a verdict, which takes {needed} pairs of seeds"
        return (f"{len(summaries)} comparisons: {few} for each arm, and there are {there}.",)
    counts = [f"{n} {word}" for word in (BETTER, WORSE) if (n := int((words == word).sum()))]
    told = " and ".join(counts) or "none told apart"
    return (f"{len(summaries)} comparisons: against their baselines {told}.",)


def _labelled(comparisons: Sequence[Comparison]) -> list[pd.DataFrame]:
    """The summaries with short labels for networks and baselines."""
    return [
        part.summary.assign(
            model=part.labelled(part.summary["model"]),
            baseline=part.labelled(part.summary["baseline"]),
        )
        for part in comparisons
    ]


def _plain_verdict(summary: pd.DataFrame) -> str:
    missing = _nothing_to_compare(summary)
    if missing:
        return missing
    compared = summary[summary["pairs"] > 0]
    bases = [*compared["baseline"].unique()]
    base = bases[0] if len(bases) == 1 else "the baseline"
    parts, decided = [], 0
    for word in (BETTER, WORSE):
        rows = compared[compared["verdict"] == word]
        rows = rows.reindex(rows["delta"].abs().sort_values(ascending=False).index)
        decided += len(rows)
        if len(rows):
            verb = "is" if len(rows) == 1 else "are"
            names = _enumerated(rows["model"], f"{len(rows)} arms")
            points = [f"{POINTS * abs(delta):.1f}" for delta in rows["delta"]]
            by = _enumerated(points, f"{points[-1]} to {points[0]}")
            parts.append(f"{names} {verb} {word} than {base} by {by} points")
    if not decided:
        seeds = span(compared["pairs"])
        subject = (
            f"none of {len(compared)} arms can"
            if len(compared) > 1
            else f"{compared['model'].iloc[0]} cannot"
        )
        return f"With {seeds} seeds {subject} be told from {base}."
    rest = len(compared) - decided
    others = compared.loc[~compared["verdict"].isin([BETTER, WORSE]), "model"]
    subject = others.iloc[0] if rest == 1 else f"the other {rest}"
    parts += [f"{subject} cannot be told from it"] if rest else []
    return "; ".join(parts) + "."


def _plain_best(summary: pd.DataFrame) -> str:
    ranked = summary[summary["test_acc_common"].notna()]
    means = ranked["test_acc_common"].astype(float).round(12)
    best = ranked[means == means.max()]
    if len(best) != 1:
        return ""
    row = best.iloc[0]
    text = f"The best mean, {POINTS * means.max():.1f} %, is that of {row['model']}"
    base = ranked[ranked["model"] == row["baseline"]]
    if row["verdict"] == BASELINE or base.empty:
        return f"{text}."
    times = f"{row['macs'] / base['macs'].iloc[0]:.2f}"
    cost = "the MACs" if times == "1.00" else f"{times} times the MACs"
    return f"{text}, at {cost} of {row['baseline']}."


def _enumerated(texts: Iterable[str], otherwise: str) -> str:
    """``A``, ``A and B``, ``A, B and C``; of more texts, the other text."""
    *first, last = texts
    if len(first) > 2:
        return otherwise
    return f"{', '.join(first)} and {last}" if first else last


def answer(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out of each comparison, a sentence each, with intervals.

    The verdict, the effects of axes, what the best network costs, and which runs are in no mean.
    """
    sentences: list[str] = []
    _, places = conditions(comparisons)
    for part, summary, place in zip(comparisons, _labelled(comparisons), places, strict=True):
        first = _verdict(summary)
        sentences.append(f"{place}: {first}" if place else first)
        further = _effects(part.effects), _cost(summary), _lost(summary)
        sentences += filter(None, further)
    return tuple(sentences)


def _nothing_to_compare(summary: pd.DataFrame) -> str:
    """Why there is no verdict on any network; empty where there may be one."""
    scored = summary.loc[summary["n"] > 0, "model"]
    compared = summary[summary["pairs"] > 0]
    if scored.empty:
        return "No run has finished, so there is nothing to compare yet."
    if compared.empty and len(scored) == 1:
        return f"Only {scored.iloc[0]} has finished: nothing to compare."
    if compared.empty:
        return "No variant shares a finished seed with a baseline, so none can be compared."
    if (compared["verdict"] == TOO_FEW).all():
        needed = pairs_needed(len(compared))
        return (
            f"Too few seeds for a verdict: {_compared(compared)} take {needed} pairs of seeds "
            f"each, and there are {span(compared['pairs'])}."
        )
    return ""


def _compared(compared: pd.DataFrame) -> str:
    bases = ", ".join(compared["baseline"].unique())
    return f"{len(compared)} variant{'s' if len(compared) > 1 else ''} compared with {bases}"


def _verdict(summary: pd.DataFrame) -> str:
    missing = _nothing_to_compare(summary)
    if missing:
        return missing
    compared = summary[summary["pairs"] > 0]
    parts = [
        f"{len(rows)} {word}" + (f" ({_by_how_much(rows)})" if word in (BETTER, WORSE) else "")
        for word, rows in compared.groupby("verdict", sort=True)
    ]
    seeds = span(compared["pairs"])
    return f"Of {_compared(compared)} over {seeds} paired seeds: {', '.join(parts)}."


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
    more = len(decided) - _NAMED
    shown = decided[:_NAMED] + ([f"{more} more with a verdict"] if more > 0 else [])
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
