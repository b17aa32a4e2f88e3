"""Two arms side by side: what differs in their settings, and in what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from resnet_variants.analysis.arms import network_of
from resnet_variants.analysis.comparison import KEY, Comparison
from resnet_variants.analysis.images import MOST, Answers, Crossed, by_class, crossed, difference
from resnet_variants.analysis.results import Decode, Results, load_results
from resnet_variants.analysis.statistics import SHARE, PairedComparison, paired_comparison
from resnet_variants.records.files import Json
from resnet_variants.records.pictures import Thumbnail
from resnet_variants.records.results_folder import (
    COST_COLUMNS,
    FURTHER_COLUMNS,
    IMAGE_COLUMNS,
    VARIANT_COLUMNS,
)
from resnet_variants.records.run_folder import Provenance, RunFolder, note_provenance, recorded_data
from resnet_variants.registry import UserError, refuse, require, require_path

_NO_FACTS = ("command", "recipe")  # provenance that differs by nature, or stands elsewhere
_FOLDERS = {2: (0, 1), 3: (0,), 4: (0, 2)}  # by the number of words: which ones are folders
FLIPS = ("both right", "only the first right", "only the second right", "both wrong")


@dataclass(frozen=True, eq=False)
class Side:
    """One of two that are compared: finished runs of an arm.

    Attributes:
        name: what readers call it.
        place: the results folder or the run's folder, and the arm; the same for the same runs.
        spec: of the images.
        data: the same in a reader's words.
        scores: test accuracy by seed.
        answers: for the test images, of seeds whose predictions were kept; ``None`` without any.
        epochs: of these runs, ``seed`` and what curves show.
        facts: what may tell it from the other side, as text.
        thumbnails: small pictures of some test images, as text, by their places in the split.
    """

    name: str
    place: tuple[Path, str]
    spec: str
    data: str
    scores: pd.Series
    answers: Answers | None
    epochs: pd.DataFrame
    facts: Mapping[str, str]
    thumbnails: Mapping[int, Thumbnail]

    def of(self, seeds: Sequence[int], numbers: Sequence[int]) -> Side:
        """The runs of these seeds alone, which are called by other ``numbers``."""
        scores = self.scores[[*seeds]].set_axis([*numbers])
        called = self.epochs["seed"].map(dict(zip(seeds, numbers, strict=True)))
        epochs = self.epochs.assign(seed=called).dropna(subset="seed").astype({"seed": int})
        answers = self.answers
        if answers is not None:
            kept = set(seeds) <= set(answers.seeds)
            answers = replace(answers.of(seeds), seeds=tuple(numbers)) if kept else None
        return replace(self, scores=scores, epochs=epochs, answers=answers)


def contrast(*what: str | Path) -> Contrast:
    """What ``compare`` is given: two results folders or runs; or one or two folders and two arms.

    Raises:
        ValueError: no such folder, finished run or arm; no seed in common, or other test images.
    """
    if len(what) not in _FOLDERS:
        message = "name two results folders, two runs, a results folder and two of its arms, or two"
        raise UserError(f"{message} results folders with an arm of each")
    folders = [require_path("what", what[at]) for at in _FOLDERS[len(what)]]
    arms = [word for at, word in enumerate(what) if at not in _FOLDERS[len(what)]]
    for arm in arms:
        require("what", arm, str, "an arm's label or name")
    if not arms:
        return _folders_compared(*folders)
    one, other = zip((folders * 2)[:2], map(str, arms), strict=True)
    return _arms_compared(one, other)


def _folders_compared(first: Path, second: Path) -> Contrast:
    """Two runs, one pair whatever their seeds; or two folders of one arm each; or one of each."""
    runs = [(path / "run.json").is_file() for path in (first, second)]
    one, other = (
        _run(path) if is_run else _only_arm(path)
        for path, is_run in zip((first, second), runs, strict=True)
    )
    if one.name == other.name:
        one, other = replace(one, name=str(first)), replace(other, name=str(second))
    return _paired(one, other, alone=all(runs))


def _arms_compared(first: tuple[Path, str], second: tuple[Path, str]) -> Contrast:
    """Two arms, each by its results folder and its label or name."""
    found = {folder: load_results([folder]) for folder, _ in (first, second)}
    one, other = (
        _side(found[folder], *_chosen(found[folder], folder, arm))
        for folder, arm in (first, second)
    )
    same = one.name == other.name or one.place[1] == other.place[1]
    if same and one.place != other.place:
        one, other = (
            replace(side, name=f"{side.name} in {folder}")
            for side, (folder, _) in ((one, first), (other, second))
        )
    return _paired(one, other)


def _paired(one: Side, other: Side, *, alone: bool = False) -> Contrast:
    """The seeds that both sides have; of two runs ``alone`` the one pair."""
    if one.place == other.place:
        raise UserError(f"{one.name} is named twice: name something else to compare it with")
    for fact in ("dataset", "img_size", "split_hash", "data_hash"):
        own, others = one.facts[fact], other.facts[fact]
        if own != others and "" not in (own, others):
            message = f"{one.name} and {other.name} were tested on other images"
            raise UserError(f"{message}: {fact} {own} and {others}")
    if alone:
        return Contrast(*(side.of([*side.scores.index], [0]) for side in (one, other)))
    common = sorted({*one.scores.index} & {*other.scores.index})
    if not common:
        raise UserError(f"{one.name} and {other.name} have no seed in common: nothing is paired")
    return Contrast(*(side.of(common, common) for side in (one, other)))


def _only_arm(folder: Path) -> Side:
    results = load_results([folder])
    return replace(_side(results, *_chosen(results, folder, "")), name=folder.resolve().name)


def _run(path: Path) -> Side:
    path = path.resolve()
    results = load_results([path.parent.parent])
    for part in results.comparisons:
        own = part.done[part.done["run_id"] == path.name]
        if len(own):
            model, seed = str(own["model"].iloc[0]), int(own["seed"].iloc[0])
            side = _side(results, part, model, path.name)
            name = f"{part.labels[model]} seed {seed}"
            return replace(side.of([seed], [seed]), name=name, place=(path, ""))
    raise UserError(f"{str(path)!r} is not finished: only finished runs are compared")


def _chosen(results: Results, folder: Path, arm: str) -> tuple[Comparison, str]:
    """The comparison and the model of an arm; the only one if ``arm`` is empty."""
    found = results.finished_arms(arm)
    labels = [part.labels[model] for part, model in results.finished_arms()]
    if not labels:
        raise UserError(f"{str(folder)!r} holds no finished run")
    if not found:
        refuse("arm", arm, dict.fromkeys(labels), field="")
    if len(found) > 1:
        own = ", ".join(dict.fromkeys(labels))
        message = f"has {arm} under several conditions: name two of its runs"
        if not arm:
            message = f"has several arms: name two of its runs, or two arms of {own}"
        raise UserError(f"{str(folder)!r} {message}")
    return found[0]


def _side(results: Results, part: Comparison, model: str, run_id: str = "") -> Side:
    """The finished runs of an arm; the machine and the software are those of one run if given."""
    done = part.done[part.done["model"] == model].set_index("seed").sort_index()
    first, folder = done.iloc[0], results.folders[str(done["run_id"].iloc[0])]
    shown = (*VARIANT_COLUMNS, *FURTHER_COLUMNS, *COST_COLUMNS, *IMAGE_COLUMNS)
    facts = {column: str(first[column]) for column in shown} | {"model": network_of(model)}
    facts |= {column: str(part.key[column]) for column in KEY if column != "recipe"}
    facts |= dict(part.recipe)
    facts |= {str(name): str(value) for name, value in part.settings.loc[model].items()}
    origin = _origin(folder, [run_id] if run_id else done["run_id"].tolist(), results.provenance)
    facts |= {label: ", ".join(values) for label, values in origin.items()}
    epochs = part.done_epochs[part.done_epochs["model"] == model]
    return Side(
        name=part.labels[model],
        place=(folder.resolve(), model),
        spec=recorded_data(_config(folder, str(first["run_id"])) or dict(part.key)),
        data=part.data,
        scores=done["test_acc"].astype(float),
        answers=part.answers.get(model),
        epochs=epochs[["seed", "epoch", "train_loss", "val_acc"]],
        facts=facts,
        thumbnails=part.own_thumbnails,
    )


def _config(folder: Path, run_id: str) -> Json | None:
    """The configuration of a run; ``None`` without raw runs."""
    return RunFolder(folder / "runs" / run_id).config() if (folder / "runs").is_dir() else None


def _origin(folder: Path, run_ids: Sequence[str], provenance: Provenance) -> Provenance:
    """Machine and software of these runs; without raw runs, of all runs of the folder."""
    configs = [*filter(None, (_config(folder, run_id) for run_id in run_ids))]
    provenance = {} if configs else provenance
    for config in configs:
        note_provenance(provenance, config)
    return {name: own for name, own in provenance.items() if name.split(" ")[0] not in _NO_FACTS}


@dataclass(frozen=True, eq=False, repr=False)
class Contrast:
    """What differs between two sides of the same seeds; numbers are the second's minus the first's.

    Two runs alone are both called seed 0.
    """

    first: Side
    second: Side

    def __repr__(self) -> str:
        """What is compared."""
        return f"Contrast({self.second.name!r} against {self.first.name!r})"

    @cached_property
    def settings(self) -> pd.DataFrame:
        """What differs in network, recipe, machine and software, and nothing else."""
        own, other = self.first.facts, self.second.facts
        names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
        rows = [(name, own.get(name, ""), other.get(name, "")) for name in names]
        return pd.DataFrame(rows, columns=["setting", "first", "second"])

    @cached_property
    def accuracy(self) -> PairedComparison:
        """Test accuracy of the second, and the difference, paired by seed."""
        return paired_comparison(self.second.scores, self.first.scores, SHARE)

    @property
    def _answers(self) -> tuple[Answers, Answers] | None:
        own, other = self.first.answers, self.second.answers
        return None if own is None or other is None else (own, other)

    @cached_property
    def images(self) -> Crossed | None:
        """The difference for new seeds and new images; ``None`` without predictions."""
        return self._answers and crossed(difference(*self._answers[::-1]), (-1.0, 1.0))

    @cached_property
    def flips(self) -> pd.Series:
        """How often both, one or none of a pair of runs are right: shares by ``FLIPS``."""
        if self._answers is None:
            return pd.Series(dtype=float)
        own, other = (answers.right for answers in self._answers)
        shares = (own & other, own & ~other, ~own & other, ~own & ~other)
        return pd.Series([float(share.mean()) for share in shares], index=[*FLIPS])

    @property
    def mcnemar_p(self) -> float:
        """The exact p of McNemar's test for a single pair of runs; NaN of several pairs."""
        if self._answers is None or self.accuracy.pairs != 1:
            return np.nan
        from scipy.stats import binomtest  # which takes most of a second to import

        own, other = (answers.right for answers in self._answers)
        only = int((own & ~other).sum()), int((~own & other).sum())
        return float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Accuracy of both by class, and the difference: ``CLASS_COLUMNS``."""
        names = self.first.name, self.second.name
        answers = {} if self._answers is None else dict(zip(names, self._answers, strict=True))
        return by_class(answers, {names[1]: names[0]})

    @property
    def epochs(self) -> pd.DataFrame:
        """The epochs of both sides, whose names are the ``model``."""
        sides = (self.first, self.second)
        return pd.concat([side.epochs.assign(model=side.name) for side in sides])

    @property
    def thumbnails(self) -> Mapping[int, Thumbnail]:
        """Small pictures of some test images, by their places in the split."""
        return {**self.second.thumbnails, **self.first.thumbnails}

    def illustrated(self, decode: Decode) -> Contrast:
        """The same with pictures of the images that are most apart.

        Args:
            decode: takes the SPEC in place of the data set's id.
        """
        shown = self.apart.head(MOST)
        shown = shown[~shown["image"].isin(self.thumbnails.keys())]
        if shown.empty:
            return self
        absent = dict(zip(shown["image"], shown["class"], strict=True))
        more = decode(self.first.spec, self.first.facts["split_hash"], absent)
        return replace(self, first=replace(self.first, thumbnails={**self.thumbnails, **more}))

    @cached_property
    def apart(self) -> pd.DataFrame:
        """The images by how much oftener one side is right, those most apart first.

        Of equal ones, the first of each class come first, then the second, and so on.
        Columns are ``image`` (its place in the test split), ``class``, and the shares of runs of
        either side that are right: ``first``, ``second``.
        """
        if self._answers is None:
            return pd.DataFrame(columns=["image", "class", "first", "second"])
        counts = [answers.right.sum(axis=0) for answers in self._answers]  # of equally many runs
        own, other = (count / self.accuracy.pairs for count in counts)
        classes = np.array(self._answers[0].classes)[self._answers[0].labels]
        table = pd.DataFrame({"class": classes, "first": own, "second": other})
        table.insert(0, "image", table.index)
        gap = pd.Series(np.abs(np.subtract(*counts, dtype=np.int64)))
        turn = table.groupby([gap, "class"]).cumcount()
        order = pd.DataFrame({"gap": -gap, "turn": turn})[gap > 0].sort_values(["gap", "turn"])
        return table.loc[order.index].reset_index(drop=True)
