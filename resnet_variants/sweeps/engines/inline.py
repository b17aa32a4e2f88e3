"""The engine without processes of its own: the calling process executes runs one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Message, Work, Workers
from resnet_variants.sweeps.execute import Job
from resnet_variants.sweeps.fused import execute_runs
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, make_fabric


def check(machine: Machine, workers: Workers, precision: str) -> str:
    """Refuse more than one job, and a device that is not there; the type of the device."""
    if workers.jobs > 1:
        raise UserError(f"jobs {workers.jobs} takes the engine local or ray", field="jobs")
    return make_fabric(machine, precision).device.type


def slots(runs: Sequence[Run], machine: Machine, workers: Workers) -> int:
    """One group of runs after another."""
    del runs, machine, workers
    return 1


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """The calling process: for notebooks, and scripts that workers could not import."""
    before = torch.get_num_threads()
    if work.workers.cpus_per_run:
        torch.set_num_threads(work.workers.cpus_per_run)
    try:
        yield Inline(work)
    finally:
        torch.set_num_threads(before)


class Inline:
    """See ``Engine``."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.jobs: Sequence[Job] = ()
        self.about, self.slots = f"this process, {torch.get_num_threads()} threads", 1

    @property
    def free_slots(self) -> int:
        """See ``Engine``."""
        return 0 if self.jobs else 1

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        self.jobs = jobs

    def wait(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """See ``Engine``; the jobs are executed meanwhile."""
        jobs, self.jobs = self.jobs, ()
        if jobs:
            yield from execute_runs(jobs, self.work.data, self.work.stop)

    def stop(self) -> None:
        """See ``Engine``; the job looks at ``Work.stop`` itself."""
