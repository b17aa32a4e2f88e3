"""Trains the runs of an experiment that are missing, as a generator of events."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from resnet_variants.analysis.arms import setting_text, tuned_in
from resnet_variants.analysis.predictions import Predictions
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.data.dataset import Dataset
from resnet_variants.records.files import (
    Json,
    StorageError,
    locked,
    to_json,
    write_atomically,
    writing,
)
from resnet_variants.records.results_folder import PLAN, ROBUST, SEARCHED, VARIED, read_experiment
from resnet_variants.records.run_folder import DONE, FAILED, RunFolder
from resnet_variants.registry import UserError, number_of, require_name
from resnet_variants.sweeps.arms import usual
from resnet_variants.sweeps.engines.base import Engine, Work, Workers, check_engine, start
from resnet_variants.sweeps.execute import Job, RunStatus, record_failure
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.fused import check_fused, next_group
from resnet_variants.sweeps.provenance import origin
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sinks import check_sinks
from resnet_variants.training.augment import check_augment
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import stopping
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import EpochRecord, Record, StepRecord, check_batch

TRIES = 3  # workers that a run may lose in a row before it counts as failed
_PATIENCE = 1.0  # seconds: a command that looks whether a run is free claims it for a moment
_LOCK_SECONDS = 60.0  # another command needs the folder to itself only for a moment
_LOOK_SECONDS = 0.5  # between two looks at whether to stop
_BUSY_SECONDS = 2.0  # between two looks at a run that another command has


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an experiment is carried out; none of it changes what is measured."""

    machine: Machine = field(default_factory=Machine)
    workers: Workers = field(default_factory=Workers)
    sinks: tuple[str, ...] = ()  # see `sinks`
    fresh: bool = False  # forget what these runs have left in the folder before
    retry_failed: bool = False  # count failed runs as missing


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """The sweep begins.

    Attributes:
        todo: the runs that are missing.
        before: the result of each run that was over before.
        engine: who executes the runs, in words.
        slots: how many runs it executes at a time.
        more: whether another round may follow.
    """

    todo: Sequence[Run]
    before: Mapping[Run, Json]
    engine: str
    slots: int
    more: bool = False


@dataclass(frozen=True)
class Noted:
    """A line for the reader on what is decided between two parts of a sweep."""

    text: str


@dataclass(frozen=True)
class Started:
    """A run starts, or starts again."""

    run: Run


