"""What an experiment will take: time from a few measured training steps, and disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from resnet_variants.sweeps.runs import Run
from resnet_variants.training.data import Dataset
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.timing import seconds_per_step


def seconds_per_run(run: Run, machine: Machine) -> float:
    """Measured training steps, times the run's; start-up, validation and test come on top."""
    data, recipe = run.load(), run.recipe
    fabric = make_fabric(replace(machine, devices=1), recipe.precision)
    seconds, _ = seconds_per_step(run.build(data), data, recipe, fabric, compiled=False)
    # On CPUs, several processes share the cores that were measured.
    devices = machine.devices if fabric.device.type == "cuda" else 1
    return recipe.epochs * (len(data.train) // recipe.batch_size) * seconds / devices


_MEASURED = 16  # networks; more would take minutes


def seconds_of(runs: Sequence[Run], machine: Machine) -> list[float]:
    """Seconds of each run: measured, or as many per MAC as the nearest that was measured."""
    macs = [run.cost(run.load()).macs for run in runs]
    order = sorted(range(len(runs)), key=macs.__getitem__)
    count = min(_MEASURED, len(runs))
    picked = {order[round(i * (len(runs) - 1) / max(1, count - 1))] for i in range(count)}
    seconds = {i: seconds_per_run(runs[i], machine) for i in picked}

    def estimate(i: int) -> float:
        near = min(seconds, key=lambda j: abs(macs[j] - macs[i]))
        return seconds[near] * macs[i] / macs[near]

    return [seconds[i] if i in seconds else estimate(i) for i in range(len(runs))]


# Of the files beside the weights, as measured.
_BYTES, _BYTES_PER_EPOCH = 12_000, 500


def bytes_of(run: Run, data: Dataset) -> int:
    """What a finished run takes on disk: most of it weights, 4 bytes each."""
    return 4 * run.cost(data).params + _BYTES + _BYTES_PER_EPOCH * run.recipe.epochs
