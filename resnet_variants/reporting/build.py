"""Everything that is made from the runs on disk: tables, then figures, then the page."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resnet_variants.analysis.depths import ERRORS, errors_by_depth
from resnet_variants.analysis.diagnosis import diagnosis_summary
from resnet_variants.analysis.effects import effects
from resnet_variants.analysis.results import LATENCIES, Gathered, gather, require_folders
from resnet_variants.analysis.tables import (
    GROUP,
    by_group,
    complete,
    pairing,
    scores_by_seed,
    summarise,
)
from resnet_variants.records.diagnosis import TABLES, of_runs
from resnet_variants.records.files import locked, to_json, writing
from resnet_variants.records.manifest import refuse_foreign, write_files
from resnet_variants.records.predictions import OUTCOMES, outcomes_parquet
from resnet_variants.records.results_folder import MISSING, RUNNING, read_experiment
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED
from resnet_variants.registry import UserError
from resnet_variants.reporting.figures.cost import DRAWN, accuracy_vs_cost
from resnet_variants.reporting.figures.curves import training_curves
from resnet_variants.reporting.figures.diagnosis import diagnosis_figures
from resnet_variants.reporting.figures.effects import error_vs_depth, forest, interactions
from resnet_variants.reporting.figures.style import rendered
from resnet_variants.reporting.findings import answer, notes
from resnet_variants.reporting.html import Content, Failure, Picture, render
from resnet_variants.reporting.text import latex, summary_markdown

ALWAYS = (  # files that each report writes
    *("runs.csv", "runs.parquet", "epochs.csv", "summary.csv", "summary.md", "summary.tex"),
    *("effects.csv", "provenance.json", "report.html"),
)
TOGETHER = "folders"  # in experiment.json: those that were reported together
_TRACEBACKS, _LETTERS = 100, 20_000  # failed runs whose log the page shows, and how much of it
_PATIENCE = 600.0  # seconds that another report of the same folder may take
_LONGEST = 120  # letters of a group in the name of a file


@dataclass(frozen=True)
class Report:
    """What ``build`` made, and from what."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    effects: pd.DataFrame
    depths: pd.DataFrame
    counts: Mapping[str, int]  # runs by status; ``MISSING`` are planned and not started
    answer: Sequence[str]
    notes: Sequence[str]
    files: tuple[Path, ...]


def require_room(out: Path) -> None:
    """Refuse, before hours of training, a folder whose tables ``build`` would refuse to replace.

    Which figures there will be is not known yet.

    Raises:
        ValueError: as ``build`` does; or the folder holds the only tables of other runs.
    """
    with writing(out):
        if (out / "runs.csv").exists() and not (out / "runs").is_dir():
            message = f"{str(out)!r} holds tables of runs that are not there, and those of new runs"
            raise UserError(f"{message} would take their place: take another folder", field="out")
        try:
            refuse_foreign(out, ALWAYS)
        except UserError:
            if not any((out / "runs").glob("*/run.json")):
                raise
            build(out)  # a folder without a manifest: what this would write is known for ours then


def build(out: Path, folders: Sequence[Path] = ()) -> Report:
    """Tables, figures and the page in ``out``, from its own runs; nothing is trained.

    With ``folders``, from the runs in all of these together instead. Of what an earlier report
    wrote, and this one does not, the files that raw runs can give again are deleted.

    Raises:
        ValueError: a folder holds no runs, or a damaged file, or ``out`` cannot be written, has
            results of its own beside those of the folders, or a file that no report wrote under the
            name of one that this would write.
    """
    try:
        results = any((out / name).exists() for name in ("runs", "runs.csv"))
        if folders and results and TOGETHER not in read_experiment(out):
            message = f"{str(out)!r} has results of its own: name a folder for those of all"
            raise UserError(message, field="out")
        require_folders(folders or (out,))
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / ".report.lock", _PATIENCE) as alone:
            if not alone:
                raise UserError(f"{str(out)!r} is being reported by another command: try again")
            found = gather(folders or (out,))
            made, contents = _build(found, folders, out)
            raw = bool(folders) or (out / "runs").is_dir()
            return dataclasses.replace(made, files=tuple(write_files(out, contents, keep=not raw)))
    except OSError as error:
        message = f"{error.filename or str(out)!r} cannot be read or written: {error.strerror}"
        raise UserError(message) from error


