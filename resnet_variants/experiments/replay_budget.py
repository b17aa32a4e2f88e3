"""What `run --budget` saves and what it misses, replayed: ``python experiments/replay_budget.py``.

Each design is given the same scores, and sees only those of the runs that it asks for:

nine seeds  of every network, then one look; the design that the others are measured by
six seeds   the same with the fewest seeds that a verdict takes
budgeted    six seeds, then the pairs that ``allocation.choose`` names, until it names none or the
            runs of nine seeds are used up

The scores are those of the committed results, and 1,000 simulated grids of twelve networks: two to
four differ from the baseline by 2 to 3 standard deviations of a run, the others by nothing. It
takes about ten minutes of one core and writes ``replay_budget.csv`` beside this file.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from resnet_variants.analysis import statistics, verdicts
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.verdicts import BETTER, EQUAL, UNDECIDED, WORSE, Plan
from resnet_variants.sweeps.allocation import choose, rows_of

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "results"
SIX, NINE = 6, 9  # seeds
GRIDS, NETWORKS, MOST = 1_000, 12, 24
WORKERS = 2  # runs at a time
PROCESSES = 4
SD = 0.01  # of a run's score
MARGINS = (0.0, 1.5)  # points


@dataclass(frozen=True)
class Outcome:
    """What a design found, and what it took."""

    verdicts: Mapping[str, str]
    runs: int
    seconds: float


def fixed(
    scores: pd.DataFrame,
    base: Mapping[str, str],
    cost: Mapping[str, float],
    margin: float,
    seeds: int = NINE,
) -> Outcome:
    """All networks with this number of seeds."""
    seen = scores.iloc[:seeds]
    arms = rows_of(seen, base, Plan(seeds, margin))
    seconds = sum(seeds * cost[str(name)] for name in seen)
    return Outcome({arm.name: arm.verdict for arm in arms}, seen.size, seconds)


def budgeted(
    scores: pd.DataFrame, base: Mapping[str, str], cost: Mapping[str, float], margin: float
) -> Outcome:
    """``SIX`` seeds of all networks, then the pairs that are chosen."""
    plan = Plan(SIX, margin)
    shown = pd.DataFrame(data=False, index=scores.index, columns=scores.columns)
    shown.iloc[:SIX] = True
    absent = {(str(name), seed) for name in scores for seed in range(len(scores), MOST)}
    whole = sum(NINE * cost[str(name)] for name in scores)
    while True:
        spent = sum(cost[str(name)] * int(shown[name].sum()) for name in shown)
        arms = rows_of(scores.where(shown), base, plan, absent)
        chosen = choose(arms, plan, cost, runs=WORKERS, left=whole - spent)
        if not chosen.pairs:
            runs = int(shown.to_numpy().sum())
            return Outcome({arm.name: arm.verdict for arm in arms}, runs, spent)
        for name, seed in (cell for pair in chosen.pairs for cell in pair):
            shown.loc[seed, name] = True


DESIGNS = {
    "nine seeds": fixed,
    "six seeds": functools.partial(fixed, seeds=SIX),
    "budgeted": budgeted,
}


# --- the scores -------------------------------------------------------------------------------


def simulated(rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, float]]:
    """Scores of a grid, (seeds, networks), and the true differences to the first network."""
    effects = np.zeros(NETWORKS)
    real = rng.choice(np.arange(1, NETWORKS), rng.integers(2, 5), replace=False)
    effects[real] = rng.uniform(2, 3, len(real)) * rng.choice([-1, 1], len(real))
    values = 0.8 + SD * (effects + rng.standard_normal((MOST, NETWORKS)))
    names = [f"network {i}" for i in range(NETWORKS)]
    return pd.DataFrame(values, columns=names), dict(zip(names, SD * effects, strict=True))


def is_false(verdict: str, truth: float, margin: float) -> bool:
    """Whether a verdict says what is not so."""
    if verdict.startswith(BETTER):
        return truth <= 0
    if verdict.startswith(WORSE):
        return truth >= 0
    return verdict == EQUAL and abs(truth) >= margin / 100


def replayed(task: tuple[float, int]) -> list[dict[str, object]]:
    """What each design does on one grid: its margin, and the number that its scores come from."""
    margin, number = task
    scores, truth = simulated(np.random.default_rng(number))
    _step_down_p.cache_clear()
    names, made = list(truth), []
    base, cost = dict.fromkeys(names, names[0]), dict.fromkeys(names, 1.0)
    for design, decide in DESIGNS.items():
        found = decide(scores, base, cost, margin)
        false = [is_false(word, truth[name], margin) for name, word in found.verdicts.items()]
        shown = [found.verdicts[name] not in (UNDECIDED, EQUAL) for name in names if truth[name]]
        share = found.runs / (NINE * NETWORKS)
        numbers = {"runs": found.runs, "share_of_runs": share, "share_of_hours": share}
        numbers |= {"undecided_rows": sum(w == UNDECIDED for w in found.verdicts.values())}
        numbers |= {"effects_found": float(np.mean(shown)), "familywise_error": float(any(false))}
        made.append({"margin": margin, "design": design} | numbers)
    return made


def simulation(grids: int) -> list[dict[str, object]]:
    """A row of each margin and design, over all grids."""
    tasks = [(margin, number) for margin in MARGINS for number in range(grids)]
    with ProcessPoolExecutor(PROCESSES, initializer=remember) as pool:
        each = pd.DataFrame([*chain.from_iterable(pool.map(replayed, tasks, chunksize=5))])
    means = each.groupby(["margin", "design"], sort=False).mean().round(4).reset_index()
    means.insert(0, "scores", f"{grids} simulated grids")
    return means.to_dict("records")  # type: ignore[return-value]


@functools.cache
def _step_down_p(
    scores: bytes, columns: int, side: Callable[[np.ndarray], np.ndarray], alpha: float
) -> np.ndarray:
    table = np.frombuffer(scores).reshape(-1, columns)
    return statistics.step_down_p(table, side, alpha=alpha)


def remember() -> None:
    """Let a process keep the p values of earlier looks, which ``judge`` computes every time."""

    def kept(
        scores: np.ndarray, side: Callable[[np.ndarray], np.ndarray], *, alpha: float = 1.0
    ) -> np.ndarray:
        return _step_down_p(scores.tobytes(), scores.shape[1], side, alpha).copy()

    verdicts.step_down_p = kept


def committed(folder: str) -> list[dict[str, object]]:
    """A row of each design on the scores of a results folder."""
    (part,) = load_results([RESULTS / folder]).comparisons
    seconds = part.done.groupby("model")["seconds"].mean()
    cost = {str(name): float(value) for name, value in seconds.items()}
    found = {
        design: decide(part.scores, part.baselines, cost, 0.0) for design, decide in DESIGNS.items()
    }
    whole, made = found["nine seeds"], []
    for design, own in found.items():
        words = [(whole.verdicts[name], word) for name, word in own.verdicts.items()]
        made.append(
            {
                "scores": folder,
                "margin": 0.0,
                "design": design,
                "runs": own.runs,
                "share_of_runs": round(own.runs / whole.runs, 3),
                "share_of_hours": round(own.seconds / whole.seconds, 3),
                "undecided_rows": sum(word == UNDECIDED for _, word in words),
                "same_verdicts": sum(one == other for one, other in words),
                "rows": len(words),
            }
        )
    return made


def main() -> None:
    """Replay, and write the table."""
    grids = int(sys.argv[1]) if len(sys.argv) > 1 else GRIDS
    rows = [*committed("bag_of_tricks"), *committed("digits_grid"), *simulation(grids)]
    table = pd.DataFrame(rows)
    table.to_csv(HERE / "replay_budget.csv", index=False)
    sys.stdout.write(table.to_string() + "\n")


if __name__ == "__main__":
    main()
