"""What a few seeds can show: intervals, paired differences, verdicts, Pareto fronts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

ALPHA = 0.05  # intervals are of 95 %
POWER = 0.8  # with which a detectable difference is found
SHARE = (0.0, 1.0)  # limits of accuracies and errors
EXACT = 15  # pairs, whose sign patterns are all looked at
DRAWS = 2000  # of the bootstrap

BASELINE, BETTER, WORSE, INCONCLUSIVE = "baseline", "better", "worse", "inconclusive"
TOO_FEW = f"{INCONCLUSIVE} (n too small)"
# Columns that tables with a paired comparison in each row share.
MEAN = ("mean", "ci_low", "ci_high")
DIFFERENCE = ("difference", "difference_ci_low", "difference_ci_high")
COMPARED = ("seeds", *MEAN, "pairs", *DIFFERENCE, "p_value", "p_adjusted", "verdict")
HIGHER, LOWER = "higher", "lower"
DIRECTIONS = {BETTER: HIGHER, WORSE: LOWER}  # verdicts on a number that is no score


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, which is Student's; NaN where too few values tell.

    Of 2,000 simulated samples of 3, 6 and 10, Student's interval held the mean of a normal
    distribution in 95.0, 95.1 and 94.6 %, the percentile bootstrap in 74.9, 85.2 and 89.7 %, BCa in
    72.2, 84.9 and 89.2 %, the bootstrap t in 81.5, 94.3 and 94.1 %. Of a skewed one (exponential)
    Student's held it in 86.5, 89.1 and 89.5 %, the bootstrap t in 79.0, 93.4 and 93.7 %.
    """

    mean: float
    sd: float
    low: float
    high: float


