"""What logits tell beyond the answers: how far confidence can be trusted, and what ensembles gain.

The tables are made from the runs' own files. Where these are not here, in a clone, those that an
earlier report wrote are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from resnet_variants.analysis.statistics import MEAN, SHARE, estimate
from resnet_variants.records.files import damaged
from resnet_variants.records.predictions import OUTCOMES, Outcome, read_predictions
from resnet_variants.records.schema import OF_RUN, Column, names, read_table

BINS = 15  # of equal width, as in arXiv:1706.04599
_ORDERS = 20  # about how many, in which the seeds of an arm join its ensemble
_MEMBERS = 20  # of the largest ensemble
_share = partial(Column, low=0, high=1)
_whole = partial(Column, kind=int, low=0)
CALIBRATION = (*OF_RUN, _whole("bin"), _whole("images"), _share("confidence"), _share("accuracy"))
ENSEMBLES = (
    *(*OF_RUN, _whole("members")),  # run and seed: the first ones of the arm
    *map(_share, ("accuracy", "lowest", "highest")),
)
ECE_COLUMNS = ("model", "seeds", *MEAN, "confidence", "accuracy")


def calibration_of(done: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Confidence and accuracy of each run by bin of confidence, for the test images.

    Args:
        done: finished runs.
        outcomes: by ``run_id``, where predictions were kept.
    """
    return _table("calibration", CALIBRATION, done, outcomes, _calibrations)


def ensembles_of(done: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Accuracy of the mean probabilities of 1, 2, ... seeds of each arm.

    The seeds join in several orders, of which mean, lowest and highest are given. Orders are drawn
    and then rotated, so that at every place each seed stands equally often.
    """
    return _table("ensembles", ENSEMBLES, done, outcomes, _ensembles)


def _table(
    name: str,
    columns: Sequence[Column],
    done: pd.DataFrame,
    outcomes: Mapping[str, Outcome],
    make: Callable[[pd.DataFrame, np.ndarray, np.ndarray], pd.DataFrame],
) -> pd.DataFrame:
    """What is made of each arm's runs, or what a table beside ``OUTCOMES`` has of them."""
    parts = [pd.DataFrame(columns=[*names(columns)])]
    here = done[done["run_id"].isin(outcomes.keys())].sort_values("seed")
    files = {run_id: outcomes[run_id].file for run_id in here["run_id"]}
    kept = here["run_id"].map(lambda run_id: files[run_id].name == OUTCOMES).astype(bool)
    for _, runs in here[~kept].groupby("model", sort=False):
        each = [read_predictions(files[run_id].parent) for run_id in runs["run_id"]]
        shares = np.stack([softmax(one.test_logits.astype(np.float32), axis=1) for one in each])
        parts.append(make(runs, shares, each[0].test_labels)[[*names(columns)]])
    for file in dict.fromkeys(files[run_id] for run_id in here.loc[kept, "run_id"]):
        table = _read(file.with_name(f"{name}.csv"), columns)
        parts.append(table[table["run_id"].isin(here["run_id"])])
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _read(file: Path, columns: Sequence[Column]) -> pd.DataFrame:
    if not file.exists():  # an earlier version wrote the folder
        return pd.DataFrame(columns=[*names(columns)])
    return read_table(file, columns, partial(damaged, file))


def _calibrations(runs: pd.DataFrame, shares: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Of the runs of an arm; ``shares`` are (runs, images, classes)."""
    frames = [pd.DataFrame(_bins(own, labels)) for own in shares]
    keys = runs[[*names(OF_RUN)]]
    rows = keys.loc[keys.index.repeat([len(frame) for frame in frames])].reset_index(drop=True)
    return pd.concat([rows, pd.concat(frames, ignore_index=True)], axis=1)


def _bins(shares: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Images, mean confidence and accuracy of each bin that is not empty."""
    confidence = shares.max(axis=1).astype(float)
    right = shares.argmax(axis=1) == labels
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(number, minlength=BINS)
    there = np.flatnonzero(counts)
    means = [
        np.bincount(number, weights=each, minlength=BINS)[there] / counts[there]
        for each in (confidence, right)
    ]
    return {"bin": there, "images": counts[there], "confidence": means[0], "accuracy": means[1]}


def _ensembles(runs: pd.DataFrame, shares: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Of the runs of an arm; ``shares`` are (runs, images, classes)."""
    seeds = len(shares)
    draw, most = np.random.default_rng(0), min(seeds, _MEMBERS)
    drawn = [draw.permutation(seeds) for _ in range(max(1, _ORDERS // seeds))]
    orders = [np.roll(order, by) for order in drawn for by in range(seeds)]
    accuracies = np.empty((len(orders), most))
    for accuracy, order in zip(accuracies, orders, strict=True):
        total = np.zeros(shares[0].shape)
        for members, one in enumerate(order[:most]):
            total += shares[one]
            accuracy[members] = np.mean(total.argmax(axis=1) == labels)
    first = {name: runs[name].iloc[0] for name in names(OF_RUN)}
    ends = {"lowest": accuracies.min(axis=0), "highest": accuracies.max(axis=0)}
    numbers = {"members": np.arange(1, most + 1), "accuracy": accuracies.mean(axis=0), **ends}
    return pd.DataFrame(numbers).assign(**first)


def calibration_errors(table: pd.DataFrame) -> pd.DataFrame:
    """The expected calibration error of each arm over its seeds: ``ECE_COLUMNS``.

    It is the mean distance of confidence and accuracy over the bins, weighted by their images.

    Args:
        table: from ``calibration_of``.
    """
    share = table["images"] / table.groupby("run_id")["images"].transform("sum")
    gap = (table["confidence"] - table["accuracy"]).abs()
    parts = {"ece": gap, "confidence": table["confidence"], "accuracy": table["accuracy"]}
    weighted = pd.DataFrame({name: share * part for name, part in parts.items()})
    by_run = weighted.groupby([table["model"], table["run_id"]], sort=False).sum()
    rows = []
    for model, own in by_run.groupby(level="model", sort=False):
        ece = estimate(own["ece"].to_numpy(), SHARE)
        means = own["confidence"].mean(), own["accuracy"].mean()
        rows.append((model, len(own), ece.mean, ece.low, ece.high, *means))
    return pd.DataFrame(rows, columns=[*ECE_COLUMNS])
