"""Two spellings are one variant exactly when they build one network."""

import random

import pytest
import torch
from nets import buildable, cells, forced, structure

from resnet_variants.models.branches import ORDERS
from resnet_variants.models.network import ResNet
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import AXES, Variant

BASIC = {"family": "cifar", "depth": 8}
NARROW = {"family": "cifar", "depth": 11}
IMAGENET = ({"depth": 10}, {"depth": 14})


def net(variant):
    return ResNet(variant, num_classes=3)


# --- two spellings, one network ---------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_basic_blocks_have_no_1x1_convolution_to_carry_the_stride(order):
    a, b = (Variant(**BASIC, stride=stride, order=order) for stride in ("1x1", "3x3"))
    assert a == b
    kernels = [m.kernel_size for n, m in net(b).layer2.named_modules() if n[2:5] == "con"]
    assert kernels == [(3, 3), (3, 3)]
    with pytest.raises(ValueError, match="not in"):
        net(forced(b, stride="1x1"))


def test_a_and_b_of_basic_blocks_share_a_name():
    a, b = (Variant(depth=18, stride=stride) for stride in ("1x1", "3x3"))
    assert a == b
    assert (a.name, a.aliases, a.preset) == ("rv_resnet18_b", ["rv_resnet18_a"], "B")
    a, b = (Variant(depth=50, stride=stride) for stride in ("1x1", "3x3"))
    assert (a.name, a.aliases, b.aliases) == ("rv_resnet50_a", [], [])
    assert structure(net(a)) != structure(net(b))


@pytest.mark.parametrize("size", [BASIC, NARROW], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["conv", "conv_all", "pad"])
def test_the_skip_function_conv_is_a_convolution_at_every_unit(size, shortcut):
    size = size | {"depth": size["depth"] + (6 if size is BASIC else 9)}
    variant = Variant(**size, shortcut=shortcut, skip="conv")
    assert variant == Variant(**size, shortcut="conv_all")
    model = net(variant)
    assert all(hasattr(unit, "downsample") for unit in [*model.layer1, *model.layer2])
    assert structure(net(forced(variant, skip="conv"))) == structure(model)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stem", STEMS)
def test_where_every_unit_changes_shape_conv_all_is_conv(stem, order):
    for size in (BASIC, NARROW, *IMAGENET):
        conv, every = (
            Variant(**size, stem=stem, order=order, shortcut=s) for s in ("conv", "conv_all")
        )
        modules = structure(net(conv))
        same = structure(net(forced(conv, shortcut="conv_all"))) == modules
        assert same == (conv == every), (size, stem)
        assert same == ("bottleneck" in conv.block or stem == "deep_wide")


def copy_in_order(source, target):
    """The n-th layer of each kind to the n-th of that kind: names differ between orders."""
    for kind in (torch.nn.Conv2d, torch.nn.Conv1d, torch.nn.BatchNorm2d, torch.nn.Linear):
        pairs = [[m for m in net.modules() if isinstance(m, kind)] for net in (source, target)]
        for one, other in zip(*pairs, strict=True):
            other.load_state_dict(one.state_dict())


def outputs(model, x):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.train()(x)


# --- two variants, two networks ---------------------------------------------------------------


def shared(variants):
    """Names of different variants that build the same modules."""
    found = {}
    for variant in variants:
        found.setdefault(structure(net(variant)), []).append(variant.name)
    return [names for names in found.values() if len(names) > 1]


GROUPS = [(1, 16), (1, 32), (1, 24), (4, 4), (2, 8), (2, 16), (16, 1)]


@pytest.mark.parametrize("depth", [8, 11])
def test_no_two_names_of_the_main_axes_stand_for_one_network(depth):
    axes = {axis: list(AXES[axis]) for axis in ("stem", "stride", "shortcut", "order")}
    axes |= {"family": ["cifar"], "depth": [depth], "stem_stride": list(STEM_STRIDES)}
    variants = cells(axes)
    assert len(variants) == {8: 348, 11: 576}[depth]
    assert shared(variants) == []


def test_no_two_names_that_differ_in_one_axis_stand_for_one_network():
    rng = random.Random(0)
    axes = {axis: list(table) for axis, table in AXES.items() if axis not in ("family", "block")}
    axes |= {"depth": [8, 11], "stem_stride": list(STEM_STRIDES), "groups": GROUPS}
    variants = {}
    while len(variants) < 800:
        centre = {axis: rng.choice(choices) for axis, choices in axes.items()}
        for axis, choices in axes.items():
            for choice in choices:
                row = centre | {axis: choice, "family": "cifar"}
                row["cardinality"], row["base_width"] = row.pop("groups")
                if buildable(row):
                    variants[Variant(**row)] = None
    assert shared(variants) == []


def test_the_comparison_sees_a_constant_and_a_flag():
    variant = Variant(**NARROW, skip="scale")
    one, other = net(variant), net(variant)
    assert structure(one) == structure(other)
    other.layer1[0].skip.factor = 0.25
    assert structure(one) != structure(other)
    other = net(variant)
    other.layer1[0].adds_in_place = False
    assert structure(one) != structure(other)
