"""``python -m resnet_variants.compare A B``: two arms, runs or results folders side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_variants.registry import UserError
from resnet_variants.settings import Loading
from resnet_variants.terminal.cli import callable_module, guard, parse, say
from resnet_variants.terminal.starting import ready

if TYPE_CHECKING:
    from resnet_variants.analysis.contrast import Contrast


@dataclass(frozen=True)
class Flags:
    """What differs between two, in their settings, accuracy, classes and single images."""

    what: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="A B")] = ()
    """Two results folders of one arm each, or each followed by an arm; two runs' folders; or a
    results folder and two of its arms."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write it there as compare.html too, with curves and pictures of the images most apart."""
    data: Annotated[str, tyro.conf.arg(metavar="SPEC")] = ""
    """Of the test images, if they are not where they were; what is missing is downloaded."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Loading.data_dir
    """Of downloaded images."""


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "compare")
    from resnet_variants.records.results_folder import COMPARED
    from resnet_variants.reporting.contrast import contrast_text

    ready()
    say(contrast_text(_compared(flags)))
    if flags.out:
        say(f"\nopen {flags.out / COMPARED}; its tables and figures are beside it")
    return 0


def _compared(flags: Flags) -> Contrast:
    """What is compared; only its pictures need the images, which need torch."""
    if flags.out:
        from resnet_variants.api import compare

        return compare(*flags.what, out=flags.out, data=flags.data, data_dir=flags.data_dir)
    for name in ("data", "data_dir"):
        if getattr(flags, name) != getattr(Flags, name):
            raise UserError("it is for the pictures of the page: give --out", field=name)
    from resnet_variants.analysis.contrast import contrast

    return contrast(*flags.what)


def main() -> int:
    """``python -m resnet_variants.compare``."""
    return guard(lambda: command(sys.argv[1:]), "compare")


callable_module(__name__, "compare")
if __name__ == "__main__":
    sys.exit(main())
