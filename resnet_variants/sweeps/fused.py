"""Executes runs in this process: one, or the seeds of an arm computed as one network."""

from __future__ import annotations

import gc
import math
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice

import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import UserError
from resnet_variants.sweeps.execute import Job, Message, RunStatus, execute_run
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, determinism
from resnet_variants.training.gradients import FusedGradients
from resnet_variants.training.interrupt import Stop

_Messages = deque[tuple[Job, Message | BaseException]]

_SHARED = "random numbers inside the network would not be those of each seed"
_REFUSED = {
    "drop_rate": _SHARED,
    "drop_path_rate": _SHARED,
    "deterministic": "the last bits depend on which seeds are computed together",
}


def check_fused(runs: Iterable[Run], machine: Machine, device: str) -> None:
    """Refuse what several seeds computed as one cannot do, or gain nothing by.

    Args:
        runs: one of each arm.
        machine: its ``fuse_seeds`` is how many seeds.
        device: the type of the device that computes them.

    Raises:
        ValueError: names the setting.
    """
    for run in runs if machine.fuse_seeds > 1 else ():
        refused = {name: why for name, why in _REFUSED.items() if getattr(run.recipe, name)}
        if run.variant.skip == "dropout":
            refused["skip dropout"] = _SHARED
        if device == "cpu":
            refused = {"a CPU": "it gains nothing there, and --jobs trains seeds side by side"}
        elif run.recipe.precision != "fp32":
            refused[f"precision {run.recipe.precision}"] = "give --precision fp32"
        for what, why in refused.items():
            raise UserError(f"fuse_seeds cannot be with {what}: {why}", field="fuse_seeds")


def refuse_fused(machine: Machine, limit: str) -> None:
    """Refuse fused seeds beside a limit of time, the setting ``limit``.

    Raises:
        ValueError: names the setting.
    """
    if machine.fuse_seeds > 1:
        message = f"{limit} cannot be with fuse_seeds {machine.fuse_seeds}"
        raise UserError(f"{message}: it counts on what a run takes alone", field=limit)


def next_group(queue: deque[Run], size: int, alone: Container[str] = ()) -> list[Run]:
    """Take the next run out of the queue, and up to ``size - 1`` others of its arm.

    Runs with ids in ``alone`` are in no group with others.
    """
    first = queue[0]
    fitting = (run for run in queue if run.name == first.name and run.id not in alone)
    runs = [first] if first.id in alone else list(islice(fitting, size))
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

    What several print cannot be told apart: with ``capture``, the log of the first one has it,
    while that one is trained.
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
    messages: _Messages = deque()
    gradients, stop_all = FusedGradients(len(jobs)), Stop(also=stop)

    def work(job: Job) -> None:
        log = capture and job is jobs[0]
        with gradients.joined():
            try:
                for message in execute_run(job, data, stop_all, capture=log, gradients=gradients):
                    messages.append((job, message))
                    gradients.turn.notify_all()
            except BaseException as error:  # raised where the messages are read
                messages.append((job, error))

    threads = [threading.Thread(target=work, args=(job,), daemon=True) for job in jobs]
    # The threads restore these flags in any order.
    with determinism(False), warnings.catch_warnings():  # noqa: FBT003
        # Some layers loop over the models, such as pooling: a small part of a step.
        warnings.filterwarnings("ignore", "There is a performance drop")
        try:
            # Whoever reads has the turn as well: where nobody reads on, nothing is trained.
            with gradients.turn:
                gradients.start(threads)
                for job, message in _until_all_end(len(jobs), messages, gradients.turn):
                    if isinstance(message, RunStatus) and message.kind == "halted":
                        stop_all.signal = signal.SIGTERM  # what halts one would halt the others
                    yield job, message
        finally:
            stop_all.signal = signal.SIGTERM
            for thread in threads:
                if thread.is_alive() and not sys.is_finalizing():
                    thread.join()
            gc.collect()  # an error holds the tensors of its step in a cycle


def _until_all_end(
    runs: int, messages: _Messages, turn: threading.Condition
) -> Iterator[tuple[Job, Message]]:
    while runs:
        turn.wait_for(lambda: messages)
        job, message = messages.popleft()
        if isinstance(message, BaseException):
            raise message
        runs -= isinstance(message, RunStatus)
        yield job, message
