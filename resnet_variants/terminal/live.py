"""What `run` shows while it trains: one table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resnet_variants.records.files import Json
from resnet_variants.records.run_folder import DONE
from resnet_variants.registry import one_line
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import (
    Ended,
    EpochDone,
    Event,
    Events,
    Held,
    Planned,
    Started,
)
from resnet_variants.terminal.cli import say

QUIET_SECONDS = 30.0  # without a terminal, an epoch is reported at most this often
_LINES = 8  # of a terminal that are not rows of the table
_AT_ONCE = 4  # runs of one model that are shown one by one


def show_events(events: Events) -> None:
    """Show a sweep until its end: a table on a terminal, lines elsewhere."""
    console = Console()
    with contextlib.closing(events):
        if console.is_terminal:
            show_table(events, console)
        else:
            show_lines(events)


class Tally:
    """How many runs are over, and how long the others will take."""

    def __init__(self, plan: Planned) -> None:
        self.before, self.total = plan.done, len(plan.todo)
        self.counts: Counter[str] = Counter()  # by status
        self.started = time.monotonic()
        # Multiply-adds stand for time: not exact, but a deep net is not taken for a shallow one.
        self.cost = {run.id: run.cost(run.load()).macs for run in plan.todo}
        self.whole = sum(self.cost[run.id] * run.recipe.epochs for run in plan.todo)
        self.part: dict[str, int] = {}  # of the current runs
        self.spent = 0

    def count(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case EpochDone(run, record):
                self.part[run.id] = self.cost[run.id] * record.epoch
            case Ended(run, result):
                self.part.pop(run.id, None)
                self.spent += self.cost[run.id] * run.recipe.epochs
                self.counts[str(result["status"])] += 1
            case _:
                pass

    @property
    def over(self) -> int:
        """Runs that have ended."""
        return sum(self.counts.values())

    @property
    def left(self) -> str:
        """Time to go at the speed so far."""
        spent = self.spent + sum(self.part.values())
        if not spent:
            return "-:--:--"
        return duration((time.monotonic() - self.started) * (self.whole - spent) / spent)


# --- lines ------------------------------------------------------------------------------------


def show_lines(events: Events) -> None:
    """A line per run, and now and then one per epoch of a long run."""
    tally, held, spoke = Tally(Planned([], 0, "")), set[str](), time.monotonic()
    for event in events:
        tally.count(event)
        match event:
            case Planned(todo, done, engine):
                tally = Tally(event)
                say(f"\n{len(todo)} runs to do, {done} finished before; {engine}")
            case Held(run) if run.id not in held:
                held.add(run.id)
                say(f"{_label(run)}: another command has it")
                continue
            case EpochDone(run, record) if time.monotonic() - spoke > QUIET_SECONDS:
                at = f"epoch {record.epoch}/{run.recipe.epochs}, validation {record.val_acc:.2%}"
                say(f"         {_label(run)} {at}")
            case Ended(run, result):
                count = f"[{tally.over:>{len(str(tally.total))}}/{tally.total}]"
                say(f"{count} {_label(run)}: {result_line(result)}, ETA {tally.left}")
            case _:
                continue
        spoke = time.monotonic()


# --- the table --------------------------------------------------------------------------------


def show_table(events: Events, console: Console) -> None:
    """A table that follows the events, and disappears after the last one."""
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        table = SweepTable(console)
        live.get_renderable = table.render  # type: ignore[method-assign]
        for event in events:
            table.count(event)


@dataclass
class _Row:
    """The runs of one model."""

    total: int = 0
    failed: int = 0
    tested: list[float] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)  # by seed: epoch and accuracy


class SweepTable:
    """One row per model: how many of its runs are over, how good they are, which are running."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, _Row] = {}
        self.engine = ""
        self.tally: Tally | None = None

    def count(self, event: Event) -> None:
        """Take an event into account; a run that has failed is printed above the table."""
        if isinstance(event, Planned):
            for run in event.todo:
                self.rows.setdefault(run.variant.name, _Row()).total += 1
            self.engine, self.tally = event.engine, Tally(event)
            return
        assert self.tally
        self.tally.count(event)
        run, row = event.run, self.rows[event.run.variant.name]
        match event:
            case Started():
                row.running.setdefault(run.seed, "")
            case Held():
                row.running.pop(run.seed, None)
            case EpochDone(_, record):
                at = f"{record.epoch}/{run.recipe.epochs} {100 * record.val_acc:.2f}"
                row.running[run.seed] = at
            case Ended(_, result):
                row.running.pop(run.seed, None)
                if result["status"] == DONE:
                    row.tested.append(float(str(result["test_acc"])))
                else:
                    row.failed += 1
                    line = f"{_label(run)}: {result_line(result)}"
                    self.console.print(Text(line, style="red"))
            case _:
                pass

    def render(self) -> Group:
        """The table now; models with running runs first where not all have room."""
        tally = self.tally
        if tally is None:
            return Group()
        failed = tally.over - tally.counts[DONE]
        running = sum(len(row.running) for row in self.rows.values())
        head = f"{tally.counts[DONE]} done, {running} running, {failed} failed, "
        head += f"{tally.total - tally.over - running} to go ({tally.before} done before), "
        head += f"ETA {tally.left}; {self.engine}"
        shown = Table("model", "done", "failed", "test %", "running: epoch, validation %")
        room = max(1, self.console.height - _LINES)
        names = list(self.rows)
        if len(names) > room:
            names.sort(key=lambda name: (not self.rows[name].running, not self._open(name)))
        for name in names[:room]:
            shown.add_row(*self._cells(name))
        hidden = len(names) - room
        more = [Text(f"and {hidden} more models")] if hidden > 0 else []
        return Group(Text(head), shown, *more)

    def _open(self, name: str) -> bool:
        row = self.rows[name]
        return len(row.tested) + row.failed < row.total

    def _cells(self, name: str) -> list[str]:
        row = self.rows[name]
        mean = 100 * sum(row.tested) / len(row.tested) if row.tested else None
        running = [f"seed {seed}: {at}" for seed, at in list(row.running.items())[:_AT_ONCE]]
        running += ["..."] if len(row.running) > _AT_ONCE else []
        return [
            name,
            f"{len(row.tested)}/{row.total}",
            str(row.failed or ""),
            "" if mean is None else f"{mean:.2f}",
            ", ".join(running),
        ]


# --- words ------------------------------------------------------------------------------------


def _label(run: Run) -> str:
    return f"{run.variant.name} seed {run.seed}"


def result_line(result: Json) -> str:
    """A result in words."""
    seconds = f"{float(str(result['seconds'])):.1f} s"
    if result["status"] == DONE:
        return f"test {float(str(result['test_acc'])):.2%}, {seconds}"
    return f"{result['status']} after {seconds}: {one_line(str(result['error']))}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
