"""Atomic writes, locks, and reads whose errors name the damaged file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from filelock import FileLock, Timeout

from resnet_variants.registry import UserError

Json = dict[str, object]
LARGEST = 2**63  # a column of whole numbers holds smaller numbers only
TEMPORARY = ".resnet-variants.tmp"  # suffix of the names of scratch folders
_LOCK = "lock"  # file in a scratch folder, locked by the process that writes there


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which replaces ``path`` when the block ends without an error.

    ``path`` is complete or unchanged, even if the machine stops in between. Temporary files that
    dead processes left in the same folder are removed.
    """
    _sweep(path.parent)
    scratch, lock = _scratch_folder(path)
    try:
        temporary = scratch / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.close()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class StorageError(UserError):
    """The disk, a mount, a system limit or the cluster failed: not the fault of the run."""


# The disk is full, lost or read-only, the file is too large, or there are no descriptors left.
_STORAGE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE),
)
_NO_FILE = (errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ELOOP)  # no regular file


def is_storage(text: object) -> bool:
    """Whether an error, or its text, is a storage error. Libraries quote the system's words."""
    return any(os.strerror(number) in str(text) for number in _STORAGE_ERRORS)


def _scratch_folder(path: Path) -> tuple[Path, IO[bytes]]:
    """A new folder beside ``path``, and its lock file, locked while a process writes there.

    Libraries may put their own temporary files into the folder. A lock shows that the writer lives;
    a process id in the name would not: ids are reused, and differ between hosts and containers.
    """
    while True:
        folder = Path(tempfile.mkdtemp(TEMPORARY, f".{path.name}.", path.parent))
        with contextlib.suppress(FileNotFoundError):  # another process removed the new folder
            lock = (folder / _LOCK).open("xb")
            # On a file system without locks, no process removes folders.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / _LOCK).exists():
                return folder, lock
            lock.close()


def _sweep(folder: Path) -> None:
    """Remove the scratch folders that no process writes to."""
    for left in folder.glob(f".*{TEMPORARY}"):
        # An error means: the writer lives, another process removed it, or it is another user's.
        with contextlib.suppress(OSError):
            if not (left / _LOCK).exists():
                left.rmdir()  # only an empty one
                continue
            with (left / _LOCK).open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)


@contextlib.contextmanager
def locked(file: Path, seconds: float = 0.0, *, owner: Path | None = None) -> Iterator[bool]:
    """Hold a lock file within the block; ``False`` where another process holds it.

    The system releases the lock when a process ends, however it ends.

    Args:
        file: the lock file. Its folder must exist.
        seconds: how long to wait for another process.
        owner: what the lock is for, which an error names; the file's folder by default.

    Raises:
        UserError: the lock file cannot be written.
    """
    lock = FileLock(file, timeout=seconds, poll_interval=0.02)
    owner = owner or file.parent
    with writing(owner), contextlib.suppress(Timeout):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        try:
            if lock.is_locked:
                with writing(owner):
                    # Unlink before release: a waiting process sees that the file is gone and
                    # creates a new lock.
                    file.unlink(missing_ok=True)
        finally:
            lock.release()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the system within the block into one line: ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror or error}"
        raise StorageError(message, field="out") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path``, all of it or nothing."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(encoded(content))


def encoded(content: str | bytes) -> bytes:
    """Text as UTF-8. Undecodable bytes of a file name become escape sequences."""
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")


def to_json(content: Mapping[str, object]) -> str:
    """Indented JSON. A number that is not finite becomes ``null``."""
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def finite(value: object) -> object:
    """The value, with ``None`` in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """The text of a regular file. A pipe or a device would be read for ever and is refused.

    Raises:
        OSError: the file is missing, is no regular file, or cannot be read.
        ValueError: the file is no UTF-8.
    """
    with open(path, encoding="utf-8", opener=_regular) as file:
        return file.read()


def require_regular(path: Path) -> None:
    """Refuse a path that ``read_text`` would refuse, for libraries that open files themselves.

    Raises:
        OSError: the file is missing, is no regular file, or cannot be read.
    """
    with open(path, "rb", opener=_regular):
        pass


def _regular(path: str, flags: int) -> int:
    number = os.open(path, flags | os.O_NONBLOCK)  # does not wait for the writer of a pipe
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # Python refuses folders itself
        return number
    os.close(number)
    raise OSError(errno.EINVAL, "it is no regular file")


REDO = "delete its folder to redo the run"


def damaged(path: Path, reason: object, *, remedy: str = REDO) -> UserError:
    """The error for a file that was cut off or edited by hand."""
    return UserError(f"{path} is damaged ({reason}); {remedy}")


def read_json(path: Path, *, remedy: str = REDO) -> Json:
    """One JSON object.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: no JSON, no object, or unreadable; the message names the file.
    """
    with readable(path, remedy=remedy):
        content = _parsed(read_text(path))
    if not isinstance(content, dict):
        raise damaged(path, "no JSON object", remedy=remedy)
    return cast(Json, content)


@contextlib.contextmanager
def readable(
    path: Path, *, remedy: str = REDO, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn an error of reading or parsing ``path`` within the block into one line for the user.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file.
        also: errors of the library that parses it.

    Raises:
        FileNotFoundError: the file is missing. Callers decide whether it may be.
        ValueError: any other error; the message names the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or error
        if error.errno is None or error.errno in _NO_FILE:
            raise damaged(path, reason, remedy=remedy) from error
        kind = StorageError if is_storage(error) else UserError
        raise kind(f"{path} cannot be read: {reason}") from error
    except (ValueError, RecursionError, *also) as error:
        raise damaged(path, " ".join(str(error).split()), remedy=remedy) from error


def _parsed(text: str) -> object:
    """The JSON value, with a question mark for half a surrogate pair, which no table can hold."""
    content = cast(object, json.loads(text))
    if re.search(r"\\u[dD]", text):  # else there is none
        content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    return content


def is_number(value: object) -> bool:
    """Whether a table's column can hold it as a number: finite, and below ``LARGEST``."""
    return type(value) in (int, float) and -LARGEST < cast(float, value) < LARGEST


def short(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
