"""Tables as text: Markdown and LaTeX, in percent, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from resnet_variants.analysis.tables import GROUP
from resnet_variants.models.variant import MAIN, shown_as
from resnet_variants.records.results_folder import FURTHER_COLUMNS

POINTS = 100  # percentage points in a fraction
ACCURACY = ("test_acc_mean", "test_acc_ci_low", "test_acc_ci_high")
DELTA = ("delta", "delta_ci_low", "delta_ci_high")


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as a reader wants it, all text: percent, intervals, MACs in millions.

    What is the same in all rows and only tells groups or rare axes apart is left out.
    """
    apart = [*GROUP, "stem_stride", *FURTHER_COLUMNS]
    columns = {
        "model": summary["model"],
        **{name: summary[name] for name in apart if summary[name].nunique(dropna=False) > 1},
        **{name: summary[name] for name in shown_as(MAIN)},
        "params": summary["params"].map("{:,}".format),
        "MACs (M)": (summary["macs"] / 1e6).map("{:.3f}".format),
        "n": summary["n"],
        "test accuracy % [95 %]": _intervals(summary, ACCURACY),
        "delta, points [95 %]": _intervals(summary, DELTA, sign="+"),
        "verdict": summary["verdict"],
        "front": summary["on_pareto_front"].map({True: "*", False: ""}),
        "P(front)": summary["front_probability"].map("{:.2f}".format).replace("nan", ""),
        "failed": summary["failed"],
    }
    if summary["paper"].ne("").any():
        papers = zip(summary["paper_delta"], summary["paper"], strict=True)
        columns["paper's delta"] = [
            f"{POINTS * delta:+.2f} ({where})" if where else "" for delta, where in papers
        ]
    return pd.DataFrame(columns)


def latex(summary: pd.DataFrame) -> str:
    """The summary as a LaTeX table for booktabs, the best of each group's ranked means in bold."""
    accuracies = _intervals(summary, ACCURACY)
    common = summary["test_acc_common"].astype(float).round(12)
    bold = common == common.groupby([summary[name] for name in GROUP], sort=False).transform("max")
    columns = {
        "Model": [rf"\texttt{{{_escaped(model)}}}" for model in summary["model"]],
        **{
            name.replace("_", " "): summary[name].map(_escaped)
            for name in GROUP
            if summary[name].nunique() > 1
        },
        "Params (M)": (summary["params"] / 1e6).map("{:.3f}".format),
        "MACs (M)": (summary["macs"] / 1e6).map("{:.1f}".format),
        "$n$": summary["n"],
        r"Accuracy (\%) [95\,\%]": [
            rf"\textbf{{{text}}}" if strong else text
            for text, strong in zip(accuracies, bold, strict=True)
        ],
        r"$\Delta$ (points) [95\,\%]": [
            text.replace("-", "$-$") for text in _intervals(summary, DELTA, sign="+")
        ],
        "$p$ (Holm)": [p_value(p).replace("<", "$<$") for p in summary["p_adjusted"].astype(float)],
        "Verdict": summary["verdict"].map(_escaped),
    }
    if summary["paper"].ne("").any():
        columns[r"$\Delta$ (paper)"] = [
            "" if np.isnan(delta) else f"{POINTS * delta:+.2f}".replace("-", "$-$")
            for delta in summary["paper_delta"]
        ]
    numbers = ("Params (M)", "MACs (M)", "$n$", "$p$ (Holm)")
    form = "".join("r" if name in numbers else "l" for name in columns)
    return pd.DataFrame(columns).to_latex(index=False, escape=False, column_format=form)


def _escaped(value: object) -> str:
    """Text that LaTeX prints as it is."""
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


def markdown(frame: pd.DataFrame) -> str:
    """A table in GitHub's Markdown; nothing in a cell is read as Markdown's table or as HTML."""
    plain = frame.map(lambda cell: str(cell).replace("|", r"\|").replace("<", "&lt;"))
    return plain.to_markdown(index=False, disable_numparse=True)


def summary_markdown(summary: pd.DataFrame) -> str:
    """``readable`` in Markdown."""
    return markdown(readable(summary))


def _intervals(summary: pd.DataFrame, names: tuple[str, str, str], *, sign: str = "") -> list[str]:
    columns = (summary[name].astype(float) for name in names)
    return [interval(*row, sign=sign) for row in zip(*columns, strict=True)]


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


def span(counts: pd.Series) -> str:
    """``9``, or ``3 to 9``."""
    low, high = counts.min(), counts.max()
    return str(low) if low == high else f"{low} to {high}"


def p_value(value: float) -> str:
    """``0.035``, or ``<0.001``; empty where there is none."""
    if np.isnan(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