@dataclass(frozen=True)
class Held:
    """Another command has the run; it is asked for again later."""

    run: Run


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a run is over."""

    run: Run
    record: EpochRecord


@dataclass(frozen=True)
class StepsDone:
    """Some steps of an epoch of a run are over."""

    run: Run
    record: StepRecord


@dataclass(frozen=True)
class Lost:
    """The process that computed a run has ended; the run starts again."""

    run: Run
    reason: str


@dataclass(frozen=True)
class Ended:
    """A run is over, with its result, after ``seconds`` of its last execution."""

    run: Run
    result: Json
    seconds: float


Event = Planned | Noted | Started | Held | EpochDone | StepsDone | Lost | Ended
Events = Generator[Event, None, None]


def run_sweep(
    experiment: Experiment, out: Path, options: Options, only: Sequence[Run] | None = None
) -> Events:
    """Check and record the experiment in ``out``; the events train the runs that are missing.

    With ``only``, no others are trained, in this order.
    Commands with the same folder share the work. After SIGINT or SIGTERM the current runs save
    their state, and the generator leaves as the signal would. A closed generator ends the workers.
    After an error of one run the others continue.

    Raises:
        ValueError: see ``check``, ``claimed`` and ``prepare``; nothing has been trained then.
    """
    check(experiment, out, options)
    with claimed(out):
        missing = dict.fromkeys(prepare(experiment, out, options))
    todo = [*missing] if only is None else [run for run in only if run in missing]
    return _train(experiment, todo, out / "runs", options)


def _train(experiment: Experiment, todo: list[Run], folder: Path, options: Options) -> Events:
    data = experiment.runs[0].load()
    results = {run: RunFolder(folder / run.id).result() for run in experiment.runs}
    before = {run: result for run, result in results.items() if result}
    if not todo:
        yield Planned(todo, before, "nothing to do", 0)
        return
    with stopping() as stop:
        work = Work(
            todo=todo,
            folder=folder,
            data=data,
            machine=options.machine,
            workers=options.workers,
            stop=stop,
        )
        with start(work) as engine:
            yield Planned(todo, before, engine.about, engine.slots)
            yield from Scheduler(engine, work, options.sinks).events()


def is_complete(experiment: Experiment, out: Path) -> bool:
    """Whether all runs of the experiment are done, by this command or another one."""
    results = (RunFolder(out / "runs" / run.id).result() for run in experiment.runs)
    return all(result is not None and result["status"] == DONE for result in results)


# --- before the first run ---------------------------------------------------------------------


def check(experiment: Experiment, out: Path, options: Options) -> None:
    """Refuse what could not start.

    Raises:
        ValueError: no such device or cluster, a batch larger than the training data, a network
            that the images are too small for or the recipe is not for, weights that are not there
            or do not fit, a sink that is not installed, what fused seeds cannot do; or ``out``
            cannot be written, has a damaged file, or a run that was made with other images.
    """
    require_name(out, field="out")
    there = next(path for path in (out, *out.resolve().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        message = f"{str(out)!r} cannot be written: {str(there)!r} is no folder for it"
        raise UserError(message, field="out")
    for run in experiment.first_runs:
        run.check()
    check_sinks(options.sinks, fused=options.machine.fuse_seeds > 1)
    device = check_engine(options.machine, options.workers, experiment.recipe.precision)
    data = experiment.runs[0].load()
    for recipe in dict.fromkeys(run.recipe for run in experiment.first_runs):
        _check_recipe(recipe, data, options.machine.devices)
    for run in experiment.first_runs:
        run.cost(data)
    check_fused(experiment.first_runs, options.machine, device)
    for run in experiment.runs:
        folder = RunFolder(out / "runs" / run.id)
        if not options.fresh and folder.result():
            folder.refuse_other_images(data.facts)
        elif run.recipe.weights:
            run.build(data)
    _refuse_other_plugins(experiment, out, fresh=options.fresh)
    _plan(experiment, out, fresh=options.fresh)
    _varied(experiment, out)
    _refuse_other_search(experiment, out, fresh=options.fresh)


def _refuse_other_search(experiment: Experiment, out: Path, *, fresh: bool) -> None:
    """Refuse arms whose values come from another search than those of the folder's runs.

    Raises:
        ValueError: the folder has runs, and they were searched for otherwise or not at all.
    """
    content = read_experiment(out)
    before = _search_text(*_tried(cast("list[Json]", content.get(SEARCHED, []))))
    now = _search_text(*(experiment.tuning if experiment.tune else _tried(experiment.searched)))
    if content.get("runs") and before != now and not fresh:
        message = f"the arms of {str(out)!r} come from a search of {before or 'nothing'}"
        raise UserError(f"{message}: give another --out for {now or 'none'}", field="tune")


def _tried(searched: Sequence[Mapping[str, Any]]) -> tuple[int, Mapping[str, Iterable[object]]]:
    """How many seeds a search had, and the values of each setting that it tried."""
    values = {name: dict.fromkeys(row[name] for row in searched) for name in tuned_in(searched)}
    return (searched[0]["runs"] if searched else 0), values


def _search_text(seeds: int, values: Mapping[str, Iterable[object]]) -> str:
    """A search in words; empty for none."""
    each = [f"{name} {', '.join(map(setting_text, own))}" for name, own in values.items()]
    return f"{number_of(seeds, 'seed')}, {'; '.join(each)}" if each else ""


def _check_recipe(recipe: Recipe, data: Dataset, devices: int) -> None:
    check_batch(data, recipe, devices)
    if recipe.augment:
        check_augment(recipe.augment, (data.in_chans, data.img_size, data.img_size))


def _varied(experiment: Experiment, out: Path) -> Json:
    """The settings that vary in a folder with their usual values, those of before too.

    Raises:
        ValueError: a setting had another usual value, which names of arms leave out.
    """
    before = cast("dict[str, str]", read_experiment(out).get(VARIED, {}))
    now = usual(experiment.recipe, experiment.vary)
    for name in before.keys() & now.keys():
        if before[name] != now[name]:
            message = f"arms of {str(out)!r} without a {name} in their name have {before[name]}"
            raise UserError(f"{message}: give another --out for {now[name]}", field="out")
    return {**before, **now}


def _plan(experiment: Experiment, out: Path, *, fresh: bool) -> Json:
    """What was fixed before the first run of the folder, as its ``experiment.json`` holds it.

    Predictions that are stated or changed after the first result are marked as such.

    Raises:
        ValueError: there are results, and the experiment has another margin or endpoint.
    """
    forgotten = {run.id for run in experiment.runs if fresh}
    finished = {file.parent.name for file in (out / "runs").glob("*/result.json")} - forgotten
    if not finished:
        return asdict(experiment.plan) | experiment.predictions.record()
    before = cast(Json, read_experiment(out).get(PLAN, {}))
    known, now = Plan.of(before), experiment.plan
    for name in ("margin", "endpoint"):
        fixed, wanted = getattr(known, name), getattr(now, name)
        if wanted not in (fixed, getattr(Plan(), name)):
            message = f"the {name} of {str(out)!r} has been {fixed or 'none'} since its first run"
            raise UserError(f"{message}: give another --out for {wanted}", field=name)
    return (
        before
        | {"compare": now.compare}
        | experiment.predictions.after(Predictions.in_folder(out)).record()
    )


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the results folder, and keep other commands from preparing theirs in it meanwhile.

    Raises:
        ValueError: ``out`` is no folder, cannot be written, or is not let go.
    """
    with writing(out):
        (out / "runs").mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", _LOCK_SECONDS) as mine:
        if not mine:
            message = f"{str(out)!r} is held by another command that is starting: try again"
            raise UserError(message, field="out")
        yield


