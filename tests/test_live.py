"""What `run` shows while it trains: a table on a terminal, lines elsewhere, and the time to go."""

import io
from dataclasses import asdict, fields

from rich.console import Console

from resnet_variants.models.grids import grid
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Ended, EpochDone, Held, Lost, Planned, Started, StepsDone
from resnet_variants.terminal import live
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import EpochRecord, ReplayedRecord, StepRecord


def runs(seeds=2, **axes):
    variants = grid(family="cifar", **({"depth": [8, 20]} | axes))
    return Experiment(name="x", variants=tuple(variants), seeds=seeds, recipe=Recipe(epochs=4)).runs


def record(epoch, acc=0.5, seconds=1.0):
    numbers = dict.fromkeys((f.name for f in fields(EpochRecord) if f.name != "epoch"), acc)
    return EpochRecord(epoch=epoch, **numbers | {"seconds": seconds})


def test_the_time_to_go_follows_from_trained_epochs_alone(monkeypatch):
    """Two workers; the deeper network takes 3.3 times as long, and all runs 1 s beside epochs."""
    small, large = runs(seeds=1)
    tally = live.Tally(Planned([small, large], {}, "2 workers", 2))
    assert tally.left == "unknown"
    macs = {run.id: run.cost(run.load()).macs for run in (small, large)}
    ratio = macs[large.id] / macs[small.id]
    tally.count(EpochDone(small, record(1, seconds=10.0)))
    assert tally.left == live.duration((3 * 10 + 4 * 10 * ratio) / 2)
    for epoch in (2, 3, 4):
        tally.count(EpochDone(small, record(epoch, seconds=10.0)))
    tally.count(Ended(small, DONE, 41.0))
    assert tally.left == live.duration(4 * 10 * ratio + 1)
    tally.count(Ended(large, FAILED, 3.0))
    assert (tally.left, tally.over) == ("0:00", 2)


def test_epochs_of_an_earlier_command_are_done_and_tell_no_speed():
    (run,) = runs(seeds=1, depth=[8])
    tally = live.Tally(Planned([run], {}, "1 worker", 1))
    for epoch in (1, 2):
        tally.count(EpochDone(run, ReplayedRecord(**asdict(record(epoch, seconds=1.0)))))
    assert tally.left == "unknown"
    tally.count(EpochDone(run, record(3, seconds=100.0)))
    assert tally.left == live.duration(100)


def steps(step, seconds, epoch=1):
    return StepRecord(epoch, step, 8, 0.1, 2.0, 0.3, 1.0, seconds)


def test_steps_tell_the_time_to_go_before_an_epoch_ends():
    (run,) = runs(seeds=1, depth=[8])
    tally = live.Tally(Planned([run], {}, "1 worker", 1))
    for step in (2, 4):
        tally.count(StepsDone(run, steps(step, seconds=5.0 * step)))
        assert tally.left == live.duration(40 * 4 - 5 * step)
    tally.count(EpochDone(run, record(1, seconds=44.0)))  # with validation
    assert tally.left == live.duration(44 * 3)
    tally.count(StepsDone(run, steps(8, seconds=40.0, epoch=2)))
    tally.count(EpochDone(run, record(2, seconds=44.0)))
    assert tally.left == live.duration(44 * 2)
    tally.count(StepsDone(run, steps(4, seconds=22.0, epoch=3)))
    tally.count(EpochDone(run, ReplayedRecord(**asdict(record(2)))))  # the worker was lost
    tally.count(StepsDone(run, steps(4, seconds=22.0, epoch=3)))
    assert tally.left == live.duration(44 * 1.5)


DONE = {"status": "done", "test_acc": 0.75, "seconds": 1.0}
FAILED = {"status": "failed", "error": "out of luck", "seconds": 2.0}


