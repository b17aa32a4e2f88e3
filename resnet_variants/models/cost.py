"""The cost of a variant: parameters, multiply-adds and activations of the built network.

The network is built on the meta device, so nothing is computed or allocated. MACs are those of
convolutions and linear layers (in gates, attention and blurring too), without biases. 1 MAC = one
multiply-add = 2 FLOPs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers import BlurPool2d
from torch import Tensor, nn

from resnet_variants.models.arguments import ModelArgs, require_count
from resnet_variants.models.catalogue import as_variant
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError
from resnet_variants.settings import Head


@dataclass(frozen=True)
class LayerCost:
    """One leaf module: its output for one image, and its cost."""

    name: str
    kind: str
    output_shape: tuple[int, ...]  # (C, H, W), or (C,) after the pooling
    params: int
    macs: int
    acts: int  # elements of the outputs of convolutions and linear layers


@dataclass(frozen=True)
class Cost:
    """The sums over a network, for one image."""

    params: int
    macs: int
    flops: int
    acts: int


def layer_costs(
    variant: Variant | str,
    *,
    img_size: int = 0,
    in_chans: int = ModelArgs.in_chans,
    num_classes: int = 0,
    head: Head = ModelArgs.head,
) -> list[LayerCost]:
    """Every leaf module in order of execution, at output stride 32.

    Raises:
        ValueError: as ``to_measure`` does, or images too small for the network.
    """
    model, shape = to_measure(variant, img_size, in_chans, num_classes, head)
    return measure(model, shape)


def to_measure(
    variant: Variant | str, img_size: int, in_chans: int, num_classes: int, head: Head
) -> tuple[ResNet, tuple[int, int, int]]:
    """The network on the meta device, and the shape (C, H, W) of its images.

    ``variant`` may be a letter or a name. A size of 0 is the family's default.

    Raises:
        ValueError: a negative size, or no channels.
    """
    variant = as_variant("variant", variant)
    family = FAMILIES[variant.family]
    side = require_count("img_size", img_size, 0) or family.img_size
    in_chans = require_count("in_chans", in_chans, 1)
    classes = require_count("num_classes", num_classes, 0) or family.num_classes
    model = build(variant, in_chans=in_chans, num_classes=classes, head=head, device="meta")
    return model.eval(), (in_chans, side, side)


def measure(model: ResNet, shape: tuple[int, int, int]) -> list[LayerCost]:
    """Every leaf module of a network on the meta device, for one image of ``shape`` (C, H, W).

    The network cannot be used afterwards: its layers keep the hooks of the measurement.

    Raises:
        ValueError: images too small for the network.
    """
    rows: list[LayerCost] = []
    for name, module in model.named_modules():
        if not any(module.children()):
            module.register_forward_hook(functools.partial(_record, rows, name))
            if isinstance(module, _SHAPELESS):
                module.forward = _unchanged  # type: ignore[method-assign]
    try:
        model(torch.empty(1, *shape, device="meta"))
    except RuntimeError as error:  # a map too small for a layer
        message = f"{model.variant.name} cannot take images of {shape[1]} px: {error}"
        raise UserError(message, field="img_size") from error
    return rows


# Layers without MACs that keep the shape. They are skipped: norms are slow on the meta device.
_SHAPELESS = (nn.BatchNorm2d, nn.ReLU)


def _unchanged(input: Tensor) -> Tensor:
    return input


def _record(rows: list[LayerCost], name: str, module: nn.Module, _: object, output: Tensor) -> None:
    # Each output element of a counted layer needs one multiply-add per weight of its channel.
    weights = _filter(module)
    params = sum(p.numel() for p in module.parameters())
    acts = output.numel() if weights else 0
    shape = tuple(output.shape[1:])
    rows.append(LayerCost(name, type(module).__name__, shape, params, weights * acts, acts))


def _filter(module: nn.Module) -> int:
    """Weights per output element; 0 for layers without MACs."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        return module.weight[0].numel()
    # BlurPool2d is a convolution with a fixed filter.
    return cast(Tensor, module.filt)[0].numel() if isinstance(module, BlurPool2d) else 0


def total(layers: Sequence[LayerCost]) -> Cost:
    """The sums over layers."""
    macs = sum(layer.macs for layer in layers)
    return Cost(
        params=sum(layer.params for layer in layers),
        macs=macs,
        flops=2 * macs,
        acts=sum(layer.acts for layer in layers),
    )


def cost(
    variant: Variant | str,
    *,
    img_size: int = 0,
    in_chans: int = ModelArgs.in_chans,
    num_classes: int = 0,
    head: Head = ModelArgs.head,
) -> Cost:
    """Parameters, MACs, FLOPs and activations for one image; sizes default to the family's.

    Raises:
        ValueError: as ``layer_costs`` does.
    """
    return _cost(
        as_variant("variant", variant),
        img_size=require_count("img_size", img_size, 0),
        in_chans=require_count("in_chans", in_chans, 1),
        num_classes=require_count("num_classes", num_classes, 0),
        head=ModelArgs(head=head).head,
    )


@functools.cache
def _cost(variant: Variant, **sizes: Any) -> Cost:
    return total(layer_costs(variant, **sizes))
