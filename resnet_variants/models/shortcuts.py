"""The path beside a branch: shortcuts that change shape, and functions of the shortcut.

To add one, write one function below ``SHORTCUTS`` or ``SKIPS``. What ``layers`` does not make, it
imports itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_variants.registry import Registry

if TYPE_CHECKING:  # commands read these tables before they load torch
    from torch import nn

    from resnet_variants.models.layers import Layers


@dataclass(frozen=True)
class Change:
    """The change of shape from a unit's input to its output."""

    w_in: int
    w_out: int
    stride: int
    dilation: int = 1  # > 1 where ``output_stride`` turned strides into dilation
    dilation_in: int = 1  # of the unit before; used before the strided convolution

    @property
    def keeps_shape(self) -> bool:
        """Whether the shortcut may be the identity."""
        return self.stride == 1 and self.w_in == self.w_out


# An entry returns the layers of a unit's shortcut: an empty list for the identity, ``None`` for no
# shortcut. A norm follows a shortcut with parameters if the order has ``project="norm"``.
SHORTCUTS: Registry[Callable[[Change, Layers], list[nn.Module] | None]] = Registry("shortcut")


@SHORTCUTS.register("conv")
def conv(change: Change, layers: Layers) -> list[nn.Module]:
    """1x1 convolution with the unit's stride: He's option B (arXiv:1512.03385, section 3.3)."""
    if change.keeps_shape:
        return []
    return [layers.conv(change.w_in, change.w_out, 1, stride=change.stride)]


@SHORTCUTS.register("avgpool")
def avgpool(change: Change, layers: Layers) -> list[nn.Module]:
    """2x2 mean, then 1x1 convolution: ResNet-D (arXiv:1812.01187, fig. 2c).

    Ceil mode and uncounted padding give odd maps the size of the branch's padded 3x3/2. There is no
    pool where only the width changes. A dilated stage keeps the mean, with stride 1 and a zero
    border, as in timm.
    """
    if change.keeps_shape:
        return []
    pools = change.stride > 1 or change.dilation > 1
    pool = layers.mean(2, change.stride) if pools else layers.identity()
    return [pool, layers.conv(change.w_in, change.w_out, 1)]


@SHORTCUTS.register("pad")
def pad(change: Change, layers: Layers) -> list[nn.Module]:
    """Subsampling and zero channels: He's option A (arXiv:1512.03385, section 3.3).

    The zeros follow the channels, as in the authors' code.
    """
    if change.keeps_shape:
        return []
    return [layers.pad(change.w_out - change.w_in, change.stride)]


@SHORTCUTS.register("conv_all")
def conv_all(change: Change, layers: Layers) -> list[nn.Module]:
    """1x1 convolution at every unit: He's option C (arXiv:1512.03385, section 3.3)."""
    return [layers.conv(change.w_in, change.w_out, 1, stride=change.stride)]


@SHORTCUTS.register("none")
def plain(change: Change, layers: Layers) -> None:
    """No shortcut anywhere: the plain nets of arXiv:1512.03385, fig. 3 (middle)."""


# --- skip functions (arXiv:1603.05027, fig. 2 and table 1) ------------------------------------

# An entry returns the modules that every unit applies before the addition: ``skip`` to the
# shortcut, ``scale`` to the branch. ``gate`` gets the shortcut and returns g; then the unit adds
# g * branch and (1 - g) * shortcut.
SKIPS: Registry[Callable[[int, Layers], dict[str, nn.Module]]] = Registry("skip")


@SKIPS.register("identity")
def identity(width: int, layers: Layers) -> dict[str, nn.Module]:
    """Branch + shortcut (fig. 2a)."""
    return {}


@SKIPS.register("scale")
def scale(width: int, layers: Layers) -> dict[str, nn.Module]:
    """Branch + 0.5 shortcut: constant scaling (fig. 2b)."""
    return {"skip": layers.scale(0.5)}


@SKIPS.register("scale_both")
def scale_both(width: int, layers: Layers) -> dict[str, nn.Module]:
    """0.5 branch + 0.5 shortcut: constant scaling (fig. 2b)."""
    return {"skip": layers.scale(0.5), "scale": layers.scale(0.5)}


@SKIPS.register("exclusive_gate")
def exclusive_gate(width: int, layers: Layers) -> dict[str, nn.Module]:
    """Exclusive gating: g branch + (1 - g) shortcut (fig. 2c)."""
    return {"gate": layers.gate(width)}


@SKIPS.register("shortcut_gate")
def shortcut_gate(width: int, layers: Layers) -> dict[str, nn.Module]:
    """Shortcut-only gating: branch + (1 - g) shortcut (fig. 2d)."""
    return {"skip": layers.shortcut_gate(width)}


@SKIPS.register("conv")
def conv_skip(width: int, layers: Layers) -> dict[str, nn.Module]:
    """1x1 convolution (fig. 2e): another spelling of the shortcut ``conv_all``."""
    return {}


@SKIPS.register("dropout")
def dropout(width: int, layers: Layers) -> dict[str, nn.Module]:
    """Branch + dropout of the shortcut, rate 0.5 (fig. 2f)."""
    return {"skip": layers.dropout(0.5)}
