"""The answer in words, and the formats of the tables."""

import re

import pandas as pd
import pytest
from factories import D_PRE, A, B, D, paired_rows, run_row, runs_frame

from resnet_variants.analysis.effects import effects
from resnet_variants.analysis.tables import summarise
from resnet_variants.reporting.findings import answer, notes
from resnet_variants.reporting.text import latex, readable, summary_markdown

BASELINES = {A: A, B: A, D: A, D_PRE: A}
NINE = [0.5 + 0.01 * i for i in range(9)]


def said_of(scores, baselines=BASELINES, lost=()):
    runs = runs_frame([*paired_rows(scores), *lost])
    return answer(summarise(runs, baselines), effects(runs, baselines))


def summary_of(scores, baselines=BASELINES, **changes):
    return summarise(runs_frame(paired_rows(scores, **changes)), baselines)


def test_the_answer_names_what_is_better_and_what_it_costs():
    better = [acc + 0.02 + 0.0001 * i for i, acc in enumerate(NINE)]
    same = [acc + 0.001 * (-1) ** (i + 1) for i, acc in enumerate(NINE)]
    said = said_of({A: NINE, B: same, D: better})
    assert len(said) == 3
    assert said[0].startswith("Of 2 variants compared with net_a over 9 paired seeds: 1 better (")
    assert "net_d by +2.04 [+2.02, +2.06] points), 1 inconclusive." in said[0]
    assert said[1] == (
        "Averaged over the grid: preset D - A, better (+2.04 [+2.02, +2.06] points); "
        "1 effect inconclusive."
    )
    assert said[2].startswith(
        "The best mean over common seeds, 56.04 %, is that of net_d, at 1.50 times the "
    )
    assert said[2].endswith("the Pareto front of accuracy against MACs is net_a, net_d.")


def test_a_mean_over_fewer_seeds_is_not_ranked():
    said = said_of({A: NINE, B: NINE, D: [0.9]})[-1]
    assert said.startswith("The best mean over common seeds, 54.00 %, is that of net_a, net_b; ")
    assert said.endswith("is net_a (1 with too few seeds not ranked).")


def test_runs_that_are_in_no_mean_are_named():
    better = [acc + 0.02 + 0.0001 * i for i, acc in enumerate(NINE)]
    lost = [run_row(B, 9 + i, status=("failed", "diverged")[i % 2]) for i in range(6)]
    said = said_of({A: NINE, B: better}, lost=lost)
    assert said[-1] == "Failed or diverged, and in no mean: net_b (6 of 15)."
    assert not any("no mean" in sentence for sentence in said_of({A: NINE, B: better}))


def test_too_few_seeds_are_said_to_be_too_few():
    said = said_of({A: [0.5, 0.6, 0.7], B: [0.6, 0.7, 0.8]})
    assert said[0] == (
        "Too few seeds for a verdict: 1 variant compared with net_a take 6 pairs of seeds each, "
        "and there are 3."
    )


def test_one_variant_alone_cannot_be_compared():
    assert said_of({A: NINE}) == ("Only net_a has finished: nothing to compare.",)
    apart = runs_frame([run_row(A, 0), run_row(B, 1)])
    (said,) = answer(summarise(apart, BASELINES), effects(apart, BASELINES))
    assert said == "No variant shares a finished seed with a baseline, so none can be compared."


def test_without_a_finished_run_there_is_nothing_to_say():
    said = said_of({}, lost=[run_row(A, status="failed")])
    assert said[0] == "No run has finished, so there is nothing to compare yet."


def test_each_group_has_its_own_answer():
    rows = [
        row
        for dataset in ("digits", "mnist")
        for row in paired_rows({A: [0.8], B: [0.9]}, dataset=dataset)
    ]
    runs = runs_frame(rows)
    said = answer(summarise(runs, BASELINES), effects(runs, BASELINES))
    assert [sentence.split(":")[0] for sentence in said if sentence.startswith("On ")] == [
        "On dataset digits",
        "On dataset mnist",
    ]


