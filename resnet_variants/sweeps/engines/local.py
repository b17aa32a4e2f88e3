"""The local engine: worker processes on this machine, each of which executes run after run."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import joblib
import numpy as np
import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.plugins import Plugin, enter_all, loaded
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Message, Work, Workers
from resnet_variants.sweeps.execute import Job, RunStatus
from resnet_variants.sweeps.fused import execute_runs, number_of_groups
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, environment, make_fabric
from resnet_variants.training.interrupt import Stop, die_with_parent, listening

MEMORY_EACH = 2 * 2**30  # bytes for a worker: libraries, network and batch
_GRACE = 5.0  # seconds for an idle worker to leave
_TRIES = 3  # workers in a row that end before they are ready
_READY = "ready"
_SILENCE = 600.0  # seconds in which a worker that has a job must say something, or compute
_LEAST = 1.0  # seconds of computing that count: to wait takes some too


def check(machine: Machine, workers: Workers, precision: str) -> str:
    """Refuse a device that is not there, and threads that would wait for one another's cores.

    Returns:
        The type of the device.
    """
    device = make_fabric(machine, precision).device.type
    threads = max(1, workers.jobs) * workers.cpus_per_run
    if workers.cpus_per_run > 1 and threads > joblib.cpu_count():
        message = f"cpus_per_run {workers.cpus_per_run} of {max(1, workers.jobs)} at a time exceed"
        raise UserError(
            f"{message} the {joblib.cpu_count()} cores of this machine", field="cpus_per_run"
        )
    return device


def slots(runs: Sequence[Run], machine: Machine, workers: Workers) -> int:
    """One group of runs for each worker."""
    return len(worker_resources(runs, machine, workers))


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """Workers that share the cores, or the GPUs, of this machine.

    After an error, and where nobody waits for them any longer, they are ended at once.
    """
    with shared_dataset(work.data) as data:
        pool = Pool(worker_resources(work.todo, work.machine, work.workers), data, work.stop)
        # A script may end while its sweep is suspended: its exit would wait for the workers.
        atexit.register(pool.close, grace=0.0)
        try:
            yield pool
        except BaseException:
            pool.close(grace=0.0)
            raise
        finally:
            atexit.unregister(pool.close)
        pool.close(grace=_GRACE)


# --- what each worker may use -----------------------------------------------------------------


@dataclass(frozen=True)
class WorkerResources:
    """What a worker may use."""

    threads: int
    decoders: int = 0  # processes that decode images; 0: the worker itself
    gpus: tuple[int, ...] = ()  # as this process counts them; none: all there are

    @property
    def environment(self) -> dict[str, str | None]:
        """Variables that libraries read when the worker loads them."""
        changes: dict[str, str | None] = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else None
            chosen = [names[gpu] if names else str(gpu) for gpu in self.gpus]
            changes["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        return changes


def worker_resources(
    runs: Sequence[Run], machine: Machine, workers: Workers
) -> list[WorkerResources]:
    """Equal shares of the machine, one for each worker that the runs need."""
    kind = make_fabric(machine, runs[0].recipe.precision).device.type
    asked, devices = workers.cpus_per_run, machine.devices
    groups = torch.cuda.device_count() // devices
    most = {"cuda": groups, "cpu": joblib.cpu_count() // (asked or devices)}.get(kind, 1)
    jobs = workers.jobs or min(most, memory() // MEMORY_EACH)
    jobs = max(1, min(jobs, number_of_groups(runs, machine.fuse_seeds)))
    threads = asked or max(1, joblib.cpu_count() // jobs)
    decoders = runs[0].loading.decoders(threads)
    if kind != "cuda":
        return [WorkerResources(threads, decoders)] * jobs
    starts = [job % groups * devices for job in range(jobs)]
    return [WorkerResources(threads, decoders, tuple(range(s, s + devices))) for s in starts]


def memory() -> int:
    """Bytes of memory that this process and its workers may use."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, _CONTAINER):
        text = file.read_text().strip() if file.is_file() else ""
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


# Where Linux says how much memory a container may use.
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class SharedDataset:
    """A data set for other processes: its images are in files that all of them map."""

    head: bytes
    arrays: tuple[Path, ...]
    plugins: tuple[Plugin, ...] = field(default_factory=loaded)  # whose objects may be in it

    def load(self, workers: int) -> Dataset:
        """The data set, its images in memory once for all processes; ``workers`` decode for it."""
        enter_all(self.plugins)
        arrays = [np.memmap(file, mode="r") for file in self.arrays]
        return pickle.loads(self.head, buffers=arrays).decoded_by(workers)


@contextlib.contextmanager
def shared_dataset(data: Dataset) -> Iterator[SharedDataset]:
    """The data set in files that last as long as the block.

    Raises:
        ValueError: there is no room for the files.
    """
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(data, protocol=5, buffer_callback=arrays.append)
    with TemporaryDirectory(prefix="resnet_variants-") as folder:
        files = tuple(Path(folder, str(i)) for i in range(len(arrays)))
        try:
            for file, array in zip(files, arrays, strict=True):
                file.write_bytes(array.raw())
        except OSError as error:
            size = sum(array.raw().nbytes for array in arrays)
            message = f"the images, {size / 1e6:,.0f} MB, cannot be written to {folder}"
            raise UserError(
                f"{message} ({error.strerror}): set TMPDIR to where they can"
            ) from error
        yield SharedDataset(head, files)


