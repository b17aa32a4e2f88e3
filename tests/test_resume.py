"""A training that was stopped or killed ends as if nothing had happened."""

import itertools
import json
import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CPU, digits_run, execute, measured, network, recipe, same, sweep, train, weights
from warm import Command

from resnet_variants.records.files import TEMPORARY
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.run import read
from resnet_variants.sweeps.sweep import Options
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.trainer import ReplayedRecord, StoppedError

RECIPES = {
    "plain": recipe(),
    "ema and the best epoch": recipe(ema=0.5, select="best", flip="alternating"),
    "adamw, mixup and drop_path": recipe(
        optimizer="adamw", lr=0.01, mixup=0.2, cutmix=1.0, drop_path_rate=0.5
    ),
    "lamb and one cycle": recipe(optimizer="lamb", lr=0.01, schedule="onecycle", cutout=0.3),
    "parts of batches": recipe(accumulate=2, clip_grad=0.1, drop_path_rate=0.3, size_start=0.75),
}


def after(calls):
    """A question that is answered with yes from a certain time it is asked."""
    counter = itertools.count(1)
    return lambda: next(counter) >= calls


def interrupted(recipe, path, step):
    """Train until a step, then go on with another network under another random state."""
    model = network(recipe=recipe)
    with pytest.raises(StoppedError):
        train(model, recipe, checkpointer=Checkpointer(path, 1e9, after(step)))
    torch.manual_seed(99)
    other = network(99, recipe=recipe)
    return train(other, recipe, checkpointer=Checkpointer(path, 1e9)), weights(other)


# Nine steps in three epochs: after 3 and 6 an epoch ends, after 9 all is done.
CASES = [("plain", step) for step in (1, 2, 3, 5, 8)]
CASES += [(name, step) for name in list(RECIPES)[1:] for step in (3, 7)]


@pytest.fixture(scope="module")
def undisturbed():
    """Records and weights by the name of the recipe."""
    torch.set_num_threads(1)
    results = {}
    for name, one in RECIPES.items():
        model = network(recipe=one)
        results[name] = train(model, one), weights(model)
    return results


@pytest.mark.parametrize(("name", "step"), CASES)
def test_stopping_after_any_step_changes_no_bit(tmp_path, undisturbed, name, step):
    records, final = interrupted(RECIPES[name], tmp_path / "state", step)
    expected, expected_final = undisturbed[name]
    assert measured(records) == measured(expected)
    assert same(final, expected_final)


def test_what_is_compared_above_depends_on_the_recipe(undisturbed):
    finals = [final for _, final in undisturbed.values()]
    assert not any(same(one, other) for one, other in itertools.combinations(finals, 2))


# --- a run in its folder ----------------------------------------------------------------------


def stopped_run(path):
    """A run that is stopped in its second epoch."""
    stop, told = Stop(), []

    def tell(record):
        told.append(record)
        stop.signal = signal.SIGTERM

    assert execute(digits_run(), path, hear=tell, stop=stop) is None
    assert len(told) == 1
    assert RunFolder(path).checkpoint.is_file()
    assert not (path / "result.json").exists()


def lines(path, name="epochs"):
    return list(map(json.loads, (path / f"{name}.jsonl").read_text().splitlines()))


def test_a_run_continues_in_its_folder(tmp_path):
    cut, whole, told = tmp_path / "cut", tmp_path / "whole", []
    expected = execute(digits_run(), whole)
    stopped_run(cut)
    scratch = cut / f".checkpoint.pt.x{TEMPORARY}"  # of a killed process
    scratch.mkdir()
    for name in ("lock", "checkpoint.pt"):
        (scratch / name).write_text("half of it")
    result = execute(digits_run(), cut, hear=told.append)
    assert [record.epoch for record in told] == [1, 2]
    assert measured(lines(cut)) == measured(lines(whole))
    scores = ("test_acc", "test_loss")
    assert [result[score] for score in scores] == [expected[score] for score in scores]
    assert "continued: " in (cut / "log.txt").read_text()
    assert {file.name for file in cut.iterdir()} == {file.name for file in whole.iterdir()}
    bits = [(path / "model.safetensors").read_bytes() for path in (cut, whole)]
    assert bits[0] == bits[1]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_records_of_steps_add_up_to_epochs_and_survive_a_stop(tmp_path, every):
    """Two epochs of four steps each."""
    machine = replace(CPU, every_steps=every)
    cut, whole, heard, stop = tmp_path / "cut", tmp_path / "whole", [], Stop()
    execute(digits_run(), whole, machine, hear=heard.append)
    steps = lines(whole, "steps")
    at = [(epoch, step) for epoch in (1, 2) for step in range(every, 5, every)]
    assert [(line["epoch"], line["step"]) for line in steps] == at
    assert [r.epochs for r in heard] == sorted([*(e - 1 + s / 4 for e, s in at), 1.0, 2.0])
    for number in ("train_loss", "train_acc", "grad_norm") if 4 % every == 0 else ():
        for epoch in lines(whole):
            own = [line[number] for line in steps if line["epoch"] == epoch["epoch"]]
            assert np.mean(own) == pytest.approx(epoch[number], rel=1e-9)

    def tell(record):
        if record.epochs > 1.0:
            stop.signal = signal.SIGTERM

    assert execute(digits_run(), cut, machine, hear=tell, stop=stop) is None
    heard.clear()
    execute(digits_run(), cut, machine, hear=heard.append)
    assert measured(lines(cut, "steps")) == measured(steps)
    assert measured(lines(cut)) == measured(lines(whole))
    later = [1 + step / 4 for step in range(2 * every, 5, every)]
    assert [r.epochs for r in heard] == [1.0, *later, 2.0]
    assert [isinstance(r, ReplayedRecord) for r in heard] == [True, *[False] * len(heard[1:])]


