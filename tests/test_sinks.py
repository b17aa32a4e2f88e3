"""Where a run's numbers go besides its folder, if somebody asks."""

import sys
import types
from typing import get_args

import pytest
from small import digits_run, execute

from resnet_variants.registry import UserError
from resnet_variants.settings import Sink
from resnet_variants.sweeps.sinks import SINKS, check_sinks
from resnet_variants.training.interrupt import Stop


class Tracker(types.ModuleType):
    """A module in the shape of W&B's: what was begun, logged and finished."""

    def __init__(self, name):
        super().__init__(name)
        self.begun, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.begun.append(settings)
        return self

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    module = Tracker("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_trackers_see_each_epoch_once_and_the_test_score(tmp_path, wandb, monkeypatch):
    trackio = Tracker("trackio")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    run = digits_run()
    result = execute(run, tmp_path / "run", sinks=("wandb", "trackio"))
    for tracker in (wandb, trackio):
        (begun,) = tracker.begun
        assert (begun["project"], begun["name"]) == ("resnet_variants", run.id)
        expected = {"seed": 0, "depth": 8, "order": "post", "lr": 0.1}
        assert begun["config"].items() >= expected.items()
        assert [step for step, _ in tracker.logged] == [1, 2, 2]
        assert tracker.logged[0][1].keys() >= {"lr", "train_loss", "val_acc", "grad_norm"}
        assert tracker.logged[-1][1]["test_acc"] == result["test_acc"]
        assert all(type(n) is float for _, numbers in tracker.logged for n in numbers.values())
        assert tracker.finished == 1


def test_a_run_that_goes_on_logs_only_what_is_new(tmp_path, wandb):
    run, stop = digits_run(epochs=3), Stop()

    def tell(record):
        stop.signal = 15

    assert execute(run, tmp_path / "run", hear=tell, stop=stop, sinks=("wandb",)) is None
    execute(run, tmp_path / "run", sinks=("wandb",))
    assert [step for step, _ in wandb.logged] == [1, 2, 3, 3]
    assert wandb.finished == 2


@pytest.mark.parametrize("method", ["init", "log", "finish"])
def test_a_sink_that_breaks_is_left_out_and_the_run_goes_on(tmp_path, wandb, monkeypatch, method):
    def broken(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(wandb, method, broken)
    result = execute(digits_run(), tmp_path / "run", sinks=("wandb", "tensorboard"))
    assert result["status"] == "done"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("nothing more goes to wandb: ConnectionError: no network") == 1
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_tensorboard_files_hold_the_epochs(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = digits_run()
    result = execute(run, tmp_path / "run", sinks=("tensorboard",))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [1, 2]
    assert events.Scalars("test_acc")[0].value == pytest.approx(result["test_acc"])


def test_nothing_is_logged_unless_asked_for(tmp_path, wandb):
    execute(digits_run(epochs=1), tmp_path / "run")
    assert wandb.begun == []
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_an_unknown_or_missing_sink_is_refused_at_once(monkeypatch):
    with pytest.raises(UserError, match="unknown sink 'tensorbord'; did you mean 'tensorboard'"):
        check_sinks(["tensorbord"])
    with pytest.raises(UserError, match="wandb is named twice"):
        check_sinks(["wandb", "wandb"])
    for name in SINKS:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match=f"'{name}' is not installed .*: pip install {name}"):
            check_sinks([name])


def test_the_command_knows_every_sink():
    assert set(get_args(Sink)) == {*SINKS}
