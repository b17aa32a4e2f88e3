"""Automatic augmentation of single pictures: timm's policies under timm's names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

from PIL import Image
from timm.data import auto_augment

from resnet_variants.registry import UserError

Policy = Callable[[Image.Image], Image.Image]
_SETTINGS = {"translate_const": 100, "img_mean": (124, 116, 104)}  # timm's own for ImageNet


@functools.cache
def policy(name: str) -> Policy:
    """AutoAugment (``original``, ...), RandAugment (``rand-m9-mstd0.5``), AugMix or 3-Augment.

    The policy draws from the global random streams of Python and NumPy.

    Raises:
        ValueError: timm has no such policy, or cannot read a part of its name.
    """
    makers = {
        "rand": auto_augment.rand_augment_transform,
        "augmix": auto_augment.augment_and_mix_transform,
    }
    make = makers.get(name.split("-")[0], auto_augment.auto_augment_transform)
    try:
        return cast(Policy, make(name, _SETTINGS))
    except Exception as error:  # timm asserts, indexes and converts
        message = f"auto_augment {name!r} is none of timm's policies, such as rand-m6-mstd0.5-inc1"
        raise UserError(message, field="auto_augment") from error
