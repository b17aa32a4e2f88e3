"""``python -m resnet_variants.describe NAME``: which network is this, exactly?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.branches import (
    ANTIALIASES,
    ATTENTIONS,
    BLOCKS,
    ORDERS,
    STRIDES,
)
from resnet_variants.models.cost import Cost, LayerCost, layer_costs, total
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.peers import named_elsewhere, nearest, synonyms
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import as_variant, weights_cfgs
from resnet_variants.terminal.cli import guard, parse, say


@dataclass(frozen=True)
class Flags:
    """One variant: its axes, its names elsewhere, its layers, its cost."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """A name such as rv_resnet50_d_preact, or one that timm or another library has."""
    img_size: Annotated[int, tyro.conf.arg(help="side in pixels, 0: the family's own")] = 0
    in_chans: int = ModelArgs.in_chans
    num_classes: Annotated[int, tyro.conf.arg(help="0: the family's own")] = 0


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "describe")
    elsewhere = named_elsewhere(flags.name)
    variant = next(iter(elsewhere), None) or as_variant("name", flags.name.partition(".")[0])
    layers = layer_costs(
        variant,
        img_size=flags.img_size,
        in_chans=flags.in_chans,
        num_classes=flags.num_classes,
    )
    for other, sources in elsewhere.items():
        say(f"{flags.name} of {', '.join(sources)} is {other.name}")
    say("\n".join([*_heading(variant), "", *_names(variant), "", *_layers(layers)]))
    say(_totals(total(layers), flags.img_size or FAMILIES[variant.family].img_size))
    return 0


def _heading(variant: Variant) -> list[str]:
    conv, pool = STEM_STRIDES[variant.stem_stride]
    stem = f"{variant.stem}: {_first_line(STEMS[variant.stem])}"
    units = "-".join(map(str, variant.units))
    kernel, antialias = STRIDES[variant.stride], ANTIALIASES[variant.antialias]
    rows = {
        "preset": f"ResNet-{variant.preset}" if variant.preset else "none: a cell of its own",
        "family": f"{variant.family}, depth {variant.depth}: {units} {variant.block} units",
        "groups": _groups(variant),
        "stem": stem,
        "stem stride": f"{variant.stem_stride}: stride {conv}, {'then a' if pool else 'no'} pool",
        "stride": f"{variant.stride}: stride 2 in a unit's first {kernel}x{kernel} convolution",
        "shortcut": f"{variant.shortcut}: {_first_line(SHORTCUTS[variant.shortcut])}",
        "order": f"{variant.order}: {_order_text(variant)}",
        "skip": f"{variant.skip}: {_first_line(SKIPS[variant.skip])}",
        "attention": _unless_none(variant.attention, _first_line(ATTENTIONS[variant.attention])),
        "antialias": _unless_none(variant.antialias, antialias.text if antialias else ""),
        "also": ", ".join(variant.aliases),
    }
    return [variant.name, *(f"  {key:<13}{text}" for key, text in rows.items() if text)]


def _groups(variant: Variant) -> str:
    widths = FAMILIES[variant.family].widths
    inner = [variant.inner_width(width) for width in widths]
    if inner == list(widths) and variant.cardinality == 1:
        return ""
    return (
        f"cardinality {variant.cardinality}, base width {variant.base_width}: 3x3 convolutions of "
        f"{'-'.join(map(str, inner))} channels"
    )


def _order_text(variant: Variant) -> str:
    order = ORDERS[variant.order]
    units = [order.unit] * (len(BLOCKS[variant.block].kernels) - 1)
    branch = " | ".join([*units, order.last])
    if variant.is_plain:
        branch = branch.replace(" +", "")
    parts = {"stem conv": order.stem, "branch": branch, "before the pooling": order.head}
    return "; ".join(f"{place}: {steps}" for place, steps in parts.items() if steps)


def _unless_none(choice: str, text: str) -> str:
    return "" if choice == "none" else f"{choice}: {text}"


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").splitlines()[0]


def _names(variant: Variant) -> list[str]:
    found = [(peer.source, f"{name}{peer.text}") for peer, name in synonyms(variant)]
    width = max([22, *(len(source) for source, _ in found)])
    rows = [f"  {source:<{width}}  {text}" for source, text in found]
    if not rows:
        rows = [f"  {name} has {differs}" for name, differs in nearest(variant)]
        rows = ["  none known" + ("; close are" if rows else ""), *rows]
    tags = list(weights_cfgs(variant))
    return [
        "names elsewhere",
        *rows,
        "",
        "pretrained weights (timm's)",
        f"  {' '.join(tags) or 'none'}",
    ]


def _layers(layers: list[LayerCost]) -> list[str]:
    rows: list[tuple[str, ...]] = [("layer", "kind", "output", "params", "MACs", "activations")]
    for layer in layers:
        if layer.kind != "Identity":
            shape = " x ".join(map(str, layer.output_shape))
            numbers = (f"{n:,}" for n in (layer.params, layer.macs, layer.acts))
            rows.append((layer.name, layer.kind, shape, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i < 2 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _totals(cost: Cost, side: int) -> str:
    return (
        f"\nat {side} px: {cost.params:,} params, {cost.macs:,} MACs = {cost.flops:,} FLOPs "
        f"(convolutions and linear layers), {cost.acts:,} activations"
    )


def main() -> int:
    """``python -m resnet_variants.describe``."""
    return guard(lambda: command(sys.argv[1:]), "describe")


if __name__ == "__main__":
    sys.exit(main())
