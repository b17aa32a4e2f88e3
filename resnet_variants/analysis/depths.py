"""Error by depth: whether a deeper network of one design trains and tests worse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from resnet_variants.analysis.effects import factors
from resnet_variants.analysis.pairs import COMPARED, DIFFERENCE, MEAN, compared, judged
from resnet_variants.analysis.statistics import SHARE
from resnet_variants.analysis.tables import GROUP, by_group, scores_by_seed
from resnet_variants.records.run_folder import DONE
from resnet_variants.reporting.text import interval, p_value

ERRORS = "error_vs_depth"  # name of the table's file, and of its figure's
COLUMNS = (*GROUP, "split", "design", "depth", "model", "shallower", *COMPARED)
TEST, TRAINING = "test", "training"
_SCORES = {TEST: "test_acc", TRAINING: "train_acc"}


def errors_by_depth(runs: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Test and training error of each design that has two depths or more: ``COLUMNS``.

    (The degradation problem of arXiv:1512.03385, figures 1 and 6: a plain net's training error
    rises with its depth.) ``difference`` is to the next shallower net, over pairs of seeds; Holm's
    correction is over all of them in a group, for each of the two errors. The training error is
    that of the last epoch's augmented images while the weights changed.

    Args:
        runs: ``records.RUN_COLUMNS``; those that are not done are left out.
        epochs: ``records.EPOCH_COLUMNS``.
    """
    last = epochs.loc[epochs.groupby("run_id")["epoch"].idxmax()].set_index("run_id")
    done = runs[runs["status"] == DONE]
    done = done.assign(train_acc=done["run_id"].map(last["train_acc"]))
    parts = []
    for key, own in by_group(done):
        group: dict[str, Any] = dict(zip(GROUP, key, strict=True))
        parts += [part.assign(**group)[[*COLUMNS]] for part in _splits(own)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS])


def _splits(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """A table of each error that was recorded, of one group."""
    cells = runs.drop_duplicates("model")
    cells = cells.assign(design=_designs(cells)).sort_values("depth", kind="stable")
    designs = [own for _, own in cells.groupby("design", sort=False) if len(own) > 1]
    tables = []
    for split, score in _SCORES.items():
        errors = 1 - scores_by_seed(runs, score)
        rows = [row for own in designs for row in _rows(own, errors.dropna(axis=1, how="all"))]
        if rows:
            tables.append(judged(pd.DataFrame(rows)).assign(split=split))
    return tables


def _rows(cells: pd.DataFrame, errors: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The nets of one design from the shallowest on, each with the one before."""
    known = cells[cells["model"].isin(errors.columns)]
    shallower = None
    for design, depth, model in known[["design", "depth", "model"]].itertuples(index=False):
        other = None if shallower is None else errors[shallower]
        about = {"design": design, "depth": depth, "model": model, "shallower": shallower or ""}
        yield about | compared(errors[model], other, SHARE)
        shallower = model


def _designs(cells: pd.DataFrame) -> pd.Series:
    """What each is besides its depth; an axis that goes along with the depth is named too."""
    found = factors(cells)
    others = [str(axis) for axis in found if "depth" not in str(axis).split("/")]
    told = [a for a in ("family", "stem_stride") if cells[a].nunique() > 1 and a not in others]
    parts = found[others].join(cells[told].astype(str))
    names = parts.agg(", ".join, axis=1) if len(parts.columns) else cells["family"].astype(str)
    return names.where(cells["shortcut"] != "none", "plain net (" + names + ")")


def readable_errors(table: pd.DataFrame) -> pd.DataFrame:
    """``errors_by_depth`` of one group as a reader wants it, all text."""
    means, more = (table[[*names]].itertuples(index=False) for names in (MEAN, DIFFERENCE))
    return pd.DataFrame(
        {
            "design": table["design"],
            "depth": table["depth"],
            "error of": table["split"],
            "n": table["seeds"],
            "error % [95 %]": [interval(*row) for row in means],
            "more than the shallower, points [95 %]": [interval(*row, sign="+") for row in more],
            "p (Holm)": table["p_adjusted"].astype(float).map(p_value),
            "verdict": table["verdict"],
        }
    )
