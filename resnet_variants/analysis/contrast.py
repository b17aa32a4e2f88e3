"""Two arms side by side: what differs in their settings, and in what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from resnet_variants.analysis.comparison import KEY, Comparison
from resnet_variants.analysis.images import CLASS_COLUMNS, Answers, Crossed, by_class, crossed
from resnet_variants.analysis.images import difference as by_image
from resnet_variants.analysis.results import Results, load_results, require_folders
from resnet_variants.analysis.statistics import SHARE, PairedComparison, paired_comparison
from resnet_variants.records.results_folder import (
    COST_COLUMNS,
    FURTHER_COLUMNS,
    IMAGE_COLUMNS,
    VARIANT_COLUMNS,
)
from resnet_variants.registry import UserError, refuse

_NO_FACTS = ("command", "recipe")  # provenance that differs by nature, or stands elsewhere
FLIPS = ("both right", "only the first right", "only the second right", "both wrong")


@dataclass(frozen=True, eq=False)
class Side:
    """One of two that are compared: finished runs of an arm.

    Attributes:
        name: what readers call it.
        scores: test accuracy by seed; of a single run, by 0.
        answers: for the test images, where they were kept; the seeds are those of ``scores``.
        facts: what may tell it from the other side, as text.
    """

    name: str
    scores: pd.Series
    answers: Answers | None
    facts: Mapping[str, str]


def sides(first: Path, second: Path) -> tuple[Side, Side]:
    """Two runs, or two results folders of one arm each.

    Raises:
        ValueError: no such folder, no finished run, or a folder of several arms.
    """
    one, other = (
        _run(path) if (path / "run.json").is_file() else _only_arm(path) for path in (first, second)
    )
    if one.name == other.name:
        one, other = replace(one, name=str(first)), replace(other, name=str(second))
    return one, other


def arms(folder: Path, first: str, second: str) -> tuple[Side, Side]:
    """Two arms of a results folder, by their labels or names.

    Raises:
        ValueError: no such folder or arm, or an arm that was trained under several conditions.
    """
    results = _loaded(folder)
    one, other = (_side(results, *_chosen(results, folder, arm)) for arm in (first, second))
    return one, other


def _loaded(folder: Path) -> Results:
    require_folders([folder])
    return load_results([folder])


def _only_arm(folder: Path) -> Side:
    results = _loaded(folder)
    return _side(results, *_chosen(results, folder, ""), name=folder.name)


def _run(path: Path) -> Side:
    folder = path.resolve().parent.parent
    results = _loaded(folder)
    for part in results.comparisons:
        own = part.done[part.done["run_id"] == path.resolve().name]
        if len(own):
            model = str(own["model"].iloc[0])
            name = f"{part.labels[model]} seed {own['seed'].iloc[0]}"
            return _side(results, part, model, own, name=name)
    raise UserError(f"{str(path)!r} is not finished: only finished runs are compared")


def _chosen(results: Results, folder: Path, arm: str) -> tuple[Comparison, str]:
    """The comparison and the model of an arm; the only one if ``arm`` is empty."""
    there = [
        (part, str(model)) for part in results.comparisons for model in part.done["model"].unique()
    ]
    labels = [part.labels[model] for part, model in there]
    if not there:
        raise UserError(f"{str(folder)!r} holds no finished run")
    found = [one for one, label in zip(there, labels, strict=True) if arm in ("", label, one[1])]
    if not found:
        refuse("arm", arm, dict.fromkeys(labels), field="")
    if len(found) > 1:
        own = ", ".join(dict.fromkeys(labels))
        message = "has several arms" if not arm else f"has {arm} under several conditions"
        raise UserError(f"{str(folder)!r} {message}: name two of its runs, or two arms of {own}")
    return found[0]


def _side(
    results: Results,
    part: Comparison,
    model: str,
    runs: pd.DataFrame | None = None,
    name: str = "",
) -> Side:
    """The finished runs of an arm, or a single one of them."""
    done = part.done[part.done["model"] == model] if runs is None else runs
    first, answers = done.iloc[0], part.answers.get(model)
    seeds = done["seed"].tolist()
    if answers is not None and not set(seeds) <= set(answers.seeds):
        answers = None
    if answers is not None:
        rows = [answers.seeds.index(seed) for seed in seeds]
        labels = tuple(seeds) if runs is None else (0,)
        answers = Answers(labels, answers.labels, answers.predicted[rows], answers.classes)
    shown = (*VARIANT_COLUMNS, *FURTHER_COLUMNS, *COST_COLUMNS, *IMAGE_COLUMNS)
    facts = {column: str(first[column]) for column in shown}
    facts |= {column: str(part.key[column]) for column in KEY if column != "recipe"}
    facts |= dict(part.recipe)
    facts |= {str(name): str(value) for name, value in part.settings.loc[model].items()}
    facts |= {
        label: ", ".join(values)
        for label, values in results.provenance.items()
        if label.split(" ")[0] not in _NO_FACTS
    }
    scores = pd.Series(done["test_acc"].to_numpy(float), seeds if runs is None else [0])
    return Side(name or part.labels[model], scores, answers, facts)


@dataclass(frozen=True, eq=False)
class Contrast:
    """What differs between two arms or runs; numbers are those of the second minus the first's."""

    first: Side
    second: Side

    def __post_init__(self) -> None:
        for fact in ("dataset", "img_size", "split_hash", "data_hash"):
            own, other = (side.facts[fact] for side in (self.first, self.second))
            if own != other and "" not in (own, other):
                message = f"{self.first.name} and {self.second.name} were tested on other images"
                raise UserError(f"{message}: {fact} {own} and {other}")

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

    @cached_property
    def _answers(self) -> tuple[Answers, Answers] | None:
        own, other = self.first.answers, self.second.answers
        if own is None or other is None or not set(own.seeds) & set(other.seeds):
            return None
        return own, other

    @cached_property
    def images(self) -> Crossed | None:
        """The difference for new seeds and new images; ``None`` without predictions."""
        return self._answers and crossed(by_image(self._answers[1], self._answers[0]))

    @cached_property
    def flips(self) -> pd.Series:
        """How often both, one or none of a pair of runs are right: shares by ``FLIPS``."""
        if self._answers is None:
            return pd.Series(dtype=float)
        own, other = (_of_common(answers, self._answers) for answers in self._answers)
        shares = (own & other, own & ~other, ~own & other, ~own & ~other)
        return pd.Series([float(share.mean()) for share in shares], index=[*FLIPS])

    @property
    def mcnemar_p(self) -> float:
        """The exact p of McNemar's test for a single pair of runs; NaN of several pairs."""
        if self.flips.empty or self.accuracy.pairs != 1 or self._answers is None:
            return np.nan
        images = len(self._answers[0].labels)
        only = [round(images * self.flips[name]) for name in FLIPS[1:3]]
        return float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Accuracy of the second by class, and the difference: ``CLASS_COLUMNS``."""
        if self._answers is None:
            return pd.DataFrame(columns=[*CLASS_COLUMNS])
        names = self.first.name, self.second.name
        table = by_class(
            dict(zip(("first", "second"), self._answers, strict=True)), {"second": "first"}
        )
        return table[table["model"] == "second"].replace(
            dict(zip(("first", "second"), names, strict=True))
        )

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


def _of_common(answers: Answers, both: Sequence[Answers]) -> np.ndarray:
    """Right answers of the seeds that both sides have: (seeds, images)."""
    common = sorted(set(both[0].seeds) & set(both[1].seeds))
    return answers.right[[answers.seeds.index(seed) for seed in common]]
