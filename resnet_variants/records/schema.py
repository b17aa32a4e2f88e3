"""The columns of runs and epochs: one list for the JSON files and the tables, and one check.

A ``Column`` is a key of a JSON record and a column of a table. ``check_record`` checks what a JSON
file holds, ``read_table`` reads a CSV file, and ``checked`` checks the values of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isinf
from pathlib import Path

import pandas as pd

from resnet_variants.models.variant import AXES, FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.files import LARGEST, Json, damaged, is_number, short
from resnet_variants.registry import UserError

Kind = type[str] | type[int] | type[float]
CONFIG, RESULT = "run.json", "result.json"


@dataclass(frozen=True)
class Column:
    """One value of a record, and one column of a table of records.

    Attributes:
        name: the key in JSON, the header in a table.
        kind: ``str``, ``int`` or ``float``. A missing number is NaN.
        low: the smallest number.
        high: the largest number.
        file: the file of a run's directory that holds it.
        optional: the number may be missing.
        later: folders of earlier versions lack the column.
        missing: a missing text.
    """

    name: str
    kind: Kind = float
    low: float = -inf
    high: float = inf
    file: str = CONFIG
    optional: bool = False
    later: bool = False
    missing: str = ""

    def wrong(self, values: pd.Series) -> pd.Series:
        """Which numbers this column cannot hold."""
        wrong = ~(values.between(self.low, self.high) & (values.abs() < LARGEST))
        if self.kind is int:
            wrong |= values % 1 != 0
        return wrong & values.notna() if self.optional or self.later else wrong

    @property
    def meaning(self) -> str:
        """What a value must be: ``a whole number from 1``."""
        noun = {str: "a text", int: "a whole number", float: "a number"}[self.kind]
        low = "" if isinf(self.low) else f" from {self.low:g}"
        return noun + low + ("" if isinf(self.high) else f" to {self.high:g}")


# --- runs and epochs --------------------------------------------------------------------------

_size = partial(Column, kind=int, low=1)
_measured = partial(Column, file=RESULT, optional=True)


def _axis(name: str) -> Column:
    """The column of an axis. Folders of versions without the axis have its default."""
    axis, later = AXES[name], name in shown_as(FURTHER)
    if axis.is_text:
        return Column(name, str, later=later, missing=str(axis.default) if later else "")
    return Column(name, int, later=True) if later else _size(name)


VARIANT = (Column("model", str), Column("preset", str), *map(_axis, shown_as(SIZE, MAIN)))
FURTHER_AXES = tuple(map(_axis, shown_as(FURTHER)))
COSTS = tuple(map(_size, ("params", "macs", "flops", "acts")))
IMAGES = (Column("data_hash", str, later=True), Column("split_hash", str, later=True))
RUNS = (
    Column("run_id", str),
    Column("status", str, file=RESULT),
    *VARIANT,
    Column("dataset", str),
    _size("img_size"),
    _size("epochs"),
    Column("seed", int),
    *COSTS,
    _measured("test_acc", low=0, high=1),
    _measured("test_loss"),
    _measured("val_acc"),
    _measured("train_loss"),
    _measured("seconds"),
    _measured("images_per_second"),
    _measured("peak_memory_mb"),
    Column("device", str),
    Column("precision", str),
    Column("error", str, file=RESULT),
    *FURTHER_AXES,
    *IMAGES,
    _measured("n_test", int, later=True),
)
MEASURED_WHEN_DONE = ("test_acc", "test_loss", "seconds")
OF_RUN = (Column("run_id", str), Column("model", str), Column("seed", int))
EPOCHS = (
    *OF_RUN,
    Column("epoch", int),
    *(
        Column(name, optional=True)
        for name in ("lr", "train_loss", "val_loss", "val_acc", "seconds", "images_per_second")
    ),
    *(Column(name, optional=True, later=True) for name in ("train_acc", "grad_norm")),
)
STEPS = (
    *OF_RUN,
    *(_size(name) for name in ("epoch", "step", "steps")),
    *(
        Column(name, optional=True)
        for name in ("lr", "train_loss", "train_acc", "grad_norm", "seconds")
    ),
)


def names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(column.name for column in columns)


def concatenated(parts: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all parts; without any, an empty table with these columns."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=[*columns])


# --- checks -----------------------------------------------------------------------------------


def check_record(path: Path, record: Json, columns: Sequence[Column]) -> None:
    """Refuse a JSON object with a value of another kind, or without a number that it must have.

    Raises:
        UserError: names the file, the value and the kind.
    """
    for column in columns:
        value = record.get(column.name)
        if column.kind is str:
            fits = isinstance(value, str) or column.name not in record
        elif value is None:
            fits = column.optional or (column.later and column.name not in record)
        else:
            fits = is_number(value)
        if not fits:
            kind = "text" if column.kind is str else "number"
            raise damaged(path, f"{column.name} is {short(value)}, not a {kind}")


def checked(
    frame: pd.DataFrame, columns: Sequence[Column], error: Callable[[str], UserError]
) -> pd.DataFrame:
    """The columns as texts and numbers; whole numbers as ``int`` where none is missing.

    Args:
        frame: has a column ``run_id``.
        columns: what it shall hold.
        error: makes the error from its reason.

    Raises:
        UserError: names the first value that its column cannot hold.
    """
    found: dict[str, pd.Series] = {}
    for column in columns:
        given = frame[column.name]
        if column.kind is str:
            found[column.name] = (
                given.astype(object).where(given.notna(), column.missing).astype(str)
            )
            continue
        values = pd.to_numeric(given, errors="coerce").astype(float)
        wrong = column.wrong(values) | (values.isna() & given.notna())
        if wrong.any():
            run_id, value = frame["run_id"][wrong].iloc[0], given[wrong].iloc[0]
            raise error(f"{column.name} of {run_id} is {value}, not {column.meaning}")
        whole = column.kind is int and values.notna().all()
        found[column.name] = values.astype(int) if whole else values
    return pd.DataFrame(found)


def read_table(
    path: Path, columns: Sequence[Column], error: Callable[[str], UserError]
) -> pd.DataFrame:
    """A CSV file, ``checked``. A column that earlier versions lacked is empty.

    Raises:
        UserError: no table, no such column, or a value that its column cannot hold.
    """
    texts = {column.name: str for column in columns if column.kind is str}
    numbers = {column.name: "" for column in columns if column.name not in texts}
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=numbers, dtype=texts)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as reason:  # pandas' parser errors, and bytes that are no text
        raise error(" ".join(str(reason).split())) from reason
    missing = [c.name for c in columns if c.name not in frame and not c.later]
    if missing:
        raise error(f"it lacks the columns {', '.join(missing)}")
    return checked(frame.reindex(columns=[*names(columns)]), columns, error)
