"""Norms and activations: what stands between the convolutions.

To add one, write one function below ``NORMS`` or one line in ``ACTIVATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_variants.registry import Registry

if TYPE_CHECKING:  # commands read these tables before they load torch
    from torch import nn

    from resnet_variants.models.layers import Layers

# An entry returns a norm over some channels.
NORMS: Registry[Callable[[int, Layers], nn.Module]] = Registry("norm")


@NORMS.register("batch")
def batch(width: int, layers: Layers) -> nn.Module:
    """Over the images of a batch and all positions (arXiv:1502.03167)."""
    return layers.batch_norm(width)


@NORMS.register("group")
def group(width: int, layers: Layers) -> nn.Module:
    """Over 32 groups of an image's channels, or fewer (arXiv:1803.08494)."""
    return layers.group_norm(width)


@NORMS.register("layer")
def layer(width: int, layers: Layers) -> nn.Module:
    """Over the channels of each position (arXiv:1607.06450), as in ConvNeXt (arXiv:2201.03545)."""
    return layers.layer_norm(width)


@NORMS.register("none")
def no_norm(width: int, layers: Layers) -> nn.Module:
    """No norm; each convolution has the bias that a norm would have (arXiv:1901.09321)."""
    return layers.identity()


@dataclass(frozen=True)
class Activation:
    """An activation without parameters."""

    text: str
    layer: Callable[[], nn.Module] | None = None  # by default timm's activation of the same name


# One name for each function: timm's ``swish`` is ``silu``, and its ``celu`` is ``elu``.
ACTIVATIONS = Registry(
    "act",
    relu=Activation("max(0, x)"),
    leaky_relu=Activation("x, and 0.01 x below zero"),
    relu6=Activation("min(max(0, x), 6)"),
    elu=Activation("x, and exp(x) - 1 below zero (arXiv:1511.07289)"),
    selu=Activation("elu, scaled to keep mean 0 and variance 1 (arXiv:1706.02515)"),
    silu=Activation("x sigmoid(x), also called swish (arXiv:1702.03118)"),
    gelu=Activation("x times the normal distribution function of x (arXiv:1606.08415)"),
    gelu_tanh=Activation("gelu, approximated with tanh (arXiv:1606.08415)"),
    quick_gelu=Activation("x sigmoid(1.702 x) (arXiv:1606.08415)"),
    mish=Activation("x tanh(log(1 + exp(x))) (arXiv:1908.08681)"),
    hard_swish=Activation("x relu6(x + 3) / 6 (arXiv:1905.02244)"),
    tanh=Activation("tanh(x)"),
    sigmoid=Activation("1 / (1 + exp(-x))"),
    hard_sigmoid=Activation("relu6(x + 3) / 6"),
)
