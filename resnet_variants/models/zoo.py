"""timm's door to the variants: the only file that knows timm's registry.

Importing it registers the networks of ``catalogue.registered`` under their names. Those that timm
has too get the tags of timm's weights: ``timm.create_model("rv_resnet50_d.a1_in1k",
pretrained=True)``. Any other network is built through the entry point ``resnet_variant``:
``timm.create_model("resnet_variant", variant="rv_resnet18_s1_b")``, and by its own name after
``register``.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import timm
from safetensors import SafetensorError
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    get_arch_pretrained_cfgs,
    register_model,
    resolve_pretrained_cfg,
)

from resnet_variants.models.arguments import with_axes
from resnet_variants.models.catalogue import aliases, as_variant, registered
from resnet_variants.models.families import FAMILIES, Family
from resnet_variants.models.grids import parse_name as read_name
from resnet_variants.models.network import ResNet
from resnet_variants.models.peers import timm_names
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.models.weights import pretrained_filter, unreadable, without_pickles
from resnet_variants.plugins import absent_plugins, changed_plugins, used_plugins
from resnet_variants.registry import UserError, plain, refuse, require

GENERIC = "resnet_variant"


def pretrained_cfg(variant: Variant) -> dict[str, Any]:
    """What timm wants to know of a variant: input, normalisation, names of first and last layer."""
    family: Family = FAMILIES[variant.family]
    side = -(-family.img_size // (variant.stem_stride * 2 ** (len(family.widths) - 1)))
    stem = STEMS[variant.stem](family.widths[0], STEM_STRIDES[variant.stem_stride].conv)
    return {
        "architecture": architecture(variant)[0],
        "num_classes": family.num_classes,
        "input_size": (3, family.img_size, family.img_size),
        "pool_size": (side, side),
        "crop_pct": family.crop_pct,
        "interpolation": "bicubic",
        "mean": family.mean,
        "std": family.std,
        "first_conv": "conv1" if len(stem) == 1 else "conv1.0",
        "classifier": "fc",
        "license": "apache-2.0",
    }


@functools.cache
def weights_cfgs(variant: Variant) -> dict[str, PretrainedCfg]:
    """Timm's published weights of this network by tag, its default first; none are pickles."""
    if variant not in timm_names():
        return {}
    own = pretrained_cfg(variant)
    ours = {key: own[key] for key in ("architecture", "first_conv", "classifier")}
    return {
        cfg.tag or "": replace(without_pickles(cfg), **ours)
        for cfg in get_arch_pretrained_cfgs(timm_names()[variant]).values()
        if cfg.hf_hub_id
    }


