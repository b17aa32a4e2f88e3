"""How the loss gradient flows back: through units, their branches and shortcuts, and paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom
from torch import Tensor, nn

from resnet_variants.diagnosis.tape import Passage, Tape, pulled_back, record
from resnet_variants.diagnosis.units import batch_statistics, require_ours, require_shortcuts, units
from resnet_variants.models.layers import Gate
from resnet_variants.models.network import ResNet
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator

MOST_LENGTHS = 16  # path lengths whose gradients are measured, evenly spread over all


def gradient_flow(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    """Norm of the loss gradient at every unit's input, with each batch's own norm statistics.

    At a unit's input the gradient is the sum of what comes back through its shortcut and what
    comes back through its branch. With identity shortcuts and nothing after the addition
    (``preact``), the former is the gradient at its output, so that the gradient at any unit
    minus that at a later one of the stage is the sum of the branches' parts between them
    (arXiv:1603.05027, eq. 5).

    Args:
        model: one of this package's networks, trained or not.
        images: (N, C, H, W), normalised.
        labels: (N,).

    Returns:
        One row per unit, and one for the last unit's output (``branch_norm`` missing): ``unit``
        (from 0), ``name``, ``grad_norm``, ``shortcut_norm`` and ``branch_norm`` (Euclidean norms
        of the gradient of the mean cross entropy and its two parts over the batch),
        ``recursion_error`` (the difference of the shortcut's part and the gradient at the output,
        over ``grad_norm``: rounding alone with ``preact`` and identity shortcuts; missing where the
        shape changes), ``n`` (images). A plain net has no part through a shortcut.

    Raises:
        ValueError: no network of this package.
    """
    model = require_ours(model)
    with batch_statistics(model):
        tape = record(model, images, labels)
        whole, branches = gradient_parts(tape)
    rows = [_row(i, tape.passages[i], whole, branch) for i, branch in enumerate(branches)]
    end = {"unit": len(rows), "name": "output", "grad_norm": _norm(whole[-1])}
    columns = ["unit", "name", "grad_norm", "shortcut_norm", "branch_norm", "recursion_error"]
    return pd.DataFrame([*rows, end]).reindex(columns=columns).assign(n=len(images))


def _row(i: int, passage: Passage, whole: Sequence[Tensor], branch: Tensor) -> dict[str, object]:
    gradient, shortcut = whole[i], whole[i] - branch
    row: dict[str, object] = {"unit": i, "name": passage.unit.name}
    row |= {"grad_norm": _norm(gradient), "branch_norm": _norm(branch)}
    if not passage.unit.is_plain:
        row["shortcut_norm"] = _norm(shortcut)
        if passage.unit.module.keeps_shape:
            row["recursion_error"] = _norm(shortcut - whole[i + 1]) / _norm(gradient)
    return row


def gradient_parts(tape: Tape) -> tuple[list[Tensor], list[Tensor]]:
    """The loss gradient at every unit's input and at the last output; the parts of the branches.

    In a plain net the branch is all there is.
    """
    inputs = [passage.x for passage in tape.passages]
    branches = [p.out if p.branch is None else p.branch for p in tape.passages]
    ways = cast("list[Tensor]", branches)
    found = tape.gradients([*inputs, tape.out, *ways])
    whole, at_branch = found[: len(inputs) + 1], found[len(inputs) + 1 :]
    parts = [pulled_back(*way) for way in zip(at_branch, ways, inputs, strict=True)]
    return [*whole], parts


def _norm(gradient: Tensor) -> float:
    return gradient.double().norm().item()


# --- paths ------------------------------------------------------------------------------------


def paths(
    model: nn.Module, images: Tensor, labels: Tensor, *, draws: int = 2, seed: int = 0
) -> pd.DataFrame:
    """Paths through a residual network by length: how many there are, and what gradient they carry.

    Each of n units is passed by its branch or by its shortcut, which makes 2^n paths, a binomial
    number of each length (arXiv:1605.06431, section 4). The gradient of a path is what comes back
    to the first unit's input when every unit passes it on by that path alone; forward all stays
    as it is.

    Args:
        model: a residual network of this package.
        images: (N, C, H, W), normalised.
        labels: (N,).
        draws: paths of one length that are followed.
        seed: which.

    Returns:
        One row per length 0 to n: ``length`` (branches passed), ``share`` (of all paths),
        ``grad_norm`` (mean over the draws) and ``contribution`` (share x grad_norm over its sum),
        both at the lengths that were followed, ``draws``, ``n`` (images).

    Raises:
        ValueError: a plain net, or one with gates, which mix both ways.
    """
    model = require_ours(model)
    require_shortcuts(model)
    if not has_paths(model):
        message = f"{model.variant.name} has gates: they mix branch and shortcut, and no path is"
        raise UserError(f"{message} a product of their derivatives")
    count = len(units(model))
    lengths = range(count + 1)
    with batch_statistics(model):
        norms = _norms_by_length(record(model, images, labels), draws, generator("paths", seed))
    frame = pd.DataFrame({"length": lengths, "share": binom.pmf(lengths, count, 0.5)})
    frame["grad_norm"] = frame["length"].map(norms)
    weight = frame["share"] * frame["grad_norm"]
    frame["contribution"] = weight / weight.sum()
    return frame.assign(draws=draws, n=len(images))


def _norms_by_length(tape: Tape, draws: int, stream: torch.Generator) -> dict[int, float]:
    count = len(tape.passages)
    followed = np.unique(np.linspace(0, count, min(count + 1, MOST_LENGTHS)).round().astype(int))
    norms: dict[int, float] = {}
    for length in followed.tolist():
        drawn = [torch.randperm(count, generator=stream)[:length] for _ in range(draws)]
        norms[length] = float(np.mean([_norm(path_gradient(tape, p.tolist())) for p in drawn]))
    return norms


def has_paths(model: ResNet) -> bool:
    """Whether every unit is the sum of a branch and a shortcut that do not mix."""
    gated = any(isinstance(module, Gate) for module in model.modules())
    return not (gated or model.variant.is_plain)


def path_gradient(tape: Tape, branches: Iterable[int]) -> Tensor:
    """What comes back to the first unit's input by one path.

    Args:
        tape: of a residual network.
        branches: numbers of the units that are passed by their branch.
    """
    by_branch = set(branches)
    (gradient,) = tape.gradients([tape.out])
    for i, passage in reversed(list(enumerate(tape.passages))):
        out, branch, shortcut = passage.out, passage.branch, passage.shortcut
        assert out is not None
        assert branch is not None
        assert shortcut is not None
        gradient = pulled_back(gradient, out, branch)  # through what follows the addition
        way = branch if i in by_branch else shortcut
        if way is not passage.x:
            gradient = pulled_back(gradient, way, passage.x)
    return gradient
