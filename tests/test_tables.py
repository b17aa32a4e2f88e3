"""From runs to one row per variant: who is averaged, who is paired with whom, what is shown."""

import dataclasses
import math
import re

import pandas as pd
import pytest
from factories import (
    D_PRE,
    A,
    B,
    D,
    paired_rows,
    run_row,
    runs_frame,
    summarised,
    summary_row,
    variant_columns,
)
from scipy.stats import binom
from test_plots import SCORES as ACCURACIES
from test_plots import compared

from resnet_variants.analysis.comparison import comparisons, joined
from resnet_variants.analysis.images import IMAGE_COLUMNS
from resnet_variants.analysis.published import PLACE, paper_effect, published
from resnet_variants.analysis.summary import SUMMARY_COLUMNS
from resnet_variants.models.variant import AXES
from resnet_variants.reporting.names import named_summary
from resnet_variants.reporting.summary import MARKDOWN, summary_cells, summary_latex
from resnet_variants.reporting.text import markdown
from resnet_variants.training.recipe import Recipe

BASELINES = {A: A, B: A, D: A, D_PRE: A}
PROMISED = """
    model preset family depth stem stem_stride stride shortcut order dataset n seeds
    test_acc_mean test_acc_sd test_acc_ci_low test_acc_ci_high
    baseline delta delta_ci_low delta_ci_high p_value verdict on_pareto_front
    params macs flops acts images_per_second failed images_ci_low images_ci_high
"""
SCORES = ("test_acc_mean", "test_acc_sd", "test_acc_ci_low", "test_acc_ci_high")
DELTA = ("delta", "delta_ci_low", "delta_ci_high", "p_value")


def summarise(rows, baselines=BASELINES, **more):
    return joined(comparisons(runs_frame(rows), baselines, **more), "summary")


def shown(rows):
    """The summary as Markdown."""
    parts = comparisons(runs_frame(rows), BASELINES)
    return markdown(summary_cells(named_summary(parts), MARKDOWN))


def by_model(rows, baselines=BASELINES):
    return summarise(rows, baselines).set_index("model")


def all_missing(row, columns):
    return all(math.isnan(row[column]) for column in columns)


def test_the_columns_are_the_promised_ones():
    summary = summarise(paired_rows({A: [0.8, 0.9]}))
    assert tuple(summary.columns) == (*SUMMARY_COLUMNS, *IMAGE_COLUMNS)
    assert set(PROMISED.split()) <= set(summary.columns)
    assert tuple(summarise([]).columns) == (*SUMMARY_COLUMNS, *IMAGE_COLUMNS)


def test_the_mean_and_its_interval():
    row = by_model(paired_rows({A: [0.4, 0.5, 0.6]})).loc[A]
    half = 4.302653 * 0.1 / 3**0.5  # t(0.975; 2)
    assert (row["n"], row["seeds"]) == (3, "0 1 2")
    assert row["test_acc_mean"] == pytest.approx(0.5)
    assert row["test_acc_ci_low"] == pytest.approx(0.5 - half)
    assert row["test_acc_ci_high"] == pytest.approx(0.5 + half)


def test_no_interval_of_an_accuracy_passes_its_limits():
    row = by_model(paired_rows({A: [0.9, 0.95, 1.0]})).loc[A]
    assert row["test_acc_ci_low"] < 0.9
    assert row["test_acc_ci_high"] == 1.0


def test_equal_scores_have_no_interval():
    row = by_model(paired_rows({A: [0.9, 0.9, 0.9], B: [0.8, 0.8, 0.8]})).loc[B]
    assert (row["test_acc_sd"], row["delta"]) == (0, pytest.approx(-0.1))
    assert all_missing(row, [*SCORES[2:], *DELTA[1:3]])


def test_one_seed_has_a_mean_and_no_interval():
    row = by_model(paired_rows({A: [0.7], B: [0.9]})).loc[B]
    assert row["test_acc_mean"] == 0.9
    assert row["delta"] == pytest.approx(0.2)
    assert all_missing(row, [*SCORES[1:], *DELTA[1:]])
    assert (row["verdict"], math.isnan(row["detectable"])) == ("undecided", True)


