"""The design space as data: each choice a variant can make is one entry of a table in this file.

To add a stem, write one function below ``STEMS``; to add an activation order, one line below
``ORDERS``. Names, grids, the command line, plots and tests read these tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import AvgPool2dSame
from torch import nn

from resnet_variants.registry import Registry


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network, all of them on one device and of one dtype."""

    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def conv(
        self, w_in: int, w_out: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> nn.Conv2d:
        """(N, w_in, H, W) -> (N, w_out, ceil(H/stride), ceil(W/stride)); odd kernel, no bias."""
        dilation = dilation if kernel > 1 else 1
        return nn.Conv2d(
            w_in,
            w_out,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            bias=False,
            device=self.device,
            dtype=self.dtype,
        )

    def norm(self, width: int) -> nn.BatchNorm2d:
        """Batch normalisation, eps 1e-5, momentum 0.1."""
        return nn.BatchNorm2d(width, device=self.device, dtype=self.dtype)

    def act(self, *, inplace: bool) -> nn.ReLU:
        """ReLU; in place wherever nobody else holds its input."""
        return nn.ReLU(inplace=inplace)


# --- stems ------------------------------------------------------------------------------------


class ConvSpec(NamedTuple):
    """One convolution of a stem; the network puts norm and activation between them."""

    width: int
    kernel: int
    stride: int


STEMS: Registry[Callable[[int, int], list[ConvSpec]]] = Registry("stem")


@STEMS.register("conv7")
def conv7(width: int, stride: int) -> list[ConvSpec]:
    """One 7x7 convolution: ImageNet nets (arXiv:1512.03385, table 1)."""
    return [ConvSpec(width, 7, stride)]


@STEMS.register("conv3")
def conv3(width: int, stride: int) -> list[ConvSpec]:
    """One 3x3 convolution: nets for 32x32 images (arXiv:1512.03385, section 4.2)."""
    return [ConvSpec(width, 3, stride)]


@STEMS.register("deep")
def deep(width: int, stride: int) -> list[ConvSpec]:
    """Three 3x3 convolutions, 32-32-64 wide at width 64: ResNet-C (arXiv:1812.01187, fig. 2b).

    The paper's sentence gives stride 2 to the first two; every published implementation, and its
    own FLOPs, have it in the first alone.
    """
    return [ConvSpec(width // 2, 3, stride), ConvSpec(width // 2, 3, 1), ConvSpec(width, 3, 1)]


class StemStride(NamedTuple):
    """How a stem reaches its stride: that of its first conv, then a 3x3/2 max-pool or not."""

    conv: int
    pool: bool


STEM_STRIDES = {
    4: StemStride(conv=2, pool=True),
    2: StemStride(conv=2, pool=False),
    1: StemStride(conv=1, pool=False),
}


# --- residual units ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """The convolutions of a residual unit (arXiv:1512.03385, fig. 5)."""

    kernels: tuple[int, ...]
    expansion: int  # width of the last convolution over that of the others


BLOCKS = Registry(
    "block",
    basic=Block(kernels=(3, 3), expansion=1),
    bottleneck=Block(kernels=(1, 3, 1), expansion=4),
)

# Which convolution of a downsampling unit carries stride 2, by its kernel: the first 1x1
# (ResNet-A, arXiv:1512.03385) or the 3x3 (ResNet-B, "v1.5", arXiv:1812.01187, fig. 2a).
STRIDES = Registry("stride", **{"1x1": 1, "3x3": 3})


@dataclass(frozen=True)
class Order:
    """Where norm and activation sit (arXiv:1603.05027, fig. 4); ``+`` is the addition."""

    unit: str  # around every convolution of the branch but the last
    last: str  # around the last convolution
    stem: str = "norm act"  # after the last convolution of the stem
    head: str = ""  # before global pooling
    project: str = "norm"  # after the convolution of a projection shortcut


# A projection shortcut reads what the branch's first convolution reads: the unit's input in
# `post`, the shared BN-ReLU'd input in `preact` (as in the authors' code and timm's ResNetV2).
ORDERS = Registry(
    "order",
    post=Order("conv norm act", "conv norm + act"),
    preact=Order("norm act conv", "norm act conv +", stem="", head="norm act", project=""),
)


# --- shortcuts --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What happens to the shape along a unit."""

    w_in: int
    w_out: int
    stride: int
    dilation: int = 1  # > 1 where ``output_stride`` turned strides into dilation
    dilation_in: int = 1  # that of the unit before, kept by the first 3x3 convolution

    @property
    def projects(self) -> bool:
        """Whether the shortcut must change shape."""
        return self.stride > 1 or self.w_in != self.w_out


SHORTCUTS: Registry[Callable[[Change, Layers], list[nn.Module]]] = Registry("shortcut")


@SHORTCUTS.register("conv")
def conv(change: Change, layers: Layers) -> list[nn.Module]:
    """1x1 convolution with the unit's stride: He's option B (arXiv:1512.03385, section 3.3)."""
    return [layers.conv(change.w_in, change.w_out, 1, stride=change.stride)]


@SHORTCUTS.register("avgpool")
def avgpool(change: Change, layers: Layers) -> list[nn.Module]:
    """2x2 mean, then 1x1 convolution: ResNet-D (arXiv:1812.01187, fig. 2c).

    Ceil mode and uncounted padding keep odd maps the size of the branch's padded 3x3/2. No pool
    where only the width changes; a dilated stage keeps the mean, with stride 1.
    """
    pool: nn.Module = nn.Identity()
    if change.stride > 1:
        pool = nn.AvgPool2d(2, change.stride, ceil_mode=True, count_include_pad=False)
    elif change.dilation > 1:
        pool = AvgPool2dSame(2, 1, ceil_mode=True, count_include_pad=False)
    return [pool, layers.conv(change.w_in, change.w_out, 1)]


# --- presets and families ---------------------------------------------------------------------

# ResNet-A to D are cumulative (arXiv:1812.01187, table 5): each adds one tweak to the last.
# An empty stem is the family's own single convolution.
_A = {"stem": "", "stride": "1x1", "shortcut": "conv"}
_B = _A | {"stride": "3x3"}
_C = _B | {"stem": "deep"}
_D = _C | {"shortcut": "avgpool"}
PRESETS = Registry("variant", A=_A, B=_B, C=_C, D=_D)

# The three placements that `--grid` crosses with stem and order.
DOWNSAMPLES = Registry(
    "downsample",
    **{
        "1x1": {"stride": "1x1", "shortcut": "conv"},
        "3x3": {"stride": "3x3", "shortcut": "conv"},
        "3x3+avgpool": {"stride": "3x3", "shortcut": "avgpool"},
    },
)


@dataclass(frozen=True)
class Family:
    """What the networks of one paper's table share."""

    widths: tuple[int, ...]  # of the 3x3 convolutions, per stage
    layouts: dict[int, dict[str, tuple[int, ...]]]  # depth -> block -> units per stage
    depths_text: str  # the depths in words
    named_depths: tuple[int, ...]  # those registered with timm
    default_depth: int
    stem: str
    stem_stride: int
    img_size: int
    num_classes: int
    crop_pct: float
    mean: tuple[float, ...]  # of the training images, per channel in [0, 1]
    std: tuple[float, ...]
    token: str = ""  # in names


def _cifar_layouts() -> dict[int, dict[str, tuple[int, ...]]]:
    """Depths 6n+2 and 9n+2; a depth of both kinds defaults to the block it was published with."""
    layouts: dict[int, dict[str, tuple[int, ...]]] = {164: {"bottleneck": (18, 18, 18)}}
    for block, convs in (("basic", 2), ("bottleneck", 3)):
        for n in range(1, 1 + 1200 // (3 * convs)):
            layouts.setdefault(3 * convs * n + 2, {})[block] = (n, n, n)
    return layouts


FAMILIES = Registry(
    "family",
    imagenet=Family(
        widths=(64, 128, 256, 512),
        layouts={
            18: {"basic": (2, 2, 2, 2)},
            26: {"bottleneck": (2, 2, 2, 2)},
            34: {"basic": (3, 4, 6, 3)},
            50: {"bottleneck": (3, 4, 6, 3)},
            101: {"bottleneck": (3, 4, 23, 3)},
            152: {"bottleneck": (3, 8, 36, 3)},
            200: {"bottleneck": (3, 24, 36, 3)},
        },
        depths_text="18, 26, 34, 50, 101, 152, 200",
        named_depths=(18, 26, 34, 50, 101, 152, 200),
        default_depth=50,
        stem="conv7",
        stem_stride=4,
        img_size=224,
        num_classes=1000,
        crop_pct=0.875,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    ),
    cifar=Family(
        widths=(16, 32, 64),
        layouts=_cifar_layouts(),
        depths_text="6n+2 with basic blocks (20, 32, 44, 56, 110), "
        "9n+2 with bottlenecks (29, 47, 164, 1001)",
        named_depths=(20, 29, 32, 44, 47, 56, 110, 164),
        default_depth=29,
        stem="conv3",
        stem_stride=1,
        img_size=32,
        num_classes=10,
        crop_pct=1.0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        token="cifar",
    ),
)
