"""How far units are from the identity, and how a disturbance of the input grows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from resnet_variants.diagnosis.activations import UnitActivations, quotient, recorded
from resnet_variants.diagnosis.measure import Measure
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
from resnet_variants.records.schema import names
from resnet_variants.training.batches import generator
from resnet_variants.training.device import double, full_precision

_SMALL = 1e-3  # deviation of the disturbance, in normalised units


def identity_distance(model: nn.Module, images: Tensor) -> pd.DataFrame:
    """Size of each unit's branch beside its shortcut, and the cosine of its input and output.

    Norms use the batch's own statistics, so networks compare before, during and after training. A
    unit with a small branch is nearly skipped (arXiv:1512.03385, section 4.2 and fig. 7). Compare
    cosines within one order only: after a ReLU all values are positive, so with ``post`` even two
    different images have a cosine of about one half.

    Args:
        model: one of this package's networks, trained or not.
        images: (N, C, H, W), normalised.

    Returns:
        One row per unit: ``unit`` (from 0), ``name``, ``branch_to_shortcut`` (ratio of mean
        Euclidean norms; missing in a plain net, with a gate, and beside a shortcut of zero),
        ``cosine`` (between input and output, mean over the images; missing where the shape
        changes), ``n`` (images).

    Raises:
        ValueError: no network of this package.
    """
    model = require_ours(model)
    with batch_statistics(model), recorded(model) as activations, torch.no_grad():
        resume(model, images)
    rows = [
        {
            "unit": i,
            "name": unit.unit.name,
            "branch_to_shortcut": _ratio(unit),
            "cosine": _cosine(unit),
        }
        for i, unit in enumerate(activations)
    ]
    return pd.DataFrame(rows).assign(n=len(images))


def _ratio(unit: UnitActivations) -> float:
    if unit.branch is None or unit.shortcut is None:
        return np.nan
    return quotient(_size(unit.branch), _size(unit.shortcut))


def _cosine(unit: UnitActivations) -> float:
    if not unit.unit.module.keeps_shape or unit.out is None:
        return np.nan
    pair = (double(unit.x.flatten(1)), double(unit.out.flatten(1)))
    return cosine_similarity(*pair).mean().item()


def _size(maps: Tensor) -> float:
    """Sum of the images' Euclidean norms."""
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
    """Growth of a small disturbance from unit to unit, and accuracy under noise.

    The growth is measured on the first batch in full precision, the accuracy in the caller's
    precision.

    Args:
        model: a trained network of this package.
        images: (N, C, H, W), normalised.
        labels: (N,).
        std: (C,), the deviation that the images were divided by.
        noise: standard deviations of Gaussian noise on pixel values of 0 to 1. Noisy values are not
            clipped.
        batch_size: images at a time.
        seed: of the noise.

    Returns:
        ``kind`` ``growth``, a row per unit's input and one for the last output: ``unit``, ``name``,
        ``growth`` (relative change of the maps over that of the images, under noise of 0.001 of
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
    rows = pd.concat([growth, pd.DataFrame(found)], ignore_index=True)
    return rows[[*names(TABLES["sensitivity"].columns)]]


def _noisy(
    model: ResNet,
    batches: Iterable[tuple[Tensor, Tensor]],
    scales: Sequence[Tensor],
    stream: torch.Generator,
) -> np.ndarray:
    """Correct answers at each scale of the same noise."""
    hits = np.zeros(len(scales))
    for x, y in batches:
        drawn = torch.randn(x.shape, generator=stream).to(x)
        noisy = (x + scale * drawn for scale in scales)
        hits += [int((resume(model, images).argmax(1) == y).sum()) for images in noisy]
    return hits


def _growth(model: ResNet, images: Tensor, stream: torch.Generator) -> pd.DataFrame:
    disturbed = images + _SMALL * torch.randn(images.shape, generator=stream).to(images)
    with torch.autocast(images.device.type, enabled=False), full_precision():
        before, after = ([x, *unit_inputs(model, x)] for x in (images, disturbed))
    # Relative changes, of the images first.
    changes = [quotient(_size(b - a), _size(a)) for a, b in zip(before, after, strict=True)]
    names = [*(unit.name for unit in units(model)), OUTPUT]
    growth = [quotient(change, changes[0]) for change in changes[1:]]
    columns = {"kind": "growth", "unit": range(len(names)), "name": names, "growth": growth}
    return pd.DataFrame(columns).assign(n=len(images))


MEASURES = {
    "identity_distance": Measure(
        lambda model, sample: identity_distance(model, sample.batch[0]), every_state=True
    ),
    "sensitivity": Measure(
        lambda model, sample: sensitivity(
            model,
            sample.images,
            sample.labels,
            std=sample.std,
            batch_size=sample.batch_size,
            seed=sample.seed,
        ),
        full_precision=False,
    ),
}
