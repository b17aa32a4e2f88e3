"""timm's door to the variants: the only file that knows timm's registry.

Importing it registers, for each family and depth, every cell of plain or deep stem x stride x
shortcut x order under the variant's name. Any other cell (another stem stride, block or depth)
is built by the same code through the entry point ``resnet_variant``:
``timm.create_model("resnet_variant", variant="rv_resnet18_s1_b")``.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable
from typing import Any, cast

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from resnet_variants.models.axes import (
    FAMILIES,
    ORDERS,
    PRESETS,
    SHORTCUTS,
    STEM_STRIDES,
    STEMS,
    STRIDES,
    Family,
)
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant, expand, parse_name, variant_from
from resnet_variants.registry import UserError

GENERIC = "resnet_variant"


def pretrained_cfg(variant: Variant) -> dict[str, Any]:
    """What timm wants to know of a variant: input, normalisation, names of first and last layer."""
    family: Family = FAMILIES[variant.family]
    side = -(-family.img_size // (variant.stem_stride * 2 ** (len(family.widths) - 1)))
    stem = STEMS[variant.stem](family.widths[0], STEM_STRIDES[variant.stem_stride].conv)
    return {
        "architecture": variant.name,
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


def build(variant: Variant, *, pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Build through timm's builder: ``features_only``, ``pretrained_cfg`` and the like work."""
    if kwargs.get("pretrained_cfg") is None:  # timm passes None for "not given"
        kwargs["pretrained_cfg"] = pretrained_cfg(variant)
    taps = tuple(range(1 + len(variant.units)))
    model = build_model_with_cfg(
        functools.partial(ResNet, variant),
        variant.name,
        pretrained,
        feature_cfg={"out_indices": taps},
        **kwargs,
    )
    return cast(ResNet, model)


def create_model(
    variant: str | Variant,
    *,
    family: str | None = None,
    depth: int | None = None,
    preact: bool | None = None,
    pretrained: bool = False,
    **kwargs: Any,
) -> ResNet:
    """A variant as a model: by preset letter, by name, or from the variant itself.

    Args:
        variant: ``"A"`` to ``"D"``, a name such as ``"rv_resnet50_d_preact"``, or a ``Variant``.
        family: with a letter: ``imagenet`` (default) or ``cifar``.
        depth: with a letter: layers with weights; by default the family's own.
        preact: with a letter: full pre-activation; by default post-activation.
        pretrained: no weights are published for these names: raises ``RuntimeError``.
        kwargs: timm's model arguments, ``num_classes``, ``in_chans``, ``features_only`` ...

    Raises:
        ValueError: an unknown name or choice, or a letter's argument beside a name.
        TypeError: an argument that the model does not take.
    """
    size = {"family": family, "depth": depth, "preact": preact}
    given = {key: value for key, value in size.items() if value is not None}
    if isinstance(variant, str) and variant in PRESETS:
        variant = variant_from({"preset": variant} | given)
    elif given:
        raise UserError(f"family, depth and preact go with a preset letter, not with {variant!r}")
    if isinstance(variant, str):
        variant = parse_name(variant)
    if not isinstance(variant, Variant):
        raise UserError(f"{variant!r} is no variant: give a letter, a name or a Variant")
    return build(variant, pretrained=pretrained, **kwargs)


def list_models(pattern: str = "*") -> list[str]:
    """Registered names that match a wildcard, one per network: aliases are left out."""
    return [name for name in timm.list_models(pattern, module="zoo") if name in _NAMED]


def list_aliases(pattern: str = "*") -> dict[str, str]:
    """Further registered names that match a wildcard, each with the name of its network."""
    return {
        alias: variant.name
        for alias, variant in _ALIASES.items()
        if fnmatch.fnmatch(alias, pattern)
    }


def named_variants() -> list[Variant]:
    """The cells that have a registered name, in the order of the tables."""
    cells: list[Variant] = []
    for key, family in FAMILIES.items():
        cells += expand(
            {
                "family": key,
                "depth": list(family.named_depths),
                "stem": [family.stem, "deep"],
                "stride": list(STRIDES),
                "shortcut": list(SHORTCUTS),
                "order": list(ORDERS),
            }
        )[0]
    return cells


def architecture(variant: Variant) -> tuple[str, dict[str, str]]:
    """Name and arguments under which timm finds a variant again, registered or not."""
    return (variant.name, {}) if variant.name in _NAMED else (GENERIC, {"variant": variant.name})


def _entry_point(name: str, variant: Variant) -> Callable[..., ResNet]:
    def create(pretrained: bool = False, **kwargs: Any) -> ResNet:  # noqa: FBT001, FBT002
        return build(variant, pretrained=pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"{variant}"
    return create


def resnet_variant(
    pretrained: bool = False,  # noqa: FBT001, FBT002
    variant: str = "rv_resnet50_b",
    **kwargs: Any,
) -> ResNet:
    """Any cell of the design space, by name."""
    return build(parse_name(variant), pretrained=pretrained, **kwargs)


_NAMED = {variant.name: variant for variant in named_variants()}
_ALIASES = {alias: variant for variant in _NAMED.values() for alias in variant.aliases}
_CFGS: dict[str, Any] = {
    name: pretrained_cfg(variant) for name, variant in (_NAMED | _ALIASES).items()
}
default_cfgs = generate_default_cfgs({GENERIC: pretrained_cfg(Variant()), **_CFGS})
for _name, _variant in (_NAMED | _ALIASES).items():
    register_model(_entry_point(_name, _variant))
register_model(resnet_variant)
