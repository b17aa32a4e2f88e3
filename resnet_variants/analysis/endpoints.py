"""Further paired comparisons: by other endpoints than test accuracy, and of every pair of arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd

from resnet_variants.analysis.statistics import SHARE, paired_comparison
from resnet_variants.analysis.verdicts import COMPARED, Plan, with_verdicts

Numbers = TypeVar("Numbers", pd.Series, pd.DataFrame)


@dataclass(frozen=True)
class Endpoint:
    """A number of a finished run, by which arms are compared."""

    title: str
    limits: tuple[float, float] = (0.0, np.inf)
    lower_is_better: bool = False

    def better(self, numbers: Numbers) -> Numbers:
        """The numbers, with the sign with which more is better."""
        return -numbers if self.lower_is_better else numbers

    def plan(self, plan: Plan) -> Plan:
        """The plan without its margin, which is of accuracies, where this is none."""
        return plan if self.limits == SHARE else replace(plan, margin=0.0)


ENDPOINTS = {
    "test_acc": Endpoint("test accuracy", SHARE),
    "test_loss": Endpoint("test loss", lower_is_better=True),
    "val_acc": Endpoint("validation accuracy", SHARE),
    "train_loss": Endpoint("training loss of the last epoch", lower_is_better=True),
}
PRIMARY, SECONDARY = "primary", "secondary"
ENDPOINT_COLUMNS = ("endpoint", "role", "model", "baseline", *COMPARED)
PAIR_COLUMNS = ("model", "baseline", *COMPARED)


def by_endpoint(
    scores: Mapping[str, pd.DataFrame], baselines: Mapping[str, str], plan: Plan
) -> pd.DataFrame:
    """Each arm against its baseline by each endpoint: ``ENDPOINT_COLUMNS``.

    The endpoint of the plan was declared before the first run and is primary; all others are
    secondary. The rows of an endpoint are adjusted together, the endpoints are not. A lower loss is
    "better". A margin is of accuracies.

    Args:
        scores: endpoint -> its number, (seeds, models); NaN where a run has none.
        baselines: model name -> name of the model it is compared with.
        plan: what was fixed before the first run.
    """
    tables = []
    for name, endpoint in ENDPOINTS.items():
        own = scores[name].dropna(axis=1, how="all")
        pairs = [(str(model), baselines.get(str(model), "")) for model in own]
        known = [(model, base) for model, base in pairs if base in own and base != model]
        table = _paired(own, known, endpoint, plan)
        role = PRIMARY if name == plan.endpoint else SECONDARY
        tables.append(table.assign(endpoint=name, role=role))
    return pd.concat(tables, ignore_index=True).reindex(columns=[*ENDPOINT_COLUMNS])


def of_all_pairs(scores: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Every arm against every other one by test accuracy, adjusted together: ``PAIR_COLUMNS``.

    Args:
        scores: test accuracy, (seeds, models).
        plan: what was fixed before the first run.
    """
    pairs = [(str(one), str(other)) for other, one in combinations(scores, 2)]
    return _paired(scores, pairs, ENDPOINTS["test_acc"], plan).reindex(columns=[*PAIR_COLUMNS])


def _paired(
    scores: pd.DataFrame, pairs: Iterable[tuple[str, str]], endpoint: Endpoint, plan: Plan
) -> pd.DataFrame:
    """The first of each pair against the second."""
    compared = {
        (model, base): paired_comparison(scores[model], scores[base], endpoint.limits)
        for model, base in pairs
    }
    if not compared:
        return pd.DataFrame(columns=[*PAIR_COLUMNS])
    rows = [{"model": model, "baseline": base} | c.row for (model, base), c in compared.items()]
    differences = [endpoint.better(each.differences) for each in compared.values()]
    return with_verdicts(pd.DataFrame(rows), differences, endpoint.plan(plan))
