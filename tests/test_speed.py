"""bench: all arms do the same work, and the table says what was measured."""

import functools
import itertools
import math
import platform
import resource

import pandas as pd
import pytest
import torch

import resnet_variants as rv
from resnet_variants.settings import Machine
from resnet_variants.speed import measure
from resnet_variants.speed.arms import ARMS, CLASSES, Task
from resnet_variants.speed.measure import COLUMNS, Plan, matmul_rate, peak_memory, table
from resnet_variants.terminal import cli
from resnet_variants.training.device import make_fabric

NAME = "rv_resnet8_cifar_b"
TASK = Task(
    functools.partial(rv.create_model, NAME, num_classes=CLASSES),
    batch_size=4,
    img_size=16,
    steps=2,
    device="cpu",
)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", ["ours", "lean", "plain", "timm"])
def test_every_arm_trains_on_a_whole_epoch_and_infers_without_training(name):
    arm = ARMS[name](TASK)
    training = getattr(arm, "training", arm)
    steps, optimizer = [], getattr(training.optimizer, "optimizer", training.optimizer)
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    states = [weights(training.model)]
    for work in (arm.epoch, arm.step, lambda: arm.infer(1), arm.data):
        work()
        states.append(weights(training.model))
    changed = [not torch.equal(*pair) for pair in itertools.pairwise(states)]
    assert changed == [True, True, False, False]
    assert states[-1].isfinite().all()
    assert len(steps) == TASK.steps + 1


def test_the_plain_loop_is_fp32_and_contiguous_whatever_the_others_are():
    plain, timm = ARMS["plain"](TASK), ARMS["timm"](TASK)
    assert plain.precision == "fp32"
    assert plain.batch[0].is_contiguous()
    assert timm.batch[0].is_contiguous(memory_format=torch.channels_last)


RATES = {
    ("ours", "step"): [40.0, 90.0, 60.0],
    ("plain", "step"): [10.0, 30.0, 20.0],
    ("ours", "latency"): [2.0, 4.0, 5.0],
    ("plain", "latency"): [1.0, 1.0, 1.0],
    ("matmul", "bf16"): [4e9, 3e9, 6e9],
    ("matmul", "fp32"): [2e9, 3e9, 2e9],
}


class Arm:
    device = torch.device("cpu")

    def __init__(self, precision):
        self.precision = precision


def test_the_table_is_medians_ranges_and_ratios_within_each_repeat(monkeypatch):
    arms = {"ours": Arm("bf16"), "plain": Arm("fp32")}
    monkeypatch.setattr(measure, "measure", lambda task, plan: (RATES, arms))
    plan = Plan(arms=("ours", "plain"), stages=("step", "latency"), repeats=3)
    rows = table(NAME, 10**6, TASK, plan, device_name="x", memory={("ours", "step"): 7.0})
    step, single = rows[rows["arm"] == "ours"].to_dict("records")
    assert (step["images_per_second"], step["images_per_second_low"]) == (60.0, 40.0)
    assert step["images_per_second_high"] == 90.0
    assert step["ratio_to_plain"] == 3.0  # of 4, 3, 3
    assert step["matmul_share"] == pytest.approx(6e6 * 60.0 / 6e9)  # of 0.06, 0.18, 0.06
    assert (step["stage"], step["batch_size"], step["peak_memory_mb"]) == ("step", 4, 7.0)
    assert (single["stage"], single["batch_size"], single["latency_ms"]) == ("inference", 1, 250.0)
    assert math.isnan(single["peak_memory_mb"])


def test_matrix_products_are_counted_as_two_operations_each(monkeypatch):
    monkeypatch.setattr(measure, "repeated", lambda work, device, seconds: 0.5)
    monkeypatch.setattr(measure, "_SIDES", {"cpu": 10})
    assert matmul_rate(torch.device("cpu"), "fp32") == 2 * 10**3 / 0.5


def test_peak_memory_is_a_process_of_its_own_above_its_imports():
    peaks = peak_memory(TASK, Plan(arms=("ours",), stages=("step", "inference")))
    assert peaks.keys() == {("ours", "step"), ("ours", "inference")}
    assert all(0 < peak < 2000 for peak in peaks.values())


def test_the_verb_shows_and_writes_the_table(tmp_path, capsys, monkeypatch):
    real = measure.repeated  # each is repeated for seconds
    monkeypatch.setattr(measure, "repeated", lambda work, device, _: real(work, device, 0.0))
    line = f"bench {NAME} --batch-size 4 --img-size 16 --steps 1 --repeats 2 --no-memory"
    status = cli.main([*line.split(), "--device", "cpu", "--out", str(tmp_path / "new")])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    rows = pd.read_csv(tmp_path / "new" / "bench.csv")
    assert list(rows.columns) == list(COLUMNS)
    assert set(rows["arm"]) == {"ours", "lean", "plain", "timm"}
    assert set(rows["stage"]) == {"step", "epoch", "data", "inference"}
    assert (rows["images_per_second"] > 0).all()
    assert (rows.loc[rows["arm"] == "plain", "ratio_to_plain"] == 1).all()
    assert "our data path takes" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bench resnet50", "--name: name 'resnet50' does not begin with rv_resnet<depth>"),
        ("bench --batch-size 0", "--batch-size: batch_size 0 must be from 1 to 65536"),
        ("bench --repeats 0", "--repeats: repeats 0 must be from 1"),
        ("bench --precision fp8", "--precision: unknown precision 'fp8'"),
        ("bench --device tpu", "--device: unknown device 'tpu'"),
        ("bench --out /proc/x", "--out: '/proc/x' cannot be written"),
    ],
)
def test_wrong_use_is_one_line(line, message, complaint):
    assert complaint(*line.split()).startswith(f"resnet-variants bench: {message}")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_a_step_finds_the_memory_that_the_one_before_freed():
    make_fabric(Machine(device="cpu"), "fp32")

    def faults(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(rounds):
            tensors = [torch.ones(5 * 2**20) for _ in range(3)]  # 20 MiB each: 5,120 pages
            del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults(2)
    # The system may take pages back while other processes need memory.
    assert min(faults(10) for _ in range(5)) < 5_000  # else 150,000
