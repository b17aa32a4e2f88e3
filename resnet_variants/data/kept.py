"""Decoded images of folders, kept for the next command that reads the same files.

A file holds the splits of one folder at one image size. Its name is a digest of every picture's
path, size and times, of the image size, and of the code that decodes: of pictures that were
changed, added or removed since, nothing is found.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import PIL
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from resnet_variants.records.files import Json, atomic_file
from resnet_variants.registry import warn_once

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_variants.data.folders import FolderSource

LIMIT = 8 * 2**30  # bytes of all files: what was used longest ago goes first
_FACTS, _DIGEST = "facts", "digest"
_END = ".safetensors"
_TROUBLES = (OSError, RuntimeError, SafetensorError, KeyError, ValueError, TypeError)


def cache_folder() -> Path:
    """``resnet_variants`` in the user's folder of caches.

    Raises:
        RuntimeError: the user has no home.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "resnet_variants"


def place_of(source: FolderSource, img_size: int, crop_pct: float) -> Path | None:
    """The file for a folder's images; ``None`` where there can be none."""
    digest, root = hashlib.sha256(_reader()), str(source.root)
    digest.update(f"{img_size} {crop_pct!r}\n".encode())
    try:
        for path in source.paths:
            found = os.stat(f"{root}/{path}")  # noqa: PTH116 - Path takes twice as long
            # No program can set the time of the last change of a file's entry.
            facts = f"\0{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n"
            digest.update(os.fsencode(path) + facts.encode())
        return cache_folder() / f"{digest.hexdigest()[:32]}{_END}"
    except (OSError, RuntimeError):  # a picture is gone, which decoding reports; no home
        return None


@functools.cache
def _reader() -> bytes:
    """What decides on the pixels besides the pictures: our code and Pillow's."""
    files = resources.files("resnet_variants.data").iterdir()
    code = sorted((file.name, file.read_bytes()) for file in files if file.name.endswith(".py"))
    return repr((code, PIL.__version__, features.version("jpg"))).encode()


def read(file: Path) -> tuple[dict[str, Tensor], Json] | None:
    """Tensors and facts as they were written; ``None`` if they were not or are damaged."""
    try:
        if not file.is_file():
            return None
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata()
            tensors = {name: content.get_tensor(name) for name in sorted(content.keys())}
        if metadata[_DIGEST] != _digest(tensors, metadata[_FACTS]):
            raise ValueError("it is damaged")
        with suppress(OSError):  # it may be another user's
            os.utime(file)
        return tensors, json.loads(metadata[_FACTS])
    except _TROUBLES as error:
        warn_once(f"{file} cannot be used ({error}): the images are decoded anew")
        return None


def write(file: Path, tensors: Mapping[str, Tensor], facts: Json) -> None:
    """Keep them; without room or permission, one line says so."""
    text = json.dumps(facts)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            metadata = {_FACTS: text, _DIGEST: _digest(tensors, text)}
            save_file(dict(tensors), temporary, metadata=metadata)
        _make_room(file.parent)
    except _TROUBLES as error:
        warn_once(f"decoded images cannot be kept in {file.parent} ({error}): see --image-cache")


def clear() -> None:
    """Delete all that is kept."""
    try:
        for file in cache_folder().glob(f"*{_END}"):
            file.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        warn_once(f"kept images cannot be deleted ({error})")


def _make_room(folder: Path) -> None:
    taken = 0
    latest_first = sorted(folder.glob(f"*{_END}"), key=lambda file: -file.stat().st_mtime)
    for file in latest_first:
        taken += file.stat().st_size
        if taken > LIMIT:
            file.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
