"""Diagnose a trained run: its network before, during and after training, on validation images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import Batch
from resnet_variants.diagnosis import activation_maps, distances, gradients, lesions, shifts
from resnet_variants.diagnosis.measure import Chosen, Sample
from resnet_variants.models.network import ResNet
from resnet_variants.models.weights import (
    WEIGHTS_FILE,
    body_hash,
    check_fit,
    load_weights,
    read_safetensors,
)
from resnet_variants.records.diagnosis import TABLES, Diagnosis
from resnet_variants.records.files import Json, damaged
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.records.schema import concatenated
from resnet_variants.registry import UserError
from resnet_variants.settings import Machine, Study
from resnet_variants.sweeps.finished import finished, recorded_moments, recorded_run, require_finite
from resnet_variants.sweeps.run import Run
from resnet_variants.training.augment import Normalise
from resnet_variants.training.batches import generator
from resnet_variants.training.device import full_precision, make_fabric

# By the names of TABLES.
MEASURES = (
    gradients.MEASURES
    | lesions.MEASURES
    | distances.MEASURES
    | shifts.MEASURES
    | activation_maps.MEASURES
)
_MAPPED = 4  # classes whose first image has its class maps drawn, unless others are asked for


def diagnose_run(path: Path, study: Study) -> Diagnosis:
    """The tables of ``records.diagnosis.TABLES`` for a finished run.

    The trained weights are the run's result: averages with ``ema``, the best epoch's with
    ``select="best"``. Some tables have rows for the initial weights and for the snapshots
    (``Machine.snapshots``) too. Paths are empty for a plain net and for gates that mix both ways.

    Raises:
        ValueError: no finished run, without weights or with those of another network; other images
            than it was trained on; fewer validation images than the batch.
    """
    config = finished(path)
    run = recorded_run(path, config, study.data, study.loading)
    if any(epoch == 0 for epoch, _ in RunFolder(path).snapshots):  # it holds the initial weights
        run = replace(run, recipe=replace(run.recipe, weights=""))
    data = _as_trained(path, config, run.load())
    _require_images(config, data)
    study = study.fitted(len(data.val))
    fabric = make_fabric(Machine(device=study.device), run.recipe.precision)
    images, labels = validation_images(data, study, fabric.device)
    sample = Sample(
        images=images,
        labels=labels,
        std=torch.tensor(data.std),
        batch_size=study.batch_size,
        draws=study.draws,
        paths=study.paths,
        seed=generator("draws", study.seed, run.seed).initial_seed(),
        chosen=_chosen(data, study, fabric.device),
    )
    model = _as_it_began(config, run, data)
    model = model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    last = _trained_epochs(path, run)
    for epoch in _states(model, path, last):
        for name, measure in MEASURES.items():
            if epoch == last or measure.every_state:
                with full_precision() if measure.full_precision else fabric.autocast():
                    rows = measure.rows(model, sample)
                parts[name] += [] if rows is None else [rows.assign(epoch=epoch)]
    keys: dict[str, Any] = {"run_id": str(config["run_id"]), "seed": run.seed}
    keys["model"] = run.variant.name
    return {
        name: concatenated(parts[name], table.header).assign(**keys)[[*table.header]]
        for name, table in TABLES.items()
    }


def _as_trained(path: Path, config: Json, data: Dataset) -> Dataset:
    """The images with the mean and deviation of the run: its initial weights may be deleted."""
    if "mean" not in config:  # an older run: it used those of the training images
        return data
    mean, std = recorded_moments(path, config)
    if len(mean) != data.in_chans:
        raise damaged(path / "run.json", "mean and std are not of its channels")
    return replace(data, mean=mean, std=std)


def _as_it_began(config: Json, run: Run, data: Dataset) -> ResNet:
    """The network before training. Initial weights that a snapshot holds are not loaded here."""
    remedy = "and it kept no snapshot of what it began with"
    try:
        model = run.build(data)
    except UserError as error:
        if not run.recipe.weights:
            raise
        raise UserError(f"{error}, {remedy}: put it back") from error
    if run.recipe.weights and config["weights_hash"] != body_hash(model):
        raise UserError(f"{run.recipe.weights!r} is no longer what this run began with, {remedy}")
    return model


def _require_images(config: Json, data: Dataset) -> None:
    for key in ("split_hash", "data_hash"):
        now = data.facts[key]
        if config[key] != now:
            message = f"{data.name} is not the images of this run ({key} {config[key]}, here {now})"
            raise UserError(f"{message}: name those", field="data")


def validation_images(data: Dataset, study: Study, device: torch.device) -> tuple[Tensor, Tensor]:
    """Validation images (N, C, H, W), drawn at random, normalised; and their labels (N,)."""
    stream = generator("diagnose", study.seed)
    order = torch.randperm(len(data.val), generator=stream)[: study.images]
    images = _pixels(data, order).to(device)
    return Normalise.of(data, device)(images), data.val.labels[order].to(device)


def _pixels(data: Dataset, places: Tensor) -> Tensor:
    with closing(data.val.batches([Batch(places)])) as batches:
        return next(batches)


def _chosen(data: Dataset, study: Study, device: torch.device) -> Chosen:
    """The images that were asked for, or the first one of each of the first classes."""
    labels = data.val.labels
    first = [int((labels == label).nonzero()[0]) for label in labels.unique()[:_MAPPED]]
    places = torch.tensor(study.map_images or first)
    pixels = _pixels(data, places)
    images = Normalise.of(data, device)(pixels.to(device))
    return Chosen(places.tolist(), pixels, images, labels[places].tolist(), data.classes)


def _trained_epochs(path: Path, run: Run) -> int:
    """The epoch after which the run had its final weights."""
    if run.recipe.select != "best":
        return run.recipe.epochs
    best = (RunFolder(path).result() or {}).get("best_epoch")
    if type(best) is not int:
        raise damaged(path / "result.json", "no best_epoch")
    return best


def _states(model: ResNet, path: Path, last: int) -> Iterator[int]:
    """Give the model its weights from the start to the end; yield the epoch of each."""
    kept = dict(RunFolder(path).snapshots)
    if 0 not in kept:
        yield 0  # as built
    for epoch, file in kept.items():
        if epoch < last:
            state = read_safetensors(file)
            check_fit(state, model.state_dict(), model.variant.name)
            model.load_state_dict(state)
            require_finite(model, file)
            yield epoch
    load_weights(model, path)
    require_finite(model, path / WEIGHTS_FILE)
    yield last
