"""How large a batch fits into memory, found after one did not."""

from __future__ import annotations

import gc
import traceback
from dataclasses import replace

import torch

from resnet_variants.sweeps.runs import Run
from resnet_variants.training.data import Dataset
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.loop import fit


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says so: torch has a type of its own for GPUs only."""
    words = ("DefaultCPUAllocator", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def largest_batch(run: Run, data: Dataset, machine: Machine) -> int:
    """Of the batch's half, quarter and so on, the first whose step fits; 0 where none does."""
    batch = run.recipe.batch_size // 2
    while batch >= 2:
        if _fits(run, data, replace(machine, devices=1), batch):
            return batch
        batch //= 2
    return 0


def _fits(run: Run, data: Dataset, machine: Machine, batch: int) -> bool:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    recipe = replace(
        run.recipe, epochs=1, batch_size=batch, accumulate=1, lr=1e-6, mixup=0.0, cutmix=0.0
    )
    few = replace(data, train=data.train.head(batch), val=data.val.head(2))
    fabric = make_fabric(machine, recipe.precision)
    try:
        for _ in fit(run.build(data), few, recipe, seed=run.seed, fabric=fabric):
            pass
    except Exception as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
