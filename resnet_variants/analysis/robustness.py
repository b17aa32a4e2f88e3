"""Whether verdicts survive another value of a setting, such as the learning rate.

Arms are compared with the baseline at each value of the settings that the experiment calls
``robust``. A verdict holds at a value if it is the same there as at the usual value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from resnet_variants.analysis.arms import arm_name, network_of
from resnet_variants.analysis.verdicts import BASELINE, BELOW

ROBUSTNESS_COLUMNS = (
    *("model", "baseline", "settings", "usual", "delta", "verdict"),
    *("values", "same_sign", "holds", "delta_lowest", "delta_highest"),
)


def robustness(
    summary: pd.DataFrame, varied: Mapping[str, str], robust: Sequence[str]
) -> pd.DataFrame:
    """One row per arm, whatever its ``robust`` settings: ``ROBUSTNESS_COLUMNS``.

    ``delta`` and ``verdict`` are those at the usual values. ``same_sign`` and ``holds`` count the
    ``values``, this one too, at which the difference has the same sign and the same verdict. An arm
    that was not compared at the usual value has no row.

    Args:
        summary: of the arms, with the varied settings.
        varied: the usual value of each varied setting.
        robust: the settings at each of whose values arms are compared.
    """
    table = by_value(summary, varied, robust)
    usual = ", ".join(varied[name] for name in robust)
    rows = []
    for _, own in table.groupby("model", sort=False) if len(table) else ():
        here = cast("list[dict[str, Any]]", own[own["value"] == usual].to_dict("records"))
        if here:
            delta, verdict = here[0]["delta"], here[0]["verdict"]
            rows.append(
                {
                    **{name: here[0][name] for name in ("model", "baseline", "delta", "verdict")},
                    "settings": ", ".join(robust),
                    "usual": usual,
                    "values": len(own),
                    "same_sign": int((np.sign(own["delta"]) == np.sign(delta)).sum()),
                    "holds": int((own["verdict"] == verdict).sum()),
                    "delta_lowest": own["delta"].min(),
                    "delta_highest": own["delta"].max(),
                }
            )
    return pd.DataFrame(rows, columns=[*ROBUSTNESS_COLUMNS])


def by_value(
    summary: pd.DataFrame, varied: Mapping[str, str], robust: Sequence[str]
) -> pd.DataFrame:
    """The compared rows of the summary: ``model``, ``baseline``, ``value``, delta and verdict.

    The names of arms leave the ``robust`` settings out, which are the ``value``.
    """
    rows = summary[(summary["verdict"] != BASELINE) & (summary["pairs"] > 0)]
    if not robust or rows.empty:
        return pd.DataFrame(columns=["model", "baseline", "value", "delta", "verdict"])
    others = {name: text for name, text in varied.items() if name not in robust}
    settings = summary.set_index("model")[[*varied]].to_dict("index")

    def name(model: str) -> str:
        own = {name: str(settings[model][name]) for name in others}
        return arm_name(network_of(model), own, others)

    return pd.DataFrame(
        {
            "model": [name(str(model)) for model in rows["model"]],
            "baseline": [name(str(model)) for model in rows["baseline"]],
            "value": rows[[*robust]].astype(str).agg(", ".join, axis=1),
            "delta": rows["delta"],
            "verdict": rows["verdict"].str.removesuffix(BELOW),
        }
    )
