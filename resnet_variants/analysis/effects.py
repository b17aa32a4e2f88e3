"""What each axis does on the whole: main effects and interactions over the cells of a grid.

A cell is a variant. An effect is a contrast of cells, averaged over the other axes with equal
weights, and taken within each seed: its interval and test are those of any paired difference, and
hold whatever seeds and axes do to each other. Cells that share too few seeds with the others are
left out (``tables.complete``). Where cells of the product are missing, the axes are taken to add
up, and no interaction can be told.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import (
    BETTER,
    WORSE,
    estimate,
    sign_flip_p,
    verdicts,
)
from resnet_variants.analysis.tables import GROUP, by_group, complete, scores_by_seed
from resnet_variants.models.variant import AXES

EFFECT_COLUMNS = (
    *GROUP,
    "kind",
    "effect",
    "contrast",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "verdict",
    "cells",
    "seeds",
    "model",
)
MAIN, INTERACTION = "main", "interaction"
TOGETHER = {BETTER: "above the sum", WORSE: "below the sum"}  # of what both do alone
CROSSED, ADDITIVE = "crossed", "additive"
NOT_ESTIMABLE = "not estimable: cells are missing"
# The axes; ``downsample`` is stride and shortcut together, see ``factors``.
FACTORS = ["downsample" if name == "stride" else name for name in AXES if name != "shortcut"]


def effects(runs: pd.DataFrame, baselines: Mapping[str, str]) -> pd.DataFrame:
    """One row per effect, of each group of runs that may be compared: ``EFFECT_COLUMNS``.

    A main effect is the difference between two choices of an axis, an interaction how much more
    that is under another choice of a second axis; both against the choices of the most usual
    baseline. Estimates and intervals are of accuracy, in [-1, 1]; Holm's correction is over all
    effects of a group. The verdict of an interaction is whether both choices together are above
    the sum of what they do alone.

    Args:
        runs: ``records.RUN_COLUMNS``; those that are not done are left out.
        baselines: model name -> name of the model it is compared with.
    """
    tables = []
    for key, own in by_group(runs):
        rows = _rows(own, baselines)
        if rows:
            group = dict(zip(GROUP, key, strict=True))
            tables.append(_judged(pd.DataFrame([row | group for row in rows])))
    if not tables:
        return pd.DataFrame(columns=list(EFFECT_COLUMNS))
    return pd.concat(tables, ignore_index=True)[list(EFFECT_COLUMNS)]


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    found = frame["estimate"], frame["p_value"], frame["seeds"]
    adjusted, judged = verdicts(*(column.to_numpy(float) for column in found))
    words = [
        told or (word if kind == MAIN else TOGETHER.get(word, word))
        for told, word, kind in zip(frame["verdict"], judged, frame["kind"], strict=True)
    ]
    return frame.assign(p_adjusted=adjusted, verdict=words)


def factors(cells: pd.DataFrame) -> pd.DataFrame:
    """The axes that the cells differ in, as text: one column per factor, in order of appearance.

    ``stride`` and ``shortcut`` are one factor where both vary, as grids spell it. Where presets
    give a complete product and their parts do not, ``preset`` stands for them. Axes that cannot be
    told apart, as one follows from the other (the block from the depth), are one factor with both
    names.
    """
    cells = cells.astype(object).where(cells.notna(), "")  # an older table lacks some axes
    varied = [name for name in ("stride", "shortcut") if cells[name].nunique() > 1]
    stride, shortcut = (cells[name].astype(str) for name in ("stride", "shortcut"))
    both = stride.where(shortcut == "conv", stride + "+" + shortcut)
    frame = cells.assign(downsample=both)[FACTORS].astype(str)
    if len(varied) == 1:  # by its own name
        frame = frame.rename(columns={"downsample": varied[0]})
        frame[varied[0]] = cells[varied[0]]
    frame = frame.loc[:, frame.nunique() > 1]
    if not is_complete(frame) and cells["preset"].ne("").all():
        parts = [axis for axis in ("stem", "downsample", *varied) if axis in frame]
        named = cells[["preset"]].join(frame.drop(columns=parts))
        named = named.loc[:, named.nunique() > 1]
        frame = named if is_complete(named) else frame
    return _merged(frame)


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    """Each axis that follows from another is joined to it: ``depth/block``, ``29/bottleneck``."""
    axes = [str(axis) for axis in frame]
    choices = frame.nunique()
    finest = sorted(axes, key=lambda axis: (-choices[axis], axes.index(axis)))
    leaders: dict[str, list[str]] = {}
    for axis in finest:
        leads = (one for one in leaders if frame.groupby(one)[axis].nunique().max() == 1)
        leaders.setdefault(next(leads, axis), []).append(axis)
    return pd.DataFrame(
        {
            "/".join(leaders[axis]): frame[leaders[axis]].agg("/".join, axis=1)
            for axis in axes
            if axis in leaders
        }
    )


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether each combination of the factors' choices is there once."""
    product = math.prod(frame[axis].nunique() for axis in frame)
    return len(frame.drop_duplicates()) == len(frame) == product


