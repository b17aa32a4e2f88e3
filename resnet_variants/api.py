"""``rv.run`` and ``rv.report``: what the commands of these names do, for Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from resnet_variants.analysis.report import Report, build
from resnet_variants.models.variant import Variant, merge, parse_name
from resnet_variants.sweeps.experiment import Experiment, recipe_from
from resnet_variants.sweeps.local import Options, Silent, prepare, run_all


def run(
    variants: Iterable[Variant | str],
    *,
    data: str = Experiment.data,
    seeds: int = Experiment.seeds,
    out: str | Path,
    img_size: int = Experiment.img_size,
    device: str = Options.device,
    **recipe: object,
) -> pd.DataFrame:
    """Train variants with paired seeds, skip what ``out`` holds, write its tables and plots.

    Args:
        variants: ``Variant``s or their names; the first is the baseline.
        data: a name in ``training.data.DATASETS``.
        seeds: how many: 0 to seeds - 1.
        out: results folder.
        img_size: side to resize the images to, in pixels; 0 keeps them.
        device: ``auto``, ``cpu`` or ``cuda``.
        recipe: fields of ``Recipe`` that differ from its defaults, ``epochs=10`` ...

    Returns ``runs.csv`` as a frame, failed runs included.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """
    cells = [parse_name(v) if isinstance(v, str) else v for v in variants]
    kept, merged = merge((variant, variant.name) for variant in cells)
    experiment = Experiment(
        name=Path(out).resolve().name,
        variants=tuple(kept),
        merged=tuple(merged),
        data=data,
        img_size=img_size,
        seeds=seeds,
        recipe=recipe_from(recipe),
    )
    todo = prepare(experiment, Path(out), Options(device=device))
    run_all(experiment, todo, Path(out), device=device, watcher=Silent())
    return build(Path(out)).runs


def report(out: str | Path) -> Report:
    """Rebuild the tables and plots of a results folder from what is on disk.

    Raises:
        ValueError: the folder holds no runs, or a damaged file.
    """
    return build(Path(out))
