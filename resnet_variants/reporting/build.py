"""Everything that is made from the runs on disk: tables, then figures, then the page."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from resnet_variants.analysis.comparison import JOINED, Comparison, joined
from resnet_variants.analysis.results import (
    LATENCIES,
    Decode,
    Results,
    load_results,
    require_folders,
)
from resnet_variants.records.diagnosis import TABLES
from resnet_variants.records.files import locked, to_json, writing
from resnet_variants.records.manifest import refuse_foreign, write_files
from resnet_variants.records.predictions import OUTCOMES, outcomes_parquet
from resnet_variants.records.results_folder import (
    COMPARED,
    DATA_NAMES,
    MISSING,
    PLAN,
    ROBUST,
    RUNNING,
    SEARCH,
    SEARCHED,
    VARIED,
    read_experiment,
)
from resnet_variants.records.run_folder import DIVERGED, FAILED
from resnet_variants.registry import UserError
from resnet_variants.reporting import notebook
from resnet_variants.reporting.figures import FIGURES
from resnet_variants.reporting.figures.style import rendered
from resnet_variants.reporting.findings import answer, headline, notes
from resnet_variants.reporting.html import Content, Failure, render
from resnet_variants.reporting.names import named_summary, suffixes
from resnet_variants.reporting.pictures import pictures_of
from resnet_variants.reporting.summary import (
    MARKDOWN,
    TERMINAL,
    summary_cells,
    summary_latex,
)
from resnet_variants.reporting.template import Links
from resnet_variants.reporting.text import markdown

ALWAYS = (  # files that each report writes
    *("runs.csv", "runs.parquet", "epochs.csv", "summary.csv", "summary.md", "summary.tex"),
    *("effects.csv", "provenance.json", "report.html"),
)
TOGETHER = "folders"  # in experiment.json: those that were reported together
_LOGS, _LETTERS = 100, 4_000  # failed runs whose log the page shows, and how much of its end
_PATIENCE = 600.0  # seconds that another report of the same folder may take


@dataclass(frozen=True, repr=False)
class Report:
    """The results of a folder, and what ``build`` made of them.

    Attributes:
        runs: ``runs.csv``.
        summary: ``summary.csv``.
        effects: ``effects.csv``.
        predictions: ``predictions.csv``; empty where nothing was predicted.
        headline: what came out, in a few sentences.
        files: what was written.
    """

    comparisons: Sequence[Comparison]
    runs: pd.DataFrame
    summary: pd.DataFrame
    effects: pd.DataFrame
    predictions: pd.DataFrame
    counts: Mapping[str, int]  # runs by status; ``MISSING`` are planned and not started
    headline: Sequence[str]
    answer: Sequence[str]
    notes: Sequence[str]
    files: tuple[Path, ...]  # none where nothing was written

    @property
    def figures(self) -> dict[str, Path]:
        """The figures as PNG files, by name."""
        return {path.stem: path for path in self.files if path.suffix == ".png"}

    @property
    def report(self) -> Path | None:
        """The page; ``None`` where nothing was written."""
        return next((path for path in self.files if path.name == "report.html"), None)

    @property
    def named(self) -> pd.DataFrame:
        """The summary with what readers call networks and comparisons: ``named_summary``."""
        return named_summary(self.comparisons)

    def __repr__(self) -> str:
        """The answer and the table, as a terminal shows them."""
        return "\n".join([*self.headline, "", markdown(summary_cells(self.named, TERMINAL))])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return notebook.html(self.headline, self.named)


def require_room(out: Path, *, adopt: bool = True) -> None:
    """Refuse, before hours of training, a folder whose tables ``build`` would refuse to replace.

    Which figures there will be is not known yet. With ``adopt``, what an earlier version wrote from
    the folder's own runs is reported anew, which proves it to be ours.

    Raises:
        ValueError: as ``build`` does; or the folder holds the only tables of other runs.
    """
    with writing(out):
        _refuse_compared(out)
        if (out / "runs.csv").exists() and not (out / "runs").is_dir():
            message = f"{str(out)!r} holds tables of runs that are not there, and those of new runs"
            raise UserError(f"{message} would take their place: take another folder", field="out")
        try:
            refuse_foreign(out, ALWAYS)
        except UserError:
            if not any((out / "runs").glob("*/run.json")):
                raise
            if adopt:
                build(out)


def build(
    out: Path, folders: Sequence[Path] = (), vary: Sequence[str] = (), decode: Decode | None = None
) -> Report:
    """Tables, figures and the page in ``out``, from its own runs; nothing is trained.

    With ``folders``, from the runs in all of these together instead, whose recipes may differ in
    the settings of ``vary``. With ``decode``, pictures of the hardest images are made where none
    are kept. Of what an earlier report wrote, and this one does not, the files that raw runs can
    give again are deleted.

    Raises:
        ValueError: a folder holds no runs, or a damaged file, or ``out`` cannot be written, has
            results of its own beside those of the folders, or a file that no report wrote under the
            name of one that this would write.
    """
    try:
        own = any((out / name).exists() for name in ("runs", "runs.csv"))
        if folders and own and TOGETHER not in read_experiment(out):
            message = f"{str(out)!r} has results of its own: name a folder for those of all"
            raise UserError(message, field="out")
        require_folders(folders or (out,))
        _refuse_compared(out)
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / ".report.lock", _PATIENCE) as alone:
            if not alone:
                raise UserError(f"{str(out)!r} is being reported by another command: try again")
            results = load_results(folders or (out,), vary)
            results = results.with_thumbnails(decode) if decode else results
            report, contents = _build(results, folders, out)
            raw = bool(folders) or (out / "runs").is_dir()
            files = write_files(out, contents, keep=not raw)
            return dataclasses.replace(report, files=tuple(files))
    except OSError as error:
        message = f"{error.filename or str(out)!r} cannot be read or written: {error.strerror}"
        raise UserError(message) from error


def _refuse_compared(out: Path) -> None:
    """Refuse a folder with the page of ``compare``, which these runs cannot make again."""
    if (out / COMPARED).exists():
        message = f"{str(out)!r} holds what `compare` wrote: take another folder"
        raise UserError(message, field="out")


def read(out: Path) -> Report:
    """The results of a folder as they are; nothing is drawn or written.

    Raises:
        ValueError: as ``load_results`` does.
    """
    return _report(load_results((out,)))


def _build(
    results: Results, folders: Sequence[Path], out: Path
) -> tuple[Report, dict[str, str | bytes]]:
    """The report, and what it writes: the content of each file by its name."""
    parts, report = results.comparisons, _report(results)
    figures = _figures(parts)
    optional = {
        "steps": results.steps(),
        SEARCH: pd.DataFrame(results.searched),
        **{name: joined(parts, name) for name in JOINED if f"{name}.csv" not in ALWAYS},
        **results.diagnosis,
    }
    outcomes, runs = outcomes_parquet(results.outcomes, results.runs), _with_settings(results)
    content = _content(report, results)
    contents: dict[str, str | bytes] = {
        "runs.csv": _csv(runs),
        "runs.parquet": runs.to_parquet(index=False),
        "epochs.csv": _csv(results.epochs),
        "summary.csv": _csv(report.summary),
        "summary.md": markdown(summary_cells(report.named, MARKDOWN)) + "\n",
        "summary.tex": summary_latex(parts, content.title),
        "effects.csv": _csv(report.effects),
        "provenance.json": to_json(results.provenance),
        **_own_experiment(results, folders),
        **{f"{name}.csv": _csv(table) for name, table in optional.items() if len(table)},
        **({OUTCOMES: outcomes} if outcomes else {}),
        **figures,
    }
    content = dataclasses.replace(
        content,
        reproduce=_commands(results, folders, out),
        files=[(name, quote(name)) for name in contents],
        run_files=_run_files(results.folders, out),
        pictures=pictures_of(figures),
    )
    return report, contents | {"report.html": render(content)}


def _with_settings(results: Results) -> pd.DataFrame:
    """The runs, with a column for each setting that is not the same in all arms."""
    arms = pd.concat([part.runs.set_index("run_id")["model"] for part in results.comparisons])
    settings = pd.concat([part.settings for part in results.comparisons])
    settings = settings[~settings.index.duplicated()].reindex(arms)
    return results.runs.join(settings.set_axis(arms.index), on="run_id")


def _report(results: Results) -> Report:
    parts = results.comparisons
    return Report(
        comparisons=parts,
        runs=results.runs,
        summary=joined(parts, "summary"),
        effects=joined(parts, "effects"),
        predictions=joined(parts, "predictions"),
        counts=_counts(results),
        headline=headline(parts),
        answer=answer(parts),
        notes=notes(parts, results.provenance),
        files=(),
    )


def _counts(results: Results) -> dict[str, int]:
    counts = Counter({str(s): int(n) for s, n in results.runs["status"].value_counts().items()})
    starting = sum(results.unseen.values())
    counts[RUNNING] += starting
    counts[MISSING] += len(results.unseen) - starting
    return dict(+counts)  # without zeros


def _figures(parts: Sequence[Comparison]) -> dict[str, bytes]:
    """The figures of each comparison that has something to show: content by name of the file."""
    files: dict[str, bytes] = {}
    for part, suffix in zip(parts, suffixes(parts), strict=True):
        for name, draw in FIGURES.items():
            figure = draw(part)
            if figure is not None:
                files |= rendered(figure, f"{name}{suffix}")
    return files


def _own_experiment(results: Results, folders: Sequence[Path]) -> dict[str, str]:
    """What a folder of several folders' tables needs to be reported again."""
    if not folders:
        return {}
    names, questions, expectations = _titles(results)
    first = results.comparisons[0]  # all have the same plan
    content = {
        "name": ", ".join(names),
        "question": " ".join(questions),
        "expect": " ".join(expectations),
        "baselines": dict(results.baselines),
        DATA_NAMES: dict(results.names),
        **({VARIED: dict(results.varied)} if results.varied else {}),
        **({ROBUST: list(results.robust)} if results.robust else {}),
        **({SEARCHED: list(results.searched)} if results.searched else {}),
        PLAN: asdict(first.plan) | first.stated.record(),
        "runs": [*results.runs["run_id"], *results.unseen],
        TOGETHER: [folder.resolve().name for folder in folders],
        LATENCIES: {" ".join(key): ms for key, ms in sorted(results.latencies.items())},
    }
    return {"experiment.json": to_json(content)}


