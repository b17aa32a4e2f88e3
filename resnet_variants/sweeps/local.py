"""The local engine: the runs of an experiment one after another in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from filelock import FileLock, Timeout

from resnet_variants.files import Json, to_json, write_atomically, writing
from resnet_variants.records import read_experiment
from resnet_variants.registry import UserError
from resnet_variants.run_folder import DONE, FAILED, RunFolder
from resnet_variants.sweeps.attempt import Attempt
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.provenance import provenance
from resnet_variants.sweeps.runs import Run
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.interrupt import stopping
from resnet_variants.training.loop import EpochRecord, check_batch


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an experiment is carried out; none of it changes what is measured."""

    machine: Machine = field(default_factory=Machine)
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


def silent() -> AbstractContextManager[Watcher]:
    """Watch without a word."""
    return contextlib.nullcontext(Silent())


def conduct(
    experiment: Experiment,
    out: Path,
    options: Options,
    watch: Callable[[], AbstractContextManager[Watcher]],
) -> bool:
    """Check, claim ``out``, record the experiment, do the runs that are missing.

    ``watch`` is called when everything is ready. Returns whether every run is done.

    Raises:
        ValueError: see ``check``, ``claimed`` and ``prepare``; nothing has been trained then.
    """
    check(experiment, options)
    with claimed(out):
        todo = prepare(experiment, out, options)
        with watch() as watcher:
            return run_all(experiment, todo, out, machine=options.machine, watcher=watcher)


def check(experiment: Experiment, options: Options) -> None:
    """Refuse what could not start.

    Raises:
        ValueError: no such device, a batch larger than the training data, or a network that the
            images are too small for.
    """
    make_fabric(options.machine, experiment.recipe.precision)
    data = experiment.runs[0].load()
    check_batch(data, experiment.recipe, options.machine.devices)
    for run in experiment.runs[: len(experiment.variants)]:
        run.cost(data)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the results folder, and keep other commands from training into it meanwhile.

    Raises:
        ValueError: ``out`` is no folder, cannot be written, or is in use.
    """
    lock = FileLock(out / ".lock", blocking=False)
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        message = f"{str(out)!r} is in use by another run: wait for it, or take another folder"
        raise UserError(message, field="out") from error
    except OSError as error:
        message = f"{str(out)!r} cannot be written: {error.strerror}"
        raise UserError(message, field="out") from error
    try:
        yield
    finally:
        lock.release()


def prepare(experiment: Experiment, out: Path, options: Options) -> list[Run]:
    """Record the experiment in ``out`` and return the runs that are missing or unfinished there.

    What earlier experiments planned and compared in the same folder stays.

    Raises:
        ValueError: a file in ``out`` is damaged, or a run was made with other images; nothing has
            been written then.
    """
    folders = {run: RunFolder(out / "runs" / run.id) for run in experiment.runs}
    again = (FAILED,) if options.retry_failed else ()
    results = {run: None if options.fresh else folder.result() for run, folder in folders.items()}
    todo = [run for run, result in results.items() if not result or result["status"] in again]
    data = experiment.runs[0].load()
    for run, folder in folders.items():
        if run not in todo:
            folder.refuse_other_images(data.facts)
    before, record = read_experiment(out), experiment.record()
    known, new = (cast(Json, content.get("baselines", {})) for content in (before, record))
    # A model that now runs alone keeps what it was compared with.
    record["baselines"] = known | {m: b for m, b in new.items() if b != m or m not in known}
    planned = [*cast("list[str]", record["runs"]), *cast("list[str]", before.get("runs", []))]
    record["runs"] = list(dict.fromkeys(planned))
    fabric = make_fabric(options.machine, experiment.recipe.precision)
    record["provenance"] = provenance(fabric.device)
    with writing(out):
        write_atomically(out / "experiment.json", to_json(record))
    for run in todo:
        folders[run].remove() if options.fresh else folders[run].reopen()
    return todo


def run_all(
    experiment: Experiment, todo: Sequence[Run], out: Path, *, machine: Machine, watcher: Watcher
) -> bool:
    """Carry out the runs in order; return whether all of the experiment's runs are done.

    After SIGINT or SIGTERM the run at hand is saved as it is, and this leaves as the signal would.
    """
    watcher.begin(todo, len(experiment.runs) - len(todo))
    with stopping() as stop:
        for run in todo:
            attempt = Attempt(run, out / "runs" / run.id, machine)
            result = attempt.execute(lambda record, run=run: watcher.epoch(run, record), stop)
            if result is not None:
                watcher.end(run, result)
            if stop():
                break
    results = [RunFolder(out / "runs" / run.id).result() for run in experiment.runs]
    return all(result is not None and result["status"] == DONE for result in results)
