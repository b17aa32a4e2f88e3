"""Gradients by unit, branch and path, against sums that must come out."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_units import assert_untouched, batch, net, snapshot
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.activations import forward_pass
from resnet_variants.diagnosis.gradients import (
    _by_length,
    _some_paths,
    gradient_flow,
    gradient_parts,
    path_gradient,
    paths,
)
from resnet_variants.diagnosis.units import batch_statistics, units
from resnet_variants.models.branches import ORDERS
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator


def test_with_preact_the_gradient_grows_by_the_parts_of_the_branches():
    model = net(depth=20, order="preact")
    with batch_statistics(model):
        whole, branches = gradient_parts(forward_pass(model, *batch()))
    # The third stage's first unit changes the shape; within the stages identities pass all on.
    for low, high in ((0, 3), (4, 6), (7, 9)):
        for at in range(low, high):
            difference = whole[at] - whole[high]
            assert torch.allclose(difference, sum(branches[at:high]), rtol=0, atol=1e-12)
            assert (difference - sum(branches[at:high])).abs().max() < 1e-6 * difference.abs().max()


def test_the_recursion_holds_where_nothing_follows_the_addition():
    found = {order: gradient_flow(net(order=order), *batch()) for order in ORDERS}
    keeps, post = [0, 1, 3, 5], found["post"]
    for order in ("preact", "relu_preact", "relu_before_add"):
        assert found[order]["recursion_error"].notna().tolist() == [i in keeps for i in range(7)]
        assert found[order]["recursion_error"].max() < 1e-12
    assert post["recursion_error"][keeps].min() > 1e-3  # the ReLU after the addition
    assert gradient_flow(net(shortcut="none"), *batch())["recursion_error"].isna().all()


def branch_of(module, x):
    """A unit's branch alone."""
    seen = []
    with module.drop_path.register_forward_hook(lambda _, __, out: seen.append(out.clone())):
        module(x)
    return seen[0]


@pytest.mark.parametrize("order", [o for o in ORDERS if o != "bn_after_add"])
def test_the_parts_are_those_of_a_unit_alone(order):
    model, (images, labels) = net(order=order), batch()
    with batch_statistics(model):
        run = forward_pass(model, images, labels)
        whole, branches = gradient_parts(run)
        for one, part in zip(run.activations, branches, strict=True):
            x = one.x.detach().requires_grad_()
            (at_branch,) = run.gradients([one.branch])
            (alone,) = torch.autograd.grad(branch_of(one.unit.module, x), x, at_branch)
            assert torch.allclose(part, alone, rtol=1e-10, atol=1e-14)
        (first,) = run.gradients([run.activations[0].x])
    assert torch.equal(whole[0], first)


def test_the_table_has_the_norms_of_the_gradients():
    model, (images, labels) = net(), batch()
    before = snapshot(model)
    found = gradient_flow(model, images, labels)
    assert_untouched(model, before)
    inputs = []
    hooks = [
        unit.module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for unit in units(model)
    ]
    model.train()
    loss = cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, inputs)
    for hook in hooks:
        hook.remove()
    assert found["grad_norm"][:6].to_numpy() == pytest.approx([g.norm().item() for g in gradients])
    assert found["input_norm"][:6].to_numpy() == pytest.approx([x.norm().item() for x in inputs])
    assert found["name"].tolist()[-1] == "output"
    assert found["unit"].tolist() == list(range(7))
    assert set(found["n"]) == {6}
    last = found.iloc[-1]
    assert math.isnan(last["branch_norm"]) and last["grad_norm"] > 0