def test_a_paired_effect_shows_where_the_seeds_differ_more_than_the_variants():
    seeds = [0.50, 0.58, 0.66, 0.74, 0.82, 0.90]
    better = [acc + 0.010 + 0.001 * i for i, acc in enumerate(seeds)]
    worse = [2 * a - b for a, b in zip(seeds, better, strict=True)]
    summary = by_model(paired_rows({A: seeds, B: better, D: worse}))
    assert summary.loc[B, "delta"] == pytest.approx(0.0125)
    assert 0.01 < summary.loc[B, "delta_ci_low"] < 0.0125 < summary.loc[B, "delta_ci_high"] < 0.015
    assert summary.loc[[B, D], "p_value"].tolist() == pytest.approx([2 / 64, 2 / 64])
    assert summary.loc[A, "test_acc_ci_high"] > summary.loc[B, "test_acc_ci_low"]


def test_only_seeds_that_both_have_are_paired():
    rows = [run_row(A, seed, acc) for seed, acc in ((0, 0.5), (1, 0.6), (2, 0.1))]
    rows += [run_row(B, seed, acc) for seed, acc in ((3, 0.0), (1, 0.7), (0, 0.8))]
    rows += [run_row(B, 2, status="failed")]
    row = by_model(rows).loc[B]
    assert row["delta"] == pytest.approx(((0.7 - 0.6) + (0.8 - 0.5)) / 2)
    assert (row["n"], row["seeds"]) == (3, "0 1 3")
    assert row["test_acc_mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("n", "shifts", "words"),
    [
        (6, {B: 0.01}, ["better"]),
        (6, {B: -0.01}, ["worse"]),
        (5, {B: 0.01, D: -0.01}, ["undecided"] * 2),
        (6, {B: 0.01, D: -0.01}, ["better", "worse"]),
    ],
    ids=["better", "worse", "two of five seeds", "two of six"],
)
def test_a_verdict_takes_six_equal_signs_for_any_number_of_comparisons(n, shifts, words):
    seeds = [0.5 + 0.001 * i**2 for i in range(n)]
    scores = {model: [acc + shift for acc in seeds] for model, shift in shifts.items()}
    summary = by_model(paired_rows({A: seeds} | scores))
    assert summary.loc[[*shifts], "verdict"].tolist() == words
    assert summary.loc[[*shifts], "p_value"].tolist() == [2 / 2**n] * len(shifts)
    assert summary.loc[[*shifts], "p_adjusted"].tolist() == [2 / 2**n] * len(shifts)


UNCOMPARED = {
    "the baseline itself": (paired_rows({A: [0.7, 0.8], B: [0.8, 0.9]}), A, A, "baseline"),
    "no common seed": ([run_row(A, 0, 0.5), run_row(B, 1, 0.7)], B, A, ""),
    "no finished baseline": ([run_row(A, status="failed"), run_row(B)], B, A, ""),
    "no baseline": ([run_row("net_free"), run_row(B)], "net_free", "", ""),
}


@pytest.mark.parametrize(
    ("rows", "model", "baseline", "verdict"), UNCOMPARED.values(), ids=UNCOMPARED
)
def test_what_cannot_be_compared_has_no_delta(rows, model, baseline, verdict):
    row = by_model(rows).loc[model]
    assert all_missing(row, DELTA)
    assert (row["baseline"], row["verdict"]) == (baseline, verdict)


@pytest.mark.parametrize(("status", "failed"), [("failed", 1), ("diverged", 1), ("unfinished", 0)])
def test_a_run_that_is_not_done_is_never_averaged(status, failed):
    rows = paired_rows({A: [0.7, 0.9]})
    # Its score is there to be picked up by mistake.
    rows += [run_row(A, 2) | {"status": status, "test_acc": 0.0}]
    row = by_model(rows).loc[A]
    assert (row["n"], row["seeds"], row["failed"]) == (2, "0 1", failed)
    assert row["test_acc_mean"] == pytest.approx(0.8)


@pytest.mark.parametrize("baseline", ["done", "failed"])
def test_a_variant_without_a_done_run_keeps_its_row(baseline):
    rows = [run_row(A, status=baseline), run_row(B, status="failed")]
    row = by_model([*rows, run_row(B, 1, status="diverged")]).loc[B]
    assert (row["n"], row["seeds"], row["failed"]) == (0, "", 2)
    assert all_missing(row, [*SCORES, *DELTA])
    assert not row["on_pareto_front"]
    assert row["macs"] == 5_000_000


