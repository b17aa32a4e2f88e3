"""Results folders, one or several, read together and split into comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.comparison import Comparison, comparisons
from resnet_variants.analysis.predictions import Predictions
from resnet_variants.analysis.summary import LATENCY_OF
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.records.diagnosis import TABLES, Diagnosis, of_runs, read_diagnoses
from resnet_variants.records.files import Json, damaged, is_number
from resnet_variants.records.pictures import Thumbnail, Thumbnails, read_thumbnails
from resnet_variants.records.predictions import Outcome, read_outcomes
from resnet_variants.records.results_folder import (
    DATA_NAMES,
    IMAGE_COLUMNS,
    PLAN,
    ROBUST,
    SEARCH,
    SEARCHED,
    VARIED,
    planned_runs,
    read_epochs,
    read_experiment,
    read_runs_and_provenance,
    read_steps,
    running,
)
from resnet_variants.records.run_folder import (
    DONE,
    PLUGIN,
    Provenance,
    recipe_digest,
    recipe_settings,
)
from resnet_variants.registry import UserError

# Data set, digest of its splits, classes by places in the test split -> small pictures.
Decode = Callable[[str, str, Mapping[int, str]], Mapping[int, Thumbnail]]
LATENCIES = "latencies"  # in experiment.json, by the words of LATENCY_OF


@dataclass(frozen=True, eq=False)
class Results:
    """What results folders hold.

    Attributes:
        comparisons: the runs, split into those that may be compared.
        titles: name, question and expectation of each experiment.
        names: what readers call data sets, by their ids; of several names the first folder's.
        folders: the results folder of each run, by its id.
        unseen: runs that are planned and have not begun, and whether a process has them.
    """

    comparisons: Sequence[Comparison]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    baselines: Mapping[str, str]
    titles: Sequence[tuple[str, str, str]]
    names: Mapping[str, str]
    provenance: Provenance
    latencies: Mapping[tuple[str, ...], float]
    folders: Mapping[str, Path]
    unseen: Mapping[str, bool]
    diagnosis: Diagnosis
    outcomes: Mapping[str, Outcome]
    thumbnails: Thumbnails
    varied: Mapping[str, str]
    robust: Sequence[str]
    searched: Sequence[Json]

    def with_thumbnails(self, decode: Decode) -> Results:
        """The same with pictures of the hardest images that have none, as far as there are any."""
        found = {data_hash: dict(own) for data_hash, own in self.thumbnails.items()}
        asked: dict[tuple[str, str, str], dict[int, str]] = {}
        for part in self.comparisons:
            absent = part.hardest[part.hardest["picture"] == ""]
            if len(absent):
                split = str(part.done["split_hash"].iloc[0])
                images = dict(zip(absent["image"], absent["class"], strict=True))
                asked.setdefault((part.data_hash, str(part.key["dataset"]), split), {}).update(
                    images
                )
        if not asked:
            return self  # with what its comparisons have computed
        for (data_hash, dataset, split), images in asked.items():
            found.setdefault(data_hash, {}).update(decode(dataset, split, images))
        parts = tuple(replace(part, thumbnails=found) for part in self.comparisons)
        return replace(self, comparisons=parts, thumbnails=found)

    def finished_arms(self, arm: str = "") -> list[tuple[Comparison, str]]:
        """The arms with finished runs, each with its comparison: all, or those of a label or name.

        There are several of one label where it was trained under several conditions.
        """
        every = [
            (part, str(name)) for part in self.comparisons for name in part.done["model"].unique()
        ]
        return [(part, name) for part, name in every if arm in ("", name, part.labels[name])]

    def steps(self) -> pd.DataFrame:
        """The records of steps of all runs, read now: ``STEPS`` of ``records.schema``."""
        folders = self.runs["run_id"].map(self.folders)
        parts = [read_steps(Path(at), runs) for at, runs in self.runs.groupby(folders, sort=False)]
        return _joined(parts)


def load_results(folders: Sequence[Path], vary: Sequence[str] = ()) -> Results:
    """Read results folders together.

    Args:
        folders: one after another.
        vary: settings of the recipe in which arms may differ, beside those that the folders vary.
            The usual value of each is that of the first run.

    Raises:
        ValueError: no such folder, no runs, a damaged file; folders that have other baselines
            for a model, other results for a run, or other images under one name; or a setting that
            is not recorded.
    """
    require_folders(folders)
    runs, epochs, outcomes, unseen, provenance = _read(folders)
    copies = _joined(runs)
    kept = _without_copies(copies, folders)
    _require_same_images(kept, folders)
    where = {str(i): folders[at] for i, at in zip(kept["run_id"], kept["folder"], strict=True)}
    own_epochs = _joined(epochs).merge(kept[["run_id", "folder"]], on=["run_id", "folder"])
    own_epochs, kept = own_epochs.drop(columns="folder"), kept.drop(columns="folder")
    baselines, latencies = _baselines(folders), _latencies(folders)
    tables = {"epochs": own_epochs, "latencies": latencies, "outcomes": outcomes}
    tables["diagnosis"] = _diagnosis(copies, folders)
    tables["thumbnails"] = read_thumbnails(folders)
    if not where:
        raise UserError(f"{', '.join(repr(str(folder)) for folder in folders)} holds no runs yet")
    about = {"names": _names(folders), "plan": _plan(folders), "stated": _stated(folders)}
    about |= _varied(folders)
    for name in vary:
        if name in about["varied"]:
            raise UserError(f"{name} is varied in these folders already: drop it", field="vary")
        if any(name in row for row in about["searched"]):
            message = f"{name} was tuned in these folders, so that each arm has its own:"
            raise UserError(f"{message} report them apart from others", field="vary")
    about["varied"] |= _usual(vary, kept, provenance)
    parts = comparisons(kept, baselines, provenance=provenance, **about, **tables)
    _require_one_result(parts)
    return Results(
        comparisons=parts,
        runs=kept,
        baselines=baselines,
        titles=_titles(folders),
        names=about["names"],
        provenance=provenance,
        folders=where,
        unseen={run_id: busy for run_id, busy in unseen.items() if run_id not in where},
        **{name: about[name] for name in ("varied", "robust", "searched")},
        **tables,
    )


def _read(
    folders: Sequence[Path],
) -> tuple[list[pd.DataFrame], list[pd.DataFrame], dict[str, Outcome], dict[str, bool], Provenance]:
    """Runs and epochs of each folder, with its number; the rest of all folders."""
    runs, epochs = [], []
    unseen: dict[str, bool] = {}
    outcomes: dict[str, Outcome] = {}
    origins: list[Provenance] = []
    for at, folder in enumerate(folders):
        folder_runs, origin = read_runs_and_provenance(folder)
        runs.append(folder_runs.assign(folder=at))
        outcomes = read_outcomes(folder, folder_runs) | outcomes  # the first folder has priority
        epochs.append(read_epochs(folder, folder_runs).assign(folder=at))
        busy = running(folder)
        unseen |= {run_id: run_id in busy for run_id in planned_runs(folder)}
        origins.append(origin)
    return runs, epochs, outcomes, unseen, _together(origins)


def _diagnosis(copies: pd.DataFrame, folders: Sequence[Path]) -> Diagnosis:
    """The diagnosis tables of the runs; of copies of a run, the one with most tables."""
    own_ids = [copies.loc[copies["folder"] == at, "run_id"] for at in range(len(folders))]
    parts = [read_diagnoses(folder, ids) for folder, ids in zip(folders, own_ids, strict=True)]
    known = [Counter(chain(*(t["run_id"].unique() for t in part.values()))) for part in parts]
    best = {i: max(range(len(parts)), key=lambda at: known[at][i]) for i in copies["run_id"]}
    taken = [
        of_runs(part, [run_id for run_id in ids if best[run_id] == at])
        for at, (part, ids) in enumerate(zip(parts, own_ids, strict=True))
    ]
    return {name: _joined([part[name] for part in taken]) for name in TABLES}


def _without_copies(runs: pd.DataFrame, folders: Sequence[Path]) -> pd.DataFrame:
    """Each run once: a finished one before one that is not.

    Raises:
        ValueError: two that are finished differ, so they are not copies of one.
    """
    result = ["device", "precision", "status", "test_acc"]
    finished = runs[runs["status"] == DONE]
    several = finished[["run_id", *result]].drop_duplicates()
    other = several[several["run_id"].duplicated()]
    if len(other):
        run_id = other["run_id"].iloc[0]
        places = finished.loc[finished["run_id"] == run_id, "folder"]
        where = " and ".join(str(folders[at]) for at in places)
        raise UserError(
            f"{run_id} has another result, device or precision in {where}: report apart"
        )
    order = (runs["status"] != DONE).sort_values(kind="stable").index
    return runs.loc[order].drop_duplicates("run_id").sort_index().reset_index(drop=True)


def _require_same_images(runs: pd.DataFrame, folders: Sequence[Path]) -> None:
    """Refuse to compare runs whose images have one name and are not the same."""
    known = runs[runs["data_hash"] != ""]
    for (dataset, _), own in known.groupby(["dataset", "img_size"], sort=False):
        for name in IMAGE_COLUMNS:
            first = own.drop_duplicates(name)
            if len(first) > 1:
                (a, place), (b, other) = first[[name, "folder"]].to_numpy()[:2]
                message = (
                    f"{dataset} is not the same images in all runs ({name} {a} in "
                    f"{folders[place]}, {b} in {folders[other]})"
                )
                raise UserError(f"{message}: report them apart")


def _together(origins: Sequence[Provenance]) -> Provenance:
    """What is known of the runs of all folders.

    Raises:
        ValueError: parts of the runs come from two versions of one plugin.
    """
    provenance: Provenance = {}
    for name, values in chain.from_iterable(origin.items() for origin in origins):
        known = provenance.setdefault(name, [])
        known += [value for value in values if value not in known]
    for fact, versions in provenance.items():
        if fact.startswith(f"{PLUGIN} ") and len(versions) > 1:
            both = " and ".join(version[:12] for version in versions)
            message = f"the runs were made with several versions of the {fact} (SHA-256 {both})"
            raise UserError(f"{message}: report them apart")
    return provenance


def _require_one_result(parts: Sequence[Comparison]) -> None:
    """Refuse two runs of one network with one seed under one recipe."""
    for part in parts:
        twice = part.runs[part.runs.duplicated(["model", "seed"], keep=False)]
        if len(twice):
            first, second = twice["run_id"].iloc[:2]
            raise UserError(f"{first} and {second} are the same run twice: delete one of them")


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if not frame.empty] or frames[:1]
    return pd.concat(filled, ignore_index=True)


def require_folders(folders: Sequence[Path]) -> None:
    """Refuse what is no folder, before anything is read or made."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no results folder {str(folder)!r}")
        there = [name for name in ("runs", "runs.csv", SEARCH) if (folder / name).exists()]
        if there == [SEARCH]:
            message = f"{str(folder)!r} holds a search, and no runs yet"
            raise UserError(f"{message}: the same `run` goes on with it")


