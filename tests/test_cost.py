"""Parameters and MACs: published integers, an independent count, and golden tables."""

import dataclasses
from pathlib import Path

import pytest
import torch
from closed_form import closed_form
from torch.utils.flop_counter import FlopCounterMode

import resnet_variants as rv
from resnet_variants import models
from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, ORDERS, STRIDES
from resnet_variants.models.cost import layer_costs, total
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.grids import FULL_GRID, expand, preset
from resnet_variants.models.shortcuts import SHORTCUTS
from resnet_variants.models.stems import STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build


@pytest.mark.parametrize(
    ("variant", "params", "macs"),
    [
        # ImageNet, 224 px, convolutions and linear layers.
        (preset("A", depth=50), 25_557_032, 3_857_973_248),
        (preset("B", depth=50), 25_557_032, 4_089_184_256),
        (preset("C", depth=50), 25_576_264, 4_328_824_832),
        (preset("D", depth=50), 25_576_264, 4_328_824_832),
        (preset("B", depth=50, preact=True), 25_549_352, 4_089_184_256),
        (preset("D", depth=50, preact=True), 25_568_584, 4_328_824_832),
        # He 2015, section 4.2, with projections: open_lth (20, 110) and pycls (56, 110).
        (preset("B", family="cifar", depth=20), 272_474, 40_813_184),
        (preset("B", family="cifar", depth=56), 855_770, 125_747_840),
        (preset("B", family="cifar", depth=110), 1_730_714, 253_149_824),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_published_counts(variant, params, macs):
    cost = rv.cost(variant)
    assert (cost.params, cost.macs, cost.flops) == (params, macs, 2 * macs)


def test_resnet18_for_32_px_images():
    # The popular CIFAR-10 ResNet-18: 3x3 stem, stride 1, no pool.
    cost = rv.cost(Variant(depth=18, stem="conv3", stem_stride=1), img_size=32, num_classes=10)
    assert (cost.params, cost.macs) == (11_173_962, 555_422_720)


def test_activations_of_resnet50_are_pycls_count():
    assert round(rv.cost(preset("B", depth=50)).acts / 1e6, 2) == 11.11


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize(
    "variant", expand(FULL_GRID | {"family": "cifar"})[0], ids=lambda v: v.name
)
def test_macs_are_half_of_torchs_flops(variant, side):
    model = build(variant, in_chans=1, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 1, side, side, device="meta"))
    cost = rv.cost(variant, img_size=side, in_chans=1)
    assert cost.flops == counter.get_total_flops()
    assert cost.params == sum(p.numel() for p in model.parameters())


CROSSED = {
    "stem_stride": [4, 1],
    "stride": list(STRIDES),
    "attention": list(ATTENTIONS),
    "antialias": list(ANTIALIASES),
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(("family", "depth"), [("cifar", 8), ("cifar", 11), ("imagenet", 14)])
def test_arithmetic_gives_the_same(family, depth, shortcut):
    # Option A cannot narrow the wide stem's output to a basic block's.
    stems = [stem for stem in STEMS if (depth, stem, shortcut) != (8, "deep_wide", "pad")]
    size = {"family": family, "depth": depth, "stem": stems, "shortcut": shortcut}
    size |= {"order": "post"} if shortcut == "none" else {"order": list(ORDERS)}
    further = [{}, {"skip": "exclusive_gate"}, {"skip": "shortcut_gate"}]
    further += [{"cardinality": 4, "base_width": 12}, {"base_width": 40}]
    cells = expand(size | CROSSED)[0][::11]  # prime to the axes' lengths: every choice comes up
    for i, cell in enumerate(cells):
        axes = further[i % len(further)]
        if ("skip" in axes and cell.is_plain) or ("base_width" in axes and cell.block == "basic"):
            axes = {}
        variant = dataclasses.replace(cell, **axes)
        cost = total(layer_costs(variant, img_size=33, in_chans=2, num_classes=7))
        assert (cost.params, cost.macs, cost.acts) == closed_form(variant, 33, 2, 7), variant.name


def test_layers_add_up_and_say_their_shapes():
    variant = preset("D", depth=26)
    layers = layer_costs(variant)
    assert total(layers) == rv.cost(variant)
    shapes = {layer.name: layer.output_shape for layer in layers}
    assert shapes["conv1.0"] == (32, 112, 112)
    assert shapes["layer4.1.conv3"] == (2048, 7, 7)
    assert shapes["fc"] == (1000,)


def test_images_too_small_for_a_network_are_refused():
    variant = Variant(family="cifar", depth=11, stem_stride=4, antialias="blur")
    with pytest.raises(ValueError, match=r"rv_resnet11_cifar_s4_b_blur cannot take images of 4 px"):
        rv.cost(variant, img_size=4)


def test_golden_cost_of_every_registered_name(golden):
    rows = []
    for name in rv.list_models():
        variant = rv.parse_name(name)
        cost = rv.cost(variant)
        side = FAMILIES[variant.family].img_size
        rows.append({"model": name, "img_size": side, **vars(cost)})
    golden("costs", rows, folder=Path(models.__file__).parent)  # `list` shows these numbers
