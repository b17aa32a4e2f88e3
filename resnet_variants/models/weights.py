"""Foreign weights: state dicts of torchvision and timm in our networks, and ours in timm's V2.

torchvision's and timm's ``ResNet`` have our keys. timm's ``ResNetV2`` has keys of its own for the
order ``preact``; ``v2_key`` is the one place that knows them, and both directions read it. Nothing
here unpickles: files are safetensors.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from resnet_variants.models.arguments import AXIS_OF, with_axes
from resnet_variants.models.grids import parse_name
from resnet_variants.models.network import ResNet
from resnet_variants.models.norms import ACTIVATIONS
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.records.files import Json, damaged, read_json
from resnet_variants.registry import UserError, require

OURS = "one of this package's networks"
SAFETENSORS = ".safetensors"
WEIGHTS_FILE = "model.safetensors"  # in timm's layout of a directory and of the Hub

_DEEP_STEM = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2", "6": "conv3"}


# What timm's ResNetV2 has of an axis; of one that is not here the default alone.
_V2_HAS: Mapping[str, tuple[object, ...]] = {
    "order": ("preact",),
    "stem": ("conv7", "deep", "deep_wide", "tiered_narrow"),
    "shortcut": ("conv", "avgpool"),
    "act": tuple(ACTIVATIONS),  # no weights tell it
    "branch_scale": ("none", "zero_gamma"),  # initial weights alone
}
_V2_DEPTHS = ("depth", "block")  # all that the family has
_USUAL = Variant()

Model = TypeVar("Model", bound=nn.Module)


def load_weights(model: Model, source: Mapping[str, Tensor] | str | Path) -> Model:
    """Load weights that fit exactly; where anything does not fit, the model stays as it is.

    A state dict does not tell stride placement, anti-aliasing, constant scaling or activation, and
    of the order only part: that is for the caller to know. A folder says which network it holds.

    Args:
        model: one of our networks.
        source: a state dict of the same network as torchvision, timm (``ResNet`` or ``ResNetV2``)
            or this package build it, a ``.safetensors`` file, or a folder that holds
            ``model.safetensors``, such as a run's.

    Returns:
        The same model.

    Raises:
        ValueError: names the first missing, unexpected and misshapen key; or the file is of another
            kind, damaged, or not there.
    """
    state = _state(model, source)
    return _fill(model, state, model.state_dict())


def load_backbone(model: Model, source: Mapping[str, Tensor] | str | Path) -> Model:
    """``load_weights`` of all but the classifier, which stays as it is, for other classes.

    Raises:
        ValueError: as ``load_weights`` does.
    """
    state = without_head(_state(model, source))
    return _fill(model, state, without_head(model.state_dict()))


def _state(model: nn.Module, source: Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
    require("model", model, nn.Module, "a model")
    if isinstance(source, str | Path):
        _check_architecture(Path(source), model)
        source = read_safetensors(Path(source))
    return converted(source, model)


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but the classifier's tensors."""
    return {key: value for key, value in state.items() if not str(key).startswith("fc.")}


