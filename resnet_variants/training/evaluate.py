"""Evaluation of a model on a split."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.data.splits import Batch, Split
from resnet_variants.training.augment import Normalise
from resnet_variants.training.device import double

EVAL_BATCH = 512


@dataclass(frozen=True)
class Score:
    """What a model scores on a split; every image counts once."""

    loss: float  # mean cross entropy
    acc: float
    n: int
    logits: Tensor | None = None  # (n, classes) in the split's order, if they were asked for


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    normalise: Normalise,
    *,
    fabric: Fabric | None = None,
    keep: bool = False,
) -> Score:
    """Loss and accuracy over a split in evaluation mode; with ``keep``, the logits as well.

    The processes of a ``fabric`` share the images, and each gets the score of all images.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    device = split.labels.device
    own = torch.arange(len(split), device=device)[rank::world]
    plan = [Batch(positions) for positions in own.split(EVAL_BATCH)]
    sums = double(torch.zeros(2, device=device))
    kept: list[Tensor] = []
    model.eval()
    with closing(split.batches(plan)) as batches:  # an error must not leave workers behind
        for batch, images in zip(plan, batches, strict=True):
            labels = split.labels[batch.order]
            logits: Tensor = model(normalise(images)).float()
            hits = (logits.argmax(1) == labels).sum()
            loss = cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([double(loss), double(hits)])
            kept += [logits] * keep
    if fabric is not None:
        sums = fabric.all_reduce(sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
    n = len(split)
    loss, hits = sums.tolist()
    return Score(loss / n, hits / n, n, _gathered(torch.cat(kept), n, world) if keep else None)


def _gathered(own: Tensor, n: int, world: int) -> Tensor:
    """All ``n`` rows in order, on the CPU; each of ``world`` processes has every world-th row."""
    if world > 1:
        most = -(-n // world)  # rows of the first process; the others may have one row less
        own = torch.cat([own, own.new_zeros(most - len(own), own.shape[1])])
        every = [torch.empty_like(own) for _ in range(world)]
        torch.distributed.all_gather(every, own)
        own = torch.stack(every, dim=1).flatten(0, 1)[:n]
    return own.cpu()
