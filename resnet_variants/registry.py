"""A table of named choices whose misses help: how this package looks things up by name."""

from __future__ import annotations

import difflib
import functools
import logging
import operator
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")
_SHOWN = 200  # letters of a wrong value
_PACKAGE = __name__.partition(".")[0]


def one_line(text: str) -> str:
    """The text with codes for what is no visible letter, such as a line break or an escape."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


class UserError(ValueError):
    """What was asked for cannot be done; the message is one line that says what to do instead.

    Attributes:
        field: the setting at fault, ``""`` where it is not one setting.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(one_line(message))
        self.field = field


@functools.cache  # once
def warn_once(line: str) -> None:
    """Tell the user something that stops nothing; the same line is told once."""
    logging.getLogger(_PACKAGE).warning("%s", one_line(line))


def refuse(
    kind: str, value: object, choices: Iterable[object], *, field: str | None = None
) -> NoReturn:
    """Raise the ``UserError`` for a value that is none of the choices, with the nearest one.

    The error's ``field`` is ``kind`` unless given.

    ``unknown stem 'deepp'; did you mean 'deep'? choices: conv7, deep``
    """
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), names, n=1) if isinstance(value, str) else []
    hint = f" did you mean {near[0]!r}?" if near else ""
    message = f"unknown {kind} {shown(value)};{hint} choices: {', '.join(names)}"
    raise UserError(message, field=kind if field is None else field)


def shown(value: object) -> str:
    """A wrong value as a message shows it: one line, and not all of a long one."""
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def number_of(count: int, noun: str, several: str = "") -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {several or f'{noun}s'}"


# --- what Python callers give -----------------------------------------------------------------


def plain(value: Any) -> Any:
    """Numbers and texts of NumPy, torch and other libraries as Python's own; the rest as it is."""
    if getattr(value, "ndim", None) == 0 and not getattr(value, "is_meta", False):
        value = value.item()  # a scalar, or an array or tensor of one
    if isinstance(value, bool | type):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, its text
    if hasattr(value, "__index__") and not hasattr(value, "ndim"):
        return operator.index(value)
    return float(value) if isinstance(value, Real) else value


def sequence(value: Any) -> Sequence[Any] | None:
    """The values of a list, tuple, range, array or the like; ``None`` for text and all else."""
    if isinstance(value, Sequence):
        return None if isinstance(value, str | bytes) else cast("Sequence[Any]", value)
    return cast("list[Any]", value.tolist()) if getattr(value, "ndim", None) == 1 else None


def require(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuse an argument that is of none of the kinds.

    Raises:
        UserError: says ``what`` it must be.
    """
    if not isinstance(value, kinds):
        raise UserError(f"{name} {shown(value)} must be {what}", field=name)


def require_path(name: str, value: object) -> Path:
    """An argument as a path.

    Raises:
        UserError: it is neither text nor a path.
    """
    require(name, value, (str, os.PathLike), "a path")
    return Path(cast(str, value))


def require_name(path: object, *, field: str) -> None:
    """Refuse a path that no table and no page can show.

    Raises:
        UserError: it holds a NUL, or bytes that are no UTF-8.
    """
    text = str(path)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        message = f"{text!r} holds a NUL or bytes that are no UTF-8: take another name"
        raise UserError(message, field=field)


def blamed(error: BaseException, file: str) -> str:
    """An error of a user's Python file in one line: ``parts.py, line 3: KeyError: 'a'``."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = frames[-1].lineno if frames else None
    reason = (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, SyntaxError) and error.filename == file:
        line, reason = error.lineno, error.msg
    where = f", line {line}" if line else ""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{os.path.basename(file)}{where}: {kind}{reason}"  # noqa: PTH119


def file_of(function: object) -> str:
    """The file with a function's source; empty for what has none."""
    return str(getattr(getattr(function, "__code__", None), "co_filename", ""))


class Registry(dict[str, T]):
    """Named choices of one kind, in the order they were declared.

    Attributes:
        kind: what is chosen.
        origins: the name of the module that entered each choice.
    """

    def __init__(self, kind: str, **entries: T) -> None:
        super().__init__(entries)
        self.kind = kind
        self.origins = dict.fromkeys(entries, _caller())

    def __setitem__(self, name: str, entry: T) -> None:
        """Enter an object under a name.

        Raises:
            UserError: the name is taken.
        """
        if name in self:
            message = f"{self.kind} {name!r} is registered already, by {self.origins.get(name)}"
            raise UserError(f"{message}: take another name", field=self.kind)
        super().__setitem__(name, entry)
        self.origins[name] = _caller()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.origins.pop(name, None)

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters an object under ``name``; a taken name is an error."""

        def enter(entry: T) -> T:
            self[name] = entry
            return entry

        return enter

    @property
    def built_in(self) -> list[str]:
        """The names that the package itself has entered."""
        return [name for name, origin in self.origins.items() if is_within(origin, _PACKAGE)]

    def __missing__(self, name: str) -> NoReturn:
        refuse(self.kind, name, self)


def is_within(module: str, package: str) -> bool:
    """Whether a module is the package, or a part of it."""
    return f"{module}.".startswith(f"{package}.")


def _caller() -> str:
    """The module whose code uses the registry at this moment."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))
