"""Training as a generator of epoch records over Lightning Fabric: device, precision, one loop."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from lightning_fabric import Fabric
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.registry import UserError, refuse
from resnet_variants.training.data import Dataset, Normalise, Split, train_batches
from resnet_variants.training.recipe import Recipe

DEVICES = ("auto", "cpu", "cuda")
EVAL_BATCH = 512


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch measured."""

    epoch: int  # from 1
    lr: float  # at its last step
    train_loss: float  # mean over its steps
    val_loss: float
    val_acc: float
    seconds: float  # training and validation
    images_per_second: float  # training alone


@dataclass(frozen=True)
class Score:
    """A model on a split: every image once."""

    loss: float
    acc: float
    n: int


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""


def make_fabric(device: str, precision: str) -> Fabric:
    """One device and its precision; ``auto`` takes the GPU if any, bf16 if it is native there.

    Raises:
        ValueError: an unknown device, or one that this machine lacks.
    """
    if device not in DEVICES:
        refuse("device", device, DEVICES)
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        message = "unknown device 'cuda': torch sees no CUDA GPU here; choices: auto, cpu"
        raise UserError(message, field="device")
    # Fabric announces its precision each time; run.json and the settings say it once.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = "cuda" if cuda and device != "cpu" else "cpu"
    return Fabric(accelerator=kind, devices=1, precision=_PRECISION[resolve(precision, kind)])


_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}


def resolve(precision: str, device: str) -> str:
    """``auto`` as ``bf16`` or ``fp32``: emulated bf16 is slower than fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu.get_capabilities()
    return "bf16" if native.get("avx512_bf16") or native.get("amx_bf16") else "fp32"


@contextlib.contextmanager
def determinism(enabled: bool) -> Iterator[None]:  # noqa: FBT001
    """Deterministic kernels inside the block, where they were asked for."""
    before = torch.are_deterministic_algorithms_enabled()
    if enabled:
        # cuBLAS reads it when CUDA starts; without it torch refuses matrix products on the GPU.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def fit(
    model: nn.Module, data: Dataset, recipe: Recipe, *, seed: int, fabric: Fabric
) -> Iterator[EpochRecord]:
    """Train ``model`` in place, one record per epoch; the test split is not touched.

    ``model`` maps (N, C, H, W) to (N, classes); ``seed`` decides order and augmentation.

    Raises:
        ValueError: fewer training images than one batch.
        DivergedError: the loss of an epoch is not finite.
    """
    check_batch(data, recipe)
    steps = len(data.train) // recipe.batch_size
    data = data.to(fabric.device)
    normalise = Normalise.of(data, fabric.device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, schedule = _optimizer(model, recipe, recipe.epochs * steps)
    net, optimizer = fabric.setup(model, optimizer)
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        total = torch.zeros((), device=fabric.device)
        batches = train_batches(data, recipe, seed=seed, epoch=epoch)
        net.train()
        for step, (images, labels) in enumerate(batches, start=1 + (epoch - 1) * steps):
            # The rate at the middle of the step: neither the first nor the last step is idle.
            schedule.step_update(step - 0.5)  # type: ignore[arg-type]
            loss = cross_entropy(net(normalise(images)), labels)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            total += loss.detach()
        train_loss = total.item() / steps  # the epoch's one wait for the device
        trained, lr = time.perf_counter() - start, optimizer.param_groups[0]["lr"]
        if not math.isfinite(train_loss):
            raise DivergedError(f"train_loss is {train_loss} in epoch {epoch} at lr {lr:.3g}")
        score = evaluate(net, data.val, normalise)
        seconds, rate = time.perf_counter() - start, steps * recipe.batch_size / trained
        yield EpochRecord(epoch, lr, train_loss, score.loss, score.acc, seconds, rate)


def _optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, CosineLRScheduler]:
    optimizer = create_optimizer_v2(
        model,
        "sgd" if recipe.momentum else "momentum",  # timm's names: with Nesterov and without
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    warmup = min(round(recipe.warmup * steps), steps - 1)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=steps - warmup,
        warmup_t=warmup,
        warmup_prefix=True,  # the cosine starts where the warm-up ends
        t_in_epochs=False,
    )
    return optimizer, schedule


def check_batch(data: Dataset, recipe: Recipe) -> None:
    """Refuse a batch larger than the training data."""
    if recipe.batch_size > len(data.train):
        message = f"batch_size {recipe.batch_size} exceeds the {len(data.train)} training images"
        raise UserError(message, field="batch_size")


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, normalise: Normalise) -> Score:
    """Loss and accuracy over every image of a split, in evaluation mode."""
    model.eval()
    loss = torch.zeros((), device=split.labels.device, dtype=torch.float64)
    hits = torch.zeros((), device=split.labels.device, dtype=torch.int64)
    for i in range(0, len(split), EVAL_BATCH):
        labels = split.labels[i : i + EVAL_BATCH]
        logits: Tensor = model(normalise(split.images[i : i + EVAL_BATCH])).float()
        loss += cross_entropy(logits, labels, reduction="sum")
        hits += (logits.argmax(1) == labels).sum()
    n = len(split)
    return Score(loss=loss.item() / n, acc=hits.item() / n, n=n)
