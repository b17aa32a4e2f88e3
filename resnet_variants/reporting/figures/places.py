"""Where networks are drawn on the axis of a cost: the same in all figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import pareto_front
from resnet_variants.reporting.figures.style import COSTS
from resnet_variants.reporting.text import POINTS

_LITTLE = 0.02  # of itself; a cost that spans less tells no networks apart
_MANY = 20.0  # times as much, from where on costs are drawn on a logarithmic axis
_AROUND = (0.7, 1.3)  # times costs that are all alike: the ends of their axis


@dataclass(frozen=True)
class Band:
    """A part of the cost axis in which networks are side by side."""

    left: float
    right: float
    excess: float  # of the highest of their costs over the lowest


@dataclass(frozen=True)
class Places:
    """Where networks are drawn on a cost axis, in its units.

    Attributes:
        x: by the index of the costs.
        bands: of networks that are side by side; none of a measured cost.
        alike: the mean of costs that are nearly the same, else None.
        wide: whether the axis is logarithmic.
        noun: what is equal.
    """

    x: pd.Series
    bands: Sequence[Band]
    alike: float | None
    wide: bool
    noun: str

    @property
    def limits(self) -> tuple[float, float] | None:
        """The ends of an axis that says nothing of costs, as they are all alike."""
        return None if self.alike is None else (_AROUND[0] * self.alike, _AROUND[1] * self.alike)

    @property
    def notes(self) -> dict[str, str]:
        """What a legend says of the bands, and a caption of costs that are alike; else empty."""
        excess = POINTS * max((band.excess for band in self.bands), default=0.0)
        equal = f"{self.noun} equal to {excess:.1g} %" if excess else f"equal {self.noun}"
        return {
            "bands": f"{equal}, side by side" if self.bands else "",
            "alike": f"all have nearly the same {self.noun}"
            if self.alike is not None and len(self.x) > 1
            else "",
        }


def placed(costs: pd.Series, column: str) -> Places:
    """Where networks with these costs are drawn; exact costs that are equal are side by side."""
    _, scale, noun = COSTS[column]
    costs = costs.astype(float) * scale
    wide, alike = bool(costs.max() > _MANY * costs.min()), is_alike(costs)
    if not noun:
        return Places(costs, (), None, wide, noun)
    into, back = (np.log10, lambda x: 10**x) if wide else (np.array, np.array)
    own = pd.Series(into(costs), index=costs.index)
    if alike:
        own[:] = own.mean()
    step = _step(own)
    places = dodged(own).sort_values()
    groups = [group for _, group in places.groupby((places.diff() > 1.01 * step).cumsum())]
    bands = [
        Band(
            float(back(group.iloc[0] - 0.7 * step)),
            float(back(group.iloc[-1] + 0.7 * step)),
            _excess(costs[group.index]),
        )
        for group in groups
        if len(group) > 1
    ]
    x = pd.Series(back(places), index=places.index).reindex(costs.index)
    return Places(x, bands, float(costs.mean()) if alike else None, wide, noun)


def is_alike(costs: pd.Series) -> bool:
    """Whether costs tell no networks apart."""
    return _excess(costs) < _LITTLE


def _excess(costs: pd.Series) -> float:
    """How much more than the lowest cost the highest one is, as a part of it."""
    return float(costs.max() / costs.min()) - 1


def dodged(costs: pd.Series) -> pd.Series:
    """Costs, pushed apart in their order where markers would hide each other."""
    values = costs.to_numpy(float)
    step = _step(costs)
    order = np.argsort(values, kind="stable")
    clusters: list[list[float]] = []  # of neighbours that touch: their costs
    for value in values[order]:
        clusters.append([value])
        while len(clusters) > 1 and _start(clusters[-1], step) < _end(clusters[-2], step) + step:
            last = clusters.pop()
            clusters[-1] += last
    places = [_start(own, step) + step * i for own in clusters for i in range(len(own))]
    return pd.Series(np.array(places)[np.argsort(order)], index=costs.index)


def _step(costs: pd.Series) -> float:
    width = float(np.ptp(costs)) or 0.5 * float(costs.max())
    return width * min(0.035, 0.5 / len(costs))


def _start(cluster: list[float], step: float) -> float:
    return sum(cluster) / len(cluster) - step * (len(cluster) - 1) / 2


def _end(cluster: list[float], step: float) -> float:
    return _start(cluster, step) + step * (len(cluster) - 1)


def on_front(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The ranked networks on the Pareto front; none for training times, which are too noisy.

    (``bench`` interleaves its measurements of latency; a sweep does not interleave its runs.)
    """
    ranked = rows[rows["test_acc_common"].notna()]
    if column == "train_ms_per_image":
        return ranked[:0]
    return ranked[pareto_front(*ranked[[column, "test_acc_common"]].to_numpy(float).T)]
