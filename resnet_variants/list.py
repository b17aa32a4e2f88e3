"""``python -m resnet_variants.list [PATTERN]``: registered models, what they are and cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from resnet_variants.models.cost import cost
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.grids import parse_name
from resnet_variants.models.variant import SUFFIXES, Variant
from resnet_variants.models.zoo import list_aliases, list_models
from resnet_variants.registry import UserError
from resnet_variants.terminal.cli import guard, parse, say


@dataclass(frozen=True)
class Flags:
    """Registered model names with params and MACs, at the family's image size."""

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATTERN")] = "rv_*"
    """Shell wildcard, in quotes: 'rv_*50*'."""


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    pattern = parse(Flags, argv, "list").pattern
    names, aliases = list_models(pattern), list_aliases(pattern)
    if not names and not aliases:
        raise UserError(f"no registered model matches {pattern!r}; try 'rv_*'")
    width = 2 + max(map(len, [*names, *aliases]))
    say(f"{'name':<{width}}{'params':>12}{'MACs':>16}{'px':>5}  what it is")
    for name in names:
        say(f"{name:<{width}}{_facts(parse_name(name))}")
    for alias, name in aliases.items():
        say(f"{alias:<{width}}the same network as {name}")
    return 0


def _facts(variant: Variant) -> str:
    spent = cost(variant)
    side = FAMILIES[variant.family].img_size
    axes = f"{variant.stem} stem, stride in {variant.stride}, {variant.shortcut} shortcut"
    further = [value for axis in SUFFIXES if (value := getattr(variant, axis)) not in _USUAL]
    what = ", ".join([axes, *further])
    return f"{spent.params:>12,}{spent.macs:>16,}{side:>5}  {what}"


_USUAL = (Variant.skip, Variant.attention, Variant.antialias)


def main() -> int:
    """``python -m resnet_variants.list``."""
    return guard(lambda: command(sys.argv[1:]), "list")


if __name__ == "__main__":
    sys.exit(main())
