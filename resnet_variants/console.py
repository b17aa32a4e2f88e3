"""What `run` shows before it trains: settings, and the plan of a dry run."""

from __future__ import annotations

from pathlib import Path

import torch

from resnet_variants.cli import say
from resnet_variants.live import duration
from resnet_variants.sweeps.estimate import bytes_of, seconds_of
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.provenance import device_name
from resnet_variants.training.device import Machine, make_fabric, resolve
from resnet_variants.training.recipe import Recipe


def show_settings(experiment: Experiment, out: Path, machine: Machine) -> None:
    """Everything that decides the outcome, and where it goes."""
    recipe = experiment.recipe
    fabric = make_fabric(machine, recipe.precision)
    data = experiment.runs[0].load()
    splits = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test"
    where = f"{fabric.device.type} ({device_name(fabric.device)})"
    rows = {
        "experiment": experiment.name,
        "question": experiment.question,
        "networks": ", ".join(variant.name for variant in experiment.variants),
        "data": f"{data.name}, {data.in_chans} x {data.img_size} x {data.img_size} px, {splits}",
        "recipe": ", ".join(_settings(recipe)),
        "seeds": f"{experiment.seeds}, so {len(experiment.runs)} runs",
        "device": f"{where}, {resolve(recipe.precision, fabric.device.type)}, "
        f"{torch.get_num_threads()} threads",
        "output": str(out.resolve()),
    }
    for key, value in rows.items():
        if value:
            say(f"{key:<11}{value}")
    for line in experiment.merged:
        say(f"{'merged':<11}{line}")


def _settings(recipe: Recipe) -> list[str]:
    """The settings of every recipe, and those of this one that are not the usual."""
    usual = vars(Recipe())
    always = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
    return [
        f"{key} {value}"
        for key, value in vars(recipe).items()
        if key in always or value != usual[key]
    ]


def show_plan(experiment: Experiment, machine: Machine) -> None:
    """The runs, their cost, and estimates of time, from measured steps, and disk."""
    total, disk, first = 0.0, 0, experiment.runs[: len(experiment.variants)]
    say("\nmodel, params, MACs, estimated seconds per run:")
    for run, seconds in zip(first, seconds_of(first, machine), strict=True):
        spent = run.cost(run.load())
        total += seconds * experiment.seeds
        disk += bytes_of(run) * experiment.seeds
        say(f"  {run.variant.name:<48}{spent.params:>12,}{spent.macs:>16,}{seconds:>9.1f}")
    say("\nruns:")
    for run in experiment.runs:
        say(f"  {run.id}")
    say(
        f"\n{len(experiment.runs)} runs, about {duration(total)} of training one after another "
        f"and {disk / 1e6:,.1f} MB of disk; nothing was started"
    )
