"""A sweep trains what is missing, once, and continues after failures."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal

import pytest
from small import CPU, sweep

from resnet_variants.models.variant import Variant
from resnet_variants.records.run_folder import DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.execute import RunStatus
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Ended, Options, Planned, Started, run_sweep
from resnet_variants.training.recipe import Recipe

EXECUTE = "resnet_variants.sweeps.fused.execute_run"


def experiment(seeds=2, **recipe):
    variants = tuple(Variant(family="cifar", depth=8, order=order) for order in ("post", "preact"))
    return Experiment(name="x", variants=variants, seeds=seeds, recipe=Recipe(epochs=1, **recipe))


DONE_RESULT = {"status": DONE, "test_acc": 0.5, "test_loss": 1.0, "seconds": 1.0}


@pytest.fixture
def executed(monkeypatch):
    """Runs that take no time: those of seed 1 fail the first time."""
    calls = []

    def execute(job, data, stop, **_):
        run, folder = job.run, RunFolder(job.path)
        calls.append(run.id)
        folder.start({"run_id": run.id} | run.load().facts)
        failed = run.seed == 1 and calls.count(run.id) == 1
        folder.finish({"status": FAILED, "error": "x", "seconds": 1.0} if failed else DONE_RESULT)
        yield RunStatus("ended", folder.result())

    monkeypatch.setattr(EXECUTE, execute)
    return calls


def go(out, **options):
    return sweep(experiment(), out, Options(machine=CPU, **options))


def test_the_same_command_does_only_what_is_missing(tmp_path, executed):
    assert go(tmp_path) is False
    assert len(executed) == 4
    assert go(tmp_path) is False  # failures are results
    assert len(executed) == 4
    assert go(tmp_path, retry_failed=True) is True
    assert len(executed) == 6
    assert go(tmp_path) is True
    assert len(executed) == 6


def test_a_sweep_is_a_generator_of_events(tmp_path, executed):
    events = []
    sweep(experiment(seeds=1), tmp_path, Options(machine=CPU), events.append)
    assert [type(event) for event in events] == [Planned, Started, Ended, Started, Ended]
    plan, *others = events
    assert [run.id for run in plan.todo] == executed
    assert (plan.before, plan.slots, plan.engine[:13]) == ({}, 1, "this process,")
    assert [event.run for event in others] == [plan.todo[0]] * 2 + [plan.todo[1]] * 2
    assert others[1].result == DONE_RESULT
    sweep(experiment(seeds=1), tmp_path, Options(machine=CPU), events.append)
    (nothing,) = events[5:]
    assert (nothing.todo, nothing.before) == ([], dict.fromkeys(plan.todo, DONE_RESULT))


def test_fresh_forgets_these_runs_and_no_others(tmp_path, executed):
    go(tmp_path)
    other = tmp_path / "runs" / "another"
    other.mkdir()
    (other / "run.json").write_text("{}")
    go(tmp_path, fresh=True)
    assert len(executed) == 8
    assert other.exists()


def test_the_experiment_is_recorded_before_the_first_run(tmp_path):
    one = experiment()
    with contextlib.closing(run_sweep(one, tmp_path, Options(machine=CPU))) as events:
        next(events)
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["runs"] == [run.id for run in one.runs]
    assert set(record["baselines"].values()) == {"rv_resnet8_cifar_b"}
    assert {"git_commit", "git_dirty", "command"} == set(record["provenance"])


def test_a_second_experiment_keeps_the_comparisons_of_the_first(tmp_path, executed):
    go(tmp_path)
    alone = dataclasses.replace(experiment(), variants=experiment().variants[1:], seeds=3)
    sweep(alone, tmp_path, Options(machine=CPU))
    record = json.loads((tmp_path / "experiment.json").read_text())
    models = ("rv_resnet8_cifar_b", "rv_resnet8_cifar_b_preact")
    assert record["baselines"] == dict.fromkeys(models, "rv_resnet8_cifar_b")
    assert len(record["runs"]) == 5
    assert len(executed) == 5


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/x"])
def test_an_output_folder_that_cannot_be_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot be written: ") as error:
        go(tmp_path / place)
    assert error.value.field == "out"
    assert (tmp_path / "file").read_text() == "kept"


def test_nothing_is_written_for_a_batch_beyond_the_data(tmp_path):
    with pytest.raises(UserError, match="batch_size 5000 exceeds the 1078 training images"):
        sweep(experiment(batch_size=5000), tmp_path / "out", Options(machine=CPU))
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_is_named_and_not_overwritten(tmp_path, executed):
    go(tmp_path)
    path = tmp_path / "runs" / executed[0] / "result.json"
    path.write_text('{"status": "do')
    before = (tmp_path / "experiment.json").read_bytes()
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        go(tmp_path)
    assert path.read_text() == '{"status": "do'
    assert (tmp_path / "experiment.json").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_run_that_lost_a_record_is_done_again(tmp_path, executed, name):
    go(tmp_path)
    (tmp_path / "runs" / executed[0] / name).unlink()
    go(tmp_path)
    assert executed[4:] == executed[:1]


def test_a_file_in_the_place_of_a_run_is_refused(tmp_path, executed):
    go(tmp_path)
    folder = tmp_path / "runs" / executed[0]
    shutil.rmtree(folder)
    folder.write_text("mine")
    with pytest.raises(UserError, match="is no folder: move it elsewhere"):
        go(tmp_path)
    assert folder.read_text() == "mine"


@pytest.mark.parametrize("key", ["split_hash", "data_hash"])
def test_runs_on_other_images_are_not_counted(tmp_path, executed, key):
    go(tmp_path)
    path = tmp_path / "runs" / executed[0] / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "another"}))
    before = (tmp_path / "experiment.json").read_bytes()
    message = rf"was trained on other images \({key} another, now .*\): take another --out, or give"
    with pytest.raises(UserError, match=message):
        go(tmp_path)
    assert (tmp_path / "experiment.json").read_bytes() == before
    go(tmp_path, fresh=True)
    assert len(executed) == 8


@pytest.mark.parametrize(
    ("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_after_a_signal_no_further_run_begins(tmp_path, monkeypatch, number, leaves):
    begun = []

    def execute(job, data, stop, **_):
        begun.append(job.run.id)
        if len(begun) == 2:
            os.kill(os.getpid(), number)
            assert stop()
        yield RunStatus("stopped")

    monkeypatch.setattr(EXECUTE, execute)
    before = signal.getsignal(number)
    with pytest.raises(leaves):
        go(tmp_path)
    assert len(begun) == 2
    assert signal.getsignal(number) is before
