"""``rv.run``: what the command does, for Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from resnet_variants.analysis.report import build
from resnet_variants.models.grids import merge, parse_name
from resnet_variants.models.variant import Variant
from resnet_variants.sweeps.conduct import Options, conduct, silent
from resnet_variants.sweeps.engine import Workers
from resnet_variants.sweeps.experiment import Experiment, recipe_from, slug
from resnet_variants.training.data import Loading
from resnet_variants.training.device import Machine

Kind = TypeVar("Kind")


def run(
    variants: Iterable[Variant | str] | Variant | str,
    *,
    data: str = Experiment.data,
    seeds: int = Experiment.seeds,
    out: str | Path,
    img_size: int = Experiment.img_size,
    log: Sequence[str] = (),
    **settings: Any,
) -> pd.DataFrame:
    """Train variants with paired seeds, skip what ``out`` holds; ``runs.csv``, tables and plots.

    Args:
        variants: ``Variant``s or their names, or one; the first is the baseline.
        data: a SPEC, such as ``cifar10`` or ``folder:PATH``.
        seeds: how many: 0 to seeds - 1.
        out: results folder.
        img_size: side to resize the images to, in pixels; 0 keeps them.
        log: sinks for each epoch's numbers: ``tensorboard``, ``wandb``, ``trackio``.
        settings: fields of ``Recipe`` (with ``preset``, those of a paper), ``Machine``, ``Loading``
            and ``Workers``. With ``jobs``, processes share the runs; they import the calling
            script, which must guard what it does by ``if __name__ == "__main__"``.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """
    options, loading = _options(settings, tuple(log)), _taken(settings, Loading)
    kept, merged = merge((variant, variant.name) for variant in _listed(variants))
    experiment = Experiment(
        name=slug(Path(out).resolve().name),
        variants=tuple(kept),
        merged=tuple(merged),
        data=data,
        img_size=img_size,
        loading=loading,
        seeds=seeds,
        recipe=recipe_from(settings),
    )
    conduct(experiment, Path(out), options, silent)
    return build(Path(out)).runs


def _options(settings: dict[str, Any], sinks: tuple[str, ...]) -> Options:
    """Who computes; its settings are removed from the others."""
    if settings.get("jobs"):
        settings.setdefault("engine", "local")
    machine, workers = _taken(settings, Machine), _taken(settings, Workers)
    return Options(machine=machine, workers=workers, sinks=sinks)


def _listed(variants: Iterable[Variant | str] | Variant | str) -> list[Variant]:
    listed = [variants] if isinstance(variants, str | Variant) else variants
    return [parse_name(v) if isinstance(v, str) else v for v in listed]


def _taken(settings: dict[str, Any], kind: type[Kind]) -> Kind:
    """The settings of a kind, which are removed from the others."""
    own = [field.name for field in fields(cast(Any, kind)) if field.name in settings]
    return kind(**{name: settings.pop(name) for name in own})
