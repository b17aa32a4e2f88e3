"""What runs answered, image by image: one schema for who writes and who reads it.

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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from resnet_variants.files import REDO, Json, atomic_file, damaged, short
from resnet_variants.registry import UserError
from resnet_variants.run_folder import DONE, RunFolder

OUTCOMES = "outcomes.parquet"
_KEYS = ("dataset", "split_hash", "image", "label")  # of a row of it
_FACTS, _FORMAT = "run", 1
_DELETE = "delete it, or restore it from where it was kept"

# --- one run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What a run answered for the images of two splits, in their order.

    Attributes:
        test_logits: (N, classes); ``val_logits`` alike, by the same weights.
        test_labels: (N,) class numbers; ``val_labels`` alike.
    """

    run_id: str
    split_hash: str
    classes: tuple[str, ...]
    test_logits: np.ndarray
    test_labels: np.ndarray
    val_logits: np.ndarray
    val_labels: np.ndarray


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Put them into a run's folder, whole or not at all."""
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
        # One entry: safetensors writes several in an order that changes.
        save_file(arrays, file, metadata={_FACTS: json.dumps(facts)})


def read_predictions(folder: Path) -> Predictions:
    """What is in a run's folder.

    Raises:
        ValueError: there is nothing, as in a run of an earlier version, or the file is damaged.
    """
    file = RunFolder(folder).predictions
    if not file.exists():
        raise UserError(f"{str(folder)!r} holds no {file.name}: it was not kept")
    names = [f"{split}_{what}" for split in ("test", "val") for what in ("logits", "labels")]
    arrays, facts = _read(file, [*names, "test_predicted"])
    predictions = Predictions(**facts, **{name: arrays[name] for name in names})
    for split in ("test", "val"):
        logits, labels = arrays[f"{split}_logits"], arrays[f"{split}_labels"]
        if logits.shape != (len(labels), len(predictions.classes)) or logits.dtype.kind != "f":
            raise damaged(file, f"{split}_logits are {logits.dtype} {logits.shape}")
        _require_classes(file, f"{split}_labels", labels, predictions.classes)
    if not np.array_equal(predictions.test_logits.argmax(1), arrays["test_predicted"]):
        raise damaged(file, "test_predicted is not what test_logits say")
    return predictions


def _smallest(classes: Sequence[str]) -> np.dtype:
    return np.min_scalar_type(len(classes) - 1)


def _rounded(logits: np.ndarray) -> np.ndarray:
    """As float16, if that leaves the largest of every row, and all that is finite, as they are."""
    with np.errstate(over="ignore"):
        half = logits.astype(np.float16)
    again = half.astype(np.float32)
    largest = [x == x.max(1, keepdims=True) for x in (logits, again)]
    same = np.array_equal(*largest) and np.array_equal(np.isfinite(logits), np.isfinite(again))
    return half if same else logits