@pytest.mark.parametrize("other", [{"dataset": "mnist"}, {"img_size": 16}, {"epochs": 30}], ids=str)
def test_data_sets_sizes_and_lengths_are_never_mixed(other):
    rows = paired_rows({A: [0.5, 0.5], B: [0.6, 0.6]})
    rows += paired_rows({A: [0.9, 0.9], B: [0.7, 0.7]}, **other)
    summary = summarise(rows)
    assert summary["model"].tolist() == [A, B, A, B]
    assert summary["n"].tolist() == [2, 2, 2, 2]
    assert summary["test_acc_mean"].tolist() == pytest.approx([0.5, 0.6, 0.9, 0.7])
    assert summary["delta"].tolist()[1::2] == pytest.approx([0.1, -0.2])
    # B is worth its MACs in the first table and beaten in the second.
    assert summary["on_pareto_front"].tolist() == [True, True, True, False]
    (column,) = other
    assert summary[column].tolist()[2:] == [other[column]] * 2
    lines = [line for line in shown(rows).splitlines() if "| A " in line]
    assert len(lines) == len(set(lines)) == 2


def test_two_recipes_of_one_variant_are_never_mixed():
    rows = [run_row(A, 0, 0.5, run_id=f"{A}__digits__00000000__s0")]
    rows += [run_row(A, 0, 0.9, run_id=f"{A}__digits__11111111__s0")]
    summary = summarise(rows)
    assert summary["n"].tolist() == [1, 1]
    assert sorted(summary["test_acc_mean"]) == [0.5, 0.9]


def test_the_front_is_of_the_means():
    summary = by_model(paired_rows({A: [0.5, 0.7], B: [0.5, 0.6], D: [0.9, 0.5], D_PRE: [0.8] * 2}))
    assert summary["on_pareto_front"].to_dict() == {A: True, B: False, D: False, D_PRE: True}


def test_the_probability_of_the_front_is_that_of_the_drawn_seeds():
    # A is on every front, being the cheapest; B beats it where most draws are of seeds 2 to 5.
    scores = {A: [0.8] * 6, B: [0.7] * 2 + [0.9] * 4, D: [0.1] * 6}
    summary = by_model(paired_rows(scores))
    assert summary["front_probability"][[A, D]].tolist() == [1, 0]
    # means of six draws: 0.7 + 0.2 k / 6 with k ~ Binomial(6, 2/3); above 0.8 for k > 3
    assert summary["front_probability"][B] == pytest.approx(binom.sf(3, 6, 2 / 3), abs=0.03)
    five = {model: own[:5] for model, own in scores.items()}
    assert by_model(paired_rows(five))["front_probability"].isna().all()


RANKS = {
    "one seed more says nothing": ({A: 4, B: 3, D: 3}, [A, B, D], 3),
    "a lost run takes its seed away": ({A: 9, B: 9, D: 8, D_PRE: 9}, [A, B, D, D_PRE], 8),
    "who lost most runs is not ranked": ({A: 4, B: 4, D: 1}, [A, B], 4),
    "of equal parts the one of more seeds": ({A: 9, B: 9, D: 3}, [A, B], 9),
    "one variant alone is no rank": ({A: 4, B: 0}, [], 0),
}


@pytest.mark.parametrize(("seeds", "ranked", "n"), RANKS.values(), ids=RANKS)
def test_variants_are_ranked_over_common_seeds(seeds, ranked, n):
    scores = {model: [0.5 + 0.01 * i for i in range(own)] for model, own in seeds.items()}
    lost = [run_row(model, 20, status="failed") for model, own in seeds.items() if not own]
    summary = by_model([*paired_rows(scores), *lost])
    common = summary["test_acc_common"].dropna()
    assert common.index.tolist() == ranked
    assert common.tolist() == pytest.approx([0.5 + 0.005 * (n - 1)] * len(ranked))
    # All are equal, so the cheapest alone is on the front.
    assert summary.index[summary["on_pareto_front"].astype(bool)].tolist() == ranked[:1]


def test_what_a_point_costs_is_counted_where_it_costs_more():
    summary = by_model(paired_rows({A: [0.8, 0.8], B: [0.81, 0.81]}))
    # one point for 25 % more MACs
    assert summary["points_per_percent_macs"][B] == pytest.approx(1 / 25)
    cheaper = by_model(paired_rows({A: [0.8], B: [0.9]}), {A: B, B: B})
    assert cheaper["points_per_percent_macs"].isna().all()


