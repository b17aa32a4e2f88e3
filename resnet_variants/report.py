"""``python -m resnet_variants.report DIR...``: tables, plots and page from what is on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from resnet_variants.registry import UserError
from resnet_variants.terminal.cli import callable_module, guard, parse
from resnet_variants.terminal.starting import ready


@dataclass(frozen=True)
class Flags:
    """Rebuild the tables, plots and page of results folders; nothing is trained."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Results folders; runs in them may still be going."""

    out: Path | None = None
    """Report the runs of all folders together, in this one; else each in its own."""

    vary: tuple[str, ...] = ()
    """Settings of the recipe in which the arms of the folders differ; takes --out."""

    wide: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the names of networks in full, not what differs among them."""


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "report")
    if not flags.folders:
        raise UserError("missing DIR: name at least one results folder")
    if flags.vary and not flags.out:
        raise UserError("names what differs among folders: give --out too", field="vary")
    from resnet_variants.reporting.build import build
    from resnet_variants.terminal.screen import show_report

    ready()
    if flags.out:
        show_report(build(flags.out, flags.folders, flags.vary), flags.out, wide=flags.wide)
        return 0
    for folder in flags.folders:
        show_report(build(folder), folder, wide=flags.wide)
    return 0


def main() -> int:
    """``python -m resnet_variants.report``."""
    return guard(lambda: command(sys.argv[1:]), "report")


callable_module(__name__, "report")
if __name__ == "__main__":
    sys.exit(main())
