"""``python -m resnet_variants.report DIR...``: tables and plots from what is on disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from resnet_variants.analysis.report import Report, build
from resnet_variants.cli import callable_module, guard, parse
from resnet_variants.outcome import show_report
from resnet_variants.registry import UserError


@dataclass(frozen=True)
class Flags:
    """Rebuild the tables and plots of results folders; nothing is trained."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Results folders; runs in them may still be going."""


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    folders = parse(Flags, argv, "report").folders
    if not folders:
        raise UserError("missing DIR: name at least one results folder")
    for folder in folders:
        show_report(build(folder), folder)
    return 0


def report(out: str | Path) -> Report:
    """Rebuild the tables and plots of a results folder from what is on disk.

    Raises:
        ValueError: the folder holds no runs, or a damaged file.
    """
    return build(Path(out))


def main() -> int:
    """``python -m resnet_variants.report``."""
    return guard(lambda: command(sys.argv[1:]), "report")


callable_module(__name__, report)
if __name__ == "__main__":
    sys.exit(main())
