"""A checkpoint holds everything bit for bit, is whole or not there, and runs no code."""

import errno
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from small import CPU, digits, network, recipe, same, train, weights
from torch import nn

from resnet_variants.registry import UserError
from resnet_variants.training import checkpoint
from resnet_variants.training.checkpoint import Checkpointer, load, save
from resnet_variants.training.device import make_fabric
from resnet_variants.training.trainer import DivergedError, EpochRecord, StoppedError, Trainer

STATE = {
    "floats": torch.tensor([0.1, float("nan"), float("-inf"), -0.0]),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "none": torch.zeros(0, 3),
    "loss": 0.1 + 0.2,
    "best": (0, float("-inf")),
    "text": "ü",
    "records": [{"acc": None, "loss": float("nan")}],
}


def identical(one, other):
    """Equal bit for bit, tensors also in where they keep what in memory."""
    if isinstance(one, torch.Tensor):
        same_layout = (one.dtype, one.shape, one.stride()) == (
            *(other.dtype, other.shape, other.stride()),
        )
        bits = [x.contiguous().view(-1).view(torch.uint8) for x in (one, other)]
        return same_layout and torch.equal(*bits)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(
            identical(a, b) for a, b in zip(one, other, strict=True)
        )
    return type(one) is type(other) and repr(one) == repr(other)


def training(seed, steps, **fields):
    """A training after some steps."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    one = recipe(**fields)
    made = Trainer(network(seed), digits(), one, seed=0, fabric=make_fabric(CPU, one.precision))
    for _ in zip(range(steps), made.rest_of_epoch(), strict=False):
        pass
    return made


# --- what is kept -----------------------------------------------------------------------------


def test_a_state_comes_back_bit_for_bit(tmp_path):
    save(tmp_path / "state", STATE)
    assert identical(load(tmp_path / "state"), STATE)


@pytest.mark.parametrize("optimizer", ["nesterov", "sgd", "adamw", "lamb"])
def test_every_part_of_a_training_comes_back(tmp_path, optimizer):
    fields = {"optimizer": optimizer, "lr": 0.01, "ema": 0.5, "select": "best"}
    one = training(0, 2, **fields)
    one.finish_epoch(EpochRecord(1, 0.01, 2.0, 2.0, 0.25, 1.0, 100.0, 0.3, 0.9))
    one.take_step(iter([(torch.zeros(32, 1, 8, 8, dtype=torch.uint8), torch.arange(32) % 10)]))
    one.step = 1
    state = one.state(1.5)
    assert all(state.values())
    save(tmp_path / "state", state)

    other = training(1, 0, **fields)
    other.restore(load(tmp_path / "state"))
    # In memory too: another order of a sum gives other last bits.
    assert identical(dict(other.state(1.5)), dict(one.state(1.5)))
    assert (other.epoch, other.step, other.seconds, other.best) == (2, 1, 1.5, (1, 0.25))


def test_the_random_streams_go_on_where_they_were():
    def draws():
        return torch.rand(3).tolist(), np.random.rand(), random.random(), np.random.randn()

    np.random.randn()  # which leaves the second of a pair behind
    device = torch.device("cpu")
    state = checkpoint.random_state(device)
    expected = draws()
    draws()
    checkpoint.restore_random(state, device)
    assert draws() == expected


# --- whole or not there -----------------------------------------------------------------------


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "name"), [(os, "fsync"), (Path, "replace"), (Path, "write_bytes")]
)
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, place, name):
    path = tmp_path / "state"
    save(path, STATE)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, full)
        with pytest.raises(OSError, match="No space left on device") as error:
            save(path, {"number": 2})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_counts_the_seconds_anew_and_a_failed_one_does_not(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path / "state", seconds=3600, saved_at=float("-inf"))
    assert checkpointer.is_due()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpointer.save(STATE)
    assert checkpointer.is_due()
    checkpointer.save(STATE)
    assert not checkpointer.is_due()
    assert Checkpointer(tmp_path / "state", seconds=0).is_due()


# --- what is read -----------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state"
    save(path, STATE)
    whole = path.read_bytes()
    files = {
        **{f"cut at {n}": whole[:n] for n in (0, 7, 100, len(whole) - 1)},
        "garbage": b"\x80garbage" * 100,
        "a bomb": pickle.dumps(Bomb()),
    }
    for name, content in {"a bomb of torch's": Bomb(), "foreign": {"model": STATE}}.items():
        torch.save(content, tmp_path / "other")
        files[name] = (tmp_path / "other").read_bytes()
    for name, content in files.items():
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(path)
        message = str(error.value)
        assert message.startswith(f"{path} is damaged ("), name
        assert message.endswith("; delete its folder to redo the run"), name
        assert "\n" not in message, name
    assert not (tmp_path / "exploded").exists()


def test_without_a_file_there_is_nothing_to_go_on_from(tmp_path):
    assert Checkpointer(tmp_path / "state").load() is None


# --- what may be saved ------------------------------------------------------------------------


def saves(monkeypatch):
    """The states of each checkpoint, from now on."""
    states = []
    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: (states.append(a[1]), original(*a)))
    return states


def test_weights_that_are_no_numbers_never_replace_good_ones(tmp_path, monkeypatch):
    path, written, steps = tmp_path / "state", saves(monkeypatch), []

    class Breaks(nn.Module):
        """Passes on what it gets; in the fourth training step, what is no number."""

        def forward(self, x):
            steps.append(self.training)
            return x * float("nan") if steps.count(True) == 4 else x

    model = nn.Sequential(network(), Breaks())
    with pytest.raises(DivergedError, match=r"^the loss is not finite at step 4 \(epoch 2\) at lr"):
        train(model, recipe(), checkpointer=Checkpointer(path, 0.0))
    # One after every step, and the last before the broken one.
    assert [(state["epoch"], state["step"]) for state in written] == [(1, 1), (1, 2), (2, 0)]
    state = load(path)
    assert state["epoch"] == 2
    assert all(weight.isfinite().all() for weight in state["model"].values())


def test_a_gradient_that_is_no_number_is_trouble_although_the_loss_is_one(tmp_path, monkeypatch):
    written = saves(monkeypatch)

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    class Spoils(nn.Module):
        def forward(self, x):
            return Spoil.apply(x)

    model = nn.Sequential(network(), Spoils())
    match = (
        r"^the gradient is not finite at step 1 \(epoch 1\) at lr .*; last finite gradient norm 0$"
    )
    with pytest.raises(DivergedError, match=match):
        train(model, recipe(), checkpointer=Checkpointer(tmp_path / "state", 0.0))
    assert written == []


def test_whoever_asks_to_stop_a_broken_training_hears_that_it_is(tmp_path):
    model = network()
    nn.init.constant_(model.fc.weight, float("nan"))
    with pytest.raises(DivergedError):
        train(model, recipe(), checkpointer=Checkpointer(tmp_path / "state", 1e9, lambda: True))
    assert not (tmp_path / "state").exists()


def test_stopping_saves_although_it_is_not_time(tmp_path):
    model = network()
    with pytest.raises(StoppedError):
        train(model, recipe(), checkpointer=Checkpointer(tmp_path / "state", 1e9, lambda: True))
    state = load(tmp_path / "state")
    assert (state["epoch"], state["step"]) == (1, 1)
    assert same(state["model"], weights(model))
