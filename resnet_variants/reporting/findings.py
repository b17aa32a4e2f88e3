"""The report in words: a few sentences that answer, and how to read the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import NormalDist

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.effects import ADDITIVE
from resnet_variants.analysis.endpoints import ENDPOINTS, PRIMARY
from resnet_variants.analysis.predictions import FAILED, HELD
from resnet_variants.analysis.statistics import ALPHA, DRAWS, EXACT, FEWEST, pairing_gain
from resnet_variants.analysis.verdicts import (
    BASELINE,
    BELOW,
    BETTER,
    ENOUGH_EPOCHS,
    EQUAL,
    UNDECIDED,
    WORSE,
    Plan,
    level,
)
from resnet_variants.records.run_folder import Provenance
from resnet_variants.registry import number_of
from resnet_variants.reporting.effects import NAMED, averages, effects_in_detail, enumerated
from resnet_variants.reporting.names import conditions
from resnet_variants.reporting.summary import DELTA
from resnet_variants.reporting.text import POINTS, hours_text, interval, span

# Settings with which the runs of a seed see other batches, or the images in another form.
_OTHER_STEPS = {
    *("batch_size", "accumulate", "mixup", "cutmix", "crop_padding", "crop_area", "flip"),
    *("color_jitter", "cutout", "auto_augment", "augment", "size_start", "size_end"),
}
_LITTLE = 1.2  # times as many runs


def headline(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out in a few plain sentences, without intervals."""
    more = _short(comparisons), _held_elsewhere(comparisons), _predicted(comparisons)
    return tuple(filter(None, (*_came_out(comparisons), *more)))


def _predicted(comparisons: Sequence[Comparison]) -> str:
    """How many of the predictions held; empty where there are none."""
    tables = [part.predictions.drop_duplicates("number") for part in comparisons]
    verdicts = pd.concat([table["verdict"] for table in tables])
    if verdicts.empty:
        return ""
    counts = {word: int((verdicts == word).sum()) for word in (HELD, FAILED, UNDECIDED)}
    verbs = {HELD: "", FAILED: "", UNDECIDED: "is " if counts[UNDECIDED] == 1 else "are "}
    parts = [f"{n} {verbs[word]}{word}" for word, n in counts.items() if n]
    s = "s" if len(verdicts) > 1 else ""
    stated = comparisons[0].stated.stated
    when = f" ({stated})" if stated else ""
    return f"Of {len(verdicts)} prediction{s}{when} {', '.join(parts)}."


def _short(comparisons: Sequence[Comparison]) -> str:
    """What training from scratch for a few epochs does not say; empty of longer training."""
    epochs = {
        int(part.key["epochs"])
        for part in comparisons
        if len(part.pairs) and not part.recipe.get("weights")
    }
    if not epochs or max(epochs) >= ENOUGH_EPOCHS:
        return ""
    verb = "epoch says" if epochs == {1} else "epochs say"
    return f"{span(pd.Series([*epochs]))} {verb} little about longer training."


def _held_elsewhere(comparisons: Sequence[Comparison]) -> str:
    """At how many values of a setting the verdicts hold; empty where none is varied for that."""
    tables = [
        part.robustness.assign(model=part.labelled(part.robustness["model"]))
        for part in comparisons
    ]
    rows = pd.concat(tables)
    rows = rows[rows["verdict"] != UNDECIDED]
    if rows.empty:
        return ""
    each = [f"on {row.model} holds at {row.holds} of {row.values}" for row in rows.itertuples()]
    more = f"; there are {len(each) - NAMED} more" if len(each) > NAMED else ""
    told = ", that ".join(each[:NAMED])
    return f"Over values of {rows['settings'].iloc[0]}, the verdict {told}{more}."


