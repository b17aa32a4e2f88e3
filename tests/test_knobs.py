"""No setting of a recipe is a dead knob, and the recipes of papers say what those say."""

import dataclasses
import functools
import itertools

import pytest
import torch
from recipes import OTHERS
from small import digits, digits_run, execute, measured, same, train, weights

from resnet_variants.settings import rules_of
from resnet_variants.sweeps import execute as execution
from resnet_variants.training.optim import make_optimizer, make_schedule
from resnet_variants.training.recipe import RECIPES, Recipe

# Fields with choices: every choice is another training. Of the two that are left out `auto` means
# one of the others.
CHOICES = {
    name: rule.choices
    for name, rule in rules_of(Recipe).items()
    if rule.choices and name not in ("precision", "normalise")
}
ELSEWHERE = {
    "weights": "test_transfer: it takes a trained run",
    "augment": "test_plugins: a plugin registers it",
    "crop_pct": "test_pipeline: it is part of the images",
    "sync_bn": "test_devices: it takes two",
    "deterministic": "below: on CPUs the results are the same",
}


@functools.cache
def mirrored_digits():
    """Digits that may be mirrored."""
    return dataclasses.replace(digits(), mirror=True)


def train_anew(**fields):
    """What a tiny training leaves behind: records and weights."""
    torch.set_num_threads(1)
    data = mirrored_digits()
    run = digits_run(**{"batch_size": 32, "epochs": 3} | fields)
    model = run.build(data)
    records = measured(train(model, run.recipe, data=run.prepared(data)))
    for record in records:
        del record["lr"]  # it would change although nothing is done with it
    return records, weights(model)


trained = functools.cache(train_anew)


def different(one, other):
    return one[0] != other[0] or not same(one[1], other[1])


@pytest.mark.parametrize("name", [n for n in OTHERS if n not in CHOICES | ELSEWHERE])
def test_a_field_changes_the_training(name):
    base = {"schedule": "step"} if name == "milestones" else {}
    assert different(trained(**base), trained(**base | {name: OTHERS[name]}))


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_another_training(name):
    base = {"decay": {"weight_decay": 0.1}, "select": {"lr": 1.0}}.get(name, {"lr": 0.01})
    results = [trained(**base, **{name: choice}) for choice in CHOICES[name]]
    assert all(different(one, other) for one, other in itertools.combinations(results, 2))


def test_the_same_recipe_trains_the_same():
    assert not different(trained(), train_anew())


def test_the_best_weights_are_those_of_the_best_epoch():
    records, _ = trained(lr=1.0)
    best = max(records, key=lambda record: record["val_acc"])
    assert best["epoch"] < len(records)  # else nothing is tested
    selected, _ = trained(lr=1.0, select="best")
    assert selected == records  # what is kept changes nothing on the way


@pytest.mark.parametrize("enabled", [True, False])
def test_deterministic_kernels_are_used_while_training_and_not_after(
    tmp_path, monkeypatch, enabled
):
    seen, fit = [], execution.fit

    def watched(*args, **kwargs):
        for record in fit(*args, **kwargs):
            seen.append(torch.are_deterministic_algorithms_enabled())
            yield record

    monkeypatch.setattr(execution, "fit", watched)
    run = digits_run(deterministic=enabled)
    execute(run, tmp_path / "run")
    assert seen == [enabled, enabled]
    assert not torch.are_deterministic_algorithms_enabled()


# --- recipes of papers ------------------------------------------------------------------------

CIFAR = 45_000 // 128  # steps an epoch, of the images that validation leaves
IMAGENET = 1_281_167


def rate(name, step, per_epoch):
    """The learning rate of a recipe at a step."""
    one = RECIPES[name]
    optimizer = make_optimizer(torch.nn.Linear(2, 2), one)
    make_schedule(optimizer, one, one.epochs * per_epoch)(step)
    return optimizer.param_groups[0]["lr"]


def test_he2015_is_64k_steps_that_fall_at_32k_and_48k():
    # arXiv:1512.03385, section 4.2
    one = RECIPES["he2015"]
    assert one.epochs * CIFAR == pytest.approx(64_000, rel=0.005)
    assert (one.batch_size, one.optimizer, one.momentum) == (128, "sgd", 0.9)
    assert (one.weight_decay, one.decay, one.crop_padding * 32) == (1e-4, "all", 4)
    expected = {1: 0.1, 31_900: 0.1, 32_000: 0.01, 47_850: 0.01, 48_000: 0.001, 63_800: 0.001}
    for step, value in expected.items():
        assert rate("he2015", step, CIFAR) == pytest.approx(value)
    assert one.init_fan == "fan_in"
    assert (one.label_smoothing, one.mixup, one.zero_init_last) == (0, 0, False)


def test_he2016_is_he2015_after_400_steps_of_warm_up():
    # arXiv:1603.05027, appendix
    assert dataclasses.replace(RECIPES["he2016"], warmup=0.0) == RECIPES["he2015"]
    assert rate("he2016", 1, CIFAR) < rate("he2016", 300, CIFAR) < rate("he2016", 399, CIFAR) < 0.1
    assert rate("he2016", 401, CIFAR) == pytest.approx(0.1)


def test_bag_of_tricks_is_a_cosine_of_200_epochs_after_five():
    # arXiv:1812.01187, sections 2.1, 3.1 and 5
    one, per_epoch = RECIPES["bag_of_tricks"], IMAGENET // 256
    assert (one.epochs, one.lr * 256 / one.batch_size, one.optimizer) == (200, 0.1, "nesterov")
    assert (one.weight_decay, one.decay, one.zero_init_last) == (1e-4, "weights", True)
    assert (one.label_smoothing, one.mixup) == (0.1, 0.2)
    assert (one.crop_area, one.color_jitter) == (0.08, 0.4)
    assert rate("bag_of_tricks", 5 * per_epoch // 2, per_epoch) == pytest.approx(0.05, rel=1e-3)
    assert rate("bag_of_tricks", 5 * per_epoch, per_epoch) == pytest.approx(0.1, rel=1e-3)
    middle = (5 + 195 // 2) * per_epoch + per_epoch // 2
    assert rate("bag_of_tricks", middle, per_epoch) == pytest.approx(0.05, rel=1e-2)
    assert rate("bag_of_tricks", 200 * per_epoch, per_epoch) < 1e-9


def test_rsb_a3_is_column_a3_of_table_2():
    one = RECIPES["rsb_a3"]  # arXiv:2110.00476
    assert (one.epochs, one.batch_size, one.optimizer, one.lr) == (100, 2048, "lamb", 8e-3)
    assert (one.weight_decay, one.warmup * one.epochs, one.schedule) == (0.02, 5, "cosine")
    assert (one.loss, one.mixup, one.cutmix, one.label_smoothing) == ("binary", 0.1, 1.0, 0)
    assert one.auto_augment == "rand-m6-mstd0.5-inc1"
    assert (one.size_start * 224, one.size_end * 224) == pytest.approx((160, 160))
    assert (one.drop_path_rate, one.ema) == (0, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_trains(name):
    small = {"epochs": 2, "batch_size": 32, "precision": "fp32"}
    one = dataclasses.replace(RECIPES[name], **small)
    records, final = train_anew(**dataclasses.asdict(one))
    assert len(records) == 2
    assert all(tensor.isfinite().all() for tensor in final.values())
