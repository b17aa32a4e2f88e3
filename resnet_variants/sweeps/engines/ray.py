"""The engine for several machines: Ray hands the runs to the nodes of a cluster.

All nodes must see the results folder, which they write to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.plugins import enter_all
from resnet_variants.records.files import StorageError, writing
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Message, Work, Workers
from resnet_variants.sweeps.execute import Job, RunStatus
from resnet_variants.sweeps.fused import execute_runs
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import PATIENCE, Machine
from resnet_variants.training.interrupt import Stop, listening
from resnet_variants.training.trainer import Record

_PATIENCE = 5.0  # seconds for an address to answer
_NAMESPACE = "resnet_variants"
_ROOM_SECONDS = 60.0  # without room for any run, until the sweep is given up
_POLL_SECONDS = 1.0  # between two times that a node asks whether to stop
_PACKAGE = Path(__file__).parents[2]


def check(machine: Machine, workers: Workers, precision: str) -> str:
    """Connect to the cluster, or start one; the type of the device that a run gets.

    Raises:
        ValueError: Ray is not installed, nobody answers, or no node has room for a run.
    """
    del precision  # the nodes' devices decide what they can do
    ray = _ray()
    if ray.is_initialized() and _is_ours(ray):  # of an earlier call that came to nothing
        ray.shutdown()
    if not ray.is_initialized():
        _connect(ray, workers.ray_address)
    elif workers.ray_address:
        message = "is given, but this process is connected to Ray already: drop one of the two"
        raise UserError(f"ray_address {message}", field="ray_address")
    if machine.device == "cuda" and not ray.cluster_resources().get("GPU"):
        message = "unknown device 'cuda': the cluster has no GPU; choices: auto, cpu"
        raise UserError(message, field="device")
    need = _need(ray, machine, workers)
    if not _slots(ray, need):
        asked = " and ".join(f"{n:g} {kind}" for kind, n in need.items())
        raise UserError(f"no node of the cluster has {asked} for a run", field="cpus_per_run")
    return "cuda" if need.get("GPU") else "cpu"


def slots(runs: Sequence[Run], machine: Machine, workers: Workers) -> int:
    """As many groups of runs as the cluster that ``check`` has found has room for."""
    del runs
    ray = _ray()
    room = _slots(ray, _need(ray, machine, workers))
    return min(room, workers.jobs or room)


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """The cluster that ``check`` has found, until the block ends.

    Raises:
        ValueError: a node does not see the results folder, or the cluster was lost.
    """
    ray = _ray()
    folder = work.folder.resolve()  # nodes have other working directories
    token = folder / f".{uuid.uuid4().hex}"  # by which nodes know the folder
    try:
        with writing(folder):
            token.touch()
        yield Cluster(ray, work, token)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"the Ray cluster was lost ({type(error).__name__}: {reason})"
        raise UserError(f"{message}; the same command continues", field="engine") from error
    finally:
        token.unlink(missing_ok=True)
        if _is_ours(ray):
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is called
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        message = "the engine ray needs Ray: pip install 'resnet_variants[ray]'"
        raise UserError(message, field="engine") from error
    return ray


def _is_ours(ray: Any) -> bool:
    """Whether this package has connected to it, and not the program that calls."""
    return ray.get_runtime_context().namespace.startswith(_NAMESPACE)


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    quiet["namespace"] = f"{_NAMESPACE}-{uuid.uuid4().hex}"
    if not address:  # for this call and this machine alone
        own: dict[str, Any] = {"num_cpus": joblib.cpu_count(), "_node_ip_address": "127.0.0.1"}
        ray.init(address="local", include_dashboard=False, **own, **quiet)
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise UserError(f"ray_address {address!r} must be HOST:PORT", field="ray_address")
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
        # The nodes run the code that is here, whatever they have installed of it.
        ray.init(address=address, runtime_env={"py_modules": [str(_PACKAGE)]}, **quiet)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"no Ray cluster answers at {address!r} ({reason}); is it up, and RAY_AUTH_MODE"
        message += " the same there and here?"
        raise UserError(message, field="ray_address") from error


def _need(ray: Any, machine: Machine, workers: Workers) -> dict[str, float]:
    """What a run takes of a node."""
    there = machine.device != "cpu" and ray.cluster_resources().get("GPU")
    gpus = (workers.gpus_per_run or machine.devices) if there else 0
    cpus = workers.cpus_per_run or (1 if gpus else machine.devices)
    return {"CPU": cpus} | ({"GPU": gpus} if gpus else {})


def _slots(ray: Any, need: Mapping[str, float]) -> int:
    """How many runs the cluster's nodes can take at a time."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    # Five fifths of a GPU are one, whatever floating point says.
    return sum(min(int(node.get(kind, 0) / n + 1e-6) for kind, n in need.items()) for node in nodes)


