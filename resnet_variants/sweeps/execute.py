"""Executes one run in its own folder, on one device or several."""

from __future__ import annotations

import contextlib
import errno
import functools
import shutil
import statistics
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing.spawn import ProcessException, ProcessRaisedException

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import WORKER, Split, lost
from resnet_variants.models.card import save_pretrained
from resnet_variants.plugins import Plugin, enter_all, loaded
from resnet_variants.records.files import Json, StorageError, atomic_file, is_storage, writing
from resnet_variants.records.predictions import Predictions, write_predictions
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED, RunFolder
from resnet_variants.registry import UserError, one_line
from resnet_variants.sweeps.estimate import bytes_of
from resnet_variants.sweeps.provenance import origin
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sinks import Log, opened
from resnet_variants.training.augment import Normalise
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.device import Machine, determinism, make_fabric, peak_mb, reset_peak
from resnet_variants.training.evaluate import Score, evaluate
from resnet_variants.training.gradients import Gradients
from resnet_variants.training.interrupt import Stop, die_with_parent, listening
from resnet_variants.training.trainer import (
    DivergedError,
    EpochRecord,
    Record,
    ReplayedRecord,
    StepRecord,
    StoppedError,
    fit,
)

_POLL_SECONDS = 0.1  # between two checks whether the processes of a run have ended


@dataclass(frozen=True)
class Job:
    """A run to execute: where it is kept and what computes it."""

    run: Run
    path: Path
    machine: Machine
    sinks: tuple[str, ...] = ()  # where each epoch's numbers are sent besides the folder
    origin: Json = field(default_factory=origin)
    plugins: tuple[Plugin, ...] = field(default_factory=loaded)  # which other processes lack


@dataclass(frozen=True)
class RunStatus:
    """How the execution of a run ended.

    ended: there is a result, by this execution or by another command meanwhile.
    busy: another process has the run.
    stopped: the run was asked to stop and saved its state.
    lost: the process that computed the run has ended; ``reason`` says how.
    refused: the run could not begin; ``reason`` says why.
    halted: a disk or a limit of the system prevents this run and would prevent all others;
        ``reason`` says which. The run is left as it was saved.
    ``seconds`` is the time of this execution, from the claim of the folder on; its share of the
    steps that are common to several runs.
    """

    kind: Literal["ended", "busy", "stopped", "lost", "refused", "halted"]
    result: Json | None = None
    reason: str = ""
    seconds: float = 0.0


Message = Record | RunStatus  # of a run: its records, then how it ended


def execute_run(
    job: Job,
    data: Dataset,
    stop: Stop,
    *,
    capture: bool = False,
    gradients: Gradients | None = None,
) -> Iterator[Message]:
    """Train, test and record a run in this process: its records, then how it ended.

    With ``capture``, what is printed meanwhile is written to the run's ``log.txt``. The
    ``gradients`` are those of this run alone if not given.
    """
    gradients = gradients or Gradients()
    folder, status, start = RunFolder(job.path), RunStatus("busy"), gradients.clock()
    try:
        enter_all(job.plugins)
        with folder.claim() as mine:
            if mine:
                # Another command may have finished the run since it was submitted.
                result = folder.result()
                if not result:
                    result = yield from _recorded(job, data, stop, gradients, capture=capture)
                seconds = gradients.clock() - start
                status = RunStatus("ended" if result else "stopped", result, seconds=seconds)
    except StorageError as error:
        status = RunStatus("halted", reason=str(error))
    except UserError as error:
        status = RunStatus("refused", reason=str(error))
    yield status


