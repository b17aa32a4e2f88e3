"""Numbers and tables as text: percent, intervals, p values, Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from resnet_variants.analysis.diagnosis import MEASURES
from resnet_variants.analysis.endpoints import ENDPOINTS
from resnet_variants.analysis.statistics import DIFFERENCE, MEAN, SHARE
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.registry import number_of

_MEANS = ("confidence", "accuracy")
POINTS = 100  # percentage points in a fraction
_SHORT = 0.1  # hours; shorter times are given in minutes


def interval(mean: float, low: float, high: float, *, sign: str = "") -> str:
    """``91.23 [90.50, 91.96]``, from fractions; empty where there is no mean."""
    return _interval(f"{sign}.2f", POINTS * mean, POINTS * low, POINTS * high)


def number_interval(mean: float, low: float, high: float, *, sign: str = "") -> str:
    """``87.7 [61.2, 126]``: three digits of each; empty where there is no mean."""
    rounded = (float(format(number, ".3g")) for number in (mean, low, high))
    return _interval(f"{sign},g", *rounded)


def _interval(form: str, mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return ""
    if np.isnan(low):
        return format(mean, form)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def span(numbers: pd.Series, form: str = "") -> str:
    """``9``, or ``3 to 9``, each number in Python's ``form``."""
    low, high = (format(end, form) for end in (numbers.min(), numbers.max()))
    return low if low == high else f"{low} to {high}"


def hours_text(hours: float) -> str:
    """``1.5 hours``, or ``4 minutes``."""
    if hours < _SHORT:
        return number_of(max(1, round(60 * hours)), "minute")
    return f"{hours:,.1f} hours"


def p_value(value: float) -> str:
    """``0.035``, or ``<0.001``; empty where there is none."""
    if np.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


_TAG = re.compile(r"<(?![\d.])")  # `<0.001` begins no tag


def markdown(frame: pd.DataFrame) -> str:
    """A table in GitHub's Markdown; no text in it is read as Markdown's table or as HTML."""

    def plain(text: object) -> str:
        return _TAG.sub("&lt;", str(text).replace("|", r"\|"))

    return frame.map(plain).rename(columns=plain).to_markdown(index=False, disable_numparse=True)


def latex_escaped(value: object) -> str:
    """LaTeX code that prints the value as it is spelt."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "^": r"\textasciicircum{}",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
    return "".join(special.get(letter, letter) for letter in str(value))


def readable_predictions(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each prediction, all text, with the differences that its parts are about."""
    texts = [
        f"{part} {interval(*found, sign='+') or 'no number yet'}" + (f" p {p_value(p)}" * (p == p))
        for part, *found, p in table[["part", *DIFFERENCE, "p_adjusted"]].itertuples(index=False)
    ]
    groups = table.assign(text=texts).groupby("number")
    return pd.DataFrame(
        {
            "prediction": groups["prediction"].first(),
            "verdict": groups["verdict"].first(),
            "points [95 %], p": groups["text"].agg("; ".join),
            "seeds": groups["seeds"].min(),
        }
    )


def readable_errors(table: pd.DataFrame) -> pd.DataFrame:
    """``errors_by_depth`` of one group as a reader wants it, all text."""
    means, more = (table[[*names]].itertuples(index=False) for names in (MEAN, DIFFERENCE))
    return pd.DataFrame(
        {
            "design": table["design"],
            "depth": table["depth"],
            "error of": table["split"],
            "n": table["seeds"],
            "error % [95 %]": [interval(*row) for row in means],
            "more than the shallower, points [95 %]": [interval(*row, sign="+") for row in more],
            "p (adjusted)": table["p_adjusted"].astype(float).map(p_value),
            "verdict": table["verdict"],
        }
    )


def readable_robustness(table: pd.DataFrame) -> pd.DataFrame:
    """At how many values of a setting verdicts hold, all text."""
    points = [
        f"{name} {text}" for name, text in zip(table["settings"], table["usual"], strict=True)
    ]
    undecided = table["verdict"] == UNDECIDED  # nothing that could hold
    return pd.DataFrame(
        {
            "model": table["model"],
            "against": table["baseline"],
            "at the usual": points,
            "difference, points": (POINTS * table["delta"]).map("{:+.2f}".format),
            "verdict": table["verdict"],
            "same sign": [f"{n} of {m}" for n, m in table[["same_sign", "values"]].to_numpy()],
            "verdict holds": (
                table["holds"].astype(str) + " of " + table["values"].astype(str)
            ).where(~undecided, ""),
            "lowest, points": (POINTS * table["delta_lowest"]).map("{:+.2f}".format),
            "highest, points": (POINTS * table["delta_highest"]).map("{:+.2f}".format),
        }
    )


