"""Everything that is made from the runs on disk: tables first, then figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from resnet_variants.analysis import plots
from resnet_variants.analysis.tables import GROUP, by_group, summarise, summary_markdown
from resnet_variants.files import write_atomically
from resnet_variants.records import (
    RUNNING,
    planned_runs,
    read_epochs,
    read_experiment,
    read_runs,
    running,
)
from resnet_variants.registry import UserError
from resnet_variants.run_folder import DONE


@dataclass(frozen=True)
class Report:
    """What ``build`` made, and from what."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    counts: Mapping[str, int]  # runs by status; ``missing`` are planned and not started
    files: tuple[Path, ...]


def build(out: Path) -> Report:
    """Tables and figures in ``out`` from its runs, finished or not; nothing is trained.

    Raises:
        ValueError: ``out`` holds no runs, or a damaged file.
    """
    if not out.is_dir():
        raise UserError(f"no results folder {str(out)!r}")
    runs = read_runs(out)
    if runs.empty:
        raise UserError(f"{str(out)!r} holds no runs yet")
    try:
        return _build(out, runs)
    except OSError as error:
        message = f"{error.filename or str(out)!r} cannot be written: {error.strerror}"
        raise UserError(message) from error


def _build(out: Path, runs: pd.DataFrame) -> Report:
    epochs = read_epochs(out, runs)
    baselines = cast(Mapping[str, str], read_experiment(out).get("baselines", {}))
    summary = summarise(runs, baselines)
    files = [
        *_table(runs, out / "runs.csv", out / "runs.parquet"),
        *_table(epochs, out / "epochs.csv"),
        *_table(summary, out / "summary.csv"),
        _text(summary_markdown(summary) + "\n", out / "summary.md"),
    ]
    groups = by_group(runs)
    for key, own in groups:
        suffix = "_" + re.sub(r"[^A-Za-z0-9.]+", "-", "_".join(map(str, key)))
        rows = summary[(summary[[*GROUP]] == list(key)).all(axis=1) & (summary["n"] > 0)]
        files += _figures(rows, own, epochs, out, suffix if len(groups) > 1 else "")
    for old in {*out.glob("accuracy_vs_macs*"), *out.glob("training_curves*")} - {*files}:
        old.unlink()  # of runs that have gone, or under a name that no longer fits
    counts = {str(status): int(n) for status, n in runs["status"].value_counts().items()}
    unseen = set(planned_runs(out)) - set(runs["run_id"])
    starting = unseen & running(out)
    for status, n in ((RUNNING, len(starting)), ("missing", len(unseen - starting))):
        if n:
            counts[status] = counts.get(status, 0) + n
    return Report(runs, summary, counts, tuple(files))


def _figures(
    rows: pd.DataFrame, runs: pd.DataFrame, epochs: pd.DataFrame, out: Path, suffix: str
) -> list[Path]:
    """Those of one group, as far as its runs have something to show."""
    files: list[Path] = []
    if not rows.empty:
        files += plots.save(plots.accuracy_vs_macs(rows), out / f"accuracy_vs_macs{suffix}")
    done = runs[runs["status"] == DONE]
    if epochs["run_id"].isin(done["run_id"]).any():
        files += plots.save(plots.training_curves(epochs, done), out / f"training_curves{suffix}")
    return files


def _table(frame: pd.DataFrame, *paths: Path) -> list[Path]:
    for path in paths:
        if path.suffix == ".csv":
            write_atomically(path, frame.to_csv(index=False))
        else:
            frame.to_parquet(path, index=False)
    return list(paths)


def _text(text: str, path: Path) -> Path:
    write_atomically(path, text)
    return path
