"""What a handful of seeds can say: intervals, paired differences, verdicts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05  # intervals are of 95 %

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
    """Two-sided exact p of paired differences: the share of sign patterns at least as extreme."""
    if len(differences) < 2:
        return np.nan

    def mean(values: np.ndarray, axis: int) -> np.ndarray:
        # Accuracies are counts over one n, so patterns tie often, but never to the last bit.
        return np.round(np.mean(values, axis=axis), 12)

    # Above 2**15 patterns scipy samples them, with a fixed seed.
    result = stats.permutation_test(
        (differences,),
        mean,
        permutation_type="samples",
        n_resamples=2**15,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


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
