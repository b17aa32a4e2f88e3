"""Shortcuts and functions of the shortcut, against the papers written out."""

import pytest
import torch
from nets import trains
from reference import CHANGES, SIZES, assert_exact, mean_2x2, unit_pair
from torch import nn

import resnet_variants as rv
from resnet_variants.models.branches import BLOCKS, ORDERS
from resnet_variants.models.layers import Layers
from resnet_variants.models.network import ResNet
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS, Change
from resnet_variants.models.variant import Variant

SMALL = {"family": "cifar", "depth": 8}
CARRYING = [shortcut for shortcut in SHORTCUTS if shortcut != "none"]


# --- functions of the shortcut: table 1 of arXiv:1603.05027 -------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("skip", [skip for skip in SKIPS if skip != "conv"])
@pytest.mark.parametrize("block", BLOCKS)
def test_skip_functions_are_those_of_the_table(block, skip, order):
    for shortcut in CARRYING:
        variant = Variant(family="cifar", **SIZES[block], order=order, skip=skip, shortcut=shortcut)
        for change in CHANGES.values():
            assert_exact(variant, change)


@pytest.mark.parametrize("skip", SKIPS)
def test_drop_path_leaves_out_the_scaled_branch(skip):
    assert_exact(Variant(**SMALL, skip=skip), CHANGES["strided"], drop_path=0.5)


def sums(skip, gate):
    """The unit's output at a gate held open or shut, for branch 3 and shortcut 2."""
    unit, _ = unit_pair(Variant(**SMALL, skip=skip, order="preact"), CHANGES["identity"])
    for parameter in unit.parameters():
        nn.init.zeros_(parameter)
    unit.conv2 = nn.Conv2d(16, 16, 1, dtype=torch.float64)
    nn.init.zeros_(unit.conv2.weight)
    nn.init.constant_(unit.conv2.bias, 3)
    for name, bias in unit.named_parameters():
        if name in ("gate.conv.bias", "skip.conv.bias"):
            nn.init.constant_(bias, gate)
    return unit.eval()(torch.full((2, 16, 4, 4), 2.0, dtype=torch.float64)).unique().tolist()


@pytest.mark.parametrize(
    ("skip", "open_gate", "shut_gate"),
    [
        ("identity", 5, 5),
        ("scale", 4, 4),
        ("scale_both", 2.5, 2.5),
        ("exclusive_gate", 3, 2),
        ("shortcut_gate", 3, 5),
        ("dropout", 5, 5),
    ],
)
def test_an_open_gate_passes_the_branch_and_a_shut_one_the_shortcut(skip, open_gate, shut_gate):
    assert sums(skip, gate=100.0) == pytest.approx([open_gate])
    assert sums(skip, gate=-100.0) == pytest.approx([shut_gate])


def test_skip_functions_act_at_every_unit():
    for skip in ("scale", "shortcut_gate", "dropout"):
        units = ResNet(Variant(family="cifar", depth=20, skip=skip)).layer2
        assert all(hasattr(unit, "skip") for unit in units)


# --- shortcuts --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shortcut", CARRYING)
def test_only_projections_that_are_added_to_a_norm_take_one(shortcut, order):
    variant = Variant(family="cifar", depth=20, shortcut=shortcut, order=order)
    layers = ResNet(variant).layer2[0].downsample
    convs, norms = (
        [m for m in layers if isinstance(m, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d)
    )
    assert len(convs) == (shortcut != "pad")
    assert len(norms) == (shortcut != "pad" and order not in ("bn_after_add", "preact"))


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_units_that_keep_their_shape_have_the_identity_but_for_conv_all(shortcut):
    model = ResNet(Variant(family="cifar", depth=20, shortcut=shortcut))
    units = [unit for stage in (model.layer1, model.layer2, model.layer3) for unit in stage]
    changed = [hasattr(unit, "downsample") for unit in units]
    wanted = {
        "conv_all": [True] * 9,
        "none": [False] * 9,
    }.get(shortcut, [i in (3, 6) for i in range(9)])
    assert changed == wanted


def beside(shortcut, change):
    return nn.Sequential(*SHORTCUTS[shortcut](change, Layers()))


def test_option_a_subsamples_and_adds_zero_channels_after_the_others():
    x = torch.randn(2, 3, 5, 5)
    padded = beside("pad", Change(3, 8, 2))(x)
    assert torch.equal(padded[:, :3], x[:, :, ::2, ::2])
    assert padded.shape == (2, 8, 3, 3)
    assert not padded[:, 3:].any()
    model = ResNet(Variant(family="cifar", depth=20, shortcut="pad"))
    plain = ResNet(Variant(family="cifar", depth=20, shortcut="none"))
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("side", [1, 2, 5, 6])
def test_the_mean_of_an_odd_map_counts_no_padding(side):
    x = torch.randn(2, 3, side, side)
    pool, conv = beside("avgpool", Change(3, 8, 2))
    assert torch.allclose(pool(x), mean_2x2(x))
    assert (conv.stride, conv.kernel_size) == ((1, 1), (1, 1))
    assert torch.equal(pool(torch.ones(1, 3, side, side)), torch.ones_like(pool(x)[:1]))


def test_the_mean_keeps_the_map_where_only_width_changes():
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(beside("avgpool", Change(3, 8, 1))[0](x), x)


def test_a_wide_stem_gets_narrower_in_any_shortcut_that_projects():
    for shortcut in ("conv", "avgpool", "conv_all"):
        model = rv.create_model(Variant(**SMALL, stem="deep_wide", shortcut=shortcut))
        assert model.layer1[0].downsample[-2].in_channels == 32
        assert model(torch.randn(2, 3, 9, 9)).isfinite().all()


def test_dilation_keeps_every_pixel():
    change = Change(3, 8, 1, dilation=2)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(beside("pad", change)(x)[:, :3], x)
    mean, _ = beside("avgpool", change)
    # As timm's: here the border's zeros count, where the strided mean leaves them out.
    zeros = nn.functional.pad(x, (0, 1, 0, 1))
    assert torch.allclose(mean(x), nn.functional.avg_pool2d(zeros, 2, 1))


# --- a new entry is all it takes --------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_a_new_shortcut_is_one_function(monkeypatch, order):
    def max_pool(change, layers):
        if change.keeps_shape:
            return []
        pool = nn.MaxPool2d(change.stride, ceil_mode=True)
        return [pool, layers.conv(change.w_in, change.w_out, 1)]

    monkeypatch.setitem(SHORTCUTS, "max_pool", max_pool)
    variant = Variant(**SMALL, shortcut="max_pool", order=order)
    suffix = "" if order == "post" else "_" + order.replace("_", "")
    assert variant.name == "rv_resnet8_cifar_conv3_3x3_maxpool" + suffix
    downsample = trains(variant).layer2[0].downsample
    assert len(downsample) == (2 if order in ("bn_after_add", "preact") else 3)


@pytest.mark.parametrize("order", ORDERS)
def test_a_new_skip_function_is_one_function(monkeypatch, order):
    def norm_skip(width, layers):
        return {"skip": layers.norm(width)}

    monkeypatch.setitem(SKIPS, "norm_ed", norm_skip)
    variant = Variant(**SMALL, skip="norm_ed", order=order)
    assert variant.name.endswith("_normed")
    assert isinstance(trains(variant).layer1[0].skip, nn.BatchNorm2d)
    with pytest.raises(ValueError, match="skip 'norm_ed' acts on a shortcut"):
        Variant(**SMALL, skip="norm_ed", shortcut="none")
