"""A finished run read back: its record, its network, and what the network says of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from resnet_variants.data.dataset import middles
from resnet_variants.data.images import BadImageError
from resnet_variants.data.sources import Picture, Pictures, Unlabelled
from resnet_variants.data.splits import ResidentSplit
from resnet_variants.models.grids import parse_name
from resnet_variants.models.network import ResNet
from resnet_variants.models.weights import WEIGHTS_FILE, load_weights
from resnet_variants.plugins import absent_plugins, changed_plugins
from resnet_variants.records.files import Json, damaged
from resnet_variants.records.run_folder import DONE, PLUGINS, RunFolder, recorded_data
from resnet_variants.registry import UserError, require, require_path
from resnet_variants.settings import Device, Loading, Machine
from resnet_variants.sweeps.run import Run
from resnet_variants.training.augment import Normalise, Preparation
from resnet_variants.training.device import make_fabric
from resnet_variants.training.evaluate import EVAL_BATCH, evaluate
from resnet_variants.training.recipe import Recipe

_NEEDED = ("run_id", "dataset", "split_hash", "data_hash")  # in run.json
_LOADING = Loading()
_KINDS = (str, os.PathLike, Image.Image)  # of pictures


def finished(path: Path) -> Json:
    """The content of ``run.json`` of a finished run.

    Raises:
        ValueError: no finished run, or one without weights; a plugin that it needs is absent, or
            another version of it is here.
    """
    try:
        there = (path / "run.json").is_file()
    except OSError as error:
        raise UserError(f"{str(path)!r}: {error.strerror}") from error
    if not there:
        hint = f"; name one of those in {path / 'runs'}" if (path / "runs").is_dir() else ""
        raise UserError(f"{str(path)!r} is no run's directory: it has no run.json{hint}")
    result = RunFolder(path).result()
    status = result["status"] if result else "not finished"
    if status != DONE:
        raise UserError(f"{str(path)!r} is {status}: only a finished run has the weights for this")
    if not (path / WEIGHTS_FILE).is_file():
        raise UserError(f"{str(path)!r} holds no weights: {WEIGHTS_FILE} is missing")
    config = RunFolder(path).config()
    recipe = config.get("recipe")
    tuned = isinstance(recipe, dict) and recipe.get("weights")
    for name in (*_NEEDED, *(["weights_hash"] if tuned else [])):
        if name not in config:
            raise damaged(path / "run.json", f"no {name}")
    trouble = absent_plugins(config.get(PLUGINS)) or changed_plugins(config.get(PLUGINS))
    if trouble:
        raise UserError(f"{str(path)!r}: {trouble}", field="plugin")
    return config


def recorded_run(path: Path, config: Json, data: str = "", loading: Loading = _LOADING) -> Run:
    """The run of this ``run.json``; ``data`` is the SPEC of its images if they were moved.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        spec = data or recorded_data(config)
        # Accuracies are measured in the precision of the training, whatever machine it ran on.
        given = {**cast("dict[str, Any]", config["recipe"]), "precision": config["precision"]}
        if config.get("skipped_images"):
            loading = replace(loading, on_bad_image="skip")
        return Run(
            variant=parse_name(str(config["model"])),
            data=spec,
            recipe=Recipe(**given),
            seed=int(cast(int, config["seed"])),
            img_size=int(cast(int, config["img_size"])),
            loading=loading,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise damaged(path / "run.json", error) from error


def recorded_moments(path: Path, config: Json) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation by which the images of a run were normalised.

    Raises:
        ValueError: the file is damaged, or of a version that did not record them.
    """
    try:
        mean, std = (tuple(map(float, cast("Any", config[key]))) for key in ("mean", "std"))
        if not 0 < len(mean) == len(std):
            raise ValueError("mean and std are not of its channels")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path / "run.json", error) from error
    return mean, std


def require_finite(model: nn.Module, file: Path) -> None:
    """Refuse a model with weights that are no numbers; ``file`` is where they come from."""
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise UserError(f"{file} holds weights that are not finite: nothing is measured of them")


# --- predictions ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class LoadedRun:
    """A finished run, ready to predict.

    Attributes:
        run_id: of the run.
        classes: their names, by number.
        model: the trained network in evaluation mode on its device, for (N, C, H, W).
        transform: prepares a picture as the run's test images were: one of PIL's, or a path, ->
            float32 (C, H, W) on the CPU. Data sets of torchvision's kind take it.
        fabric: the device, and the precision of the training.
        recipe: of the training.
        metrics: what ``result.json`` records, such as ``test_acc`` in [0, 1].
    """

    run_id: str
    classes: tuple[str, ...]
    model: ResNet
    transform: Preparation
    fabric: Fabric
    recipe: Recipe
    metrics: Json

    def __repr__(self) -> str:
        """The run, where its network is, and what it tells apart."""
        return f"LoadedRun({self.run_id!r}, {len(self.classes)} classes, on {self.fabric.device})"

    def predict(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Probabilities (N, classes), float32 on the CPU: the softmax of the logits.

        Args:
            images: paths and PIL's pictures as they were opened, or one of them (N = 1). They are
                decoded batch by batch.

        Raises:
            ValueError: a picture cannot be decoded; names the first.
        """
        what = "a path, a picture of PIL's or a list of them"
        require("images", images, (*_KINDS, Iterable), what)
        listed = [images] if isinstance(images, _KINDS) else [*images]
        for image in listed:
            require("images", image, _KINDS, what)
        parts = [torch.empty(0, len(self.classes))]
        source = Unlabelled(listed, self.transform.in_chans)
        for _, probabilities, broken in predicted([self], source, np.arange(len(listed))):
            if broken:
                raise BadImageError(broken[0])
            parts.append(probabilities)
        return torch.cat(parts)

    def _probabilities(self, split: ResidentSplit) -> Tensor:
        """The probabilities of a batch, as evaluation computes them."""
        normalise = Normalise.of(self.transform, self.fabric.device)
        with self.fabric.autocast():
            score = evaluate(self.model, split.to(self.fabric.device), normalise, keep=True)
        assert score.logits is not None
        return score.logits.softmax(1)


def load_run(folder: str | Path, *, device: Device = Machine.device) -> LoadedRun:
    """A finished run with its network, without its images.

    Args:
        folder: the run's directory, such as ``results/mine/runs/...``.
        device: of the network; ``auto`` is the GPU where there is one.

    Raises:
        ValueError: no finished run, or one that is not whole; no such device.
    """
    machine, path = Machine(device=device), require_path("folder", folder)
    config = finished(path)
    run, classes = recorded_run(path, config), config.get("classes")
    if not isinstance(classes, list):
        raise damaged(path / "run.json", "no classes")
    names = tuple(map(str, cast("list[object]", classes)))
    transform = Preparation(run.img_size, run.recipe.crop_pct, *recorded_moments(path, config))
    model = load_weights(run.network(transform, names), path)
    require_finite(model, path / WEIGHTS_FILE)
    fabric = make_fabric(machine, run.recipe.precision)
    model = model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedRun(
        run_id=str(config["run_id"]),
        classes=names,
        model=model.eval(),
        transform=transform,
        fabric=fabric,
        recipe=run.recipe,
        metrics=cast(Json, RunFolder(path).result()),  # `finished` has read it
    )


def predicted(
    runs: Sequence[LoadedRun], source: Pictures, index: np.ndarray
) -> Iterator[tuple[list[str], Tensor, list[str]]]:
    """What runs that differ in their seeds say of the pictures ``index``, batch by batch.

    Yields:
        Names of pictures, the runs' mean probabilities (n, classes), a line on each broken picture.
    """
    cut = runs[0].transform.cut
    for start in range(0, len(index), EVAL_BATCH):
        broken: list[str] = []
        images, good = middles(source, index[start : start + EVAL_BATCH], cut, broken)
        split = ResidentSplit(images, torch.zeros(len(good), dtype=torch.int64))  # unknown labels
        each = [run._probabilities(split) for run in runs if len(good)] or [torch.empty(0, 0)]
        yield [source.name(int(i)) for i in good], torch.stack(each).mean(0), broken
