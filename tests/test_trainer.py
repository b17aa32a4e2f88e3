"""The trainer: its records, what it refuses, that it can be repeated and waits for no device."""

import dataclasses
import math
import mmap

import pytest
import torch
from recipes import OTHERS, changed
from small import CPU, digits, train
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import resnet_variants as rv
from resnet_variants.data.splits import ResidentSplit
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError
from resnet_variants.sweeps.run import Run
from resnet_variants.training.augment import Normalise
from resnet_variants.training.device import (
    Machine,
    determinism,
    make_fabric,
    peak_mb,
    reset_peak,
    resolve,
)
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import DivergedError, EpochRecord, Trainer, fit


def network(seed=0):
    torch.manual_seed(seed)
    return rv.create_model("D", family="cifar", depth=11, preact=True, in_chans=1, num_classes=10)


def test_each_epoch_is_a_record_and_the_loss_falls():
    records = train(network(), Recipe(epochs=4))
    assert [r.epoch for r in records] == [1, 2, 3, 4]
    assert records[-1].train_loss < records[0].train_loss
    assert all(isinstance(r, EpochRecord) and r.images_per_second > 0 for r in records)
    assert all(0 <= r.val_acc <= 1 for r in records)
    assert records[-1].train_acc > records[0].train_acc
    assert all(r.grad_norm > 0 for r in records)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    # Three steps an epoch, 18 in all: 9 of warm-up, 9 of cosine; a rate is that of mid-step.
    rates = [r.lr for r in train(network(), Recipe(epochs=6, lr=0.2, warmup=0.5))]
    rise = [0.2 * step / 9 for step in (2.5, 5.5, 8.5)]
    fall = [0.1 * (1 + math.cos(math.pi * step / 9)) for step in (2.5, 5.5, 8.5)]
    assert rates == pytest.approx([*rise, *fall])


def test_a_single_step_trains():
    model, before = network(), network()
    train(model, Recipe(epochs=1, batch_size=96, warmup=0.99))
    assert not torch.equal(model.fc.weight, before.fc.weight)


# Over instruction sets and thread counts, post differed by 0.3 %, preact by 0.003 %.
@pytest.mark.parametrize(("order", "rel"), [("post", 0.01), ("preact", 0.001)])
def test_golden_loss_trace(order, rel, golden):
    """A refactoring leaves these as they are."""
    torch.manual_seed(0)
    variant = Variant(family="cifar", depth=11, stem="deep", shortcut="avgpool", order=order)
    model = build(variant, in_chans=1, num_classes=10)
    recipe = Recipe(epochs=3, lr=0.01, precision="fp32", deterministic=True)
    rows = [
        {"epoch": r.epoch, "lr": f"{r.lr:.6f}", "train_loss": f"{r.train_loss:.4f}"}
        for r in train(model, recipe)
    ]
    golden(f"loss_trace_{order}", rows, rel=rel)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(precision):
    recipe = Recipe(epochs=2, deterministic=True, precision=precision)
    runs = []
    for _ in range(2):
        model = network()
        records = train(model, recipe)
        runs.append((model.state_dict(), [(r.train_loss, r.val_acc) for r in records]))
    (one, losses), (other, again) = runs
    assert losses == again
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_seed_gives_other_weights():
    recipe = Recipe(epochs=1, deterministic=True)
    one, other = network(), network()
    train(one, recipe)
    train(other, recipe, seed=1)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def trained(recipe):
    """The weights that a run with this recipe keeps, trained on a few digits."""
    # As if a mirror image kept its label, and with all epochs equally good: the first is the best.
    data = dataclasses.replace(digits(), mirror=True)
    ignored = torch.full_like(data.val.labels, -100)  # by the cross entropy, and never predicted
    variant = Variant(family="cifar", depth=8, order="preact")
    run = Run(variant, "digits", recipe, seed=0)
    model, data = run.build(data), run.prepared(data)
    val = dataclasses.replace(data.val, labels=ignored)
    train(model, recipe, data=dataclasses.replace(data, val=val))
    return model.state_dict()


# What concerns several devices, kernels, other runs' weights and test images shows elsewhere.
ELSEWHERE = {"sync_bn", "deterministic", "weights", "crop_pct"}


@pytest.mark.parametrize("field", sorted(OTHERS.keys() - ELSEWHERE))
def test_no_recipe_field_is_a_dead_knob(field):
    base = Recipe(epochs=2, precision="fp32", deterministic=True)
    one, other = map(trained, changed(base, field))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_training_depends_on_nothing_but_what_was_given():
    recipe = Recipe(epochs=2, precision="fp32", deterministic=True)
    one, other = trained(recipe), trained(recipe)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_deterministic_is_no_dead_knob():
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_weight_decay_spares_norms_and_biases():
    # With no gradient to speak of, only what decays moves.
    model, before = network(), network().state_dict()
    data = digits()
    black = ResidentSplit(torch.zeros_like(data.train.images), data.train.labels)
    recipe = Recipe(epochs=1, lr=1e-3, weight_decay=300.0, momentum=0.0, warmup=0.0)
    train(model, recipe, data=dataclasses.replace(data, train=black))
    for name, p in model.named_parameters():
        shrank = p.norm() < 0.9 * before[name].norm()
        assert bool(shrank) == (p.ndim > 1), name


