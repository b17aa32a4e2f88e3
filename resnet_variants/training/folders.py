"""Folders of class folders as labelled pictures: split by hand, or one heap."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from resnet_variants.registry import UserError
from resnet_variants.training.images import SUFFIXES, BadImageError, picture_size, read_picture

# What the folders of a split may be called.
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Files:
    """Pictures in files."""

    root: Path
    paths: tuple[str, ...]  # relative to the root, sorted by split and class
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    mirror: bool = True
    in_chans: int = 3

    @property
    def side(self) -> int:
        """Pixels on a side where all pictures are squares of one size, else 0."""
        return self._side

    @cached_property
    def _side(self) -> int:
        sizes: set[tuple[int, int]] = set()
        for path in self.paths:
            with contextlib.suppress(BadImageError):  # told by whoever decodes it
                sizes.add(picture_size(self.root / path))
            if len(sizes) > 1:
                return 0
        width, height = sizes.pop() if sizes else (0, 0)
        return width if width == height else 0

    def picture(self, i: int) -> Image.Image:
        """Decode one.

        Raises:
            BadImageError: it cannot be decoded.
        """
        path = self.root / self.paths[i]
        return read_picture(path, str(path))

    def identity(self, i: int) -> bytes:
        """Its path inside the folder and its size in bytes."""
        return f"{self.paths[i]} {(self.root / self.paths[i]).stat().st_size}".encode()


def read_folder(root: Path) -> Files:
    """The pictures of a folder by split and class; none is opened.

    Class numbers follow the names' order, as in torchvision's ``ImageFolder``. Where there is a
    ``val`` but no ``test``, ``val`` is the test split, as it is for ImageNet.

    Raises:
        ValueError: no such folder, no classes, an empty class, a link to nothing, or splits whose
            classes differ.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is no folder", field="data")
    found = _splits(root)
    if not found:
        return _files(root, {"": root})
    if "train" not in found or len(found) == 1:
        names = " and ".join(path.name for path in found.values())
        message = f"{str(root)!r} holds {names} alone: it takes train/ with val/ or test/"
        raise UserError(f"{message}, or nothing but class folders", field="data")
    if "test" not in found:
        found["test"] = found.pop("val")
    return _files(root, found)


def _splits(root: Path) -> dict[str, Path]:
    return {
        split: root / name
        for split, names in _SPLITS.items()
        for name in names
        if (root / name).is_dir()
    }


def _files(root: Path, folders: Mapping[str, Path]) -> Files:
    classes = {split: _classes(folder) for split, folder in folders.items()}
    first, names = next(iter(classes.items()))
    for split, others in classes.items():
        differing = sorted(set(names) ^ set(others))
        if differing:
            message = f"{str(root)!r}: class {differing[0]!r} is not in both {first} and {split}"
            raise UserError(f"{message}; every split needs the same classes", field="data")
    paths: list[str] = []
    labels: list[int] = []
    parts: dict[str, np.ndarray] = {}
    for split, folder in folders.items():
        start = len(paths)
        for label, name in enumerate(names):
            own = _pictures(folder / name)
            paths += [path.relative_to(root).as_posix() for path in own]
            labels += [label] * len(own)
        if split:
            parts[split] = np.arange(start, len(paths))
    return Files(root, tuple(paths), np.array(labels, np.int64), tuple(names), parts)


def _classes(folder: Path) -> list[str]:
    try:
        within = list(folder.iterdir())
    except OSError as error:
        _unreadable(error)
    names = sorted(p.name for p in within if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        message = f"{str(folder)!r} holds {len(names)} class folders; it takes two or more"
        raise UserError(message, field="data")
    return names


def _pictures(folder: Path) -> list[Path]:
    """All picture files below a class folder; other files and hidden ones are not looked at."""
    found = sorted(
        Path(where, name)
        for where, _, names in os.walk(folder, onerror=_unreadable)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        message = f"class folder {str(folder)!r} holds no pictures ({kinds}): fill or remove it"
        raise UserError(message, field="data")
    return found


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename!r} cannot be read: {error.strerror}", field="data") from error
