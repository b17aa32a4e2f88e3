"""Predictions: what is said about arms before the first run, and what became of it.

    A < B < C < D                every choice is better than the one before it
    preact - post > 0.2          a difference is above, or ``<`` below, a number of points
    D - B within 0.1             a difference is smaller than a number, in either direction
    44 plain < 20 plain          words are choices of axes: the arms that have all of them
    A < B where depth 20, post   only arms with these choices

Words that several arms have mean all of these. Two sides are compared pair by pair: each arm of one
side with the arm of the other side that differs in nothing but what the sides name. The mean over
the pairs counts. A prediction is a list of contrasts of arms, each against a number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from resnet_variants.analysis.factors import downsample, word
from resnet_variants.analysis.statistics import DIFFERENCE, estimate
from resnet_variants.analysis.verdicts import BETTER, UNDECIDED, WORSE, Plan, judge
from resnet_variants.records.files import Json, damaged, is_number
from resnet_variants.records.results_folder import PLAN, PREDICTIONS, read_experiment
from resnet_variants.registry import UserError, refuse

PREDICTED = (
    *("number", "prediction", "verdict", "part", "part_verdict", *DIFFERENCE),
    *("p_adjusted", "seeds", "stated"),
)
HELD, FAILED = "held", "failed"
ABOVE, BELOW, WITHIN = "above", "below", "within"  # where a difference is predicted to be
AFTER, CHANGED = "stated after the first result", "changed after the first result"
_MOST = 100.0  # points between two accuracies
_SLACK = 1e-5  # points by which all predictions must be able to hold
_SIGN = re.compile(r"\s*([<>])\s*|\s+(-|within)\s+")
_SAY = "say 'A < B < C', 'A - B > 0.2' or 'A - B within 0.1' with choices in place of the letters"
_NO_AXES = ("model", "preset", "downsample")
_JOINED = {  # an axis that is made of others
    "preset": ("stem", "stride", "shortcut"),
    "downsample": ("stride", "shortcut"),
}


@dataclass(frozen=True)
class Part:
    """A contrast of arms against a number.

    Attributes:
        contrast: in words.
        arms: the weight of each arm's accuracy, by the name of its network.
        side: where the contrast is predicted to be.
        points: the number.
    """

    contrast: str
    arms: Mapping[str, float]
    side: str
    points: float

    @property
    def bounds(self) -> list[tuple[float, int]]:
        """The numbers, and on which side of each (1: above, -1: below) the contrast must be."""
        if self.side == WITHIN:
            return [(-self.points, 1), (self.points, -1)]
        return [(self.points, 1 if self.side == ABOVE else -1)]


@dataclass(frozen=True)
class Prediction:
    """A statement, which holds if all its parts do."""

    text: str
    parts: tuple[Part, ...]

    @property
    def models(self) -> set[str]:
        """The networks of its arms."""
        return {model for part in self.parts for model in part.arms}


@dataclass(frozen=True)
class Predictions:
    """The predictions of an experiment.

    Attributes:
        each: in the order of the file.
        late: whether there were results when they were stated.
        earlier: former lists that they replaced when there were results.
    """

    each: tuple[Prediction, ...] = ()
    late: bool = False
    earlier: tuple[tuple[str, ...], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The statements."""
        return tuple(prediction.text for prediction in self.each)

    @property
    def sha256(self) -> str:
        """The digest of the statements, one a line: what ``sha256sum`` says of such a file."""
        return hashlib.sha256("".join(f"{text}\n" for text in self.texts).encode()).hexdigest()

    @property
    def stated(self) -> str:
        """What a reader must know of when they were stated; empty if before the first result."""
        return (CHANGED if self.earlier else AFTER) if self.late else ""

    def record(self) -> Json:
        """What ``experiment.json`` holds in its plan; nothing where nothing was predicted."""
        if not self.each:
            return {}
        parts = [[asdict(part) for part in prediction.parts] for prediction in self.each]
        content = {"list": list(self.texts), "sha256": self.sha256, "parts": parts}
        earlier = [list(texts) for texts in self.earlier]
        return {PREDICTIONS: {**content, "late": self.late, "earlier": earlier}}

    @classmethod
    def in_folder(cls, out: Path) -> Predictions:
        """Those that a results folder has recorded.

        Raises:
            ValueError: the record was edited by hand.
        """
        plan = cast("Mapping[str, Any]", read_experiment(out).get(PLAN, {}))
        content = plan.get(PREDICTIONS)
        if content is None:
            return cls()
        try:
            each = zip(content["list"], content["parts"], strict=True)
            read = cls(
                tuple(Prediction(text, tuple(map(_part_from, own))) for text, own in each),
                bool(content["late"]),
                tuple(map(tuple, content["earlier"])),
            )
            known = content["sha256"]
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{PREDICTIONS} are no record of them"
            raise damaged(out / "experiment.json", reason) from error
        if read.sha256 != known:
            raise damaged(out / "experiment.json", f"{PREDICTIONS} are not those of their SHA-256")
        return read

    def after(self, before: Predictions) -> Predictions:
        """What counts in a folder that has results, and that has recorded others before."""
        if not self.each or self.each == before.each:
            return before
        former = (before.texts,) if before.each else ()
        return replace(self, late=True, earlier=(*before.earlier, *former))


