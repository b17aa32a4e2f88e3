"""Class activation maps: which places of an image speak for a class, and which against it."""

from __future__ import annotations

import copy
import logging

import pandas as pd
import torch
from torch import Tensor, nn

from resnet_variants.diagnosis.measure import Measure, Sample
from resnet_variants.diagnosis.units import evaluating, require_ours
from resnet_variants.models.network import ResNet
from resnet_variants.records.diagnosis import OTHER_CLASS, TRUE_CLASS
from resnet_variants.records.pictures import map_text, picture_text
from resnet_variants.registry import UserError

_MEANS = ("avg", "fast", "fastavg")  # timm's names of pooling by the mean
_TOLERANCE = 1e-5  # of the largest logit, and of 1


def class_maps(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class activation maps (N, classes, h, w), and logits (N, classes).

    A logit is the classifier's output for the means of the last feature maps. The classifier is
    affine: applied to the features of every position instead, its outputs have the logit as their
    mean. A map holds these outputs without the bias, so ``maps.mean((2, 3)) + bias`` equals the
    logits (arXiv:1512.04150, section 2; arXiv:1312.4400, section 3.2). The bias is the output for
    features that are all zero, which contains that of a batch norm before the linear layer.

    Args:
        model: a network of this package.
        images: (N, C, H, W), normalised.

    Returns:
        Both in float64, on the CPU.

    Raises:
        ValueError: no network of this package, no classifier, or another pooling than the mean; a
            classifier that is not affine, so that the maps do not add up to the logits.
    """
    model = require_ours(model)
    _require_mean(model)
    with torch.no_grad(), evaluating(model):
        features = model.forward_features(images).cpu().double()
        # In float64, so that rounding is no reason for a difference.
        head = copy.deepcopy(model.fc).cpu().double()
        logits = head(model.global_pool(features))
        bias = head(features.new_zeros(1, features.shape[1]))
        outputs = head(features.permute(0, 2, 3, 1).flatten(0, 2)) - bias
    maps = outputs.unflatten(0, (len(features), *features.shape[2:])).permute(0, 3, 1, 2)
    error = (maps.mean((2, 3)) + bias - logits).abs().max().item()
    if not error <= _TOLERANCE * max(1.0, logits.abs().max().item()):
        message = f"the class maps of {model.variant.name} differ from its logits by {error:.2g}"
        raise UserError(f"{message}: its features are not finite, or its classifier is not affine")
    return maps, logits


def _require_mean(model: ResNet) -> None:
    pool, name = model.global_pool.pool_type, model.variant.name
    if not model.num_classes:
        raise UserError(f"{name} has no classifier: there are no class maps")
    if pool not in _MEANS:
        message = f"{name} has global_pool {pool!r}: there are no class maps"
        raise UserError(f"{message}, as only with 'avg' is a logit the mean of one")


def _rows(model: ResNet, sample: Sample) -> pd.DataFrame | None:
    """The maps of the true class of each image, and of the most probable other one."""
    chosen = sample.chosen
    try:
        maps, logits = class_maps(model, chosen.images)
    except UserError as error:
        logging.getLogger(__name__).warning("%s", error)
        return None
    rows = []
    for at, (place, label) in enumerate(zip(chosen.places, chosen.labels, strict=True)):
        shares = logits[at].softmax(0).tolist()
        ranked = logits[at].argsort(descending=True, stable=True).tolist()
        other = next(number for number in ranked if number != label)
        for kind, number in ((TRUE_CLASS, label), (OTHER_CLASS, other)):
            row = {"image": place, "kind": kind, "class": number}
            row |= {"class_name": chosen.classes[number], "probability": shares[number]}
            row |= {"logit": logits[at, number].item(), "map": map_text(maps[at, number].numpy())}
            pixels = chosen.pixels[at].permute(1, 2, 0).numpy()
            rows.append(row | {"picture": picture_text(pixels) if kind == TRUE_CLASS else ""})
    return pd.DataFrame(rows)


MEASURES = {"class_maps": Measure(_rows)}
