"""A network as lines of text: its stem, its two kinds of unit and its head, read from the layers.

::

    x ─┬─ conv 3x3/2 128 ─ BN ─ ReLU ─ conv 3x3 128 ─ BN ─ + ─ ReLU
       └─ conv 1x1/2 128 ─ BN ─────────────────────────────┘
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from timm.layers import LayerScale2d, SelectAdaptivePool2d
from torch import nn

from resnet_variants.models.block import ResidualBlock
from resnet_variants.models.layers import Gate, Pad, Scale
from resnet_variants.models.network import ResNet

CHANGING, KEEPING = "unit that changes the shape", "other units"
_LINK, _PLUS = " ─ ", "+"
_CALLED = {
    "BatchNorm": "BN",
    "AvgPool": "mean",
    "AvgPoolSame": "mean",
    "MaxPool": "max-pool",
    "Eca": "ECA",
}
_GATED = "times (1 - g), g = sigmoid(conv 1x1)"


def diagram(model: ResNet) -> dict[str, str]:
    """The lines of each part: ``stem``, ``unit that changes the shape``, ``other units``, ``head``.

    A convolution has its kernel, stride and output channels. Layers that change nothing are left
    out. Of the units it shows the last that changes the shape, and the last that does not.
    """
    parts = dict(model.named_children())
    names = list(parts)
    stages = [i for i, name in enumerate(names) if name.startswith("layer")]
    units = [unit for i in stages for unit in cast("Iterable[ResidualBlock]", parts[names[i]])]
    return {
        "stem": _LINK.join(["image", *_labels(parts[name] for name in names[: stages[0]])]),
        **{kind_of(unit): _unit(unit) for unit in sorted(units, key=lambda unit: unit.keeps_shape)},
        "head": _LINK.join(_labels(parts[name] for name in names[stages[-1] + 1 :])),
    }


def kind_of(unit: ResidualBlock) -> str:
    """The part of the diagram that shows it."""
    return KEEPING if unit.keeps_shape else CHANGING


def _unit(unit: ResidualBlock) -> str:
    """One line, or two: the branch, and below it the shortcut from where it leaves."""
    branch, shortcut = ["x"], list[str]()
    leaves, added = 1, 0
    for step in unit.steps:
        if step == _PLUS:
            added = len(branch)
            branch.append(_PLUS)
        elif step == "gate":
            branch.append("times g")
            shortcut.append(_GATED)
        elif step in ("downsample", "skip"):
            leaves = leaves if step == "skip" else len(branch)
            shortcut += _labels([getattr(unit, step)])
        else:
            branch += _labels([getattr(unit, step)])
    if not added:
        return _LINK.join(branch)
    before, after = _LINK.join(branch[:leaves]) + " ─", _LINK.join(branch[added:])
    above, below = (_LINK.join([*lane, ""]).rstrip() for lane in (branch[leaves:added], shortcut))
    above, below = f"┬─ {above}", f"└─ {below}" if below else "└─"
    wide = max(len(above), len(below))
    return f"{before}{above:─<{wide}} {after}\n{'':{len(before)}}{below:─<{wide}}─┘"


def _labels(modules: Iterable[nn.Module | None]) -> Iterator[str]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _labels(module)
        elif not isinstance(module, nn.Identity | None):
            yield _label(module)


def _label(module: Any) -> str:
    """What a layer is, in a few letters."""
    for kind, label in _LABELS.items():
        if isinstance(module, kind):
            return label(module)
    name = re.sub("(2d|Module)", "", type(module).__name__)
    return f"{_CALLED.get(name, name)} {_window(module)}".rstrip()


def _conv(conv: nn.Conv2d) -> str:
    groups = f" ({conv.groups} groups)" if conv.groups > 1 else ""
    return f"conv {_window(conv)} {conv.out_channels}{groups}"


# The labels of layers that say more than the name of their class.
_LABELS: dict[type[nn.Module], Callable[[Any], str]] = {
    nn.Conv2d: _conv,
    nn.Linear: lambda linear: f"linear {linear.out_features}",
    nn.Dropout: lambda dropout: f"dropout {dropout.p}",
    SelectAdaptivePool2d: lambda pool: f"{pool.pool_type or 'no'} pool of all positions",
    LayerScale2d: lambda scale: "learned factor" + "s" * (scale.gamma.numel() > 1),
    Pad: lambda pad: f"1 pixel of {pad.stride}x{pad.stride}, {pad.channels} zero channels",
    Scale: lambda scale: f"times {scale.factor}",
    Gate: lambda _: _GATED,
}


def _window(module: Any) -> str:
    """Kernel and stride, such as ``3x3/2``; nothing for a layer that has none."""
    size = getattr(module, "kernel_size", getattr(module, "filt_size", None))
    stride = getattr(module, "stride", None)
    if size is None or stride is None:
        return ""
    sides, strides = (v if isinstance(v, tuple | list) else (v, v) for v in (size, stride))
    return "x".join(map(str, sides)) + (f"/{max(strides)}" if max(strides) > 1 else "")
