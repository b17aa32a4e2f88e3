"""What carries runs out: one interface, whatever processes and machines are behind it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from resnet_variants.data.dataset import Dataset
from resnet_variants.records.files import Json, StorageError
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import Registry, UserError, require_types
from resnet_variants.sweeps.execute import Attempt, Tell
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.trainer import EpochRecord


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt.

    ended: there is a result, by this attempt or by another command meanwhile.
    busy: another process has the run.
    stopped: it was asked to stop, and saved its state.
    lost: the process that computed it has ended; ``reason`` says how.
    refused: it could not begin; ``reason`` says why.
    halted: a disk or a limit of the system is in the way, and would be in that of all others too;
        ``reason`` says which. The run is left as it was saved.
    """

    attempt: Attempt
    kind: Literal["ended", "busy", "stopped", "lost", "refused", "halted"]
    result: Json | None = None
    reason: str = ""


class Engine(Protocol):
    """Takes attempts and says what became of them."""

    @property
    def about(self) -> str:
        """What computes, in words."""
        ...

    def free(self) -> int:
        """How many more attempts it could begin at once."""
        ...

    def submit(self, attempt: Attempt) -> None:
        """Begin an attempt."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """What has come to an end; waits for it, but not longer than so."""
        ...

    def stop(self) -> None:
        """Ask the attempts at hand to save their state and stop."""
        ...


# Modules with functions `check` and `engine`, loaded when they are asked for.
ENGINES = Registry(
    "engine",
    local="resnet_variants.sweeps.engines.local",
    ray="resnet_variants.sweeps.engines.ray",
    inline="resnet_variants.sweeps.engines.inline",
)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many runs are carried out at a time, and by what; no part of a run's id.

    Raises:
        ValueError: an unknown engine or a number out of range.
    """

    engine: str = "inline"
    jobs: int = 0  # runs at a time; 0: what was measured to be fastest, or fits into the cluster
    cpus_per_run: int = 0  # threads; 0: their share of the cores, and 1 in a cluster
    gpus_per_run: float = 0.0  # in a cluster, a whole number or a part of one; 0: one, if any
    ray_address: str = ""  # HOST:PORT of a cluster; none: one is started for the call

    def __post_init__(self) -> None:
        require_types(self)
        ENGINES[self.engine]
        for name, high in (("jobs", 4096), ("cpus_per_run", 1024), ("gpus_per_run", 64)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise UserError(f"{name} {value!r} must be from 0 to {high}", field=name)
        if self.gpus_per_run > 1 and self.gpus_per_run % 1:
            message = f"gpus_per_run {self.gpus_per_run} must be a whole number, or less than 1"
            raise UserError(message, field="gpus_per_run")
        for name in ("gpus_per_run", "ray_address"):
            if getattr(self, name) and self.engine != "ray":
                raise UserError(f"{name} is for --engine ray", field=name)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an engine is made for."""

    todo: Sequence[Run]
    data: Dataset
    machine: Machine
    workers: Workers = field(default_factory=Workers)
    tell: Callable[[Run, EpochRecord], None]
    stop: Stop


def check_engine(machine: Machine, workers: Workers, precision: str) -> None:
    """Refuse what could not start, before anything is written.

    Raises:
        ValueError: it lacks what was asked for: a device, a package, a cluster.
    """
    _module(workers).check(machine, workers, precision)


def start(work: Work) -> AbstractContextManager[Engine]:
    """The engine that the work asks for, while the block lasts."""
    return _module(work.workers).engine(work)


def _module(workers: Workers) -> Any:
    return importlib.import_module(ENGINES[workers.engine])


def refusal(attempt: Attempt, error: UserError) -> Outcome:
    """What becomes of an attempt that cannot be begun, or cannot be kept."""
    kind = "halted" if isinstance(error, StorageError) else "refused"
    return Outcome(attempt, kind, reason=str(error))


def carry_out(
    attempt: Attempt, data: Dataset, tell: Tell, stop: Stop, *, capture: bool = False
) -> Outcome:
    """An attempt from start to end, in this process: what every engine comes to."""
    folder = RunFolder(attempt.path)
    try:
        with folder.claim() as mine:
            if not mine:
                return Outcome(attempt, "busy")
            # Another command may have done it since this one looked.
            result = folder.result() or attempt.execute(data, tell, stop, capture=capture)
    except UserError as error:
        return refusal(attempt, error)
    return Outcome(attempt, "ended" if result else "stopped", result)