def build(variant: Variant, *, pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Build through timm's builder: ``features_only``, ``pretrained_cfg`` and the like work."""
    variant, kwargs = with_axes(variant, kwargs)
    cfg = kwargs.pop("pretrained_cfg", None)  # timm passes None for "not given"
    tags = weights_cfgs(variant)
    require("pretrained_cfg", cfg or {}, (str, Mapping, PretrainedCfg), "a tag or a configuration")
    if isinstance(cfg, str):
        if cfg not in tags:
            what = f"weights of {variant.name}"
            refuse(what, cfg, tags or ["none"], field="pretrained_cfg")
        cfg = tags[cfg]
    cfg = cfg or next(iter(tags.values()), None) or pretrained_cfg(variant)
    overlay = kwargs.pop("pretrained_cfg_overlay", None) or {}
    require("pretrained_cfg_overlay", overlay, Mapping, "a mapping")
    if pretrained and overlay.get("url"):
        message = f"weights are read from files and the Hub, not from {overlay['url']!r}"
        raise UserError(message, field="pretrained_cfg_overlay")
    cfg = resolve_pretrained_cfg(variant.name, cast(Any, cfg), overlay)
    cfg = replace(cfg, architecture=architecture(variant)[0])
    taps = tuple(range(1 + len(variant.units)))
    try:
        model = build_model_with_cfg(
            functools.partial(ResNet, variant),
            variant.name,
            pretrained,
            pretrained_cfg=cast(Any, without_pickles(cfg) if pretrained else cfg),
            pretrained_filter_fn=pretrained_filter,
            feature_cfg={"out_indices": taps},
            **kwargs,
        )
    except SafetensorError as error:
        raise unreadable(cfg.file or cfg.hf_hub_id, error) from None
    # timm adds its own to these and saves them: a name of this process alone says nothing later.
    model._model_args = cast(Any, architecture(variant)[1])
    return cast(ResNet, model)


def create_model(
    variant: str | Variant,
    *,
    preact: bool | None = None,
    pretrained: bool = False,
    **kwargs: Any,
) -> ResNet:
    """A variant as a model, through ``timm.create_model``: by letter, by name, or from itself.

    Args:
        variant: ``"A"`` to ``"D"``, a name such as ``"rv_resnet50_d_preact"`` or with the tag of
            timm's weights ``"rv_resnet50_b.tv_in1k"``, or a ``Variant``.
        preact: with a letter: full pre-activation; by default post-activation.
        pretrained: load timm's published weights of the same network; ``RuntimeError`` where it
            has none.
        kwargs: with a letter, fields of ``Variant`` such as ``depth`` and ``family``; timm's model
            arguments, ``num_classes``, ``in_chans``, ``features_only`` ...

    Raises:
        ValueError: an unknown name or choice, or a letter's argument beside a name.
        TypeError: an argument that the model does not take.
    """
    require("pretrained", plain(pretrained), bool, "true or false")
    axes = {key: kwargs.pop(key) for key in AXES if kwargs.get(key) is not None}
    axes |= {} if preact is None else {"preact": preact}
    tagged = re.fullmatch(r"(rv_\w+)\.(\w+)", variant) if isinstance(variant, str) else None
    if tagged:
        kwargs["pretrained_cfg"] = tagged[2]
    network = as_variant("variant", tagged[1] if tagged else variant, **axes)
    register(network)
    name, arguments = architecture(network)
    # timm's door, so that timm knows the arguments when the model is saved, as JSON holds them.
    kwargs = {key: plain(value) for key, value in kwargs.items()}
    return cast(ResNet, timm.create_model(name, pretrained, **arguments, **kwargs))


def register(variant: str | Variant) -> str:
    """Make timm know a cell by its name, in this process; the name.

    ``rv.create_model``, ``rv.run`` and ``rv.parse_name`` do so for what they are given, so that
    clients that take a name only take any cell: ``timm.create_model(rv.register(variant))``.

    Args:
        variant: a letter, a name or a ``Variant``.

    Raises:
        ValueError: no such variant.
    """
    cell = as_variant("variant", variant)
    for name in (cell.name, *cell.aliases):
        if not timm.is_model(name):
            default_cfgs.update(generate_default_cfgs({name: pretrained_cfg(cell)}))
            register_model(_entry_point(name, cell))
    return cell.name


def parse_name(name: str) -> Variant:
    """The variant called ``name`` (see ``Variant.name``), which timm then knows by it.

    Raises:
        ValueError: not such a name, or another spelling of one; the message gives the right one.
    """
    variant = read_name(name)
    register(variant)
    return variant


def architecture(variant: Variant) -> tuple[str, dict[str, Any]]:
    """Name and arguments under which timm finds a variant again, registered or not."""
    if variant.name in registered():
        return variant.name, {}
    plugins = used_plugins(vars(variant))
    return GENERIC, {"variant": variant.name} | ({"plugins": plugins} if plugins else {})


def _entry_point(name: str, variant: Variant) -> Callable[..., ResNet]:
    def create(pretrained: bool = False, **kwargs: Any) -> ResNet:  # noqa: FBT001, FBT002
        # What the generic entry point built and timm saved comes back with its argument.
        given = kwargs.pop("variant", name)
        kwargs.pop("plugins", None)
        if given not in (variant.name, *variant.aliases):
            raise UserError(f"{name} is not {given!r}", field="variant")
        return build(variant, pretrained=pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"{variant}"
    return create


def resnet_variant(
    pretrained: bool = False,  # noqa: FBT001, FBT002
    variant: str = "rv_resnet50_b",
    plugins: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> ResNet:
    """Any cell of the design space, by name; name and SHA-256 of the plugins that it needs.

    Raises:
        ValueError: no such variant; or a plugin is missing.
    """
    absent, changed = absent_plugins(plugins), changed_plugins(plugins)
    if absent:
        raise UserError(f"{variant}: {absent}", field="plugin")
    if changed:  # it may be a comment: whoever loads weights decides
        warnings.warn(f"{variant}: {changed}", stacklevel=2)
    return build(read_name(variant), pretrained=pretrained, **kwargs)


def _cfgs() -> dict[str, Any]:
    cfgs: dict[str, Any] = {GENERIC: pretrained_cfg(Variant())}
    for name, variant in (registered() | aliases()).items():
        tagged = {f"{name}.{tag}": cfg for tag, cfg in weights_cfgs(variant).items()}
        cfgs |= tagged or {name: pretrained_cfg(variant)}
    return cfgs


# timm reads this name of the module that an entry point comes from.
default_cfgs = generate_default_cfgs(_cfgs())
for _name, _variant in (registered() | aliases()).items():
    register_model(_entry_point(_name, _variant))
register_model(resnet_variant)
