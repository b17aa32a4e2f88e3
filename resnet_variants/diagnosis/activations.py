"""One forward pass that keeps every unit's input, branch, shortcut and output for gradients."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.units import Unit, branch_passed_through, resume, units
from resnet_variants.models.network import ResNet


@dataclass
class UnitActivations:
    """The maps of one unit in one forward pass, (N, C, H, W) each, parts of one autograd graph."""

    unit: Unit
    x: Tensor  # the unit's input
    branch: Tensor | None = None  # the summand from the branch; None in a plain net
    shortcut: Tensor | None = None  # the other summand; None in a plain net and with a gate
    out: Tensor | None = None  # the unit's output; set when the unit has run


@contextlib.contextmanager
def recorded(model: ResNet) -> Iterator[list[UnitActivations]]:
    """Within the block, a forward pass fills the list, one entry per unit.

    The outputs do not change. After the block the model is as before.
    """
    activations: list[UnitActivations] = []
    with contextlib.ExitStack() as hooks:
        for unit in units(model):
            module = unit.module
            begin = functools.partial(_begin, activations, unit)
            handles = [module.register_forward_pre_hook(begin)]
            for name in ("downsample", "skip"):
                child = getattr(module, name) if name in module.steps else None
                if child is not None:
                    keep = functools.partial(_keep_shortcut, activations)
                    handles.append(child.register_forward_hook(keep))
            if not unit.is_plain:
                keep_branch = functools.partial(_keep_branch, activations)
                hooks.enter_context(branch_passed_through(unit, keep_branch))
            handles.append(module.register_forward_hook(functools.partial(_end, activations)))
            for handle in handles:
                hooks.callback(handle.remove)
        yield activations


def _begin(
    activations: list[UnitActivations], unit: Unit, module: nn.Module, args: tuple[Tensor]
) -> None:
    # A gate computes both summands: neither is the output of a module.
    has_shortcut = not (unit.is_plain or "gate" in unit.module.steps)
    activations.append(UnitActivations(unit, args[0], shortcut=args[0] if has_shortcut else None))


def _keep_shortcut(
    activations: list[UnitActivations], module: nn.Module, args: object, out: Tensor
) -> None:
    if activations[-1].shortcut is not None:
        activations[-1].shortcut = out


def _keep_branch(activations: list[UnitActivations], branch: Tensor) -> Tensor:
    activations[-1].branch = branch
    return branch.clone()  # the unit may add the shortcut in place


def _end(activations: list[UnitActivations], module: nn.Module, args: object, out: Tensor) -> None:
    activations[-1].out = out


@dataclass(frozen=True)
class ForwardPass:
    """The activations of a batch, and its mean loss, ready for gradients."""

    activations: list[UnitActivations]
    out: Tensor  # of the last unit
    loss: Tensor

    def gradients(self, by: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient of the loss by each of the tensors."""
        return torch.autograd.grad(self.loss, by, retain_graph=True)


def vjp(gradient: Tensor, of: Tensor, by: Tensor) -> Tensor:
    """Vector-Jacobian product: pull ``gradient`` at ``of`` back to ``by``."""
    return torch.autograd.grad(of, by, gradient, retain_graph=True)[0]


def quotient(a: float, b: float) -> float:
    """``a / b``; NaN where ``b`` is zero."""
    return a / b if b else math.nan


def forward_pass(model: ResNet, images: Tensor, labels: Tensor) -> ForwardPass:
    """Run a batch. Norms stay in their present mode.

    Args:
        model: one of this package's networks.
        images: (N, C, H, W), normalised.
        labels: (N,).
    """
    with recorded(model) as activations, torch.enable_grad():
        # Then gradients reach the first unit's input even if all weights are frozen.
        logits = resume(model, images.detach().requires_grad_())
        loss = cross_entropy(logits, labels)
    out = activations[-1].out
    assert out is not None
    return ForwardPass(activations, out, loss)
