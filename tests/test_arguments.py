"""The arguments of a model: each is seen in the network, and bad ones are refused in one line."""

import itertools
import re
from dataclasses import fields, replace

import pytest
import timm
import torch
from nets import small, structure
from timm.layers import DropBlock2d, DropPath, GroupNorm, LayerNorm2d, create_act_layer
from torch import nn

import resnet_variants as rv
from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.branches import ATTENTIONS, ORDERS
from resnet_variants.models.layers import Layers
from resnet_variants.models.network import ResNet
from resnet_variants.models.norms import ACTIVATIONS, NORMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError

GATED = Variant(family="cifar", depth=11, stem_stride=4, skip="exclusive_gate")


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
    "zero_init_last": True,
    "init_fan": "fan_in",
    "conv_bias": True,
    "head": "bn_linear",
    "gate_bias": 0.0,
    "device": "meta",
    "dtype": torch.float64,
}


@pytest.mark.parametrize("field", fields(ModelArgs), ids=lambda field: field.name)
def test_no_argument_is_a_dead_knob(field):
    own = seen(GATED)
    assert seen(GATED, **{field.name: field.default}) == own
    assert seen(GATED, **{field.name: OTHERS[field.name]}) != own


def test_drop_rates_are_off_in_evaluation():
    x = torch.randn(4, 3, 33, 33)
    rates = {"drop_rate": 0.5, "drop_path_rate": 0.5, "drop_block_rate": 0.5}
    plain, dropping = ResNet(GATED), ResNet(GATED, **rates)
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    assert not torch.equal(dropping.train()(x), dropping(x))


# --- norms and activations: axes that timm's arguments choose too ------------------------------


@pytest.mark.parametrize("make", [rv.create_model, build])
def test_timms_arguments_for_norm_and_activation_choose_the_axes(make):
    variant = small(norm="layer")
    chosen = replace(variant, norm="group", act="silu")
    assert make(variant, norm_layer="group", act_layer="silu", device="meta").variant == chosen
    assert make(variant, norm_layer=None, device="meta").variant == variant


def test_a_network_loads_by_the_arguments_that_earlier_versions_saved():
    saved = {"norm_layer": "group", "act_layer": "silu"}
    model = timm.create_model("rv_resnet20_cifar_b", **saved, device="meta")
    assert model.variant.name == "rv_resnet20_cifar_b_groupnorm_silu"


def test_activations_are_timms_without_parameters_and_differ():
    x = torch.linspace(-9, 9, 999)
    outputs = []
    for name in ACTIVATIONS:
        layer = create_act_layer(name)
        assert not [*layer.parameters()]
        assert type(Layers(act_layer=name).act(inplace=False)) is type(layer)
        outputs.append(tuple(layer(x).tolist()))
    assert len({*outputs}) == len(outputs)


@pytest.mark.parametrize(
    ("width", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (24, 8), (32, 16), (64, 32), (2048, 32)],
)
def test_group_norm_has_32_groups_of_two_channels_or_more(width, groups):
    assert Layers("group").norm(width).num_groups == groups


@pytest.mark.parametrize(("norm", "kind"), [("group", GroupNorm), ("layer", LayerNorm2d)])
@pytest.mark.parametrize("order", ORDERS)
def test_another_norm_and_activation_stand_wherever_batch_norm_and_relu_did(order, norm, kind):
    variant = small(depth=11, order=order, stem="deep", stem_stride=4)
    usual = ResNet(variant)
    other = ResNet(replace(variant, norm=norm, act="silu")).train()
    for own, ours in ((nn.BatchNorm2d, kind), (nn.ReLU, nn.SiLU)):
        places = [n for n, m in usual.named_modules() if isinstance(m, own)]
        assert [n for n, m in other.named_modules() if isinstance(m, ours)] == places
    x = torch.randn(4, 3, 17, 17)
    assert torch.allclose(other(x)[:1], other(x[:1]), atol=1e-5)  # it does not see the batch


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_trains_with_and_without_norms(act):
    # In place or not: a backward pass needs what they keep.
    for order, norm in itertools.product(ORDERS, ("batch", "none")):
        model = ResNet(small(order=order, act=act, norm=norm))
        model(torch.randn(2, 3, 9, 9)).square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("place", [{"device": "meta"}, {"dtype": torch.float64}], ids=repr)
