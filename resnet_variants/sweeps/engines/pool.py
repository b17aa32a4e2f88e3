"""The local engine: spawned worker processes on this machine, each taking run after run."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Outcome, carry_out
from resnet_variants.sweeps.engines.handover import Handover
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import environment
from resnet_variants.training.interrupt import die_with_parent, listening
from resnet_variants.training.trainer import EpochRecord

_GRACE = 5.0  # seconds for an idle worker to leave
_TRIES = 3  # workers in a row that end before they are ready
_READY = "ready"
_SILENCE = 600.0  # seconds in which a worker at work must say something, or compute
_LEAST = 1.0  # seconds of computing that count: to wait takes some too

Task = Callable[..., Any]  # of the data, what tells of epochs, and what says to stop


@dataclass(frozen=True)
class Place:
    """What a worker may use."""

    threads: int
    decoders: int = 0  # processes that decode images; 0: the worker itself
    gpus: tuple[int, ...] = ()  # as this process counts them; none: all there are

    @property
    def environment(self) -> dict[str, str | None]:
        """What libraries read when the worker loads them."""
        changes: dict[str, str | None] = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else None
            chosen = [names[gpu] if names else str(gpu) for gpu in self.gpus]
            changes["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        return changes


@contextlib.contextmanager
def pool(
    places: Sequence[Place],
    handover: Handover,
    tell: Callable[[Run, EpochRecord], None],
    stop: Callable[[], bool],
    about: str = "",
) -> Iterator[Pool]:
    """A pool for the length of the block; what it still does after an error is cut off."""
    made = Pool(places, handover, tell, stop, about)
    try:
        yield made
    except BaseException:
        made.close(grace=0.0)
        raise
    made.close(grace=_GRACE)


class Pool:
    """A worker per place; one that ends is replaced. See ``Engine``."""

    def __init__(
        self,
        places: Sequence[Place],
        handover: Handover,
        tell: Callable[[Run, EpochRecord], None],
        stop: Callable[[], bool],
        about: str,
    ) -> None:
        self.handover, self.tell, self.about, self.stop_asked = handover, tell, about, stop
        self.over = False  # whether they were asked to stop
        self.unready = 0  # workers in a row that ended before they were
        self.workers = [Worker(place, handover) for place in places]

    def free(self) -> int:
        """See ``Engine``."""
        return sum(worker.attempt is None for worker in self.workers)

    def submit(self, attempt: Attempt) -> None:
        """See ``Engine``."""
        worker = next(worker for worker in self.workers if worker.attempt is None)
        worker.attempt = attempt
        with contextlib.suppress(OSError):  # it has just ended, which `wait` will notice
            worker.connection.send(functools.partial(carry_out, attempt, capture=True))

    def each(self, task: Task) -> list[Any]:
        """What the task returns in each of the workers, at the same time.

        Raises:
            ValueError: a worker has ended, or says nothing.
        """
        try:
            for worker in self.workers:
                worker.receive()  # that it is ready
            for worker in self.workers:
                worker.connection.send(task)
            return [worker.receive() for worker in self.workers]
        except (EOFError, OSError) as error:
            raise UserError("a worker has ended while the speed was measured") from error

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Engine``."""
        by_connection = {worker.connection: worker for worker in self.workers}
        outcomes: list[Outcome] = []
        for connection in wait(list(by_connection), seconds):
            worker = by_connection[connection]  # type: ignore[index]
            messages, over = worker.messages()
            for message in messages:
                outcomes += self._heard(worker, message)
            if over:
                outcomes += self._ended(worker)
        for worker in [worker for worker in self.workers if worker.stuck()]:
            outcomes += self._ended(worker)
        return outcomes

    def _heard(self, worker: Worker, message: object) -> list[Outcome]:
        if isinstance(message, EpochRecord):
            assert worker.attempt is not None
            self.tell(worker.attempt.run, message)
        elif isinstance(message, Outcome):
            worker.attempt = None
            return [message]
        else:
            worker.ready, self.unready = True, 0
        return []

    def _ended(self, worker: Worker) -> list[Outcome]:
        how = worker.reap()
        self.workers.remove(worker)
        if not (self.over or self.stop_asked()):
            self.unready += not worker.ready
            if self.unready >= _TRIES:
                message = f"workers {how} before they were ready: see what they printed above"
                raise UserError(message, field="jobs")
            self.workers.append(Worker(worker.place, self.handover))
        if worker.attempt is None:
            return []
        return [Outcome(worker.attempt, "lost", reason=f"its worker {how}")]

    def stop(self) -> None:
        """See ``Engine``."""
        self.over = True
        for worker in self.workers:
            worker.process.terminate()

    def close(self, grace: float) -> None:
        """End the workers: idle ones by themselves, the rest after so many seconds."""
        if not grace:  # before they find that nobody listens
            for worker in self.workers:
                worker.process.kill()
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            worker.process.join(grace)
            worker.process.kill()
            worker.process.join()


class Worker:
    """A process, what it is at, and the way to it."""

    def __init__(self, place: Place, handover: Handover) -> None:
        self.place = place
        self.attempt: Attempt | None = None
        self.ready = False
        self.computed = self.silent = 0.0  # seconds
        self.looked = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, place, handover))
        with _deaf(), environment(place.environment):
            self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """Its next message.

        Raises:
            TimeoutError, EOFError: it says nothing, or has ended.
        """
        if not self.connection.poll(_SILENCE):
            raise TimeoutError
        return self.connection.recv()

    def stuck(self) -> bool:
        """Whether it has something to do, and does nothing: it waits for what will not come.

        Several processes of a run wait for one another by themselves, and not for ever.
        """
        computed, before = _computed(self.process.pid), self.looked
        self.looked = time.monotonic()
        self.silent += min(1.0, self.looked - before)  # this process may have been halted too
        idle = self.ready and (self.attempt is None or self.attempt.machine.devices > 1)
        if idle or computed is None or computed > self.computed + _LEAST:
            self.computed, self.silent = computed or 0.0, 0.0
        return self.silent > _SILENCE

    def messages(self) -> tuple[list[object], bool]:
        """What it has sent, and whether it has ended."""
        found: list[object] = []
        try:
            while self.connection.poll():
                found.append(self.connection.recv())
        except (EOFError, OSError):
            return found, True
        return found, False

    def reap(self) -> str:
        """How it ended, in words; one that is stuck is ended."""
        self.connection.close()
        if self.stuck():
            self.process.kill()
            self.process.join()
            return f"did nothing for {_SILENCE:g} s"
        self.process.join(_GRACE)
        self.process.kill()  # it may have closed its end alone
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with status {code}"
        short = ", as the system does when memory runs short" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{short}"


def _computed(process: int | None) -> float | None:
    """Seconds that a process has computed, where the system tells."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; workers leave it to this one to tell them."""
    resource_tracker.ensure_running()  # it would let the signal through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker ----------------------------------------------------------------------------


def _serve(connection: Connection, place: Place, handover: Handover) -> None:
    """Do one task after another until there are none, or until SIGTERM."""
    die_with_parent()
    faulthandler.enable()
    driver_gone = contextlib.suppress(BrokenPipeError)  # the watch ends this process too
    with listening(insist=False) as stop, driver_gone:
        torch.set_num_threads(place.threads)
        data = handover.take(place.decoders)
        connection.send(_READY)
        while not stop():
            try:
                task: Task = connection.recv()
            except EOFError:
                break
            connection.send(task(data, connection.send, stop))
    os._exit(0)  # all is on disk; to take the libraries down takes two seconds
