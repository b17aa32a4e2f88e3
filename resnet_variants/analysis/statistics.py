"""What a handful of seeds can say: intervals, paired differences, verdicts."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05  # intervals are of 95 %
EXACT = 15  # pairs, whose sign patterns are all looked at

BASELINE, BETTER, WORSE, INCONCLUSIVE = "baseline", "better", "worse", "inconclusive"
TOO_FEW = f"{INCONCLUSIVE} (n too small)"


@dataclass(frozen=True)
class Estimate:
    """A mean with its Student interval; NaN where too few values tell."""

    mean: float
    sd: float
    low: float
    high: float


def estimate(values: np.ndarray) -> Estimate:
    """Mean, sample deviation and 95 % interval of ``values``, at least one."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, np.nan, np.nan, np.nan)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * sd / n**0.5
    return Estimate(mean, sd, mean - half, mean + half)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided exact p of paired differences: the share of sign patterns at least as extreme.

    Beyond ``2**EXACT`` patterns it is estimated from as many that are drawn with a fixed seed. (For
    250 pairs scipy's ``permutation_test``, which says the same, takes 30 times longer.)
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
    """Holm's correction over a table's comparisons; NaN stays NaN."""
    adjusted, known = np.full(len(p_values), np.nan), ~np.isnan(p_values)
    if known.any():
        adjusted[known] = multipletests(p_values[known], method="holm")[1]
    return adjusted


def pairs_needed(comparisons: int) -> int:
    """The fewest pairs that can reach a verdict: 6 alone, 9 in a table of eleven comparisons.

    The exact sign-flip test of n pairs has no p below 2 / 2**n, and Holm multiplies the smallest p
    of a table by the number of its comparisons.
    """
    return next(n for n in itertools.count(1) if max(1, comparisons) * 2 / 2**n < ALPHA)


def verdict(delta: float, p_adjusted: float, *, enough: bool) -> str:
    """In one word what the paired differences show after correction, ``enough`` pairs given."""
    if not enough:
        return TOO_FEW
    if not p_adjusted < ALPHA:
        return INCONCLUSIVE
    return BETTER if delta > 0 else WORSE


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which points no other point beats at the same or lower cost; ties share the front."""
    beaten = [
        np.any((cost <= c) & (value >= v) & ((cost < c) | (value > v)))
        for c, v in zip(cost, value, strict=True)
    ]
    return ~np.array(beaten, dtype=bool)
