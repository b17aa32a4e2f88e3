"""How the loss gradient flows back: through units, their branches and shortcuts, and paths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom
from torch import Tensor, nn

from resnet_variants.diagnosis.tape import Passage, Tape, pulled_back, quotient, record
from resnet_variants.diagnosis.units import (
    batch_statistics,
    require_labelled,
    require_ours,
    require_shortcuts,
    units,
)
from resnet_variants.models.network import ResNet
from resnet_variants.records.diagnosis import OUTPUT
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator
from resnet_variants.training.device import double

MOST_LENGTHS = 16  # path lengths whose gradients are measured, evenly spread over all

_NORMS = ("input_norm", "grad_norm", "shortcut_norm", "branch_norm")


def gradient_flow(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    """Norm of the loss gradient at every unit's input, with each batch's own norm statistics.

    It is the sum of what comes back through the unit's shortcut and through its branch. With
    identity shortcuts and nothing after the addition (such as ``preact``), the former is the
    gradient at its output, so that the gradient at any unit minus that at a later one of the stage
    is the sum of the branches' parts between them (arXiv:1603.05027, eq. 5).

    Branches with norms take maps of any scale, so that a gradient is smaller where maps are larger.
    ``grad_norm`` times ``input_norm`` has no scale: what a relative change can do to the loss.

    Args:
        model: one of this package's networks, trained or not.
        images: (N, C, H, W), normalised.
        labels: (N,).

    Returns:
        One row per unit, and one for the last unit's output (``branch_norm`` missing): ``unit``
        (from 0), ``name``, Euclidean norms over the batch: ``input_norm``, ``grad_norm`` (of the
        mean cross entropy), its parts ``shortcut_norm`` (none in a plain net) and ``branch_norm``;
        ``recursion_error`` (the difference of the shortcut's part and the gradient at the output,
        over ``grad_norm``: rounding alone with identity shortcuts and nothing after the addition;
        missing where the shape changes, and in a plain net), ``n`` (images).

    Raises:
        ValueError: no network of this package; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    with batch_statistics(model):
        tape = record(model, images, labels)
        whole, branches = gradient_parts(tape)
    rows = [_row(i, tape.passages[i], whole, branch) for i, branch in enumerate(branches)]
    end = {"unit": len(rows), "name": OUTPUT}
    end |= {"input_norm": _norm(tape.out), "grad_norm": _norm(whole[-1])}
    columns = ["unit", "name", *_NORMS, "recursion_error"]
    return pd.DataFrame([*rows, end]).reindex(columns=columns).assign(n=len(images))


def _row(i: int, passage: Passage, whole: Sequence[Tensor], branch: Tensor) -> dict[str, object]:
    gradient, shortcut = whole[i], whole[i] - branch
    row: dict[str, object] = {"unit": i, "name": passage.unit.name}
    row |= {"input_norm": _norm(passage.x), "grad_norm": _norm(gradient)}
    row["branch_norm"] = _norm(branch)
    if not passage.unit.is_plain:
        row["shortcut_norm"] = _norm(shortcut)
        if passage.unit.module.keeps_shape:
            row["recursion_error"] = quotient(_norm(shortcut - whole[i + 1]), _norm(gradient))
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
    return double(gradient).norm().item()


# --- paths ------------------------------------------------------------------------------------


