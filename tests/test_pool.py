"""The local engine: workers share the runs, and one that ends takes no other with it."""

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small import CPU, measured, recipe

from resnet_variants.data.dataset import load_dataset
from resnet_variants.models.variant import Variant
from resnet_variants.records.results_folder import read_runs
from resnet_variants.records.run_folder import DONE, FAILED, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps import driver
from resnet_variants.sweeps.engines import local
from resnet_variants.sweeps.engines import pool as pool_module
from resnet_variants.sweeps.engines.base import Work, Workers
from resnet_variants.sweeps.engines.handover import Handover, handed_over
from resnet_variants.sweeps.engines.pool import Place, pool
from resnet_variants.sweeps.execute import Attempt
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Options, Silent, conduct, silent
from resnet_variants.training.device import Machine
from resnet_variants.training.interrupt import Stop

EAGER = Machine(device="cpu", checkpoint_seconds=0)
TWO = Options(machine=EAGER, workers=Workers(engine="local", jobs=2, cpus_per_run=1))


def experiment(seeds=2, **fields):
    variants = tuple(Variant(family="cifar", depth=8, order=order) for order in ("post", "preact"))
    return Experiment(
        name="x", variants=variants, seeds=seeds, recipe=recipe(**({"batch_size": 256} | fields))
    )


def results(out):
    """What each run came to, without what a clock says."""
    frame = read_runs(out).set_index("run_id")
    assert set(frame["status"]) == {DONE}
    lines = {
        run: measured(
            map(json.loads, (out / "runs" / run / "epochs.jsonl").read_text().split("\n")[:-1])
        )
        for run in frame.index
    }
    weights = {run: (out / "runs" / run / "model.safetensors").read_bytes() for run in frame.index}
    return frame[["test_acc", "test_loss", "val_acc", "train_loss"]].to_dict(), lines, weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("inline")
    assert conduct(experiment(), out, Options(machine=EAGER), silent)
    return results(out)


def watching(watcher):
    return lambda: contextlib.nullcontext(watcher)


def test_workers_come_to_what_this_process_comes_to(tmp_path, undisturbed, capfd):
    assert conduct(experiment(), tmp_path, TWO, silent)
    assert results(tmp_path) == undisturbed
    assert capfd.readouterr() == ("", "")
    for run in (tmp_path / "runs").glob("*/run.json"):
        assert json.loads(run.read_text())["provenance"]["threads"] == 1
    assert not list((tmp_path / "runs").glob(".*"))  # all claims are gone


class KillsOnce(Silent):
    """Ends the worker of the first run that reports an epoch, at that moment."""

    def __init__(self):
        self.killed, self.begun, self.ended = [], [], []

    def start(self, run):
        self.begun.append(run.id)

    def epoch(self, run, record):
        if not self.killed:
            (worker,) = (w for w in self.pool.workers if w.attempt and w.attempt.run == run)
            os.kill(worker.process.pid, signal.SIGKILL)
            self.killed.append(run.id)

    def end(self, run, result):
        self.ended.append(run.id)


def shown_the_pool(watcher, monkeypatch):
    """The watcher, which finds the workers in its attribute ``pool``."""
    real = local.pool

    @contextlib.contextmanager
    def seen(*args):
        with real(*args) as made:
            watcher.pool = made
            yield made

    monkeypatch.setattr(local, "pool", seen)
    return watcher


def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(
    tmp_path, undisturbed, monkeypatch
):
    watcher = shown_the_pool(KillsOnce(), monkeypatch)
    assert conduct(experiment(), tmp_path, TWO, watching(watcher))
    assert len(watcher.killed) == 1
    assert watcher.begun.count(watcher.killed[0]) == 2
    assert sorted(watcher.ended) == sorted(run.id for run in experiment().runs)
    assert "continued" in (tmp_path / "runs" / watcher.killed[0] / "log.txt").read_text()
    assert results(tmp_path) == undisturbed


class Kills(Silent):
    """Sends a signal to all workers at the first epoch; those that start later are spared."""

    def __init__(self, number):
        self.number, self.struck = number, []

    def epoch(self, run, record):
        if not self.struck:
            self.struck = [worker.process.pid for worker in self.pool.workers if worker.ready]
            for pid in self.struck:
                os.kill(pid, self.number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_losing_all_workers_at_once_loses_no_run(tmp_path, undisturbed, monkeypatch, number):
    watcher = shown_the_pool(Kills(number), monkeypatch)
    monkeypatch.setattr(pool_module, "_TRIES", 2)
    assert conduct(experiment(), tmp_path, TWO, watching(watcher))
    assert watcher.struck
    assert results(tmp_path) == undisturbed


class Broken(Silent):
    def epoch(self, run, record):
        raise BrokenPipeError("nobody reads on")


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_listener_that_breaks_is_no_fault_of_the_run(tmp_path, engine):
    one = dataclasses.replace(experiment(1), variants=experiment().variants[:1])
    options = Options(machine=EAGER, workers=Workers(engine=engine))
    with pytest.raises(BrokenPipeError):
        conduct(one, tmp_path, options, watching(Broken()))
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert conduct(one, tmp_path, Options(machine=EAGER), silent)


class Deadly(Attempt):
    """An attempt whose first seed ends its process, every time; the others print something."""

    def execute(self, data, tell, stop, *, capture=False):
        if self.run.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(data, tell, stop, capture=capture)


def test_a_run_that_ends_every_worker_has_failed_and_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "Attempt", Deadly)
    one = dataclasses.replace(experiment(epochs=1), variants=experiment().variants[:1])
    assert not conduct(one, tmp_path, TWO, silent)
    frame = read_runs(tmp_path)
    assert frame["status"].tolist() == [FAILED, DONE]
    assert frame["error"][0] == (
        "its worker was ended by SIGKILL, as the system does when memory runs short, "
        "3 times without progress"
    )
    assert frame["error"][0] in (tmp_path / "runs" / frame["run_id"][0] / "log.txt").read_text()


