"""One run: its settings, its id, its images and its initial network."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from resnet_variants.data.dataset import Dataset, Loading, load_dataset
from resnet_variants.data.images import INTERPOLATION
from resnet_variants.data.policy import policy
from resnet_variants.data.specs import check_spec
from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.cost import Cost, cost
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import (
    WEIGHTS_FILE,
    body_hash,
    load_backbone,
    stated_moments,
)
from resnet_variants.models.zoo import build, create_model, pretrained_cfg, weights_cfgs
from resnet_variants.plugins import require_plugins, used_plugins
from resnet_variants.records.files import Json
from resnet_variants.registry import UserError
from resnet_variants.settings import FORMER_NAMES
from resnet_variants.sweeps.provenance import machine_facts
from resnet_variants.training.augment import Preparation
from resnet_variants.training.device import resolve
from resnet_variants.training.recipe import PRETRAINED, Recipe

_LOADING = Loading()
# The digest in a run's id covers the differences from this recipe. When a default changes, write
# the field's old value here, so that old ids keep their meaning.
REFERENCE = Recipe()
_LONGEST_NAME = 128  # of a data set: it is part of a run's id, which names a folder
# The arguments of the network that the recipe sets.
_ARGUMENTS = {field.name for field in fields(ModelArgs)} & {field.name for field in fields(Recipe)}
# The images in a model card; mean, deviation, size and cut are in config.json.
_IMAGES = (
    "the transform in config.json is the test's. Before it, pictures were turned as their EXIF "
    "says, put on white if transparent, and scaled to 8 bits: timm does none of these"
)


def _settings(recipe: Recipe) -> Mapping[str, object]:
    """The settings that distinguish recipes, by the names that run ids are made of."""
    settings = vars(recipe) | {"normalise": recipe.normalised_by}
    return {FORMER_NAMES.get(name, name): value for name, value in settings.items()}


def dataset_name(spec: str) -> str:
    """A SPEC as ids and folders call it: ``folder-pets`` for ``folder:/somewhere/pets``.

    A name without Latin letters and digits is written in Punycode (RFC 3492). A long name ends in
    a digest.

    Raises:
        ValueError: the SPEC names nothing.
    """
    check_spec(spec)
    prefix, colon, name = spec.partition(":")
    if prefix == "folder" and colon:
        # Unlike pathlib, it leaves users without a home and links in circles as they are.
        name = os.path.basename(os.path.realpath(os.path.expanduser(name)))  # noqa: PTH111, PTH119
    if name and not re.search("[A-Za-z0-9]", name):
        name = unicodedata.normalize("NFC", name).encode("punycode").decode()
    text = re.sub(r"[^A-Za-z0-9.+]+", "-", f"{prefix}-{name}" if colon else prefix).strip("-")
    if len(text) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return f"{text[: _LONGEST_NAME - 9]}-{digest}"


@dataclass(frozen=True)
class Run:
    """variant x dataset x recipe x seed."""

    variant: Variant
    data: str  # a SPEC
    recipe: Recipe
    seed: int
    img_size: int = 0  # 0: the images as they are
    loading: Loading = _LOADING
    settings: tuple[tuple[str, str], ...] = ()  # the varied fields of the recipe, as text
    name: str = ""  # of its arm; the network's if empty

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.variant.name)

    @property
    def dataset(self) -> str:
        """The data as ids and tables call it: ``digits``, ``folder-pets-224px``."""
        name = dataset_name(self.data)
        return f"{name}-{self.img_size}px" if self.img_size else name

    @functools.cached_property
    def id(self) -> str:
        """``<variant>__<dataset>__<8 hex of what differs from the default recipe>__s<seed>``."""
        reference = _settings(REFERENCE)
        changed = {k: v for k, v in _settings(self.recipe).items() if v != reference[k]}
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.variant.name}__{self.dataset}__{digest}__s{self.seed}"

    @property
    def facts(self) -> dict[str, object]:
        """The training, for a model card."""
        recipe = ", ".join(f"{key} {value}" for key, value in asdict(self.recipe).items())
        return {
            "Data": self.dataset,
            "Images": _IMAGES,
            "Recipe": recipe,
            "Seed": self.seed,
            "Run": self.id,
        }

    @property
    def _arguments(self) -> dict[str, Any]:
        """The network's arguments that the recipe sets."""
        return {name: getattr(self.recipe, name) for name in _ARGUMENTS}

    @property
    def _choices(self) -> Mapping[str, object]:
        return asdict(self.variant) | {"augment": self.recipe.augment, "data": self.data}

    @property
    def plugins(self) -> dict[str, str]:
        """Name and SHA-256 of the plugins that the network, the recipe and the data come from.

        They are no part of the id: arms of one comparison have one recipe and one data set in their
        ids, whatever parts are compared. ``sweep.prepare`` refuses a second version of a plugin.
        """
        return used_plugins(self._choices)

    def check(self) -> None:
        """Refuse a recipe with which this network cannot be built or trained.

        Raises:
            ValueError: names the setting; or a part of another origin than package and plugins.
        """
        require_plugins(self._choices)
        if self.recipe.auto_augment:
            policy(self.recipe.auto_augment)
        try:
            ModelArgs(**self._arguments).check(self.variant)
        except UserError as error:
            raise UserError(f"{self.variant.name}: {error}", field=error.field) from error

    def load(self) -> Dataset:
        """The images of this run, which all runs of its recipe share."""
        crop_pct = self.recipe.crop_pct
        return load_dataset(
            self.data, img_size=self.img_size, crop_pct=crop_pct, loading=self.loading
        )

    def prepared(self, data: Dataset) -> Dataset:
        """The images with the mean and deviation that the recipe chooses.

        Raises:
            ValueError: the recipe's ``weights`` are missing, or state no mean and deviation.
        """
        assert data.crop_pct == self.recipe.crop_pct, "images of another recipe"
        moments = self._moments()
        if moments is None:
            return data
        # A grey image is three equal channels to weights that are summed over them.
        mean, std = (
            tuple(own) if len(own) == data.in_chans else (fmean(own),) * data.in_chans
            for own in moments
        )
        return replace(data, mean=mean, std=std)

    def _moments(self) -> tuple[Sequence[float], Sequence[float]] | None:
        """Mean and deviation; ``None`` for the training images' own."""
        by = self.recipe.normalised_by
        if by == "imagenet":
            return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        if by == "data":
            return None
        if self.recipe.weights != PRETRAINED:
            return stated_moments(_source(self))
        cfg = next(iter(weights_cfgs(self.variant).values()), None)
        return (cfg.mean, cfg.std) if cfg else None

    def build(self, data: Dataset) -> ResNet:
        """The network with this run's initial weights.

        Raises:
            ValueError: the recipe's ``weights`` are missing, or belong to another network.
        """
        torch.manual_seed(self.seed)
        model = self.network(self.prepared(data), data.classes)
        if self.recipe.weights:
            load_backbone(model, self._weights(data.in_chans))
        return model

    def network(self, data: Dataset | Preparation, classes: tuple[str, ...]) -> ResNet:
        """The network for such images; its weights are random, whatever the recipe says of them."""
        side = data.img_size
        overlay = {
            "num_classes": len(classes),
            "input_size": (data.in_chans, side, side),
            "pool_size": None,
            "crop_pct": data.crop_pct,
            "crop_mode": "center",
            "interpolation": INTERPOLATION,
            "mean": data.mean,
            "std": data.std,
            "label_names": classes,
        }
        cfg = pretrained_cfg(self.variant)  # not that of some published weights
        return build(
            self.variant, pretrained_cfg=cfg, pretrained_cfg_overlay=overlay, **self._arguments
        )

    def _weights(self, in_chans: int) -> Mapping[str, Tensor] | Path:
        """The weights that the recipe names for this network and seed."""
        if self.recipe.weights == PRETRAINED:
            try:
                made = create_model(self.variant, pretrained=True, in_chans=in_chans)
            except (RuntimeError, OSError) as error:
                reason = _other_weights(self.variant) or str(error).splitlines()[0]
                raise UserError(f"{self.variant.name}: {reason}", field="weights") from error
            return made.state_dict()
        return _source(self)

    def cost(self, data: Dataset) -> Cost:
        """The network's cost for one of these images."""
        return cost(
            self.variant,
            img_size=data.img_size,
            in_chans=data.in_chans,
            num_classes=len(data.classes),
            head=self.recipe.head,
        )

    def config(self, data: Dataset, fabric: Fabric, origin: Json) -> Json:
        """The content of ``run.json``: the columns known in advance, then everything else."""
        data = self.prepared(data)
        return {
            "run_id": self.id,
            "model": self.variant.name,
            "preset": self.variant.preset,
            **asdict(self.variant),
            "dataset": self.dataset,
            "img_size": data.img_size,
            "epochs": self.recipe.epochs,
            "seed": self.seed,
            **asdict(self.cost(data)),
            "device": fabric.device.type,
            "devices": fabric.world_size,
            "precision": resolve(self.recipe.precision, fabric.device.type),
            "recipe": asdict(self.recipe),
            "mean": data.mean,
            "std": data.std,
            **data.facts,
            **({"plugins": self.plugins} if self.plugins else {}),
            **({"weights_hash": body_hash(self.build(data))} if self.recipe.weights else {}),
            "provenance": origin | machine_facts(fabric.device) | {"data": self.data},
        }


def _other_weights(variant: Variant) -> str:
    """What to say where timm has weights of this network with another stem stride only."""
    usual = FAMILIES[variant.family].stem_stride
    if weights_cfgs(variant) or not weights_cfgs(replace(variant, stem_stride=usual)):
        return ""
    message = f"timm has weights for stem stride {usual}, and images of this size get"
    return f"{message} {variant.stem_stride}: give --stem-stride {usual}, or a larger --img-size"


def _source(run: Run) -> Path:
    """The folder or file that the recipe's ``weights`` name for this network and seed."""
    path = Path(run.recipe.weights)
    try:
        if not (path / "runs").is_dir():
            return path
    except OSError as error:
        raise UserError(f"{str(path)!r}: {error.strerror}", field="weights") from error
    model, seed = run.variant.name, run.seed
    found = sorted((path / "runs").glob(f"{model}__*__s{seed}/{WEIGHTS_FILE}"))
    if len(found) != 1:
        count = f"{len(found)} finished runs" if found else "no finished run"
        message = f"{str(path)!r} holds {count} of {model} with seed {seed}"
        raise UserError(message, field="weights")
    return found[0].parent
