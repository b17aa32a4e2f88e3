"""What a node of a Ray cluster does: one run at a time, in the results folder or one of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from resnet_variants.data.dataset import Dataset
from resnet_variants.records.files import atomic_file, writing
from resnet_variants.records.run_folder import is_ours
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Outcome, carry_out, refusal
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import PATIENCE
from resnet_variants.training.interrupt import Stop, listening
from resnet_variants.training.trainer import EpochRecord

Files = Mapping[str, bytes]  # of a run, by path in its folder

_LOOK_SECONDS = 1.0  # between two looks at whether to stop


def packed(folder: Path) -> Files:
    """The files of a run, whether finished or not."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpack(files: Files, folder: Path) -> None:
    """Put a run's files into its folder, the result last, and no older one of ours beside them.

    Raises:
        ValueError: a name leads out of the folder.
    """
    for name in sorted(files, key=lambda name: name == "result.json"):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"a node sent the file {name!r}, which leads out of {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(files[name])
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and name.as_posix() not in files and is_ours(name.parts[0]):
            path.unlink()


class Ear:
    """Where the nodes' records go, and where they ask whether to stop."""

    def __init__(self) -> None:
        self.records: list[tuple[Run, EpochRecord]] = []
        self.begun: set[str] = set()
        self.over = False

    def begin(self, run: Run) -> None:
        """A node begins with a run."""
        self.begun.add(run.id)

    def hear(self, run: Run, record: EpochRecord) -> None:
        """An epoch of a run is over."""
        self.records.append((run, record))

    def heard(self) -> list[tuple[Run, EpochRecord]]:
        """What was heard since the last time."""
        records, self.records = self.records, []
        return records

    def stop(self) -> set[str]:
        """Let all attempts stop; the ids of those that have begun."""
        self.over = True
        return self.begun

    def stopped(self) -> bool:
        """Whether they shall."""
        return self.over


def exists(path: Path) -> bool:
    """Whether the node sees a file."""
    return path.exists()


def work(
    attempt: Attempt, data: Dataset, ear: Any, threads: int, token: Path, files: Files | None
) -> tuple[Outcome, Files]:
    """One attempt on a node; the run's files where the head does not see them."""
    import ray

    torch.set_num_threads(threads)
    data = data.decoded_by(attempt.run.loading.decoders(threads))
    ray.get(ear.begin.remote(attempt.run), timeout=PATIENCE)

    def tell(record: EpochRecord) -> None:
        ray.get(ear.hear.remote(attempt.run, record), timeout=PATIENCE)

    with listening(insist=False) as stop, _asking(ray, ear, stop):
        if files is None and token.exists():
            return carry_out(attempt, data, tell, stop, capture=True), {}
        with TemporaryDirectory() as scratch:
            here = replace(attempt, path=Path(scratch) / attempt.path.name)
            try:
                with writing(here.path):
                    unpack(files or {}, here.path)
            except UserError as error:
                return refusal(attempt, error), {}
            outcome = carry_out(here, data, tell, stop, capture=True)
            return replace(outcome, attempt=attempt), packed(here.path)


@contextlib.contextmanager
def _asking(ray: Any, ear: Any, stop: Stop) -> Iterator[None]:
    """Look now and then whether the head wants this process to stop."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(_LOOK_SECONDS) and not stop():
            try:
                asked = ray.get(ear.stopped.remote(), timeout=PATIENCE)
            except ray.exceptions.RayError:  # nobody is left to take the result
                asked = True
            if asked:
                stop.signal = signal.SIGTERM
                stop.forward(signal.SIGTERM)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
