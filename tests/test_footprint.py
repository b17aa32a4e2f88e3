"""Beside timm's twin of the same network: the memory of a training step."""

import pytest
import timm
import torch

import resnet_variants  # noqa: F401  registers the names


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


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("rv_resnet18_b", "resnet18"),
        ("rv_resnet50_d", "resnet50d"),
        ("rv_resnet50_b_preact", "resnetv2_50"),
        ("rv_resnext50_32x4d_b", "resnext50_32x4d"),
        ("rv_resnet50_b_se", "seresnet50"),
    ],
)
def test_a_training_step_keeps_no_more_than_timms(ours, theirs):
    assert kept_for_backward(ours)[0] <= kept_for_backward(theirs)[0]
