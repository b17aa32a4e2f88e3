"""A results folder: written by ``sweeps``, read by ``analysis``.

experiment.json            the question, its runs, the baseline of each model
runs/<run_id>/run.json     configuration and provenance, written when a run starts
runs/<run_id>/epochs.jsonl one object per epoch
runs/<run_id>/steps.jsonl  one object per ``every_steps`` steps, where asked for
runs/<run_id>/result.json  status and test score, written last
runs/<run_id>/log.txt      the output of the run; a traceback if it failed
runs.csv, epochs.csv, ...  the same as tables
``schema`` lists the columns; ``predictions`` describes the answers for each image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from resnet_variants.records.files import Json, damaged, read_json, read_text, readable, short
from resnet_variants.records.run_folder import (
    DIVERGED,
    DONE,
    FAILED,
    Provenance,
    RunFolder,
    note_provenance,
)
from resnet_variants.records.schema import (
    CONFIG,
    COSTS,
    EPOCHS,
    FURTHER_AXES,
    IMAGES,
    OF_RUN,
    RUNS,
    STEPS,
    VARIANT,
    Column,
    check_record,
    checked,
    names,
    read_table,
)
from resnet_variants.registry import UserError

RUNNING = "running"  # a process trains it at this moment
UNFINISHED = "unfinished"  # started, without a result, and no process trains it
COMPARED = "compare.html"  # the page of ``compare``, whose folder holds no results
MISSING = "missing"  # planned, never started: such a run has no row
STATUSES = (DONE, RUNNING, UNFINISHED, FAILED, DIVERGED)

VARIANT_COLUMNS, FURTHER_COLUMNS = names(VARIANT), names(FURTHER_AXES)
COST_COLUMNS, IMAGE_COLUMNS = names(COSTS), names(IMAGES)
RUN_COLUMNS, EPOCH_COLUMNS = names(RUNS), names(EPOCHS)
_CONFIG = [column for column in RUNS if column.file == CONFIG]
_NEEDED = [column.name for column in _CONFIG if not column.later]

# --- reading ----------------------------------------------------------------------------------


def read_runs(out: Path) -> pd.DataFrame:
    """One row per run started in ``out``, unfinished and failed ones too: ``RUN_COLUMNS``.

    Without raw runs (in a clone, in an archive) the folder's ``runs.csv`` is read.

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
        return _read_runs_table(out / "runs.csv"), _kept_provenance(out)
    provenance: Provenance = {}
    rows = [row for folder in _run_folders(out) if (row := _row(folder, provenance)) is not None]
    runs = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    frame = checked(runs, RUNS, partial(damaged, out / "runs"))
    planned = {run_id: i for i, run_id in enumerate(planned_runs(out))}
    place = frame["run_id"].map(lambda run_id: planned.get(str(run_id), len(planned)))
    return frame.iloc[place.argsort(kind="stable")].reset_index(drop=True), provenance


def _run_folders(out: Path) -> Iterator[RunFolder]:
    for folder in sorted((out / "runs").iterdir()):
        try:
            (folder / CONFIG).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # the run may be there all the same
            raise UserError(f"{folder} cannot be read: {error.strerror}") from error
        yield RunFolder(folder)


def _row(folder: RunFolder, provenance: Provenance) -> Json | None:
    """The row of one run; ``None`` where another process starts it anew at this moment."""
    file = folder.path / CONFIG
    try:
        config, result = folder.config(), folder.result()
    except FileNotFoundError:
        return None
    check_record(file, config, _CONFIG)
    lost = [name for name in _NEEDED if name not in config]
    if lost:
        raise damaged(file, f"no {', '.join(lost)}")
    if config["run_id"] != folder.path.name or not _is_run_id(folder.path.name):
        raise damaged(file, f"run_id {config['run_id']!r} is not its folder's name")
    if not result and not folder.claimed:
        # The run may have ended after ``folder.result()`` was called above.
        result = folder.result() or {"status": UNFINISHED}
    note_provenance(provenance, config)
    row = config | (result or {"status": RUNNING})
    return {name: row[name] for name in RUN_COLUMNS if name in row}  # the rest is large


def _is_run_id(text: object) -> bool:
    return str(text).count("__") >= 3


def running(out: Path) -> set[str]:
    """The ids of the runs that processes hold at this moment, started or not."""
    locks = (out / "runs").glob(".*.lock")
    ids = {lock.name.removeprefix(".").removesuffix(".lock") for lock in locks}
    return {run_id for run_id in ids if RunFolder(out / "runs" / run_id).claimed}