def _unseen(token: Path) -> str:
    """Why a node cannot work in the results folder; empty where it sees the folder."""
    if token.is_file():
        return ""
    folder = str(token.parents[1])
    message = f"the node {socket.gethostname()} does not see the results folder {folder!r}"
    return f"{message}: give --out in a folder that all nodes share at one path"


class Cluster:
    """Ray's tasks, one per group of jobs. See ``Engine``."""

    def __init__(self, ray: Any, asked: Work, token: Path) -> None:
        self.ray, self.asked, self.token = ray, asked, token
        self.need = _need(ray, asked.machine, asked.workers)
        self.jobs: dict[Any, Sequence[Job]] = {}  # by the reference that Ray gives
        self.roomless = 0.0  # since when nothing runs and nothing can
        here = self._on(ray.get_runtime_context().get_node_id(), soft=False)
        # Its process starts while those of the nodes start.
        self.mailbox = ray.remote(Mailbox).options(**here).remote()
        self._require_shared_folder()
        self.data = ray.put(asked.data)  # once; every node gets one copy for all its processes
        # Lost tasks are not repeated by Ray, so that the sweep counts them; processes stay for the
        # next run.
        self.task = ray.remote(
            num_cpus=self.need["CPU"],
            num_gpus=self.need.get("GPU", 0),
            max_retries=0,
            max_calls=0,
        )(_execute)

    def _on(self, node: str, *, soft: bool) -> dict[str, Any]:
        """Ray's options for a task without a core of its own on a certain node."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        return {"num_cpus": 0, "scheduling_strategy": strategy(node, soft=soft)}

    def _require_shared_folder(self) -> None:
        """Refuse a cluster in which a node does not see the results folder."""
        look = self.ray.remote(_unseen)
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        looks = [look.options(**self._on(node, soft=True)).remote(self.token) for node in nodes]
        for unseen in filter(None, self._get(looks)):
            raise UserError(unseen, field="out")

    @property
    def about(self) -> str:
        """See ``Engine``."""
        nodes = sum(node["Alive"] for node in self.ray.nodes())
        each = " and ".join(f"{n:g} {kind}" for kind, n in self.need.items())
        return f"Ray, {nodes} node{'s' if nodes > 1 else ''}, {each} per run"

    @property
    def slots(self) -> int:
        """See ``Engine``; nodes come and go."""
        slots = _slots(self.ray, self.need)
        return min(slots, self.asked.workers.jobs or slots)

    @property
    def free_slots(self) -> int:
        """See ``Engine``."""
        return self.slots - len(self.jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        """See ``Engine``."""
        # Nodes have other working directories.
        there = [replace(job, path=job.path.resolve()) for job in jobs]
        # In a list Ray leaves the reference alone: the data may be an object of a plugin.
        reference = self.task.remote(
            there, [self.data], self.mailbox, int(self.need["CPU"]), self.token
        )
        self.jobs[reference] = jobs

    def wait(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """See ``Engine``."""
        if not self.jobs:
            self._require_room()
            time.sleep(seconds)
            return
        self.roomless = 0.0
        references = list(self.jobs)
        self.ray.wait(references, timeout=seconds)
        ready, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        jobs = {job.run.id: job for group in self.jobs.values() for job in group}
        for run_id, record in self._get(self.mailbox.taken.remote()):
            if run_id in jobs:  # a task that Ray counts as lost may still run and send records
                yield jobs[run_id], record
        for reference in ready:
            group = self.jobs.pop(reference)
            ends = list(zip(group, self._statuses(reference, len(group)), strict=True))
            # What halts one stops the others, which are not lost then.
            yield from sorted(ends, key=lambda end: end[1].kind != "halted")

    def _statuses(self, reference: Any, jobs: int) -> list[RunStatus]:
        try:
            return self._get(reference)
        except self.ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [""])[-1]
            reason = f"Ray has lost it ({type(error).__name__}: {reason})"
            return [RunStatus("lost", reason=reason)] * jobs

    def _get(self, reference: Any) -> Any:
        """The value of a reference.

        Raises:
            StorageError: the cluster does not answer.
        """
        try:
            return self.ray.get(reference, timeout=PATIENCE)
        except self.ray.exceptions.GetTimeoutError as error:
            message = f"the Ray cluster has not answered for {PATIENCE:g} s"
            raise StorageError(message, field="engine") from error

    def _require_room(self) -> None:
        """Give up where no node has had room for a run for long."""
        now = time.monotonic()
        if _slots(self.ray, self.need):
            self.roomless = 0.0
        elif not self.roomless:
            self.roomless = now
        elif now - self.roomless > _ROOM_SECONDS:
            message = "no node that is left of the cluster has room for a run"
            raise UserError(f"{message}; the same command continues", field="engine")

    def stop(self) -> None:
        """See ``Engine``; jobs that no node has begun yet are taken back."""
        begun = self._get(self.mailbox.stop.remote())
        for reference, jobs in self.jobs.items():
            if jobs[0].run.id not in begun:
                self.ray.cancel(reference)


class Mailbox:
    """An actor beside the sweep: nodes put records there, and ask it whether to stop."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []
        self.begun: set[str] = set()
        self.over = False

    def begin(self, run_id: str) -> None:
        """A node begins jobs, the first of which is for this run."""
        self.begun.add(run_id)

    def put(self, run_id: str, record: Record) -> None:
        """A record of a run is there."""
        self.records.append((run_id, record))

    def taken(self) -> list[tuple[str, Record]]:
        """The records since the last call."""
        records, self.records = self.records, []
        return records

    def stop(self) -> set[str]:
        """Ask all runs to stop; return the ids that have begun."""
        self.over = True
        return self.begun

    def stopped(self) -> bool:
        """Whether runs shall stop."""
        return self.over


