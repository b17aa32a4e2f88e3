"""Optimizer, schedule and loss of a recipe: timm's, and the one-cycle schedule of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.training.recipe import Recipe

_MIXED_IN = 0.2  # arXiv:2110.00476, section 3.1: smaller shares of a mixed label count as absent
_SECOND_BETA = 0.999
_RISE, _FALL = 25, 1e4  # factors of the rate over the cycle, as in OneCycleLR
_SWING = 0.1  # of the momentum: 0.95 to 0.85 in arXiv:1708.07120

# Our name -> timm's name, and timm's argument for the momentum.
_OPTIMIZERS: Mapping[str, tuple[str, Callable[[float], dict[str, Any]]]] = {
    "nesterov": ("sgd", lambda momentum: {"momentum": momentum, "fused": True}),
    "sgd": ("momentum", lambda momentum: {"momentum": momentum, "fused": True}),
    "adamw": ("adamw", lambda beta: {"betas": (beta, _SECOND_BETA), "fused": True}),
    "lamb": ("lamb", lambda beta: {"betas": (beta, _SECOND_BETA), "max_grad_norm": None}),
}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; parameters without weight decay have a group of their own."""
    name, extra = _OPTIMIZERS[recipe.optimizer]
    if name == "sgd" and not recipe.momentum:
        name = "momentum"  # torch refuses Nesterov without momentum
    return create_optimizer_v2(
        model,
        name,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        filter_bias_and_bn=recipe.decay == "weights",
        **extra(recipe.momentum),
    )


Schedule = Callable[[int], None]  # sets the rate for a step, counted from 1


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Schedule:
    """Set the learning rate by the number of the step; the training has ``steps``."""
    if recipe.schedule == "onecycle":
        return _one_cycle(optimizer, recipe, steps)
    warmup = min(round(recipe.warmup * steps), steps - 1)
    schedule: CosineLRScheduler | MultiStepLRScheduler
    if recipe.schedule == "cosine":
        schedule = CosineLRScheduler(
            optimizer,
            t_initial=steps - warmup,
            warmup_t=warmup,
            warmup_prefix=True,  # the cosine starts where the warm-up ends
            t_in_epochs=False,
        )
    else:
        shares = recipe.milestones if recipe.schedule == "step" else ()
        schedule = MultiStepLRScheduler(
            optimizer,
            decay_t=[
                round(share * steps) + 1 for share in shares
            ],  # timm's schedule falls a step early
            decay_rate=0.1,
            warmup_t=warmup,
            warmup_prefix=False,
            t_in_epochs=False,
        )
    # The rate at the middle of the step: neither the first nor the last step has rate 0.
    return lambda step: schedule.step_update(step - 0.5)  # type: ignore[arg-type]


def _one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Schedule:
    """Torch's ``OneCycleLR`` without its last step; as a formula, it can start at any step."""
    peak = max(recipe.warmup * (steps + 1) - 1, 0.0)
    start, end = recipe.lr / _RISE, recipe.lr / _RISE / _FALL
    low = max(0.0, recipe.momentum - _SWING)

    def move_to(step: int) -> None:
        done = step - 1
        if done <= peak and peak:
            rate = _eased(start, recipe.lr, done / peak)
            momentum = _eased(recipe.momentum, low, done / peak)
        else:
            share = (done - peak) / (steps - peak)
            rate = _eased(recipe.lr, end, share)
            momentum = _eased(low, recipe.momentum, share)
        for group in optimizer.param_groups:
            group["lr"] = rate
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    return move_to


def _eased(first: float, last: float, share: float) -> float:
    """Between ``first`` and ``last`` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(recipe: Recipe) -> Loss:
    """Logits (N, K) and labels (N,), or soft labels (N, K) of mixed images -> mean loss."""
    mixed = bool(recipe.mixup or recipe.cutmix)
    if recipe.loss == "binary":
        return BinaryCrossEntropy(
            smoothing=recipe.label_smoothing, target_threshold=_MIXED_IN if mixed else None
        )
    smoothing = 0.0 if mixed else recipe.label_smoothing  # timm's Mixup has smoothed them
    return lambda logits, target: cross_entropy(logits, target, label_smoothing=smoothing)