def test_a_loss_that_is_not_finite_ends_the_run():
    model = network()
    nn.init.constant_(model.fc.weight, float("nan"))
    message = r"^the loss is not finite at step 1 \(epoch 1\) at lr 0\.0"
    with pytest.raises(DivergedError, match=message):
        train(model, Recipe(epochs=1))


def test_a_batch_beyond_the_training_images_is_refused():
    with pytest.raises(UserError, match="batch_size 128 exceeds the 96 training images"):
        train(network(), Recipe(batch_size=128))


@pytest.mark.parametrize("n", [1, 40, 513])
def test_evaluation_counts_every_image_once(n):
    class Echo(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    images = torch.randint(0, 256, (n, 1, 2, 2), dtype=torch.uint8)
    labels = (images[:, 0, 0, 1] > images[:, 0, 0, 0]).long()
    labels[0] = 1 - labels[0]
    images[0, 0, 0] = torch.tensor([9, 9 + 1 - 2 * int(labels[0])])
    normalise = Normalise(scale=torch.tensor(4 / 255), shift=torch.tensor(-2.0))
    model = Echo().train()
    score = evaluate(model, ResidentSplit(images, labels), normalise)
    ties = (images[:, 0, 0, 0] == images[:, 0, 0, 1]) & (labels == 1)
    assert score.n == n
    assert score.acc == pytest.approx((n - 1 - int(ties.sum())) / n)
    assert not model.training


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("cuda", "unknown device 'cuda': torch sees no CUDA GPU here; choices: auto, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        make_fabric(Machine(device=device), "auto")


def test_auto_precision_is_bf16_only_where_it_is_native(monkeypatch):
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda n=native: {"avx512_bf16": n})
        assert resolve("auto", "cpu") == ("bf16" if native else "fp32")
    assert resolve("fp32", "cpu") == "fp32"


def test_bf16_keeps_fp32_weights():
    model = network()
    train(model, Recipe(epochs=1, precision="bf16"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_peak_memory_follows_the_work():
    device = torch.device("cpu")
    assert reset_peak(device)
    before = peak_mb(device)
    # Pages of its own: the allocator would give back what earlier work has touched.
    with mmap.mmap(-1, 64 * 1024**2) as pages:
        pages.write(b"1" * len(pages))
    assert 60 < peak_mb(device) - before < 200
    assert reset_peak(device)
    assert peak_mb(device) < before + 60


def test_peak_memory_is_missing_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr("resnet_variants.training.device._PROCESS", tmp_path / "none")
    assert reset_peak(torch.device("cpu")) is False


@pytest.mark.slow
def test_compiled_training_learns_the_same():
    recipe = Recipe(epochs=1, precision="fp32")
    fabric = make_fabric(CPU, "fp32")
    losses = [
        next(fit(network(), digits(), recipe, seed=0, fabric=fabric, compiled=compiled)).train_loss
        for compiled in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# --- waiting for the device -------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Counts what makes the CPU wait for the device: reading a number of a tensor."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "_assert_async")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.KINDS:
            self.found.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def trainer(**settings):
    recipe = Recipe(batch_size=16, precision="bf16", **settings)
    fabric = make_fabric(CPU, "bf16")
    return Trainer(
        network(), dataclasses.replace(digits(), mirror=True), recipe, seed=0, fabric=fabric
    )


EVERYTHING = {
    "plain": {},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
    "cut": {"crop_area": 0.3, "color_jitter": 0.4, "cutout": 0.5, "size_start": 0.5},
    "averaged": {"ema": 0.9, "clip_grad": 1.0, "accumulate": 2, "flip": "alternating"},
    "one cycle": {"schedule": "onecycle"},
    # AdamW and LAMB are left out: they read their step counters, which are on the CPU.
    "binary": {"loss": "binary", "decay": "all", "schedule": "step", "optimizer": "sgd"},
}


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_no_step_waits_for_the_device(settings):
    one = trainer(**settings)
    steps = one.rest_of_epoch()
    next(steps)  # optimizers set themselves up in their first step
    with Waits() as waits:
        for _ in range(3):
            next(steps)
    assert waits.found == []


def test_a_wait_would_be_seen():
    with Waits() as waits:
        torch.ones(3).sum().item()
    assert waits.found == ["_local_scalar_dense"]
