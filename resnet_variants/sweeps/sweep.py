"""An experiment carried out: what is missing is handed to an engine, run by run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from resnet_variants.records.files import Json, require_name, to_json, write_atomically, writing
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.records.run_folder import DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.driver import Driver, Watcher
from resnet_variants.sweeps.engines.base import Work, Workers, check_engine, start
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.provenance import origin
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sinks import check_sinks
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import stopping
from resnet_variants.training.trainer import EpochRecord, check_batch

_PATIENCE = 1.0  # seconds: to see who has a run, others claim it for a moment
_LOCK_SECONDS = 60.0  # another command needs the folder to itself only for a moment


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an experiment is carried out; none of it changes what is measured."""

    machine: Machine = field(default_factory=Machine)
    workers: Workers = field(default_factory=Workers)
    sinks: tuple[str, ...] = ()  # see `sinks`
    fresh: bool = False  # forget what these runs have left in the folder before
    retry_failed: bool = False  # count failed runs as missing


class Silent:
    """A watcher that says nothing."""

    def begin(self, todo: Sequence[Run], done: int, about: str) -> None:
        """See ``Watcher``."""

    def start(self, run: Run) -> None:
        """See ``Watcher``."""

    def hold(self, run: Run) -> None:
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
    """Check, record the experiment in ``out``, do the runs that are missing.

    ``watch`` is called when everything is ready. Returns whether every run is done. Commands with
    the same folder share the work.

    Raises:
        ValueError: see ``check``, ``claimed`` and ``prepare``; nothing has been trained then.
    """
    check(experiment, out, options)
    with claimed(out):
        todo = prepare(experiment, out, options)
    with watch() as watcher:
        return run_all(experiment, todo, out, options=options, watcher=watcher)


def check(experiment: Experiment, out: Path, options: Options) -> None:
    """Refuse what could not start.

    Raises:
        ValueError: no such device or cluster, a batch larger than the training data, a network
            that the images are too small for or the recipe is not for, weights that are not there
            or do not fit, or a sink that is not installed.
    """
    require_name(out, field="out")
    check_engine(options.machine, options.workers, experiment.recipe.precision)
    check_sinks(options.sinks)
    data = experiment.runs[0].load()
    check_batch(data, experiment.recipe, options.machine.devices)
    for run in experiment.runs[: len(experiment.variants)]:
        run.check()
        run.cost(data)
    if experiment.recipe.weights:
        for run in experiment.runs:
            if options.fresh or not RunFolder(out / "runs" / run.id).result():
                run.build(data)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the results folder, and keep other commands from preparing theirs in it meanwhile.

    Raises:
        ValueError: ``out`` is no folder, cannot be written, or is not let go.
    """
    lock = FileLock(out / ".lock", timeout=_LOCK_SECONDS)
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        message = f"{str(out)!r} is held by another command that is starting: try again"
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
        ValueError: a file in ``out`` is damaged, a run was made with other images, or one that is
            to be redone is being trained; nothing has been written then, unless another command
            took up such a run at this very moment.
    """
    folders = {run: RunFolder(out / "runs" / run.id) for run in experiment.runs}
    results = {run: None if options.fresh else folder.result() for run, folder in folders.items()}
    redo = {
        run: "fresh" if options.fresh else "retry_failed"
        for run, result in results.items()
        if options.fresh or (options.retry_failed and result and result["status"] == FAILED)
    }
    data = experiment.runs[0].load()
    for run, result in results.items():
        if run in redo:
            with _free(folders[run], redo[run]):
                pass
        elif result:
            folders[run].refuse_other_images(data.facts)
    before, record = read_experiment(out), experiment.record()
    known, new = (cast(Json, content.get("baselines", {})) for content in (before, record))
    # A model that now runs alone keeps what it was compared with.
    record["baselines"] = known | {m: b for m, b in new.items() if b != m or m not in known}
    planned = [*cast("list[str]", record["runs"]), *cast("list[str]", before.get("runs", []))]
    record["runs"] = list(dict.fromkeys(planned))
    record["provenance"] = origin()
    with writing(out):
        write_atomically(out / "experiment.json", to_json(record))
    for run, flag in redo.items():
        with _free(folders[run], flag):
            folders[run].remove() if options.fresh else folders[run].reopen()
    return [run for run, result in results.items() if run in redo or not result]


@contextlib.contextmanager
def _free(folder: RunFolder, flag: str) -> Iterator[None]:
    """A run that is to be forgotten, while nobody else has it."""
    with folder.claim(_PATIENCE) as mine:
        if not mine:
            message = f"{folder.path} is being trained by another command: wait for it"
            raise UserError(message, field=flag)
        yield


def run_all(
    experiment: Experiment, todo: Sequence[Run], out: Path, *, options: Options, watcher: Watcher
) -> bool:
    """Carry out the runs; return whether all of the experiment's runs are done.

    After SIGINT or SIGTERM the runs at hand are saved as they are, and this leaves as the signal
    would. After an error of one run the others go on.
    """
    with stopping() as stop:
        data, done = experiment.runs[0].load(), len(experiment.runs) - len(todo)
        driver = Driver(out / "runs", options.machine, options.sinks, data, watcher, stop)
        work = Work(
            todo=todo,
            data=data,
            machine=options.machine,
            workers=options.workers,
            tell=driver.hear,
            stop=stop,
        )
        if todo:
            with start(work) as engine:
                watcher.begin(todo, done, engine.about)
                driver.drive(engine, todo)
        else:
            watcher.begin(todo, done, "nothing to do")
    results = (RunFolder(out / "runs" / run.id).result() for run in experiment.runs)
    return all(result is not None and result["status"] == DONE for result in results)
