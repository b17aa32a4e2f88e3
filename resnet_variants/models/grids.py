"""Lists of variants: from names, presets and products of choices, duplicates merged."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from resnet_variants.models.families import DOWNSAMPLES, FAMILIES, PRESETS
from resnet_variants.models.stems import STEM_STRIDES
from resnet_variants.models.variant import AXES, DESIGN, SUFFIX, Variant, named_in, token
from resnet_variants.registry import UserError, plain, refuse, require, sequence, shown

# Grid keys that set several fields at once.
BUNDLES: dict[str, Mapping[str, Mapping[str, object]]] = {
    "preset": PRESETS,
    "downsample": DOWNSAMPLES,
}
# In a grid the last key varies fastest.
_FIRST = ["family", "depth", "block"]
GRID_KEYS = [*_FIRST, *BUNDLES, *(name for name in AXES if name not in _FIRST), "preact"]


def preset(letter: str, **axes: object) -> Variant:
    """ResNet-A, -B, -C or -D: ``preset("D", depth=50, preact=True)``.

    ``axes`` are ``preact`` and the fields of ``Variant``; one that the letter sets too wins.

    Raises:
        ValueError: no such letter, axis or choice.
    """
    require("letter", letter, str, f"one of {', '.join(PRESETS)}")
    if "preset" in axes:
        raise UserError(f"preset {axes['preset']!r} beside {letter!r}: give one", field="preset")
    return variant_from({"preset": letter} | axes)


def variant_from(spec: Mapping[str, object]) -> Variant:
    """A variant from its fields, ``preset``, ``downsample`` and ``preact``.

    Raises:
        ValueError: an unknown key or choice, or ``preact`` beside ``order``.
    """
    axes: dict[str, object] = {}
    spec = {key: plain(value) for key, value in spec.items()}
    for key, value in spec.items():
        if key not in GRID_KEYS:
            refuse("axis", key, GRID_KEYS)
        if key in BUNDLES:
            require(key, value, str, f"one of {', '.join(BUNDLES[key])}")
            axes |= BUNDLES[key][cast(str, value)]
    axes |= {key: value for key, value in spec.items() if key in AXES}
    if "preact" in spec:
        if "order" in spec:
            raise UserError("give either preact or order: preact is the order 'preact'")
        if not isinstance(spec["preact"], bool):
            refuse("preact", spec["preact"], ["false", "true"])
        axes["order"] = "preact" if spec["preact"] else "post"
    return Variant(**cast("dict[str, Any]", axes))


MOST_CELLS = 1_000_000  # a cell with its name takes a kilobyte and 40 microseconds


def expand(grid: Mapping[str, object]) -> tuple[list[Variant], list[str]]:
    """The product of the grid's lists without duplicates, and a line on each cell merged away.

    Args:
        grid: values, or sequences of values, by key: the fields of ``Variant``, ``preset`` (A to
            D), ``downsample`` (1x1, 3x3, 3x3+avgpool) and ``preact``.

    Raises:
        ValueError: an unknown key or choice, or more than ``MOST_CELLS`` combinations.
    """
    for key in grid:
        if key not in GRID_KEYS:
            refuse("axis", key, GRID_KEYS)
    _count(grid)
    keys = [key for key in GRID_KEYS if key in grid]
    columns = [_values(grid[key]) for key in keys]
    specs = (dict(zip(keys, values, strict=True)) for values in itertools.product(*columns))
    return merge((variant_from(spec), _spelling(spec)) for spec in specs)


def cells(grid: Mapping[str, object]) -> int:
    """How many combinations the product has, duplicates included, without making them.

    Raises:
        ValueError: a list without values, or more than ``MOST_CELLS`` combinations.
    """
    for key, value in grid.items():
        if not _values(value):
            raise UserError(f"{key} has no values in the grid: name some, or leave it out")
    return _count(grid)


def _count(grid: Mapping[str, object]) -> int:
    try:
        lengths = {key: len(_values(value)) for key, value in grid.items()}
    except OverflowError:  # of a range
        raise UserError(f"a list of the grid has more than {sys.maxsize:,} values") from None
    count = math.prod(lengths.values())
    if count > MOST_CELLS:
        lists = " x ".join(f"{n:,} {key}" for key, n in lengths.items() if n > 1)
        message = f"the grid has {count:,} combinations ({lists}), and memory holds {MOST_CELLS:,}"
        raise UserError(message)
    return count


def _values(value: object) -> Sequence[object]:
    found = sequence(value)
    return [value] if found is None else found


def _spelling(spec: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in spec.items())


def merge(cells: Iterable[tuple[Variant, str]]) -> tuple[list[Variant], list[str]]:
    """Keep the first of equal variants; say of each later one what it is the same as."""
    kept: dict[Variant, str] = {}
    merged: list[str] = []
    for variant, spelling in cells:
        if variant in kept:
            merged.append(f"{spelling} is the same network as {kept[variant]}: {variant.name}")
        kept.setdefault(variant, spelling)
    return list(kept), merged


def grid(**axes: object) -> list[Variant]:
    """All combinations of the choices, duplicates merged: ``grid(depth=[50], stem=[...])``."""
    return expand(axes)[0]


# The 12 combinations of `--grid`; stem "" is the family's own single convolution.
FULL_GRID: dict[str, object] = {
    "stem": ["", "deep"],
    "downsample": list(DOWNSAMPLES),
    "order": ["post", "preact"],
}


# --- names ------------------------------------------------------------------------------------


def parse_name(name: str) -> Variant:
    """The variant called ``name`` (see ``Variant.name``).

    Raises:
        ValueError: not such a name, or another spelling of one; the message gives the right one.
    """
    spec, rest = _read_head(name)
    family = FAMILIES[str(spec.get("family", Variant.family))]
    other = "" if name.startswith("rv_resnet") else family.other_nets
    means = f"name {name!r}" + (f" means another network: {other}" if other else "")
    try:
        variant = variant_from(spec | _read_rest(name, rest))
    except UserError as error:
        if not other:
            raise
        raise UserError(means, field="name") from error
    if name not in (variant.name, *variant.aliases):
        ours = "; the one of this family is spelt" if other else " is spelt"
        raise UserError(f"{means}{ours} {variant.name!r}", field="name")
    return variant


def _read_rest(name: str, rest: list[str]) -> dict[str, object]:
    """The fields that the parts after a name's head say, as a grid spells them."""
    spec = _take(rest, "block", _tokens("block"))
    spec |= _take_groups(rest)
    spec |= _take(rest, "stem_stride", {f"s{stride}": stride for stride in STEM_STRIDES})
    if rest and re.fullmatch(r"s[0-9]+", rest[0]):
        steps = ", ".join(f"s{stride}" for stride in STEM_STRIDES)
        message = f"unknown stem stride in name {name!r}: {rest[0]!r}; choices: {steps}"
        raise UserError(message, field="name")
    letter = _take(rest, "preset", {key.lower(): key for key in PRESETS})
    spec |= letter
    for axis in () if letter else named_in(DESIGN):
        tokens = _tokens(axis)
        if not rest or rest[0] not in tokens:
            part = (rest or [""])[0]
            refuse(f"{axis} in name {name!r}:", part, tokens, field="name")
        spec |= _take(rest, axis, tokens)
    known = list[str]()
    for axis in named_in(SUFFIX):
        tokens = _tokens(axis)
        known += [token for token, choice in tokens.items() if choice != AXES[axis].default]
        spec |= _take(rest, axis, tokens)
    end = "_".join(rest)
    if rest and rest[0] in known:
        message = f"cannot read {end!r} at the end of name {name!r}: it stands earlier in a name"
        raise UserError(message, field="name")
    if rest:
        refuse(f"end of name {name!r}:", end, known, field="name")
    return spec


