"""Training as a generator of epoch records, and evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import Batch, Split
from resnet_variants.registry import UserError
from resnet_variants.training.augment import Normalise
from resnet_variants.training.checkpoint import Keeper
from resnet_variants.training.device import double
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import Training

EVAL_BATCH = 512
LOOK = 50  # steps from one look at the losses to the next: a look waits for the device


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch measured."""

    epoch: int  # from 1
    lr: float  # at its last step
    train_loss: float  # mean over its steps
    val_loss: float  # cross entropy
    val_acc: float
    seconds: float  # training and validation
    images_per_second: float  # training alone
    train_acc: float  # of the augmented images, while the weights changed
    grad_norm: float  # mean over its steps, before clipping


@dataclass(frozen=True)
class Score:
    """A model on a split: every image once."""

    loss: float
    acc: float
    n: int
    logits: Tensor | None = None  # (n, classes) in the split's order, where they were kept


class StoppedError(Exception):
    """Somebody asked to stop; the state is saved."""


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    fabric: Fabric,
    keeper: Keeper | None = None,
    compiled: bool = False,
) -> Iterator[EpochRecord]:
    """Train ``model`` in place, one record per epoch; the test split is not touched.

    ``model`` maps (N, C, H, W) to (N, classes); ``seed`` decides order and augmentation. With a
    ``keeper`` the state is saved now and then, and taken up where it was left; the records of
    epochs that were finished before are given again.

    Raises:
        ValueError: fewer training images than one batch, or a damaged checkpoint.
        DivergedError: a loss is not finite.
        StoppedError: the keeper says to stop.
    """
    check_batch(data, recipe, fabric.world_size)
    training = Training(model, data, recipe, seed=seed, fabric=fabric, compiled=compiled)
    kept = keeper.load() if keeper else None
    if keeper and kept:
        training.restore(*kept)
        keeper.replayed = len(training.records)
        keeper.stands_after = 0 if training.step else training.epoch - 1
    for record in training.records:
        yield EpochRecord(**record)
    while training.epoch <= recipe.epochs:
        record, logits = _epoch(training, keeper)
        training.finish_epoch(asdict(record))
        if keeper and (recipe.select == "last" or training.best[0] == record.epoch):
            keeper.val_logits = logits
        if keeper and training.epoch <= recipe.epochs:
            _keep(training, keeper, 0.0)
        yield record
    training.settle()


def _epoch(training: Training, keeper: Keeper | None) -> tuple[EpochRecord, Tensor | None]:
    """Train and validate; the validation's logits too, where these weights may be tested."""
    recipe = training.recipe
    start = time.perf_counter() - training.seconds
    before = training.step
    began = time.perf_counter()
    for _ in training.rest_of_epoch():
        if training.step < training.steps:
            _look(training, keeper, time.perf_counter() - start)
    loss, acc, norm = training.measured()
    trained = time.perf_counter() - began
    training.share_statistics()
    with training.fabric.autocast():
        score = evaluate(
            training.tested,
            training.data.val,
            training.normalise,
            fabric=training.fabric,
            keep=recipe.select == "best" or training.epoch == recipe.epochs,
        )
    record = EpochRecord(
        epoch=training.epoch,
        lr=training.lr,
        train_loss=loss,
        val_loss=score.loss,
        val_acc=score.acc,
        seconds=time.perf_counter() - start,
        images_per_second=(training.steps - before) * recipe.batch_size / trained,
        train_acc=acc,
        grad_norm=norm,
    )
    return record, score.logits


def _look(training: Training, keeper: Keeper | None, seconds: float) -> None:
    """Between two steps: is the loss finite, is it time to save or to stop?"""
    regular = training.step % LOOK == 0
    if regular:
        training.measured()
    # Several processes can only agree by waiting for one another.
    if keeper and (regular or training.fabric.world_size == 1):
        _keep(training, keeper, seconds)


def _keep(training: Training, keeper: Keeper, seconds: float) -> None:
    """Save where it is time to, or where somebody wants to stop.

    Raises:
        StoppedError: somebody does.
    """
    due, stop = keeper.due(), keeper.stop()
    if training.fabric.world_size > 1:
        wishes = torch.tensor([float(due), float(stop)])
        due, stop = training.fabric.all_reduce(wishes, reduce_op="max")
    if not (due or stop):
        return
    if training.step:
        training.measured()  # weights that are no numbers must not replace good ones
    tensors, facts = training.state(seconds)
    keeper.save(tensors, facts, writes=training.fabric.is_global_zero)
    training.fabric.barrier()
    if stop:
        raise StoppedError


def check_batch(data: Dataset, recipe: Recipe, devices: int = 1) -> None:
    """Refuse a batch larger than the training data, or one that devices cannot share."""
    if recipe.batch_size > len(data.train):
        message = f"batch_size {recipe.batch_size} exceeds the {len(data.train)} training images"
        raise UserError(message, field="batch_size")
    parts = devices * recipe.accumulate
    if recipe.batch_size % parts:
        message = f"batch_size {recipe.batch_size} is no multiple of {parts} (devices x accumulate)"
        raise UserError(message, field="batch_size")
    if devices > 1 and not recipe.sync_bn and recipe.batch_size // devices < 2:
        message = (
            f"batch_size {recipe.batch_size} leaves each of {devices} devices 1 image, too few"
        )
        raise UserError(f"{message} for a batch norm of its own", field="batch_size")
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size // parts % 2:
        message = f"batch_size {recipe.batch_size} leaves each of {parts} parts an odd number"
        raise UserError(f"{message} of images, which mixup cannot pair", field="batch_size")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    normalise: Normalise,
    *,
    fabric: Fabric | None = None,
    keep: bool = False,
) -> Score:
    """Loss and accuracy over every image of a split, in evaluation mode; ``keep`` the logits too.

    Several processes of a ``fabric`` share the images, none of which is counted twice.
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
    return Score(loss / n, hits / n, n, _in_order(torch.cat(kept), n, world) if keep else None)


def _in_order(own: Tensor, n: int, world: int) -> Tensor:
    """All ``n`` rows on the host, of which each of ``world`` processes has every world-th."""
    if world > 1:
        size = -(-n // world)  # of the first process: others may have one less, and gather alike
        own = torch.cat([own, own.new_zeros(size - len(own), own.shape[1])])
        every = [torch.empty_like(own) for _ in range(world)]
        torch.distributed.all_gather(every, own)
        own = torch.stack(every, dim=1).flatten(0, 1)[:n]
    return own.cpu()
