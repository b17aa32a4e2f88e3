"""What a results folder holds: written by ``sweeps``, read by ``analysis``, one schema.

experiment.json            the question, the runs it takes, the baseline of each model
runs/<run_id>/run.json     configuration and provenance, written when a run starts
runs/<run_id>/epochs.jsonl one object per epoch
runs/<run_id>/result.json  status and test score, written last
runs/<run_id>/log.txt      what the run printed; a traceback if it failed
runs.csv, epochs.csv       the same as tables
What runs answered for each image is described in ``predictions``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from resnet_variants.models.variant import AXES, FURTHER, MAIN, SIZE, shown_as
from resnet_variants.records.files import (
    LARGEST,
    Json,
    damaged,
    read_json,
    read_text,
    readable,
    require_numbers,
    require_texts,
)
from resnet_variants.records.run_folder import (
    DIVERGED,
    DONE,
    FAILED,
    RESULT_EXTRAS,
    RESULT_NUMBERS,
    Provenance,
    RunFolder,
    note_provenance,
)
from resnet_variants.registry import UserError

RUNNING = "running"  # a process has it at this moment
UNFINISHED = "unfinished"  # started, without a result, and nobody is at it
MISSING = "missing"  # planned, never started: such a run has no row
STATUSES = (DONE, RUNNING, UNFINISHED, FAILED, DIVERGED)

VARIANT_COLUMNS = ("model", "preset", *shown_as(SIZE, MAIN))
# The other axes. A folder may have no values for them: then they were not varied.
FURTHER_COLUMNS = tuple(shown_as(FURTHER))
_TEXT_AXES = [name for name, axis in AXES.items() if axis.is_text]
_NUMBER_AXES = [name for name, axis in AXES.items() if not axis.is_text]
# Numbers that may be missing.
OPTIONAL_NUMBERS = (*(name for name in _NUMBER_AXES if name in FURTHER_COLUMNS), "n_test")
IMAGE_COLUMNS = ("data_hash", "split_hash")  # which images; likewise
COST_COLUMNS = ("params", "macs", "flops", "acts")
RUN_COLUMNS = (
    "run_id",
    "status",
    *VARIANT_COLUMNS,
    "dataset",
    "img_size",
    "epochs",
    "seed",
    *COST_COLUMNS,
    "test_acc",
    "test_loss",
    "val_acc",
    "train_loss",
    "seconds",
    "images_per_second",
    "peak_memory_mb",
    "device",
    "precision",
    "error",
    *FURTHER_COLUMNS,
    *IMAGE_COLUMNS,
    "n_test",
)
EPOCH_COLUMNS = (
    "run_id",
    "model",
    "seed",
    "epoch",
    "lr",
    "train_loss",
    "val_loss",
    "val_acc",
    "seconds",
    "images_per_second",
    "train_acc",
    "grad_norm",
)
FURTHER_EPOCH_COLUMNS = ("train_acc", "grad_norm")  # a folder may lack them

# Empty text is text; in the other columns it is a missing number.
TEXT_COLUMNS = {
    *("run_id", "status", "model", "preset", *_TEXT_AXES),
    *("dataset", "device", "precision", "error", *IMAGE_COLUMNS),
}
# What `run.json` and `result.json` must hold as numbers.
_NEEDED_NUMBERS = [name for name in _NUMBER_AXES if name not in FURTHER_COLUMNS]
CONFIG_NUMBERS = (*_NEEDED_NUMBERS, "img_size", "epochs", "seed", *COST_COLUMNS)
RESULT_COLUMNS = ("status", *RESULT_NUMBERS, *RESULT_EXTRAS, "error")

# --- reading ----------------------------------------------------------------------------------


def read_runs(out: Path) -> pd.DataFrame:
    """One row per run started in ``out``, unfinished and failed ones too: ``RUN_COLUMNS``.

    A folder whose raw runs were left behind (a clone, an archive) is read from its ``runs.csv``.

    Raises:
        ValueError: neither is there, or a file is damaged.
    """
    return read_runs_and_provenance(out)[0]


def read_runs_and_provenance(out: Path) -> tuple[pd.DataFrame, Provenance]:
    """``read_runs``, and where its numbers come from, which ``provenance.json`` keeps.

    Raises:
        ValueError: as ``read_runs`` does.
    """
    if not (out / "runs").is_dir():
        file = out / "runs.csv"
        return _checked(file, _read_table(file, RUN_COLUMNS)), _kept_provenance(out)
    rows: list[Json] = []
    provenance: Provenance = {}
    for folder in sorted((out / "runs").iterdir()):
        file = folder / "run.json"
        try:
            file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # no sign that the run is not there
            raise UserError(f"{folder} cannot be read: {error.strerror}") from error
        row = _row(file, provenance)
        if row is not None:
            rows.append(row)
    frame = _checked(out / "runs", pd.DataFrame(rows, columns=list(RUN_COLUMNS)))
    planned = {run_id: i for i, run_id in enumerate(planned_runs(out))}
    place = frame["run_id"].map(lambda run_id: planned.get(str(run_id), len(planned)))
    return frame.iloc[place.argsort(kind="stable")].reset_index(drop=True), provenance


def _checked(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The same with numbers as numbers, if each is one that a run can have."""
    texts = [name for name in RUN_COLUMNS if name in TEXT_COLUMNS]
    frame = frame.astype({name: float for name in RUN_COLUMNS if name not in TEXT_COLUMNS})
    frame[texts] = frame[texts].astype(object).where(frame[texts].notna(), "")
    frame = frame.astype(dict.fromkeys(texts, str))
    sizes = ("depth", "img_size", "epochs", *COST_COLUMNS)
    known = [name for name in OPTIONAL_NUMBERS if frame[name].notna().all()]
    whole = (*sizes, "stem_stride", "seed", *known)
    wrong = {name: ~(frame[name] >= 1) for name in sizes}
    wrong |= {name: wrong.get(name, False) | (frame[name] % 1 != 0) for name in whole}
    wrong["run_id"] = frame["run_id"].duplicated()
    wrong["status"] = ~frame["status"].isin(STATUSES)
    wrong["test_acc"] = (frame["status"] == DONE) & ~frame["test_acc"].between(0, 1)
    for name, rows in wrong.items():
        if rows.any():
            run_id, value = frame.loc[rows, ["run_id", name]].iloc[0]
            raise damaged(path, f"{name} of {run_id} is {value}")
    return frame.astype(dict.fromkeys(whole, int))


