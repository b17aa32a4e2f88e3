"""One run: what it is, what it is called, and how it is carried out."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from lightning_fabric import Fabric

from resnet_variants.files import Json
from resnet_variants.models.card import save_pretrained
from resnet_variants.models.cost import Cost, cost
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build, pretrained_cfg
from resnet_variants.records import DIVERGED, DONE, FAILED, RunFolder
from resnet_variants.sweeps.provenance import provenance
from resnet_variants.training.data import Dataset, Normalise, load_dataset
from resnet_variants.training.loop import (
    DivergedError,
    EpochRecord,
    determinism,
    evaluate,
    fit,
    make_fabric,
    resolve,
)
from resnet_variants.training.memory import peak_mb, reset_peak
from resnet_variants.training.recipe import Recipe

_REFERENCE = Recipe()


@dataclass(frozen=True)
class Run:
    """variant x dataset x recipe x seed."""

    variant: Variant
    data: str
    recipe: Recipe
    seed: int
    img_size: int = 0  # 0: the images as they are

    @property
    def dataset(self) -> str:
        """The data as ids and tables call it: ``digits``, or ``digits-16px`` when resized."""
        return f"{self.data}-{self.img_size}px" if self.img_size else self.data

    @property
    def id(self) -> str:
        """``<variant>__<dataset>__<8 hex of what differs from the default recipe>__s<seed>``."""
        changed = {
            field.name: getattr(self.recipe, field.name)
            for field in fields(Recipe)
            if getattr(self.recipe, field.name) != getattr(_REFERENCE, field.name)
        }
        digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.variant.name}__{self.dataset}__{digest}__s{self.seed}"

    @property
    def facts(self) -> dict[str, object]:
        """What a model card says of the training."""
        recipe = ", ".join(f"{key} {value}" for key, value in asdict(self.recipe).items())
        return {"Data": self.dataset, "Recipe": recipe, "Seed": self.seed, "Run": self.id}

    def load(self) -> Dataset:
        """The images of this run."""
        return load_dataset(self.data, img_size=self.img_size)

    def build(self, data: Dataset) -> ResNet:
        """The network with this run's initial weights."""
        torch.manual_seed(self.seed)
        side = data.img_size
        overlay = {
            "num_classes": len(data.classes),
            "input_size": (data.in_chans, side, side),
            "pool_size": None,
            "crop_pct": 1.0,
            "mean": data.mean,
            "std": data.std,
            "label_names": data.classes,
        }
        cfg = pretrained_cfg(self.variant)  # not that of some published weights
        return build(self.variant, pretrained_cfg=cfg, pretrained_cfg_overlay=overlay)

    def cost(self, data: Dataset) -> Cost:
        """What the network costs on one of these images."""
        return cost(
            self.variant,
            img_size=data.img_size,
            in_chans=data.in_chans,
            num_classes=len(data.classes),
        )

    def config(self, data: Dataset, fabric: Fabric) -> Json:
        """What ``run.json`` holds: the columns known in advance, then everything else."""
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
            "precision": resolve(self.recipe.precision, fabric.device.type),
            "recipe": asdict(self.recipe),
            "split_hash": data.split_hash,
            "split_sizes": [len(data.train), len(data.val), len(data.test)],
            "provenance": provenance(fabric.device),
        }


def execute(run: Run, path: Path, *, device: str, on_epoch: Callable[[EpochRecord], None]) -> Json:
    """Train, evaluate and record one run in its own directory; return its result.

    An error inside the run becomes its result, ``failed`` with the traceback in ``log.txt``;
    a loss that is not finite becomes ``diverged``. Only an interruption leaves no result.
    """
    folder, start = RunFolder(path), time.perf_counter()
    data, fabric = run.load(), make_fabric(device, run.recipe.precision)
    folder.start(run.config(data, fabric))
    try:
        with determinism(run.recipe.deterministic):
            measured = _train(run, folder, data, fabric, on_epoch)
        result: Json = {"status": DONE} | measured
    except DivergedError as error:
        folder.log(str(error))
        result = {"status": DIVERGED, "error": str(error)}
    except Exception as error:  # whatever the run died of is its result; the others go on
        folder.log(traceback.format_exc())
        result = {"status": FAILED, "error": f"{type(error).__name__}: {error}"}
    result["seconds"] = time.perf_counter() - start
    folder.finish(result)
    return result


def _train(
    run: Run,
    folder: RunFolder,
    data: Dataset,
    fabric: Fabric,
    on_epoch: Callable[[EpochRecord], None],
) -> Json:
    peak_is_own = reset_peak(fabric.device)
    model = run.build(data)
    records: list[EpochRecord] = []
    for record in fit(model, data, run.recipe, seed=run.seed, fabric=fabric):
        records.append(record)
        folder.append_epoch(asdict(record))
        folder.log(" ".join(f"{key}={value:.5g}" for key, value in asdict(record).items()))
        on_epoch(record)
    with fabric.autocast():
        normalise = Normalise.of(data, fabric.device)
        score = evaluate(model, data.test.to(fabric.device), normalise)
    save_pretrained(model, folder.path, run.facts | {"Test accuracy": f"{score.acc:.4f}"})
    return {
        "test_acc": score.acc,
        "test_loss": score.loss,
        "n_test": score.n,
        "val_acc": records[-1].val_acc,
        "train_loss": records[-1].train_loss,
        "images_per_second": statistics.median(r.images_per_second for r in records),
        "peak_memory_mb": peak_mb(fabric.device) if peak_is_own else None,
    }