def readable_search(table: pd.DataFrame) -> pd.DataFrame:
    """Validation accuracy of each arm at each value that a search tried, all text."""
    return table.assign(
        val_acc=[interval(share, math.nan, math.nan) for share in table["val_acc"]],
        seconds=table["seconds"].map("{:.1f}".format),
        chosen=table["chosen"].map({True: "chosen", False: ""}),
    ).rename(columns={"arm": "model", "val_acc": "validation accuracy %"})


def readable_calibration(table: pd.DataFrame) -> pd.DataFrame:
    """The calibration error of each arm as a reader wants it, all text."""
    percent = {name: (POINTS * table[name]).map("{:.2f}".format) for name in _MEANS}
    ece = [interval(*row) for row in table[[*MEAN]].itertuples(index=False)]
    cells = {"model": table["model"], "calibration error % [95 %]": ece}
    return pd.DataFrame(cells | {f"mean {name} %": own for name, own in percent.items()})


def readable_endpoints(table: pd.DataFrame) -> pd.DataFrame:
    """Comparisons by endpoint as a reader wants them, all text; those of all pairs too.

    Accuracies are in percent and their differences in points.
    """
    names = table.get("endpoint", pd.Series("test_acc", table.index))

    def cells(columns: Sequence[str], sign: str) -> list[str]:
        rows = zip(names, table[[*columns]].itertuples(index=False), strict=True)
        return [
            (interval if ENDPOINTS[str(name)].limits == SHARE else number_interval)(*row, sign=sign)
            for name, row in rows
        ]

    about = {
        "endpoint": [ENDPOINTS[name].title for name in map(str, names)],
        "role": table.get("role"),
    }
    return pd.DataFrame(
        {
            **(about if "role" in table else {}),
            "model": table["model"],
            "against": table["baseline"],
            "mean [95 %]": cells(MEAN, ""),
            "difference [95 %]": cells(DIFFERENCE, "+"),
            "pairs": table["pairs"],
            "p (adjusted)": table["p_adjusted"].astype(float).map(p_value),
            "verdict": table["verdict"],
        }
    )


def readable_diagnoses(summary: pd.DataFrame) -> pd.DataFrame:
    """A network a row, all text: its measures with their intervals, of rows of one group."""
    texts = summary.assign(cell=_cells(summary, MEAN), title=_titles(summary))
    rows = [
        {"model": model, "seeds": own["seeds"].max()}  # a plain net lacks some measures
        | dict(zip(own["title"], own["cell"], strict=True))
        for model, own in texts.groupby("model", sort=False)
    ]
    return pd.DataFrame(rows)


def readable_comparisons(summary: pd.DataFrame) -> pd.DataFrame:
    """What differs from the baselines, all text: a row per network and measure."""
    rows = summary[summary["pairs"] > 0]
    return pd.DataFrame(
        {
            "model": rows["model"],
            "measure": _titles(rows),
            "against": rows["baseline"],
            "difference or quotient [95 %]": _cells(rows, DIFFERENCE, sign="+"),
            "pairs": rows["pairs"],
            "p (adjusted)": rows["p_adjusted"].astype(float).map(p_value),
            "verdict": rows["verdict"],
        }
    )


def _titles(rows: pd.DataFrame) -> list[str]:
    return [MEASURES[name].title for name in rows["measure"]]


def _cells(rows: pd.DataFrame, names: Sequence[str], *, sign: str = "") -> list[str]:
    """A mean or a difference with its interval; a difference has a sign, a quotient an x."""
    cells = []
    for name, *numbers in rows[["measure", *names]].itertuples(index=False):
        measure = MEASURES[name]
        if measure.share:
            cells.append(interval(*numbers, sign=sign))
        elif measure.factor and sign:
            cells.append(f"x {number_interval(*numbers)}")
        else:
            cells.append(number_interval(*numbers, sign=sign))
    return cells


def cell_text(value: object) -> str:
    """A cell as a label: whole numbers without a point, nothing for a missing one."""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value)
