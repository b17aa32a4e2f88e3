"""A network as a chain of units: run from any unit, with units deleted or exchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from resnet_variants.models.block import ResidualBlock
from resnet_variants.models.network import ResNet
from resnet_variants.registry import UserError


@dataclass(frozen=True)
class Unit:
    """A residual unit, or a plain net's counterpart, and its position."""

    name: str  # ``layer2.0``
    at: int  # index in ``chain``
    module: ResidualBlock

    @property
    def stage(self) -> str:
        """Name of its stage, ``layer2``."""
        return self.name.rpartition(".")[0]

    @property
    def is_plain(self) -> bool:
        """Whether it has no shortcut."""
        return "+" not in self.module.steps

    @property
    def deletable(self) -> bool:
        """Whether the network still runs without its branch."""
        return self.module.keeps_shape or not self.is_plain


def require_ours(model: nn.Module) -> ResNet:
    """The model, as one of this package's networks.

    Raises:
        ValueError: it is another model.
    """
    if not isinstance(model, ResNet):
        message = f"{type(model).__name__} is none of this package's networks, whose units are read"
        raise UserError(message)
    return model


def require_labelled(images: Tensor, labels: Tensor) -> None:
    """Refuse images and labels that do not belong together.

    Raises:
        ValueError: there are no images, or their number is not that of the labels.
    """
    if not len(images) or images.ndim != 4 or labels.shape != images.shape[:1]:
        shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
        raise UserError(f"{shapes} must be (N, C, H, W) and (N,), and N at least 1")


# --- the chain --------------------------------------------------------------------------------


def chain(model: ResNet) -> list[nn.Module]:
    """The modules from the image to the features, in order: stem, units, head."""
    return [module for _, module in _named_chain(model)]


def _named_chain(model: ResNet) -> Iterator[tuple[str, nn.Module]]:
    for name in model.body:
        child = model.get_submodule(name)
        if isinstance(child, nn.Sequential) and name.startswith("layer"):
            for i, unit in enumerate(child):
                yield f"{name}.{i}", unit
        else:
            yield name, child


def units(model: ResNet) -> list[Unit]:
    """The units in order of execution."""
    return [
        Unit(name, at, module)
        for at, (name, module) in enumerate(_named_chain(model))
        if isinstance(module, ResidualBlock)
    ]


def resume(model: ResNet, x: Tensor, at: int = 0) -> Tensor:
    """Logits (N, classes) from the input of the chain's ``at``-th module."""
    for module in chain(model)[at:]:
        x = module(x)
    return model.forward_head(x)


def unit_inputs(model: ResNet, images: Tensor) -> list[Tensor]:
    """The input of every unit, and the output of the last one; each (N, C, H, W)."""
    found: list[Tensor] = []
    x = images
    for module in chain(model)[: units(model)[-1].at + 1]:
        if isinstance(module, ResidualBlock):
            found.append(x)
        x = module(x)
    return [*found, x]


# --- altered ----------------------------------------------------------------------------------


@contextlib.contextmanager
def deleted(gone: Sequence[Unit]) -> Iterator[None]:
    """Within the block the branches of these units are zero. A plain unit passes its input.

    The layers after the addition (a ReLU with ``post``) still run.

    Raises:
        ValueError: a plain net's unit that changes the shape: its input does not fit the next unit.
    """
    for unit in gone:
        if not unit.deletable:
            message = f"{unit.name} changes the shape and has no shortcut: nothing would pass it"
            raise UserError(message)
    with contextlib.ExitStack() as hooks:
        for unit in gone:
            if unit.is_plain:
                handle = unit.module.register_forward_hook(lambda _, args, __: args[0])
                hooks.callback(handle.remove)
            else:
                hooks.enter_context(branch_passed_through(unit, torch.zeros_like))
        yield


@contextlib.contextmanager
def branch_passed_through(unit: Unit, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block the unit adds ``function(branch)`` to the shortcut.

    ``drop_path``, the last module of the branch, is replaced and takes no hook itself: it may be
    ``None``, or shared with other units.
    """
    own = cast(nn.Module, unit.module.drop_path)  # or None
    after = nn.Identity()
    after.register_forward_hook(lambda *args: function(args[2]))
    unit.module.drop_path = after if own is None else nn.Sequential(own, after)
    try:
        yield
    finally:
        unit.module.drop_path = own


@contextlib.contextmanager
def exchanged(model: ResNet, pairs: Sequence[tuple[Unit, Unit]]) -> Iterator[None]:
    """Within the block the units of each pair have changed places, pair after pair.

    Raises:
        ValueError: the units are of two stages, or one of them changes the shape.
    """
    for first, second in pairs:
        alike = first.module.keeps_shape and second.module.keeps_shape
        if first.stage != second.stage or not alike:
            message = f"{first.name} and {second.name} take maps of other shapes"
            raise UserError(f"{message}: they cannot change places")
    done: list[tuple[Unit, Unit]] = []
    try:
        for pair in pairs:
            _exchange(model, *pair)
            done.append(pair)
        yield
    finally:
        for pair in reversed(done):
            _exchange(model, *pair)


def _exchange(model: ResNet, first: Unit, second: Unit) -> None:
    stage = model.get_submodule(first.stage)
    assert isinstance(stage, nn.Sequential)
    i, j = (int(unit.name.rpartition(".")[2]) for unit in (first, second))
    stage[i], stage[j] = stage[j], stage[i]


# --- modes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block. After it every module is in its former mode."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, but norms use each batch's own statistics, as in training.

    The running statistics mean nothing before training. They are not used and not changed.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with evaluating(model), contextlib.ExitStack() as restored:
        for norm in norms:
            for name, running in list(norm._buffers.items()):
                restored.callback(norm._buffers.__setitem__, name, running)
                norm._buffers[name] = None
        yield
