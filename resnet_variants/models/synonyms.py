"""What other libraries and the papers call a variant: the answer to "which ResNet is this?"."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_variants.models.variant import Variant


@dataclass(frozen=True)
class Peer:
    """One naming rule of a library or paper."""

    source: str
    preset: str
    order: str
    name: str  # with {depth}
    depths: tuple[int, ...]
    remark: str = ""  # where it is not the very same network, how it differs
    family: str = "imagenet"


_BASIC, _BOTTLENECK = (18, 34), (50, 101, 152)
_ALL = _BASIC + _BOTTLENECK
_BIASED = "its 1x1 convolutions have biases"
_GLUON_V2 = "it also normalises the input and has BN-ReLU in the stem"
_OPTION_A = "the paper's shortcuts there are parameter-free (option A)"
_AUTHORS_V2 = "the authors' ImageNet stem has BN-ReLU, and the first unit none"

PEERS = (
    Peer("timm", "B", "post", "resnet{depth}", (26, *_ALL)),
    Peer("timm", "C", "post", "resnet{depth}c", _BOTTLENECK),
    Peer("timm", "D", "post", "resnet{depth}d", (26, 200, *_ALL)),
    Peer("timm", "B", "preact", "resnetv2_{depth}", _ALL),
    Peer("timm", "D", "preact", "resnetv2_{depth}d", _ALL),
    Peer("torchvision", "B", "post", "resnet{depth}", _ALL),
    Peer("mmpretrain", "A", "post", "ResNet(depth={depth}, style='caffe')", _BOTTLENECK),
    Peer("mmpretrain", "B", "post", "ResNet(depth={depth})", _ALL),
    Peer("mmpretrain", "C", "post", "ResNetV1c(depth={depth})", _ALL),
    Peer("mmpretrain", "D", "post", "ResNetV1d(depth={depth})", _ALL),
    Peer("GluonCV", "A", "post", "resnet{depth}_v1", _BOTTLENECK, _BIASED),
    Peer("GluonCV", "B", "post", "resnet{depth}_v1b", _ALL),
    Peer("GluonCV", "C", "post", "resnet{depth}_v1c", _BOTTLENECK),
    Peer("GluonCV", "D", "post", "resnet{depth}_v1d", _BOTTLENECK),
    Peer("GluonCV", "B", "preact", "resnet{depth}_v2", _ALL, _GLUON_V2),
    Peer("arXiv:1512.03385", "A", "post", "ResNet-{depth}, table 1", _BOTTLENECK),
    Peer("arXiv:1512.03385", "B", "post", "ResNet-{depth}, table 1", _BASIC, _OPTION_A),
    Peer("arXiv:1812.01187", "B", "post", "ResNet-{depth}-B, fig. 2a", _BOTTLENECK),
    Peer("arXiv:1812.01187", "C", "post", "ResNet-{depth}-C, fig. 2b", _BOTTLENECK),
    Peer("arXiv:1812.01187", "D", "post", "ResNet-{depth}-D, fig. 2c", _BOTTLENECK),
    Peer("arXiv:1603.05027", "A", "preact", "ResNet-{depth} v2", (101, 152, 200), _AUTHORS_V2),
    Peer(
        "arXiv:1512.03385",
        "B",
        "post",
        "ResNet-{depth}, section 4.2",
        (20, 32, 44, 56, 110),
        _OPTION_A,
        family="cifar",
    ),
    Peer(
        "pycls",
        "B",
        "post",
        "RESNET depth {depth}, CIFAR",
        (20, 32, 44, 56, 110),
        family="cifar",
    ),
)


def synonyms(variant: Variant) -> list[tuple[Peer, str]]:
    """The rules that name this network, each with the name; only the standard stem stride."""
    own = Variant(family=variant.family, depth=variant.depth)
    if (variant.stem_stride, variant.block) != (own.stem_stride, own.block):
        return []
    wanted = (variant.family, variant.preset, variant.order)
    return [
        (peer, peer.name.format(depth=variant.depth))
        for peer in PEERS
        if (peer.family, peer.preset, peer.order) == wanted and variant.depth in peer.depths
    ]
