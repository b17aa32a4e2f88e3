"""torch.compile: where it pays, measured once and recorded."""

import json
from dataclasses import replace

import pytest
import torch

import resnet_variants as rv
from resnet_variants.data.dataset import load_dataset
from resnet_variants.training import compiler
from resnet_variants.training.compiler import Speeds, choose
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.loop import fit
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.timing import seconds_per_step


def make():
    torch.manual_seed(0)
    return rv.create_model("rv_resnet8_cifar_b", num_classes=10, in_chans=1)


DATA, RECIPE = load_dataset("digits"), Recipe(epochs=100)
CPU = make_fabric(Machine(device="cpu"), "fp32")


def chosen(asked="auto", recipe=RECIPE, fabric=CPU):
    return choose(make, "net", DATA, recipe, asked=asked, fabric=fabric)


def test_compiling_pays_once_the_steps_earn_it_back():
    speeds = Speeds(eager=0.2, compiled=0.1, compiling=10.0)
    assert [speeds.pays(steps) for steps in (1, 100, 101)] == [False, False, True]
    assert not Speeds(eager=0.1, compiled=0.1, compiling=0.1).pays(10**9)


def test_what_is_asked_for_is_done_and_cpus_do_not_compile_by_themselves():
    assert chosen("on")["used"] is True
    assert chosen("off")["used"] is False
    assert chosen()["why"] == "it does not pay on CPUs"
    assert chosen(recipe=replace(RECIPE, deterministic=True))["why"] == "deterministic"


class Gpu:
    """As much of Fabric on a GPU as the choice looks at."""

    device = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU on which a step takes a second, and a tenth of one when compiled."""
    asked = []

    def step(model, data, recipe, fabric, *, compiled):
        asked.append(compiled)
        return (0.1, 30.0) if compiled else (1.0, 0.0)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(compiler, "seconds_per_step", step)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return asked


def test_a_gpu_is_asked_once_per_network_and_batch(gpu, tmp_path):
    first = chosen(fabric=Gpu())
    assert first == {
        "used": True,
        "why": "measured",
        "eager": 1.0,
        "compiled": 0.1,
        "compiling": 30.0,
    }
    assert gpu == [False, True]
    assert chosen(fabric=Gpu()) == first
    assert gpu == [False, True]
    chosen(fabric=Gpu(), recipe=replace(RECIPE, batch_size=64))
    assert gpu == [False, True] * 2
    kept = json.loads((tmp_path / "resnet_variants" / "compile.json").read_text())
    assert len(kept) == 2


def test_a_short_run_is_not_measured_any_further(gpu):
    short = chosen(fabric=Gpu(), recipe=replace(RECIPE, epochs=1))
    assert (short["used"], short["why"], gpu) == (False, "too short a run", [False])


def test_a_step_is_timed_and_the_training_data_suffice():
    eager, _ = seconds_per_step(make(), DATA, RECIPE, CPU, compiled=False)
    assert 0 < eager < 10


@pytest.mark.slow
def test_compiled_training_learns_the_same():
    recipe = Recipe(epochs=1, batch_size=64, precision="fp32")
    few = replace(DATA, train=DATA.train.head(256))
    losses = [
        next(fit(make(), few, recipe, seed=0, fabric=CPU, compiled=compiled)).train_loss
        for compiled in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
