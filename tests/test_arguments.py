"""The arguments of a model: each is seen in the network, and bad ones are refused in one line."""

import itertools
import math
import re
from dataclasses import fields

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import failures, structure
from timm.layers import DropBlock2d, DropPath, GroupNorm
from torch import nn

import resnet_variants as rv
from resnet_variants.models.arguments import LARGEST, ModelArgs
from resnet_variants.models.branches import ATTENTIONS, BLOCKS, ORDERS
from resnet_variants.models.layers import Layers
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

GATED = Variant(family="cifar", depth=11, stem_stride=4, skip="exclusive_gate")
DEPTHS = {"basic": 20, "bottleneck": 29}


def small(block="basic", **fields):
    return Variant(family="cifar", depth=DEPTHS[block], **fields)


# --- every argument does something --------------------------------------------------------------


def seen(variant, **model_args):
    """All that an argument could change: modules, tensors, and what they compute in training."""
    torch.manual_seed(0)
    model = ResNet(variant, **model_args)
    tensors = [(n, t.device.type, t.dtype, t.shape) for n, t in model.state_dict().items()]
    first = next(model.parameters())
    if first.is_meta:
        return structure(model), tensors
    x = torch.randn(4, model.in_chans, 33, 33, dtype=first.dtype)
    return structure(model), tensors, model(x).tolist(), model(x).tolist()


OTHERS = {
    "num_classes": 7,
    "in_chans": 1,
    "global_pool": "max",
    "output_stride": 8,
    "drop_rate": 0.5,
    "drop_path_rate": 0.5,
    "drop_block_rate": 0.5,
    "norm_layer": "group",
    "act_layer": "silu",
    "zero_init_last": True,
    "init_fan": "fan_in",
    "head": "bn_linear",
    "gate_bias": 0.0,
    "device": "meta",
    "dtype": torch.float64,
}


@pytest.mark.parametrize("field", [field.name for field in fields(ModelArgs)])
def test_no_argument_is_a_dead_knob(field):
    default = next(f.default for f in fields(ModelArgs) if f.name == field)
    own = seen(GATED)
    assert seen(GATED, **{field: default}) == own
    assert seen(GATED, **{field: OTHERS[field]}) != own


def test_drop_rates_are_off_in_evaluation():
    x = torch.randn(4, 3, 33, 33)
    rates = {"drop_rate": 0.5, "drop_path_rate": 0.5, "drop_block_rate": 0.5}
    plain, dropping = ResNet(GATED), ResNet(GATED, **rates)
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    assert not torch.equal(dropping.train()(x), dropping(x))


# --- norms and activations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (16, 8), (32, 16), (64, 32), (128, 32), (2048, 32)],
)
def test_group_norm_has_32_groups_of_two_channels_or_more(width, groups):
    assert Layers("group").norm(width).num_groups == groups


@given(st.integers(1, 5000))
def test_groups_divide_any_width(width):
    groups = Layers("group", device="meta").norm(width).num_groups
    assert width % groups == 0
    assert width // groups >= min(2, width)


@pytest.mark.parametrize("order", ORDERS)
def test_group_norm_replaces_every_norm(order):
    model = ResNet(small(order=order, stem="deep"), norm_layer="group")
    kinds = {type(m) for m in model.modules()}
    assert GroupNorm in kinds
    assert not any(issubclass(kind, nn.BatchNorm2d) for kind in kinds)


def test_group_norm_does_not_see_the_batch():
    model = ResNet(small(), norm_layer="group").train()
    x = torch.randn(4, 3, 17, 17)
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)


ACTIVATIONS = ["silu", "gelu", "leaky_relu", "elu", "mish", "hard_swish"]


@pytest.mark.parametrize("act_layer", ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_an_activation_stands_wherever_relu_did(order, act_layer):
    variant = small("bottleneck", order=order, stem="deep")
    relu, other = ResNet(variant), ResNet(variant, act_layer=act_layer)
    relus = [n for n, m in relu.named_modules() if isinstance(m, nn.ReLU)]
    kind = type(timm.layers.create_act_layer(act_layer))
    assert [n for n, m in other.named_modules() if type(m) is kind] == relus
    other(torch.randn(2, 3, 9, 9)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in other.parameters())


@pytest.mark.parametrize("place", [{"device": "meta"}, {"dtype": torch.float64}], ids=repr)
@pytest.mark.parametrize(
    ("argument", "choice"),
    [("norm_layer", "batch"), ("norm_layer", "group"), ("act_layer", "silu")],
)
def test_every_tensor_is_where_it_was_asked_for(argument, choice, place):
    for attention, skip in itertools.product(ATTENTIONS, ("shortcut_gate", "dropout")):
        variant = small(attention=attention, skip=skip, antialias="blur")
        model = ResNet(variant, **{argument: choice}, **place)
        tensors = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        wanted = (place.get("device", "cpu"), place.get("dtype", torch.float32))
        assert {(t.device.type, t.dtype) for t in tensors} == {wanted}


# --- stochastic depth and DropBlock -----------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("depth", "units"), [(8, 3), (11, 3), (20, 9)])
def test_drop_path_rises_linearly_to_its_rate(depth, units, order):
    model = ResNet(Variant(family="cifar", depth=depth, order=order), drop_path_rate=0.4)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.4 * i / (units - 1) for i in range(1, units)])


