"""A table of named choices whose misses help: how this package looks things up by name."""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")
_SHOWN = 200  # letters of a wrong value


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


class Registry(dict[str, T]):
    """Named choices of one kind, in the order they were declared."""

    def __init__(self, kind: str, **entries: T) -> None:
        super().__init__(entries)
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters an object under ``name``; a taken name is an error."""

        def enter(entry: T) -> T:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self[name] = entry
            return entry

        return enter

    def __missing__(self, name: str) -> NoReturn:
        refuse(self.kind, name, self)
