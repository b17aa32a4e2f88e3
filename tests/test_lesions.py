"""The lesion study, distances to the identity and sensitivity, on networks with known answers."""

import math

import pytest
import torch
from test_units import assert_untouched, batch, net, snapshot, zero_branch
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis import distances
from resnet_variants.diagnosis.activations import recorded
from resnet_variants.diagnosis.distances import identity_distance, sensitivity
from resnet_variants.diagnosis.lesions import STEPS, _lesions, lesion_study
from resnet_variants.diagnosis.units import (
    batch_statistics,
    deleted,
    exchanged,
    resume,
    units,
)
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator

IMAGES, LABELS = batch(10)


def test_each_row_is_the_network_with_that_lesion():
    model = net(depth=20)
    before = snapshot(model)
    found = lesion_study(model, IMAGES, LABELS, batch_size=4)
    assert_untouched(model, before)
    logits = model(IMAGES)
    (whole,) = found[found["kind"] == "none"].to_dict("records")
    assert whole["acc"] == (logits.argmax(1) == LABELS).double().mean().item()
    assert whole["loss"] == pytest.approx(cross_entropy(logits.float(), LABELS).item(), rel=1e-5)
    single = found[found["kind"] == "delete"]
    assert single["unit"].tolist() == list(range(9))
    for row, unit in zip(single.to_dict("records"), units(model), strict=True):
        with deleted([unit]):
            loss = cross_entropy(model(IMAGES).float(), LABELS).item()
        assert row["name"] == unit.name
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert row["deleted"] == 1
        assert row["keeps_shape"] == unit.module.keeps_shape
    assert set(found["n"]) == {10}


def test_each_random_lesion_is_made_to_the_whole_network():
    model = net(depth=20)
    found = lesion_study(model, IMAGES, LABELS, batch_size=4, seed=3)
    lesions = [*_lesions(units(model), 2, generator("lesions", 3))]
    assert found["kind"].tolist() == [lesion.kind for lesion in lesions]
    losses = []
    for lesion in lesions:
        with torch.no_grad(), deleted(lesion.gone), exchanged(model, lesion.pairs):
            losses.append(cross_entropy(model(IMAGES).float(), LABELS).item())
    assert found["loss"].to_numpy() == pytest.approx(losses, rel=1e-5)
    assert found.loc[found["kind"] == "permute", "loss"].nunique() > 3
    assert found["deleted"].tolist() == [len(lesion.gone) for lesion in lesions]


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS[:0], LABELS.view(2, 5)])
def test_images_and_labels_must_belong_together(labels):
    for measure in (lesion_study, distances.sensitivity):
        with pytest.raises(UserError, match=r"must be \(N, C, H, W\) and \(N,\)"):
            measure(net(), IMAGES, labels)
        with pytest.raises(UserError, match="N at least 1"):
            measure(net(), IMAGES[:0], LABELS[:0])


def test_random_lesions_are_of_units_that_keep_the_shape():
    model = net(depth=20)
    found = lesion_study(model, IMAGES, LABELS, draws=4)
    several = found[found["kind"] == "delete_random"]
    alike = sum(unit.module.keeps_shape for unit in units(model))
    assert alike == 7
    sizes = [k for k in STEPS if 1 < k <= alike]
    assert several.groupby("deleted")["draw"].nunique().to_dict() == dict.fromkeys(sizes, 4)
    moved = found[found["kind"] == "permute"]
    assert moved.groupby("exchanged")["draw"].nunique().to_dict() == {1: 4, 2: 4, 4: 4}
    assert moved["kendall_tau"].lt(1).all()
    assert moved["kendall_tau"].between(-1, 1).all()
    assert (found.loc[found["kind"] != "permute", "kendall_tau"] == 1).all()


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


def test_of_a_plain_net_units_that_change_the_shape_stay():
    found = lesion_study(net(depth=20, shortcut="none"), IMAGES, LABELS)
    assert found.loc[found["kind"] == "delete", "unit"].tolist() == [0, 1, 2, 4, 5, 7, 8]


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


def test_a_branch_of_twice_the_weights_is_twice_as_large():
    model = net(order="preact")
    once = identity_distance(model, IMAGES)["branch_to_shortcut"]
    units(model)[5].module.conv2.weight.data *= 2
    twice = identity_distance(model, IMAGES)["branch_to_shortcut"]
    assert (twice / once).to_numpy() == pytest.approx([1, 1, 1, 1, 1, 2])


def test_the_ratio_is_of_the_branch_and_the_shortcut_that_are_added():
    model = net(order="preact")
    with batch_statistics(model), recorded(model) as activations, torch.no_grad():
        resume(model, IMAGES)
    found = identity_distance(model, IMAGES)["branch_to_shortcut"]
    for one, ratio in zip(activations, found, strict=True):
        sizes = [maps.flatten(1).norm(dim=1).mean() for maps in (one.branch, one.shortcut)]
        assert ratio == pytest.approx((sizes[0] / sizes[1]).item())
        assert (one.shortcut.shape == one.x.shape) == one.unit.module.keeps_shape


def test_a_gated_unit_has_no_ratio():
    found = identity_distance(net(skip="exclusive_gate"), IMAGES)
    assert found["branch_to_shortcut"].isna().all()
    assert identity_distance(net(skip="shortcut_gate"), IMAGES)["branch_to_shortcut"].notna().all()


def test_a_plain_net_has_no_ratio():
    found = identity_distance(net(shortcut="none"), IMAGES)
    assert found["branch_to_shortcut"].isna().all()
    assert found["cosine"].notna().tolist() == [True, True, False, True, False, True]


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
    assert found["growth"][0] == pytest.approx(_growth_of_the_stem(model), rel=1e-6)


def _growth_of_the_stem(model):
    drawn = torch.randn(IMAGES.shape, generator=generator("growth", 3)).double()

    def size(maps):
        return maps.flatten(1).norm(dim=1)

    stem = size(model.conv1(drawn)).mean() / size(model.conv1(IMAGES)).mean()
    return (stem / (size(drawn).mean() / size(IMAGES).mean())).item()


def test_noise_is_of_the_image_before_it_was_normalised(monkeypatch):
    model = net()
    seen = []

    def watched(model, x):
        seen.append(x)
        return resume(model, x)

    monkeypatch.setattr(distances, "resume", watched)
    sensitivity(model, IMAGES, LABELS, std=torch.tensor([0.5]), noise=(0.0, 0.1), seed=4)
    drawn = torch.randn(IMAGES.shape, generator=generator("noise", 4)).double()
    assert torch.equal(seen[0], IMAGES)
    assert torch.allclose(seen[1], IMAGES + 0.1 / 0.5 * drawn)


def test_the_growth_is_that_of_full_precision_under_autocast_too():
    model = net().float()
    images = IMAGES.float()
    exact = sensitivity(model, images, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = sensitivity(model, images, LABELS)
    assert found["growth"].equals(exact["growth"])
