"""Gradients by unit, branch and path, against sums that must come out."""

import itertools
import math

import numpy as np
import pytest
import torch
from test_units import RESIDUAL, assert_untouched, batch, net, snapshot
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.activations import forward_pass
from resnet_variants.diagnosis.gradients import (
    _by_length,
    gradient_flow,
    path_gradient,
    paths,
)
from resnet_variants.diagnosis.units import batch_statistics, units
from resnet_variants.models.branches import ORDERS
from resnet_variants.registry import UserError


def test_the_recursion_holds_where_nothing_follows_the_addition():
    found = {order: gradient_flow(net(order=order), *batch()) for order in ORDERS}
    keeps, post = [0, 1, 3, 5], found["post"]
    for order in ("preact", "relu_preact", "relu_before_add"):
        assert found[order]["recursion_error"].notna().tolist() == [i in keeps for i in range(7)]
        assert found[order]["recursion_error"].max() < 1e-12
    assert post["recursion_error"][keeps].min() > 1e-3  # the ReLU after the addition
    assert gradient_flow(net(shortcut="none"), *batch())["recursion_error"].isna().all()


def by_hand(model, images, labels):
    """Norms of each unit's input, of the loss gradient there, and of the branch's part of it."""
    inputs, branches = [], []

    def keep_branch(_, args, out):
        branches.append(out)
        return out.clone()  # the unit may add the shortcut in place

    for unit in units(model):
        unit.module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        unit.module.drop_path.register_forward_hook(keep_branch)
    loss = cross_entropy(model.train()(images), labels)
    count = len(inputs)
    gradients = torch.autograd.grad(loss, [*inputs, *branches], retain_graph=True)
    parts = [
        torch.autograd.grad(branch, x, at_branch, retain_graph=True)[0]
        for branch, x, at_branch in zip(branches, inputs, gradients[count:], strict=True)
    ]
    shortcuts = [whole - part for whole, part in zip(gradients[:count], parts, strict=True)]
    columns = ("input_norm", "grad_norm", "branch_norm", "shortcut_norm")
    lists = (inputs, gradients[:count], parts, shortcuts)
    return {name: [x.norm().item() for x in own] for name, own in zip(columns, lists, strict=True)}


@pytest.mark.parametrize("axes", RESIDUAL, ids=str)
def test_the_table_has_the_norms_of_the_gradients_and_of_their_parts(axes):
    model = net(**axes)
    before = snapshot(model)
    found = gradient_flow(model, *batch())
    assert_untouched(model, before)
    for name, norms in by_hand(model, *batch()).items():
        assert found[name][:6].to_numpy() == pytest.approx(norms, rel=1e-9), name
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


def subsets(length):
    """The units of the network of depth 14 whose branch a path of this length may take."""
    return itertools.combinations(range(6), length)


@pytest.mark.parametrize(
    "axes", [own for own in RESIDUAL if own != {"skip": "exclusive_gate"}], ids=str
)
def test_all_paths_together_are_the_gradient(axes):
    model = net(depth=14, **axes)
    with batch_statistics(model):
        run = forward_pass(model, *batch())
        (whole,) = run.gradients([run.activations[0].x])
        parts = (path_gradient(run, own) for length in range(7) for own in subsets(length))
        found = sum(direction * math.exp(log_norm) for direction, log_norm in parts)
    assert torch.allclose(found, whole, rtol=1e-9, atol=1e-12)


def test_the_table_of_paths_has_mean_and_deviation_of_all_where_they_are_few():
    model = net(depth=14)
    found = paths(model, *batch(), draws=20)
    with batch_statistics(model):
        run = forward_pass(model, *batch())
        parts = [[path_gradient(run, own) for own in subsets(k)] for k in range(7)]
    norms = [[direction.norm().item() * math.exp(log) for direction, log in own] for own in parts]
    assert found["grad_norm"].to_numpy() == pytest.approx([np.mean(own) for own in norms])
    spreads = [np.std(own, ddof=1) for own in norms[1:-1]]
    assert found["grad_norm_sd"].to_numpy()[1:-1] == pytest.approx(spreads)
    assert found["draws"].tolist() == [1, 6, 15, 20, 15, 6, 1]


@pytest.mark.parametrize("depth", [14, 38])
def test_paths_are_binomial_and_their_contributions_add_up(depth):
    found = paths(net(depth=depth), *batch(), draws=2)
    n = (depth - 2) // 2
    assert found["length"].tolist() == list(range(n + 1))
    binomial = [math.comb(n, k) / 2**n for k in range(n + 1)]
    assert found["share"].tolist() == pytest.approx(binomial)
    assert found["contribution"].sum() == pytest.approx(1)
    assert found["contribution"].notna().all()


@pytest.mark.parametrize("every", [1, 2, 9])
def test_what_paths_contribute_does_not_depend_on_how_many_lengths_are_followed(every):
    # A gradient that falls by a third with every branch.
    table = _by_length(18, {k: [1.5**-k] * 2 for k in range(0, 19, every)})
    weights = np.array([math.comb(18, k) * 1.5**-k for k in range(19)])
    assert table["contribution"].to_numpy() == pytest.approx(weights / weights.sum())


def test_paths_of_one_length_differ_and_the_table_says_how_much():
    model = net(depth=14)
    few, many = (paths(model, *batch(), draws=n).set_index("length") for n in (1, 4))
    assert few["grad_norm_sd"].isna().all()
    assert many["grad_norm_sd"].notna().tolist() == [False, *[True] * 5, False]
    assert many["draws"].tolist() == [1, 4, 4, 4, 4, 4, 1]


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


def test_of_a_deep_net_lengths_are_spread_evenly():
    found = paths(net(depth=56), *batch(2), draws=1)
    assert len(found) == 28
    followed = found.loc[found["grad_norm"].notna(), "length"].to_numpy()
    assert len(followed) == 16
    assert followed[[0, -1]].tolist() == [0, 27]
    assert np.diff(followed).max() == 2


def test_without_shortcuts_or_draws_or_with_gates_there_are_no_paths():
    with pytest.raises(UserError, match="is a plain net: it has no shortcut"):
        paths(net(shortcut="none"), *batch())
    with pytest.raises(UserError, match="gates its branches by what its shortcuts carry"):
        paths(net(skip="exclusive_gate"), *batch())
    with pytest.raises(UserError, match="draws 0 must be at least 1"):
        paths(net(), *batch(), draws=0)


def test_a_gradient_of_zero_has_no_ratio():
    model = net(order="preact")
    torch.nn.init.zeros_(model.fc.weight)
    found = gradient_flow(model, *batch())
    assert found["grad_norm"].eq(0).all()
    assert found["recursion_error"].isna().all()
