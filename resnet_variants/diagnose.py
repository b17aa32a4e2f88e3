"""``python -m resnet_variants.diagnose RUN_DIR...``: why a trained network does what it does.

Gradient flow, paths, lesions, distance of units to the identity, sensitivity and class maps of
finished runs, on validation images; tables and figures beside each run. ``report`` then shows all
runs together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from resnet_variants.registry import UserError
from resnet_variants.settings import Study
from resnet_variants.terminal.cli import Plugins, callable_module, guard, parse, say
from resnet_variants.terminal.starting import ready


@dataclass(frozen=True)
class Flags:
    """Measure what goes on inside trained networks, unit by unit."""

    folders: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN_DIR ...")
    ] = ()
    study: Study = field(default_factory=Study)
    plugin: Plugins = ()


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(tyro.conf.OmitArgPrefixes[Flags], argv, "diagnose")
    if not flags.folders:
        raise UserError("missing RUN_DIR: name at least one run's directory")
    from resnet_variants.analysis.diagnosis import summarise_diagnoses
    from resnet_variants.api import diagnose
    from resnet_variants.reporting.text import markdown, readable_diagnoses
    from resnet_variants.sweeps.finished import finished

    ready()
    for folder in flags.folders:
        finished(folder)  # before the first is measured
    for folder in flags.folders:
        found = diagnose(folder, **vars(flags.study))
        say(markdown(readable_diagnoses(summarise_diagnoses(found.tables))))
        say(f"in {folder}: {', '.join(path.name for path in found.files)}")
    return 0


def main() -> int:
    """``python -m resnet_variants.diagnose``."""
    return guard(lambda: command(sys.argv[1:]), "diagnose")


callable_module(__name__, "diagnose")
if __name__ == "__main__":
    sys.exit(main())
