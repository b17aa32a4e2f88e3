"""How the loss gradient flows back: through units, branches, shortcuts and paths."""

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

from resnet_variants.diagnosis.activations import (
    ForwardPass,
    UnitActivations,
    forward_pass,
    quotient,
    vjp,
)
from resnet_variants.diagnosis.measure import Measure, Sample
from resnet_variants.diagnosis.units import batch_statistics, require_labelled, require_ours, units
from resnet_variants.models.network import ResNet
from resnet_variants.records.diagnosis import OUTPUT, TABLES
from resnet_variants.records.schema import names
from resnet_variants.registry import UserError
from resnet_variants.training.batches import generator
from resnet_variants.training.device import double

MOST_LENGTHS = 16  # measured path lengths, spread evenly from 0 to the number of units


def gradient_flow(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    """Norm of the loss gradient at every unit's input, with each batch's own norm statistics.

    The gradient at a unit's input is the sum of two parts: one through the shortcut, one through
    the branch. With identity shortcuts and nothing after the addition (such as ``preact``), the
    first part is the gradient at the unit's output. Then the gradients at two units of a stage
    differ by the sum of the branch parts between them (arXiv:1603.05027, eq. 5).

    Branches with norms take maps of any scale, so a gradient is smaller where maps are larger.
    ``grad_norm`` times ``input_norm`` does not depend on the scale: it is the effect of a relative
    change on the loss.

    Args:
        model: one of this package's networks, trained or not.
        images: (N, C, H, W), normalised.
        labels: (N,).

    Returns:
        One row per unit, and one for the last unit's output (``branch_norm`` missing): ``unit``
        (from 0), ``name``, Euclidean norms over the batch: ``input_norm``, ``grad_norm`` (of the
        mean cross entropy), its parts ``shortcut_norm`` (missing in a plain net) and
        ``branch_norm``; ``recursion_error`` (norm of the shortcut's part minus the gradient at the
        output, over ``grad_norm``: rounding alone with identity shortcuts and nothing after the
        addition; missing where the shape changes, and in a plain net), ``n`` (images).

    Raises:
        ValueError: no network of this package; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    with batch_statistics(model):
        run = forward_pass(model, images, labels)
        whole, branches = gradient_parts(run)
    rows = [_row(i, run.activations[i], whole, branch) for i, branch in enumerate(branches)]
    end = {"unit": len(rows), "name": OUTPUT}
    end |= {"input_norm": _norm(run.out), "grad_norm": _norm(whole[-1])}
    table = pd.DataFrame([*rows, end]).assign(n=len(images))
    return table.reindex(columns=names(TABLES["gradient_flow"].columns))


def _row(
    i: int, unit: UnitActivations, whole: Sequence[Tensor], branch: Tensor
) -> dict[str, object]:
    gradient, shortcut = whole[i], whole[i] - branch
    row: dict[str, object] = {"unit": i, "name": unit.unit.name}
    row |= {"input_norm": _norm(unit.x), "grad_norm": _norm(gradient)}
    row["branch_norm"] = _norm(branch)
    if not unit.unit.is_plain:
        row["shortcut_norm"] = _norm(shortcut)
        if unit.unit.module.keeps_shape:
            row["recursion_error"] = quotient(_norm(shortcut - whole[i + 1]), _norm(gradient))
    return row


def gradient_parts(run: ForwardPass) -> tuple[list[Tensor], list[Tensor]]:
    """The loss gradient at every unit's input and at the last output; the parts of the branches.

    In a plain net the branch's part is the whole gradient.
    """
    inputs = [unit.x for unit in run.activations]
    ends = [unit.out if unit.branch is None else unit.branch for unit in run.activations]
    branches = cast("list[Tensor]", ends)
    gradients = run.gradients([*inputs, run.out, *branches])
    whole, at_branch = gradients[: len(inputs) + 1], gradients[len(inputs) + 1 :]
    parts = [vjp(*args) for args in zip(at_branch, branches, inputs, strict=True)]
    return [*whole], parts


def _norm(gradient: Tensor) -> float:
    return double(gradient).norm().item()


# --- paths ------------------------------------------------------------------------------------


def paths(
    model: nn.Module, images: Tensor, labels: Tensor, *, draws: int = 8, seed: int = 0
) -> pd.DataFrame:
    """Paths through a residual network by length: their number and the gradient they carry.

    A path takes the branch or the shortcut of each of n units. There are 2^n paths, a binomial
    number of each length (arXiv:1605.06431, sections 3 and 5). The gradient of a path is the part
    of the gradient at the first unit's input that comes back along that path. The forward pass
    is the whole network's.

    Args:
        model: a residual network of this package. Its gates, if any, must not mix both ways.
        images: (N, C, H, W), normalised.
        labels: (N,).
        draws: different random paths of each length; all paths where there are fewer.
        seed: of the random paths.

    Returns:
        One row per length 0 to n: ``length`` (number of branches), ``share`` (of all paths),
        ``grad_norm`` and ``grad_norm_sd`` (mean and sample deviation over the draws, at the
        measured lengths: paths of one length differ by large factors), ``contribution`` (share x
        grad_norm over its sum, with the logarithm of grad_norm interpolated between measured
        lengths; its precision is that of ``grad_norm``), ``draws``, ``n`` (images).

    Raises:
        ValueError: no such network; no draws; images and labels that do not belong together.
    """
    model = require_ours(model)
    require_labelled(images, labels)
    if model.variant.is_plain:
        raise UserError(f"{model.variant.name} is a plain net: it has no shortcut")
    if draws < 1:
        raise UserError(f"draws {draws!r} must be at least 1")
    if not has_paths(model):
        message = f"{model.variant.name} gates its branches by what its shortcuts carry"
        raise UserError(f"{message}: no path is a product of derivatives of one of them")
    with batch_statistics(model):
        run = forward_pass(model, images, labels)
        norms = _norms_by_length(run, draws, generator("paths", seed))
    return _by_length(len(run.activations), norms).assign(n=len(images))


def _by_length(count: int, norms: Mapping[int, Sequence[float]]) -> pd.DataFrame:
    """The columns of ``paths``, from the gradient norms at the measured lengths."""
    lengths = range(count + 1)
    means = {length: float(np.mean(own)) for length, own in norms.items()}
    spreads = {k: float(np.std(own, ddof=1)) for k, own in norms.items() if len(own) > 1}
    frame = pd.DataFrame({"length": lengths, "share": binom.pmf(lengths, count, 0.5)})
    frame["grad_norm"] = frame["length"].map(means)
    frame["grad_norm_sd"] = frame["length"].map(spreads)
    logs = np.log(np.maximum([*means.values()], np.finfo(float).tiny))
    weight = frame["share"] * np.exp(np.interp(lengths, [*means], logs))
    draws = [len(norms.get(length, ())) for length in lengths]
    return frame.assign(contribution=weight / weight.sum(), draws=draws)


def _norms_by_length(
    run: ForwardPass, draws: int, stream: torch.Generator
) -> dict[int, list[float]]:
    count = len(run.activations)
    lengths = np.unique(np.linspace(0, count, min(count + 1, MOST_LENGTHS)).round().astype(int))
    return {
        length: [
            math.exp(path_gradient(run, path)[1])
            for path in _some_paths(count, length, draws, stream)
        ]
        for length in lengths.tolist()
    }


def _some_paths(
    count: int, length: int, draws: int, stream: torch.Generator
) -> list[tuple[int, ...]]:
    """Different random choices of the units whose branch the path takes; all, if few."""
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


def path_gradient(run: ForwardPass, branches: Iterable[int]) -> tuple[Tensor, float]:
    """The part of the gradient at the first unit's input that comes back along one path.

    The gradient is scaled at every unit: after fifty branches it is below the range of float32.

    Args:
        run: of a residual network.
        branches: numbers of the units whose branch the path takes.

    Returns:
        A tensor of norm 1, and the logarithm of the gradient's norm; zeros and minus infinity
        where no gradient comes back.
    """
    by_branch, log_norm = set(branches), 0.0
    (gradient,) = run.gradients([run.out])
    for i, unit in reversed(list(enumerate(run.activations))):
        out, branch, shortcut = unit.out, unit.branch, unit.shortcut
        assert out is not None
        assert branch is not None
        assert shortcut is not None
        gradient = vjp(gradient, out, branch)  # through the layers after the addition
        summand = branch if i in by_branch else shortcut
        if summand is not unit.x:
            gradient = vjp(gradient, summand, unit.x)
        norm = _norm(gradient)
        if not norm:
            return gradient, -math.inf
        gradient, log_norm = gradient / norm, log_norm + math.log(norm)
    return gradient, log_norm


def _paths_of_sample(model: ResNet, sample: Sample) -> pd.DataFrame | None:
    if not has_paths(model):
        return None
    return paths(model, *sample.batch, draws=sample.paths, seed=sample.seed)


MEASURES = {
    "gradient_flow": Measure(
        lambda model, sample: gradient_flow(model, *sample.batch), every_state=True
    ),
    "paths": Measure(_paths_of_sample),
}