def _build(
    found: Gathered, folders: Sequence[Path], out: Path
) -> tuple[Report, dict[str, str | bytes]]:
    """The report, and what it writes: the content of each file by its name."""
    summary = summarise(found.runs, found.baselines, found.latencies)
    told = effects(found.runs, found.baselines)
    made = Report(
        runs=found.runs,
        summary=summary,
        effects=told,
        depths=errors_by_depth(found.runs, found.epochs),
        counts=_counts(found),
        answer=answer(summary, told),
        notes=notes(summary, told, pairing(found.runs, found.baselines), found.provenance),
        files=(),
    )
    diagnosed = diagnosis_summary(found.runs, found.diagnosis, found.baselines)
    figures = _all_figures(made, found)
    content = _content(made, found, folders, out)
    pictures = [
        Picture(Path(name).stem, figure)
        for name, figure in figures.items()
        if name.endswith(".svg") and name.startswith((ERRORS, *TABLES))
    ]
    content = dataclasses.replace(content, diagnosis=diagnosed, pictures=pictures)
    optional = {ERRORS: made.depths, **found.diagnosis, "diagnosis": diagnosed}
    answers = outcomes_parquet(found.outcomes, found.runs)
    return made, {
        "runs.csv": _csv(found.runs),
        "runs.parquet": found.runs.to_parquet(index=False),
        "epochs.csv": _csv(found.epochs),
        "summary.csv": _csv(summary),
        "summary.md": summary_markdown(summary) + "\n",
        "summary.tex": latex(summary),
        "effects.csv": _csv(told),
        "provenance.json": to_json(found.provenance),
        **_own_experiment(found, folders),
        **{f"{name}.csv": _csv(table) for name, table in optional.items() if len(table)},
        **({OUTCOMES: answers} if answers else {}),
        **figures,
        "report.html": render(content),
    }


def _counts(found: Gathered) -> dict[str, int]:
    counts = {str(status): int(n) for status, n in found.runs["status"].value_counts().items()}
    starting = sum(found.unseen.values())
    for status, n in ((RUNNING, starting), (MISSING, len(found.unseen) - starting)):
        if n:
            counts[status] = counts.get(status, 0) + n
    return counts


def _all_figures(made: Report, found: Gathered) -> dict[str, bytes]:
    """Those of each group, by the names of their files."""
    files: dict[str, bytes] = {}
    groups = by_group(found.runs)
    suffixes = _suffixes([key for key, _ in groups])
    for (key, own), suffix in zip(groups, suffixes, strict=True):
        summary, told, errors = (
            _of_group(frame, key) for frame in (made.summary, made.effects, made.depths)
        )
        drawn = _figures(summary, told, own, found.epochs)
        if len(errors):
            drawn[ERRORS] = error_vs_depth(errors)
        inside = of_runs(found.diagnosis, own["run_id"])
        drawn |= diagnosis_figures(inside, str(own["dataset"].iloc[0]))
        for name, figure in drawn.items():
            files |= rendered(figure, f"{name}{suffix}")
    return files


def _suffixes(keys: Sequence[tuple[object, ...]]) -> list[str]:
    """What a group's figures are called beside what they show; nothing where it is alone."""
    if len(keys) < 2:
        return [""] * len(keys)
    texts = [
        "_" + re.sub(r"[^A-Za-z0-9.]+", "-", "_".join(map(str, key)))[-_LONGEST:] for key in keys
    ]
    again = [texts[:i].count(text) for i, text in enumerate(texts)]
    return [f"{text}-{n + 1}" if n else text for text, n in zip(texts, again, strict=True)]


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
    for column, cost in DRAWN.items():
        if scored[column].notna().any():
            figures[f"accuracy_vs_{cost.name}"] = accuracy_vs_cost(scored, column)
    if not own.empty:
        figures["training_curves"] = training_curves(own, done)
    known = told[told["estimate"].notna()]
    if not known.empty:
        figures["effects"] = forest(known)
    if len(scored) > 1:
        figures["interactions"] = interactions(scored, complete(scores_by_seed(runs)))
    return {name: figure for name, figure in figures.items() if figure is not None}


def _own_experiment(found: Gathered, folders: Sequence[Path]) -> dict[str, str]:
    """What a folder of several folders' tables needs to be reported again."""
    if not folders:
        return {}
    names, questions, expectations = _titles(found)
    content = {
        "name": ", ".join(names),
        "question": " ".join(questions),
        "expect": " ".join(expectations),
        "baselines": dict(found.baselines),
        "runs": [*found.runs["run_id"], *found.unseen],
        TOGETHER: [folder.resolve().name for folder in folders],
        LATENCIES: {" ".join(key): ms for key, ms in sorted(found.latencies.items())},
    }
    return {"experiment.json": to_json(content)}


def _titles(found: Gathered) -> list[list[str]]:
    """Names, questions and expectations, each once."""
    return [list(dict.fromkeys(filter(None, texts))) for texts in zip(*found.titles, strict=True)]


def _content(made: Report, found: Gathered, folders: Sequence[Path], out: Path) -> Content:
    names, questions, expectations = _titles(found)
    commands = [*found.provenance.get("command", ())]
    where = [*map(str, folders), "--out", str(out)] if folders else [str(out)]
    again = shlex.join(["python", "-m", "resnet_variants.report", *where])
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
        depths=made.depths,
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


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False)
