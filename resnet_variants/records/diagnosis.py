"""What a diagnosis leaves in a run's directory and in a results folder: one schema.

runs/<run_id>/NAME.csv   of that run, for each NAME of ``TABLES``
NAME.csv                 of all runs together
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from resnet_variants.records.manifest import is_whole
from resnet_variants.registry import UserError

KEYS = ("run_id", "model", "seed", "epoch")  # epoch 0: the initial weights
TABLES = {
    "gradient_flow": (
        *("unit", "name", "input_norm", "grad_norm", "shortcut_norm", "branch_norm"),
        *("recursion_error", "n"),
    ),
    "paths": ("length", "share", "grad_norm", "grad_norm_sd", "contribution", "draws", "n"),
    "lesion": (
        *("kind", "unit", "name", "keeps_shape", "deleted", "exchanged", "kendall_tau"),
        *("draw", "acc", "loss", "n"),
    ),
    "identity_distance": ("unit", "name", "branch_to_shortcut", "cosine", "n"),
    "sensitivity": ("kind", "unit", "name", "growth", "noise_sd", "acc", "n"),
}
NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # standard deviations, of values from 0 to 1
NOISE = 0.1  # the one of them that summaries speak of
OUTPUT = "output"  # in the place of a unit's name: what the last one gives
_COUNTS = (  # whole where none is missing
    *("seed", "epoch", "unit", "length", "deleted", "exchanged", "draw", "draws", "n"),
)
_RANGES = {"acc": (0, 1), "unit": (0, 9999), "length": (0, 9999), "epoch": (0, 10**6)}
_REQUIRED = {  # what each run has a row of
    "lesion": ({"kind": "none"},),
    "sensitivity": (
        {"kind": "growth"},
        *({"kind": "noise", "noise_sd": deviation} for deviation in (0.0, NOISE)),
    ),
}
_TEXTS = ("run_id", "model", "name", "kind")

Diagnosis = dict[str, pd.DataFrame]  # by the names of TABLES


def is_diagnosed(folder: Path) -> bool:
    """Whether a run's directory holds every table, all of one diagnosis."""
    return all((folder / f"{name}.csv").is_file() for name in TABLES) and is_whole(folder)


def of_runs(tables: Diagnosis, run_ids: Iterable[str]) -> Diagnosis:
    """The rows of these runs."""
    ids = set(run_ids)
    return {name: frame[frame["run_id"].isin(ids)] for name, frame in tables.items()}


def read_diagnoses(out: Path, run_ids: Iterable[str]) -> Diagnosis:
    """The tables of those of the runs that have been diagnosed: ``KEYS`` and ``TABLES``.

    Each table is optional. A folder whose raw runs were left behind is read from its own tables.

    Raises:
        ValueError: a file is damaged, or has runs that are not among these.
    """
    ids = list(run_ids)
    if (out / "runs").is_dir():
        folders = [out / "runs" / run_id for run_id in ids]
        read = ((folder, _read_all(folder, {folder.name})) for folder in folders)
        found = [tables for folder, tables in read if tables and is_whole(folder)]
    else:
        found = [_read_all(out, set(ids))]
    tables: Diagnosis = {}
    for name in TABLES:
        filled = [part for part in (own[name] for own in found if name in own) if not part.empty]
        empty = pd.DataFrame(columns=[*KEYS, *TABLES[name]])
        tables[name] = pd.concat(filled, ignore_index=True) if filled else empty
    return tables


def _read_all(folder: Path, runs: set[str]) -> Diagnosis:
    """The tables in a folder, of one run or of all that have been diagnosed."""
    files = {name: folder / f"{name}.csv" for name in TABLES}
    tables = {name: _read(file, name) for name, file in files.items() if file.is_file()}
    for name, frame in tables.items():
        wrong = _wrong(name, frame, runs)
        if wrong:
            raise _no_table(files[name], wrong)
    if tables:
        models = pd.concat([frame[["run_id", "model"]] for frame in tables.values()])
        if models.drop_duplicates()["run_id"].duplicated().any():
            raise _no_table(files[next(iter(tables))], "its tables are of several networks")
    return tables


def _wrong(name: str, frame: pd.DataFrame, runs: set[str]) -> str:
    """What cannot be so in a table that ``diagnose`` wrote of some of these runs, if anything."""
    own = set(frame["run_id"])
    if own - runs or not (own or name == "paths"):
        return "it is of other runs"
    if np.isinf(frame.select_dtypes("number").to_numpy(float)).any():
        return "a number is infinite"
    for column, (low, high) in _RANGES.items():
        if column in frame and not frame[column].dropna().between(low, high).all():
            return f"{column} is not from {low} to {high}"
    for rows in _REQUIRED.get(name, ()):
        if set(frame.loc[(frame[[*rows]] == [*rows.values()]).all(axis=1), "run_id"]) != own:
            return "no row of " + " and ".join(f"{key} {value}" for key, value in rows.items())
    return ""


def _no_table(file: Path, reason: object) -> UserError:
    return UserError(f"{file} is no table of diagnose ({reason}): move it elsewhere")


def _read(file: Path, name: str) -> pd.DataFrame:
    columns = [*KEYS, *TABLES[name]]
    numbers = [column for column in columns if column not in _TEXTS]
    try:
        frame = pd.read_csv(file, keep_default_na=False, na_values={c: "" for c in numbers})
        frame = frame[columns].astype(dict.fromkeys(numbers, float))
        whole = [c for c in _COUNTS if c in frame and frame[c].notna().all()]
        return frame.astype(dict.fromkeys(whole, int))
    except (ValueError, KeyError, TypeError) as error:
        raise _no_table(file, " ".join(str(error).split())) from error