def _recorded(
    job: Job, data: Dataset, stop: Stop, gradients: Gradients, *, capture: bool
) -> Generator[Record, None, Json | None]:
    """Train and write the result; ``None`` where the run was asked to stop.

    An error inside the run is its result: ``failed``, with the traceback in ``log.txt``. A loss
    that is not finite is the result ``diverged``.

    Raises:
        StorageError: the folder cannot be written, or has no room; the run is left as it was
            saved last.
        ValueError: the folder holds a run with other settings.
    """
    folder, start, text = RunFolder(job.path), gradients.clock(), ""
    fabric = _started(job, data, gradients)
    if job.machine.devices == 1:
        messages = _train(job, data, fabric, stop, gradients)
    else:
        messages = _train_on_devices(job, data, fabric, stop)
    result: Json | None = None
    try:
        with folder.captured() if capture else contextlib.nullcontext():
            for message in messages:
                if isinstance(message, dict):
                    result = message
                else:
                    yield message
    except StoppedError:
        return None
    except DivergedError as error:
        text = str(error)
        result = {"status": DIVERGED, "error": text}
    except Exception as error:  # a run's error is its result, so that the other runs continue
        _raise_storage_error(job, error)
        text = traceback.format_exc()
        result = {"status": FAILED, "error": _reason(job, error, gradients)}
    assert result is not None
    result.setdefault("seconds", gradients.clock() - start)
    with writing(job.path):  # on a full disk, the run must not count as finished
        if text:
            folder.log(text)
        folder.finish(result)
    return result


def _train(
    job: Job, data: Dataset, fabric: Fabric, stop: Callable[[], bool], gradients: Gradients
) -> Iterator[Record | Json]:
    """Train and test in this process: the records, then the result.

    Of several processes, each computes its part and the first one writes the files. Seeds computed
    as one share the memory, of which each has no peak of its own.

    Raises:
        StoppedError: the run was asked to stop; its state is saved.
        DivergedError: a loss is not finite.
    """
    run, folder, writes = job.run, RunFolder(job.path), fabric.is_global_zero
    data, machine, records = run.prepared(data), job.machine, list[EpochRecord]()
    checkpointer = Checkpointer(
        folder.checkpoint, machine.checkpoint_seconds, stop, every_steps=machine.every_steps
    )
    peak_is_own = gradients.size == 1 and reset_peak(fabric.device)
    sinks = job.sinks if writes else ()
    with determinism(run.recipe.deterministic), opened(sinks, run, folder.path) as log:
        model = run.build(data)
        if writes and run.recipe.weights:  # else the seed gives the initial weights again
            _keep_snapshot(job, model, 0)
        for record in fit(
            model,
            data,
            run.recipe,
            seed=run.seed,
            fabric=fabric,
            checkpointer=checkpointer,
            gradients=gradients,
        ):
            is_new = record.epochs > checkpointer.resumed
            if writes:
                _write(folder, record, log if is_new else None)
            if isinstance(record, EpochRecord):
                records.append(record)
                if writes and record.epoch >= checkpointer.resumed:  # else the weights are later's
                    _keep_snapshot(job, model, record.epoch)
                yield record if is_new else ReplayedRecord(**asdict(record))
            elif is_new:
                yield record
        tested, predictions = _tested(run, model, data, fabric)
        log(tested, run.recipe.epochs)
    if writes:
        facts = run.facts | {"Test accuracy": f"{tested['test_acc']:.4f}"}
        save_pretrained(model, folder.path, facts)
        write_predictions(folder.path, predictions)
    peak = peak_mb(fabric.device) if peak_is_own else None
    yield {"status": DONE, **tested, **_summary(run, records), "peak_memory_mb": peak}


def record_failure(job: Job, data: Dataset, reason: str, seconds: float) -> Json | None:
    """Write that a run has failed; the result, or ``None`` where another process has the run.

    Raises:
        ValueError: the folder cannot be written.
    """
    folder = RunFolder(job.path)
    # The device that the run is meant for may be on another machine.
    fabric = make_fabric(Machine(), job.run.recipe.precision)
    result: Json = {"status": FAILED, "error": reason, "seconds": seconds}
    with writing(job.path), folder.claim(1.0) as mine:
        if not mine or folder.result():
            return folder.result()
        if not (job.path / "run.json").is_file():
            folder.start(job.run.config(data, fabric, job.origin))
        folder.log(reason)
        folder.finish(result)
    return result


# --- parts of a run ---------------------------------------------------------------------------


