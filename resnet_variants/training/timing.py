"""How long training takes, measured from a few of its steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import nn

from resnet_variants.data.dataset import Dataset
from resnet_variants.training.device import determinism, synchronise
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import Trainer

_WARM, _TIMED = 3, 6  # steps
_GROWTH = 4  # factor from one measured batch size to the next


def seconds_per_step(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    fabric: Fabric,
    *,
    warm: int,
    timed: int,
) -> float:
    """Mean seconds of ``timed`` training steps, after ``warm`` steps that do not count."""
    # The rate does not change the time, and a tiny one cannot diverge.
    slow = replace(recipe, epochs=warm + timed + 1, lr=1e-6)
    with determinism(recipe.deterministic):
        steps = _steps(Trainer(model, data, slow, seed=0, fabric=fabric))
        for _ in range(warm):
            next(steps)
        synchronise(fabric.device)
        begin = time.perf_counter()
        for _ in range(timed):
            next(steps)
        synchronise(fabric.device)
        end = time.perf_counter()
    del steps
    gc.collect()
    if fabric.device.type == "cuda":
        torch.cuda.empty_cache()
    return (end - begin) / timed


def seconds_per_image(
    model: nn.Module, data: Dataset, recipe: Recipe, fabric: Fabric, *, seconds: float
) -> float:
    """Training time of one image, measured within about ``seconds``.

    The batch grows to the recipe's as long as the time allows: a step of a large network on a CPU
    may take minutes.
    """
    end, batch = time.monotonic() + seconds, 2
    whole, warm, timed = max(batch, recipe.batch_size // recipe.accumulate), 1, 1
    while True:
        part = replace(recipe, batch_size=batch, accumulate=1)
        step = seconds_per_step(model, data, part, fabric, warm=warm, timed=timed)
        last, larger = timed > 1, min(whole, _GROWTH * batch)
        if larger == batch:
            warm, timed = _WARM, _TIMED
        if last or (warm + timed) * step * larger / batch > end - time.monotonic():
            return step / batch
        batch = larger


def _steps(trainer: Trainer) -> Iterator[None]:
    """Training steps without end."""
    while True:
        yield from trainer.rest_of_epoch()
        trainer.step, trainer.epoch = 0, trainer.epoch + 1