def blocks_dropped(model):
    return [
        (name, m.drop_prob, m.block_size, m.gamma_scale)
        for name, m in model.named_modules()
        if isinstance(m, DropBlock2d)
    ]


@pytest.mark.parametrize("depth", [18, 26])
def test_drop_block_stands_where_timm_has_it(depth):
    ours = blocks_dropped(ResNet(Variant(depth=depth), drop_block_rate=0.1, device="meta"))
    peer = timm.create_model(f"resnet{depth}", drop_block_rate=0.1, device="meta")
    assert ours == blocks_dropped(peer)
    assert {(name[:6], *rest) for name, *rest in ours} == {
        ("layer3", 0.1, 5, 0.25),
        ("layer4", 0.1, 3, 1.0),
    }


@pytest.mark.parametrize(
    ("shortcut", "order"), [*(("conv", order) for order in ORDERS), ("none", "post")]
)
@pytest.mark.parametrize("block", BLOCKS)
def test_drop_block_reads_what_follows_the_first_3x3_in_the_last_two_stages(block, shortcut, order):
    variant = small(block, order=order, shortcut=shortcut)
    found = blocks_dropped(ResNet(variant, drop_block_rate=0.2))
    units = {"basic": 3, "bottleneck": 3}[block]
    assert [rest for _, *rest in found] == [[0.2, 5, 0.25]] * units + [[0.2, 3, 1.0]] * units
    assert [name[:6] for name, *_ in found] == ["layer2"] * units + ["layer3"] * units
    names = [name for name, _ in ResNet(variant, drop_block_rate=0.2).layer2[1].named_children()]
    at = names.index("drop_block")
    assert names[at + 1].startswith("act")
    assert {"basic": "conv1", "bottleneck": "conv2"}[block] in names[at - 2 : at]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_classes", -1, f"num_classes -1 must be from 0 to {LARGEST}"),
        ("num_classes", LARGEST + 1, "must be from 0"),
        ("in_chans", 0, f"in_chans 0 must be from 1 to {LARGEST}"),
        ("output_stride", 3, "unknown output_stride 3; choices: 1, 2, 4, 8, 16, 32"),
        ("output_stride", 2, "output_stride 2 is below the stem's stride 4"),
        ("drop_rate", 1, "drop_rate 1 must be at least 0 and below 1"),
        ("drop_path_rate", -0.1, "drop_path_rate -0.1 must be at least 0 and below 1"),
        ("drop_block_rate", 1.5, "drop_block_rate 1.5 must be at least 0 and below 1"),
        ("drop_rate", math.nan, "drop_rate nan must be at least 0 and below 1"),
        ("norm_layer", "layer", "unknown norm_layer 'layer'; choices: batch, group"),
        (
            "norm_layer",
            nn.BatchNorm2d,
            "norm_layer <class 'torch.nn.modules.batchnorm.BatchNorm2d'> must be of type str",
        ),
        ("init_fan", "fan", "unknown init_fan 'fan'; did you mean 'fan_in'?"),
        ("act_layer", "rely", "unknown act_layer 'rely': timm has none of that name"),
        ("act_layer", "", "unknown act_layer ''"),
        ("act_layer", "prelu", "act_layer 'prelu' has parameters"),
        ("global_pool", "median", "global_pool"),
        ("gate_bias", math.nan, "gate_bias nan"),
        ("gate_bias", math.inf, "gate_bias inf"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_argument(field, value, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        ResNet(GATED, **{field: value})
    assert error.value.field == field
    assert len(str(error.value).splitlines()) == 1


CONFIGURED = [field for field in OTHERS if field not in ("device", "dtype")]


@pytest.mark.parametrize("field", CONFIGURED)
def test_a_value_of_another_type_is_one_line_that_names_the_argument(field):
    def check(value):
        with pytest.raises(UserError, match=field) as error:
            ResNet(GATED, **{field: value})
        assert error.value.field == field
        assert len(str(error.value).splitlines()) == 1

    kind = type(getattr(ModelArgs, field))
    values = [value for value in (True, None, "0.5", 2.5, [0.5]) if type(value) is not kind]
    assert failures(check, values) == {}


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        (
            {"order": "relu_before_add"},
            {"zero_init_last": True},
            "zero_init_last: in order 'relu_before_add' an activation ends the branch",
        ),
        ({"shortcut": "none"}, {"zero_init_last": True}, "zero_init_last needs a shortcut"),
        ({"shortcut": "none"}, {"drop_path_rate": 0.1}, "drop_path_rate needs a shortcut"),
        ({"stem_stride": 4}, {"output_stride": 2}, "output_stride 2 is below the stem's stride 4"),
    ],
)
def test_what_a_variant_cannot_have_is_refused(fields, arguments, message):
    for make in (ResNet, rv.create_model):
        with pytest.raises(UserError, match=re.escape(message)) as error:
            make(small(**fields), **arguments)
        assert error.value.field in arguments


def test_an_argument_that_no_model_has_is_a_type_error():
    for make in (ResNet, rv.create_model):
        with pytest.raises(TypeError, match="num_clases"):
            make(small(), num_clases=3)
