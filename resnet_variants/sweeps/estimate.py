"""Estimates for an experiment: time from a few measured training steps, and disk space."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.timing import seconds_per_image

_SECONDS = 10.0  # for all measurements of a plan
_SHARES = 4  # networks that share this time
_BESIDE = 0.7  # seconds of a run beside its images
_FORWARD = 1 / 3  # time of a forward pass as a share of a training step's


@dataclass(frozen=True)
class RunTime:
    """How long a run takes, in seconds."""

    per_epoch: float  # with validation
    beside: float  # start-up, test and files

    def of(self, epochs: int) -> float:
        """With so many epochs."""
        return epochs * self.per_epoch + self.beside


def run_time(data: Dataset, recipe: Recipe, seconds_per_image: float) -> RunTime:
    """From the seconds that one image takes in training."""
    trained = len(data.train) // recipe.batch_size * recipe.batch_size
    tested = len(data.test) + len(data.val)
    return RunTime(
        seconds_per_image * (trained + _FORWARD * len(data.val)),
        seconds_per_image * _FORWARD * tested + _BESIDE,
    )


def seconds_per_run(run: Run, machine: Machine, seconds: float) -> float:
    """Seconds of a run, from training steps measured for about ``seconds``."""
    data, recipe = run.load(), run.recipe
    fabric = make_fabric(replace(machine, devices=1), recipe.precision)
    each = seconds_per_image(run.build(data), data, recipe, fabric, seconds=seconds)
    # On CPUs, several processes share the cores that were measured.
    devices = machine.devices if fabric.device.type == "cuda" else 1
    return run_time(data, recipe, each / devices).of(recipe.epochs)


def seconds_of(runs: Sequence[Run], machine: Machine) -> tuple[list[float], int]:
    """Seconds of each run, and the number of runs that were measured.

    The other runs get the seconds per MAC of the measured run that is nearest in MACs. The smallest
    and the largest are measured first, then those between them, as long as there is time.
    """
    macs = [run.cost(run.load()).macs for run in runs]
    order = sorted(range(len(runs)), key=macs.__getitem__)
    spread = (order[round(share * (len(runs) - 1))] for share in (0, 1, 0.5, 0.25, 0.75))
    seconds: dict[int, float] = {}
    threads, start = torch.get_num_threads(), time.monotonic()
    torch.set_num_threads(1)  # as a worker of one per core; several would wait for busy cores
    try:
        for i in dict.fromkeys([*spread, *order]):
            left = _SECONDS - (time.monotonic() - start)
            if seconds and left < _SECONDS / _SHARES:
                break
            seconds[i] = seconds_per_run(runs[i], machine, _SECONDS / _SHARES)
    finally:
        torch.set_num_threads(threads)

    def estimate(i: int) -> float:
        near = min(seconds, key=lambda j: abs(macs[j] - macs[i]))
        return seconds[near] * macs[i] / macs[near]

    return [seconds[i] if i in seconds else estimate(i) for i in range(len(runs))], len(seconds)


# Size of the files beside the weights, as measured.
_BYTES, _BYTES_PER_EPOCH = 12_000, 500


def bytes_of(run: Run, data: Dataset) -> int:
    """Bytes of a finished run on disk: mostly weights, 4 bytes each."""
    return 4 * run.cost(data).params + _BYTES + _BYTES_PER_EPOCH * run.recipe.epochs
