"""Lesion study: the accuracy of a network without some units (arXiv:1605.06431, section 4)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resnet_variants.diagnosis.measure import Measure
from resnet_variants.diagnosis.units import (
    Unit,
    deleted,
    evaluating,
    exchanged,
    require_labelled,
    require_ours,
    resume,
    unit_inputs,
    units,
)
from resnet_variants.models.network import ResNet
from resnet_variants.training.batches import generator

# Numbers of units deleted together, and of successive exchanges, up to the number of units.
STEPS = (1, 2, 4, 8, 16, 32)

Pair = tuple[Unit, Unit]


@dataclass(frozen=True)
class Lesion:
    """A change to a network: units deleted, or exchanged pair by pair."""

    kind: str  # none, delete, delete_random or permute
    draw: int = 0
    gone: Sequence[Unit] = ()
    pairs: Sequence[Pair] = ()


def lesion_study(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 128,
    draws: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy without one unit, without k random units, and with units in another order.

    Random deletions (of two units or more) and exchanges use only units that keep the shape, so
    that plain nets compare. Exchanges are within a stage. A deleted residual unit passes its
    shortcut on, a deleted plain unit its input. A plain unit that changes the shape cannot be
    deleted.

    Args:
        model: a trained network of this package.
        images: (N, C, H, W), normalised.
        labels: (N,).
        batch_size: images at a time.
        draws: random choices of each size.
        seed: of the random choices.

    Returns:
        One row per lesion: ``kind`` (``none``, ``delete``, ``delete_random``, ``permute``),
        ``unit``, ``name`` and ``keeps_shape`` (1 or 0; for a single deleted unit), ``deleted``
        (units), ``exchanged`` (successive pairs), ``kendall_tau`` (rank correlation of the order
        with the original), ``draw``, ``acc``, ``loss``, ``n``.

    Raises:
        ValueError: no network of this package; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    all_units = units(model)
    lesions = [*_lesions(all_units, draws, generator("lesions", seed))]
    sums = _sums(model, lesions, images.split(batch_size), labels.split(batch_size))
    scores = pd.DataFrame((sums / len(images)).numpy(), columns=["acc", "loss"])
    about = pd.DataFrame([_row(lesion, all_units) for lesion in lesions])
    return about.join(scores).assign(n=len(images))


def _sums(
    model: ResNet, lesions: Sequence[Lesion], images: Sequence[Tensor], labels: Sequence[Tensor]
) -> Tensor:
    """Correct answers and loss by lesion, summed over the batches: (lesions, 2)."""
    sums = torch.zeros(len(lesions), 2, dtype=torch.float64)
    all_units = units(model)
    with torch.no_grad(), evaluating(model):
        for x, y in zip(images, labels, strict=True):
            inputs = unit_inputs(model, x)
            for i, lesion in enumerate(lesions):
                changed = [*lesion.gone, *itertools.chain(*lesion.pairs)]
                first = min(changed or all_units, key=lambda unit: unit.at)
                with deleted(lesion.gone), exchanged(model, lesion.pairs):
                    # Units before the first changed one keep their output.
                    logits = resume(model, inputs[all_units.index(first)], first.at).float()
                hits = (logits.argmax(1) == y).sum().cpu()
                sums[i] += torch.stack([hits, cross_entropy(logits, y, reduction="sum").cpu()])
    return sums


def _lesions(all_units: list[Unit], draws: int, stream: torch.Generator) -> Iterator[Lesion]:
    yield Lesion("none")
    for unit in all_units:
        if unit.deletable:
            yield Lesion("delete", gone=[unit])
    alike = [unit for unit in all_units if unit.module.keeps_shape]
    pairs = [(a, b) for a, b in itertools.combinations(alike, 2) if a.stage == b.stage]
    for k in STEPS:
        for draw in range(draws):
            if 1 < k <= len(alike):
                chosen = torch.randperm(len(alike), generator=stream)[:k]
                yield Lesion("delete_random", draw, gone=[alike[i] for i in chosen.tolist()])
            if k <= min(len(alike), len(pairs)):
                chosen = torch.randperm(len(pairs), generator=stream)[:k]
                yield Lesion("permute", draw, pairs=[pairs[i] for i in chosen.tolist()])


def _row(lesion: Lesion, all_units: list[Unit]) -> dict[str, object]:
    only = lesion.gone[0] if lesion.kind == "delete" else None
    return {
        "kind": lesion.kind,
        "unit": np.nan if only is None else all_units.index(only),
        "name": "" if only is None else only.name,
        "keeps_shape": np.nan if only is None else float(only.module.keeps_shape),
        "deleted": len(lesion.gone),
        "exchanged": len(lesion.pairs),
        "kendall_tau": _tau(lesion.pairs, all_units),
        "draw": lesion.draw,
    }


def _tau(pairs: Sequence[Pair], all_units: list[Unit]) -> float:
    """Kendall's rank correlation of the order after the exchanges with the one before."""
    order = list(range(len(all_units)))
    for pair in pairs:
        i, j = map(all_units.index, pair)
        order[i], order[j] = order[j], order[i]
    return 1.0 if len(order) < 2 else float(cast(Any, kendalltau(order, sorted(order))).statistic)


MEASURES = {
    "lesion": Measure(
        lambda model, sample: lesion_study(
            model,
            sample.images,
            sample.labels,
            batch_size=sample.batch_size,
            draws=sample.draws,
            seed=sample.seed,
        ),
        full_precision=False,
    ),
}
