"""What is wrong with a data set, found by decoding every picture of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from resnet_variants.training.data import split_indices
from resnet_variants.training.images import BadImageError
from resnet_variants.training.sources import Source


@dataclass
class Audit:
    """Everything that was found.

    Attributes:
        counts: images by split and class, broken ones included.
        sizes: images by width and height in pixels.
        broken: by split, a line on each picture that cannot be used.
        twice: pairs of names whose pixels are equal, at least one of them outside of training:
            what is tested on must not be trained on.
        repeated: further images of the training split that are equal to another one in it.
        mislabelled: pairs of names with equal pixels and different classes.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: dict[str, list[str]] = field(default_factory=dict)
    twice: list[tuple[str, str]] = field(default_factory=list)
    mislabelled: list[tuple[str, str]] = field(default_factory=list)
    repeated: int = 0

    @property
    def sound(self) -> bool:
        """Whether every picture can be used and none is both trained and tested on."""
        return not (any(self.broken.values()) or self.twice or self.mislabelled)


def audit(source: Source) -> Audit:
    """Decode every picture of a source, split by split.

    Raises:
        ValueError: a class with too few images to split.
    """
    found = Audit()
    first: dict[bytes, tuple[str, int]] = {}  # digest of the pixels -> split and position
    for split, index in split_indices(source).items():
        names = (source.classes[label] for label in source.labels[index])
        found.counts[split] = Counter(names)
        found.broken[split] = []
        for i in map(int, index):
            try:
                picture = source.picture(i)
            except BadImageError as error:
                found.broken[split].append(str(error))
                continue
            found.sizes[picture.size] += 1
            digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
            before = first.setdefault(digest, (split, i))
            if before != (split, i):
                _compare(found, source, before, (split, i))
    return found


def _compare(found: Audit, source: Source, a: tuple[str, int], b: tuple[str, int]) -> None:
    pair = source.name(a[1]), source.name(b[1])
    labels: np.ndarray = source.labels
    if labels[a[1]] != labels[b[1]]:
        found.mislabelled.append(pair)
    elif a[0] == b[0] == "train":
        found.repeated += 1
    elif a[0] != b[0]:
        found.twice.append(pair)
