"""The trainer: its records, what it refuses, that it can be repeated and waits for no device."""

import dataclasses
import mmap

import pytest
import torch
from small import CPU, digits, network, recipe, same, train, weights
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_variants.data.splits import ResidentSplit
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError
from resnet_variants.training.augment import Normalise
from resnet_variants.training.device import make_fabric, peak_mb, reset_peak, resolve
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.gradients import Gradients
from resnet_variants.training.trainer import (
    EpochRecord,
    Trainer,
    check_batch,
    fit,
)


def test_each_epoch_is_a_record_and_the_loss_falls():
    records = train(network(), recipe(epochs=4))
    assert [r.epoch for r in records] == [1, 2, 3, 4]
    assert records[-1].train_loss < records[0].train_loss
    assert all(isinstance(r, EpochRecord) and r.images_per_second > 0 for r in records)
    assert all(0 <= r.val_acc <= 1 for r in records)
    assert records[-1].train_acc > records[0].train_acc
    assert all(r.grad_norm > 0 for r in records)


# Over instruction sets and thread counts, post differed by 0.3 %, preact by 0.003 %.
@pytest.mark.parametrize(("order", "rel"), [("post", 0.01), ("preact", 0.001)])
def test_golden_loss_trace(order, rel, golden):
    """A refactoring leaves these as they are."""
    torch.manual_seed(0)
    variant = Variant(family="cifar", depth=11, stem="deep", shortcut="avgpool", order=order)
    model = build(variant, in_chans=1, num_classes=10)
    rows = [
        {"epoch": r.epoch, "lr": f"{r.lr:.6f}", "train_loss": f"{r.train_loss:.4f}"}
        for r in train(model, recipe(lr=0.01))
    ]
    golden(f"loss_trace_{order}", rows, rel=rel)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(precision):
    runs = []
    for seed in (0, 0, 1):
        model = network()
        records = train(model, recipe(epochs=2, precision=precision), seed=seed)
        runs.append((weights(model), [(r.train_loss, r.val_acc) for r in records]))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    (one, losses), (again, the_same), (other, _) = runs
    assert losses == the_same
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("fields", "devices", "message"),
    [
        ({"batch_size": 128}, 1, "batch_size 128 exceeds the 96 training images"),
        ({"batch_size": 33}, 2, r"batch_size 33 is no multiple of 2 \(devices x"),
        ({"batch_size": 6, "mixup": 0.1}, 2, "leaves each of 2 parts an odd number"),
        (
            {"batch_size": 2, "sync_bn": False},
            2,
            "leaves each of 2 devices 1 image, too few for a batch norm",
        ),
    ],
)
def test_a_batch_that_cannot_be_trained_on_is_refused(fields, devices, message):
    with pytest.raises(UserError, match=message):
        check_batch(digits(), recipe(**fields), devices)


def test_a_batch_of_one_image_for_each_device_may_share_its_statistics():
    check_batch(digits(), recipe(batch_size=2), 2)
    check_batch(digits(), recipe(batch_size=2, accumulate=2), 1)


class Echo(nn.Module):
    """Two of an image's pixels as logits."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


@pytest.mark.parametrize("n", [1, 40, 513])
def test_evaluation_counts_every_image_once(n):
    images = torch.randint(0, 256, (n, 1, 2, 2), dtype=torch.uint8)
    images[:, 0, 0] = images[:, 0, 0] // 2 * 2 + torch.tensor([0, 1], dtype=torch.uint8)  # no ties
    labels = torch.arange(n) % 2
    normalise = Normalise(scale=torch.tensor(4 / 255), shift=torch.tensor(-2.0))
    model = Echo().train()
    score = evaluate(model, ResidentSplit(images, labels), normalise)
    hits = (images[:, 0, 0, 1] > images[:, 0, 0, 0]).long() == labels
    assert (score.n, score.acc) == (n, pytest.approx(hits.double().mean().item()))
    assert not model.training


def test_auto_precision_is_bf16_only_where_it_is_native(monkeypatch):
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda n=native: {"avx512_bf16": n})
        assert resolve("auto", "cpu") == ("bf16" if native else "fp32")
    assert resolve("fp32", "cpu") == "fp32"


def test_peak_memory_follows_the_work(monkeypatch, tmp_path):
    device = torch.device("cpu")
    assert reset_peak(device)
    before = peak_mb(device)
    # Pages of its own: the allocator would give back what earlier work has touched.
    with mmap.mmap(-1, 64 * 1024**2) as pages:
        pages.write(b"1" * len(pages))
    assert 60 < peak_mb(device) - before < 200
    assert reset_peak(device)
    assert peak_mb(device) < before + 60
    monkeypatch.setattr("resnet_variants.training.device._PROCESS", tmp_path / "none")
    assert reset_peak(device) is False  # the system does not tell


@pytest.mark.slow
def test_compiled_training_learns_the_same():
    one, fabric = recipe(epochs=1), make_fabric(CPU, "fp32")
    losses = [
        next(fit(network(), digits(), one, seed=0, fabric=fabric, gradients=how)).train_loss
        for how in (Gradients(), Gradients(compiled=True))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


# --- waiting for the device -------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Notes what makes the CPU wait for the device: reading a number of a tensor."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "_assert_async")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.KINDS:
            self.found.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


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
    one = recipe(batch_size=16, precision="bf16", **settings)
    data = dataclasses.replace(digits(), mirror=True)
    trainer = Trainer(network(), data, one, seed=0, fabric=make_fabric(CPU, "bf16"))
    steps = trainer.rest_of_epoch()
    next(steps)  # optimizers set themselves up in their first step
    with Waits() as waits:
        for _ in range(3):
            next(steps)
        assert waits.found == []
        trainer.means()
    assert waits.found  # a wait is seen
