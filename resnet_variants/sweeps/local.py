"""The local engine: the runs of an experiment one after another in this process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resnet_variants.records import DONE, FAILED, Json, RunFolder, to_json, write_atomically
from resnet_variants.registry import UserError
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.provenance import provenance
from resnet_variants.sweeps.runs import Run, execute
from resnet_variants.training.loop import EpochRecord, check_batch, make_fabric


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an experiment is carried out; none of it changes what is measured."""

    device: str = "auto"
    fresh: bool = False  # forget what these runs have left in the folder before
    retry_failed: bool = False  # count failed runs as missing


class Watcher(Protocol):
    """Is told how the runs come along."""

    def begin(self, todo: Sequence[Run], done: int) -> None:
        """``todo`` runs start now; ``done`` were finished before."""
        ...

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """An epoch of a run is over."""
        ...

    def end(self, run: Run, result: Json) -> None:
        """A run is over, with its result."""
        ...


class Silent:
    """A watcher that says nothing."""

    def begin(self, todo: Sequence[Run], done: int) -> None:
        """See ``Watcher``."""

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """See ``Watcher``."""

    def end(self, run: Run, result: Json) -> None:
        """See ``Watcher``."""


def check(experiment: Experiment, options: Options) -> None:
    """Refuse what could not start.

    Raises:
        ValueError: no such device, or a batch larger than the training data.
    """
    make_fabric(options.device, experiment.recipe.precision)
    check_batch(experiment.runs[0].load(), experiment.recipe)


def prepare(experiment: Experiment, out: Path, options: Options) -> list[Run]:
    """Check the experiment, record it in ``out``, and return the runs that are missing there.

    Raises:
        ValueError: see ``check``; or ``out`` is no folder or cannot be written. Nothing has been
            written then.
    """
    check(experiment, options)
    fabric = make_fabric(options.device, experiment.recipe.precision)
    record = experiment.record() | {"provenance": provenance(fabric.device)}
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        write_atomically(out / "experiment.json", to_json(record))
    except OSError as error:
        message = f"{str(out)!r} cannot be written: {error.strerror}"
        raise UserError(message, field="out") from error
    todo: list[Run] = []
    for run in experiment.runs:
        folder = RunFolder(out / "runs" / run.id)
        if options.fresh and folder.path.exists():
            shutil.rmtree(folder.path)
        result = folder.result()
        if result is None or (options.retry_failed and result["status"] == FAILED):
            todo.append(run)
    return todo


def run_all(
    experiment: Experiment, todo: Sequence[Run], out: Path, *, device: str, watcher: Watcher
) -> bool:
    """Carry out the runs in order; return whether all of the experiment's runs are done."""
    watcher.begin(todo, len(experiment.runs) - len(todo))
    for run in todo:
        result = execute(
            run,
            out / "runs" / run.id,
            device=device,
            on_epoch=lambda record, run=run: watcher.epoch(run, record),
        )
        watcher.end(run, result)
    results = [RunFolder(out / "runs" / run.id).result() for run in experiment.runs]
    return all(result is not None and result["status"] == DONE for result in results)
