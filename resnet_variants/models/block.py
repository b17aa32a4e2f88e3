"""The residual unit: basic or bottleneck, in any activation order, from the tables' lines."""

from __future__ import annotations

from itertools import pairwise

from timm.layers import DropPath
from torch import Tensor, nn

from resnet_variants.models.axes import BLOCKS, ORDERS, SHORTCUTS, STRIDES, Change, Layers
from resnet_variants.models.variant import Variant


class ResidualBlock(nn.Module):
    """One residual unit, (N, w_in, H, W) -> (N, w_out, ceil(H/stride), ceil(W/stride)).

    ``downsample``, where there is one, stands right before ``conv1`` and reads what it reads;
    ``drop_path`` stands at the end of the branch, and the shortcut is added to what it returns.
    """

    def __init__(
        self, change: Change, variant: Variant, *, drop_path: float, layers: Layers
    ) -> None:
        super().__init__()
        order = ORDERS[variant.order]
        convs = _branch_convs(change, variant, layers)
        for i, conv in enumerate(convs, start=1):
            line = order.last if conv is convs[-1] else order.unit
            norm_first = "norm" in line.partition("conv")[0]
            for step in line.split():
                if step == "norm":
                    width = conv.in_channels if norm_first else conv.out_channels
                    self.add_module(f"bn{i}", layers.norm(width))
                elif step == "act":
                    # A unit's first layer reads the tensor that the shortcut holds: not in place.
                    self.add_module(f"act{i}", layers.act(inplace=len(self._modules) > 0))
                elif step == "+":
                    self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
                else:
                    if i == 1 and change.projects:
                        self.downsample = _projection(change, variant, layers)
                    self.add_module(f"conv{i}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """(N, w_in, H, W) -> (N, w_out, H', W')."""
        shortcut = x
        for name, layer in self.named_children():
            if name == "downsample":
                shortcut = layer(x)
            else:
                x = layer(x)
                if name == "drop_path":
                    x = x + shortcut
        return x


def _branch_convs(change: Change, variant: Variant, layers: Layers) -> list[nn.Conv2d]:
    block = BLOCKS[variant.block]
    inner = change.w_out // block.expansion
    widths = pairwise([change.w_in, *[inner] * (len(block.kernels) - 1), change.w_out])
    strided = block.kernels.index(STRIDES[variant.stride])
    first_3x3 = block.kernels.index(3)
    return [
        layers.conv(
            w_in,
            w_out,
            kernel,
            stride=change.stride if i == strided else 1,
            dilation=change.dilation_in if i == first_3x3 else change.dilation,
        )
        for i, (kernel, (w_in, w_out)) in enumerate(zip(block.kernels, widths, strict=True))
    ]


def _projection(change: Change, variant: Variant, layers: Layers) -> nn.Sequential:
    modules = SHORTCUTS[variant.shortcut](change, layers)
    if ORDERS[variant.order].project == "norm":
        modules.append(layers.norm(change.w_out))
    return nn.Sequential(*modules)
