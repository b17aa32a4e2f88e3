"""How far units are from the identity, and how far a disturbance of the input comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from resnet_variants.diagnosis.tape import Passage, quotient, recorded
from resnet_variants.diagnosis.units import (
    batch_statistics,
    evaluating,
    require_labelled,
    require_ours,
    resume,
    unit_inputs,
    units,
)
from resnet_variants.models.network import ResNet
from resnet_variants.records.diagnosis import NOISES, OUTPUT, TABLES
from resnet_variants.training.batches import generator
from resnet_variants.training.device import double, full_precision

_SMALL = 1e-3  # of the disturbance whose growth is followed, in normalised units


def identity_distance(model: nn.Module, images: Tensor) -> pd.DataFrame:
    """How large each unit's branch is beside its shortcut, and how much the unit turns its input.

    The norms take the batch's own statistics, so that networks compare before, during and after
    training. A unit whose branch is small is nearly skipped (arXiv:1512.03385, section 4.2 and
    fig. 7). Cosines compare within one order: maps that a ReLU has passed are never negative, so
    that with ``post`` those of two different images have a cosine of a half or so too.

    Args:
        model: one of this package's networks, trained or not.
        images: (N, C, H, W), normalised.

    Returns:
        One row per unit: ``unit`` (from 0), ``name``, ``branch_to_shortcut`` (ratio of the
        images' mean Euclidean norms; missing in a plain net, where a gate mixes both, and beside a
        shortcut of zero), ``cosine`` (between input and output,
        mean over the images; missing where the shape changes), ``n`` (images).

    Raises:
        ValueError: no network of this package.
    """
    model = require_ours(model)
    with batch_statistics(model), recorded(model) as passages, torch.no_grad():
        resume(model, images)
    rows = [
        {
            "unit": i,
            "name": passage.unit.name,
            "branch_to_shortcut": _ratio(passage),
            "cosine": _cosine(passage),
        }
        for i, passage in enumerate(passages)
    ]
    return pd.DataFrame(rows).assign(n=len(images))


def _ratio(passage: Passage) -> float:
    if passage.branch is None or passage.shortcut is None:
        return np.nan
    return quotient(_size(passage.branch), _size(passage.shortcut))


def _cosine(passage: Passage) -> float:
    if not passage.unit.module.keeps_shape or passage.out is None:
        return np.nan
    pair = (double(passage.x.flatten(1)), double(passage.out.flatten(1)))
    return cosine_similarity(*pair).mean().item()


def _size(maps: Tensor) -> float:
    """The images' Euclidean norms, summed."""
    return double(maps.flatten(1)).norm(dim=1).sum().item()


def sensitivity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    std: Tensor | None = None,
    noise: Sequence[float] = NOISES,
    batch_size: int = 128,
    seed: int = 0,
) -> pd.DataFrame:
    """How a small disturbance of the input grows from unit to unit, and accuracy under noise.

    The growth is of the first batch, in full precision; accuracies are in that of the caller.

    Args:
        model: a trained network of this package.
        images: (N, C, H, W), normalised.
        labels: (N,).
        std: (C,) by which images were divided.
        noise: standard deviations of Gaussian noise of the values before; they may leave 0 to 1.
        batch_size: images at a time.
        seed: which noise.

    Returns:
        ``kind`` ``growth``, a row per unit's input and one for the last output: ``unit``, ``name``,
        ``growth`` (change of the maps over that of the images, both relative, by noise of 0.001 of
        their deviation); ``kind`` ``noise``, a row per strength: ``noise_sd``, ``acc``; ``n``.

    Raises:
        ValueError: no network of this package; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    scale = 1 / (torch.ones(images.shape[1]) if std is None else std).to(images).view(1, -1, 1, 1)
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    with torch.no_grad(), evaluating(model):
        growth = _growth(model, images[:batch_size], generator("growth", seed))
        hits = _noisy(model, batches, [sd * scale for sd in noise], generator("noise", seed))
    found = {"kind": "noise", "noise_sd": noise, "acc": hits / len(images), "n": len(images)}
    return pd.concat([growth, pd.DataFrame(found)], ignore_index=True)[[*TABLES["sensitivity"]]]


def _noisy(
    model: ResNet,
    batches: Iterable[tuple[Tensor, Tensor]],
    scales: Sequence[Tensor],
    stream: torch.Generator,
) -> np.ndarray:
    """Correct answers under the same noise at each scale."""
    hits = np.zeros(len(scales))
    for x, y in batches:
        drawn = torch.randn(x.shape, generator=stream).to(x)
        hits += [_hits(model, x + scale * drawn, y) for scale in scales]
    return hits


def _hits(model: ResNet, images: Tensor, labels: Tensor) -> int:
    return int((resume(model, images).argmax(1) == labels).sum())


def _growth(model: ResNet, images: Tensor, stream: torch.Generator) -> pd.DataFrame:
    disturbed = images + _SMALL * torch.randn(images.shape, generator=stream).to(images)
    with torch.autocast(images.device.type, enabled=False), full_precision():
        before, after = ([x, *unit_inputs(model, x)] for x in (images, disturbed))
    # The change relative to the maps, first that of the images.
    changes = [quotient(_size(b - a), _size(a)) for a, b in zip(before, after, strict=True)]
    names = [*(unit.name for unit in units(model)), OUTPUT]
    growth = [quotient(change, changes[0]) for change in changes[1:]]
    columns = {"kind": "growth", "unit": range(len(names)), "name": names, "growth": growth}
    return pd.DataFrame(columns).assign(n=len(images))
