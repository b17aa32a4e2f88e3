"""What a run can die of is its result in one line, and the runs after it go on."""

import dataclasses
import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from small import CPU, digits_run, execute, sweep
from torch.multiprocessing.spawn import ProcessRaisedException

from resnet_variants.models.variant import Variant
from resnet_variants.records.files import is_storage, to_json
from resnet_variants.records.results_folder import read_runs
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Workers
from resnet_variants.sweeps.execute import Job, execute_run, out_of_memory
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import Options
from resnet_variants.training import checkpoint, trainer
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.trainer import Trainer


def swept_alone(run, out, machine=CPU, seeds=2):
    """An experiment of seeds of one run; statuses and errors by seed."""
    experiment = Experiment(name="x", variants=(run.variant,), seeds=seeds, recipe=run.recipe)
    complete = sweep(experiment, out, Options(machine=machine))
    frame = read_runs(out)
    assert complete == (set(frame["status"]) == {DONE})
    return frame["status"].tolist(), frame["error"].tolist()


# --- divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["post", "preact"])
def test_a_training_that_diverges_says_where_and_keeps_no_model(tmp_path, order):
    run = digits_run(order=order, lr=1e12, warmup=0.0)
    result = execute(run, tmp_path / "run", Machine(device="cpu", checkpoint_seconds=0))
    assert result["status"] == DIVERGED
    pattern = r"the (?:loss|gradient) is not finite at step (\d) \(epoch (\d)\) at lr (\S+); "
    step, epoch, lr = re.match(pattern, result["error"]).groups()
    assert int(epoch) == (1 if int(step) <= 4 else 2)
    assert 1e11 < float(lr) <= 1e12
    assert re.search(r"last finite gradient norm [\d.e+]+$", result["error"])
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {
        *("run.json", "result.json", "log.txt", "epochs.jsonl"),
        "checkpoint.pt",  # of a step before
    }
    assert result["error"] in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(to_json(result))


def test_the_rate_it_diverged_at_is_that_of_the_step_whatever_was_set_since(tmp_path):
    # One look at the losses in an epoch of four steps, after the last.
    run = digits_run(lr=1e30, schedule="onecycle", warmup=0.5, epochs=1)
    error = execute(run, tmp_path / "run")["error"]
    step, lr = re.search(r"at step (\d) .* at lr (\S+);", error).groups()
    # The cycle rises from 4e28 along half a cosine: at the second step it is two thirds through.
    rates = {"1": 4e28, "2": 7.6e29}
    assert step in rates
    assert float(lr) == pytest.approx(rates[step], rel=0.01)


def test_after_a_run_that_diverges_the_next_is_trained(tmp_path, monkeypatch):
    class Bursts(Trainer):
        def _size(self):
            if self.seed == 0 and self.epoch == 2:
                torch.nn.init.constant_(self.model.fc.weight, float("inf"))
            return super()._size()

    monkeypatch.setattr(trainer, "Trainer", Bursts)
    statuses, errors = swept_alone(digits_run(), tmp_path)
    assert statuses == [DIVERGED, DONE]
    assert errors[0].startswith("the loss is not finite at step 5 (epoch 2) at lr ")
    assert errors[1] == ""


def test_a_failed_run_that_is_retried_goes_on_where_it_was_saved(tmp_path, monkeypatch):
    class Stumbles(Trainer):
        stumbled = False

        def _size(self):
            if self.epoch == 2 and not Stumbles.stumbled:
                Stumbles.stumbled = True
                raise RuntimeError("a stumble")
            return super()._size()

    run, eager = digits_run(), Machine(device="cpu", checkpoint_seconds=0)
    expected = execute(run, tmp_path / "undisturbed", eager)
    monkeypatch.setattr(trainer, "Trainer", Stumbles)
    folder, out = RunFolder(tmp_path / "runs" / run.id), tmp_path
    assert swept_alone(run, out, eager, seeds=1)[0] == [FAILED]
    assert folder.checkpoint.exists()
    experiment = Experiment(name="x", variants=(run.variant,), seeds=1, recipe=run.recipe)
    assert sweep(experiment, out, Options(machine=eager, retry_failed=True))
    assert "continued" in (folder.path / "log.txt").read_text()
    assert folder.result()["test_loss"] == expected["test_loss"]
    assert not folder.checkpoint.exists()


