"""What a training step does, and what it does not: wait for the device."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import resnet_variants as rv
from resnet_variants.data.dataset import load_dataset
from resnet_variants.training.device import Machine, make_fabric
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import Trainer

DATA = load_dataset("digits")


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its device: a number asked of a tensor."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "_assert_async")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in self.KINDS:
            self.found.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def training(**settings):
    recipe = Recipe(batch_size=16, precision="bf16", **settings)
    model = rv.create_model("rv_resnet8_cifar_b", num_classes=10, in_chans=1)
    fabric = make_fabric(Machine(device="cpu"), "bf16")
    return Trainer(model, replace(DATA, mirror=True), recipe, seed=0, fabric=fabric)


EVERYTHING = {
    "plain": {},
    "mixed": {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
    "cut": {"crop_area": 0.3, "color_jitter": 0.4, "cutout": 0.5, "size_start": 0.5},
    "averaged": {"ema": 0.9, "clip_grad": 1.0, "accumulate": 2, "flip": "alternating"},
    "one cycle": {"schedule": "onecycle"},
    # AdamW and LAMB are left out: their step counters, which are asked for, are on the host.
    "binary": {"loss": "binary", "decay": "all", "schedule": "step", "optimizer": "sgd"},
}


@pytest.mark.parametrize("settings", EVERYTHING.values(), ids=EVERYTHING)
def test_no_step_waits_for_the_device(settings):
    one = training(**settings)
    steps = one.rest_of_epoch()
    next(steps)  # optimizers set themselves up in their first step
    with Waits() as waits:
        for _ in range(3):
            next(steps)
    assert waits.found == []


def test_a_wait_would_be_seen():
    with Waits() as waits:
        torch.ones(3).sum().item()
    assert waits.found == ["_local_scalar_dense"]
