"""A pytest plugin that points timm's own model tests at our names (``-p rv_peer``).

timm's ``test_models.py`` takes its parameters from ``timm.list_models`` when it is imported, so
replacing that first is enough. ``RV_NAMES`` holds the names, separated by spaces.
"""

import functools
import os

import timm

import resnet_variants  # noqa: F401  registers the names

OURS = frozenset(os.environ["RV_NAMES"].split())
_list_models = timm.list_models


@functools.wraps(_list_models)
def list_models(*args, **kwargs):
    kwargs.pop("module", None)  # names timm's own modules
    return [name for name in _list_models(*args, **kwargs) if name.split(".")[0] in OURS]


timm.list_models = list_models
timm.list_pretrained = lambda *_args, **_kwargs: []  # would need the network
