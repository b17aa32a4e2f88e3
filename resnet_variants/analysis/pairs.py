"""A number by seed of one network, beside that of another: columns that several tables share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import (
    BETTER,
    WORSE,
    estimate,
    sign_flip_p,
    verdicts,
)

MEAN = ("mean", "ci_low", "ci_high")
DIFFERENCE = ("difference", "difference_ci_low", "difference_ci_high")
COMPARED = ("seeds", *MEAN, "pairs", *DIFFERENCE, "p_value", "p_adjusted", "verdict")
HIGHER, LOWER = "higher", "lower"
_WORDS = {BETTER: HIGHER, WORSE: LOWER}


def compared(
    own: pd.Series, other: pd.Series | None, limits: tuple[float, float] = (-np.inf, np.inf)
) -> dict[str, object]:
    """``COMPARED`` without what ``judged`` adds; a difference is ``own - other``.

    Args:
        own: a number by seed; NaN where there is none.
        other: the same of what it is compared with, if with anything.
        limits: of the number.
    """
    low, high = limits
    values = own.dropna().to_numpy(float)
    pairs = np.empty(0) if other is None else (own - other).dropna().to_numpy(float)
    return {
        **{"seeds": len(values), "pairs": len(pairs)},
        **_told(MEAN, values, limits),
        **_told(DIFFERENCE, pairs, (low - high, high - low)),
        **{"p_value": sign_flip_p(pairs), "p_adjusted": np.nan, "verdict": ""},
    }


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """With Holm's correction over all rows, and ``HIGHER``, ``LOWER`` or inconclusive."""
    found = frame["difference"], frame["p_value"], frame["pairs"]
    adjusted, words = verdicts(*(column.to_numpy(float) for column in found))
    return frame.assign(p_adjusted=adjusted, verdict=[_WORDS.get(word, word) for word in words])


def _told(
    names: tuple[str, ...], values: np.ndarray, limits: tuple[float, float]
) -> dict[str, float]:
    found = estimate(values, limits)
    return dict(zip(names, (found.mean, found.low, found.high), strict=True))
