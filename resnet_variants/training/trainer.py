"""The training of one model: a generator of epoch records, and the state behind it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3, distribute_bn
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import UserError
from resnet_variants.training import checkpoint
from resnet_variants.training.augment import Mixing, Normalise, scaled
from resnet_variants.training.batches import Share, generator, train_batches
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.device import double, synced
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.gradients import Gradients
from resnet_variants.training.optim import make_loss, make_optimizer, make_schedule
from resnet_variants.training.recipe import Recipe

CHECK_EVERY = 50  # steps between two checks of the losses: a check waits for the device


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

    @property
    def epochs(self) -> float:
        """How many epochs have been trained."""
        return float(self.epoch)


@dataclass(frozen=True)
class StepRecord:
    """What the steps since the record before it in this epoch measured."""

    epoch: int  # from 1
    step: int  # of the epoch, from 1
    steps: int  # that the epoch has
    lr: float  # at this step
    train_loss: float
    train_acc: float  # of the augmented images
    grad_norm: float  # before clipping
    seconds: float  # of training since the epoch began

    @property
    def epochs(self) -> float:
        """How many epochs have been trained."""
        return self.epoch - 1 + self.step / self.steps


@dataclass(frozen=True)
class ReplayedRecord(EpochRecord):
    """An epoch that an earlier process trained."""


Record = EpochRecord | StepRecord


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""


class StoppedError(Exception):
    """The training was asked to stop; its state is saved."""


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    fabric: Fabric,
    checkpointer: Checkpointer | None = None,
    gradients: Gradients | None = None,
) -> Iterator[Record]:
    """Train ``model`` in place, one record per epoch; the test split is not read.

    ``model`` maps (N, C, H, W) to (N, classes); ``seed`` decides order and augmentation. A
    ``checkpointer`` saves the state now and then. If it has a saved state, the training continues
    from there, and its records are yielded again. It may also ask for records of steps. The
    ``gradients`` and the time are those of this training alone if not given.

    Raises:
        ValueError: fewer training images than one batch, or a damaged checkpoint.
        DivergedError: a loss is not finite.
        StoppedError: the checkpointer says to stop.
    """
    check_batch(data, recipe, fabric.world_size)
    trainer = Trainer(model, data, recipe, seed=seed, fabric=fabric, gradients=gradients)
    saved = checkpointer.load() if checkpointer else None
    if checkpointer and saved:
        trainer.restore(saved)
        checkpointer.resumed = trainer.epoch - 1 + trainer.step / trainer.steps
    yield from trainer.records.copy()
    while trainer.epoch <= recipe.epochs:
        record = yield from _train_epoch(trainer, checkpointer)
        trainer.finish_epoch(record)
        if checkpointer and trainer.epoch <= recipe.epochs:
            _save_or_stop(trainer, checkpointer, 0.0)
        yield record
    trainer.take_final_weights()


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


def _train_epoch(
    trainer: Trainer, checkpointer: Checkpointer | None
) -> Generator[StepRecord, None, EpochRecord]:
    """Train for the rest of the epoch and validate."""
    clock = trainer.gradients.clock
    began = clock()
    start = began - trainer.seconds
    first = trainer.step
    every = checkpointer.every_steps if checkpointer else 0
    for _ in trainer.rest_of_epoch():
        regular = trainer.step % CHECK_EVERY == 0
        if every and trainer.step % every == 0:
            yield trainer.note_steps(start)
        if trainer.step == trainer.steps:
            break
        if regular:
            trainer.means()
        # Several processes can only agree by waiting for one another.
        if checkpointer and (regular or trainer.fabric.world_size == 1):
            _save_or_stop(trainer, checkpointer, clock() - start)
    loss, acc, norm = trainer.means()
    trained = clock() - began
    trainer.share_statistics()
    with trainer.fabric.autocast():
        score = evaluate(trainer.tested, trainer.data.val, trainer.normalise, fabric=trainer.fabric)
    return EpochRecord(
        epoch=trainer.epoch,
        lr=trainer.lr,
        train_loss=loss,
        val_loss=score.loss,
        val_acc=score.acc,
        seconds=clock() - start,
        images_per_second=(trainer.steps - first) * trainer.recipe.batch_size / trained,
        train_acc=acc,
        grad_norm=norm,
    )


def _save_or_stop(trainer: Trainer, checkpointer: Checkpointer, seconds: float) -> None:
    """Save if a checkpoint is due or the training is asked to stop.

    Raises:
        StoppedError: it is asked to stop.
    """
    due, stop = checkpointer.is_due(), checkpointer.stop()
    if trainer.fabric.world_size > 1:
        wishes = torch.tensor([float(due), float(stop)])
        due, stop = trainer.fabric.all_reduce(wishes, reduce_op="max")
    if not (due or stop):
        return
    if trainer.step:
        trainer.means()  # weights that are not finite must not replace good ones
    checkpointer.save(trainer.state(seconds), writes=trainer.fabric.is_global_zero)
    trainer.fabric.barrier()
    if stop:
        raise StoppedError


class Trainer:
    """A model, its optimizer and its average, and the progress of their training.

    Attributes:
        epoch: the current one, from 1.
        step: steps taken in it.
        records: of the finished epochs, and of steps where asked for.
        seconds: spent in the current epoch before this process resumed it.
        best: epoch and accuracy of the best validation so far.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        fabric: Fabric,
        gradients: Gradients | None = None,
    ) -> None:
        self.recipe, self.seed, self.fabric = recipe, seed, fabric
        self.gradients = gradients or Gradients()
        self.device = fabric.device
        # Automatic augmentation alters pictures one by one, on the CPU.
        place = data.train.beside if recipe.auto_augment else data.train.to
        self.data = replace(data, train=place(self.device), val=data.val.to(self.device))
        self.steps = len(data.train) // recipe.batch_size  # of an epoch
        self.share = Share(fabric.global_rank, fabric.world_size)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1:
            # Dropout differs between processes.
            torch.manual_seed(generator("rank", seed, fabric.global_rank).initial_seed())
            model = synced(model, self.device) if recipe.sync_bn else model
        optimizer = make_optimizer(model, recipe)
        self.net, self.optimizer = fabric.setup(self.gradients.network(model), optimizer)
        self.parameters = list(self.net.parameters())  # listing them takes as long as their norm
        self.model = model  # for evaluation: other modes and sizes would be compiled anew
        self.schedule = make_schedule(optimizer, recipe, recipe.epochs * self.steps)
        self.loss = make_loss(recipe)
        self.mixing = Mixing.of(recipe, len(data.classes))
        self.normalise = Normalise.of(data, self.device)
        # Without the warm-up, a run shorter than the average's memory would have none.
        self.ema = ModelEmaV3(self.model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.records: list[Record] = []
        self.best: tuple[int, float] = (0, -math.inf)
        self.best_weights: dict[str, Tensor] = {}
        # Loss, hits and norm of each step of the epoch, on the device: reading them would wait.
        self.history = double(torch.zeros(self.steps, 3, device=self.device))
        self.noted = 0  # step of the last record

    @property
    def tested(self) -> nn.Module:
        """The model whose accuracy counts: the average of the weights if there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """The rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    # --- training -----------------------------------------------------------------------------

    def rest_of_epoch(self) -> Iterator[None]:
        """Take the remaining steps of the current epoch, one at a time."""
        self.net.train()
        batches = train_batches(
            self.data,
            self.recipe,
            seed=self.seed,
            epoch=self.epoch,
            start=self.step,
            share=self.share,
        )
        with contextlib.closing(batches):  # an error must not leave workers behind
            while self.step < self.steps:
                self.take_step(batches)
                self.step += 1
                yield

    def take_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer, without waiting for the device."""
        number = (self.epoch - 1) * self.steps + self.step + 1
        parts = self.recipe.accumulate
        self.schedule(number)
        losses, hits = list[Tensor](), list[Tensor]()
        for part in range(parts):
            wait = self.fabric.world_size > 1 and part < parts - 1
            with self.fabric.no_backward_sync(self.net) if wait else contextlib.nullcontext():
                loss, right = self._backward(*next(batches), key=number * parts + part)
            losses.append(loss)
            hits.append(right)
        norm = self._update(number)
        row = torch.stack([torch.stack(losses).mean(), torch.stack(hits).sum(), norm])
        self.history[self.step].copy_(row)

    def _backward(self, images: Tensor, labels: Tensor, *, key: int) -> tuple[Tensor, Tensor]:
        """Add the gradient of a batch or a part of it; its mean loss, and how many are right."""
        inputs, target = scaled(self.normalise(images), self.recipe.size(self.epoch)), labels
        if self.mixing:
            inputs, target = self.mixing(inputs, labels, (self.seed * 1_000_003 + key) % 2**32)
        return self.gradients.backward(self, inputs, target)

    def _update(self, number: int) -> Tensor:
        """Step the optimizer and the average; the norm of the whole gradient."""
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.recipe.clip_grad:
            clip_grads_with_norm_(self.parameters, self.recipe.clip_grad, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return norm

    # --- measuring ----------------------------------------------------------------------------

    def means(self) -> tuple[float, float, float]:
        """Mean loss, accuracy and gradient norm of the epoch so far; waits for the device.

        Raises:
            DivergedError: a loss or a gradient was not finite.
        """
        rows = self._rows()
        finite = rows[:, [0, 2]].isfinite()
        if not finite.all():
            # A gradient that is not finite has spoilt the weights, whatever the loss was.
            step = int(finite.all(1).int().argmin())
            number = (self.epoch - 1) * self.steps + step + 1
            self.schedule(number)
            what = "gradient" if finite[step, 0] else "loss"
            where = f"at step {number} (epoch {self.epoch}) at lr {self.lr:.3g}"
            norms = rows[: step + 1, 2][finite[: step + 1, 1]].tolist()
            last = f"last finite gradient norm {norms[-1]:.3g}" if norms else "no norm was finite"
            raise DivergedError(f"the {what} is not finite {where}; {last}")
        return self._mean(rows)

    def _rows(self) -> Tensor:
        """Mean loss, hits and mean norm of each step so far, of all processes; on the CPU."""
        total = self.fabric.all_reduce(self.history[: self.step].clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.cpu() / torch.tensor([self.fabric.world_size, 1, self.fabric.world_size])

    def _mean(self, rows: Tensor) -> tuple[float, float, float]:
        loss, hits, norm = rows.mean(0).tolist()
        return loss, hits / self.recipe.batch_size, norm

    def note_steps(self, start: float) -> StepRecord:
        """Keep and return a record of the steps since the last one; waits for the device."""
        loss, acc, norm = self._mean(self._rows()[self.noted :])
        self.noted = self.step
        at, seconds = (self.epoch, self.step, self.steps), self.gradients.clock() - start
        record = StepRecord(*at, self.lr, loss, acc, norm, seconds)
        self.records.append(record)
        return record

    def share_statistics(self) -> None:
        """Average the running statistics over all processes, if each has its own."""
        if self.fabric.world_size > 1 and not self.recipe.sync_bn:
            distribute_bn(self.model, self.fabric.world_size, reduce=True)
            if self.ema is not None:
                distribute_bn(self.ema.module, self.fabric.world_size, reduce=True)

    def finish_epoch(self, record: EpochRecord) -> None:
        """Keep the epoch's record, and its weights if they are the best; begin the next epoch."""
        self.records.append(record)
        if record.val_acc > self.best[1]:
            self.best = self.epoch, record.val_acc
            if self.recipe.select == "best":
                state = self.tested.state_dict()
                self.best_weights = {name: tensor.clone() for name, tensor in state.items()}
        self.epoch, self.step, self.seconds, self.noted = self.epoch + 1, 0, 0.0, 0

    def take_final_weights(self) -> None:
        """Give the model the weights that are tested and kept."""
        self.model.load_state_dict(self.best_weights or self.tested.state_dict())

    # --- saving -------------------------------------------------------------------------------

    def state(self, seconds: float) -> checkpoint.State:
        """Everything that the next step depends on; ``seconds`` were spent in this epoch."""
        own = {
            "random": checkpoint.random_state(self.device),
            "history": self.history[: self.step].cpu(),
            "noted": self.noted,
            "statistics": {name: buffer.cpu() for name, buffer in self._own_statistics().items()},
        }
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": seconds,
            "records": [asdict(record) for record in self.records],
            "best": self.best,
            "best_weights": self.best_weights,
            # Of a view, torch saves the whole tensor: that of all seeds computed as one.
            "model": {name: tensor.clone() for name, tensor in self.model.state_dict().items()},
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "processes": checkpoint.gathered(own, self.share.world),
        }

    def restore(self, state: checkpoint.State) -> None:
        """Continue from a state."""
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.records = [
            StepRecord(**saved) if "step" in saved else EpochRecord(**saved)
            for saved in state["records"]
        ]
        self.best = state["best"]
        self.best_weights = {n: w.to(self.device) for n, w in state["best_weights"].items()}
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        own = state["processes"][self.share.rank]
        self.history[: self.step], self.noted = own["history"], own["noted"]
        for name, buffer in self._own_statistics().items():
            buffer.copy_(own["statistics"][name])
        checkpoint.restore_random(own["random"], self.device)

    def _own_statistics(self) -> dict[str, Tensor]:
        """The running statistics by name, if every process has its own."""
        if self.share.world == 1 or self.recipe.sync_bn:
            return {}
        models = {"model": self.model} | ({"ema": self.ema.module} if self.ema else {})
        return {f"{at}.{n}": b for at, model in models.items() for n, b in model.named_buffers()}