# --- memory -----------------------------------------------------------------------------------

NO_MEMORY = "out of memory with batch_size {}: give a smaller --batch-size or a larger --accumulate"


def test_after_a_run_out_of_memory_the_next_is_trained(tmp_path, monkeypatch):
    class Narrow(Trainer):
        def _backward(self, images, labels, *, key):
            if self.seed == 0:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nX")
            return super()._backward(images, labels, key=key)

    monkeypatch.setattr(trainer, "Trainer", Narrow)
    statuses, errors = swept_alone(digits_run(), tmp_path)
    assert statuses == [FAILED, DONE]
    assert errors[0] == NO_MEMORY.format(256)
    (log,) = (tmp_path / "runs").glob("*s0/log.txt")
    assert "OutOfMemoryError: CUDA out of memory" in log.read_text()


def test_what_counts_as_out_of_memory():
    text = "\n\n-- Process 1 terminated with the following error:\nTraceback ...\n"
    for error in (
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
        ProcessRaisedException(f"{text}torch.OutOfMemoryError: CUDA out of memory.", 1, 2),
        ProcessRaisedException(f"{text}MemoryError\n", 1, 2),
    ):
        assert out_of_memory(error), error
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ProcessRaisedException(f"{text}RuntimeError: shapes\n", 1, 2),
        OSError(errno.ENOSPC, "No space left on device"),
    ):
        assert not out_of_memory(error), error


def executed_in_little_memory(run, path, mb):
    """Execute a run in a process that may take so much more than it has by then."""
    data = run.load()
    status = Path("/proc/self/status").read_text()
    now = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + mb * 2**20, resource.RLIM_INFINITY))
    list(execute_run(Job(run, path, CPU), data, Stop()))


def test_a_machine_out_of_memory_fails_in_one_line_that_helps(tmp_path):
    run = dataclasses.replace(digits_run(batch_size=1024, epochs=1), img_size=48)
    # A process of its own: libraries that were refused memory may not work any more.
    spawned = multiprocessing.get_context("spawn")
    process = spawned.Process(target=executed_in_little_memory, args=(run, tmp_path / "run", 1000))
    process.start()
    process.join()
    assert process.exitcode == 0
    result = RunFolder(tmp_path / "run").result()
    assert result["status"] == FAILED
    assert result["error"] == NO_MEMORY.format(1024)
    assert not (tmp_path / "run" / "model.safetensors").exists()


# --- what is no fault of a run ----------------------------------------------------------------


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


EAGER = Machine(device="cpu", checkpoint_seconds=0)


def swept(out, engine="inline", seeds=2):
    """A sweep of two epochs; the processes of the engine local take up what is patched by name."""
    run = digits_run()
    experiment = Experiment(name="x", variants=(run.variant,), seeds=seeds, recipe=run.recipe)
    workers = Workers(engine=engine, **({"jobs": 1} if engine == "local" else {}))
    return sweep(experiment, out, Options(machine=EAGER, workers=workers))


def test_a_full_disk_stops_the_sweep_and_the_same_command_continues(tmp_path, monkeypatch):
    saved, save = [], checkpoint.save

    def once(*args):
        if saved:
            no_space()
        saved.append(save(*args))

    monkeypatch.setattr(checkpoint, "save", once)
    with pytest.raises(UserError, match="No space left on device; when that is mended, the same"):
        swept(tmp_path)
    (path,) = (tmp_path / "runs").iterdir()  # the second seed was not begun
    assert {file.name for file in path.iterdir()} >= {"run.json", "checkpoint.pt"}
    assert not (path / "result.json").exists()
    monkeypatch.undo()
    assert swept(tmp_path)
    assert "continued" in (path / "log.txt").read_text()


class Full(Run):
    """A run whose second seed finds no room for its network; others take their time."""

    def build(self, data):
        if self.seed == 1:
            give_up = time.monotonic() + 60
            while (
                not list(Path(os.environ["RUNS"]).glob("*s0/run.json"))
                and time.monotonic() < give_up
            ):
                time.sleep(0.05)
            no_space()
        return super().build(data)


