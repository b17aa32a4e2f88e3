"""The test images one by one: how far results hold for new images, and how the seeds differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import (
    ALPHA,
    DIFFERENCE,
    MEAN,
    SHARE,
    paired_comparison,
    student_quantile,
)
from resnet_variants.records.predictions import Outcome

# Columns of the summary: the difference for new images as well as new seeds, and what lies behind
# the deviation between the seeds of one arm.
IMAGE_COLUMNS = ("images_ci_low", "images_ci_high", "sd_of_seeds", "sd_of_images")


@dataclass(frozen=True, eq=False)
class Answers:
    """What the runs of an arm predicted for the test images.

    Attributes:
        seeds: of the runs.
        labels: (images,) class numbers.
        predicted: (seeds, images) class numbers.
        classes: their names.
    """

    seeds: tuple[int, ...]
    labels: np.ndarray
    predicted: np.ndarray
    classes: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Whether each answer is right: (seeds, images)."""
        return self.predicted == self.labels

    def of(self, seeds: Sequence[int]) -> Answers:
        """Those of some of the seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return replace(self, seeds=tuple(seeds), predicted=self.predicted[rows])


def answers_of(done: pd.DataFrame, outcomes: Mapping[str, Outcome]) -> dict[str, Answers]:
    """What each arm predicted, by its name; of arms and seeds whose predictions were kept.

    Args:
        done: finished runs that may be compared.
        outcomes: by ``run_id``.
    """
    found: dict[str, Answers] = {}
    kept = done[done["run_id"].isin(outcomes.keys())].sort_values("seed")
    for model, runs in kept.groupby("model", sort=False):
        own = [outcomes[run_id] for run_id in runs["run_id"]]
        predicted = np.stack([outcome.predicted for outcome in own])
        found[str(model)] = Answers(tuple(runs["seed"]), own[0].labels, predicted, own[0].classes)
    return found


# --- two sources of chance --------------------------------------------------------------------


@dataclass(frozen=True)
class Crossed:
    """A mean over seeds and images, for new seeds and new images.

    Attributes:
        mean: of all numbers.
        low: where its 95 % interval begins; NaN of fewer than two seeds or images.
        high: where it ends.
        sd_of_seeds: the deviation that the means of seeds would have on all images there are.
        sd_of_images: the deviation of the means of seeds that is due to the test images alone:
            that of independent errors, each with the rate of its image.
    """

    mean: float
    low: float
    high: float
    sd_of_seeds: float
    sd_of_images: float


def crossed(values: np.ndarray, limits: tuple[float, float] = (-np.inf, np.inf)) -> Crossed:
    """Analysis of variance of whole numbers by seed and image, both drawn at random.

    The variance of the mean is (MS_seeds + MS_images - MS_rest) / (seeds x images), without the
    images' part where that would be negative (Cornfield and Tukey, 1956), with Satterthwaite's
    degrees of freedom (1946). The interval is never shorter than that over the seeds alone. From 3
    seeds on, it held the difference of two networks in 94 to 96 % of simulations, that over the
    seeds alone in 71 to 96 % (``experiments/calibration.csv``).

    ``sd_of_seeds`` squared is the unbiased estimate of arXiv:2304.01910, equation 3, or 0 where it
    is negative.

    Args:
        values: (seeds, images), such as whether each answer is right, or the difference of two.
        limits: of the mean, where the interval ends.
    """
    seeds, images = values.shape
    if min(seeds, images) < 2:
        return Crossed(float(values.mean()) if values.size else np.nan, *[np.nan] * 4)
    total = float(values.mean())
    of_seeds = values.mean(axis=1) - total
    of_images = values.mean(axis=0) - total
    squares = float((values.astype(np.int64) ** 2).sum()) - values.size * total**2
    squares_seeds = images * float((of_seeds**2).sum())
    squares_images = seeds * float((of_images**2).sum())
    free = seeds - 1, images - 1, (seeds - 1) * (images - 1)
    rest = max(0.0, squares - squares_seeds - squares_images) / free[2]
    by_seed, by_image = squares_seeds / free[0], squares_images / free[1]
    variance = by_seed + max(0.0, by_image - rest)
    sds = max(0.0, (by_seed - rest) / images) ** 0.5, (rest / images) ** 0.5
    if not variance:  # accuracies are counts: equal ones do not mean that nothing varies
        return Crossed(total, np.nan, np.nan, *sds)
    parts = zip((by_seed, by_image, rest), free, strict=True)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    quantile = student_quantile(1 - ALPHA / 2, np.array([max(freedom, free[0]), free[0]]))
    halves = quantile * (np.array([variance, by_seed]) / values.size) ** 0.5  # both, seeds alone
    low, high = np.clip([total - halves.max(), total + halves.max()], *limits)
    return Crossed(total, float(low), float(high), *sds)


def difference(one: Answers, other: Answers) -> np.ndarray:
    """Right answers of one arm minus those of another, of the seeds that both have.

    Returns:
        (seeds, images): -1, 0 or 1.
    """
    common = [seed for seed in one.seeds if seed in other.seeds]
    return np.subtract(one.of(common).right, other.of(common).right, dtype=np.int8)


def with_images(summary: pd.DataFrame, answers: Mapping[str, Answers]) -> pd.DataFrame:
    """The summary with ``IMAGE_COLUMNS``; NaN where predictions were not kept."""
    rows = []
    for model, base in summary[["model", "baseline"]].itertuples(index=False):
        own, against = answers.get(model), answers.get(base)
        row: dict[str, float] = {}
        if own is not None:
            alone = crossed(own.right)
            row = {"sd_of_seeds": alone.sd_of_seeds, "sd_of_images": alone.sd_of_images}
        if own is not None and against is not None and own is not against:
            delta = crossed(difference(own, against), (-1.0, 1.0))
            row |= {"images_ci_low": delta.low, "images_ci_high": delta.high}
        rows.append(row)
    more = pd.DataFrame(rows, summary.index, [*IMAGE_COLUMNS], dtype=float)
    return pd.concat([summary, more], axis=1)


# --- classes ----------------------------------------------------------------------------------

CLASS_COLUMNS = ("model", "class", "images", "seeds", *MEAN, "baseline", "pairs", *DIFFERENCE)


def by_class(answers: Mapping[str, Answers], baselines: Mapping[str, str]) -> pd.DataFrame:
    """Accuracy by class, and its paired difference to the baseline: ``CLASS_COLUMNS``.

    One row per arm and class that has test images. Intervals are over seeds, each for itself.
    """
    rows = []
    shares = {model: _shares_by_class(own) for model, own in answers.items()}
    for model, own in shares.items():
        name = baselines.get(model, "")
        base = shares[name] if name in shares and name != model else own.iloc[:0]
        counts = np.bincount(answers[model].labels, minlength=own.shape[1])
        for number, title in enumerate(answers[model].classes):
            if counts[number]:
                about = {"model": model, "class": title, "images": counts[number], "baseline": name}
                rows.append(about | paired_comparison(own[number], base[number], SHARE).row)
    return pd.DataFrame(rows, columns=[*CLASS_COLUMNS])


def _shares_by_class(answers: Answers) -> pd.DataFrame:
    """The share of right answers: (seeds, classes); NaN of classes without images."""
    of_class = answers.labels[:, None] == np.arange(len(answers.classes))
    with np.errstate(invalid="ignore"):
        shares = answers.right.astype(np.float64) @ of_class / of_class.sum(axis=0)
    return pd.DataFrame(shares, index=[*answers.seeds])


def confusion(answers: Answers) -> np.ndarray:
    """How often images of a class (rows) get each answer (columns), over all seeds: shares.

    Returns:
        (classes, classes); NaN in the rows of classes without images.
    """
    n = len(answers.classes)
    pairs = answers.labels.astype(np.int64) * n + answers.predicted
    counts = np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


# --- single images ----------------------------------------------------------------------------

HARDEST_COLUMNS = ("image", "class", "runs", "right", "answer", "answered")
MOST = 24  # images that are listed


def hardest(answers: Mapping[str, Answers]) -> pd.DataFrame:
    """The test images that fewest runs of all arms get right: ``HARDEST_COLUMNS``.

    Of equal ones those come first whose wrong answers agree most, and of these the first of each
    class, then the second. ``image`` is a place in the test split, ``right`` the share of runs that
    are right, ``answer`` the class that the others take it for most often, ``answered`` the share
    of runs that do.
    """
    if not answers:
        return pd.DataFrame(columns=[*HARDEST_COLUMNS])
    first = next(iter(answers.values()))
    predicted = np.concatenate([own.predicted for own in answers.values()])
    right = (predicted == first.labels).mean(axis=0)
    last = np.sort(right)[:MOST][-1]
    rows: list[tuple[object, ...]] = []
    for image in np.flatnonzero((right <= last) & (right < 1)):
        label = first.labels[image]
        wrong = predicted[:, image][predicted[:, image] != label]
        answer = int(np.bincount(wrong).argmax())
        shares = float(right[image]), float((predicted[:, image] == answer).mean())
        title, other = first.classes[label], first.classes[answer]
        rows.append((int(image), title, len(predicted), shares[0], other, shares[1]))
    table = pd.DataFrame(rows, columns=[*HARDEST_COLUMNS])
    table["turn"] = table.groupby(["right", "answered", "class"]).cumcount()
    order = {"right": True, "answered": False, "turn": True, "image": True}
    table = table.sort_values([*order], ascending=[*order.values()])
    return table[[*HARDEST_COLUMNS]].head(MOST).reset_index(drop=True)