def _kept_provenance(out: Path) -> Provenance:
    file = out / "provenance.json"
    try:
        content = read_json(file, remedy="delete it")
    except FileNotFoundError:
        return {}
    for name, values in content.items():
        if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            raise damaged(file, f"{name} is no list of texts", remedy="delete it")
    return cast(Provenance, content)


def _row(file: Path, provenance: Provenance) -> Json | None:
    folder = RunFolder(file.parent)
    try:
        config, result = read_json(file), folder.result()
    except FileNotFoundError:  # it is being started anew at this moment
        return None
    further = [name for name in OPTIONAL_NUMBERS if name in config]
    require_numbers(file, config, (*CONFIG_NUMBERS, *further))
    require_texts(file, config, TEXT_COLUMNS)
    given = {*config, *RESULT_COLUMNS, *FURTHER_COLUMNS, *IMAGE_COLUMNS}
    lost = [name for name in RUN_COLUMNS if name not in given]
    if lost:
        raise damaged(file, f"no {', '.join(lost)}")
    if config["run_id"] != file.parent.name or not _is_run_id(file.parent.name):
        raise damaged(file, f"run_id {config['run_id']!r} is not its folder's name")
    if not result and not folder.claimed:  # it may have ended between the two looks
        result = folder.result() or {"status": UNFINISHED}
    note_provenance(provenance, config)
    row = {"error": ""} | config | (result or {"status": RUNNING})
    return {name: row[name] for name in RUN_COLUMNS if name in row}  # the rest is large


def _is_run_id(text: str) -> bool:
    return text.count("__") >= 3


def running(out: Path) -> set[str]:
    """The ids of the runs that processes have at this moment, whether they have begun or not."""
    locks = (out / "runs").glob(".*.lock")
    ids = {lock.name.removeprefix(".").removesuffix(".lock") for lock in locks}
    return {run_id for run_id in ids if RunFolder(out / "runs" / run_id).claimed}


