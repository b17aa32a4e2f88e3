"""Files that are whole or not there: atomic writes, and reads that name what is damaged."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from resnet_variants.registry import UserError

Json = dict[str, object]
LARGEST = 2**63  # what a column of whole numbers holds


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to: it takes that place when the block ends well.

    It is there whole or not at all, even if the machine stops in between.
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        temporary = Path(file.name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
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


def is_storage(text: object) -> bool:
    """Whether an error, or its text, says so; libraries put the system's words into their own."""
    return any(os.strerror(number) in str(text) for number in _IN_THE_WAY)


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


def write_atomically(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
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
        content = cast(object, json.loads(read_text(path)))
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
        if error.errno in (
            errno.EINVAL,
            errno.EISDIR,
            errno.ENXIO,
            errno.ELOOP,
        ):  # no file, whoever reads
            raise damaged(path, reason, remedy=remedy) from error
        kind = StorageError if is_storage(error) else UserError
        raise kind(f"{path} cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error, remedy=remedy) from error


def require_numbers(path: Path, content: Json, names: Iterable[str], *, null: bool = False) -> None:
    """Refuse a record in which one of the names is no number; ``null`` allows a missing one."""
    for name in names:
        value = content.get(name)
        if not (is_number(value) or (null and value is None)):
            raise damaged(path, f"{name} is {short(value)}, not a number")


def is_number(value: object) -> bool:
    """Whether it is a number that a table's column can hold: finite, and not of 100 digits."""
    return type(value) in (int, float) and -LARGEST < cast(float, value) < LARGEST


def require_texts(path: Path, content: Json, names: Iterable[str]) -> None:
    """Refuse a record in which one of the names is no text; a missing one is left to others."""
    for name in names:
        if not isinstance(content.get(name, ""), str):
            raise damaged(path, f"{name} is {short(content[name])}, not a text")


def short(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
