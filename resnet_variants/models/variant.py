"""A point of the design space: its axes, declared here and nowhere else, and its name.

Needs no torch, as the tables of choices do not: commands read them before they load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, BLOCKS, ORDERS, STRIDES, Order
from resnet_variants.models.families import FAMILIES, PRESETS, Family
from resnet_variants.models.norms import ACTIVATIONS, BRANCH_SCALES, NORMS, no_norm
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS, plain
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.registry import UserError, refuse
from resnet_variants.settings import check_fields

# Orders that build the same network as another one, whatever the norm and the activation are. If no
# unit has an identity shortcut and no pool follows the stem, the layers have the same sequence, and
# only the place where a unit ends differs. Without norms, two orders have the same lines.
_SAME_ORDER: Mapping[tuple[bool, bool], Mapping[str, str]] = {  # by: has norms, boundaries may move
    (True, False): {},
    (True, True): {"relu_preact": "post", "bn_after_add": "preact"},
    (False, False): {"relu_preact": "preact", "bn_after_add": "post"},
    (False, True): dict.fromkeys(("relu_preact", "bn_after_add", "preact"), "post"),
}
WIDEST = 2**14  # a 3x3 convolution with more channels is a typing error

# How a name spells an axis. HEAD: in its first words, by own code in ``Variant._spell`` and
# ``grids``. DESIGN: by the preset's letter, else one word for each axis. SUFFIX: by a word at the
# end, none for the default.
HEAD, DESIGN, SUFFIX = "head", "design", "suffix"
# How tables and figures show an axis. SIZE: as the size of a network. MAIN: always, in a column,
# colour or marker. FURTHER: only where networks differ in it; results folders may lack its column.
SIZE, MAIN, FURTHER = "size", "main", "further"


@dataclass(frozen=True)
class Axis:
    """One field of ``Variant``: records, tables, effects, figures, page and flags read this."""

    default: str | int  # an empty string or a zero: the family's own
    meaning: str  # in --help
    choices: Mapping[Any, Any] | None  # ``None``: any number that the other fields allow
    in_name: str
    shown: str
    noun: str = ""  # ends each choice in words and in names: ``group norm``, ``groupnorm``

    @property
    def is_text(self) -> bool:
        """Whether its values are names; else they are whole numbers."""
        return isinstance(self.default, str)


def axis(
    default: str | int,
    meaning: str,
    choices: Mapping[Any, Any] | None = None,
    *,
    in_name: str = SUFFIX,
    shown: str = FURTHER,
    noun: str = "",
) -> Any:
    """A dataclass field that describes an axis."""
    about = Axis(default, meaning, choices, in_name, shown, noun)
    return field(default=default, metadata={"axis": about})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network without its weights; valid by construction, equal exactly when the same network.

    How it starts is part of it: two choices of ``branch_scale`` may differ in initial weights only.

    An empty string or a zero becomes the family's own choice. Other spellings of one network
    become one:

    - ``stride="1x1"`` becomes ``3x3`` in basic blocks, which have no 1x1 convolution: ResNet-A of
      basic blocks equals ResNet-B.
    - ``skip="conv"`` becomes ``shortcut="conv_all"``, and that becomes ``conv`` in a network whose
      every unit changes the shape.
    - In a plain net without attention ``basic1``, ``basic3`` and ``basic4`` become ``basic``.
    - Without an identity shortcut and without a stem pool, ``relu_preact`` becomes ``post`` and
      ``bn_after_add`` becomes ``preact``. With a pool, ``relu_preact`` equals ``post`` only for an
      activation that never falls, such as ReLU, and both stay.
    - Without norms, ``relu_preact`` becomes ``preact`` and ``bn_after_add`` becomes ``post``. Where
      there is no identity shortcut and no stem pool either, ``preact`` becomes ``post``.

    Raises:
        ValueError: an unknown choice, or two fields that exclude each other; the message names
            fields, values and choices.
    """

    family: str = axis("imagenet", "widths and depths", FAMILIES, in_name=HEAD, shown=SIZE)
    depth: int = axis(0, "the family's own if empty: 50, cifar 29", in_name=HEAD, shown=SIZE)
    block: str = axis("", "the depth's own if empty", BLOCKS, in_name=HEAD)
    stem: str = axis("", "before the first stage", STEMS, in_name=DESIGN, shown=MAIN)
    stem_stride: int = axis(
        0, "that of the images' size if empty", STEM_STRIDES, in_name=HEAD, shown=SIZE
    )
    stride: str = axis("3x3", "which conv carries stride 2", STRIDES, in_name=DESIGN, shown=MAIN)
    shortcut: str = axis("conv", "where the shape changes", SHORTCUTS, in_name=DESIGN, shown=MAIN)
    order: str = axis("post", "of norm, activation and conv", ORDERS, shown=MAIN)
    skip: str = axis("identity", "function of the shortcut", SKIPS)
    # ResNeXt (arXiv:1611.05431); base_width alone: Wide ResNet (arXiv:1605.07146)
    cardinality: int = axis(1, "groups of the bottlenecks' 3x3", in_name=HEAD)
    base_width: int = axis(0, "channels per group in the first stage", in_name=HEAD)
    attention: str = axis("none", "before the addition", ATTENTIONS)
    antialias: str = axis("none", "filter instead of a conv's stride", ANTIALIASES)
    norm: str = axis("batch", "between the convolutions", NORMS, noun="norm")
    act: str = axis("relu", "the activation, by timm's name", ACTIVATIONS)
    branch_scale: str = axis("none", "how small a branch starts", BRANCH_SCALES)

    def __post_init__(self) -> None:
        check_fields(self)
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
        self._set("base_width", self.base_width or family.widths[0])
        for name, about in AXES.items():
            choice = self._own(name, getattr(self, name))
            if about.choices is not None and choice not in about.choices:
                refuse(name, choice, about.choices)
            self._set(name, choice)
        _check_groups(self, family)
        self._check_shortcut(family)
        _check_scale(self)
        _check_antialias(self)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _own(self, name: str, choice: Any) -> Any:
        """The choice on an axis that gives the same network in this family and with this block."""
        if name == "stem":
            return choice or FAMILIES[self.family].stem
        kernels = BLOCKS[self.block].kernels
        if name == "stride" and STRIDES[choice] not in kernels:
            return next(other for other, kernel in STRIDES.items() if kernel in kernels)
        return choice

    def _check_shortcut(self, family: Family) -> None:
        if self.is_plain:
            _check_plain(self)
            if self.attention == type(self).attention and {*BLOCKS[self.block].kernels} == {3}:
                self._set("block", "basic")
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
        moves = not (has_identity or self.is_plain or STEM_STRIDES[self.stem_stride].pool)
        same = _SAME_ORDER[self.has_norms, moves]
        self._set("order", same.get(self.order, self.order))

    @property
    def is_plain(self) -> bool:
        """Whether no unit has a shortcut."""
        return SHORTCUTS[self.shortcut] is plain

    @property
    def has_norms(self) -> bool:
        """Whether there is any norm between its layers."""
        return NORMS[self.norm] is not no_norm

    @property
    def lines(self) -> Order:
        """Its order, as it is built: without norms the lines have none."""
        order = ORDERS[self.order]
        return order if self.has_norms else without_norms(order)

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
        [_<attention>][_<antialias>][_<norm>norm][_<act>][_<branch scale>]`` where a part equal
        to the default is left out and

        - ``<model>`` is ``resnet<depth>``; ``resnext<depth>_<cardinality>x<base width>d``; or, with
          one group k times as wide as the family's own, ``wide_resnet<depth>_<k>``;
        - ``<groups>`` is ``[g<cardinality>][_w<base width>]`` where ``resnext`` and ``wide_resnet``
          are names of other networks, as in the family ``cifar``;
        - ``<design>`` is a preset letter or, for any other cell, ``<stem>_<stride>_<shortcut>``;
        - ``nonorm`` is a network without norms.
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
            *([letter] if letter else (token(n, getattr(self, n)) for n in named_in(DESIGN))),
            *(
                token(name, getattr(self, name))
                for name in named_in(SUFFIX)
                if getattr(self, name) != AXES[name].default
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


AXES: Mapping[str, Axis] = {each.name: each.metadata["axis"] for each in fields(Variant)}


def without_norms(order: Order) -> Order:
    """The same lines without the word ``norm``."""
    lines = {
        name: " ".join(word for word in line.split() if word != "norm")
        for name, line in vars(order).items()
    }
    return replace(order, **lines)


# --- refusals ---------------------------------------------------------------------------------


def _check_plain(variant: Variant) -> None:
    if variant.order != Variant.order:
        raise UserError(
            f"a plain net is conv-norm-act throughout: shortcut 'none' goes with order "
            f"{Variant.order!r}, not {variant.order!r}",
            field="order",
        )
    if variant.skip != Variant.skip:
        message = f"skip {variant.skip!r} acts on a shortcut, and shortcut 'none' has none"
        raise UserError(message, field="skip")


def _check_groups(variant: Variant, family: Family) -> None:
    for name in ("cardinality", "base_width"):
        value = getattr(variant, name)
        if not 1 <= value <= WIDEST:
            raise UserError(f"{name} {value} must be from 1 to {WIDEST}", field=name)
    if variant.inner_width(family.widths[-1]) > WIDEST:
        raise UserError(
            f"cardinality {variant.cardinality} x base_width {variant.base_width} makes 3x3 "
            f"convolutions of more than {WIDEST} channels",
            field="base_width",
        )
    narrow = BLOCKS[variant.block].expansion > 1
    if not narrow and (variant.cardinality, variant.base_width) != (1, family.widths[0]):
        raise UserError(
            f"cardinality and base_width are those of a bottleneck's 3x3 convolution; depth "
            f"{variant.depth} of family {variant.family!r} has {variant.block} blocks",
            field="cardinality" if variant.cardinality != 1 else "base_width",
        )


def _check_antialias(variant: Variant) -> None:
    if len(BLOCKS[variant.block].kernels) == 1 and ANTIALIASES[variant.antialias]:
        message = f"antialias needs a layer after the strided one: block {variant.block!r} has one"
        raise UserError(message, field="antialias")


def _check_scale(variant: Variant) -> None:
    fault = scale_fault(variant, variant.branch_scale)
    if fault:
        raise UserError(f"branch_scale {variant.branch_scale!r} {fault}", field="branch_scale")


def scale_fault(variant: Variant, choice: str) -> str:
    """Why a network cannot have a choice of ``branch_scale``; empty where it can."""
    scale = BRANCH_SCALES[choice]
    if variant.is_plain and scale is not BRANCH_SCALES["none"]:
        return "needs a shortcut: without one nothing would pass a unit"
    if scale.shrinks and variant.has_norms:
        return f"needs norm 'none': norm {variant.norm!r} undoes a factor of the weights before it"
    if scale.zeroes and not (scale.shrinks or variant.has_norms):
        return f"zeroes a norm, and norm {variant.norm!r} has none: take branch_scale 'fixup'"
    if scale.zeroes and variant.lines.ends_with == "act":
        return (
            f"does not go with order {variant.order!r}: an activation ends the branch, and at zero "
            "it would pass no gradient"
        )
    return ""


# --- what the tables of axes say --------------------------------------------------------------


def named_in(part: str) -> list[str]:
    """The axes that one part of a name spells: ``HEAD``, ``DESIGN`` or ``SUFFIX``."""
    return [name for name, about in AXES.items() if about.in_name == part]


def shown_as(*kinds: str) -> list[str]:
    """The axes that tables and figures show as ``SIZE``, ``MAIN`` or ``FURTHER``."""
    return [name for name, about in AXES.items() if about.shown in kinds]


def spelt(axis: str, choice: str) -> str:
    """A choice in words: ``preact``, ``group norm``, ``no norm``."""
    noun = AXES[axis].noun
    return " ".join(["no" if choice == "none" else choice, noun]) if noun else choice


def token(axis: str, choice: str) -> str:
    """A choice as names spell it: without underscores, which separate their parts."""
    return spelt(axis, choice).replace("_", "").replace(" ", "")
