"""What each axis does on the whole: main effects and interactions over the cells of a grid.

A cell is a variant. An effect is a contrast of cells, averaged over the other axes with equal
weights, and taken within each seed: its interval and test are those of any paired difference, and
hold whatever seeds and axes do to each other. Cells that share too few seeds with the others are
left out (``comparison.largest_complete``). Where cells of the product are missing, the axes are
assumed to add up, and no interaction is estimated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.analysis.factors import factors, is_complete
from resnet_variants.analysis.statistics import (
    BETTER,
    WORSE,
    estimate,
    sign_flip_p,
    with_verdicts,
)

EFFECT_COLUMNS = (
    *("kind", "effect", "contrast", "estimate", "ci_low", "ci_high"),
    *("p_value", "p_adjusted", "verdict", "cells", "seeds", "model"),
)
MAIN, INTERACTION = "main", "interaction"
TOGETHER = {BETTER: "above the sum", WORSE: "below the sum"}  # of what both do alone
CROSSED, ADDITIVE = "crossed", "additive"
NOT_ESTIMABLE = "not estimable: cells are missing"


def effects(
    cells: pd.DataFrame, scores: pd.DataFrame, baselines: Mapping[str, str]
) -> pd.DataFrame:
    """One row per effect: ``EFFECT_COLUMNS``; empty where nothing varies.

    A main effect is the difference between two choices of an axis. An interaction is how much
    larger that difference is under another choice of a second axis. Both are against the choices of
    the most frequent baseline. Estimates and intervals are of accuracy, in [-1, 1]; Holm's
    correction is over all rows. The verdict of an interaction says whether both choices together
    are above the sum of their single effects.

    Args:
        cells: one row per network, with its axes.
        scores: test accuracy without gaps, (seeds, models).
        baselines: model name -> name of the model it is compared with.
    """
    scored = cells[cells["model"].isin(scores.columns)].set_index("model")
    levels = factors(scored) if len(scored) else pd.DataFrame()
    if levels.empty:
        return pd.DataFrame(columns=[*EFFECT_COLUMNS])
    names = [baselines.get(str(model), "") for model in levels.index]
    usual, _ = Counter(names).most_common(1)[0]
    at = list(levels.index).index(usual) if usual in levels.index else 0
    base = {str(axis): str(level) for axis, level in levels.iloc[at].items()}
    values = scores[levels.index].to_numpy(float)
    crossed = is_complete(levels)
    contrasts = (_crossed if crossed else _additive)(levels, base)
    rows = [
        {"kind": contrast.kind, "effect": contrast.effect, "contrast": contrast.contrast}
        | _estimated(values, contrast.weights)
        for contrast in contrasts
    ]
    frame = with_verdicts(pd.DataFrame(rows), "estimate", "seeds")
    together = frame["kind"] == INTERACTION
    frame.loc[together, "verdict"] = frame.loc[together, "verdict"].replace(TOGETHER)
    frame.loc[frame["seeds"] == 0, "verdict"] = NOT_ESTIMABLE
    model = CROSSED if crossed else ADDITIVE
    return frame.assign(cells=len(levels), model=model)[[*EFFECT_COLUMNS]]


@dataclass(frozen=True)
class _Contrast:
    """An effect, and the weights of the cells' scores in it; None where it is not estimable."""

    kind: str
    effect: str
    contrast: str
    weights: np.ndarray | None


def _estimated(scores: np.ndarray, weights: np.ndarray | None) -> dict[str, object]:
    """One contrast, estimated over the seeds; ``scores`` are (seeds, cells)."""
    if weights is None:
        numbers = ("estimate", "ci_low", "ci_high", "p_value")
        return {**dict.fromkeys(numbers, np.nan), "seeds": 0}
    by_seed = scores @ weights
    limits = (float(weights[weights < 0].sum()), float(weights[weights > 0].sum()))
    effect = estimate(by_seed, limits)
    return {
        "estimate": effect.mean,
        "ci_low": effect.low,
        "ci_high": effect.high,
        "p_value": sign_flip_p(by_seed),
        "seeds": len(scores),
    }


def _crossed(levels: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """Every effect of one and of two axes, by means over the cells of a whole product."""

    def mean(**chosen: str) -> np.ndarray:
        rows = np.all([levels[axis] == level for axis, level in chosen.items()], axis=0)
        return rows / rows.sum()

    contrasts = [
        _Contrast(MAIN, a, f"{level} - {base[a]}", mean(**{a: level}) - mean(**{a: base[a]}))
        for a, level in _others(levels, base)
    ]
    for (a, x), (b, y) in itertools.combinations(_others(levels, base), 2):
        if a != b:
            gains = [
                mean(**{a: x, b: level}) - mean(**{a: base[a], b: level}) for level in (y, base[b])
            ]
            text = f"({x} - {base[a]}) x ({y} - {base[b]})"
            contrasts.append(_Contrast(INTERACTION, f"{a} x {b}", text, gains[0] - gains[1]))
    return contrasts


def _additive(levels: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """The main effects by least squares: a constant, and a coefficient per choice."""
    others = list(_others(levels, base))
    columns = [np.ones(len(levels)), *((levels[a] == level).to_numpy(float) for a, level in others)]
    matrix = np.column_stack(columns)
    inverse = np.linalg.pinv(matrix)
    # A coefficient that is no combination of the cells is one of many that fit as well.
    wrong = np.abs(inverse @ matrix - np.eye(len(columns))).max(axis=1) > 1e-8
    return [
        _Contrast(MAIN, a, f"{level} - {base[a]}", None if wrong[i] else inverse[i])
        for i, (a, level) in enumerate(others, start=1)
    ]


def _others(levels: pd.DataFrame, base: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each axis with each of its choices that are not the base's."""
    for axis in map(str, levels):
        for level in levels[axis].unique():
            if level != base[axis]:
                yield axis, str(level)