def test_the_notes_say_what_pairing_saved_and_what_was_not_clean():
    summary = summary_of({A: [0.1, 0.2], B: [0.2, 0.3]})
    found = {"git commit": ["abc with changes"], "device": ["this", "that"]}
    additive = pd.DataFrame({"model": ["crossed", "additive"]})
    said = " ".join(notes(summary, additive, 3.456, found))
    assert "would take 3.46 times as many runs (1 x 2 pairs)." in said
    little = " ".join(notes(summary, additive, 1.1, found))
    assert "1.10 times as many runs (1 x 2 pairs): here the seeds have little in common." in little
    for words in ("uncommitted changes", "several devices", "add up", "A paper's difference"):
        assert words in said
    plain = " ".join(notes(summary_of({A: [0.1]}), additive[:1], float("nan"), {}))
    for words in ("Pairing:", "uncommitted", "devices", "add up", "paper"):
        assert words not in plain


def test_the_notes_say_what_another_test_set_would_do():
    rows = paired_rows({A: [0.9, 0.9], B: [0.95, 0.95]}, n_test=900)
    summary = summarise(runs_frame(rows), BASELINES)
    said = " ".join(notes(summary, effects(runs_frame(rows), BASELINES), float("nan"), {}))
    # 1.96 sqrt(0.9 x 0.1 / 900)
    assert "900 test images of digits" in said and "by up to 1.96 points" in said
    assert "test images" not in " ".join(
        notes(summary_of({A: [0.9]}), effects(runs_frame([]), {}), 2.0, {})
    )


def test_latex_is_a_booktabs_table_with_the_best_in_bold():
    text = latex(summary_of({A: [0.5, 0.6, 0.7], B: [0.7, 0.8, 0.9]}))
    assert text.startswith("\\begin{tabular}{lrrrllrl")
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert text.count(rule) == 1
    (bold,) = (line for line in text.splitlines() if "\\textbf" in line)
    assert bold.startswith("\\texttt{net\\_b} & ")
    assert "\\textbf{80.00 [55.16, 100.00]}" in bold
    assert "& 0.250 &" in bold  # p: all three signs alike, of eight patterns two
    assert "+0.45" in bold  # the paper's


def test_latex_prints_in_bold_only_what_is_ranked():
    text = latex(summary_of({A: [0.5, 0.6, 0.7], B: [0.7, 0.8, 0.9], D: [0.99]}))
    (bold,) = (line for line in text.splitlines() if "\\textbf" in line)
    assert "net\\_b" in bold


def test_equal_means_are_both_in_bold_and_on_the_front():
    same = {A: [0.1, 0.2, 0.7], B: [0.7, 0.1, 0.2]}  # other last bits
    summary = summary_of(same)
    assert latex(summary).count("\\textbf") == 2
    assert summary["on_pareto_front"].tolist() == [True, False]


LATEX = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
}


@pytest.mark.parametrize("name", ["a_b%&$#{}~^\\c", "<script>"])
def test_latex_prints_any_name_as_it_is(name):
    rows = [run_row(A) | {"model": name}]
    text = latex(summarise(runs_frame(rows), {}))
    (cell,) = re.findall(r"\\texttt\{(.*?)\} &", text)
    spelt = cell
    for word, letter in LATEX.items():
        spelt = spelt.replace(word, letter)
    assert re.sub(r"\\([_%&$#{}])", r"\1", spelt) == name
    assert "\n" not in text.split("\\midrule")[1].split("\\bottomrule")[0].strip()


def test_markdown_shows_any_name_as_it_is():
    text = summary_markdown(summarise(runs_frame([run_row(A) | {"model": "a|b<script>"}]), {}))
    assert r"a\|b&lt;script>" in text


def test_axes_that_vary_have_a_column():
    rows = [run_row(A), run_row(B) | {"attention": "se"}]
    assert "attention" in readable(summarise(runs_frame(rows), {}))
    assert "antialias" not in readable(summarise(runs_frame(rows), {}))