def _part_from(record: Mapping[str, Any]) -> Part:
    """A part from ``experiment.json``.

    Raises:
        ValueError: it is none.
    """
    part = Part(**record)
    weights = part.arms.values() if isinstance(part.arms, dict) else ()
    numbers = [*weights, part.points]
    if not (weights and all(map(is_number, numbers)) and part.side in (ABOVE, BELOW, WITHIN)):
        raise ValueError("no part of a prediction")
    return part


# --- reading statements -----------------------------------------------------------------------


def parse(statements: Sequence[str], cells: pd.DataFrame) -> Predictions:
    """The predictions that the statements make about the networks.

    Args:
        statements: see the top of this file.
        cells: one row per network, see ``factors.cells_of``.

    Raises:
        ValueError: a statement that cannot be read, or names no arm; or statements that cannot all
            hold. The message is one line.
    """
    arms, each = _Arms(cells), []
    for statement in statements:
        text = " ".join(statement.split())
        if text in [prediction.text for prediction in each]:
            raise UserError(f"{text!r} is stated twice", field="expect")
        try:
            each.append(Prediction(text, tuple(_parts(text, arms))))
        except UserError as error:
            raise UserError(f"{text!r}: {error}", field="expect") from error
    _refuse_contradictions(each)
    return Predictions(tuple(each))


