"""Parameters and MACs: torch's own count, and the golden table of all names."""

from pathlib import Path

import pytest
import torch
from nets import CHOSEN, buildable, failures, one_of_each_kind, pairwise
from torch.utils.flop_counter import FlopCounterMode

import resnet_variants as rv
from resnet_variants import models
from resnet_variants.models.catalogue import stored_costs
from resnet_variants.models.cost import layer_costs, total
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.grids import preset
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.models.zoo import build

pytestmark = pytest.mark.usefixtures("without_values")

SIZES = [
    {"family": "cifar", "depth": 8},
    {"family": "cifar", "depth": 20, "block": "bottleneck", "cardinality": 4, "base_width": 12},
    {"depth": 14, "base_width": 40},
]
FREE = {
    name: list(about.choices)
    for name, about in AXES.items()
    if about.choices and name not in ("family", "block")
}


def has_torchs_count(row):
    variant = Variant(**row["size"], **{name: row[name] for name in FREE})
    model = build(variant, in_chans=2, num_classes=7).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 2, 33, 33))  # on the meta device it takes three times as long
    cost = rv.cost(variant, img_size=33, in_chans=2, num_classes=7)
    assert cost.flops == 2 * cost.macs == counter.get_total_flops(), variant.name
    assert cost.params == sum(p.numel() for p in model.parameters()), variant.name


@pytest.mark.parametrize("chosen", CHOSEN)
def test_macs_are_half_of_torchs_flops(chosen):
    rows, _ = pairwise(
        {"size": range(len(SIZES))} | FREE,
        lambda row: buildable(SIZES[row["size"]] | {name: row[name] for name in FREE}),
    )
    cases = [row | {"size": SIZES[row["size"]]} for row in chosen(rows)]
    assert failures(has_torchs_count, cases) == {}


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


def test_the_stored_costs_are_those_of_the_networks():
    stored = stored_costs()
    assert list(stored) == rv.list_models()
    for name in one_of_each_kind():
        cost = rv.cost(rv.parse_name(name))
        assert stored[name] == (cost.params, cost.macs), name


@pytest.mark.slow  # above is one of each kind
def test_golden_cost_of_every_registered_name(golden):
    rows = []
    for name in rv.list_models():
        variant = rv.parse_name(name)
        side = FAMILIES[variant.family].img_size
        rows.append({"model": name, "img_size": side, **vars(rv.cost(variant))})
    golden("costs", rows, folder=Path(models.__file__).parent)  # `list` shows these numbers
