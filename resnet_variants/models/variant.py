"""A point of the design space: its fields, and its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, BLOCKS, ORDERS, STRIDES
from resnet_variants.models.families import FAMILIES, PRESETS, Family
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS, plain
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.registry import Registry, UserError, refuse, require_types

# The table of each axis whose choices are named: validation, names and flags read it.
AXES: Mapping[str, Registry[Any]] = {
    "family": FAMILIES,
    "block": BLOCKS,
    "stem": STEMS,
    "stride": STRIDES,
    "shortcut": SHORTCUTS,
    "order": ORDERS,
    "skip": SKIPS,
    "attention": ATTENTIONS,
    "antialias": ANTIALIASES,
}
# Where every shortcut reads what the branch reads, and no pool stands between stem and first unit,
# these orders only cut the same sequence of layers into units elsewhere.
_WITHOUT_IDENTITY = {"relu_preact": "post", "bn_after_add": "preact"}
WIDEST = 2**14  # channels of a 3x3 convolution beyond it are slips of the finger


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network without its weights; valid by construction, equal exactly when the same network.

    An empty string or a zero stands for the family's own choice and is replaced by it. Other
    spellings of one network become one: a stride placement that the block has no convolution for
    (``1x1`` on basic blocks) the one that it has, so that ResNet-A and -B of basic blocks are
    equal; the skip function ``conv`` the shortcut ``conv_all``, and that ``conv`` in a net whose
    every unit changes shape; where no shortcut is the identity and no pool follows the stem,
    ``relu_preact`` is ``post`` and ``bn_after_add`` is ``preact``. Equal means for any activation:
    with a pool the first two coincide for ReLU alone, and are two.

    Raises:
        ValueError: a field has no such choice, or it does not go with another field; the message
            names fields, values and choices.
    """

    family: str = "imagenet"
    depth: int = 0
    block: str = ""
    stem: str = ""
    stem_stride: int = 0
    stride: str = "3x3"
    shortcut: str = "conv"
    order: str = "post"
    skip: str = "identity"
    cardinality: int = 1  # groups of a bottleneck's 3x3 convolution (ResNeXt, arXiv:1611.05431)
    base_width: int = 0  # channels per group in the first stage (ResNeXt; Wide ResNet)
    attention: str = "none"
    antialias: str = "none"

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
        self._set("stem_stride", self.stem_stride or family.stem_stride)
        if self.stem_stride not in STEM_STRIDES:
            refuse("stem_stride", self.stem_stride, STEM_STRIDES)
        self._set("base_width", self.base_width or family.widths[0])
        for axis, table in AXES.items():
            self._set(axis, self._own(axis, getattr(self, axis)))
            table[getattr(self, axis)]
        self._check_groups(family)
        self._check_shortcut(family)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _own(self, axis: str, choice: str) -> str:
        """What a choice is in this family and for this block."""
        if axis == "stem":
            return choice or FAMILIES[self.family].stem
        kernels = BLOCKS[self.block].kernels
        if axis == "stride" and STRIDES[choice] not in kernels:
            return next(other for other, kernel in STRIDES.items() if kernel in kernels)
        return choice

    def _check_groups(self, family: Family) -> None:
        for field in ("cardinality", "base_width"):
            value = getattr(self, field)
            if not 1 <= value <= WIDEST:
                raise UserError(f"{field} {value} must be from 1 to {WIDEST}", field=field)
        if self.inner_width(family.widths[-1]) > WIDEST:
            raise UserError(
                f"cardinality {self.cardinality} x base_width {self.base_width} makes 3x3 "
                f"convolutions of more than {WIDEST} channels",
                field="base_width",
            )
        narrow = BLOCKS[self.block].expansion > 1
        if not narrow and (self.cardinality, self.base_width) != (1, family.widths[0]):
            raise UserError(
                f"cardinality and base_width are those of a bottleneck's 3x3 convolution; depth "
                f"{self.depth} of family {self.family!r} has {self.block} blocks",
                field="cardinality" if self.cardinality != 1 else "base_width",
            )

    def _check_shortcut(self, family: Family) -> None:
        if self.is_plain:
            self._check_plain()
        if self.skip == "conv":
            if self.shortcut not in ("conv", "conv_all", "pad"):
                message = "skip 'conv' is the shortcut 'conv_all': it does not go with shortcut "
                raise UserError(f"{message}{self.shortcut!r}", field="skip")
            self._set("shortcut", "conv_all")
            self._set("skip", type(self).skip)
        stem = STEMS[self.stem](family.widths[0], 1)[-1].width
        first = family.widths[0] * BLOCKS[self.block].expansion
        if self.shortcut == "pad" and stem > first:
            raise UserError(
                f"shortcut 'pad' only adds channels: stem {self.stem!r} has {stem}, the first "
                f"stage {first}",
                field="shortcut",
            )
        every_unit_changes_shape = stem != first and max(self.units) == 1
        if every_unit_changes_shape and self.shortcut == "conv_all":
            self._set("shortcut", "conv")
        has_identity = not (every_unit_changes_shape or self.shortcut == "conv_all")
        if not (has_identity or self.is_plain or STEM_STRIDES[self.stem_stride].pool):
            self._set("order", _WITHOUT_IDENTITY.get(self.order, self.order))

    def _check_plain(self) -> None:
        if self.order != type(self).order:
            raise UserError(
                f"a plain net is conv-norm-act throughout: shortcut 'none' goes with order "
                f"{type(self).order!r}, not {self.order!r}",
                field="order",
            )
        if self.skip != type(self).skip:
            message = f"skip {self.skip!r} acts on a shortcut, and shortcut 'none' has none"
            raise UserError(message, field="skip")

    @property
    def is_plain(self) -> bool:
        """Whether no unit has a shortcut."""
        return SHORTCUTS[self.shortcut] is plain

    @property
    def units(self) -> tuple[int, ...]:
        """Residual units per stage."""
        return FAMILIES[self.family].layouts[self.depth][self.block]

    def inner_width(self, stage_width: int) -> int:
        """Channels of the 3x3 convolutions in a stage (arXiv:1611.05431, section 3)."""
        return stage_width * self.base_width // FAMILIES[self.family].widths[0] * self.cardinality

    @cached_property
    def presets(self) -> list[str]:
        """The letters that spell this network: none, one, or A and B alike for basic blocks."""
        return [
            letter
            for letter, axes in PRESETS.items()
            if all(self._own(axis, axes[axis]) == getattr(self, axis) for axis in axes)
        ]

    @property
    def preset(self) -> str:
        """ResNet-A to D, or an empty string; B where A is the same network."""
        return (self.presets or [""])[-1]

    @cached_property
    def name(self) -> str:
        """The one name of this network, a legal timm name; ``parse_name`` inverts it.

        ``rv_<model>[_<family>][_<block>][_<groups>][_s<stem stride>]_<design>[_<order>][_<skip>]
        [_<attention>][_<antialias>]`` where a part equal to the default is left out and

        - ``<model>`` is ``resnet<depth>``; ``resnext<depth>_<cardinality>x<base width>d``; or, with
          one group k times as wide as the family's own, ``wide_resnet<depth>_<k>``;
        - ``<groups>`` is ``[g<cardinality>][_w<base width>]`` where ``resnext`` and ``wide_resnet``
          are names of other networks, as in the family ``cifar``;
        - ``<design>`` is a preset letter or, for any other cell, ``<stem>_<stride>_<shortcut>``.
        """
        return self._spell(self.preset.lower())

    @property
    def aliases(self) -> list[str]:
        """Other names that ``parse_name`` and timm accept for this network."""
        return [self._spell(letter.lower()) for letter in self.presets[:-1]]

    def _spell(self, letter: str) -> str:
        family: Family = FAMILIES[self.family]
        block = next(iter(family.layouts[self.depth]))
        parts = [
            "rv",
            self._model(family),
            family.token,
            self.block if self.block != block else "",
            *self._groups(family),
            f"s{self.stem_stride}" if self.stem_stride != family.stem_stride else "",
            *([letter] if letter else (token(getattr(self, axis)) for axis in DESIGN)),
            *(
                token(getattr(self, axis)) if getattr(self, axis) != _DEFAULTS[axis] else ""
                for axis in SUFFIXES
            ),
        ]
        return "_".join(part for part in parts if part)

    def _model(self, family: Family) -> str:
        times, rest = divmod(self.base_width, family.widths[0])
        if family.other_nets or (self.cardinality, times, rest) == (1, 1, 0):
            return f"resnet{self.depth}"
        if self.cardinality > 1 or rest or not times:
            return f"resnext{self.depth}_{self.cardinality}x{self.base_width}d"
        return f"wide_resnet{self.depth}_{times}"

    def _groups(self, family: Family) -> list[str]:
        given = {"g": (self.cardinality, 1), "w": (self.base_width, family.widths[0])}
        own = family.other_nets
        return [f"{key}{n}" for key, (n, usual) in given.items() if own and n != usual]


# The axes that a preset's letter stands for in a name, and those that follow, in their order.
DESIGN = ("stem", "stride", "shortcut")
SUFFIXES = ("order", "skip", "attention", "antialias")
_DEFAULTS = {field.name: field.default for field in fields(Variant)}


def token(choice: str) -> str:
    """A choice as names spell it: without underscores, which separate their parts."""
    return choice.replace("_", "")
