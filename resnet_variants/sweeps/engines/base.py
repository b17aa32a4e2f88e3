"""What every engine has: the interface, the settings and how one is started."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from resnet_variants.data.dataset import Dataset
from resnet_variants.settings import Machine, Workers
from resnet_variants.sweeps.execute import Job, Message
from resnet_variants.sweeps.run import Run
from resnet_variants.training.interrupt import Stop


class Engine(Protocol):
    """Executes jobs, alone or the seeds of an arm together, and hands on their messages."""

    @property
    def about(self) -> str:
        """The engine in words."""
        ...

    @property
    def slots(self) -> int:
        """How many groups of jobs the engine executes at a time."""
        ...

    @property
    def free_slots(self) -> int:
        """How many more groups it could begin now."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begin a group of jobs, which are executed together; there must be a free slot."""
        ...

    def wait(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """What the jobs have sent; where there is nothing, wait for about ``seconds``."""
        ...

    def stop(self) -> None:
        """Ask the jobs to save their state and stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an engine is started for."""

    todo: Sequence[Run]
    folder: Path  # of the runs' folders
    data: Dataset
    machine: Machine
    workers: Workers
    stop: Stop


def check_engine(machine: Machine, workers: Workers, precision: str) -> str:
    """Refuse an engine that could not start, before anything is written.

    Returns:
        The type of the device that a run gets.

    Raises:
        ValueError: a device, a package or a cluster is missing.
    """
    return _module(workers).check(machine, workers, precision)


def start(work: Work) -> AbstractContextManager[Engine]:
    """The engine that the work asks for; it is closed at the end of the block."""
    return _module(work.workers).engine(work)


def slots(runs: Sequence[Run], machine: Machine, workers: Workers) -> int:
    """How many groups of runs an engine would execute at a time, after ``check_engine``."""
    return _module(workers).slots(runs, machine, workers)


def _module(workers: Workers) -> Any:
    """The module of the engine's name, with functions ``check``, ``slots`` and ``engine``."""
    return importlib.import_module(f"resnet_variants.sweeps.engines.{workers.engine}")
