"""The networks of torchvision and timm: their weights in ours compute the same to the last bit."""

import pytest
import timm
import torch
import torchvision

import resnet_variants as rv
from resnet_variants.models.peers import PEERS, timm_names

LIBRARIES = ("timm", "torchvision")
NETWORKS = {
    f"{peer.source} {name}": variant
    for peer in PEERS
    if peer.source in LIBRARIES
    for variant, name in peer.names().items()
}
TWINS = {name: variant for variant, name in timm_names().items()}
POST = [network for network in NETWORKS if NETWORKS[network].order == "post"]
V2 = [network for network in NETWORKS if NETWORKS[network].order == "preact"]
GIANTS = ("resnext101_32x16d", "resnext101_32x32d")
# timm's mean filter floors odd maps, ours does not: these two sides have even maps only.
ODD, EVEN = (97, 224), (96, 224)


def cases(networks):
    """Each network at both sides; of deep ones the large side, and of most the small, as slow."""
    for network in networks:
        variant, name = NETWORKS[network], network.split()[1]
        small, large = EVEN if variant.antialias == "avg" else ODD
        plain = (variant.attention, variant.antialias) == ("none", "none")
        twice = network.startswith("timm") and f"torchvision {name}" in NETWORKS
        if variant.depth <= 50:
            yield network, (small, large)
        elif plain and not twice and name not in GIANTS:
            yield network, (small,)
            yield pytest.param(network, (large,), marks=pytest.mark.slow)
        else:
            yield pytest.param(network, (small, large), marks=pytest.mark.slow)


def create(network, **kwargs):
    source, name = network.split()
    if source == "timm":
        return timm.create_model(name, **kwargs)
    return torchvision.models.get_model(name, **kwargs)


def scrambled(model):
    """Norms as after training: none is close to the identity, no branch starts at zero."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.GroupNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize(("network", "sides"), list(cases(POST)))
def test_a_peers_weights_give_its_outputs_and_running_statistics(network, sides):
    peer, model = create(network), rv.create_model(NETWORKS[network])
    for prepare in (torch.nn.Module.eval, scrambled):
        rv.load_weights(model, prepare(peer).state_dict())
        with torch.no_grad():
            x = torch.randn(1, 3, sides[0], sides[0])
            assert torch.equal(model.eval()(x), peer.eval()(x))
    for side in sides:
        for training in (True, False):
            x = torch.randn(2 if training else 1, 3, side, side)
            with torch.no_grad():
                ours, theirs = (net.train(training)(x) for net in (model, peer))
            assert torch.equal(ours, theirs), (side, training)
    assert_same_tensors(model.state_dict(), peer.state_dict())


@pytest.mark.parametrize(("network", "sides"), list(cases(V2)))
def test_timms_v2_weights_give_its_features_and_to_rounding_its_logits(network, sides):
    peer, model = create(network), rv.create_model(NETWORKS[network])
    for prepare in (torch.nn.Module.eval, scrambled):
        rv.load_weights(model, prepare(peer).state_dict())
        with torch.no_grad():
            x = torch.randn(1, 3, sides[0], sides[0])
            features = (net.eval().forward_features(x) for net in (model, peer))
            assert torch.equal(*features)
    for side in sides:
        for training in (True, False):
            x = torch.randn(2 if training else 1, 3, side, side)
            with torch.no_grad():
                ours, theirs = (net.train(training).forward_features(x) for net in (model, peer))
                assert torch.equal(ours, theirs), (side, training)
                # Their head multiplies in another order: it is a 1x1 convolution.
                logits = peer.forward_head(theirs)
                error = (model.forward_head(ours) - logits).abs().max()
            assert error <= 1e-5 * logits.abs().max(), (side, training)
    assert_same_tensors(rv.resnetv2_state_dict(model), peer.state_dict())


def test_with_group_norm_ours_is_timms_resnet50_gn():
    peer, model = timm.create_model("resnet50_gn"), rv.create_model("B", norm_layer="group")
    assert model.variant.name == "rv_resnet50_b"
    rv.load_weights(model, scrambled(peer).state_dict())
    for side in (97, 224):
        x = torch.randn(1, 3, side, side)
        with torch.no_grad():
            assert torch.equal(model(x), peer(x))


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet26", "resnet26d", "resnetblur18", "seresnext26t_32x4d"),
        *("resnetv2_18", "resnetv2_18d", "resnetv2_50", "resnetv2_50d"),
    ],
)
def test_dilated_stages_are_timms(name, stride):
    peer = scrambled(timm.create_model(name, output_stride=stride))
    model = rv.create_model(TWINS[name], output_stride=stride)
    rv.load_weights(model, peer.state_dict())
    for training in (True, False):
        x = torch.randn(2 if training else 1, 3, 97, 97)
        with torch.no_grad():
            ours, theirs = (net.train(training).forward_features(x) for net in (model, peer))
        assert torch.equal(ours, theirs)


def step(model, run, x):
    """Two steps of SGD with momentum on what ``run`` makes of the images."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        run(x).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "network", ["torchvision resnet18", "timm resnet50d", "timm seresnext26d_32x4d"]
)
def test_training_changes_the_weights_as_it_changes_the_peers(network):
    peer, model = scrambled(create(network)), rv.create_model(NETWORKS[network])
    rv.load_weights(model, peer.state_dict())
    before = model.fc.weight.clone()
    x = torch.randn(4, 3, 97, 97)
    for net in (model, peer):
        step(net, net, x)
    assert not torch.equal(model.fc.weight, before)
    assert_same_tensors(model.state_dict(), peer.state_dict())


@pytest.mark.parametrize("name", ["resnetv2_18d", "resnetv2_50"])
def test_training_on_features_changes_the_weights_as_it_changes_timms_v2(name):
    peer, model = scrambled(timm.create_model(name)), rv.create_model(TWINS[name])
    rv.load_weights(model, peer.state_dict())
    x = torch.randn(4, 3, 97, 97)
    for net in (model, peer):
        step(net, net.forward_features, x)
    assert_same_tensors(rv.resnetv2_state_dict(model), peer.state_dict())