def read_epochs(out: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per epoch of the given runs: ``EPOCH_COLUMNS``."""
    return _read_records(out, runs, "epochs", EPOCHS)


def read_steps(out: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per record of steps of the given runs; runs without ``every_steps`` have none."""
    if not ((out / "runs").is_dir() or (out / "steps.csv").is_file()):
        return pd.DataFrame(columns=[*names(STEPS)])
    return _read_records(out, runs, "steps", STEPS)


def _read_records(
    out: Path, runs: pd.DataFrame, name: str, columns: Sequence[Column]
) -> pd.DataFrame:
    """The records of these runs, from ``NAME.jsonl`` of each or from the folder's ``NAME.csv``."""
    if not (out / "runs").is_dir():
        frame = _read_table(out / f"{name}.csv", columns)
        return frame[frame["run_id"].isin(runs["run_id"])].reset_index(drop=True)
    own = columns[len(OF_RUN) :]
    files = [out.joinpath("runs", run_id, f"{name}.jsonl") for run_id in runs["run_id"]]
    parts = [_records(file, own) for file in files]
    frame = pd.DataFrame([row for rows in parts for row in rows], columns=[*names(own)])
    run_of_row = np.repeat(np.arange(len(runs)), [len(rows) for rows in parts])
    whole = pd.concat(
        [runs[[*names(OF_RUN)]].iloc[run_of_row].reset_index(drop=True), frame], axis=1
    )
    return checked(whole, columns, partial(damaged, out / "runs"))


def _records(file: Path, columns: Sequence[Column]) -> list[list[object]]:
    """The values of one run's lines. The last one may be cut off while the run is trained."""
    try:
        with readable(file):
            text = read_text(file)
            lines = text[: text.rfind("\n") + 1].splitlines()
            records = cast("list[object]", json.loads(f"[{','.join(lines)}]"))
    except FileNotFoundError:
        return []
    if len(records) != len(lines):
        raise damaged(file, "a line is no JSON object")
    rows, wanted = list[list[object]](), names(columns)
    for record in records:
        if not isinstance(record, dict):
            raise damaged(file, f"{short(record)} is no JSON object")
        check_record(file, cast(Json, record), columns)
        rows.append([record.get(name) for name in wanted])
    return rows


def _no_table(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is no table: {reason}")


def _read_table(file: Path, columns: Sequence[Column]) -> pd.DataFrame:
    if not file.is_file():
        raise UserError(f"{file.parent} holds neither a folder of runs nor {file.name}")
    return read_table(file, columns, partial(_no_table, file))


def _read_runs_table(file: Path) -> pd.DataFrame:
    frame = _read_table(file, RUNS)
    ids, status = frame["run_id"], frame["status"]
    for wrong, fault in (
        (~ids.map(_is_run_id).astype(bool), "is no run_id"),
        (ids.duplicated(), "has two rows"),
        (~status.isin(STATUSES), f"has none of the statuses {', '.join(STATUSES)}"),
        ((status == DONE) & frame["test_acc"].isna(), "is done and has no test_acc"),
    ):
        if wrong.any():
            raise _no_table(file, f"{ids[wrong].iloc[0]} {fault}")
    return frame


def _kept_provenance(out: Path) -> Provenance:
    file = out / "provenance.json"
    try:
        content = read_json(file, remedy="delete it")
    except FileNotFoundError:
        return {}
    for name, values in content.items():
        if not _texts(values):
            raise damaged(file, f"{name} is no list of texts", remedy="delete it")
    return cast(Provenance, content)


PLAN = "plan"  # in experiment.json: what was fixed before the first run, see `verdicts.Plan`
PREDICTIONS = "predictions"  # in the plan, see `analysis.predictions`
VARIED = "varied"  # in experiment.json: the varied fields of the recipe, each with its usual value
ROBUST = "robust"  # in experiment.json: the fields at each of whose values arms are compared
SEARCH = "search"  # a results folder in this one: the runs of a search
SEARCHED = "searched"  # in experiment.json: what came out at each value that a search tried
DATA_NAMES = "data_names"  # in experiment.json: what captions call data sets, by their ids


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and _texts([*value.values()])


# What the keys of experiment.json hold.
_EXPERIMENT: dict[str, tuple[Callable[[object], bool], str]] = {
    "runs": (_texts, "list of ids"),
    "baselines": (_table_of_texts, "table of names"),
    PLAN: (lambda value: isinstance(value, dict), "table"),
    DATA_NAMES: (_table_of_texts, "table of names"),
    VARIED: (_table_of_texts, "table of names"),
    ROBUST: (_texts, "list of names"),
    SEARCHED: (
        lambda value: isinstance(value, list) and all(isinstance(row, dict) for row in value),
        "list of tables",
    ),
}
_NEEDED_KEYS = ("runs", "baselines")


def read_experiment(out: Path) -> Json:
    """The question behind a results folder; empty where none was recorded.

    Raises:
        ValueError: the file is damaged.
    """
    file = out / "experiment.json"
    remedy = "delete it and give the run command again"
    try:
        content = read_json(file, remedy=remedy)
    except FileNotFoundError:
        return {}
    for key, (fits, kind) in _EXPERIMENT.items():
        if (key in content or key in _NEEDED_KEYS) and not fits(content.get(key)):
            raise damaged(file, f"{key} is no {kind}", remedy=remedy)
    return content


def planned_runs(out: Path) -> list[str]:
    """The ids of the experiment's runs, in its order."""
    return cast(list[str], read_experiment(out).get("runs", []))
