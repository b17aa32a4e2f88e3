"""The peers' own networks: same keys, and the same outputs to the last bit."""

import re
from functools import partial

import pytest
import timm
import torch
import torchvision

import resnet_variants as rv
from resnet_variants.models.grids import preset
from resnet_variants.models.synonyms import PEERS, synonyms
from resnet_variants.models.variant import Variant

PAIRS = {
    "torchvision resnet18": (preset("B", depth=18), torchvision.models.resnet18),
    "torchvision resnet50": (preset("B", depth=50), torchvision.models.resnet50),
    "timm resnet50c": (preset("C", depth=50), partial(timm.create_model, "resnet50c")),
    "timm resnet34d": (preset("D", depth=34), partial(timm.create_model, "resnet34d")),
    "timm resnet50d": (preset("D", depth=50), partial(timm.create_model, "resnet50d")),
}


def scrambled(model):
    """Norms as after training, so that none is close to the identity."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("side", [224, 97])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_peers_state_dict_gives_the_peers_outputs(pair, side, training):
    variant, make = PAIRS[pair]
    peer, model = scrambled(make()), rv.create_model(variant)
    model.load_state_dict(peer.state_dict())
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        ours, theirs = (net.train(training)(x) for net in (model, peer))
    assert torch.equal(ours, theirs)


def from_v2(state, model):
    """timm's ResNetV2 state dict under our keys."""
    deep_stem = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4, "conv3": 6}
    rules = [
        (r"^stages\.(\d+)\.blocks\.", lambda m: f"layer{int(m[1]) + 1}."),
        (r"\.norm(\d)\.", lambda m: f".bn{m[1]}."),
        (r"^head\.fc\.", lambda m: "fc."),
        (r"^stem\.conv\.", lambda m: "conv1."),
        (r"^stem\.(conv\d)\.", lambda m: f"conv1.{deep_stem[m[1]]}."),
        (r"^stem\.bn(\d)\.", lambda m: f"conv1.{deep_stem['norm' + m[1]]}."),
        (r"downsample\.conv\.", lambda m: f"downsample.{place}."),
    ]
    # Our projection stands second where the mean comes first.
    place = "1" if "layer2.0.downsample.1.weight" in model.state_dict() else "0"
    ours = {}
    for key, value in state.items():
        for pattern, name in rules:
            key = re.sub(pattern, name, key)
        ours[key] = value.flatten(1) if key == "fc.weight" else value
    return ours


V2 = {
    "resnetv2_18": ("B", 18),
    "resnetv2_18d": ("D", 18),
    "resnetv2_50": ("B", 50),
    "resnetv2_50d": ("D", 50),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("side", [224, 97])
@pytest.mark.parametrize("name", V2)
def test_preactivation_computes_what_timms_v2_does(name, side, training):
    letter, depth = V2[name]
    peer = scrambled(timm.create_model(name))
    model = rv.create_model(letter, depth=depth, preact=True)
    model.load_state_dict(from_v2(peer.state_dict(), model))
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        ours, theirs = (net.train(training).forward_features(x) for net in (model, peer))
        assert torch.equal(ours, theirs)
        # The heads multiply in another order: a linear layer here, a 1x1 convolution there.
        logits = peer.forward_head(theirs)
        assert (model.forward_head(ours) - logits).abs().max() <= 1e-5 * logits.abs().max()


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
