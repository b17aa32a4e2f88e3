"""timm's contract: the registered names, a spread of them at full size and all of them in shape."""

import itertools

import pytest
import timm
import torch
from nets import failures

import resnet_variants as rv
from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, ORDERS
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS
from resnet_variants.models.stems import STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError

# Odd on purpose: a shortcut that rounds otherwise than its branch cannot be added to it.
SIDE = 33
NAMES = rv.list_models()
ALIASES = {alias: name for name in NAMES for alias in rv.parse_name(name).aliases}
DEEPEST = [
    *("rv_resnet200_d_preact", "rv_resnet152_d_se", "rv_resnet101_d_blur"),
    *("rv_resnext101_32x4d_b_se", "rv_wide_resnet50_2_d"),
    *("rv_resnet164_cifar_d", "rv_resnet164_cifar_b_bnafteradd", "rv_resnet164_cifar_a_preact"),
]
SPREAD = [name for name in NAMES if rv.parse_name(name).depth <= 56][::10]


def some(cases, every):
    """All cases; those between are slow."""
    return [
        pytest.param(case, marks=pytest.mark.slow if i % every else ())
        for i, case in enumerate(cases)
    ]


def last_width(variant):
    return FAMILIES[variant.family].widths[-1] * (4 if variant.block == "bottleneck" else 1)


# --- names ------------------------------------------------------------------------------------


def test_the_registered_names_are_those_promised():
    wide = ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2")
    models = [f"resnet{depth}" for depth in (18, 26, 34, 50, 101, 152, 200)]
    models += [f"resnet{depth}_cifar" for depth in (20, 29, 32, 44, 47, 56, 110, 164)]
    for model, letter, end in itertools.product([*models, *wide], "abcd", ("", "_preact")):
        name = f"rv_{model}_{letter}{end}"
        assert timm.is_model(name)
        assert (name in NAMES) != (name in ALIASES)
    for depth, order in itertools.product((20, 110, 164), ORDERS):
        order = "" if order == "post" else "_" + order.replace("_", "")
        assert f"rv_resnet{depth}_cifar_b{order}" in NAMES
    assert len(NAMES) == len(set(NAMES)) == 308


def test_names_do_not_collide_with_timms_own():
    own = {name for name in timm.list_models() if name.startswith(("rv_", "resnet_variant"))}
    assert own == {*timm.list_models(module="zoo")} >= {*NAMES, *ALIASES, "resnet_variant"}
    further = own - {*NAMES, *ALIASES, "resnet_variant"}  # what other tests of this process named
    assert all(name in (rv.parse_name(name).name, *rv.parse_name(name).aliases) for name in further)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_builds_the_network_it_stands_for(alias):
    model = timm.create_model(alias, device="meta")
    assert model.variant.name == rv.parse_name(alias).name == ALIASES[alias]
    assert alias not in NAMES


# --- every registered name --------------------------------------------------------------------


@pytest.mark.parametrize("name", [*some(SPREAD, 3), *some(DEEPEST, 4)])
def test_a_spread_of_names_keeps_the_contract_at_full_size(name):
    variant = rv.parse_name(name)
    model = timm.create_model(name, num_classes=7).train()
    x = torch.randn(2, 3, SIDE, SIDE)
    logits = model(x)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert [n for n, p in model.named_parameters() if not p.grad.isfinite().all()] == []

    model.eval()
    with torch.no_grad():
        final = model.forward_features(x)
        assert final.shape[1] == model.num_features
        assert torch.equal(model.forward_head(final), model(x))
        maps = timm.create_model(name, features_only=True).eval()(x)
    sides = [-(-SIDE // info["reduction"]) for info in model.feature_info]
    assert [m.shape[1:] for m in maps] == [
        (info["num_chs"], side, side) for info, side in zip(model.feature_info, sides, strict=True)
    ]
    assert len(maps) == 1 + len(variant.units)
    model.reset_classifier(0)
    assert (model.num_classes, model(x).shape) == (0, (2, model.num_features))


def has_what_its_cfg_says(name):
    variant = rv.parse_name(name)
    assert variant.name == name
    model = timm.create_model(name, device="meta", in_chans=4)
    cfg, state = model.pretrained_cfg, model.state_dict()
    assert cfg["architecture"] == name
    assert model.variant == variant
    family = FAMILIES[variant.family]
    assert cfg["num_classes"] == model.num_classes == family.num_classes
    assert state[f"{cfg['classifier']}.weight"].shape == (model.num_classes, model.num_features)
    assert state[f"{cfg['first_conv']}.weight"].shape[1] == 4
    assert next(iter(state)) == f"{cfg['first_conv']}.weight"
    assert model.num_features == model.head_hidden_size == last_width(variant)

    side = cfg["input_size"][-1]
    assert cfg["input_size"] == (3, side, side)
    x = torch.empty(1, 4, side, side, device="meta")
    final, maps = model.eval().forward_intermediates(x)
    assert final.shape == (1, model.num_features, *cfg["pool_size"])
    assert [m.shape[1:] for m in maps] == [
        (info["num_chs"], -(-side // info["reduction"]), -(-side // info["reduction"]))
        for info in model.feature_info
    ]


MODELS = sorted({name.split("_")[1] for name in NAMES if name.startswith("rv_res")} | {"wide"})


@pytest.mark.parametrize("model", MODELS)
def test_every_name_has_what_its_cfg_says(model, monkeypatch):
    # Slow on the meta device, which has no values to initialise.
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda *_args, **_kwargs: None)
    names = [name for name in NAMES if name.split("_")[1] == model]
    assert names
    with torch.no_grad():
        assert failures(has_what_its_cfg_says, names) == {}


def cfg_fits(variant):
    cfg = build(variant, device="meta").pretrained_cfg
    x = torch.empty(1, *cfg["input_size"], device="meta")
    model = timm.create_model("resnet_variant", variant=variant.name, device="meta").eval()
    assert model.forward_features(x).shape[2:] == cfg["pool_size"]
    assert f"{cfg['first_conv']}.weight" in model.state_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_without_a_name_have_a_cfg_too(family):
    depth = {"imagenet": 14, "cifar": 11}[family]
    cells = [
        Variant(family=family, depth=depth, stem=stem, stem_stride=stride, antialias=antialias)
        for stem, stride, antialias in itertools.product(STEMS, (4, 2, 1), ANTIALIASES)
    ]
    assert failures(cfg_fits, cells) == {}


# --- tools that read the model's code ---------------------------------------------------------

BRANCHES = [
    *(Variant(family="cifar", depth=11, stem="deep", order=order) for order in ORDERS),
    *(Variant(family="cifar", depth=11, shortcut=shortcut) for shortcut in SHORTCUTS),
    *(Variant(family="cifar", depth=8, skip=skip) for skip in SKIPS if skip != "conv"),
    *(Variant(family="cifar", depth=8, attention=attention) for attention in ATTENTIONS),
    *(Variant(family="cifar", depth=8, antialias=a, stem_stride=4) for a in ANTIALIASES),
]


@pytest.mark.parametrize("variant", some(dict.fromkeys(BRANCHES), 4), ids=lambda v: v.name)
def test_a_compiled_or_exported_model_computes_the_same(variant):
    torch.compiler.reset()
    model = build(variant).eval()
    x = torch.randn(3, 3, SIDE, SIDE)
    want = model(x)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), want, atol=1e-5)
    assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(x), want)