def _baselines(folders: Sequence[Path]) -> dict[str, str]:
    found: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        own = cast("Mapping[str, str]", read_experiment(folder).get("baselines", {}))
        for model, base in own.items():
            before, elsewhere = found.setdefault(model, (base, folder))
            if before != base:
                message = f"{model} is compared with {before} in {str(elsewhere)!r} and with {base}"
                raise UserError(f"{message} in {str(folder)!r}: report them apart")
    return {model: base for model, (base, _) in found.items()}


def _varied(folders: Sequence[Path]) -> dict[str, Any]:
    """The settings that vary in any folder with their usual values, and the robust ones.

    Raises:
        ValueError: two folders have other usual values; or these are no texts.
    """
    varied, robust, searched = dict[str, str](), list[str](), list[Json]()
    for folder in folders:
        content = read_experiment(folder)
        for name, value in cast("Mapping[str, str]", content.get(VARIED, {})).items():
            if varied.setdefault(name, value) != value:
                message = f"the usual {name} is {varied[name]} in one folder and {value} in another"
                raise UserError(f"{message}: report them apart")
        robust += cast("list[str]", content.get(ROBUST, []))
        searched += cast("list[Json]", content.get(SEARCHED, []))
    robust = list(dict.fromkeys(robust))
    return {"varied": varied, "robust": robust, "searched": searched}