def _parts(text: str, arms: _Arms) -> Iterator[Part]:
    statement, *conditions = re.split(r"\s+where\s+", text.strip())
    first, *rest = (piece for piece in _SIGN.split(statement) if piece is not None)
    signs, terms = rest[::2], [first, *rest[1::2]]
    known = all(terms) and not re.search(r"[=≤≥]", statement) and len(conditions) < 2
    if not known or not signs:
        raise UserError(_SAY)
    where = conditions[0] if conditions else ""
    if set(signs) in ({"<"}, {">"}):
        for one, other in pairwise(terms):
            if _number(other) is not None and not arms.knows(other):
                raise UserError(f"{other} is a number, and {one!r} no difference: {_SAY}")
            high, low = (one, other) if signs[0] == ">" else (other, one)
            yield Part(f"{high} - {low}", arms.contrast(high, low, where), ABOVE, 0.0)
        return
    if len(signs) != 2 or signs[0] != "-" or signs[1] == "-":
        raise UserError(_SAY)
    one, other, bound = terms
    side = {">": ABOVE, "<": BELOW, "within": WITHIN}[signs[1]]
    points = _number(bound)
    if points is None or not abs(points) < _MOST or (side == WITHIN and points <= 0):
        wanted = "above 0 and below 100" if side == WITHIN else "between -100 and 100"
        raise UserError(f"{bound!r} must be a number of points {wanted}")
    yield Part(f"{one} - {other}", arms.contrast(one, other, where), side, points)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class _Arms:
    """The networks of an experiment, found by their choices.

    Attributes:
        frame: a row for each network and a column for each axis, as text.
        words: the axis and choice that each spelling means; the axes that vary come first.
    """

    def __init__(self, cells: pd.DataFrame) -> None:
        frame = cells.astype(object).astype(str).reset_index(drop=True)
        if min(frame["stride"].nunique(), frame["shortcut"].nunique()) > 1:
            frame.insert(0, "downsample", downsample(frame))
        self.frame = frame
        self.words: dict[str, list[tuple[str, str]]] = {}
        for axis in sorted(self.frame, key=lambda axis: self.frame[axis].nunique() < 2):
            for choice in filter(None, self.frame[axis].unique()):
                spelt = {choice, word(str(axis), choice), f"{axis} {choice}"}
                for spelling in spelt:
                    self.words.setdefault(spelling, []).append((str(axis), choice))

    def knows(self, text: str) -> bool:
        """Whether the words are choices."""
        return text in self.words

    def contrast(self, one: str, other: str, where: str) -> dict[str, float]:
        """The weights of the arms in the mean difference of the pairs.

        Raises:
            ValueError: a side names no arm, or an axis that the other does not name; or the sides
                have no pair.
        """
        given = self._choices(where.replace(",", " ")) if where else {}
        sides = [self._choices(text) for text in (one, other)]
        if {*sides[0]} != {*sides[1]}:
            left, right = (" and ".join(own) for own in sides)
            message = f"{one!r} names {left}, and {other!r} names {right}"
            raise UserError(f"{message}: name the same axes on both sides, or use 'where'")
        if twice := given.keys() & sides[0]:
            raise UserError(f"{min(twice)} is named on the sides and after 'where': drop one")
        left, right = (self._keyed(own, given) for own in sides)
        pairs = [(left[key], right[key]) for key in left if key in right]
        if not pairs:
            raise UserError(f"no arm {one!r} differs from an arm {other!r} in nothing else")
        weights: dict[str, float] = {}
        for names, sign in zip(zip(*pairs, strict=True), (1, -1), strict=True):
            for name in names:
                weights[name] = weights.get(name, 0.0) + sign / len(pairs)
        return weights

    def _keyed(
        self, own: Mapping[str, str], given: Mapping[str, str]
    ) -> dict[tuple[str, ...], str]:
        """The arms with these choices, by their choices of all axes that are left."""
        tied = {part for axis in own for part in _JOINED.get(axis, ())}
        groups = self.frame.groupby([*own], sort=False)
        left = [
            axis
            for axis in map(str, self.frame)
            if axis not in (*_NO_AXES, *own, *tied) and groups[axis].nunique().max() > 1
        ]
        chosen = [self.frame[axis] == choice for axis, choice in {**own, **given}.items()]
        rows = self.frame[np.logical_and.reduce(chosen)]
        return dict(zip(rows[left].itertuples(index=False, name=None), rows["model"], strict=True))

    def _choices(self, text: str) -> dict[str, str]:
        """The choice of each axis that is named."""
        words, chosen = text.split(), dict[str, str]()
        while words:
            # The longest spelling counts: `order post` is one, and `post` alone too.
            lengths = (n for n in range(len(words), 0, -1) if " ".join(words[:n]) in self.words)
            n = next(lengths, 0)
            if not n:
                self._refuse(words[0])
            axis, choice = self._meant(" ".join(words[:n]))
            if axis in chosen:
                raise UserError(f"{text!r} names two choices of {axis}")
            chosen[axis] = choice
            words = words[n:]
        return chosen

    def _meant(self, spelling: str) -> tuple[str, str]:
        """The axis and choice of a spelling; of several the one that networks differ in."""
        readings = self.words[spelling]
        varied = [axis for axis, _ in readings if self.frame[axis].nunique() > 1]
        if len(varied) > 1 and varied[0] != "downsample":  # which grids spell like the stride
            axes = " and ".join(varied)
            raise UserError(f"{spelling!r} is a choice of {axes}: say '{varied[0]} {spelling}'")
        return readings[0]

    def _refuse(self, text: str) -> NoReturn:
        """Refuse words that are no choices, with the nearest that are."""
        varied = [axis for axis in self.frame if self.frame[axis].nunique() > 1]
        plain = [
            word(str(axis), choice)
            for axis in varied
            if axis != "model"
            for choice in filter(None, self.frame[axis].unique())
        ]
        refuse("arm or choice", text, dict.fromkeys(plain))


