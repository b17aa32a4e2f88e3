"""Folders of class folders as labelled pictures, with or without folders of splits."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from resnet_variants.data.account import Account, LeftOut, dark, is_system, suffix_of, why_left
from resnet_variants.data.images import (
    BadImageError,
    blamed_on,
    picture_size,
    read_picture,
    shown,
    suffixes,
)
from resnet_variants.registry import UserError

# Names of the folders of a split, also as one word of a name: seg_train, test_images.
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_NO_NAMES = ("set", "data", "dataset", "split", "images", "image", "imgs", "img", "pictures")
_SPLIT_WORD = re.compile(
    rf"(?<![^\W\d_])({'|'.join(_SPLIT_OF)})(?:{'|'.join(_NO_NAMES)})?(?![^\W\d_])"
)
_DEEPEST = 8  # levels of folders that are searched for a hint


@dataclass(frozen=True)
class FolderSource:
    """Pictures in files."""

    root: Path
    paths: tuple[str, ...]  # relative to the root, sorted by split and class
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    mirror: bool = True
    in_chans: int = 3
    account: Account = field(default_factory=Account)

    @property
    def side(self) -> int:
        """Pixels on a side if all pictures are squares of one size, else 0."""
        return self._side

    @cached_property
    def _side(self) -> int:
        sizes: set[tuple[int, int]] = set()
        for path in self.paths:
            with contextlib.suppress(BadImageError):  # reported when it is decoded
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


def read_folder(root: Path) -> FolderSource:
    """The pictures of a folder by split and class; only a few are opened.

    Class numbers follow the order of the names, as in torchvision's ``ImageFolder``. Without a
    ``test``, ``val`` is the test split, as in ImageNet.

    Raises:
        ValueError: no such folder, no classes, an empty class, a link to nothing, or splits that
            are incomplete or whose classes differ.
    """
    root = Path(os.path.expanduser(root))  # noqa: PTH111 pathlib raises where there is no home
    found = _splits(root)
    if not found:
        return _files(root, {"": root})
    if "train" not in found or len(found) == 1:
        names = " and ".join(shown(path.name) for path in found.values())
        message = f"{str(root)!r} holds {names} alone: it takes train/ with val/ or test/"
        message += ", or nothing but class folders with other names"
        raise UserError(message, field="data")
    if "test" not in found:
        found["test"] = found.pop("val")
    return _files(root, found)


# --- splits -----------------------------------------------------------------------------------


def _splits(root: Path) -> dict[str, Path]:
    """The folders of the splits by name; empty if the folders are classes.

    A name of several words names a split only if another name differs in that word alone:
    ``seg_train`` beside ``seg_test``, but not ``train_station``.
    """
    folders = _folders(root)
    groups: dict[str, dict[str, list[Path]]] = {}  # other words -> split -> folders
    for folder in folders:
        if named := _split_and_rest(folder.name):
            groups.setdefault(named[1], {}).setdefault(named[0], []).append(folder)
    whole = {rest for rest, group in groups.items() if "train" in group and len(group) > 1}
    likely = {""} if "" in whole else whole | ({""} & groups.keys())
    kinds = {split for group in groups.values() for split in group}
    every = sum(len(same) for group in groups.values() for same in group.values()) == len(folders)
    if len(likely) > 1 or (not likely and every and {"train"} < kinds):
        names = ", ".join(f"{shown(folder.name)}/" for folder in folders)
        message = f"{str(root)!r} holds {names}, which look like splits and not like classes"
        raise UserError(f"{message}: call them train/ with val/ or test/", field="data")
    found: dict[str, Path] = {}
    rest = next(iter(likely), None)
    for split, same in groups[rest].items() if rest is not None else ():
        bare = [path for path in same if path.name.lower() in _SPLIT_OF]
        same = bare or (same if rest in whole else [])  # test1, test2 and test3 are classes
        if not same:
            continue
        if len(same) > 1:
            message = f"{str(root)!r} holds both {shown(same[0].name)}/ and {shown(same[1].name)}/"
            raise UserError(
                f"{message}: which is the {split} split? Give the other, or classes, another name",
                field="data",
            )
        found[split] = same[0]
    return {split: found[split] for split in _SPLITS if split in found}


def _split_and_rest(name: str) -> tuple[str, str] | None:
    """The split in a folder's name, and the other words of the name."""
    words = _SPLIT_WORD.findall(name.lower())
    if len(words) != 1:
        return None
    rest = re.findall(r"[^\W\d_]+", _SPLIT_WORD.sub(" ", name.lower()))
    return _SPLIT_OF[words[0]], " ".join(word for word in rest if word not in _NO_NAMES)


# --- folders ----------------------------------------------------------------------------------


def _entries(within: Path) -> list[Path]:
    """The entries of a folder, sorted by name."""
    try:
        return sorted(within.iterdir())
    except OSError as error:
        _unreadable(error)


