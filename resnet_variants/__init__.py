"""An ablation laboratory for residual networks: which ResNet tweak is worth it, at what cost?

Importing the package registers its models with timm: ``timm.create_model("rv_resnet50_d_preact")``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from resnet_variants.models.card import model_card, save_pretrained
from resnet_variants.models.catalogue import list_models
from resnet_variants.models.cost import Cost, cost
from resnet_variants.models.grids import grid, preset
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import load_backbone, load_weights, resnetv2_state_dict
from resnet_variants.models.zoo import create_model, parse_name, register
from resnet_variants.terminal import starting  # noqa: F401  # before all that takes seconds to load

if TYPE_CHECKING:
    from resnet_variants.api import diagnose, run
    from resnet_variants.report import report

__all__ = [
    "Cost",
    "Variant",
    "cost",
    "create_model",
    "diagnose",
    "grid",
    "list_models",
    "load_backbone",
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


def __getattr__(name: str) -> object:
    # They bring pandas and matplotlib along: only who trains or reports pays for that.
    if name in ("run", "report", "diagnose"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
