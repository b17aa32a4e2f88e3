"""Chooses depth and epochs so that an experiment fits into a time.

The steps of the networks are measured first, in as many processes as the sweep will have.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import torch

from resnet_variants.analysis.verdicts import ENOUGH_EPOCHS, detectable
from resnet_variants.data.dataset import Dataset
from resnet_variants.models.grids import merge
from resnet_variants.records.files import Json
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.registry import UserError
from resnet_variants.settings import Machine
from resnet_variants.sweeps.engines.local import (
    SharedDataset,
    WorkerResources,
    ctrl_c_blocked,
    shared_dataset,
    worker_resources,
)
from resnet_variants.sweeps.estimate import RunTime, run_time
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.fused import refuse_fused
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import Options
from resnet_variants.training.device import environment, make_fabric
from resnet_variants.training.interrupt import die_with_parent
from resnet_variants.training.timing import seconds_per_image
from resnet_variants.training.trainer import check_batch

# The first has basic blocks, in which presets A and B are one network.
_DEPTHS = {"cifar": (8, 11, 29, 47), "imagenet": (10, 14, 26, 50)}
_MOST_EPOCHS = 100
_SIDE = 64  # pixels, for images of several sizes
_MEASURING = 0.01  # of the time, for each depth
_REPORTING = 10.0  # seconds after the last run
_SHARE = 0.85  # of the time that is planned: other work on the machine may slow the rest
_ACCURACY = 0.8  # for which the smallest difference that will show is announced


@dataclass(frozen=True)
class Budget:
    """What was chosen for a time.

    Attributes:
        experiment: with its depth, epochs and image size.
        seconds: that training is expected to take; NaN where the choice is an earlier one.
        difference: in accuracy, that is found in 80 % of cases; NaN where nothing is compared.
    """

    experiment: Experiment
    seconds: float
    difference: float


def fit_to(
    minutes: float,
    experiment: Experiment,
    out: Path,
    options: Options,
    *,
    depth_is_free: bool,
    spent: float = 0.0,
) -> Budget:
    """Choose depth and epochs so that training and report take ``minutes``.

    The same request in the same folder is answered as it was before, so that its runs continue.

    Args:
        minutes: all the time there is.
        experiment: the arms, at any depth.
        out: the results folder.
        options: who computes.
        depth_is_free: whether another depth may be chosen.
        spent: seconds that are over already.

    Raises:
        ValueError: the time is too short for one epoch; the engine is a cluster; or seeds are
            fused.
    """
    if options.workers.engine == "ray":
        raise UserError("minutes is for the engines of this machine", field="minutes")
    refuse_fused(options.machine, "minutes")
    begun = time.monotonic() - spent
    request = _request(minutes, experiment, depth_is_free=depth_is_free)
    experiment = _sized(experiment).fitted()
    candidates = _by_depth(experiment) if depth_is_free else [experiment]
    data = experiment.runs[0].load()
    check_batch(data, experiment.recipe, options.machine.devices)
    earlier = read_experiment(out).get("chosen")
    if isinstance(earlier, dict) and earlier.get("request") == request:
        same = next(c for c in candidates if c.variants[0].depth == earlier["depth"])
        return _budget(same, int(earlier["epochs"]), request, data, math.nan)
    speeds, starting = _measured(candidates, data, options, 60 * minutes)
    end = begun + 60 * minutes - starting - _REPORTING
    seconds = _SHARE * (end - time.monotonic())
    affordable = [speed.epochs(seconds) for speed in speeds]
    at = max((i for i, n in enumerate(affordable) if n >= ENOUGH_EPOCHS), default=0)
    speed, epochs = speeds[at], min(affordable[at], _MOST_EPOCHS)
    if epochs < 1:
        missing = (speed.seconds(1) - seconds) / _SHARE
        message = f"{minutes:g} minutes are too short for {len(experiment.runs)} runs: give "
        message += f"{math.ceil(minutes + missing / 60)}, fewer networks or a smaller --img-size"
        raise UserError(message, field="minutes")
    return _budget(candidates[at], epochs, request, data, speed.seconds(epochs))


def _sized(experiment: Experiment) -> Experiment:
    """With a size for images that have several."""
    try:
        experiment.runs[0].load()
    except UserError as error:
        if experiment.img_size or error.field != "img_size":
            raise
        return replace(experiment, img_size=_SIDE)
    return experiment


def _request(minutes: float, experiment: Experiment, *, depth_is_free: bool) -> Json:
    first = experiment.runs[0]
    return {
        "minutes": minutes,
        "run": replace(first, recipe=replace(first.recipe, epochs=1)).id,  # data, size and recipe
        "seeds": experiment.seeds,
        "depth_is_free": depth_is_free,
        "arms": [arm.name for arm in experiment.arms],
    }


def _by_depth(experiment: Experiment) -> list[Experiment]:
    """The same arms at each depth that tells them apart, the shallowest first."""
    candidates = []
    for depth in _DEPTHS[experiment.variants[0].family]:
        deeper = (replace(v, depth=depth, block="") for v in experiment.variants)
        variants, _ = merge((variant, variant.name) for variant in deeper)
        if len(variants) == len(experiment.variants):
            candidates.append(replace(experiment, variants=tuple(variants)))
    return candidates or [experiment]


def _budget(
    experiment: Experiment, epochs: int, request: Json, data: Dataset, seconds: float
) -> Budget:
    chosen: Json = {"depth": experiment.variants[0].depth, "epochs": epochs, "request": request}
    recipe = replace(experiment.recipe, epochs=epochs)
    compared = any(model != base for model, base in experiment.baselines().items())
    # The test accuracies of two runs differ as those of independent errors do (arXiv:2304.01910).
    sd = math.sqrt(2 * _ACCURACY * (1 - _ACCURACY) / len(data.test))
    return Budget(
        replace(experiment, recipe=recipe, chosen=chosen),
        seconds,
        detectable(sd, experiment.seeds, experiment.plan) if compared else math.nan,
    )


# --- measuring --------------------------------------------------------------------------------


_Answer: TypeAlias = tuple[float, list[float]]  # what `_measure` sends


@dataclass(frozen=True)
class _Speed:
    """How long the runs of an experiment take."""

    rounds: int  # of as many runs as there are workers
    run: RunTime

    def seconds(self, epochs: int) -> float:
        """Of all runs."""
        return self.rounds * self.run.of(epochs)

    def epochs(self, seconds: float) -> int:
        """As many as fit."""
        return math.floor((seconds / self.rounds - self.run.beside) / self.run.per_epoch)


def _measured(
    candidates: Sequence[Experiment], data: Dataset, options: Options, seconds: float
) -> tuple[list[_Speed], float]:
    """Train the costliest network of each candidate for some steps, in all workers at once.

    A candidate after one that is too slow for ``ENOUGH_EPOCHS`` in all the ``seconds`` has none.

    Returns:
        The speed of each candidate, and the seconds until a worker computes.
    """
    costliest = [max(c.first_runs, key=lambda run: run.cost(data).macs) for c in candidates]
    resources = _resources(candidates[0], options)

    def speed(candidate: Experiment, per_image: float) -> _Speed:
        rounds = math.ceil(len(candidate.runs) / len(resources))
        return _Speed(rounds, run_time(data, candidate.recipe, per_image))

    images = [speed(candidate, 1.0) for candidate in candidates]
    limits = [seconds / ENOUGH_EPOCHS / (one.rounds * one.run.per_epoch) for one in images]
    begun = time.time()
    with shared_dataset(data) as shared:
        work = (costliest, limits, _MEASURING * seconds, shared, options.machine)
        answers = _answers(work, resources)
    starting = max(started for started, _ in answers) - begun
    by_candidate = zip(*(own for _, own in answers), strict=False)
    return [speed(c, max(own)) for c, own in zip(candidates, by_candidate, strict=False)], starting


def _answers(work: Sequence[Any], resources: Sequence[WorkerResources]) -> list[_Answer]:
    """What ``_measure`` says in a process for each share; no process outlives an error or Ctrl-C.

    Raises:
        UserError: a process ended without an answer.
    """
    context, workers = multiprocessing.get_context("spawn"), []
    try:
        for share in resources:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_measure, args=(theirs, *work, share))
            with ctrl_c_blocked(), environment(share.environment):  # it has both from its start
                process.start()
                workers.append((process, ours))
            theirs.close()
        return [ours.recv() for _, ours in workers]
    except EOFError:
        message = "a process that measured the speed has ended: see what it printed above"
        raise UserError(message, field="minutes") from None
    finally:
        for process, ours in workers:
            process.kill()
            process.join()
            ours.close()


def _measure(
    connection: Connection,
    runs: Sequence[Run],
    limits: Sequence[float],
    seconds: float,
    shared: SharedDataset,
    machine: Machine,
    share: WorkerResources,
) -> None:
    """Send when this process was ready, and the seconds that each run takes to train on an image.

    Nothing is measured after a run that exceeds its limit.
    """
    die_with_parent()
    torch.set_num_threads(share.threads)
    data = shared.load(share.decoders)
    fabric = make_fabric(replace(machine, devices=1), runs[0].recipe.precision)
    started, each = time.time(), list[float]()
    for run, limit in zip(runs, limits, strict=True):
        model = run.build(data)
        each.append(seconds_per_image(model, data, run.recipe, fabric, seconds=seconds))
        if each[-1] > limit:
            break
    connection.send((started, each))


def _resources(experiment: Experiment, options: Options) -> list[WorkerResources]:
    if options.workers.engine == "inline":
        return [WorkerResources(options.workers.cpus_per_run or torch.get_num_threads())]
    return worker_resources(experiment.runs, options.machine, options.workers)
