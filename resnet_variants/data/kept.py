"""Decoded images of folders, kept for the next command that reads the same files.

A file holds the splits of one folder at one image size. Its name is a digest of every picture's
path, of what the system says of the file, of the image size, and of the code that decodes: of
pictures that were changed, added or removed since, nothing is found.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import PIL
import torchvision
from PIL import features
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from resnet_variants.records.files import Json, atomic_file
from resnet_variants.registry import warn_once

if TYPE_CHECKING:
    from torch import Tensor

    from resnet_variants.data.folders import FolderSource

T = TypeVar("T")
LIMIT = 4 * 2**30  # bytes of all files: what was used longest ago goes first
_FACTS, _DIGEST = "facts", "digest"
_END = ".safetensors"
_TROUBLES = (
    *(OSError, RuntimeError, SafetensorError),
    *(KeyError, ValueError, TypeError, AttributeError),
)


def cache_folder() -> Path:
    """``resnet_variants`` in the user's folder of caches.

    Raises:
        RuntimeError: the user has no home.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))  # if relative, it is to be ignored
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "resnet_variants"


def place_of(source: FolderSource, img_size: int, crop_pct: float) -> Path | None:
    """The file for a folder's images; ``None`` where there can be none."""
    digest, root = hashlib.sha256(_decoder()), str(source.root)
    digest.update(f"{img_size} {crop_pct!r}\n".encode())
    try:
        for path in source.paths:
            found = os.stat(f"{root}/{path}")  # noqa: PTH116 - Path takes twice as long
            # No program can set ctime, that of a file's last change. A renamed file keeps it, and
            # has its number. Where a system has neither, size and mtime must do.
            which = f"{found.st_dev} {found.st_ino} {found.st_size}"
            when = f"{found.st_mtime_ns} {found.st_ctime_ns}"
            digest.update(os.fsencode(path) + f"\0{which} {when}\n".encode())
        return cache_folder() / f"{digest.hexdigest()[:32]}{_END}"
    except (OSError, RuntimeError):  # a picture is gone, which decoding reports; no home
        return None


@functools.cache
def _decoder() -> bytes:
    """What decides on pixels and splits besides the pictures: our code and that of others."""
    files = resources.files("resnet_variants.data").iterdir()
    code = sorted((file.name, file.read_bytes()) for file in files if file.name.endswith(".py"))
    others = PIL.__version__, torchvision.__version__, metadata.version("scikit-learn")
    codecs = {name: features.version(name) for name in features.get_supported()}
    return repr((code, others, codecs)).encode()


def read(file: Path, make: Callable[[Mapping[str, Tensor], Json], T]) -> T | None:
    """What ``make`` makes of tensors and facts as they were written.

    ``None`` if there are none, or if they are damaged, or if ``make`` raises a ``ValueError``.
    """
    try:
        if not file.is_file():
            return None
        with safe_open(file, framework="pt") as content:
            about = content.metadata()
            # Copies: the tensors are the file's own bytes, which may change.
            tensors = {name: content.get_tensor(name).clone() for name in sorted(content.keys())}
        if about[_DIGEST] != _digest(tensors, about[_FACTS]):
            raise ValueError("it is damaged")
        with suppress(OSError):  # it may be another user's
            os.utime(file)
        return make(tensors, json.loads(about[_FACTS]))
    except _TROUBLES as error:
        warn_once(f"{file} cannot be used ({_reason(error)}): the images are decoded anew")
        return None


def write(file: Path, tensors: Mapping[str, Tensor], facts: Json) -> None:
    """Keep them; without room or permission, one line says so."""
    text = json.dumps(facts)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            about = {_FACTS: text, _DIGEST: _digest(tensors, text)}
            save_file(dict(tensors), temporary, metadata=about)
    except _TROUBLES as error:
        where = f"in {file.parent} ({_reason(error)})"
        warn_once(f"decoded images cannot be kept {where}: see --image-cache")
    else:
        _make_room(file.parent)


@functools.cache
def clear_once() -> None:
    """Delete all that is kept, once in a command and not in the processes that it starts."""
    if multiprocessing.parent_process():
        return
    try:
        for file in cache_folder().glob(f"*{_END}"):
            file.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        warn_once(f"kept images cannot be deleted ({error})")


def _reason(error: Exception) -> str:
    """Why, without the number and the path that an error of the system has besides."""
    return getattr(error, "strerror", None) or str(error)


def _make_room(folder: Path) -> None:
    found: list[tuple[float, int, Path]] = []
    for file in folder.glob(f"*{_END}"):
        with suppress(OSError):  # another process has just deleted it
            about = file.stat()
            found.append((about.st_mtime, about.st_size, file))
    taken = 0
    for _, size, file in sorted(found, reverse=True):
        taken += size
        if taken > LIMIT:
            with suppress(OSError):
                file.unlink()


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