# --- on a node --------------------------------------------------------------------------------


def _execute(
    jobs: list[Job], data_at: list[Any], mailbox: Any, threads: int, token: Path
) -> list[RunStatus]:
    """Execute a group of jobs on a node; their records are put into the mailbox."""
    import ray

    unseen = _unseen(token)
    if unseen:  # of a node that joined the cluster later
        return [RunStatus("halted", reason=unseen)] * len(jobs)
    first = jobs[0]
    torch.set_num_threads(threads)
    enter_all(first.plugins)
    data: Dataset = ray.get(data_at[0])
    data = data.decoded_by(first.run.loading.decoders(threads))
    ray.get(mailbox.begin.remote(first.run.id), timeout=PATIENCE)
    statuses = {job.run.id: RunStatus("stopped") for job in jobs}
    with listening(insist=False) as stop, _asking(ray, mailbox, stop):
        for job, message in execute_runs(jobs, data, stop, capture=True):
            if isinstance(message, RunStatus):
                statuses[job.run.id] = message
            else:
                ray.get(mailbox.put.remote(job.run.id, message), timeout=PATIENCE)
    return list(statuses.values())


@contextlib.contextmanager
def _asking(ray: Any, mailbox: Any, stop: Stop) -> Iterator[None]:
    """Ask now and then whether this process is to stop."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(_POLL_SECONDS) and not stop():
            try:
                asked = ray.get(mailbox.stopped.remote(), timeout=PATIENCE)
            except ray.exceptions.RayError:  # nobody is left to take the result
                asked = True
            if asked:
                stop.signal = signal.SIGTERM
                stop.forward(signal.SIGTERM)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
