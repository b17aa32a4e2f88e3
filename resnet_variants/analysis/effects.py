"""What each axis does on the whole: main effects and interactions over the cells of a grid.

A cell is a variant. With seeds as blocks, accuracy = cell + seed + error; an effect is a contrast
of cells, averaged over the other axes with equal weights. Where cells of the product are missing,
the model is additive in the axes, and no interaction can be told.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from resnet_variants.analysis.statistics import ALPHA, BETTER, INCONCLUSIVE, WORSE, holm
from resnet_variants.analysis.tables import GROUP, by_group
from resnet_variants.run_folder import DONE

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
)
NUMBERS = ("estimate", "ci_low", "ci_high", "p_value")
MAIN, INTERACTION = "main", "interaction"
TOGETHER = {BETTER: "better together", WORSE: "worse together"}
NOT_ESTIMABLE = "not estimable: cells are missing"
NO_SPREAD = f"{INCONCLUSIVE} (one seed, or no spread)"
AXES = (
    *("family", "depth", "block", "stem", "stem_stride", "downsample", "order"),
    *("skip", "cardinality", "base_width", "attention", "antialias"),
)


def effects(runs: pd.DataFrame, baselines: Mapping[str, str]) -> pd.DataFrame:
    """One row per effect, of each group of runs that may be compared: ``EFFECT_COLUMNS``.

    A main effect is the difference between two choices of an axis, an interaction how much more
    that is under another choice of a second axis; both against the choices of the most usual
    baseline. Estimates and intervals are of accuracy, in [-1, 1]; Holm's correction is over a
    group.

    Args:
        runs: ``records.RUN_COLUMNS``; those that are not done are left out.
        baselines: model name -> name of the model it is compared with.
    """
    tables = []
    for key, own in by_group(runs):
        done = own[own["status"] == DONE]
        rows = [] if done.empty else _rows(done, baselines)
        if rows:
            group = dict(zip(GROUP, key, strict=True))
            tables.append(_judged(pd.DataFrame([row | group for row in rows])))
    if not tables:
        return pd.DataFrame(columns=list(EFFECT_COLUMNS))
    return pd.concat(tables, ignore_index=True)[list(EFFECT_COLUMNS)]


def _judged(frame: pd.DataFrame) -> pd.DataFrame:
    adjusted = holm(frame["p_value"].to_numpy(float))
    words = []
    for row, p in zip(frame.to_dict("records"), adjusted, strict=True):
        if row["verdict"] or not p < ALPHA:
            words.append(row["verdict"] or INCONCLUSIVE)
            continue
        word = BETTER if row["estimate"] > 0 else WORSE
        words.append(word if row["kind"] == MAIN else TOGETHER[word])
    return frame.assign(p_adjusted=adjusted, verdict=words)


def factors(cells: pd.DataFrame) -> pd.DataFrame:
    """The axes that the cells differ in, as text: one column per factor, in order of appearance.

    ``stride`` and ``shortcut`` are one factor where both vary, as grids spell it. Where presets
    give a complete product and their parts do not, ``preset`` stands for them. Axes that cannot be
    told apart, as one follows from the other (the block from the depth), are one factor with both
    names.
    """
    varied = [name for name in ("stride", "shortcut") if cells[name].nunique() > 1]
    stride, shortcut = (cells[name].astype(str) for name in ("stride", "shortcut"))
    both = stride.where(shortcut == "conv", stride + "+" + shortcut)
    frame = cells.assign(downsample=both)[list(AXES)].astype(str)
    if len(varied) == 1:  # by its own name
        frame = frame.rename(columns={"downsample": varied[0]})
        frame[varied[0]] = cells[varied[0]]
    frame = frame.loc[:, frame.nunique() > 1]
    if not _complete(frame) and cells["preset"].ne("").all():
        parts = [axis for axis in ("stem", "downsample", *varied) if axis in frame]
        named = cells[["preset"]].join(frame.drop(columns=parts))
        named = named.loc[:, named.nunique() > 1]
        frame = named if _complete(named) else frame
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


def _complete(frame: pd.DataFrame) -> bool:
    product = math.prod(frame[axis].nunique() for axis in frame)
    return len(frame.drop_duplicates()) == len(frame) == product


@dataclass(frozen=True)
class _Contrast:
    """An effect, and its weights on the coefficients of the cells' model."""

    kind: str
    effect: str
    contrast: str
    weights: np.ndarray


