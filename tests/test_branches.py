"""Residual units against the papers written out, and what a new entry of a table must say."""

import itertools

import pytest
import torch
from nets import PYRAMID, orders, trains
from reference import CHANGES, SIZES, assert_exact, unit_pair
from torch import nn

from resnet_variants.models.branches import (
    ANTIALIASES,
    ATTENTIONS,
    BLOCKS,
    ORDERS,
    STRIDES,
    AntiAlias,
    Order,
)
from resnet_variants.models.initial import zero_last
from resnet_variants.models.network import ResNet
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS, Change
from resnet_variants.models.stems import STEMS, ConvSpec
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

SMALL = {"family": "cifar", "depth": 8}


def variants(block, order, **axes):
    for choices in itertools.product(*axes.values()):
        fields = dict(zip(axes, choices, strict=True))
        if order in orders(fields.get("shortcut")):
            yield Variant(family="cifar", **SIZES[block], order=order, **fields)


# --- units ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_orders_are_those_of_the_figure(block, order):
    for variant in variants(block, order, stride=STRIDES, shortcut=SHORTCUTS):
        for change in CHANGES.values():
            assert_exact(variant, change)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_activations_take_relus_place_and_norms_may_be_left_out(block, order):
    axes = {"act": ["silu"], "norm": ["batch", "none"], "shortcut": SHORTCUTS}
    for variant in variants(block, order, **axes):
        for change in CHANGES.values():
            assert_exact(variant, change)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_attention_and_drop_path_stand_right_before_the_addition(block, order):
    for variant in variants(block, order, attention=ATTENTIONS):
        assert_exact(variant, CHANGES["strided"], drop_path=0.5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_skip_functions_are_those_of_the_table(block, order):
    # Table 1 of arXiv:1603.05027. They read the new channels of `pad`, which follow its shortcut.
    skips = [skip for skip in SKIPS if skip != "conv"]
    for variant in variants(block, order, skip=skips, shortcut=["conv", "pad"]):
        for change in CHANGES.values():
            assert_exact(variant, change, drop_path=0.5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_filter_reads_the_activated_output_of_the_strided_convolution(block, order):
    kinds = ["none"] if len(BLOCKS[block].kernels) == 1 else ANTIALIASES
    for variant in variants(block, order, antialias=kinds, stride=STRIDES):
        assert_exact(variant, CHANGES["strided"])


@pytest.mark.parametrize("order", ORDERS)
def test_the_3x3_convolution_has_the_groups(order):
    for cardinality, base_width in ((4, 4), (1, 32), (16, 1)):
        groups = {"cardinality": [cardinality], "base_width": [base_width]}
        for variant in variants("bottleneck", order, **groups):
            assert_exact(variant, Change(32, 64, 2))
            unit = ResNet(variant, device="meta").layer1[0]
            assert unit.conv2.out_channels == cardinality * base_width


# --- where an order shows outside the units ---------------------------------------------------

OUTSIDE = {
    "post": "conv1 bn1 act1 layer1 layer2 layer3 global_pool fc",
    "bn_after_add": "conv1 bn1 act1 layer1 layer2 layer3 global_pool fc",
    "relu_before_add": "conv1 bn1 act1 layer1 layer2 layer3 global_pool fc",
    "relu_preact": "conv1 bn1 layer1 layer2 layer3 act global_pool fc",
    "preact": "conv1 layer1 layer2 layer3 norm act global_pool fc",
}


@pytest.mark.parametrize("order", ORDERS)
def test_norm_and_activation_of_stem_and_head_follow_the_order(order):
    assert order in OUTSIDE, f"order {order!r} is new: write what is around the stages in OUTSIDE"
    model = ResNet(Variant(**SMALL, order=order, stem_stride=4))
    names = OUTSIDE[order].replace("layer1", "maxpool layer1").split()
    assert [name for name, _ in model.named_children()] == names


def test_the_tiered_stem_is_as_timm_documents_it():
    # Those of the other stems are compared with timm's networks: test_peers.
    stem = ResNet(Variant(depth=14, stem="tiered"), device="meta").conv1
    convs = [m for m in stem if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.stride) for c in convs] == [(24, (2, 2)), (48, (1, 1)), (64, (1, 1))]


# --- a new entry is all it takes --------------------------------------------------------------


def patch_wise(width, stride):
    return [ConvSpec(width, 2 * stride - 1, stride)]


def max_pool(change, layers):
    pool = nn.MaxPool2d(change.stride, ceil_mode=True)
    return [] if change.keeps_shape else [pool, layers.conv(change.w_in, change.w_out, 1)]


def norm_skip(width, layers):
    return {"skip": layers.norm(width)}


def channel_wise(width, layers):
    return nn.Conv2d(width, width, 1, groups=width)


def peak(width, stride, layers):
    return nn.MaxPool2d(stride, ceil_mode=True)


NEW = [
    ("stem", STEMS, patch_wise, "rv_resnet8_cifar_patchwise_3x3_conv"),
    ("shortcut", SHORTCUTS, max_pool, "rv_resnet8_cifar_conv3_3x3_maxpool"),
    ("skip", SKIPS, norm_skip, "rv_resnet8_cifar_b_normskip"),
    ("attention", ATTENTIONS, channel_wise, "rv_resnet8_cifar_b_channelwise"),
    (
        "antialias",
        ANTIALIASES,
        AntiAlias("2x2 maximum", peak, keeps_max=False),
        "rv_resnet8_cifar_b_peak",
    ),
]


@pytest.mark.parametrize(("axis", "registry", "entry", "name"), NEW, ids=[row[0] for row in NEW])
def test_a_new_choice_is_one_entry(axis, registry, entry, name, monkeypatch):
    choice = {"antialias": "peak"}.get(axis) or entry.__name__
    monkeypatch.setitem(registry, choice, entry)
    assert Variant(**SMALL, **{axis: choice}).name == name
    trains(Variant(**SMALL, **{axis: choice}, stem_stride=4))
    for order in ORDERS:
        model = trains(Variant(**SMALL, **{axis: choice}, order=order))
        norms = [m for m in model.layer2[0].downsample if isinstance(m, nn.BatchNorm2d)]
        assert bool(norms) == bool(ORDERS[order].project)


def test_a_new_order_is_one_line_that_may_have_a_step_twice(monkeypatch):
    monkeypatch.setitem(ORDERS, "pyramid", PYRAMID)
    variant = Variant(family="cifar", depth=11, order="pyramid")
    assert variant.name == "rv_resnet11_cifar_b_pyramid"
    assert trains(variant).layer1[0].bn3b
    unit, _ = unit_pair(Variant(**SMALL, order="pyramid"), CHANGES["identity"])
    for norm in (unit.bn1, unit.bn2, unit.bn2b):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    x = torch.randn(4, 16, 7, 7, dtype=torch.float64)
    y = unit.eval().conv1(unit.bn1(x).relu())
    y = unit.bn2b(unit.conv2(unit.bn2(y).relu()))
    assert torch.equal(unit(x), x + y)
    zero_last(unit)
    assert not unit.bn2b.weight.any() and unit.bn2.weight.all()


def test_widths_and_places_of_steps_that_a_line_has_twice(monkeypatch):
    line = Order(
        "norm act norm conv act", "norm conv act norm +", stem="act norm act", head="act act"
    )
    monkeypatch.setitem(ORDERS, "often", line)
    model = trains(Variant(family="cifar", depth=11, order="often"))
    assert model.layer2[0].steps == (
        *("bn1", "act1", "bn1b", "downsample", "conv1", "act1b", "bn2", "act2", "bn2b", "conv2"),
        *("act2b", "bn3", "conv3", "act3", "bn3b", "drop_path", "+"),
    )
    names = "conv1 act1 bn1 act1b layer1 layer2 layer3 act actb"
    assert model.body == (*names.split(),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"unit": "conv relu"}, "unknown word in the order's unit 'conv relu': 'relu'"),
        ({"stem": "conv"}, "unknown word in the order's stem 'conv': 'conv'"),
        ({"head": "nrm act"}, "'nrm'; did you mean 'norm'"),
        ({"unit": "conv act conv"}, "the order's unit 'conv act conv' must hold conv, once"),
        ({"last": "norm + conv"}, "must hold conv, then \\+, once"),
        ({"last": "norm +"}, "must hold conv, then \\+, once"),
        ({"project": "act"}, "unknown project 'act'"),
    ],
    ids=str,
)
def test_an_order_that_cannot_be_built_is_refused(line, message):
    with pytest.raises(UserError, match=message) as error:
        Order(**{"unit": "conv norm act", "last": "conv norm + act"} | line)
    assert error.value.field in line