@dataclass(frozen=True)
class _Contrast:
    """An effect, and the weights of the cells' scores in it; none where it cannot be told."""

    kind: str
    effect: str
    contrast: str
    weights: np.ndarray | None


def _rows(runs: pd.DataFrame, baselines: Mapping[str, str]) -> list[dict[str, object]]:
    scores = complete(scores_by_seed(runs))
    if scores.empty:
        return []
    cells = runs[runs["model"].isin(scores.columns)].drop_duplicates("model").set_index("model")
    found = factors(cells)
    if found.empty:
        return []
    usual, _ = Counter(baselines.get(str(model), "") for model in found.index).most_common(1)[0]
    at = list(found.index).index(usual) if usual in found.index else 0
    base = {str(axis): str(level) for axis, level in found.iloc[at].items()}
    values = scores[found.index].to_numpy(float)
    crossed = is_complete(found)
    size = {"cells": len(found), "model": CROSSED if crossed else ADDITIVE}
    return [
        {"kind": contrast.kind, "effect": contrast.effect, "contrast": contrast.contrast}
        | size
        | _tested(values, contrast.weights)
        for contrast in (_crossed if crossed else _additive)(found, base)
    ]


def _tested(scores: np.ndarray, weights: np.ndarray | None) -> dict[str, object]:
    """One contrast by seed, as any paired difference; ``scores`` are (seeds, cells)."""
    row: dict[str, object] = dict.fromkeys(("estimate", "ci_low", "ci_high", "p_value"), np.nan)
    if weights is None:
        return row | {"verdict": NOT_ESTIMABLE, "seeds": 0}
    by_seed = scores @ weights
    limits = (float(weights[weights < 0].sum()), float(weights[weights > 0].sum()))
    told = estimate(by_seed, limits)
    row |= {"estimate": told.mean, "ci_low": told.low, "ci_high": told.high}
    return row | {"p_value": sign_flip_p(by_seed), "verdict": "", "seeds": len(scores)}


def _crossed(found: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """Every effect of one and of two axes, by means over the cells of a whole product."""

    def mean(**chosen: str) -> np.ndarray:
        rows = np.all([found[axis] == level for axis, level in chosen.items()], axis=0)
        return rows / rows.sum()

    contrasts = [
        _Contrast(MAIN, a, f"{level} - {base[a]}", mean(**{a: level}) - mean(**{a: base[a]}))
        for a, level in _others(found, base)
    ]
    for (a, x), (b, y) in itertools.combinations(_others(found, base), 2):
        if a != b:
            gains = [
                mean(**{a: x, b: level}) - mean(**{a: base[a], b: level}) for level in (y, base[b])
            ]
            text = f"({x} - {base[a]}) x ({y} - {base[b]})"
            contrasts.append(_Contrast(INTERACTION, f"{a} x {b}", text, gains[0] - gains[1]))
    return contrasts


def _additive(found: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """The main effects by least squares: a constant, and a coefficient per choice."""
    others = list(_others(found, base))
    columns = [np.ones(len(found)), *((found[a] == level).to_numpy(float) for a, level in others)]
    matrix = np.column_stack(columns)
    inverse = np.linalg.pinv(matrix)
    # A coefficient that is no combination of the cells is one of many that fit as well.
    wrong = np.abs(inverse @ matrix - np.eye(len(columns))).max(axis=1) > 1e-8
    return [
        _Contrast(MAIN, a, f"{level} - {base[a]}", None if wrong[i] else inverse[i])
        for i, (a, level) in enumerate(others, start=1)
    ]


def _others(found: pd.DataFrame, base: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each axis with each of its choices that are not the base's."""
    for axis in map(str, found):
        for level in found[axis].unique():
            if level != base[axis]:
                yield axis, str(level)
