"""``--budget`` and ``--until-decided``: the planned seeds, then pairs of runs for undecided rows.

A sweep of this kind has rounds. Each trains some pairs with ``run_sweep``, on any engine. Then the
folder is read again, and ``allocation.choose`` names the next pairs. All that is known is on disk,
so the same command goes on where another one ended.

A pair is started if both runs are expected to end within the budget, and no run is cut off. So a
budget never leaves half a pair. How long a run takes is known from the longest one of its network;
before there is one, from a few measured steps. So the first round of a new experiment has no more
seeds than it takes to keep all workers busy.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.analysis.endpoints import ENDPOINTS
from resnet_variants.analysis.factors import cells_of, short_labels
from resnet_variants.analysis.verdicts import UNDECIDED, Plan
from resnet_variants.records.results_folder import (
    PLAN,
    SEARCHED,
    VARIED,
    read_experiment,
    read_runs_and_provenance,
)
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.allocation import Cell, Row, choose, most_seeds, rows_of, time_text
from resnet_variants.sweeps.engines.base import slots
from resnet_variants.sweeps.estimate import seconds_of
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.fused import refuse_fused
from resnet_variants.sweeps.sweep import (
    Ended,
    Events,
    Noted,
    Options,
    Planned,
    check,
    claimed,
    prepare,
    run_sweep,
)

Pair = tuple[Cell, ...]  # its runs that are missing


def run_until_decided(
    experiment: Experiment, out: Path, options: Options, budget: float = math.inf
) -> Events:
    """Train the planned seeds, then pairs for undecided rows, as a generator of events.

    It ends when no further seed is expected to decide a row, or with the budget.

    Args:
        experiment: the arms and their planned seeds.
        out: the results folder; runs that are there count.
        options: who computes.
        budget: seconds of wall time.

    Raises:
        ValueError: see ``run_sweep``; or no pair of runs fits into the budget.
    """
    check(experiment, out, options)
    experiment = grown(experiment, out)
    rounds = Rounds(experiment, out, options, budget)
    rounds.require_room()
    with claimed(out):
        prepare(experiment, out, options)
    rounds.options = replace(options, fresh=False, retry_failed=False)  # that is done now
    return rounds.events()


def grown(experiment: Experiment, out: Path) -> Experiment:
    """The experiment with the further seeds that its folder holds."""
    most = most_seeds(_plan(experiment, out))
    cells = ((arm, seed) for seed in range(experiment.seeds, most) for arm in experiment.arms)
    there = [cell for cell in cells if (out / "runs" / experiment.run(*cell).id).is_dir()]
    return replace(experiment, further=tuple(there))


def none_failed(experiment: Experiment, out: Path) -> bool:
    """Whether all runs that have ended are done."""
    results = (RunFolder(out / "runs" / run.id).result() for run in experiment.runs)
    return all(result is None or result["status"] == DONE for result in results)


@dataclass(frozen=True)
class Forecast:
    """What a command is expected to take; ``most`` seeds are what no network exceeds."""

    planned: float  # seconds of the planned seeds that are missing
    budget: float
    slots: int
    most: int


def forecast(
    experiment: Experiment,
    out: Path,
    options: Options,
    budget: float,
    estimates: Mapping[str, float],
) -> Forecast:
    """What ``run_until_decided`` would take, with the ``estimates`` of a dry run.

    Raises:
        ValueError: no pair of runs fits into the budget.
    """
    rounds = Rounds(grown(experiment, out), out, options, budget, estimates)
    rounds.require_room()
    cells = [cell for pair in rounds.planned for cell in pair]
    most = most_seeds(_plan(experiment, out))
    return Forecast(rounds.wall(cells), budget, rounds.slots, most)


@dataclass
class Rounds:
    """How far an experiment has come, and how long its runs take.

    Attributes:
        budget: seconds from the first event on.
        estimates: seconds of a run by its network, from steps that a process measured alone.
        known: seconds of the longest run of each network.
        late: seconds by which a round took longer than its runs: workers have to start.
        told: the arms that were said to be skipped.
    """

    experiment: Experiment
    out: Path
    options: Options
    budget: float
    estimates: Mapping[str, float] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    late: float = 0.0
    begun: float = 0.0
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        experiment, machine = self.experiment, self.options.machine
        if math.isfinite(self.budget):
            refuse_fused(machine, "budget")
        self.arms = {arm.name: arm for arm in experiment.arms}
        self.labels = short_labels(cells_of(experiment.arms))
        self.slots = slots(experiment.runs, machine, self.options.workers)
        self.at_once = self.slots * machine.fuse_seeds  # runs
        for run in () if self.options.fresh else experiment.runs:
            result = RunFolder(self.out / "runs" / run.id).result()
            if result and result["status"] == DONE:
                self._note(run.name, float(str(result["seconds"])))
        if self._is_rough and not self.estimates:
            runs = [experiment.run(arm, 0) for arm in experiment.arms]
            self.estimates = dict(zip(self.arms, seconds_of(runs, machine)[0], strict=True))

    # --- events -------------------------------------------------------------------------------

    def events(self) -> Events:
        """The rounds, until nothing is left to do or nothing fits."""
        self.begun = monotonic()
        while True:
            pairs, lines = self._next()
            fitting = self._fitting(pairs)
            if pairs and not fitting:
                longest = time_text(self.wall(pairs[0]))
                lines = [
                    f"the budget ends: {time_text(self.left)} are left, a pair takes {longest}"
                ]
            before = self._over()
            yield from self._round(fitting, lines)
            if not fitting or self._over() == before:  # such as runs that another device has
                return

    def _round(self, pairs: Sequence[Pair], lines: Iterable[str]) -> Events:
        begun, cells = monotonic(), [cell for pair in pairs for cell in pair]
        runs = [self.experiment.run(self.arms[name], seed) for name, seed in cells]
        further = [
            (self.arms[run.name], run.seed) for run in runs if run.seed >= self.experiment.seeds
        ]
        further = dict.fromkeys([*self.experiment.further, *further])
        self.experiment = replace(self.experiment, further=tuple(further))
        sweep = run_sweep(self.experiment, self.out, self.options, only=runs)
        with contextlib.closing(sweep) as events:
            yield replace(cast(Planned, next(events)), more=bool(pairs))
            yield from map(Noted, lines)
            for event in events:
                if isinstance(event, Ended) and event.result["status"] == DONE:
                    whole = float(str(event.result["seconds"]))  # that of a resumed run is longer
                    self._note(event.run.name, max(whole, event.seconds))
                yield event
        if pairs and math.isfinite(self.budget):
            self.late = max(self.late, monotonic() - begun - self._makespan(cells))

    # --- what comes next ----------------------------------------------------------------------

    def _next(self) -> tuple[Sequence[Pair], list[str]]:
        """The pairs that come next, whether they fit or not, and what is said about them."""
        planned = self.planned
        if planned:
            return self._first_seeds(planned) if self._is_rough else planned, []
        arms, plan = self._arms()
        chosen = choose(arms, plan, self.known, runs=self.at_once, left=self.left * self.slots)
        lines = [
            f"{self.labels[name]} is undecided and gets no further seeds: {why}"
            for name, why in chosen.skipped.items()
            if name not in self.told
        ]
        self.told |= set(chosen.skipped)
        undecided = sum(arm.verdict in (UNDECIDED, "") for arm in arms)  # "": it has no pair
        count = f"{undecided} of {len(arms)} rows are undecided"
        if chosen.pairs:
            cells = [cell for pair in chosen.pairs for cell in pair]
            following = ", ".join(f"{self.labels[name]} seed {seed}" for name, seed in cells)
            until = f"; {time_text(self.left)} left" if math.isfinite(self.budget) else ""
            return chosen.pairs, [*lines, f"{count}; next: {following}{until}"]
        decided = bool(arms) and not undecided
        return [], [*lines, "every row is decided" if decided else f"{count}: it ends here"]

    def _first_seeds(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs of the first seeds, as many as keep all workers busy."""
        last = pairs[min(self.at_once, len(pairs)) - 1][0][1]
        return [pair for pair in pairs if pair[0][1] <= last]

    @property
    def planned(self) -> list[Pair]:
        """The pairs of the planned seeds that lack a run, seed by seed."""
        pairs, taken, over = list[Pair](), set[Cell](), self._over()
        baselines = self.experiment.baselines()
        compared_with = {base for name, base in baselines.items() if name != base}
        arms = [both for both in baselines.items() if both[0] not in compared_with]
        for seed in range(self.experiment.seeds):
            for name, base in arms:
                both = dict.fromkeys([(base, seed), (name, seed)])
                pair = tuple(cell for cell in both if cell not in taken and cell not in over)
                taken.update(pair)
                pairs += [pair] if pair else []
        return pairs

    def _over(self) -> set[Cell]:
        """The runs that are not done again."""
        again = {FAILED} if self.options.retry_failed else set[str]()
        over = set[Cell]()
        for run in () if self.options.fresh else self.experiment.runs:
            result = RunFolder(self.out / "runs" / run.id).result()
            if result and result["status"] not in again:
                over.add((run.name, run.seed))
        return over

    def _arms(self) -> tuple[list[Row], Plan]:
        """The comparisons of this experiment, with the verdicts of its summary."""
        (runs, provenance), record = read_runs_and_provenance(self.out), read_experiment(self.out)
        plan = _plan(self.experiment, self.out)
        baselines = cast("Mapping[str, str]", record["baselines"])
        about: dict[str, Any] = {"provenance": provenance, "plan": plan}
        about |= {"varied": record.get(VARIED, {}), "searched": record.get(SEARCHED, [])}
        own = {run.id for run in self.experiment.runs}
        parts = comparisons(runs, baselines, **about)
        if not parts:
            return [], plan
        part = max(parts, key=lambda part: part.done["run_id"].isin(own).sum())
        for name, longest in part.done.groupby("model")["seconds"].max().items():
            self._note(str(name), float(longest))  # other commands may work in the folder too
        ended = part.runs[part.runs["status"].isin([FAILED, DIVERGED])]
        lost = set(zip(ended["model"], ended["seed"], strict=True))
        endpoint = ENDPOINTS[plan.endpoint]
        scores = endpoint.better(part.scores_by(plan.endpoint))
        arms = rows_of(scores, baselines, endpoint.plan(plan), lost)
        known = set(self.arms)
        return [arm for arm in arms if {arm.name, baselines[arm.name]} <= known], plan

    # --- time ---------------------------------------------------------------------------------

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (monotonic() - self.begun if self.begun else 0.0)

    def require_room(self) -> None:
        """Refuse a budget that no pair of runs fits into.

        Raises:
            ValueError: says how long the shortest pair takes.
        """
        if math.isfinite(self.budget):
            compared = self.experiment.baselines().items()
            pairs = [((base, 0), (name, 0)) for name, base in compared if name != base]
            shortest = min(map(self.wall, pairs))
            if shortest > self.budget:
                message = f"{time_text(self.budget)} is too short: a network and its baseline take"
                message = f"{message} about {time_text(shortest)}; give more, or fewer --epochs"
                raise UserError(message, field="budget")

    def _fitting(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The first of the pairs, as many as are expected to end within the budget."""
        if not math.isfinite(self.budget):
            return list(pairs)
        fitting = list[Pair]()
        for pair in pairs:
            cells = [cell for earlier in (*fitting, pair) for cell in earlier]
            if self.wall(cells) > self.left:
                break
            fitting.append(pair)
        return fitting

    def wall(self, cells: Sequence[Cell]) -> float:
        """Seconds until these runs are over."""
        return self.late + self._makespan(cells)

    def _makespan(self, cells: Sequence[Cell]) -> float:
        """The same without the start of the workers: the next free worker takes the next run."""
        seconds = {**self.estimates, **self.known}
        workers = [0.0] * self.slots
        for name, _ in cells:
            heapq.heapreplace(workers, workers[0] + seconds[name])
        return max(workers)

    @property
    def _is_rough(self) -> bool:
        """Whether a budget is planned without a finished run of each network."""
        return math.isfinite(self.budget) and not self.arms.keys() <= self.known.keys()

    def _note(self, name: str, seconds: float) -> None:
        """Take the time of a finished run into account."""
        self.known[name] = max(self.known.get(name, 0.0), seconds)


def _plan(experiment: Experiment, out: Path) -> Plan:
    """What was fixed before the first run of the folder, or will be if it has none."""
    record = read_experiment(out)
    planned = cast("Mapping[str, Any]", record.get(PLAN, {}))
    return Plan.of(planned) if record else experiment.plan
