"""Where the gradient of a step comes from: one seed alone, or several seeds computed as one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

if TYPE_CHECKING:
    from resnet_variants.training.trainer import Trainer

Outcome = tuple[Tensor, Tensor]  # mean loss, and how many are right


class Gradients:
    """Computes the gradients of a training, and the time that it takes.

    Attributes:
        compiled: whether through ``torch.compile``.
        size: how many trainings, which differ in their seed, are computed together at most.
    """

    size = 1

    def __init__(self, *, compiled: bool = False) -> None:
        self.compiled = compiled

    def network(self, model: nn.Module) -> nn.Module:
        """The model as it is trained."""
        return cast(nn.Module, torch.compile(model)) if self.compiled else model

    def clock(self) -> float:
        """Seconds that the training has taken, from some point on."""
        return time.perf_counter()

    def backward(self, trainer: Trainer, inputs: Tensor, target: Tensor) -> Outcome:
        """Add the gradient of a batch or a part of it to the trainer's parameters."""
        logits = trainer.net(inputs).float()
        loss = trainer.loss(logits, target)
        trainer.fabric.backward(loss / trainer.recipe.accumulate)
        return loss.detach(), _correct(logits, target)


def _correct(logits: Tensor, target: Tensor) -> Tensor:
    """How many of logits (N, classes) are right; the target is (N,) or (N, classes)."""
    labels = target if target.ndim == 1 else target.argmax(1)
    return (logits.detach().argmax(1) == labels).sum()


# --- several seeds ----------------------------------------------------------------------------


@dataclass(eq=False)
class _Part:
    """A batch, or a part of one, whose gradient a training waits for."""

    trainer: Trainer
    inputs: Tensor
    target: Tensor
    outcome: Outcome | None = None
    error: BaseException | None = None
    traceback: TracebackType | None = None
    seconds: float = 0.0


class FusedGradients(Gradients):
    """Computes the gradients of several trainings at once, which differ in their seed.

    Each training runs in a thread. The thread that has the ``turn`` runs: trainings give it away
    where they wait for the batches of the others. So what one does with a global random stream,
    such as to seed it and to build a network, is not interrupted.

    Args:
        size: how many trainings there are.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.left = size, 0  # trainings, and those that have begun and not ended
        self.turn = threading.Condition(threading.Lock())
        self.waiting: list[_Part] = []
        self.stack: _StackedModels | None = None
        self.times = threading.local()  # of a thread: seconds up to its last wait, and since when

    def start(self, threads: Sequence[threading.Thread]) -> None:
        """Start the threads of all trainings; the caller has the turn, so none begins alone."""
        for thread in threads:
            thread.start()
            self.left += 1

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """A training, in its thread; the others wait for its batches until the block ends."""
        with self.turn:
            self._run_on(0.0)
            try:
                yield
            finally:
                self.left -= 1
                self._compute_if_all_wait()
                self.turn.notify_all()

    def clock(self) -> float:
        """Seconds that this thread's training has taken: its own, and its share of common ones."""
        return self.times.seconds + time.perf_counter() - self.times.since

    def _run_on(self, seconds: float) -> None:
        self.times.seconds, self.times.since = seconds, time.perf_counter()

    def backward(self, trainer: Trainer, inputs: Tensor, target: Tensor) -> Outcome:
        """See ``Gradients``; waits until all trainings have a batch."""
        part, seconds = _Part(trainer, inputs, target), self.clock()
        self.waiting.append(part)
        self._compute_if_all_wait()
        self.turn.wait_for(lambda: part.outcome or part.error)
        self._run_on(seconds + part.seconds)
        if part.outcome:
            return part.outcome
        assert part.error is not None
        raise part.error.with_traceback(part.traceback)  # each thread adds to it for itself

    def _compute_if_all_wait(self) -> None:
        if not self.waiting or len(self.waiting) < self.left:
            return
        parts = sorted(self.waiting, key=lambda part: part.trainer.seed)
        self.waiting, began = [], time.perf_counter()
        try:
            outcomes = self._outcomes(parts)
        except BaseException as error:  # all trainings of the step fail with it
            for part in parts:
                part.error, part.traceback = error, error.__traceback__
        else:
            for part, outcome in zip(parts, outcomes, strict=True):
                part.outcome = outcome
        for part in parts:
            part.seconds = (time.perf_counter() - began) / len(parts)
        self.turn.notify_all()

    def _outcomes(self, parts: Sequence[_Part]) -> Sequence[Outcome]:
        if len({part.inputs.shape for part in parts}) > 1 or len(parts) == 1:
            self.stack = None  # whose copies of replaced buffers would be those of before
            alone = super().backward
            return [alone(part.trainer, part.inputs, part.target) for part in parts]
        models = [part.trainer.model for part in parts]
        if self.stack is None or self.stack.models != models:
            self.stack = _StackedModels(models)
        first = parts[0].trainer
        logits = self.stack(torch.stack([part.inputs for part in parts]))
        targets = [part.target for part in parts]
        losses = list(map(first.loss, logits, targets))
        self.stack.backward(torch.stack(losses).sum() / first.recipe.accumulate)
        correct = map(_correct, logits, targets)
        return [(loss.detach(), n) for loss, n in zip(losses, correct, strict=True)]


class _StackedModels:
    """Several models whose weights and statistics are views of one tensor for each name.

    (``torch.func.stack_module_state`` makes copies, which the optimizers would not see.)
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models = models
        self.parameters = _stacked([dict(model.named_parameters()) for model in models])
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        for name, parameter in models[0].named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (K, N, C, H, W) -> logits (K, N, classes)."""
        logits, buffers = vmap(self._forward)(self.parameters, self.buffers, images)
        for name, buffer in self.buffers.items():
            if buffers[name].data_ptr() != buffer.data_ptr():  # it was not changed in place
                buffer.copy_(buffers[name])
        return logits

    def _forward(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and buffers of one model."""
        state = parameters | buffers  # gets the buffers that a layer replaces
        logits = functional_call(self.models[0], state, (images,))
        return logits, {name: state[name] for name in buffers}

    def backward(self, loss: Tensor) -> None:
        """Add the gradient to the models' parameters."""
        loss.backward()
        each = [model.parameters() for model in self.models]
        for stacked, *parameters in zip(self.parameters.values(), *each, strict=True):
            if stacked.grad is not None:
                for parameter, gradient in zip(parameters, stacked.grad, strict=True):
                    before = parameter.grad
                    parameter.grad = gradient if before is None else before + gradient
                stacked.grad = None


@torch.no_grad()
def _stacked(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One tensor (K, ...) for each name, of which the given tensors become views."""
    stacked = {}
    for name, first in states[0].items():
        stride = (first.numel(), *torch.empty_like(first).stride())  # dense
        size = (len(states), *first.shape)
        stacked[name] = torch.empty_strided(size, stride, dtype=first.dtype, device=first.device)
        for view, state in zip(stacked[name], states, strict=True):
            state[name].data = view.copy_(state[name])
    return stacked