class Doomed(Handover):
    """Data that end whoever takes them."""

    def take(self, workers):
        sys.exit(7)


def test_workers_that_cannot_start_are_one_line():
    with (
        pytest.raises(UserError, match="workers ended with status 7 before they were ready"),
        pool([Place(1)], Doomed(b"", ()), print, Stop()) as made,
    ):
        for _ in range(600):
            assert made.wait(0.1) == []


class Waits(Attempt):
    """An attempt that waits for what does not come."""

    def execute(self, data, tell, stop, *, capture=False):
        threading.Event().wait()


@pytest.mark.timeout(200)
def test_a_worker_that_does_nothing_for_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "Attempt", Waits)
    monkeypatch.setattr(driver, "TRIES", 1)
    monkeypatch.setattr(pool_module, "_SILENCE", 5.0)
    monkeypatch.setattr(pool_module, "_LEAST", 0.01)
    one = dataclasses.replace(experiment(1), variants=experiment().variants[:1])
    assert not conduct(one, tmp_path, TWO, silent)
    (error,) = read_runs(tmp_path)["error"]
    assert error == "its worker did nothing for 5 s, 1 times without progress"


class Prints(Attempt):
    def train_here(self, data, fabric, tell, stop):
        sys.stdout.write("said by Python\n")
        os.write(2, b"said by a library\n")
        subprocess.run(["echo", "said by a child"], check=True)
        return super().train_here(data, fabric, tell, stop)


