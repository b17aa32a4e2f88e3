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

from resnet_variants.analysis.factors import cells_of, short_labels
from resnet_variants.records.files import Json
from resnet_variants.records.run_folder import DONE
from resnet_variants.registry import number_of, one_line
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import (
    Ended,
    EpochDone,
    Event,
    Events,
    Held,
    Noted,
    Planned,
    Started,
    StepsDone,
)
from resnet_variants.terminal.cli import say
from resnet_variants.training.trainer import EpochRecord, Record, ReplayedRecord

QUIET_SECONDS = 30.0  # without a terminal, an epoch is reported at most this often
_LINES = 8  # of a terminal that are not rows of the table
_AT_ONCE = 4  # runs of one network that are shown one by one


def show_events(events: Events) -> None:
    """Show a sweep until its end: a table on a terminal, lines elsewhere."""
    console = Console()
    with contextlib.closing(events):
        if console.is_terminal:
            show_table(events, console)
        else:
            show_lines(events)


def follow(events: Events) -> None:
    """What Python callers see of a sweep: the table, in a notebook a bar, else nothing."""
    console = Console()
    with contextlib.closing(events):
        if console.is_jupyter:
            show_bar(events)
        elif console.is_terminal:
            show_table(events, console)
        else:
            for _ in events:
                pass