def prepare(experiment: Experiment, out: Path, options: Options) -> list[Run]:
    """Record the experiment in ``out`` and return the runs that are missing or unfinished there.

    What earlier experiments planned and compared in the same folder stays.

    Raises:
        ValueError: a file in ``out`` is damaged, or a run that is to be redone is being trained;
            nothing has been written then, unless another command took up such a run at this very
            moment.
    """
    folders = {run: RunFolder(out / "runs" / run.id) for run in experiment.runs}
    results = {run: None if options.fresh else folder.result() for run, folder in folders.items()}
    redo = {
        run: "fresh" if options.fresh else "retry_failed"
        for run, result in results.items()
        if options.fresh or (options.retry_failed and result and result["status"] == FAILED)
    }
    for run, flag in redo.items():
        with _free(folders[run], flag):
            pass
    before, record = read_experiment(out), experiment.record()
    known, new = (cast(Json, content.get("baselines", {})) for content in (before, record))
    # An arm that now runs alone keeps what it was compared with.
    compared_with = {base for arm, base in new.items() if base != arm}
    record["baselines"] = known | {
        arm: base
        for arm, base in new.items()
        if base != arm or arm in compared_with or arm not in known
    }
    planned = [*cast("list[str]", record["runs"]), *cast("list[str]", before.get("runs", []))]
    record["runs"] = list(dict.fromkeys(planned))
    record["provenance"] = origin()
    record[PLAN] = _plan(experiment, out, fresh=options.fresh)
    if varied := _varied(experiment, out):
        record[VARIED] = varied
    for key in ("chosen", SEARCHED, ROBUST):
        if key in before:
            record.setdefault(key, before[key])
    with writing(out):
        write_atomically(out / "experiment.json", to_json(record))
    for run, flag in redo.items():
        with _free(folders[run], flag):
            folders[run].remove() if options.fresh else folders[run].reopen()
    return [run for run, result in results.items() if run in redo or not result]


def _refuse_other_plugins(experiment: Experiment, out: Path, *, fresh: bool) -> None:
    """Refuse to add to a folder in which runs of another version of a plugin would stay."""
    now: dict[str, str] = {}
    for run in experiment.first_runs:
        now |= run.plugins
    forgotten = {run.id for run in experiment.runs} if fresh else set[str]()
    for file in (out / "runs").glob("*/run.json") if now else ():
        if file.parent.name not in forgotten:
            RunFolder(file.parent).refuse_other_plugins(now)


@contextlib.contextmanager
def _free(folder: RunFolder, flag: str) -> Iterator[None]:
    """A run that is to be forgotten, while nobody else has it."""
    with folder.claim(_PATIENCE) as mine:
        if not mine:
            message = f"{folder.path} is being trained by another command: wait for it"
            raise UserError(message, field=flag)
        yield


