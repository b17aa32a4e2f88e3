"""Beside timm's twin of the same network: memory, and time to build, run and train."""

import statistics
import subprocess
import sys
import time

import pytest
import timm
import torch
from torch import nn

import resnet_variants  # noqa: F401  registers the names

TWINS = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("rv_resnet18_b", "resnet18"),
        ("rv_resnet50_d", "resnet50d"),
        ("rv_resnet50_b_preact", "resnetv2_50"),
        ("rv_resnext50_32x4d_b", "resnext50_32x4d"),
        ("rv_resnet50_b_se", "seresnet50"),
    ],
)


def kept_for_backward(name):
    """Bytes that a training forward pass keeps, each storage once."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model = timm.create_model(name).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(torch.randn(2, 3, 64, 64))
    return sum(kept.values()), out


@TWINS
def test_a_training_step_keeps_no_more_than_timms(ours, theirs):
    assert kept_for_backward(ours)[0] <= kept_for_backward(theirs)[0]


def seconds(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ratio(ours, theirs, pairs):
    """Median of paired times, in alternating order."""
    found = []
    for i in range(pairs):
        first, second = (ours, theirs) if i % 2 else (theirs, ours)
        a, b = seconds(first), seconds(second)
        found.append(a / b if i % 2 else b / a)
    return statistics.median(found)


def trainer(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, labels = torch.randn(8, 3, 96, 96), torch.randint(0, 1000, (8,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def runner(model):
    x = torch.randn(8, 3, 96, 96)
    return torch.inference_mode()(lambda: model(x))


@pytest.mark.slow
@TWINS
def test_building_running_and_training_take_no_longer_than_timms(ours, theirs):
    def build(name):
        return lambda: timm.create_model(name)

    assert ratio(build(ours), build(theirs), 9) <= 1.2
    pair = [timm.create_model(name) for name in (ours, theirs)]
    assert ratio(*(trainer(model.train()) for model in pair), 31) <= 1.02
    assert ratio(*(runner(model.eval()) for model in pair), 61) <= 1.02


# CPU time: other processes of the machine do not count.
IMPORT = "import time, timm; t = time.process_time(); import {}; print(time.process_time() - t)"


def test_importing_adds_little_to_timm_and_builds_no_network():
    count = "import torch; made = []; torch.nn.Conv2d.__init__ = lambda *a, **k: made.append(a)"
    code = f"import timm; {count}; import resnet_variants as rv; rv.list_models(); assert not made"
    subprocess.run([sys.executable, "-c", code], check=True)
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", IMPORT.format("resnet_variants")],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for _ in range(3)
    ]
    assert min(times) <= 0.3
