"""Short labels of networks, and the sentences that name them."""

import io
from types import SimpleNamespace

import pytest
from factories import A, B, D, comparison, paired_rows, runs_frame
from rich.console import Console

from resnet_variants.analysis.comparison import summary_table
from resnet_variants.analysis.factors import cells_of, short_labels
from resnet_variants.models.grids import grid
from resnet_variants.reporting.findings import headline
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
    "one network": ({"depth": [20]}, ["rv_resnet20_cifar_b"]),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_is_what_differs(case):
    axes, expected = LABELS[case]
    variants = grid(**{"family": "cifar", "depth": [29]} | axes)
    labels = short_labels(cells_of(variants))
    assert [labels[variant.name] for variant in variants] == expected


def test_labels_differ_wherever_names_do():
    axes = {"preset": list("ABCD"), "order": ["post", "preact", "relu_preact"]}
    variants = grid(family="cifar", depth=[20, 29, 47], attention=["none", "se"], **axes)
    labels = short_labels(cells_of(variants))
    assert len(set(labels.values())) == len(labels) == len(variants)


def comparisons_of(scores, **changes):
    """One comparison of nets with these accuracies by seed, all against net A."""
    runs = runs_frame(paired_rows(scores, **changes))
    return [comparison(runs, dict.fromkeys(scores, A))]


SCORES = {
    "better and undecided": (
        {A: [0.60] * 6, B: [0.62, 0.63, 0.64, 0.65, 0.66, 0.67]},
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
        ("With 6 seeds B cannot be told from A: a difference of 2.0 points would", "The best mean"),
    ),
}


@pytest.mark.parametrize("case", SCORES)
def test_two_plain_sentences_answer(case):
    scores, expected = SCORES[case]
    sentences = headline(comparisons_of(scores))
    assert len(sentences) <= 2
    assert not any(letter in " ".join(sentences) for letter in "[]()")
    for sentence, begin in zip(sentences, expected, strict=False):
        assert sentence.startswith(begin)


def test_several_comparisons_are_counted():
    scores = {A: [0.60] * 6, B: [0.62, 0.63, 0.64, 0.65, 0.66, 0.67]}
    both = (*comparisons_of(scores), *comparisons_of(scores, dataset="other"))
    assert headline(both) == ("2 comparisons: against their baselines 2 better.",)


def test_labels_stand_in_tables_and_names_where_they_are_asked_for():
    summary = summary_table(comparisons_of({A: [0.60], D: [0.62]}))
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
    made = SimpleNamespace(summary=summary_table(comparisons_of(scores)))
    console = Console(width=width, force_terminal=True, file=io.StringIO())
    table = screen._summary_table(made, console, wide=False)
    headers = [column.header for column in table.columns]
    assert set(shown) <= set(headers)
    assert console.measure(table).maximum <= width
