"""The engine for several machines: Ray hands the runs to the nodes of a cluster.

Nodes that see the results folder write to it. Otherwise each run is carried out in a folder of its
node's own, and its files are fetched when it ends or is asked to stop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib

from resnet_variants.records.files import StorageError, writing
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Outcome, Work, Workers, refusal
from resnet_variants.sweeps.engines.node import Ear, Files, exists, packed, unpack, work
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.training.device import PATIENCE, Machine

_PATIENCE = 5.0  # seconds for an address to answer
_NAMESPACE = "resnet_variants"
_ROOM_SECONDS = 60.0  # without room for any run, until it is given up
_PACKAGE = Path(__file__).parents[1]


def check(machine: Machine, workers: Workers, precision: str) -> None:
    """Connect to the cluster, or start one.

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


@contextlib.contextmanager
def engine(work: Work) -> Iterator[Engine]:
    """The cluster that ``check`` has found, until the block ends."""
    ray = _ray()
    made = Cluster(ray, work)
    try:
        yield made
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        message = f"the Ray cluster was lost ({type(error).__name__}: {reason})"
        raise UserError(f"{message}; the same command continues", field="engine") from error
    finally:
        made.release()
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


@dataclass
class _Sent:
    """An attempt on its way, and the claim on it where its node has none."""

    attempt: Attempt
    claim: contextlib.ExitStack  # empty where the node has it


class Cluster:
    """Ray's tasks, one per attempt. See ``Engine``."""

    def __init__(self, ray: Any, asked: Work) -> None:
        self.ray, self.asked = ray, asked
        need = _need(ray, asked.machine, asked.workers)
        self.need = need
        self.sent: dict[Any, _Sent] = {}
        self.early: list[Outcome] = []
        self.token: Path | None = None  # in the results folder, for nodes to know it by
        self.seen_by_all = False
        self.roomless = 0.0  # since when nothing runs and nothing can
        self.data = ray.put(asked.data)  # once; every node gets one copy for all its processes
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.ear = ray.remote(Ear).options(num_cpus=0, scheduling_strategy=here).remote()
        # Lost attempts come back to the driver, which counts them; workers stay for the next run.
        self.task = ray.remote(
            num_cpus=need["CPU"], num_gpus=need.get("GPU", 0), max_retries=0, max_calls=0
        )(work)

    @property
    def about(self) -> str:
        """See ``Engine``."""
        nodes = sum(node["Alive"] for node in self.ray.nodes())
        each = " and ".join(f"{n:g} {kind}" for kind, n in self.need.items())
        return f"Ray, {nodes} node{'s' if nodes > 1 else ''}, {each} per run"

    def free(self) -> int:
        """See ``Engine``."""
        slots = _slots(self.ray, self.need)
        return max(0, min(slots, self.asked.workers.jobs or slots) - len(self.sent))

    def submit(self, attempt: Attempt) -> None:
        """See ``Engine``."""
        attempt = replace(attempt, path=attempt.path.resolve())  # nodes have other directories
        try:
            with writing(attempt.path):
                self._send(attempt)
        except UserError as error:
            self.early.append(refusal(attempt, error))

    def _send(self, attempt: Attempt) -> None:
        if self.token is None:
            self.token = attempt.path.parent / f".{uuid.uuid4().hex}"
            self.token.touch()
            self.seen_by_all = self._seen_by_all(self.token)
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
        cpus = int(self.need["CPU"])
        reference = self.task.remote(attempt, self.data, self.ear, cpus, self.token, files)
        self.sent[reference] = _Sent(attempt, claim)

    def _seen_by_all(self, token: Path) -> bool:
        """Whether every node sees the results folder."""
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        look = self.ray.remote(exists)
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        options = [{"scheduling_strategy": strategy(node, soft=True)} for node in nodes]
        looks = [look.options(num_cpus=0, **o).remote(token) for o in options]
        return all(self._get(looks))

    def _get(self, reference: Any) -> Any:
        """What a reference stands for.

        Raises:
            StorageError: the cluster does not answer.
        """
        try:
            return self.ray.get(reference, timeout=PATIENCE)
        except self.ray.exceptions.GetTimeoutError as error:
            message = f"the Ray cluster has not answered for {PATIENCE:g} s"
            raise StorageError(message, field="engine") from error

    def wait(self, seconds: float) -> list[Outcome]:
        """See ``Engine``."""
        outcomes, self.early = self.early, []
        if not self.sent:
            if not outcomes:
                self._look_for_room()
                time.sleep(seconds)
            return outcomes
        self.roomless = 0.0
        some = list(self.sent)
        self.ray.wait(some, timeout=0 if outcomes else seconds)
        ready, _ = self.ray.wait(some, num_returns=len(some), timeout=0)
        for run, record in self._get(self.ear.heard.remote()):
            self.asked.tell(run, record)
        return outcomes + [self._outcome(reference) for reference in ready]

    def _look_for_room(self) -> None:
        now = time.monotonic()
        if _slots(self.ray, self.need):
            self.roomless = 0.0
        elif not self.roomless:
            self.roomless = now
        elif now - self.roomless > _ROOM_SECONDS:
            message = "no node that is left of the cluster has room for a run"
            raise UserError(f"{message}; the same command continues", field="engine")

    def _outcome(self, reference: Any) -> Outcome:
        sent = self.sent.pop(reference)
        with sent.claim:
            try:
                outcome, files = self._get(reference)
            except self.ray.exceptions.RayError as error:
                reason = (str(error).strip().splitlines() or [""])[-1]
                reason = f"Ray has lost it ({type(error).__name__}: {reason})"
                return Outcome(sent.attempt, "lost", reason=reason)
            try:
                with writing(sent.attempt.path):
                    return self._fetched(outcome, files, held=not self.seen_by_all)
            except UserError as error:
                return refusal(sent.attempt, error)

    def _fetched(self, outcome: Outcome, files: Files, *, held: bool) -> Outcome:
        """Put what a node has sent into the folder, which this process must have a claim on."""
        folder = RunFolder(outcome.attempt.path)
        if not files:
            return outcome
        with contextlib.nullcontext(True) if held else folder.claim() as mine:  # noqa: FBT003
            if not mine:
                return Outcome(outcome.attempt, "busy")
            if result := folder.result():
                return Outcome(outcome.attempt, "ended", result)
            unpack(files, folder.path)
            return outcome

    def stop(self) -> None:
        """See ``Engine``; what no node has begun yet is taken back."""
        begun = self._get(self.ear.stop.remote())
        for reference, sent in self.sent.items():
            if sent.attempt.run.id not in begun:
                self.ray.cancel(reference)

    def release(self) -> None:
        """Let go of all runs."""
        for sent in self.sent.values():
            sent.claim.close()
        if self.token is not None:
            self.token.unlink(missing_ok=True)
