"""The batches of an epoch: order, crops, flips and the other augmentation.

They depend on (seed, epoch, position) alone, never on the global random state that initialisation
consumes: with the same seed, two variants see the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import Batch
from resnet_variants.training.augment import augmented, cropped, cut_out, jittered
from resnet_variants.training.recipe import Recipe


def generator(*key: object) -> torch.Generator:
    """The random stream of a key, such as seed and epoch."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one epoch; entry i is for the i-th image of the epoch."""

    order: Tensor  # (n,)
    shifts: Tensor  # (2, n) pixels
    mirrored: Tensor  # (n,) bool
    crops: Tensor  # (n, 4) uniform
    jitter: Tensor  # (n, 3) uniform: brightness, contrast, saturation
    cutouts: Tensor  # (2, n) uniform: rows and columns of the centres
    seeds: Tensor  # (n,)

    @classmethod
    def of(cls, n: int, recipe: Recipe, padding: int, seed: int, epoch: int) -> Draws:
        """Draw an epoch's numbers. Draw a new kind last, so that the others do not change."""
        stream = generator("data", seed, epoch)
        order = torch.randperm(n, generator=stream)
        shifts = torch.randint(0, 2 * padding + 1, (2, n), generator=stream)
        mirrored = torch.randint(0, 2, (n,), generator=stream).bool()
        if recipe.flip == "alternating":
            # A coin for each image in the first epoch; then every other epoch mirrors it.
            coins = torch.randint(0, 2, (n,), generator=generator("flip", seed))
            mirrored = (coins[order] + epoch) % 2 == 1
        return cls(
            order=order,
            shifts=shifts,
            mirrored=mirrored,
            crops=torch.rand(n, 4, generator=stream),
            jitter=torch.rand(n, 3, generator=stream),
            cutouts=torch.rand(2, n, generator=stream),
            seeds=torch.randint(0, 2**31, (n,), generator=stream),
        )


@dataclass(frozen=True)
class Share:
    """The part of every batch that process ``rank`` of ``world`` computes."""

    rank: int = 0
    world: int = 1

    def chunks(self, recipe: Recipe) -> list[slice]:
        """The slices of a batch that are this process's micro-batches, in order."""
        size = recipe.batch_size // (self.world * recipe.accumulate)
        firsts = [(k * self.world + self.rank) * size for k in range(recipe.accumulate)]
        return [slice(first, first + size) for first in firsts]


WHOLE = Share()


def train_batches(
    data: Dataset, recipe: Recipe, *, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """One epoch in random order from step ``start``: uint8 images (n, C, H, W) and labels (n,).

    The images after the last full batch are left out; they are others in each epoch.
    """
    n, side = len(data.train), data.img_size
    padding = 0 if recipe.crop_area else round(recipe.crop_padding * side)
    draws = Draws.of(n, recipe, padding, seed, epoch)
    firsts = range(start * recipe.batch_size, n - recipe.batch_size + 1, recipe.batch_size)
    places = [
        slice(first + chunk.start, first + chunk.stop)
        for first in firsts
        for chunk in share.chunks(recipe)
    ]
    device = data.train.labels.device
    flips = draws.mirrored.to(device) if data.mirror and recipe.flip != "none" else None
    order, shifts, jitter, cutouts = (
        x.to(device) for x in (draws.order, draws.shifts, draws.jitter, draws.cutouts)
    )
    plan = [_batch(order[at], draws, recipe, at) for at in places]
    grey = (255 * torch.tensor(data.mean, device=device)).round().to(torch.uint8)
    for at, images in zip(places, data.train.batches(plan), strict=True):
        if padding:
            images = cropped(pad(images, [padding] * 4), shifts[:, at], side)
        if flips is not None:
            images = torch.where(flips[at].view(-1, 1, 1, 1), images.flip(-1), images)
        if recipe.color_jitter:
            images = jittered(images, jitter[at], recipe.color_jitter)
        if recipe.cutout:
            images = cut_out(images, cutouts[:, at], round(recipe.cutout * side), grey)
        if recipe.augment:
            # Of the step, not of the epoch: a run that is continued sees the same.
            own = generator("augment", seed, epoch, at.start)
            images = augmented(recipe.augment, images, own)
        yield images, data.train.labels[order[at]]


def _batch(order: Tensor, draws: Draws, recipe: Recipe, at: slice) -> Batch:
    return Batch(
        order,
        crops=draws.crops[at] if recipe.crop_area else None,
        least_area=recipe.crop_area,
        policy=recipe.auto_augment,
        seeds=draws.seeds[at],
    )
