"""Everything that is made from the runs on disk: tables, then figures, then the page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resnet_variants.analysis.curves import training_curves
from resnet_variants.analysis.effect_plots import error_vs_depth, forest, interactions
from resnet_variants.analysis.effects import effects
from resnet_variants.analysis.findings import answer, notes
from resnet_variants.analysis.formats import latex, summary_markdown
from resnet_variants.analysis.gather import Gathered, gather
from resnet_variants.analysis.page import Content, Failure, render
from resnet_variants.analysis.plots import COSTS, accuracy_vs_cost
from resnet_variants.analysis.style import save
from resnet_variants.analysis.tables import GROUP, by_group, pairing, summarise
from resnet_variants.files import to_json, write_atomically
from resnet_variants.records import RUNNING
from resnet_variants.registry import UserError
from resnet_variants.run_folder import DIVERGED, DONE, FAILED

FIGURES = ("accuracy_vs_*", "training_curves*", "effects*", "interactions*", "error_vs_depth*")
_TRACEBACKS, _LETTERS = 100, 20_000  # failed runs whose log the page shows, and how much of it


@dataclass(frozen=True)
class Report:
    """What ``build`` made, and from what."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    effects: pd.DataFrame
    counts: Mapping[str, int]  # runs by status; ``missing`` are planned and not started
    answer: Sequence[str]
    notes: Sequence[str]
    files: tuple[Path, ...]


def build(out: Path, folders: Sequence[Path] = ()) -> Report:
    """Tables, figures and the page in ``out``, from its own runs; nothing is trained.

    With ``folders``, from the runs in all of these together instead.

    Raises:
        ValueError: a folder holds no runs, or a damaged file, or ``out`` cannot be written, or is
            one of several folders.
    """
    if out.resolve() in {folder.resolve() for folder in folders}:
        message = f"{str(out)!r} holds runs itself: tables of several folders need one of their own"
        raise UserError(message, field="out")
    folders = folders or (out,)
    found = gather(folders)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _build(found, folders, out)
    except OSError as error:
        message = f"{error.filename or str(out)!r} cannot be written: {error.strerror}"
        raise UserError(message) from error


def _build(found: Gathered, folders: Sequence[Path], out: Path) -> Report:
    summary = summarise(found.runs, found.baselines, found.latencies)
    told = effects(found.runs, found.baselines)
    made = Report(
        runs=found.runs,
        summary=summary,
        effects=told,
        counts=_counts(found),
        answer=answer(summary),
        notes=notes(
            summary,
            pairing(found.runs, found.baselines),
            twice=found.twice,
            provenance=found.provenance,
        ),
        files=(),
    )
    files = [
        *_table(found.runs, out / "runs.csv", out / "runs.parquet"),
        *_table(found.epochs, out / "epochs.csv"),
        *_table(summary, out / "summary.csv"),
        _text(summary_markdown(summary) + "\n", out / "summary.md"),
        _text(latex(summary), out / "summary.tex"),
        *_table(told, out / "effects.csv"),
        _text(to_json(found.provenance), out / "provenance.json"),
        *_all_figures(made, found, out),
        _text(render(_content(made, found, folders)), out / "report.html"),
    ]
    return dataclasses.replace(made, files=tuple(files))


def _counts(found: Gathered) -> dict[str, int]:
    counts = {str(status): int(n) for status, n in found.runs["status"].value_counts().items()}
    starting = sum(found.unseen.values())
    for status, n in ((RUNNING, starting), ("missing", len(found.unseen) - starting)):
        if n:
            counts[status] = counts.get(status, 0) + n
    return counts


def _all_figures(made: Report, found: Gathered, out: Path) -> list[Path]:
    """Those of each group; figures of groups that have gone are removed."""
    files: list[Path] = []
    groups = by_group(found.runs)
    for key, own in groups:
        suffix = "_" + re.sub(r"[^A-Za-z0-9.]+", "-", "_".join(map(str, key)))
        summary, told = (_of_group(frame, key) for frame in (made.summary, made.effects))
        for name, figure in _figures(summary, told, own, found.epochs).items():
            files += save(figure, out / f"{name}{suffix if len(groups) > 1 else ''}")
    images = {path for form in FIGURES for path in out.glob(form) if path.suffix in _IMAGES}
    for old in images - {*files}:
        old.unlink()
    return files


_IMAGES = (".png", ".svg")


def _of_group(frame: pd.DataFrame, key: Sequence[object]) -> pd.DataFrame:
    return frame[(frame[[*GROUP]] == list(key)).all(axis=1)]


def _figures(
    summary: pd.DataFrame, told: pd.DataFrame, runs: pd.DataFrame, epochs: pd.DataFrame
) -> dict[str, Figure]:
    """Those of one group, by name, as far as its runs have something to show."""
    figures: dict[str, Figure | None] = {}
    scored = summary[summary["n"] > 0]
    done = runs[runs["status"] == DONE]
    own = epochs[epochs["run_id"].isin(done["run_id"])]
    for column, cost in COSTS.items():
        if scored[column].notna().any():
            figures[f"accuracy_vs_{cost.name}"] = accuracy_vs_cost(scored, column)
    if not own.empty:
        figures["training_curves"] = training_curves(own, done)
    known = told[told["estimate"].notna()]
    if not known.empty:
        figures["effects"] = forest(known)
    if len(scored) > 1:
        last = own.loc[own.groupby("run_id")["epoch"].idxmax(), ["model", "train_acc"]]
        figures["interactions"] = interactions(scored)
        figures["error_vs_depth"] = error_vs_depth(scored, last)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _content(made: Report, found: Gathered, folders: Sequence[Path]) -> Content:
    names, questions, expectations = (
        list(dict.fromkeys(filter(None, texts))) for texts in zip(*found.titles, strict=True)
    )
    commands = [*found.provenance.get("command", ())]
    again = " ".join(["python -m resnet_variants.report", *(folder.name for folder in folders)])
    return Content(
        title=", ".join(names),
        question=" ".join(questions),
        expect=" ".join(expectations),
        answer=tuple(made.answer),
        counts=made.counts,
        summary=made.summary,
        runs=made.runs,
        epochs=found.epochs,
        effects=made.effects,
        failures=_failures(found),
        provenance={name: own for name, own in found.provenance.items() if name != "command"},
        reproduce=[*commands, again],
        notes=made.notes,
    )


def _failures(found: Gathered) -> list[Failure]:
    failed = found.runs[found.runs["status"].isin([FAILED, DIVERGED])]
    failures = []
    for at, row in enumerate(failed.to_dict("records")):
        run_id = str(row["run_id"])
        log = found.folders[run_id] / "runs" / run_id / "log.txt"
        text = ""
        if at < _TRACEBACKS and log.is_file():
            text = log.read_text(encoding="utf-8", errors="replace")[-_LETTERS:]
        failures.append(Failure(run_id, str(row["status"]), str(row["error"]), text))
    return failures


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
