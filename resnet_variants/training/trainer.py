"""One training at a certain step: what takes the next one, and what a checkpoint holds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3, distribute_bn
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resnet_variants.data.dataset import Dataset
from resnet_variants.training import checkpoint
from resnet_variants.training.augment import Mixing, Normalise, scaled
from resnet_variants.training.batches import Share, generator, train_batches
from resnet_variants.training.device import double, synced
from resnet_variants.training.optim import make_loss, make_optimizer, make_schedule
from resnet_variants.training.recipe import Recipe


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""


class Training:
    """A model, its optimizer and averages, and how far they have come.

    Attributes:
        epoch: the one at hand, from 1.
        step: steps taken in it.
        records: what the finished epochs measured.
        seconds: spent in the epoch at hand before this process took it up.
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
        compiled: bool = False,
    ) -> None:
        self.recipe, self.seed, self.fabric = recipe, seed, fabric
        self.device = fabric.device
        # Pictures that are altered one by one are so on the host.
        train = (
            data.train.beside(self.device) if recipe.auto_augment else data.train.to(self.device)
        )
        self.data = replace(data, train=train, val=data.val.to(self.device))
        self.steps = len(data.train) // recipe.batch_size  # of an epoch
        self.share = Share(fabric.global_rank, fabric.world_size)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1:
            # Dropout differs between processes.
            torch.manual_seed(generator("rank", seed, fabric.global_rank).initial_seed())
            model = synced(model, self.device) if recipe.sync_bn else model
        optimizer = make_optimizer(model, recipe)
        net = torch.compile(model) if compiled else model
        self.net, self.optimizer = fabric.setup(cast(nn.Module, net), optimizer)
        self.model = model  # evaluated as it is: other modes and sizes would be compiled anew
        self.schedule = make_schedule(optimizer, recipe, recipe.epochs * self.steps)
        self.loss = make_loss(recipe)
        self.mixing = Mixing.of(recipe, len(data.classes))
        self.normalise = Normalise.of(data, self.device)
        # The warm-up lets a run that is shorter than the average's memory have one at all.
        self.ema = ModelEmaV3(self.model, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.epoch, self.step, self.seconds = 1, 0, 0.0
        self.records: list[dict[str, Any]] = []
        self.best: tuple[int, float] = (0, -math.inf)
        self.best_weights: checkpoint.Tensors = {}
        self._restart_sums()

    def _restart_sums(self) -> None:
        # Kept on the device: asking for a number would wait for it.
        self.sums = double(torch.zeros(3, device=self.device))  # loss, hits, norm
        self.trouble = double(torch.zeros(3, device=self.device))  # see `_watch`

    @property
    def tested(self) -> nn.Module:
        """The model whose accuracy counts: the averaged one where there is an average."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """The rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    # --- moving on ----------------------------------------------------------------------------

    def rest_of_epoch(self) -> Iterator[None]:
        """Take the steps that are left of the epoch at hand, one at a time."""
        self.net.train()
        portions = train_batches(
            self.data,
            self.recipe,
            seed=self.seed,
            epoch=self.epoch,
            start=self.step,
            share=self.share,
        )
        with contextlib.closing(portions):  # an error must not leave workers behind
            while self.step < self.steps:
                self.take(portions)
                self.step += 1
                yield

    def take(self, portions: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One step of the optimizer, without waiting for the device."""
        number = (self.epoch - 1) * self.steps + self.step + 1
        parts = self.recipe.accumulate
        self.schedule(number)
        losses = hits = torch.zeros((), device=self.device)
        for part in range(parts):
            wait = self.fabric.world_size > 1 and part < parts - 1
            with self.fabric.no_backward_sync(self.net) if wait else contextlib.nullcontext():
                loss, right = self._part(*next(portions), key=number * parts + part)
            losses, hits = losses + loss / parts, hits + right
        norm = self._update(number)
        losses, hits, norm = double(losses), double(hits), double(norm)
        self.sums += torch.stack([losses, hits, norm])
        self._watch(losses, norm, number)

    def _watch(self, loss: Tensor, norm: Tensor, number: int) -> None:
        """Note the first step in trouble, whether its loss is, and the last finite norm."""
        step, in_loss, last = self.trouble.unbind()
        # A gradient that is not finite has spoilt the weights, whatever the loss was.
        first = (step == 0) & ~(loss.isfinite() & norm.isfinite())
        self.trouble = torch.stack(
            [
                torch.where(first, number, step),
                torch.where(first, ~loss.isfinite(), in_loss),
                torch.where(norm.isfinite(), norm, last),
            ]
        )

    def _part(self, images: Tensor, labels: Tensor, *, key: int) -> tuple[Tensor, Tensor]:
        inputs, target = scaled(self.normalise(images), self._size()), labels
        if self.mixing:
            inputs, target = self.mixing(inputs, labels, (self.seed * 1_000_003 + key) % 2**32)
        logits = self.net(inputs).float()
        loss = self.loss(logits, target)
        self.fabric.backward(loss / self.recipe.accumulate)
        with torch.no_grad():
            hard = target if target.ndim == 1 else target.argmax(1)
            return loss.detach(), (logits.argmax(1) == hard).sum()

    def _size(self) -> float:
        recipe = self.recipe
        done = (self.epoch - 1) / max(1, recipe.epochs - 1)
        return recipe.size_start + (recipe.size_end - recipe.size_start) * done

    def _update(self, number: int) -> Tensor:
        """Step the optimizer; the norm of the whole gradient."""
        parameters = [p for p in self.net.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.clip_grad:
            clip_grads_with_norm_(parameters, self.recipe.clip_grad, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return norm

    # --- looking ------------------------------------------------------------------------------

    def measured(self) -> tuple[float, float, float]:
        """Mean loss, accuracy and gradient norm of the epoch so far; waits for the device.

        Raises:
            DivergedError: a loss or a gradient was not finite.
        """
        trouble = self.fabric.all_reduce(self.trouble.clone(), reduce_op="max")
        assert isinstance(trouble, Tensor)
        if trouble[0]:
            number = int(trouble[0])
            self.schedule(number)
            epoch = 1 + (number - 1) // self.steps
            what = "loss" if trouble[1] else "gradient"
            where = f"at step {number} (epoch {epoch}) at lr {self.lr:.3g}"
            norm = f"last finite gradient norm {trouble[2].item():.3g}"
            raise DivergedError(f"the {what} is not finite {where}; {norm}")
        total = self.fabric.all_reduce(self.sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        loss, hits, norm = (total / self.step).tolist()
        world = self.fabric.world_size
        return loss / world, hits / self.recipe.batch_size, norm / world

    def share_statistics(self) -> None:
        """Average the running statistics over all devices, where each has its own."""
        if self.fabric.world_size > 1 and not self.recipe.sync_bn:
            distribute_bn(self.model, self.fabric.world_size, reduce=True)
            if self.ema is not None:
                distribute_bn(self.ema.module, self.fabric.world_size, reduce=True)

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Note what an epoch measured, and go on to the next."""
        self.records.append(record)
        if record["val_acc"] > self.best[1]:
            self.best = self.epoch, record["val_acc"]
            if self.recipe.select == "best":
                state = self.tested.state_dict()
                self.best_weights = {name: tensor.clone() for name, tensor in state.items()}
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self._restart_sums()

    def settle(self) -> None:
        """Give the model the weights that are to be tested and kept."""
        weights = self.best_weights or self.tested.state_dict()
        self.model.load_state_dict(weights)

    # --- keeping ------------------------------------------------------------------------------

    def state(self, seconds: float) -> tuple[checkpoint.Tensors, checkpoint.Facts]:
        """Everything that the next step depends on; ``seconds`` spent in this epoch."""
        moments, numbers = checkpoint.optimizer_state(self.optimizer)
        streams, others = checkpoint.random_state(self.device)
        parts = {
            "model": self.model.state_dict(),
            "optimizer": moments,
            "random": self._everyones(streams),
            "best": self.best_weights,
            "ema": {} if self.ema is None else self.ema.module.state_dict(),
            "sums": self._everyones({"sums": self.sums, "trouble": self.trouble}),
            "own": self._everyones(self._own_statistics()),
        }
        tensors: checkpoint.Tensors = {}
        for prefix, part in parts.items():
            tensors |= checkpoint.prefixed(prefix, part)
        return tensors, {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": seconds,
            "records": self.records,
            "best": self.best,
            "optimizer": numbers,
            "random": others,
        }

    def _own_statistics(self) -> checkpoint.Tensors:
        """Running statistics, where every process has its own."""
        if self.share.world == 1 or self.recipe.sync_bn:
            return {}
        models = {"model": self.model} | ({"ema": self.ema.module} if self.ema else {})
        return {f"{at}.{n}": b for at, model in models.items() for n, b in model.named_buffers()}

    def _everyones(self, own: checkpoint.Tensors) -> checkpoint.Tensors:
        """What each process has of its own, (processes, ...)."""
        return {name: self._everyone(tensor) for name, tensor in own.items()}

    def _everyone(self, own: Tensor) -> Tensor:
        if self.share.world == 1:
            return own[None]
        own = own.to(self.device)
        every = [torch.empty_like(own) for _ in range(self.share.world)]
        torch.distributed.all_gather(every, own)  # Fabric's is built on one that is deprecated
        return torch.stack(every)

    def restore(self, tensors: checkpoint.Tensors, facts: checkpoint.Facts) -> None:
        """Go on from a state."""
        part = {name: checkpoint.under(name, tensors) for name in _PARTS}
        self.model.load_state_dict(part["model"])
        checkpoint.restore_optimizer(self.optimizer, part["optimizer"], facts["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(part["ema"])
        self.best_weights = {n: tensor.to(self.device) for n, tensor in part["best"].items()}
        own = {n: every[self.share.rank] for n, every in part["sums"].items()}
        self.sums, self.trouble = (own[n].to(self.sums.device) for n in ("sums", "trouble"))
        self.epoch, self.step, self.seconds = facts["epoch"], facts["step"], facts["seconds"]
        self.records, self.best = facts["records"], tuple(facts["best"])
        for name, buffer in self._own_statistics().items():
            buffer.copy_(part["own"][name][self.share.rank])
        streams = {n: every[self.share.rank] for n, every in part["random"].items()}
        checkpoint.restore_random(streams, facts["random"], self.device)


_PARTS = ("model", "optimizer", "random", "best", "ema", "sums", "own")
