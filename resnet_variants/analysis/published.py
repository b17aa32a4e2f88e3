"""What papers and model zoos report for the same change: effects beside ours, never levels.

``published.csv`` has the accuracies that the effects are taken from, with table and confidence. A
published comparison is the same as ours if the same axis changes between the same two choices and
nothing else does, and if both of our networks meet what ``rest`` says of theirs
(``axis=choice|choice``). The recipe is their own and stands in ``recipe`` as far as it tells
experiments of one table apart. The level ``on`` is any value but the one that turns a thing off.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Collection, Mapping
from importlib import resources

from resnet_variants.models.families import FAMILIES
from resnet_variants.models.variant import AXES, MAIN, shown_as

_PARTS = {*shown_as(MAIN)}
_GROUPS = ("cardinality", "base_width")  # as the level 32x4
_ON, _OFF = "on", ("", "0.0", "False", "none")
PLACE = ("source", "table", "dataset", "depth", "recipe", "rest")


@functools.cache
def published() -> tuple[dict[str, str], ...]:
    """The rows of ``published.csv``; ``top1_acc`` is in percent."""
    file = resources.files("resnet_variants.analysis").joinpath("published.csv")
    return tuple(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def paper_effect(
    model: Mapping[str, object], baseline: Mapping[str, object], settings: Collection[str] = ()
) -> tuple[float, str] | None:
    """What was published for the change from ``baseline`` to ``model``, and where.

    Of several it is the one with our values rather than ``on``, on the same data set, of the same
    family and block, at the nearest depth.

    Args:
        model: a row of ``summary.SUMMARY_COLUMNS`` and a column of text for each of ``settings``.
        baseline: the same of the other arm.
        settings: the settings of the recipe that vary.

    Returns:
        The difference as a fraction of 1 and its source, or ``None`` where no table has it.
    """
    change = _change(model, baseline, settings)
    if change is None:
        return None
    axis, level, base = change
    rows = [row for row in published() if row["axis"] == axis and _rest_is(row, model, baseline)]
    before = {_place(row): row for row in rows if _is(row, base)}
    both = [(row, before[_place(row)]) for row in rows if _is(row, level) and _place(row) in before]
    if not both:
        return None
    row, other = min(
        both,
        key=lambda pair: (_ON in (pair[0]["level"], pair[1]["level"]), *_distance(pair[0], model)),
    )
    delta = (float(row["top1_acc"]) - float(other["top1_acc"])) / 100
    network = f"ResNet-{row['depth']}" if row["depth"] else "ResNet"
    recipe = f" ({row['recipe']})" if row["recipe"] else ""
    return round(delta, 6), f"{network}, {row['dataset']}, {row['source']} {row['table']}{recipe}"


def _place(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[key] for key in PLACE)


def _is(row: Mapping[str, str], level: str) -> bool:
    return row["level"] == level or (row["level"] == _ON and level not in _OFF)


def _rest_is(row: Mapping[str, str], *arms: Mapping[str, object]) -> bool:
    """Whether both arms are what the published networks are beside the axis that changes."""
    rest = dict(part.split("=") for part in row["rest"].split())
    return all(str(arm[axis]) in rest[axis].split("|") for arm in arms for axis in rest)


def _distance(row: Mapping[str, str], model: Mapping[str, object]) -> tuple[bool, bool, float]:
    """How far a published experiment is from ours: data set, then family, then depth."""
    name = row["dataset"].lower().replace("-", "-?")
    own = re.sub("^(folder|timm)-((torch|tfds|hfds)-)?", "", str(model["dataset"]).lower())
    same = re.match(rf"{name}(?!\w|-\d)", own)
    depth = int(row["depth"] or row["level"])
    family = "imagenet" if depth in FAMILIES["imagenet"].layouts else "cifar"
    block = next(iter(FAMILIES[family].layouts[depth]))
    other = (family, block) != (model["family"], model["block"])
    return not same, other, abs(math.log(depth / int(str(model["depth"]))))


def _change(
    model: Mapping[str, object], baseline: Mapping[str, object], settings: Collection[str]
) -> tuple[str, str, str] | None:
    """The one axis that differs, with both choices; a step of presets counts as one."""
    differ = {name for name in (*AXES, *settings) if not _equal(model[name], baseline[name])}
    if "stem" in differ and model["family"] != "imagenet":
        return None  # the published deep stem takes the place of a 7x7
    presets = str(model["preset"]), str(baseline["preset"])
    if differ <= _PARTS and all(presets) and presets[0] != presets[1]:
        return ("preset", *presets)
    if "depth" in differ and differ <= {"depth", "block"}:
        return "depth", str(model["depth"]), str(baseline["depth"])
    if differ and differ <= {*_GROUPS}:
        own, base = ("x".join(str(arm[name]) for name in _GROUPS) for arm in (model, baseline))
        return "groups", own, base
    if len(differ) != 1:
        return None
    (axis,) = differ
    return axis, str(model[axis]), str(baseline[axis])


def _equal(a: object, b: object) -> bool:
    return a == b or (a != a and b != b)  # NaN: an older table lacks the axis
