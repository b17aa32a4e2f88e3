"""Verdicts: joint flips against their enumeration, looks, the margin, and what was missed."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.statistics import sign_flip_p, step_down_p
from resnet_variants.analysis.verdicts import (
    JUDGED,
    Plan,
    _looks,
    detectable,
    equality_p,
    judge,
    level,
    pairs_for,
    two_sided_p,
)

RESULTS = Path(__file__).parents[1] / "results"


def table(*columns):
    return pd.DataFrame(np.array(columns, float).T)


def words(*columns, **plan):
    return judge(table(*columns), Plan(**plan))["verdict"].tolist()


# --- joint sign flips -------------------------------------------------------------------------


def enumerated(differences, shift=0.0):
    """Step-down p by all patterns, column by column; with a shift, of one side."""
    known = np.nan_to_num(differences + shift)
    scale = np.isfinite(differences).sum(axis=0) ** 0.5
    side = abs if not shift else float
    seen = [side(own.sum() / n) for own, n in zip(known.T, scale, strict=True)]
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    adjusted = []
    for limit in seen:
        rest = [at for at, other in enumerate(seen) if other <= limit + 1e-12]
        sums = [
            max(side(np.dot(signs, known[:, at]) / scale[at]) for at in rest) for signs in patterns
        ]
        adjusted.append(np.mean([total >= limit - 1e-12 for total in sums]))
    return [max(p for p, other in zip(adjusted, seen, strict=True) if other >= s) for s in seen]


@pytest.mark.parametrize("seed", range(4))
def test_the_adjusted_p_counts_every_pattern_of_the_whole_table(seed):
    draw = np.random.default_rng(seed)
    differences = draw.normal([0.0, 0.3, 1.0, 0.1], 0.5, (7, 4)) - draw.normal(0, 0.5, (7, 1))
    differences[6, 1] = np.nan
    assert two_sided_p(differences) == pytest.approx(enumerated(differences))


@pytest.mark.parametrize("side", [np.abs, np.positive])
@pytest.mark.parametrize("rows", [10, 40])  # all patterns, some that are drawn
def test_p_is_exact_up_to_alpha(rows, side):
    scores = np.random.default_rng(0).normal([0.0, 0.2, 0.1], 1.0, (rows, 3))
    exact = step_down_p(scores, side)
    for alpha in (exact.min(), np.median(exact), 1.0):
        assert np.array_equal(step_down_p(scores, side, alpha=alpha), exact)
    beyond = step_down_p(scores, side, alpha=exact.min() / 4)
    assert (beyond > exact.min() / 4).all()
    assert np.array_equal(beyond, exact) == (rows == 10)  # few patterns are one part


def test_six_seeds_reach_the_level_in_a_table_of_any_size():
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.1, (6, 30))
    noise[:, 0] = 1 + 0.1 * noise[:, 0]
    assert two_sided_p(noise)[0] == 2 / 2**6 == level(6, 6)


def test_the_committed_flagship_has_the_published_verdicts():
    (whole,) = load_results([RESULTS / "bag_of_tricks"]).comparisons

    def judged(seeds, planned):
        runs = whole.runs[whole.runs["seed"] < seeds]
        part = dataclasses.replace(whole, runs=runs, plan=Plan(planned))
        rows = part.summary.set_index(part.summary["model"].str.removeprefix("rv_resnet29_cifar_"))
        return rows.loc[rows["verdict"].isin(["better", "worse"]), ["delta", "p_adjusted"]]

    assert judged(6, 6)["p_adjusted"].to_dict() == pytest.approx(
        dict.fromkeys(("b_preact", "c", "d_preact"), 2 / 2**6)
    )
    nine = judged(9, 9)
    assert nine["delta"].round(4).to_dict() == {
        **{"a_preact": 0.0169, "b_preact": 0.0192, "c": -0.0228, "d_preact": 0.0268}
    }
    assert nine["p_adjusted"].tolist() == pytest.approx([4 / 256, 2 / 256, 2 / 256, 1 / 256])
    # Had six been planned, the further seeds would have been further looks.
    assert judged(9, 6).index.tolist() == ["b_preact", "c", "d_preact"]


# --- looks ------------------------------------------------------------------------------------


def test_each_number_of_seeds_has_a_lower_level_than_the_one_before():
    levels = [level(n, 9) for n in range(9, 40)]
    assert levels[0] == level(5, 9) == level(9, 9) == 2 / 2**6 * (6 / 9) ** 0.5
    assert all(later < earlier for earlier, later in itertools.pairwise(levels))


def test_there_is_no_verdict_before_the_planned_number_of_seeds():
    column = 1 + 0.1 * np.arange(8.0)
    assert words(column, seeds=9) == ["undecided"]
    assert words(np.append(column, 1.0), seeds=9) == ["better"]
    found = judge(table(column), Plan(seeds=9)).loc[0]
    assert (found["p_adjusted"], math.isnan(found["detectable"])) == (2 / 2**8, True)
    assert found["more_seeds"] == 1


def test_looks_do_not_depend_on_how_many_seeds_there_are():
    for planned in (6, 33, 50):
        for seeds in range(1, 90):
            looks = _looks(seeds, Plan(planned))
            assert looks == [n for n in _looks(200, Plan(planned)) if n <= seeds]
            assert (planned in looks) == (seeds >= planned)


def test_a_clear_difference_is_seen_with_any_number_of_seeds():
    rest = np.random.default_rng(0).normal(0.01, 0.002, 340)
    assert words(np.r_[np.tile([0.01, -0.01], 30), rest]) == ["better"]


def test_an_infinite_difference_is_no_pair():
    found = judge(table([1.0, 2, 3, 4, 5, np.inf], [0.1, 0.2] * 3), Plan())
    assert found["verdict"].tolist() == ["undecided", "better"]
    assert np.isfinite(found["p_adjusted"]).all()


def test_equal_scores_foresee_nothing():
    found = judge(table([0.0] * 6), Plan()).loc[0]
    assert (found["verdict"], math.isnan(found["detectable"])) == ("undecided", True)


def test_a_verdict_that_was_reached_stays_unless_the_sign_turns():
    column = np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0])
    later = np.append(column, [-1.0, -1.5, 0.5])
    assert two_sided_p(later[:, None])[0] > level(9, 6)
    assert words(later) == ["better"]
    assert words(np.append(column, [-9.0] * 3)) == ["undecided"]


def test_what_is_decided_leaves_the_others_more_room():
    draw = np.random.default_rng(3)
    large = draw.normal(9, 0.1, 9)
    small = np.array([1.0, 1.2, 0.8, 1.1, 0.9, 1.0, 1.3, 0.7, -2.0])
    both = np.array([large, small]).T
    assert two_sided_p(both)[1] == pytest.approx(two_sided_p(small[:, None])[0])


@pytest.mark.parametrize("comparisons", [1, 5])
def test_looking_after_each_seed_seldom_makes_a_false_verdict(comparisons):
    draw = np.random.default_rng(comparisons)
    false = 0
    for _ in range(200):
        scores = draw.normal(0, 1, (12, comparisons + 1))
        judged = judge(pd.DataFrame(scores[:, 1:] - scores[:, :1]), Plan())
        false += judged["verdict"].isin(["better", "worse"]).any()
    assert false / 200 <= 0.08  # 5 %, and what 200 tables may differ from it


# --- the margin -------------------------------------------------------------------------------

FLAT = np.array([0.0, 0.02, -0.02, 0.01, -0.01, 0.03]) / 100


@pytest.mark.parametrize(
    ("column", "margin", "word"),
    [
        (FLAT, 0.2, "equal"),
        (FLAT, 0.0, "undecided"),
        (FLAT, 0.02, "undecided"),
        (FLAT + 0.0015, 0.2, "better (below the margin)"),
        (FLAT - 0.0015, 0.2, "worse (below the margin)"),
        (FLAT + 0.01, 0.2, "better"),
        (0.0015 + 4 * FLAT, 0.2, "better"),  # it may be larger than the margin
        (30 * FLAT, 0.2, "undecided"),
        (FLAT[:5], 0.2, "undecided"),
        ([np.nan] * 6, 0.2, ""),
    ],
)
def test_the_verdict_in_words(column, margin, word):
    assert words(column, margin=margin) == [word]


def test_a_large_difference_does_not_hide_that_another_is_equal():
    assert words(FLAT, FLAT + 0.3, margin=0.2) == ["equal", "better"]


def test_equality_takes_both_one_sided_tests():
    column = FLAT + 0.0018
    alone = [enumerated(sign * column[:, None], shift=0.002)[0] for sign in (1, -1)]
    assert equality_p(column[:, None], margin=0.002)[0] >= max(alone)
    assert equality_p(FLAT[:, None], margin=0.002)[0] == 1 / 2**6


def test_equal_is_seldom_said_of_a_difference_of_the_margin():
    draw = np.random.default_rng(7)
    false = 0
    for _ in range(300):
        columns = pd.DataFrame(draw.normal(0.002, 0.002, (9, 3)))
        false += (judge(columns, Plan(margin=0.2))["verdict"] == "equal").any()
    assert false / 300 <= 0.08


# --- what was missed --------------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "planned"), [(6, 6), (9, 6), (9, 9), (15, 12)])
def test_the_detectable_difference_gets_a_verdict_in_most_cases(pairs, planned):
    difference = detectable(2.0, pairs, Plan(planned))
    drawn = np.random.default_rng(0).normal(difference, 2.0, (400, pairs))
    limit = level(pairs, planned) + 1e-12
    found = np.mean([two_sided_p(own[:, None])[0] <= limit for own in drawn])
    assert 0.74 < found < 0.88


def test_fewer_pairs_than_a_verdict_takes_detect_nothing():
    assert math.isnan(detectable(1.0, 5, Plan()))
    assert math.isnan(detectable(1.0, 8, Plan(9)))


def test_an_undecided_row_says_what_a_verdict_would_take():
    column = np.array([3.0, -1.0, 2.0, -2.0, 1.0, 2.0])
    found = judge(table(column), Plan()).loc[0]
    assert tuple(found.index) == JUDGED
    assert found["detectable"] == pytest.approx(detectable(np.std(column, ddof=1), 6, Plan()))
    seen, sd = column.mean(), np.std(column, ddof=1)
    assert found["more_seeds"] == pairs_for(seen, sd, 6, Plan(), sign_flip_p(column)) - 6


@pytest.mark.parametrize("difference", [pytest.param(0.8, marks=pytest.mark.slow), 1.0])
def test_a_verdict_comes_as_likely_as_not_by_the_foreseen_number_of_seeds(difference):
    decided = []
    for column in np.random.default_rng(4).normal(difference, 1.0, (150, 60)):
        first = column[:6]
        if words(first) == ["undecided"]:
            foreseen = pairs_for(difference, 1.0, 6, Plan(), sign_flip_p(first))
            decided += words(column[: int(foreseen)])
    assert 0.4 < decided.count("better") / len(decided) < 0.6


def test_no_further_pair_more_than_halves_p():
    column = np.array([3.0, -1.0, 2.0, -2.0, 1.0, 2.0])
    p = sign_flip_p(column)
    assert sign_flip_p(np.append(column, 100.0)) == p / 2
    foreseen = pairs_for(100.0, 1.0, 6, Plan(), p)
    assert p / 2 ** (foreseen - 6) <= level(int(foreseen), 6) < p / 2 ** (foreseen - 7)


def test_no_number_of_seeds_shows_what_is_not_there():
    assert math.isinf(pairs_for(0.0, 1.0, 6, Plan()))
    assert math.isnan(judge(table([1.0, -1.0] * 3), Plan()).loc[0, "more_seeds"])


def test_a_difference_must_stand_out_of_noisier_ones_that_are_undecided():
    quiet = np.array([0.5, -0.2, 0.6, -0.1, 0.4, 0.5])
    alone = judge(table(quiet), Plan()).loc[0]
    beside = judge(table(quiet, 2 * quiet[::-1] - 0.5), Plan()).loc[0]
    ratio = ((1 + 2**8) / 2) ** (1 / 8)
    assert beside["detectable"] == pytest.approx(ratio * alone["detectable"])
    assert beside["more_seeds"] > alone["more_seeds"]
