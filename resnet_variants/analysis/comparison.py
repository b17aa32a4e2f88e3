"""``Comparison``: the runs that may be compared, and the tables that follow from them.

A results folder is split into comparisons once, where it is read (``results.load_results``). Every
table, sentence and figure takes a ``Comparison``, or a sequence of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from resnet_variants.analysis.arms import network_of, setting_text, tuned_in, with_arms
from resnet_variants.analysis.depths import DEPTH_COLUMNS, ERRORS, TEST, TRAINING, errors_by_depth
from resnet_variants.analysis.diagnosis import DIAGNOSIS_COLUMNS, summarise_diagnoses
from resnet_variants.analysis.effects import EFFECT_COLUMNS, effects
from resnet_variants.analysis.endpoints import (
    ENDPOINT_COLUMNS,
    ENDPOINTS,
    PAIR_COLUMNS,
    by_endpoint,
    of_all_pairs,
)
from resnet_variants.analysis.factors import factors, short_labels
from resnet_variants.analysis.images import (
    CLASS_COLUMNS,
    HARDEST_COLUMNS,
    IMAGE_COLUMNS,
    Answers,
    answers_of,
    by_class,
    hardest,
    with_images,
)
from resnet_variants.analysis.predictions import PREDICTED, Predictions, judged
from resnet_variants.analysis.probabilities import CALIBRATION, ENSEMBLES, probability_tables
from resnet_variants.analysis.robustness import ROBUSTNESS_COLUMNS, robustness
from resnet_variants.analysis.summary import SUMMARY_COLUMNS, summarise
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.records.diagnosis import TABLES, Diagnosis, of_runs
from resnet_variants.records.pictures import HARDEST, Thumbnail, Thumbnails
from resnet_variants.records.predictions import Outcome
from resnet_variants.records.results_folder import EPOCH_COLUMNS
from resnet_variants.records.run_folder import DONE, Provenance, recipe_settings
from resnet_variants.records.schema import concatenated, names

# A comparison never mixes what these tell apart; `recipe` is the digest in the run's id.
KEY = ("dataset", "img_size", "epochs", "recipe", "precision", "device")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs that differ in nothing but their network, their varied settings and their seed.

    Attributes:
        key: the values of ``KEY`` that all the runs share.
        runs: ``RUN_COLUMNS``; failed and unfinished runs too.
        epochs: ``EPOCH_COLUMNS`` of these runs.
        baselines: model name -> name of the model it is compared with.
        diagnosis: the diagnosis tables of these runs.
        recipe: the settings of the recipe as text; empty where they are not recorded.
        networks: model, axes and costs of each network of all comparisons that were made together.
        latencies: milliseconds for one image by ``summary.LATENCY_OF``, where measured.
        names: what readers call a data set, by its id; one that is absent is called by its id.
        plan: what was fixed before the first run.
        stated: the predictions, whose arms may be in other comparisons.
        varied: the settings of the recipe that vary, each with its usual value.
        robust: those at each of whose values arms are compared.
        searched: what came out at each value that a search tried, see ``sweeps.search``.
        outcomes: what finished runs predicted for each test image, by ``run_id``, where kept.
        thumbnails: small pictures of some test images, as text.
    """

    key: Mapping[str, Any]
    runs: pd.DataFrame
    epochs: pd.DataFrame
    baselines: Mapping[str, str]
    diagnosis: Diagnosis
    recipe: Mapping[str, str]
    networks: pd.DataFrame
    latencies: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    stated: Predictions = field(default_factory=Predictions)
    varied: Mapping[str, str] = field(default_factory=dict)
    robust: Sequence[str] = ()
    searched: Sequence[Mapping[str, Any]] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    thumbnails: Thumbnails = field(default_factory=dict)

    @cached_property
    def labels(self) -> dict[str, str]:
        """The short label of each network, by its name: the same in all comparisons."""
        return short_labels(self.networks)

    @cached_property
    def factors(self) -> pd.DataFrame:
        """What the networks differ in, by their names: the same in all comparisons."""
        return factors(self.networks.set_index("model"))

    def labelled(self, names: pd.Series) -> pd.Series:
        """Short labels in place of networks' names."""
        return names.map(lambda name: self.labels.get(str(name), name))

    @property
    def data(self) -> str:
        """The images in a reader's words, or the data set's id and the size of the images."""
        dataset, size = str(self.key["dataset"]), self.key["img_size"]
        return self.names.get(dataset) or f"{dataset} at {size} px"

    @cached_property
    def done(self) -> pd.DataFrame:
        """The finished runs."""
        return self.runs[self.runs["status"] == DONE]

    @cached_property
    def done_epochs(self) -> pd.DataFrame:
        """The epochs of the finished runs."""
        return self.epochs[self.epochs["run_id"].isin(self.done["run_id"])]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per arm with a finished run: its axes, costs and settings."""
        finished = self.runs["model"].isin(self.done["model"])
        return self.runs[finished].drop_duplicates("model")

    @cached_property
    def settings(self) -> pd.DataFrame:
        """What each arm has of the varied settings, and of those that a search chose: as text."""
        varied = self.runs.drop_duplicates("model").set_index("model")[[*self.varied]]
        chosen = pd.DataFrame([row for row in self.searched if row["chosen"]])
        if chosen.empty:
            return varied
        own = chosen.drop_duplicates("arm").set_index("arm")[tuned_in(self.searched)]
        return varied.join(own.map(setting_text))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Test accuracy, (seeds, models); NaN where a seed has no finished run."""
        return self.scores_by("test_acc")

    def scores_by(self, endpoint: str) -> pd.DataFrame:
        """A number of finished runs, see ``endpoints.ENDPOINTS``: (seeds, models)."""
        return _by_seed(self.done, endpoint)

    @cached_property
    def common_scores(self) -> pd.DataFrame:
        """The largest part of ``scores`` without gaps."""
        return largest_complete(self.scores)

    @cached_property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The scores of each network and of its baseline, for the seeds that both have."""
        pairs = []
        for model in self.scores:
            base = self.baselines.get(str(model), "")
            if base in self.scores and base != model:
                both = self.scores[[model, base]].dropna()
                pairs.append((both[model].to_numpy(), both[base].to_numpy()))
        return pairs

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per network: ``SUMMARY_COLUMNS`` without the key."""
        scores = self.scores, self.common_scores
        fixed = self.baselines, self.latencies, self.plan
        frame = summarise(self.runs, *scores, *fixed, self.settings[[*self.varied]])
        return with_images(frame, self.answers).join(self.settings, on="model")

    @cached_property
    def by_class(self) -> pd.DataFrame:
        """One row per arm and class, where predictions were kept: ``CLASS_COLUMNS``, no key."""
        return by_class(self.answers, self.baselines)

    @property
    def calibration(self) -> pd.DataFrame:
        """One row per run and bin of confidence: ``CALIBRATION`` of ``probabilities``, no key."""
        return self._probabilities[0]

    @property
    def ensembles(self) -> pd.DataFrame:
        """One row per arm and number of its seeds: ``ENSEMBLES`` of ``probabilities``, no key."""
        return self._probabilities[1]

    @cached_property
    def _probabilities(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return probability_tables(self.done, self.outcomes)

    @cached_property
    def answers(self) -> dict[str, Answers]:
        """What each arm predicted for the test images, by its name; where that was kept."""
        return answers_of(self.done, self.outcomes)

    @cached_property
    def hardest(self) -> pd.DataFrame:
        """The hardest test images, where predictions were kept: ``HARDEST_COLUMNS``, no key.

        Further columns are ``data_hash``, and ``name`` and ``picture`` of the thumbnail, empty
        where there is none.
        """
        found, own = hardest(self.answers), self.own_thumbnails
        shown = [own.get(image, Thumbnail("", "")) for image in found["image"]]
        columns = pd.DataFrame(shown, columns=[*Thumbnail._fields], dtype=str)
        return found.assign(data_hash=self.data_hash).join(columns)

    @property
    def data_hash(self) -> str:
        """Of the images of its finished runs; empty where it was not recorded."""
        return str(self.done["data_hash"].iloc[0]) if len(self.done) else ""

    @property
    def own_thumbnails(self) -> Mapping[int, Thumbnail]:
        """The thumbnails of its test images, by their places in the split."""
        return self.thumbnails.get(self.data_hash, {})

    @cached_property
    def effects(self) -> pd.DataFrame:
        """One row per effect of an axis or of two: ``EFFECT_COLUMNS`` without the key."""
        return effects(self.cells, self.common_scores, self.baselines, self.plan)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per part of a prediction: ``PREDICTED`` without the key."""
        own, known = set(self.runs["model"]), set(self.networks["model"])
        each = [
            one
            for one in self.stated.each
            if one.models & own or not one.models & known  # of other comparisons otherwise
        ]
        return judged(replace(self.stated, each=tuple(each)), self.scores, self.plan)

    @cached_property
    def robustness(self) -> pd.DataFrame:
        """One row per arm, whatever its robust settings: ``ROBUSTNESS_COLUMNS``, no key."""
        return robustness(self.summary, self.varied, self.robust)

    @cached_property
    def search(self) -> pd.DataFrame:
        """One row per arm and value that a search tried; ``val_acc`` is NaN where a run failed."""
        return pd.DataFrame(self.searched).astype({"val_acc": float} if self.searched else {})

    @cached_property
    def endpoints(self) -> pd.DataFrame:
        """One row per endpoint and network with a baseline: ``ENDPOINT_COLUMNS``, no key."""
        scores = {name: self.scores_by(name) for name in ENDPOINTS}
        return by_endpoint(scores, self.baselines, self.plan)

    @cached_property
    def all_pairs(self) -> pd.DataFrame:
        """One row per pair of networks, if the plan asks for it: ``PAIR_COLUMNS``, no key."""
        if self.plan.compare != "all":
            return pd.DataFrame(columns=[*PAIR_COLUMNS])
        return of_all_pairs(self.scores, self.plan)

    @cached_property
    def errors_by_depth(self) -> pd.DataFrame:
        """Test and training error by depth: ``DEPTH_COLUMNS`` without the key.

        The training error is that of the last epoch's augmented images while the weights changed.
        """
        last = self.epochs.loc[self.epochs.groupby("run_id")["epoch"].idxmax()].set_index("run_id")
        done = self.done.assign(train_acc=self.done["run_id"].map(last["train_acc"]))
        return errors_by_depth(
            self.cells,
            {TEST: 1 - self.scores, TRAINING: 1 - _by_seed(done, "train_acc")},
            self.plan,
        )

    @cached_property
    def diagnosis_summary(self) -> pd.DataFrame:
        """One row per network and measure of the diagnosis: ``DIAGNOSIS_COLUMNS``, no key."""
        return summarise_diagnoses(self.diagnosis, self.baselines, self.plan)


def comparisons(
    runs: pd.DataFrame,
    baselines: Mapping[str, str],
    *,
    epochs: pd.DataFrame | None = None,
    diagnosis: Diagnosis | None = None,
    provenance: Provenance | None = None,
    **shared: Any,
) -> tuple[Comparison, ...]:
    """Split runs into those that may be compared with one another.

    The arguments are attributes of ``Comparison``, for all runs together. ``provenance`` has the
    settings of each recipe.
    """
    varied, tuned = shared.get("varied", {}), tuned_in(shared.get("searched", ()))
    runs = with_arms(runs, varied, provenance or {}, tuned)
    arms = dict(zip(runs["run_id"], runs["model"], strict=True))
    epochs = pd.DataFrame(columns=[*EPOCH_COLUMNS]) if epochs is None else epochs
    tables = diagnosis or {name: pd.DataFrame(columns=["run_id"]) for name in TABLES}
    if varied:
        tables = {name: _renamed(table, arms) for name, table in tables.items()}
        epochs = _renamed(epochs, arms)
    return tuple(
        Comparison(
            key=dict(zip(KEY, values, strict=True)),
            runs=own.drop(columns="recipe"),
            epochs=epochs[epochs["run_id"].isin(own["run_id"])],
            baselines=_of_arms(baselines, runs["model"]),
            diagnosis=of_runs(tables, own["run_id"]),
            recipe=_fixed(provenance or {}, str(values[KEY.index("recipe")]), {*varied, *tuned}),
            networks=runs.drop_duplicates("model"),
            **shared,
        )
        for values, own in runs.groupby([*KEY], sort=False)
    )


def _of_arms(baselines: Mapping[str, str], arms: pd.Series) -> dict[str, str]:
    """The baseline of every arm; its network's if it was no part of a folder's experiment."""
    by_network = {arm: baselines.get(network_of(arm), "") for arm in map(str, arms.unique())}
    return by_network | dict(baselines)


def _renamed(table: pd.DataFrame, arms: Mapping[str, str]) -> pd.DataFrame:
    """A table of runs with the names of their arms."""
    return table.assign(model=table["run_id"].map(arms))


def _fixed(provenance: Provenance, digest: str, apart: Collection[str]) -> dict[str, str]:
    """The settings of a recipe that all arms share, as text."""
    settings = recipe_settings(provenance, digest)
    return {name: text for name, text in settings.items() if name not in apart}


# Tables of a results folder by the names of their files: the attribute of ``Comparison`` that holds
# the table, and its first columns; any others follow.
JOINED: Mapping[str, tuple[str, Sequence[str]]] = {
    "summary": ("summary", (*SUMMARY_COLUMNS, *IMAGE_COLUMNS)),
    "effects": ("effects", (*KEY, *EFFECT_COLUMNS)),
    "predictions": ("predictions", (*PREDICTED, *KEY)),
    "endpoints": ("endpoints", (*KEY, *ENDPOINT_COLUMNS)),
    "pairs": ("all_pairs", (*KEY, *PAIR_COLUMNS)),
    "robustness": ("robustness", (*KEY, *ROBUSTNESS_COLUMNS)),
    "classes": ("by_class", (*KEY, *CLASS_COLUMNS)),
    "calibration": ("calibration", (*names(CALIBRATION), *KEY)),
    "ensembles": ("ensembles", (*names(ENSEMBLES), *KEY)),
    HARDEST: ("hardest", (*HARDEST_COLUMNS, *KEY)),
    ERRORS: ("errors_by_depth", (*KEY, *DEPTH_COLUMNS)),
    "diagnosis": ("diagnosis_summary", (*DIAGNOSIS_COLUMNS, *KEY)),
}


def joined(parts: Iterable[Comparison], name: str) -> pd.DataFrame:
    """A table of ``JOINED``: that of each comparison with its key as columns, one after another."""
    attribute, first = JOINED[name]
    table = concatenated((getattr(part, attribute).assign(**part.key) for part in parts), first)
    return table[[*first, *(name for name in table if name not in first)]]


def largest_complete(scores: pd.DataFrame) -> pd.DataFrame:
    """The part of ``scores`` (seeds, models) without gaps that holds most pairs of runs of a seed.

    Means over different seeds are not comparable. The part holds all models with at least some
    number of seeds, and the seeds that all these models have: one lost run removes its seed, a
    model that lost most of its runs is removed itself. Of two equal parts the one with more seeds
    is taken. The part is empty where no two models share a seed.
    """
    counts = scores.notna().sum().to_numpy()
    parts = [scores[scores.columns[counts >= n]].dropna() for n in np.unique(counts)[::-1]]
    largest = max(parts, key=_pairs_of_runs, default=scores.iloc[:0])
    return largest if _pairs_of_runs(largest) else scores.iloc[:0, :0]


def _pairs_of_runs(scores: pd.DataFrame) -> int:
    seeds, models = scores.shape
    return seeds * models * (models - 1) // 2


def _by_seed(done: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of finished runs, (seeds, models)."""
    return done.pivot(index="seed", columns="model", values=column).astype(float)
