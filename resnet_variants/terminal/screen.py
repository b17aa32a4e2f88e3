"""What the commands show in the end: the summary, the state of the runs, and the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from resnet_variants.registry import one_line
from resnet_variants.reporting.build import Report
from resnet_variants.reporting.text import summary_markdown
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
    table = Table("model", title="test accuracy, paired difference to the baseline")
    for heading in ("MACs (M)", "params", "n", "accuracy %", "95 %", "delta", "verdict", "front"):
        table.add_column(heading, justify="right")
    for row in summary.to_dict("records"):
        low, high = 100 * row["test_acc_ci_low"], 100 * row["test_acc_ci_high"]
        delta = 100 * row["delta"]
        table.add_row(
            row["model"],
            f"{row['macs'] / 1e6:.3f}",
            f"{row['params']:,}",
            str(row["n"]),
            f"{100 * row['test_acc_mean']:.2f}" if row["n"] else "",
            "" if np.isnan(low) else f"{low:.2f} to {high:.2f}",
            "" if np.isnan(delta) else f"{delta:+.2f}",
            row["verdict"],
            "*" if row["on_pareto_front"] else "",
        )
    return table
