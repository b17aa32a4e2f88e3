"""What an experiment will take, from a few measured training steps of each network."""

from __future__ import annotations

from dataclasses import replace

from resnet_variants.sweeps.runs import Run
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
