"""Foreign weights: state dicts of torchvision and timm in our networks, and ours in timm's V2.

torchvision's and timm's ``ResNet`` have our keys. timm's ``ResNetV2`` has keys of its own for the
order ``preact``; ``v2_key`` is the one place that knows them, and both directions read it. Nothing
here unpickles: files are safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from resnet_variants.models.network import ResNet
from resnet_variants.registry import UserError

SAFETENSORS = ".safetensors"
WEIGHTS_FILE = "model.safetensors"  # in timm's layout of a directory and of the Hub

_DEEP_STEM = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2", "6": "conv3"}


def load_weights(model: nn.Module, source: Mapping[str, Tensor] | str | Path) -> None:
    """Load weights that fit exactly; where anything does not fit, the model stays as it is.

    Args:
        model: one of our networks.
        source: a state dict of the same network as torchvision, timm (``ResNet`` or ``ResNetV2``)
            or this package build it, a ``.safetensors`` file, or a folder that holds
            ``model.safetensors``, such as a run's.

    Raises:
        ValueError: names the first missing, unexpected and misshapen key; or the file is of another
            kind, damaged, or not there.
    """
    state = read_safetensors(Path(source)) if isinstance(source, str | Path) else source
    state = converted(state, model)
    check_fit(state, model)
    model.load_state_dict(state)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the ``model.safetensors`` in a folder.

    Raises:
        ValueError: not such a file, or a damaged one.
    """
    path = path / WEIGHTS_FILE if path.is_dir() else path
    require_safetensors(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read weights from {path}: {error}") from None


def require_safetensors(path: Path) -> None:
    """Refuse a file that is not there or may hold a pickle.

    Raises:
        ValueError: says which.
    """
    if path.suffix != SAFETENSORS:
        raise UserError(f"{path} is no {SAFETENSORS} file, and no other kind is read")
    if not path.is_file():
        raise UserError(f"there is no file {path}")


def converted(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict under the model's keys; one of timm's ``ResNetV2`` is renamed."""
    if not isinstance(state, Mapping):
        raise UserError(f"a state dict maps names to tensors; this is a {type(state).__name__}")
    if not any(str(key).startswith("stages.") for key in state):
        return dict(state)
    ours = {v2_key(key): key for key in model.state_dict()}
    renamed = {ours.get(key, key): value for key, value in state.items()}
    head = renamed.get("fc.weight")
    if isinstance(head, Tensor) and head.ndim == 4:  # their classifier is a 1x1 convolution
        renamed["fc.weight"] = head.flatten(1)
    return renamed


def resnetv2_state_dict(model: ResNet) -> dict[str, Tensor]:
    """The weights of a ``preact`` network under the keys of timm's ``ResNetV2``.

    Raises:
        ValueError: timm's class has no such network.
    """
    if model.variant.order != "preact":
        message = f"timm's ResNetV2 has the order 'preact', and {model.variant.name} has "
        raise UserError(f"{message}{model.variant.order!r}", field="order")
    for axis in ("skip", "attention", "antialias"):
        if getattr(model.variant, axis) != getattr(type(model.variant), axis):
            choice = getattr(model.variant, axis)
            raise UserError(f"timm's ResNetV2 has no {axis} {choice!r}", field=axis)
    state = {v2_key(key): value for key, value in model.state_dict().items()}
    if "head.fc.weight" in state:
        state["head.fc.weight"] = state["head.fc.weight"][:, :, None, None]
    return state


def v2_key(key: str) -> str:
    """Our key of a ``preact`` network -> the key of the same tensor in timm's ``ResNetV2``."""
    key = re.sub(r"^layer(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.", key)
    key = re.sub(r"\.bn(\d)\.", r".norm\1.", key)
    key = re.sub(r"\.downsample\.\d\.", ".downsample.conv.", key)  # after the mean, or alone
    key = re.sub(r"^conv1\.(\d)\.", lambda m: f"stem.{_DEEP_STEM[m[1]]}.", key)
    key = re.sub(r"^conv1\.weight", "stem.conv.weight", key)
    return re.sub(r"^fc\.", "head.fc.", key)


def check_fit(state: Mapping[str, Tensor], model: nn.Module, *, except_for: str = "^$") -> None:
    """Refuse a state dict that is not exactly the model's.

    Args:
        state: names and tensors.
        model: where they are to go.
        except_for: a regular expression of keys whose shapes the loader adapts.

    Raises:
        ValueError: names the first missing, unexpected and misshapen key.
    """
    own = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise UserError(f"{key!r} holds a {kind}, not a tensor: give the state dict itself")
    # Weights older than torch 0.4.1 do not count batches; torch then starts from zero.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    shared = [key for key in own if key in state and not re.search(except_for, key)]
    kinds = {
        "missing": missing,
        "unexpected": [key for key in state if key not in own],
        "misshapen": [
            f"{key}: {tuple(state[key].shape)}, the model has {tuple(own[key].shape)}"
            for key in shared
            if state[key].shape != own[key].shape
        ],
    }
    faults = [f"{len(keys)} {kind} (first {keys[0]})" for kind, keys in kinds.items() if keys]
    if faults:
        name = model.variant.name if isinstance(model, ResNet) else type(model).__name__
        raise UserError(f"these weights do not fit {name}: {', '.join(faults)}")


def pretrained_filter(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What timm's loader passes a file's tensors through: renamed, and checked to fit.

    The loader itself adapts the first convolution to the channels and drops another classifier.
    """
    state = converted(state, model)
    check_fit(state, model, except_for=r"^(fc\.|conv1\.(0\.)?weight$)")
    return state


def without_pickles(cfg: PretrainedCfg) -> PretrainedCfg:
    """The same source of weights, read from safetensors only.

    Raises:
        ValueError: there is no such file.
    """
    if cfg.file:
        path = Path(cfg.file)
        require_safetensors(path / WEIGHTS_FILE if cfg.source == "local-dir" else path)
    return replace(cfg, url=None, hf_hub_filename=cfg.hf_hub_id and WEIGHTS_FILE)
