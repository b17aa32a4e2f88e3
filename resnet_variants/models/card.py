"""Model cards in timm's form: the README of a network's weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from timm.models import save_for_hf
from timm.models._hub import generate_readme

from resnet_variants.models.arguments import AXIS_OF, ModelArgs
from resnet_variants.models.cost import measure, total
from resnet_variants.models.network import ResNet
from resnet_variants.models.peers import names_elsewhere
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import OURS, WEIGHTS_FILE
from resnet_variants.models.zoo import architecture
from resnet_variants.records.files import Json, read_json, write_atomically
from resnet_variants.registry import require, require_path

_WHOLE = f"{OURS}, made without features_only"
PAPERS = (
    "Deep Residual Learning for Image Recognition: https://arxiv.org/abs/1512.03385",
    "Identity Mappings in Deep Residual Networks: https://arxiv.org/abs/1603.05027",
    "Bag of Tricks for Image Classification: https://arxiv.org/abs/1812.01187",
)


def model_card(model: ResNet, training: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The argument ``model_card`` of ``timm.models.push_to_hf_hub``, made from the model.

    Args:
        model: one of our networks.
        training: facts of the training and its results, one line each.

    Raises:
        ValueError: another model, such as one that ``features_only`` wraps.
    """
    require("model", model, ResNet, _WHOLE)
    require("training", {} if training is None else training, Mapping, "a mapping of texts")
    variant, cfg = model.variant, cast("dict[str, Any]", model.pretrained_cfg)
    side = cfg["input_size"][1]
    meta = copy.deepcopy(model).to("meta").eval()
    cost = total(measure(meta, (model.in_chans, side, side)))
    names = [f"{peer.source}: {name}{peer.text}" for peer, name in names_elsewhere(variant)]
    details: dict[str, Any] = {
        "Model Type": "Image classification / feature backbone",
        "Variant": asdict(variant),
        "Model Stats": {
            "Image size": f"{model.in_chans} x {side} x {side}",
            "Params": f"{cost.params:,}",
            "MACs": f"{cost.macs:,} (convolutions and linear layers; FLOPs are twice as many)",
            "Activations": f"{cost.acts:,}",
        },
        "Papers": PAPERS,
    }
    if names:
        details["Names elsewhere"] = names
    if training:
        details["Training"] = dict(training)
    return {
        "tags": ["image-classification", "timm", "resnet"],
        "license": cfg.get("license", "apache-2.0"),
        "description": f"`{variant.name}`, a residual network of the package resnet_variants.",
        "details": details,
        "usage": _usage(variant),
    }


def save_pretrained(
    model: ResNet, folder: str | Path, training: Mapping[str, object] | None = None
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``, timm's Hub layout.

    After importing this package, ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads
    it. The model itself does not change.

    Raises:
        ValueError: another model, such as one that ``features_only`` wraps.
    """
    require("model", model, ResNet, _WHOLE)
    folder = require_path("folder", folder)
    # safetensors stores contiguous tensors only; training leaves channels-last ones.
    stored = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    arguments = architecture(model.variant)[1]
    if model.head_type != ModelArgs.head:
        arguments = arguments | {"head": model.head_type}
    save_for_hf(stored, str(folder), model_args=arguments, safe_serialization=True)
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors lets only the owner read it
    config = folder / "config.json"
    written = read_json(config, remedy="save the model again")
    # timm reads num_classes from the top level; transformers would pass it twice. The name of the
    # variant tells what its axes are.
    for name in ("num_classes", *AXIS_OF):
        cast("Json", written.get("model_args", {})).pop(name, None)
    write_atomically(config, json.dumps(written, indent=2))
    readme = generate_readme(model_card(model, training), model.variant.name)
    write_atomically(folder / "README.md", readme)


def _usage(variant: Variant) -> str:
    name, arguments = architecture(variant)
    given = "".join(f", {key}={value!r}" for key, value in arguments.items() if key != "plugins")
    plugins = "".join(
        f"rv.load_plugin({plugin!r})  # registers parts of the network, SHA-256 {digest}\n"
        for plugin, digest in arguments.get("plugins", {}).items()
    )
    return f"""```python
import timm
import resnet_variants{" as rv" if plugins else ""}  # registers the names
{plugins}
model = timm.create_model("local-dir:FOLDER", pretrained=True)  # this folder
model = timm.create_model("{name}"{given})  # the same network, untrained
```"""
