"""What papers report for the same change: effects beside ours, never levels.

``published.csv`` has the accuracies that the effects are taken from, with table and confidence. A
paper's comparison is the same as ours if one axis changes between the same two choices, nothing
else does, and the rest is what the paper had (``_REST``). Recipe and crops are the paper's own;
data set and depth are named beside the number.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Mapping
from importlib import resources

from resnet_variants.models.variant import FURTHER, MAIN, SIZE, shown_as

_PARTS = shown_as(MAIN)
_SAME = shown_as(SIZE, FURTHER)
_PLAIN = ("conv3", "conv7")
_BASIC = {"imagenet": (18, 34), "cifar": (20, 32, 44, 56, 110)}  # depths of basic blocks
# What the networks of the papers are beside the axis that changes.
_REST: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "preset": {"order": ("post",)},
    "order": {"stem": _PLAIN, "shortcut": ("conv", "pad")},
    "shortcut": {"stem": _PLAIN, "order": ("post",)},
}


@functools.cache
def published() -> tuple[dict[str, str], ...]:
    """The rows of ``published.csv``; ``top1_acc`` is in percent."""
    file = resources.files("resnet_variants.analysis").joinpath("published.csv")
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def paper_effect(
    model: Mapping[str, object], baseline: Mapping[str, object]
) -> tuple[float, str] | None:
    """What a paper found for the change from ``baseline`` to ``model``, and where.

    Of several it is the one on the same data set, of the same family and block, at the nearest
    depth.

    Args:
        model: a row of ``summary.SUMMARY_COLUMNS``.
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
    row, other = min(both, key=lambda pair: _distance(pair[0], model))
    delta = (float(row["top1_acc"]) - float(other["top1_acc"])) / 100
    where = f"ResNet-{row['depth']}, {row['dataset']}, {row['source']} {row['table']}"
    return round(delta, 6), where


def _distance(row: Mapping[str, str], model: Mapping[str, object]) -> tuple[bool, bool, float]:
    """How far a paper's experiment is from ours: data set, then family, then depth."""
    name = row["dataset"].lower().replace("-", "-?")
    own = re.sub("^(folder|timm)-((torch|tfds|hfds)-)?", "", str(model["dataset"]).lower())
    same = re.match(rf"{name}(?!\w|-\d)", own)
    family = "cifar" if row["dataset"].startswith("CIFAR") else "imagenet"
    depths = int(row["depth"]), int(str(model["depth"]))
    other = family != model["family"] or _block(family, depths[0]) != model["block"]
    return not same, other, abs(math.log(depths[0] / depths[1]))


def _block(family: str, depth: int) -> str:
    """The papers' block at a depth."""
    return "basic" if depth in _BASIC[family] else "bottleneck"


def _change(
    model: Mapping[str, object], baseline: Mapping[str, object]
) -> tuple[str, str, str] | None:
    """The one axis that differs, with both choices; a step of presets counts as one."""
    if not all(_equal(model[name], baseline[name]) for name in _SAME):
        return None
    differ = [name for name in _PARTS if model[name] != baseline[name]]
    presets = str(model["preset"]), str(baseline["preset"])
    if "stem" in differ and model["family"] != "imagenet":
        return None  # the papers' deep stem takes the place of a 7x7
    if all(presets) and presets[0] != presets[1]:
        axis, change = "preset", presets
    elif len(differ) == 1:
        axis, change = differ[0], (str(model[differ[0]]), str(baseline[differ[0]]))
    else:
        return None
    rest = _REST.get(axis, {})
    alike = all(own[name] in rest[name] for own in (model, baseline) for name in rest)
    return (axis, *change) if alike else None


def _equal(a: object, b: object) -> bool:
    return a == b or (a != a and b != b)  # NaN: an older table lacks the axis
