"""Where labelled pictures come from: every ``--data`` SPEC, before splitting and resizing."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnet_variants.data.account import Account
from resnet_variants.data.folders import read_folder
from resnet_variants.data.images import read_picture
from resnet_variants.data.readers import TimmSource, check_unpacked, given_parts, open_timm
from resnet_variants.data.specs import DATASETS, TORCHVISION, check_spec
from resnet_variants.registry import UserError, blamed, file_of, shown

Parts = Mapping[str, np.ndarray]  # indices of the splits that the publisher made: train, val, test
Picture: TypeAlias = str | os.PathLike[str] | Image.Image  # a file, or an opened one


class Pictures(Protocol):
    """Pictures by number."""

    @property
    def in_chans(self) -> int:
        """Channels of a picture."""
        ...

    def picture(self, i: int) -> Image.Image:
        """Decode one.

        Raises:
            BadImageError: it cannot be decoded.
        """
        ...

    def name(self, i: int) -> str:
        """The picture's name in messages, such as its path."""
        ...


class Source(Pictures, Protocol):
    """Labelled pictures by number."""

    @property
    def side(self) -> int:
        """Pixels on a side if all pictures are squares of one size, else 0."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        ...

    @property
    def parts(self) -> Parts:
        """The publisher's splits; empty if there are none."""
        ...

    @property
    def mirror(self) -> bool:
        """Whether a mirrored picture keeps its label."""
        ...

    @property
    def account(self) -> Account:
        """What became of the files of a folder; empty if no folder was searched."""
        ...

    def identity(self, i: int) -> bytes:
        """Bytes that differ if the content differs, found without decoding."""
        ...


@dataclass(frozen=True)
class MemorySource:
    """Pictures in memory."""

    images: Tensor  # (N, C, H, W) uint8
    labels: np.ndarray
    classes: tuple[str, ...]
    mirror: bool
    parts: Parts = field(default_factory=dict)
    account: Account = field(default_factory=Account)

    @property
    def in_chans(self) -> int:
        """See ``Source``."""
        return self.images.shape[1]

    @property
    def side(self) -> int:
        """See ``Source``."""
        return self.images.shape[-1]

    def picture(self, i: int) -> Image.Image:
        """See ``Source``."""
        return as_picture(self.images[i])

    def name(self, i: int) -> str:
        """See ``Source``."""
        return f"image {i}"

    def identity(self, i: int) -> bytes:
        """See ``Source``."""
        return self.images[i].numpy().tobytes()


@dataclass(frozen=True)
class Unlabelled:
    """Pictures of unknown classes: files, or PIL's pictures."""

    items: Sequence[Picture]
    in_chans: int  # 1: they are turned grey

    def picture(self, i: int) -> Image.Image:
        """See ``Pictures``."""
        image = read_picture(self.items[i], self.name(i))
        return image.convert("L") if self.in_chans == 1 else image

    def name(self, i: int) -> str:
        """See ``Pictures``."""
        item = self.items[i]
        return f"picture {i}" if isinstance(item, Image.Image) else os.fspath(item)


def as_picture(pixels: Tensor) -> Image.Image:
    """(1 or 3, H, W) uint8 -> grey or RGB."""
    grey = len(pixels) == 1
    return Image.fromarray((pixels[0] if grey else pixels.permute(1, 2, 0)).contiguous().numpy())


def _digits(_: Path) -> Source:
    """1,797 handwritten digits of 8x8 grey pixels, embedded in scikit-learn (UCI, from NIST)."""
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    # 17 grey levels, 0 to 16, spread over a byte.
    images = torch.from_numpy(np.rint(source.images * (255 / 16)).astype(np.uint8))
    classes = tuple(str(name) for name in source.target_names)
    return MemorySource(images[:, None], source.target.astype(np.int64), classes, mirror=False)


# --- torchvision ------------------------------------------------------------------------------


def _torchvision(name: str, root: Path) -> Source:
    import torchvision.datasets

    kind, mirror, splits = TORCHVISION[name]
    try:
        both = [
            getattr(torchvision.datasets, kind)(str(root), download=True, **split)
            for split in splits
        ]
        check_unpacked(both[0])
    except Exception as error:  # of files, network, archives, pickles, .mat
        reason = " ".join(str(error).split())
        message = f"{name} is neither whole in {str(root)!r} nor can it be downloaded ({reason})"
        raise UserError(message, field="data_dir") from error
    labels = [np.asarray(d.labels if kind == "SVHN" else d.targets, np.int64) for d in both]
    images = torch.cat([_chw(part.data) for part in both])
    classes = getattr(both[0], "classes", None) or sorted(set(labels[0].tolist()))
    return MemorySource(
        images,
        np.concatenate(labels),
        tuple(map(str, classes)),
        mirror,
        given_parts(train=len(labels[0]), test=len(labels[1])),
    )


def _chw(images: Any) -> Tensor:
    """Torchvision's arrays -> (N, C, H, W): MNIST (N, H, W), CIFAR (N, H, W, C), SVHN as it is."""
    pixels = torch.as_tensor(images)
    if pixels.ndim == 3:
        return pixels[:, None]
    return pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)


BUILT_IN: Mapping[str, Callable[[Path], Source]] = {
    "digits": _digits,
    **{name: functools.partial(_torchvision, name) for name in TORCHVISION},
}


# --- by SPEC ----------------------------------------------------------------------------------


def open_source(spec: str, root: Path) -> Source:
    """The pictures that a SPEC names; ``root`` holds what is downloaded.

    Raises:
        ValueError: an unknown SPEC, or images that are missing or damaged.
    """
    check_spec(spec)
    if spec in DATASETS.built_in:
        return DATASETS[spec](root)
    if spec in DATASETS:
        return _own(spec, root)
    prefix, _, rest = spec.partition(":")
    return read_folder(Path(rest)) if prefix == "folder" else open_timm(rest, root)


def _own(name: str, root: Path) -> Source:
    """What a function that somebody else has registered returns."""
    opened = DATASETS[name]
    try:
        source: object = opened(root)
    except Exception as error:  # of code that is not ours
        reason = blamed(error, file_of(opened))
        raise UserError(f"data {name!r} cannot be opened: {reason}", field="data") from error
    if not isinstance(source, MemorySource | TimmSource):
        message = f"the function of data {name!r} returned {shown(source)}: it must return"
        message += " rv.Dataset.from_tensors(...) or rv.Dataset.from_torch(...)"
        raise UserError(message, field="data")
    return source
