"""What a model takes besides its variant: nothing here changes parameters or MACs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import get_act_layer

from resnet_variants.models.branches import ORDERS
from resnet_variants.models.layers import NORMS, Layers
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError, refuse

LARGEST = 2**20  # channels and classes beyond it are slips of the finger


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """timm's constructor arguments that every variant takes.

    Raises:
        ValueError: a number out of range or an unknown choice.
    """

    num_classes: int = 1000
    in_chans: int = 3
    global_pool: str = "avg"  # '' leaves the features unpooled
    output_stride: int = 32  # a stage that would go beyond it dilates instead
    drop_rate: float = 0.0  # dropout before the classifier
    drop_path_rate: float = 0.0  # stochastic depth, rising linearly to this at the last unit
    drop_block_rate: float = 0.0  # DropBlock in the last two stages, as timm's ResNet has it
    norm_layer: str = "batch"  # or "group"
    act_layer: str = "relu"  # any of timm's
    zero_init_last: bool = False  # every branch starts as zero
    init_fan: str = "fan_out"  # or "fan_in": whose variance the initial convolutions keep
    gate_bias: float = -6.0  # initial b of the gates; -6 is the best of arXiv:1603.05027, table 1
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        for name, low in (("num_classes", 0), ("in_chans", 1)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= LARGEST:
                message = f"{name} {value!r} must be a whole number from {low} to {LARGEST}"
                raise UserError(message, field=name)
        for name in ("drop_rate", "drop_path_rate", "drop_block_rate"):
            if not 0 <= getattr(self, name) < 1:
                message = f"{name} {getattr(self, name)} must be at least 0 and below 1"
                raise UserError(message, field=name)
        for name, choices in (
            ("output_stride", (1, 2, 4, 8, 16, 32)),
            ("norm_layer", NORMS),
            ("init_fan", ("fan_out", "fan_in")),
        ):
            if getattr(self, name) not in choices:
                refuse(name, getattr(self, name), choices)
        try:
            get_act_layer(self.act_layer)
        except KeyError:
            message = f"unknown act_layer {self.act_layer!r}: timm has none of that name"
            raise UserError(message, field="act_layer") from None

    @property
    def layers(self) -> Layers:
        """The factory of the network's layers."""
        return Layers(self.norm_layer, self.act_layer, self.device, self.dtype)

    def check(self, variant: Variant) -> None:
        """Refuse what this variant cannot have.

        Raises:
            ValueError: says which and why.
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
        if self.zero_init_last and ORDERS[variant.order].ends_with == "act":
            raise UserError(
                f"zero_init_last: in order {variant.order!r} an activation ends the branch, and "
                "at zero it would pass no gradient",
                field="zero_init_last",
            )
