"""The answer in words, and the formats of the tables."""

import re

import pandas as pd
import pytest
from factories import D_PRE, A, B, D, paired_rows, run_row, runs_frame

from resnet_variants.analysis.findings import answer, notes
from resnet_variants.analysis.formats import latex, readable, summary_markdown
from resnet_variants.analysis.tables import summarise

BASELINES = {A: A, B: A, D: A, D_PRE: A}
NINE = [0.5 + 0.01 * i for i in range(9)]


def summary_of(scores, baselines=BASELINES, **changes):
    return summarise(runs_frame(paired_rows(scores, **changes)), baselines)


def test_the_answer_names_what_is_better_and_what_it_costs():
    better = [acc + 0.02 + 0.0001 * i for i, acc in enumerate(NINE)]
    same = [acc + 0.001 * (-1) ** (i + 1) for i, acc in enumerate(NINE)]
    said = answer(summary_of({A: NINE, B: same, D: better}))
    assert len(said) == 2
    assert said[0].startswith("Of 2 variants compared with net_a over 9 paired seeds: 1 better (")
    assert "net_d by +2.04 [+2.02, +2.06] points), 1 inconclusive." in said[0]
    assert said[1].startswith(
        "The best mean of 9 seeds, 56.04 %, is that of net_d, at 1.50 times the baseline's MACs; "
    )
    assert said[1].endswith("the Pareto front of accuracy against MACs is net_a, net_d.")


def test_a_mean_over_fewer_seeds_is_not_ranked():
    said = answer(summary_of({A: NINE, B: NINE, D: [0.9]}))
    assert said[1].startswith("The best mean of 9 seeds, 54.00 %, is that of net_a, net_b; ")
    assert said[1].endswith("is net_a (1 with fewer seeds not ranked).")


def test_too_few_seeds_are_said_to_be_too_few():
    said = answer(summary_of({A: [0.5, 0.6, 0.7], B: [0.6, 0.7, 0.8]}))
    assert said[0] == (
        "Too few seeds for a verdict: 1 variant compared with net_a take 6 pairs of seeds each, "
        "and there are 3."
    )


def test_one_variant_alone_cannot_be_compared():
    said = answer(summary_of({A: NINE}))
    assert said == ("No variant shares a finished seed with a baseline, so none can be compared.",)


def test_without_a_finished_run_there_is_nothing_to_say():
    summary = summarise(runs_frame([run_row(A, status="failed")]), BASELINES)
    assert answer(summary) == ("No run has finished, so there is nothing to compare yet.",)


def test_each_group_has_its_own_answer():
    rows = [
        row
        for dataset in ("digits", "mnist")
        for row in paired_rows({A: [0.8], B: [0.9]}, dataset=dataset)
    ]
    said = answer(summarise(runs_frame(rows), BASELINES))
    assert [sentence.split(":")[0] for sentence in said[::2]] == [
        "On dataset digits",
        "On dataset mnist",
    ]


def test_the_notes_say_what_pairing_saved_and_what_was_not_clean():
    summary = summary_of({A: [0.1, 0.2], B: [0.2, 0.3]})
    found = {"git commit": ["abc with changes"], "device": ["this", "that"]}
    additive = pd.DataFrame({"model": ["crossed", "additive"]})
    said = " ".join(notes(summary, additive, 3.456, found))
    assert "would take 3.46 times as many runs (1 x 2 pairs)" in said
    for words in ("uncommitted changes", "several devices", "add up", "A paper's difference"):
        assert words in said
    plain = " ".join(notes(summary_of({A: [0.1]}), additive[:1], float("nan"), {}))
    for words in ("Pairing:", "uncommitted", "devices", "add up", "paper"):
        assert words not in plain


def test_latex_is_a_booktabs_table_with_the_best_in_bold():
    text = latex(summary_of({A: [0.5, 0.6, 0.7], B: [0.7, 0.8, 0.9]}))
    assert text.startswith("\\begin{tabular}{lrrrlll")
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert text.count(rule) == 1
    (bold,) = (line for line in text.splitlines() if "\\textbf" in line)
    assert bold.startswith("\\texttt{net\\_b} & ")
    assert "\\textbf{80.00 [55.16, 100.00]}" in bold
    assert "+0.45" in bold  # the paper's


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
