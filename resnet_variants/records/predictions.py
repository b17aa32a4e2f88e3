"""The predictions of runs, image by image: how they are written and read.

runs/<run_id>/predictions.safetensors   of one run, written before its result
    test_logits, val_logits   (n, classes) in the order of the split; float16, or float32 where
                              rounding would make another class, or a further one, the largest
    test_labels, val_labels   (n,) class numbers
    test_predicted            (n,) the class of the largest logit, the first of equals
    metadata "run"            JSON: format, run_id, split_hash, classes (names by number)
outcomes.parquet                        of all runs of a results folder, small enough to commit
    dataset, split_hash, image   which test image: its place in the test split, from 0
    label                        its class number
    <run_id>                     the predicted class; missing for images of other data sets
    metadata                     class names, in ``DataFrame.attrs``: classes[dataset][split_hash]
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from resnet_variants.records.files import (
    Json,
    atomic_file,
    damaged,
    readable,
    require_regular,
    short,
)
from resnet_variants.records.run_folder import DONE, RunFolder
from resnet_variants.registry import UserError

OUTCOMES = "outcomes.parquet"
_KEYS = ("dataset", "split_hash", "image", "label")  # of a row of it
_RUN, _FORMAT = "run", 1  # of the metadata
_REMEDY = "delete it, the runs stay valid; or restore it from where it was kept"
_damaged = functools.partial(damaged, remedy=_REMEDY)
_reading = functools.partial(readable, remedy=_REMEDY, also=(SafetensorError, KeyError, TypeError))

# --- one run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """The logits of one run for the images of two splits, in the order of the splits.

    Attributes:
        test_logits: (N, classes); ``val_logits`` likewise, of the same weights.
        test_labels: (N,) class numbers; ``val_labels`` likewise.
    """

    run_id: str
    split_hash: str
    classes: tuple[str, ...]
    test_logits: np.ndarray
    test_labels: np.ndarray
    val_logits: np.ndarray
    val_labels: np.ndarray


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write them to a run's folder, all or nothing."""
    kind = _smallest(predictions.classes)
    arrays = {
        "test_logits": _rounded(predictions.test_logits),
        "test_labels": predictions.test_labels.astype(kind),
        "test_predicted": predictions.test_logits.argmax(1).astype(kind),
        "val_logits": _rounded(predictions.val_logits),
        "val_labels": predictions.val_labels.astype(kind),
    }
    facts: Json = {"format": _FORMAT, "run_id": predictions.run_id}
    facts |= {"split_hash": predictions.split_hash, "classes": list(predictions.classes)}
    with atomic_file(RunFolder(folder).predictions) as file:
        # One entry only: safetensors writes several entries in random order.
        save_file(arrays, file, metadata={_RUN: json.dumps(facts)})


def read_predictions(folder: Path) -> Predictions:
    """The predictions in a run's folder.

    Raises:
        ValueError: there are none, as in a run of an earlier version, or the file is damaged.
    """
    file = RunFolder(folder).predictions
    names = [f"{split}_{what}" for split in ("test", "val") for what in ("logits", "labels")]
    try:
        facts, arrays = _read(file, [*names, "test_predicted"])
    except FileNotFoundError as error:
        raise UserError(f"{str(folder)!r} holds no {file.name}: they were not kept") from error
    for split in ("test", "val"):
        logits, labels = arrays[f"{split}_logits"], arrays[f"{split}_labels"]
        if logits.shape != (len(labels), len(facts.classes)) or logits.dtype.kind != "f":
            raise _damaged(file, f"{split}_logits are {logits.dtype} of shape {logits.shape}")
        _numbers(file, f"{split}_labels", labels, facts.classes)
    if not np.array_equal(arrays["test_logits"].argmax(1), arrays["test_predicted"]):
        raise _damaged(file, "test_predicted is not what test_logits say")
    own = {name: arrays[name] for name in names}
    return Predictions(facts.run_id, facts.split_hash, facts.classes, **own)


def _smallest(classes: Sequence[str]) -> np.dtype:
    return np.min_scalar_type(len(classes) - 1)


def _rounded(logits: np.ndarray) -> np.ndarray:
    """As float16, if every row keeps its largest logits and every finite value stays finite."""
    with np.errstate(over="ignore"):
        half = logits.astype(np.float16)
    again = half.astype(np.float32)
    largest = [x == x.max(1, keepdims=True) for x in (logits, again)]
    same = np.array_equal(*largest) and np.array_equal(np.isfinite(logits), np.isfinite(again))
    return half if same else logits


@dataclass(frozen=True)
class _Facts:
    run_id: str
    split_hash: str
    classes: tuple[str, ...]


def _read(file: Path, names: Sequence[str]) -> tuple[_Facts, dict[str, np.ndarray]]:
    """The metadata of a run's file and some of its arrays. The other arrays are not read."""
    with _reading(file):
        require_regular(file)  # safetensors reports an unreadable file as missing
        with safe_open(file, framework="np") as content:
            metadata = json.loads((content.metadata() or {})[_RUN])
            arrays = {name: content.get_tensor(name) for name in names}
        classes = tuple(map(str, metadata["classes"]))
        facts = _Facts(str(metadata["run_id"]), str(metadata["split_hash"]), classes)
        file_format = metadata["format"]
    if file_format != _FORMAT:
        raise UserError(f"{file} has format {short(file_format)}, which a newer version may read")
    if facts.run_id != file.parent.name:
        raise _damaged(file, f"run_id {short(facts.run_id)} is not its folder's name")
    return facts, arrays


