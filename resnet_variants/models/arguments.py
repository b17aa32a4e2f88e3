"""The arguments of a model besides its variant. None of them is part of a network's name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import cast

import torch
from timm.layers import create_act_layer

from resnet_variants.models.branches import ORDERS
from resnet_variants.models.layers import NORMS, Gate, Layers
from resnet_variants.models.shortcuts import SKIPS
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError, plain, refuse, require, shown

LARGEST = 2**20  # more pixels, channels or classes are a typing error
_POOLS = ("avg", "max", "avgmax", "catavgmax")
_CHOICES: Mapping[str, Iterable[object]] = {
    "global_pool": ("", *_POOLS, "fast", *(f"fast{pool}" for pool in _POOLS)),
    "output_stride": (1, 2, 4, 8, 16, 32),
    "norm_layer": NORMS,
    "zero_init_last": (False, True),
    "init_fan": ("fan_out", "fan_in"),
    "head": ("linear", "bn_linear"),
}


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """timm's constructor arguments, for every variant, and two for initial weights.

    Raises:
        ValueError: a number out of range or an unknown choice.
    """

    num_classes: int = 1000
    in_chans: int = 3
    global_pool: str = "avg"  # '' leaves the features unpooled
    output_stride: int = 32  # a stage dilates instead of exceeding it
    drop_rate: float = 0.0  # dropout before the classifier
    drop_path_rate: float = (
        0.0  # stochastic depth; the rate rises linearly to this at the last unit
    )
    drop_block_rate: float = 0.0  # DropBlock in the last two stages, as in timm's ResNet
    norm_layer: str = "batch"  # or "group"
    act_layer: str = "relu"  # any of timm's
    zero_init_last: bool = False  # every branch starts as zero (timm's ResNet: True)
    init_fan: str = "fan_out"  # or "fan_in": mode of the Kaiming initialisation
    head: str = "linear"  # or "bn_linear": a batch norm of the pooled features before it
    gate_bias: float = -6.0  # initial b of the gates; -6 is the best of arXiv:1603.05027, table 1
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        for name, low in (("num_classes", 0), ("in_chans", 1)):
            require_count(name, getattr(self, name), low)
        for name in ("drop_rate", "drop_path_rate", "drop_block_rate"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < 1:
                message = f"{name} {shown(value)} must be a number of at least 0 and below 1"
                raise UserError(message, field=name)
        if type(self.gate_bias) not in (int, float) or not math.isfinite(self.gate_bias):
            message = f"gate_bias {shown(self.gate_bias)} must be a finite number"
            raise UserError(message, field="gate_bias")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                refuse(name, value, choices)
        _check_activation(self.act_layer)
        _check_factory_kwargs(self.device, self.dtype)

    @property
    def layers(self) -> Layers:
        """The factory of the network's layers."""
        return Layers(self.norm_layer, self.act_layer, self.device, self.dtype)

    def check(self, variant: Variant) -> None:
        """Refuse arguments that this variant cannot have.

        Raises:
            ValueError: names the argument and the reason.
        """
        if self.output_stride < variant.stem_stride:
            raise UserError(
                f"output_stride {self.output_stride} is below the stem's stride "
                f"{variant.stem_stride}",
                field="output_stride",
            )
        if variant.is_plain:
            for name in ("drop_path_rate", "zero_init_last"):
                if getattr(self, name):
                    message = f"{name} needs a shortcut: without one nothing would pass a unit"
                    raise UserError(message, field=name)
        parts = SKIPS[variant.skip](1, Layers(device="meta")).values()
        gated = any(isinstance(part, Gate) for part in parts)
        if self.gate_bias != type(self).gate_bias and not gated:
            message = f"gate_bias is that of gates, and skip {variant.skip!r} has none"
            raise UserError(message, field="gate_bias")
        if self.zero_init_last and ORDERS[variant.order].ends_with == "act":
            raise UserError(
                f"zero_init_last: in order {variant.order!r} an activation ends the branch, and "
                "at zero it would pass no gradient",
                field="zero_init_last",
            )


def require_count(name: str, value: object, low: int) -> int:
    """The value as Python's ``int``, from ``low`` to ``LARGEST``.

    Raises:
        ValueError: another value.
    """
    count = plain(value)
    if type(count) is not int or not low <= count <= LARGEST:
        message = f"{name} {shown(value)} must be a whole number from {low} to {LARGEST}"
        raise UserError(message, field=name)
    return count


def _check_activation(name: str) -> None:
    """Refuse a name that is no activation of timm's, or an activation with parameters."""
    try:
        layer = create_act_layer(name) if isinstance(name, str) else None
    except KeyError:
        layer = None
    if layer is None:
        raise UserError(
            f"unknown act_layer {shown(name)}: timm has none of that name", field="act_layer"
        )
    if any(True for _ in layer.parameters()):
        message = f"act_layer {name!r} has parameters: a network's name would not tell them"
        raise UserError(message, field="act_layer")


def _check_factory_kwargs(device: object, dtype: object) -> None:
    """Refuse an unknown device, and a dtype that is not floating-point."""
    require("device", "cpu" if device is None else device, (str, torch.device), "a device's name")
    try:
        torch.device(cast(str, device or "cpu"))
    except RuntimeError as error:
        message = f"unknown device {shown(device)}: torch has none of that name"
        raise UserError(message, field="device") from error
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        message = f"dtype {shown(dtype)} must be a floating-point type, such as torch.float32"
        raise UserError(message, field="dtype")
