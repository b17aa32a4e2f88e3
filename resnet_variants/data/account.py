"""Which files of a folder count as pictures, which do not, and why."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resnet_variants.data.images import BadImageError, brightest, is_picture, shown, suffixes

# What systems put beside a user's files, as well as names with a leading dot.
_SYSTEM = (
    *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "__macosx", "$recycle.bin"),
    *("lost+found", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
)
FEW = 3  # files of a class that may be left out without a warning
_SAMPLE = 64  # pictures that are opened to see how many of their bits are used
_DARK = 64  # of 256: the upper two bits are never used
_NAMED = 6  # reasons on one line


class LeftOut(NamedTuple):
    """A reason why files of a folder are no pictures of a class."""

    folder: str  # relative to the root
    why: str
    fault: bool  # whether the user is warned of many such files


@dataclass(frozen=True)
class Account:
    """What became of every file.

    Attributes:
        taken: pictures by suffix.
        left: files and folders that were left out, by folder and reason.
        dark: a line on pictures that use only a part of their bits, if there are any.
    """

    taken: Counter[str] = field(default_factory=Counter)
    left: Counter[LeftOut] = field(default_factory=Counter)
    dark: tuple[str, ...] = ()

    @property
    def summary(self) -> list[str]:
        """One line on the files that are taken, one on the files that are left out."""
        if not self.taken:
            return []
        lines = [f"{self.taken.total():,} files taken: {_counted(self.taken)}"]
        reasons: Counter[str] = Counter()
        for (_, why, _), n in self.left.items():
            reasons[why] += n
        if reasons:
            lines.append(f"left out: {_counted(reasons)}")
        return lines

    @property
    def by_folder(self) -> list[str]:
        """A line on every folder in which something is left out."""
        return [f"{folder}: {_counted(whys)}" for folder, whys in self._folders(self.left).items()]

    @property
    def faults(self) -> list[str]:
        """What the user should look at: more than a few files left out of a class, unused bits."""
        faults = {left: n for left, n in self.left.items() if left.fault}
        return [
            *(
                f"{folder}: {whys.total():,} files left out ({_counted(whys)})"
                for folder, whys in self._folders(faults).items()
                if whys.total() > FEW
            ),
            *self.dark,
        ]

    @staticmethod
    def _folders(left: dict[LeftOut, int]) -> dict[str, Counter[str]]:
        folders: dict[str, Counter[str]] = {}
        for (folder, why, _), n in sorted(left.items()):
            folders.setdefault(shown(folder), Counter())[why] += n
        return folders


def _counted(reasons: Counter[str]) -> str:
    """``.jpg 1,200, .png 34``."""
    most = [f"{why} {n:,}" for why, n in reasons.most_common(_NAMED)]
    return ", ".join([*most, *(["..."] if len(reasons) > _NAMED else [])])


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden or belongs to the system."""
    lower = name.lower()
    return lower.startswith(".") or lower in _SYSTEM or lower.endswith(":zone.identifier")


def suffix_of(name: str) -> str:
    """The suffix in lower case, such as ``.jpg``; as pathlib's, which takes 20 times as long."""
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def why_left(folder: str, name: str) -> str | None:
    """Why a file is no picture of its class; ``None`` if it is one.

    Only files without a suffix are opened.
    """
    if is_system(name):
        return "hidden or system files"
    if suffix := suffix_of(name):
        return None if suffix in suffixes() else shown(suffix)
    return None if is_picture(Path(folder, name)) else "no suffix, no picture"


def dark(root: Path, paths: Sequence[str]) -> tuple[str, ...]:
    """One line if pictures of more than 8 bits do not use most of them, judged by a sample.

    They are not brightened here: the result of decoding must depend on one file alone.
    """
    found: list[int] = []
    for path in paths[:: max(1, len(paths) // _SAMPLE)]:
        with contextlib.suppress(BadImageError):  # reported when it is decoded
            if (level := brightest(root / path)) is not None:
                found.append(level)
    if not found or max(found) >= _DARK:
        return ()
    what = f"{len(found)} pictures of 16 bits that were looked at use {max(found) + 1} of 256"
    return (f"{what} levels: scale their values up to 65535 and save them again",)