def _titles(results: Results) -> list[list[str]]:
    """Names, questions and expectations, each once."""
    return [list(dict.fromkeys(filter(None, texts))) for texts in zip(*results.titles, strict=True)]


def _commands(results: Results, folders: Sequence[Path], out: Path) -> list[str]:
    """The shell commands that lead to this report."""
    where = [*map(str, folders), "--out", str(out)] if folders else [str(out)]
    again = shlex.join(["python", "-m", "resnet_variants.report", *where])
    commands = list(results.provenance.get("command", ()))
    words = [word.partition("=")[0] for command in commands for word in command.split()]
    if "--minutes" in words:
        epochs = sorted({int(part.key["epochs"]) for part in results.comparisons})
        # Another machine would choose others.
        commands.append(f"# it chose --epochs {' and '.join(map(str, epochs))} here")
    return [*commands, again]


def _run_files(folders: Mapping[str, Path], out: Path) -> dict[str, Links]:
    """The folder, log and diagnosis of each run that is here, as addresses from ``out``."""
    shown = ("log.txt", *(f"{name}.{kind}" for name in TABLES for kind in ("csv", "png")))
    links: dict[str, Links] = {}
    for run_id, results in folders.items():
        folder = results.joinpath("runs", run_id)
        if folder.is_dir():
            own = {file.name for file in folder.iterdir()}
            there = [file for file in shown if file in own]
            address = quote(os.path.relpath(folder, out)) + "/"
            links[run_id] = [("folder", address), *((file, address + file) for file in there)]
    return links


def _content(report: Report, results: Results) -> Content:
    """The page without the names of files."""
    names, questions, expectations = _titles(results)
    data = [name for key, name in results.names.items() if key in set(results.runs["dataset"])]
    return Content(
        title=", ".join(names) + (f" on {' and '.join(dict.fromkeys(data))}" if data else ""),
        question=" ".join(questions),
        expect=" ".join(expectations),
        headline=report.headline,
        answer=report.answer,
        counts=report.counts,
        comparisons=report.comparisons,
        failures=_failures(results),
        provenance={k: values for k, values in results.provenance.items() if k != "command"},
        notes=report.notes,
    )


def _failures(results: Results) -> list[Failure]:
    failed = results.runs[results.runs["status"].isin([FAILED, DIVERGED])]
    failures = []
    for at, row in enumerate(failed.to_dict("records")):
        run_id = str(row["run_id"])
        log = results.folders[run_id] / "runs" / run_id / "log.txt"
        text = ""
        if at < _LOGS and log.is_file():
            text = log.read_text(encoding="utf-8", errors="replace")[-_LETTERS:]
        failures.append(Failure(run_id, str(row["status"]), str(row["error"]), text))
    return failures


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False)
