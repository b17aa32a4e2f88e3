"""What `run` shows while it trains: a table on a terminal, lines elsewhere, and the time to go."""

import io
from dataclasses import fields

import pytest
from rich.console import Console

from resnet_variants.models.grids import grid
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Ended, EpochDone, Held, Lost, Planned, Started
from resnet_variants.terminal import live
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import EpochRecord

ORDERS = ["post", "bn_after_add", "relu_before_add", "relu_preact", "preact"]


def runs(seeds=2, **axes):
    variants = grid(family="cifar", **({"depth": [8, 20]} | axes))
    return Experiment(name="x", variants=tuple(variants), seeds=seeds, recipe=Recipe(epochs=4)).runs


def record(epoch, acc=0.5):
    numbers = dict.fromkeys((f.name for f in fields(EpochRecord) if f.name != "epoch"), acc)
    return EpochRecord(epoch=epoch, **numbers)


DONE = {"status": "done", "test_acc": 0.75, "seconds": 1.0}
FAILED = {"status": "failed", "error": "out of luck", "seconds": 2.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = {"at": 100.0}
    monkeypatch.setattr(live.time, "monotonic", lambda: now["at"])
    return now


def test_the_time_to_go_counts_what_networks_cost_and_epochs_at_hand(clock):
    small, large = runs(seeds=1)
    tally = live.Tally(Planned([small, large], 0, ""))
    assert tally.left == "-:--:--"
    cost = [tally.cost[run.id] for run in (small, large)]
    assert cost[1] > 2 * cost[0]
    clock["at"] += 60
    tally.count(EpochDone(large, record(2)))  # of four
    left = 60 * (2 * cost[1] + 4 * cost[0]) / (2 * cost[1])
    assert tally.left == live.duration(left)
    tally.count(Ended(large, DONE))
    tally.count(Ended(small, FAILED))
    assert (tally.left, tally.over, tally.counts["failed"]) == ("0:00:00", 2, 1)


def test_lines_tell_of_every_run_and_now_and_then_of_an_epoch(clock, capsys):
    one, two = runs(seeds=1)

    def events():
        yield Planned([one, two], 3, "2 workers of 1 thread")
        yield from (Held(one), Held(one), Started(one), Started(two))
        yield EpochDone(one, record(1))
        clock["at"] += live.QUIET_SECONDS + 1
        yield EpochDone(one, record(2, 0.625))
        yield EpochDone(two, record(1))
        yield Lost(two, "its worker was ended by SIGKILL")
        yield from (Ended(one, DONE), Ended(two, FAILED))

    live.show_events(events())
    assert capsys.readouterr().out.splitlines()[1:] == [
        "2 runs to do, 3 finished before; 2 workers of 1 thread",
        "rv_resnet8_cifar_b seed 0: another command has it",
        "         rv_resnet8_cifar_b seed 0 epoch 2/4, validation 62.50%",
        "[1/2] rv_resnet8_cifar_b seed 0: test 75.00%, 1.0 s, ETA 0:00:42",
        "[2/2] rv_resnet20_cifar_b seed 0: failed after 2.0 s: out of luck, ETA 0:00:00",
    ]


def terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, height=24, color_system=None)
    return screen, console


def rendered(table):
    screen, console = terminal()
    console.print(table.render())
    return screen.getvalue().splitlines()


def test_the_table_shows_every_model_and_the_accuracy_of_what_is_running():
    screen, console = terminal()
    todo, table = runs(seeds=3), live.SweepTable(console)
    first, second, third = (run for run in todo if run.variant.depth == 8)
    for event in (
        Planned(todo, 7, "2 workers"),
        *map(Started, (first, second, third)),
        Ended(first, DONE),
        EpochDone(second, record(3, 0.625)),
        Ended(third, FAILED),
    ):
        table.count(event)
    lines = rendered(table)
    head = "1 done, 1 running, 1 failed, 3 to go (7 done before), ETA "
    assert lines[0].startswith(head)
    assert lines[0].endswith("2 workers")
    (row,) = (line for line in lines if "rv_resnet8_cifar_b" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("rv_resnet8_cifar_b", "1/3", "1", "75.00", "seed 1: 3/4 62.50")
    ]
    assert screen.getvalue() == "rv_resnet8_cifar_b seed 2: failed after 2.0 s: out of luck\n"


def test_two_hundred_runs_fit_the_screen_with_the_running_ones_in_sight():
    todo = runs(seeds=5, depth=[8, 14, 20, 26], order=ORDERS, shortcut=["conv", "avgpool"])
    assert len(todo) == 200
    table = live.SweepTable(terminal()[1])
    table.count(Planned(todo, 0, ""))
    for run in todo[:39]:
        table.count(Started(run))
        table.count(Ended(run, DONE))
    last = next(run for run in todo if run.variant.depth == 26 and run.seed == 4)
    table.count(Started(last))
    lines = rendered(table)
    assert len(lines) <= 24
    assert any(f"{last.variant.name} " in line and "seed 4" in line for line in lines)
    assert lines[-1] == "and 24 more models"


def test_on_a_terminal_the_table_follows_the_events_and_disappears(monkeypatch):
    screen, console = terminal()
    monkeypatch.setattr(live, "Console", lambda: console)
    (run, _) = runs(seeds=1)
    live.show_events(event for event in (Planned([run], 0, "x"), Started(run), Ended(run, FAILED)))
    assert "failed after 2.0 s: out of luck" in screen.getvalue()
    assert "1 failed, 0 to go" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # its lines are erased
