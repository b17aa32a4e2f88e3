"""Data sets of one's own: what a function in ``DATASETS`` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnet_variants.data.readers import TimmSource, given_parts
from resnet_variants.data.sources import MemorySource, Parts, as_picture
from resnet_variants.registry import UserError, shown


class Dataset:
    """Makes data sets. A function that a plugin enters in ``DATASETS`` returns one.

    Splits that are not given are drawn by class with a fixed seed, as for every other data set.
    """

    @staticmethod
    def from_tensors(
        images: Any,
        labels: Any,
        *,
        mirror: bool,
        classes: Sequence[str] = (),
        val: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
    ) -> MemorySource:
        """A data set in memory.

        Args:
            images: (N, C, H, H) uint8, a tensor or an array; C is 1 or 3.
            labels: (N,) whole numbers from 0.
            mirror: whether a mirrored image keeps its label.
            classes: their names by label; the numbers if empty.
            val: images and labels of the validation split.
            test: images and labels of the test split.

        Raises:
            ValueError: other shapes or types, or a label that is no class.
        """
        splits = _splits(train=(images, labels), val=val, test=test)
        pictures = {name: _pixels(name, split[0]) for name, split in splits.items()}
        shapes = {tuple(part.shape[1:]) for part in pictures.values()}
        if len(shapes) > 1:
            raise UserError(f"the images of the splits have several shapes: {shown(shapes)}")
        numbers = {name: _numbers(name, split[1]) for name, split in splits.items()}
        for name, part in numbers.items():
            if len(part) != len(pictures[name]):
                message = f"the split {name} has {len(pictures[name])} images and {len(part)}"
                raise UserError(f"{message} labels")
        every, names = _checked(numbers, classes)
        return MemorySource(torch.cat([*pictures.values()]), every, names, mirror, _parts(numbers))

    @staticmethod
    def from_torch(
        dataset: Any,
        *,
        mirror: bool,
        classes: Sequence[str] = (),
        val: Any = None,
        test: Any = None,
    ) -> TimmSource:
        """A data set of torch's kind, such as torchvision's: items are pictures with their labels.

        Labels are those of an attribute ``targets``, else all items are read for theirs. Pictures
        may have any size; ``--img-size`` is needed. They are read as RGB.

        Args:
            dataset: has a length; item i is (picture, label). A picture is PIL's, or a uint8 tensor
                (C, H, W) with C 1 or 3. Transforms must not draw random numbers.
            mirror: whether a mirrored image keeps its label.
            classes: their names by label; those of ``dataset.classes``, or the numbers, if empty.
            val: another such data set.
            test: another such data set.

        Raises:
            ValueError: items of another kind, or a label that is no class.
        """
        splits = _splits(train=dataset, val=val, test=test)
        for name, split in splits.items():
            if not (hasattr(split, "__len__") and hasattr(split, "__getitem__") and len(split)):
                message = f"the split {name} must have a length above 0 and items by number"
                raise UserError(f"{message}; it is {shown(split)}")
        readers = {name: _Pictures(name, split) for name, split in splits.items()}
        numbers = {name: _numbers(name, reader.labels) for name, reader in readers.items()}
        own = () if classes is None else tuple(classes)
        every, names = _checked(numbers, own or getattr(dataset, "classes", ()))
        return TimmSource(tuple(readers.values()), every, names, _parts(numbers), mirror)


class _Pictures:
    """The items of a data set, with PIL's pictures."""

    def __init__(self, split: str, items: Any) -> None:
        self.split, self.items = split, items
        self[0]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> np.ndarray:
        own = getattr(self.items, "targets", None)
        return np.asarray([self[i][1] for i in range(len(self))] if own is None else own)

    def filename(self, i: int) -> str:
        """What messages call a picture."""
        return f"item {i} of the split {self.split}"

    def __getitem__(self, i: int) -> tuple[Image.Image, Any]:
        item = self.items[i]
        if isinstance(item, tuple | list) and len(item) == 2:
            picture, label = item
            if isinstance(picture, Tensor) and picture.dtype == torch.uint8:
                _require_channels(picture.shape[0] if picture.ndim == 3 else 0, picture)
                picture = as_picture(picture)
            if isinstance(picture, Image.Image):
                return picture, label
        message = f"{self.filename(i)} must be a picture and its label; a picture"
        raise UserError(f"{message} is PIL's or a uint8 tensor (C, H, W). It is {shown(item)}")


def _splits(**given: Any) -> dict[str, Any]:
    return {name: split for name, split in given.items() if split is not None}


def _parts(numbers: dict[str, np.ndarray]) -> Parts:
    """Where the splits are; nothing where all images are one pool to draw them from."""
    return given_parts(**{n: len(p) for n, p in numbers.items()}) if len(numbers) > 1 else {}


def _pixels(split: str, images: Any) -> Tensor:
    pixels = torch.as_tensor(images)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        message = f"the images of the split {split} must be uint8 squares (N, C, H, H)"
        raise UserError(f"{message}; they are {pixels.dtype} {tuple(pixels.shape)}")
    _require_channels(pixels.shape[1], pixels)
    return pixels.contiguous()


def _require_channels(channels: int, pixels: Tensor) -> None:
    if channels not in (1, 3):
        message = "images have 1 or 3 channels, before height and width"
        raise UserError(f"{message}; these have the shape {tuple(pixels.shape)}")


def _numbers(split: str, labels: Any) -> np.ndarray:
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or found.ndim != 1:
        message = f"the labels of the split {split} must be whole numbers (N,)"
        raise UserError(f"{message}; they are {found.dtype} {found.shape}")
    return found.astype(np.int64)


def _checked(
    numbers: dict[str, np.ndarray], classes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """All labels, and the names of the classes; a label without a class is refused."""
    every = np.concatenate([*numbers.values()])
    names = tuple(map(str, classes)) or tuple(map(str, range(int(every.max(initial=-1)) + 1)))
    for split, part in numbers.items():
        wrong = np.flatnonzero((part < 0) | (part >= len(names)))
        if len(wrong):
            message = f"label {part[wrong[0]]} of image {wrong[0]} of the split {split} is no class"
            raise UserError(f"{message}: labels are 0 to {len(names) - 1}, for {', '.join(names)}")
    if len(names) < 2:
        raise UserError(f"a data set has two classes at least; this one has {len(names)}")
    return every, names
