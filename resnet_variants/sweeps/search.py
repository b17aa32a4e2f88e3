"""``tune``: each arm's own value of a setting, such as the learning rate, before arms are compared.

Every arm gets the same search, in a results folder of its own beside the runs. Its seeds are used
for nothing else, and the choice is by validation accuracy. Then each arm is trained with its best
values and fresh seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from resnet_variants.records.results_folder import SEARCH
from resnet_variants.records.run_folder import DONE, RunFolder
from resnet_variants.registry import UserError
from resnet_variants.sweeps.arms import Arm
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Events, Options, check, run_sweep

_FIRST_SEED = 10_000  # no planned seed is as large


def choose(
    experiment: Experiment, out: Path, options: Options, show: Callable[[Events], None]
) -> Experiment:
    """The experiment with each arm's own values, after a search where it asks for one.

    Args:
        experiment: what is asked for.
        out: its results folder.
        options: who computes.
        show: takes the events of the search, which train its runs.

    Raises:
        ValueError: what ``check`` refuses, or the search has no answer for an arm.
    """
    if not experiment.tune:
        return experiment
    check(experiment, out, options)  # what would be refused after the search
    show(run_sweep(search_of(experiment), out / SEARCH, options))
    return tuned(experiment, out)


def search_of(experiment: Experiment) -> Experiment:
    """The runs of the search, as an experiment: the arms at each value that is tried.

    Raises:
        ValueError: the images have no validation split, or a setting is varied and tuned.
    """
    if not len(experiment.runs[0].load().val):
        message = "tune chooses by validation accuracy, and the images have no validation split"
        raise UserError(message, field="tune")
    seeds, values = experiment.tuning
    return replace(
        experiment,
        name=f"{experiment.name}_search",
        question=f"Which {' and '.join(values)} is best for each arm, by validation accuracy?",
        expect="",
        tune={},
        vary={**experiment.vary, **values},
        seeds=seeds,
        further=(),
        first_seed=_FIRST_SEED,
        baseline={},
        robust=(),
        margin=None,
        endpoint="val_acc",
        compare="baseline",
    )


def tuned(experiment: Experiment, out: Path) -> Experiment:
    """The experiment with the best values of each arm, by the runs of its search in ``out``.

    The best are those with the highest mean validation accuracy; of equal ones the first. Values at
    which a run failed or diverged are none.

    Raises:
        ValueError: the search of an arm has not ended, or has no value at which all runs are done.
    """
    search = search_of(experiment)
    _, values = experiment.tuning
    chosen, rows = dict[str, Mapping[str, Any]](), list[dict[str, Any]]()
    for arm in experiment.arms:
        best = -1.0
        for one in itertools.product(*values.values()):
            setting = dict(zip(values, one, strict=True))
            row = _outcome(search, out, replace(arm, recipe=replace(arm.recipe, **setting)))
            rows.append({"arm": arm.name, **setting, **row})
            if row["val_acc"] is not None and row["val_acc"] > best:
                best, chosen[arm.name] = row["val_acc"], setting
        if arm.name not in chosen:
            message = f"the search of {arm.name} has no value at which all runs are done"
            raise UserError(f"{message}: see {str(out / SEARCH)!r}", field="tune")
    for row in rows:
        row["chosen"] = all(row[name] == value for name, value in chosen[row["arm"]].items())
    made = replace(experiment, tune={}, tuned=chosen, searched=tuple(rows))
    own = {arm.name: arm for arm in made.arms}
    return replace(made, further=tuple((own[arm.name], seed) for arm, seed in made.further))


def _outcome(search: Experiment, out: Path, arm: Arm) -> dict[str, Any]:
    """Mean validation accuracy of an arm's runs in the search (None without), and their time."""
    runs = [search.run(arm, seed) for seed in search.own_seeds]
    results = [RunFolder(out / SEARCH / "runs" / run.id).result() for run in runs]
    if not all(results):
        raise UserError(f"the search of {arm.name} has not ended", field="tune")
    done = [result for result in results if result and result["status"] == DONE]
    accuracies = [float(str(result["val_acc"])) for result in done]
    return {
        "val_acc": fmean(accuracies) if len(done) == len(results) else None,
        "runs": len(results),
        "seconds": sum(float(str(result["seconds"])) for result in results if result),
    }
