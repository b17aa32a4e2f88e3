"""Seeds of an arm that are computed as one network."""

import copy
import dataclasses
import errno
import importlib
import json
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small import CPU, digits, digits_run, execute, network, sweep
from torch import nn

from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.settings import Workers
from resnet_variants.sweeps import fused as fused_runs
from resnet_variants.sweeps.budget import fit_to
from resnet_variants.sweeps.execute import Job, RunStatus
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.fused import (
    check_fused,
    execute_runs,
    next_group,
    number_of_groups,
)
from resnet_variants.sweeps.rounds import run_until_decided
from resnet_variants.sweeps.sinks import check_sinks
from resnet_variants.sweeps.sweep import Ended, Options, Started, check
from resnet_variants.training.batches import generator
from resnet_variants.training.device import make_fabric
from resnet_variants.training.gradients import FusedGradients, _StackedModels
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import Trainer

FUSED = dataclasses.replace(CPU, fuse_seeds=3, every_steps=1)
ALONE = dataclasses.replace(CPU, every_steps=1)


def jobs(runs, out):
    return [Job(run, out / str(run.seed), FUSED) for run in runs]


def fused(runs, out, *, stop=None, hear=lambda job, message: None):
    """Execute runs as one: how each ended, by seed."""
    ends = {}
    for job, message in execute_runs(jobs(runs, out), runs[0].load(), stop or Stop()):
        if isinstance(message, RunStatus):
            ends[job.run.seed] = message
        else:
            hear(job, message)
    return ends


def run_threads(gradients, target):
    """Run two threads of a training, with their numbers, until they end."""
    threads = [threading.Thread(target=target, args=(number,)) for number in range(2)]
    with gradients.turn:
        gradients.start(threads)
    for thread in threads:
        thread.join()


def steps(path):
    return [json.loads(line) for line in (path / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 1e-3},
        {"lr": 1e-3, "order": "preact", "mixup": 0.2, "cutmix": 0.5, "loss": "binary"},
        {"lr": 1e-3, "accumulate": 2, "clip_grad": 0.5, "ema": 0.9, "label_smoothing": 0.1},
        {"lr": 1e-3, "optimizer": "lamb", "size_start": 0.5, "select": "best", "loss": "binary"},
    ],
)
def test_each_seed_learns_what_it_learns_alone(tmp_path, fields):
    runs = [digits_run(seed, **fields) for seed in range(3)]
    ends = fused(runs, tmp_path / "fused")
    for run in runs:
        alone = execute(run, tmp_path / str(run.seed), ALONE)
        result = ends[run.seed].result
        assert result["status"] == "done"
        assert result["test_loss"] == pytest.approx(alone["test_loss"], abs=1e-5)
        assert result["peak_memory_mb"] is None
        own, other = (steps(tmp_path / path / str(run.seed)) for path in ("fused", "."))
        assert len(own) == 8
        for name in ("train_loss", "train_acc"):
            expected = [step[name] for step in other]
            assert [step[name] for step in own] == pytest.approx(expected, abs=1e-5)
        weights, expected = (
            load_file(tmp_path / path / str(run.seed) / "model.safetensors")
            for path in ("fused", ".")
        )
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)
        assert RunFolder(tmp_path / "fused" / str(run.seed)).config()["compile"] == {
            "used": False,
            "fused_seeds": 3,
        }