def _refuse_contradictions(predictions: Sequence[Prediction]) -> None:
    """Refuse predictions that no accuracies of the arms meet together, and name the fewest."""
    if _can_hold(predictions):
        return
    culprits = [*predictions]
    for prediction in predictions:
        others = [one for one in culprits if one is not prediction]
        culprits = culprits if _can_hold(others) else others
    *first, last = (repr(one.text) for one in culprits)
    both = f"{', '.join(first)} and {last} cannot all hold" if first else f"{last} cannot hold"
    raise UserError(f"{both}, whatever the accuracies are", field="expect")


def _can_hold(predictions: Sequence[Prediction]) -> bool:
    """Whether some accuracies meet all predictions: a linear program looks for the most room."""
    parts = [part for prediction in predictions for part in prediction.parts]
    models = list(dict.fromkeys(model for part in parts for model in part.arms))
    rows, ends = [], []
    for part in parts:
        for number, sign in part.bounds:
            rows.append([*(-sign * part.arms.get(model, 0.0) for model in models), 1.0])
            ends.append(-sign * number)
    if not rows:
        return True
    limits = [*[(0.0, _MOST)] * len(models), (None, 1.0)]  # of the accuracies, and of the room
    found = linprog([*[0.0] * len(models), -1.0], A_ub=rows, b_ub=ends, bounds=limits)
    return bool(-found.fun > _SLACK)


# --- judging ----------------------------------------------------------------------------------


def judged(predictions: Predictions, scores: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """One row per part of a prediction: ``PREDICTED``; differences are fractions.

    A part asks on which side of a number, or of two, a contrast of arms is. All these questions are
    one table of ``verdicts.judge``, so that the verdicts on all predictions hold together.

    Args:
        predictions: of the experiment.
        scores: test accuracy, (seeds, models); NaN where there is none.
        plan: what was fixed before the first run.
    """
    if not predictions.each:
        return pd.DataFrame(columns=[*PREDICTED])
    parts = [part for prediction in predictions.each for part in prediction.parts]
    contrasts, columns, scales = [], [], []
    for part in parts:
        own = scores.reindex(columns=[*part.arms]) @ pd.Series(part.arms)
        contrasts.append(own)
        columns += [own - number / _MOST for number, _ in part.bounds]
        scales += [float(np.linalg.norm([*part.arms.values()]))] * len(part.bounds)
    table = pd.concat(dict(enumerate(columns)), axis=1).sort_index()
    answers = judge(table, Plan(plan.seeds), np.array(scales))
    questions = iter(answers.itertuples())
    outcomes = iter(
        _outcome(part, own.dropna(), [next(questions) for _ in part.bounds])
        for part, own in zip(parts, contrasts, strict=True)
    )
    rows = []
    for number, prediction in enumerate(predictions.each, start=1):
        about = {"number": number, "prediction": prediction.text}
        own = [next(outcomes) for _ in prediction.parts]
        verdict = _together([str(outcome["part_verdict"]) for outcome in own])
        rows += [{**about, "verdict": verdict, **outcome} for outcome in own]
    return pd.DataFrame(rows).assign(stated=predictions.stated)[[*PREDICTED]]


def _outcome(part: Part, values: pd.Series, answers: Sequence[Any]) -> dict[str, object]:
    """What became of a part, from the answers to its questions."""
    signs = [{BETTER: 1, WORSE: -1}.get(answer.verdict, 0) for answer in answers]
    wanted = [sign for _, sign in part.bounds]
    against = [sign == -side for sign, side in zip(signs, wanted, strict=True)]
    verdict = FAILED if any(against) else HELD if signs == wanted else UNDECIDED
    weights = np.array([*part.arms.values()])
    found = estimate(values.to_numpy(float), (weights.clip(max=0).sum(), weights.clip(min=0).sum()))
    p = [answer.p_adjusted for answer in answers]
    return {
        "part": part.contrast,
        "part_verdict": verdict,
        **dict(zip(DIFFERENCE, (found.mean, found.low, found.high), strict=True)),
        "p_adjusted": p[against.index(True)] if any(against) else max(p),
        "seeds": len(values),
    }


def _together(verdicts: Sequence[str]) -> str:
    """The verdict on a whole prediction."""
    if FAILED in verdicts:
        return FAILED
    return UNDECIDED if UNDECIDED in verdicts else HELD