def _folders(within: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones and the system's."""
    entries = [path for path in _entries(within) if not is_system(path.name)]
    try:
        for path in entries:
            if path.is_symlink() and not path.exists():
                message = f"{str(path)!r} is a link to nothing: restore or remove it"
                raise UserError(message, field="data")
        return [path for path in entries if path.is_dir()]
    except OSError as error:
        _unreadable(error)


def _files(root: Path, folders: Mapping[str, Path]) -> FolderSource:
    classes = {split: _classes(folder) for split, folder in folders.items()}
    check_same_classes(repr(str(root)), classes)
    left: Counter[LeftOut] = Counter()
    if "" not in folders:
        _leave(root, root, [folder.name for folder in folders.values()], left)
    inside = len(str(root / "_")) - 1  # where the part of a path that is below the root begins
    paths: list[str] = []
    labels: list[int] = []
    parts: dict[str, np.ndarray] = {}
    names = next(iter(classes.values()))
    for split, folder in folders.items():
        start = len(paths)
        _leave(root, folder, names, left)
        for label, name in enumerate(names):
            own = _pictures(root, folder / name, left)
            paths += [path[inside:].replace(os.sep, "/") for path in own]
            labels += [label] * len(own)
        if split:
            parts[split] = np.arange(start, len(paths))
    ends = Counter(suffix_of(path.rpartition("/")[2]) or "without suffix" for path in paths)
    account = Account(ends, left, dark(root, paths))
    return FolderSource(
        root, tuple(paths), np.array(labels, np.int64), tuple(names), parts, account=account
    )


def check_same_classes(what: str, splits: Mapping[str, Collection[str]]) -> None:
    """Refuse splits whose classes differ, and class names that look the same.

    Raises:
        UserError: names the class.
    """
    first, names = next(iter(splits.items()))
    forms: dict[str, str] = {}
    for name in sorted({name for own in splits.values() for name in own}):
        form = unicodedata.normalize("NFC", name)
        if other := forms.get(form):
            message = f"{what}: class {form!r} is written in two Unicode forms, {other!a} and"
            raise UserError(f"{message} {name!a}: rename one like the other", field="data")
        forms[form] = name
    for split, others in splits.items():
        differing = sorted(set(names) ^ set(others))
        if differing:
            message = f"{what}: class {differing[0]!r} is not in both {first} and {split}"
            raise UserError(f"{message}; every split needs the same classes", field="data")


def _leave(root: Path, within: Path, used: Iterable[str], left: Counter[LeftOut]) -> None:
    """Count in ``left`` what is in a folder beside its splits or classes."""
    where = within.relative_to(root).as_posix()
    for path in _entries(within):
        if path.name in used:
            continue
        if path.is_dir():
            left[LeftOut(where, f"folder {shown(path.name)}/", fault=False)] += 1
        elif is_system(path.name) or suffix_of(path.name) not in suffixes():
            why = why_left(str(within), path.name)
            left[LeftOut(where, why or "no suffix", fault=False)] += 1
        else:
            left[LeftOut(where, f"{suffix_of(path.name)} of no class", fault=True)] += 1


def _classes(folder: Path) -> list[str]:
    names = [path.name for path in _folders(folder)]
    if len(names) < 2:
        message = f"{str(folder)!r} holds {len(names)} class folders; it takes two or more"
        raise UserError(message + _hint(folder), field="data")
    return names


def _hint(folder: Path) -> str:
    """Where the class folders seem to be: an archive often has one folder around all others."""
    deeper = folder
    for _ in range(_DEEPEST):
        below = _folders(deeper)
        if len(below) > 1:
            return f"; its class folders seem to be in {str(deeper)!r}: name that, or move them up"
        if not below:
            break
        deeper = below[0]
    return ""


def _pictures(root: Path, folder: Path, left: Counter[LeftOut]) -> list[str]:
    """All pictures below a class folder; other files are counted in ``left``."""
    _, below, _ = next(os.walk(folder, onerror=_unreadable))
    _refuse_splits(folder, [name for name in below if not is_system(name)])
    own: Counter[LeftOut] = Counter()
    found = pictures_below(folder, own, folder.relative_to(root).as_posix())
    left.update(own)
    if not found:
        raise UserError(f"class {none_in(folder, own)}: fill or remove it", field="data")
    return found


def none_in(folder: Path, left: Iterable[LeftOut]) -> str:
    """Says that a folder holds no pictures, and what it holds."""
    others = ", ".join(sorted(what.why for what in left)) or "nothing"
    return f"folder {str(folder)!r} holds no pictures ({others})"


def pictures_below(folder: Path, left: Counter[LeftOut], top: str = "") -> list[str]:
    """The paths of all pictures in a folder and the folders in it, sorted by their parts.

    Other files are counted in ``left`` as those of ``top``.

    Raises:
        ValueError: a folder that cannot be read, or a link in a circle.
    """
    found: list[str] = []
    seen: set[str] = set()
    for where, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        for name in filter(is_system, below):
            left[LeftOut(top, f"folder {shown(name)}/", fault=False)] += 1
        below[:] = [name for name in below if not is_system(name)]
        real = os.path.realpath(where)
        if real in seen:
            raise UserError(f"a link leads to {real!r} once more: remove it", field="data")
        seen.add(real)
        for name in names:
            why = why_left(where, name)
            if why is None:
                found.append(os.path.join(where, name))  # noqa: PTH118 - Path takes 20 times as long
            else:
                left[LeftOut(top, why, fault=not is_system(name))] += 1
    return sorted(found, key=lambda path: path.split(os.sep))  # noqa: PTH206


def _refuse_splits(folder: Path, below: Iterable[str]) -> None:
    """Refuse a class folder that holds splits: as a class, it would mix them."""
    named = {name: split for name in sorted(below) if (split := _split_and_rest(name))}
    if {"train"} < {split for split, rest in named.values() if not rest}:
        names = " and ".join(f"{shown(name)}/" for name in named)
        message = f"{str(folder)!r} holds {names}: name that folder, or put splits above classes"
        raise UserError(f"{message}, as train/cat", field="data")


def _unreadable(error: OSError) -> NoReturn:
    message = f"{str(error.filename)!r} cannot be read as a folder: {error.strerror}"
    raise UserError(message, field="data") from error
