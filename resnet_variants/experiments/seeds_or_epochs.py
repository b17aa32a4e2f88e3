"""Is it better to train longer or more often? Deviations between seeds by length of training.

``python experiments/seeds_or_epochs.py`` reads ``results/seeds_or_epochs``: two arms, several
seeds, several numbers of epochs; and the same arms of ``results/twelve_arms``, which were trained
longer. It writes ``lengths.csv`` and the figure ``lengths``:

accuracy        of the baseline, mean over seeds, in percent
difference      of the two arms, mean over paired seeds, in points
runs            standard deviation between seeds, pooled over both arms, in points
pairs           standard deviation of the paired differences, in points
pairs_needed    planned, for a verdict on a difference of ``POINT`` points in 80 % of cases
epochs_needed   epochs of training that these pairs take, of both arms together
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.statistics import estimate
from resnet_variants.analysis.verdicts import FEWEST, Plan, detectable
from resnet_variants.experiments.seed_spread import by_epochs, ends
from resnet_variants.records.manifest import write_files
from resnet_variants.reporting.figures.style import COLUMN, headline, rendered, styled
from resnet_variants.reporting.text import POINTS, span

OUT = Path(__file__).resolve().parents[2] / "results" / "seeds_or_epochs"
ARMS = "rv_resnet11_cifar_b", "rv_resnet11_cifar_d"
POINT = 0.5  # the difference, in points, that a verdict is wanted on
MOST = 1_000  # pairs
SHOWN = {"runs": "between seeds", "pairs": "of paired differences"}


def deviations(part: Comparison) -> dict[str, float]:
    """A row of the table: what the two arms of one length show."""
    usual, other = (part.scores[name].to_numpy() for name in ARMS)
    seeds, mean = len(usual), estimate(other - usual)
    runs = float(np.sqrt(np.mean([np.var(arm, ddof=1) for arm in (usual, other)])))
    pairs = float(np.std(other - usual, ddof=1))
    totals = (n for n in range(FEWEST, MOST) if detectable(POINTS * pairs, n, Plan(n)) <= POINT)
    needed = next(totals, MOST)
    epochs = int(part.key["epochs"])
    numbers = {"accuracy": float(usual.mean()), "difference": mean.mean}
    numbers |= {"difference_low": mean.low, "difference_high": mean.high}
    for name, deviation, freedom in (("runs", runs, 2 * seeds - 2), ("pairs", pairs, seeds - 1)):
        low, high = ends(deviation, freedom)
        numbers |= {name: deviation, f"{name}_low": low, f"{name}_high": high}
    costs = {"pairs_needed": needed, "epochs_needed": 2 * needed * epochs}
    points = {name: POINTS * value for name, value in numbers.items()}
    return {"epochs": epochs, "seeds": seeds, **points, **costs}


def drawn(table: pd.DataFrame) -> Figure:
    """The deviations, and what a verdict costs, by epochs."""
    with styled():
        figure = Figure(figsize=(2 * COLUMN, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        by_epochs(left, table, SHOWN)
        left.set_ylabel("standard deviation, points")
        by_epochs(right, table, {"epochs_needed": ""})
        right.set_ylabel(f"epochs for a verdict on {POINT} points")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        title = "test accuracy of ResNet-11 B and D, CIFAR-10 at 16 px"
        headline(figure, [title, f"{span(table['seeds'])} seeds"])
    return figure


def main(out: Path = OUT) -> None:
    """Write table and figure."""
    folders = out, out.with_name("twelve_arms")
    parts = [part for folder in folders for part in load_results([folder]).comparisons]
    table = pd.DataFrame([deviations(part) for part in parts]).sort_values("epochs")
    contents = {"lengths.csv": table.to_csv(index=False)}
    write_files(out, contents | rendered(drawn(table), "lengths"), keep=True)
    sys.stdout.write(table.round(2).to_string(index=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
