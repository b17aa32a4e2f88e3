"""The public functions given what no argument is: it works, or one line names the argument."""

import inspect
from dataclasses import fields

import pytest

import resnet_variants as rv
from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.grids import GRID_KEYS

NAME = "rv_resnet8_cifar_b"
WRONG = [None, 3, 1.5, b"x", object(), [], {}]


class ReachedError(Exception):
    """All arguments were taken."""


def reach(*_, **__):
    raise ReachedError


ASKED = sorted({*rv.__all__} - {"Cost", "Dataset"})
# What some take besides the parameters in their signatures. Of the settings dataclasses one field
# each: test_settings asks for the others.
FURTHER = {
    "create_model": [
        *(field.name for field in fields(ModelArgs)),
        *("pretrained_cfg", "pretrained_cfg_overlay"),
    ],
    "diagnose": ["images"],
    "grid": GRID_KEYS,
    "preset": ["stem", "preact"],
    "run": ["preset", "lr", "devices", "workers", "jobs", "vary", "tune", "baseline", "question"],
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Arguments that are needed, by function."""
    model, folder = rv.create_model(NAME), tmp_path_factory.mktemp("folder")
    return {
        "cost": {"variant": NAME},
        "create_model": {"variant": NAME},
        "compare": {"what": (folder, folder)},
        "diagnose": {"folder": folder},
        "load_backbone": {"model": model, "source": model.state_dict()},
        "load_plugin": {"plugin": "parts.py"},
        "load_run": {"folder": folder},
        "load_weights": {"model": model, "source": model.state_dict()},
        "model_card": {"model": model},
        "parse_name": {"name": NAME},
        "preset": {"letter": "A"},
        "register": {"variant": NAME},
        "report": {"folders": (folder,)},
        "resnetv2_state_dict": {"model": rv.create_model("rv_resnet18_b_preact", device="meta")},
        "run": {"variants": [NAME], "out": folder},
        "save_pretrained": {"model": model, "folder": folder},
    }


def function(name):
    found = getattr(rv, name)
    return getattr(found, "__wrapped__", found)  # of a verb's module


def arguments(name):
    own = inspect.signature(function(name)).parameters.values()
    return [p.name for p in own if p.kind != p.VAR_KEYWORD] + [*FURTHER.get(name, ())]


CASES = [(name, argument) for name in ASKED for argument in arguments(name)]


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_wrong_kind_is_one_line_that_names_the_argument(name, argument, valid, monkeypatch):
    for inner in ("api.finished", "api.run_sweep", "api.build", "analysis.contrast.load_results"):
        monkeypatch.setattr(f"resnet_variants.{inner}", reach)
    for value in WRONG[: 6 if argument == "source" else 7]:  # an empty state dict is one
        own = valid.get(name, {})
        given = own | {argument: value}
        words = [part for each in ("folders", "what") for part in own.get(each, ())]
        if argument in ("folders", "what"):
            words = [value] * len(words)
        given = {key: given[key] for key in given.keys() - {"folders", "what"}}
        try:
            function(name)(*words, **given)
        except ReachedError:
            pass
        except (ValueError, TypeError) as error:
            told = str(error)
            assert argument in told, f"{value!r}: {type(error).__name__}: {told}"
            assert len(told.splitlines()) == 1


WRONG_LISTS = [
    *(("log", value) for value in ([3], [[1]], ["tensorboard", None], "tensorboard")),
    *(("variants", value) for value in ([1], [None], [b"x"], [NAME, 2])),
]
MEANT = {"log": "a list of names", "variants": "a letter, a name or a Var"}


@pytest.mark.parametrize(("argument", "value"), WRONG_LISTS)
def test_what_is_in_a_list_is_looked_at(argument, value, tmp_path):
    with pytest.raises(ValueError, match=f"^{argument} .* must be {MEANT[argument]}"):
        rv.run(**{"variants": [NAME], "out": tmp_path} | {argument: value})
