"""``python -m resnet_variants.check-data SPEC``: decode every image, say what is wrong, by path."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_variants.data.specs import check_spec
from resnet_variants.settings import Loading
from resnet_variants.terminal.cli import Plugins, guard, parse, positional, say
from resnet_variants.terminal.starting import ready

if TYPE_CHECKING:
    from resnet_variants.data.audit import Audit

_SHOWN = 20  # of a kind, unless --all


@dataclass(frozen=True)
class Flags:
    """Open and decode every image: broken, left out, or (nearly) equal in two splits or classes."""

    spec: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SPEC")]
    """As `run --data` takes it: digits, cifar10, folder:PATH, timm:NAME, ..."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Loading.data_dir
    all: Annotated[
        tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="every finding, not the first 20")
    ] = False
    plugin: Plugins = ()


def command(argv: Sequence[str]) -> int:
    """Carry out the verb: 0 when all is well, 1 when something was found."""
    flags = parse(Flags, argv, "check-data")
    with positional("data"):
        check_spec(flags.spec)
    from resnet_variants.data.audit import audit
    from resnet_variants.data.sources import open_source

    ready()
    with positional("data"):
        source = open_source(flags.spec, flags.data_dir)
    say(f"{flags.spec}: {len(source.labels)} images of {len(source.classes)} classes")
    most = None if flags.all else _SHOWN
    for line in source.account.summary:
        say(line)
    _show("left out", source.account.by_folder, most)
    found = audit(source)
    _show_counts(found)
    faults = source.account.faults
    _show("more left out than a few, or badly stored", faults, most)
    for split, lines in found.broken.items():
        _show(f"{split}: {len(lines)} broken", lines, most)
    for heading, sign, pairs in (
        ("the same picture in two splits", "=", found.twice),
        ("two alike pictures in two splits (a thumbnail, another compression?)", "~", found.near),
        ("the same picture in two classes", "=", found.mislabelled),
    ):
        _show(f"{len(pairs)} times {heading}", [f"{a} {sign} {b}" for a, b in pairs], most)
    if found.repeated:
        say(f"{found.repeated} images repeat another one of their split and class")
    sound = found.sound and not faults
    alike = "look at the pairs that are alike; all else is well" if found.near else "all is well"
    say(alike if sound else "see above: mend or remove these")
    return 0 if sound else 1


def _show_counts(found: Audit) -> None:
    for split, counts in found.counts.items():
        each = ", ".join(f"{name} {n}" for name, n in counts.most_common())
        say(f"{split:<6}{counts.total():>8}  {each}")
    if found.sizes:
        (width, height), n = found.sizes.most_common(1)[0]
        widths, heights = zip(*found.sizes, strict=True)
        spread = f"{min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}"
        say(f"sizes  {spread} pixels; most often {width} x {height} ({n} images)")


def _show(heading: str, lines: Sequence[str], most: int | None) -> None:
    if not lines:
        return
    say(f"{heading}:")
    for line in lines[:most]:
        say(f"  {line}")
    if most is not None and len(lines) > most:
        say(f"  and {len(lines) - most} more: --all shows them")


def main() -> int:
    """``python -m resnet_variants.check-data``."""
    return guard(lambda: command(sys.argv[1:]), "check-data")


if __name__ == "__main__":
    sys.exit(main())
