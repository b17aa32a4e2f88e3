"""``python -m resnet_variants.compare A B``: two arms, runs or results folders side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from resnet_variants.registry import UserError
from resnet_variants.terminal.cli import callable_module, guard, parse, say
from resnet_variants.terminal.starting import ready


@dataclass(frozen=True)
class Flags:
    """What differs between two, in their settings, accuracy, classes and single images."""

    what: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="A B")] = ()
    """Two results folders of one arm each, two runs' folders, or a results folder and two arms."""


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "compare")
    if len(flags.what) not in (2, 3):
        message = "name two results folders, two runs, or a results folder and two of its arms"
        raise UserError(message)
    from resnet_variants.api import compare
    from resnet_variants.reporting.contrast import contrast_text

    ready()
    say(contrast_text(compare(*flags.what)))
    return 0


def main() -> int:
    """``python -m resnet_variants.compare``."""
    return guard(lambda: command(sys.argv[1:]), "compare")


callable_module(__name__, "compare")
if __name__ == "__main__":
    sys.exit(main())