def test_an_obstacle_to_one_worker_lets_the_others_save_their_state(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_variants.sweeps.experiment.Run", Full)
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    run = digits_run(epochs=500)
    experiment = Experiment(name="x", variants=(run.variant,), seeds=3, recipe=run.recipe)
    options = Options(machine=EAGER, workers=Workers(engine="local", jobs=2, cpus_per_run=1))
    with pytest.raises(UserError, match="No space left on device"):
        sweep(experiment, tmp_path, options)
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert not list((tmp_path / "runs").glob(".*"))
    assert {path.name[-2:] for path in (tmp_path / "runs").iterdir()} == {"s0", "s1"}


def test_a_file_that_cannot_grow_stops_the_sweep(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"run': (OSError: )?.*File too large"):
            execute(digits_run(), tmp_path / "run", EAGER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {"run.json", "log.txt"}


def test_a_run_without_room_for_its_network_is_not_trained(tmp_path, monkeypatch):
    room = shutil.disk_usage(tmp_path)._replace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(UserError, match=r"the run takes 0\.\d MB, 0\.3 MB are free"):
        swept(tmp_path)
    assert not list(tmp_path.glob("runs/*/epochs.jsonl"))


def test_a_folder_that_is_lost_meanwhile_stops_the_sweep(tmp_path):
    run = digits_run()
    with pytest.raises(UserError, match=r"run' cannot be written: No such file or directory"):
        execute(run, tmp_path / "run", EAGER, hear=lambda _: shutil.rmtree(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_became_read_only_stops_the_sweep(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    run = digits_run()
    job = Job(run, tmp_path / "runs" / run.id, EAGER)
    for status in execute_run(job, run.load(), Stop()):  # noqa: B007
        monkeypatch.setattr(Path, "unlink", read_only)
        monkeypatch.setattr(checkpoint, "save", read_only)
    monkeypatch.undo()
    assert (status.kind, status.result) == ("halted", None)
    assert status.reason.endswith("cannot be written: Read-only file system")
    assert RunFolder(job.path).result() is None
    assert not RunFolder(job.path).claimed


@pytest.mark.parametrize(
    ("error", "storage"),
    [
        (OSError(errno.EMFILE, "Too many open files"), True),
        (RuntimeError("unable to write to file </torch_1>: No space left on device (28)"), True),
        (ProcessRaisedException("Traceback\nOSError: [Errno 122] Disk quota exceeded", 0, 1), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_an_obstacle_to_all_runs(error, storage):
    assert is_storage(error) == storage


# --- other errors -----------------------------------------------------------------------------


def test_a_disk_too_full_for_the_result_ends_the_command_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_variants.records.run_folder.RunFolder.finish", no_space)
    path = tmp_path / "run"
    with pytest.raises(UserError) as error:
        execute(digits_run(epochs=1), path)
    assert str(error.value) == f"{str(path)!r} cannot be written: No space left on device"


def test_a_damaged_checkpoint_fails_its_run_in_one_line(tmp_path):
    run, stop = digits_run(), Stop()
    stop.signal = 15
    assert execute(run, tmp_path / "run", stop=stop) is None
    state = tmp_path / "run" / "checkpoint.pt"
    state.write_bytes(state.read_bytes()[:-100])
    result = execute(run, tmp_path / "run")
    assert result["status"] == FAILED
    assert result["error"].startswith(f"{state} is damaged (")
    assert result["error"].endswith("; delete its folder to redo the run")


def test_an_error_of_any_kind_is_the_runs_result(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("first line\nlast line")

    monkeypatch.setattr("resnet_variants.sweeps.execute.evaluate", broken)
    variant = Variant(family="cifar", depth=8)
    run = dataclasses.replace(digits_run(), variant=variant)
    result = execute(run, tmp_path / "run")
    assert (result["status"], result["error"]) == (FAILED, "ZeroDivisionError: last line")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log
    assert "first line\nlast line" in log
    assert not (tmp_path / "run" / "model.safetensors").exists()
