"""The arguments of a model besides its variant. None of them is part of a network's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias, cast

import torch

from resnet_variants.models.layers import Gate, Layers
from resnet_variants.models.shortcuts import SKIPS
from resnet_variants.models.variant import Variant, scale_fault
from resnet_variants.registry import UserError, plain, require, shown
from resnet_variants.settings import CHANNELS, FINITE, Fraction, Head, InitFan, Range, check_fields

LARGEST = 2**20  # more pixels, channels or classes are a typing error
Pool: TypeAlias = Literal["avg", "max", "avgmax", "catavgmax"]
FastPool: TypeAlias = Literal["fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax"]


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """timm's constructor arguments, for every variant, and two for initial weights.

    Raises:
        ValueError: a number out of range or an unknown choice.
    """

    num_classes: Annotated[int, Range(0, LARGEST)] = 1000
    in_chans: Annotated[int, Range(1, LARGEST)] = CHANNELS
    global_pool: Literal["", Pool, FastPool] = "avg"  # '' leaves the features unpooled
    output_stride: Literal[1, 2, 4, 8, 16, 32] = 32  # a stage dilates instead of exceeding it
    drop_rate: Fraction = 0.0  # dropout before the classifier
    drop_path_rate: Fraction = 0.0  # stochastic depth, rising linearly to this at the last unit
    drop_block_rate: Fraction = 0.0  # DropBlock in the last two stages, as timm's ResNet has it
    zero_init_last: bool = False  # every branch starts as zero (timm's ResNet: True)
    init_fan: InitFan = "fan_out"  # whose variance the initial convolutions keep
    conv_bias: bool = False  # biases of convolutions that norms follow; norms subtract them
    head: Head = "linear"  # bn_linear: a batch norm of the pooled features before the classifier
    # Initial b of the gates; -6 is the best of arXiv:1603.05027, table 1.
    gate_bias: Annotated[float, FINITE] = -6.0
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _check_factory_kwargs(self.device, self.dtype)

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
        if variant.is_plain and self.drop_path_rate:
            message = "drop_path_rate needs a shortcut: without one nothing would pass a unit"
            raise UserError(message, field="drop_path_rate")
        parts = SKIPS[variant.skip](1, Layers(device="meta")).values()
        gated = any(isinstance(part, Gate) for part in parts)
        if self.gate_bias != type(self).gate_bias and not gated:
            message = f"gate_bias is that of gates, and skip {variant.skip!r} has none"
            raise UserError(message, field="gate_bias")
        if self.zero_init_last:
            _check_zero_init(variant)


def _check_zero_init(variant: Variant) -> None:
    """``zero_init_last`` is the axis' choice ``zero_gamma``, as an argument and in a recipe."""
    fault = scale_fault(variant, "zero_gamma")
    if variant.branch_scale != type(variant).branch_scale:
        fault = f"goes with branch_scale 'none' only, not with {variant.branch_scale!r}"
    if fault:
        raise UserError(f"zero_init_last {fault}", field="zero_init_last")


# timm's arguments that are axes of a variant here.
AXIS_OF = {"norm_layer": "norm", "act_layer": "act"}


def with_axes(variant: Variant, model_args: Mapping[str, Any]) -> tuple[Variant, dict[str, Any]]:
    """The variant with the axes that timm's arguments choose, and the arguments that are left.

    Raises:
        ValueError: names the argument and the reason.
    """
    left = dict(model_args)
    for argument, axis in AXIS_OF.items():
        choice = left.pop(argument, None)  # timm passes None for "not given"
        try:
            variant = variant if choice is None else replace(variant, **{axis: choice})
        except UserError as error:
            raise UserError(f"{argument}: {error}", field=argument) from error
    return variant, left


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


def _check_factory_kwargs(device: object, dtype: object) -> None:
    """Refuse an unknown device, and a dtype that is not floating-point."""
    require("device", "cpu" if device is None else device, (str, torch.device), "a device's name")
    try:
        torch.device(cast(str, "cpu" if device is None else device))
    except RuntimeError as error:
        message = f"unknown device {shown(device)}: torch has none of that name"
        raise UserError(message, field="device") from error
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        message = f"dtype {shown(dtype)} must be a floating-point type, such as torch.float32"
        raise UserError(message, field="dtype")