def test_a_run_whose_checkpoint_has_the_former_format_starts_over_and_says_so(tmp_path, caplog):
    stopped_run(tmp_path / "cut")
    folder = RunFolder(tmp_path / "cut")
    folder.checkpoint.rename(folder.path / "checkpoint.safetensors")
    assert execute(digits_run(), folder.path)["status"] == "done"
    assert [line["epoch"] for line in lines(folder.path)] == [1, 2]
    message = "starts over: its checkpoint has a format that is no longer read"
    assert message in (folder.path / "log.txt").read_text()
    assert caplog.messages == [f"cut {message}"]
    assert not (folder.path / "checkpoint.safetensors").exists()


def test_a_damaged_checkpoint_fails_its_run_in_one_line(tmp_path):
    stopped_run(tmp_path / "cut")
    folder = RunFolder(tmp_path / "cut")
    folder.checkpoint.write_bytes(b"garbage")
    result = execute(digits_run(), folder.path)
    assert result["status"] == "failed"
    assert result["error"].startswith(f"{folder.checkpoint} is damaged (")
    assert len(result["error"].splitlines()) == 1
    assert "Traceback" in (folder.path / "log.txt").read_text()


# --- commands ---------------------------------------------------------------------------------

FLAGS = "--variant D --depth 8 --seeds 1 --epochs 8 --device cpu --precision fp32 --deterministic"
FLAGS += " --batch-size 256 --drop-path-rate 0.2 --ema 0.9 --checkpoint-seconds 0.05"
FLAGS += " --cpus-per-run 1"


def argv(out, flags=FLAGS):
    return [*flags.split(), "--out", str(out)]


def launched(out, flags=FLAGS):
    """The command in a process of its own, which starts another."""
    return Command(["run", *argv(out, flags)])


def finished(out):
    """Do what is left of the command; the only run's folder."""
    experiment, flags = read(argv(out))
    options = Options(machine=flags.machine)
    assert sweep(experiment.fitted(), out, options)
    (folder,) = (out / "runs").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        *("run.json", "result.json", "epochs.jsonl", "log.txt"),
        *("model.safetensors", "config.json", "README.md", "predictions.safetensors"),
    }
    return folder


def wait_for_state(out, alive, *, newer_than=0):
    """When a process wrote its next checkpoint after a time."""
    while alive():
        for file in out.glob("runs/*/checkpoint.pt"):
            written = file.stat().st_mtime_ns
            if written > newer_than:
                return written
        time.sleep(0.02)
    raise AssertionError("ended without a checkpoint")


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    scores = [result[key] for key in ("status", "test_acc", "test_loss", "val_acc", "train_loss")]
    bits = [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "predictions")]
    return bits, scores, measured(lines(folder))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What the command leaves behind when nothing comes between."""
    torch.set_num_threads(1)
    return outcome(finished(tmp_path_factory.mktemp("reference")))


LAST_WORDS = {
    signal.SIGTERM: (143, "terminated; what was done is saved, the same command continues"),
    signal.SIGINT: (130, "interrupted; the same command continues"),
}


@pytest.mark.parametrize("number", LAST_WORDS)
def test_a_signal_saves_and_the_same_command_continues(tmp_path, reference, number):
    command = launched(tmp_path)
    wait_for_state(tmp_path, command.process.is_alive)
    os.kill(command.process.pid, number)
    status, text = command.ended()
    last_words = text.splitlines()[-1].partition(": ")[2]
    assert (status, last_words) == LAST_WORDS[number]
    assert "Traceback" not in text
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert outcome(finished(tmp_path)) == reference


def test_being_killed_at_any_moment_changes_no_bit(tmp_path, reference):
    moments, written = random.Random(0), 0
    for _ in range(2):
        command = launched(tmp_path, f"{FLAGS} --engine inline")
        process = command.process
        written = wait_for_state(tmp_path, process.is_alive, newer_than=written)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert outcome(finished(tmp_path)) == reference


@pytest.mark.slow
def test_being_killed_twenty_times_changes_no_bit(tmp_path):
    """At moments of the start as well, when nothing has been saved yet."""
    flags, moments = FLAGS.replace("--epochs 8", "--epochs 160"), random.Random(1)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    for killed in range(20):
        command = launched(cut, flags)
        process = command.process
        if killed % 4:  # else while it starts
            wait_for_state(cut, process.is_alive, newer_than=time.time_ns())
        time.sleep(moments.uniform(0, 1.0))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    for out in (cut, whole):
        status, text = launched(out, flags).ended()
        assert status == 0, text
    folders = [next((out / "runs").iterdir()) for out in (cut, whole)]
    assert outcome(folders[0]) == outcome(folders[1])
