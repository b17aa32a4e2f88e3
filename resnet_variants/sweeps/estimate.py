"""What an experiment will take, from a few measured training steps of each network."""

from __future__ import annotations

import statistics
from dataclasses import replace

from resnet_variants.sweeps.runs import Run
from resnet_variants.training.device import Machine, determinism, make_fabric
from resnet_variants.training.loop import fit

WARM, MEASURED = 1, 2  # epochs
STEPS = 3  # in each of them


def seconds_per_run(run: Run, machine: Machine) -> float:
    """Measured training steps, times the run's; start-up, validation and test come on top."""
    data, recipe = run.load(), run.recipe
    fabric = make_fabric(replace(machine, devices=1), recipe.precision)
    total = len(data.train) // recipe.batch_size
    steps = min(total, STEPS)
    few = replace(
        data, train=data.train.head(steps * recipe.batch_size), val=data.val.head(recipe.batch_size)
    )
    # The rate does not change the time, and a tiny one cannot diverge.
    short = replace(recipe, epochs=WARM + MEASURED, lr=1e-6)
    with determinism(recipe.deterministic):
        records = list(fit(run.build(data), few, short, seed=run.seed, fabric=fabric))
    rate = statistics.median(record.images_per_second for record in records[WARM:])
    # On CPUs, several processes share the cores that were measured.
    devices = machine.devices if fabric.device.type == "cuda" else 1
    return total * recipe.batch_size * recipe.epochs / (rate * devices)