class Tally:
    """How many runs are over, and how long the others will take.

    The time to go follows from the epochs, or parts of epochs, that this sweep has trained, by
    their own clocks: the start-up of workers does not count. Multiply-adds tell the networks'
    epochs apart.
    """

    def __init__(self, plan: Planned) -> None:
        self.trained, self.seconds = 0, 0.0  # cost of all epochs so far, and their time
        self.beside: list[float] = []  # seconds of each run that were no epoch's
        self._begin(plan)

    def _begin(self, plan: Planned) -> None:
        """A sweep begins, or its next round; how fast epochs are trained is still known."""
        self.plan = plan
        self.total = len(plan.todo) + len(plan.before)
        self.counts = Counter(str(result["status"]) for result in plan.before.values())
        self.labels = short_labels(cells_of([*plan.before, *plan.todo]))
        # For one epoch of each run that is not over, in multiply-adds for one image.
        self.cost = {run.id: run.cost(run.load()).macs for run in plan.todo}
        self.epochs = dict.fromkeys(self.cost, 0.0)  # that are trained
        self.own = dict.fromkeys(self.cost, 0.0)  # seconds of the epochs of each run
        self.within = dict.fromkeys(self.cost, 0.0)  # those of its epoch that is not over

    def count(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case Planned():
                self._begin(event)
            case EpochDone(run, ReplayedRecord() as record):
                self.epochs[run.id], self.within[run.id] = record.epoch, 0.0
            case EpochDone(run, record):
                self._advance(run, record.epoch, record.seconds)
                self.within[run.id] = 0.0
            case StepsDone(run, record):
                self._advance(run, record.epochs, record.seconds)
            case Ended(run, result, seconds):
                del self.epochs[run.id]
                self.counts[str(result["status"])] += 1
                if result["status"] == DONE:
                    self.beside.append(max(0.0, seconds - self.own[run.id]))

    def _advance(self, run: Run, epochs: float, seconds: float) -> None:
        """A run has trained this many epochs; its current one has taken ``seconds`` so far."""
        more = seconds - self.within[run.id]
        self.trained += self.cost[run.id] * (epochs - self.epochs[run.id])
        self.seconds += more
        self.own[run.id] += more
        self.epochs[run.id], self.within[run.id] = epochs, seconds

    @property
    def has_begun(self) -> bool:
        """Whether an epoch, some of its steps or a run has ended."""
        return self.trained > 0 or self.over > len(self.plan.before)

    @property
    def over(self) -> int:
        """Runs that have ended."""
        return sum(self.counts.values())

    @property
    def left(self) -> str:
        """Time to go; ``unknown`` before the first record."""
        if not self.trained:
            return "unknown"
        epochs = {run.id: run.recipe.epochs for run in self.plan.todo}
        cost = sum(self.cost[i] * (epochs[i] - trained) for i, trained in list(self.epochs.items()))
        beside = sum(self.beside) / len(self.beside) if self.beside else 0.0
        seconds = cost * self.seconds / self.trained + beside * len(self.epochs)
        return duration(seconds / max(1, min(self.plan.slots, len(self.epochs))))

    @property
    def to_go(self) -> str:
        """The time to go in words."""
        return f"{self.left} to go" + (" in this round" if self.plan.more else "")

    def label(self, run: Run) -> str:
        """The run in few words."""
        return f"{self.labels[run.name]} seed {run.seed}"

    def starting(self) -> str:
        """What is about to begin."""
        todo, before = len(self.plan.todo), len(self.plan.before)
        over = f", {before} {'is' if before == 1 else 'are'} over" if before else ""
        return f"starting {self.plan.engine}: {number_of(todo, 'run')} to do{over}"


# --- lines ------------------------------------------------------------------------------------


def show_lines(events: Events) -> None:
    """A line per run, and now and then one per epoch of a long run."""
    plan = next(events)
    assert isinstance(plan, Planned)
    tally, held, spoke = Tally(plan), set[str](), time.monotonic()
    over = "the run is over" if tally.total == 1 else f"all {tally.total:,} runs are over"
    say(tally.starting() if plan.todo else over)
    for event in events:
        tally.count(event)
        match event:
            case Noted(text):
                say(text)
            case Held(run) if run.id not in held:
                held.add(run.id)
                say(f"{tally.label(run)}: another command has it")
                continue
            case EpochDone(run, record) if time.monotonic() - spoke > QUIET_SECONDS:
                at = f"epoch {record.epoch}/{run.recipe.epochs}, validation {record.val_acc:.2%}"
                say(f"         {tally.label(run)} {at}, {tally.to_go}")
            case StepsDone(run, record) if time.monotonic() - spoke > QUIET_SECONDS:
                at = f"epoch {record.epoch}/{run.recipe.epochs}, step {record.step}/{record.steps}"
                at = f"{at}, training loss {record.train_loss:.3f}"
                say(f"         {tally.label(run)} {at}, {tally.to_go}")
            case Ended(run, result):
                count = f"[{tally.over:>{len(str(tally.total))}}/{tally.total}]"
                say(f"{count} {tally.label(run)}: {result_line(result)}; {tally.to_go}")
            case _:
                continue
        spoke = time.monotonic()


# --- the bar ----------------------------------------------------------------------------------


def show_bar(events: Events) -> None:
    """A bar of all epochs, with the last result beside it."""
    from tqdm.auto import tqdm

    plan = next(events)
    assert isinstance(plan, Planned)
    tally = Tally(plan)
    epochs = {run.id: 0.0 for run in plan.todo}
    with tqdm(total=sum(run.recipe.epochs for run in plan.todo), unit="epoch") as bar:
        for event in events:
            tally.count(event)
            match event:
                case EpochDone(run, record):
                    epochs[run.id] = record.epoch
                case StepsDone(run, record):
                    epochs[run.id] = record.epochs
                case Ended(run, result):
                    epochs[run.id] = run.recipe.epochs  # of a failed run too
                    bar.set_postfix_str(f"{tally.label(run)}: {result_line(result)}", refresh=False)
                case _:
                    continue
            bar.set_description(f"{tally.over}/{tally.total} runs", refresh=False)
            bar.n = round(sum(epochs.values()), 1)
            bar.refresh()


# --- the table --------------------------------------------------------------------------------


def show_table(events: Events, console: Console) -> None:
    """A table that follows the events, and disappears after the last one."""
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        plan = next(events)
        assert isinstance(plan, Planned)
        table = SweepTable(plan, console)
        live.get_renderable = table.render  # type: ignore[method-assign]
        for event in events:
            table.count(event)


@dataclass
class _Row:
    """The runs of one network."""

    total: int = 0
    failed: int = 0
    tested: list[float] = field(default_factory=list)
    running: dict[int, str] = field(default_factory=dict)  # by seed: epoch and accuracy

    def advance(self, run: Run, record: Record) -> None:
        """Take an epoch into account, or steps of one: the accuracy is that of the last epoch."""
        if isinstance(record, EpochRecord):
            at, acc = str(record.epoch), f"{100 * record.val_acc:.2f}"
        else:
            at, acc = f"{record.epochs:.1f}", self.running.get(run.seed, "").partition(" ")[2]
        self.running[run.seed] = f"{at}/{run.recipe.epochs} {acc}"

    def count(self, result: Json) -> None:
        """Take the result of a run into account."""
        if result["status"] == DONE:
            self.tested.append(float(str(result["test_acc"])))
        else:
            self.failed += 1


class SweepTable:
    """One row per network: how many runs are over, how good they are, which are running."""

    def __init__(self, plan: Planned, console: Console) -> None:
        self.console, self.tally = console, Tally(plan)
        self._begin(plan)

    def _begin(self, plan: Planned) -> None:
        self.rows: dict[str, _Row] = {name: _Row() for name in self.tally.labels}
        for run in (*plan.before, *plan.todo):
            self.rows[run.name].total += 1
        for run, result in plan.before.items():
            self.rows[run.name].count(result)

    def count(self, event: Event) -> None:
        """Take an event into account; a run that has failed is printed above the table."""
        self.tally.count(event)
        if isinstance(event, Planned):
            self._begin(event)
            return
        if isinstance(event, Noted):
            self.console.print(Text(event.text))
            return
        run, row = event.run, self.rows[event.run.name]
        match event:
            case Started():
                row.running.setdefault(run.seed, "")
            case Held():
                row.running.pop(run.seed, None)
            case EpochDone(_, record) | StepsDone(_, record):
                row.advance(run, record)
            case Ended(_, result):
                row.running.pop(run.seed, None)
                row.count(result)
                if result["status"] != DONE:
                    line = f"{self.tally.label(run)}: {result_line(result)}"
                    self.console.print(Text(line, style="red"))

    def render(self) -> Group:
        """The table now; networks with running runs first where not all have room."""
        tally = self.tally
        running = sum(len(row.running) for row in self.rows.values())
        failed = tally.over - tally.counts[DONE]
        head = f"{tally.counts[DONE]}/{tally.total} done, {running} running"
        head += f", {failed} failed" if failed else ""
        head += f", {tally.to_go}; {tally.plan.engine}"
        shown = Table("network", "done", "test %")
        shown.add_column("running: epoch, validation %", no_wrap=True)
        room = max(1, self.console.height - _LINES)
        names = list(self.rows)
        if len(names) > room:
            names.sort(key=lambda name: (not self.rows[name].running, not self._open(name)))
        for name in names[:room]:
            shown.add_row(*self._cells(name))
        hidden = len(names) - room
        more = [Text(f"and {number_of(hidden, 'more network')}")] if hidden > 0 else []
        return Group(Text(head if tally.has_begun else tally.starting()), shown, *more)

    def _open(self, name: str) -> bool:
        row = self.rows[name]
        return len(row.tested) + row.failed < row.total

    def _cells(self, name: str) -> list[str]:
        row = self.rows[name]
        mean = f"{100 * sum(row.tested) / len(row.tested):.2f}" if row.tested else ""
        running = [f"seed {seed}: {at}" for seed, at in list(row.running.items())[:_AT_ONCE]]
        running += ["..."] if len(row.running) > _AT_ONCE else []
        failed = f", {row.failed} failed" if row.failed else ""
        return [
            self.tally.labels[name],
            f"{len(row.tested)}/{row.total}{failed}",
            mean,
            ", ".join(running),
        ]


# --- words ------------------------------------------------------------------------------------


def result_line(result: Json) -> str:
    """A result in words."""
    seconds = f"{float(str(result['seconds'])):.1f} s"
    if result["status"] == DONE:
        return f"test {float(str(result['test_acc'])):.2%}, {seconds}"
    return f"{result['status']} after {seconds}: {one_line(str(result['error']))}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds; hours only where there are some."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
