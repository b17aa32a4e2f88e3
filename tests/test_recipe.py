"""The recipe's ranges, and the recipes of papers."""

import re
from dataclasses import replace

import pytest

from resnet_variants.registry import UserError
from resnet_variants.training.recipe import RECIPES, Recipe


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs 0 must be from 1 to 1000000"),
        ({"epochs": 1.5}, "epochs 1.5 must be of type int"),
        ({"lr": None}, "lr None must be of type float"),
        ({"lr": 0}, "lr 0 must be a positive number"),
        ({"momentum": 1}, "momentum 1 must be at least 0 and below 1"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; did you mean 'bf16'?"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean 'adamw'?"),
        ({"milestones": (0.5, 1.0)}, "milestones 1.0 must be above 0 and below 1"),
        ({"milestones": (True,)}, "milestones True must be of type float"),
        ({"milestones": 0.5}, "milestones 0.5 must be of type tuple"),
        ({"mixup": -0.1}, "mixup -0.1 must be at least 0 and below 1000000"),
        ({"size_start": 0}, "size_start 0 must be from 0.1 to 1: a share of the image's side"),
        ({"accumulate": 5}, "accumulate 5 does not divide batch_size 32"),
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
