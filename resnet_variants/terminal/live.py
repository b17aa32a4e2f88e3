"""What `run` shows meanwhile: one table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resnet_variants.records.files import Json
from resnet_variants.records.run_folder import DONE
from resnet_variants.registry import one_line
from resnet_variants.sweeps.driver import Watcher
from resnet_variants.sweeps.run import Run
from resnet_variants.terminal.cli import say
from resnet_variants.training.trainer import EpochRecord

QUIET_SECONDS = 30.0  # without a terminal, an epoch is reported at most this often
_LINES = 8  # of a terminal that are not rows of the table
_AT_ONCE = 4  # runs of one model that are shown one by one


def make_watcher() -> AbstractContextManager[Watcher]:
    """A table on a terminal, lines elsewhere."""
    console = Console()
    return table(console) if console.is_terminal else contextlib.nullcontext(LineWatcher())


class Tally:
    """How many runs are over, and how long the others will take."""

    def __init__(self, todo: Sequence[Run], before: int) -> None:
        self.before, self.total = before, len(todo)
        self.counts: Counter[str] = Counter()  # by status
        self.started = time.monotonic()
        # Multiply-adds stand for time: not exact, but a deep net is not taken for a shallow one.
        self.cost = {run.id: run.cost(run.load()).macs for run in todo}
        self.whole = sum(self.cost[run.id] * run.recipe.epochs for run in todo)
        self.part: dict[str, int] = {}  # of the runs at hand
        self.spent = 0

    def start(self, run: Run) -> None:
        """A run starts, or starts again."""
        self.part.setdefault(run.id, 0)

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """An epoch of a run is over."""
        self.part[run.id] = self.cost[run.id] * record.epoch

    def end(self, run: Run, status: object) -> None:
        """A run is over."""
        self.part.pop(run.id, None)
        self.spent += self.cost[run.id] * run.recipe.epochs
        self.counts[str(status)] += 1

    @property
    def over(self) -> int:
        """Runs that have ended."""
        return sum(self.counts.values())

    @property
    def left(self) -> str:
        """Time to go, as it went so far."""
        spent = self.spent + sum(self.part.values())
        if not spent:
            return "-:--:--"
        return duration((time.monotonic() - self.started) * (self.whole - spent) / spent)


# --- lines ------------------------------------------------------------------------------------


class LineWatcher:
    """A line per run, and now and then one per epoch of a long run."""

    tally: Tally

    def begin(self, todo: Sequence[Run], done: int, about: str) -> None:
        """See ``Watcher``."""
        self.tally = Tally(todo, done)
        self.held: set[str] = set()
        self.spoke = time.monotonic()
        say(f"\n{len(todo)} runs to do, {done} finished before; {about}")

    def start(self, run: Run) -> None:
        """See ``Watcher``."""
        self.tally.start(run)

    def hold(self, run: Run) -> None:
        """See ``Watcher``."""
        if run.id not in self.held:
            self.held.add(run.id)
            say(f"{_label(run)}: another command has it")

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """See ``Watcher``."""
        self.tally.epoch(run, record)
        if time.monotonic() - self.spoke > QUIET_SECONDS:
            at = f"epoch {record.epoch}/{run.recipe.epochs}, validation {record.val_acc:.2%}"
            say(f"         {_label(run)} {at}")
            self.spoke = time.monotonic()

    def end(self, run: Run, result: Json) -> None:
        """See ``Watcher``."""
        self.tally.end(run, result["status"])
        total = self.tally.total
        count = f"[{self.tally.over:>{len(str(total))}}/{total}]"
        say(f"{count} {_label(run)}: {_outcome(result)}, ETA {self.tally.left}")
        self.spoke = time.monotonic()


# --- the table --------------------------------------------------------------------------------


@dataclass
class _Row:
    """The runs of one model."""

    total: int = 0
    failed: int = 0
    tested: list[float] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)  # by seed: how far, how good


@contextlib.contextmanager
def table(console: Console) -> Iterator[Watcher]:
    """A table on a console, for the length of the block."""
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        watcher = TableWatcher(live)
        live.get_renderable = watcher.render  # type: ignore[method-assign]
        yield watcher


class TableWatcher:
    """One row per model: how many of its runs are over, how good they are, which are running."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.rows: dict[str, _Row] = {}
        self.about = ""
        self.tally: Tally | None = None

    def begin(self, todo: Sequence[Run], done: int, about: str) -> None:
        """See ``Watcher``."""
        self.about = about
        for run in todo:
            self.rows.setdefault(run.variant.name, _Row()).total += 1
        self.tally = Tally(todo, done)

    def start(self, run: Run) -> None:
        """See ``Watcher``."""
        assert self.tally
        self.tally.start(run)
        self.rows[run.variant.name].running.setdefault(run.seed, "")

    def hold(self, run: Run) -> None:
        """See ``Watcher``."""
        self.rows[run.variant.name].running.pop(run.seed, None)

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """See ``Watcher``."""
        assert self.tally
        self.tally.epoch(run, record)
        at = f"{record.epoch}/{run.recipe.epochs} {100 * record.val_acc:.2f}"
        self.rows[run.variant.name].running[run.seed] = at

    def end(self, run: Run, result: Json) -> None:
        """See ``Watcher``."""
        assert self.tally
        self.tally.end(run, result["status"])
        row = self.rows[run.variant.name]
        row.running.pop(run.seed, None)
        if result["status"] == DONE:
            row.tested.append(float(str(result["test_acc"])))
        else:
            row.failed += 1
            self.live.console.print(Text(f"{_label(run)}: {_outcome(result)}", style="red"))

    def render(self) -> Group:
        """The table as it stands; models with running runs first where not all find room."""
        tally = self.tally
        if tally is None:
            return Group()
        failed = tally.over - tally.counts[DONE]
        running = sum(len(row.running) for row in self.rows.values())
        head = f"{tally.counts[DONE]} done, {running} running, {failed} failed, "
        head += f"{tally.total - tally.over - running} to go ({tally.before} done before), "
        head += f"ETA {tally.left}; {self.about}"
        shown = Table("model", "done", "failed", "test %", "running: epoch, validation %")
        room = max(1, self.live.console.height - _LINES)
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


def _outcome(result: Json) -> str:
    seconds = f"{float(str(result['seconds'])):.1f} s"
    if result["status"] == DONE:
        return f"test {float(str(result['test_acc'])):.2%}, {seconds}"
    return f"{result['status']} after {seconds}: {one_line(str(result['error']))}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