def _usual(vary: Sequence[str], runs: pd.DataFrame, provenance: Provenance) -> dict[str, str]:
    """The value of each setting in the first run."""
    settings = recipe_settings(provenance, recipe_digest(str(runs["run_id"].iloc[0])))
    for name in vary:
        if name in runs:
            raise UserError(f"runs of other {name} are never compared", field="vary")
        if name not in settings:
            known = ", ".join(sorted(settings)) or "none"
            message = f"{name!r} is no recorded setting of these runs; recorded are {known}"
            raise UserError(message, field="vary")
    return {name: settings[name] for name in vary}


def _names(folders: Sequence[Path]) -> dict[str, str]:
    names: dict[str, str] = {}
    for folder in reversed(folders):
        names |= cast("Mapping[str, str]", read_experiment(folder).get(DATA_NAMES, {}))
    return names


def _plan(folders: Sequence[Path]) -> Plan:
    """What was fixed before the first run; of several folders the fewest seeds.

    Raises:
        ValueError: a damaged plan; or the folders have several margins or endpoints.
    """
    plans = []
    for folder in folders:
        try:
            plans.append(Plan.of(cast("Json", read_experiment(folder).get(PLAN, {}))))
        except UserError as error:
            raise damaged(folder / "experiment.json", f"in its {PLAN} {error}") from error
    first = plans[0]
    for plan, folder in zip(plans, folders, strict=True):
        for name in ("margin", "endpoint"):
            one, other = getattr(first, name), getattr(plan, name)
            if one != other:
                message = f"the {name} is {one} in {str(folders[0])!r} and {other}"
                raise UserError(f"{message} in {str(folder)!r}: report them apart")
    return replace(first, seeds=min(plan.seeds for plan in plans))


