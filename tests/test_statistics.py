"""Intervals, exact tests and fronts against independent computations."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from resnet_variants.analysis.statistics import (
    estimate,
    pareto_front,
    sign_flip_p,
    unadjusted_p,
)

scores = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(scores, min_size=2, max_size=12))
def test_an_estimate_is_the_student_interval(values):
    assume(np.std(values) > 1e-9)
    found = estimate(np.array(values))
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert found.sd == pytest.approx(stats.tstd(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("n", [3, 6, 10])
def test_intervals_hold_the_mean_of_normal_differences_as_often_as_they_say(n):
    draw = np.random.default_rng(n)
    found = [estimate(draw.normal(0.002, 0.003, n)) for _ in range(2000)]
    assert 0.93 <= np.mean([own.low <= 0.002 <= own.high for own in found]) <= 0.97


def exact_p(numerators):
    """Share of sign patterns whose sum is at least as far from 0, in whole numbers."""
    patterns = list(itertools.product((1, -1), repeat=len(numerators)))
    sums = [sum(s * k for s, k in zip(signs, numerators, strict=True)) for signs in patterns]
    return sum(abs(total) >= abs(sum(numerators)) for total in sums) / len(patterns)


# Each example is an enumeration of up to 256 patterns: few of them, and no deadline.
@settings(max_examples=25, deadline=None)
@example([(330, 331), (330, 332), (357, 355)])  # all patterns are at least as extreme
@given(st.lists(st.tuples(*[st.integers(330, 360)] * 2), min_size=2, max_size=8))
def test_the_sign_flip_p_counts_every_pattern_and_knows_ties_in_spite_of_rounding(hits):
    # Accuracies of 360 test images: their differences tie often, and never to the last bit.
    differences = np.array([a / 360 - b / 360 for a, b in hits])
    assert sign_flip_p(differences) == pytest.approx(exact_p([a - b for a, b in hits]))


@pytest.mark.parametrize("scale", [1e-9, 0.1, 1234.567, 1e9])
def test_sums_tie_at_any_scale(scale):
    differences = np.array([3.0, -1, 2, 2, -4, 1, 0, 5, -2, 1])
    assert sign_flip_p(scale * differences) == exact_p(differences.tolist())


def test_p_values_of_a_table_are_those_of_its_columns():
    rng = np.random.default_rng(0)
    table = rng.normal(0.5, 1, (20, 7))
    table[rng.random(table.shape) < 0.2] = np.nan
    table[0, 1], table[:, 5], table[1:, 6] = np.inf, np.nan, np.nan
    alone = [sign_flip_p(own[np.isfinite(own)]) for own in table.T]
    assert unadjusted_p(table) == pytest.approx(alone, nan_ok=True)
    assert np.isfinite(alone[:5]).all() and np.isnan(alone[5:]).all()


@pytest.mark.parametrize(("n", "smallest"), [(2, 0.5), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_the_smallest_p_that_n_pairs_reach(n, smallest):
    differences = np.linspace(0.01, 0.02, n)
    assert sign_flip_p(differences) == smallest
    assert sign_flip_p(-differences) == smallest


def test_many_pairs_are_sampled_the_same_way_each_time():
    differences = np.random.default_rng(0).normal(0.2, 1, 20)
    p = sign_flip_p(differences)
    assert p == sign_flip_p(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.03)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_a_point_is_on_the_front_unless_another_is_no_worse_and_differs(points):
    expected = [
        not any((c, v) != (cost, value) and c <= cost and v >= value for c, v in points)
        for cost, value in points
    ]
    cost, value = np.array(points, dtype=int).reshape(-1, 2).T
    assert pareto_front(cost, value).tolist() == expected
