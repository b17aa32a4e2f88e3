"""Augmentation of a whole batch at once; every image has its own random numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn.functional import interpolate

from resnet_variants.data.dataset import Cut, Dataset
from resnet_variants.data.images import middle, shorter_edge
from resnet_variants.data.sources import Picture, Unlabelled
from resnet_variants.registry import UserError, blamed, file_of
from resnet_variants.training.recipe import AUGMENTATIONS, Recipe


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


# --- of one's own ------------------------------------------------------------------------------


def augmented(name: str, images: Tensor, stream: torch.Generator) -> Tensor:
    """The images after an augmentation that a plugin registered.

    Args:
        name: in ``AUGMENTATIONS``.
        images: (N, C, H, W) uint8.
        stream: on the CPU, so that its numbers are the same on every device.

    Raises:
        UserError: what it returns is no uint8 batch of the same shape on the same device.
    """
    altered: object = AUGMENTATIONS[name](images, stream)
    asked = (images.dtype, images.shape, images.device)
    if not isinstance(altered, Tensor) or (altered.dtype, altered.shape, altered.device) != asked:
        kind = type(altered).__name__
        if isinstance(altered, Tensor):
            kind = f"{altered.dtype} {tuple(altered.shape)} on {altered.device}"
        message = f"augment {name!r} must return uint8 images {tuple(images.shape)} on"
        raise UserError(f"{message} {images.device}; it returned {kind}", field="augment")
    return altered


def check_augment(name: str, shape: tuple[int, int, int]) -> None:
    """Try an augmentation on noise (8, C, H, W), before anything is trained.

    Raises:
        UserError: it fails, returns something else than such a batch, or draws from another random
            stream than its own: arms with the same seed would see other images.
    """
    entry, seen = AUGMENTATIONS[name], list[Tensor]()
    noise = torch.randint(0, 256, (8, *shape), generator=_stream(0)).to(torch.uint8)
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        for seed in (1, 2):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            seen.append(augmented(name, noise.clone(), _stream(0)))
    except UserError:
        raise
    except Exception as error:  # of code that is not ours
        reason = blamed(error, file_of(entry))
        message = f"augment {name!r} fails on images {tuple(noise.shape)}: {reason}"
        raise UserError(message, field="augment") from error
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
    if not torch.equal(*seen):
        message = f"augment {name!r} draws from another random stream than the one it is given"
        raise UserError(f"{message}: pass generator= to every draw", field="augment")


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- in floating point -------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalise:
    """uint8 (N, C, H, W) -> float with the data set's ``mean`` at 0 and its ``std`` at 1."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, data: Dataset | Preparation, device: torch.device) -> Normalise:
        """With a data set's mean and std."""
        mean, std = (torch.tensor(x, device=device).view(-1, 1, 1) for x in (data.mean, data.std))
        return cls(scale=1 / (255 * std), shift=-mean / std)

    def __call__(self, images: Tensor) -> Tensor:
        """The images as a channels-last float tensor."""
        return torch.addcmul(self.shift, images, self.scale).contiguous(
            memory_format=torch.channels_last
        )


@dataclass(frozen=True)
class Preparation:
    """Prepares pictures as test images are; mean and deviation are those of each channel."""

    img_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def in_chans(self) -> int:
        """Channels of an image, 1 or 3."""
        return len(self.mean)

    @property
    def cut(self) -> Cut:
        """Side of an image, and shorter edge of the picture that it is the middle of."""
        return self.img_size, shorter_edge(self.img_size, self.crop_pct)

    def __call__(self, image: Picture) -> Tensor:
        """A picture of PIL's, as it was opened, or a path -> float32 (C, side, side).

        Raises:
            ValueError: it cannot be decoded.
        """
        picture = Unlabelled([image], self.in_chans).picture(0)
        pixels = torch.from_numpy(np.array(middle(picture, *self.cut)))
        return Normalise.of(self, pixels.device)(pixels[None])[0]


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
