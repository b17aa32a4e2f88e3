"""Short labels of networks, and the sentences that name them."""

import contextlib
import io
import random
import re
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from factories import A, B, D, cells_of, comparison, paired_rows, runs_frame
from rich.console import Console

from resnet_variants.analysis.factors import short_labels
from resnet_variants.models.branches import STRIDES
from resnet_variants.models.grids import grid, variant_from
from resnet_variants.models.shortcuts import SHORTCUTS
from resnet_variants.models.variant import AXES
from resnet_variants.reporting.findings import headline
from resnet_variants.reporting.names import named_summary
from resnet_variants.reporting.summary import TERMINAL, summary_cells
from resnet_variants.terminal import screen

LABELS = {
    "presets": ({"preset": ["A", "D"]}, ["A", "D"]),
    "presets and orders": (
        {"preset": ["B", "D"], "preact": [False, True]},
        ["B", "B preact", "D", "D preact"],
    ),
    "orders alone": ({"order": ["post", "preact"]}, ["post", "preact"]),
    "depths and plain nets": (
        {"depth": [20, 56], "shortcut": ["conv", "none"]},
        ["20", "20 plain", "56", "56 plain"],
    ),
    "attention": ({"attention": ["none", "se"]}, ["no attention", "se"]),
    "a depth with its block": ({"depth": [20, 29]}, ["20", "29"]),
    "no preset": (
        {"stem": ["conv3", "deep"], "downsample": ["1x1", "3x3", "3x3+avgpool"]},
        ["conv3 1x1", "deep 1x1", "conv3", "deep", "conv3 3x3+avgpool", "deep 3x3+avgpool"],
    ),
    "groups": (
        {"cardinality": [1, 2], "attention": ["none", "se"]},
        ["cardinality 1 no attention", "se", "cardinality 2", "cardinality 2 se"],
    ),
    "one network": ({"depth": [20]}, ["rv_resnet20_cifar_b"]),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_is_what_differs(case):
    axes, expected = LABELS[case]
    variants = grid(**{"family": "cifar", "depth": [29]} | axes)
    labels = short_labels(cells_of(variants))
    assert [labels[variant.name] for variant in variants] == expected


# By the word of a label: what it says of a network.
SAID = {letter: {"preset": letter} for letter in "ABCD"}
SAID |= {place: {"downsample": place} for place in ("1x1", "3x3", "3x3+avgpool")}
SAID |= {f"{a}+{b}": {"stride": a, "shortcut": b} for a in STRIDES for b in SHORTCUTS} | SAID
SAID |= {
    word: {axis: word}
    for axis in ("family", "block", "stem", "order", "skip", "attention", "antialias")
    for word in AXES[axis].choices
    if word != "none"
}
SAID |= {word: {"shortcut": word} for word in SHORTCUTS} | {"plain": {"shortcut": "none"}}
SAID |= {f"no {axis}": {axis: "none"} for axis in ("attention", "antialias")}
NUMBER = r"(?<!\S)(?:(stem stride|cardinality|base width) )?(\d+)(?!\S)"


def read(label, shared):
    """The network that a label means, where ``shared`` is what all networks have in common."""
    said = {
        name.replace(" ", "_") or "depth": int(number) for name, number in re.findall(NUMBER, label)
    }
    for word in re.findall(r"no \w+|\S+", re.sub(NUMBER, "", label)):
        said |= SAID[word]
    if "downsample" in said or "preset" in said:
        parts = {"stride", "shortcut"} | ({"stem"} if "preset" in said else set())
        shared = {axis: choice for axis, choice in shared.items() if axis not in parts}
    return variant_from(shared | said)


CHOICES = {
    "family": ["cifar", "imagenet"],
    "depth": [14, 20, 26, 29, 38, 50, 110],
    "block": ["basic", "bottleneck"],
    "preset": [*"ABCD"],
    "stem": ["", "conv3", "conv7", "deep", "tiered"],
    "stem_stride": [0, 1, 2],
    "stride": ["1x1", "3x3"],
    "shortcut": [*SHORTCUTS],
    "order": ["post", "preact", "relu_preact"],
    "cardinality": [1, 2],
    "base_width": [0, 24],
    "attention": ["none", "se", "eca"],
    "antialias": ["none", "blur"],
}


def some_networks(seed):
    """Some networks of a grid, complete or not: axes may vary together."""
    chance = random.Random(seed)
    axes = chance.sample([*CHOICES], chance.randint(1, 4))
    found = {}
    for _ in range(chance.randint(2, 8)):
        spec = {"family": "cifar"} | {axis: chance.choice(CHOICES[axis]) for axis in axes}
        with contextlib.suppress(ValueError):  # some choices exclude each other
            variant = variant_from(spec)
            found[variant.name] = variant
    return [*found.values()]


@pytest.mark.parametrize("start", range(0, 200, 100))
def test_a_label_says_all_that_differs(start):
    for seed in range(start, start + 100):
        variants = some_networks(seed)
        if len(variants) > 1:
            require_that_labels_say_all(variants)


def require_that_labels_say_all(variants):
    labels = short_labels(cells_of(variants))
    assert len(set(labels.values())) == len(labels) == len(variants)
    all_axes = [asdict(variant) for variant in variants]
    shared = {
        axis: choice
        for axis, choice in all_axes[0].items()
        if all(other[axis] == choice for other in all_axes)
    }
    for variant in variants:
        assert read(labels[variant.name], shared) == variant


def comparisons_of(scores, **changes):
    """One comparison of nets with these accuracies by seed, all against net A."""
    runs = runs_frame(paired_rows(scores, **{"epochs": 20} | changes))
    return [comparison(runs, dict.fromkeys(scores, A))]


BETTER = {A: [0.60] * 6, B: [0.62, 0.63, 0.64, 0.65, 0.66, 0.67]}
SCORES = {
    "better": (
        BETTER,
        (
            "B is better than A by 4.5 points.",
            "The best mean, 64.5 %, is that of B, at 1.25 times the MACs of A.",
        ),
    ),
    "too few": (
        {A: [0.6, 0.61], B: [0.7, 0.71]},
        ("Too few seeds for a verdict: 1 variant compared with A take 6 pairs", "The best mean"),
    ),
    "undecided": (
        {A: [0.60, 0.62, 0.61, 0.63, 0.60, 0.61], B: [0.61, 0.61, 0.62, 0.62, 0.61, 0.60]},
        ("With 6 seeds B cannot be told from A: a difference of 2.0 points would",),  # equal means
    ),
}


@pytest.mark.parametrize("case", SCORES)
def test_two_plain_sentences_answer(case):
    scores, expected = SCORES[case]
    sentences = headline(comparisons_of(scores))
    assert not any(letter in " ".join(sentences) for letter in "[]()")
    for sentence, begin in zip(sentences, expected, strict=True):
        assert sentence.startswith(begin)


@pytest.mark.parametrize(
    ("epochs", "said"), [(1, ["1 epoch says"]), (14, ["14 epochs say"]), (15, [])]
)
def test_few_epochs_say_so(epochs, said):
    found = [s for s in headline(comparisons_of(BETTER, epochs=epochs)) if "longer" in s]
    assert found == [f"{text} little about longer training." for text in said]


def test_several_comparisons_are_counted():
    both = (*comparisons_of(BETTER), *comparisons_of(BETTER, dataset="other"))
    assert headline(both) == ("2 comparisons: against their baselines 2 better.",)


def test_several_comparisons_with_too_few_seeds_say_how_many_it_takes():
    scores = {A: [0.6, 0.61], B: [0.7, 0.71], D: [0.5, 0.52]}
    both = (*comparisons_of(scores), *comparisons_of(scores, dataset="other"))
    (said,) = headline(both)
    assert said == (
        "2 comparisons: too few seeds for a verdict, which takes 6 pairs of seeds for each arm, "
        "and there are 2."
    )


def test_labels_stand_in_tables_and_names_where_they_are_asked_for():
    summary = named_summary(comparisons_of({A: [0.60], D: [0.62]}))
    assert summary_cells(summary, TERMINAL)["arm"].tolist() == ["A", "D"]
    wide = summary_cells(summary, TERMINAL, wide=True)
    assert wide["arm"].tolist() == [A, D]


@pytest.mark.parametrize(
    ("scores", "width", "shown"),
    [
        ({A: [0.60, 0.62]}, 80, ["arm", "n", "test accuracy % [95 %]", "verdict"]),
        ({A: [0.60] * 6, B: [0.7] * 6}, 60, ["arm", "delta, points [95 %]", "verdict"]),
    ],
)
def test_a_narrow_terminal_shows_what_matters(scores, width, shown):
    made = SimpleNamespace(named=named_summary(comparisons_of(scores)))
    console = Console(width=width, force_terminal=True, file=io.StringIO())
    table = screen._summary_table(made, console, wide=False)
    headers = [column.header for column in table.columns]
    assert set(shown) <= set(headers)
    assert console.measure(table).maximum <= width


def test_a_run_ends_with_the_next_step():
    base = [0.60, 0.62, 0.61, 0.63, 0.60, 0.61]
    better = [acc + 0.02 + i / 1000 for i, acc in enumerate(base)]
    vague = [0.61, 0.63, 0.60, 0.64, 0.62, 0.60]

    def step(*, more=True, **scores):
        part = comparison(runs_frame(paired_rows({A: base} | scores)), dict.fromkeys((A, B, D), A))
        made = SimpleNamespace(comparisons=[part], summary=part.summary)
        return screen.next_step(made, more=more)

    assert step(**{B: better}) == ""
    said = step(**{B: better, D: vague})
    assert said.startswith("to go on: the same command with --more ")
    assert '--arms "D" (' in said and "as likely as not" in said
    assert step(**{D: vague}, more=False) == ""
    assert "no number of further seeds" in step(**{D: base[::-1]}, more=False)
    slight = [acc + 0.0001 * (1, 30, -18, 6, 28, -14)[i] for i, acc in enumerate(base)]
    assert re.fullmatch(
        r"to tell even D apart would take about [\d,]+ more seeds", step(**{D: slight})
    )
