"""The tables of the design space, and that adding an entry is all it takes."""

import pytest
import torch

from resnet_variants.models.branches import ORDERS, Order
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import expand, parse_name
from resnet_variants.models.stems import STEMS, ConvSpec, deep
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import Registry, UserError


def test_the_deep_stem_is_32_32_64_with_the_stride_in_the_first_conv():
    assert deep(64, 2) == [(32, 3, 2), (32, 3, 1), (64, 3, 1)]


def test_presets_are_cumulative():
    presets = PRESETS
    changed = [
        {key for key in presets[b] if presets[a][key] != presets[b][key]}
        for a, b in (("A", "B"), ("B", "C"), ("C", "D"))
    ]
    assert changed == [{"stride"}, {"stem"}, {"shortcut"}]


def test_cifar_depths_default_to_the_blocks_they_were_published_with():
    blocks = {d: next(iter(b)) for d, b in FAMILIES["cifar"].layouts.items()}
    assert {d: blocks[d] for d in (20, 32, 44, 56, 110, 1202)} == dict.fromkeys(
        (20, 32, 44, 56, 110, 1202), "basic"
    )
    assert {d: blocks[d] for d in (29, 47, 164, 1001)} == dict.fromkeys(
        (29, 47, 164, 1001), "bottleneck"
    )


def test_a_registry_refuses_a_taken_name():
    table = Registry("stem", conv7=1)
    with pytest.raises(ValueError, match="stem 'conv7' is registered already"):
        table.register("conv7")(2)


def test_a_registry_miss_names_kind_value_nearest_and_choices():
    with pytest.raises(UserError) as error:
        STEMS["deepp"]
    assert str(error.value) == (
        "unknown stem 'deepp'; did you mean 'deep'? choices: conv7, conv3, deep"
    )
    assert error.value.field == "stem"


@pytest.fixture
def patchify(monkeypatch):
    monkeypatch.setitem(
        STEMS, "patch", lambda width, stride: [ConvSpec(width, 2 * stride - 1, stride)]
    )


@pytest.mark.usefixtures("patchify")
def test_a_new_stem_is_one_function():
    (variant,), _ = expand({"family": "cifar", "depth": 8, "stem": "patch", "stem_stride": 2})
    assert variant.name == "rv_resnet8_cifar_s2_patch_3x3_conv"
    assert parse_name(variant.name) == variant
    model = build(variant, num_classes=3)
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_new_order_is_one_line(monkeypatch):
    line = Order("act conv norm", "act conv norm +", head="act")
    monkeypatch.setitem(ORDERS, "relu_first", line)
    variant = Variant(family="cifar", depth=11, order="relu_first")
    assert parse_name(variant.name) == variant
    model = build(variant, num_classes=3)
    names = [name for name, _ in model.layer1[0].named_children()]
    assert names == [
        *("act1", "downsample", "conv1", "bn1", "act2", "conv2", "bn2", "act3", "conv3", "bn3"),
        "drop_path",
    ]
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
