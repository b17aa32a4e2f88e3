"""Numbers, texts and lists of NumPy, torch and pandas: taken, and stored as Python's own."""

import enum
import io
import json
from collections import UserList
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

import resnet_variants as rv
from resnet_variants.data.dataset import Loading
from resnet_variants.diagnosis.study import Study
from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import Workers
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.run import Run
from resnet_variants.training.device import Machine
from resnet_variants.training.recipe import Recipe


class Depth(enum.IntEnum):
    FIFTY = 50


class Stem(enum.StrEnum):
    DEEP = "deep"


def types(settings):
    return {field.name: type(getattr(settings, field.name)) for field in fields(settings)}


def test_numbers_of_other_libraries_are_pythons_own():
    own = Variant(depth=50, cardinality=2)
    for made in (np.int64, np.uint8, np.array, torch.tensor):
        other = Variant(depth=made(50), cardinality=made(2))
        assert (other, hash(other), other.name) == (own, hash(own), own.name)
        assert types(other) == types(own)
    for made in (np.float64, np.float32, np.array, torch.tensor, Fraction, np.longdouble):
        assert Recipe(lr=made(0.5)) == Recipe(lr=0.5)
        assert type(Recipe(lr=made(0.5)).lr) is type(ModelArgs(drop_rate=made(0.5)).drop_rate)


@pytest.mark.parametrize(
    "wrong",
    [
        *(np.array([50]), torch.tensor([50]), np.float64(50), np.bool_(50), torch.tensor(True)),
        torch.empty((), device="meta"),
    ],
    ids=str,
)
def test_what_is_no_whole_number_is_refused(wrong):
    for make in (lambda n: Variant(depth=n), lambda n: ModelArgs(num_classes=n)):
        with pytest.raises(UserError, match=r"^(depth|num_classes) ") as error:
            make(wrong)
        assert len(str(error.value).splitlines()) == 1


def test_texts_and_enumerations_are_pythons_own():
    v = Variant(depth=Depth.FIFTY, stem=Stem.DEEP, order=np.str_("preact"))
    assert v.name == "rv_resnet50_c_preact"
    assert types(v) == types(Variant())
    assert rv.parse_name(np.str_(v.name)) == v


def test_a_row_of_runs_csv_is_a_variant():
    variants = [Variant(), Variant(family="cifar", cardinality=4, attention="se")]
    text = pd.DataFrame(map(vars, variants)).reindex(columns=[f.name for f in fields(Variant)])
    table = pd.read_csv(io.StringIO(text.to_csv()), index_col=0)
    assert [Variant(**row) for _, row in table.iterrows()] == variants
    assert [Variant(**row) for row in table.to_dict("records")] == variants


@pytest.mark.parametrize(
    "depths",
    [
        *((20, 56), range(20, 92, 36), np.array([20, 56]), torch.tensor([20, 56])),
        *(UserList([20, 56]), pd.Series([20, 56])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_grid_takes_any_sequence(depths):
    cells = rv.grid(family="cifar", depth=depths, stem=np.array(["deep"]), preact=[np.True_])
    assert [v.name for v in cells] == ["rv_resnet20_cifar_c_preact", "rv_resnet56_cifar_c_preact"]


def test_model_arguments_are_stored_as_json_has_them(tmp_path):
    given = {"num_classes": np.int64(3), "in_chans": torch.tensor(1), "drop_rate": np.float64(0.1)}
    model = rv.create_model("rv_resnet8_cifar_b", **given, zero_init_last=np.True_)
    assert (type(model.num_classes), type(model.in_chans)) == (int, int)
    assert type(model.drop_rate) is float
    model.reset_classifier(np.int64(5))
    rv.save_pretrained(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 5
    for bad in (-1, 2.0, True, None):
        with pytest.raises(UserError, match=f"num_classes {bad} must be a whole number"):
            model.reset_classifier(bad)


def test_settings_take_whole_numbers_lists_and_paths():
    recipe = Recipe(
        epochs=np.int64(3), milestones=np.array([0.25, 0.5]), zero_init_last=np.bool_(True)
    )
    own = Recipe(epochs=3, milestones=(0.25, 0.5), zero_init_last=True)
    run, other = (Run(Variant(), "digits", r, 0) for r in (own, recipe))
    assert (recipe, run.id) == (own, other.id)
    assert types(recipe) == types(own)
    for kind, field in ((Machine, "devices"), (Workers, "jobs"), (Study, "seed")):
        assert types(kind(**{field: np.int64(1)})) == types(kind())
    assert type(Loading(workers=np.int64(1)).workers) is int


def test_experiments_and_costs_take_them_too():
    experiment = Experiment(
        name="x", variants=(Variant(),), seeds=np.int64(3), img_size=np.int64(8)
    )
    assert [type(run.seed) for run in experiment.runs] == [int] * 3
    assert json.dumps(experiment.record())
    own = rv.cost("rv_resnet8_cifar_b", img_size=16, in_chans=1)
    assert rv.cost("rv_resnet8_cifar_b", img_size=np.int64(16), in_chans=torch.tensor(1)) == own
    for name in ("img_size", "in_chans"):
        with pytest.raises(UserError, match=f"{name} True must be a whole number"):
            rv.cost("rv_resnet8_cifar_b", **{name: True})


def test_a_long_wrong_value_is_shown_in_part_and_in_one_line():
    for value in (np.zeros((99, 99)), "x\ny" * 999, list(range(9999))):
        with pytest.raises(UserError) as error:
            Recipe(epochs=value)
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 300
