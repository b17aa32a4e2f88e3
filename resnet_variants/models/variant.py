"""A point of the design space: its fields, its name, and lists of such points."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from resnet_variants.models.axes import (
    BLOCKS,
    DOWNSAMPLES,
    FAMILIES,
    ORDERS,
    PRESETS,
    SHORTCUTS,
    STEM_STRIDES,
    STEMS,
    STRIDES,
    Family,
)
from resnet_variants.registry import Registry, UserError, refuse, require_types


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network without its weights; valid by construction, equal exactly when the same network.

    An empty string or a zero stands for the family's own choice and is replaced by it. A stride
    placement that the block has no convolution for (``1x1`` on basic blocks) becomes the one that
    the block has, so that ResNet-A and ResNet-B of basic blocks are equal.

    Raises:
        ValueError: a field has no such choice; the message names field, value and choices.
    """

    family: str = "imagenet"
    depth: int = 0
    block: str = ""
    stem: str = ""
    stem_stride: int = 0
    stride: str = "3x3"
    shortcut: str = "conv"
    order: str = "post"

    def __post_init__(self) -> None:
        require_types(self)
        family: Family = FAMILIES[self.family]
        self._set("depth", self.depth or family.default_depth)
        if self.depth not in family.layouts:
            raise UserError(
                f"unknown depth {self.depth!r} for family {self.family!r}; "
                f"choices: {family.depths_text}",
                field="depth",
            )
        blocks = family.layouts[self.depth]
        self._set("block", self.block or next(iter(blocks)))
        if self.block not in blocks:
            what = f"block for depth {self.depth} of family {self.family!r}"
            refuse(what, self.block, blocks, field="block")
        self._set("stem", self.stem or family.stem)
        self._set("stem_stride", self.stem_stride or family.stem_stride)
        for table, value in ((STEMS, self.stem), (SHORTCUTS, self.shortcut), (ORDERS, self.order)):
            table[value]
        if self.stem_stride not in STEM_STRIDES:
            refuse("stem_stride", self.stem_stride, STEM_STRIDES)
        kernels = BLOCKS[self.block].kernels
        if STRIDES[self.stride] not in kernels:
            self._set("stride", next(s for s, kernel in STRIDES.items() if kernel in kernels))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def units(self) -> tuple[int, ...]:
        """Residual units per stage."""
        return FAMILIES[self.family].layouts[self.depth][self.block]

    @property
    def presets(self) -> list[str]:
        """The letters that spell this network: none, one, or A and B alike for basic blocks."""
        return [letter for letter, axes in PRESETS.items() if replace(self, **axes) == self]

    @property
    def preset(self) -> str:
        """ResNet-A to D, or an empty string; B where A is the same network."""
        return (self.presets or [""])[-1]

    @property
    def name(self) -> str:
        """The one name of this network, a legal timm name; ``parse_name`` inverts it.

        ``rv_resnet<depth>[_<family>][_<block>][_s<stem stride>]_<design>[_<order>]`` where a part
        equal to the family's own choice is left out, ``<design>`` is a preset letter or, for any
        other cell, ``<stem>_<stride>_<shortcut>``, and the order is left out where it is ``post``.
        """
        return self._spell(self.preset.lower())

    @property
    def aliases(self) -> list[str]:
        """Other names that ``parse_name`` and timm accept for this network."""
        return [self._spell(letter.lower()) for letter in self.presets[:-1]]

    def _spell(self, letter: str) -> str:
        family: Family = FAMILIES[self.family]
        own = Variant(family=self.family, depth=self.depth)
        parts = [
            "rv",
            f"resnet{self.depth}",
            family.token,
            self.block if self.block != own.block else "",
            f"s{self.stem_stride}" if self.stem_stride != own.stem_stride else "",
            *([letter] if letter else map(_token, (self.stem, self.stride, self.shortcut))),
            _token(self.order) if self.order != own.order else "",
        ]
        return "_".join(part for part in parts if part)


def _token(choice: str) -> str:
    return choice.replace("_", "")


def preset(letter: str, **axes: object) -> Variant:
    """ResNet-A, -B, -C or -D: ``preset("D", depth=50, preact=True)``.

    ``axes`` are ``preact`` and the fields of ``Variant``; one that the letter sets too wins.

    Raises:
        ValueError: no such letter, axis or choice.
    """
    return variant_from({"preset": letter} | axes)


# --- names ------------------------------------------------------------------------------------


