"""``python -m resnet_variants.list [PATTERN]``: registered models, what they are and cost."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from resnet_variants.models.catalogue import (
    extended,
    list_aliases,
    list_extended,
    list_models,
    registered,
    stored_costs,
)
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.peers import timm_names
from resnet_variants.models.variant import AXES, SUFFIX, Variant, named_in, spelt
from resnet_variants.registry import UserError
from resnet_variants.terminal.cli import Plugins, guard, parse, say
from resnet_variants.terminal.starting import ready


@dataclass(frozen=True)
class Flags:
    """Registered model names with params and MACs, at the family's image size.

    Parts of plugins are listed in the networks that have one such part.
    """

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATTERN")] = "rv_*"
    """Shell wildcard, in quotes: 'rv_*50*'."""
    plugin: Plugins = ()


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    ready()
    pattern = parse(Flags, argv, "list").pattern
    variants = registered() | extended()
    names = [*list_models(pattern), *list_extended(pattern)]
    aliases = list_aliases(pattern)
    theirs = {v: name for v, name in timm_names().items() if fnmatch.fnmatch(name, pattern)}
    if not names and not aliases:
        variants |= {variant.name: variant for variant in theirs}
        names = [variant.name for variant in theirs]
    if not names and not aliases:
        raise UserError(f"no registered model matches {pattern!r}, here or in timm; try 'rv_*'")
    width = 2 + max(map(len, [*names, *aliases]))
    say(f"{'name':<{width}}{'params':>12}{'MACs':>16}{'px':>5}  what it is")
    for name in names:
        say(f"{name:<{width}}{_facts(variants[name])}")
    for variant, name in theirs.items():
        if variant.name in names:
            say(f"{name:<{width}}timm's name of {variant.name}")
    for alias, name in aliases.items():
        say(f"{alias:<{width}}the same network as {name}")
    return 0


def _facts(variant: Variant) -> str:
    params, macs = _cost(variant)
    side = FAMILIES[variant.family].img_size
    axes = f"{variant.stem} stem, stride in {variant.stride}, {variant.shortcut} shortcut"
    further = [
        spelt(axis, choice)
        for axis in named_in(SUFFIX)
        if (choice := getattr(variant, axis)) != AXES[axis].default or axis == "order"
    ]
    return f"{params:>12,}{macs:>16,}{side:>5}  {', '.join([axes, *further])}"


def _cost(variant: Variant) -> tuple[int, int]:
    """Parameters and MACs; a network is built only where the package stores no numbers of it."""
    stored = stored_costs().get(variant.name)
    if stored:
        return stored
    from resnet_variants.models.cost import cost

    spent = cost(variant)
    return spent.params, spent.macs


def main() -> int:
    """``python -m resnet_variants.list``."""
    return guard(lambda: command(sys.argv[1:]), "list")


if __name__ == "__main__":
    sys.exit(main())
