"""What `run` shows meanwhile: a table on a terminal, lines elsewhere, and when it will be over."""

import io
from dataclasses import fields

import pytest
from rich.console import Console

from resnet_variants.models.grids import grid
from resnet_variants.sweeps.experiment import Experiment
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
    tally = live.Tally([small, large], 0)
    assert tally.left == "-:--:--"
    cost = [tally.cost[run.id] for run in (small, large)]
    assert cost[1] > 2 * cost[0]
    tally.start(large)
    clock["at"] += 60
    tally.epoch(large, record(2))  # of four
    left = 60 * (2 * cost[1] + 4 * cost[0]) / (2 * cost[1])
    assert tally.left == live.duration(left)
    tally.end(large, "done")
    tally.end(small, "failed")
    assert (tally.left, tally.over, tally.counts["failed"]) == ("0:00:00", 2, 1)


def test_lines_tell_of_every_run_and_now_and_then_of_an_epoch(clock, capsys):
    watcher, (one, two) = live.LineWatcher(), runs(seeds=1)
    watcher.begin([one, two], 3, "2 workers of 1 thread")
    for run in (one, two):
        watcher.start(run)
    watcher.epoch(one, record(1))
    clock["at"] += live.QUIET_SECONDS + 1
    watcher.epoch(one, record(2, 0.625))
    watcher.epoch(two, record(1))
    watcher.end(one, DONE)
    watcher.end(two, FAILED)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "2 runs to do, 3 finished before; 2 workers of 1 thread"
    assert lines[2].endswith("rv_resnet8_cifar_b seed 0 epoch 2/4, validation 62.50%")
    assert lines[3].startswith("[1/2] rv_resnet8_cifar_b seed 0: test 75.00%, 1.0 s, ETA 0:0")
    assert lines[4] == (
        "[2/2] rv_resnet20_cifar_b seed 0: failed after 2.0 s: out of luck, ETA 0:00:00"
    )
    assert len(lines) == 5


def rendered(watcher):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, height=24, color_system=None)
    console.print(watcher.render())
    return screen.getvalue().splitlines()


def watching(todo, done=0):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=140, height=24, color_system=None)
    return screen, live.table(terminal), todo, done


def test_the_table_shows_every_model_and_the_accuracy_of_what_is_running():
    screen, table, todo, _ = watching(runs(seeds=3))
    with table as watcher:
        watcher.begin(todo, 7, "2 workers")
        first, second, third = (run for run in todo if run.variant.depth == 8)
        for run in (first, second, third):
            watcher.start(run)
        watcher.end(first, DONE)
        watcher.epoch(second, record(3, 0.625))
        watcher.end(third, FAILED)
        lines = rendered(watcher)
    head = "1 done, 1 running, 1 failed, 3 to go (7 done before), ETA "
    assert lines[0].startswith(head)
    assert lines[0].endswith("2 workers")
    (row,) = (line for line in lines if "rv_resnet8_cifar_b" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("rv_resnet8_cifar_b", "1/3", "1", "75.00", "seed 1: 3/4 62.50")
    ]
    assert "rv_resnet8_cifar_b seed 2: failed after 2.0 s: out of luck" in screen.getvalue()


def test_two_hundred_runs_fit_the_screen_with_the_running_ones_in_sight():
    todo = runs(seeds=5, depth=[8, 14, 20, 26], order=ORDERS, shortcut=["conv", "avgpool"])
    assert len(todo) == 200
    _, table, _, _ = watching(todo)
    with table as watcher:
        watcher.begin(todo, 0, "")
        for run in todo[:39]:
            watcher.start(run)
            watcher.end(run, DONE)
        last = next(run for run in todo if run.variant.depth == 26 and run.seed == 4)
        watcher.start(last)
        lines = rendered(watcher)
    assert len(lines) <= 24
    assert any(f"{last.variant.name} " in line and "seed 4" in line for line in lines)
    assert lines[-1] == "and 24 more models"
