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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.analysis.factors import factors, is_complete
from resnet_variants.analysis.statistics import estimate
from resnet_variants.analysis.verdicts import BETTER, WORSE, Plan, with_verdicts

EFFECT_COLUMNS = (
    *("kind", "effect", "contrast", "estimate", "ci_low", "ci_high"),
    *("p_value", "p_adjusted", "verdict", "cells", "seeds", "model", "detectable", "more_seeds"),
)
MAIN, INTERACTION, SIMPLE = "main", "interaction", "simple"
DEPENDS = "depends"  # verdict on a main effect that is no answer: see its simple effects
TOGETHER = {BETTER: "above the sum", WORSE: "below the sum"}  # of what both do alone
CROSSED, ADDITIVE = "crossed", "additive"
NOT_ESTIMABLE = "not estimable: cells are missing"


def effects(
    cells: pd.DataFrame, scores: pd.DataFrame, baselines: Mapping[str, str], plan: Plan
) -> pd.DataFrame:
    """One row per effect: ``EFFECT_COLUMNS``; empty where nothing varies.

    A main effect is the difference between two choices of an axis. An interaction is how much
    larger that difference is under another choice of a second axis. Both are against the choices of
    the most frequent baseline. Estimates and intervals are of accuracy, in [-1, 1]. The verdict of
    an interaction says whether both choices together are above the sum of their single effects.

    An average over what differs is no answer: where an interaction has a verdict, or is larger than
    a main effect that has one, the main effect's verdict is ``DEPENDS``. Its simple effects follow,
    the same difference within each choice of the other axis. Main effects and interactions are
    adjusted together, and so are all simple effects, shown or not.

    Args:
        cells: one row per network, with its axes.
        scores: test accuracy without gaps, (seeds, models).
        baselines: model name -> name of the model it is compared with.
        plan: what was fixed before the first run.
    """
    scored = cells[cells["model"].isin(scores.columns)].set_index("model")
    levels = factors(scored) if len(scored) else pd.DataFrame()
    if levels.empty:
        return pd.DataFrame(columns=[*EFFECT_COLUMNS])
    names = [baselines.get(str(model), "") for model in levels.index]
    usual, _ = Counter(names).most_common(1)[0]
    at = list(levels.index).index(usual) if usual in levels.index else 0
    base = {str(axis): str(level) for axis, level in levels.iloc[at].items()}
    values = scores[levels.index]
    crossed = is_complete(levels)
    frame = _judged((_crossed if crossed else _additive)(levels, base), values, plan)
    if crossed:
        frame = _with_simple_effects(frame, _judged(_simple(levels, base), values, plan))
    together = frame["kind"] == INTERACTION
    frame.loc[together, "verdict"] = frame.loc[together, "verdict"].replace(TOGETHER, regex=True)
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
    axes: tuple[str, ...]
    mains: tuple[tuple[str, str], ...] = ()  # effect and contrast of the main effects behind it