def _stated(folders: Sequence[Path]) -> Predictions:
    """The predictions of all folders, each once.

    A list that only some shares of an experiment have may have been made from the others' results.
    """
    own = [Predictions.in_folder(folder) for folder in folders]
    names = [read_experiment(folder).get("name") for folder in folders]
    lacking = any(
        one.each and one.each != other.each and name == names[at]
        for at, one in enumerate(own)
        for name, other in zip(names, own, strict=True)
    )
    lists = [stated.each for stated in own]
    each = [one for at, stated in enumerate(lists) if stated not in lists[:at] for one in stated]
    earlier = dict.fromkeys(texts for stated in own for texts in stated.earlier)
    return Predictions(tuple(each), lacking or any(one.late for one in own), tuple(earlier))


def _titles(folders: Sequence[Path]) -> list[tuple[str, str, str]]:
    titles = []
    for folder in folders:
        content = read_experiment(folder)
        name, question, expect = (content.get(key) or "" for key in ("name", "question", "expect"))
        words = "" if isinstance(expect, list) else str(expect)  # a list is of predictions
        titles.append((str(name or folder.resolve().name), str(question), words))
    return list(dict.fromkeys(titles))


def _kept_latencies(folder: Path) -> dict[tuple[str, ...], float]:
    kept = read_experiment(folder).get(LATENCIES, {})
    if not (isinstance(kept, dict) and all(map(is_number, kept.values()))):
        raise damaged(folder / "experiment.json", f"{LATENCIES} is no table of numbers")
    return {tuple(text.split()): float(latency) for text, latency in kept.items()}


def _latencies(folders: Sequence[Path]) -> dict[tuple[str, ...], float]:
    """Milliseconds for one image by ``LATENCY_OF``, where ``bench`` wrote into one of the folders.

    A report of several folders keeps their latencies in its ``experiment.json``.
    """
    latencies: dict[tuple[str, ...], float] = {}
    for folder in folders:
        latencies |= _kept_latencies(folder)
        for file in (folder / "bench.csv", *sorted(folder.glob("bench/*/bench.csv"))):
            if file.exists():
                latencies |= _measured_latencies(file)
    return latencies


def _measured_latencies(file: Path) -> dict[tuple[str, ...], float]:
    try:
        if not file.is_file():
            raise ValueError("it is no file")
        table = pd.read_csv(file, low_memory=False)
        if "latency_ms" not in table:  # it measured something else
            return {}
        table = table[["arm", *LATENCY_OF, "latency_ms"]].dropna()
        latencies = table["latency_ms"].astype(float)
        if not latencies.between(0, np.inf, inclusive="neither").all():
            raise ValueError("a latency is none")
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is no table of bench ({reason}): move it elsewhere") from error
    ours = table["arm"] == "ours"
    keys = table.loc[ours, [*LATENCY_OF]].astype(str).itertuples(index=False, name=None)
    return dict(zip(keys, latencies[ours], strict=True))
