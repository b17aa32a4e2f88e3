"""Initialisation: Kaiming's deviation, norms and branches that start as the identity, gates."""

import itertools
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from resnet_variants.models.branches import ATTENTIONS, BLOCKS, ORDERS
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant

# Two units in a stage: the second of the first stage has an identity shortcut.
DEPTHS = {"basic": 14, "bottleneck": 20, "basic1": 8, "basic3": 20, "basic4": 26}


def small(block="basic", **fields):
    return Variant(family="cifar", depth=DEPTHS[block], block=block, **fields)


def after_the_addition(variant, x):
    """What an order does to a sum: nothing, or what stands after the ``+``."""
    if variant.order == "bn_after_add":
        return nn.functional.batch_norm(x, None, None, training=True).relu()
    return x.relu() if variant.order == "post" else x


# Networks whose branches start at zero.
ZEROED = [
    *({"branch_scale": "zero_gamma", "attention": attention} for attention in ATTENTIONS),
    {"branch_scale": "zero_gamma", "norm": "group"},
    *({"branch_scale": "skipinit", "norm": norm} for norm in ("batch", "none")),
    {"branch_scale": "fixup", "norm": "none"},
]
ZERO_CELLS = [
    small(block, order=order, **axes)
    for block, order, axes in itertools.product(BLOCKS, ORDERS, ZEROED)
    if axes["branch_scale"] == "skipinit" or order != "relu_before_add"
    if axes.get("norm") != "group" or order != "bn_after_add"
]


@pytest.mark.parametrize("variant", dict.fromkeys(ZERO_CELLS), ids=lambda variant: variant.name)
def test_zeroed_units_start_as_the_identity_and_nothing_in_them_is_dead(variant):
    model = ResNet(variant, num_classes=5).train()
    usual = ResNet(replace(variant, branch_scale="none")).train().layer2[1]
    zeroed = model.layer2[1]
    x = torch.randn(4, zeroed.conv1.in_channels, 9, 9)
    assert torch.equal(zeroed(x), after_the_addition(variant, x))
    assert not torch.allclose(usual(x), after_the_addition(variant, x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 3, 17, 17), torch.arange(8) % 5
    dead = {name for name, _ in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        dead -= {n for n, p in model.named_parameters() if p.grad.any()}
    assert dead == set()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_units_with_layer_scale_start_1e_5_branches_away_from_the_identity(norm, order):
    unit = ResNet(small(order=order, norm=norm, branch_scale="layerscale")).double().layer2[1]
    x = torch.randn(4, 32, 9, 9, dtype=torch.float64)
    branches = []
    unit.drop_path.register_forward_hook(lambda _, args, out: branches.append(out.clone()))
    unit(x.clone())
    nn.init.ones_(unit.branch_scale.gamma)
    unit(x.clone())
    scaled, branch = branches
    assert torch.allclose(scaled, 1e-5 * branch, rtol=1e-6, atol=0)
    assert 1e-6 < scaled.norm() / x.norm() < 1e-4


@pytest.mark.parametrize("order", [order for order in ORDERS if order != "relu_before_add"])
def test_zero_init_last_is_zero_gamma(order):
    states = []
    for scale, arguments in (("zero_gamma", {}), ("none", {"zero_init_last": True})):
        torch.manual_seed(0)
        variant = small(order=order, branch_scale=scale)
        states.append(ResNet(variant, **arguments).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("block", BLOCKS)
def test_fixup_shrinks_all_convolutions_of_a_branch_but_the_last_which_is_zero(block):
    states = []
    for scale in ("fixup", "none"):
        torch.manual_seed(0)
        states.append(ResNet(small(block, norm="none", branch_scale=scale)).state_dict())
    factors = {"basic": 6 ** (-1 / 2), "bottleneck": 6 ** (-1 / 4), "basic1": None}
    factors |= {"basic3": 6 ** (-1 / 4), "basic4": 6 ** (-1 / 6)}  # of six branches
    last, factor = f"conv{len(BLOCKS[block].kernels)}", factors[block]
    for name, own in states[0].items():
        branch = re.search(r"layer\d\.\d\.(conv\d)\.weight", name)
        share = (0 if branch[1] == last else factor) if branch else 1
        assert torch.allclose(own, share * states[1][name], rtol=1e-5, atol=0)


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


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_norm_over_positions_subtracts_the_bias_before_it(norm):
    """Batch norm all of it, group norm what is common to a group."""
    model = ResNet(Variant(family="cifar", depth=8, norm=norm), conv_bias=True).double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    before = model(x)
    biases = [module.bias for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert biases and not any(bias.any() for bias in biases)
    for bias in biases:
        torch.nn.init.constant_(bias, 0.7) if norm == "group" else torch.nn.init.normal_(bias)
    assert torch.allclose(model(x), before, atol=1e-4)
