"""What each choice costs: the time of a training step, beside the usual choice of its axis.

``python experiments/choices.py`` writes ``results/bench/choices/choices.csv``, a row for each
choice of each axis in an otherwise usual ResNet-29 of 32 pixels. The networks of an axis take
turns, and the median of the ratios counts. It takes four minutes of one core. Processor time is
measured, but other work on the machine still changes it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from resnet_variants.models.cost import cost
from resnet_variants.models.families import PRESETS
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.models.zoo import create_model
from resnet_variants.speed.arms import Ours, Task
from resnet_variants.sweeps.provenance import device_name

OUT = Path(__file__).resolve().parents[2] / "results" / "bench" / "choices"
BATCH, IMG_SIZE, TURNS = 64, 32, 7
# What is beside a choice, in both networks of the ratio.
BESIDE: dict[str, dict[str, Any]] = {
    "fixup": {"norm": "none"},  # it needs it
    "block": {"family": "cifar", "depth": 38},  # the smallest depth that has all of them
}


@dataclass(frozen=True)
class Choice:
    """A choice of an axis, and the networks with it and with the usual choice."""

    axis: str
    name: str
    variant: Variant
    usual: Variant


def choices(**usual_axes: Any) -> Iterator[Choice]:
    """The presets, and each choice of each axis of names, in an otherwise usual network."""
    usual = Variant(**usual_axes)
    for letter, axes in PRESETS.items():
        yield Choice("preset", letter, replace(usual, **axes), replace(usual, **PRESETS["A"]))
    for axis, about in AXES.items():
        for name in about.choices if about.choices and axis != "family" else {}:
            beside = BESIDE.get(name, BESIDE.get(axis, {}))
            other = Variant(**(usual_axes | beside))
            yield Choice(axis, str(name), replace(other, **{axis: name}), other)


def measured(group: list[Choice]) -> Iterator[dict[str, object]]:
    """A row for each choice of an axis, with the ratio of its step to that of the usual choice."""
    networks = {variant for choice in group for variant in (choice.variant, choice.usual)}
    arms = {variant: Ours(_task(variant)) for variant in networks}
    times: dict[Variant, list[float]] = {variant: [] for variant in networks}
    for arm in arms.values():
        arm.step()  # the first does not count
    for _ in range(TURNS):
        for variant, arm in arms.items():
            start = time.process_time()
            arm.step()
            times[variant].append(time.process_time() - start)
    for choice in group:
        pairs = zip(times[choice.variant], times[choice.usual], strict=True)
        price = cost(choice.variant, img_size=IMG_SIZE)
        yield {
            "axis": choice.axis,
            "choice": choice.name,
            "model": choice.variant.name,
            "usual": choice.usual.name,
            "params": price.params,
            "macs": price.macs,
            "macs_ratio": price.macs / cost(choice.usual, img_size=IMG_SIZE).macs,
            "step_ratio": statistics.median(own / usual for own, usual in pairs),
            "device_name": device_name(torch.device("cpu")),
        }


def _task(variant: Variant) -> Task:
    return Task(
        make=lambda: create_model(variant, num_classes=10),
        batch_size=BATCH,
        img_size=IMG_SIZE,
        steps=1,
        device="cpu",
        precision="fp32",
    )


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    found = list(choices(family="cifar"))
    rows: list[dict[str, object]] = []
    for axis in dict.fromkeys(choice.axis for choice in found):
        rows += measured([choice for choice in found if choice.axis == axis])
        sys.stdout.write(f"{axis}\n")
    OUT.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).round(4).to_csv(OUT / "choices.csv", index=False)


if __name__ == "__main__":
    main()
