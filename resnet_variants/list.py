"""``python -m resnet_variants.list [PATTERN]``: registered models, what they are and cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from resnet_variants.cli import guard, parse, say
from resnet_variants.models.axes import FAMILIES
from resnet_variants.models.cost import cost
from resnet_variants.models.variant import Variant, parse_name
from resnet_variants.models.zoo import list_aliases, list_models
from resnet_variants.registry import UserError


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
    say(f"{'name':<44}{'params':>12}{'MACs':>16}{'px':>5}  what it is")
    for name in names:
        say(_line(parse_name(name)))
    for alias, name in aliases.items():
        say(f"{alias:<44}the same network as {name}")
    return 0


def _line(variant: Variant) -> str:
    spent = cost(variant)
    side = FAMILIES[variant.family].img_size
    axes = (
        f"{variant.stem} stem, stride in {variant.stride}, {variant.shortcut} shortcut, "
        f"{variant.order}"
    )
    return f"{variant.name:<44}{spent.params:>12,}{spent.macs:>16,}{side:>5}  {axes}"


def main() -> int:
    """``python -m resnet_variants.list``."""
    return guard(lambda: command(sys.argv[1:]), "list")


if __name__ == "__main__":
    sys.exit(main())
