"""What networks differ in: the factors of a comparison, and short labels made of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol, cast

import pandas as pd

from resnet_variants.analysis.arms import setting_words, settings_in
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.variant import AXES, Variant, spelt
from resnet_variants.records.results_folder import RUN_COLUMNS

# The axes; ``downsample`` is stride and shortcut together, see ``factors``.
FACTORS = ["downsample" if name == "stride" else name for name in AXES if name != "shortcut"]
_PARTS = ["stem", "downsample"]  # of a preset
_NO_SETTINGS = {*RUN_COLUMNS, "recipe"}  # any other column of an arm is a varied setting
_AXES = {"preset", "downsample", *AXES}


def factors(cells: pd.DataFrame) -> pd.DataFrame:
    """The axes that the cells differ in, as text: one column per factor, in order of appearance.

    ``stride`` and ``shortcut`` are one factor where both vary, as grids spell it. Where presets
    give a complete product and their parts do not, ``preset`` replaces the parts. Where one axis
    determines another (the depth determines the block), both are one factor with both names.
    """
    frame = _varied(cells)
    if not is_complete(frame) and _have_presets(cells):
        named = _varied(cells, presets=True)
        frame = named if is_complete(named) else frame
    return _merged(frame)


def _have_presets(cells: pd.DataFrame) -> bool:
    return bool(cells["preset"].fillna("").ne("").all())


def _varied(cells: pd.DataFrame, *, presets: bool = False) -> pd.DataFrame:
    """The axes that the cells differ in, as text; with ``presets`` these replace their parts."""
    settings = [name for name in cells if name not in _NO_SETTINGS]
    cells = cells[[name for name in cells if name in {*_AXES, *settings}]].astype(object)
    cells = cells.where(cells.notna(), "")  # an older table lacks some axes
    frame = cells.assign(downsample=downsample(cells))[["preset", *FACTORS, *settings]].astype(str)
    frame = frame.drop(columns=_PARTS if presets else "preset")
    varied = [name for name in ("stride", "shortcut") if cells[name].nunique() > 1]
    if len(varied) == 1 and not presets:  # by its own name
        frame = frame.rename(columns={"downsample": varied[0]})
        frame[varied[0]] = cells[varied[0]]
    return frame.loc[:, frame.nunique() > 1]


def downsample(cells: pd.DataFrame) -> pd.Series:
    """Stride and shortcut of each cell as grids spell them: ``3x3``, ``3x3+avgpool``."""
    stride, shortcut = (cells[name].astype(str) for name in ("stride", "shortcut"))
    return stride.where(shortcut == "conv", stride + "+" + shortcut)


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


class Named(Protocol):
    """A network with the varied settings of its recipe: an arm, or a run of it."""

    @property
    def name(self) -> str:
        """Of the arm."""
        ...

    @property
    def variant(self) -> Variant:
        """The network."""
        ...

    @property
    def settings(self) -> Sequence[tuple[str, str]]:
        """The varied fields of the recipe, and their values as text."""
        ...


def cells_of(arms: Iterable[Named]) -> pd.DataFrame:
    """One row per arm: its name as ``model``, its network's preset and axes, its settings."""
    rows = [
        {"model": arm.name, "preset": arm.variant.preset, **asdict(arm.variant)}
        | dict(arm.settings)
        for arm in arms
    ]
    return pd.DataFrame(rows, columns=[*dict.fromkeys(chain(["model", "preset", *AXES], *rows))])


def short_labels(cells: pd.DataFrame) -> dict[str, str]:
    """What tells each network from the others, in few letters: ``D preact``, ``20 plain``.

    A label has a word for each axis in which the networks differ. A choice that the other words
    imply has none: the default of its axis, the parts of a preset, the own block of a depth. So has
    a setting that the arm's name leaves out. Labels differ as the names do.

    Args:
        cells: one row per network: its ``model`` and its axes.
    """
    named = cells.drop_duplicates("model").set_index("model")
    presets = _have_presets(named) and named["preset"].nunique() > 1
    levels = _varied(named, presets=presets)
    labels: dict[str, str] = {}
    sizes = cast("dict[Hashable, dict[str, Any]]", named[["family", "depth"]].to_dict("index"))
    for model, row in levels.to_dict("index").items():
        usual = _usual(sizes[model], has_families="family" in levels)
        in_name = settings_in(str(model))
        usual |= {
            str(name): text
            for name, text in row.items()
            if name not in _AXES and setting_words(str(name), text) not in in_name
        }
        labels[str(model)] = " ".join(_words(row, usual) or _words(row, {}))
    uses = Counter(labels.values())
    return {m: text if text and uses[text] == 1 else m for m, text in labels.items()}


def _usual(network: Mapping[str, Any], *, has_families: bool) -> dict[str, str]:
    """The choice of each axis that a label need not name: its default, or the family's own."""
    family, depth = FAMILIES[network["family"]], network["depth"]
    own = {"stem_stride": family.stem_stride, "base_width": family.widths[0]}
    own |= {"block": next(iter(family.layouts[depth])), "downsample": "3x3"}
    own |= {"stem": family.stem} if has_families else {}
    usual = {name: axis.default for name, axis in AXES.items()} | own
    return {name: str(choice) for name, choice in usual.items()}


def _words(row: Mapping[Hashable, str], usual: Mapping[str, str]) -> list[str]:
    """The choices of a network that are not the usual ones."""
    return [
        word(str(axis), level)
        for axis, level in row.items()
        if level not in ("", usual.get(str(axis)))
    ]


def word(axis: str, level: str) -> str:
    """A choice of an axis as a label has it."""
    if axis in AXES and AXES[axis].noun:
        return spelt(axis, level)
    if level == "none":
        return "plain" if axis == "shortcut" else f"no {axis.replace('_', ' ')}"
    if not _AXES.intersection(axis.split("/")):
        return setting_words(axis.replace("_", " "), level)
    return f"{axis.replace('_', ' ')} {level}" if level.isdigit() and axis != "depth" else level


def is_complete(frame: pd.DataFrame) -> bool:
    """Whether each combination of the factors' choices is there once."""
    product = math.prod(frame[axis].nunique() for axis in frame)
    return len(frame.drop_duplicates()) == len(frame) == product
