"""The networks that have a registered name, and which network a word means. Needs no torch."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import functools
import re
from importlib import resources
from typing import cast

from resnet_variants.models.branches import ORDERS, STRIDES
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import expand, parse_name, variant_from
from resnet_variants.models.peers import timm_names
from resnet_variants.models.variant import AXES, DESIGN, SUFFIX, Variant, named_in
from resnet_variants.registry import Registry, UserError, refuse, require, shown


@functools.cache
def registered() -> dict[str, Variant]:
    """The networks that importing the package registers with timm, by name."""
    presets = {"preset": list(PRESETS), "preact": [False, True]}
    grids: list[dict[str, object]] = [
        {
            "family": key,
            "depth": list(family.named_depths),
            "stem": [family.stem, "deep"],
            "stride": list(STRIDES),
            "shortcut": ["conv", "avgpool"],
            "order": ["post", "preact"],
        }
        for key, family in FAMILIES.items()
    ]
    grids += [
        presets | {"depth": 50, "cardinality": 32, "base_width": 4},
        presets | {"depth": 101, "cardinality": 32, "base_width": 8},
        presets | {"depth": [50, 101], "base_width": 128},
    ]
    # The comparisons of He's two papers, on their networks for small images.
    small: dict[str, object] = {"family": "cifar", "depth": list(FAMILIES["cifar"].named_depths)}
    grids += [small | {"shortcut": ["pad", "conv_all", "none"]}, small | {"order": ORDERS.built_in}]
    variants = [variant for grid in grids for variant in expand(grid)[0]]
    return {variant.name: variant for variant in [*variants, *timm_names()]}


@functools.cache
def aliases() -> dict[str, Variant]:
    """Further registered names: a preset's letter that spells the same network as another."""
    return {alias: variant for variant in registered().values() for alias in variant.aliases}


def extended() -> dict[str, Variant]:
    """Networks with one part that the package does not have, such as a plugin's stem, by name.

    Each part is in a network of each named depth, whose other axes have their defaults. timm does
    not know these names: they are different in each process.
    """
    found: list[Variant] = []
    for axis in (*named_in(DESIGN), *named_in(SUFFIX)):
        choices = cast("Registry[object]", AXES[axis].choices)
        own = [choice for choice in choices if choice not in choices.built_in]
        for key, family in FAMILIES.items() if own else ():
            found += expand({"family": key, "depth": list(family.named_depths), axis: own})[0]
    return {variant.name: variant for variant in found}


def list_models(pattern: str = "*") -> list[str]:
    """Names that importing the package registers and that match a wildcard, one per network.

    Raises:
        ValueError: the pattern is no text.
    """
    require("pattern", pattern, str, "a wildcard, such as 'rv_*50*'")
    return sorted(fnmatch.filter(registered(), pattern), key=_by_number)


def list_aliases(pattern: str = "*") -> dict[str, str]:
    """Further registered names that match a wildcard, each with the name of its network."""
    return {alias: aliases()[alias].name for alias in fnmatch.filter(aliases(), pattern)}


def list_extended(pattern: str = "*") -> list[str]:
    """Names of the ``extended`` networks that match a wildcard."""
    return sorted(fnmatch.filter(extended(), pattern), key=_by_number)


def _by_number(name: str) -> list[int | str]:
    """A key that sorts ``resnet18`` before ``resnet110``, as timm sorts."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@functools.cache
def stored_costs() -> dict[str, tuple[int, int]]:
    """Parameters and MACs at the family's image size by registered name, from ``costs.csv``.

    A test compares every row with what ``cost`` reads off the built network.
    """
    text = resources.files("resnet_variants.models").joinpath("costs.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["model"]: (int(row["params"]), int(row["macs"])) for row in rows}


def as_variant(argument: str, value: object, **axes: object) -> Variant:
    """What an argument names: a preset's letter with further ``axes``, a name, or a ``Variant``.

    Raises:
        ValueError: it names nothing, or there are axes without a letter.
    """
    if isinstance(value, str) and value in PRESETS:
        return variant_from({"preset": value} | axes)
    if axes and isinstance(value, str) and len(value) == 1:
        refuse("preset", value, PRESETS, field=argument)
    if axes:
        raise UserError(f"{', '.join(axes)} go with a preset letter, not with {shown(value)}")
    if isinstance(value, str):
        ours = {theirs: variant.name for variant, theirs in timm_names().items()}
        ours |= {letter.lower(): letter for letter in PRESETS}
        near = [ours[word] for word in (value, value.lower()) if word in ours]
        if not (near or value.startswith("rv_")):
            near = difflib.get_close_matches(value, [*ours, *ours.values()], n=1)
        if near:
            message = f"unknown name {value!r}; did you mean {near[0]!r}?"
            raise UserError(message, field="name")
        return parse_name(value)
    require(argument, value, Variant, "a letter, a name or a Variant")
    return cast(Variant, value)
