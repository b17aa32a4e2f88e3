"""``python -m resnet_variants.bench [NAME]``: how fast a network trains and infers here.

Beside our loop without what it measures, the plain fp32 loop of the usual CIFAR scripts, the same
network with timm's loader and optimizer, and the rate of the machine's own matrix products.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_variants.settings import Device, Machine, Precision, Range, check_fields
from resnet_variants.terminal.cli import Plugins, guard, parse, say
from resnet_variants.terminal.starting import ready

if TYPE_CHECKING:
    import pandas as pd

    from resnet_variants.models.variant import Variant


@dataclass(frozen=True)
class Flags:
    """Random images and labels; every arm does the same work, the arms take turns."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = (
        "rv_resnet20_cifar_b"
    )
    """A model's name, as `list` shows them."""
    batch_size: Annotated[int, Range(1, 65_536)] = 256
    img_size: Annotated[int, Range(0, 1024)] = 0  # pixels, 0: the family's own
    steps: Annotated[int, Range(1, 100_000)] = 20  # of an epoch
    repeats: Annotated[int, Range(1, 1000)] = 5  # turns of all arms; the median counts
    device: Device = "auto"
    precision: Precision = "auto"  # of all but the plain loop
    compiled: tyro.conf.FlagCreatePairsOff[bool] = False  # ours through torch.compile as well
    memory: bool = True  # peak memory too, each arm in a process of its own
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of bench.csv; none: shown only."""
    plugin: Plugins = ()

    def __post_init__(self) -> None:
        check_fields(self)


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "bench")
    from resnet_variants.models.grids import parse_name
    from resnet_variants.records.files import write_atomically, writing

    variant = parse_name(flags.name)
    if flags.out:
        with writing(flags.out):
            flags.out.mkdir(parents=True, exist_ok=True)
    rows = _measured(flags, variant)
    _show(rows)
    if flags.out:
        write_atomically(flags.out / "bench.csv", rows.to_csv(index=False))
        say(f"in {flags.out}: bench.csv")
    return 0


def _measured(flags: Flags, variant: Variant) -> pd.DataFrame:
    import torch

    from resnet_variants.models.cost import cost
    from resnet_variants.models.families import FAMILIES
    from resnet_variants.models.zoo import create_model
    from resnet_variants.speed.arms import CLASSES, Task
    from resnet_variants.speed.measure import Plan, peak_memory, table
    from resnet_variants.sweeps.provenance import device_name
    from resnet_variants.training.device import make_fabric, resolve

    ready()
    side = flags.img_size or FAMILIES[variant.family].img_size
    fabric = make_fabric(Machine(device=flags.device), "fp32")
    task = Task(
        functools.partial(create_model, variant, num_classes=CLASSES),
        batch_size=flags.batch_size,
        img_size=side,
        steps=flags.steps,
        device=flags.device,
        precision=flags.precision,
    )
    macs = cost(variant, img_size=side, num_classes=CLASSES).macs
    arms = ("ours", *(["compiled"] if flags.compiled else []), *Plan.arms[1:])
    plan = Plan(arms=arms, repeats=flags.repeats)
    where = device_name(fabric.device)
    say(f"{flags.name}, {side} px, batches of {flags.batch_size}, {macs:,} MACs forward")
    say(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if resolve("auto", fabric.device.type) == "fp32":
        say("it has no instructions for bf16, so auto is fp32")
    memory = peak_memory(task, plan) if flags.memory else {}
    return table(flags.name, macs, task, plan, device_name=where, memory=memory)


def _show(rows: pd.DataFrame) -> None:
    head = ("arm", "stage", "batch", "precision", "images/s", "low to high", "x plain", "of matmul")
    say("{:<9}{:<10}{:>6}  {:<10}{:>10}{:>18}{:>9}{:>11}{:>11}".format(*head, "peak MiB"))
    for row in rows.to_dict("records"):
        name = "compiled" if row["compiled"] else row["arm"]
        spread = f"{row['images_per_second_low']:.0f} to {row['images_per_second_high']:.0f}"
        say(
            f"{name:<9}{row['stage']:<10}{row['batch_size']:>6}  {row['precision']:<10}"
            f"{row['images_per_second']:>10.1f}{spread:>18}{_number(row['ratio_to_plain'], 9)}"
            f"{_number(row['matmul_share'], 11)}{_number(row['peak_memory_mb'], 11, 0)}"
        )
    ours = rows[(rows["arm"] == "ours") & ~rows["compiled"]].set_index("stage")
    speeds = ours["images_per_second"].astype(float).to_dict()
    say(f"our data path takes {speeds['epoch'] / speeds['data']:.1%} of our epoch")
    by_arm = rows.set_index(["arm", "compiled", "stage"])["ratio_to_plain"]
    beside = by_arm["ours", False, "epoch"] / by_arm["lean", False, "epoch"]
    say(f"our epoch is {beside:.2f} times as fast as the lean loop, which measures nothing")


def _number(value: float | None, width: int, digits: int = 2) -> str:
    return " " * width if value is None or math.isnan(value) else f"{value:>{width}.{digits}f}"


def main() -> int:
    """``python -m resnet_variants.bench``."""
    return guard(lambda: command(sys.argv[1:]), "bench")


if __name__ == "__main__":
    sys.exit(main())
