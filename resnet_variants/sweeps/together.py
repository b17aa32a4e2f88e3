"""Executes runs in this process: one, or the seeds of an arm computed as one network."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import UserError
from resnet_variants.sweeps.execute import Job, Message, RunStatus, execute_run
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, determinism
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.learner import FusedLearner


def require_gpu(machine: Machine, device: str) -> None:
    """Refuse seeds computed as one on a device where they take as long as one after another.

    Raises:
        ValueError: the device is a CPU.
    """
    if machine.fuse_seeds > 1 and device == "cpu":
        message = f"fuse_seeds {machine.fuse_seeds} is for GPUs: on a CPU it gains nothing, and"
        raise UserError(f"{message} --jobs trains seeds side by side", field="fuse_seeds")


def same_arm(one: Run, other: Run) -> bool:
    """Whether runs differ in nothing but the seed."""
    return replace(one, seed=other.seed) == other


def next_runs(queue: deque[Run], most: int) -> list[Run]:
    """Take the next run out of the queue, and up to ``most - 1`` others of its arm."""
    first = queue.popleft()
    others = list(islice((run for run in queue if same_arm(first, run)), most - 1))
    for run in others:
        queue.remove(run)
    return [first, *others]


def execute_runs(
    jobs: Sequence[Job], data: Dataset, stop: Stop, *, capture: bool = False
) -> Iterator[tuple[Job, Message]]:
    """Execute jobs of one arm: the records of each, then how it ended. See ``execute_run``."""
    if len(jobs) == 1:
        for message in execute_run(jobs[0], data, stop, capture=capture):
            yield jobs[0], message
        return
    messages = SimpleQueue[tuple[Job, Message | Exception]]()
    learner, over = FusedLearner(len(jobs)), Stop(also=stop)

    def work(job: Job) -> None:
        # What is printed cannot be told apart: the first run's log has it.
        log = capture and job is jobs[0]
        try:
            with learner.member():
                for message in execute_run(job, data, over, capture=log, learner=learner):
                    messages.put((job, message))
        except Exception as error:  # it is raised where the messages are read
            messages.put((job, error))

    fixed = determinism(jobs[0].run.recipe.deterministic)
    with fixed, ThreadPoolExecutor(len(jobs)) as threads:
        left = len([threads.submit(work, job) for job in jobs])
        try:
            while left:
                job, message = messages.get()
                if isinstance(message, Exception):
                    raise message
                left -= isinstance(message, RunStatus)
                yield job, message
        finally:
            over.signal = signal.SIGTERM  # where nobody reads the messages any longer
