"""A checkpoint holds everything bit for bit, is whole or not there, and runs no code."""

import errno
import itertools
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import no_space
from hub import Malicious
from small import CPU, digits, network, recipe, same, train, weights

from resnet_variants.registry import UserError
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
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        layouts = [(x.dtype, x.shape, x.stride()) for x in (one, other)]
        bits = [x.contiguous().view(-1).view(torch.uint8) for x in (one, other)]
        return layouts[0] == layouts[1] and torch.equal(*bits)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return repr(one) == repr(other)


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


def draws():
    return torch.rand(3).tolist(), np.random.rand(), random.random(), np.random.randn()


@pytest.mark.parametrize("optimizer", ["nesterov", "sgd", "adamw", "lamb"])
def test_every_part_of_a_training_comes_back(tmp_path, optimizer):
    fields = {"optimizer": optimizer, "lr": 0.01, "ema": 0.5, "select": "best"}
    one = training(0, 2, **fields)
    one.finish_epoch(EpochRecord(1, 0.01, 2.0, 2.0, 0.25, 1.0, 100.0, 0.3, 0.9))
    one.take_step(iter([(torch.zeros(32, 1, 8, 8, dtype=torch.uint8), torch.arange(32) % 10)]))
    one.step = 1
    np.random.randn()  # which leaves the second of a pair behind
    state = one.state(1.5)
    assert all(state.values())
    save(tmp_path / "state", state)
    expected = draws()

    other = training(1, 0, **fields)
    other.restore(load(tmp_path / "state"))
    # In memory too: another order of a sum gives other last bits.
    assert identical(dict(other.state(1.5)), state)
    assert (other.epoch, other.step, other.seconds, other.best) == (2, 1, 1.5, (1, 0.25))
    assert draws() == expected  # the random streams go on where they were


# --- whole or not there -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name"), [(os, "fsync"), (Path, "replace"), (Path, "write_bytes")]
)
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, place, name):
    path = tmp_path / "state"
    Checkpointer(path).save(STATE)
    before = path.read_bytes()
    late = Checkpointer(path, seconds=3600, saved_at=float("-inf"))
    assert late.is_due()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, no_space)
        with pytest.raises(OSError, match="No space left on device") as error:
            late.save({"number": 2})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert late.is_due()  # only what is saved counts
    late.save(STATE)
    assert not late.is_due()


# --- what is read -----------------------------------------------------------------------------


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path):
    path, bomb = tmp_path / "state", Malicious(tmp_path / "exploded")
    assert Checkpointer(path).load() is None
    save(path, STATE)
    whole = path.read_bytes()
    files = {f"cut at {n}": whole[:n] for n in (0, 7, 100, len(whole) - 1)}
    files |= {"garbage": b"\x80garbage" * 100, "a bomb": pickle.dumps(bomb)}
    for name, content in {"a bomb of torch's": bomb, "foreign": {"model": STATE}}.items():
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


# --- what may be saved ------------------------------------------------------------------------


def breaking(step):
    """A network whose logits are no numbers from a training step on."""
    model, steps = network(), itertools.count(1)

    def spoil(module, _, logits):
        return logits * float("nan") if module.training and next(steps) >= step else logits

    model.register_forward_hook(spoil)
    return model


def test_weights_that_are_no_numbers_never_replace_good_ones(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(DivergedError, match=r"^the loss is not finite at step 4 \(epoch 2\) at lr"):
        train(breaking(4), recipe(), checkpointer=Checkpointer(path, 0.0))
    state = load(path)  # one is saved after every step: the last is the one before the broken one
    assert (state["epoch"], state["step"]) == (2, 0)
    assert all(weight.isfinite().all() for weight in state["model"].values())


def test_a_gradient_that_is_no_number_is_trouble_although_the_loss_is_one(tmp_path):
    model = network()
    model.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
    match = r"^the gradient is not finite at step 1 \(epoch 1\) at lr .*; no norm was finite$"
    with pytest.raises(DivergedError, match=match):
        train(model, recipe(), checkpointer=Checkpointer(tmp_path / "state", 0.0))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("sound", [True, False])
def test_stopping_saves_although_it_is_not_time_unless_the_training_is_broken(tmp_path, sound):
    path = tmp_path / "state"
    model = network() if sound else breaking(1)
    with pytest.raises(StoppedError if sound else DivergedError):
        train(model, recipe(), checkpointer=Checkpointer(path, 1e9, lambda: True))
    assert path.exists() == sound
    if sound:
        state = load(path)
        assert (state["epoch"], state["step"]) == (1, 1)
        assert same(state["model"], weights(model))
