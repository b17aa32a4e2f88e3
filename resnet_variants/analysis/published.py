"""What papers report for the same change: effects beside ours, never levels.

``published.csv`` has the accuracies that the effects are taken from, with table and confidence. A
paper's comparison is the same as ours if one axis changes between the same two choices and nothing
else does; data set, depth, recipe and crops are the paper's own, and are named beside the number.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from importlib import resources

_PARTS = ("stem", "stride", "shortcut", "order")
_SIZE = ("family", "depth", "block", "stem_stride")


@functools.cache
def published() -> tuple[dict[str, str], ...]:
    """The rows of ``published.csv``; ``top1_acc`` is in percent."""
    file = resources.files("resnet_variants.analysis").joinpath("published.csv")
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def paper_effect(
    model: Mapping[str, object], baseline: Mapping[str, object]
) -> tuple[float, str] | None:
    """What a paper found for the change from ``baseline`` to ``model``, and where.

    Of several depths it is the nearest.

    Args:
        model: ``records.VARIANT_COLUMNS``.
        baseline: the same of the other network.

    Returns:
        The difference as a fraction of 1 and its source, or ``None`` where no table has it.
    """
    change = _change(model, baseline)
    if change is None:
        return None
    axis, level, base = change
    rows = [row for row in published() if row["axis"] == axis]
    places = ("source", "table", "dataset", "depth")
    before = {tuple(row[key] for key in places): row for row in rows if row["level"] == base}
    both = [
        (row, before[place])
        for row in rows
        if row["level"] == level and (place := tuple(row[key] for key in places)) in before
    ]
    if not both:
        return None
    depth = int(str(model["depth"]))
    row, other = min(both, key=lambda pair: abs(math.log(int(pair[0]["depth"]) / depth)))
    delta = (float(row["top1_acc"]) - float(other["top1_acc"])) / 100
    where = f"ResNet-{row['depth']}, {row['dataset']}, {row['source']} {row['table']}"
    return round(delta, 6), where


def _change(
    model: Mapping[str, object], baseline: Mapping[str, object]
) -> tuple[str, str, str] | None:
    """The one axis that differs, with both choices; a step of presets counts as one."""
    if any(model[name] != baseline[name] for name in _SIZE):
        return None
    differ = [name for name in _PARTS if model[name] != baseline[name]]
    presets = str(model["preset"]), str(baseline["preset"])
    if all(presets) and presets[0] != presets[1] and "order" not in differ:
        return "preset", *presets
    if len(differ) == 1 and differ[0] in ("order", "shortcut"):
        return differ[0], str(model[differ[0]]), str(baseline[differ[0]])
    return None
