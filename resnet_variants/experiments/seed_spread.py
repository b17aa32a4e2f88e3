"""How much of the deviation between seeds is luck with single images, by the length of training.

``python experiments/seed_spread.py`` reads ``results/seed_spread``: 30 seeds of ResNet-8 at several
numbers of epochs. It writes ``spread.csv`` and the figure ``spread`` there:

observed      the standard deviation of the seeds' test accuracies
independent   what it would be if each seed erred on each image for itself, with the image's share
              of errors over all seeds
remaining     what would remain on infinitely many images (arXiv:2304.01910, equation 3)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import chi2

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.statistics import ALPHA
from resnet_variants.records.manifest import write_files
from resnet_variants.reporting.figures.style import COLUMN, PALETTE, headline, rendered, styled
from resnet_variants.reporting.text import POINTS

OUT = Path(__file__).resolve().parents[2] / "results" / "seed_spread"
SHOWN = {name: name for name in ("observed", "independent", "remaining")}  # columns: labels


def ends(deviation: float, freedom: int) -> np.ndarray:
    """The 95 % interval of a standard deviation, of normal values."""
    return deviation * np.sqrt(freedom / chi2.ppf([1 - ALPHA / 2, ALPHA / 2], freedom))


def by_epochs(axes: Axes, table: pd.DataFrame, shown: Mapping[str, str]) -> None:
    """A line for each column with its label, with bars where the column has an interval."""
    looks = zip(("o-", "s--", "^:"), PALETTE, strict=False)
    for at, ((name, label), (line, color)) in enumerate(zip(shown.items(), looks, strict=False)):
        places = table["epochs"] * 1.02**at  # bars beside each other
        axes.plot(places, table[name], line, color=color, label=label)
        if f"{name}_low" in table:
            bars = [table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]]
            axes.errorbar(places, table[name], yerr=bars, fmt="none", color=color)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table["epochs"], map(str, table["epochs"]))
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epochs of training")


def spread(part: Comparison) -> dict[str, float]:
    """The deviations of the only arm, in points, and the 95 % interval of the observed one."""
    (row,) = part.summary.to_dict("records")
    seeds, observed = int(row["n"]), float(row["test_acc_sd"])
    low, high = ends(observed, seeds - 1)
    numbers = {"accuracy": row["test_acc_mean"], "observed": observed}
    numbers |= {"observed_low": low, "observed_high": high}
    numbers |= {"independent": row["sd_of_images"], "remaining": row["sd_of_seeds"]}
    points = {name: POINTS * float(value) for name, value in numbers.items()}
    return {"epochs": int(part.key["epochs"]), "seeds": seeds} | points


def drawn(table: pd.DataFrame) -> Figure:
    """The deviations by epochs."""
    with styled():
        figure = Figure(figsize=(COLUMN, 3.4), layout="constrained")
        axes = figure.add_subplot()
        by_epochs(axes, table, SHOWN)
        axes.set_ylabel("standard deviation, points")
        figure.legend(loc="outside lower center", ncols=len(SHOWN))
        seeds = " to ".join(map(str, sorted({table["seeds"].min(), table["seeds"].max()})))
        headline(figure, ["test accuracy of ResNet-8, CIFAR-10 at 16 px", f"{seeds} seeds"])
    return figure


def main(out: Path = OUT) -> None:
    """Write table and figure."""
    parts = load_results([out]).comparisons
    table = pd.DataFrame([spread(part) for part in parts]).sort_values("epochs")
    contents = {"spread.csv": table.round(4).to_csv(index=False)}
    write_files(out, contents | rendered(drawn(table), "spread"), keep=True)
    sys.stdout.write(table.round(2).to_string(index=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
