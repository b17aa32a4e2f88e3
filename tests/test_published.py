"""Published parameters, MACs and activations, each by its source's counting rule.

`golden/published.csv` holds the numbers as printed (`4.12e9`; whole counts end in `e0`). Left out:
the FLOPs column of arXiv:1812.01187 (not read in a source), PaddleClas' ResNet34_vd MACs (at odds
with its other rows), mmpretrain's ResNet-34 parameters (2.18 M, a misprint), and ResNet-26 of
imgclsmob (basic blocks 3-3-3-3, a network of its own).
"""

import csv
import functools
import math

import pytest
from conftest import GOLDEN

import resnet_variants as rv
from resnet_variants.models.cost import layer_costs, total

pytestmark = pytest.mark.usefixtures("without_values")

ROWS = list(csv.DictReader((GOLDEN / "published.csv").read_text("utf-8").splitlines()))


def elements(layers, *kinds):
    return sum(math.prod(layer.output_shape) for layer in layers if layer.kind in kinds)


def pooled(layers, kind, side):
    """Elements that pools of a kind read: their windows' stride is ``side``."""
    return elements(layers, kind) * side**2


# What each source counts besides the multiply-adds of convolutions and linear layers.
RULES = {
    "parameters": lambda layers: total(layers).params,
    # A batch norm after the stem, which `preact` here has not.
    "parameters+stem norm": lambda layers: total(layers).params + 2 * 64,
    "conv+fc": lambda layers: total(layers).macs,
    "conv+fc+bias": lambda layers: total(layers).macs + layers[-1].output_shape[0],
    "twice": lambda layers: 2 * total(layers).macs,
    # fvcore: two per element of an inference-time batch norm, one per element pooled globally.
    "fvcore": lambda layers: (
        total(layers).macs
        + 2 * elements(layers, "BatchNorm2d")
        + pooled(layers, "SelectAdaptivePool2d", 7)
    ),
    # mmengine: ReLU and every pool too.
    "mmengine": lambda layers: (
        total(layers).macs
        + 2 * elements(layers, "BatchNorm2d")
        + elements(layers, "ReLU")
        + pooled(layers, "MaxPool2d", 2)
    ),
}
ACTS = {
    "conv+fc": lambda layers: total(layers).acts,
    "conv+fc+max-pool": lambda layers: total(layers).acts + elements(layers, "MaxPool2d"),
}


def unit(text):
    """One unit in the last printed digit: sources round or cut; whole counts are exact."""
    digits, _, exponent = text.partition("e")
    if exponent == "0":
        return 0
    return 10 ** (int(exponent) - len(digits.partition(".")[2]))


@functools.cache
def costs(model, img_size, num_classes):
    return layer_costs(rv.parse_name(model), img_size=int(img_size), num_classes=int(num_classes))


@pytest.mark.parametrize("model", sorted({row["model"] for row in ROWS}))
def test_published_numbers(model):
    for row in (row for row in ROWS if row["model"] == model):
        layers = costs(row["model"], row["img_size"], row["num_classes"])
        value, rule = float(row["value"]), row["rule"]
        if rule == "everything":
            # imgclsmob counts norms, activations (in v2 also after the stem) and pools, by a rule
            # of its own: it lies between.
            more = 2 * elements(layers, "BatchNorm2d") + elements(layers, "ReLU")
            more += 4 * pooled(layers, "MaxPool2d", 2)
            low, high = total(layers).macs, total(layers).macs + more
            assert low < value < high, row
        elif rule == "twice":
            # PaddleClas' numbers are near twice the MACs, by no rule that its rows share.
            assert value == pytest.approx(RULES[rule](layers), rel=0.01), row
        else:
            counted = (ACTS if row["quantity"] == "acts" else RULES)[rule](layers)
            assert abs(counted - value) <= unit(row["value"]), (row, counted)
