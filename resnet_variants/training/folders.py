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
from resnet_variants.training.images import (
    SUFFIXES,
    BadImageError,
    blamed_on,
    picture_size,
    read_picture,
    shown,
)

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

    def name(self, i: int) -> str:
        """Its path."""
        return str(self.root / self.paths[i])

    def identity(self, i: int) -> bytes:
        """Its path inside the folder and its size in bytes."""
        return path_and_bytes(self.root, self.root / self.paths[i])


def path_and_bytes(root: Path, path: Path) -> bytes:
    """A file's path inside a folder and its size in bytes.

    Raises:
        BadImageError: it cannot be found.
    """
    with blamed_on(shown(str(path))):
        return os.fsencode(path.relative_to(root)) + f" {path.stat().st_size}".encode()


def read_folder(root: Path) -> Files:
    """The pictures of a folder by split and class; none is opened.

    Class numbers follow the names' order, as in torchvision's ``ImageFolder``. Where there is a
    ``val`` but no ``test``, ``val`` is the test split, as it is for ImageNet.

    Raises:
        ValueError: no such folder, no classes, an empty class, a link to nothing, or splits whose
            classes differ.
    """
    with contextlib.suppress(RuntimeError):  # a user without a home: there is no such folder
        root = root.expanduser()
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
    found: dict[str, Path] = {}
    for folder in _folders(root):
        for split, names in _SPLITS.items():
            if folder.name.lower() in names:
                if split in found:
                    message = f"{str(root)!r} holds both {found[split].name}/ and {folder.name}/"
                    raise UserError(f"{message}: which is the {split} split?", field="data")
                found[split] = folder
    return {split: found[split] for split in _SPLITS if split in found}


def _folders(within: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    try:
        entries = sorted(path for path in within.iterdir() if not path.name.startswith("."))
        for path in entries:
            if path.is_symlink() and not path.exists():
                message = f"{str(path)!r} is a link to nothing: restore or remove it"
                raise UserError(message, field="data")
        return [path for path in entries if path.is_dir()]
    except OSError as error:
        _unreadable(error)


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
    names = [path.name for path in _folders(folder)]
    if len(names) < 2:
        message = f"{str(folder)!r} holds {len(names)} class folders; it takes two or more"
        raise UserError(message, field="data")
    return names


def _pictures(folder: Path) -> list[Path]:
    """All picture files below a class folder; other files and hidden ones are not looked at."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        real = os.path.realpath(where)
        if real in seen:
            raise UserError(f"a link leads to {real!r} once more: remove it", field="data")
        seen.add(real)
        shown_names = (name for name in names if not name.startswith("."))
        found += [Path(where, n) for n in shown_names if Path(n).suffix.lower() in SUFFIXES]
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        message = f"class folder {str(folder)!r} holds no pictures ({kinds}): fill or remove it"
        raise UserError(message, field="data")
    return sorted(found)


def _unreadable(error: OSError) -> NoReturn:
    message = f"{str(error.filename)!r} cannot be read as a folder: {error.strerror}"
    raise UserError(message, field="data") from error
