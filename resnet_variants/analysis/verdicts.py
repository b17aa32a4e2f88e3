"""Verdicts on the paired differences of a table, which hold at any number of seeds.

**Within a table** the signs of all differences of a seed are flipped together
(``statistics.step_down_p``). So six seeds can reach a verdict, however many comparisons a table
has. All patterns of signs are equally likely if, under the null hypothesis, the vector of a seed's
differences is symmetric about zero. Differences that share a baseline with a skewed
distribution are not quite so; `experiments/calibration.csv` has what came out in simulations.

**Over numbers of seeds** each has its own level (``level``). The runs that are there are looked at
in the order of their seeds, after each seed from the planned number on, and a verdict that was
reached stays. So it does not matter who looked when. A run that is filled in later is part of all
looks from its seed on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import pandas as pd
from scipy import special

from resnet_variants.analysis.statistics import (
    EXACT,
    FEWEST,
    PAIRED,
    step_down_p,
    student_quantile,
    unadjusted_p,
)
from resnet_variants.settings import Compared, EndpointName, Range, check_fields

ENOUGH_EPOCHS = 15  # from scratch; what fewer say of longer training is little
POWER = 0.8  # with which a detectable difference is found
_LIKELY = 0.4  # power of the look by which, with those before, a verdict is as likely as not
_FIRST = 2 / 2**FEWEST  # level at the fewest seeds, where these were planned
_DECAY = 3  # of the level, as a power of the number of seeds
_EACH, _SOME = 32, 8  # seeds up to which each number is a look; beyond, each eighth
_MOST = 2_000  # further pairs that are thought of
_ROUNDING = 1e-12

BASELINE, BETTER, WORSE = "baseline", "better", "worse"
EQUAL, UNDECIDED = "equal", "undecided"
BELOW = " (below the margin)"  # after a verdict on a difference that was shown to be so small
HIGHER, LOWER = "higher", "lower"
DIRECTIONS = {BETTER: HIGHER, WORSE: LOWER}  # verdicts on a number that is no score
JUDGED = ("p_value", "p_adjusted", "verdict", "detectable", "more_seeds")
COMPARED = (*PAIRED, *JUDGED)


@dataclass(frozen=True)
class Plan:
    """What was fixed before the first run.

    Attributes:
        seeds: at which the first verdict may be reached.
        margin: the smallest difference that matters, in points; 0 if none was given.
        endpoint: the number that decides, see ``endpoints.ENDPOINTS``.
        compare: ``baseline``, or ``all`` for every pair of arms beside.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """

    seeds: Annotated[int, Range(1, 10_000)] = FEWEST
    margin: Annotated[float, Range(0, 100, closed="left")] = 0.0
    endpoint: EndpointName = "test_acc"
    compare: Compared = "baseline"

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Plan:
        """From a record in ``experiment.json``; folders of earlier versions have none.

        Raises:
            ValueError: a value that no plan has.
        """
        return cls(**{f.name: record[f.name] for f in fields(cls) if f.name in record})

    @property
    def least(self) -> float:
        """The margin as a fraction."""
        return self.margin / 100


def level(pairs: int, planned: int) -> float:
    """The largest adjusted p that is a verdict with this number of pairs.

    Where six seeds were planned it begins with 1/32. With more, there are more looks up to any
    multiple of them, and it begins with 1/32 times the root of six over their number. From there it
    falls with the third power of the number of pairs, down to what drawn patterns can tell. How
    often tables without effects got a false verdict at any look is in
    `experiments/calibration.csv`. A mixture e-process for symmetric differences took as many seeds
    of one comparison in simulations, with a known deviation; no table of it was tried.
    """
    first = max(planned, FEWEST)
    return float(_levels(first, np.array([max(pairs, first)]))[0])


def _levels(first: int, pairs: np.ndarray) -> np.ndarray:
    start = _FIRST * math.sqrt(FEWEST / first)
    return np.maximum(start * (first / pairs) ** _DECAY, 2 / 2**EXACT)


def judge(differences: pd.DataFrame, plan: Plan, scales: np.ndarray | None = None) -> pd.DataFrame:
    """``JUDGED`` for each of the differences of a table, by the name of its column.

    Args:
        differences: paired, (seeds, comparisons), in the order of the seeds; NaN where a seed has
            no pair.
        plan: what was fixed before the first run.
        scales: standard deviation of each comparison relative to the others, as known from its
            design; equal if None.
    """
    values = differences.to_numpy(float)
    values = np.where(np.isfinite(values), values, np.nan)  # a loss may be infinite
    scaled = values if scales is None else values / scales
    pairs = np.isfinite(values).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, axis=0) / pairs
        sds = np.sqrt(np.nansum((values - means) ** 2, axis=0) / (pairs - 1))
    differs = _decided(scaled, plan, two_sided_p)
    equals = np.zeros(len(means), bool)
    if plan.least:
        equals = _decided(values, plan, functools.partial(equality_p, margin=plan.least))
    words = [
        _word(mean, plan.least, *shown) if n else ""
        for mean, n, *shown in zip(means, pairs, differs, equals, strict=True)
    ]
    undecided = np.array([word == UNDECIDED for word in words], bool)
    ratios = np.ones(len(words)) if scales is None else scales
    noise = _noise((sds / ratios)[undecided & np.isfinite(sds)])
    single = unadjusted_p(values)
    rows = []
    for p, word, mean, ratio, n in zip(single, words, means, ratios, pairs, strict=True):
        row = [np.nan, np.nan]
        if word == UNDECIDED:
            sd = float(noise * ratio)
            needed = pairs_for(plan.least or abs(mean), sd, n, plan, float(p))
            row = [detectable(sd, n, plan), needed - n if math.isfinite(needed) else np.nan]
        rows.append([word, *row])
    frame = pd.DataFrame(rows, columns=[*JUDGED[2:]], index=differences.columns)
    return frame.assign(p_value=single, p_adjusted=two_sided_p(scaled))[[*JUDGED]]


def with_verdicts(
    table: pd.DataFrame,
    differences: Sequence[pd.Series],
    plan: Plan,
    scales: np.ndarray | None = None,
) -> pd.DataFrame:
    """The table with the columns ``JUDGED``; a row without pairs has an empty verdict.

    Args:
        table: one row per comparison.
        differences: of each row, by seed; empty where there is no pair.
        plan: see ``judge``.
        scales: see ``judge``.
    """
    by_seed = pd.concat({i: own.astype(float) for i, own in enumerate(differences)}, axis=1)
    judged = judge(by_seed.sort_index(), plan, scales)
    return table.assign(**{name: judged[name].to_numpy() for name in JUDGED})


def _word(mean: float, margin: float, direction: float, equal: float) -> str:
    """The verdict on a difference, from the signs with which it was shown (0: it was not)."""
    if direction and np.sign(mean) == direction:
        return (BETTER if mean > 0 else WORSE) + (BELOW if equal else "")
    return EQUAL if equal and abs(mean) < margin else UNDECIDED


def _decided(
    values: np.ndarray, plan: Plan, test: Callable[[np.ndarray, float], np.ndarray]
) -> np.ndarray:
    """The sign of each comparison's mean when ``test`` was passed; 0 where it never was.

    Comparisons that have passed leave the table: the others are tested without them.

    Args:
        values: differences, (seeds, comparisons).
        plan: what was fixed before the first run.
        test: adjusted p values of the columns, exact up to the given level.
    """
    signs = np.zeros(values.shape[1])
    for look in _looks(len(values), plan):
        seen = values[:look]
        pairs = np.isfinite(seen).sum(axis=0)
        still = np.flatnonzero((signs == 0) & (pairs >= FEWEST))
        if not len(still):
            continue
        levels = np.array([level(int(n), plan.seeds) for n in pairs[still]]) + _ROUNDING
        passed = still[test(seen[:, still], levels.max()) <= levels]
        signs[passed] = np.sign(np.nansum(seen[:, passed], axis=0))
    return signs


def _looks(seeds: int, plan: Plan) -> list[int]:
    """The numbers of seeds at which a table is looked at: the planned one, then all, of many some.

    They do not depend on how many seeds there are, so that no look is ever lost.
    """
    first = max(plan.seeds, FEWEST)
    return [n for n in range(first, seeds + 1) if n in (first, *range(_EACH + 1)) or n % _SOME == 0]


# --- tests ------------------------------------------------------------------------------------


def two_sided_p(differences: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """The adjusted p of each column: NaN with fewer than two pairs.

    The statistic is the sum over the square root of the number of pairs, in absolute value.

    Args:
        differences: (seeds, comparisons), NaN where there is no pair.
        alpha: see ``step_down_p``.
    """
    known, pairs = np.nan_to_num(differences), np.isfinite(differences).sum(axis=0)
    adjusted, few = np.full(len(pairs), np.nan), pairs < 2
    scores = known[:, ~few] / np.sqrt(pairs[~few])
    adjusted[~few] = step_down_p(scores, np.abs, alpha=alpha)
    return adjusted


def equality_p(differences: np.ndarray, alpha: float = 1.0, *, margin: float) -> np.ndarray:
    """The adjusted p against a mean beyond the margin, of each column.

    Both one-sided null hypotheses of each column are in one family, and the larger p counts. The
    statistic is the mean over the root mean square, which sign flips do not change: a difference
    far beyond the margin would hide all others otherwise.

    Args:
        differences: (seeds, comparisons), NaN where there is no pair.
        alpha: see ``step_down_p``.
        margin: as a fraction.
    """
    both = np.hstack([margin - differences, margin + differences])
    sizes = np.sqrt(np.nansum(both**2, axis=0))
    scores = np.nan_to_num(both) / np.where(sizes > 0, sizes, 1.0)
    return step_down_p(scores, np.positive, alpha=alpha).reshape(2, -1).max(axis=0)


# --- power ------------------------------------------------------------------------------------


def _noise(sds: np.ndarray) -> float:
    """The deviation that a difference has to stand out of, from those of a table; 0 without any.

    The largest sum of a table counts, so the noisy comparisons count most. With the eighth power
    the power was 0.75 to 0.89 at the ``detectable`` difference of tables of 1, 3 and 11
    comparisons with 6 to 16 pairs (0.88 to 0.97 with the largest deviation).
    """
    return float(np.mean(sds**8) ** (1 / 8)) if len(sds) else 0.0


def detectable(sd: float, pairs: int, plan: Plan) -> float:
    """The difference that gets a verdict in 80 % of cases; NaN for fewer pairs than one takes.

    Args:
        sd: standard deviation of the paired differences, which are taken to be normal.
        pairs: how many there are.
        plan: what was fixed before the first run.
    """
    first = max(plan.seeds, FEWEST)
    if not first <= pairs < first + _MOST or not sd > 0:  # equal scores do not mean that none vary
        return np.nan
    return sd * float(_detectable_sds(first, POWER)[pairs - first])


def pairs_for(difference: float, sd: float, pairs: int, plan: Plan, p: float = 0.0) -> float:
    """The total number of pairs by which a verdict is as likely as not; inf where there is none.

    No further pair can do more than halve ``p``.

    Args:
        difference: the true one.
        sd: standard deviation of the paired differences.
        pairs: that are there.
        plan: what was fixed before the first run.
        p: of the pairs that are there.
    """
    first = max(plan.seeds, FEWEST)
    totals = np.arange(first, first + _MOST)
    is_reached = np.ldexp(p, pairs - totals) <= _levels(first, totals) + _ROUNDING
    is_likely = sd * _detectable_sds(first, _LIKELY) <= difference
    enough = is_likely & is_reached & (totals > pairs)
    return float(totals[enough.argmax()]) if enough.any() and difference > 0 < sd else math.inf


@functools.lru_cache(maxsize=8)
def _detectable_sds(first: int, power: float) -> np.ndarray:
    """The difference, in standard deviations, that each number of pairs from the first on shows."""
    pairs = np.arange(first, first + _MOST)
    levels = _levels(first, pairs)
    student = student_quantile(1 - levels / 2, pairs - 1) + student_quantile(power, pairs - 1)
    flips = (1 + 1 / pairs) * student / np.sqrt(pairs)  # as simulated, for 1 to 30 comparisons
    one_sign = special.ndtri(power ** (1 / pairs))  # where only two patterns are rare enough
    return np.where(np.log2(levels) < 2 - pairs, one_sign, flips)
