"""The residual unit: basic or bottleneck, in any activation order, built from the tables."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from timm.layers import DropBlock2d, DropPath
from torch import Tensor, nn

from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, BLOCKS, STRIDES
from resnet_variants.models.layers import Layers, Pad
from resnet_variants.models.norms import BRANCH_SCALES
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS, Change
from resnet_variants.models.variant import Variant


@dataclass(frozen=True)
class Drops:
    """What a unit drops at random in training."""

    path: float = 0.0  # probability of dropping an image's branch (arXiv:1603.09382)
    block: float = 0.0  # share of a map that DropBlock drops (arXiv:1810.12890)
    block_size: int = 0  # side of the dropped squares; 0: no DropBlock in this unit
    gamma_scale: float = 1.0


class ResidualBlock(nn.Module):
    """One residual unit, (N, w_in, H, W) -> (N, w_out, ceil(H/stride), ceil(W/stride)).

    ``steps`` names the children in order of execution, and ``+``, which adds the shortcut. A plain
    net has no ``+``. Any child may be replaced by another module, even by one that units share. A
    child added under another name does not run. ``downsample`` gets the same input as ``conv1``.
    ``downsample``, ``se`` and ``drop_path`` may be ``None``, as in timm. The branch may be pruned
    beside a ``Pad``: the shortcut adds as many zero channels as the branch then has.
    """

    __constants__ = ("steps", "adds_in_place", "pads")  # TorchScript unrolls a loop over a constant

    def __init__(self, change: Change, variant: Variant, *, drops: Drops, layers: Layers) -> None:
        super().__init__()
        steps: list[str] = []
        for step, module in _steps(change, variant, drops, layers):
            name = unused(step, steps)
            steps.append(name)
            if module is not None:
                self.add_module(name, module)
        self.steps = tuple(steps)
        # An activation keeps its output for the backward pass, so it must not change in place.
        self.adds_in_place = variant.lines.ends_with != "act"
        self.keeps_shape = change.keeps_shape
        self.pads = any(isinstance(module, Pad) for module in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H', W')."""
        shortcut = x
        for step in self.steps:
            if self.pads and (step == "skip" or step == "gate" or step == "+"):
                # No condition on the width: torch.fx traces no branch that depends on a shape.
                new_channels = x.shape[1] - shortcut.shape[1]
                shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, new_channels))
            y = shortcut if step == "skip" or step == "gate" else x
            if torch.jit.is_scripting():
                # TorchScript has no getattr by a variable: it unrolls both loops.
                ran = self._may_miss(step)
                for name, layer in self.named_children():
                    if name == step:
                        y, ran = layer(y), True
                assert ran, step
            elif step != "+":
                y = self._run(step, y)
            x, shortcut = self._advance(step, y, x, shortcut)
        return x

    def _run(self, step: str, x: Tensor) -> Tensor:
        layer = getattr(self, step)
        if layer is None and self._may_miss(step):
            return x
        return cast(Tensor, layer(x))  # type: ignore[misc]

    def _may_miss(self, step: str) -> bool:
        """Whether the step's module may be ``None``, as in timm's units."""
        return step in ["+", "downsample", "se", "drop_path"]

    def _advance(self, step: str, y: Tensor, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
        """Branch and shortcut after a step with output ``y``."""
        if step == "downsample" or step == "skip":
            shortcut = y
        elif step == "gate":
            x, shortcut = y * x, (1 - y) * shortcut
        elif step != "+":
            x = y
        elif self.adds_in_place:
            x += shortcut
        else:
            x = x + shortcut
        return x, shortcut


def unused(name: str, taken: Container[str]) -> str:
    """The name with as many ``b`` as it needs to be new: ``bn2``, ``bn2b``, ``bn2bb``."""
    while name in taken:
        name += "b"
    return name


def _steps(
    change: Change, variant: Variant, drops: Drops, layers: Layers
) -> Iterator[tuple[str, nn.Module | None]]:
    """A unit's steps in order of execution, each with its layer; ``+`` has none."""
    order, kernels = variant.lines, BLOCKS[variant.block].kernels
    lines = [order.unit] * (len(kernels) - 1) + [order.last]
    words = [(word, i) for i, line in enumerate(lines) for word in line.split()]
    filters = dict(_antialias(change, variant, layers))
    convs = _convs(change, variant, layers, stride=1 if filters else change.stride)
    dropped = _after_3x3(words, kernels.index(3)) if drops.block_size else None
    for at, (word, i) in enumerate(words):
        if word == "conv":
            yield from _shortcut(change, variant, layers) if i == 0 else filters.get(i, ())
            yield f"conv{i + 1}", convs[i]
        elif word == "norm":
            before_conv = ("conv", i) in words[at:]
            width = convs[i].in_channels if before_conv else convs[i].out_channels
            yield f"bn{i + 1}", layers.norm(width)
        elif word == "act":
            if at == dropped:
                yield "drop_block", _drop_block(drops)
            # A unit's first layer shares its input with the shortcut: not in place.
            yield f"act{i + 1}", layers.act(inplace=at > 0)
        else:
            yield from _addition(change.w_out, variant, drops, layers)


def _after_3x3(words: list[tuple[str, int]], first_3x3: int) -> int | None:
    """Index of the activation after the branch's first 3x3 convolution."""
    first = words.index(("conv", first_3x3))
    return next((at for at in range(first, len(words)) if words[at][0] == "act"), None)


def _convs(change: Change, variant: Variant, layers: Layers, *, stride: int) -> list[nn.Conv2d]:
    block = BLOCKS[variant.block]
    inner = variant.inner_width(change.w_out // block.expansion)
    widths = pairwise([change.w_in, *[inner] * (len(block.kernels) - 1), change.w_out])
    strided = block.kernels.index(STRIDES[variant.stride])
    return [
        layers.conv(
            w_in,
            w_out,
            kernel,
            stride=stride if i == strided else 1,
            # Before the convolution that lost its stride, maps have the previous stage's dilation.
            dilation=change.dilation_in if i <= strided else change.dilation,
            groups=variant.cardinality if kernel > 1 else 1,
        )
        for i, (kernel, (w_in, w_out)) in enumerate(zip(block.kernels, widths, strict=True))
    ]


def _antialias(
    change: Change, variant: Variant, layers: Layers
) -> Iterator[tuple[int, list[tuple[str, nn.Module]]]]:
    """The filter of a downsampling unit, and the number of the convolution after it."""
    antialias = ANTIALIASES[variant.antialias]
    if antialias and (change.stride > 1 or change.dilation_in != change.dilation):
        block = BLOCKS[variant.block]
        inner = variant.inner_width(change.w_out // block.expansion)
        following = block.kernels.index(STRIDES[variant.stride]) + 1
        yield following, [("aa", antialias.down(inner, change.stride, layers))]


def _shortcut(change: Change, variant: Variant, layers: Layers) -> Iterator[tuple[str, nn.Module]]:
    modules = SHORTCUTS[variant.shortcut](change, layers)
    if modules:
        learns = any(True for module in modules for _ in module.parameters())
        if learns and variant.lines.project:
            modules.append(layers.norm(change.w_out))
        yield "downsample", nn.Sequential(*modules)


def _addition(
    width: int, variant: Variant, drops: Drops, layers: Layers
) -> Iterator[tuple[str, nn.Module | None]]:
    """The last steps of the branch, the function of the shortcut, and the addition."""
    attention = ATTENTIONS[variant.attention](width, layers)
    if attention is not None:
        yield "se", attention  # timm's name for any attention: its weights load
    scale = BRANCH_SCALES[variant.branch_scale]
    if scale.start is not None:
        yield "branch_scale", layers.learned_scale(width if scale.each else 1, scale.start)
    if not variant.is_plain:
        yield from SKIPS[variant.skip](width, layers).items()
        yield "drop_path", DropPath(drops.path) if drops.path else nn.Identity()
        yield "+", None


def _drop_block(drops: Drops) -> nn.Module:
    return DropBlock2d(drops.block, block_size=drops.block_size, gamma_scale=drops.gamma_scale)
