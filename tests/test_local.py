"""The local engine: does what is missing, once, and goes on after failures."""

import json

import pytest

from resnet_variants.models.variant import Variant
from resnet_variants.records import DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps import local
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.local import Options, prepare, run_all
from resnet_variants.training.recipe import Recipe


def experiment(seeds=2, **recipe):
    variants = tuple(Variant(family="cifar", depth=8, order=order) for order in ("post", "preact"))
    return Experiment(name="x", variants=variants, seeds=seeds, recipe=Recipe(epochs=1, **recipe))


@pytest.fixture
def executed(monkeypatch):
    """Runs that take no time: every second one fails the first time."""
    calls = []

    def execute(run, path, *, device, on_epoch):
        calls.append(run.id)
        folder = RunFolder(path)
        folder.start({"run_id": run.id})
        first_try = calls.count(run.id) == 1
        result = {"status": FAILED if first_try and run.seed else DONE}
        folder.finish(result)
        return result

    monkeypatch.setattr(local, "execute", execute)
    return calls


def go(out, **options):
    one = experiment()
    todo = prepare(one, out, Options(device="cpu", **options))
    return run_all(one, todo, out, device="cpu", watcher=local.Silent())


def test_the_same_command_does_only_what_is_missing(tmp_path, executed):
    assert go(tmp_path) is False
    assert len(executed) == 4
    assert go(tmp_path) is False  # failures are results
    assert len(executed) == 4
    assert go(tmp_path, retry_failed=True) is True
    assert len(executed) == 6
    assert go(tmp_path) is True
    assert len(executed) == 6


def test_fresh_forgets_these_runs_and_no_others(tmp_path, executed):
    go(tmp_path)
    other = tmp_path / "runs" / "another"
    other.mkdir()
    (other / "run.json").write_text("{}")
    go(tmp_path, fresh=True)
    assert len(executed) == 8
    assert other.exists()


def test_an_unfinished_run_is_done_again(tmp_path, executed):
    go(tmp_path)
    (tmp_path / "runs" / executed[0] / "result.json").unlink()
    go(tmp_path)
    assert executed[4:] == executed[:1]


def test_the_experiment_is_recorded_before_the_first_run(tmp_path):
    one = experiment()
    todo = prepare(one, tmp_path, Options(device="cpu"))
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["runs"] == [run.id for run in todo]
    assert set(record["baselines"].values()) == {"rv_resnet8_cifar_b"}


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/x"])
def test_an_output_folder_that_cannot_be_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot be written: ") as error:
        prepare(experiment(), tmp_path / place, Options(device="cpu"))
    assert error.value.field == "out"
    assert (tmp_path / "file").read_text() == "kept"


def test_nothing_is_written_for_a_batch_beyond_the_data(tmp_path):
    with pytest.raises(UserError, match="batch_size 5000 exceeds the 1078 training images"):
        prepare(experiment(batch_size=5000), tmp_path / "out", Options(device="cpu"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_is_named_and_not_overwritten(tmp_path, executed):
    go(tmp_path)
    path = tmp_path / "runs" / executed[0] / "result.json"
    path.write_text('{"status": "do')
    with pytest.raises(UserError, match=r"result\.json is damaged"):
        go(tmp_path)
    assert path.read_text() == '{"status": "do'
