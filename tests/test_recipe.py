"""What a recipe checks beyond the range of each setting, and its names."""

import re

import pytest

from resnet_variants.registry import UserError
from resnet_variants.training.recipe import RECIPES, Recipe


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"milestones": (0.5, 1.0)}, "milestones 1.0 must be above 0 and below 1"),
        ({"milestones": (True,)}, "milestones True must be of type float"),
        ({"milestones": 0.5}, "milestones 0.5 must be of type tuple"),
        ({"accumulate": 5}, "accumulate 5 does not divide batch_size 32"),
        ({"batch_size": 33, "mixup": 1.0}, "mixup and cutmix pair images"),
        ({"batch_size": 66, "accumulate": 2, "cutmix": 1.0}, "mixup and cutmix pair images"),
        (
            {"label_smoothing": 0.1, "loss": "binary", "mixup": 0.1},
            "label_smoothing is nothing to mixed labels under the binary loss",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong, message):
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
