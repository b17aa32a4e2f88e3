"""Who hands runs to an engine, one by one, and decides what follows from what comes back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resnet_variants.data.dataset import Dataset
from resnet_variants.records.files import Json, StorageError
from resnet_variants.records.run_folder import FAILED
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Engine, Outcome
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.trainer import EpochRecord

TRIES = 3  # workers that a run may lose in a row before it counts as failed
_LOOK_SECONDS = 0.5  # between two looks at whether to stop
_BUSY_SECONDS = 2.0  # between two looks at a run that another command has


class Watcher(Protocol):
    """Is told how the runs come along."""

    def begin(self, todo: Sequence[Run], done: int, about: str) -> None:
        """``todo`` runs are to be done by the engine ``about``; ``done`` were finished before."""
        ...

    def start(self, run: Run) -> None:
        """A run starts, or starts again."""
        ...

    def hold(self, run: Run) -> None:
        """Another command has the run; it is asked for again later."""
        ...

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """An epoch of a run is over."""
        ...

    def end(self, run: Run, result: Json) -> None:
        """A run is over, with its result."""
        ...


class Driver:
    """Hands runs to an engine, and what comes back to the watcher."""

    def __init__(
        self,
        folder: Path,
        machine: Machine,
        sinks: tuple[str, ...],
        data: Dataset,
        watcher: Watcher,
        stop: Stop,
    ) -> None:
        self.folder, self.machine, self.sinks = folder, machine, sinks
        self.data, self.watcher, self.stop = data, watcher, stop
        self.queue: deque[Run] = deque()
        self.held: deque[tuple[float, Run]] = deque()  # by other commands; when to ask again
        self.at_hand: dict[str, _Trial] = {}
        self.obstacle = ""  # to all runs

    def drive(self, engine: Engine, todo: Sequence[Run]) -> None:
        """Until all are over, or the ones at hand after somebody said stop.

        Raises:
            StorageError: a disk or a limit of the system is in the way.
        """
        self.queue.extend(todo)
        told = False
        while self.queue or self.held or self.running:
            if self.stopping and not told:
                told = True
                engine.stop()
            if told:
                self.queue.clear()
                self.held.clear()
            self._submit(engine)
            for outcome in engine.wait(_LOOK_SECONDS):
                self._settle(outcome)
            if not self.running and self.held and not self.queue:
                time.sleep(_LOOK_SECONDS)  # all that is left is with other commands
        if self.obstacle:
            raise StorageError(f"{self.obstacle}; when that is mended, the same command continues")

    @property
    def stopping(self) -> bool:
        """Whether nothing more is begun."""
        return self.stop() or bool(self.obstacle)

    @property
    def running(self) -> int:
        """Attempts that the engine has."""
        return sum(trial.running for trial in self.at_hand.values())

    def hear(self, run: Run, record: EpochRecord) -> None:
        """An epoch is over: what comes from then on is no failure in the same place."""
        trial = self.at_hand.get(run.id)
        if trial:  # else it has ended: not all that is said of it comes in order
            if record.epoch > trial.epoch:
                trial.epoch, trial.losses = record.epoch, 0
            self.watcher.epoch(run, record)

    def _submit(self, engine: Engine) -> None:
        now = time.monotonic()
        while self.held and self.held[0][0] <= now:
            self.queue.append(self.held.popleft()[1])
        for _ in range(min(engine.free(), len(self.queue))):
            run = self.queue.popleft()
            trial = self.at_hand.setdefault(run.id, _Trial(now))
            trial.running = True
            engine.submit(Attempt(run, self.folder / run.id, self.machine, self.sinks))
            self.watcher.start(run)

    def _settle(self, outcome: Outcome) -> None:
        run = outcome.attempt.run
        trial = self.at_hand[run.id]
        trial.running = False
        if outcome.kind == "busy":
            self._hold(run)
            return
        if outcome.kind == "halted":
            self.obstacle = self.obstacle or outcome.reason
        if outcome.kind in ("lost", "stopped") and not self.stopping:
            trial.losses += 1  # who was told to stop, and not by this process, is lost as well
            if trial.losses < TRIES:
                self.queue.appendleft(run)
                return
        result = self._result(outcome, trial)
        if result:
            self.watcher.end(run, result)
        elif not self.stopping:
            self._hold(run)
            return
        del self.at_hand[run.id]

    def _hold(self, run: Run) -> None:
        self.held.append((time.monotonic() + _BUSY_SECONDS, run))
        self.watcher.hold(run)

    def _result(self, outcome: Outcome, trial: _Trial) -> Json | None:
        """What the watcher is told; ``None`` of a run that goes on another time, or elsewhere."""
        reason, seconds = outcome.reason, time.monotonic() - trial.begun
        if trial.losses == TRIES:
            reason = f"{reason or 'its worker was told to stop'}, {TRIES} times without progress"
            try:
                return outcome.attempt.give_up(self.data, reason, seconds)
            except StorageError as error:
                self.obstacle = self.obstacle or str(error)
                return None
            except UserError as error:
                reason = f"{reason}; {error}"
        elif outcome.kind != "refused":
            return outcome.result
        return {"status": FAILED, "error": reason, "seconds": seconds}


@dataclass
class _Trial:
    """How far a run has come in this process's hands."""

    begun: float
    running: bool = False
    epoch: int = 0  # the furthest
    losses: int = 0  # of workers, since then