def read_epochs(out: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per epoch of the given runs: ``EPOCH_COLUMNS``."""
    if not (out / "runs").is_dir():
        frame = _read_table(out / "epochs.csv", EPOCH_COLUMNS)
        return frame[frame["run_id"].isin(runs["run_id"])].reset_index(drop=True)
    parts = [_epochs(out / "runs" / str(run_id) / "epochs.jsonl") for run_id in runs["run_id"]]
    numbers = np.concatenate([np.empty((0, len(_EPOCH_NUMBERS))), *parts])
    frame = pd.DataFrame(numbers, columns=list(_EPOCH_NUMBERS)).astype({"epoch": int})
    at = np.repeat(np.arange(len(runs)), [len(part) for part in parts])
    own = runs[["run_id", "model", "seed"]].iloc[at].reset_index(drop=True)
    return pd.concat([own, frame], axis=1)


_EPOCH_NUMBERS = EPOCH_COLUMNS[3:]


def _epochs(file: Path) -> np.ndarray:
    """The epochs of one run, (n, numbers); a run that is being written may end in half a line."""
    try:
        with readable(file):
            text = read_text(file)
            whole = text[: text.rfind("\n") + 1].splitlines()
            epochs = cast("list[object]", json.loads(f"[{','.join(whole)}]"))
    except FileNotFoundError:
        epochs = []
    rows = []
    for epoch in epochs:
        if not isinstance(epoch, dict):
            raise damaged(file, f"{epoch!r} is no JSON object")
        row = [epoch.get(name) for name in _EPOCH_NUMBERS]
        if not set(map(type, row)) <= _NUMBERS:
            require_numbers(file, cast(Json, epoch), _EPOCH_NUMBERS, null=True)
        rows.append(row)
    try:
        numbers = np.array(rows, float).reshape(len(rows), len(_EPOCH_NUMBERS))
    except OverflowError as error:
        raise damaged(file, error) from error
    if np.isnan(numbers[:, 0]).any() or (np.abs(numbers) >= LARGEST).any():
        raise damaged(file, "an epoch without its number, or a number that is none")
    return numbers


_NUMBERS = {int, float, type(None)}


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path.parent} holds neither a folder of runs nor {path.name}")
    numbers = [name for name in columns if name not in TEXT_COLUMNS]
    missing_numbers = {name: "" for name in numbers}
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=missing_numbers)
    except ValueError as error:  # pandas' parser errors, and bytes that are no text
        raise UserError(f"{path} is no table: {error}") from error
    further = (*FURTHER_COLUMNS, *OPTIONAL_NUMBERS, *IMAGE_COLUMNS, *FURTHER_EPOCH_COLUMNS)
    missing = [name for name in columns if name not in frame and name not in further]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    given = [name for name in numbers if name in frame and not frame.empty]
    texts = [name for name in given if not pd.api.types.is_numeric_dtype(frame[name])]
    if texts:
        raise UserError(f"{path} is no table: what is no number stands under {', '.join(texts)}")
    if not frame["run_id"].astype(str).map(_is_run_id).all():
        raise UserError(f"{path} is no table of runs: a run_id is none")
    return frame.reindex(columns=list(columns))


def read_experiment(out: Path) -> Json:
    """The question behind a results folder; empty where none was recorded."""
    file = out / "experiment.json"
    remedy = "delete it and give the run command again"
    try:
        content = read_json(file, remedy=remedy)
    except FileNotFoundError:
        return {}
    runs, baselines = content.get("runs"), content.get("baselines")
    if not (isinstance(runs, list) and all(isinstance(run, str) for run in runs)):
        raise damaged(file, "runs is no list of ids", remedy=remedy)
    if not (isinstance(baselines, dict) and all(isinstance(v, str) for v in baselines.values())):
        raise damaged(file, "baselines is no table of names", remedy=remedy)
    return content


def planned_runs(out: Path) -> list[str]:
    """The ids of the runs that the experiment takes, in its order."""
    return cast(list[str], read_experiment(out).get("runs", []))
