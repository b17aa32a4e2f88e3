"""The weights that a network starts from."""

from __future__ import annotations

from typing import cast

import torch
from timm.layers import LayerScale2d
from torch import Tensor, nn

from resnet_variants.models.block import ResidualBlock
from resnet_variants.models.layers import Gate
from resnet_variants.models.norms import BranchScale

_NORMS_AND_SCALES = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, LayerScale2d)


def initialise(model: nn.Module, scale: BranchScale, *, fan: str, gate_bias: float) -> None:
    """Kaiming-normal convolutions (arXiv:1502.01852); norms become the identity.

    Args:
        model: its device is not the meta device.
        scale: how its branches start.
        fan: whose variance the convolutions keep.
        gate_bias: the bias of its gates.
    """
    for module in model.modules():
        if isinstance(module, _NORMS_AND_SCALES):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")  # type: ignore[arg-type]
        elif isinstance(module, Gate):
            nn.init.constant_(cast(Tensor, module.conv.bias), gate_bias)
    units = [module for module in model.modules() if isinstance(module, ResidualBlock)]
    for unit in units:
        if scale.zeroes:
            zero_last(unit)
        if scale.shrinks:
            shrink(unit, len(units))


def zero_last(unit: ResidualBlock) -> None:
    """Zero the branch: the weight of its last norm, or of its last convolution.

    With ``preact`` it is the convolution: a norm with weight 0 before an activation passes no
    gradient.
    """
    branch = unit.steps[: unit.steps.index("+")] if "+" in unit.steps else unit.steps
    last = next(step for step in reversed(branch) if step.startswith(("bn", "conv")))
    nn.init.zeros_(unit.get_submodule(last).weight)  # type: ignore[arg-type]


def shrink(unit: ResidualBlock, branches: int) -> None:
    """Fixup's factor on all convolutions of a branch but its last (arXiv:1901.09321, section 3).

    In a network of L branches with m convolutions each, the factor is L^(-1/(2m-2)).
    """
    convs = [unit.get_submodule(step) for step in unit.steps if step.startswith("conv")]
    with torch.no_grad():
        for conv in convs[:-1]:
            cast(Tensor, conv.weight).mul_(branches ** (-1 / (2 * len(convs) - 2)))
