"""Intervals beside the rows of a table, as page and notebook draw them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_variants.reporting.text import POINTS

_HEIGHT = 18  # pixels
_GROUND = "var(--ground, var(--jp-layout-color0, Canvas))"  # the page's, a notebook's


@dataclass(frozen=True)
class Forest:
    """An interval for each row on one scale; zero is in the middle."""

    reach: str  # the number at the right end
    svgs: Sequence[str]  # empty where a row has no estimate


def forest(
    rows: pd.DataFrame, names: Sequence[str], filled: pd.Series, margin: float = 0.0
) -> Forest:
    """Intervals on a scale that is symmetric about zero and ends at a number of one digit.

    Args:
        rows: has fractions.
        names: the columns of the estimate and of the ends of its interval.
        filled: whether the mark of each row is filled.
        margin: in points; differences within it are on a grey ground.
    """
    points = POINTS * rows[[*names]].astype(float)
    largest = float(np.nanmax(points.abs().to_numpy(), initial=margin)) or 1.0
    digit = 10.0 ** math.floor(math.log10(largest))
    reach = math.ceil(largest / digit) * digit
    middle, low, high = (50 + 50 * points[name] / reach for name in names)
    fills = filled.map({True: "currentColor", False: _GROUND})
    ends = zip(low.fillna(middle), middle, high.fillna(middle), fills, strict=True)
    return Forest(f"{reach:g}", [_svg(*row, 50 * margin / reach) for row in ends])


def _svg(low: float, at: float, high: float, fill: str, half: float) -> str:
    """A mark and its interval, in percent of the width; no style sheet is needed."""
    if math.isnan(at):
        return ""
    y = _HEIGHT // 2
    return (
        f'<svg width="100%" height="{_HEIGHT}" overflow="visible" stroke="currentColor" '
        f'stroke-width="2" aria-hidden="true">'
        f'<rect x="{50 - half:.1f}%" width="{2 * half:.1f}%" height="{_HEIGHT}" stroke="none" '
        f'fill="currentColor" opacity="0.12"/>'
        f'<line class="zero" x1="50%" x2="50%" y1="0" y2="{_HEIGHT}" stroke-width="1" '
        f'opacity="0.6"/>'
        f'<line x1="{low:.1f}%" x2="{high:.1f}%" y1="{y}" y2="{y}"/>'
        f'<circle cx="{at:.1f}%" cy="{y}" r="4" style="fill:{fill}"/></svg>'
    )
