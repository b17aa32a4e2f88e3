"""A network as lines of text: its stem, its two kinds of unit and its head, read from the layers.

::

    x ─┬─ conv 3x3/2 128 ─ BN ─ ReLU ─ conv 3x3 128 ─ BN ─ + ─ ReLU
       └─ conv 1x1/2 128 ─ BN ─────────────────────────────┘
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from timm.layers import SelectAdaptivePool2d
from torch import nn

from resnet_variants.models.block import ResidualBlock
from resnet_variants.models.layers import Gate, Pad, Scale
from resnet_variants.models.network import ResNet

_LINK, _PLUS = " ─ ", "+"
_CALLED = {"BatchNorm": "BN", "AvgPool": "mean", "AvgPoolSame": "mean", "MaxPool": "max-pool"}
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
        **{_kind(unit): _unit(unit) for unit in sorted(units, key=lambda unit: unit.keeps_shape)},
        "head": _LINK.join(_labels(parts[name] for name in names[stages[-1] + 1 :])),
    }


def _kind(unit: ResidualBlock) -> str:
    return "other units" if unit.keeps_shape else "unit that changes the shape"


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


def _labels(modules: Iterable[nn.Module]) -> Iterator[str]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _labels(module)
        elif not isinstance(module, nn.Identity):
            yield _label(module)


def _label(module: Any) -> str:
    """What a layer is, in a few letters."""
    match module:
        case nn.Conv2d():
            groups = f" ({module.groups} groups)" if module.groups > 1 else ""
            return f"conv {_window(module)} {module.out_channels}{groups}"
        case nn.Linear():
            return f"linear {module.out_features}"
        case SelectAdaptivePool2d():
            return f"{module.pool_type or 'no'} pool of all positions"
        case Pad():
            return f"1 pixel of {module.stride}x{module.stride}, {module.channels} zero channels"
        case Scale():
            return f"times {module.factor}"
        case Gate():
            return _GATED
        case nn.Dropout():
            return f"dropout {module.p}"
    name = re.sub("(2d|Module)", "", type(module).__name__)
    return f"{_CALLED.get(name, name)} {_window(module)}".rstrip()


def _window(module: Any) -> str:
    """Kernel and stride, such as ``3x3/2``; nothing for a layer that has none."""
    size = getattr(module, "kernel_size", getattr(module, "filt_size", None))
    stride = getattr(module, "stride", None)
    if size is None or stride is None:
        return ""
    sides, strides = (v if isinstance(v, tuple | list) else (v, v) for v in (size, stride))
    return "x".join(map(str, sides)) + (f"/{max(strides)}" if max(strides) > 1 else "")
