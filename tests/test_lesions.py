"""The lesion study, distances to the identity and sensitivity, on networks with known answers."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from nets import PYRAMID
from test_units import RESIDUAL, assert_untouched, batch, net, snapshot, zero_branch
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis import distances, shifts
from resnet_variants.diagnosis.activations import recorded
from resnet_variants.diagnosis.distances import identity_distance, sensitivity
from resnet_variants.diagnosis.lesions import lesion_study
from resnet_variants.diagnosis.shifts import shifted_accuracy
from resnet_variants.diagnosis.units import batch_statistics, deleted, resume, units
from resnet_variants.models.branches import ORDERS
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator

IMAGES, LABELS = batch(10)


def loss_of(model):
    with torch.no_grad():
        return cross_entropy(model(IMAGES).float(), LABELS).item()


def without(model, i, order):
    """By hand: the network whose unit adds nothing to its shortcut, or a plain one its input."""
    model = copy.deepcopy(model)
    stage, _, at = units(model)[i].name.rpartition(".")
    if units(model)[i].is_plain:
        model.get_submodule(stage)[int(at)] = torch.nn.Identity()
    else:
        zero_branch(units(model)[i].module, order)
    return model


@pytest.mark.parametrize("axes", [*RESIDUAL, {"order": "twice"}, {"shortcut": "none"}], ids=str)
def test_each_row_is_the_network_with_that_lesion(axes, monkeypatch):
    monkeypatch.setitem(ORDERS, "twice", PYRAMID)
    model, plain = net(**axes), axes == {"shortcut": "none"}
    before = snapshot(model)
    found = lesion_study(model, IMAGES, LABELS, batch_size=4)
    assert_untouched(model, before)
    (whole,) = found[found["kind"] == "none"].to_dict("records")
    assert whole["acc"] == (model(IMAGES).argmax(1) == LABELS).double().mean().item()
    assert whole["loss"] == pytest.approx(loss_of(model), rel=1e-5)
    single = found[found["kind"] == "delete"]
    # Without a shortcut nothing passes a unit that changes the shape.
    assert single["unit"].tolist() == ([0, 1, 3, 5] if plain else [0, 1, 2, 3, 4, 5])
    for row in single.to_dict("records"):
        by_hand = without(model, int(row["unit"]), axes.get("order", "post"))
        assert row["loss"] == pytest.approx(loss_of(by_hand), rel=2e-6)
        assert row["loss"] != pytest.approx(whole["loss"], rel=2e-6)
        assert row["name"] == units(model)[int(row["unit"])].name
        assert row["keeps_shape"] == (row["unit"] in (0, 1, 3, 5))
    assert set(single["deleted"]) == {1}
    assert set(found["n"]) == {10}


def exchanged_by_hand(model, swaps):
    """The network after successive exchanges of two units of a stage."""
    model = copy.deepcopy(model)
    for stage, i, j in swaps:
        layers = model.get_submodule(stage)
        layers[i], layers[j] = layers[j], layers[i]
    return model


def test_each_random_lesion_is_of_units_that_keep_the_shape():
    model = net(depth=20)
    found = lesion_study(model, IMAGES, LABELS, draws=4)
    several = found[found["kind"] == "delete_random"]
    assert several.groupby("deleted")["draw"].nunique().to_dict() == {2: 4, 4: 4}  # of seven
    moved = found[found["kind"] == "permute"]
    assert moved.groupby("exchanged")["draw"].nunique().to_dict() == {1: 4, 2: 4, 4: 4}
    assert moved["kendall_tau"].between(-1, 1, inclusive="left").all()
    assert (found.loc[found["kind"] != "permute", "kendall_tau"] == 1).all()

    alike = [unit for unit in units(model) if unit.module.keeps_shape]
    losses = []
    for gone in itertools.combinations(alike, 2):
        with deleted(gone):
            losses.append(loss_of(model))
    for loss in several.loc[several["deleted"] == 2, "loss"]:
        assert np.isclose(losses, loss, rtol=1e-5, atol=0).any()
    swaps = [("layer1", 0, 1), ("layer1", 0, 2), ("layer1", 1, 2)]
    swaps += [("layer2", 1, 2), ("layer3", 1, 2)]
    for count, own in moved[moved["exchanged"] < 4].groupby("exchanged")["loss"]:
        orders = itertools.permutations(swaps, count)
        losses = [loss_of(exchanged_by_hand(model, order)) for order in orders]
        assert all(np.isclose(losses, loss, rtol=1e-5, atol=0).any() for loss in own)


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS[:0], LABELS.view(2, 5)])
def test_images_and_labels_must_belong_together(labels):
    for measure in (lesion_study, distances.sensitivity):
        with pytest.raises(UserError, match=r"must be \(N, C, H, W\) and \(N,\)"):
            measure(net(), IMAGES, labels)
        with pytest.raises(UserError, match="N at least 1"):
            measure(net(), IMAGES[:0], LABELS[:0])


def test_the_same_seed_draws_the_same_lesions():
    model = net(depth=20)
    first, again, other = (lesion_study(model, IMAGES, LABELS, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_lesions_that_do_nothing_cost_nothing():
    model = net(depth=20, order="preact")
    for unit in units(model):
        zero_branch(unit.module, "preact")
    found = lesion_study(model, IMAGES, LABELS)
    assert found["loss"].to_numpy() == pytest.approx(found["loss"][0])


# --- distance to the identity -----------------------------------------------------------------


def test_a_unit_without_a_branch_is_the_identity():
    model = net(order="preact")
    zero_branch(units(model)[1].module, "preact")
    before = snapshot(model)
    found = identity_distance(model, IMAGES).set_index("unit")
    assert_untouched(model, before)
    assert found["branch_to_shortcut"][1] == 0
    assert found["cosine"][1] == pytest.approx(1)
    assert found["branch_to_shortcut"][0] > 0.01
    assert found["cosine"][0] < 0.9999
    assert math.isnan(found["cosine"][2])  # it changes the shape
    assert found["branch_to_shortcut"][2] > 0


def test_the_ratio_is_of_the_branch_and_the_shortcut_that_are_added():
    model = net(order="preact")
    with batch_statistics(model), recorded(model) as activations, torch.no_grad():
        resume(model, IMAGES)
    found = identity_distance(model, IMAGES)["branch_to_shortcut"]
    for one, ratio in zip(activations, found, strict=True):
        sizes = [maps.flatten(1).norm(dim=1).mean() for maps in (one.branch, one.shortcut)]
        assert ratio == pytest.approx((sizes[0] / sizes[1]).item())
        assert (one.shortcut.shape == one.x.shape) == one.unit.module.keeps_shape


def test_a_unit_that_adds_no_shortcut_to_its_branch_has_no_ratio():
    gated, plain = net(skip="exclusive_gate"), net(shortcut="none")
    for model in (gated, plain):
        assert identity_distance(model, IMAGES)["branch_to_shortcut"].isna().all()
    keeps_shape = [True, True, False, True, False, True]
    assert identity_distance(plain, IMAGES)["cosine"].notna().tolist() == keeps_shape
    assert identity_distance(net(skip="shortcut_gate"), IMAGES)["branch_to_shortcut"].notna().all()


def test_beside_a_shortcut_of_zero_there_is_no_ratio():
    model = net()
    model.bn1.weight.data.zero_()
    model.bn1.bias.data.zero_()
    found = identity_distance(model, IMAGES)["branch_to_shortcut"]
    assert found.isna().tolist() == [True, *[False] * 5]


# --- sensitivity ------------------------------------------------------------------------------


def test_without_noise_the_accuracy_is_that_of_the_network():
    model = net()
    before = snapshot(model)
    found = sensitivity(model, IMAGES, LABELS, batch_size=4)
    assert_untouched(model, before)
    noise = found[found["kind"] == "noise"].set_index("noise_sd")["acc"]
    assert noise[0.0] == (model(IMAGES).argmax(1) == LABELS).double().mean().item()
    growth = found[found["kind"] == "growth"]
    assert growth["name"].tolist() == [*(unit.name for unit in units(model)), "output"]
    assert growth["growth"].gt(0).all()


def test_what_passes_a_unit_unchanged_does_not_grow_there():
    model = net(order="preact")
    zero_branch(units(model)[0].module, "preact")
    growth = sensitivity(model, IMAGES, LABELS)["growth"]
    assert growth[1] == pytest.approx(growth[0])
    assert growth[2] != pytest.approx(growth[1])


def test_a_small_disturbance_grows_by_the_derivative():
    """A net that is linear up to its first unit: the stem's convolution alone."""
    model = net(order="preact")
    found = sensitivity(model, IMAGES, LABELS, seed=3)
    drawn = torch.randn(IMAGES.shape, generator=generator("growth", 3)).double()

    def change(function):
        sizes = (function(maps).flatten(1).norm(dim=1).mean() for maps in (drawn, IMAGES))
        return next(sizes) / next(sizes)

    expected = change(model.conv1) / change(lambda images: images)
    assert found["growth"][0] == pytest.approx(expected.item(), rel=1e-6)


