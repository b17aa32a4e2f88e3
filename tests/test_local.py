"""The local engine: workers share the runs, and one that ends takes no other with it."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import psutil
import pytest
import torch
from small import CPU, measured, recipe, sweep
from warm import Command

from resnet_variants.data.dataset import load_dataset
from resnet_variants.models.variant import Variant
from resnet_variants.records.results_folder import read_runs
from resnet_variants.records.run_folder import DONE, FAILED
from resnet_variants.registry import UserError
from resnet_variants.sweeps import sweep as sweeps
from resnet_variants.sweeps.engines import local
from resnet_variants.sweeps.engines.base import Workers
from resnet_variants.sweeps.engines.local import (
    Pool,
    SharedDataset,
    WorkerResources,
    shared_dataset,
    worker_resources,
)
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import Ended, EpochDone, Lost, Options, Started
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop

EAGER = Machine(device="cpu", checkpoint_seconds=0)
ONE, TWO = (
    Options(machine=EAGER, workers=Workers(engine="local", jobs=jobs, cpus_per_run=1))
    for jobs in (1, 2)
)


def experiment(seeds=1, **fields):
    variants = tuple(Variant(family="cifar", depth=8, order=order) for order in ("post", "preact"))
    fields = {"batch_size": 256, "epochs": 6} | fields
    return Experiment(name="x", variants=variants, seeds=seeds, recipe=recipe(**fields))


def single(seeds=1, **fields):
    """One network alone."""
    one = experiment(seeds, **fields)
    return dataclasses.replace(one, variants=one.variants[:1])


def results(out):
    """What each run came to, without what a clock says."""
    frame = read_runs(out).set_index("run_id")
    assert set(frame["status"]) == {DONE}
    epochs = {run: (out / "runs" / run / "epochs.jsonl").read_text() for run in frame.index}
    lines = {run: measured(map(json.loads, text.splitlines())) for run, text in epochs.items()}
    weights = {run: (out / "runs" / run / "model.safetensors").read_bytes() for run in frame.index}
    return frame[["test_acc", "test_loss", "val_acc", "train_loss"]].to_dict(), lines, weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("inline")
    assert sweep(experiment(), out, Options(machine=EAGER))
    return results(out)


class Prints(Run):
    def build(self, data):
        sys.stdout.write("said by Python\n")
        os.write(2, b"said by a library\n")
        subprocess.run(["echo", "said by a child"], check=True)
        return super().build(data)


def test_a_worker_comes_to_what_this_process_comes_to(
    tmp_path, undisturbed, monkeypatch, capfd, spawned
):
    monkeypatch.setattr("resnet_variants.sweeps.experiment.Run", Prints)
    assert sweep(experiment(), tmp_path, ONE)
    assert results(tmp_path) == undisturbed
    assert capfd.readouterr() == ("", "")
    for log in (tmp_path / "runs").glob("*/log.txt"):
        for words in ("said by Python", "said by a library", "said by a child", "epoch=1"):
            assert words in log.read_text()
    for run in (tmp_path / "runs").glob("*/run.json"):
        assert json.loads(run.read_text())["provenance"]["threads"] == 1
    assert not list((tmp_path / "runs").glob(".*"))  # all claims are gone


def test_losing_all_workers_at_once_loses_no_run(tmp_path, undisturbed):
    events = []

    def strike(event):
        """At the first epoch one worker is killed and the other is told to stop."""
        if isinstance(event, EpochDone) and not any(isinstance(e, EpochDone) for e in events):
            one, other = multiprocessing.active_children()
            one.kill()
            other.terminate()
        events.append(event)

    assert sweep(experiment(), tmp_path, TWO, strike)
    lost = [event for event in events if isinstance(event, Lost)]
    killed = "its worker was ended by SIGKILL, as the system does when memory runs short"
    assert sum(event.reason == killed for event in lost) == 1
    for run in experiment().runs:  # one that ends may have been given another run
        losses = sum(event.run == run for event in lost)
        assert losses and events.count(Started(run)) == 1 + losses
    first = next(event for event in events if isinstance(event, EpochDone))
    assert "continued" in (tmp_path / "runs" / first.run.id / "log.txt").read_text()
    ended = [event.run.id for event in events if isinstance(event, Ended)]
    assert sorted(ended) == sorted(run.id for run in experiment().runs)
    assert results(tmp_path) == undisturbed


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_a_listener_that_breaks_is_no_fault_of_the_run(tmp_path, engine):
    def broken(event):
        if isinstance(event, EpochDone):
            raise BrokenPipeError("nobody reads on")

    options = Options(machine=EAGER, workers=Workers(engine=engine))
    with pytest.raises(BrokenPipeError):
        sweep(single(), tmp_path, options, broken)
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert sweep(single(), tmp_path, Options(machine=EAGER))


class Deadly(Run):
    """A run whose first seed ends its process, every time."""

    def build(self, data):
        if self.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().build(data)


def test_a_run_that_ends_every_worker_has_failed_and_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_variants.sweeps.experiment.Run", Deadly)
    assert not sweep(single(2, epochs=1), tmp_path, ONE)
    frame = read_runs(tmp_path)
    assert frame["status"].tolist() == [FAILED, DONE]
    assert frame["error"][0] == (
        "its worker was ended by SIGKILL, as the system does when memory runs short, "
        "3 times without progress"
    )
    assert frame["error"][0] in (tmp_path / "runs" / frame["run_id"][0] / "log.txt").read_text()


class Doomed(SharedDataset):
    """Data that end the process that loads them."""

    def load(self, workers):
        sys.exit(7)


def test_workers_that_cannot_start_are_one_line(monkeypatch):
    monkeypatch.setattr(local, "_TRIES", 1)
    pool = Pool([WorkerResources(1)], Doomed(b"", ()), Stop())
    with pytest.raises(UserError, match="workers ended with status 7 before they were ready"):
        while True:
            assert list(pool.wait(0.1)) == []
    pool.close(grace=0.0)


class Waits(Run):
    """A run that waits for what does not come."""

    def build(self, data):
        threading.Event().wait()


def test_a_worker_that_does_nothing_for_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_variants.sweeps.experiment.Run", Waits)
    monkeypatch.setattr(sweeps, "TRIES", 1)
    monkeypatch.setattr(local, "_SILENCE", 2.0)
    monkeypatch.setattr(local, "_LEAST", 0.01)
    assert not sweep(single(), tmp_path, TWO)
    (error,) = read_runs(tmp_path)["error"]
    assert error == "its worker did nothing for 2 s, 1 times without progress"


# --- several commands -------------------------------------------------------------------------

FLAGS = "run --variant A D --depth 8 --batch-size 256 --device cpu --precision fp32 --deterministic"
FLAGS += " --checkpoint-seconds 0.2"


def launched(out, flags):
    return Command([*FLAGS.split(), *flags.split(), "--out", str(out)])


def test_two_commands_share_the_work_and_both_report_all_of_it(tmp_path):
    flags = "--engine inline --cpus-per-run 1 --seeds 2 --epochs 2"
    commands = [launched(tmp_path, flags) for _ in range(2)]
    for status, text in [command.ended() for command in commands]:
        assert status == 0, text
        assert "4 done" in text
    logs = [path.read_text() for path in tmp_path.glob("runs/*/log.txt")]
    assert len(logs) == 4
    for log in logs:  # trained by one of them, once
        assert re.findall(r"^epoch=(\d)", log, re.MULTILINE) == ["1", "2"]
        assert "continued" not in log


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_workers_end_with_their_driver(tmp_path):
    command = launched(tmp_path, "--jobs 1 --seeds 3 --epochs 100")
    while not list(tmp_path.glob("runs/*/epochs.jsonl")):
        assert command.process.is_alive()
        time.sleep(0.02)
    driver = psutil.Process(command.process.pid)
    (worker,) = (child for child in driver.parent().children() if child != driver)
    command.process.kill()
    while alive(worker):  # the timeout of the test ends this
        time.sleep(0.02)


# --- what each worker may use -----------------------------------------------------------------


def shares(monkeypatch, kind, there, *, runs=12, machine=CPU, memory=2**40, **workers):
    """What each worker gets on a machine with so many cores or GPUs."""
    monkeypatch.setattr(local.joblib, "cpu_count", lambda: 8 if kind == "cuda" else there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(local, "memory", lambda: memory)
    fabric = types.SimpleNamespace(device=torch.device(kind))
    monkeypatch.setattr(local, "make_fabric", lambda *_: fabric)
    workers = Workers(engine="local", **workers)
    return worker_resources(experiment(runs).runs[:runs], machine, workers)


@pytest.mark.parametrize(
    ("kind", "there", "asked", "jobs", "threads"),
    [
        ("cpu", 2, {}, 2, 1),
        ("cpu", 16, {}, 12, 1),  # there are 12 runs
        ("cpu", 16, {"runs": 3}, 3, 5),
        ("cpu", 16, {"memory": 2 * local.MEMORY_EACH}, 2, 8),
        ("cpu", 16, {"memory": 1}, 1, 16),
        ("cpu", 16, {"cpus_per_run": 4}, 4, 4),
        ("cpu", 8, {"machine": Machine(device="cpu", devices=2)}, 4, 2),
        ("cpu", 2, {"jobs": 7}, 7, 1),
        ("cuda", 1, {}, 1, 8),
        ("cuda", 4, {}, 4, 2),
        ("cuda", 4, {"machine": Machine(devices=2)}, 2, 4),
        ("mps", 0, {}, 1, 1),
    ],
)
def test_there_is_one_worker_per_core_or_gpu(monkeypatch, kind, there, asked, jobs, threads):
    own = shares(monkeypatch, kind, there, **asked)
    assert (len(own), own[0].threads) == (jobs, threads)


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    own = shares(monkeypatch, "cuda", 4, jobs=6)
    assert [share.gpus for share in own] == [(0,), (1,), (2,), (3,), (0,), (1,)]
    pairs = shares(monkeypatch, "cuda", 4, machine=Machine(devices=2))
    assert pairs == [WorkerResources(4, 4, gpus=(0, 1)), WorkerResources(4, 4, gpus=(2, 3))]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-abc")  # what this process may see
    chosen = WorkerResources(1, gpus=(0, 2)).environment
    assert chosen == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "4,GPU-abc"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert WorkerResources(1, gpus=(2, 3)).environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert WorkerResources(3).environment == {"OMP_NUM_THREADS": "3"}


def test_a_data_set_is_shared_without_a_copy():
    data = load_dataset("digits")
    with shared_dataset(data) as shared:
        assert len(shared.head) < 20_000
        loaded = shared.load(3)
        assert str(shared.arrays[0]) in Path("/proc/self/maps").read_text()
        assert torch.equal(loaded.train.images, data.train.images)
        assert loaded.train.workers == 3
