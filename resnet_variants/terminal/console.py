"""What `run` shows before it trains: settings, and the plan of a dry run."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import joblib

from resnet_variants.analysis.arms import setting_text
from resnet_variants.analysis.verdicts import ENOUGH_EPOCHS
from resnet_variants.registry import number_of
from resnet_variants.reporting.text import POINTS
from resnet_variants.sweeps.allocation import time_text
from resnet_variants.sweeps.budget import Budget
from resnet_variants.sweeps.estimate import bytes_of, seconds_of
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.provenance import device_name
from resnet_variants.sweeps.rounds import Forecast
from resnet_variants.sweeps.sweep import Options
from resnet_variants.terminal.cli import say
from resnet_variants.terminal.live import duration
from resnet_variants.training.device import Machine, make_fabric, resolve
from resnet_variants.training.recipe import Recipe

_FAULTS = 3  # lines on files that are not what they should be


def show_settings(experiment: Experiment, out: Path, options: Options) -> None:
    """Everything that decides the outcome, and where it goes."""
    recipe = experiment.recipe
    data = experiment.runs[0].load()
    splits = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test"
    rows = {
        "experiment": experiment.name,
        "question": experiment.question,
        "predicted": _predicted(experiment),
        "networks": ", ".join(variant.name for variant in experiment.variants),
        "varied": "; ".join(
            f"{name} {', '.join(map(setting_text, own))}" for name, own in experiment.vary.items()
        ),
        "data": f"{data.name}, {data.in_chans} x {data.img_size} x {data.img_size} px, {splits}",
        "files": "; ".join(data.account.summary),
        "recipe": ", ".join(_settings(recipe)),
        "seeds": f"{_seeds(experiment)}, so {number_of(len(experiment.runs), 'run')}",
        "device": _device(options, recipe.precision),
        "output": str(out.resolve()),
    }
    for key, value in rows.items():
        if value:
            say(f"{key:<11}{value}")
    faults = data.account.faults
    more = [f"and {len(faults) - _FAULTS} more: check-data lists them"] if faults[_FAULTS:] else []
    for line in [*faults[:_FAULTS], *more]:
        say(f"{'mind':<11}{line}")
    for line in experiment.merged:
        say(f"{'merged':<11}{line}")


def _predicted(experiment: Experiment) -> str:
    predictions = experiment.predictions
    digest = f" (SHA-256 {predictions.sha256[:12]})" if predictions.each else ""
    return "; ".join(predictions.texts) + digest


def _seeds(experiment: Experiment) -> str:
    own = ", ".join(map(str, experiment.own_seeds))
    share = f", of which share {experiment.share} is {own}" if experiment.share else ""
    further = Counter(arm.name for arm, _ in experiment.further)
    more = "".join(f", and {seeds} more of {name}" for name, seeds in further.items())
    return f"{experiment.seeds}{share}{more}"


def _device(options: Options, precision: str) -> str:
    if options.workers.engine == "ray":
        return "of the cluster's nodes; run.json says which"
    device = make_fabric(options.machine, precision).device
    kind = f"{device.type} ({device_name(device)}), {resolve(precision, device.type)}"
    return f"{kind}, {joblib.cpu_count()} cores"


def _settings(recipe: Recipe) -> list[str]:
    """The settings of every recipe, and those of this one that are not the usual."""
    usual = vars(Recipe())
    always = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
    return [
        f"{key} {value}"
        for key, value in vars(recipe).items()
        if key in always or value != usual[key]
    ]


def show_budget(minutes: float, budget: Budget) -> None:
    """What was chosen for a time, and what it will be able to tell."""
    experiment = budget.experiment
    epochs = experiment.recipe.epochs
    kind = "arm" if experiment.vary else "network"
    depths = sorted({variant.depth for variant in experiment.variants})
    took = "" if math.isnan(budget.seconds) else f", about {duration(budget.seconds)} of training"
    say(
        f"{'chosen':<11}for {minutes:g} minutes: depth {' and '.join(map(str, depths))}, "
        f"{number_of(epochs, 'epoch')}, {number_of(experiment.seeds, 'seed')} of "
        f"{number_of(len(experiment.arms), kind)}{took}"
    )
    if epochs < ENOUGH_EPOCHS:
        say(
            f"{'mind':<11}so few epochs say little about longer training: give more minutes, fewer "
            f"networks or a smaller --img-size for {ENOUGH_EPOCHS}"
        )
    if not math.isnan(budget.difference):
        say(
            f"{'':<11}differences of {POINTS * budget.difference:.1f} points or more will mostly "
            "show, if accuracies are near 80 % and seeds differ by the test images alone"
        )


def search_line(experiment: Experiment) -> str:
    """What is searched for before the runs, in words."""
    seeds, values = experiment.tuning
    tried = math.prod(map(len, values.values()))
    line = f"a search first: {', '.join(values)}, {tried} values for each of"
    return f"{line} {number_of(len(experiment.arms), 'arm')}, {number_of(seeds, 'seed')} each"


def show_plan(experiment: Experiment, machine: Machine) -> dict[str, float]:
    """The runs, their cost, and estimates of time, from measured steps, and disk.

    Returns:
        Seconds of a run by the name of its arm.
    """
    total, disk, first = 0.0, 0, experiment.first_runs
    say("\nmodel, params, MACs, estimated seconds per run:")
    estimates, measured = seconds_of(first, machine)
    for run, seconds in zip(first, estimates, strict=True):
        spent = run.cost(run.load())
        seeds = sum(other.name == run.name for other in experiment.runs)
        total += seconds * seeds
        disk += bytes_of(run, run.load()) * seeds
        say(f"  {run.name:<48}{spent.params:>12,}{spent.macs:>16,}{seconds:>9.1f}")
    if not experiment.tune:  # else the search decides on them
        say("\nruns:")
        for run in experiment.runs:
            say(f"  {run.id}")
    say(
        f"\n{number_of(len(experiment.runs), 'run')}, about {duration(total)} of training one "
        f"after another and {disk / 1e6:,.1f} MB of disk; nothing was started"
    )
    say(
        f"an estimate: a few steps of {measured} of {len(first)} networks, within seconds; "
        "the others by their MACs"
    )
    return dict(zip((run.name for run in first), estimates, strict=True))


def show_goal(expected: Forecast) -> None:
    """What is expected of the planned seeds, and of what comes after them."""
    planned, left = expected.planned, expected.budget - expected.planned
    workers = f"{expected.slots} run{'s' if expected.slots > 1 else ''} at a time"
    line = f"the planned seeds that are missing take about {time_text(planned)}, {workers}"
    if left < 0:
        line += (
            f": the budget of {time_text(expected.budget)} ends before; the same command goes on"
        )
    else:
        time = "more seeds" if math.isinf(left) else f"about {time_text(left)}"
        line += f"; then undecided networks get {time}"
        line += f", up to {expected.most} seeds each"
    say(line)