# --- arguments through timm -------------------------------------------------------------------


def test_dropout_drop_path_and_pooling_arguments_reach_the_network():
    kwargs = {"drop_rate": 0.5, "drop_path_rate": 0.2, "global_pool": "max", "num_classes": 3}
    model = timm.create_model("rv_resnet29_cifar_b", **kwargs)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, timm.layers.DropPath)]
    assert rates == pytest.approx([0.2 * i / 8 for i in range(1, 9)])  # the first unit keeps all
    assert model.global_pool.pool_type == "max"
    x = torch.randn(8, 3, 16, 16)
    assert not torch.equal(model.train()(x), model(x))
    model.reset_classifier(4)
    assert model.global_pool.pool_type == "max"


def test_reset_classifier_keeps_device_and_dtype():
    model = timm.create_model("rv_resnet18_d", dtype=torch.float64, device="meta")
    model.reset_classifier(3)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float64, "meta")}


def test_intermediates_come_in_one_format():
    model = timm.create_model("rv_resnet20_cifar_b")
    with pytest.raises(UserError, match="unknown output_fmt 'NHWC'"):
        model.forward_intermediates(torch.randn(1, 3, 8, 8), output_fmt="NHWC")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", [False, True])
def test_features_are_whole_wherever_the_last_map_is_asked_for(order, norm):
    model = build(Variant(family="cifar", depth=20, order=order)).eval()
    x = torch.randn(2, 3, 9, 9)
    features, maps = model.forward_intermediates(x, None, norm)
    assert torch.equal(features, model.forward_features(x))
    for indices in (None, 1, [3], [0, -1], (1, 3)):
        final, found = model.forward_intermediates(x, indices, norm, stop_early=True)
        assert torch.equal(final, features)
        assert torch.equal(model.forward_head(final), model(x))
        assert torch.equal(found[-1], maps[-1])
    final, found = model.forward_intermediates(x, [0, 1], norm, True)
    assert torch.equal(final, maps[1]) and torch.equal(found[0], maps[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("arguments", [{}, {"out_indices": (0, 2)}])
def test_feature_getters_are_scripted(order, arguments):
    name = Variant(family="cifar", depth=8, order=order).name
    arguments = {"features_only": True, "feature_cls": "getter", "variant": name} | arguments
    model = timm.create_model("resnet_variant", **arguments).eval()
    x = torch.randn(2, 3, 9, 9)
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(model)
    assert all(torch.allclose(a, b) for a, b in zip(scripted(x), model(x), strict=True))


def test_scripted_units_of_one_set_of_layers_keep_their_own_order():
    x = torch.randn(2, 3, 9, 9)
    for order in ("post", "relu_preact", "preact", "bn_after_add", "relu_before_add"):
        model = build(Variant(family="cifar", depth=20, order=order)).eval()
        with pytest.warns(FutureWarning, match="deprecated"):
            scripted = torch.jit.script(model)
        assert torch.allclose(scripted(x), model(x), atol=1e-5)


def test_what_a_model_does_not_take_is_an_error():
    with pytest.raises(TypeError, match="num_clases"):
        timm.create_model("rv_resnet18_b", num_clases=3)
    with pytest.raises(UserError, match="output_stride 2 is below the stem's stride 4"):
        timm.create_model("rv_resnet18_b", output_stride=2)
    with pytest.raises(RuntimeError, match="No pretrained weights exist for rv_resnet26_a"):
        timm.create_model("rv_resnet26_a", pretrained=True)
    with pytest.raises(UserError, match="depth go with a preset letter, not with 'rv_resnet18_b'"):
        rv.create_model("rv_resnet18_b", depth=50)
