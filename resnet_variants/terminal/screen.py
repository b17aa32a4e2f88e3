"""What the commands show in the end: the summary, the state of the runs, and the files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from resnet_variants.registry import one_line
from resnet_variants.reporting.build import Report
from resnet_variants.reporting.summary import (
    TERMINAL,
    shown_columns,
    summary_cells,
    summary_markdown,
)
from resnet_variants.terminal.cli import say


def show_report(made: Report, out: Path) -> None:
    """The summary, the state of the runs and the files."""
    console = Console()
    say()
    if console.is_terminal:
        console.print(_summary_table(made.summary))
    else:
        say(summary_markdown(made.summary))
    for sentence in made.answer:
        say(sentence)
    say(", ".join(f"{n} {status}" for status, n in made.counts.items()))
    for run_id, error in made.runs.loc[made.runs["error"].notna(), ["run_id", "error"]].values:
        if error:
            log = out / "runs" / str(run_id) / "log.txt"
            say(f"  {run_id}: {one_line(str(error))}" + (f"; see {log}" if log.is_file() else ""))
    say(f"in {out}: {', '.join(path.name for path in made.files)}")


def _summary_table(summary: pd.DataFrame) -> Table:
    table = Table(title="test accuracy, paired difference to the baseline")
    for column in shown_columns(summary, TERMINAL):
        justify = "right" if column.numeric else "left"
        table.add_column(column.header(TERMINAL), justify=justify)
    for cells in summary_cells(summary, TERMINAL).itertuples(index=False):
        table.add_row(*cells)
    return table
