"""The summary as readers see it: one list of columns for Markdown, LaTeX, page and terminal.

``summary.csv`` has every number that ``analysis.summary`` computes. One entry of ``COLUMNS`` shows
a number in all other tables, or in those that it names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.analysis.statistics import estimate
from resnet_variants.analysis.verdicts import BETTER, WORSE
from resnet_variants.models.variant import MAIN, SIZE, shown_as
from resnet_variants.records.results_folder import FURTHER_COLUMNS
from resnet_variants.reporting.names import named_summary
from resnet_variants.reporting.text import (
    POINTS,
    cell_text,
    interval,
    latex_escaped,
    p_value,
    span,
)

MARKDOWN, LATEX, PAGE, TERMINAL = "markdown", "latex", "page", "terminal"
ACCURACY = ("test_acc_mean", "test_acc_ci_low", "test_acc_ci_high")
DELTA = ("delta", "delta_ci_low", "delta_ci_high")
MILLION = 1e6
_STRIDE = "stem_stride"  # names in Markdown have the rest of a network's size
_BEST = "best"  # whether a row has the best mean of its comparison, and no other is tied with it
_LITTLE = 0.02  # of itself; a cost that spans less is no column of a paper's table
_LONG = 18  # letters of a label, from where on a column of 80 mm takes smaller letters

Row = Mapping[str, Any]  # a row of ``named_summary``, by its columns
Text = Callable[[Row], str]


@dataclass(frozen=True)
class Column:
    """How one column is shown.

    Attributes:
        name: in ``summary.csv``.
        title: the header; the name where empty.
        text: the cell of a row; the value itself where None.
        latex_title: the header as LaTeX code; the escaped title where empty.
        latex: the cell as LaTeX code; the escaped text where None.
        tables: where the column is shown.
        varied: shown only where the rows differ in it.
        optional: shown only where some row has a text.
        numeric: right-aligned.
    """

    name: str
    title: str = ""
    text: Text | None = None
    latex_title: str = ""
    latex: Text | None = None
    tables: tuple[str, ...] = (MARKDOWN, LATEX, PAGE, TERMINAL)
    varied: bool = False
    optional: bool = False
    numeric: bool = False

    def header(self, table: str) -> str:
        """The title in one of the tables."""
        title = self.title or self.name
        if table == LATEX:
            return self.latex_title or latex_escaped(title.replace("_", " "))
        return title

    def cell(self, row: Row, table: str) -> str:
        """The text of a row in one of the tables."""
        if table == LATEX and self.latex:
            return self.latex(row)
        text = self.text(row) if self.text else cell_text(row[self.name])
        return latex_escaped(text) if table == LATEX else text


def _number(name: str, form: str, unit: float = 1.0) -> Text:
    return lambda row: "" if math.isnan(row[name]) else format(row[name] / unit, form)


def _count(name: str) -> Text:
    return lambda row: f"{row[name]:,}"


def _interval(names: Sequence[str], sign: str = "") -> Text:
    return lambda row: interval(*(row[name] for name in names), sign=sign)


def _delta_on_new_images(row: Row) -> str:
    if math.isnan(row["images_ci_low"]):
        return ""
    return interval(row["delta"], row["images_ci_low"], row["images_ci_high"], sign="+")


def _deviations(row: Row) -> str:
    if math.isnan(row["sd_of_seeds"]):
        return ""
    names = ("test_acc_sd", "sd_of_images", "sd_of_seeds")
    return " / ".join(f"{POINTS * row[name]:.2f}" for name in names)


def _paper(row: Row) -> str:
    return f"{POINTS * row['paper_delta']:+.2f} ({row['paper']})" if row["paper"] else ""


def what_it_takes(row: Row) -> str:
    """Of an undecided row: what would have shown, and the further seeds that a verdict takes."""
    if math.isnan(row["detectable"]):
        return ""
    further = f"; {_further(row)} more seeds (hours)" if _further(row) else ""
    return f"{POINTS * row['detectable']:.1f} points would have shown{further}"


def _further(row: Row) -> str:
    if math.isnan(row["more_seeds"]):
        return ""
    hours = row["more_hours"]
    text = "<0.1" if hours < 0.05 else f"{hours:{'.1f' if hours < 10 else ',.0f'}}"
    return f"{row['more_seeds']:.0f} ({text})"


def _half_interval(mean: str, numbers: Sequence[float]) -> str:
    """``mean`` and half of its interval as LaTeX code."""
    middle, low, high = numbers
    if math.isnan(low):
        return mean
    return rf"{mean} $\pm$ {POINTS * max(high - middle, middle - low):.2f}"


def _latex_accuracy(row: Row) -> str:
    numbers = [row[name] for name in ACCURACY]
    if math.isnan(numbers[0]):
        return ""
    mean = f"{POINTS * numbers[0]:.2f}"
    return _half_interval(rf"\textbf{{{mean}}}" if row[_BEST] else mean, numbers)


def _latex_delta(row: Row) -> str:
    numbers = [row[name] for name in DELTA]
    if math.isnan(numbers[0]):
        return ""
    mark = "$^*$" if row["verdict"].startswith((BETTER, WORSE)) else ""
    return _half_interval(f"${POINTS * numbers[0]:+.2f}$", numbers) + mark


COLUMNS = (
    Column("arm", latex_title="Arm"),
    Column("runs", latex_title="Runs", tables=(MARKDOWN, LATEX, TERMINAL), varied=True),
    *(Column(name, tables=(PAGE,), varied=True) for name in shown_as(SIZE) if name != _STRIDE),
    *(Column(name, tables=(MARKDOWN, PAGE), varied=True) for name in (_STRIDE, *FURTHER_COLUMNS)),
    *(Column(name, tables=(MARKDOWN, PAGE)) for name in shown_as(MAIN)),
    Column(
        "params",
        text=_count("params"),
        latex_title="Params",
        latex=_number("params", ".3f", MILLION),
        numeric=True,
    ),
    Column(
        "macs",
        "MACs (M)",
        _number("macs", ".3f", MILLION),
        latex_title="MACs",
        latex=_number("macs", ".1f", MILLION),
        numeric=True,
    ),
    Column("n", latex_title="$n$", numeric=True),
    Column(
        "test_acc_mean",
        "test accuracy % [95 %]",
        _interval(ACCURACY),
        latex_title=r"Accuracy (\%)",
        latex=_latex_accuracy,
    ),
    Column(
        "delta",
        "delta, points [95 %]",
        _interval(DELTA, sign="+"),
        latex_title=r"$\Delta$ (points)",
        latex=_latex_delta,
    ),
    Column(
        "images_ci_low",
        "delta for new images too [95 %]",
        _delta_on_new_images,
        tables=(PAGE,),
        optional=True,
        numeric=True,
    ),
    Column(
        "sd_of_seeds",
        "deviation of runs: seen / of images / of seeds",
        _deviations,
        tables=(PAGE,),
        optional=True,
        numeric=True,
    ),
    Column(
        "p_adjusted",
        "p (adjusted)",
        lambda row: p_value(row["p_adjusted"]),
        tables=(PAGE,),
        numeric=True,
    ),
    Column("verdict", tables=(MARKDOWN, PAGE, TERMINAL)),
    Column(
        "detectable",
        "would show, points",
        _number("detectable", ".2f", 1 / POINTS),
        tables=(MARKDOWN, PAGE, TERMINAL),
        optional=True,
        numeric=True,
    ),
    Column(
        "more_seeds",
        "more seeds (hours)",
        _further,
        tables=(MARKDOWN, PAGE, TERMINAL),
        optional=True,
    ),
    Column(
        "on_pareto_front",
        "front",
        lambda row: "*" if row["on_pareto_front"] else "",
        tables=(MARKDOWN, PAGE, TERMINAL),
    ),
    Column(
        "front_probability",
        "P(front)",
        _number("front_probability", ".2f"),
        tables=(MARKDOWN, PAGE),
    ),
    Column("flops", "FLOPs (M)", _number("flops", ".3f", MILLION), tables=(PAGE,)),
    Column("acts", "activations", _count("acts"), tables=(PAGE,)),
    Column(
        "train_ms_per_image",
        "training ms per image",
        _number("train_ms_per_image", ".3f"),
        tables=(PAGE,),
        optional=True,
    ),
    Column(
        "latency_ms",
        "latency, ms per image",
        _number("latency_ms", ".3f"),
        tables=(PAGE,),
        optional=True,
    ),
    Column(
        "points_per_percent_macs",
        "points per +1 % MACs",
        _number("points_per_percent_macs", "+.3f"),
        tables=(PAGE,),
        optional=True,
    ),
    Column("failed", tables=(MARKDOWN, PAGE)),
    Column(
        "paper_delta",
        "paper's delta",
        _paper,
        tables=(MARKDOWN, PAGE),
        optional=True,
    ),
)


def shown_columns(summary: pd.DataFrame, table: str) -> list[Column]:
    """The columns that one of the tables shows of a ``named_summary``."""
    rows = _rows(summary)

    def is_shown(column: Column) -> bool:
        if column.varied:
            return summary[column.name].nunique(dropna=False) > 1
        return not column.optional or any(column.cell(row, table) for row in rows)

    return [column for column in COLUMNS if table in column.tables and is_shown(column)]


def summary_cells(summary: pd.DataFrame, table: str, *, wide: bool = False) -> pd.DataFrame:
    """A ``named_summary`` as one of the tables shows it, all text: a column per header.

    Networks have short labels, or their names where ``wide``.
    """
    rows = _rows(summary.assign(arm=summary["model"]) if wide else summary)
    return pd.DataFrame(
        {
            column.header(table): [column.cell(row, table) for row in rows]
            for column in shown_columns(summary, table)
        }
    )


def summary_latex(comparisons: Sequence[Comparison], name: str) -> str:
    """The summary as a LaTeX table with caption and label, for one column of a paper.

    Columns that do not vary are left out. A best mean is bold if no other network is tied with it.

    Args:
        comparisons: those of a results folder.
        name: of the experiment, for the label.
    """
    best = pd.concat([_is_best_alone(comparison) for comparison in comparisons])
    summary = named_summary(comparisons).assign(**{_BEST: best.to_numpy()})
    cells = summary_cells(summary, LATEX)
    shown = [
        column
        for column in shown_columns(summary, LATEX)
        if column.name == ACCURACY[0] or _varies(summary, column, cells)
    ]
    form = "".join("r" if column.numeric else "l" for column in shown)
    longest = summary["arm"].map(len).max()
    size = "footnotesize" if longest < _LONG else "scriptsize"
    table = cells[[column.header(LATEX) for column in shown]]
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs} in the preamble.",
            r"\begin{table}[t]",
            rf"\centering\{size}\setlength{{\tabcolsep}}{{3pt}}",
            rf"\caption{{{_caption(comparisons, summary, [column.name for column in shown])}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', name).strip('-')}}}",
            table.to_latex(index=False, escape=False, column_format=form).strip(),
            r"\end{table}",
            "",
        ]
    )


def _varies(summary: pd.DataFrame, column: Column, cells: pd.DataFrame) -> bool:
    if cells[column.header(LATEX)].nunique() < 2:
        return False
    costs = summary[column.name]
    return column.name not in ("params", "macs") or costs.max() > (1 + _LITTLE) * costs.min()


def _caption(comparisons: Sequence[Comparison], summary: pd.DataFrame, shown: Sequence[str]) -> str:
    data = " and ".join(dict.fromkeys(part.data for part in comparisons))
    bases = comparisons[0].labelled(summary.loc[summary["pairs"] > 0, "baseline"])
    base = bases.iloc[0] if bases.nunique() == 1 else "the baseline"
    sentences = [
        f"Test accuracy on {data}: mean and half of its 95 % Student interval over the seeds "
        f"(n = {span(summary['n'])}).",
    ]
    if len(bases):
        sentences.append(f"Difference to {base} in points, paired by seed.")
    if summary["verdict"].str.startswith((BETTER, WORSE)).any():
        sentences.append("*: a verdict of joint sign flips, at most 5 % false in the table.")
    if any(name in ("params", "macs") for name in shown):
        sentences.append("Costs are in millions.")
    if summary[_BEST].any():
        sentences.append(
            "Bold: the best mean, as the paired 95 % intervals of its differences to all others "
            "exclude zero."
        )
    return latex_escaped(" ".join(sentences))


def _is_best_alone(comparison: Comparison) -> pd.Series:
    """Whether a network has the best mean, and the intervals of its differences exclude zero."""
    scores, models = comparison.common_scores, comparison.summary["model"]
    if len(scores.columns) < 2:
        return models.map(lambda _: False)
    best = scores.mean().idxmax()
    others = scores.drop(columns=best)
    told = [estimate((scores[best] - others[other]).to_numpy()) for other in others]
    return (models == best) & all(each.low > 0 for each in told)


def _rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", summary.to_dict("records"))
