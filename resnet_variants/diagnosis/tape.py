"""One forward pass with what enters, leaves and is added in every unit, gradients included."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.units import Unit, ended, resume, units
from resnet_variants.models.network import ResNet


@dataclass
class Passage:
    """What passed a unit, (N, C, H, W) each, as parts of one graph."""

    unit: Unit
    x: Tensor  # its input
    branch: Tensor | None = None  # what is added to the shortcut; none in a plain net
    shortcut: Tensor | None = None  # what it is added to; none in a plain net, or beside a gate
    out: Tensor | None = None


@contextlib.contextmanager
def recorded(model: ResNet) -> Iterator[list[Passage]]:
    """Within the block, a forward pass leaves a passage for every unit in the list.

    The outputs stay what they are; afterwards the model is as it was.
    """
    passages: list[Passage] = []
    with contextlib.ExitStack() as hooks:
        for unit in units(model):
            module = unit.module
            begin = functools.partial(_begin, passages, unit)
            handles = [module.register_forward_pre_hook(begin)]
            for name in ("downsample", "skip"):
                child = getattr(module, name) if name in module.steps else None
                if child is not None:
                    beside = functools.partial(_beside, passages)
                    handles.append(child.register_forward_hook(beside))
            if not unit.is_plain:
                hooks.enter_context(ended(unit, functools.partial(_add, passages)))
            handles.append(module.register_forward_hook(functools.partial(_end, passages)))
            for handle in handles:
                hooks.callback(handle.remove)
        yield passages


def _begin(passages: list[Passage], unit: Unit, module: nn.Module, args: tuple[Tensor]) -> None:
    # Of a gate's two parts neither is a module's output.
    alone = not (unit.is_plain or "gate" in unit.module.steps)
    passages.append(Passage(unit, args[0], shortcut=args[0] if alone else None))


def _beside(passages: list[Passage], module: nn.Module, args: object, out: Tensor) -> None:
    if passages[-1].shortcut is not None:
        passages[-1].shortcut = out


def _add(passages: list[Passage], branch: Tensor) -> Tensor:
    passages[-1].branch = branch
    return branch.clone()  # the shortcut may be added to it in place


def _end(passages: list[Passage], module: nn.Module, args: object, out: Tensor) -> None:
    passages[-1].out = out


@dataclass(frozen=True)
class Tape:
    """A batch's way through a network and the mean loss at its end, ready for gradients."""

    passages: list[Passage]
    out: Tensor  # of the last unit
    loss: Tensor

    def gradients(self, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The loss gradient at each of the tensors."""
        return torch.autograd.grad(self.loss, by, retain_graph=True)


def pulled_back(gradient: Tensor, of: Tensor, by: Tensor) -> Tensor:
    """The gradient at ``by`` of what has this gradient at ``of``, as far as it comes from there."""
    return torch.autograd.grad(of, by, gradient, retain_graph=True)[0]


def quotient(a: float, b: float) -> float:
    """``a / b``; NaN over nothing."""
    return a / b if b else math.nan


def record(model: ResNet, images: Tensor, labels: Tensor) -> Tape:
    """Run a batch with the norms in the mode they are in.

    Args:
        model: one of this package's networks.
        images: (N, C, H, W), normalised.
        labels: (N,).
    """
    with recorded(model) as passages, torch.enable_grad():
        # Gradients reach the first unit's input also where all weights are frozen.
        logits = resume(model, images.detach().requires_grad_())
        loss = cross_entropy(logits, labels)
    out = passages[-1].out
    assert out is not None
    return Tape(passages, out, loss)
