"""A table of named choices whose misses help: how this package looks things up by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import fields
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
    shown = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
    message = f"unknown {kind} {shown};{hint} choices: {', '.join(names)}"
    raise UserError(message, field=kind if field is None else field)


def require_types(settings: Any) -> None:
    """Refuse a field of a settings dataclass that has not its default's type.

    A whole number may stand for a real one; true and false are no numbers.

    Raises:
        UserError: names field, value and type.
    """
    for field in fields(settings):
        value, wanted = getattr(settings, field.name), cast("type", type(field.default))
        allowed: tuple[type, ...] = (int, float) if wanted is float else (wanted,)
        if type(value) not in allowed:
            message = f"{field.name} {value!r} must be of type {wanted.__name__}"
            raise UserError(message, field=field.name)


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
