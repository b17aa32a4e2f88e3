"""Beside timm's twin of the same network: the memory and the operations of a training step."""

import subprocess
import sys

import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import resnet_variants  # noqa: F401  registers the names


class Count(TorchDispatchMode):
    """Counts the operations that torch runs."""

    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def training_step(name):
    """Bytes that a forward pass keeps for the backward pass, and operations of both."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model = timm.create_model(name).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), Count() as count:
        out = model(torch.randn(2, 3, 64, 64))
        memory = sum(kept.values())
        out.sum().backward()
    return memory, count.operations


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("rv_resnet18_b", "resnet18"),
        ("rv_resnet26_d", "resnet26d"),
        ("rv_resnet18_b_preact", "resnetv2_18"),
        ("rv_resnext50_32x4d_b", "resnext50_32x4d"),
        ("rv_resnet18_b_se", "seresnet18"),
    ],
)
def test_a_training_step_takes_no_more_memory_and_operations_than_timms(ours, theirs):
    assert all(a <= b for a, b in zip(training_step(ours), training_step(theirs), strict=True))


def test_importing_builds_no_network():
    count = "import torch; made = []; torch.nn.Conv2d.__init__ = lambda *a, **k: made.append(a)"
    code = f"import timm; {count}; import resnet_variants as rv; rv.list_models(); assert not made"
    subprocess.run([sys.executable, "-c", code], check=True)
