"""``output_stride``: the strided net's weights, its maps at every pixel, and timm's geometry."""

import itertools

import pytest
import torch
from nets import failures, orders

from resnet_variants.models.branches import ANTIALIASES, STRIDES
from resnet_variants.models.network import ResNet
from resnet_variants.models.shortcuts import SHORTCUTS
from resnet_variants.models.variant import Variant


def small(depth, **fields):
    """Strides 4, 8 and 16 after the three stages."""
    return Variant(family="cifar", depth=depth, stem_stride=4, **fields)


@pytest.mark.parametrize("output_stride", [4, 8])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_dilated_net_has_the_strided_nets_maps_between_its_pixels(
    shortcut, stride, output_stride
):
    # As in timm, ResNet-D's 2x2 mean is not dilated: of two dilated stages the last differs.
    stages = 2 if (shortcut, output_stride) == ("avgpool", 4) else 3
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    def check(cell):
        depth, order = cell
        variant = small(depth, shortcut=shortcut, order=order, stride=stride)
        strided, dilated = ResNet(variant), ResNet(variant, output_stride=output_stride)
        dilated.load_state_dict(strided.state_dict())
        maps = [
            net.double().eval().forward_intermediates(x, intermediates_only=True)[: 1 + stages]
            for net in (strided, dilated)
        ]
        for one, other in zip(*maps, strict=True):
            step = other.shape[-1] // one.shape[-1]
            assert torch.allclose(one, other[..., ::step, ::step], rtol=1e-9)

    assert failures(check, itertools.product((8, 20, 11, 29), orders(shortcut))) == {}


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_every_net_trains_at_every_output_stride(shortcut, output_stride):
    x = torch.randn(2, 3, 65, 65)

    def check(cell):
        depth, order, stride, antialias = cell
        fields = {"order": order, "stride": stride, "antialias": antialias}
        model = ResNet(
            small(depth, shortcut=shortcut, **fields), num_classes=3, output_stride=output_stride
        )
        assert model.forward_features(x).shape[-1] == -(-65 // output_stride)
        assert model.feature_info[-1]["reduction"] == output_stride
        model(x).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())

    cells = list(itertools.product((8, 11), orders(shortcut), STRIDES, ANTIALIASES))
    assert failures(check, cells) == {}


@pytest.mark.parametrize(("output_stride", "side"), [(8, 9), (16, 5), (32, 3)])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_imagenet_nets_keep_the_side_they_are_told(shortcut, output_stride, side):
    for depth in (10, 14):
        model = ResNet(Variant(depth=depth, shortcut=shortcut), output_stride=output_stride)
        assert model.eval().forward_features(torch.randn(1, 3, 65, 65)).shape[2:] == (side, side)
        assert [info["reduction"] for info in model.feature_info] == [
            min(reduction, output_stride) for reduction in (2, 4, 8, 16, 32)
        ]
