"""What is wrong with a data set, found by decoding every picture of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

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
        twice: pairs of names with equal pixels in two splits: what is tested on must not be
            trained on.
        repeated: how many images equal another one of their split and class.
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
            digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
            _compare(found, source, holders.setdefault(digest, {}), (split, i))
    return found


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
