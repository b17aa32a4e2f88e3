"""Whether ``torch.compile`` pays for a run: measured once per network and machine, and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import Resident
from resnet_variants.records.files import read_json, to_json, write_atomically
from resnet_variants.training.device import resolve
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.timing import seconds_per_step

WORTH_ASKING = 120.0  # seconds of eager training: below, no compilation can be earned back


@dataclass(frozen=True)
class Speeds:
    """Seconds per step, and what compiling took."""

    eager: float
    compiled: float
    compiling: float

    def pays(self, steps: int) -> bool:
        """Whether so many steps take less time compiled, compiling included."""
        return self.compiling + steps * self.compiled < steps * self.eager


def choose(
    make: Callable[[], nn.Module],
    name: str,
    data: Dataset,
    recipe: Recipe,
    *,
    asked: str,
    fabric: Fabric,
) -> dict[str, Any]:
    """What ``run.json`` records: whether to compile, why, and what was measured.

    ``auto`` measures on GPUs. On CPUs it does not compile: the images per second were 0.9 to 1.0
    times those without it (ResNet-20 in bf16, 256 images), after 40 s of compiling.
    """
    if asked != "auto":
        return {"used": asked == "on", "why": "asked for"}
    if recipe.deterministic:
        return {"used": False, "why": "deterministic"}
    kind = fabric.device.type
    if kind != "cuda":
        why = "it does not pay on CPUs" if kind == "cpu" else f"it was not measured on {kind}"
        return {"used": False, "why": why}
    steps = recipe.epochs * (len(data.train) // recipe.batch_size)
    precision = resolve(recipe.precision, fabric.device.type)
    key = _key(name, data, recipe, precision, torch.cuda.get_device_name(fabric.device))
    known = _read()
    if key not in known:
        eager = seconds_per_step(make(), data, recipe, fabric, compiled=False)[0]
        if steps * eager < WORTH_ASKING:
            return {"used": False, "why": "too short a run", "eager": eager}
        try:
            compiled, first = seconds_per_step(make(), data, recipe, fabric, compiled=True)
        except Exception as error:  # a compiler that fails here leaves the run as it was
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return {"used": False, "why": f"compiling failed: {reason}", "eager": eager}
        known[key] = asdict(Speeds(eager, compiled, first))
        _write(known)
    speeds = Speeds(**cast("dict[str, float]", known[key]))
    return {"used": speeds.pays(steps), "why": "measured", **asdict(speeds)}


# What a step's time does not depend on.
_ALIKE = (
    *("epochs", "lr", "schedule", "milestones", "warmup", "select", "weight_decay"),
    *("crop_pct", "normalise"),
)


def _key(name: str, data: Dataset, recipe: Recipe, precision: str, device: str) -> str:
    settings = {key: value for key, value in asdict(recipe).items() if key not in _ALIKE}
    shape = data.in_chans, data.img_size, len(data.classes), isinstance(data.train, Resident)
    content = json.dumps([settings, shape, precision, device, torch.__version__])
    return f"{name} {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resnet_variants" / "compile.json"


def _read() -> dict[str, object]:
    return read_json(_file(), remedy="delete it") if _file().is_file() else {}


def _write(known: dict[str, object]) -> None:
    _file().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(), to_json(known))
