"""``rv.run`` and ``rv.report``: what the commands of these names do, for Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import pandas as pd

from resnet_variants.analysis.report import Report, build
from resnet_variants.models.grids import merge, parse_name
from resnet_variants.models.variant import Variant
from resnet_variants.sweeps.experiment import Experiment, recipe_from, slug
from resnet_variants.sweeps.local import Options, conduct, silent
from resnet_variants.training.data import Loading
from resnet_variants.training.device import Machine


def run(
    variants: Iterable[Variant | str] | Variant | str,
    *,
    data: str = Experiment.data,
    seeds: int = Experiment.seeds,
    out: str | Path,
    img_size: int = Experiment.img_size,
    **settings: object,
) -> pd.DataFrame:
    """Train variants with paired seeds, skip what ``out`` holds, write its tables and plots.

    Args:
        variants: ``Variant``s or their names, or one; the first is the baseline.
        data: a SPEC, such as ``cifar10`` or ``folder:PATH``.
        seeds: how many: 0 to seeds - 1.
        out: results folder.
        img_size: side to resize the images to, in pixels; 0 keeps them.
        settings: fields of ``Recipe`` (with ``preset``, those of a paper), of ``Machine``, such as
            ``device``, and of ``Loading``, such as ``data_dir``.

    Returns:
        ``runs.csv``.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """
    listed = [variants] if isinstance(variants, str | Variant) else variants
    cells = [parse_name(v) if isinstance(v, str) else v for v in listed]
    kept, merged = merge((variant, variant.name) for variant in cells)
    machine, loading = (
        {field.name: settings.pop(field.name) for field in fields(kind) if field.name in settings}
        for kind in (Machine, Loading)
    )
    experiment = Experiment(
        name=slug(Path(out).resolve().name),
        variants=tuple(kept),
        merged=tuple(merged),
        data=data,
        img_size=img_size,
        loading=Loading(**cast("dict[str, Any]", loading)),
        seeds=seeds,
        recipe=recipe_from(settings),
    )
    options = Options(machine=Machine(**cast("dict[str, Any]", machine)))
    conduct(experiment, Path(out), options, silent)
    return build(Path(out)).runs


def report(out: str | Path) -> Report:
    """Rebuild the tables and plots of a results folder from what is on disk.

    Raises:
        ValueError: the folder holds no runs, or a damaged file.
    """
    return build(Path(out))
