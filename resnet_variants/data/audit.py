"""What is wrong with a data set, found by decoding every picture of it.

Equal pictures are found by a digest of their pixels, near-copies, such as thumbnails and
re-encodings, by the edges in them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from resnet_variants.data.dataset import split_indices
from resnet_variants.data.images import BadImageError
from resnet_variants.data.sources import Source

_SIDE = 16  # pixels of the small version that pictures are compared by
LEAST_SIDE = 32  # below it different things look alike: two digits of 28 pixels do
# Least cosine between the edges of two near-copies. Between CIFAR-10's test pictures (JPEG, 32
# pixels) and its training pictures, 65 of 10,000 are above; all pairs that were looked at show the
# same motif. Of re-encoded test pictures, 99.1 % (JPEG at quality 30), 99.8 % (WebP at 50) and
# 100 % (JPEG at 50, twice the size, GIF, grey) are above.
ALIKE = 0.92
_FLAT = 1.0  # mean edge in grey levels below which only noise would be compared
_CHUNK = 1024


@dataclass
class Audit:
    """Everything that was found.

    Attributes:
        counts: images by split and class, broken ones included.
        sizes: images by width and height in pixels.
        broken: by split, one line on each picture that cannot be used.
        twice: pairs of names with equal pixels in two splits.
        near: pairs of names in two splits whose pictures differ a little: a thumbnail, another
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
        """Whether every picture can be used and none is in two splits or classes.

        Near-copies do not count: two drawings of one digit may be as similar.
        """
        return not (any(self.broken.values()) or self.twice or self.mislabelled)


def audit(source: Source) -> Audit:
    """Decode every picture of a source, split by split.

    Raises:
        ValueError: a class with too few images to split.
    """
    found = Audit()
    sketches: dict[str, dict[int, np.ndarray]] = {}
    # Digest of the pixels -> split and label -> the first such picture.
    holders: dict[bytes, dict[tuple[str, int], int]] = {}
    digests: dict[int, bytes] = {}
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
            pixels = repr(picture.size).encode() + picture.tobytes()
            digests[i] = hashlib.sha256(pixels).digest()
            _compare(found, source, holders.setdefault(digests[i], {}), (split, i))
    found.near = list(_near(source, sketches, digests))
    return found


def _near(
    source: Source, sketches: dict[str, dict[int, np.ndarray]], digests: Mapping[int, bytes]
) -> Iterator[tuple[str, str]]:
    """Near-copies, but no equal pictures, between a held-out split and the splits before it."""
    for split, before in (("test", ("train", "val")), ("val", ("train",))):
        own = sketches.get(split, {})
        others = {i: small for other in before for i, small in sketches.get(other, {}).items()}
        at, among = list(own), list(others)
        for i, j in near_copies(list(own.values()), list(others.values())):
            if digests[among[j]] != digests[at[i]]:
                yield source.name(among[j]), source.name(at[i])


def _compare(
    found: Audit, source: Source, holders: dict[tuple[str, int], int], new: tuple[str, int]
) -> None:
    """Compare a picture with the earlier ones that have the same pixels, and add it to them."""
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


# --- near-copies ------------------------------------------------------------------------------


def sketch(picture: Image.Image) -> np.ndarray | None:
    """A picture as (16, 16) uint8 grey; ``None`` if it is too small to be told from others."""
    if min(picture.size) < LEAST_SIDE:
        return None
    small = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def near_copies(
    held: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> Iterator[tuple[int, int]]:
    """Positions of near-copies: each of ``held`` with the nearest of ``others``.

    Every sketch is compared with every other by matrix products: 10,000 x 50,000 take seconds.
    """
    if not held or not others:
        return
    edges = _edges(held)
    best, nearest = np.full(len(held), ALIKE, np.float32), np.full(len(held), -1)
    for start in range(0, len(others), _CHUNK):
        alike = edges @ _edges(others[start : start + _CHUNK]).T
        top = alike.argmax(1)
        score = alike[np.arange(len(held)), top]
        better = score > best
        best[better], nearest[better] = score[better], start + top[better]
    yield from ((i, int(at)) for i, at in enumerate(nearest) if at >= 0)


def _edges(sketches: Iterable[np.ndarray]) -> np.ndarray:
    """(n, 480) float32: differences of neighbours, across and down, as vectors of length 1."""
    grey = np.stack(list(sketches)).astype(np.float32)
    n = len(grey)
    edges = [np.diff(grey, axis=axis).reshape(n, -1) for axis in (1, 2)]
    vectors = np.concatenate(edges, axis=1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = length < _FLAT * vectors.shape[1] ** 0.5
    return np.where(flat, 0, vectors / np.maximum(length, 1))
