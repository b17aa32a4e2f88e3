"""Stems: the layers before the first stage. To add one, write one function below ``STEMS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from resnet_variants.registry import Registry


class ConvSpec(NamedTuple):
    """One convolution of a stem. The network adds norms and activations between convolutions."""

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

    By the paper's text the first two have stride 2. In every published implementation, and by the
    paper's FLOPs, only the first has.
    """
    return _three(width // 2, width // 2, width, stride)


@STEMS.register("deep_wide")
def deep_wide(width: int, stride: int) -> list[ConvSpec]:
    """Three 3x3 convolutions, 64-64-128 wide at width 64: the "s" and "e" nets of GluonCV, timm."""
    return _three(width, width, 2 * width, stride)


@STEMS.register("tiered")
def tiered(width: int, stride: int) -> list[ConvSpec]:
    """Three 3x3 convolutions, 24-48-64 wide at width 64: timm's "t" nets as documented."""
    return _three(3 * width // 8, 3 * width // 4, width, stride)


@STEMS.register("tiered_narrow")
def tiered_narrow(width: int, stride: int) -> list[ConvSpec]:
    """Three 3x3 convolutions, 24-32-64 wide at width 64: "tn", and timm's "t" nets as built."""
    return _three(3 * width // 8, width // 2, width, stride)


def _three(first: int, second: int, third: int, stride: int) -> list[ConvSpec]:
    return [ConvSpec(first, 3, stride), ConvSpec(second, 3, 1), ConvSpec(third, 3, 1)]


class StemStride(NamedTuple):
    """The stride of a stem's first convolution, and whether a 3x3/2 max-pool follows the stem."""

    conv: int
    pool: bool


STEM_STRIDES = {
    4: StemStride(conv=2, pool=True),
    2: StemStride(conv=2, pool=False),
    1: StemStride(conv=1, pool=False),
}


def stem_stride_for(side: int) -> int:
    """The stem stride with which the last of four stages has a map of about 4 to 8 pixels.

    1 up to 48 pixels on a side, 2 up to 112 (Tiny ImageNet has 64), 4 above, as for ImageNet.
    """
    return next((stride for stride, most in ((1, 48), (2, 112)) if side <= most), 4)