def test_the_paper_is_shown_beside_the_same_change_and_no_other():
    rows = paired_rows({A: [0.8], B: [0.9], D: [0.9], D_PRE: [0.9]}, family="imagenet")
    summary = by_model(rows)
    assert summary["paper_delta"][B] == pytest.approx((76.66 - 76.21) / 100)
    assert summary["paper_delta"][D] == pytest.approx((77.16 - 76.21) / 100)
    assert summary["paper"][D] == "ResNet-50, ImageNet, arXiv:1812.01187 table 5"
    assert math.isnan(summary["paper_delta"][D_PRE])  # two changes at once
    assert summary["paper"][[A, D_PRE]].tolist() == ["", ""]
    small = by_model([row | {"family": "cifar"} for row in rows])
    assert small["paper"][B] and not small["paper"][D]  # theirs is deep in place of a 7x7


@pytest.mark.parametrize(
    ("dataset", "family", "block", "depth", "paper"),
    [
        ("digits", "cifar", "bottleneck", 29, "ResNet-164, CIFAR-10"),
        ("digits", "cifar", "basic", 26, "ResNet-32, CIFAR-10"),
        ("digits", "cifar", "basic", 80, "ResNet-110, CIFAR-10"),
        ("cifar100", "cifar", "basic", 110, "ResNet-164, CIFAR-100"),
        ("folder-cifar100-jpeg", "cifar", "basic", 110, "ResNet-164, CIFAR-100"),
        ("cifar1000", "cifar", "basic", 110, "ResNet-110, CIFAR-10"),
        ("imagenet", "imagenet", "bottleneck", 152, "ResNet-152, ImageNet"),
        ("tiny-imagenet", "cifar", "basic", 110, "ResNet-110, CIFAR-10"),
        ("imagenette", "cifar", "basic", 110, "ResNet-110, CIFAR-10"),
    ],
)
def test_the_paper_is_the_one_nearest_by_data_family_block_and_depth(
    dataset, family, block, depth, paper
):
    base = variant_columns(A) | {"preset": "", "dataset": dataset, "family": family}
    base |= {"block": block, "depth": depth}
    assert paper_effect(base | {"order": "preact"}, base)[1].startswith(f"{paper}, ")


@pytest.mark.parametrize(
    ("own", "base", "points", "where"),
    [
        ({"skip": "scale_both"}, {}, -5.74, "ResNet-110, CIFAR-10, arXiv:1603.05027 table 1"),
        ({"skip": "scale"}, {}, None, None),  # it failed: there is no accuracy
        ({"attention": "se"}, {}, 1.19, "ResNet-50, CIFAR-100, github.com/weiaicunzai"),
        ({"cardinality": 32, "base_width": 4}, {"base_width": 64}, 1.35, "ResNet-50, ImageNet"),
        ({"depth": 110}, {}, 0.54, "ResNet, CIFAR-10, arXiv:1512.03385 table 6 (zero-padded"),
        ({"depth": 110, "order": "preact"}, {}, None, None),
        ({"schedule": "cosine"}, {"schedule": "step"}, 0.75, "table 6 (D)"),
        ({"mixup": "0.2"}, {"mixup": "0.0"}, 0.84, "table 6 (D with cosine"),
        ({"mixup": "0.5"}, {"mixup": "0.0"}, 0.6, "CIFAR-10, github.com/dmlc/gluon-cv"),
        ({"mixup": "0.0"}, {"mixup": "0.2"}, -0.84, "table 6 (D with cosine"),
        ({"label_smoothing": "0.2"}, {"label_smoothing": "0.0"}, 1.3, "arXiv:2103.07579 table 1"),
        ({"mixup": "0.2", "order": "preact"}, {"mixup": "0.0"}, None, None),  # two changes
        ({"lr": "0.2"}, {"lr": "0.1"}, None, None),  # nobody's
    ],
)
def test_a_published_difference_in_any_axis_or_setting_is_found(own, base, points, where):
    settings = [name for name in base if name not in AXES]
    common = variant_columns(B) | {"dataset": "digits", "preset": "", "depth": 56, **base}
    common |= {"block": "basic", "stem": "conv3", "shortcut": "pad", "family": "cifar"}
    effect = paper_effect(common | own, common, settings)
    assert (effect is None) == (points is None)
    if effect is not None:
        assert 100 * effect[0] == pytest.approx(points)
        assert where in effect[1]


