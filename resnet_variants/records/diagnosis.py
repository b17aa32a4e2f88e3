"""The tables of a diagnosis, in a run's directory and in a results folder.

runs/<run_id>/NAME.csv   of that run, for each NAME of ``TABLES``
NAME.csv                 of all runs together
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from resnet_variants.records.manifest import is_whole
from resnet_variants.records.schema import Column, concatenated, names, read_table
from resnet_variants.registry import UserError

NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # standard deviations, for pixel values from 0 to 1
NOISE = 0.1  # the deviation that summaries show
SHIFTS = (0.0, 1 / 16, 1 / 8, 1 / 4)  # of images, as shares of their side
SHIFT = 1 / 8  # the one that summaries show
OUTPUT = "output"  # in place of a unit's name: the output of the last unit
TRUE_CLASS, OTHER_CLASS = "true", "other"  # kinds of maps; other: the most probable other class

Diagnosis = dict[str, pd.DataFrame]  # by the names of TABLES


def _number(name: str, low: float = -float("inf"), high: float = float("inf")) -> Column:
    return Column(name, low=low, high=high, optional=True)


def _count(name: str, high: float = float("inf")) -> Column:
    return Column(name, int, low=0, high=high, optional=True)


@dataclass(frozen=True)
class Table:
    """One table of a diagnosis.

    Attributes:
        columns: after those of ``KEYS``.
        required: values of columns that every run has a row with.
        may_be_empty: a run may have no rows.
        later: it was added after the first version; a diagnosis without it is complete too.
    """

    columns: Sequence[Column]
    required: Sequence[Mapping[str, object]] = ()
    may_be_empty: bool = False
    later: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        """The names of all columns, ``KEYS`` first."""
        return names([*KEYS, *self.columns])


KEYS = (
    Column("run_id", str),
    Column("model", str),
    Column("seed", int, optional=True),
    _count("epoch", high=10**6),  # 0: the initial weights
)
_UNIT, _NAME, _KIND = _count("unit", high=9999), Column("name", str), Column("kind", str)
_ACC, _IMAGES = _number("acc", 0, 1), _count("n")
_NORMS = ("input_norm", "grad_norm", "shortcut_norm", "branch_norm")

TABLES = {
    "gradient_flow": Table(
        (_UNIT, _NAME, *map(_number, _NORMS), _number("recursion_error"), _IMAGES)
    ),
    "paths": Table(
        (
            _count("length", high=9999),
            *map(_number, ("share", "grad_norm", "grad_norm_sd", "contribution")),
            _count("draws"),
            _IMAGES,
        ),
        may_be_empty=True,
    ),
    "lesion": Table(
        (
            *(_KIND, _UNIT, _NAME, _number("keeps_shape"), _count("deleted"), _count("exchanged")),
            *(_number("kendall_tau"), _count("draw"), _ACC, _number("loss"), _IMAGES),
        ),
        required=({"kind": "none"},),
    ),
    "identity_distance": Table(
        (_UNIT, _NAME, _number("branch_to_shortcut"), _number("cosine"), _IMAGES)
    ),
    "sensitivity": Table(
        (_KIND, _UNIT, _NAME, _number("growth"), _number("noise_sd"), _ACC, _IMAGES),
        required=(
            {"kind": "growth"},
            *({"kind": "noise", "noise_sd": deviation} for deviation in (0.0, NOISE)),
        ),
    ),
    "shifts": Table(
        (_number("share", 0, 1), _count("shift"), _ACC, _number("kept", 0, 1), _IMAGES),
        required=({"share": 0.0}, {"share": SHIFT}),
        later=True,
    ),
    "class_maps": Table(
        (
            *(_count("image"), _KIND, _count("class"), Column("class_name", str)),
            *(_number("probability", 0, 1), _number("logit")),
            *(Column("map", str), Column("picture", str)),  # see ``records.pictures``
        ),
        required=({"kind": TRUE_CLASS}, {"kind": OTHER_CLASS}),
        may_be_empty=True,  # the pooling is not the mean
        later=True,
    ),
}


def is_diagnosed(folder: Path) -> bool:
    """Whether a run's directory holds every table that any version writes, of one diagnosis."""
    first = [name for name, table in TABLES.items() if not table.later]
    return all((folder / f"{name}.csv").is_file() for name in first) and is_whole(folder)


def of_runs(tables: Diagnosis, run_ids: Iterable[str]) -> Diagnosis:
    """The rows of these runs."""
    ids = set(run_ids)
    return {name: frame[frame["run_id"].isin(ids)] for name, frame in tables.items()}


def read_diagnoses(out: Path, run_ids: Iterable[str]) -> Diagnosis:
    """The tables of these runs; runs that were not diagnosed have no rows.

    Without raw runs (in a clone, in an archive) the folder's own tables are read. A table that is
    missing is empty.

    Raises:
        ValueError: a file is damaged, or has rows of other runs.
    """
    ids = list(run_ids)
    if (out / "runs").is_dir():
        folders = [out / "runs" / run_id for run_id in ids]
        read = ((folder, _read_all(folder, {folder.name})) for folder in folders)
        parts = [tables for folder, tables in read if tables and is_whole(folder)]
    else:
        parts = [_read_all(out, set(ids))]
    return {
        name: concatenated([part[name] for part in parts if name in part], table.header)
        for name, table in TABLES.items()
    }


def _read_all(folder: Path, runs: set[str]) -> Diagnosis:
    """The tables in a folder, of one run or of all diagnosed runs."""
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set[str]()
    files = {name: folder / f"{name}.csv" for name in TABLES if f"{name}.csv" in there}
    tables = {name: _read(file, name, runs) for name, file in files.items()}
    if tables:
        models = pd.concat([frame[["run_id", "model"]] for frame in tables.values()])
        if models.drop_duplicates()["run_id"].duplicated().any():
            raise _no_table(files[next(iter(tables))], "its tables are of several networks")
    return tables


def _read(file: Path, name: str, runs: set[str]) -> pd.DataFrame:
    table, error = TABLES[name], partial(_no_table, file)
    frame = read_table(file, [*KEYS, *table.columns], error)
    own = set(frame["run_id"])
    if own - runs or not (own or table.may_be_empty):
        raise error("it is of other runs")
    for row in table.required:
        if set(frame.loc[(frame[[*row]] == [*row.values()]).all(axis=1), "run_id"]) != own:
            raise error("no row of " + " and ".join(f"{key} {value}" for key, value in row.items()))
    return frame


def _no_table(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is no table of diagnose ({reason}): move it elsewhere")
