"""A run carried out in its own directory, on one device or several."""

from __future__ import annotations

import contextlib
import errno
import functools
import shutil
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import WORKER, Split, lost
from resnet_variants.models.card import save_pretrained
from resnet_variants.records.files import Json, StorageError, is_storage, writing
from resnet_variants.records.predictions import Predictions, write_predictions
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED, RunFolder
from resnet_variants.registry import UserError, one_line
from resnet_variants.sweeps.capacity import advice, out_of_memory
from resnet_variants.sweeps.estimate import bytes_of
from resnet_variants.sweeps.provenance import origin
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sinks import opened
from resnet_variants.sweeps.snapshots import Snapshots
from resnet_variants.training.augment import Normalise
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.device import Machine, determinism, make_fabric, peak_mb, reset_peak
from resnet_variants.training.evaluate import Score, evaluate
from resnet_variants.training.interrupt import Stop, die_with_parent, listening
from resnet_variants.training.trainer import DivergedError, EpochRecord, StoppedError, fit

Tell = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class Attempt:
    """A run, where it is kept and what computes it."""

    run: Run
    path: Path
    machine: Machine
    sinks: tuple[str, ...] = ()  # where each epoch's numbers go besides the folder
    origin: Json = field(default_factory=origin)

    def execute(
        self, data: Dataset, tell: Tell, stop: Stop, *, capture: bool = False
    ) -> Json | None:
        """Train, evaluate and record; the result, or ``None`` where it was asked to stop.

        With ``capture``, what is printed meanwhile goes to the run's ``log.txt``.

        An error inside the run becomes its result, ``failed`` with the traceback in ``log.txt``;
        a loss that is not finite becomes ``diverged``. A stopped run is kept as it is.

        Raises:
            StorageError: the directory cannot be written, or has no room; the run is left as it
                was saved last.
            ValueError: the directory holds a run with other settings.
        """
        folder, start = RunFolder(self.path), time.perf_counter()
        fabric = make_fabric(self.machine, self.run.recipe.precision)
        with writing(self.path):
            config = self.run.config(data, fabric, self.origin)
            folder.start(config | {"compile": {"used": self.machine.compile}})
            self._require_room(data)
        result: Json
        text = ""
        try:
            with folder.captured() if capture else contextlib.nullcontext():
                result = self._launch(data, fabric, _heard(tell), stop)
        except StoppedError:
            return None
        except _UnheardError as error:
            raise error.cause from None
        except DivergedError as error:
            text = str(error)
            result = {"status": DIVERGED, "error": text}
        except Exception as error:  # whatever the run died of is its result; the others go on
            self._excuse(error)
            text = traceback.format_exc()
            result = {"status": FAILED, "error": self._reason(error, data)}
        result.setdefault("seconds", time.perf_counter() - start)
        with writing(self.path):  # a full disk takes no word on what it has done
            if text:
                folder.log(text)
            folder.finish(result)
        return result

    def give_up(self, data: Dataset, reason: str, seconds: float) -> Json | None:
        """Record that nothing comes of it; the result, or ``None`` where another process has it.

        Raises:
            ValueError: the directory cannot be written.
        """
        folder = RunFolder(self.path)
        fabric = make_fabric(Machine(), self.run.recipe.precision)  # the one meant may be elsewhere
        result: Json = {"status": FAILED, "error": reason, "seconds": seconds}
        with writing(self.path), folder.claim(1.0) as mine:
            if not mine or folder.result():
                return folder.result()
            if not (self.path / "run.json").is_file():
                folder.start(self.run.config(data, fabric, self.origin))
            folder.log(reason)
            folder.finish(result)
        return result

    def _require_room(self, data: Dataset) -> None:
        """Refuse to train what could not be kept."""
        need, free = bytes_of(self.run, data), shutil.disk_usage(self.path).free
        if free < need:
            message = f"the run takes {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            raise OSError(errno.ENOSPC, message)

    def _excuse(self, error: Exception) -> None:
        """Raise a StorageError where the disk or the system failed: the next run would fail too."""
        with writing(self.path):
            self.path.stat()  # it may be gone, with the disk that it was on
        if isinstance(error, StorageError) or is_storage(error):
            raise StorageError(f"{str(self.path)!r}: {_in_words(error)}", field="out") from error

    def _launch(self, data: Dataset, fabric: Fabric, tell: Tell, stop: Stop) -> Json:
        if self.machine.devices == 1:
            return self.train_here(data, fabric, tell, stop)
        asked = torch.multiprocessing.get_context("spawn").RawValue("b", stop())
        stop.forward = lambda _: setattr(asked, "value", 1)
        with _relayed(tell) as queue:
            # Fabric looks for modules in arguments, and refuses frozen dataclasses on its way.
            work = functools.partial(
                _on_device, attempt=self, queue=queue, asked=asked, cores=torch.get_num_threads()
            )
            try:
                result = fabric.launch(cast(Any, work))
            except ProcessException as error:
                if not stop():
                    raise
                # A signal to all of them can reach one before it listens.
                raise StoppedError from error
            finally:
                stop.forward = lambda _: None
        if result is None:
            raise StoppedError
        return result

    def train_here(
        self, data: Dataset, fabric: Fabric, tell: Tell, stop: Callable[[], bool]
    ) -> Json:
        """This process's part; with several devices, the first writes the files.

        Raises:
            StoppedError, DivergedError: asked to, the state is saved; the loss is not finite.
        """
        run, folder, writes = self.run, RunFolder(self.path), fabric.is_global_zero
        data = run.prepared(data)
        checkpointer = Checkpointer(folder.checkpoint, self.machine.checkpoint_seconds, stop)
        records, peak_is_own = list[EpochRecord](), reset_peak(fabric.device)
        sinks = self.sinks if writes else ()
        snapshots = Snapshots(folder, run.recipe, wanted=self.machine.snapshots and writes)
        with determinism(run.recipe.deterministic), opened(sinks, run, folder.path) as log:
            model = snapshots.begin(run.build(data))
            for record in fit(
                model,
                data,
                run.recipe,
                seed=run.seed,
                fabric=fabric,
                checkpointer=checkpointer,
                compiled=folder.compiled,
            ):
                records.append(record)
                if writes:
                    folder.append_epoch(asdict(record))
                    if checkpointer.is_current(record.epoch):
                        snapshots.add(model, record.epoch)
                    if record.epoch > checkpointer.resumed_epoch:
                        folder.log(_line(record))
                        log(asdict(record), record.epoch)
                    tell(record)
            tested, predictions = self._tested(model, data, fabric)
            log(tested, run.recipe.epochs)
        if writes:
            facts = run.facts | {"Test accuracy": f"{tested['test_acc']:.4f}"}
            save_pretrained(model, folder.path, facts)
            write_predictions(folder.path, predictions)
        peak = peak_mb(fabric.device) if peak_is_own else None
        return {"status": DONE, **tested, **self._summary(records), "peak_memory_mb": peak}

    def _tested(self, model: nn.Module, data: Dataset, fabric: Fabric) -> tuple[Json, Predictions]:
        """The one time that the test split is read; the validation split once more."""
        normalise = Normalise.of(data, fabric.device)

        def score(split: Split) -> Score:
            with fabric.autocast():
                return evaluate(model, split.to(fabric.device), normalise, fabric=fabric, keep=True)

        test, val = score(data.test), score(data.val)
        assert test.logits is not None and val.logits is not None
        predictions = Predictions(
            run_id=self.run.id,
            split_hash=data.split_hash,
            classes=data.classes,
            test_logits=test.logits.numpy(),
            test_labels=data.test.labels.cpu().numpy(),
            val_logits=val.logits.numpy(),
            val_labels=data.val.labels.cpu().numpy(),
        )
        return {"test_acc": test.acc, "test_loss": test.loss, "n_test": test.n}, predictions

    def _summary(self, records: list[EpochRecord]) -> Json:
        """What the epochs come to; of the validation, the epoch whose weights were tested."""
        best = max(records, key=lambda record: record.val_acc)
        tested = best if self.run.recipe.select == "best" else records[-1]
        return {
            "val_acc": tested.val_acc,
            "train_loss": tested.train_loss,
            "train_acc": tested.train_acc,
            "best_epoch": best.epoch,
            "best_val_acc": best.val_acc,
            "seconds": sum(record.seconds for record in records),
            "images_per_second": statistics.median(r.images_per_second for r in records),
        }

    def _reason(self, error: Exception, data: Dataset) -> str:
        """One line on what a run died of; after running out of memory, with what would fit."""
        if isinstance(error, UserError):
            return str(error)
        if not out_of_memory(error):
            return _in_words(error)
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that filled it
        return advice(self.run, data, self.machine)


