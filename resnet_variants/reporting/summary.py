"""The summary as readers see it: one list of columns for Markdown, LaTeX, page and terminal.

``summary.csv`` has every number that ``analysis.summary`` computes. One entry of ``COLUMNS`` shows
a number in all other tables, or in those that it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from resnet_variants.analysis.comparison import KEY, Comparison, summary_table
from resnet_variants.analysis.factors import short_labels
from resnet_variants.models.variant import MAIN, SIZE, shown_as
from resnet_variants.records.results_folder import FURTHER_COLUMNS
from resnet_variants.reporting.text import (
    POINTS,
    cell_text,
    interval,
    latex_escaped,
    markdown,
    p_value,
)

MARKDOWN, LATEX, PAGE, TERMINAL = "markdown", "latex", "page", "terminal"
ACCURACY = ("test_acc_mean", "test_acc_ci_low", "test_acc_ci_high")
DELTA = ("delta", "delta_ci_low", "delta_ci_high")
MILLION = 1e6
_STRIDE = "stem_stride"  # names in Markdown have the rest of a network's size
_BEST = "best"  # whether a row has the best of its comparison's ranked means
_LABEL = "label"  # a network's short label among those of the table

Row = Mapping[str, Any]  # a row of ``summary.csv``, by its columns
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


def _accuracy(row: Row) -> str:
    return interval(*(row[name] for name in ACCURACY))


def _delta(row: Row) -> str:
    return interval(*(row[name] for name in DELTA), sign="+")


def _paper_delta(row: Row) -> str:
    return f"{POINTS * row['paper_delta']:+.2f}" if row["paper"] else ""


def _paper(row: Row) -> str:
    return f"{_paper_delta(row)} ({row['paper']})" if row["paper"] else ""


def _p_value(row: Row) -> str:
    return p_value(row["p_adjusted"])


def _best_in_bold(row: Row) -> str:
    return rf"\textbf{{{_accuracy(row)}}}" if row[_BEST] else _accuracy(row)


COLUMNS = (
    Column(
        "model",
        "arm",
        lambda row: row[_LABEL],
        latex_title="Arm",
    ),
    *(Column(name, tables=(MARKDOWN, LATEX, TERMINAL), varied=True) for name in KEY),
    *(Column(name, tables=(PAGE,), varied=True) for name in shown_as(SIZE) if name != _STRIDE),
    *(Column(name, tables=(MARKDOWN, PAGE), varied=True) for name in (_STRIDE, *FURTHER_COLUMNS)),
    *(Column(name, tables=(MARKDOWN, PAGE)) for name in shown_as(MAIN)),
    Column(
        "params",
        text=_count("params"),
        latex_title="Params (M)",
        latex=_number("params", ".3f", MILLION),
        numeric=True,
    ),
    Column(
        "macs",
        "MACs (M)",
        _number("macs", ".3f", MILLION),
        latex=_number("macs", ".1f", MILLION),
        numeric=True,
    ),
    Column("n", latex_title="$n$", numeric=True),
    Column(
        "test_acc_mean",
        "test accuracy % [95 %]",
        _accuracy,
        latex_title=r"Accuracy (\%) [95\,\%]",
        latex=_best_in_bold,
    ),
    Column(
        "delta",
        "delta, points [95 %]",
        _delta,
        latex_title=r"$\Delta$ (points) [95\,\%]",
        latex=lambda row: _delta(row).replace("-", "$-$"),
    ),
    Column(
        "p_adjusted",
        "p (Holm)",
        _p_value,
        latex_title="$p$ (Holm)",
        latex=lambda row: _p_value(row).replace("<", "$<$"),
        tables=(LATEX, PAGE),
        numeric=True,
    ),
    Column("verdict", latex_title="Verdict"),
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
        latex_title=r"$\Delta$ (paper)",
        latex=lambda row: _paper_delta(row).replace("-", "$-$"),
        tables=(MARKDOWN, LATEX, PAGE),
        optional=True,
    ),
)


def shown_columns(summary: pd.DataFrame, table: str) -> list[Column]:
    """The columns that one of the tables shows of this summary."""
    rows = _rows(summary)

    def is_shown(column: Column) -> bool:
        if column.varied:
            return summary[column.name].nunique(dropna=False) > 1
        return not column.optional or any(column.cell(row, table) for row in rows)

    return [column for column in COLUMNS if table in column.tables and is_shown(column)]


def summary_cells(summary: pd.DataFrame, table: str, *, wide: bool = False) -> pd.DataFrame:
    """The summary as one of the tables shows it, all text: a column per header.

    Networks have short labels, or their names where ``wide``.
    """
    if wide:
        cells = summary_cells(summary, table)
        return cells.assign(arm=summary["model"].to_numpy())
    rows = _rows(summary)
    return pd.DataFrame(
        {
            column.header(table): [column.cell(row, table) for row in rows]
            for column in shown_columns(summary, table)
        }
    )


def summary_markdown(summary: pd.DataFrame, *, wide: bool = False) -> str:
    """The summary in Markdown; ``wide`` as in ``summary_cells``."""
    return markdown(summary_cells(summary, MARKDOWN, wide=wide))


def summary_latex(comparisons: Sequence[Comparison]) -> str:
    """The summary as a LaTeX table for booktabs, the best of each comparison in bold."""
    best = pd.concat([_has_best_mean(comparison.summary) for comparison in comparisons])
    summary = summary_table(comparisons).assign(**{_BEST: best.to_numpy()})
    columns = shown_columns(summary, LATEX)
    form = "".join("r" if column.numeric else "l" for column in columns)
    cells = summary_cells(summary, LATEX)
    return cells.to_latex(index=False, escape=False, column_format=form)


def _has_best_mean(summary: pd.DataFrame) -> pd.Series:
    means = summary["test_acc_common"].astype(float).round(12)
    return means == means.max()


def _rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    labelled = summary.assign(**{_LABEL: summary["model"].map(short_labels(summary))})
    return cast("list[dict[str, Any]]", labelled.to_dict("records"))
