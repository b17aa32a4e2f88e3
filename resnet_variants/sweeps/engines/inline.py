"""The engine without processes of its own: one run after another, in this one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Outcome, Work, Workers, carry_out
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.training.device import Machine, make_fabric


def check(machine: Machine, workers: Workers, precision: str) -> None:
    """Refuse more than one job, and a device that is not there."""
    if workers.jobs > 1:
        raise UserError(f"jobs {workers.jobs} takes the engine local or ray", field="jobs")
    make_fabric(machine, precision)


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """This process: for notebooks, and scripts that workers could not import."""
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
        self.attempt: Attempt | None = None
        self.about = f"this process, {torch.get_num_threads()} threads"

    def free(self) -> int:
        """See ``Engine``."""
        return int(self.attempt is None)

    def submit(self, attempt: Attempt) -> None:
        """See ``Engine``."""
        self.attempt = attempt

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Engine``; it waits as long as the attempt takes."""
        attempt, self.attempt = self.attempt, None
        if attempt is None:
            return []
        work = self.work
        outcome = carry_out(
            attempt, work.data, lambda record: work.tell(attempt.run, record), work.stop
        )
        return [outcome]

    def stop(self) -> None:
        """See ``Engine``; whoever asks has told the attempt already."""