def _numbers(
    file: Path, name: str, values: np.ndarray | pd.Series, classes: Sequence[str]
) -> np.ndarray:
    """The values in the smallest integer type, if each is the number of a class."""
    if values.ndim == 1 and len(values) and values.dtype.kind in "iu" and pd.notna(values).all():
        wide = np.asarray(values, np.int64)
        if wide.min() >= 0 and wide.max() < len(classes):
            return wide.astype(_smallest(classes))
    raise _damaged(file, f"{name} are not numbers of {len(classes)} classes")


# --- all runs of a results folder -------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The classes that a run predicted for the test images, by number."""

    file: Path
    split_hash: str
    classes: tuple[str, ...]
    labels: np.ndarray  # (N,)
    predicted: np.ndarray  # (N,)


def read_outcomes(out: Path, runs: pd.DataFrame) -> dict[str, Outcome]:
    """The outcomes of the finished runs of a results folder, by ``run_id``, where they were kept.

    Without raw runs the folder's ``outcomes.parquet`` is read.

    Raises:
        ValueError: a file is damaged, or contradicts the result of its run.
    """
    raw = (out / "runs").is_dir()
    kept = {} if raw else _read_table(out / OUTCOMES)
    outcomes: dict[str, Outcome] = {}
    done = runs.loc[runs["status"] == DONE, ["run_id", "split_hash", "n_test", "test_acc"]]
    for run_id, *result in done.to_numpy():
        outcome = _of_run(RunFolder(out / "runs" / run_id)) if raw else kept.get(run_id)
        if outcome is not None:
            _require_same(run_id, outcome, result)
            outcomes[run_id] = outcome
    return outcomes


def _of_run(folder: RunFolder) -> Outcome | None:
    file = folder.predictions
    try:
        facts, arrays = _read(file, ["test_labels", "test_predicted"])
    except FileNotFoundError:
        return None
    labels, predicted = (_numbers(file, name, a, facts.classes) for name, a in arrays.items())
    return Outcome(file, facts.split_hash, facts.classes, labels, predicted)


def _require_same(run_id: str, outcome: Outcome, result: Sequence[Any]) -> None:
    """Refuse an outcome whose split, number of images or accuracy is not that of the result."""
    n = len(outcome.labels)
    if len(outcome.predicted) != n:
        reason = f"{run_id} has {len(outcome.predicted)} predictions for {n} labels"
        raise _damaged(outcome.file, reason)
    hits = int(np.count_nonzero(outcome.predicted == outcome.labels))
    own = {"split_hash": outcome.split_hash, "n_test": n, "test_acc": hits / n}
    for (name, value), other in zip(own.items(), result, strict=True):
        if other != value and other != "" and pd.notna(other):  # "": the result lacks it
            reason = f"{name} of {run_id} is {short(value)} here and {short(other)} in its result"
            raise _damaged(outcome.file, reason)


def _read_table(file: Path) -> dict[str, Outcome]:
    try:
        with _reading(file):
            require_regular(file)
            table = pd.read_parquet(file)
            names = cast("dict[str, dict[str, list[str]]]", table.attrs["classes"])
            splits = [
                (str(split_hash), tuple(names[str(dataset)][str(split_hash)]), own)
                for (dataset, split_hash), own in table.groupby([*_KEYS[:2]], sort=False)
            ]
            run_ids = [str(name) for name in table.drop(columns=[*_KEYS])]
    except FileNotFoundError:
        return {}
    outcomes: dict[str, Outcome] = {}
    for split_hash, classes, own in splits:
        if not np.array_equal(own["image"], np.arange(len(own))):
            raise _damaged(file, f"not every image of {short(split_hash)} is there once")
        labels = _numbers(file, "labels", own["label"], classes)
        for run_id in run_ids:
            if not own[run_id].isna().all():
                predicted = _numbers(file, f"{run_id}'s", own[run_id], classes)
                outcomes[run_id] = Outcome(file, split_hash, classes, labels, predicted)
    return outcomes


def outcomes_parquet(outcomes: Mapping[str, Outcome], runs: pd.DataFrame) -> bytes:
    """The content of ``outcomes.parquet`` for these runs, in their order; empty without outcomes.

    Raises:
        ValueError: two runs of one split have other labels or class names.
    """
    splits: dict[tuple[str, str], dict[str, Outcome]] = {}
    for run_id, dataset in runs[["run_id", "dataset"]].to_numpy():
        if run_id in outcomes:
            key = dataset, outcomes[run_id].split_hash
            splits.setdefault(key, {})[run_id] = outcomes[run_id]
    if not splits:
        return b""
    table = pd.concat([_rows(*key, own) for key, own in splits.items()], ignore_index=True)
    names: dict[str, dict[str, list[str]]] = {}
    for (dataset, split_hash), own in splits.items():
        names.setdefault(dataset, {})[split_hash] = list(next(iter(own.values())).classes)
    table.attrs["classes"] = names
    return table.to_parquet(
        index=False,
        compression="zstd",
        # The image numbers are a count: their differences compress, a dictionary does not.
        use_dictionary=[name for name in table if name != "image"],
        column_encoding={"image": "DELTA_BINARY_PACKED"},
    )


def _rows(dataset: str, split_hash: str, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """The rows of the test images of one split."""
    first = next(iter(outcomes.values()))
    for other in outcomes.values():
        if first.classes != other.classes or not np.array_equal(first.labels, other.labels):
            message = f"{first.file} and {other.file} have other labels for the same images"
            raise UserError(
                f"{message} ({dataset}, split_hash {short(split_hash)}): report them apart"
            )
    images = np.arange(len(first.labels), dtype=np.int32)
    keys = dict(zip(_KEYS, (dataset, split_hash, images, first.labels), strict=True))
    # An array that can hold missing numbers: runs of other splits have no value here.
    answers = {run_id: pd.array(outcome.predicted) for run_id, outcome in outcomes.items()}
    return pd.DataFrame(keys | answers)
