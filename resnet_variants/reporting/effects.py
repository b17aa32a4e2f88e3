"""The effects of single choices in words."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from resnet_variants.analysis.effects import DEPENDS, MAIN
from resnet_variants.analysis.statistics import FEWEST
from resnet_variants.analysis.verdicts import BETTER, EQUAL, UNDECIDED, WORSE
from resnet_variants.reporting.text import POINTS, interval

NAMED = 4  # networks or effects that a sentence names


def enumerated(texts: Iterable[str], otherwise: str) -> str:
    """``A``, ``A and B``, ``A, B and C``; of more texts, the other text."""
    *first, last = texts
    if len(first) > 2:
        return otherwise
    return f"{', '.join(first)} and {last}" if first else last


def averages(effects: pd.DataFrame) -> str:
    """What each choice changes on average over the others, in one sentence without intervals.

    Empty of fewer than two axes, where arms say the same, and of too few seeds for a verdict.
    """
    rows = effects[(effects["kind"] == MAIN) & effects["estimate"].notna()]
    if rows["effect"].nunique() < 2 or rows["seeds"].max() < FEWEST:
        return ""
    told = []
    for row in rows.to_dict("records"):
        choice, _, other = str(row["contrast"]).partition(" - ")
        if str(row["verdict"]).startswith((BETTER, WORSE)):
            by = f"{POINTS * abs(row['estimate']):.1f} points"
            told.append(f"{row['effect']} {choice} is {row['verdict']} than {other} by {by}")
        elif row["verdict"] == EQUAL:
            told.append(f"{row['effect']} {choice} equals {other}")
    rest = len(told) - NAMED
    told = told[:NAMED] + ([f"{rest} more differ or are equal"] if rest > 0 else [])
    undecided = rows.loc[rows["verdict"] == UNDECIDED, "contrast"]
    if len(undecided):
        names = enumerated(undecided, f"{len(undecided)} {'other ' if told else ''}differences")
        told.append(f"{names} cannot be told from 0")
    depending = rows.loc[rows["verdict"] == DEPENDS, "effect"].unique()
    if len(depending):
        axes = enumerated(depending, f"{len(depending)} axes")
        told.append(f"what {axes} changes may depend on another choice")
    return f"On average over the other choices: {'; '.join(told)}."


def effects_in_detail(effects: pd.DataFrame) -> str:
    """The effects that have a verdict; the table begins with the main effects."""
    known = effects[effects["estimate"].notna()]
    if known.empty:
        return ""
    depending = (known["kind"] == MAIN) & (known["verdict"] == DEPENDS)
    decided = [
        f"{row['effect']} {row['contrast']}, {row['verdict']} "
        f"({interval(row['estimate'], row['ci_low'], row['ci_high'], sign='+')} points)"
        for row in known[~depending].to_dict("records")
        if row["verdict"] != UNDECIDED
    ]
    rest = int((known["verdict"] == UNDECIDED).sum())
    shown = [
        *decided[:NAMED],
        *([f"{len(decided) - NAMED} more with a verdict"] if decided[NAMED:] else []),
        *(f"{row} may depend on another choice" for row in known.loc[depending, "effect"].unique()),
        *([f"{rest} effect{'s' if rest > 1 else ''} undecided"] if rest else []),
    ]
    return f"Effects of single choices: {'; '.join(shown)}."
