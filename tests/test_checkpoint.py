"""A checkpoint holds everything bit for bit, is whole or not there, and runs no code."""

import errno
import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import CPU, digits, network, recipe, same, train, weights
from torch import nn

from resnet_variants.registry import UserError
from resnet_variants.training import checkpoint
from resnet_variants.training.checkpoint import Keeper, load, save
from resnet_variants.training.device import make_fabric
from resnet_variants.training.loop import StoppedError
from resnet_variants.training.trainer import DivergedError, Training

TENSORS = {
    "floats": torch.tensor([0.1, float("nan"), float("-inf"), -0.0]),
    "transposed": torch.arange(6.0).view(2, 3).T,
    "number": torch.tensor(7, dtype=torch.int64),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "none": torch.zeros(0, 3),
}
FACTS = {"loss": 0.1 + 0.2, "best": [0, float("-inf")], "text": "ü", "records": [{"acc": None}]}


def training(seed, steps, **fields):
    """A training after some steps."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    one = recipe(**fields)
    made = Training(network(seed), digits(), one, seed=0, fabric=make_fabric(CPU, one.precision))
    for _ in zip(range(steps), made.rest_of_epoch(), strict=False):
        pass
    return made


# --- what is kept -----------------------------------------------------------------------------


def test_tensors_and_facts_come_back_bit_for_bit(tmp_path):
    save(tmp_path / "state", TENSORS, FACTS)
    tensors, facts = load(tmp_path / "state")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert (
            tensors[name]
            .view(-1)
            .view(torch.uint8)
            .equal(tensor.contiguous().view(-1).view(torch.uint8))
        )


def laid_out(tensor):
    return tensor.is_contiguous(), tensor.ndim == 4 and tensor.is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("optimizer", ["nesterov", "sgd", "adamw", "lamb"])
def test_every_part_of_a_training_comes_back(tmp_path, optimizer):
    fields = {"optimizer": optimizer, "lr": 0.01, "ema": 0.5, "select": "best"}
    one = training(0, 2, **fields)
    one.finish_epoch({"val_acc": 0.25, "epoch": 1})
    one.take(iter([(torch.zeros(32, 1, 8, 8, dtype=torch.uint8), torch.arange(32) % 10)]))
    one.step = 1
    save(tmp_path / "state", *one.state(1.5))

    other = training(1, 0, **fields)
    other.restore(*load(tmp_path / "state"))
    tensors, facts = one.state(1.5)
    again, facts_again = other.state(1.5)
    assert same(tensors, again)
    assert json.dumps(facts) == json.dumps(facts_again)
    for part in ("model", "optimizer", "random", "best", "ema", "sums"):
        assert checkpoint.under(part, tensors), part
    assert (other.epoch, other.step, other.seconds, other.best) == (2, 1, 1.5, (1, 0.25))
    assert other.optimizer.state_dict()["param_groups"][0].keys() == (
        one.optimizer.state_dict()["param_groups"][0].keys()
    )
    # In memory too: another order of a sum gives other last bits.
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        mine, theirs = one.optimizer.state[mine], other.optimizer.state[theirs]
        for name, value in mine.items():
            assert laid_out(value) == laid_out(theirs[name])


def test_the_random_streams_go_on_where_they_were():
    def draws():
        return torch.rand(3).tolist(), np.random.rand(), random.random(), np.random.randn()

    np.random.randn()  # which leaves the second of a pair behind
    device = torch.device("cpu")
    state = checkpoint.random_state(device)
    expected = draws()
    draws()
    checkpoint.restore_random(*state, device)
    assert draws() == expected


# --- whole or not there -----------------------------------------------------------------------


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "name"), [(os, "fsync"), (Path, "replace"), (checkpoint, "save_file")]
)
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, place, name):
    path = tmp_path / "state"
    save(path, TENSORS, {"number": 1})
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(place, name, lambda *_, **__: full())
        with pytest.raises(OSError, match="No space left on device") as error:
            save(path, TENSORS, {"number": 2})
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_counts_the_seconds_anew_and_a_failed_one_does_not(tmp_path, monkeypatch):
    keeper = Keeper(tmp_path / "state", seconds=3600, last=float("-inf"))
    assert keeper.due()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            keeper.save(TENSORS, FACTS)
    assert keeper.due()
    keeper.save(TENSORS, FACTS)
    assert not keeper.due()
    assert Keeper(tmp_path / "state", seconds=0).due()


# --- what is read -----------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state"
    save(path, TENSORS, FACTS)
    whole = path.read_bytes()
    pickled = tmp_path / "pickled"
    torch.save({"model": TENSORS}, pickled)
    foreign = tmp_path / "foreign"
    save_file({"weight": torch.zeros(3)}, foreign)
    half_json = tmp_path / "half"
    save_file({"weight": torch.zeros(3)}, half_json, metadata={"state": '{"epoch": '})
    no_object = tmp_path / "none"
    save_file({"weight": torch.zeros(3)}, no_object, metadata={"state": "[1]"})
    files = {
        **{f"cut at {n}": whole[:n] for n in (0, 7, 100, len(whole) - 1)},
        "garbage": b"\x80garbage" * 100,
        "a bomb": pickle.dumps(Bomb()),
        **{file.name: file.read_bytes() for file in (pickled, foreign, half_json, no_object)},
    }
    for name, content in files.items():
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load(path)
        message = str(error.value)
        assert message.startswith(f"{path} is damaged ("), name
        assert message.endswith("; delete its folder to redo the run"), name
        assert "\n" not in message, name
    assert not (tmp_path / "exploded").exists()


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    for place, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(place, name, full)
    keeper = Keeper(tmp_path / "state", 0.0)
    records = train(network(), recipe(epochs=2), keeper=keeper)
    assert train(network(1), recipe(epochs=2), keeper=keeper) != []
    assert keeper.replayed == len(records) - 1  # the last epoch ends the training, unsaved


def test_without_a_file_there_is_nothing_to_go_on_from(tmp_path):
    assert Keeper(tmp_path / "state").load() is None


# --- what may be saved ------------------------------------------------------------------------


def saves(monkeypatch):
    """The facts of each checkpoint, from now on."""
    facts = []
    original = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: (facts.append(a[2]), original(*a)))
    return facts


def test_weights_that_are_no_numbers_never_replace_good_ones(tmp_path, monkeypatch):
    path, written, steps = tmp_path / "state", saves(monkeypatch), []

    class Breaks(nn.Module):
        """Passes on what it gets; in the fourth training step, what is no number."""

        def forward(self, x):
            steps.append(self.training)
            return x * float("nan") if steps.count(True) == 4 else x

    model = nn.Sequential(network(), Breaks())
    with pytest.raises(DivergedError, match=r"^the loss is not finite at step 4 \(epoch 2\) at lr"):
        train(model, recipe(), keeper=Keeper(path, 0.0))
    # One after every step, and the last before the broken one.
    assert [(facts["epoch"], facts["step"]) for facts in written] == [(1, 1), (1, 2), (2, 0)]
    tensors, facts = load(path)
    assert facts["epoch"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


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
        train(model, recipe(), keeper=Keeper(tmp_path / "state", 0.0))
    assert written == []


def test_whoever_asks_to_stop_a_broken_training_hears_that_it_is(tmp_path):
    model = network()
    nn.init.constant_(model.fc.weight, float("nan"))
    with pytest.raises(DivergedError):
        train(model, recipe(), keeper=Keeper(tmp_path / "state", 1e9, lambda: True))
    assert not (tmp_path / "state").exists()


def test_stopping_saves_although_it_is_not_time(tmp_path):
    model = network()
    with pytest.raises(StoppedError):
        train(model, recipe(), keeper=Keeper(tmp_path / "state", 1e9, lambda: True))
    tensors, facts = load(tmp_path / "state")
    assert (facts["epoch"], facts["step"]) == (1, 1)
    assert same(checkpoint.under("model", tensors), weights(model))