def test_what_a_run_prints_is_in_its_log(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(driver, "Attempt", Prints)
    one = dataclasses.replace(experiment(1, epochs=1), variants=experiment().variants[:1])
    assert conduct(one, tmp_path, TWO, silent)
    (log,) = (tmp_path / "runs").glob("*/log.txt")
    for words in ("said by Python", "said by a library", "said by a child", "epoch=1"):
        assert words in log.read_text()
    assert capfd.readouterr() == ("", "")


# --- several commands -------------------------------------------------------------------------

FLAGS = "--variant A D --depth 11 --device cpu --precision fp32 --deterministic --jobs 2"
FLAGS += " --checkpoint-seconds 0.2"


def launched(out, flags="--seeds 3 --epochs 4"):
    words = [sys.executable, "-m", "resnet_variants.run", *FLAGS.split(), *flags.split()]
    words += ["--out", str(out)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_commands_share_the_work_and_both_report_all_of_it(tmp_path):
    commands = [launched(tmp_path) for _ in range(2)]
    texts = [command.communicate(timeout=240)[0] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], texts
    for text in texts:
        assert "6 done" in text
    logs = [path.read_text() for path in (tmp_path / "runs").glob("*/log.txt")]
    assert len(logs) == 6
    for log in logs:  # trained by one of them, once
        assert re.findall(r"^epoch=(\d)", log, re.MULTILINE) == ["1", "2", "3", "4"]
        assert "continued" not in log


def children(pid):
    """Processes whose parent is ``pid`` and that run our code."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return found


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_workers_end_with_their_driver(tmp_path):
    command = launched(tmp_path)
    while not list(tmp_path.glob("runs/*/epochs.jsonl")):
        assert command.poll() is None
        time.sleep(0.02)
    workers = children(command.pid)
    assert len(workers) == 2
    command.kill()
    command.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, workers))


class Endings(threading.Thread):
    """Sees every result that appears, and whether one is ever replaced."""

    def __init__(self, out):
        super().__init__(daemon=True)
        self.out, self.seen, self.changed, self.over = out, {}, [], threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            for path in self.out.glob("runs/*/result.json"):
                facts = path.stat()
                now = facts.st_ino, facts.st_mtime_ns
                if self.seen.setdefault(path.parent.name, now) != now:
                    self.changed.append(path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_driver_and_workers_change_no_table(tmp_path):
    moments, flags = random.Random(0), "--seeds 10 --epochs 20"
    whole = launched(tmp_path / "whole", flags)
    whole.communicate(timeout=600)
    out = tmp_path / "cut"
    endings = Endings(out)
    endings.start()
    command = launched(out, flags)
    kills = {"driver": 0, "worker": 0}
    while sum(kills.values()) < 20:
        time.sleep(moments.uniform(1.0, 9.0))
        if command.poll() is not None:
            break
        workers = children(command.pid)
        if sum(kills.values()) % 2 or not workers:
            command.kill()
            command.communicate(timeout=60)
            kills["driver"] += 1
            command = launched(out, flags)
        else:
            os.kill(moments.choice(workers), signal.SIGKILL)
            kills["worker"] += 1
    text, _ = command.communicate(timeout=600)
    endings.over.set()
    endings.join()
    assert sum(kills.values()) == 20, kills
    assert command.returncode == 0, text
    assert endings.changed == []
    assert len(endings.seen) == 20
    assert results(out) == results(tmp_path / "whole")


# --- places -----------------------------------------------------------------------------------


def test_a_place_names_its_cores_and_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Place(3).environment == {"OMP_NUM_THREADS": "3"}
    assert Place(1, gpus=(2, 3)).environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-abc")
    assert Place(1, gpus=(0, 2)).environment["CUDA_VISIBLE_DEVICES"] == "4,GPU-abc"


def work(runs=12, machine=CPU, **workers):
    todo = experiment(runs).runs[:runs]
    workers = Workers(engine="local", **workers)
    data = load_dataset("digits")
    return Work(todo=todo, data=data, machine=machine, workers=workers, tell=print, stop=Stop())


@pytest.mark.parametrize(
    ("own", "kind", "there", "tried"),
    [
        (work(), "cpu", 2, [1, 2]),
        (work(), "cpu", 16, [1, 2, 4, 8, 12]),
        (work(3), "cpu", 16, [1, 2, 3]),
        (work(1), "cpu", 16, [1]),
        (work(cpus_per_run=4), "cpu", 16, [1, 2, 4]),
        (work(machine=Machine(device="cpu", devices=2)), "cpu", 8, [1, 2, 4]),
        (work(), "cuda", 1, [1, 2, 4, 8]),
        (work(), "cuda", 4, [4, 8, 12]),
        (work(machine=Machine(devices=2)), "cuda", 4, [2]),
    ],
)
def test_numbers_of_workers_to_choose_from(monkeypatch, own, kind, there, tried):
    monkeypatch.setattr(local, "cores", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(local, "memory", lambda: 2**40)
    assert local.candidates(own, kind) == tried
    monkeypatch.setattr(local, "memory", lambda: 2 * local.MEMORY_EACH)
    assert max(local.candidates(own, kind)) <= 2


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(local, "cores", lambda: 8)
    assert [place.gpus for place in local.places_for(6, "cuda", work())] == [
        *((0,), (1,), (2,), (3,), (0,), (1,))
    ]
    pairs = local.places_for(2, "cuda", work(machine=Machine(devices=2)))
    assert pairs == [Place(4, 4, gpus=(0, 1)), Place(4, 4, gpus=(2, 3))]


@pytest.mark.parametrize(
    ("alone", "rates", "jobs"),
    [
        (1.0, {}, 2),
        (1e4, {1: 100.0, 2: 130.0}, 2),
        (1e4, {1: 100.0, 2: 90.0}, 1),
        (1e4, {1: 100.0, 2: 0.0}, 1),  # two had no room
    ],
)
def test_long_sweeps_take_the_number_that_was_fastest(monkeypatch, alone, rates, jobs):
    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setattr(local, "seconds_per_run", lambda run, machine: alone / 12)
    monkeypatch.setattr(local, "_rate", lambda run, jobs, *rest: rates[jobs])
    chosen, why = local._jobs(work(), "cpu", None)
    assert chosen == jobs
    shown = "; images/s measured for rv_resnet8_cifar_b: 100 by 1, "
    assert why.startswith(shown) == bool(rates)
    assert local._jobs(work(jobs=7), "cpu", None) == (7, "")


def test_speed_is_measured_in_the_workers_themselves():
    own = work(2)
    with handed_over(own.data) as handover:
        rates = [local._rate(own.todo[0], jobs, "cpu", own, handover) for jobs in (1, 2)]
    assert all(rate > 10 for rate in rates)


def test_a_data_set_is_handed_over_without_a_copy():
    data = load_dataset("digits")
    with handed_over(data) as handover:
        assert len(handover.head) < 20_000
        taken = handover.take(3)
        for name in ("train", "val", "test"):
            ours, theirs = getattr(data, name), getattr(taken, name)
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.labels, theirs.labels)
            assert theirs.workers == 3
        assert str(handover.arrays[0]) in Path("/proc/self/maps").read_text()
    assert dataclasses.replace(taken, train=None, val=None, test=None) == dataclasses.replace(
        data, train=None, val=None, test=None
    )


def test_a_claim_is_one_process_own_and_leaves_nothing_behind(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "x")
    assert not folder.claimed
    with folder.claim() as mine, folder.claim() as again:
        assert (mine, again, folder.claimed) == (True, False, True)
    assert not folder.claimed
    assert list((tmp_path / "runs").iterdir()) == []
