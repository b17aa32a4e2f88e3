"""Two arms side by side: what differs in their settings, and in what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from resnet_variants.analysis.arms import network_of
from resnet_variants.analysis.comparison import KEY, Comparison
from resnet_variants.analysis.images import Answers, Crossed, by_class, crossed, difference
from resnet_variants.analysis.results import Results, load_results, require_folders
from resnet_variants.analysis.statistics import SHARE, PairedComparison, paired_comparison
from resnet_variants.records.results_folder import (
    COST_COLUMNS,
    FURTHER_COLUMNS,
    IMAGE_COLUMNS,
    VARIANT_COLUMNS,
)
from resnet_variants.records.run_folder import Provenance, RunFolder, note_provenance
from resnet_variants.registry import UserError, refuse

_NO_FACTS = ("command", "recipe")  # provenance that differs by nature, or stands elsewhere
FLIPS = ("both right", "only the first right", "only the second right", "both wrong")


@dataclass(frozen=True, eq=False)
class Side:
    """One of two that are compared: finished runs of an arm.

    Attributes:
        name: what readers call it.
        place: the results folder or the run's folder, and the arm; the same for the same runs.
        scores: test accuracy by seed.
        answers: for the test images, of seeds whose predictions were kept; ``None`` without any.
        facts: what may tell it from the other side, as text.
    """

    name: str
    place: tuple[Path, str]
    scores: pd.Series
    answers: Answers | None
    facts: Mapping[str, str]

    def of(self, seeds: Sequence[int], numbers: Sequence[int]) -> Side:
        """The runs of these seeds alone, which are called by other ``numbers``."""
        scores = self.scores[[*seeds]].set_axis([*numbers])
        own = self.answers
        if own is None or not set(seeds) <= set(own.seeds):
            return replace(self, scores=scores, answers=None)
        return replace(self, scores=scores, answers=replace(own.of(seeds), seeds=tuple(numbers)))


def compared(first: Path, second: Path) -> Contrast:
    """Two runs, which are one pair whatever their seeds; or two folders of one arm, or one of each.

    Raises:
        ValueError: no such folder, no finished run, a folder of several arms, no seed in common, or
            other test images.
    """
    runs = [(path / "run.json").is_file() for path in (first, second)]
    one, other = (
        _run(path) if is_run else _only_arm(path)
        for path, is_run in zip((first, second), runs, strict=True)
    )
    if one.name == other.name:
        one, other = replace(one, name=str(first)), replace(other, name=str(second))
    return _paired(one, other, alone=all(runs))


def arms_compared(folder: Path, first: str, second: str) -> Contrast:
    """Two arms of a results folder, by their labels or names.

    Raises:
        ValueError: no such folder or arm, an arm that was trained under several conditions, or no
            seed in common.
    """
    results = _loaded(folder)
    one, other = (_side(results, *_chosen(results, folder, arm)) for arm in (first, second))
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


def _loaded(folder: Path) -> Results:
    require_folders([folder])
    return load_results([folder])


def _only_arm(folder: Path) -> Side:
    results = _loaded(folder)
    return replace(_side(results, *_chosen(results, folder, "")), name=folder.resolve().name)


def _run(path: Path) -> Side:
    path = path.resolve()
    results = _loaded(path.parent.parent)
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
        message = "has several arms" if not arm else f"has {arm} under several conditions"
        raise UserError(f"{str(folder)!r} {message}: name two of its runs, or two arms of {own}")
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
    place, scores = (folder.resolve(), model), done["test_acc"].astype(float)
    return Side(part.labels[model], place, scores, part.answers.get(model), facts)


def _origin(folder: Path, run_ids: Sequence[str], provenance: Provenance) -> Provenance:
    """Machine and software of these runs; without raw runs, of all runs of the folder."""
    if (folder / "runs").is_dir():
        provenance = {}
        for run_id in run_ids:
            note_provenance(provenance, RunFolder(folder / "runs" / run_id).config())
    return {name: own for name, own in provenance.items() if name.split(" ")[0] not in _NO_FACTS}


@dataclass(frozen=True, eq=False)
class Contrast:
    """What differs between two sides of the same seeds; numbers are the second's minus the first's.

    Two runs alone are both called seed 0.
    """

    first: Side
    second: Side

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
        own, other = (answers.right for answers in self._answers)
        only = int((own & ~other).sum()), int((~own & other).sum())
        return float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Accuracy of both by class, and the difference: ``CLASS_COLUMNS``."""
        names = self.first.name, self.second.name
        answers = {} if self._answers is None else dict(zip(names, self._answers, strict=True))
        return by_class(answers, {names[1]: names[0]})

    @cached_property
    def apart(self) -> pd.DataFrame:
        """The images by how much oftener one side is right, those most apart first.

        Columns are ``image`` (its place in the test split), ``class``, and the shares of runs of
        either side that are right: ``first``, ``second``.
        """
        if self._answers is None:
            return pd.DataFrame(columns=["image", "class", "first", "second"])
        own, other = (answers.right.mean(axis=0) for answers in self._answers)
        order = np.argsort(-np.abs(own - other), kind="stable")
        order = order[np.abs(own - other)[order] > 0]
        classes = np.array(self._answers[0].classes)[self._answers[0].labels[order]]
        columns = {"image": order, "class": classes, "first": own[order], "second": other[order]}
        return pd.DataFrame(columns)
