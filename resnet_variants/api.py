"""``rv.run``, ``rv.report`` and ``rv.diagnose``: what the commands do, for Python."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from resnet_variants.analysis.contrast import Contrast, contrast
from resnet_variants.data.specs import is_spec, may_download
from resnet_variants.data.thumbnails import thumbnails
from resnet_variants.diagnosis.study import diagnose_run
from resnet_variants.models.catalogue import as_variant
from resnet_variants.models.grids import merge
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import register
from resnet_variants.plugins import load_plugin
from resnet_variants.records.diagnosis import TABLES, Diagnosis, is_diagnosed
from resnet_variants.records.files import writing
from resnet_variants.records.manifest import refuse_foreign, write_files
from resnet_variants.records.pictures import Thumbnail
from resnet_variants.records.run_folder import DONE, RunFolder
from resnet_variants.registry import (
    UserError,
    require,
    require_name,
    require_path,
    sequence,
    shown,
)
from resnet_variants.reporting.build import Report, build, read, require_room
from resnet_variants.reporting.contrast import require_free, write_contrast
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES, diagnosis_figure
from resnet_variants.reporting.figures.style import rendered
from resnet_variants.settings import Device, Loading, Machine, Study, Workers
from resnet_variants.sweeps.experiment import Experiment, recipe_from, slug, thumbnails_of
from resnet_variants.sweeps.finished import finished
from resnet_variants.sweeps.search import choose
from resnet_variants.sweeps.sweep import Options, run_sweep
from resnet_variants.terminal.live import follow

Kind = TypeVar("Kind")
# Fields of an experiment.
_STATED = (
    *("question", "data_name", "vary", "robust", "tune", "baseline"),
    *("expect", "margin", "endpoint", "compare", "share"),
)
_PATIENCE = 600.0  # seconds that another command may take to diagnose a run


def run(  # noqa: PLR0913 all but the first are keywords, as the flags of the command
    variants: Iterable[Variant | str] | Variant | str,
    *,
    data: str = Experiment.data,
    seeds: int = Experiment.seeds,
    out: str | Path,
    img_size: int = Experiment.img_size,
    diagnose: bool = False,
    log: Sequence[str] = (),
    plugins: Sequence[str | Path] | str | Path = (),
    report: bool = True,
    **settings: Any,
) -> Report:
    """Train variants with paired seeds, skip what ``out`` holds; the results.

    The result shows the answer; it has ``runs``, ``summary``, ``effects``, ``figures``, ``report``.

    Args:
        variants: ``Variant``s, their names or letters, or one; the first is the baseline.
        data: a SPEC, such as ``cifar10`` or ``folder:PATH``.
        seeds: how many: 0 to seeds - 1; if 0, as many as a verdict takes.
        out: results folder.
        img_size: side to resize the images to, in pixels; 0 keeps them.
        diagnose: look into the trained networks, see ``rv.diagnose``; implies ``snapshots``.
        log: sinks for each epoch's numbers: ``tensorboard``, ``wandb``, ``trackio``.
        report: write tables, figures and page to ``out``; without, the result has frames only.
        plugins: Python files and modules with parts of your own, see ``rv.load_plugin``.
        settings: what an experiment file may hold, with ``vary={"mixup": [0.0, 0.2]}``;
            ``share="1/2"`` for a part of the seeds; fields of ``Recipe`` (with ``preset``, those of
            a paper), ``Machine``, ``Loading`` and ``Workers``. With ``jobs``, processes import the
            calling script: it must guard what it does by ``if __name__ == "__main__"``.

    Raises:
        ValueError: an unknown choice, a number out of range; in the end, a run not diagnosed.
    """
    _load(plugins)
    out = require_path("out", out)
    require("diagnose", diagnose, bool, "true or false")
    require("report", report, bool, "true or false")
    settings["snapshots"] = settings.get("snapshots", False) or diagnose
    options = _options(settings, log)
    experiment = _experiment(variants, out, settings, data=data, img_size=img_size, seeds=seeds)
    require_room(out)
    experiment = choose(experiment, out, options, follow)
    follow(run_sweep(experiment, out, options))
    refused = _not_diagnosed(experiment, out, options) if diagnose else []
    made = build(out, decode=thumbnails_of(experiment)) if report else read(out)
    if refused:
        raise UserError(f"{len(refused)} not diagnosed, all else is in {str(out)!r}; {refused[0]}")
    return made


def _load(plugins: Sequence[str | Path] | str | Path) -> None:
    named = [plugins] if isinstance(plugins, str | Path) else sequence(plugins)
    if named is None:
        message = f"plugins {shown(plugins)} must be a list of Python files and modules"
        raise UserError(message, field="plugins")
    for plugin in named:
        load_plugin(plugin)


def _not_diagnosed(experiment: Experiment, out: Path, options: Options) -> list[str]:
    """Diagnose the runs; a line on each that could not be."""
    asked = diagnose_runs(experiment, out, options.machine.device)
    return [f"{folder.name}: {why}" for folder, why in asked if why]


def _experiment(
    variants: Iterable[Variant | str] | Variant | str,
    out: Path,
    settings: dict[str, Any],
    **asked: Any,
) -> Experiment:
    """The experiment; ``asked`` are fields of it, the ``settings`` all others that were given."""
    require_name(out, field="out")
    kept, merged = merge((variant, variant.name) for variant in _listed(variants))
    stated = {name: settings.pop(name) for name in _STATED if name in settings}
    return Experiment(
        name=slug(out.resolve().name),
        variants=tuple(kept),
        merged=tuple(merged),
        loading=_taken(settings, Loading),
        recipe=recipe_from(settings),
        **asked,
        **stated,
    )


def report(*folders: str | Path, out: str | Path | None = None, vary: Sequence[str] = ()) -> Report:
    """Rebuild the tables, plots and page of a results folder from what is on disk.

    Several folders are reported together, in ``out``. Their recipes keep runs apart but in the
    settings of ``vary``.

    Raises:
        ValueError: a folder holds no runs, or a damaged file, or ``out`` is missing.
    """
    names = [vary] if isinstance(vary, str) else sequence(vary)
    if names is None or not all(isinstance(name, str) for name in names):
        raise UserError(f"vary {shown(vary)} must be names of settings", field="vary")
    if out is None and (vary or len(folders) != 1):
        raise UserError(
            "several folders are reported together: name a folder for that", field="out"
        )
    paths = [require_path("folders", folder) for folder in folders]
    return build(paths[0]) if out is None else build(require_path("out", out), paths, names)


def compare(
    *what: str | Path,
    out: str | Path | None = None,
    data: str = "",
    data_dir: str | Path = Loading.data_dir,
) -> Contrast:
    """Two arms side by side: what differs in their settings, accuracy, classes and single images.

    Numbers are those of the second minus those of the first.

    Args:
        what: two runs' folders, or two results folders of one arm each; a results folder and the
            labels or names of two arms; or two results folders, each followed by an arm.
        out: a folder for ``compare.html`` with its tables and figures; nothing is written without.
        data: the SPEC of the images that the page shows; by default that of the training. Without
            the images the page has no pictures, but those that the results folders keep.
        data_dir: where downloaded images are.

    Raises:
        ValueError: no such folder, finished run or arm; or the two were tested on other images.
    """
    target = None if out is None else require_path("out", out)
    require("data", data, str, "a SPEC")
    loading = Loading(data_dir=require_path("data_dir", data_dir))
    if target is None:
        if data:
            raise UserError("it is for the pictures of the page: give out too", field="data")
        return contrast(*what)
    require_free(target)
    found, absent = _illustrated(contrast(*what), data, loading)
    words = ["python", "-m", "resnet_variants.compare", *map(str, what), "--out", str(target)]
    words += ["--data", data] if data else []
    words += ["--data-dir", str(data_dir)] if loading != Loading() else []
    write_contrast(found, target, absent, shlex.join(words))
    return found


def _illustrated(found: Contrast, data: str, loading: Loading) -> tuple[Contrast, str]:
    """With pictures of the images that are most apart, and why some are missing.

    Raises:
        ValueError: ``data`` names other images, or none.
    """

    def decode(recorded: str, split: str, images: Mapping[int, str]) -> Mapping[int, Thumbnail]:
        spec = data or recorded
        if not is_spec(spec):
            raise UserError("it is not recorded where they are")
        if not data and may_download(spec):
            raise UserError(f"{spec} might have to be downloaded")
        return thumbnails(spec, split, images, loading)

    try:
        return found.illustrated(decode), ""
    except UserError as error:
        if data:
            raise
        absent = f"Images without a picture: {error}; `--data SPEC` says where the images are."
        logging.getLogger(__name__).warning("%s", absent)
        return found, absent


@dataclass(frozen=True)
class Diagnosed:
    """What ``diagnose`` measured, by the names of ``records.diagnosis.TABLES``, and wrote."""

    tables: Diagnosis
    files: tuple[Path, ...]


def diagnose(folder: str | Path, **settings: Any) -> Diagnosed:
    """Measure what goes on inside a finished run's network; tables and figures beside the run.

    Args:
        folder: the run's directory.
        settings: fields of ``Study``.

    Raises:
        ValueError: see ``diagnose_run``; or the directory cannot be written.
    """
    path, study = require_path("folder", folder), Study(**settings)
    with _held(path, 0.0):
        return _diagnosed(path, study)


@contextlib.contextmanager
def _held(path: Path, seconds: float) -> Iterator[None]:
    with RunFolder(path.resolve()).claim(seconds) as mine:
        if not mine:
            raise UserError(f"another command uses {str(path)!r}: wait for it")
        yield


def _diagnosed(path: Path, study: Study) -> Diagnosed:
    dataset = str(finished(path)["dataset"])
    if not os.access(path, os.W_OK):
        raise UserError(f"{str(path)!r} cannot be written")
    refuse_foreign(path, [f"{name}{end}" for name in TABLES for end in (".csv", ".png", ".svg")])
    tables = diagnose_run(path, study)
    contents: dict[str, str | bytes] = {}
    for name in DIAGNOSIS_FIGURES:
        figure = diagnosis_figure(name, tables, dataset)
        if figure is not None:
            contents |= rendered(figure, name)
    contents |= {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    with writing(path):
        return Diagnosed(tables, tuple(write_files(path, contents)))


def diagnose_runs(experiment: Experiment, out: Path, device: Device) -> Iterator[tuple[Path, str]]:
    """Diagnose the finished runs that have not been.

    Yields:
        The directory of each in turn, and why it could not be; nothing where it was.
    """
    for run in experiment.runs:
        folder = out / "runs" / run.id
        result = RunFolder(folder).result()
        if not result or result["status"] != DONE:
            continue
        study = Study(data=run.data, loading=run.loading, device=device)
        try:
            if is_diagnosed(folder):
                continue
            with _held(folder, _PATIENCE):  # another command may be diagnosing it
                if is_diagnosed(folder):
                    continue
                _diagnosed(folder, study)
        except UserError as error:  # one run's fault, which costs no other its diagnosis
            yield folder, str(error)
        else:
            yield folder, ""


def _options(settings: dict[str, Any], log: Sequence[str]) -> Options:
    """Who computes; its settings are removed from the others."""
    sinks = sequence(log)
    if sinks is None or not all(isinstance(sink, str) for sink in sinks):
        raise UserError(f"log {shown(log)} must be a list of names", field="log")
    if settings.get("jobs"):
        settings.setdefault("engine", "local")
    machine, workers = _taken(settings, Machine), _taken(settings, Workers)
    return Options(machine=machine, workers=workers, sinks=tuple(sinks))


def _listed(variants: Iterable[Variant | str] | Variant | str) -> list[Variant]:
    listed = [variants] if isinstance(variants, str | Variant) else variants
    require("variants", listed, Iterable, "a letter, a name, a Variant or a list of them")
    cells = [as_variant("variants", variant) for variant in listed]
    for cell in cells:
        register(cell)
    return cells


def _taken(settings: dict[str, Any], kind: type[Kind]) -> Kind:
    """The settings of a kind, which are removed from the others."""
    own = [field.name for field in fields(cast(Any, kind)) if field.name in settings]
    return kind(**{name: settings.pop(name) for name in own})
