"""What the verdicts promise and what they cost, in simulations: ``make calibrate``.

Writes ``calibration.csv`` beside this file, one row per situation and number. Scores of arms are a
baseline's and others', of one seed each, with standard deviation 1; ``effect`` is in that unit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from resnet_variants.analysis.effects import effects
from resnet_variants.analysis.factors import cells_of
from resnet_variants.analysis.images import crossed
from resnet_variants.analysis.statistics import estimate
from resnet_variants.analysis.verdicts import (
    BETTER,
    EQUAL,
    UNDECIDED,
    WORSE,
    Plan,
    judge,
    level,
    two_sided_p,
)
from resnet_variants.models.grids import expand
from resnet_variants.sweeps.arms import arms_of
from resnet_variants.training.recipe import Recipe

TABLE = Path(__file__).with_name("calibration.csv")
REPEATS = 2000
MOST = 20  # seeds that are looked at; the rule of `allocation` goes to four times the planned ones
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def _unequal(draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return draw.normal(size=size) * np.linspace(0.4, 2.0, size[1])


def _skewed_and_unequal(draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return (draw.exponential(size=size) - 1) * np.linspace(2.0, 0.4, size[1])


NOISE: Mapping[str, Draw] = {
    "normal": lambda draw, size: draw.normal(size=size),
    "exponential": lambda draw, size: draw.exponential(size=size) - 1,
    "Student's t, 3 degrees": lambda draw, size: draw.standard_t(3, size) / 3**0.5,
    "normal, deviations 0.4 to 2": _unequal,
    "exponential, deviations 2 to 0.4": _skewed_and_unequal,  # differences are not symmetric
}


def differences(
    draw: np.random.Generator, noise: str, seeds: int, shifts: Sequence[float]
) -> pd.DataFrame:
    """Scores of arms minus those of a baseline that they share, (seeds, arms)."""
    scores = NOISE[noise](draw, (seeds, len(shifts) + 1))
    return pd.DataFrame(scores[:, 1:] - scores[:, :1] + np.asarray(shifts))


def false_at(noise: str, arms: int, seeds: int, planned: int, repeat: int) -> float:
    """Whether a table of arms that are equal gets a verdict; looks from ``planned`` on."""
    draw = np.random.default_rng([repeat, arms, seeds, planned])
    found = judge(differences(draw, noise, seeds, [0.0] * arms), Plan(planned))
    return float(found["verdict"].str.startswith((BETTER, WORSE)).any())


def false_effect(noise: str, seeds: int, repeat: int) -> float:
    """Whether any effect of a 2 x 3 x 2 grid without effects gets a verdict."""
    draw = np.random.default_rng([repeat, seeds])
    grid = {"family": "cifar", "depth": 29, "stem": ["conv3", "deep"], "order": ["post", "preact"]}
    variants, _ = expand(grid | {"downsample": ["1x1", "3x3", "3x3+avgpool"]})
    names = [variant.name for variant in variants]
    scores = pd.DataFrame(NOISE[noise](draw, (seeds, len(names))), columns=names)
    cells = cells_of(arms_of(variants, Recipe(), {}))
    found = effects(cells, scores, dict.fromkeys(names, names[0]), Plan(seeds))
    return float((found["verdict"] != UNDECIDED).any())


def false_equal(seeds: int, sd: float, repeat: int) -> float:
    """Whether an arm that differs by the margin from the baseline is called equal."""
    draw = np.random.default_rng([repeat, seeds, 1])
    columns = differences(draw, "normal", seeds, [1.0] * 3) * sd
    columns += 0.01 - sd  # a margin of one point
    return float((judge(columns, Plan(margin=1.0))["verdict"] == EQUAL).any())


def covered(seeds: int, image_sd: float, seed_sd: float, of: str, repeat: int) -> float:
    """Whether an interval holds no difference between two networks that differ by chance alone.

    Chance moves the logit of each of 600 images, whose mean is 2 and deviation 2: by ``image_sd``
    for a network, by ``seed_sd`` for a seed of it. ``of`` names the interval.
    """
    draw = np.random.default_rng([repeat, 3])
    common = draw.normal(2, 2, 600)
    one, other = (
        common + draw.normal(0, image_sd, 600) + draw.normal(0, seed_sd, (seeds, 1)) for _ in "AB"
    )
    rights = [draw.random(logits.shape) < 1 / (1 + np.exp(-logits)) for logits in (one, other)]
    delta = np.subtract(*rights, dtype=np.int8)
    interval = crossed(delta) if of == NEW_IMAGES else estimate(delta.mean(axis=1))
    return float(interval.low <= 0 <= interval.high)


def decision(effect: float, arms: int, repeat: int) -> tuple[float, float]:
    """Further seeds that an arm with a real difference took after six, and those foreseen there.

    The other arms have none. NaN where six seeds decide, infinite where twice ``MOST`` do not.
    """
    draw, shifts = np.random.default_rng([repeat, 2]), [effect] + [0.0] * (arms - 1)
    columns = 0.01 * differences(draw, "normal", 2 * MOST, shifts)
    plan = Plan(margin=effect)
    first = judge(columns[: plan.seeds], plan).to_dict("records")[0]
    if first["verdict"] != UNDECIDED:
        return np.nan, np.nan
    foreseen = float(first["more_seeds"])
    for further in range(1, 2 * MOST - plan.seeds + 1):
        seen = columns[: plan.seeds + further].to_numpy()
        if two_sided_p(seen)[0] <= level(len(seen), plan.seeds):
            return float(further), foreseen
    return np.inf, foreseen


_LATER = (  # looks that begin later, or go on longer: noise, comparisons, planned, seeds
    *(("normal", arms, 12, MOST) for arms in (1, 11)),
    *((noise, 11, 9, 36) for noise in ("normal", "exponential")),
    *((noise, 11, 6, 24) for noise in ("normal", "exponential")),
)
NEW_IMAGES, NEW_SEEDS = "held, new seeds and images", "held, new seeds"
_SPREADS = ((0.0, 0.0), (0.5, 0.05), (1.0, 0.05), (0.5, 0.3), (0.0, 0.3))  # see `covered`
Row = tuple[str, Callable[[int], float], Mapping[str, object]]


def rows() -> Iterator[Row]:
    """What is simulated: the name of a number, a simulation of it, and the situation."""
    for noise, arms, seeds in product(NOISE, (1, 11), (6, 9, 12)):
        own = {"noise": noise, "comparisons": arms, "planned": seeds, "seeds": seeds}
        yield "false verdict", partial(false_at, noise, arms, seeds, seeds), own
    for noise, arms, planned, seeds in [*product(NOISE, (1, 11), (6,), (MOST,)), *_LATER]:
        own = {"noise": noise, "comparisons": arms, "planned": planned, "seeds": seeds}
        yield "false verdict at any look", partial(false_at, noise, arms, seeds, planned), own
    for noise, seeds in [*product(("normal",), (6, 9, 12)), *product(list(NOISE)[1:4], (9,))]:
        own = {"noise": noise, "comparisons": 9, "planned": seeds, "seeds": seeds}
        yield "false effect", partial(false_effect, noise, seeds), own
    for seeds, (images, own_seeds) in product((3, 6, 9, MOST), _SPREADS):
        own = {"noise": f"logits: images {images:g}, seeds {own_seeds:g}"}
        own |= {"comparisons": 1, "planned": seeds, "seeds": seeds}
        for name in (NEW_IMAGES, NEW_SEEDS):
            yield name, partial(covered, seeds, images, own_seeds, name), own
    for seeds, sd in [*product((6, 9, 12, MOST), (0.003,)), (9, 0.001), (9, 0.01)]:
        own = {"noise": "normal", "comparisons": 3, "planned": 6, "seeds": seeds, "sd": sd}
        yield "false equal", partial(false_equal, seeds, sd), own


def _mean(simulate: Callable[[int], float]) -> float:
    return float(np.mean([simulate(repeat) for repeat in range(REPEATS)]))


def _foreseen(effect: float, arms: int) -> dict[str, object]:
    """Median of the further seeds that were foreseen, over the median of those that were taken."""
    pairs = np.array([decision(effect, arms, repeat) for repeat in range(REPEATS // 4)])
    took, foreseen = np.median(pairs[~np.isnan(pairs[:, 0])], axis=0)
    own = {"noise": "normal", "comparisons": arms, "planned": 6, "seeds": 2 * MOST}
    number = {"number": "further seeds, foreseen over taken", "share": foreseen / took}
    return own | {"effect": effect, "taken": took} | number


def main() -> None:
    """Simulate, and write the table."""
    np.seterr(all="ignore")
    names, simulations, situations = zip(*rows(), strict=True)
    with ProcessPoolExecutor(int(sys.argv[1]) if sys.argv[1:] else os.cpu_count()) as pool:
        shares = pool.map(_mean, simulations)
        further = pool.map(_foreseen, *zip(*product((1.5, 2.0, 2.5), (1, 11)), strict=True))
        done = []
        for about, name, share in zip(situations, names, shares, strict=True):
            done.append({**about, "number": name, "share": share})
            pd.DataFrame(done).to_csv(TABLE, index=False, lineterminator="\n")
        pd.DataFrame([*done, *further]).to_csv(TABLE, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
