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
from factories import no_space
from small import CPU, digits_run, execute, sweep
from torch.multiprocessing.spawn import ProcessRaisedException

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

EAGER = Machine(device="cpu", checkpoint_seconds=0)


def swept(out, *, seeds=2, retry_failed=False):
    """Sweep the seeds of one run; the statuses and errors by seed."""
    run = digits_run()
    experiment = Experiment(name="x", variants=(run.variant,), seeds=seeds, recipe=run.recipe)
    complete = sweep(experiment, out, Options(machine=EAGER, retry_failed=retry_failed))
    frame = read_runs(out)
    assert complete == (set(frame["status"]) == {DONE})
    return frame["status"].tolist(), frame["error"].tolist()


# --- divergence -------------------------------------------------------------------------------


def test_a_training_that_diverges_says_where_and_keeps_no_model(tmp_path):
    run = digits_run(lr=1e12, warmup=0.0)
    result = execute(run, tmp_path / "run", EAGER)
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


NO_MEMORY = "out of memory with batch_size {}: give a smaller --batch-size or a larger --accumulate"


def test_after_a_run_that_diverges_and_one_out_of_memory_the_next_is_trained(tmp_path, monkeypatch):
    class Breaks(Trainer):
        def _backward(self, images, labels, *, key):
            if self.seed == 0 and self.epoch == 2:
                torch.nn.init.constant_(self.model.fc.weight, float("inf"))
            if self.seed == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nX")
            return super()._backward(images, labels, key=key)

    monkeypatch.setattr(trainer, "Trainer", Breaks)
    statuses, errors = swept(tmp_path, seeds=3)
    assert statuses == [DIVERGED, FAILED, DONE]
    assert errors[0].startswith("the loss is not finite at step 5 (epoch 2) at lr ")
    assert errors[1:] == [NO_MEMORY.format(256), ""]
    (log,) = (tmp_path / "runs").glob("*s1/log.txt")
    assert "OutOfMemoryError: CUDA out of memory" in log.read_text()


def test_a_failed_run_that_is_retried_goes_on_where_it_was_saved(tmp_path, monkeypatch):
    class Stumbles(Trainer):
        def take_step(self, batches):
            if self.epoch == 2:
                raise RuntimeError("a stumble")
            super().take_step(batches)

    run = digits_run()
    expected = execute(run, tmp_path / "undisturbed", EAGER)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "Trainer", Stumbles)
        assert swept(tmp_path, seeds=1) == ([FAILED], ["RuntimeError: a stumble"])
    folder = RunFolder(tmp_path / "runs" / run.id)
    assert folder.checkpoint.exists()
    assert swept(tmp_path, seeds=1, retry_failed=True) == ([DONE], [""])
    assert "continued" in (folder.path / "log.txt").read_text()
    assert folder.result()["test_loss"] == expected["test_loss"]
    assert not folder.checkpoint.exists()


# --- memory and disks -------------------------------------------------------------------------

IN_ANOTHER = "\n\n-- Process 1 terminated with the following error:\nTraceback ...\n"
NO_ALLOCATION = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"
NO_SHARED_MEMORY = "unable to write to file </torch_1>: No space left on device (28)"


def in_another_process(error):
    return ProcessRaisedException(IN_ANOTHER + error, 1, 2)


@pytest.mark.parametrize(
    ("error", "memory", "storage"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True, False),
        (MemoryError(), True, False),
        (RuntimeError(NO_ALLOCATION), True, False),
        (in_another_process("torch.OutOfMemoryError: CUDA out of memory."), True, False),
        (in_another_process("MemoryError\n"), True, False),
        (OSError(errno.ENOSPC, "No space left on device"), False, True),
        (OSError(errno.EMFILE, "Too many open files"), False, True),
        (RuntimeError(NO_SHARED_MEMORY), False, True),
        (in_another_process("OSError: [Errno 122] Disk quota exceeded"), False, True),
        (OSError(errno.EACCES, "Permission denied"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (in_another_process("RuntimeError: shapes\n"), False, False),
    ],
)
def test_what_counts_as_lack_of_memory_and_as_an_obstacle_to_all_runs(error, memory, storage):
    assert (out_of_memory(error), is_storage(error)) == (memory, storage)


def executed_in_little_memory(run, path, mb):
    """Execute a run in a process that may take so much more than it has by then."""
    data = run.load()
    status = Path("/proc/self/status").read_text()
    now = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + mb * 2**20, resource.RLIM_INFINITY))
    list(execute_run(Job(run, path, CPU), data, Stop()))


@pytest.mark.slow  # a process of its own
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
    assert swept(tmp_path)[0] == [DONE, DONE]
    assert "continued" in (path / "log.txt").read_text()


class Full(Run):
    """A run whose second seed finds no room for its network, once the first is being trained."""

    def build(self, data):
        if self.seed == 1:
            while not list(Path(os.environ["RUNS"]).glob("*s0/epochs.jsonl")):
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


# --- other errors -----------------------------------------------------------------------------


def test_a_disk_too_full_for_the_result_ends_the_command_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_variants.records.run_folder.RunFolder.finish", no_space)
    path = tmp_path / "run"
    with pytest.raises(UserError) as error:
        execute(digits_run(epochs=1), path)
    assert str(error.value) == f"{str(path)!r} cannot be written: No space left on device"


def test_an_error_of_any_kind_is_the_runs_result(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("first line\nlast line")

    monkeypatch.setattr("resnet_variants.sweeps.execute.evaluate", broken)
    result = execute(digits_run(), tmp_path / "run")
    assert (result["status"], result["error"]) == (FAILED, "ZeroDivisionError: last line")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Traceback (most recent call last)" in log
    assert "first line\nlast line" in log
    assert not (tmp_path / "run" / "model.safetensors").exists()
