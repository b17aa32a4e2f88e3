"""Where the gradient of a step comes from: one seed alone, or several seeds computed as one."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from resnet_variants.registry import UserError

if TYPE_CHECKING:
    from resnet_variants.training.recipe import Recipe
    from resnet_variants.training.trainer import Trainer

Learnt = tuple[Tensor, Tensor]  # mean loss, and how many are right


class Learner:
    """Computes each training by itself, through ``torch.compile`` if ``compiled``."""

    def __init__(self, *, compiled: bool = False) -> None:
        self.compiled = compiled

    def network(self, model: nn.Module) -> nn.Module:
        """The model as it is trained."""
        return cast(nn.Module, torch.compile(model)) if self.compiled else model

    def clock(self) -> float:
        """Seconds, from some point on."""
        return time.perf_counter()

    def learn(self, trainer: Trainer, inputs: Tensor, target: Tensor) -> Learnt:
        """Add the gradient of a batch or a part of it to the trainer's parameters."""
        logits = trainer.net(inputs).float()
        loss = trainer.loss(logits, target)
        trainer.fabric.backward(loss / trainer.recipe.accumulate)
        return loss.detach(), _hits(logits, target)


def _hits(logits: Tensor, target: Tensor) -> Tensor:
    """How many of logits (N, classes) are right; the target is (N,) or (N, classes)."""
    hard = target if target.ndim == 1 else target.argmax(1)
    return (logits.detach().argmax(1) == hard).sum()


# --- several seeds ----------------------------------------------------------------------------


def check_fused(recipe: Recipe) -> None:
    """Refuse a recipe whose networks draw random numbers: each seed would get others than alone.

    Raises:
        ValueError: names the setting.
    """
    for name in ("drop_path_rate", "drop_rate"):
        if getattr(recipe, name):
            message = f"fuse_seeds cannot be with {name} {getattr(recipe, name)}: the seeds of one"
            raise UserError(f"{message} network would share its random numbers", field="fuse_seeds")


@dataclass(eq=False)
class _Step:
    """A part of a batch that a training waits for."""

    trainer: Trainer
    inputs: Tensor
    target: Tensor
    learnt: Learnt | Exception | None = None


class FusedLearner(Learner):
    """Computes the steps of several trainings at once, which differ in their seed.

    Each training runs in a thread, one thread at a time: they take turns where they wait for the
    batches of the others. So global random streams are used as by one training alone.

    Args:
        members: how many trainings there are.
    """

    def __init__(self, members: int) -> None:
        super().__init__()
        self.turn = threading.Condition()
        self.members = members  # that may still learn
        self.waiting: list[_Step] = []
        self.stack: _Stack | None = None
        self.shared, self.looked = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def member(self) -> Iterator[None]:
        """A training, in its thread; the others wait for its batches until the block ends."""
        with self.turn:
            try:
                yield
            finally:
                self.clock()
                self.members -= 1
                self._learn_together()

    def clock(self) -> float:
        """Seconds, each divided by the trainings that shared it: what a run has cost."""
        now = time.perf_counter()
        self.shared += (now - self.looked) / max(1, self.members)
        self.looked = now
        return self.shared

    def learn(self, trainer: Trainer, inputs: Tensor, target: Tensor) -> Learnt:
        """See ``Learner``; waits until all trainings have a batch."""
        step = _Step(trainer, inputs, target)
        self.waiting.append(step)
        self._learn_together()
        self.turn.wait_for(lambda: step.learnt is not None)
        if isinstance(step.learnt, Exception):
            raise step.learnt
        assert step.learnt is not None
        return step.learnt

    def _learn_together(self) -> None:
        """Compute the steps that wait, if all trainings wait."""
        if not self.waiting or len(self.waiting) < self.members:
            return
        steps = sorted(self.waiting, key=lambda step: step.trainer.seed)
        self.waiting = []
        learnt: Sequence[Learnt | Exception]
        try:
            learnt = self._learnt(steps)
        except Exception as error:  # it is that of every training
            learnt = [error] * len(steps)
        for step, own in zip(steps, learnt, strict=True):
            step.learnt = own
        self.turn.notify_all()

    def _learnt(self, steps: Sequence[_Step]) -> Sequence[Learnt]:
        if len({step.inputs.shape for step in steps}) > 1 or len(steps) == 1:
            return [super(FusedLearner, self).learn(s.trainer, s.inputs, s.target) for s in steps]
        models = [step.trainer.model for step in steps]
        if self.stack is None or self.stack.models != models:
            self.stack = _Stack(models)
        first = steps[0].trainer
        with first.fabric.autocast():
            logits = self.stack(torch.stack([step.inputs for step in steps])).float()
        losses = [first.loss(own, s.target) for own, s in zip(logits, steps, strict=True)]
        self.stack.backward(torch.stack(losses).sum() / first.recipe.accumulate)
        return [
            (loss.detach(), _hits(own, step.target))
            for loss, own, step in zip(losses, logits, steps, strict=True)
        ]


class _Stack:
    """Several models whose weights and statistics are views of one tensor for each name."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models
        self.parameters = _stacked([dict(model.named_parameters()) for model in models])
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        for name, own in models[0].named_parameters():
            self.parameters[name].requires_grad_(own.requires_grad)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Images (K, N, C, H, W) -> logits (K, N, classes)."""

        def one(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor
        ) -> Tensor:
            return functional_call(self.models[0], (parameters, buffers), (images,))

        with warnings.catch_warnings():  # pooling loops over the models: a small part of a step
            warnings.filterwarnings("ignore", "There is a performance drop")
            return vmap(one)(self.parameters, self.buffers, inputs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient to the models' parameters."""
        own = [list(model.parameters()) for model in self.models]
        if own[0][0].grad is None:  # the optimizers have used it
            for whole in self.parameters.values():
                whole.grad = None
        loss.backward()
        for whole, *parts in zip(self.parameters.values(), *own, strict=True):
            if whole.grad is not None:
                for part, gradient in zip(parts, whole.grad, strict=True):
                    part.grad = gradient


def _stacked(each: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One tensor (K, ...) for each name, of which the given tensors become views."""
    return {name: _whole([own[name] for own in each]) for name in each[0]}


@torch.no_grad()
def _whole(parts: Sequence[Tensor]) -> Tensor:
    first = parts[0]
    size, stride = (len(parts), *first.shape), (first.numel(), *first.stride())
    whole = torch.empty_strided(size, stride, dtype=first.dtype, device=first.device)
    for own, part in zip(whole, parts, strict=True):
        part.data = own.copy_(part)
    return whole
