"""Checkpoints: the trainer's state in one file, and when to write it."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from resnet_variants.records.files import atomic_file, damaged

State = dict[str, Any]
_FORMAT = "resnet_variants checkpoint 1"


def save(path: Path, state: State) -> None:
    """Write a state of tensors, numbers, texts, lists, tuples and dictionaries.

    The file is replaced as a whole or not at all.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    content = io.BytesIO()  # torch itself says of a full disk only that a position is wrong
    torch.save({"format": _FORMAT, "state": state}, content)
    with atomic_file(path) as file:
        file.write_bytes(content.getbuffer())


def load(path: Path) -> State:
    """Read a state, its tensors on the CPU. No code in the file is run.

    Raises:
        ValueError: the file is damaged, or another kind of file.
    """
    try:
        if not path.is_file():  # reading a pipe would never end
            raise ValueError("it is no regular file")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("it is no checkpoint of this version")
    except UnpicklingError as error:  # its text recommends to load the file with code and all
        raise damaged(path, "it holds more than tensors, numbers and texts") from error
    except Exception as error:  # torch has no error of its own for a damaged file
        raise damaged(path, str(error).partition("\n")[0]) from error
    return content["state"]


@dataclass
class Checkpointer:
    """Where a training is saved, how often, and whether it is asked to stop.

    Attributes:
        every_steps: steps between two records, besides those of epochs; 0 for none.
        resumed: epochs, or parts of one, that were trained when the training was resumed.
    """

    path: Path
    seconds: float = 60.0  # between two checkpoints
    stop: Callable[[], bool] = lambda: False
    saved_at: float = field(default_factory=time.monotonic)
    every_steps: int = 0
    resumed: float = 0.0

    def is_due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self.saved_at >= self.seconds

    def save(self, state: State, *, writes: bool = True) -> None:
        """Save the state, unless another process ``writes`` it, and wait anew for the next."""
        if writes:
            save(self.path, state)
        self.saved_at = time.monotonic()

    def load(self) -> State | None:
        """The saved state, or ``None`` if there is none."""
        return load(self.path) if self.path.is_file() else None


def gathered(own: State, world: int) -> list[State]:
    """What each of ``world`` processes gives, by rank; tensors are on the CPU."""
    if world == 1:
        return [own]
    every: list[Any] = [None] * world
    torch.distributed.all_gather_object(every, own)
    return every


def random_state(device: torch.device) -> State:
    """The states of the global random streams: torch's, the GPU's, NumPy's and Python's."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_random(state: State, device: torch.device) -> None:
    """Set the global random streams to what ``random_state`` returned."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
