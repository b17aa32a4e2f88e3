"""How any network is trained: everything that is not the variant, the data or the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resnet_variants.registry import UserError, refuse, require_types

PRECISIONS = ("auto", "fp32", "bf16")
_LARGEST = 1_000_000
_BELOW = {"momentum": 1, "weight_decay": math.inf, "warmup": 1, "crop_padding": 1}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """SGD with Nesterov momentum, linear warm-up, then a cosine down to zero.

    The defaults are also the reference of run ids: a run's id names what differs from them.

    Raises:
        ValueError: a number out of range; the message names field, value and range.
    """

    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.1  # at the end of the warm-up
    momentum: float = 0.9
    weight_decay: float = 5e-4  # on tensors with more than one dimension
    warmup: float = 0.1  # share of all steps
    crop_padding: float = 0.125  # of the side: 4 px at 32 px (arXiv:1512.03385, section 4.2)
    precision: str = "auto"  # bf16 autocast where the device has bf16 instructions, else fp32
    deterministic: bool = False

    def __post_init__(self) -> None:
        require_types(self)
        for name, low in (("epochs", 1), ("batch_size", 2)):
            value = getattr(self, name)
            if not low <= value <= _LARGEST:
                message = f"{name} {value!r} must be from {low} to {_LARGEST}"
                raise UserError(message, field=name)
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr {self.lr!r} must be a positive number", field="lr")
        for name, high in _BELOW.items():
            value = getattr(self, name)
            if not 0 <= value < high:
                message = f"{name} {value!r} must be at least 0 and below {high}"
                raise UserError(message, field=name)
        for name in ("lr", *_BELOW):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one recipe
        if self.precision not in PRECISIONS:
            refuse("precision", self.precision, PRECISIONS)
