"""Units taken out, exchanged and watched, against the same done to the weights by hand."""

import copy
import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.activations import recorded
from resnet_variants.diagnosis.units import (
    batch_statistics,
    deleted,
    evaluating,
    exchanged,
    require_ours,
    resume,
    unit_inputs,
    units,
)
from resnet_variants.models.branches import ORDERS, Order
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError


def net(depth=14, **axes):
    """In float64, with running statistics and affine weights that are not the initial ones."""
    torch.manual_seed(1)
    model = build(Variant(family="cifar", depth=depth, **axes), in_chans=1, num_classes=10).double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


def batch(n=6, side=8):
    torch.manual_seed(2)
    return torch.randn(n, 1, side, side, dtype=torch.float64), torch.randint(0, 10, (n,))


def snapshot(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [
        len(hooks)
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ]
    modes = [module.training for module in model.modules()]
    return state, hooks, modes, [name for name, _ in model.named_modules()], model(batch()[0])


def assert_untouched(model, before):
    state, hooks, modes, names, out = snapshot(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in before[0].items())
    assert (hooks, modes, names) == before[1:4]
    assert torch.equal(out, before[4])


def zero_branch(module, order):
    """By hand: what ends the branch before the addition gives zero."""
    if ORDERS[order].ends_with == "conv":
        module.conv2.weight.data.zero_()
    else:
        norm = module.bn2b if order == "twice" else module.bn2
        norm.weight.data.zero_()
        norm.bias.data.zero_()


# Two norms at one convolution: PyramidNet's.
TWICE = Order("norm act conv", "norm act conv norm +", stem="norm", head="norm act", project="")


@pytest.fixture(autouse=True)
def _twice(monkeypatch):
    monkeypatch.setitem(ORDERS, "twice", TWICE)


ORDERED = [
    *({"order": order} for order in (*ORDERS, "twice")),
    *({"shortcut": shortcut} for shortcut in ("pad", "avgpool", "conv_all")),
    *({"skip": skip} for skip in ("scale", "scale_both", "exclusive_gate", "shortcut_gate")),
    {"attention": "se"},
]


@pytest.mark.parametrize("axes", ORDERED, ids=str)
@pytest.mark.parametrize("gone", [[0], [2], [1, 4]])
def test_deleting_a_unit_is_its_branch_made_zero(axes, gone):
    model, (images, _) = net(**axes), batch()
    by_hand = copy.deepcopy(model)
    for i in gone:
        zero_branch(units(by_hand)[i].module, axes.get("order", "post"))
    before = snapshot(model)
    with deleted([units(model)[i] for i in gone]):
        found = model(images)
    if axes.get("attention") == "se":  # it follows what was made zero, and has nothing to weigh
        assert torch.allclose(found, by_hand(images))
    else:
        assert torch.equal(found, by_hand(images))
    assert not torch.allclose(found, before[4])
    assert_untouched(model, before)


@pytest.mark.parametrize("end", [None, torch.nn.Identity()], ids=["none", "shared"])
def test_units_without_an_own_end_of_the_branch_are_deleted_and_watched(end):
    model, other, (images, _) = net(), net(), batch()
    for unit in units(other):
        unit.module.drop_path = end
    before = snapshot(other)
    with deleted(units(model)[2:3]), deleted(units(other)[2:3]):
        assert torch.equal(model(images), other(images))
    with recorded(model) as activations, recorded(other) as others:
        assert torch.equal(model(images), other(images))
    for one, same in zip(activations, others, strict=True):
        assert torch.equal(one.branch, same.branch)
        assert torch.equal(one.shortcut, same.shortcut)
    assert_untouched(other, before)


def test_deleting_a_plain_unit_passes_its_input():
    model, (images, _) = net(shortcut="none"), batch()
    by_hand = copy.deepcopy(model)
    by_hand.layer1[1] = torch.nn.Identity()
    before = snapshot(model)
    with deleted([units(model)[1]]):
        assert torch.equal(model(images), by_hand(images))
    assert_untouched(model, before)


def test_a_plain_unit_that_changes_the_shape_cannot_be_deleted():
    unit = units(net(shortcut="none"))[2]
    assert not unit.deletable
    with pytest.raises(UserError, match=r"layer2\.0 changes the shape and has no shortcut"):
        deleted([unit]).__enter__()


def test_units_change_places_and_return():
    model, (images, _) = net(depth=20), batch()
    by_hand = copy.deepcopy(model)
    layers = [by_hand.layer1[i] for i in range(3)]
    for i, j in enumerate((2, 0, 1)):
        by_hand.layer1[i] = layers[j]
    before = snapshot(model)
    first, second, third = units(model)[:3]
    with exchanged(model, [(first, second), (first, third)]):
        assert torch.equal(model(images), by_hand(images))
    assert_untouched(model, before)


def test_units_of_other_shapes_cannot_change_places():
    model = net()
    found = units(model)
    for pair in [(found[0], found[3]), (found[2], found[3])]:
        with pytest.raises(UserError, match="take maps of other shapes: they cannot change places"):
            exchanged(model, [pair]).__enter__()


def test_an_error_inside_leaves_the_model_as_it_was():
    model = net()
    before, found = snapshot(model), units(model)
    for context in (
        lambda: deleted(found[:2]),
        lambda: exchanged(model, [(found[0], found[1])]),
        lambda: recorded(model),
        lambda: batch_statistics(model),
        lambda: evaluating(model),
    ):
        with pytest.raises(ZeroDivisionError), context():
            raise ZeroDivisionError
        assert_untouched(model, before)


@pytest.mark.parametrize("axes", [{}, {"order": "preact"}, {"shortcut": "none"}], ids=str)
def test_the_chain_is_the_network(axes):
    model, (images, _) = net(**axes), batch()
    seen = []
    for unit in units(model):
        unit.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    out = model(images)
    inputs = unit_inputs(model, images)
    assert [unit.name for unit in units(model)] == [
        f"layer{s}.{i}" for s in (1, 2, 3) for i in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(inputs, seen[:6], strict=False))
    for unit, x in zip(units(model), inputs, strict=False):
        assert torch.equal(resume(model, x, unit.at), out)
    assert torch.equal(resume(model, inputs[-1], units(model)[-1].at + 1), out)


@pytest.mark.parametrize("axes", ORDERED, ids=str)
def test_what_is_recorded_adds_up(axes):
    model, (images, _) = net(**axes), batch()
    before = snapshot(model)
    with recorded(model) as activations:
        model(images)
    assert_untouched(model, before)
    assert [p.unit.name for p in activations] == [unit.name for unit in units(model)]
    for one, following in itertools.pairwise(activations):
        assert torch.equal(one.out, following.x)
    if axes.get("skip") == "exclusive_gate":  # whose shortcut is no module's output
        return
    if axes.get("order", "post") in ("relu_before_add", "relu_preact", "preact", "twice"):
        for one in activations:
            assert torch.allclose(one.branch + one.shortcut, one.out)
    elif axes.get("order", "post") == "post":
        for one in activations:
            assert torch.allclose((one.branch + one.shortcut).relu(), one.out)


def test_the_batchs_own_statistics_are_those_of_training():
    model, (images, labels) = net(), batch()
    training = copy.deepcopy(model).train()
    cross_entropy(training(images), labels).backward()
    before = snapshot(model)
    with batch_statistics(model):
        assert not model.training
        found = torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))
    for gradient, parameter in zip(found, training.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-12, atol=1e-14)
    assert_untouched(model, before)


def test_a_model_in_training_mode_stays_in_it():
    model = net().train()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_other_models_are_refused():
    with pytest.raises(UserError, match="Linear is none of this package's networks"):
        require_ours(torch.nn.Linear(2, 2))