def parse_name(name: str) -> Variant:
    """The variant called ``name`` (see ``Variant.name``).

    Raises:
        ValueError: not such a name, or another spelling of one; the message gives the right one.
    """
    spec, rest = _read_head(name)
    spec |= _take(rest, "block", BLOCKS)
    spec |= _take(rest, "stem_stride", {f"s{stride}": stride for stride in STEM_STRIDES})
    letter = _take(rest, "preset", {key.lower(): key for key in PRESETS})
    spec |= letter
    if not letter:
        for axis, table in (("stem", STEMS), ("stride", STRIDES), ("shortcut", SHORTCUTS)):
            found = _take(rest, axis, table)
            if not found:
                token = (rest or [""])[0]
                refuse(f"{axis} in name {name!r}:", token, map(_token, table), field="name")
            spec |= found
    spec |= _take(rest, "order", ORDERS)
    if rest:
        end = "_".join(rest)
        raise UserError(f"cannot read {end!r} at the end of name {name!r}", field="name")
    variant = variant_from(spec)
    if name not in (variant.name, *variant.aliases):
        raise UserError(f"name {name!r} is spelt {variant.name!r}", field="name")
    return variant


def _read_head(name: str) -> tuple[dict[str, object], list[str]]:
    prefix, _, tail = name.partition("_")
    model, *rest = tail.split("_")
    digits = model.removeprefix("resnet")
    if prefix != "rv" or not re.fullmatch(r"resnet[0-9]{1,4}", model):
        raise UserError(f"name {name!r} does not begin with rv_resnet<depth>", field="name")
    spec: dict[str, object] = {"depth": int(digits)}
    tokens = {family.token: key for key, family in FAMILIES.items() if family.token}
    return spec | _take(rest, "family", tokens), rest


def _take(rest: list[str], axis: str, choices: Mapping[str, object]) -> dict[str, object]:
    """Read one token off the front of ``rest`` where it is a choice of the axis."""
    for choice, value in choices.items():
        if rest and rest[0] == _token(choice):
            del rest[0]
            # A table's key is the field's value; a mapping made for names carries it.
            return {axis: choice if isinstance(choices, Registry) else value}
    return {}


# --- grids ------------------------------------------------------------------------------------

# Grid keys that set several fields at once.
BUNDLES: dict[str, Mapping[str, Mapping[str, object]]] = {
    "preset": PRESETS,
    "downsample": DOWNSAMPLES,
}
_FIELDS = [field.name for field in fields(Variant)]
# In a grid the last key varies fastest.
GRID_KEYS = [*_FIELDS[:3], *BUNDLES, *_FIELDS[3:], "preact"]


def variant_from(spec: Mapping[str, object]) -> Variant:
    """A variant from its fields, ``preset``, ``downsample`` and ``preact``.

    Raises:
        ValueError: an unknown key or choice, or ``preact`` beside ``order``.
    """
    axes: dict[str, object] = {}
    for key, value in spec.items():
        if key not in GRID_KEYS:
            refuse("axis", key, GRID_KEYS)
        if key in BUNDLES:
            axes |= BUNDLES[key][str(value)]
    axes |= {key: value for key, value in spec.items() if key in _FIELDS}
    if "preact" in spec:
        if "order" in spec:
            raise UserError("give either preact or order: preact is the order 'preact'")
        if not isinstance(spec["preact"], bool):
            refuse("preact", spec["preact"], ["false", "true"])
        axes["order"] = "preact" if spec["preact"] else "post"
    return Variant(**cast("dict[str, Any]", axes))


def expand(grid: Mapping[str, object]) -> tuple[list[Variant], list[str]]:
    """The product of the grid's lists without duplicates, and a line on each cell merged away.

    Args:
        grid: values, or lists of values, by key: the fields of ``Variant``, ``preset`` (A to D),
            ``downsample`` (1x1, 3x3, 3x3+avgpool) and ``preact``.
    """
    for key in grid:
        if key not in GRID_KEYS:
            refuse("axis", key, GRID_KEYS)
    keys = [key for key in GRID_KEYS if key in grid]
    columns = [_as_list(grid[key]) for key in keys]
    specs = [dict(zip(keys, values, strict=True)) for values in itertools.product(*columns)]
    return merge((variant_from(spec), _spelling(spec)) for spec in specs)


def _as_list(value: object) -> list[object]:
    return list(cast("Sequence[object]", value)) if isinstance(value, list | tuple) else [value]


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
