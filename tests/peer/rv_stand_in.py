"""A pytest plugin that builds one of our names wherever timm's own tests name a model of timm's.

``-p rv_stand_in``; ``RV_NAMES`` holds our names, separated by spaces. Each test runs once per name:
its own list of models is left out, and so are arguments that only those models take.
"""

import dataclasses
import functools
import os

import pytest
import timm
from timm.models import save_for_hf

from resnet_variants.models.arguments import ModelArgs

OURS = os.environ["RV_NAMES"].split()
FACTORY = {"pretrained", "pretrained_cfg", "features_only", "feature_cls", "out_indices"}
TAKEN = FACTORY | {field.name for field in dataclasses.fields(ModelArgs)}
_create_model = timm.create_model

timm.list_models = timm.list_pretrained = lambda *_args, **_kwargs: []


@pytest.fixture(autouse=True)
def stand_in(request, monkeypatch):
    @functools.wraps(_create_model)
    def create_model(name, *args, **kwargs):
        name = name if str(name).startswith("local-dir:") else request.param
        kwargs = {key: value for key, value in kwargs.items() if key in TAKEN}
        return _create_model(name, *args, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(request.module, "create_model", create_model, raising=False)
    # No pickle is read as weights of ours.
    safely = functools.partial(save_for_hf, safe_serialization=True)
    monkeypatch.setattr(request.module, "save_for_hf", safely, raising=False)


def pytest_generate_tests(metafunc):
    metafunc.parametrize("stand_in", OURS, indirect=True)


def pytest_collection_modifyitems(config, items):
    """One item of those that differ in a model's name and arguments only."""
    first = {}
    for item in items:
        parameters = item.callspec.params.items()
        rest = [
            pair for pair in parameters if pair[0] not in ("model_name", "model_kwargs", "kwargs")
        ]
        first.setdefault((item.originalname, str(rest)), item)
    config.hook.pytest_deselected(items=[item for item in items if item not in first.values()])
    items[:] = first.values()