def _rows(done: pd.DataFrame, baselines: Mapping[str, str]) -> list[dict[str, object]]:
    cells = done.drop_duplicates("model").set_index("model")
    found = factors(cells)
    if found.empty:
        return []
    usual, _ = Counter(baselines.get(str(model), "") for model in found.index).most_common(1)[0]
    at = list(found.index).index(usual) if usual in found.index else 0
    base = {str(axis): str(level) for axis, level in found.iloc[at].items()}
    matrix, contrasts = (_crossed if _complete(found) else _additive)(found, base)
    cell = found.index.get_indexer(pd.Index(done["model"]))
    seeds = pd.get_dummies(done["seed"], drop_first=True).to_numpy(float)
    design = np.hstack([matrix[cell], seeds])
    weights = np.zeros((len(contrasts), design.shape[1]))
    weights[:, : matrix.shape[1]] = [contrast.weights for contrast in contrasts]
    tested = _test(done["test_acc"].to_numpy(float), design, weights)
    size = {"cells": len(found), "seeds": done["seed"].nunique()}
    return [
        {"kind": contrast.kind, "effect": contrast.effect, "contrast": contrast.contrast}
        | size
        | row
        for contrast, row in zip(contrasts, tested, strict=True)
    ]


def _crossed(found: pd.DataFrame, base: Mapping[str, str]) -> tuple[np.ndarray, list[_Contrast]]:
    """A coefficient per cell: every effect of one and of two axes."""

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
    return np.eye(len(found)), contrasts


def _additive(found: pd.DataFrame, base: Mapping[str, str]) -> tuple[np.ndarray, list[_Contrast]]:
    """A constant, and a coefficient per choice beside the base's."""
    others = list(_others(found, base))
    columns = [np.ones(len(found)), *((found[a] == level).to_numpy(float) for a, level in others)]
    unit = np.eye(len(columns))
    contrasts = [
        _Contrast(MAIN, a, f"{level} - {base[a]}", unit[i])
        for i, (a, level) in enumerate(others, start=1)
    ]
    return np.column_stack(columns), contrasts


def _others(found: pd.DataFrame, base: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each axis with each of its choices that are not the base's."""
    for axis in map(str, found):
        for level in found[axis].unique():
            if level != base[axis]:
                yield axis, str(level)


def _test(scores: np.ndarray, design: np.ndarray, weights: np.ndarray) -> list[dict[str, object]]:
    """Each contrast with its interval and t test, as statsmodels' ``OLS(...).t_test`` has them.

    (Which takes a singular value decomposition of all runs: seconds where there are thousands.)
    """
    gram = design.T @ design
    inverse = np.linalg.pinv(gram, hermitian=True)
    params = inverse @ design.T @ scores
    df = len(scores) - np.linalg.matrix_rank(gram, hermitian=True)
    ssr = float(np.sum((scores - design @ params) ** 2))
    told = df > 0 and ssr > 1e-18  # else the errors are nil: no scale is known
    rows: list[dict[str, object]] = []
    for weight in weights:
        row: dict[str, object] = dict.fromkeys(NUMBERS, np.nan)
        row["verdict"] = NOT_ESTIMABLE
        if np.allclose(gram @ inverse @ weight, weight, atol=1e-8):  # a combination of the runs
            estimate = float(weight @ params)
            row |= {"estimate": estimate, "verdict": "" if told else NO_SPREAD}
            if told:
                error = (weight @ inverse @ weight * ssr / df) ** 0.5
                half = float(stats.t.ppf(1 - ALPHA / 2, df)) * error
                row |= {"ci_low": estimate - half, "ci_high": estimate + half}
                row["p_value"] = 2 * float(stats.t.sf(abs(estimate) / error, df))
        rows.append(row)
    return rows
