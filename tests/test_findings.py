"""The answer in words, and the formats of the tables."""

import pytest
from factories import D_PRE, A, B, D, paired_rows, run_row, runs_frame

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.reporting.findings import answer, notes
from resnet_variants.reporting.names import named_summary
from resnet_variants.reporting.summary import (
    MARKDOWN,
    summary_cells,
    summary_latex,
)
from resnet_variants.reporting.text import markdown

BASELINES = {A: A, B: A, D: A, D_PRE: A}
NINE = [0.5 + 0.01 * i for i in range(9)]


def said_of(scores, lost=()):
    return answer(parts_of([*paired_rows(scores), *lost]))


def parts_of(rows, baselines=BASELINES):
    return comparisons(runs_frame(rows), baselines)


def test_the_answer_names_what_is_better_and_what_it_costs():
    better = [acc + 0.02 + 0.0001 * i for i, acc in enumerate(NINE)]
    same = [acc + 0.001 * (-1) ** (i + 1) for i, acc in enumerate(NINE)]
    said = said_of({A: NINE, B: same, D: better})
    assert len(said) == 3
    assert said[0].startswith("Of 2 variants compared with A over 9 paired seeds: 1 better (")
    assert "D by +2.04 [+2.02, +2.06] points), 1 undecided. Of the undecided, " in said[0]
    assert "differences of 0.2 points would have shown in 80 % of cases" in said[0]
    assert said[1] == (
        "Effects of single choices: preset D - A, better (+2.04 [+2.02, +2.06] points); "
        "1 effect undecided."
    )
    assert said[2].startswith(
        "The best mean over common seeds, 56.04 %, is that of D, at 1.50 times the "
    )
    assert said[2].endswith("the Pareto front of accuracy against MACs is A, D.")


def test_a_mean_over_fewer_seeds_is_not_ranked():
    said = said_of({A: NINE, B: NINE, D: [0.9]})[-1]
    assert said.startswith("The best mean over common seeds, 54.00 %, is that of A, B; ")
    assert said.endswith("is A (1 with too few seeds not ranked).")


def test_runs_that_are_in_no_mean_are_named():
    better = [acc + 0.02 + 0.0001 * i for i, acc in enumerate(NINE)]
    lost = [run_row(B, 9 + i, status=("failed", "diverged")[i % 2]) for i in range(6)]
    said = said_of({A: NINE, B: better}, lost=lost)
    assert said[-1] == "Failed or diverged, and in no mean: B (6 of 15)."
    assert not any("no mean" in sentence for sentence in said_of({A: NINE, B: better}))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (paired_rows({A: NINE}), "Only net_a has finished: nothing to compare."),
        (
            [run_row(A, 0), run_row(B, 1)],
            "No variant shares a finished seed with a baseline, so none can be compared.",
        ),
        (
            [run_row(A, status="failed")],
            "No run has finished, so there is nothing to compare yet.",
        ),
        (
            paired_rows({A: [0.5, 0.6, 0.7], B: [0.6, 0.7, 0.8]}),
            "Too few seeds for a verdict: 1 variant compared with A take 6 pairs of seeds "
            "each, and there are 3.",
        ),
    ],
    ids=["one variant", "no common seed", "failed", "three seeds"],
)
def test_why_nothing_can_be_compared_is_said(rows, said):
    assert answer(parts_of(rows))[0] == said


def test_each_group_has_its_own_answer():
    rows = [
        row
        for dataset in ("digits", "mnist")
        for row in paired_rows({A: [0.8], B: [0.9]}, dataset=dataset)
    ]
    said = answer(parts_of(rows))
    assert [line.split(": ")[0] for line in said if "Too few" in line] == [
        "digits at 8 px",
        "mnist at 8 px",
    ]


# Of the product of three presets and two orders, two cells are missing.
MISSING = {A: [0.1, 0.2], B: [0.2, 0.3], D: [0.3, 0.1], D_PRE: [0.3, 0.2]}


def test_the_notes_say_what_was_not_clean():
    provenance = {"git commit": ["abc with changes"], "device": ["this", "that"]}
    said = " ".join(notes(parts_of(paired_rows(MISSING)), provenance))
    for words in ("uncommitted changes", "several devices", "add up", "A paper's difference"):
        assert words in said
    plain = " ".join(notes(parts_of(paired_rows({A: [0.1]})), {}))
    for words in ("Pairing:", "uncommitted", "devices", "add up", "paper"):
        assert words not in plain


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ([0.2, 0.3, 0.41], "would take 631.00 times as many runs (1 x 3 pairs)."),
        ([0.2, 0.1, 0.2], "1.00 times as many runs (1 x 3 pairs): here the seeds have little in"),
    ],
)
def test_the_notes_say_what_pairing_saved(scores, words):
    said = " ".join(notes(parts_of(paired_rows({A: [0.1, 0.2, 0.3], B: scores})), {}))
    assert words in said


def test_the_notes_say_what_another_test_set_would_do():
    rows = paired_rows({A: [0.9, 0.9], B: [0.95, 0.95]}, n_test=900)
    said = " ".join(notes(parts_of(rows), {}))
    # 1.96 sqrt(0.9 x 0.1 / 900)
    assert "900 test images of digits" in said and "by up to 1.96 points" in said
    assert "test images" not in " ".join(notes(parts_of(paired_rows({A: [0.9]})), {}))


@pytest.mark.parametrize(
    ("scores", "front"),
    [
        ({A: [0.5, 0.6, 0.7], B: [0.7, 0.8, 0.9], D: [0.99]}, [A, B]),  # D is not ranked
        ({A: [0.1, 0.2, 0.7], B: [0.7, 0.1, 0.2]}, [A]),  # equal but for the last bits
    ],
    ids=["one seed", "equal means"],
)
def test_the_front_is_of_what_is_ranked(scores, front):
    summary = parts_of(paired_rows(scores))[0].summary
    assert summary.loc[summary["on_pareto_front"], "model"].tolist() == front


def test_latex_prints_any_name_as_it_is():
    rows = [
        run_row(A),
        run_row(A) | {"order": r"a_b%&$#{}~^\<|>", "model": "b", "run_id": "b__digits__2__s0"},
    ]
    text = summary_latex(parts_of(rows, {}), "x")
    code = r"a\_b\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    code += r"\textless{}\textbar{}\textgreater{}"
    assert f"\n{code} & " in text


def test_markdown_shows_any_name_as_it_is():
    summary = named_summary(parts_of([run_row(A) | {"model": "a|b<script>"}]))
    text = markdown(summary_cells(summary, MARKDOWN))
    assert r"a\|b&lt;script>" in text


def test_axes_that_vary_have_a_column():
    rows = [run_row(A), run_row(B) | {"attention": "se"}]
    columns = summary_cells(named_summary(parts_of(rows)), MARKDOWN)
    assert "attention" in columns and "antialias" not in columns
