"""What a diagnosis leaves in a run's directory and in a results folder: one schema.

runs/<run_id>/NAME.csv   of that run, for each NAME of ``TABLES``
NAME.csv                 of all runs together
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

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
_COUNTS = (  # whole where none is missing
    *("seed", "epoch", "unit", "length", "deleted", "exchanged", "draw", "draws", "n"),
)
_TEXTS = ("run_id", "model", "name", "kind")

Diagnosis = dict[str, pd.DataFrame]  # by the names of TABLES


def is_diagnosed(folder: Path) -> bool:
    """Whether a directory, of a run or of results, holds every table."""
    return all((folder / f"{name}.csv").is_file() for name in TABLES)


def of_runs(tables: Diagnosis, run_ids: Iterable[str]) -> Diagnosis:
    """The rows of these runs."""
    ids = set(run_ids)
    return {name: frame[frame["run_id"].isin(ids)] for name, frame in tables.items()}


def read_diagnoses(out: Path, run_ids: Iterable[str]) -> Diagnosis:
    """The tables of those of the runs that have been diagnosed: ``KEYS`` and ``TABLES``.

    A folder whose raw runs were left behind is read from its own tables.

    Raises:
        ValueError: a file is damaged.
    """
    ids = list(run_ids)
    if (out / "runs").is_dir():
        folders = [folder for i in ids if is_diagnosed(folder := out / "runs" / i)]
    else:
        folders = [out] if is_diagnosed(out) else []
    found: Diagnosis = {}
    for name in TABLES:
        parts = [_read(folder / f"{name}.csv", name) for folder in folders]
        kept = [part[part["run_id"].isin(ids)] for part in parts]
        filled = [part for part in kept if not part.empty]
        empty = pd.DataFrame(columns=[*KEYS, *TABLES[name]])
        found[name] = pd.concat(filled, ignore_index=True) if filled else empty
    return found


def _read(file: Path, name: str) -> pd.DataFrame:
    columns = [*KEYS, *TABLES[name]]
    numbers = [column for column in columns if column not in _TEXTS]
    try:
        frame = pd.read_csv(file, keep_default_na=False, na_values={c: "" for c in numbers})
        frame = frame[columns].astype(dict.fromkeys(numbers, float))
        whole = [c for c in _COUNTS if c in frame and frame[c].notna().all()]
        return frame.astype(dict.fromkeys(whole, int))
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is no table of diagnose ({reason}): delete it") from error