def _tokens(axis: str) -> dict[str, object]:
    """The choices of an axis by their spelling in names."""
    choices = AXES[axis].choices
    assert choices is not None, "an axis without choices is spelt in the head of a name"
    return {token(axis, choice): choice for choice in choices}


_MODEL = re.compile(
    r"rv_(?:resnet(?P<depth>\d{1,4})"
    r"|resnext(?P<next>\d{1,4})_(?P<cardinality>\d{1,5})x(?P<base_width>\d{1,5})d"
    r"|wide_resnet(?P<wide>\d{1,4})_(?P<times>\d{1,3}))(?=_|$)",
    re.ASCII,
)


def _read_head(name: str) -> tuple[dict[str, object], list[str]]:
    match = _MODEL.match(name) if isinstance(name, str) else None
    if not match:
        raise UserError(
            f"name {shown(name)} does not begin with rv_resnet<depth>, "
            "rv_resnext<depth>_<cardinality>x<width>d or rv_wide_resnet<depth>_<k>",
            field="name",
        )
    found = {key: int(value) for key, value in match.groupdict().items() if value}
    spec: dict[str, object] = {"depth": found.pop("next", 0) or found.pop("wide", 0)}
    spec |= found
    rest = name[match.end() :].split("_")[1:]
    tokens = {family.token: key for key, family in FAMILIES.items() if family.token}
    spec |= _take(rest, "family", tokens)
    if "times" in found:
        own = FAMILIES[str(spec.get("family", Variant.family))].widths[0]
        spec["base_width"] = own * found["times"]
        del spec["times"]
    return spec, rest


def _take_groups(rest: list[str]) -> dict[str, object]:
    """Read cardinality and base width where the family spells them so."""
    found: dict[str, object] = {}
    for axis, key in (("cardinality", "g"), ("base_width", "w")):
        match = re.fullmatch(rf"{key}([0-9]{{1,5}})", rest[0]) if rest else None
        if match:
            found[axis] = int(match[1])
            del rest[0]
    return found


def _take(rest: list[str], axis: str, tokens: Mapping[str, object]) -> dict[str, object]:
    """Read one token off the front of ``rest`` where it is a choice of the axis."""
    return {axis: tokens[rest.pop(0)]} if rest and rest[0] in tokens else {}
