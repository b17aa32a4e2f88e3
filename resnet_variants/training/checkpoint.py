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

from resnet_variants.records.files import atomic_file, damaged

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
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            if not isinstance(facts, dict):
                raise ValueError(f"{_KEY} is no JSON object")
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise damaged(path, error) from error


@dataclass
class Keeper:
    """Where a training is kept, how often, and whether it is to stop.

    Attributes:
        replayed: records that were restored rather than measured.
        stands_after: the epoch at whose end the training was taken up, 0 within one.
        val_logits: (N, classes) of the weights to be tested, where this process validated them.
    """

    path: Path
    seconds: float = 60.0  # from one checkpoint to the next
    stop: Callable[[], bool] = lambda: False
    last: float = field(default_factory=time.monotonic)
    replayed: int = 0
    stands_after: int = 0
    val_logits: Tensor | None = None

    def holds(self, epoch: int) -> bool:
        """Whether the network, as this epoch's record is given, has the weights after it."""
        return epoch > self.replayed or epoch == self.stands_after

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self.last >= self.seconds

    def save(self, tensors: Mapping[str, Tensor], facts: Facts, *, writes: bool = True) -> None:
        """Save, unless another process ``writes``, and start counting anew."""
        if writes:
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
    """An optimizer's state dict in two: tensors by ``<part>.<number>.<name>``, and primitives."""
    content = optimizer.state_dict()
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    parts = {"state": content["state"], "groups": dict(enumerate(content["param_groups"]))}
    for part, entries in parts.items():
        for number, entry in entries.items():
            for name, value in entry.items():
                place = tensors if isinstance(value, Tensor) else numbers
                place[f"{part}.{number}.{name}"] = value
    return tensors, numbers


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, facts: Facts) -> None:
    """The way back."""
    parts: dict[str, dict[int, dict[str, Any]]] = {"state": {}, "groups": {}}
    for key, value in (tensors | facts).items():
        part, number, name = key.split(".", 2)
        parts[part].setdefault(int(number), {})[name] = value
    groups = [parts["groups"][number] for number in sorted(parts["groups"])]
    optimizer.load_state_dict({"state": parts["state"], "param_groups": groups})
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In memory as the parameter is: another order of a sum gives other last bits.
                entry[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def random_state(device: torch.device) -> tuple[Tensors, Facts]:
    """The global random streams: torch's, the GPU's, NumPy's and Python's."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    name, keys, *rest = np.random.get_state()
    tensors["numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return tensors, {"numpy": [name, *rest], "python": random.getstate()}


def restore_random(tensors: Tensors, facts: Facts, device: torch.device) -> None:
    """The way back."""
    # Copies: torch reads a view from the start of what it is a view of.
    torch.set_rng_state(tensors["torch"].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"].clone(), device)
    name, *rest = facts["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = facts["python"]
    random.setstate((version, tuple(internal), gauss))
