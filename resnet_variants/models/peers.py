"""What other libraries and the papers call a variant: the answer to "which ResNet is this?"."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

from resnet_variants.models.grids import variant_from
from resnet_variants.models.variant import Variant


@dataclass(frozen=True)
class Peer:
    """One naming rule of a library or paper."""

    source: str
    name: str  # {} stands for the depth
    depths: tuple[int, ...]
    axes: dict[str, Any]  # as a grid spells them
    differs: str = ""  # where it is not the very same network, how it differs
    note: str = ""

    @property
    def text(self) -> str:
        """What to say after the name."""
        remark = f"differs: {self.differs}" if self.differs else self.note
        return f" ({remark})" if remark else ""

    def names(self) -> dict[Variant, str]:
        """Every network that the rule names."""
        return {
            variant_from(self.axes | {"depth": depth}): self.name.format(depth)
            for depth in self.depths
        }


_BASIC, _DEEP = (18, 34), (50, 101, 152)
_ALL = _BASIC + _DEEP
_CIFAR = (20, 32, 44, 56, 110)
_HE = (*_CIFAR, 1202)

_A, _B, _C, _D = (dict[str, Any](preset=letter) for letter in "ABCD")
_E = _D | {"stem": "deep_wide"}
_S = _C | {"stem": "deep_wide"}
_T = _D | {"stem": "tiered_narrow"}
_PRE: dict[str, Any] = {"preact": True}
_SE, _ECA = {"attention": "se"}, {"attention": "eca"}
_BLUR, _AVG = {"antialias": "blur"}, {"antialias": "avg"}
_GROUP = {"norm": "group"}
_X4, _X8 = ({"cardinality": 32, "base_width": width} for width in (4, 8))
_X64 = {"cardinality": 64, "base_width": 4}
_WIDE = {"base_width": 128}
_SMALL = _B | {"family": "cifar"}
_PAD = {"shortcut": "pad"}
_PLAIN = {"shortcut": "none"}
_NARROW = {"block": "bottleneck"}
_STRIDE1 = {"stem": "conv3", "stem_stride": 1}  # ImageNet nets made to take 32x32 images

_T_DOC = "its documentation says 24-48-64, its code builds this 24-32-64 stem"
_FLOOR = "its mean filter floors odd maps"
_BIASED = "its 1x1 convolutions have biases"
_GLUON_V2 = "it also normalises the input and has BN-ReLU in the stem"
_GLUON_CIFAR = "it has no ReLU after the stem's norm"
_GLUON_CIFAR_V2 = "it also normalises the input, and its projections read the raw one"
_OPTION_A = "the paper's shortcuts there are parameter-free: see shortcut pad"
_OPTION_B = "a projection stands where the paper has option A: see shortcut pad"
_AUTHORS_V2 = (
    "the authors' ImageNet stem has BN-ReLU, the first unit none; which convolution carries the "
    "stride is not published"
)
_NO_HEAD = "it has no norm and ReLU before the pooling"
_BOTH_SIDES = "half of its zero channels come before the others"
_NORMED_STEM = "its stem has norm and ReLU, as has its first unit"
_KERAS = "its convolutions have biases, its norms an eps of 1.001e-5"
_KERAS_V2 = (
    "its stages halve the map in their last unit, by a shortcut without parameters; its stem, "
    "projections and last convolutions have biases, its norms an eps of 1.001e-5"
)
_FIRST_UNIT = "the authors' first unit shares its activation with its shortcut"

_PYCLS = "ResNet-{}, bottleneck_transform"
_V1, _V2 = "arXiv:1512.03385", "arXiv:1603.05027"
_TRICKS = "arXiv:1812.01187"

_TIMM = (
    Peer("timm", "resnet{}", (26, 200, *_ALL), _B),
    Peer("timm", "resnet{}c", _DEEP, _C),
    Peer("timm", "resnet{}d", (26, 200, *_ALL), _D),
    Peer("timm", "resnet{}s", _DEEP, _S),
    Peer("timm", "resnet{}t", (10, 14, 26, 50), _T, note=_T_DOC),
    Peer("timm", "resnetv2_{}", _ALL, _B | _PRE),
    Peer("timm", "resnetv2_{}d", _ALL, _D | _PRE),
    Peer("timm", "resnetv2_{}t", (50,), _T | _PRE),
    Peer("timm", "resnext{}_32x4d", (50, 101), _B | _X4),
    Peer("timm", "resnext{}d_32x4d", (50,), _D | _X4),
    Peer("timm", "resnext{}_32x8d", (101,), _B | _X8),
    Peer("timm", "resnext{}_32x16d", (101,), _B | {"cardinality": 32, "base_width": 16}),
    Peer("timm", "resnext{}_32x32d", (101,), _B | {"cardinality": 32, "base_width": 32}),
    Peer("timm", "resnext{}_64x4d", (101,), _B | _X64),
    Peer("timm", "wide_resnet{}_2", (50, 101), _B | _WIDE),
    Peer("timm", "seresnet{}", _ALL, _B | _SE),
    Peer("timm", "seresnet{}d", (152, 200), _D | _SE),
    Peer("timm", "seresnet{}t", (50,), _T | _SE, note=_T_DOC),
    Peer("timm", "seresnext{}_32x4d", (50, 101), _B | _X4 | _SE),
    Peer("timm", "seresnext{}_32x8d", (101,), _B | _X8 | _SE),
    Peer("timm", "seresnext{}_64x4d", (101,), _B | _X64 | _SE),
    Peer("timm", "seresnext{}d_32x4d", (26,), _D | _X4 | _SE),
    Peer("timm", "seresnext{}d_32x8d", (101,), _D | _X8 | _SE),
    Peer("timm", "seresnext{}t_32x4d", (26,), _T | _X4 | _SE, note=_T_DOC),
    Peer("timm", "ecaresnet{}d", (50, 101, 200), _D | _ECA),
    Peer("timm", "ecaresnet{}t", (26, 50), _T | _ECA, note=_T_DOC),
    Peer("timm", "ecaresnext{}t_32x4d", (26, 50), _T | _X4 | _ECA, note=_T_DOC),
    Peer("timm", "resnet{}_gn", (50,), _B | _GROUP),
    Peer("timm", "resnetblur{}", (18, 50), _B | _BLUR),
    Peer("timm", "resnetblur{}d", (50, 101), _D | _BLUR),
    Peer("timm", "resnetaa{}", (50,), _B | _AVG, _FLOOR),
    Peer("timm", "resnetaa{}d", (34, 50, 101), _D | _AVG, _FLOOR),
    Peer("timm", "seresnetaa{}d", (50,), _D | _AVG | _SE, _FLOOR),
    Peer("timm", "seresnextaa{}d_32x8d", (101,), _D | _X8 | _AVG | _SE, _FLOOR),
)

PEERS = (
    *_TIMM,
    Peer("torchvision", "resnet{}", _ALL, _B),
    Peer("torchvision", "resnext{}_32x4d", (50,), _B | _X4),
    Peer("torchvision", "resnext{}_32x8d", (101,), _B | _X8),
    Peer("torchvision", "resnext{}_64x4d", (101,), _B | _X64),
    Peer("torchvision", "wide_resnet{}_2", (50, 101), _B | _WIDE),
    Peer("mmpretrain", "ResNet(depth={}, style='caffe')", _DEEP, _A),
    Peer("mmpretrain", "ResNet(depth={})", _ALL, _B),
    Peer("mmpretrain", "ResNetV1c(depth={})", _ALL, _C),
    Peer("mmpretrain", "ResNetV1d(depth={})", _ALL, _D),
    Peer("mmpretrain", "ResNet_CIFAR(depth={})", _ALL, _B | _STRIDE1),
    Peer("mmpretrain", "ResNeXt(depth={}, groups=32, width_per_group=4)", _DEEP, _B | _X4),
    Peer("mmpretrain", "ResNeXt(depth={}, groups=32, width_per_group=8)", (101,), _B | _X8),
    Peer("GluonCV", "resnet{}_v1", _BASIC, _B),
    Peer("GluonCV", "resnet{}_v1", _DEEP, _A, _BIASED),
    Peer("GluonCV", "resnet{}_v1b", _ALL, _B),
    Peer("GluonCV", "resnet{}_v1b_gn", (50,), _B | _GROUP),
    Peer("GluonCV", "resnet{}_v1c", _DEEP, _C),
    Peer("GluonCV", "resnet{}_v1d", _DEEP, _D),
    Peer("GluonCV", "resnet{}_v1e", _DEEP, _E),
    Peer("GluonCV", "resnet{}_v1s", _DEEP, _S),
    Peer("GluonCV", "resnet{}_v2", _ALL, _B | _PRE, _GLUON_V2),
    Peer("GluonCV", "cifar_resnet{}_v1", (20, 56, 110), _SMALL, _GLUON_CIFAR),
    Peer("GluonCV", "cifar_resnet{}_v2", (20, 56, 110), _SMALL | _PRE, _GLUON_CIFAR_V2),
    Peer("pycls", _PYCLS, _DEEP, _A),
    Peer("pycls", _PYCLS + ", STRIDE_1X1 False", _DEEP, _B),
    Peer("pycls", _PYCLS + ", STRIDE_1X1 False, 32 groups of 4", (50, 101), _B | _X4),
    Peer("pycls", "cifar ResNet-{} (basic_transform)", _CIFAR, _SMALL),
    Peer("pytorchcv", "resnet{}", (10, *_BASIC), _B),
    Peer("pytorchcv", "resnet{}", (*_DEEP, 200), _A),
    Peer("pytorchcv", "resnet{}b", (*_DEEP, 200), _B),
    Peer("pytorchcv", "preresnet{}", (10, *_BASIC), _B | _PRE, _NORMED_STEM),
    Peer("pytorchcv", "preresnet{}", (*_DEEP, 200), _A | _PRE, _NORMED_STEM),
    Peer("pytorchcv", "preresnet{}b", (*_DEEP, 200), _B | _PRE, _NORMED_STEM),
    Peer("pytorchcv", "resnet{}_cifar10", (20, 56, 110, 1001, 1202), _SMALL),
    Peer("pytorchcv", "resnet{}bn_cifar10", (164, 272, 542), _SMALL | _NARROW),
    Peer("pytorchcv", "preresnet{}_cifar10", (20, 56, 110, 1001, 1202), _SMALL | _PRE),
    Peer("pytorchcv", "preresnet{}bn_cifar10", (164, 272, 542), _SMALL | _PRE | _NARROW),
    Peer("Keras", "ResNet{}", _DEEP, _A, _KERAS),
    Peer("Keras", "ResNet{}V2", _DEEP, _B | _PRE, _KERAS_V2),
    Peer("kuangliu/pytorch-cifar", "ResNet{}", _ALL, _B | _STRIDE1),
    Peer("kuangliu/pytorch-cifar", "PreActResNet{}", _ALL, _B | _PRE | _STRIDE1, _NO_HEAD),
    Peer("akamaster/pytorch_resnet_cifar10", "resnet{}", _HE, _SMALL | _PAD, _BOTH_SIDES),
    Peer(_V1, "ResNet-{}, table 1", _DEEP, _A),
    Peer(_V1, "ResNet-{}, table 1", _BASIC, _B, _OPTION_A),
    Peer(_V1, "ResNet-{}, table 2", _BASIC, _PAD),
    Peer(_V1, "plain-{}, table 2", _BASIC, _PLAIN),
    Peer(_V1, "ResNet-{} A, table 3", (34,), _PAD),
    Peer(_V1, "ResNet-{} B, table 3", (34,), _B),
    Peer(_V1, "ResNet-{} C, table 3", (34,), {"shortcut": "conv_all"}),
    Peer(_V1, "ResNet-{}, section 4.2", _HE, _SMALL | _PAD),
    Peer(_V1, "ResNet-{}, section 4.2", _CIFAR, _SMALL, _OPTION_B),
    Peer(_V1, "plain-{}, fig. 6", _CIFAR, _SMALL | _PLAIN),
    Peer(_V2, "ResNet-{} v2, table 5", (152, 200), _A | _PRE, _AUTHORS_V2),
    *(
        Peer(_V2, "ResNet-{} " + letter, (110,), _SMALL | _PAD | {"order": order}, differs)
        for letter, order, differs in (
            ("(a), table 2", "post", ""),
            ("(b), table 2", "bn_after_add", ""),
            ("(c), table 2", "relu_before_add", ""),
            ("(d), table 2", "relu_preact", _FIRST_UNIT),
            ("(e), table 2", "preact", _FIRST_UNIT),
        )
    ),
    *(
        Peer(_V2, "ResNet-{}, " + kind + ", table 1", (110,), _SMALL | _PAD | {"skip": skip})
        for kind, skip in (
            ("constant scaling", "scale"),
            ("constant scaling of both", "scale_both"),
            ("exclusive gating", "exclusive_gate"),
            ("shortcut-only gating", "shortcut_gate"),
            ("1x1 conv shortcut", "conv"),
            ("dropout shortcut", "dropout"),
        )
    ),
    Peer("KaimingHe/resnet-1k-layers", "resnet-pre-act, depth {}", (164, 1001), _SMALL | _A | _PRE),
    Peer(_TRICKS, "ResNet-{}", (50,), _A),
    Peer(_TRICKS, "ResNet-{}-B, fig. 2a", (50,), _B),
    Peer(_TRICKS, "ResNet-{}-C, fig. 2b", (50,), _C),
    Peer(_TRICKS, "ResNet-{}-D, fig. 2c", (50,), _D),
    Peer("arXiv:1611.05431", "ResNeXt-{} (32x4d), table 1", (50, 101), _B | _X4),
    Peer("arXiv:1611.05431", "ResNeXt-{} (64x4d)", (101,), _B | _X64),
    Peer("arXiv:1605.07146", "WRN-{}-2-bottleneck, table 8", (50,), _B | _WIDE),
)


@functools.cache
def _index() -> dict[Variant, list[tuple[Peer, str]]]:
    index: dict[Variant, list[tuple[Peer, str]]] = {}
    for peer in PEERS:
        for variant, name in peer.names().items():
            index.setdefault(variant, []).append((peer, name))
    return index


def names_elsewhere(variant: Variant) -> list[tuple[Peer, str]]:
    """The rules that name this network, each with the name."""
    return _index().get(variant, [])


def named_elsewhere(name: str) -> dict[Variant, list[str]]:
    """The networks that have this name elsewhere, each with its sources; timm's first."""
    sources: dict[Variant, list[str]] = {}
    for peer in PEERS:
        for variant, theirs in peer.names().items():
            if theirs == name or (peer.source == "timm" and name.startswith(f"{theirs}.")):
                sources.setdefault(variant, []).append(f"{peer.source}{peer.text}")
    return sources


def nearest(variant: Variant) -> list[tuple[str, str]]:
    """Names elsewhere of networks that differ from this one in one axis, each with that axis."""
    names, own = list[tuple[str, str]](), asdict(variant)
    for other, rules in _index().items():
        theirs = asdict(other)
        axes = [axis for axis in own if own[axis] != theirs[axis]]
        if len(axes) == 1 and axes != ["depth"]:
            differs = f"{axes[0]} {theirs[axes[0]]} instead of {own[axes[0]]}"
            names += [
                (f"{peer.source} {name}", differs) for peer, name in rules if not peer.differs
            ]
    return names


@functools.cache
def timm_names() -> dict[Variant, str]:
    """The networks that timm has too, by its name: their weights load into ours.

    The outputs are equal too; those of the ``resnetaa`` nets only while all maps are even.
    """
    return {variant: name for peer in _TIMM for variant, name in peer.names().items()}
