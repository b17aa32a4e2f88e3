"""The recipe's ranges."""

import re

import pytest

from resnet_variants.registry import UserError
from resnet_variants.training.recipe import Recipe


@pytest.mark.parametrize(
    ("fields", "message"),
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
    ],
)
def test_a_number_out_of_range_names_field_value_and_range(fields, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Recipe(**fields)
    assert error.value.field == next(iter(fields))


def test_whole_and_real_spellings_are_one_recipe():
    assert Recipe(lr=1) == Recipe(lr=1.0)
    assert isinstance(Recipe(lr=1).lr, float)
