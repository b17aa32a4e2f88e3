"""The recipe's ranges, and the recipes of papers."""

import re
from dataclasses import fields, replace

import pytest

from resnet_variants.registry import UserError
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.recipes import RECIPES


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs 0 must be from 1 to 1000000"),
        ({"epochs": -3}, "epochs -3 must be from"),
        ({"epochs": 1.5}, "epochs 1.5 must be of type int"),
        ({"epochs": True}, "epochs True must be of type int"),
        ({"batch_size": 0}, "batch_size 0 must be from 2 to 1000000"),
        ({"lr": None}, "lr None must be of type float"),
        ({"deterministic": 1}, "deterministic 1 must be of type bool"),
        ({"lr": 0}, "lr 0 must be a positive number"),
        ({"lr": float("nan")}, "lr nan must be a positive number"),
        ({"lr": float("inf")}, "lr inf must be a positive number"),
        ({"momentum": 1}, "momentum 1 must be at least 0 and below 1"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001 must be at least 0"),
        ({"warmup": 1.0}, "warmup 1.0 must be at least 0 and below 1"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean 'bf16'?"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'?"),
        ({"schedule": "cos"}, "unknown schedule 'cos'; did you mean 'cosine'? choices: cosine, s"),
        ({"decay": "biases"}, "unknown decay 'biases'; choices: weights, all"),
        ({"flip": "sideways"}, "unknown flip 'sideways'; choices: random, alternating, none"),
        ({"loss": "bce"}, "unknown loss 'bce'; choices: cross_entropy, binary"),
        ({"init_fan": "fan"}, "unknown init_fan 'fan'; did you mean 'fan_in'?"),
        ({"select": "first"}, "unknown select 'first'"),
        ({"milestones": (0.5, 1.0)}, "milestones (0.5, 1.0) must be shares of training"),
        ({"milestones": (True,)}, "milestones (True,) must be shares of training"),
        ({"milestones": 0.5}, "milestones 0.5 must be of type tuple"),
        ({"label_smoothing": 1}, "label_smoothing 1 must be at least 0 and below 1"),
        ({"mixup": -0.1}, "mixup -0.1 must be at least 0 and below 1000000"),
        ({"cutmix": float("nan")}, "cutmix nan must be at least 0"),
        ({"crop_padding": 1.0}, "crop_padding 1.0 must be at least 0 and below 1"),
        ({"crop_area": 1.0}, "crop_area 1.0 must be at least 0 and below 1"),
        ({"color_jitter": 1}, "color_jitter 1 must be at least 0 and below 1"),
        ({"cutout": 1}, "cutout 1 must be at least 0 and below 1"),
        ({"auto_augment": "rand-m99x"}, "auto_augment 'rand-m99x' is none of timm's policies"),
        ({"size_start": 0}, "size_start 0 must be from 0.1 to 1: a share of the image's side"),
        ({"size_end": 1.5}, "size_end 1.5 must be from 0.1 to 1"),
        ({"crop_pct": 1.1}, "crop_pct 1.1 must be from 0.1 to 1: a share of the image's side"),
        ({"normalise": "weights"}, "unknown normalise 'weights'; choices: auto, data, imagenet"),
        ({"drop_path": 1}, "drop_path 1 must be at least 0 and below 1"),
        ({"zero_init": 1}, "zero_init 1 must be of type bool"),
        ({"clip_grad": float("inf")}, "clip_grad inf must be at least 0 and below 1000000"),
        ({"accumulate": 0}, "accumulate 0 must be from 1 to 1000000"),
        ({"accumulate": 5}, "accumulate 5 does not divide batch_size 32"),
        ({"ema": 1.0}, "ema 1.0 must be at least 0 and below 1"),
        ({"sync_bn": None}, "sync_bn None must be of type bool"),
        ({"batch_size": 33, "mixup": 1.0}, "mixup and cutmix pair images"),
        ({"batch_size": 66, "accumulate": 2, "cutmix": 1.0}, "mixup and cutmix pair images"),
        (
            {"label_smoothing": 0.1, "loss": "binary", "mixup": 0.1},
            "label_smoothing is nothing to mixed labels under the binary loss",
        ),
    ],
)
def test_a_number_out_of_range_names_field_value_and_range(wrong, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Recipe(**wrong)
    assert error.value.field == next(iter(wrong))


def test_whole_and_real_spellings_are_one_recipe():
    assert Recipe(lr=1) == Recipe(lr=1.0)
    assert isinstance(Recipe(lr=1).lr, float)
    assert Recipe(milestones=[0.75, 0.5]) == Recipe(milestones=(0.5, 0.75))


def test_every_field_has_a_type():
    for field in fields(Recipe):
        name, wrong = field.name, 1 if type(field.default) is str else "x"
        with pytest.raises(UserError, match=f"^{name} {wrong!r} must be of type ") as error:
            Recipe(**{name: wrong})
        assert error.value.field == name


def test_no_two_names_stand_for_one_recipe():
    assert len(set(RECIPES.values())) == len(RECIPES)
    assert RECIPES["default"] == Recipe()


def test_the_recipes_of_papers_have_their_numbers():
    he = RECIPES["he2015"]
    assert (he.batch_size, he.lr, he.weight_decay, he.milestones) == (128, 0.1, 1e-4, (0.5, 0.75))
    steps = he.epochs * (45_000 // he.batch_size)
    assert steps == pytest.approx(64_000, rel=0.01)
    # Apart from the warm-up the two are one.
    assert replace(RECIPES["he2016"], warmup=0.0) == he
    assert round(RECIPES["he2016"].warmup * 64_000) == 400
    a3 = RECIPES["rsb_a3"]
    assert (a3.lr, a3.weight_decay, a3.optimizer, a3.loss) == (8e-3, 0.02, "lamb", "binary")
    assert round(a3.size_start * 224) == round(a3.size_end * 224) == 160
