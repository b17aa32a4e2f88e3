"""The local engine: as many workers on this machine as were measured to train fastest together."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import joblib
import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Work, Workers
from resnet_variants.sweeps.engines.handover import Handover, handed_over
from resnet_variants.sweeps.engines.pool import Place, pool
from resnet_variants.sweeps.estimate import seconds_per_run
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.timing import images_per_second

WORTH_ASKING = 300.0  # seconds of training for each number of jobs that is tried
_SECONDS = 2.0  # of training, each
MEMORY_EACH = 2 * 2**30  # bytes for a worker: libraries, network and batch
_PER_GPU = 8  # workers that share a GPU, at most


def check(machine: Machine, workers: Workers, precision: str) -> None:
    """Refuse a device that is not there, and threads that would wait for one another's cores."""
    make_fabric(machine, precision)
    threads = max(1, workers.jobs) * workers.cpus_per_run
    if workers.cpus_per_run > 1 and threads > joblib.cpu_count():
        message = f"cpus_per_run {workers.cpus_per_run} of {max(1, workers.jobs)} at a time exceed"
        raise UserError(
            f"{message} the {joblib.cpu_count()} cores of this machine", field="cpus_per_run"
        )


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """Workers that share the cores, or the GPUs, of this machine."""
    kind = make_fabric(work.machine, work.todo[0].recipe.precision).device.type
    with handed_over(work.data) as handover:
        jobs, why = _jobs(work, kind, handover)
        places = places_for(jobs, kind, work)
        about = f"{jobs} worker{'s' if jobs > 1 else ''} of {places[0].threads} thread"
        about += f"{'s' if places[0].threads > 1 else ''}{why}"
        with pool(places, handover, work.tell, work.stop, about) as made:
            yield made


def places_for(jobs: int, kind: str, work: Work) -> list[Place]:
    """Equal shares of the machine."""
    asked, devices = work.workers.cpus_per_run, work.machine.devices
    threads = asked or max(1, joblib.cpu_count() // jobs)
    decoders = work.todo[0].loading.decoders(threads)
    if kind != "cuda":
        return [Place(threads, decoders)] * jobs
    groups = torch.cuda.device_count() // devices
    starts = [job % groups * devices for job in range(jobs)]
    return [Place(threads, decoders, tuple(range(s, s + devices))) for s in starts]


def _jobs(work: Work, kind: str, handover: Handover) -> tuple[int, str]:
    """How many workers, and why."""
    if work.workers.jobs:
        return min(work.workers.jobs, len(work.todo)), ""
    tried = candidates(work, kind)
    if len(tried) == 1:
        return tried[0], ""
    rest = tried[-1 if kind == "cpu" else 0]  # on CPUs many were faster wherever it was measured
    run = max(work.todo, key=lambda run: run.cost(work.data).macs)  # what it takes, all take
    if _seconds(run, work) * len(work.todo) < WORTH_ASKING * len(tried):
        return rest, ""
    rates: dict[int, float] = {}
    for jobs in tried:
        if not work.stop():
            rates[jobs] = _rate(run, jobs, kind, work, handover)
        if not rates.get(jobs):
            break  # too many for the memory, as more would be
    if not any(rates.values()):
        return tried[0], ""
    shown = ", ".join(f"{rate:,.0f} by {jobs}" for jobs, rate in rates.items())
    return max(rates, key=rates.__getitem__), f"; images/s measured for {run.variant.name}: {shown}"


def _seconds(run: Run, work: Work) -> float:
    """Of a run by itself; of one that cannot be trained at all, none: it will say so itself."""
    try:
        return seconds_per_run(run, work.machine)
    except RuntimeError:
        return 0.0


def candidates(work: Work, kind: str) -> list[int]:
    """Numbers of workers to choose from, doubling as far as cores, memory and runs go."""
    own = work.workers.cpus_per_run or work.machine.devices
    groups = torch.cuda.device_count() // work.machine.devices if kind == "cuda" else 1
    most = (
        joblib.cpu_count() // own
        if kind == "cpu"
        else groups * (_PER_GPU if work.machine.devices == 1 else 1)
    )
    most = max(1, min(most, memory() // MEMORY_EACH, len(work.todo)))
    tried = [groups * 2**i for i in range(most.bit_length()) if groups * 2**i < most]
    return [*tried, most]


def memory() -> int:
    """Bytes of memory that this process and its workers may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, _CONTAINER):
        text = file.read_text().strip() if file.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


# Where Linux says what a container may use.
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def _rate(run: Run, jobs: int, kind: str, work: Work, handover: Handover) -> float:
    """Images per second of so many workers together; 0 where one of them failed."""
    task = functools.partial(_train_a_while, run=run, machine=replace(work.machine, devices=1))
    try:
        with pool(places_for(jobs, kind, work), handover, work.tell, work.stop) as made:
            rates = made.each(task)
    except UserError:
        return 0.0
    return sum(rates) if all(rates) else 0.0


def _train_a_while(data: Dataset, *_: object, run: Run, machine: Machine) -> float:
    fabric = make_fabric(machine, run.recipe.precision)
    try:
        return images_per_second(run.build(data), data, run.recipe, fabric, seconds=_SECONDS)
    except RuntimeError:  # of memory, mostly; the runs themselves will tell
        return 0.0
