"""The layers of networks, with their device, dtype, norm and activation set in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers import (
    AvgPool2dSame,
    BlurPool2d,
    GroupNorm,
    LayerNorm2d,
    LayerScale2d,
    create_act_layer,
    create_attn,
)
from torch import Tensor, nn

from resnet_variants.models.norms import ACTIVATIONS, NORMS, no_norm


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network, on one device and with one dtype."""

    norm_layer: str = "batch"
    act_layer: str = "relu"
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    conv_bias: bool = False

    @property
    def factory_kwargs(self) -> dict[str, Any]:
        """Device and dtype, as keyword arguments of torch's constructors."""
        return {"device": self.device, "dtype": self.dtype}

    def conv(
        self,
        w_in: int,
        w_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> nn.Conv2d:
        """(N, w_in, H, W) -> (N, w_out, ceil(H/stride), ceil(W/stride)); odd kernel.

        Its bias starts at 0. By default only a network without norms has any: a norm has its own.
        """
        dilation = dilation if kernel > 1 else 1
        conv = nn.Conv2d(
            w_in,
            w_out,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=self.conv_bias or NORMS[self.norm_layer] is no_norm,
            **self.factory_kwargs,
        )
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        return conv

    def norm(self, width: int) -> nn.Module:
        """The network's norm over ``width`` channels."""
        return NORMS[self.norm_layer](width, self)

    def batch_norm(self, width: int) -> nn.Module:
        """Batch norm, eps 1e-5, momentum 0.1."""
        return nn.BatchNorm2d(width, **self.factory_kwargs)

    def group_norm(self, width: int) -> nn.Module:
        """Group norm, eps 1e-5: 32 groups, fewer if a group would have less than two channels.

        timm always has 32 groups: one channel per group in deep stems.
        """
        groups = math.gcd(32, width)
        groups = groups if groups < width else max(1, groups // 2)
        return GroupNorm(width, num_groups=groups, **self.factory_kwargs)

    def layer_norm(self, width: int) -> nn.Module:
        """Layer norm over channels, eps 1e-6 as timm has it."""
        return LayerNorm2d(width, **self.factory_kwargs)

    def act(self, *, inplace: bool) -> nn.Module:
        """The network's activation. ``inplace`` only where no other layer reads its input."""
        own = ACTIVATIONS[self.act_layer].layer
        return own() if own else cast(nn.Module, create_act_layer(self.act_layer, inplace=inplace))

    def attention(self, name: str, width: int) -> nn.Module:
        """One of timm's attentions over ``width`` channels."""
        return cast(nn.Module, create_attn(name, width, **self.factory_kwargs))

    def mean(self, size: int, stride: int) -> nn.Module:
        """A mean filter, (N, C, H, W) -> (N, C, ceil(H/stride), ceil(W/stride)).

        Padding is not counted.
        """
        pool = AvgPool2dSame if size > stride else nn.AvgPool2d
        return pool(size, stride, ceil_mode=True, count_include_pad=False)

    def blur(self, width: int, stride: int) -> nn.Module:
        """A 3x3 binomial filter, (N, width, H, W) -> (N, width, ceil(H/stride), ...)."""
        return BlurPool2d(width, stride=stride, **self.factory_kwargs)

    def pad(self, channels: int, stride: int) -> nn.Module:
        """Subsampling, and ``channels`` more channels of zeros."""
        return Pad(channels, stride)

    def scale(self, factor: float) -> nn.Module:
        """A multiplication by a constant."""
        return Scale(factor)

    def learned_scale(self, width: int, start: float) -> nn.Module:
        """A learned factor for each of ``width`` channels; of width 1, for all channels."""
        return LayerScale2d(width, start, **self.factory_kwargs)

    def gate(self, width: int) -> nn.Module:
        """The gate g(x) over ``width`` channels."""
        return Gate(width, self)

    def shortcut_gate(self, width: int) -> nn.Module:
        """(1 - g(x)) x over ``width`` channels."""
        return ShortcutGate(width, self)

    def dropout(self, rate: float) -> nn.Module:
        """Dropout of single values."""
        return nn.Dropout(rate)

    def identity(self) -> nn.Module:
        """No change; it keeps a place in the state dict's numbering."""
        return nn.Identity()


class Pad(nn.Module):
    """Every ``stride``-th pixel, and zeros in the new channels; no parameters."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + channels, ceil(H/stride), ceil(W/stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels))


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.factor


class Gate(nn.Module):
    """g(x) = sigmoid(Wx + b), W a 1x1 convolution (arXiv:1603.05027, section 3.2)."""

    def __init__(self, width: int, layers: Layers) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1, **layers.factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape, in (0, 1)."""
        return self.conv(x).sigmoid()


class ShortcutGate(Gate):
    """(1 - g(x)) x (arXiv:1603.05027, section 3.3)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        return (1 - self.conv(x).sigmoid()) * x