# --- the runs ---------------------------------------------------------------------------------


@dataclass
class _Trial:
    """How far a run has come in this process's hands."""

    begun: float
    running: bool = False
    epoch: int = 0  # the furthest
    lost: int = 0  # workers since then


class Scheduler:
    """Submits runs to an engine and retries lost ones."""

    def __init__(self, engine: Engine, work: Work, sinks: tuple[str, ...]) -> None:
        self.engine, self.work, self.sinks = engine, work, sinks
        self.queue = deque(work.todo)
        self.held: deque[tuple[float, Run]] = deque()  # by other commands; when to ask again
        self.trials: dict[str, _Trial] = {}
        self.obstacle = ""  # why no run can go on

    def events(self) -> Events:
        """Until all runs are over; after a request to stop, until the current ones are saved.

        Raises:
            StorageError: a disk or a limit of the system prevents all runs.
        """
        stopped = False
        while self.queue or self.held or self.running:
            if self.stopping:
                if not stopped:
                    self.engine.stop()
                stopped = True
                self.queue.clear()
                self.held.clear()
            yield from self._submit()
            for job, message in self.engine.wait(_LOOK_SECONDS):
                if isinstance(message, RunStatus):
                    yield from self._settle(job, message)
                else:
                    yield self._progress(job.run, message)
            if not self.running and self.held and not self.queue:
                time.sleep(_LOOK_SECONDS)  # other commands have all runs that are left
        if self.obstacle:
            raise StorageError(f"{self.obstacle}; when that is mended, the same command continues")

    @property
    def stopping(self) -> bool:
        """Whether no further run is begun."""
        return self.work.stop() or bool(self.obstacle)

    @property
    def running(self) -> int:
        """Runs that the engine has."""
        return sum(trial.running for trial in self.trials.values())

    def _submit(self) -> Events:
        now = time.monotonic()
        while self.held and self.held[0][0] <= now:
            self.queue.append(self.held.popleft()[1])
        machine, slots = self.work.machine, self.engine.free_slots
        lost = {i for i, trial in self.trials.items() if trial.lost}  # others could be, too
        while self.queue and slots > 0:
            slots -= 1
            runs = next_group(self.queue, machine.fuse_seeds, lost)
            for run in runs:
                self.trials.setdefault(run.id, _Trial(now)).running = True
            jobs = [Job(run, self.work.folder / run.id, machine, self.sinks) for run in runs]
            self.engine.submit(jobs)
            yield from map(Started, runs)

    def _progress(self, run: Run, record: Record) -> EpochDone | StepsDone:
        if isinstance(record, StepRecord):
            return StepsDone(run, record)
        trial = self.trials[run.id]
        if record.epoch > trial.epoch:  # it got further: lost workers are counted anew
            trial.epoch, trial.lost = record.epoch, 0
        return EpochDone(run, record)

    def _settle(self, job: Job, status: RunStatus) -> Events:
        run, trial = job.run, self.trials[job.run.id]
        trial.running = False
        result = status.result
        if status.kind == "halted":
            self.obstacle = self.obstacle or status.reason
        elif status.kind == "refused":
            seconds = time.monotonic() - trial.begun
            result = {"status": FAILED, "error": status.reason, "seconds": seconds}
        elif status.kind in ("lost", "stopped") and not self.stopping:
            # A worker stopped by someone else counts as lost.
            reason, trial.lost = status.reason or "its worker was told to stop", trial.lost + 1
            if trial.lost < TRIES:
                self.queue.appendleft(run)
                yield Lost(run, reason)
                return
            result = self._given_up(job, f"{reason}, {TRIES} times without progress")
        if result:
            yield Ended(run, result, status.seconds)
        elif not self.stopping:  # another command has it
            self.held.append((time.monotonic() + _BUSY_SECONDS, run))
            yield Held(run)
            return
        del self.trials[run.id]

    def _given_up(self, job: Job, reason: str) -> Json | None:
        """The result of a run that lost all its workers; ``None`` where another command has it."""
        seconds = time.monotonic() - self.trials[job.run.id].begun
        try:
            return record_failure(job, self.work.data, reason, seconds)
        except StorageError as error:
            self.obstacle = self.obstacle or str(error)
            return None
        except UserError as error:
            return {"status": FAILED, "error": f"{reason}; {error}", "seconds": seconds}