@pytest.mark.parametrize("order", ["post", "preact"])
def test_gradients_and_statistics_are_those_of_each_model(order):
    models = [network(seed, order=order).double() for seed in range(3)]
    alone = [copy.deepcopy(model) for model in models]
    images = torch.randn(3, 8, 1, 8, 8, dtype=torch.float64, generator=generator("x"))
    stack = _StackedModels(models)
    for _ in range(2):  # the second is added to the first
        stack.backward(stack(images).square().sum())
        for model, own in zip(alone, images, strict=True):
            model(own).square().sum().backward()
    for model, expected in zip(models, alone, strict=True):
        for own, other in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-9)
        for own, other in zip(model.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_a_part_of_a_batch_stays_where_a_model_leaves_the_others():
    models = [network(seed).double() for seed in range(3)]
    alone = copy.deepcopy(models[0])
    images = torch.randn(3, 8, 1, 8, 8, dtype=torch.float64, generator=generator("x"))
    for own in (models, models[:2]):
        stack = _StackedModels(own)
        stack.backward(stack(images[: len(own)]).square().sum())
        alone(images[0]).square().sum().backward()
    for parameter, expected in zip(models[0].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-9, atol=1e-9)


def test_a_frozen_parameter_gets_no_gradient():
    models = [network(seed) for seed in range(2)]
    for model in models:
        next(model.parameters()).requires_grad_(False)
    stack = _StackedModels(models)
    stack.backward(stack(torch.randn(2, 8, 1, 8, 8)).sum())
    for model in models:
        first, *others = model.parameters()
        assert first.grad is None
        assert all(parameter.grad is not None for parameter in others)


def test_a_buffer_that_a_layer_replaces_is_kept():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("sum", torch.zeros(()))

        def forward(self, images):
            self.sum = self.sum + images.sum()
            return images

    models, images = [Counting() for _ in range(2)], torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    stack = _StackedModels(models)
    for _ in range(2):
        stack(images)
    assert [model.sum.item() for model in models] == [6.0, 14.0]


def test_each_second_is_counted_once(monkeypatch):
    """Its own ones, and a share of the common ones."""
    now, spent = [0.0], {}
    monkeypatch.setattr("resnet_variants.training.gradients.time.perf_counter", lambda: now[0])
    gradients = FusedGradients(2)

    def common(parts):
        now[0] += 10.0
        return [(torch.tensor(0.0), torch.tensor(0))] * len(parts)

    monkeypatch.setattr(gradients, "_outcomes", common)

    def train(seed):
        with gradients.joined():
            began = gradients.clock()
            for _ in range(3):
                now[0] += 1.0 + seed
                gradients.backward(SimpleNamespace(seed=seed), torch.zeros(1), torch.zeros(1))
            spent[seed] = gradients.clock() - began

    run_threads(gradients, train)
    assert spent == {0: 3 * (1.0 + 5.0), 1: 3 * (2.0 + 5.0)}
    assert sum(spent.values()) == now[0]


def test_seeds_stop_together_and_go_on_together_or_alone(tmp_path):
    runs, stop = [digits_run(seed, epochs=3, lr=1e-3) for seed in range(3)], Stop()
    whole = fused(runs, tmp_path / "whole")

    def tell(job, record):
        if record.epochs == 1.5:
            stop.signal = 15

    ends = fused(runs, tmp_path / "cut", stop=stop, hear=tell)
    assert {end.kind for end in ends.values()} == {"stopped"}
    sizes = [RunFolder(tmp_path / "cut" / f"{seed}").checkpoint.stat().st_size for seed in range(3)]
    weights = (tmp_path / "whole" / "0" / "model.safetensors").stat().st_size
    assert max(sizes) < 3 * weights  # weights and momentum of one seed, not of all
    alone = execute(runs[2], tmp_path / "cut" / "2", ALONE)
    ends = fused(runs[:2], tmp_path / "cut")
    for seed, result in [(0, ends[0].result), (1, ends[1].result), (2, alone)]:
        expected = whole[seed].result["test_loss"]
        assert result["test_loss"] == pytest.approx(expected, abs=1e-5)
        assert len(steps(tmp_path / "cut" / str(seed))) == 12


def test_a_seed_that_is_further_ends_before_the_others(tmp_path):
    runs, stop = [digits_run(seed, lr=1e-3) for seed in range(3)], Stop()

    def tell(record):
        if record.epochs == 1.25:
            stop.signal = 15

    assert execute(runs[1], tmp_path / "1", ALONE, hear=tell, stop=stop) is None
    ends = fused(runs, tmp_path)
    assert next(iter(ends)) == 1
    for run in runs:
        alone = execute(run, tmp_path / "alone" / str(run.seed), ALONE)
        expected = pytest.approx(alone["test_loss"], abs=1e-5)
        assert ends[run.seed].result["test_loss"] == expected


def test_a_seed_that_fails_is_held_or_is_over_costs_the_others_nothing(tmp_path):
    runs = [digits_run(seed, lr=1e-3, epochs=1) for seed in range(4)]
    stop = Stop()
    stop.signal = 15
    assert execute(runs[1], tmp_path / "1", CPU, stop=stop) is None
    RunFolder(tmp_path / "1").checkpoint.write_text("none")
    execute(runs[2], tmp_path / "2", CPU)
    with RunFolder(tmp_path / "3").claim() as mine:
        assert mine
        ends = fused(runs, tmp_path)
    assert ends[0].result["status"] == "done"
    assert ends[1].result["status"] == "failed"
    assert ends[2].result["status"] == "done"
    assert ends[3].kind == "busy"


def test_an_error_of_the_common_step_is_that_of_every_seed(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("resnet_variants.training.gradients._StackedModels.__call__", broken)
    ends = fused([digits_run(seed) for seed in range(2)], tmp_path)
    message = "out of memory with batch_size 256 and fuse_seeds 2: give a smaller --fuse-seeds"
    assert [end.result["error"][: len(message)] for end in ends.values()] == [message] * 2
    logs = [(tmp_path / seed / "log.txt").read_text() for seed in "01"]
    assert logs[0].count("in backward") == logs[1].count("in backward") == 1


def test_a_diverged_seed_leaves_the_others(tmp_path, monkeypatch):
    runs = [digits_run(seed, lr=1e-3) for seed in range(3)]
    backward = FusedGradients.backward

    def spoilt(self, trainer, inputs, target):
        inputs = inputs * float("nan") if trainer.seed == 1 else inputs
        return backward(self, trainer, inputs, target)

    monkeypatch.setattr(FusedGradients, "backward", spoilt)
    ends = fused(runs, tmp_path)
    assert [ends[seed].result["status"] for seed in range(3)] == ["done", "diverged", "done"]


def begun(tmp_path, epochs):
    runs = [digits_run(seed, epochs=epochs) for seed in range(2)]
    messages = execute_runs(jobs(runs, tmp_path), digits_run().load(), Stop())
    next(messages)
    return messages


def test_nobody_reads_any_longer(tmp_path):
    threads = threading.active_count()
    messages = begun(tmp_path, epochs=50)
    messages.close()
    assert threading.active_count() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(RunFolder(tmp_path / seed).checkpoint.is_file() for seed in "01")


def test_where_nobody_reads_on_nothing_is_trained(tmp_path):
    messages = begun(tmp_path, epochs=1)
    before = [path.stat().st_size for path in tmp_path.rglob("*.jsonl")]
    time.sleep(0.5)
    assert [path.stat().st_size for path in tmp_path.rglob("*.jsonl")] == before
    ends = [message for _, message in messages if isinstance(message, RunStatus)]
    assert [end.kind for end in ends] == ["ended", "ended"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")])
def test_what_ends_a_thread_is_raised_where_messages_are_read(tmp_path, monkeypatch, error):
    execute_run = fused_runs.execute_run

    def leaves(job, data, stop, **options):
        for message in execute_run(job, data, stop, **options):
            if job.run.seed == 1 and message.epochs == 1.0:
                raise error
            yield message

    monkeypatch.setattr(fused_runs, "execute_run", leaves)
    with pytest.raises(type(error)):
        fused([digits_run(seed, epochs=50) for seed in range(3)], tmp_path)
    assert RunFolder(tmp_path / "0").checkpoint.is_file()


def test_a_thread_that_cannot_start_ends_the_others(tmp_path, monkeypatch):
    start = threading.Thread.start

    def limited(self):
        if self._args and self._args[0].run.seed == 2:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start"):
        fused([digits_run(seed, epochs=50) for seed in range(3)], tmp_path)


def test_a_full_disk_stops_all_seeds(tmp_path, monkeypatch):
    append = RunFolder.append

    def full(self, name, record):
        if self.path.name == "1":
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, name, record)

    monkeypatch.setattr(RunFolder, "append", full)
    ends = fused([digits_run(seed, epochs=50) for seed in range(3)], tmp_path)
    assert [ends[seed].kind for seed in range(3)] == ["stopped", "halted", "stopped"]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_models_hold_views_of_one_tensor():
    recipe, fabric = Recipe(precision="fp32"), make_fabric(CPU, "fp32")
    gradients = FusedGradients(2)
    models = [network(seed) for seed in range(2)]
    trainers = [
        Trainer(model, digits(), recipe, seed=seed, fabric=fabric, gradients=gradients)
        for seed, model in enumerate(models)
    ]

    def take(number):
        with gradients.joined():
            for _ in zip(range(2), trainers[number].rest_of_epoch(), strict=False):
                pass

    run_threads(gradients, take)
    for own, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert own.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        assert not torch.equal(own, other) or own.ndim == 1
    size = {
        name: tensor.untyped_storage().nbytes() for name, tensor in models[0].named_parameters()
    }
    kept = trainers[0].state(0.0)["model"]
    assert all(2 * kept[name].untyped_storage().nbytes() == n for name, n in size.items())


# --- sweeps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_a_sweep_hands_out_the_seeds_of_an_arm_together(tmp_path, on_a_gpu, engine):
    base = digits_run(epochs=1, deterministic=False)
    variants = (base.variant, dataclasses.replace(base.variant, order="preact"))
    experiment = Experiment(name="x", variants=variants, recipe=base.recipe, seeds=3)
    options = Options(
        machine=dataclasses.replace(CPU, fuse_seeds=2), workers=Workers(engine=engine, jobs=1)
    )
    heard = []
    assert sweep(experiment, tmp_path, options, heard.append)
    started = [(event.run.name, event.run.seed) for event in heard if isinstance(event, Started)]
    assert [seed for _, seed in started] == [0, 1, 0, 1, 2, 2]
    assert [name for name, _ in started[:2]] == [started[0][0]] * 2
    assert sum(isinstance(event, Ended) for event in heard) == 6
    for run in experiment.runs:
        how = RunFolder(tmp_path / "runs" / run.id).config()["compile"]
        assert how == {"used": False} | ({"fused_seeds": 2} if run.seed < 2 else {})


def test_groups_are_of_one_arm():
    runs = [digits_run(seed, order=order) for seed in range(3) for order in ("post", "preact")]
    queue = deque(runs)
    groups = []
    while queue:
        groups.append([runs.index(run) for run in next_group(queue, 2)])
    assert groups == [[0, 2], [1, 3], [4], [5]]
    queue, lost = deque(runs), {runs[0].id, runs[2].id}
    groups = []
    while queue:
        groups.append([runs.index(run) for run in next_group(queue, 2, lost)])
    assert groups == [[0], [1, 3], [2], [4], [5]]
    assert number_of_groups(runs, 2) == 4
    assert number_of_groups(runs, 1) == 6


# --- what is refused --------------------------------------------------------------------------


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Engines say that they have one."""
    for name in ("inline", "local"):
        module = importlib.import_module(f"resnet_variants.sweeps.engines.{name}")
        monkeypatch.setattr(module, "check", lambda *_: "cuda")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drop_rate": 0.1}, "drop_rate: random numbers inside the network"),
        ({"drop_path_rate": 0.1}, "drop_path_rate: random"),
        ({"deterministic": True}, "deterministic: the last bits depend on"),
        ({"precision": "auto"}, "precision auto: give --precision fp32"),
        ({"precision": "bf16"}, "precision bf16: give --precision fp32"),
    ],
)
def test_arms_that_cannot_be_fused_are_refused(tmp_path, on_a_gpu, fields, message):
    run = digits_run(**{"deterministic": False} | fields)
    experiment = Experiment(name="x", variants=(run.variant,), recipe=run.recipe, seeds=2)
    with pytest.raises(UserError, match=f"fuse_seeds cannot be with {message}"):
        check(experiment, tmp_path, Options(machine=FUSED))
    check(experiment, tmp_path, Options(machine=CPU))


def test_what_cannot_be_fused_is_refused(tmp_path, on_a_gpu):
    for fields in ({"compile": True}, {"devices": 2}):
        with pytest.raises(UserError, match="with compile, nor with several devices: leave one"):
            dataclasses.replace(FUSED, **fields)
    with pytest.raises(UserError, match="wandb takes one run of a process at a time"):
        check_sinks(["wandb"], fused=True)
    runs = [digits_run(deterministic=False, order=order) for order in ("post", "preact")]
    variants = tuple(run.variant for run in runs)
    experiment = Experiment(name="x", variants=variants, recipe=runs[0].recipe, seeds=6)
    with pytest.raises(UserError, match="budget cannot be with fuse_seeds 3"):
        run_until_decided(experiment, tmp_path, Options(machine=FUSED), 1e9)
    with pytest.raises(UserError, match="minutes cannot be with fuse_seeds 3"):
        fit_to(5, experiment, tmp_path, Options(machine=FUSED), depth_is_free=True)


def test_a_skip_that_draws_is_refused():
    run = digits_run(deterministic=False)
    dropout = dataclasses.replace(run, variant=dataclasses.replace(run.variant, skip="dropout"))
    with pytest.raises(UserError, match="fuse_seeds cannot be with skip dropout: random"):
        check_fused([run, dropout], FUSED, "cuda")


def test_a_cpu_is_refused():
    with pytest.raises(UserError, match="with a CPU: it gains nothing there, and --jobs trains"):
        check_fused([digits_run()], FUSED, "cpu")
    check_fused([digits_run(deterministic=False)], FUSED, "cuda")
    check_fused([digits_run()], CPU, "cpu")


def test_a_run_that_was_begun_with_compile_is_not_continued_with_others(tmp_path):
    runs, stop = [digits_run(seed, lr=1e-3) for seed in range(2)], Stop()
    stop.signal = 15
    assert execute(runs[1], tmp_path / "1", ALONE, stop=stop) is None
    file = tmp_path / "1" / "run.json"
    file.write_text(file.read_text().replace('"used": false', '"used": true'))
    before = (tmp_path / "1" / "checkpoint.pt").read_bytes()
    ends = fused(runs, tmp_path)
    assert ends[0].kind == "ended"
    assert ends[1].kind == "refused"
    assert "was begun with --compile: leave out --fuse-seeds" in ends[1].reason
    assert (tmp_path / "1" / "checkpoint.pt").read_bytes() == before
