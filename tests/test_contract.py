"""timm's contract: every registered name, and the tools that read a network's code."""

import itertools

import pytest
import timm
import torch
from nets import failures, one_of_each_kind, small

import resnet_variants as rv
from resnet_variants.models.branches import ANTIALIASES, ORDERS
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.stems import STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError

NAMES = rv.list_models()
ALIASES = {alias: name for name in NAMES for alias in rv.parse_name(name).aliases}


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
    assert len(NAMES) == len(set(NAMES)) == 309


def test_names_do_not_collide_with_timms_own():
    own = {name for name in timm.list_models() if name.startswith(("rv_", "resnet_variant"))}
    assert own == {*timm.list_models(module="zoo")} >= {*NAMES, *ALIASES, "resnet_variant"}
    further = own - {*NAMES, *ALIASES, "resnet_variant"}  # what other tests of this process named
    assert all(name in (rv.parse_name(name).name, *rv.parse_name(name).aliases) for name in further)


def test_an_alias_builds_the_network_it_stands_for(without_values):
    for alias, name in ALIASES.items():
        assert timm.create_model(alias, device="meta").variant.name == name
        assert rv.parse_name(alias).name == name


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
    expansion = 4 if variant.block == "bottleneck" else 1
    assert model.num_features == model.head_hidden_size == family.widths[-1] * expansion

    side = cfg["input_size"][-1]
    assert cfg["input_size"] == (3, side, side)
    x = torch.empty(1, 4, side, side, device="meta")
    final, maps = model.eval().forward_intermediates(x)
    assert final.shape == (1, model.num_features, *cfg["pool_size"])
    assert [m.shape[1:] for m in maps] == [
        (info["num_chs"], -(-side // info["reduction"]), -(-side // info["reduction"]))
        for info in model.feature_info
    ]


@pytest.mark.parametrize(
    "names",
    [one_of_each_kind(), pytest.param(NAMES, marks=pytest.mark.slow)],
    ids=["one of each kind", "all"],
)
def test_every_name_has_what_its_cfg_says(names, without_values):
    with torch.no_grad():
        assert failures(has_what_its_cfg_says, names) == {}


def cfg_fits(variant):
    model = timm.create_model("resnet_variant", variant=variant.name, device="meta").eval()
    cfg = model.pretrained_cfg
    x = torch.empty(1, *cfg["input_size"], device="meta")
    assert model.forward_features(x).shape[2:] == cfg["pool_size"]
    assert f"{cfg['first_conv']}.weight" in model.state_dict()


@pytest.mark.parametrize(("family", "depth"), [("imagenet", 14), ("cifar", 11)])
def test_cells_without_a_name_have_a_cfg_too(family, depth, without_values):
    cells = [
        Variant(family=family, depth=depth, stem=stem, stem_stride=stride, antialias=antialias)
        for stem, stride, antialias in itertools.product(STEMS, (4, 2, 1), ANTIALIASES)
    ]
    assert failures(cfg_fits, cells) == {}


# --- tools that read the model's code ---------------------------------------------------------

# Every choice but of stems and some activations is in one of these.
BRANCHES = [
    small(shortcut="conv_all", skip="scale", attention="se", stem_stride=4, antialias="blur"),
    small(order="bn_after_add", shortcut="pad", skip="exclusive_gate", attention="eca"),
    small(order="relu_before_add", skip="shortcut_gate", stem_stride=4, antialias="avg"),
    small(order="relu_preact", depth=11, stem="deep", stride="1x1", skip="dropout"),
    small(order="preact", depth=11, shortcut="avgpool", skip="scale_both"),
    small(shortcut="none", act="gelu"),
    small(norm="group", branch_scale="skipinit"),
    small(norm="layer", branch_scale="layerscale", act="hard_swish"),
    small(norm="none", branch_scale="fixup", act="silu", order="preact"),
]


@pytest.mark.parametrize("variant", BRANCHES, ids=lambda v: v.name)
def test_a_compiled_model_computes_the_same(variant):
    torch.compiler.reset()
    model, x = build(variant).eval(), torch.randn(3, 3, 33, 33)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x))


EXPORTED = [  # the first two of them often
    pytest.param(variant, marks=pytest.mark.slow if i > 1 else (), id=variant.name)
    for i, variant in enumerate(BRANCHES)
]


@pytest.mark.parametrize("variant", EXPORTED)
def test_an_exported_model_computes_the_same(variant):
    model, x = build(variant).eval(), torch.randn(3, 3, 33, 33)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), model(x), atol=1e-5)


@pytest.mark.parametrize("order", ["post", "preact"])
def test_feature_getters_are_scripted(order):
    arguments = {"features_only": True, "feature_cls": "getter", "out_indices": (0, 2)}
    model = timm.create_model("resnet_variant", variant=small(order=order).name, **arguments).eval()
    x = torch.randn(2, 3, 9, 9)
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(model)
    assert all(torch.allclose(a, b) for a, b in zip(scripted(x), model(x), strict=True))


# --- features ---------------------------------------------------------------------------------


def test_intermediates_come_in_one_format():
    with pytest.raises(UserError, match="unknown output_fmt 'NHWC'"):
        build(small()).forward_intermediates(torch.randn(1, 3, 8, 8), output_fmt="NHWC")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", [False, True], ids=["raw", "normed"])
def test_features_are_whole_wherever_the_last_map_is_asked_for(order, norm):
    model, x = build(small(order=order)).eval(), torch.randn(2, 3, 9, 9)
    features, maps = model.forward_intermediates(x, None, norm)
    assert torch.equal(features, model.forward_features(x))
    for indices in (None, 1, [3], [0, -1]):
        final, found = model.forward_intermediates(x, indices, norm, stop_early=True)
        assert torch.equal(final, features)
        assert torch.equal(found[-1], maps[-1])
    final, found = model.forward_intermediates(x, [0, 1], norm, True)
    assert torch.equal(final, maps[1]) and torch.equal(found[0], maps[0])
