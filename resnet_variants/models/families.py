"""Presets and families: what the networks of one paper share, as data."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_variants.registry import Registry

# ResNet-A to D are cumulative (arXiv:1812.01187, table 5): each adds one tweak to the last.
# An empty stem is the family's own single convolution.
_A = {"stem": "", "stride": "1x1", "shortcut": "conv"}
_B = _A | {"stride": "3x3"}
_C = _B | {"stem": "deep"}
_D = _C | {"shortcut": "avgpool"}
PRESETS = Registry("variant", A=_A, B=_B, C=_C, D=_D)

# The three placements that `--grid` crosses with stem and order.
DOWNSAMPLES = Registry(
    "downsample",
    **{
        "1x1": {"stride": "1x1", "shortcut": "conv"},
        "3x3": {"stride": "3x3", "shortcut": "conv"},
        "3x3+avgpool": {"stride": "3x3", "shortcut": "avgpool"},
    },
)


@dataclass(frozen=True)
class Family:
    """What the networks of one paper's table share."""

    widths: tuple[int, ...]  # of the 3x3 convolutions, per stage
    layouts: dict[int, dict[str, tuple[int, ...]]]  # depth -> block -> units per stage
    depths_text: str  # the depths in words
    named_depths: tuple[int, ...]  # those registered with timm
    default_depth: int
    stem: str
    stem_stride: int
    img_size: int
    num_classes: int
    crop_pct: float
    mean: tuple[float, ...]  # of the training images, per channel in [0, 1]
    std: tuple[float, ...]
    token: str = ""  # in names
    other_nets: str = ""  # why `resnext` and `wide_resnet` are names of other networks here, if so


def _cifar_layouts() -> dict[int, dict[str, tuple[int, ...]]]:
    """Depths 6n+2 and 9n+2; a depth of both kinds defaults to the block it was published with."""
    layouts: dict[int, dict[str, tuple[int, ...]]] = {164: {"bottleneck": (18, 18, 18)}}
    for block, convs in (("basic", 2), ("bottleneck", 3)):
        for n in range(1, 1 + 1200 // (3 * convs)):
            layouts.setdefault(3 * convs * n + 2, {})[block] = (n, n, n)
    return layouts


def _with_longer_units(layouts: dict[int, dict[str, tuple[int, ...]]]) -> None:
    """Add units of one, three and four layers to depths of basic blocks, which stay the default."""
    for blocks in layouts.values():
        layers = [2 * units for units in blocks.get("basic", ())]
        for block, convs in (("basic1", 1), ("basic3", 3), ("basic4", 4)):
            if layers and not any(n % convs for n in layers):
                blocks[block] = tuple(n // convs for n in layers)


FAMILIES = Registry(
    "family",
    imagenet=Family(
        widths=(64, 128, 256, 512),
        layouts={
            10: {"basic": (1, 1, 1, 1)},
            14: {"bottleneck": (1, 1, 1, 1)},
            18: {"basic": (2, 2, 2, 2)},
            26: {"bottleneck": (2, 2, 2, 2)},
            34: {"basic": (3, 4, 6, 3)},
            50: {"bottleneck": (3, 4, 6, 3)},
            101: {"bottleneck": (3, 4, 23, 3)},
            152: {"bottleneck": (3, 8, 36, 3)},
            200: {"bottleneck": (3, 24, 36, 3)},
        },
        depths_text="10, 14, 18, 26, 34, 50, 101, 152, 200",
        named_depths=(18, 26, 34, 50, 101, 152, 200),
        default_depth=50,
        stem="conv7",
        stem_stride=4,
        img_size=224,
        num_classes=1000,
        crop_pct=0.875,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    cifar=Family(
        widths=(16, 32, 64),
        layouts=_cifar_layouts(),
        depths_text="6n+2 with basic blocks (20, 32, 44, 56, 110), "
        "9n+2 with bottlenecks (29, 47, 164, 1001)",
        named_depths=(20, 29, 32, 44, 47, 56, 110, 164),
        default_depth=29,
        stem="conv3",
        stem_stride=1,
        img_size=32,
        num_classes=10,
        crop_pct=1.0,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        token="cifar",
        other_nets="on small images ResNeXt has stages of 256-512-1024 channels "
        "(arXiv:1611.05431) and Wide ResNet wider stages (arXiv:1605.07146)",
    ),
)
for _family in FAMILIES.values():
    _with_longer_units(_family.layouts)
