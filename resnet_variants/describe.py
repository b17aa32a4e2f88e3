"""``python -m resnet_variants.describe NAME``: which network is this, exactly?"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from resnet_variants.models.branches import STRIDES
from resnet_variants.models.catalogue import as_variant, registered
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.peers import named_elsewhere, names_elsewhere, nearest
from resnet_variants.models.stems import STEM_STRIDES
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.registry import refuse
from resnet_variants.settings import CHANNELS
from resnet_variants.terminal.cli import Plugins, guard, parse, positional, say
from resnet_variants.terminal.starting import ready

if TYPE_CHECKING:
    from resnet_variants.models.cost import Cost, LayerCost


@dataclass(frozen=True)
class Flags:
    """One variant: its axes, its names elsewhere, its layers, its cost."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """A name such as rv_resnet50_d_preact, or one that timm or another library has."""
    img_size: Annotated[int, tyro.conf.arg(help="side in pixels, 0: the family's own")] = 0
    in_chans: int = CHANNELS
    num_classes: Annotated[int, tyro.conf.arg(help="0: the family's own")] = 0
    layers: Annotated[bool, tyro.conf.arg(help="a row for each layer")] = True
    plugin: Plugins = ()


def command(argv: Sequence[str]) -> int:
    """Carry out the verb."""
    flags = parse(Flags, argv, "describe")
    name, _, tag = flags.name.partition(".")
    elsewhere = named_elsewhere(flags.name)
    with positional("name"):
        variant = next(iter(elsewhere), None) or as_variant("name", name)
    from resnet_variants.models.arguments import ModelArgs
    from resnet_variants.models.cost import measure, to_measure, total
    from resnet_variants.models.diagram import diagram
    from resnet_variants.models.zoo import weights_cfgs

    ready()
    tags = list(weights_cfgs(variant))
    if tag and tag not in tags:
        refuse(f"weights of {variant.name}", tag, tags or ["none"], field="")
    sizes = flags.img_size, flags.in_chans, flags.num_classes
    model, shape = to_measure(variant, *sizes, ModelArgs.head)
    drawn = [f"{part}\n{textwrap.indent(lines, '  ')}" for part, lines in diagram(model).items()]
    layers = measure(model, shape)
    for other, sources in elsewhere.items():
        say(f"{flags.name} of {', '.join(sources)} is {other.name}")
    cost = _totals(total(layers), shape[-1])
    parts = [variant.name, cost, *axes_of(variant), "", *drawn, "", *_names(variant, tags)]
    say("\n".join([*parts, *(["", *_layers(layers)] if flags.layers else [])]))
    return 0


def axes_of(variant: Variant) -> list[str]:
    """A line for each axis that tells something."""
    rows = {
        "preset": f"ResNet-{variant.preset}" if variant.preset else "none: a cell of its own",
        "family": _size(variant),
        "groups": _groups(variant),
        **{axis.replace("_", " "): axis_text(variant, axis) for axis in AXES if axis not in _SIZE},
        "also": ", ".join(variant.aliases),
    }
    return [f"  {key:<13}{text}" for key, text in rows.items() if text]


# The axes that the rows "family" and "groups" tell.
_SIZE = ("family", "depth", "block", "cardinality", "base_width")


def _size(variant: Variant) -> str:
    units = "-".join(map(str, variant.units))
    return f"{variant.family}, depth {variant.depth}: {units} {variant.block} units"


def _groups(variant: Variant) -> str:
    widths = FAMILIES[variant.family].widths
    inner = [variant.inner_width(width) for width in widths]
    if inner == list(widths) and variant.cardinality == 1:
        return ""
    return (
        f"cardinality {variant.cardinality}, base width {variant.base_width}: 3x3 convolutions of "
        f"{'-'.join(map(str, inner))} channels"
    )


def axis_text(variant: Variant, axis: str) -> str:
    """The choice on an axis and what it means; nothing for ``none`` where that is usual."""
    choice, about = getattr(variant, axis), AXES[axis]
    if choice == about.default == "none":
        return ""
    if axis == "stem_stride":
        conv, pool = STEM_STRIDES[choice]
        text = f"stride {conv}, {'then a' if pool else 'no'} pool"
    elif axis == "stride":
        text = f"stride 2 in a unit's first {STRIDES[choice]}x{STRIDES[choice]} convolution"
    else:
        text = entry_text((about.choices or {})[choice])
    return f"{choice}: {text}" if text else str(choice)


def entry_text(entry: object) -> str:
    """How an entry of a table describes itself: its ``text``, or a function's first line."""
    function_text = entry.__doc__ or "" if callable(entry) else ""
    return str(getattr(entry, "text", function_text.partition("\n")[0]))


def _names(variant: Variant, tags: Sequence[str]) -> list[str]:
    names = [(peer.source, f"{name}{peer.text}") for peer, name in names_elsewhere(variant)]
    width = max([22, *(len(source) for source, _ in names)])
    rows = [f"  {source:<{width}}  {text}" for source, text in names]
    if not rows:
        rows = [f"  {name} has {differs}" for name, differs in nearest(variant)]
        rows = ["  none known" + ("; close are" if rows else ""), *rows]
    name = variant.name
    is_known = name in registered()
    return [
        "in Python, after `import resnet_variants as rv`",
        f"  {'timm' if is_known else 'rv'}.create_model({name!r})"
        + ("" if is_known else f"; timm knows it after rv.parse_name({name!r})"),
        "",
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
        f"at {side} px: {cost.params:,} params, {cost.macs:,} MACs = {cost.flops:,} FLOPs "
        f"(convolutions and linear layers), {cost.acts:,} activations"
    )


def main() -> int:
    """``python -m resnet_variants.describe``."""
    return guard(lambda: command(sys.argv[1:]), "describe")


if __name__ == "__main__":
    sys.exit(main())