@pytest.mark.parametrize("norm", NORMS)
def test_every_tensor_is_where_it_was_asked_for(norm, place):
    for attention, skip in itertools.product(ATTENTIONS, ("shortcut_gate", "dropout")):
        variant = small(attention=attention, skip=skip, antialias="blur", norm=norm)
        model = ResNet(variant, **place)
        tensors = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        wanted = (place.get("device", "cpu"), place.get("dtype", torch.float32))
        assert {(t.device.type, t.dtype) for t in tensors} == {wanted}


# --- stochastic depth and DropBlock -----------------------------------------------------------


@pytest.mark.parametrize(("depth", "units"), [(8, 3), (11, 3), (20, 9)])
def test_drop_path_rises_linearly_to_its_rate(depth, units):
    for order in ORDERS:
        model = ResNet(small(depth=depth, order=order), drop_path_rate=0.4, device="meta")
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
    assert ours == blocks_dropped(
        timm.create_model(f"resnet{depth}", drop_block_rate=0.1, device="meta")
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("depth", "after"), [(14, "conv1"), (20, "conv2")])
def test_drop_block_reads_what_follows_the_first_3x3_in_the_last_two_stages(depth, after, order):
    block = "basic" if depth == 14 else "bottleneck"
    variant = small(depth=depth, block=block, order=order)
    model = ResNet(variant, drop_block_rate=0.2, device="meta")
    found = blocks_dropped(model)
    assert [rest for _, *rest in found] == [[0.2, 5, 0.25]] * 2 + [[0.2, 3, 1.0]] * 2
    assert [name[:6] for name, *_ in found] == ["layer2"] * 2 + ["layer3"] * 2
    names = [name for name, _ in model.layer2[1].named_children()]
    at = names.index("drop_block")
    assert names[at + 1].startswith("act")
    assert after in names[at - 2 : at]


# --- refusals; for those of single values see test_settings --------------------------------------


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ({}, {"device": "gpu"}, "unknown device 'gpu': torch has none of that name"),
        ({}, {"device": ""}, "unknown device '': torch has none of that name"),
        ({}, {"dtype": torch.int8}, "dtype torch.int8 must be a floating-point type"),
        ({}, {"gate_bias": 0.0}, "gate_bias is that of gates, and skip 'identity' has none"),
        (
            {"order": "relu_before_add"},
            {"zero_init_last": True},
            "zero_init_last does not go with order 'relu_before_add': an activation ends",
        ),
        (
            {"norm": "none"},
            {"zero_init_last": True},
            "zero_init_last zeroes a norm, and norm 'none'",
        ),
        (
            {"branch_scale": "skipinit"},
            {"zero_init_last": True},
            "zero_init_last goes with branch_scale 'none' only, not with 'skipinit'",
        ),
        ({"shortcut": "none"}, {"zero_init_last": True}, "zero_init_last needs a shortcut"),
        ({"shortcut": "none"}, {"drop_path_rate": 0.1}, "drop_path_rate needs a shortcut"),
        ({"stem_stride": 4}, {"output_stride": 2}, "output_stride 2 is below the stem's stride 4"),
    ],
)
def test_what_a_variant_cannot_have_is_one_line_that_names_the_argument(fields, arguments, message):
    for make in (ResNet, rv.create_model):
        with pytest.raises(UserError, match=re.escape(message)) as error:
            make(small(**fields), **arguments)
        assert error.value.field in arguments
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm_layer": "instance"}, "norm_layer: unknown norm 'instance'; choices: batch, group"),
        ({"norm_layer": nn.BatchNorm2d}, "BatchNorm2d'> must be of type str"),
        ({"act_layer": "rely"}, "act_layer: unknown act 'rely'; did you mean 'relu'? choices:"),
    ],
)
def test_an_unknown_norm_or_activation_is_one_line_that_names_the_argument(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        rv.create_model(small(), **arguments)
    assert error.value.field in arguments


def test_an_argument_that_no_model_has_is_a_type_error():
    for make in (ResNet, rv.create_model):
        with pytest.raises(TypeError, match="num_clases"):
            make(small(), num_clases=3)