def body_hash(model: nn.Module) -> str:
    """Of all weights but the classifier's: runs that begin with another body are others."""
    digest = hashlib.sha256()
    for value in without_head(model.state_dict()).values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _fill(model: Model, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Model:
    """Copy a state that has exactly the names of ``own``, the model's or a part of them."""
    check_fit(state, own, _name(model))
    model.load_state_dict(_copies(state, own, _name(model)), strict=False)
    return model


def _copies(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The values in the model's precision, so that what cannot be copied is found beforehand."""
    try:
        return {key: torch.empty_like(own[key]).copy_(value) for key, value in state.items()}
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"these weights cannot be copied into {name}: {reason}") from error


def _check_architecture(folder: Path, model: nn.Module) -> None:
    """Refuse a folder in timm's layout that says it holds another of our networks."""
    config = _config(folder)
    if not (config and isinstance(model, ResNet)):
        return
    arguments = config.get("model_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    name = str(arguments.get("variant") or config.get("architecture"))
    if name.startswith("rv_") and AXIS_OF.keys() & arguments.keys():  # saved by timm itself
        name = with_axes(parse_name(name), arguments)[0].name
    if name.startswith("rv_") and name not in (model.variant.name, *model.variant.aliases):
        raise UserError(f"{str(folder)!r} holds weights of {name}, not of {model.variant.name}")


_REMEDY = "give the weights file itself"


def _config(folder: Path) -> Json:
    """What timm's layout of a folder says of its network; empty where there is no such file."""
    file = folder / "config.json"
    try:
        return read_json(file, remedy=_REMEDY) if file.is_file() else {}
    except OSError as error:
        raise unreadable(folder, error) from None


def stated_moments(folder: Path) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of the pictures that a folder's weights take; ``None``: it states none.

    Raises:
        ValueError: they are no numbers.
    """
    config = _config(folder)
    stated = cast(Json, config.get("pretrained_cfg", config))
    try:
        if "mean" not in stated and "std" not in stated:
            return None
        mean, std = ([float(x) for x in cast("Any", stated[key])] for key in ("mean", "std"))
        if not (mean and len(mean) == len(std) and min(std) > 0 and math.isfinite(sum(mean + std))):
            raise ValueError("mean and std are no numbers of channels")
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder / "config.json", error, remedy=_REMEDY) from error
    return mean, std


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the ``model.safetensors`` in a folder.

    Raises:
        ValueError: not such a file, or a damaged one.
    """
    try:
        path = path / WEIGHTS_FILE if path.is_dir() else path
        require_safetensors(path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from None


def unreadable(source: object, error: Exception) -> UserError:
    """The error to raise for weights that safetensors cannot read."""
    return UserError(f"cannot read weights from {str(source)!r}: {error}")


def require_safetensors(path: Path) -> None:
    """Refuse a file that is not there or may hold a pickle.

    Raises:
        ValueError: says which.
    """
    if not path.exists():
        raise UserError(f"there is no file {str(path)!r}")
    if path.suffix != SAFETENSORS or not path.is_file():
        raise UserError(f"{str(path)!r} is no {SAFETENSORS} file, and no other kind is read")


def converted(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict under the model's keys; one of timm's ``ResNetV2`` is renamed.

    Raises:
        ValueError: no mapping, or one that holds some tensor under both names.
    """
    require("source", state, Mapping, "a path or a state dict, which maps names to tensors")
    if not any(str(key).startswith("stages.") for key in state):
        return dict(state)
    # A model without a classifier still tells one from an unknown key.
    ours = {v2_key(key): key for key in (*model.state_dict(), "fc.weight", "fc.bias")}
    twice = [key for key in state if ours.get(key, key) != key and ours[key] in state]
    if twice:
        raise UserError(f"these weights hold {twice[0]} and {ours[twice[0]]}, which are the same")
    renamed = {ours.get(key, key): value for key, value in state.items()}
    head = renamed.get("fc.weight")
    # Their classifier is a 1x1 convolution.
    if isinstance(head, Tensor) and head.ndim == 4 and head.shape[2:] == (1, 1):
        renamed["fc.weight"] = head.flatten(1)
    return renamed


def resnetv2_state_dict(model: ResNet) -> dict[str, Tensor]:
    """The weights of a ``preact`` network under the keys of timm's ``ResNetV2``.

    Raises:
        ValueError: timm's class has no such network.
    """
    require("model", model, ResNet, OURS)
    for axis in AXES:
        choice, known = getattr(model.variant, axis), _V2_HAS.get(axis, (getattr(_USUAL, axis),))
        if axis not in _V2_DEPTHS and choice not in known:
            choices = ", ".join(map(str, known))
            message = f"timm's ResNetV2 has no {axis} {choice!r}, only {choices}"
            raise UserError(message, field=axis)
    if (model.num_classes and model.head_type != "linear") or any(
        isinstance(module, nn.Conv2d) and module.bias is not None for module in model.modules()
    ):
        raise UserError("timm's ResNetV2 has no bn_linear head and no biases of convolutions")
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


def check_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str) -> None:
    """Refuse a state dict that is not exactly a model's.

    Args:
        state: names and tensors.
        own: the model's.
        name: of the model.

    Raises:
        ValueError: names the first missing, unexpected and misshapen key, or one without numbers.
    """
    if any(value.is_meta for value in own.values()):
        raise UserError(f"{name} is on the meta device, which holds no weights")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise UserError(f"{key!r} holds a {kind}, not a tensor: give the state dict itself")
    # Weights older than torch 0.4.1 do not count batches; torch then starts from zero.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    shared = [key for key in own if key in state]
    kinds = {
        "missing": missing,
        "unexpected": [key for key in state if key not in own],
        "misshapen": [
            f"{key}: {tuple(state[key].shape)}, the model has {tuple(own[key].shape)}"
            for key in shared
            if state[key].shape != own[key].shape
        ],
        "without plain numbers": [key for key in shared if not _alike(state[key], own[key])],
    }
    faults = [
        f"{len(keys)} {kind} (first {_printable(keys[0])})" for kind, keys in kinds.items() if keys
    ]
    if faults:
        raise UserError(f"these weights do not fit {name}: {', '.join(faults)}")


def _printable(text: object) -> str:
    return str(text) if str(text).isprintable() else repr(text)


def _alike(value: Tensor, own: Tensor) -> bool:
    """Whether copying is possible and changes no more than the precision."""
    plain = value.layout == own.layout and not value.is_meta
    return plain and value.is_floating_point() == own.is_floating_point()


def _name(model: nn.Module) -> str:
    return model.variant.name if isinstance(model, ResNet) else type(model).__name__


def pretrained_filter(state: Mapping[str, Tensor], model: ResNet) -> dict[str, Tensor]:
    """What timm's loader passes a file's tensors through: renamed, and checked to fit.

    The loader itself adapts the first convolution to other channels, and replaces the classifier
    where the number of classes differs.
    """
    state = converted(state, model)
    cfg, own, given = cast("dict[str, Any]", model.pretrained_cfg), model.state_dict(), dict(state)
    if model.num_classes != cfg["num_classes"]:
        own, given, state = (without_head(tensors) for tensors in (own, given, state))
    first = f"{cfg['first_conv']}.weight"
    if model.in_chans != cfg["input_size"][0]:
        w_out, _, *kernel = own[first].shape
        own[first] = own[first].new_empty(w_out, cfg["input_size"][0], *kernel)
    check_fit(given, own, model.variant.name)
    return state


def without_pickles(cfg: PretrainedCfg) -> PretrainedCfg:
    """The same source of weights, read from safetensors only.

    Raises:
        ValueError: there is no such file.
    """
    if cfg.file:
        path = Path(cfg.file)
        require_safetensors(path / WEIGHTS_FILE if cfg.source == "local-dir" else path)
    name = cfg.hf_hub_filename or WEIGHTS_FILE
    if not name.endswith(SAFETENSORS):
        raise UserError(f"{name} is no {SAFETENSORS} file, and no other kind is read")
    hub = {"hf_hub_filename": name} if cfg.hf_hub_id else {}
    return replace(cfg, url=None, custom_load=False, **hub)
