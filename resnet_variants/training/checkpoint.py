"""The state of a training as one file: safetensors for tensors, JSON for the rest, no pickle."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from resnet_variants.files import atomic_file, damaged

Tensors = dict[str, Tensor]
Facts = dict[str, Any]
_KEY = "state"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Facts) -> None:
    """Write a checkpoint, whole or not at all; an error, such as a full disk, is the caller's."""
    with atomic_file(path) as file:
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            file,
            metadata={_KEY: json.dumps(facts, allow_nan=True)},
        )


def load(path: Path) -> tuple[Tensors, Facts]:
    """Read a checkpoint.

    Raises:
        ValueError: the file is damaged, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error


@dataclass
class Keeper:
    """Where a training is kept, how often, and whether it is to stop.

    Attributes:
        replayed: records that were restored rather than measured.
    """

    path: Path
    seconds: float = 60.0  # from one checkpoint to the next
    stop: Callable[[], bool] = lambda: False
    last: float = field(default_factory=time.monotonic)
    replayed: int = 0

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.last >= self.seconds

    def save(self, tensors: Mapping[str, Tensor], facts: Facts) -> None:
        """Save, and start counting anew."""
        save(self.path, tensors, facts)
        self.last = time.monotonic()

    def load(self) -> tuple[Tensors, Facts] | None:
        """What was saved, if anything."""
        return load(self.path) if self.path.is_file() else None


# --- parts of the state -----------------------------------------------------------------------


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors under names that begin with ``prefix``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Those of the tensors, and without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): tensor for n, tensor in tensors.items() if n.startswith(start)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, Facts]:
    """An optimizer's state dict in two: tensors by ``<parameter>.<name>``, and primitives."""
    content = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for parameter, entry in content["state"].items():
        for name, value in entry.items():
            place = tensors if isinstance(value, Tensor) else numbers
            place[f"{parameter}.{name}"] = value
    return tensors, {"numbers": numbers, "groups": content["param_groups"]}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, facts: Facts) -> None:
    """The way back."""
    state: dict[int, dict[str, Any]] = {}
    for place in (tensors, facts["numbers"]):
        for key, value in place.items():
            parameter, _, name = key.partition(".")
            state.setdefault(int(parameter), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": facts["groups"]})


def random_state() -> tuple[Tensors, Facts]:
    """The global random streams: torch's, each GPU's, NumPy's and Python's."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    name, keys, *rest = np.random.get_state()
    tensors["numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return tensors, {"numpy": [name, *rest], "python": random.getstate()}


def restore_random(tensors: Tensors, facts: Facts) -> None:
    """The way back."""
    torch.set_rng_state(tensors["torch"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{i}"], i)
    name, *rest = facts["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = facts["python"]
    random.setstate((version, tuple(internal), gauss))