def _started(job: Job, data: Dataset, gradients: Gradients) -> Fabric:
    """Write the settings of a run, for whose files there must be room; what it is computed on.

    Raises:
        ValueError: the run was begun with ``torch.compile``, and seeds are computed as one.
    """
    folder, fabric = RunFolder(job.path), make_fabric(job.machine, job.run.recipe.precision)
    how: Json = {"used": job.machine.compile}
    if gradients.size > 1:
        how["fused_seeds"] = gradients.size
        if folder.unfinished() and folder.compiled:
            message = (
                f"{job.path} was begun with --compile: leave out --fuse-seeds, or give --fresh"
            )
            raise UserError(message, field="fuse_seeds")
    with writing(job.path):
        folder.start(job.run.config(data, fabric, job.origin) | {"compile": how})
        _require_room(job, data)
    gradients.compiled = folder.compiled  # as it was begun
    return fabric


def _require_room(job: Job, data: Dataset) -> None:
    """Refuse a run whose files would not fit on the disk."""
    need, free = bytes_of(job.run, data), shutil.disk_usage(job.path).free
    if free < need:
        message = f"the run takes {need / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
        raise OSError(errno.ENOSPC, message)


def _keep_snapshot(job: Job, model: nn.Module, epoch: int) -> None:
    """Keep the weights after epochs 0, 1, 2, 4, 8 and so on but the last, if asked for."""
    wanted = epoch & (epoch - 1) == 0 and epoch < job.run.recipe.epochs
    if job.machine.snapshots and wanted:
        file = RunFolder(job.path).snapshot(epoch)
        file.parent.mkdir(exist_ok=True)
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        with atomic_file(file) as temporary:
            save_file(state, temporary)


def _write(folder: RunFolder, record: Record, log: Log | None) -> None:
    """Add a record to the run's files; one of an epoch to its log too, if there is one."""
    numbers = asdict(record)
    if isinstance(record, StepRecord):
        folder.append("steps", numbers)
        return
    folder.append("epochs", numbers)
    if log:
        folder.log(" ".join(f"{key}={value:.5g}" for key, value in numbers.items()))
        log(numbers, record.epoch)


def _tested(run: Run, model: nn.Module, data: Dataset, fabric: Fabric) -> tuple[Json, Predictions]:
    """Score the final network on the test split, read here alone, and on the validation split."""
    normalise = Normalise.of(data, fabric.device)

    def score(split: Split) -> Score:
        with fabric.autocast():
            return evaluate(model, split.to(fabric.device), normalise, fabric=fabric, keep=True)

    test, val = score(data.test), score(data.val)
    assert test.logits is not None and val.logits is not None
    predictions = Predictions(
        run_id=run.id,
        split_hash=data.split_hash,
        classes=data.classes,
        test_logits=test.logits.numpy(),
        test_labels=data.test.labels.cpu().numpy(),
        val_logits=val.logits.numpy(),
        val_labels=data.val.labels.cpu().numpy(),
    )
    return {"test_acc": test.acc, "test_loss": test.loss, "n_test": test.n}, predictions


def _summary(run: Run, records: list[EpochRecord]) -> Json:
    """A result's numbers from its epochs; validation is that of the epoch whose weights count."""
    best = max(records, key=lambda record: record.val_acc)
    tested = best if run.recipe.select == "best" else records[-1]
    return {
        "val_acc": tested.val_acc,
        "train_loss": tested.train_loss,
        "train_acc": tested.train_acc,
        "best_epoch": best.epoch,
        "best_val_acc": best.val_acc,
        "seconds": sum(record.seconds for record in records),
        "images_per_second": statistics.median(r.images_per_second for r in records),
    }


# --- errors -----------------------------------------------------------------------------------


def _raise_storage_error(job: Job, error: Exception) -> None:
    """Raise a StorageError where the disk or the system failed: the next run would fail too."""
    with writing(job.path):
        job.path.stat()  # the folder may be gone, with its disk
    if isinstance(error, StorageError) or is_storage(error):
        raise StorageError(f"{str(job.path)!r}: {_error_line(error)}", field="out") from error


