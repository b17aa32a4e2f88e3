"""How large a batch fits into memory, found after one did not."""

from __future__ import annotations

import gc
import traceback
from dataclasses import replace

import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from resnet_variants.data.dataset import Dataset
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.evaluate import EVAL_BATCH, evaluate
from resnet_variants.training.trainer import Trainer


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: torch has a type of its own for GPUs only."""
    words = ("DefaultCPUAllocator", "out of memory", "MemoryError")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError | ProcessRaisedException)
        and any(word in str(error) for word in words)
    )


def advice(run: Run, data: Dataset, machine: Machine) -> str:
    """One line on a run that has run out of memory: with which settings it would not."""
    recipe, devices = run.recipe, machine.devices
    batch, parts = recipe.batch_size, devices * recipe.accumulate
    multiple = 2 if recipe.mixup or recipe.cutmix else 1  # mixup takes pairs
    line = f"out of memory with batch_size {batch}; "
    try:
        fits = largest_part(run, data, machine) // multiple * multiple
    except Exception as error:  # the run has failed already; this only adds to it
        return f"{line}what would fit was not found ({type(error).__name__}: {error})"
    if not fits:
        return f"{line}not even 2 images fit"
    line += f"{fits * parts} fits: --batch-size {fits * parts}"
    sizes = range(fits, 1, -multiple)
    size = next((size for size in sizes if not batch % (devices * size)), 0)
    if not size:
        return line
    return f"{line}, or --accumulate {batch // (devices * size)}, where batch norm sees " + (
        f"{size * (devices if recipe.sync_bn else 1)} images at a time"
    )


def largest_part(run: Run, data: Dataset, machine: Machine) -> int:
    """Of what a device had at a time, the half, quarter and so on, the first whose step fits."""
    size = run.recipe.batch_size // (machine.devices * run.recipe.accumulate) // 2
    while size >= 2:
        if _fits(run, data, replace(machine, devices=1), size):
            return size
        size //= 2
    return 0


def _fits(run: Run, data: Dataset, machine: Machine, batch: int) -> bool:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    recipe = replace(
        run.recipe, epochs=1, batch_size=batch, accumulate=1, lr=1e-6, mixup=0.0, cutmix=0.0
    )
    fabric = make_fabric(machine, recipe.precision)
    try:
        training = Trainer(run.build(data), data, recipe, seed=run.seed, fabric=fabric)
        next(training.rest_of_epoch())
        with fabric.autocast():
            evaluate(training.tested, training.data.val.head(EVAL_BATCH), training.normalise)
    except Exception as error:
        # oneDNN says no more than this where memory is too short for a kernel of its own.
        if not (out_of_memory(error) or "could not create a primitive" in str(error)):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