def estimate(values: np.ndarray, limits: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Mean, sample deviation and 95 % interval of ``values``; without any all are NaN.

    The interval ends at the ``limits``, beyond which no mean can lie.
    """
    n = len(values)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, np.nan)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(mean, np.nan, np.nan, np.nan)
    if np.ptp(values) < 1e-12:  # accuracies are counts: equal ones do not mean that nothing varies
        return Estimate(mean, 0.0, np.nan, np.nan)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / n**0.5
    low, high = np.clip([mean - half, mean + half], *limits)
    return Estimate(mean, sd, float(low), float(high))


@dataclass(frozen=True)
class PairedComparison:
    """A number of one network, and its paired differences to that of another network."""

    own: Estimate
    seeds: int
    difference: Estimate
    pairs: int  # seeds that both networks have
    p_value: float

    @property
    def row(self) -> dict[str, object]:
        """The columns ``COMPARED`` without Holm's p and the verdict, which need the whole table."""
        own, difference = self.own, self.difference
        return {
            "seeds": self.seeds,
            **dict(zip(MEAN, (own.mean, own.low, own.high), strict=True)),
            "pairs": self.pairs,
            **dict(
                zip(DIFFERENCE, (difference.mean, difference.low, difference.high), strict=True)
            ),
            "p_value": self.p_value,
        }


def paired_comparison(
    own: pd.Series, baseline: pd.Series | None, limits: tuple[float, float] = (-np.inf, np.inf)
) -> PairedComparison:
    """Estimate ``own`` and ``own - baseline``.

    Args:
        own: a number by seed; NaN where there is none.
        baseline: the same of the other network, if there is one.
        limits: of the number.
    """
    low, high = limits
    values = own.dropna().to_numpy(float)
    pairs = np.empty(0) if baseline is None else (own - baseline).dropna().to_numpy(float)
    return PairedComparison(
        own=estimate(values, limits),
        seeds=len(values),
        difference=estimate(pairs, (low - high, high - low)),
        pairs=len(pairs),
        p_value=sign_flip_p(pairs),
    )


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of paired differences: the share of sign patterns at least as extreme.

    It is exact up to ``EXACT`` pairs; beyond ``2**EXACT`` patterns it is estimated from as many
    that are drawn with a fixed seed. (For 250 pairs scipy's ``permutation_test``, which says the
    same, takes 30 times longer.)
    """
    n = len(differences)
    if n < 2:
        return np.nan
    observed, extreme, patterns = abs(np.round(np.mean(differences), 12)), 0, _signs(n)
    for signs in np.array_split(patterns, max(1, patterns.size // 2**20)):  # little memory
        # Accuracies are counts over one n, so patterns tie often, but never to the last bit.
        means = np.round(signs.astype(float) @ differences / n, 12)
        extreme += np.count_nonzero(np.abs(means) >= observed)
    drawn = n > EXACT  # the observed pattern counts as one of those drawn
    return (extreme + drawn) / (len(patterns) + drawn)


@functools.lru_cache(maxsize=1)
def _signs(n: int) -> np.ndarray:
    """Patterns of n signs, (patterns, n): all of them, or some that are drawn."""
    if n <= EXACT:
        bits = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.int8)
    else:
        bits = np.random.default_rng(0).integers(0, 2, (2**EXACT, n), dtype=np.int8)
    return 2 * bits - 1


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction over a table's comparisons; NaN stays NaN.

    (statsmodels' ``multipletests``, which says the same, collects garbage on each call: 0.25 s.)
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN comes last
    scaled = p_values[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def pairs_needed(comparisons: int) -> int:
    """The fewest pairs that can reach a verdict: 6 alone, 9 in a table of eleven comparisons.

    The exact sign-flip test of n pairs has no p below 2 / 2**n, and Holm multiplies the smallest p
    of a table by the number of its comparisons.
    """
    return next(n for n in itertools.count(1) if max(1, comparisons) * 2 / 2**n < ALPHA)


def detectable(sd: float, pairs: int, comparisons: int) -> float:
    """The difference that gets a verdict in 80 % of cases; NaN for fewer pairs than one takes.

    With the fewest pairs that can reach a verdict, all differences must have one sign. With many,
    the sign-flip test has about the power of Student's.

    Args:
        sd: standard deviation of the paired differences, which are taken to be normal.
        pairs: how many there are.
        comparisons: of the table, for Holm's correction.
    """
    if pairs < pairs_needed(comparisons):
        return np.nan
    one_sign = float(stats.norm.ppf(POWER ** (1 / pairs)))
    if pairs == pairs_needed(comparisons):
        return sd * one_sign
    quantiles = stats.t.ppf([1 - ALPHA / 2 / comparisons, POWER], pairs - 1)
    return sd * min(one_sign, float(quantiles.sum()) / pairs**0.5)


def verdict(delta: float, p_adjusted: float, *, enough: bool) -> str:
    """What the paired differences show after correction, in one word.

    ``enough``: whether this number of pairs could have reached a verdict.
    """
    if p_adjusted < ALPHA:
        return BETTER if delta > 0 else WORSE
    return INCONCLUSIVE if enough else TOO_FEW


def with_verdicts(table: pd.DataFrame, difference: str, pairs: str) -> pd.DataFrame:
    """The table with Holm's ``p_adjusted`` over all its rows, and the ``verdict`` of each.

    A row without pairs has an empty verdict.

    Args:
        table: has a ``p_value``.
        difference: the column with the mean difference.
        pairs: the column with the number of pairs.
    """
    p_values = table["p_value"].to_numpy(float)
    adjusted, needed = holm(p_values), pairs_needed(int(np.isfinite(p_values).sum()))
    rows = zip(table[difference].astype(float), adjusted, table[pairs], strict=True)
    words = [verdict(delta, p, enough=n >= needed) if n else "" for delta, p, n in rows]
    return table.assign(p_adjusted=adjusted, verdict=words)


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which points no other point beats at the same or lower cost; ties share the front.

    Values are equal to 12 digits: means of the same scores differ in their last bits.

    Args:
        cost: (points,).
        value: (points,), or (draws, points) for one front per draw.
    """
    value = np.round(value, 12)
    front, best = np.zeros(value.shape, bool), np.full(value.shape[:-1], -np.inf)
    for c in np.unique(cost):
        same = cost == c
        top = value[..., same].max(axis=-1)
        front[..., same] = (value[..., same] == top[..., None]) & (top > best)[..., None]
        best = np.maximum(best, top)
    return front


def front_probability(cost: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How often each point is on the front when the seeds are drawn again, with replacement.

    All points are drawn with the same seeds, as they were trained. (Of two points that are equally
    good, the dearer one had 0.975 or more in 23 % of simulations with two seeds, in 12 % with
    three, in 5 % with nine.)

    Args:
        cost: (points,).
        scores: (seeds, points), of seeds that all points have.

    Returns:
        (points,), NaN everywhere with fewer seeds than a verdict takes.
    """
    seeds = len(scores)
    if seeds < pairs_needed(1):
        return np.full(len(cost), np.nan)
    counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)
    return pareto_front(cost, counts @ scores / seeds).mean(axis=0)


def pairing_gain(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """How many times as many runs unpaired seeds would take for the same standard error.

    The variance of a difference of two independent scores over that of the paired differences, both
    summed over the comparisons; NaN where no comparison has two pairs that differ.
    """
    several = [(a, b) for a, b in pairs if len(a) > 1]
    paired = sum(float(np.var(a - b, ddof=1)) for a, b in several)
    unpaired = sum(float(np.var(a, ddof=1) + np.var(b, ddof=1)) for a, b in several)
    return unpaired / paired if paired > 0 else np.nan
