"""Files that are whole or not there: atomic writes, and reads that name what is damaged."""

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
LARGEST = 2**63  # what a column of whole numbers holds
TEMPORARY = ".resnet-variants.tmp"  # how the names of scratch folders end
_LOCK = "lock"  # in each of them


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Where to write what takes the place of ``path`` when the block ends well.

    It is there whole or not at all, even if the machine stops in between. What dead processes were
    writing in the same folder is removed.
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
    """A disk, a mount, a limit of the system or a cluster is in the way: no fault of the run."""


# A full disk, one that is lost or read-only, a file too large, no descriptors.
_IN_THE_WAY = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE),
)
_NO_FILE = (errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ELOOP)  # whoever reads


def is_storage(text: object) -> bool:
    """Whether an error, or its text, says so; libraries put the system's words into their own."""
    return any(os.strerror(number) in str(text) for number in _IN_THE_WAY)


def _scratch_folder(path: Path) -> tuple[Path, IO[bytes]]:
    """A new folder beside ``path``, and the file in it that is locked while a process writes there.

    Libraries put temporary files of their own in it. (A process id in its name would say less than
    the lock: ids are used again, and other hosts and containers have their own.)
    """
    while True:
        folder = Path(tempfile.mkdtemp(TEMPORARY, f".{path.name}.", path.parent))
        with contextlib.suppress(FileNotFoundError):  # another process swept it at once
            lock = (folder / _LOCK).open("xb")
            with contextlib.suppress(OSError):  # no locks on this file system: nobody sweeps there
                fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / _LOCK).exists():
                return folder, lock
            lock.close()


def _sweep(folder: Path) -> None:
    """Remove the scratch folders that no process writes to."""
    for left in folder.glob(f".*{TEMPORARY}"):
        # Its writer lives, or another process has just removed it, or it is another user's.
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
    """Tell the user in one line that ``path``, where the output goes, cannot be written."""
    try:
        yield
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror or error}"
        raise StorageError(message, field="out") from error


def require_name(path: object, *, field: str) -> None:
    """Refuse a path that the system takes for none, or that no table and no page can show.

    Raises:
        ValueError: it holds a NUL, or bytes that are no UTF-8.
    """
    text = str(path)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        message = f"{text!r} holds a NUL or bytes that are no UTF-8: take another name"
        raise UserError(message, field=field)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put ``content`` at ``path`` whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else encoded(content))


def encoded(text: str) -> bytes:
    """The text as UTF-8, in which bytes of a file's name that are no letters are spelt out."""
    return text.encode(errors="backslashreplace")


def to_json(content: Mapping[str, object]) -> str:
    """Readable JSON; a number that is not finite is missing, ``null``."""
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def finite(value: object) -> object:
    """The value with ``None`` for every number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """The text of a file; a pipe or a device, which would be read for ever, is none.

    Raises:
        OSError: it is not there, no regular file, or cannot be read.
        ValueError: it is no UTF-8.
    """
    # Without waiting for whoever might write into a pipe.
    with open(path, encoding="utf-8", opener=_regular) as file:
        return file.read()


def _regular(path: str, flags: int) -> int:
    number = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # which Python refuses by itself
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
        FileNotFoundError: it is not there.
        ValueError: not JSON, or not an object; or it cannot be read. The message names the file.
    """
    with readable(path, remedy=remedy):
        content = _parsed(read_text(path))
    if not isinstance(content, dict):
        raise damaged(path, "no JSON object", remedy=remedy)
    return cast(Json, content)


@contextlib.contextmanager
def readable(path: Path, *, remedy: str = REDO) -> Iterator[None]:
    """Tell the user in one line that ``path`` cannot be read within the block, or not understood.

    Raises:
        FileNotFoundError: it is not there, which may be as it should.
        ValueError: all else; the message names the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or error
        if error.errno in _NO_FILE:
            raise damaged(path, reason, remedy=remedy) from error
        kind = StorageError if is_storage(error) else UserError
        raise kind(f"{path} cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error, remedy=remedy) from error


def _parsed(text: str) -> object:
    """What JSON says; for half a surrogate pair, which no table can hold, a question mark."""
    content = cast(object, json.loads(text))
    if re.search(r"\\u[dD]", text):  # else there is none
        content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    return content


def is_number(value: object) -> bool:
    """Whether it is a number that a table's column can hold: finite, and not of 100 digits."""
    return type(value) in (int, float) and -LARGEST < cast(float, value) < LARGEST


def short(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
