"""What is wrong with a data set, found by decoding every picture of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from resnet_variants.data.copies import near_copies, sketch
from resnet_variants.data.dataset import split_indices
from resnet_variants.data.images import BadImageError
from resnet_variants.data.sources import Source


@dataclass
class Audit:
    """Everything that was found.

    Attributes:
        counts: images by split and class, broken ones included.
        sizes: images by width and height in pixels.
        broken: by split, a line on each picture that cannot be used.
        twice: pairs of names with equal pixels in two splits: what is tested on must not be
            trained on.
        near: pairs of names in two splits, of pictures that differ a little: a thumbnail, another
            compression.
        repeated: how many images equal another one of their split and class.
        mislabelled: pairs of names with equal pixels and different classes.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: dict[str, list[str]] = field(default_factory=dict)
    twice: list[tuple[str, str]] = field(default_factory=list)
    mislabelled: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str]] = field(default_factory=list)
    repeated: int = 0

    @property
    def sound(self) -> bool:
        """Whether every picture can be used and none is both trained and tested on.

        Near-copies do not count: two drawings of one digit may be as alike.
        """
        return not (any(self.broken.values()) or self.twice or self.mislabelled)


def audit(source: Source) -> Audit:
    """Decode every picture of a source, split by split.

    Raises:
        ValueError: a class with too few images to split.
    """
    found = Audit()
    sketches: dict[str, dict[int, np.ndarray]] = {}
    # Digest of the pixels -> split and label -> the first of these.
    holders: dict[bytes, dict[tuple[str, int], int]] = {}
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
            if (small := sketch(picture)) is not None:
                sketches.setdefault(split, {})[i] = small
            digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
            _compare(found, source, holders.setdefault(digest, {}), (split, i))
    found.near = list(_near(source, sketches, set(found.twice)))
    return found


def _near(
    source: Source, sketches: dict[str, dict[int, np.ndarray]], equal: set[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Near-copies of held-out pictures among those of the splits before, but for equal ones."""
    for split, before in (("test", ("train", "val")), ("val", ("train",))):
        own = sketches.get(split, {})
        others = {i: small for other in before for i, small in sketches.get(other, {}).items()}
        at, among = list(own), list(others)
        for i, j in near_copies(list(own.values()), list(others.values())):
            pair = source.name(among[j]), source.name(at[i])
            if pair not in equal:
                yield pair


def _compare(
    found: Audit, source: Source, holders: dict[tuple[str, int], int], new: tuple[str, int]
) -> None:
    """Compare a picture with those that have the same pixels, and let it join them."""
    split, i = new
    own = split, int(source.labels[i])
    for (other, label), first in holders.items():
        pair = source.name(first), source.name(i)
        if label != own[1]:
            found.mislabelled.append(pair)
        elif other != split:
            found.twice.append(pair)
        else:
            found.repeated += 1
    holders.setdefault(own, i)
