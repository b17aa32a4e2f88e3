"""The engine for several machines: Ray hands the runs to the nodes of a cluster.

Nodes that see the results folder write to it. Otherwise each run is carried out in a folder of its
node's own, and its files are fetched when it ends or is asked to stop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from resnet_variants.files import atomic_file
from resnet_variants.registry import UserError
from resnet_variants.run_folder import RunFolder
from resnet_variants.sweeps.attempt import Attempt
from resnet_variants.sweeps.engine import Engine, Outcome, Work, Workers, carry_out
from resnet_variants.sweeps.runs import Run
from resnet_variants.training.data import Dataset
from resnet_variants.training.device import Machine, cores
from resnet_variants.training.interrupt import TERMINATED, Stop, listening
from resnet_variants.training.loop import EpochRecord

_PATIENCE = 5.0  # seconds for an address to answer
_LOOK_SECONDS = 1.0  # between two looks of a node at whether to stop
_PACKAGE = Path(__file__).parents[1]

Files = Mapping[str, bytes]  # of a run, by path in its folder


# --- at the head ------------------------------------------------------------------------------


def check(machine: Machine, workers: Workers, precision: str) -> None:
    """Connect to the cluster, or start one.

    Raises:
        ValueError: Ray is not installed, nobody answers, or no node has room for a run.
    """
    del precision  # the nodes' devices decide what they can do
    ray = _ray()
    if not ray.is_initialized():
        _connect(ray, workers.ray_address)
    if machine.device == "cuda" and not ray.cluster_resources().get("GPU"):
        message = "unknown device 'cuda': the cluster has no GPU; choices: auto, cpu"
        raise UserError(message, field="device")
    need = _need(ray, machine, workers)
    if not _slots(ray, need):
        asked = " and ".join(f"{n:g} {kind}" for kind, n in need.items())
        raise UserError(f"no node of the cluster has {asked} for a run", field="cpus_per_run")


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """The cluster that ``check`` has found, until the block ends."""
    ray = _ray()
    try:
        yield Cluster(ray, work)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"the Ray cluster was lost ({type(error).__name__}: {reason})"
        raise UserError(f"{message}; the same command continues", field="engine") from error
    finally:
        ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is called
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        message = "the engine ray needs Ray: pip install 'resnet_variants[ray]'"
        raise UserError(message, field="engine") from error
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address:  # for this call and this machine alone
        ray.init(num_cpus=cores(), include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
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
    return sum(min(int(node.get(kind, 0) // n) for kind, n in need.items()) for node in nodes)


@dataclass
class _Sent:
    """An attempt on its way, and the claim on it where its node has none."""

    attempt: Attempt
    claim: contextlib.ExitStack


class Cluster:
    """Ray's tasks, one per attempt. See ``Engine``."""

    def __init__(self, ray: Any, work: Work) -> None:
        self.ray, self.work = ray, work
        need = _need(ray, work.machine, work.workers)
        self.need = need
        self.sent: dict[Any, _Sent] = {}
        self.early: list[Outcome] = []
        self.seen_by_all: bool | None = None
        self.data = ray.put(work.data)  # once; every node gets one copy for all its processes
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.ear = ray.remote(_Ear).options(num_cpus=0, scheduling_strategy=here).remote()
        # Lost attempts come back to the driver, which counts them; workers stay for the next run.
        self.task = ray.remote(
            num_cpus=need["CPU"], num_gpus=need.get("GPU", 0), max_retries=0, max_calls=0
        )(_work)

    @property
    def about(self) -> str:
        """See ``Engine``."""
        nodes = sum(node["Alive"] for node in self.ray.nodes())
        each = " and ".join(f"{n:g} {kind}" for kind, n in self.need.items())
        return f"Ray, {nodes} node{'s' if nodes > 1 else ''}, {each} per run"

    def free(self) -> int:
        """See ``Engine``."""
        slots = _slots(self.ray, self.need)
        return max(0, min(slots, self.work.workers.jobs or slots) - len(self.sent))

    def submit(self, attempt: Attempt) -> None:
        """See ``Engine``."""
        attempt = replace(attempt, path=attempt.path.resolve())  # nodes have other directories
        if self.seen_by_all is None:
            self.seen_by_all = self._seen_by_all(attempt.path.parent)
        claim, files = contextlib.ExitStack(), None
        if not self.seen_by_all:
            folder = RunFolder(attempt.path)
            if not claim.enter_context(folder.claim()):
                self.early.append(Outcome(attempt, "busy"))
                return
            if result := folder.result():
                claim.close()
                self.early.append(Outcome(attempt, "ended", result))
                return
            files = packed(attempt.path)
        reference = self.task.remote(attempt, self.data, self.ear, int(self.need["CPU"]), files)
        self.sent[reference] = _Sent(attempt, claim)

    def _seen_by_all(self, folder: Path) -> bool:
        """Whether every node sees the folder at its path."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        token = folder / f".{uuid.uuid4().hex}"
        token.touch()
        try:
            look = self.ray.remote(_exists)
            nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
            options = [{"scheduling_strategy": strategy(node, soft=True)} for node in nodes]
            looks = [look.options(num_cpus=0, **o).remote(token) for o in options]
            return all(self.ray.get(looks))
        finally:
            token.unlink()

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Engine``."""
        outcomes, self.early = self.early, []
        if not self.sent:
            time.sleep(0 if outcomes else seconds)
            return outcomes
        some = list(self.sent)
        self.ray.wait(some, timeout=0 if outcomes else seconds)
        ready, _ = self.ray.wait(some, num_returns=len(some), timeout=0)
        for run, record in self.ray.get(self.ear.heard.remote()):
            self.work.tell(run, record)
        return outcomes + [self._outcome(reference) for reference in ready]

    def _outcome(self, reference: Any) -> Outcome:
        sent = self.sent.pop(reference)
        with sent.claim:
            try:
                outcome, files = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [""])[0]
                reason = f"Ray has lost it ({type(error).__name__}: {reason})"
                return Outcome(sent.attempt, "lost", reason=reason)
            if files:
                unpack(files, sent.attempt.path)
            return outcome

    def stop(self) -> None:
        """See ``Engine``."""
        self.ray.get(self.ear.stop.remote())