def _read(file: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], Json]:
    """Some arrays of a run's file, the others stay on disk; run_id, split_hash and classes."""
    try:
        if not file.is_file():
            raise ValueError("no regular file")
        with safe_open(file, framework="np") as content:
            facts = json.loads((content.metadata() or {})[_FACTS])
            arrays = {name: content.get_tensor(name) for name in names}
        found, run_id, split_hash = (facts[key] for key in ("format", "run_id", "split_hash"))
        classes = tuple(map(str, facts["classes"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(file, " ".join(str(error).split())) from error
    if found != _FORMAT:
        raise UserError(f"{file} has format {short(found)}, which a newer version may read")
    if run_id != file.parent.name:
        raise damaged(file, f"run_id {short(run_id)} is not its folder's name")
    return arrays, {"run_id": run_id, "split_hash": str(split_hash), "classes": classes}


def _require_classes(
    file: Path, name: str, numbers: np.ndarray, classes: Sequence[str], *, remedy: str = REDO
) -> None:
    """Refuse what are no numbers of classes, one an image."""
    whole = numbers.ndim == 1 and numbers.dtype.kind in "iu" and len(numbers)
    if not whole or numbers.min() < 0 or numbers.max() >= len(classes):
        raise damaged(file, f"{name} are no numbers of {len(classes)} classes", remedy=remedy)


# --- all runs of a results folder -------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a run answered for the test images, by number of the class."""

    file: Path
    split_hash: str
    classes: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray


def read_outcomes(out: Path, runs: pd.DataFrame) -> dict[str, Outcome]:
    """Those of the finished runs of a results folder that have any, by ``run_id``.

    A folder whose raw runs were left behind is read from its ``outcomes.parquet``.

    Raises:
        ValueError: a file is damaged, or does not say what the results of its run say.
    """
    done = runs[runs["status"] == DONE]
    raw = (out / "runs").is_dir()
    kept = {} if raw else _read_table(out / OUTCOMES)
    found: dict[str, Outcome] = {}
    for run_id, *told in done[["run_id", "split_hash", "n_test", "test_acc"]].to_numpy():
        file = RunFolder(out / "runs" / run_id).predictions
        outcome = _of_run(file) if raw and file.exists() else kept.get(run_id)
        if outcome is not None:
            _require_told(run_id, outcome, told, remedy=REDO if raw else _DELETE)
            found[run_id] = outcome
    return found


def _of_run(file: Path) -> Outcome:
    arrays, facts = _read(file, ["test_labels", "test_predicted"])
    classes, split_hash = cast("tuple[str, ...]", facts["classes"]), str(facts["split_hash"])
    return Outcome(file, split_hash, classes, arrays["test_labels"], arrays["test_predicted"])


def _require_told(run_id: str, outcome: Outcome, told: Sequence[object], *, remedy: str) -> None:
    """Refuse what is not of this run: its split, its number of images and its accuracy."""
    labels, predicted = outcome.labels, outcome.predicted
    for name, numbers in (("labels", labels), ("predictions", predicted)):
        what = f"the {name} of {run_id}"
        _require_classes(outcome.file, what, numbers, outcome.classes, remedy=remedy)
    if len(labels) != len(predicted):
        reason = f"{run_id} has {len(predicted)} predictions for {len(labels)} labels"
        raise damaged(outcome.file, reason, remedy=remedy)
    acc = np.count_nonzero(labels == predicted) / len(labels)
    found = {"split_hash": outcome.split_hash, "n_test": len(labels), "test_acc": acc}
    for (name, own), other in zip(found.items(), told, strict=True):
        if other != own and not (other == "" or pd.isna(other)):
            reason = f"{name} of {run_id} is {own}, in its result {other}"
            raise damaged(outcome.file, reason, remedy=remedy)


def _read_table(file: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    if not file.exists():
        return found
    try:
        if not file.is_file():
            raise ValueError("no regular file")
        frame = pd.read_parquet(file)
        names = cast("dict[str, dict[str, list[str]]]", frame.attrs["classes"])
        for (dataset, split_hash), own in frame.groupby([*_KEYS[:2]], observed=True, sort=False):
            classes, labels = tuple(names[dataset][split_hash]), own["label"].to_numpy()
            for run_id in frame.columns.difference(_KEYS, sort=False):
                if not own[run_id].isna().all():
                    predicted = own[run_id].to_numpy(_smallest(classes))
                    found[run_id] = Outcome(file, str(split_hash), classes, labels, predicted)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise damaged(file, " ".join(str(error).split()), remedy=_DELETE) from error
    return found


def outcomes_table(outcomes: Mapping[str, Outcome], runs: pd.DataFrame) -> pd.DataFrame:
    """One row per test image and one column per run, in the order of ``runs``; see above.

    Raises:
        ValueError: two runs of one split have other labels or class names.
    """
    splits: dict[tuple[str, str], dict[str, Outcome]] = {}
    for run_id, dataset in runs[["run_id", "dataset"]].to_numpy():
        if run_id in outcomes:
            key = (dataset, outcomes[run_id].split_hash)
            splits.setdefault(key, {})[run_id] = outcomes[run_id]
    parts: list[pd.DataFrame] = []
    names: dict[str, dict[str, Sequence[str]]] = {}
    for (dataset, split_hash), own in splits.items():
        first = next(iter(own.values()))
        for other in own.values():
            same = first.classes == other.classes and np.array_equal(first.labels, other.labels)
            if not same:
                message = f"{first.file} and {other.file} have other labels for the same images"
                raise UserError(
                    f"{message} ({dataset}, split_hash {split_hash}): report them apart"
                )
        names.setdefault(dataset, {})[split_hash] = list(first.classes)
        keys = {"dataset": dataset, "split_hash": split_hash}
        keys |= {"image": np.arange(len(first.labels), dtype=np.int32), "label": first.labels}
        columns = {run_id: pd.array(one.predicted) for run_id, one in own.items()}
        parts.append(pd.DataFrame(keys | columns))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_KEYS])
    table.attrs["classes"] = names
    return table
