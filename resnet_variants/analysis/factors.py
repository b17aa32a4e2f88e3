"""What networks differ in: the factors of a comparison, and short labels made of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict
from itertools import starmap

import pandas as pd

from resnet_variants.models.variant import AXES, Variant

# The axes; ``downsample`` is stride and shortcut together, see ``factors``.
FACTORS = ["downsample" if name == "stride" else name for name in AXES if name != "shortcut"]


def factors(cells: pd.DataFrame) -> pd.DataFrame:
    """The axes that the cells differ in, as text: one column per factor, in order of appearance.

    ``stride`` and ``shortcut`` are one factor where both vary, as grids spell it. Where presets
    give a complete product and their parts do not, ``preset`` replaces the parts. Where one axis
    determines another (the depth determines the block), both are one factor with both names.
    """
    cells = cells.astype(object).where(cells.notna(), "")  # an older table lacks some axes
    varied = [name for name in ("stride", "shortcut") if cells[name].nunique() > 1]
    stride, shortcut = (cells[name].astype(str) for name in ("stride", "shortcut"))
    both = stride.where(shortcut == "conv", stride + "+" + shortcut)
    frame = cells.assign(downsample=both)[FACTORS].astype(str)
    if len(varied) == 1:  # by its own name
        frame = frame.rename(columns={"downsample": varied[0]})
        frame[varied[0]] = cells[varied[0]]
    frame = frame.loc[:, frame.nunique() > 1]
    if not is_complete(frame) and cells["preset"].ne("").all():
        parts = [axis for axis in ("stem", "downsample", *varied) if axis in frame]
        named = cells[["preset"]].join(frame.drop(columns=parts))
        named = named.loc[:, named.nunique() > 1]
        frame = named if is_complete(named) else frame
    return _merged(frame)


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    """Each axis that follows from another is joined to it: ``depth/block``, ``29/bottleneck``."""
    axes = [str(axis) for axis in frame]
    choices = frame.nunique()
    finest = sorted(axes, key=lambda axis: (-choices[axis], axes.index(axis)))
    leaders: dict[str, list[str]] = {}
    for axis in finest:
        leads = (one for one in leaders if frame.groupby(one)[axis].nunique().max() == 1)
        leaders.setdefault(next(leads, axis), []).append(axis)
    return pd.DataFrame(
        {
            "/".join(leaders[axis]): frame[leaders[axis]].agg("/".join, axis=1)
            for axis in axes
            if axis in leaders
        },
        index=frame.index,
    )


def cells_of(variants: Iterable[Variant]) -> pd.DataFrame:
    """One row per network: its name as ``model``, its preset and its axes."""
    rows = [{"model": v.name, "preset": v.preset, **asdict(v)} for v in variants]
    return pd.DataFrame(rows, columns=["model", "preset", *AXES])


def short_labels(cells: pd.DataFrame) -> dict[str, str]:
    """What tells each network from the others, in few letters: ``D preact``, ``20 plain``.

    A choice that is its axis' default is left out where something else is left. Labels differ as
    the names do.

    Args:
        cells: one row per network: its ``model`` and its axes.
    """
    named = cells.drop_duplicates("model").set_index("model")
    letters = named[["preset"]]
    if letters["preset"].ne("").all() and letters["preset"].nunique() > 1:
        named = named.assign(**dict.fromkeys(("preset", "stem", "stride", "shortcut"), ""))
        levels = letters.join(factors(named))
    else:
        levels = factors(named) if len(named) > 1 else named[[]]
    rows = levels.to_dict("index")
    return {
        str(model): " ".join(_words(row) or starmap(word, row.items())) or str(model)
        for model, row in rows.items()
    }


def _words(row: Mapping[Hashable, str]) -> list[str]:
    """The choices of a network that are not the defaults of their axes."""
    usual = {name: str(axis.default) for name, axis in AXES.items()} | {"downsample": "3x3"}
    return [word(axis, level) for axis, level in row.items() if level != usual.get(str(axis))]


def word(axis: Hashable, level: str) -> str:
    """A choice; of axes that are one factor, the choice that determines the others."""
    name, choice = str(axis).partition("/")[0], level.partition("/")[0]
    if choice != "none":
        return choice
    return "plain" if name == "shortcut" else f"no {name}"


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether each combination of the factors' choices is there once."""
    product = math.prod(frame[axis].nunique() for axis in frame)
    return len(frame.drop_duplicates()) == len(frame) == product
