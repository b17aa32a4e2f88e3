"""What the commands show in the end: the summary, the answer, and where to read on."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.registry import one_line
from resnet_variants.reporting.build import Report
from resnet_variants.reporting.summary import TERMINAL, shown_columns, summary_cells
from resnet_variants.reporting.text import hours_text, markdown
from resnet_variants.terminal.cli import say

# The columns that a narrow terminal does without, the first one first.
_DISPENSABLE = ("on_pareto_front", "params", "macs", "n", "test_acc_mean")
_WIDEST = 10_000  # letters of a table
_PRACTICAL = 100  # further seeds; nobody trains more to tell two networks apart
_LEAST = 3  # columns that stay: of one network alone, its accuracy is among them


def show_report(made: Report, out: Path, *, wide: bool = False, step: str = "") -> None:
    """The summary, the answer, what failed, the next step, and the page.

    ``wide`` shows whole names.
    """
    console = Console()
    say()
    if console.is_terminal:
        console.print(_summary_table(made, console, wide=wide))
    else:
        say(markdown(summary_cells(made.named, TERMINAL, wide=wide)))
    for sentence in made.headline:
        say(sentence)
    say(", ".join(f"{n} {status}" for status, n in made.counts.items()))
    for run_id, error in made.runs.loc[made.runs["error"].notna(), ["run_id", "error"]].values:
        if error:
            log = out / "runs" / str(run_id) / "log.txt"
            say(f"  {run_id}: {one_line(str(error))}" + (f"; see {log}" if log.is_file() else ""))
    if step:
        say(step)
    shown = sum(path.suffix not in (".html", ".json") for path in made.files)
    say(f"open {out / 'report.html'}; {shown} files of tables and figures are beside it")


def next_step(made: Report, *, more: bool = True) -> str:
    """What may be done about undecided arms; empty where there are none or several comparisons.

    ``more`` tells whether the command may be given again with ``--more``.
    """
    if len(made.comparisons) != 1:
        return ""
    rows = made.summary[(made.summary["verdict"] == UNDECIDED) & made.summary["detectable"].notna()]
    known = rows[rows["more_seeds"].notna()].sort_values("more_hours", kind="stable")
    if known.empty:
        return "" if rows.empty else "no number of further seeds is likely to tell the others apart"
    row, labels = known.iloc[0], made.comparisons[0].labels
    label = labels[str(row["model"])]
    if row["more_seeds"] > _PRACTICAL:
        return f"to tell even {label} apart would take about {row['more_seeds']:,.0f} more seeds"
    if not more:
        return ""
    return (
        f'to go on: the same command with --more {row["more_seeds"]:.0f} --arms "{label}" '
        f"({hours_text(row['more_hours'])}, one run at a time) makes a verdict as likely as not"
    )


def _summary_table(made: Report, console: Console, *, wide: bool) -> Table:
    """The table with as many columns as the terminal has room for."""
    columns = shown_columns(made.named, TERMINAL)
    cells = summary_cells(made.named, TERMINAL, wide=wide)
    columns = [column for column in columns if cells[column.header(TERMINAL)].ne("").any()]
    without, unlimited = [*_DISPENSABLE], console.options.update(width=_WIDEST)
    while True:
        table = Table()
        for column in columns:
            justify = "right" if column.numeric else "left"
            table.add_column(column.header(TERMINAL), justify=justify, no_wrap=True)
        for row in cells[[column.header(TERMINAL) for column in columns]].itertuples(index=False):
            table.add_row(*row)
        if not without or console.measure(table, options=unlimited).maximum <= console.width:
            return table
        name = without.pop(0)
        if len(columns) > _LEAST:
            columns = [column for column in columns if column.name != name]