def _reason(job: Job, error: Exception, gradients: Gradients) -> str:
    """Why a run failed, in one line; with advice where memory ran out."""
    if isinstance(error, UserError):
        return str(error)
    if not out_of_memory(error):
        return _error_line(error)
    settings, advice = f"batch_size {job.run.recipe.batch_size}", "a smaller --batch-size"
    if gradients.size > 1:
        settings += f" and fuse_seeds {gradients.size}"
        advice = "a smaller --fuse-seeds"
    return f"out of memory with {settings}: give {advice} or a larger --accumulate"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch has an error type of its own for GPUs only."""
    words = ("DefaultCPUAllocator", "out of memory", "MemoryError")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError | ProcessRaisedException)
        and any(word in str(error) for word in words)
    )


def _error_line(error: Exception) -> str:
    """Type and last line of an error."""
    kind, what = type(error).__name__, (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, ProcessRaisedException):  # its text is the other process's traceback
        name, _, what = what.partition(": ")
        kind = name.rpartition(".")[2]
    if WORKER in what:  # raised in whatever the trainer did when a decoding process ended
        return lost(what)
    what = one_line(what)
    return what if kind in (UserError.__name__, StorageError.__name__) else f"{kind}: {what}"


# --- several devices --------------------------------------------------------------------------


def _train_on_devices(
    job: Job, data: Dataset, fabric: Fabric, stop: Stop
) -> Iterator[Record | Json]:
    """Train in one process per device: what the first of them sends.

    Raises:
        StoppedError: the run was asked to stop; its state is saved.
    """
    context = torch.multiprocessing.get_context("spawn")
    asked = context.RawValue("b", stop())
    receiver, sender = context.Pipe(duplex=False)
    stop.forward = lambda _: setattr(asked, "value", 1)
    # Fabric looks for modules in arguments, and refuses frozen dataclasses on its way.
    work = functools.partial(
        _on_device, job=job, sender=sender, asked=asked, cores=torch.get_num_threads()
    )
    result = False
    with ThreadPoolExecutor(1) as thread:  # it waits for the processes, this one for their messages
        launched = thread.submit(fabric.launch, cast(Any, work))
        try:
            while not launched.done() or receiver.poll():
                asked.value = stop()  # it may have been asked before `forward` was set
                if receiver.poll(_POLL_SECONDS):
                    message = receiver.recv()
                    result = isinstance(message, dict)
                    yield message
            launched.result()
        except ProcessException as error:
            if not stop():
                raise
            # A signal to all processes can reach one before it listens.
            raise StoppedError from error
        finally:
            asked.value = 1  # where nobody waits for the run any longer
            stop.forward = lambda _: None
            _drain(receiver, launched)
    if not result:
        raise StoppedError


def _drain(receiver: Any, launched: Future[Any]) -> None:
    """Read until the processes have ended: one that finds the pipe full would wait for ever."""
    while not launched.done():
        if receiver.poll(_POLL_SECONDS):
            receiver.recv()


def _on_device(fabric: Fabric, *, job: Job, sender: Any, asked: Any, cores: int) -> None:
    """Train in one of several processes; the first sends its records, then its result."""
    die_with_parent()
    enter_all(job.plugins)
    own = max(1, cores // fabric.world_size)
    if fabric.device.type == "cpu":
        torch.set_num_threads(own)
    loading = replace(job.run.loading, workers=job.run.loading.decoders(own))
    data = replace(job.run, loading=loading).load()
    send = sender.send if fabric.is_global_zero else lambda _: None
    with listening(insist=False) as stop:
        gradients = Gradients(compiled=RunFolder(job.path).compiled)
        try:
            for message in _train(
                job, data, fabric, lambda: stop() or bool(asked.value), gradients
            ):
                send(message)
        except StoppedError:
            pass
        except DivergedError as error:  # all processes come to it at the same step
            send({"status": DIVERGED, "error": str(error)})
        # A process that ends while another still talks to it is now and then aborted.
        fabric.barrier()
        torch.distributed.destroy_process_group()
