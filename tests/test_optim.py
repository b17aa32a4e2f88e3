"""Optimizers, schedules and losses against torch's own and against formulas."""

import math

import pytest
import torch
from small import network, recipe
from timm.optim import Lamb
from torch import nn
from torch.nn.functional import log_softmax, logsigmoid, one_hot
from torch.optim.lr_scheduler import OneCycleLR

from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.training.optim import make_loss, make_optimizer, make_schedule


def rates(recipe, steps, key=lambda group: group["lr"]):
    """What an optimizer's group says at each step."""
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    schedule = make_schedule(optimizer, recipe, steps)
    found = []
    for step in range(1, steps + 1):
        schedule(step)
        (value,) = {key(group) for group in optimizer.param_groups}
        found.append(value)
    return found


# --- schedules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "warmup"), [(20, 0.25), (20, 0.0), (7, 0.3), (1, 0.9), (2, 0.99)]
)
def test_the_cosine_rises_in_a_line_and_falls_to_zero(steps, warmup):
    rise = min(round(warmup * steps), steps - 1)
    expected = []
    for middle in (step - 0.5 for step in range(1, steps + 1)):
        share = (middle - rise) / (steps - rise)
        below = middle < rise
        expected.append(0.2 * (middle / rise if below else (1 + math.cos(math.pi * share)) / 2))
    assert rates(recipe(lr=0.2, warmup=warmup), steps) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [20, 21, 1000])
def test_steps_fall_to_a_tenth_exactly_after_their_share(steps):
    found = rates(recipe(schedule="step", lr=0.1, warmup=0.0, milestones=(0.5, 0.75)), steps)
    first, second = round(0.5 * steps), round(0.75 * steps)
    expected = [0.1] * first + [0.01] * (second - first) + [0.001] * (steps - second)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "fields", [{"schedule": "step", "milestones": ()}, {"schedule": "constant"}]
)
def test_a_rate_without_milestones_and_warm_up_stays(fields):
    assert rates(recipe(lr=0.3, warmup=0.0, **fields), 5) == [0.3] * 5


def test_the_warm_up_of_steps_and_of_a_constant_rate_is_a_line():
    for schedule in ("step", "constant"):
        found = rates(recipe(schedule=schedule, lr=0.1, warmup=0.4, milestones=(0.8,)), 10)
        assert found[:4] == pytest.approx([0.1 * middle / 4 for middle in (0.5, 1.5, 2.5, 3.5)])
        assert found[4:8] == pytest.approx([0.1] * 4)
        assert found[8:] == pytest.approx([0.01] * 2 if schedule == "step" else [0.1] * 2)


def torch_cycle(recipe, steps):
    """Rates and momenta of torch's schedule, whose last step is not taken."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=recipe.lr, momentum=recipe.momentum)
    cycle = OneCycleLR(
        optimizer,
        max_lr=recipe.lr,
        total_steps=steps + 1,
        pct_start=recipe.warmup,
        base_momentum=max(0.0, recipe.momentum - 0.1),
        max_momentum=recipe.momentum,
    )
    found = []
    for _ in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        cycle.step()
    return found


@pytest.mark.parametrize("name", ["nesterov", "adamw"])
@pytest.mark.parametrize(
    ("steps", "warmup", "momentum"), [(40, 0.25, 0.95), (40, 0.3, 0.05), (11, 0.9, 0.9)]
)
def test_one_cycle_is_torchs_in_rate_and_momentum(name, steps, warmup, momentum):
    one = recipe(optimizer=name, schedule="onecycle", lr=0.4, warmup=warmup, momentum=momentum)

    def both(group):
        return group["lr"], group["betas"][0] if "betas" in group else group["momentum"]

    found = rates(one, steps, both)
    for ours, theirs in zip(found, torch_cycle(one, steps), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    if name == "adamw":  # the second beta is left alone
        assert set(rates(one, steps, lambda group: group["betas"][1])) == {0.999}


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_one_cycle_of_any_length_stays_in_its_bounds(steps, warmup):
    found = rates(recipe(schedule="onecycle", lr=0.4, warmup=warmup), steps)
    assert all(0 < rate <= 0.4 for rate in found)
    if not warmup:
        assert found[0] == 0.4
        assert found == sorted(found, reverse=True)


# --- optimizers -------------------------------------------------------------------------------


def groups(name, **fields):
    model = network()
    return model, make_optimizer(model, recipe(optimizer=name, lr=0.03, **fields))


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("nesterov", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": False}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.999)}),
        ("lamb", Lamb, {"betas": (0.8, 0.999)}),
    ],
)
def test_an_optimizer_is_the_one_of_its_name(name, kind, settings):
    _, optimizer = groups(name, momentum=0.8)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.03
        assert {key: group[key] for key in settings} == settings
    if kind is torch.optim.SGD:  # without momentum there is no Nesterov
        _, optimizer = groups(name, momentum=0.0)
        assert [(g["momentum"], g["nesterov"]) for g in optimizer.param_groups] == [(0, False)] * 2


@pytest.mark.parametrize("name", ["nesterov", "sgd", "adamw", "lamb"])
def test_weight_decay_acts_on_matrices_or_on_all(name):
    model, optimizer = groups(name, weight_decay=0.07)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {n: decay[id(p)] for n, p in model.named_parameters()} == {
        n: 0.07 if p.ndim > 1 else 0.0 for n, p in model.named_parameters()
    }
    model, optimizer = groups(name, weight_decay=0.07, decay="all")
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {id(p): 0.07 for p in model.parameters()}


@pytest.mark.parametrize("scale", ["skipinit", "layerscale"])
def test_factors_of_branches_do_not_decay(scale):
    model = build(Variant(family="cifar", depth=8, branch_scale=scale))
    groups = make_optimizer(model, recipe(weight_decay=0.07)).param_groups
    free = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    factors = [id(p) for name, p in model.named_parameters() if name.endswith("gamma")]
    assert len(factors) == 3 and free.issuperset(factors)


# --- losses -----------------------------------------------------------------------------------

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])
MIXED = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.0, 0.9]], dtype=torch.float64)


def cross(target):
    return -(target * log_softmax(LOGITS, 1)).sum(1).mean()


def binary(target):
    return -(target * logsigmoid(LOGITS) + (1 - target) * logsigmoid(-LOGITS)).mean()


def smooth(amount):
    return (1 - amount) * one_hot(LABELS, 3) + amount / 3


@pytest.mark.parametrize(
    ("fields", "target", "expected"),
    [
        ({}, LABELS, cross(smooth(0.0))),
        ({"label_smoothing": 0.1}, LABELS, cross(smooth(0.1))),
        # Targets that were mixed have been smoothed already.
        ({"label_smoothing": 0.1, "mixup": 0.2}, MIXED, cross(MIXED)),
        ({"loss": "binary"}, LABELS, binary(smooth(0.0))),
        ({"loss": "binary", "label_smoothing": 0.1}, LABELS, binary(smooth(0.1))),
        # A part of more than a fifth counts as there, the others as not.
        ({"loss": "binary", "cutmix": 1.0}, MIXED, binary((MIXED > 0.2).double())),
    ],
)
def test_a_loss_is_its_formula(fields, target, expected):
    loss = make_loss(recipe(**fields))(LOGITS, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