def test_every_published_row_can_be_compared_with_another_of_its_place():
    settings = {setting.name for setting in dataclasses.fields(Recipe)}
    rows = published()
    assert len({tuple(row.values()) for row in rows}) == len(rows) > 200
    axes = {*AXES, *settings, "preset", "groups"}
    for row in rows:
        assert row["axis"] in axes and 0 < float(row["top1_acc"]) < 100
        axis = AXES.get(row["axis"])
        if axis is not None and axis.choices is not None:
            assert row["level"] in axis.choices
        rest = dict(part.split("=") for part in row["rest"].split())
        assert all(set(rest[name].split("|")) <= {*AXES[name].choices} for name in rest)
        alike = [
            other for other in rows if all(other[name] == row[name] for name in (*PLACE, "axis"))
        ]
        assert len(alike) == len({other["level"] for other in alike}) > 1


def test_speed_is_the_median_of_the_runs_and_time_that_of_the_fastest_finished_one():
    speeds = (100.0, 500.0, 200.0)
    rows = [run_row(A, seed, images_per_second=speed) for seed, speed in enumerate(speeds)]
    assert by_model(rows).loc[A, "images_per_second"] == 200
    rows += [run_row(A, 3, status="diverged") | {"images_per_second": 9000.0}]
    assert by_model(rows).loc[A, "train_ms_per_image"] == 2


# --- markdown ---------------------------------------------------------------------------------


def cells(text):
    """The rows of a Markdown table by its headers."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_markdown_is_in_percent_with_intervals_where_there_are_and_millions():
    row = summary_row(B, mean=0.9, half=0.0123) | {"verdict": "better", "on_pareto_front": True}
    row |= {"delta": 0.02, "delta_ci_low": -0.0012, "delta_ci_high": 0.0412}
    summary = named_summary([summarised(row, summary_row(A, n=1) | {"delta": -0.005})])
    several, single = cells(markdown(summary_cells(summary, MARKDOWN)))
    assert several["arm"] == "B"
    assert several["test accuracy % [95 %]"] == "90.00 [88.77, 91.23]"
    assert several["delta, points [95 %]"] == "+2.00 [-0.12, +4.12]"
    assert (several["params"], several["MACs (M)"]) == ("70,000", "5.000")
    assert (several["verdict"], several["front"], several["n"]) == ("better", "*", "3")
    assert single["test accuracy % [95 %]"] == "90.00"
    assert single["delta, points [95 %]"] == "-0.50"


def test_markdown_leaves_what_is_missing_empty():
    text = shown(
        [run_row(A, 0, 0.7), run_row(B, 0, status="failed"), run_row(D, 0, status="unfinished")]
    )
    assert "nan" not in text.lower()
    assert "none" not in text.lower()
    rows = cells(text)
    assert [row["n"] for row in rows] == ["1", "0", "0"]
    assert rows[1]["test accuracy % [95 %]"] == rows[1]["delta, points [95 %]"] == ""
    assert rows[1]["failed"] == "1"


def test_markdown_escapes_tags_and_no_numbers():
    text = markdown(pd.DataFrame({"x": ["<b>", "<0.001", "3 (<0.1)", "</p>"]}))
    assert "&lt;b>" in text and "&lt;/p>" in text
    assert "<0.001" in text and "3 (<0.1)" in text
    assert markdown(pd.DataFrame({"a|b <x>": [1]})).startswith(r"| a\|b &lt;x>")


# --- LaTeX ------------------------------------------------------------------------------------


def test_latex_has_caption_label_and_what_it_needs():
    text = summary_latex([compared()], "my experiment")
    assert text.startswith(r"% Needs \usepackage{booktabs}")
    assert r"\label{tab:my-experiment}" in text
    assert r"\caption{Test accuracy on digits at 8 px" in text
    assert r"\end{tabular}" in text and r"\end{table}" in text


def test_latex_leaves_out_what_does_not_vary():
    header = re.search(r"\\toprule\n(.*?) \\\\", summary_latex([compared()], "x")).group(1)
    assert header == r"Arm & MACs & Accuracy (\%) & $\Delta$ (points)"


@pytest.mark.parametrize(
    ("best", "bold"), [([0.95, 0.99, 0.985], r"\textbf{97.50} $\pm$"), ([0.91, 0.8, 0.99], "")]
)
def test_latex_has_in_bold_what_no_other_is_tied_with(best, bold):
    text = summary_latex([compared(ACCURACIES | {D_PRE: best})], "x")
    assert text.count(r"\textbf") == bool(bold)
    assert bold in text
    assert ("Bold:" in text) == bool(bold)
