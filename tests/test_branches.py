"""Branches: every activation order against figure 4 written out, attention, anti-aliasing."""

import itertools

import pytest
import torch
from nets import orders, trains
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
from resnet_variants.models.grids import expand
from resnet_variants.models.network import ResNet
from resnet_variants.models.shortcuts import SHORTCUTS, Change
from resnet_variants.models.stems import STEM_STRIDES, STEMS, ConvSpec
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

SMALL = {"family": "cifar", "depth": 8}


def variants(block, order, **axes):
    for choices in itertools.product(*axes.values()):
        fields = dict(zip(axes, choices, strict=True))
        if order not in orders(fields.get("shortcut")):
            continue
        yield Variant(family="cifar", **SIZES[block], order=order, **fields)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_orders_are_those_of_the_figure(block, order, change):
    for variant in variants(block, order, stride=STRIDES, shortcut=SHORTCUTS):
        assert_exact(variant, CHANGES[change])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_attention_and_drop_path_stand_right_before_the_addition(block, order, change):
    for variant in variants(block, order, attention=ATTENTIONS):
        assert_exact(variant, CHANGES[change], drop_path=0.5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_filter_reads_the_activated_output_of_the_strided_convolution(block, order):
    for variant in variants(block, order, antialias=ANTIALIASES, stride=STRIDES):
        assert_exact(variant, CHANGES["strided"])


@pytest.mark.parametrize("order", ORDERS)
def test_the_3x3_convolution_has_the_groups(order):
    for cardinality, base_width in ((4, 4), (2, 16), (1, 32), (16, 1)):
        groups = {"cardinality": [cardinality], "base_width": [base_width]}
        for variant in variants("bottleneck", order, **groups):
            assert_exact(variant, Change(32, 64, 2))
            unit = ResNet(variant, device="meta").layer1[0]
            assert unit.conv2.groups == cardinality
            assert unit.conv2.out_channels == cardinality * base_width
            assert (unit.conv1.groups, unit.conv3.groups) == (1, 1)


@pytest.mark.parametrize(("order", "other"), list(itertools.permutations(ORDERS, 2)))
def test_no_order_computes_what_another_does(order, other):
    unit, written = unit_pair(Variant(**SMALL, order=order), CHANGES["identity"])
    x = torch.randn(4, 16, 7, 7, dtype=torch.float64)
    assert (unit(x) - written.forward(order, x)).abs().max() < 1e-12
    assert (unit(x) - written.forward(other, x)).abs().max() > 1e-3


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
    model = ResNet(Variant(**SMALL, order=order))
    assert [name for name, _ in model.named_children()] == OUTSIDE[order].split()
    pooled = ResNet(Variant(**SMALL, order=order, stem_stride=4))
    names = OUTSIDE[order].replace("layer1", "maxpool layer1").split()
    assert [name for name, _ in pooled.named_children()] == names


@pytest.mark.parametrize("order", ORDERS)
def test_every_convolution_of_the_branch_is_normalised_and_activated_once(order):
    for depth, stem in itertools.product((8, 11, 20, 29), ("conv3", "deep")):
        variant = Variant(family="cifar", depth=depth, order=order, stem=stem)
        modules = [m for n, m in ResNet(variant).named_modules() if "downsample" not in n]
        counts = [
            sum(isinstance(m, kind) for m in modules)
            for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
        ]
        assert counts == [counts[0]] * 3


# --- anti-aliasing ----------------------------------------------------------------------------


@pytest.mark.parametrize("antialias", ANTIALIASES)
@pytest.mark.parametrize("stride", STRIDES)
def test_only_units_that_downsample_are_filtered(antialias, stride):
    model = ResNet(Variant(family="cifar", depth=29, antialias=antialias, stride=stride))
    filtered = {n.rpartition(".")[0] for n, _ in model.named_modules() if n.endswith(".aa")}
    assert filtered == (set() if antialias == "none" else {"layer2.0", "layer3.0"})
    strides = [m.stride for n, m in model.named_modules() if ".conv" in n]
    assert ((2, 2) in strides) == (antialias == "none")


def test_the_stem_pools_as_the_filter_says():
    x = torch.randn(2, 16, 9, 9)
    pools = {
        antialias: ResNet(Variant(**SMALL, stem_stride=4, antialias=antialias)).maxpool
        for antialias in ANTIALIASES
    }
    most = nn.functional.max_pool2d(x, 3, 1, 1)
    tent = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(16, 1, 3, 3) / 16
    blurred = nn.functional.conv2d(
        nn.functional.pad(most, (1, 1, 1, 1), mode="reflect"), tent, stride=2, groups=16
    )
    assert torch.equal(pools["none"](x), most[:, :, ::2, ::2])
    assert torch.allclose(pools["blur"](x), blurred)
    assert torch.allclose(pools["avg"](x)[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))
    assert {pool(x).shape for pool in pools.values()} == {(2, 16, 5, 5)}


# --- stems ------------------------------------------------------------------------------------

WIDTHS = {
    "conv7": [(64, 7)],
    "conv3": [(64, 3)],
    "deep": [(32, 3), (32, 3), (64, 3)],
    "deep_wide": [(64, 3), (64, 3), (128, 3)],
    "tiered": [(24, 3), (48, 3), (64, 3)],
    "tiered_narrow": [(24, 3), (32, 3), (64, 3)],
}


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stem_stride", STEM_STRIDES)
def test_stems_have_the_published_widths_and_the_stride_in_the_first_convolution(stem, stem_stride):
    model = ResNet(Variant(depth=14, stem=stem, stem_stride=stem_stride), device="meta")
    convs = [m for m in model.conv1.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0]) for c in convs] == WIDTHS[stem]
    first = 2 if stem_stride > 1 else 1
    assert [c.stride[0] for c in convs] == [first] + [1] * (len(convs) - 1)
    assert hasattr(model, "maxpool") == (stem_stride == 4)


