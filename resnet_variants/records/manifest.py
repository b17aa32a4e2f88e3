"""The files of a folder that this package wrote. It replaces and deletes no other files.

manifest.json   name -> SHA-256 digest of the content; while the file is being replaced, the digests
                of the old and the new content, with a space between
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from resnet_variants.records.files import encoded, read_json, to_json, write_atomically
from resnet_variants.registry import UserError

MANIFEST = "manifest.json"
Digests = dict[str, str]
# Git may change the line ends of text files.
_TEXTS = {".csv", ".html", ".json", ".md", ".svg", ".tex"}


def write_files(
    folder: Path, contents: Mapping[str, str | bytes], *, keep: bool = False
) -> list[Path]:
    """Write files into a folder, and delete the other files that the manifest lists.

    A file with the same content may be of any origin. If this process is stopped at any moment, the
    next one still recognises the files as ours. Callers must lock the folder.

    Args:
        folder: of the files.
        contents: of each file, by its name.
        keep: delete no file.

    Raises:
        ValueError: a file of another origin has one of the names, or the manifest is damaged; then
            nothing has been written.
        OSError: a file cannot be read or written.
    """
    before, data = _read(folder), {n: encoded(content) for n, content in contents.items()}
    digests = {name: _digest(name, content) for name, content in data.items()}
    either = before | {name: _either(before.get(name), new) for name, new in digests.items()}
    refuse_foreign(folder, data, either)
    _write(folder, either)
    for name, content in data.items():
        if not _is_one_of(folder / name, digests[name]):
            write_atomically(folder / name, content)
    for name in before.keys() - digests.keys():
        if not _is_one_of(folder / name, before[name]):
            continue  # deleted, or changed by the user
        if keep:
            digests[name] = _digest(name, (folder / name).read_bytes())
        else:
            (folder / name).unlink()
    _write(folder, digests)
    return [folder / name for name in contents]


def refuse_foreign(folder: Path, names: Iterable[str], known: Digests | None = None) -> None:
    """Refuse to overwrite files that the manifest does not prove to be ours.

    Raises:
        ValueError: names the files.
    """
    known = _read(folder) if known is None else known
    taken = [name for name in names if _is_there(folder / name)]
    foreign = [name for name in taken if not _is_one_of(folder / name, known.get(name, ""))]
    if foreign:
        cause = f"they changed after {MANIFEST} was written, or are not in it: move them elsewhere"
        if not _is_there(folder / MANIFEST):
            cause = f"there is no {MANIFEST}: delete what an earlier version wrote, move the rest"
        names = ", ".join(foreign)
        raise UserError(f"{names} in {str(folder)!r} would be overwritten; {cause}")


def is_whole(folder: Path) -> bool:
    """Whether every replacement of files in the folder was completed."""
    return all(" " not in digests for digests in _read(folder).values())


def _either(old: str | None, new: str) -> str:
    return " ".join(dict.fromkeys([*(old or "").split(), new]))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _is_one_of(path: Path, digests: str) -> bool:
    """Whether it is a regular file with one of these digests."""
    if not digests or path.is_symlink() or not path.is_file():
        return False
    return _digest(path.name, path.read_bytes()) in digests.split()


def _digest(name: str, content: bytes) -> str:
    if Path(name).suffix in _TEXTS:
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()


def _read(folder: Path) -> Digests:
    """The manifest; empty if there is no file.

    Raises:
        ValueError: the file is no manifest.
    """
    file = folder / MANIFEST
    if not _is_there(file):
        return {}
    content = read_json(file, remedy="put back what it was, or move it elsewhere")
    for name, digests in content.items():
        # A name with a folder in it could name any file of the user.
        local = Path(name).name == name
        if not (local and re.fullmatch(r"([0-9a-f]{64} ?)+", str(digests))):
            raise UserError(f"{str(file)!r} is no list of files and digests: move it elsewhere")
    return {name: str(digests) for name, digests in content.items()}


def _write(folder: Path, digests: Digests) -> None:
    content = to_json(dict(sorted(digests.items())))
    write_atomically(folder / MANIFEST, content)