def test_a_plain_net_has_no_part_through_a_shortcut():
    found = gradient_flow(net(shortcut="none"), *batch())
    assert found["shortcut_norm"].isna().all()
    assert found["branch_norm"][:6].tolist() == pytest.approx(found["grad_norm"][:6].tolist())


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_need_no_trainable_weights(frozen):
    model = net()
    expected = gradient_flow(model, *batch())
    model.requires_grad_(not frozen)
    assert gradient_flow(model, *batch()).equals(expected)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "axes",
    [{"order": order} for order in ORDERS] + [{"skip": "scale"}, {"skip": "shortcut_gate"}],
    ids=str,
)
def test_all_paths_together_are_the_gradient(axes):
    model = net(depth=14, **axes)
    with batch_statistics(model):
        run = forward_pass(model, *batch())
        (whole,) = run.gradients([run.activations[0].x])
        subsets = itertools.chain.from_iterable(
            itertools.combinations(range(6), length) for length in range(7)
        )
        found = sum(path_gradient(run, subset) for subset in subsets)
    assert torch.allclose(found, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("depth", [14, 38])
def test_paths_are_binomial_and_their_contributions_add_up(depth):
    found = paths(net(depth=depth), *batch(), draws=2)
    n = (depth - 2) // 2
    assert found["length"].tolist() == list(range(n + 1))
    binomial = [math.comb(n, k) / 2**n for k in range(n + 1)]
    assert found["share"].tolist() == pytest.approx(binomial)
    assert found["contribution"].sum() == pytest.approx(1)
    assert found["contribution"].notna().all()


def test_what_paths_contribute_does_not_depend_on_how_many_lengths_are_followed(monkeypatch):
    """A gradient that falls by a third with every branch."""
    found = []
    for every in (1, 2, 9):

        def norms(run, draws, stream, every=every):
            return {k: [1.5**-k] * 2 for k in range(0, len(run.activations) + 1, every)}

        monkeypatch.setattr("resnet_variants.diagnosis.gradients._norms_by_length", norms)
        found.append(paths(net(depth=38), *batch(2)))
    weights = np.array([math.comb(18, k) * 1.5**-k for k in range(19)])
    for table in found:
        assert table["contribution"].to_numpy() == pytest.approx(weights / weights.sum())


def test_paths_of_one_length_differ_and_the_table_says_how_much():
    model = net(depth=14)
    few, many = (paths(model, *batch(), draws=n).set_index("length") for n in (1, 4))
    assert few["grad_norm_sd"].isna().all()
    assert many["grad_norm_sd"].notna().tolist() == [False, *[True] * 5, False]
    assert many["draws"].tolist() == [1, 4, 4, 4, 4, 4, 1]


def test_the_paths_of_a_length_are_different_and_all_where_they_are_few():
    stream = generator("paths", 0)
    assert _some_paths(4, 1, 8, stream) == [(0,), (1,), (2,), (3,)]
    assert _some_paths(4, 0, 8, stream) == [()]
    drawn = _some_paths(9, 3, 40, stream)
    assert len(set(drawn)) == 40
    assert all(len(set(path)) == 3 and path == tuple(sorted(path)) for path in drawn)
    assert set().union(*drawn) == set(range(9))
    with pytest.raises(UserError, match="draws 0 must be at least 1"):
        paths(net(), *batch(), draws=0)


def test_a_path_that_carries_next_to_nothing_is_measured():
    """Far below what float32 holds: 18 branches that each take three digits."""
    model = net(depth=38, order="preact")
    for unit in units(model):
        unit.module.conv2.weight.data *= 1e-3
    exact = paths(model, *batch(2), draws=1)["grad_norm"]
    images, labels = batch(2)
    found = paths(model.float(), images.float(), labels, draws=1)["grad_norm"]
    assert 0 < found.iloc[-1] < 1e-46
    known = exact.notna()
    assert found[known].to_numpy() == pytest.approx(exact[known].to_numpy(), rel=1e-2)


def test_the_spread_is_the_deviation_over_the_paths():
    table = _by_length(2, {0: [4.0], 1: [1.0, 2.0, 6.0], 2: [0.5]}).set_index("length")
    assert table["grad_norm"].tolist() == [4.0, 3.0, 0.5]
    assert table["grad_norm_sd"][1] == pytest.approx(7**0.5)


def test_the_shortest_and_the_longest_path_have_no_choice():
    model = net()
    found = paths(model, *batch())["grad_norm"].to_numpy()
    with batch_statistics(model):
        run = forward_pass(model, *batch())
        ends = [path_gradient(run, own).norm().item() for own in ((), range(6))]
    assert found[[0, -1]] == pytest.approx(ends)


def test_of_a_deep_net_lengths_are_spread_evenly():
    found = paths(net(depth=56), *batch(2), draws=1)
    assert len(found) == 28
    followed = found.loc[found["grad_norm"].notna(), "length"].to_numpy()
    assert len(followed) == 16
    assert followed[[0, -1]].tolist() == [0, 27]
    assert np.diff(followed).max() == 2


def test_without_shortcuts_or_with_gates_there_are_no_paths():
    with pytest.raises(UserError, match="is a plain net: it has no shortcut"):
        paths(net(shortcut="none"), *batch())
    with pytest.raises(UserError, match="gates its branches by what its shortcuts carry"):
        paths(net(skip="exclusive_gate"), *batch())
