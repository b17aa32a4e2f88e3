"""What the HTML pages are made with: their templates, style sheet, and tables of text."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import pandas as pd

from resnet_variants.reporting.forest import Forest
from resnet_variants.reporting.text import cell_text

if TYPE_CHECKING:
    import jinja2

Links = Sequence[tuple[str, str]]  # text and relative address of files that are there
# What a cell with a number looks like: `1,234`, `<0.001`, `+0.10 [-0.20, 0.40]`, `80 %`.
_NUMBER = re.compile(r"<?[-+]?[\d,]*\.?\d+(e[-+]\d+)?( [%\[(].*)?")


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    cells: Mapping[str, Sequence[str]]  # by column title; the first names the row
    arms: Sequence[int] = ()  # the page's number of each row's arm, where rows are of arms
    forest: Forest | None = None
    files: Sequence[Links] = ()  # of each row

    @classmethod
    def of(cls, frame: pd.DataFrame, arms: Sequence[int] = (), **more: Any) -> Table:
        """The table of a frame's values."""
        cells = {str(name): frame[name].map(cell_text).tolist() for name in frame}
        return cls(cells, arms, **more)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of each row."""
        return list(zip(*self.cells.values(), strict=True))

    @property
    def kinds(self) -> list[str]:
        """What each column holds: ``number``, ``verdict`` or ``text``."""
        return [
            "verdict" if title == "verdict" else "number" if _are_numbers(column) else "text"
            for title, column in self.cells.items()
        ]


def _are_numbers(column: Iterable[str]) -> bool:
    cells = [*filter(None, column)]
    return bool(cells) and all(map(_NUMBER.fullmatch, cells))


def filled(template: str, **values: Any) -> str:
    """The page that a template makes of values, which are escaped."""
    made = _environment().get_template(template)
    return made.render(style=asset("page.css"), **values).lstrip()


@functools.cache
def _environment() -> jinja2.Environment:
    """It keeps the templates that it has compiled."""
    import jinja2  # only who reports pays for it

    return jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(asset),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """A file of ``assets``."""
    file = resources.files("resnet_variants.reporting") / "assets" / name
    return file.read_text(encoding="utf-8")
