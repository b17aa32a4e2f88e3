"""The networks of torchvision and timm: their weights in ours compute the same to the last bit."""

import pytest
import timm
import torch
import torchvision

import resnet_variants as rv
from resnet_variants.models.peers import PEERS, timm_names

NETWORKS = {
    f"{peer.source} {name}": variant
    for peer in PEERS
    if peer.source in ("timm", "torchvision")
    for variant, name in peer.names().items()
}
TWINS = {name: variant for variant, name in timm_names().items()}
# One of each kind. That all the others have our tensors is tested too: test_synonyms.
OFTEN = {
    *("torchvision resnet18", "torchvision resnext50_32x4d", "timm resnet26", "timm resnet26d"),
    *("timm resnet14t", "timm resnet50s", "timm seresnet18", "timm ecaresnet26t"),
    *("timm resnetblur18", "timm resnetaa34d"),
    *(
        "timm resnet50_gn",
        "timm resnetv2_50d_gn",
        "timm resnetv2_18",
        "timm resnetv2_34d",
        "timm resnetv2_50t",
    ),
}


def sides(variant):
    # timm's mean filter floors odd maps, ours does not: these sides have even maps only.
    return (32, 224) if variant.antialias == "avg" else (33, 224)


CASES = [
    pytest.param(network, side, marks=() if often else pytest.mark.slow)
    for network, variant in NETWORKS.items()
    for side in sides(variant)
    for often in [network in OFTEN and side < 224]
]


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


def pair(peer, variant, **arguments):
    """A scrambled peer, and ours with its weights."""
    model = rv.create_model(variant, **arguments)
    return rv.load_weights(model, scrambled(peer).state_dict()), peer


def assert_same_tensors(model, peer):
    v2 = model.variant.order == "preact"
    ours, theirs = rv.resnetv2_state_dict(model) if v2 else model.state_dict(), peer.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def assert_same_outputs(model, peer, side):
    """In evaluation and in training, and the running statistics that training leaves."""
    for training in (False, True, False):
        x = torch.randn(2, 3, side, side)
        with torch.no_grad():
            if model.variant.order == "post":
                ours, theirs = (net.train(training)(x) for net in (model, peer))
            else:
                ours, theirs = (net.train(training).forward_features(x) for net in (model, peer))
                # Their head multiplies in another order: it is a 1x1 convolution.
                logits = peer.forward_head(theirs)
                error = (model.forward_head(ours) - logits).abs().max()
                assert error <= 1e-5 * logits.abs().max(), training
        assert torch.equal(ours, theirs), training
    assert_same_tensors(model, peer)


@pytest.mark.parametrize(("network", "side"), CASES)
def test_a_peers_weights_give_its_outputs_and_running_statistics(network, side):
    assert_same_outputs(*pair(create(network), NETWORKS[network]), side)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "resnetblur18", "resnetv2_18d"])
def test_dilated_stages_are_timms(name, stride):
    peer = timm.create_model(name, output_stride=stride)
    model, peer = pair(peer, TWINS[name], output_stride=stride)
    for training in (True, False):
        x = torch.randn(2, 3, 97, 97)
        with torch.no_grad():
            ours, theirs = (net.train(training).forward_features(x) for net in (model, peer))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "network", ["torchvision resnet18", "timm seresnext26d_32x4d", "timm resnetv2_18d"]
)
def test_two_steps_of_training_change_the_weights_as_they_change_the_peers(network):
    model, peer = pair(create(network), NETWORKS[network])
    x, before = torch.randn(4, 3, 65, 65), model.layer1[0].conv1.weight.clone()
    for net in (model, peer):
        # Of V2 the features: see above.
        run = net.forward_features if "v2" in network else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        net.train()
        for _ in range(2):
            optimizer.zero_grad()
            run(x).square().mean().backward()
            optimizer.step()
    assert not torch.equal(model.layer1[0].conv1.weight, before)
    assert_same_tensors(model, peer)
