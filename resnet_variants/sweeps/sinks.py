"""Sends a run's numbers to TensorBoard, W&B or Trackio, where asked for.

A sink has ``log(numbers, step)``; the step is the epoch. To add a sink, register its opener,
and name it in ``settings.Sink``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import Registry, UserError, refuse
from resnet_variants.sweeps.run import Run

Log = Callable[[Mapping[str, object], int], None]


class Sink(Protocol):
    """Takes a run's numbers."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Take the numbers of an epoch."""
        ...

    def close(self) -> None:
        """No numbers follow."""
        ...


SINKS: Registry[Callable[[Run, Path], Sink]] = Registry("sink")


@contextlib.contextmanager
def opened(names: Sequence[str], run: Run, path: Path) -> Iterator[Log]:
    """One function that logs to all the named sinks, which are closed at the end of the block.

    A sink that fails is left out from then on, and ``log.txt`` says why: the run continues.
    """
    sinks: dict[str, Sink] = {}

    def attempt(name: str, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception as error:
            sinks.pop(name, None)
            RunFolder(path).log(f"nothing more goes to {name}: {type(error).__name__}: {error}")

    def log(numbers: Mapping[str, object], step: int) -> None:
        plain = {key: float(n) for key, n in numbers.items() if isinstance(n, int | float)}
        for name, sink in list(sinks.items()):
            attempt(name, functools.partial(sink.log, plain, step))

    for name in names:
        attempt(name, lambda name=name: sinks.update({name: SINKS[name](run, path)}))
    try:
        yield log
    finally:
        for name, sink in list(sinks.items()):
            attempt(name, sink.close)


def check_sinks(names: Sequence[str], *, fused: bool = False) -> None:
    """Refuse a sink that would fail, before anything is trained.

    Args:
        names: of the sinks.
        fused: whether a process trains several runs at a time.

    Raises:
        ValueError: says which, and what to install.
    """
    for name in names:
        if name not in SINKS:
            refuse("sink", name, SINKS, field="log")
        if list(names).count(name) > 1:
            raise UserError(f"{name} is named twice", field="log")
        if fused and name in _ONE_RUN:
            message = f"{name} takes one run of a process at a time: leave out --fuse-seeds or it"
            raise UserError(message, field="log")
        if name in _MODULES:
            _import(_MODULES[name])


_MODULES = {
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
}
_ONE_RUN = ("wandb", "trackio")


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.rpartition(".")[2]
        message = f"{package!r} is not installed ({error}): pip install {package}"
        raise UserError(message, field="log") from error


@SINKS.register("tensorboard")
class _TensorBoard:
    """TensorBoard's event files in the run's folder: ``tensorboard --logdir results/NAME/runs``."""

    def __init__(self, run: Run, path: Path) -> None:
        self.path = path / "tensorboard"
        self.writer: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        if self.writer is None:  # drop what was logged of this epoch and later ones before
            module = _import(_MODULES["tensorboard"])
            self.writer = module.SummaryWriter(str(self.path), purge_step=step)
        for key, number in numbers.items():
            self.writer.add_scalar(key, number, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


@SINKS.register("wandb")
def _wandb(run: Run, path: Path) -> Sink:
    """Weights & Biases, set up as its own variables say (``WANDB_MODE=offline``)."""
    # The same W&B run when a run continues; another when it starts again or in another folder.
    begun = f"{path.resolve()} {(path / 'run.json').stat().st_mtime_ns}"
    own = hashlib.sha256(begun.encode()).hexdigest()[:16]
    options = {"dir": str(path), "id": own, "resume": "allow"}
    return _Tracker(_import(_MODULES["wandb"]), run, options)


@SINKS.register("trackio")
def _trackio(run: Run, path: Path) -> Sink:
    """Trackio: W&B's interface, kept on this machine."""
    return _Tracker(_import(_MODULES["trackio"]), run, {"resume": "allow"})


class _Tracker:
    """A tracker with W&B's interface: ``init`` returns an object with ``log`` and ``finish``."""

    def __init__(self, module: Any, run: Run, options: Mapping[str, object]) -> None:
        config = {"seed": run.seed, "dataset": run.dataset}
        config |= asdict(run.variant) | asdict(run.recipe)
        self.run = module.init(
            project="resnet_variants", name=run.id, group=run.name, config=config, **options
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()
