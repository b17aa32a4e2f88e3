"""The public functions given what no argument is: it works, or one line names the argument."""

import importlib
import inspect
from dataclasses import fields

import pytest

import resnet_variants as rv
from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.grids import GRID_KEYS
from resnet_variants.models.variant import Variant
from resnet_variants.settings import Loading, Machine, Study, Workers
from resnet_variants.training.recipe import Recipe

NAME = "rv_resnet8_cifar_b"
WRONG = [None, 3, 1.5, b"x", object(), [], {}]


class ReachedError(Exception):
    """All arguments were taken."""


def reach(*_, **__):
    raise ReachedError


def names(*kinds):
    return [field.name for kind in kinds for field in fields(kind)]


AXES = names(Variant)
MODEL = [*names(ModelArgs), "pretrained_cfg", "pretrained_cfg_overlay"]
# What each takes besides the parameters in its signature.
FURTHER = {
    "Variant": [],
    "cost": [],
    "create_model": MODEL,
    "diagnose": names(Study),
    "grid": GRID_KEYS,
    "list_models": [],
    "load_backbone": [],
    "load_weights": [],
    "model_card": [],
    "parse_name": [],
    "preset": [*AXES, "preact"],
    "register": [],
    "report": [],
    "resnetv2_state_dict": [],
    "run": ["preset", *names(Recipe, Machine, Loading, Workers)],
    "save_pretrained": [],
}


@pytest.fixture(scope="module")
def model():
    return rv.create_model(NAME)


@pytest.fixture
def valid(model, tmp_path):
    """Arguments that are needed, by function."""
    return {
        "cost": {"variant": NAME},
        "create_model": {"variant": NAME},
        "diagnose": {"folder": tmp_path},
        "load_backbone": {"model": model, "source": model.state_dict()},
        "load_weights": {"model": model, "source": model.state_dict()},
        "model_card": {"model": model},
        "parse_name": {"name": NAME},
        "preset": {"letter": "A"},
        "register": {"variant": NAME},
        "report": {"folders": tmp_path},
        "resnetv2_state_dict": {"model": rv.create_model("rv_resnet18_b_preact", device="meta")},
        "run": {"variants": [NAME], "out": tmp_path},
        "save_pretrained": {"model": model, "folder": tmp_path},
    }


def function(name):
    found = getattr(rv, name)
    return getattr(found, "__wrapped__", found)  # of a verb's module


def arguments(name):
    own = inspect.signature(function(name)).parameters.values()
    return [p.name for p in own if p.kind != p.VAR_KEYWORD] + FURTHER[name]


def test_every_public_function_is_asked():
    assert FURTHER.keys() == {*rv.__all__} - {"Cost"}


CASES = [(name, argument) for name in FURTHER for argument in arguments(name)]


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_wrong_kind_is_one_line_that_names_the_argument(name, argument, valid, monkeypatch):
    for inner in ("finished", "run_sweep", "build"):
        monkeypatch.setattr(importlib.import_module("resnet_variants.api"), inner, reach)
    for value in WRONG[: 6 if argument == "source" else 7]:  # an empty state dict is one
        given = valid.get(name, {}) | {argument: value}
        positional = [given.pop("folders")] if name == "report" else []
        try:
            function(name)(*positional, **given)
        except ReachedError:
            pass
        except (ValueError, TypeError) as error:
            told = str(error)
            assert argument in told, f"{value!r}: {type(error).__name__}: {told}"
            assert len(told.splitlines()) == 1


@pytest.mark.parametrize("value", [[3], [[1]], ["tensorboard", None], "tensorboard"])
def test_what_is_in_a_list_of_sinks_is_looked_at(value, tmp_path):
    with pytest.raises(ValueError, match=r"^log .* must be a list of names"):
        rv.run([NAME], out=tmp_path, log=value)


@pytest.mark.parametrize("value", [[1], [None], [b"x"], ["rv_resnet8_cifar_b", 2]])
def test_what_is_in_a_list_of_variants_is_looked_at(value, tmp_path):
    with pytest.raises(ValueError, match=r"^variants .* must be a letter, a name or a Var"):
        rv.run(value, out=tmp_path)
