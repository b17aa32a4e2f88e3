"""Augmentation of a whole batch at once; every image has its own random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn.functional import interpolate

from resnet_variants.data.dataset import Dataset
from resnet_variants.training.recipe import Recipe


def cropped(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side), image i from row ``corners[0, i]``, column [1, i]."""
    windows = images.unfold(2, side, 1).unfold(3, side, 1)  # a view: nothing is copied yet
    each = torch.arange(len(images), device=images.device)
    return windows[each, :, corners[0], corners[1]]


_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def jittered(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation scaled by factors within 1 ± ``strength``.

    Args:
        images: (N, C, H, W) uint8.
        draws: (N, 3) uniform in [0, 1).
        strength: timm's ``color_jitter``, which does not change hue either.

    Values beyond black and white are clipped once, at the end.
    """
    factors = (1 + strength * (2 * draws - 1)).view(-1, 3, 1, 1, 1).unbind(1)
    pixels = images.float() * factors[0]
    pixels = torch.lerp(_grey(pixels).mean((2, 3), keepdim=True), pixels, factors[1])
    pixels = torch.lerp(_grey(pixels), pixels, factors[2])
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = (share * pixels[:, i : i + 1] for i, share in enumerate(_LUMA))
    return red + green + blue


def cut_out(images: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Paint over a square of every image (arXiv:1708.04552), which may reach beyond the edge.

    Args:
        images: (N, C, H, W) uint8.
        centres: (2, N) uniform in [0, 1): row and column.
        side: of the square, in pixels.
        fill: (C,), the data set's mean, which normalisation makes zero.
    """
    first = (centres * images.shape[-1]).long() - side // 2
    steps = torch.arange(images.shape[-1], device=images.device)
    rows, columns = ((steps >= start[:, None]) & (steps < start[:, None] + side) for start in first)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, fill.view(-1, 1, 1), images)


# --- in floating point -------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalise:
    """uint8 (N, C, H, W) -> float with the data set's ``mean`` at 0 and its ``std`` at 1."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, data: Dataset, device: torch.device) -> Normalise:
        """With a data set's mean and std."""
        mean, std = (torch.tensor(x, device=device).view(-1, 1, 1) for x in (data.mean, data.std))
        return cls(scale=1 / (255 * std), shift=-mean / std)

    def __call__(self, images: Tensor) -> Tensor:
        """The images as a channels-last float tensor."""
        return torch.addcmul(self.shift, images, self.scale).contiguous(
            memory_format=torch.channels_last
        )


def scaled(images: Tensor, share: float) -> Tensor:
    """(N, C, H, W) float with both sides multiplied by ``share`` and rounded."""
    side = max(1, round(share * images.shape[-1]))
    if side == images.shape[-1]:
        return images
    small = interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Mixing:
    """timm's Mixup and CutMix; the global random stream they use is seeded for each batch."""

    mixup: Mixup

    @classmethod
    def of(cls, recipe: Recipe, classes: int) -> Mixing | None:
        """The recipe's mixing; ``None`` if it has neither Mixup nor CutMix."""
        if not (recipe.mixup or recipe.cutmix):
            return None
        return cls(
            Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
            )
        )

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Images mixed in pairs, and soft targets (N, classes)."""
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            return self.mixup(images, labels)
        finally:
            np.random.set_state(before)
