"""``output_stride``: the strided net's weights, and its maps at every pixel."""

import itertools

import pytest
import torch
from nets import failures, orders, pairwise

from resnet_variants.models.branches import ANTIALIASES, ORDERS, STRIDES
from resnet_variants.models.network import ResNet
from resnet_variants.models.shortcuts import SHORTCUTS
from resnet_variants.models.variant import Variant

# Two units in a stage: the first of them has the dilation of the stage before.
BASIC, BOTTLENECK = {"depth": 14}, {"depth": 20, "block": "bottleneck"}


def small(**fields):
    """Strides 4, 8 and 16 after the three stages."""
    return Variant(family="cifar", stem_stride=4, **fields)


@pytest.mark.parametrize("output_stride", [4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_dilated_net_has_the_strided_nets_maps_between_its_pixels(shortcut, output_stride):
    # As in timm, ResNet-D's 2x2 mean is not dilated: of two dilated stages the last differs.
    stages = 2 if (shortcut, output_stride) == ("avgpool", 4) else 3
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def check(cell):
        size, order = cell
        variant = small(**size, shortcut=shortcut, order=order)
        strided, dilated = ResNet(variant), ResNet(variant, output_stride=output_stride)
        dilated.load_state_dict(strided.state_dict())
        maps = [
            net.double().eval().forward_intermediates(x, intermediates_only=True)[: 1 + stages]
            for net in (strided, dilated)
        ]
        for one, other in zip(*maps, strict=True):
            step = other.shape[-1] // one.shape[-1]
            assert torch.allclose(one, other[..., ::step, ::step], rtol=1e-9)

    sizes = (BASIC, BOTTLENECK, BOTTLENECK | {"stride": "1x1"})
    assert failures(check, itertools.product(sizes, orders(shortcut))) == {}


AXES = {
    "output_stride": [8, 16],
    "depth": [8, 11],
    "shortcut": list(SHORTCUTS),
    "order": list(ORDERS),
    "stride": list(STRIDES),
    "antialias": list(ANTIALIASES),
}


def test_nets_with_every_two_choices_train_at_every_output_stride():
    x = torch.randn(2, 3, 33, 33)

    def check(row):
        axes = dict(row)
        output_stride = axes.pop("output_stride")
        model = ResNet(small(**axes), num_classes=3, output_stride=output_stride)
        assert model.forward_features(x).shape[-1] == -(-33 // output_stride)
        assert model.feature_info[-1]["reduction"] == output_stride
        model(x).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    rows, _ = pairwise(AXES, lambda row: row["order"] in orders(row["shortcut"]))
    assert failures(check, rows) == {}
