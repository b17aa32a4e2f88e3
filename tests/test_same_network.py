"""Two spellings are one variant exactly when they build one network."""

import itertools
import random

import pytest
import torch
from nets import buildable, forced, function, structure

from resnet_variants.models.network import ResNet
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import AXES, Variant

BASIC = {"family": "cifar", "depth": 8}
NARROW = {"family": "cifar", "depth": 11}


def net(variant):
    return ResNet(variant, num_classes=3)


def test_a_and_b_of_basic_blocks_are_one_network():
    a, b = (Variant(depth=18, stride=stride) for stride in ("1x1", "3x3"))
    assert a == b
    assert (a.name, a.aliases, a.preset) == ("rv_resnet18_b", ["rv_resnet18_a"], "B")
    a, b = (Variant(depth=50, stride=stride) for stride in ("1x1", "3x3"))
    assert (a.name, a.aliases, b.aliases) == ("rv_resnet50_a", [], [])


@pytest.mark.parametrize("depth", [14, 20])
@pytest.mark.parametrize("shortcut", ["conv", "conv_all", "pad"])
def test_the_skip_function_conv_is_a_convolution_at_every_unit(depth, shortcut):
    variant = Variant(family="cifar", depth=depth, shortcut=shortcut, skip="conv")
    assert variant == Variant(family="cifar", depth=depth, shortcut="conv_all")
    model = net(variant)
    assert all(hasattr(unit, "downsample") for unit in [*model.layer1, *model.layer2])
    assert structure(net(forced(variant, skip="conv"))) == structure(model)


@pytest.mark.parametrize("stem", STEMS)
def test_where_every_unit_changes_shape_conv_all_is_conv(stem):
    for size in (BASIC, NARROW, {"depth": 10}, {"depth": 14}):
        conv, every = (Variant(**size, stem=stem, shortcut=s) for s in ("conv", "conv_all"))
        modules = structure(net(conv))
        same = structure(net(forced(conv, shortcut="conv_all"))) == modules
        assert same == (conv == every), (size, stem)
        assert same == ("bottleneck" in conv.block or stem == "deep_wide")


# --- one name, one function; one function, one name -------------------------------------------

X = torch.randn(3, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


# A max-pool cannot stand on either side of one of these.
FALLING = ["silu", "gelu", "mish", "hard_swish"]


def computes(variant):
    """How many weights start at zero, and some outputs: a start too makes a network."""
    model = ResNet(variant, num_classes=2, dtype=torch.float64)
    zeros = sum(name.endswith("weight") and not p.any() for name, p in model.named_parameters())
    return zeros, *function(model, X)


def repeated(pairs):
    """Keys that come with more than one value, and their values."""
    found = {}
    for key, value in pairs:
        found.setdefault(key, {})[value] = None
    return [[key, *values] for key, values in found.items() if len(values) > 1]


OFTEN = [(8, "conv3", "none"), (11, "deep_wide", "batch")]  # each choice once; the rest is slow
CELLS = [
    pytest.param(*cell, marks=() if cell in OFTEN else pytest.mark.slow)
    for cell in itertools.product([8, 11], ["conv3", "deep_wide"], ["batch", "none"])
]


@pytest.mark.parametrize(("depth", "stem", "norm"), CELLS)
def test_spellings_share_a_name_exactly_when_they_share_a_function(depth, stem, norm):
    axes = {axis: list(AXES[axis].choices) for axis in ("stride", "shortcut", "order")}
    axes |= {"stem_stride": list(STEM_STRIDES)}
    named = []
    for row in itertools.product(*axes.values()):
        spelling = dict(zip(axes, row, strict=True))
        spelling |= {"family": "cifar", "depth": depth, "stem": stem, "norm": norm, "act": "silu"}
        if buildable(spelling) and (depth, spelling["stride"]) != (8, "1x1"):
            variant = Variant(**spelling)
            raw = forced(variant, shortcut=spelling["shortcut"], order=spelling["order"])
            named.append((variant.name, computes(raw)))
    assert repeated(named) == []
    assert repeated((outputs, name) for name, outputs in named) == []


GROUPS = [(1, 16), (1, 32), (1, 24), (4, 4), (2, 8), (2, 16), (16, 1)]


def test_no_two_names_that_differ_in_one_axis_stand_for_one_network():
    rng = random.Random(0)
    axes = {
        axis: list(about.choices)
        for axis, about in AXES.items()
        if about.choices and axis not in ("family", "block", "stem_stride")
    }
    axes |= {"act": FALLING, "depth": [8, 11], "stem_stride": list(STEM_STRIDES), "groups": GROUPS}
    variants = {}
    while len(variants) < 200:
        centre = {axis: rng.choice(choices) for axis, choices in axes.items()}
        for axis, choices in axes.items():
            for choice in choices:
                row = centre | {axis: choice, "family": "cifar"}
                row["cardinality"], row["base_width"] = row.pop("groups")
                if buildable(row):
                    variants[Variant(**row)] = None
    assert len({variant.name for variant in variants}) == len(variants)
    assert repeated((computes(variant), variant.name) for variant in variants) == []
