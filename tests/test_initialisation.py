"""Initialisation: Kaiming's deviation, norms and branches that start as the identity, gates."""

import math

import pytest
import torch
from torch import nn

from resnet_variants.models.branches import ATTENTIONS, BLOCKS, ORDERS
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant

# Two units in a stage: the second of the first stage has an identity shortcut.
DEPTHS = {"basic": 14, "bottleneck": 20}


def small(block="basic", **fields):
    return Variant(family="cifar", depth=DEPTHS[block], block=block, **fields)


def after_the_addition(order, x):
    """What an order does to a sum: nothing, or what stands after the ``+``."""
    if order == "bn_after_add":
        return nn.functional.batch_norm(x, None, None, training=True).relu()
    return x.relu() if order == "post" else x


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("order", [order for order in ORDERS if order != "relu_before_add"])
@pytest.mark.parametrize("block", BLOCKS)
def test_zeroed_units_start_as_the_identity_and_nothing_in_them_is_dead(block, order, attention):
    variant = small(block, order=order, attention=attention)
    model = ResNet(variant, num_classes=5, zero_init_last=True).train()
    zeroed, usual = model.layer2[1], ResNet(variant).train().layer2[1]
    x = torch.randn(4, zeroed.conv1.in_channels, 9, 9)
    assert torch.equal(zeroed(x), after_the_addition(order, x))
    assert not torch.allclose(usual(x), after_the_addition(order, x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 3, 17, 17), torch.arange(8) % 5
    dead = {name for name, _ in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        dead -= {n for n, p in model.named_parameters() if p.grad.any()}
    assert dead == set()


def deviation(conv, fan):
    """Of Kaiming-normal weights: sqrt(2 / fan), arXiv:1502.01852, equations 10 and 14."""
    channels = conv.in_channels if fan == "fan_in" else conv.out_channels
    return math.sqrt(2 / (channels * conv.kernel_size[0] ** 2))


@pytest.mark.parametrize("fan", ["fan_out", "fan_in"])
def test_convolutions_start_kaiming_normal_by_either_fan(fan):
    model = ResNet(Variant(depth=26, order="preact"), init_fan=fan)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 30_000]
    assert len(convs) > 20
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(deviation(conv, fan), rel=0.03)
        assert conv.bias is None


def test_without_norms_all_convolutions_have_a_bias_that_starts_at_zero():
    model = ResNet(small(norm="none"))
    assert not [name for name, _ in model.named_modules() if "bn" in name]
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 15
    assert not any(conv.bias.any() for conv in convs)


@pytest.mark.parametrize(("norm", "eps"), [("batch", 1e-5), ("group", 1e-5), ("layer", 1e-6)])
def test_norms_start_as_the_identity_with_the_usual_constants(norm, eps):
    norms = [m for m in ResNet(small(norm=norm)).modules() if hasattr(m, "eps")]
    assert len(norms) == 15
    assert {(m.eps, getattr(m, "momentum", 0.1)) for m in norms} == {(eps, 0.1)}
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


@pytest.mark.parametrize("skip", ["exclusive_gate", "shortcut_gate"])
def test_gates_start_at_their_bias(skip):
    for arguments, bias in (({}, -6), ({"gate_bias": 0.0}, 0), ({"gate_bias": 2}, 2)):
        model = ResNet(small(skip=skip), **arguments)
        biases = [p for n, p in model.named_parameters() if n.endswith("conv.bias")]
        assert len(biases) == 6
        assert all((p == bias).all() for p in biases)
