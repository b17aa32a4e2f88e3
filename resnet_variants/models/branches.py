"""The branch of a residual unit: its convolutions, and the layers around them.

To add an activation order, write one line below ``ORDERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_variants.registry import Registry, UserError, refuse

if TYPE_CHECKING:  # commands read these tables before they load torch
    from torch import nn

    from resnet_variants.models.layers import Layers


@dataclass(frozen=True)
class Block:
    """The convolutions of a residual unit (arXiv:1512.03385, fig. 5; arXiv:1605.07146, table 3)."""

    kernels: tuple[int, ...]
    expansion: int  # width of the last convolution over that of the others


BLOCKS = Registry(
    "block",
    basic=Block(kernels=(3, 3), expansion=1),
    bottleneck=Block(kernels=(1, 3, 1), expansion=4),
    basic1=Block(kernels=(3,), expansion=1),
    basic3=Block(kernels=(3, 3, 3), expansion=1),
    basic4=Block(kernels=(3, 3, 3, 3), expansion=1),
)

# Which convolution of a downsampling unit carries stride 2, by its kernel: the first 1x1
# (ResNet-A, arXiv:1512.03385) or the 3x3 (ResNet-B, "v1.5", arXiv:1812.01187, fig. 2a).
STRIDES = Registry("stride", **{"1x1": 1, "3x3": 3})


@dataclass(frozen=True)
class Order:
    """Where norm and activation sit (arXiv:1603.05027, fig. 4); ``+`` is the addition.

    A line may hold the words ``norm`` and ``act`` any number of times. A second norm at the second
    convolution is called ``bn2b``.

    Raises:
        ValueError: another word; a line around a convolution without one ``conv``; a last line
            without one ``+`` after its ``conv``.
    """

    unit: str  # around every convolution of the branch but the last
    last: str  # around the last convolution
    stem: str = "norm act"  # after the last convolution of the stem
    head: str = ""  # before global pooling
    project: str = "norm"  # after the convolution of a projection shortcut

    def __post_init__(self) -> None:
        once = {"unit": ["conv"], "last": ["conv", "+"], "stem": [], "head": []}
        for field, needed in once.items():
            line = getattr(self, field)
            for word in line.split():
                if word not in ("norm", "act", *needed):
                    what = f"word in the order's {field} {line!r}:"
                    refuse(what, word, ["norm", "act", *needed], field=field)
            if [word for word in line.split() if word in needed] != needed:
                message = f"the order's {field} {line!r} must hold {', then '.join(needed)}, once"
                raise UserError(message, field=field)
        if self.project not in ("", "norm"):
            refuse("project", self.project, ["", "norm"], field="project")

    @property
    def ends_with(self) -> str:
        """The branch's last layer before the addition: ``conv``, ``norm`` or ``act``."""
        return self.last.partition("+")[0].split()[-1]


# (a) to (e) of fig. 4, which shows identity shortcuts only: they carry the unit's input. (In the
# authors' code that of the very first unit is activated too.) A projection shortcut gets the input
# of the branch's first convolution; in `relu_preact` and `preact` that is activated, as in the
# authors' code and timm's ResNetV2. It has a norm where the branch has one just before the
# addition, so that both summands have one scale: not in (b) and not in (e).
ORDERS = Registry(
    "order",
    post=Order("conv norm act", "conv norm + act"),
    bn_after_add=Order("conv norm act", "conv + norm act", project=""),
    relu_before_add=Order("conv norm act", "conv norm act +"),
    relu_preact=Order("act conv norm", "act conv norm +", stem="norm", head="act"),
    preact=Order("norm act conv", "norm act conv +", stem="", head="norm act", project=""),
)


# --- attention: the last layer before the addition --------------------------------------------

ATTENTIONS: Registry[Callable[[int, Layers], nn.Module | None]] = Registry("attention")


@ATTENTIONS.register("none")
def no_attention(width: int, layers: Layers) -> None:
    """No attention."""


@ATTENTIONS.register("se")
def se(width: int, layers: Layers) -> nn.Module:
    """Squeeze and excitation, 1/16 of the channels but at least 8 (arXiv:1709.01507)."""
    return layers.attention("se", width)


@ATTENTIONS.register("eca")
def eca(width: int, layers: Layers) -> nn.Module:
    """Efficient channel attention (arXiv:1910.03151)."""
    return layers.attention("eca", width)


# --- anti-aliasing: a branch's strided convolution takes stride 1, and a filter downsamples ---


@dataclass(frozen=True)
class AntiAlias:
    """A filter that downsamples in place of a convolution's stride."""

    text: str
    down: Callable[[int, int, Layers], nn.Module]  # of width and stride
    keeps_max: bool  # whether the stem keeps its max-pool, at stride 1, before the filter


def _blur(width: int, stride: int, layers: Layers) -> nn.Module:
    return layers.blur(width, stride)


def _mean(width: int, stride: int, layers: Layers) -> nn.Module:
    return layers.mean(stride, stride)  # odd maps keep the size of the shortcut (timm floors)


ANTIALIASES: Registry[AntiAlias | None] = Registry(
    "antialias",
    none=None,
    blur=AntiAlias(
        "3x3 binomial filter (arXiv:1904.11486), in branches and stem pool as timm has it",
        _blur,
        keeps_max=True,
    ),
    avg=AntiAlias("2x2 mean (timm's resnetaa)", _mean, keeps_max=False),
)
