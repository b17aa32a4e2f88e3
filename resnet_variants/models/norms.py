"""What sets the size of a signal: norms, activations, and scales of the branches.

To add one, write one function below ``NORMS``, or one entry of ``ACTIVATIONS`` or
``BRANCH_SCALES``.
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


@dataclass(frozen=True)
class BranchScale:
    """How small the branches of a network start, so that a unit starts close to its shortcut."""

    text: str
    start: float | None = None  # of a learned factor at the branch's end; ``None``: no factor
    each: bool = False  # whether each channel has a factor of its own
    zeroes: bool = False  # whether the branch's last norm, or last convolution, starts at zero
    shrinks: bool = False  # whether its other convolutions start with Fixup's factor


BRANCH_SCALES = Registry(
    "branch_scale",
    none=BranchScale(""),
    zero_gamma=BranchScale(
        "the last norm of a branch starts at 0 (arXiv:1706.02677, section 5.1); the last "
        "convolution, where it follows that norm",
        zeroes=True,
    ),
    skipinit=BranchScale(
        "a learned factor, from 0 (arXiv:2002.10444); ReZero (arXiv:2003.04887) is the same here",
        start=0.0,
    ),
    # CaiT's own start depends on the depth: 0.1 up to 18 layers, 1e-5 at 24, 1e-6 above.
    layerscale=BranchScale(
        "a learned factor for each channel, from 1e-5 (arXiv:2103.17239): a unit starts 1e-5 "
        "branches away from its shortcut",
        start=1e-5,
        each=True,
    ),
    # Rules 1 and 2 of the paper, without its classifier that starts at 0 and its scalars.
    fixup=BranchScale(
        "without norms: a branch's last convolution starts at 0, its others L^(-1/(2m-2)) times as "
        "large, for L branches of m convolutions (arXiv:1901.09321)",
        zeroes=True,
        shrinks=True,
    ),
)