class _UnheardError(Exception):
    """Who is told of the epochs fails: no fault of the run, and no result of it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _heard(tell: Tell) -> Tell:
    def told(record: EpochRecord) -> None:
        try:
            tell(record)
        except Exception as error:
            raise _UnheardError(error) from error

    return told


def _line(record: EpochRecord) -> str:
    return " ".join(f"{key}={value:.5g}" for key, value in asdict(record).items())


# --- several devices --------------------------------------------------------------------------


def _in_words(error: Exception) -> str:
    kind, what = type(error).__name__, (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, ProcessRaisedException):  # its text is the other process's traceback
        name, _, what = what.partition(": ")
        kind = name.rpartition(".")[2]
    if WORKER in what:  # raised in whatever the trainer was doing when it ended
        return lost(what)
    what = one_line(what)
    return what if kind in (UserError.__name__, StorageError.__name__) else f"{kind}: {what}"


def _on_device(
    fabric: Fabric, *, attempt: Attempt, queue: Any, asked: Any, cores: int
) -> Json | None:
    """What each process runs; the first one's result is returned to whom launched them."""
    die_with_parent()
    own = max(1, cores // fabric.world_size)
    if fabric.device.type == "cpu":
        torch.set_num_threads(own)
    loading = replace(attempt.run.loading, workers=attempt.run.loading.decoders(own))
    data = replace(attempt.run, loading=loading).load()
    result: Json | None
    with listening(insist=False) as stop:
        try:
            result = attempt.train_here(
                data, fabric, queue.put, lambda: stop() or bool(asked.value)
            )
        except StoppedError:
            result = None
        except DivergedError as error:  # all processes come to it at the same step
            result = {"status": DIVERGED, "error": str(error)}
        # A process that ends while another still talks to it is now and then aborted.
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return result


@contextlib.contextmanager
def _relayed(tell: Tell) -> Iterator[Any]:
    """A queue whose records are told here while this process waits for the others."""
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def pass_on() -> None:
        while (record := queue.get()) is not None:
            tell(record)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.put(None)
        thread.join()
