"""What `run` shows while it trains: a table on a terminal, lines elsewhere, and the time to go."""

import io
from dataclasses import fields

from rich.console import Console

from resnet_variants.models.grids import grid
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Ended, EpochDone, Held, Lost, Planned, Started
from resnet_variants.terminal import live
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import EpochRecord


def runs(seeds=2, **axes):
    variants = grid(family="cifar", **({"depth": [8, 20]} | axes))
    return Experiment(name="x", variants=tuple(variants), seeds=seeds, recipe=Recipe(epochs=4)).runs


def record(epoch, acc=0.5):
    numbers = dict.fromkeys((f.name for f in fields(EpochRecord) if f.name != "epoch"), acc)
    return EpochRecord(epoch=epoch, **numbers)


DONE = {"status": "done", "test_acc": 0.75, "seconds": 1.0}
FAILED = {"status": "failed", "error": "out of luck", "seconds": 2.0}


def test_lines_tell_of_every_run_and_now_and_then_of_an_epoch(monkeypatch, capsys):
    one, two = runs(seeds=1)
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])

    def events():
        yield Planned([one, two], 3, "2 workers of 1 thread")
        yield from (Held(one), Held(one), Started(one), Started(two))
        yield EpochDone(one, record(1))
        now[0] += live.QUIET_SECONDS + 1
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


def terminal(height=24):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, height=height, color_system=None)
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


def test_more_models_than_fit_the_screen_leave_the_running_ones_in_sight():
    todo = runs(order=["post", "bn_after_add", "relu_before_add", "relu_preact", "preact"])
    table = live.SweepTable(terminal(height=12)[1])
    table.count(Planned(todo, 0, ""))
    for run in todo[:9]:
        table.count(Started(run))
        table.count(Ended(run, DONE))
    last = todo[-1]
    table.count(Started(last))
    lines = rendered(table)
    assert len(lines) <= 12
    assert any(f"{last.variant.name} " in line and "seed 1" in line for line in lines)
    assert lines[-1] == "and 6 more models"


def test_on_a_terminal_the_table_follows_the_events_and_disappears(monkeypatch):
    screen, console = terminal()
    monkeypatch.setattr(live, "Console", lambda: console)
    (run, _) = runs(seeds=1)
    live.show_events(event for event in (Planned([run], 0, "x"), Started(run), Ended(run, FAILED)))
    assert "failed after 2.0 s: out of luck" in screen.getvalue()
    assert "1 failed, 0 to go" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # its lines are erased
