"""Which pairs of runs come next, once every arm has its planned seeds.

An arm is a network with the baseline that it is compared with. A pair is the two runs of one seed.

The rule takes the arm whose verdict is expected to cost the least, so that the number of undecided
rows falls as fast as it can for each hour:

1. **Need.** ``verdicts.pairs_for`` says by how many pairs a verdict is as likely as not. The
   difference seen is shrunk first: the arms that look best after six seeds were lucky too. The
   factor is 1 - (standard error / difference)^2, and 0 for a difference within its standard error
   (James and Stein's estimate for one mean).
2. **Cost.** The need times the seconds of the runs that are missing. Where a baseline has the seed
   already, a pair costs one run.
3. **Skipped.** An arm that needs more seeds than ``most_seeds``, or more time than is left, gets
   none: they would most likely be wasted.
4. **Floor.** The needs are rough after few seeds. So no arm may be ``_LEAD`` pairs ahead of another
   one that is not skipped.

The verdicts hold whatever the rule does, because ``verdicts.judge`` is valid at any number of seeds
up to the ``most_seeds`` that its level was simulated for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from resnet_variants.analysis.statistics import FEWEST, sign_flip_p
from resnet_variants.analysis.verdicts import UNDECIDED, Plan, judge, pairs_for

Cell = tuple[str, int]  # name of a network, seed
_TIMES = 4  # the planned seeds; `verdicts.level` was simulated up to there
_LEAD = 4  # pairs


def most_seeds(plan: Plan) -> int:
    """The number of seeds that no arm exceeds."""
    return _TIMES * max(plan.seeds, FEWEST)


@dataclass(frozen=True)
class Row:
    """A comparison with a baseline, as far as it has come.

    Attributes:
        name: of the network.
        verdict: see ``verdicts``.
        pairs: seeds that both networks have.
        mean: of the paired differences.
        sd: of the paired differences.
        p: of the paired differences.
        missing: the networks whose runs are missing, by each seed that can give a further pair.
    """

    name: str
    verdict: str
    pairs: int
    mean: float
    sd: float
    p: float
    missing: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True)
class Choice:
    """What comes next.

    Attributes:
        pairs: the runs of each pair that are missing and that no earlier pair has.
        skipped: why an undecided arm gets none, by its name.
    """

    pairs: Sequence[tuple[Cell, ...]]
    skipped: Mapping[str, str]


def rows_of(
    scores: pd.DataFrame, baselines: Mapping[str, str], plan: Plan, lost: Collection[Cell] = ()
) -> list[Row]:
    """The arms of a table, with the verdicts of its summary.

    Args:
        scores: more is better, (seeds, models); NaN where a seed has no finished run.
        baselines: model name -> name of the model it is compared with.
        plan: what was fixed before the first run.
        lost: runs that have ended without a score.
    """
    names = [n for n in map(str, scores) if baselines.get(n, n) != n and baselines[n] in scores]
    if not names:
        return []
    differences = pd.DataFrame({name: scores[name] - scores[baselines[name]] for name in names})
    verdicts = judge(differences.dropna(how="all").sort_index(), plan)["verdict"]
    there = {
        (str(name), int(seed)) for name in scores for seed in scores.index[scores[name].notna()]
    }
    arms = []
    for name in names:
        own = differences[name].dropna().to_numpy(float)
        missing: dict[int, tuple[str, ...]] = {}
        for seed in range(most_seeds(plan)):
            both = [(model, seed) for model in (baselines[name], name)]
            absent = tuple(model for model, seed in both if (model, seed) not in there)
            if absent and not set(both) & set(lost):
                missing[seed] = absent
        mean = float(own.mean()) if len(own) else math.nan
        sd = float(own.std(ddof=1)) if len(own) > 1 else math.nan
        verdict, p = str(verdicts[name]), sign_flip_p(own)
        arms.append(Row(name, verdict, len(own), mean, sd, p, missing))
    return arms


def choose(
    arms: Sequence[Row],
    plan: Plan,
    seconds: Mapping[str, float],
    *,
    runs: int,
    left: float = math.inf,
) -> Choice:
    """The pairs that come next, until they have at least this number of ``runs``.

    An arm gets no more pairs at once than it is expected to need.

    Args:
        arms: all comparisons; those that are decided get nothing.
        plan: what was fixed before the first run.
        seconds: that a run takes, by the name of its network.
        runs: as many as keep all workers busy.
        left: seconds of runs, one after another, that there is time for.
    """
    needs, skipped = dict[str, int](), dict[str, str]()
    for arm in arms:
        if arm.verdict in (UNDECIDED, ""):  # without a pair there is no verdict
            need = pairs_needed(arm, plan)
            why = _refusal(arm, need, _cost(arm, need, seconds), left)
            if why:
                skipped[arm.name] = why
            else:
                needs[arm.name] = int(need)
    hopeful = [arm for arm in arms if arm.name in needs]
    pairs, taken, given = list[tuple[Cell, ...]](), set[Cell](), Counter[str]()
    while hopeful and len(taken) < runs:
        arm = _next(hopeful, needs, seconds, taken, given)
        seed = list(arm.missing)[given[arm.name]]
        absent = ((name, seed) for name in arm.missing[seed])
        cells = tuple(cell for cell in absent if cell not in taken)
        pairs += [cells] if cells else []
        taken.update(cells)
        given[arm.name] += 1
        hopeful = [arm for arm in hopeful if given[arm.name] < needs[arm.name]]
    return Choice(pairs, skipped)


def pairs_needed(arm: Row, plan: Plan) -> float:
    """Further pairs until an arm is likely decided; inf where no number is enough.

    A difference is shown to be other than 0, from which it is ``d`` away, or to be within the
    margin, to which it has ``margin - d`` left. The larger of the two is shown earlier.
    """
    seen = abs(arm.mean)
    error = arm.sd / math.sqrt(max(arm.pairs, 1))
    shrunk = seen * max(0.0, 1 - (error / seen) ** 2) if seen > 0 else 0.0
    aim, p = max((shrunk, arm.p), (plan.least - shrunk, 0.0))
    return pairs_for(aim, arm.sd, arm.pairs, plan, p) - arm.pairs


def time_text(seconds: float) -> str:
    """A time in hours, or in minutes where it is short."""
    return f"{seconds / 3600:.1f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.1f} min"


def _refusal(arm: Row, need: float, cost: float, left: float) -> str:
    """Why an undecided arm gets no further pair; empty if it gets some."""
    if not arm.pairs:
        return "no seed has a finished run of it and of its baseline"
    if need > len(arm.missing):
        if not arm.missing:
            return "it has all the seeds that an arm may have"
        about = f"it is expected to take {need:.0f} more"
        if math.isinf(need):
            about = "no number of further seeds is expected to decide it"
        return f"{about}, and {len(arm.missing)} are the most"
    if cost > left:
        return f"its verdict takes about {time_text(cost)} of runs, and {time_text(left)} are left"
    return ""


def _next(
    arms: Sequence[Row],
    needs: Mapping[str, int],
    seconds: Mapping[str, float],
    taken: Collection[Cell],
    given: Mapping[str, int],
) -> Row:
    """The arm with the cheapest verdict, unless it is far ahead of another."""

    def cost(arm: Row) -> float:
        return _cost(arm, needs[arm.name], seconds, taken, given[arm.name])

    def pairs(arm: Row) -> int:
        return arm.pairs + given[arm.name]

    cheapest, last = min(arms, key=cost), min(arms, key=pairs)
    return last if pairs(cheapest) - pairs(last) >= _LEAD else cheapest


def _cost(
    arm: Row,
    need: float,
    seconds: Mapping[str, float],
    taken: Collection[Cell] = (),
    given: int = 0,
) -> float:
    """Seconds of the runs that an arm's next pairs lack."""
    seeds = list(arm.missing)[given : int(min(need, len(arm.missing)))]
    cells = ((name, seed) for seed in seeds for name in arm.missing[seed])
    return sum((seconds[name] for name, seed in cells if (name, seed) not in taken), 0.0)