def paths(
    model: nn.Module, images: Tensor, labels: Tensor, *, draws: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Paths through a residual network by length: how many there are, and what gradient they carry.

    Each of n units is passed by its branch or by its shortcut, which makes 2^n paths, a binomial
    number of each length (arXiv:1605.06431, sections 3 and 5). The gradient of a path is what comes
    back to the first unit's input when every unit passes it on by that path alone; forward all
    stays as it is.

    Args:
        model: a residual network of this package whose gates, if any, do not mix both ways.
        images: (N, C, H, W), normalised.
        labels: (N,).
        draws: paths of one length that are followed, all different; all where there are no more.
        seed: which.

    Returns:
        One row per length 0 to n: ``length`` (branches passed), ``share`` (of all paths),
        ``grad_norm`` and ``grad_norm_sd`` (mean and sample deviation over the draws, at the lengths
        that were followed: paths of one length differ many times over), ``contribution`` (share x
        grad_norm over its sum, grad_norm being interpolated between those lengths by its
        logarithm: as sure as a mean of so few is, which ``grad_norm_sd`` tells), ``draws``, ``n``
        (images).

    Raises:
        ValueError: no such network; no draws; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    require_shortcuts(model)
    if draws < 1:
        raise UserError(f"draws {draws!r} must be at least 1")
    if not has_paths(model):
        message = f"{model.variant.name} gates its branches by what its shortcuts carry"
        raise UserError(f"{message}: no path is a product of derivatives of one of them")
    count = len(units(model))
    with batch_statistics(model):
        norms = _norms_by_length(record(model, images, labels), draws, generator("paths", seed))
    return _by_length(count, norms).assign(n=len(images))


def _by_length(count: int, norms: Mapping[int, Sequence[float]]) -> pd.DataFrame:
    """The columns of ``paths``, from what was found at the lengths that were followed."""
    lengths = range(count + 1)
    means = {length: float(np.mean(found)) for length, found in norms.items()}
    spreads = {k: float(np.std(found, ddof=1)) for k, found in norms.items() if len(found) > 1}
    frame = pd.DataFrame({"length": lengths, "share": binom.pmf(lengths, count, 0.5)})
    frame["grad_norm"] = frame["length"].map(means)
    frame["grad_norm_sd"] = frame["length"].map(spreads)
    logs = np.log(np.maximum([*means.values()], np.finfo(float).tiny))
    weight = frame["share"] * np.exp(np.interp(lengths, [*means], logs))
    draws = [len(norms.get(length, ())) for length in lengths]
    return frame.assign(contribution=weight / weight.sum(), draws=draws)


def _norms_by_length(tape: Tape, draws: int, stream: torch.Generator) -> dict[int, list[float]]:
    count = len(tape.passages)
    followed = np.unique(np.linspace(0, count, min(count + 1, MOST_LENGTHS)).round().astype(int))
    norms: dict[int, list[float]] = {}
    for length in followed.tolist():
        drawn = _some_paths(count, length, draws, stream)
        norms[length] = [math.exp(_followed(tape, path)[1]) for path in drawn]
    return norms


def _some_paths(
    count: int, length: int, draws: int, stream: torch.Generator
) -> list[tuple[int, ...]]:
    """Different ways to choose the units that are passed by their branch; all, if few."""
    if math.comb(count, length) <= draws:
        return [*itertools.combinations(range(count), length)]
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < draws:
        drawn[tuple(sorted(torch.randperm(count, generator=stream)[:length].tolist()))] = None
    return [*drawn]


def has_paths(model: ResNet) -> bool:
    """Whether every unit is the sum of a branch and a shortcut that do not mix."""
    gated = any(hasattr(unit.module, "gate") for unit in units(model))
    return not (gated or model.variant.is_plain)


def path_gradient(tape: Tape, branches: Iterable[int]) -> Tensor:
    """What comes back to the first unit's input by one path.

    Args:
        tape: of a residual network.
        branches: numbers of the units that are passed by their branch.
    """
    direction, log_norm = _followed(tape, branches)
    return direction * math.exp(log_norm)


def _followed(tape: Tape, branches: Iterable[int]) -> tuple[Tensor, float]:
    """``path_gradient`` as a tensor of norm 1 and the logarithm of its norm.

    It is scaled at every unit: through fifty branches a gradient falls below what float32 holds.
    """
    by_branch, log_norm = set(branches), 0.0
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
        norm = _norm(gradient)
        if not norm:
            return gradient, -math.inf
        gradient, log_norm = gradient / norm, log_norm + math.log(norm)
    return gradient, log_norm
