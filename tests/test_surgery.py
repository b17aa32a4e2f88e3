"""What people do to a network's parts: it keeps its function, or says what is missing."""

import copy
import pickle

import pytest
import torch
from torch import nn

from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant

CELLS = {
    "post": {},
    "relu_preact": {"order": "relu_preact", "skip": "scale_both"},
    "preact with gates": {"order": "preact", "skip": "exclusive_gate"},
    "plain": {"shortcut": "none"},
    "D with all": {
        **{"depth": 11, "stem": "deep", "shortcut": "avgpool"},
        **{"attention": "se", "antialias": "avg"},
    },
}
EVERY = pytest.mark.parametrize("axes", CELLS.values(), ids=CELLS)
X = torch.randn(2, 3, 9, 9)


def net(axes):
    torch.manual_seed(0)
    model = ResNet(Variant(**{"family": "cifar", "depth": 8} | axes), num_classes=3)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model.eval()


def scripted(model):
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.jit.script(model)


def replace(model, kind, make):
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))


def assert_same(model, other):
    """The outputs, also by TorchScript, and the gradients with batch statistics."""
    assert torch.equal(model(X), other(X))
    assert torch.allclose(scripted(other)(X), other(X), atol=1e-5)
    for one in (model, other):
        one.train()(X).square().sum().backward()
    gradients = [[p.grad for p in one.parameters() if p.grad is not None] for one in (model, other)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@EVERY
def test_one_relu_for_all_none_for_what_timm_may_lack_and_a_further_child(axes):
    model, other = net(axes), net(axes)
    relu = nn.ReLU()
    replace(other, nn.ReLU, lambda _: relu)
    for unit, same in zip(model.layer2, other.layer2, strict=True):
        same.drop_path = None
        if hasattr(unit, "se"):
            unit.se, same.se = nn.Identity(), None
    other.probe = other.layer1[0].probe = nn.Conv2d(7, 7, 1)  # it would not take the maps
    assert_same(model, other)


class Adapted(nn.Module):
    """A convolution and an adapter that starts as zero."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        self.adapter = nn.Conv2d(conv.in_channels, conv.out_channels, 1, stride=conv.stride)
        nn.init.zeros_(self.adapter.weight)
        nn.init.zeros_(self.adapter.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.adapter(x)


@EVERY
def test_convolutions_are_replaced_by_others(axes):
    model, other = net(axes), net(axes)
    replace(other, nn.Conv2d, Adapted)
    assert torch.equal(model(X), other(X))
    for unit in other.modules():
        if isinstance(unit, Adapted):
            nn.init.ones_(unit.adapter.bias)
    assert not torch.allclose(model(X), other(X))
    assert torch.allclose(scripted(other)(X), other(X), atol=1e-5)


@EVERY
def test_a_child_that_is_set_anew_keeps_its_place(axes):
    model, other = net(axes), net(axes)
    for module in [other, other.layer1[0], other.layer2[0]]:
        for name in ("conv1", "bn1"):
            child = getattr(module, name, None)
            if child is not None:
                delattr(module, name)
                setattr(module, name, child)
    assert list(other.state_dict()) != list(model.state_dict())
    for same in (other, copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert torch.equal(model(X), same(X))
    assert torch.allclose(scripted(other)(X), other(X), atol=1e-5)


def test_a_part_that_is_missing_is_named():
    for name in ("conv1", "bn1", "layer1.0.bn2", "layer1.0.act1"):
        model = net({})
        of, _, part = name.rpartition(".")
        setattr(model.get_submodule(of), part, None)
        with pytest.raises(TypeError, match="'NoneType' object is not callable"):
            model(X)
        with pytest.raises(torch.jit.Error, match=part):
            scripted(model)(X)
        delattr(model.get_submodule(of), part)
        with pytest.raises(AttributeError, match=f"no attribute '{part}'"):
            model(X)


def cut(module, width, *, outputs=True):
    """A module with its first ``width`` channels alone, as pruning leaves it."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.ndim:
            kept = tensor.data[:width] if outputs else tensor.data[:, :width]
            setattr(module, name, nn.Parameter(kept) if name in ("weight", "bias") else kept)


@pytest.mark.parametrize("skip", ["identity", "scale_both", "exclusive_gate"])
def test_a_stage_between_padding_shortcuts_is_narrowed(skip):
    model = net({"depth": 14, "shortcut": "pad", "skip": skip})
    for unit in model.layer2:  # from here on, its channels 24 to 31 are zero everywhere
        nn.init.zeros_(unit.bn2.weight[24:])
        nn.init.zeros_(unit.bn2.bias[24:])
    other = copy.deepcopy(model)
    for unit in other.layer2:
        cut(unit.conv2, 24)
        cut(unit.bn2, 24)
        if skip == "exclusive_gate":
            cut(unit.gate.conv, 24)
            unit.gate.conv.weight = nn.Parameter(unit.gate.conv.weight.data[:, :24])
    for unit in [other.layer2[1], other.layer3[0]]:
        cut(unit.conv1, 24, outputs=False)
    assert torch.allclose(model(X), other(X), atol=1e-6)
    assert torch.allclose(scripted(other)(X), other(X), atol=1e-5)