# --- a new entry is all it takes --------------------------------------------------------------


def test_a_new_stem_is_one_function(monkeypatch):
    def patch_wise(width, stride):
        return [ConvSpec(width, 2 * stride - 1, stride)]

    monkeypatch.setitem(STEMS, "patch_wise", patch_wise)
    (variant,), _ = expand(SMALL | {"stem": "patch_wise", "stem_stride": 2})
    assert variant.name == "rv_resnet8_cifar_s2_patchwise_3x3_conv"
    assert trains(variant).conv1.kernel_size == (3, 3)


def test_a_new_order_is_one_line(monkeypatch):
    line = Order("act conv norm", "act conv norm +", head="act")
    monkeypatch.setitem(ORDERS, "relu_first", line)
    variant = Variant(family="cifar", depth=11, order="relu_first")
    assert variant.name == "rv_resnet11_cifar_b_relufirst"
    model = trains(variant)
    assert [name for name, _ in model.layer1[0].named_children()] == [
        *("act1", "downsample", "conv1", "bn1", "act2", "conv2", "bn2", "act3", "conv3", "bn3"),
        "drop_path",
    ]


PYRAMID = Order("norm act conv", "norm act conv norm +", stem="norm", head="norm act", project="")


def test_a_step_that_a_line_has_twice_runs_twice(monkeypatch):
    monkeypatch.setitem(ORDERS, "pyramid", PYRAMID)
    unit, _ = unit_pair(Variant(**SMALL, order="pyramid"), CHANGES["identity"])
    assert unit.steps == (
        *("bn1", "act1", "conv1", "bn2", "act2", "conv2", "bn2b", "drop_path", "+"),
    )
    for norm in (unit.bn1, unit.bn2, unit.bn2b):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    x = torch.randn(4, 16, 7, 7, dtype=torch.float64)
    y = unit.eval().conv1(unit.bn1(x).relu())
    y = unit.bn2b(unit.conv2(unit.bn2(y).relu()))
    assert torch.equal(unit(x), x + y)
    unit.zero_init_last()
    assert not unit.bn2b.weight.any() and unit.bn2.weight.all()
    assert trains(Variant(family="cifar", depth=11, order="pyramid")).layer1[0].bn3b


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
    assert [unit.num_features for unit in (model.layer2[0].bn3, model.layer2[0].bn3b)] == [32, 128]
    names = "conv1 act1 bn1 act1b layer1 layer2 layer3 act actb"
    assert model.body == (*names.split(),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"unit": "conv relu"}, "unknown word in the order's unit 'conv relu': 'relu'"),
        ({"unit": "conv +"}, "unknown word in the order's unit 'conv \\+': '\\+'"),
        ({"stem": "conv"}, "unknown word in the order's stem 'conv': 'conv'"),
        ({"head": "nrm act"}, "'nrm'; did you mean 'norm'"),
        ({"unit": "norm act"}, "the order's unit 'norm act' must hold conv, once"),
        ({"unit": "conv act conv"}, "must hold conv, once"),
        ({"last": "conv norm act"}, "must hold conv, then \\+, once"),
        ({"last": "conv + norm +"}, "must hold conv, then \\+, once"),
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


def test_a_new_attention_is_one_function(monkeypatch):
    def channel_wise(width, layers):
        return nn.Conv2d(width, width, 1, groups=width)

    monkeypatch.setitem(ATTENTIONS, "channel_wise", channel_wise)
    variant = Variant(**SMALL, attention="channel_wise")
    assert variant.name == "rv_resnet8_cifar_b_channelwise"
    assert trains(variant).layer1[0].se.groups == 16


def test_a_new_filter_is_one_entry(monkeypatch):
    def peak(width, stride, layers):
        return nn.MaxPool2d(stride, ceil_mode=True)

    monkeypatch.setitem(ANTIALIASES, "peak", AntiAlias("2x2 maximum", peak, keeps_max=False))
    variant = Variant(**SMALL, antialias="peak", stem_stride=4)
    assert variant.name == "rv_resnet8_cifar_s4_b_peak"
    assert isinstance(trains(variant).layer2[0].aa, nn.MaxPool2d)
