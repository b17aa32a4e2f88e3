"""Pictures that timm's data set factory finds, and a check of MNIST that torchvision lacks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_variants.data.account import Account, is_system
from resnet_variants.data.folders import check_same_classes, path_and_bytes
from resnet_variants.data.images import blamed_on, read_picture, shown
from resnet_variants.registry import UserError, refuse

# How a name begins: timm would take any other name for a folder.
_KINDS = ("folder", "torch/NAME", "hfds/NAME")
_STREAMS = ("hfids", "tfds", "wds")
_FOLDERS = ("folder", "torch/folder", "torch/image_folder")

_WRITTEN = ("mnist", "kmnist", "qmnist", "svhn")  # a mirrored digit is no digit


@dataclass(frozen=True)
class TimmSource:
    """Pictures of timm's data sets, opened here: timm replaces a broken picture by another."""

    readers: tuple[Any, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: Mapping[str, np.ndarray]
    mirror: bool
    in_chans: int = 3
    side: int = 0
    account: Account = field(default_factory=Account)

    def _at(self, i: int) -> tuple[Any, int]:
        for reader in self.readers:
            if i < len(reader):
                return reader, i
            i -= len(reader)
        raise IndexError(i)

    def picture(self, i: int) -> Image.Image:
        """See ``Source``."""
        reader, at = self._at(i)
        path, name = _path(reader, at), self.name(i)
        if path is not None:
            return read_picture(path, name)
        with blamed_on(shown(name)), reader[at][0] as file:
            return read_picture(file, name)

    def name(self, i: int) -> str:
        """See ``Source``."""
        reader, at = self._at(i)
        found = getattr(reader, "filename", None)  # of torchvision's: the archive's name
        name = _path(reader, at) or (found(at) if callable(found) else None)
        return str(name or f"{type(reader).__name__} image {at}")

    def identity(self, i: int) -> bytes:
        """See ``Source``."""
        reader, at = self._at(i)
        path = _path(reader, at)
        if path is not None:
            return path_and_bytes(Path(reader.root), path)
        with blamed_on(shown(self.name(i))), reader[at][0] as file:
            return file.tobytes() if isinstance(file, Image.Image) else file.read()


def _path(reader: Any, i: int) -> Path | None:
    """The picture's file, if every picture has one."""
    samples = getattr(reader, "samples", None)
    return None if samples is None else Path(samples[i][0])


def open_timm(name: str, root: Path) -> TimmSource:
    """The training split and the split called validation or test, from timm's factory.

    Raises:
        ValueError: no such data set, one that cannot be read, or splits whose classes differ.
    """
    prefix, slash, rest = name.partition("/")
    if slash and prefix.lower() in _STREAMS:
        message = f"timm:{name} is a stream without numbers; only random access can be shuffled"
        raise UserError(f"{message} by seed: take the hfds/ or torch/ form", field="data")
    if name.lower() != "folder" and not (rest and prefix.lower() in ("torch", "hfds")):
        refuse("data", f"timm:{name}", [f"timm:{kind}" for kind in _KINDS])
    readers = (_split(name, root, ("train",)), _split(name, root, ("validation", "test")))
    try:
        labels = [np.array([*map(index, labels_of(reader))], np.int64) for reader in readers]
    except Exception as error:  # several numbers or a text as class, a broken item
        reason = " ".join(str(error).split())
        message = f"timm:{name}: an image has not one whole number as its class ({reason})"
        raise UserError(message, field="data") from error
    sizes = given_parts(train=len(labels[0]), test=len(labels[1]))
    both = np.concatenate(labels)
    if both.min() < 0:
        message = f"timm:{name}: an image has the label {both.min()}, which is no class"
        raise UserError(f"{message}, as where the labels of the test are kept secret", field="data")
    classes = _classes(name, readers, int(both.max()))
    mirror = rest.lower().rpartition("/")[2] not in _WRITTEN
    return TimmSource(readers, both, classes, sizes, mirror=mirror)


def labels_of(reader: Any) -> Any:
    """The classes of all pictures; they are opened only if the reader has no list."""
    if hasattr(reader, "targets"):
        return reader.targets
    if hasattr(reader, "samples"):
        return [label for _, label in reader.samples]
    if hasattr(reader, "iter_targets"):
        return reader.iter_targets()
    return [reader[i][1] for i in range(len(reader))]


def _classes(name: str, readers: tuple[Any, ...], largest: int) -> tuple[str, ...]:
    train, test = (dict(getattr(reader, "class_to_idx", {})) for reader in readers)
    both = {"train": list(map(str, train)), "test": list(map(str, test))}
    check_same_classes(f"timm:{name}", both)
    names: dict[int, str] = {}
    for text, label in train.items():
        names.setdefault(int(label), str(text))  # a class of ImageNet has several names
    return tuple(names.get(i, str(i)) for i in range(max([largest, *names]) + 1))


def _split(name: str, root: Path, splits: tuple[str, ...]) -> Any:
    from timm.data.dataset_factory import create_dataset

    reasons: list[str] = []
    for split in splits:
        try:
            found = create_dataset(name, root=str(root), split=split, download=True)
            reader: Any = getattr(found, "reader", found)
            if name.lower() in _FOLDERS and Path(reader.root) == root:
                # Without a folder of the split's name, timm takes the whole folder.
                raise FileNotFoundError("no such folder")
            check_unpacked(reader)
            _refuse_system_files(reader)
            return reader
        except UserError:
            raise
        except Exception as error:  # each reader has its own kind; all are reported if none works
            reasons.append(f"{split}: {' '.join(str(error).split()) or type(error).__name__}")
    message = f"timm cannot read {name!r} in {str(root)!r} ({'; '.join(reasons)})"
    raise UserError(f"{message}: see --data-dir", field="data_dir")


def _refuse_system_files(reader: Any) -> None:
    """Refuse a system's thumbnails beside the pictures: timm takes them for pictures."""
    for path, _ in getattr(reader, "samples", ()):
        own = Path(path).relative_to(reader.root)
        if any(map(is_system, own.parts)):
            message = f"timm takes {str(path)!r} for a picture: remove it, or give folder:PATH,"
            message += " which leaves out what is hidden or the system's"
            raise UserError(message, field="data")


def check_unpacked(part: Any) -> None:
    """Compare unpacked files of MNIST's kind with their archives, whose checksums are published.

    torchvision reads any unpacked files without a check.

    Raises:
        RuntimeError: an archive is missing or damaged, or a file differs from its content.
    """
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import check_integrity

    if not isinstance(part, MNIST) or not isinstance(part.resources, list):
        return
    if Path(part.processed_folder).exists():
        raise RuntimeError(f"{part.processed_folder} has no published checksum: remove it")
    for name, md5 in part.resources:
        packed = Path(part.raw_folder, name)
        if not check_integrity(packed, md5):
            raise RuntimeError(f"{packed} is missing or damaged: remove {part.raw_folder}")
        checksum = int.from_bytes(packed.read_bytes()[-8:-4], "little")  # CRC-32, by RFC 1952
        if zlib.crc32(packed.with_suffix("").read_bytes()) != checksum:
            raise RuntimeError(f"{packed.with_suffix('')} is not what {name} holds: remove it")


def given_parts(**counts: int) -> dict[str, np.ndarray]:
    """Positions of splits that follow one another."""
    ends = np.cumsum(list(counts.values()))
    return {
        name: np.arange(end - counts[name], end) for name, end in zip(counts, ends, strict=True)
    }