def _judged(contrasts: Sequence[_Contrast], scores: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The contrasts with their estimates over the seeds, and their verdicts as of one table.

    The standard deviation of a contrast is taken to be that of a sum of independent scores.
    """
    rows, differences, scales = [], [], []
    for contrast in contrasts:
        weights = contrast.weights
        known = weights is not None
        own = scores @ weights if known else pd.Series(dtype=float)
        limits = (weights.clip(max=0).sum(), weights.clip(min=0).sum()) if known else (-1.0, 1.0)
        effect = estimate(own.to_numpy(float), limits)
        rows.append(
            {
                "kind": contrast.kind,
                "effect": contrast.effect,
                "contrast": contrast.contrast,
                "estimate": effect.mean,
                "ci_low": effect.low,
                "ci_high": effect.high,
                "seeds": len(own),
                "axes": contrast.axes,
                "mains": contrast.mains,
            }
        )
        differences.append(own)
        scales.append(np.linalg.norm(weights) if known else 1.0)
    if not rows:
        return pd.DataFrame(columns=["kind", "axes", "mains"])
    return with_verdicts(pd.DataFrame(rows), differences, plan, np.array(scales))


def _with_simple_effects(frame: pd.DataFrame, simple: pd.DataFrame) -> pd.DataFrame:
    """Main effects that depend on another axis get that verdict and are followed by simple ones."""
    main, interactions = (frame[frame["kind"] == kind] for kind in (MAIN, INTERACTION))
    parts = []
    for at, row in main.iterrows():
        name = (row["effect"], row["contrast"])
        is_own, is_simple = (
            np.array([name in mains for mains in table["mains"]], bool)
            for table in (interactions, simple)
        )
        decided = interactions["verdict"].str.startswith((BETTER, WORSE))
        if row["verdict"].startswith((BETTER, WORSE)):
            decided |= interactions["estimate"].abs() > abs(row["estimate"])
        axes = {*itertools.chain.from_iterable(interactions.loc[is_own & decided, "axes"])}
        is_simple &= np.array([axes.issuperset(own) for own in simple["axes"]], bool)
        part = main.loc[[at]]
        parts += [part.assign(verdict=DEPENDS), simple[is_simple]] if axes else [part]
    return pd.concat([*parts, interactions], ignore_index=True)


def _crossed(levels: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """Every main effect and interaction of two axes, by means over the cells of a whole product."""
    others = [*_others(levels, base)]
    contrasts = [
        _Contrast(MAIN, a, f"{x} - {base[a]}", _gain(levels, base, a, x), (a,)) for a, x in others
    ]
    for (a, x), (b, y) in itertools.combinations(others, 2):
        if a != b:
            one, other = f"{x} - {base[a]}", f"{y} - {base[b]}"
            gains = [_gain(levels, base, a, x, **{b: level}) for level in (y, base[b])]
            contrasts.append(
                _Contrast(
                    kind=INTERACTION,
                    effect=f"{a} x {b}",
                    contrast=f"({one}) x ({other})",
                    weights=gains[0] - gains[1],
                    axes=(a, b),
                    mains=((a, one), (b, other)),
                )
            )
    return contrasts


def _simple(levels: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """The difference between two choices of an axis within each choice of another axis."""
    return [
        _Contrast(
            kind=SIMPLE,
            effect=f"{a} ({b} {level})",
            contrast=f"{x} - {base[a]}",
            weights=_gain(levels, base, a, x, **{b: str(level)}),
            axes=(a, b),
            mains=((a, f"{x} - {base[a]}"),),
        )
        for a, x in _others(levels, base)
        for b in map(str, levels)
        if b != a
        for level in levels[b].unique()
    ]


def _gain(
    levels: pd.DataFrame, base: Mapping[str, str], axis: str, choice: str, **within: str
) -> np.ndarray:
    """The weights of the cells in the mean with ``choice`` minus the mean with the base's."""

    def mean(level: str) -> np.ndarray:
        chosen = within | {axis: level}
        rows = np.all([levels[name] == value for name, value in chosen.items()], axis=0)
        return rows / rows.sum()

    return mean(choice) - mean(base[axis])


def _additive(levels: pd.DataFrame, base: Mapping[str, str]) -> list[_Contrast]:
    """The main effects by least squares: a constant, and a coefficient per choice."""
    others = list(_others(levels, base))
    columns = [np.ones(len(levels)), *((levels[a] == level).to_numpy(float) for a, level in others)]
    matrix = np.column_stack(columns)
    inverse = np.linalg.pinv(matrix)
    # A coefficient that is no combination of the cells is one of many that fit as well.
    wrong = np.abs(inverse @ matrix - np.eye(len(columns))).max(axis=1) > 1e-8
    return [
        _Contrast(MAIN, a, f"{level} - {base[a]}", None if wrong[i] else inverse[i], (a,))
        for i, (a, level) in enumerate(others, start=1)
    ]


def _others(levels: pd.DataFrame, base: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each axis with each of its choices that are not the base's."""
    for axis in map(str, levels):
        for level in levels[axis].unique():
            if level != base[axis]:
                yield axis, str(level)
