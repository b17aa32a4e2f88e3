"""Data sets as uint8 tensors on the training device, and batches as a function of the seed.

Order and augmentation of an epoch depend on (seed, epoch, position) alone, never on the global
random state that initialisation consumes: with one seed, two variants see the same images.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_variants.registry import Registry
from resnet_variants.training.recipe import Recipe


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as uint8, labels (N,) as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, n: int) -> Split:
        """Its first ``n`` images."""
        return Split(self.images[:n], self.labels[:n])

    def to(self, device: torch.device) -> Split:
        """The same split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of square images, and what a network must know of them."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mirror: bool  # whether a mirrored image keeps its label
    mean: tuple[float, ...]  # of the training images, per channel in [0, 1]
    std: tuple[float, ...]
    split_hash: str  # of the indices in each split

    @property
    def img_size(self) -> int:
        """Side in pixels."""
        return self.train.images.shape[-1]

    @property
    def in_chans(self) -> int:
        """Channels."""
        return self.train.images.shape[1]

    def to(self, device: torch.device) -> Dataset:
        """The same data on a device."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "val", "test")}
        return replace(self, **splits)


@dataclass(frozen=True)
class Images:
    """A data set before it is split."""

    images: Tensor  # (N, C, H, W) uint8
    labels: np.ndarray
    classes: tuple[str, ...]
    mirror: bool


DATASETS: Registry[Callable[[], Images]] = Registry("data")


@DATASETS.register("digits")
def digits() -> Images:
    """1,797 handwritten digits of 8x8 grey pixels, embedded in scikit-learn (UCI, from NIST)."""
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    # 17 grey levels, 0 to 16, spread over a byte.
    images = torch.from_numpy(np.rint(source.images * (255 / 16)).astype(np.uint8))
    classes = tuple(str(name) for name in source.target_names)
    return Images(images[:, None], source.target, classes, mirror=False)


TEST_SHARE, VAL_SHARE = 1 / 3, 0.1  # of the images, and of what the test split leaves
SPLIT_SEED = 0  # one split for all runs: seeds vary training, not the test set


@functools.lru_cache(maxsize=4)
def load_dataset(name: str, *, img_size: int = 0) -> Dataset:
    """A named data set, split at random by class; ``img_size`` resizes, 0 keeps the native size.

    Raises:
        ValueError: no data set of that name.
    """
    from sklearn.model_selection import train_test_split

    source = DATASETS[name]()
    split = functools.partial(train_test_split, random_state=SPLIT_SEED)
    everything = np.arange(len(source.labels))
    rest, test = split(everything, test_size=TEST_SHARE, stratify=source.labels)
    train, val = split(rest, test_size=VAL_SHARE, stratify=source.labels[rest])
    indices = {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}
    images = _resized(source.images, img_size)
    pixels = images[indices["train"]].double() / 255
    std, mean = torch.std_mean(pixels, dim=(0, 2, 3))
    return Dataset(
        name=name,
        classes=source.classes,
        mirror=source.mirror,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        split_hash=_hash(indices),
        **{
            key: Split(images[index], torch.from_numpy(source.labels[index]).long())
            for key, index in indices.items()
        },
    )


def _hash(indices: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, index in indices.items():
        digest.update(name.encode() + index.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _resized(images: Tensor, side: int) -> Tensor:
    if side in (0, images.shape[-1]):
        return images
    out = torch.nn.functional.interpolate(
        images.float(), size=(side, side), mode="bilinear", antialias=True
    )
    return out.round().clamp(0, 255).to(torch.uint8)


# --- batches ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalise:
    """uint8 (N, C, H, W) -> float with the training images' mean 0 and deviation 1."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, data: Dataset, device: torch.device) -> Normalise:
        """From a data set's mean and std."""
        mean, std = (torch.tensor(x, device=device).view(-1, 1, 1) for x in (data.mean, data.std))
        return cls(scale=1 / (255 * std), shift=-mean / std)

    def __call__(self, images: Tensor) -> Tensor:
        """The images as a channels-last float tensor."""
        return torch.addcmul(self.shift, images, self.scale).contiguous(
            memory_format=torch.channels_last
        )


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random stream of one epoch's order and augmentation."""
    digest = hashlib.sha256(f"data {seed} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def train_batches(
    data: Dataset, recipe: Recipe, *, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: uint8 images, shifted and maybe mirrored, and their labels.

    The images left over by the last full batch sit out; another order leaves others.
    """
    split, padding = data.train, round(recipe.crop_padding * data.img_size)
    n, device, batch_size = len(split), split.labels.device, recipe.batch_size
    generator = epoch_generator(seed, epoch)
    order = torch.randperm(n, generator=generator)
    shifts = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
    flips = torch.randint(0, 2, (n,), generator=generator).bool() & data.mirror
    order, shifts, flips = order.to(device), shifts.to(device), flips.to(device)
    padded = torch.nn.functional.pad(split.images, [padding] * 4)
    for i in range(0, n - batch_size + 1, batch_size):
        at = slice(i, i + batch_size)
        images = cropped(padded[order[at]], shifts[:, at], data.img_size)
        if data.mirror:
            images = torch.where(flips[at].view(-1, 1, 1, 1), images.flip(-1), images)
        yield images, split.labels[order[at]]


def cropped(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side), image i from row ``corners[0, i]``, column [1, i]."""
    steps = torch.arange(side, device=images.device)
    rows = (corners[0, :, None] + steps)[:, None, :, None]
    columns = (corners[1, :, None] + steps)[:, None, None, :]
    n, chans = images.shape[:2]
    index = torch.arange(n, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(chans, device=images.device).view(1, -1, 1, 1)
    return images[index, channel, rows, columns]