def test_lines_tell_of_every_run_and_now_and_then_of_an_epoch(monkeypatch, capsys):
    one, two, three = [*runs(seeds=1), runs(seeds=2)[2]]
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])

    def events():
        yield Planned([one, two], {three: DONE}, "2 workers of 1 thread", 2)
        yield from (Held(one), Held(one), Started(one), Started(two))
        yield EpochDone(one, record(1))
        now[0] += live.QUIET_SECONDS + 1
        yield EpochDone(one, record(2, 0.625))
        yield EpochDone(two, record(1))
        now[0] += live.QUIET_SECONDS + 1
        yield StepsDone(two, steps(3, seconds=1.0, epoch=2))
        yield Lost(two, "its worker was ended by SIGKILL")
        yield from (Ended(one, DONE, 2.0), Ended(two, FAILED, 2.0))

    live.show_events(events())
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("; ")[0].rpartition(", ")[0] or line for line in lines[4:5]] == [
        "[2/3] 8 seed 0: test 75.00%"
    ]
    assert lines[:2] == [
        "starting 2 workers of 1 thread: 2 runs to do, 1 is over",
        "8 seed 0: another command has it",
    ]
    assert lines[2].startswith("         8 seed 0 epoch 2/4, validation 62.50%, 0:")
    assert lines[3].startswith("         20 seed 0 epoch 2/4, step 3/8, training loss 2.000, 0:")
    assert lines[5] == "[3/3] 20 seed 0: failed after 2.0 s: out of luck; 0:00 to go"


def test_nothing_to_do_is_one_line(capsys):
    live.show_events(event for event in [Planned([], dict.fromkeys(runs(), DONE), "", 0)])
    assert capsys.readouterr().out == "all 4 runs are over\n"
    one, two = runs(seeds=1)
    live.show_events(event for event in [Planned([], {one: DONE}, "", 0)])
    live.show_events(event for event in [Planned([two], {one: DONE}, "1 worker", 1)])
    words = "the run is over\nstarting 1 worker: 1 run to do, 1 is over\n"
    assert capsys.readouterr().out == words


def terminal(height=24, width=140):
    screen = io.StringIO()
    size = {"width": width, "height": height}
    console = Console(file=screen, force_terminal=True, color_system=None, **size)
    return screen, console


def rendered(table, width=140):
    screen, console = terminal(width=width)
    console.print(table.render())
    return screen.getvalue().splitlines()


def cells(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_table_counts_what_was_finished_before():
    screen, console = terminal()
    first, _, second, _, third, _, fourth, _ = todo = runs(seeds=4)
    table = live.SweepTable(Planned(todo[1:], {first: DONE}, "2 workers", 2), console)
    assert rendered(table)[0] == "starting 2 workers: 7 runs to do, 1 is over"
    for event in (
        *map(Started, (second, third, fourth)),
        Ended(second, DONE, 1.0),
        EpochDone(third, record(3, 0.625)),
        Ended(fourth, FAILED, 2.0),
    ):
        table.count(event)
    assert cells(rendered(table)[4])[-1] == "seed 2: 3/4 62.50"
    table.count(StepsDone(third, steps(4, seconds=1.0, epoch=4)))
    lines = rendered(table)
    assert lines[0].startswith("2/8 done, 1 running, 1 failed, 0:")
    assert lines[0].endswith(" to go; 2 workers")
    assert cells(lines[4]) == ["8", "2/4, 1 failed", "75.00", "seed 2: 3.5/4 62.50"]
    assert screen.getvalue() == "8 seed 3: failed after 2.0 s: out of luck\n"
    assert max(map(len, rendered(table, width=60))) <= 60


def test_more_networks_than_fit_the_screen_leave_the_running_ones_in_sight():
    todo = runs(order=["post", "bn_after_add", "relu_before_add", "relu_preact", "preact"])
    table = live.SweepTable(Planned(todo, {}, "", 1), terminal(height=12)[1])
    for run in todo[:9]:
        table.count(Started(run))
        table.count(Ended(run, DONE, 1.0))
    table.count(Started(todo[-1]))
    lines = rendered(table)
    assert len(lines) <= 12
    assert any(
        table.tally.labels[todo[-1].variant.name] in line and "seed 1" in line for line in lines
    )
    assert lines[-1] == "and 6 more networks"


def test_on_a_terminal_the_table_follows_the_events_and_disappears(monkeypatch):
    screen, console = terminal()
    monkeypatch.setattr(live, "Console", lambda: console)
    (run, _) = runs(seeds=1)
    events = (Planned([run], {}, "x", 1), Started(run), Ended(run, FAILED, 2.0))
    live.show_events(event for event in events)
    assert "failed after 2.0 s: out of luck" in screen.getvalue()
    assert "1 failed" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # its lines are erased
