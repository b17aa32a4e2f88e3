"""A measurement of a network, and the images it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from resnet_variants.models.network import ResNet


@dataclass(frozen=True)
class Chosen:
    """The validation images whose class maps are drawn.

    Attributes:
        places: in the validation split.
        pixels: (N, C, H, W) uint8.
        images: the same, normalised.
        labels: class numbers.
        classes: names by number.
    """

    places: Sequence[int]
    pixels: Tensor
    images: Tensor
    labels: Sequence[int]
    classes: Sequence[str]


@dataclass(frozen=True)
class Sample:
    """Validation images and the settings of the random draws.

    Attributes:
        images: (N, C, H, W), normalised.
        labels: (N,).
        std: (C,), the deviation that the images were divided by.
        batch_size: images at a time.
        draws: random deletions and exchanges of each size.
        paths: paths of each length.
        seed: of all random draws.
        chosen: further images, for class maps.
    """

    images: Tensor
    labels: Tensor
    std: Tensor
    batch_size: int
    draws: int
    paths: int
    seed: int
    chosen: Chosen

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """The first batch of images and labels."""
        return self.images[: self.batch_size], self.labels[: self.batch_size]


@dataclass(frozen=True)
class Measure:
    """How one table of a diagnosis is measured.

    Attributes:
        rows: the table's rows for one network; ``None`` where there is nothing to measure.
        every_state: measure the initial weights and the snapshots too, not the trained ones alone.
        full_precision: measure in float32; otherwise in the precision of the training.
    """

    rows: Callable[[ResNet, Sample], pd.DataFrame | None]
    every_state: bool = False
    full_precision: bool = True
