"""What logits tell beyond the answers: how far confidence can be trusted, and what ensembles gain.

The tables are made from the runs' own files. Where these are not here, in a clone, those that an
earlier report wrote are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from resnet_variants.analysis.statistics import MEAN, SHARE, estimate
from resnet_variants.records.files import damaged
from resnet_variants.records.predictions import OUTCOMES, Outcome, read_predictions
from resnet_variants.records.schema import OF_RUN, Column, concatenated, names, read_table

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
_TABLES: dict[str, Sequence[Column]] = {"calibration": CALIBRATION, "ensembles": ENSEMBLES}
_WITHOUT = "delete its predictions: the run stays valid"
_LEFT_OUT = "delete it, and its part of the page is left out; or restore it"
ECE_COLUMNS = ("model", "seeds", *MEAN, "confidence", "accuracy")


def probability_tables(
    done: pd.DataFrame, outcomes: Mapping[str, Outcome]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``CALIBRATION`` and ``ENSEMBLES`` of finished runs whose predictions were kept.

    The first has confidence and accuracy of each run by bin of confidence, the second the accuracy
    of the mean probabilities of 1, 2, ... seeds of each arm. The seeds join in several orders, of
    which mean, lowest and highest are given. Orders are drawn and then rotated, so that at every
    place each seed stands equally often; of very many seeds some of the rotations are taken. An arm
    of which only some runs' logits are here has no ensembles.

    Raises:
        ValueError: a file is damaged, or logits are not finite.
    """
    here = done[done["run_id"].isin(outcomes.keys())].sort_values("seed")
    calibrations, together = list[pd.DataFrame](), list[pd.DataFrame]()
    for _, runs in here.groupby("model", sort=False):
        files = runs["run_id"].map(lambda run_id: outcomes[run_id].file)
        raw = np.array([file.name != OUTCOMES for file in files])
        if raw.any():
            labels = outcomes[str(runs["run_id"][raw].iloc[0])].labels
            shares = np.stack([_shares(file.parent) for file in files[raw]])
            calibrations.append(_calibrations(runs[raw], shares, labels))
            if raw.all():
                together.append(_ensembles(runs, shares, labels))
        for file in dict.fromkeys(files[~raw]):
            calibrations.append(_kept(file, "calibration", runs[files == file]))
        if not raw.any() and files.nunique() == 1:
            table = _kept(files.iloc[0], "ensembles", runs)
            if len(table) == min(len(runs), _MEMBERS):  # else they are of other seeds
                together.append(table)
    tables = (calibrations, names(CALIBRATION)), (together, names(ENSEMBLES))
    found, groups = (concatenated(parts, own)[[*own]] for parts, own in tables)
    return found, groups


def _shares(folder: Path) -> np.ndarray:
    """The predicted probabilities of a run for the test images: (images, classes)."""
    logits = read_predictions(folder).test_logits
    if not np.isfinite(logits).all():
        raise damaged(folder, "logits of test images are not all finite", remedy=_WITHOUT)
    return softmax(logits.astype(np.float32), axis=1)


def _kept(outcomes: Path, name: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows that an earlier report's table beside ``outcomes`` has of these runs."""
    file = outcomes.with_name(f"{name}.csv")
    if not file.exists():  # an earlier version wrote the folder
        return pd.DataFrame(columns=[*names(_TABLES[name])])
    table = read_table(file, _TABLES[name], partial(damaged, file, remedy=_LEFT_OUT))
    own = table.drop(columns=["model", "seed"])  # arms may have other names among other folders
    return own.merge(runs[[*names(OF_RUN)]], on="run_id")


def _calibrations(runs: pd.DataFrame, shares: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Of the runs of an arm; ``shares`` are (runs, images, classes)."""
    bins = [_bins(own, labels) for own in shares]
    columns = {name: np.concatenate([own[name] for own in bins]) for name in bins[0]}
    rows = np.repeat(np.arange(len(runs)), [len(own["bin"]) for own in bins])
    return runs[[*names(OF_RUN)]].iloc[rows].reset_index(drop=True).assign(**columns)


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
    orders = orders[:: max(1, len(orders) // _ORDERS)]  # of many seeds not each begins one
    accuracies = np.empty((len(orders), most))
    for accuracy, order in zip(accuracies, orders, strict=True):
        total = np.zeros(shares[0].shape)
        for members, one in enumerate(order[:most]):
            total += shares[one]
            accuracy[members] = np.mean(total.argmax(axis=1) == labels)
    first = {name: runs[name].iloc[0] for name in names(OF_RUN)}
    alone = np.array([np.mean(own.argmax(axis=1) == labels) for own in shares])  # all of them
    ends = {"accuracy": np.mean, "lowest": np.min, "highest": np.max}
    numbers = {name: end(accuracies, axis=0) for name, end in ends.items()}
    for name, end in ends.items():
        numbers[name][0] = end(alone)
    numbers = {"members": np.arange(1, most + 1)} | numbers
    return pd.DataFrame(numbers).assign(**first)


def calibration_errors(table: pd.DataFrame) -> pd.DataFrame:
    """The expected calibration error of each arm over its seeds: ``ECE_COLUMNS``.

    It is the mean distance of confidence and accuracy over the bins, weighted by their images.

    Args:
        table: ``CALIBRATION``.
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
