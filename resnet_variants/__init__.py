"""An ablation laboratory for residual networks: which ResNet tweak is worth it, at what cost?

Importing the package registers its models with timm: ``timm.create_model("rv_resnet50_d_preact")``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from resnet_variants.terminal.starting import is_command

if TYPE_CHECKING or not is_command():  # a command loads what it needs, when it needs it
    from resnet_variants.models.card import model_card, save_pretrained
    from resnet_variants.models.catalogue import list_models
    from resnet_variants.models.cost import Cost, cost
    from resnet_variants.models.grids import grid, preset
    from resnet_variants.models.variant import Variant
    from resnet_variants.models.weights import load_backbone, load_weights, resnetv2_state_dict
    from resnet_variants.models.zoo import create_model, parse_name, register
    from resnet_variants.plugins import load_installed, load_plugin
if TYPE_CHECKING:
    from resnet_variants.api import compare, diagnose, report, run
    from resnet_variants.data.own import Dataset
    from resnet_variants.sweeps.finished import load_run

__all__ = [
    "Cost",
    "Dataset",
    "Variant",
    "compare",
    "cost",
    "create_model",
    "diagnose",
    "grid",
    "list_models",
    "load_backbone",
    "load_plugin",
    "load_run",
    "load_weights",
    "model_card",
    "parse_name",
    "preset",
    "register",
    "report",
    "resnetv2_state_dict",
    "run",
    "save_pretrained",
]


# The zoo comes first: its `parse_name` registers the name, that of `grids` does not.
_MODELS = ("zoo", "catalogue", "card", "cost", "grids", "variant", "weights")
_HOMES = (*(f"models.{home}" for home in _MODELS), "plugins", "data.own", "sweeps.finished")


def __getattr__(name: str) -> object:
    """Load what importing the package does not: the verbs, and in a command everything."""
    if name in ("run", "report", "compare", "diagnose"):  # they need pandas and matplotlib
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        homes = (importlib.import_module(f"{__name__}.{home}") for home in _HOMES)
        return next(getattr(home, name) for home in homes if hasattr(home, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not is_command():  # a command does so itself, and its mistakes are one line
    load_installed()
