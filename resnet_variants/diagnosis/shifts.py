"""Accuracy on shifted images: what a network does if an object is not where it was."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from resnet_variants.diagnosis.measure import Measure
from resnet_variants.diagnosis.units import evaluating, require_labelled, require_ours, resume
from resnet_variants.models.network import ResNet
from resnet_variants.records.diagnosis import SHIFTS

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # rows down, columns to the right


def shifted_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    shares: Sequence[float] = SHIFTS,
    batch_size: int = 128,
) -> pd.DataFrame:
    """Accuracy on images shifted up, down, left and right, and how many answers stay the same.

    Pooling over the whole last map is said to make a network robust to translation
    (arXiv:1312.4400, section 3.2). The share of equal answers is the consistency of
    arXiv:1904.11486. The pixels at the edge are repeated where nothing is left of the image.

    Args:
        model: a trained network of this package.
        images: (N, C, H, W), normalised.
        labels: (N,).
        shares: shifts as shares of the image's side.
        batch_size: images at a time.

    Returns:
        One row per share: ``share``, ``shift`` (pixels, at least 1 if the share is not 0), ``acc``
        and ``kept`` (answers equal to those on the image as it is), means over the four
        directions; ``n`` (images).

    Raises:
        ValueError: no network of this package; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    with torch.no_grad(), evaluating(model):
        plain = _answers(model, images, batch_size)
        rows = []
        for share in shares:
            shift = max(1, round(share * images.shape[-1])) if share else 0
            moved = torch.stack(
                [
                    _answers(model, _shifted(images, shift * rows_down, shift * right), batch_size)
                    for rows_down, right in (_DIRECTIONS if shift else ((0, 0),))
                ]
            )
            acc, kept = ((moved == same).double().mean().item() for same in (labels, plain))
            rows.append({"share": share, "shift": shift, "acc": acc, "kept": kept})
    return pd.DataFrame(rows).assign(n=len(images))


def _answers(model: ResNet, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([resume(model, batch).argmax(1) for batch in images.split(batch_size)])


def _shifted(images: Tensor, down: int, right: int) -> Tensor:
    """The images, moved by whole pixels."""
    most = max(abs(down), abs(right))
    height, width = images.shape[-2:]
    wide = pad(images, (most, most, most, most), mode="replicate")
    return wide[..., most - down : most - down + height, most - right : most - right + width]


MEASURES = {
    "shifts": Measure(
        lambda model, sample: shifted_accuracy(
            model, sample.images, sample.labels, batch_size=sample.batch_size
        ),
        full_precision=False,
    ),
}
