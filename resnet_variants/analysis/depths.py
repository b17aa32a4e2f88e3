"""Error by depth: whether a deeper network of one design trains and tests worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from resnet_variants.analysis.factors import factors
from resnet_variants.analysis.statistics import SHARE, paired_comparison
from resnet_variants.analysis.verdicts import COMPARED, DIRECTIONS, Plan, with_verdicts
from resnet_variants.records.schema import concatenated

ERRORS = "error_vs_depth"  # name of the table's file, and of its figure's
DEPTH_COLUMNS = ("split", "design", "depth", "model", "shallower", *COMPARED)
TEST, TRAINING = "test", "training"


def errors_by_depth(
    cells: pd.DataFrame, errors: Mapping[str, pd.DataFrame], plan: Plan
) -> pd.DataFrame:
    """The errors of each design that has two depths or more: ``DEPTH_COLUMNS``.

    (The degradation problem of arXiv:1512.03385, figures 1 and 6: a plain net's training error
    rises with its depth.) ``difference`` is to the next shallower net, over pairs of seeds; the
    rows of one of the errors are adjusted together.

    Args:
        cells: one row per network, with its axes.
        errors: name of the split -> error, (seeds, models).
        plan: what was fixed before the first run.
    """
    cells = cells.assign(design=_design_names(cells)).sort_values("depth", kind="stable")
    designs = [own for _, own in cells.groupby("design", sort=False) if len(own) > 1]
    tables = []
    for split, by_seed in errors.items():
        known = by_seed.dropna(axis=1, how="all")
        rows = [row for design in designs for row in _rows(design, known)]
        if rows:
            about, differences = zip(*rows, strict=True)
            table = with_verdicts(pd.DataFrame(about), differences, plan)
            table["verdict"] = table["verdict"].replace(DIRECTIONS)
            tables.append(table.assign(split=split)[[*DEPTH_COLUMNS]])
    return concatenated(tables, DEPTH_COLUMNS)


def _rows(
    cells: pd.DataFrame, errors: pd.DataFrame
) -> Iterator[tuple[dict[str, object], pd.Series]]:
    """The nets of one design, the shallowest first, and their differences to the one before."""
    known = cells[cells["model"].isin(errors.columns)]
    shallower = None
    for design, depth, model in known[["design", "depth", "model"]].itertuples(index=False):
        other = None if shallower is None else errors[shallower]
        about = {"design": design, "depth": depth, "model": model, "shallower": shallower or ""}
        compared = paired_comparison(errors[model], other, SHARE)
        yield about | compared.row, compared.differences
        shallower = model


def _design_names(cells: pd.DataFrame) -> pd.Series:
    """What each network is besides its depth; an axis that follows the depth is named too."""
    if cells.empty:
        return pd.Series(dtype=object)
    levels = factors(cells)
    others = [str(axis) for axis in levels if "depth" not in str(axis).split("/")]
    sizes = [a for a in ("family", "stem_stride") if cells[a].nunique() > 1 and a not in others]
    parts = levels[others].join(cells[sizes].astype(str))
    names = parts.agg(", ".join, axis=1) if len(parts.columns) else cells["family"].astype(str)
    return names.where(cells["shortcut"] != "none", "plain net (" + names + ")")