def packed(folder: Path) -> Files:
    """The files of a run, whether finished or not."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Files, folder: Path) -> None:
    """Put a run's files into its folder, the result last, and nothing else beside them.

    Raises:
        ValueError: a name leads out of the folder.
    """
    for name in sorted(files, key=lambda name: name == "result.json"):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"a node sent the file {name!r}, which leads out of {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(files[name])
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


# --- at the nodes -----------------------------------------------------------------------------


class _Ear:
    """Where the nodes' records go, and where they ask whether to stop."""

    def __init__(self) -> None:
        self.records: list[tuple[Run, EpochRecord]] = []
        self.over = False

    def hear(self, run: Run, record: EpochRecord) -> None:
        """An epoch of a run is over."""
        self.records.append((run, record))

    def heard(self) -> list[tuple[Run, EpochRecord]]:
        """What was heard since the last time."""
        records, self.records = self.records, []
        return records

    def stop(self) -> None:
        """Let all attempts stop."""
        self.over = True

    def stopped(self) -> bool:
        """Whether they shall."""
        return self.over


def _exists(path: Path) -> bool:
    return path.exists()


def _work(
    attempt: Attempt, data: Dataset, ear: Any, threads: int, files: Files | None
) -> tuple[Outcome, Files]:
    """One attempt on a node; the run's files where the head does not see them."""
    ray = _ray()
    torch.set_num_threads(threads)
    data = data.decoded_by(threads)

    def tell(record: EpochRecord) -> None:
        ray.get(ear.hear.remote(attempt.run, record))

    with listening(insist=False) as stop, _asking(ray, ear, stop):
        if files is None:
            return carry_out(attempt, data, tell, stop, capture=True), {}
        with TemporaryDirectory() as scratch:
            here = replace(attempt, path=Path(scratch) / attempt.path.name)
            unpack(files, here.path)
            outcome = carry_out(here, data, tell, stop, capture=True)
            return replace(outcome, attempt=attempt), packed(here.path)


@contextlib.contextmanager
def _asking(ray: Any, ear: Any, stop: Stop) -> Iterator[None]:
    """Look now and then whether the head wants this process to stop."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            if not stop() and ray.get(ear.stopped.remote()):
                stop.signal = TERMINATED
                stop.forward(TERMINATED)
            over.wait(_LOOK_SECONDS)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
