"""What every engine has: the interface, the settings and how one is started."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import Registry, UserError, require_types
from resnet_variants.sweeps.execute import Job, RunStatus
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.trainer import EpochRecord

Message = EpochRecord | RunStatus  # of a run: its epochs, then how it ended


class Engine(Protocol):
    """Executes jobs: they are submitted one by one, and their messages are waited for."""

    @property
    def about(self) -> str:
        """The engine in words."""
        ...

    @property
    def slots(self) -> int:
        """How many jobs the engine executes at a time."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job; there must be a free slot."""
        ...

    def wait(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """What the jobs have sent; where there is nothing, wait for about ``seconds``."""
        ...

    def stop(self) -> None:
        """Ask the jobs to save their state and stop."""
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
    jobs: int = 0  # runs at a time; 0: one per core or GPU, or what fits into the cluster
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
    """What an engine is started for."""

    todo: Sequence[Run]
    folder: Path  # of the runs' folders
    data: Dataset
    machine: Machine
    workers: Workers = field(default_factory=Workers)
    stop: Stop


def check_engine(machine: Machine, workers: Workers, precision: str) -> None:
    """Refuse an engine that could not start, before anything is written.

    Raises:
        ValueError: a device, a package or a cluster is missing.
    """
    _module(workers).check(machine, workers, precision)


def start(work: Work) -> AbstractContextManager[Engine]:
    """The engine that the work asks for; it is closed at the end of the block."""
    return _module(work.workers).engine(work)


def _module(workers: Workers) -> Any:
    return importlib.import_module(ENGINES[workers.engine])