# --- in the process that starts the workers ---------------------------------------------------


class Pool:
    """One worker for each share of the machine; one that ends is replaced. See ``Engine``."""

    def __init__(
        self, resources: Sequence[WorkerResources], data: SharedDataset, stop: Stop
    ) -> None:
        self.data, self.stop_asked = data, stop
        self.over = False  # whether the workers were asked to stop
        self.unready = 0  # workers in a row that ended before they were ready
        self.slots, threads = len(resources), resources[0].threads
        self.about = f"{self.slots} worker{'s' if self.slots > 1 else ''} of {threads} thread"
        self.about += "s" if threads > 1 else ""
        self.workers = [Worker(share, data) for share in resources]

    @property
    def free_slots(self) -> int:
        """See ``Engine``."""
        return sum(not worker.jobs for worker in self.workers)

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        worker = next(worker for worker in self.workers if not worker.jobs)
        worker.jobs = {job.run.id: job for job in jobs}
        with contextlib.suppress(OSError):  # it has just ended, which `wait` will notice
            worker.connection.send(jobs)

    def wait(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """See ``Engine``."""
        by_connection = {worker.connection: worker for worker in self.workers}
        for connection in wait(list(by_connection), seconds):
            worker = by_connection[connection]  # type: ignore[index]
            messages, over = worker.messages()
            for message in messages:
                if message == _READY:
                    worker.ready, self.unready = True, 0
                    continue
                run_id, news = cast("tuple[str, Message]", message)
                job = worker.jobs[run_id]
                if isinstance(news, RunStatus):
                    del worker.jobs[run_id]
                yield job, news
            if over:
                yield from self._ended(worker)
        for worker in [worker for worker in self.workers if worker.stuck()]:
            yield from self._ended(worker)

    def _ended(self, worker: Worker) -> Iterator[tuple[Job, Message]]:
        how = worker.reap()
        self.workers.remove(worker)
        if not (self.over or self.stop_asked()):
            self.unready += not worker.ready
            if self.unready >= _TRIES:
                message = f"workers {how} before they were ready: see what they printed above"
                raise UserError(message, field="jobs")
            self.workers.append(Worker(worker.resources, self.data))
        for job in worker.jobs.values():
            yield job, RunStatus("lost", reason=f"its worker {how}")

    def stop(self) -> None:
        """See ``Engine``."""
        self.over = True
        for worker in self.workers:
            worker.process.terminate()

    def close(self, grace: float) -> None:
        """End the workers: idle ones by themselves, the rest after ``grace`` seconds."""
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
    """A process, its jobs, and the connection to it."""

    def __init__(self, resources: WorkerResources, data: SharedDataset) -> None:
        self.resources = resources
        self.jobs: dict[str, Job] = {}  # that are not over, by the run's id
        self.ready = False
        self.computed = self.silent = 0.0  # seconds
        self.looked = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, resources, data))
        with ctrl_c_blocked(), environment(resources.environment):
            self.process.start()
        theirs.close()

    def stuck(self) -> bool:
        """Whether it has something to do, and does nothing: it waits for what will not come.

        The processes of a run on several devices wait for one another by themselves, and not for
        ever.
        """
        computed, before = _computed(self.process.pid), self.looked
        self.looked = time.monotonic()
        self.silent += min(1.0, self.looked - before)  # this process may have been halted too
        idle = self.ready and all(job.machine.devices > 1 for job in self.jobs.values())
        if idle or computed is None or computed > self.computed + _LEAST:
            self.computed, self.silent = computed or 0.0, 0.0
        return self.silent > _SILENCE

    def messages(self) -> tuple[list[object], bool]:
        """What it has sent, and whether it has ended."""
        received: list[object] = []
        try:
            while self.connection.poll():
                received.append(self.connection.recv())
        except (EOFError, OSError):
            return received, True
        return received, False

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
def ctrl_c_blocked() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; the workers wait until this one asks them."""
    resource_tracker.ensure_running()  # it would let the signal through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker ----------------------------------------------------------------------------


def _serve(connection: Connection, resources: WorkerResources, data: SharedDataset) -> None:
    """Execute one group of jobs after another until there are none, or until SIGTERM."""
    die_with_parent()
    faulthandler.enable()
    parent_gone = contextlib.suppress(BrokenPipeError)  # the watch ends this process too
    with listening(insist=False) as stop, parent_gone:
        torch.set_num_threads(resources.threads)
        dataset = data.load(resources.decoders)
        connection.send(_READY)
        while not stop():
            try:
                jobs: Sequence[Job] = connection.recv()
            except EOFError:
                break
            for job, message in execute_runs(jobs, dataset, stop, capture=True):
                connection.send((job.run.id, message))
    os._exit(0)  # all is on disk; to take the libraries down takes two seconds