def _came_out(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    summaries = _labelled(comparisons)
    if len(summaries) == 1:
        first, part = summaries[0], comparisons[0]
        verdict = _plain_verdict(first, part.plan)
        if declared := _declared(part):
            return declared, f"By test accuracy, a secondary endpoint: {verdict}"
        return verdict, averages(part.effects), _plain_best(first)
    if not any(len(part.pairs) for part in comparisons):
        none = f"None of {len(summaries)} comparisons has a network beside its baseline"
        return (f"{none}, so there is no verdict.",)
    compared = [summary[summary["pairs"] > 0] for summary in summaries]
    pairs = pd.concat([rows["pairs"] for rows in compared])
    if pairs.max() < FEWEST:
        few = f"too few seeds for a verdict, which takes {FEWEST} pairs of seeds for each arm"
        return (f"{len(summaries)} comparisons: {few}, and there are {span(pairs)}.",)
    words = pd.concat([rows["verdict"] for rows in compared])
    counts = [
        f"{n} {word}"
        for word in (BETTER, WORSE, EQUAL)
        if (n := int(words.str.startswith(word).sum()))
    ]
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


def _plain_verdict(summary: pd.DataFrame, plan: Plan) -> str:
    missing = _nothing_to_compare(summary, plan)
    if missing:
        return missing
    compared = summary[summary["pairs"] > 0]
    bases = [*compared["baseline"].unique()]
    base = bases[0] if len(bases) == 1 else "the baseline"
    undecided = compared.loc[compared["verdict"] == UNDECIDED, "model"]
    if len(undecided) == len(compared):
        seeds = span(compared["pairs"])
        subject = (
            f"none of {len(compared)} arms can"
            if len(compared) > 1
            else f"{compared['model'].iloc[0]} cannot"
        )
        shown = POINTS * compared["detectable"].max()
        would = f": a difference of {shown:.1f} points would have shown" if shown == shown else ""
        return f"With {seeds} seeds {subject} be told from {base}{would}."
    parts = _told_apart(compared, base)
    equal = compared.loc[compared["verdict"] == EQUAL, "model"]
    if len(equal):
        names = enumerated(equal, f"{len(equal)} arms")
        verb = "differs" if len(equal) == 1 else "differ"
        parts.append(f"{names} {verb} from {base} by less than {plan.margin:g} points")
    if len(undecided):
        subject = undecided.iloc[0] if len(undecided) == 1 else f"the other {len(undecided)}"
        parts.append(f"{subject} cannot be told from it")
    return "; ".join(parts) + "."


def _told_apart(compared: pd.DataFrame, base: str) -> list[str]:
    """Which arms are better and which are worse, and by how much."""
    parts = []
    for word in (BETTER, BETTER + BELOW, WORSE, WORSE + BELOW):
        rows = compared[compared["verdict"] == word]
        rows = rows.reindex(rows["delta"].abs().sort_values(ascending=False).index)
        if len(rows):
            verb = "is" if len(rows) == 1 else "are"
            names = enumerated(rows["model"], f"{len(rows)} arms")
            points = [f"{POINTS * abs(delta):.1f}" for delta in rows["delta"]]
            by = enumerated(points, f"{points[-1]} to {points[0]}")
            kind, below = word.removesuffix(BELOW), ", below the margin" if BELOW in word else ""
            parts.append(f"{names} {verb} {kind} than {base} by {by} points{below}")
    return parts


def _declared(part: Comparison) -> str:
    """The verdicts by the primary endpoint, where this is not test accuracy."""
    rows = part.endpoints[part.endpoints["role"] == PRIMARY]
    if part.plan.endpoint == "test_acc" or rows.empty:
        return ""
    words = rows["verdict"].str.split(" ").str[0]
    counts = [
        f"{enumerated(own.map(part.labels), f'{len(own)} arms')} {word}"
        for word in (BETTER, WORSE, EQUAL, UNDECIDED)
        if len(own := rows.loc[words == word, "model"])
    ]
    if not counts:
        return ""
    bases = rows["baseline"].map(part.labels).unique()
    base = bases[0] if len(bases) == 1 else "the baseline"
    title = ENDPOINTS[part.plan.endpoint].title
    return f"By {title}, which was declared to decide, against {base}: {', '.join(counts)}."


def _plain_best(summary: pd.DataFrame) -> str:
    ranked = summary[summary["test_acc_common"].notna()]
    means = ranked["test_acc_common"].astype(float).round(12)
    best = ranked[means == means.max()]
    if len(best) != 1:
        return ""
    row = best.iloc[0]
    over = "" if summary["n"].nunique() == 1 else " over common seeds"
    text = f"The best mean{over}, {POINTS * means.max():.1f} %, is that of {row['model']}"
    base = ranked[ranked["model"] == row["baseline"]]
    if row["verdict"] == BASELINE or base.empty:
        return f"{text}."
    times = f"{row['macs'] / base['macs'].iloc[0]:.2f}"
    cost = "the MACs" if times == "1.00" else f"{times} times the MACs"
    return f"{text}, at {cost} of {row['baseline']}."


def answer(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out of each comparison, a sentence each, with intervals.

    The verdict, the effects of axes, what the best network costs, and which runs are in no mean.
    """
    sentences: list[str] = []
    _, places = conditions(comparisons)
    for part, summary, place in zip(comparisons, _labelled(comparisons), places, strict=True):
        first = _verdict(summary, part.plan)
        sentences.append(f"{place}: {first}" if place else first)
        further = effects_in_detail(part.effects), _cost(summary), _lost(summary)
        sentences += filter(None, further)
    return tuple(sentences)


def _nothing_to_compare(summary: pd.DataFrame, plan: Plan) -> str:
    """Why there is no verdict on any network; empty where there may be one."""
    scored = summary.loc[summary["n"] > 0, "model"]
    compared = summary[summary["pairs"] > 0]
    if scored.empty:
        return "No run has finished, so there is nothing to compare yet."
    if compared.empty and len(scored) == 1:
        return f"Only {scored.iloc[0]} has finished: nothing to compare."
    if compared.empty:
        return "No variant shares a finished seed with a baseline, so none can be compared."
    if compared["pairs"].max() < FEWEST:
        least = max(plan.seeds, FEWEST)
        return (
            f"Too few seeds for a verdict: {_compared(compared)} take {least} pairs of seeds "
            f"each, and there are {span(compared['pairs'])}."
        )
    if compared["pairs"].max() < plan.seeds and (compared["verdict"] == UNDECIDED).all():
        there = span(compared["pairs"])
        return f"No verdict yet: {plan.seeds} seeds were planned, and {there} are there."
    return ""


def _compared(compared: pd.DataFrame) -> str:
    bases = compared["baseline"].unique()
    base = bases[0] if len(bases) == 1 else f"{len(bases)} baselines"
    return f"{len(compared)} variant{'s' if len(compared) > 1 else ''} compared with {base}"


def _verdict(summary: pd.DataFrame, plan: Plan) -> str:
    missing = _nothing_to_compare(summary, plan)
    if missing:
        return missing
    compared = summary[summary["pairs"] > 0]
    parts = [
        f"{len(rows)} {word}" + ("" if word in (EQUAL, UNDECIDED) else f" ({_by_how_much(rows)})")
        for word, rows in compared.groupby("verdict", sort=True)
    ]
    seeds = span(compared["pairs"])
    text = f"Of {_compared(compared)} over {seeds} paired seeds: {', '.join(parts)}."
    return " ".join([text, *_what_it_takes(compared, plan)])


def _what_it_takes(compared: pd.DataFrame, plan: Plan) -> list[str]:
    """What the undecided arms could have shown, and how many seeds a verdict would take."""
    rows = compared[(compared["verdict"] == UNDECIDED) & compared["detectable"].notna()]
    if rows.empty:
        return []
    between = span(POINTS * rows["detectable"], ".1f")
    text = f"Of the undecided, differences of {between} points would have shown in 80 % of cases"
    known = rows[rows["more_seeds"].notna()]
    if known.empty:
        return [f"{text}."]
    row = known.sort_values("more_seeds", kind="stable").iloc[0]
    seeds = number_of(int(row["more_seeds"]), "more seed")
    others = ", no fewer of the others" if len(rows) > 1 else ""
    aim = f"the margin of {plan.margin:g} points" if plan.margin else "the difference seen"
    return [
        f"{text}; {aim} would take {seeds} of {row['model']} and of its baseline "
        f"({hours_text(row['more_hours'])}, one run at a time){others}."
    ]


def _by_how_much(rows: pd.DataFrame) -> str:
    largest = rows.reindex(rows["delta"].abs().sort_values(ascending=False).index)
    return _listed(
        f"{row['model']} by {interval(*(row[name] for name in DELTA), sign='+')} points"
        for row in largest.to_dict("records")
    )


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
    """The first few, and how many more there are."""
    every = [*texts]
    rest = len(every) - NAMED
    return ", ".join(every[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


_METHODS = (
    "Intervals are Student's, of 95 %; where there is one seed, or all scores are equal, there is "
    "none. An accuracy's interval ends at 0 and 100 %.",
    "Differences are paired: the same seed means the same split, order of images and augmentation "
    "for all variants. The p value is that of the sign-flip test, which flips all differences of a "
    f"seed together (exact up to {EXACT} pairs, beyond that over as many drawn patterns) and is "
    "adjusted, step-down, over all comparisons of a table. It takes for granted that without an "
    "effect a seed's differences are as likely with all signs changed. Intervals are of one "
    "difference each and not adjusted, and of another method: one may leave zero out where the "
    "verdict is undecided, or hold it where there is one.",
    "Variants are ranked by their means over common seeds; those that share too few with the "
    "others are not. P(front) is how often one is on the Pareto front in "
    f"{DRAWS:,} draws of the seeds with replacement, from {FEWEST} seeds on; the cheapest "
    "always is. The best of many means flatters: on new images it will do a little less well.",
    "An effect is a contrast of variants, taken within each seed and tested as a difference is; "
    "main effects and interactions are adjusted together, and simple effects by themselves.",
    "1 MAC is 2 FLOPs; convolutions and linear layers are counted. Training time per image is that "
    "of the fastest finished run: what else the machine did can only slow one.",
)


def notes(comparisons: Sequence[Comparison], provenance: Provenance) -> list[str]:
    """How to read the numbers."""
    lines = [*_METHODS[:2], _promise(comparisons[0].plan)]
    varied = [name for name in comparisons[0].varied if name in _OTHER_STEPS]
    if varied:
        lines.append(
            f"Arms differ in {', '.join(varied)}: with one seed they still see the same images in "
            "the same order, but not in the same batches or not in the same form, so pairing gains "
            "less."
        )
    gain = pairing_gain([*chain.from_iterable(part.pairs for part in comparisons)])
    if not np.isnan(gain):
        pairs = pd.concat([part.summary["pairs"] for part in comparisons])
        pairs = pairs[pairs > 1]
        lines.append(
            f"Pairing: for the same standard error, independent seeds would take {gain:.2f} times "
            f"as many runs ({len(pairs)} x {span(pairs)} pairs)"
            + (": here the seeds have little in common." if gain < _LITTLE else ".")
        )
    lines += [*_METHODS[2:], *_test_images(comparisons)]
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


def _promise(plan: Plan) -> str:
    """What a verdict promises, with the plan that it rests on."""
    first = max(plan.seeds, FEWEST)
    text = (
        f"Verdicts begin at {first} seeds, the number planned before the first run ({FEWEST} where "
        f"none was recorded), with an adjusted p of at most {level(first, first):.3f}. Each "
        f"further seed is a look with a lower level ({level(first + 3, first):.3f} at {first + 3} "
        f"seeds). So seeds may be added until a verdict shows: at most {ALPHA:.0%} of tables "
        "without effects get a false one if differences are symmetric. A verdict that was reached "
        "stays. An undecided row has the difference that would have shown in 80 % of cases, and "
        "the further seeds that "
    )
    if not plan.margin:
        return text + "the difference seen would take. No margin was given."
    return text + (
        f"the margin of {plan.margin:g} points would take. Equal: both one-sided sign-flip tests "
        "against a difference of the margin are passed at these levels."
    )


def _test_images(comparisons: Sequence[Comparison]) -> list[str]:
    """How much other test images would matter, and how much of the deviation of runs they are."""
    lines = []
    for dataset in dict.fromkeys(part.key["dataset"] for part in comparisons):
        tables = [part.summary for part in comparisons if part.key["dataset"] == dataset]
        summary = pd.concat(tables).dropna(subset=["n_test", "test_acc_mean"])
        if summary.empty:
            continue
        n = f"{summary['n_test'].max():.0f} test images of {dataset}"
        known = summary.dropna(subset=["images_ci_low", "delta_ci_low"])
        lines.append(_other_images(summary, n) if known.empty else _both_chances(known, n))
        spread = summary.dropna(subset=["sd_of_seeds", "test_acc_sd"])
        if len(spread):
            seen, chance, real = (
                span(POINTS * spread[name], ".2f")
                for name in ("test_acc_sd", "sd_of_images", "sd_of_seeds")
            )
            lines.append(
                f"Runs of one arm deviate by {seen} points. Independent errors on the {n} would "
                f"make that {chance}; that on all images there are is estimated at {real} "
                "(arXiv:2304.01910)."
            )
    return lines


def _other_images(summary: pd.DataFrame, n: str) -> str:
    """Without predictions, by the normal approximation of the binomial."""
    accuracies = summary["test_acc_mean"].astype(float)
    variance = (accuracies * (1 - accuracies)).max() / summary["n_test"].max()
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * variance**0.5
    return (
        f"All intervals are over seeds, on the same {n}. Another draw of so many images would move "
        f"an accuracy by up to {POINTS * half:.2f} points either way (95 %), and a difference the "
        "less, the more often two networks err on the same images, which is not recorded."
    )


def _both_chances(rows: pd.DataFrame, n: str) -> str:
    """By the predictions: what becomes of the intervals of differences."""
    old, new = (
        rows[[f"{name}_ci_low", f"{name}_ci_high"]].to_numpy(float) for name in ("delta", "images")
    )
    wider = np.ptp(new, axis=1) / np.ptp(old, axis=1)
    text = (
        f"Verdicts and intervals are for new seeds on the same {n}. For new seeds and new images, "
        f"intervals of differences are {span(pd.Series(wider), '.2f')} times as wide"
    )
    clear, still = (int((ends[:, 0] * ends[:, 1] > 0).sum()) for ends in (old, new))
    return text + (f", and {still} of the {clear} that leave zero out still do." if clear else ".")
