"""Executes runs in this process: one, or the seeds of an arm computed as one network."""

from __future__ import annotations

import math
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue

import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.sweeps.execute import Job, Message, RunStatus, execute_run
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import determinism
from resnet_variants.training.gradients import FusedGradients
from resnet_variants.training.interrupt import Stop


def next_group(queue: deque[Run], size: int) -> list[Run]:
    """Take the next run out of the queue, and up to ``size - 1`` others of its arm."""
    name = queue[0].name
    runs = list(islice((run for run in queue if run.name == name), size))
    for run in runs:
        queue.remove(run)
    return runs


def number_of_groups(runs: Sequence[Run], size: int) -> int:
    """How many groups of runs ``next_group`` makes of them."""
    return sum(math.ceil(seeds / size) for seeds in Counter(run.name for run in runs).values())


def execute_runs(
    jobs: Sequence[Job], data: Dataset, stop: Stop, *, capture: bool = False
) -> Iterator[tuple[Job, Message]]:
    """Execute jobs of one arm: the records of each, then how it ended. See ``execute_run``.

    What several print cannot be told apart: with ``capture``, the log of the first one has it.
    """
    if len(jobs) > 1:
        yield from _execute_fused(jobs, data, stop, capture=capture)
        return
    for message in execute_run(jobs[0], data, stop, capture=capture):
        yield jobs[0], message


def _execute_fused(
    jobs: Sequence[Job], data: Dataset, stop: Stop, *, capture: bool
) -> Iterator[tuple[Job, Message]]:
    decoders = jobs[0].run.loading.decoders(torch.get_num_threads())
    data = data.decoded_by(math.ceil(decoders / len(jobs)))  # each training has its own
    messages = SimpleQueue[tuple[Job, Message | BaseException]]()
    gradients, stop_all = FusedGradients(len(jobs)), Stop(also=stop)

    def work(job: Job) -> None:
        log = capture and job is jobs[0]
        try:
            with gradients.joined():
                for message in execute_run(job, data, stop_all, capture=log, gradients=gradients):
                    messages.put((job, message))
        except BaseException as error:  # raised where the messages are read
            messages.put((job, error))

    # The blocks of the threads end in any order: this one restores the flags.
    with determinism(jobs[0].run.recipe.deterministic), ThreadPoolExecutor(len(jobs)) as threads:
        left = len([threads.submit(work, job) for job in jobs])
        try:
            while left:
                job, message = messages.get()
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, RunStatus):
                    left -= 1
                yield job, message
        finally:
            stop_all.signal = signal.SIGTERM  # where nobody reads the messages any longer
