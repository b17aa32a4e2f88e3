"""What the commands show: settings, progress, summary; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from resnet_variants.analysis.report import Report
from resnet_variants.analysis.tables import summary_markdown
from resnet_variants.cli import say
from resnet_variants.files import Json
from resnet_variants.run_folder import DONE
from resnet_variants.sweeps.estimate import seconds_per_run
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.local import Watcher
from resnet_variants.sweeps.provenance import device_name
from resnet_variants.sweeps.runs import Run
from resnet_variants.training.device import Machine, make_fabric, resolve
from resnet_variants.training.loop import EpochRecord
from resnet_variants.training.recipe import Recipe

QUIET_SECONDS = 30.0  # without a terminal, an epoch is reported at most this often


# --- before -----------------------------------------------------------------------------------


def show_settings(experiment: Experiment, out: Path, machine: Machine) -> None:
    """Everything that decides the outcome, and where it goes."""
    recipe = experiment.recipe
    fabric = make_fabric(machine, recipe.precision)
    data = experiment.runs[0].load()
    splits = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test"
    where = f"{fabric.device.type} ({device_name(fabric.device)})"
    rows = {
        "experiment": experiment.name,
        "question": experiment.question,
        "networks": ", ".join(variant.name for variant in experiment.variants),
        "data": f"{data.name}, {data.in_chans} x {data.img_size} x {data.img_size} px, {splits}",
        "recipe": ", ".join(_settings(recipe)),
        "seeds": f"{experiment.seeds}, so {len(experiment.runs)} runs",
        "device": f"{where}, {resolve(recipe.precision, fabric.device.type)}, "
        f"{torch.get_num_threads()} threads",
        "output": str(out.resolve()),
    }
    for key, value in rows.items():
        if value:
            say(f"{key:<11}{value}")
    for line in experiment.merged:
        say(f"{'merged':<11}{line}")


def _settings(recipe: Recipe) -> list[str]:
    """The settings of every recipe, and those of this one that are not the usual."""
    usual = vars(Recipe())
    always = ("epochs", "batch_size", "optimizer", "lr", "schedule", "weight_decay")
    return [
        f"{key} {value}"
        for key, value in vars(recipe).items()
        if key in always or value != usual[key]
    ]


def show_plan(experiment: Experiment, machine: Machine) -> None:
    """The runs, their cost, and an estimate of the time from measured steps."""
    total = 0.0
    say("\nmodel, params, MACs, estimated seconds per run:")
    for run in experiment.runs[: len(experiment.variants)]:
        spent = run.cost(run.load())
        seconds = seconds_per_run(run, machine)
        total += seconds * experiment.seeds
        say(f"  {run.variant.name:<48}{spent.params:>12,}{spent.macs:>16,}{seconds:>9.1f}")
    say("\nruns:")
    for run in experiment.runs:
        say(f"  {run.id}")
    say(f"\n{len(experiment.runs)} runs, about {_duration(total)} of training; nothing was started")


# --- meanwhile --------------------------------------------------------------------------------


def make_watcher() -> AbstractContextManager[Watcher]:
    """Progress bars on a terminal, lines elsewhere."""
    console = Console()
    return bars(console) if console.is_terminal else contextlib.nullcontext(LineWatcher())


class LineWatcher:
    """A line per run, and now and then one per epoch of a long run."""

    def __init__(self) -> None:
        self.total = self.finished = 0
        self.started = self.spoke = time.monotonic()

    def begin(self, todo: Sequence[Run], done: int) -> None:
        """See ``Watcher``."""
        self.total = len(todo)
        say(f"\n{len(todo)} runs to do, {done} finished before")

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """See ``Watcher``."""
        if time.monotonic() - self.spoke > QUIET_SECONDS:
            say(f"         {_label(run)} {_epoch(run, record)}")
            self.spoke = time.monotonic()

    def end(self, run: Run, result: Json) -> None:
        """See ``Watcher``."""
        self.finished += 1
        spent = time.monotonic() - self.started
        left = spent / self.finished * (self.total - self.finished)
        count = f"[{self.finished:>{len(str(self.total))}}/{self.total}]"
        say(f"{count} {_label(run)}: {_outcome(result)}, ETA {_duration(left)}")
        self.spoke = time.monotonic()


@contextlib.contextmanager
def bars(console: Console) -> Iterator[Watcher]:
    """Bars on a console, for the length of the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield BarWatcher(progress)


