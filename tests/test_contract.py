"""timm's contract: every registered name at full size, every cell of the grid at depth 8 and 11."""

import itertools

import pytest
import timm
import torch

import resnet_variants as rv
from resnet_variants.models.branches import ORDERS, STRIDES
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.grids import expand
from resnet_variants.models.shortcuts import SHORTCUTS
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build

# Odd on purpose: a shortcut that rounds otherwise than its branch cannot be added to it.
SIDE = 33


def check(model, features, variant):
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
        pooled = model.forward_head(final, pre_logits=True)
        assert pooled.shape == (2, model.head_hidden_size)
        maps = features.eval()(x)
    assert len(maps) == 1 + len(variant.units)
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    for m, reduction in zip(maps, features.feature_info.reduction(), strict=True):
        assert m.shape[2:] == (-(-SIDE // reduction),) * 2

    model.reset_classifier(0)
    assert (model.num_classes, model(x).shape) == (0, (2, model.num_features))
    model.reset_classifier(0, "")
    assert model(x).shape == final.shape
    model.reset_classifier(5, "avg")
    assert model(x).shape == (2, 5)


@pytest.mark.parametrize("name", rv.list_models())
def test_every_registered_name_keeps_the_contract(name):
    variant = rv.parse_name(name)
    assert variant.name == name
    model = timm.create_model(name, num_classes=7)
    features = timm.create_model(name, features_only=True)
    check(model.train(), features, variant)
    state = model.state_dict()
    cfg = model.pretrained_cfg
    assert cfg["architecture"] == name
    assert f"{cfg['classifier']}.weight" in state
    assert f"{cfg['first_conv']}.weight" in state


def small_cells(depth):
    axes = {
        "stem": list(STEMS),
        "stem_stride": list(STEM_STRIDES),
        "stride": list(STRIDES),
        "shortcut": list(SHORTCUTS),
        "order": list(ORDERS),
    }
    return expand({"family": "cifar", "depth": depth} | axes)[0]


@pytest.mark.parametrize("variant", small_cells(8) + small_cells(11), ids=lambda v: v.name)
def test_every_cell_of_the_grid_keeps_the_contract(variant):
    model = timm.create_model("resnet_variant", variant=variant.name, num_classes=7)
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert (
        timm.create_model("resnet_variant", variant=variant.name, device="meta").num_classes == 10
    )
    check(model.train(), build(variant, features_only=True), variant)


def test_the_registered_names_are_those_promised():
    names = set(rv.list_models())
    for depth, letter, end in itertools.product((26, 50, 101, 152, 200), "abcd", ("", "_preact")):
        assert f"rv_resnet{depth}_{letter}{end}" in names
    for depth, letter, end in itertools.product((29, 47, 164), "abcd", ("", "_preact")):
        assert f"rv_resnet{depth}_cifar_{letter}{end}" in names
    for depth, letter, end in itertools.product((18, 34), "abcd", ("", "_preact")):
        assert timm.is_model(f"rv_resnet{depth}_{letter}{end}")
    for depth, letter, end in itertools.product((20, 32, 44, 56, 110), "abcd", ("", "_preact")):
        assert timm.is_model(f"rv_resnet{depth}_cifar_{letter}{end}")
    assert len(names) == 16 * 8 + 8 * 7


ALIASES = {alias: name for name in rv.list_models() for alias in rv.parse_name(name).aliases}


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_builds_the_network_it_stands_for(alias):
    model = timm.create_model(alias, device="meta")
    assert model.variant.name == rv.parse_name(alias).name == ALIASES[alias]
    assert alias not in rv.list_models()


def test_convolutions_start_kaiming_normal_by_fan_out():
    model = timm.create_model("rv_resnet50_d_preact")
    for conv in (m for m in model.modules() if isinstance(m, torch.nn.Conv2d)):
        deviation = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        if conv.weight.numel() > 30_000:
            assert conv.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert all(m.eps == 1e-5 for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_names_do_not_collide_with_timms_own():
    own = {name for name in timm.list_models() if name.startswith(("rv_", "resnet_variant"))}
    assert own == {*rv.list_models(), *ALIASES, "resnet_variant"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_intermediates_agree_with_the_features(family, order):
    variant = Variant(family=family, order=order, depth={"imagenet": 18, "cifar": 11}[family])
    model = build(variant).eval()
    x = torch.randn(2, 3, SIDE, SIDE)
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
    listed = build(variant, features_only=True).eval()
    listed.load_state_dict(model.state_dict(), strict=False)
    for one, other in zip(maps, listed(x), strict=True):
        assert torch.equal(one, other)
    (normed,) = model.forward_intermediates(x, 1, norm=True, intermediates_only=True)
    assert torch.equal(normed, final)
    early = model.forward_intermediates(x, [0, 1], stop_early=True, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(early, maps, strict=False))
    with pytest.raises(ValueError, match="unknown output_fmt 'NHWC'"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("order", ORDERS)
def test_pruning_keeps_the_maps_asked_for(order):
    model = build(Variant(family="cifar", depth=11, order=order)).eval()
    x = torch.randn(2, 3, SIDE, SIDE)
    wanted = model.forward_intermediates(x, [0, 2], intermediates_only=True)
    before = sum(p.numel() for p in model.parameters())
    assert model.prune_intermediate_layers([0, 2]) == [0, 2]
    assert sum(p.numel() for p in model.parameters()) < before
    final, maps = model.forward_intermediates(x, [0, 2])
    assert all(torch.equal(a, b) for a, b in zip(maps, wanted, strict=True))
    assert final.shape[1] == model.num_features


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_to_the_stem_the_features_are_the_stems(family):
    model = build(Variant(family=family, depth={"imagenet": 18, "cifar": 11}[family])).eval()
    x = torch.randn(2, 3, SIDE, SIDE)
    (stem,) = model.forward_intermediates(x, [0], intermediates_only=True)
    model.prune_intermediate_layers([0], prune_norm=True)
    model.set_grad_checkpointing()
    assert torch.equal(model.forward_features(x), stem)


@pytest.mark.parametrize("order", ORDERS)
def test_gradient_checkpointing_changes_nothing(order):
    model = build(Variant(family="cifar", depth=11, order=order), num_classes=3).train()
    x = torch.randn(4, 3, 16, 16)
    grads = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_a_compiled_exported_or_scripted_model_computes_the_same(order):
    model = build(rv.preset("D", family="cifar", depth=11, preact=order == "preact")).eval()
    x = torch.randn(3, 3, SIDE, SIDE)
    want = model(x)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), want, atol=1e-5)
    assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(x), want)
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(model)
    assert torch.allclose(scripted(x), want, atol=1e-5)


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


@pytest.mark.parametrize(("stride", "side"), [(8, 12), (16, 6), (32, 3)])
@pytest.mark.parametrize("letter", ["A", "B", "D"])
def test_output_stride_trades_stride_for_dilation(letter, stride, side):
    model = rv.create_model(letter, depth=26, output_stride=stride)
    assert model.forward_features(torch.randn(1, 3, 96, 96)).shape[2:] == (side, side)
    assert model.feature_info[-1]["reduction"] == stride


def test_what_a_model_does_not_take_is_an_error():
    with pytest.raises(TypeError, match="num_clases"):
        timm.create_model("rv_resnet18_b", num_clases=3)
    with pytest.raises(ValueError, match="output_stride 2 is below the stem's stride 4"):
        timm.create_model("rv_resnet18_b", output_stride=2)
    with pytest.raises(RuntimeError, match="No pretrained weights exist for rv_resnet18_b"):
        timm.create_model("rv_resnet18_b", pretrained=True)
    with pytest.raises(ValueError, match="family, depth and preact go with a preset letter"):
        rv.create_model("rv_resnet18_b", depth=50)
