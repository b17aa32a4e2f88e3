"""The peers' own networks: same keys, and the same outputs to the last bit."""

from functools import partial

import pytest
import timm
import torch
import torchvision

import resnet_variants as rv
from resnet_variants.models.synonyms import PEERS, synonyms
from resnet_variants.models.variant import Variant, preset

PAIRS = {
    "torchvision resnet18": (preset("B", depth=18), torchvision.models.resnet18),
    "torchvision resnet50": (preset("B", depth=50), torchvision.models.resnet50),
    "timm resnet50c": (preset("C", depth=50), partial(timm.create_model, "resnet50c")),
    "timm resnet34d": (preset("D", depth=34), partial(timm.create_model, "resnet34d")),
    "timm resnet50d": (preset("D", depth=50), partial(timm.create_model, "resnet50d")),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("side", [224, 97])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_peers_state_dict_gives_the_peers_outputs(pair, side, training):
    variant, make = PAIRS[pair]
    peer, model = make(), rv.create_model(variant)
    for module in peer.modules():  # as after training, so that no norm is close to the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    model.load_state_dict(peer.state_dict())
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        ours, theirs = (net.train(training)(x) for net in (model, peer))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("letter", ["B", "D"])
def test_dilated_stages_are_timms(letter, stride):
    name = {"B": "resnet26", "D": "resnet26d"}[letter]
    peer = timm.create_model(name, output_stride=stride).eval()
    model = rv.create_model(letter, depth=26, output_stride=stride).eval()
    model.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 97, 97)
    with torch.no_grad():
        assert torch.equal(model(x), peer(x))


@pytest.mark.parametrize(
    ("letter", "depth", "name"), [("B", 50, "resnetv2_50"), ("D", 50, "resnetv2_50d")]
)
def test_preactivation_has_the_parameters_of_timms_v2(letter, depth, name):
    # Tensor by tensor in the order of use: timm's head is a 1x1 convolution, ours a linear layer.
    def shapes(model):
        return sorted(tuple(p.flatten(1).shape if p.ndim > 1 else p.shape) for p in model)

    ours = rv.create_model(letter, depth=depth, preact=True, device="meta").parameters()
    theirs = timm.create_model(name, device="meta").parameters()
    assert shapes(ours) == shapes(theirs)


def _peer_params(peer, name):
    if peer.source == "timm":
        model = timm.create_model(name, device="meta")
    else:
        with torch.device("meta"):
            model = torchvision.models.get_model(name)
    return sum(p.numel() for p in model.parameters())


RULES = [
    (peer, depth)
    for peer in PEERS
    if peer.source in ("timm", "torchvision")
    for depth in peer.depths
]


@pytest.mark.parametrize(("peer", "depth"), RULES)
def test_names_elsewhere_exist_there_with_our_parameters(peer, depth):
    variant = preset(peer.preset, depth=depth, preact=peer.order == "preact")
    names = [name for rule, name in synonyms(variant) if rule is peer]
    assert len(names) == 1
    assert _peer_params(peer, names[0]) == rv.cost(variant).params


def test_another_stem_stride_has_no_name_elsewhere():
    assert synonyms(Variant(depth=18, stem_stride=1)) == []