class BarWatcher:
    """One bar for the run at hand, in epochs, and one for the whole set."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.whole = progress.add_task("all runs", total=None, note="", start=False)
        self.one = progress.add_task("", total=None, note="", start=False)
        self.finished = self.count = 0

    def begin(self, todo: Sequence[Run], done: int) -> None:
        """See ``Watcher``."""
        self.count = len(todo)
        self.progress.reset(self.whole, total=sum(run.recipe.epochs for run in todo))
        self.progress.update(self.whole, note=f"0/{self.count} runs, {done} before")

    def epoch(self, run: Run, record: EpochRecord) -> None:
        """See ``Watcher``."""
        if record.epoch == 1:
            self.progress.reset(self.one, total=run.recipe.epochs, description=_label(run))
        self.progress.update(
            self.one, completed=record.epoch, note=f"validation {record.val_acc:.2%}"
        )
        self.progress.advance(self.whole)

    def end(self, run: Run, result: Json) -> None:
        """See ``Watcher``."""
        self.finished += 1
        self.progress.update(self.whole, note=f"{self.finished}/{self.count} runs")
        self.progress.console.print(f"{_label(run)}: {_outcome(result)}", highlight=False)


def _label(run: Run) -> str:
    return f"{run.variant.name} seed {run.seed}"


def _epoch(run: Run, record: EpochRecord) -> str:
    return f"epoch {record.epoch}/{run.recipe.epochs}, validation {record.val_acc:.2%}"


def _outcome(result: Json) -> str:
    seconds = f"{float(str(result['seconds'])):.1f} s"
    if result["status"] == DONE:
        return f"test {float(str(result['test_acc'])):.2%}, {seconds}"
    return f"{result['status']} after {seconds}: {result['error']}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


# --- afterwards -------------------------------------------------------------------------------


def show_report(made: Report, out: Path) -> None:
    """The summary, the state of the runs and the files."""
    console = Console()
    say()
    if console.is_terminal:
        console.print(_summary_table(made.summary))
    else:
        say(summary_markdown(made.summary))
    say(", ".join(f"{n} {status}" for status, n in made.counts.items()))
    for run_id, error in made.runs.loc[made.runs["error"].notna(), ["run_id", "error"]].values:
        if error:
            say(f"  {run_id}: {error}; see {out / 'runs' / str(run_id) / 'log.txt'}")
    say(f"in {out}: {', '.join(path.name for path in made.files)}")


def _summary_table(summary: pd.DataFrame) -> Table:
    table = Table("model", title="test accuracy, paired difference to the baseline")
    for heading in ("MACs (M)", "params", "n", "accuracy %", "95 %", "delta", "verdict", "front"):
        table.add_column(heading, justify="right")
    for row in summary.to_dict("records"):
        low, high = 100 * row["test_acc_ci_low"], 100 * row["test_acc_ci_high"]
        delta = 100 * row["delta"]
        table.add_row(
            row["model"],
            f"{row['macs'] / 1e6:.3f}",
            f"{row['params']:,}",
            str(row["n"]),
            f"{100 * row['test_acc_mean']:.2f}" if row["n"] else "",
            "" if np.isnan(low) else f"{low:.2f} to {high:.2f}",
            "" if np.isnan(delta) else f"{delta:+.2f}",
            row["verdict"],
            "*" if row["on_pareto_front"] else "",
        )
    return table