def test_noise_is_of_the_image_before_it_was_normalised():
    model, deviations = net(), (0.0, 0.5, 1.0, 2.0)
    with torch.no_grad():
        model.fc.bias -= model(IMAGES).mean(0)  # else one class has all
    labels, std = model(IMAGES).argmax(1), torch.tensor([0.5])
    found = sensitivity(model, IMAGES, labels, std=std, noise=deviations, seed=4)
    drawn = torch.randn(IMAGES.shape, generator=generator("noise", 4)).double()
    accs = [
        (model(IMAGES + sd / 0.5 * drawn).argmax(1) == labels).double().mean().item()
        for sd in deviations
    ]
    assert found["acc"].dropna().tolist() == accs
    assert len(set(accs)) > 2


def test_the_growth_is_that_of_full_precision_under_autocast_too():
    model = net().float()
    images = IMAGES.float()
    exact = sensitivity(model, images, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = sensitivity(model, images, LABELS)
    assert found["growth"].equals(exact["growth"])


# --- shifts -----------------------------------------------------------------------------------


def test_a_shift_moves_every_image_by_whole_pixels_in_four_directions(monkeypatch):
    model, seen = net(), []
    monkeypatch.setattr(shifts, "resume", lambda model, x: seen.append(x) or resume(model, x))
    found = shifted_accuracy(model, IMAGES, LABELS, shares=(0.0, 0.2))
    step = round(0.2 * IMAGES.shape[-1])
    assert found["shift"].tolist() == [0, step] and found["kept"][0] == 1
    plain, same, up, down, left, right = seen
    assert torch.equal(plain, IMAGES) and torch.equal(same, IMAGES)
    assert torch.equal(up[..., :-step, :], IMAGES[..., step:, :])
    assert torch.equal(down[..., step:, :], IMAGES[..., :-step, :])
    assert torch.equal(left[..., :-step], IMAGES[..., step:])
    assert torch.equal(right[..., step:], IMAGES[..., :-step])
    edge = IMAGES[..., :1, :].expand(-1, -1, step, -1)
    assert torch.equal(down[..., :step, :], edge)


def test_accuracy_and_equal_answers_under_a_shift_are_means_over_the_directions():
    model = net()
    with torch.no_grad():
        model.fc.bias -= model(IMAGES).mean(0)  # else one class has all
        labels = model(IMAGES).argmax(1)
        found = shifted_accuracy(model, IMAGES, labels, shares=(0.0, 0.25), batch_size=3)
    assert found["acc"].tolist() == found["kept"].tolist()  # its own answers are the labels
    assert 0 < found["acc"][1] < found["acc"][0] == 1
    assert (4 * len(IMAGES) * found["acc"][1]) % 1 == pytest.approx(0)
