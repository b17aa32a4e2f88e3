"""How networks are drawn: each has one colour, marker, line and filling in all figures.

Each factor that the networks differ in has properties of its own, and the one with most choices has
colour and marker. Nothing depends on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.reporting.figures.style import PALETTE, plain

Look = dict[str, Any]  # a choice of each property
_CHOICES: Mapping[str, Sequence[Any]] = {
    "color": PALETTE,
    "marker": ("s", "o", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*"),
    "linestyle": ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))),
    "fill": ("none", "full", "left", "top", "right", "bottom"),
}
_PLAIN: Look = {"color": "#595959", "marker": "o", "linestyle": "-", "fill": "full"}
# By the number of factors: what shows the first, what the second, what all others together.
_SHOWN_BY = {
    1: (("color", "marker", "linestyle"),),
    2: (("color", "marker"), ("linestyle", "fill")),
    3: (("color", "marker"), ("linestyle",), ("fill",)),
}
_ABSENT: dict[tuple[str, ...], Look] = {
    ("linestyle",): {"marker": ""},
    ("fill",): {"linestyle": ""},
}  # from legends of choices
LISTED = 12  # networks that a legend lists; of more it lists the choices that make them


@dataclass(frozen=True)
class _Part:
    """Factors that are shown together."""

    title: str
    values: pd.Series  # by network
    names: tuple[str, ...]  # the properties that show them

    @cached_property
    def looks(self) -> dict[str, Look]:
        """By value, in order of appearance: plain in all other properties."""
        return {
            value: _PLAIN | {name: _CHOICES[name][i % len(_CHOICES[name])] for name in self.names}
            for i, value in enumerate(self.values.unique())
        }


@dataclass(frozen=True)
class Arms:
    """The networks of a results folder as all its figures name and draw them.

    Attributes:
        labels: short label by network.
        levels: the factors by network; a depth is the last one.
    """

    labels: Mapping[str, str]
    levels: pd.DataFrame

    @cached_property
    def _parts(self) -> list[_Part]:
        shown = _SHOWN_BY[min(len(self.levels.columns), 3)]
        first = [self.levels.iloc[:, [at]] for at in range(len(shown) - 1)]
        groups = [*first, self.levels.iloc[:, len(first) :]]
        return [
            _Part(", ".join(map(str, own)), own.agg(", ".join, axis=1), names)
            for own, names in zip(groups, shown, strict=True)
        ]

    def look(self, model: str) -> Look:
        """What is passed to ``drawn``."""
        parts = {name: part for part in self._parts for name in part.names}
        return _PLAIN | {name: part.looks[part.values[model]][name] for name, part in parts.items()}

    def designs(self, models: Mapping[str, str]) -> dict[str, Look]:
        """The looks of networks without what shows the last factor, which is their depth.

        Args:
            models: a network of each design.
        """
        last = {name: _PLAIN[name] for name in self._parts[-1].names}
        looks = {design: self.look(model) | last for design, model in models.items()}
        if len({str(look) for look in looks.values()}) == len(looks):
            return looks
        return looks_by_value(pd.Series([*models]))

    def by_level(self, factor: str) -> dict[str, Look]:
        """A look for each choice of one factor."""
        names = self._parts[min([*self.levels].index(factor), len(self._parts) - 1)].names
        return _Part(factor, self.levels[factor], names).looks

    def panels(self) -> pd.Series:
        """Title by network, where figures have a panel for each choice of the last factor."""
        last = self._parts[-1]
        if len(self._parts) == 1:
            return pd.Series("", index=last.values.index)
        return last.title.replace("_", " ") + " " + last.values

    def legend(self, models: Iterable[str]) -> list[Line2D]:
        """Handles for these networks, or for the choices that make them."""
        models = [*dict.fromkeys(models)]
        if len(models) <= LISTED or len(self._parts) == 1:
            return [handle(self.labels[model], self.look(model)) for model in models]
        return [
            handle(f"{part.title} {value}", look | _ABSENT.get(part.names, {}))
            for part in self._parts
            for value, look in part.looks.items()
            if value in set(part.values[models])
        ]


def arms_of(comparison: Comparison) -> Arms:
    """Names and looks of the networks, the same for all comparisons of a folder.

    Where looks do not suffice for all factors of more than ``LISTED`` networks, the factor with
    most choices and the last one are shown; a legend of all networks could not be read.
    """
    labels = comparison.labels
    levels = comparison.factors
    ranks = {axis: ("depth" in str(axis).split("/"), -levels[axis].nunique()) for axis in levels}
    arms = Arms(labels, levels[sorted(levels, key=lambda axis: ranks[axis])])
    if not levels.empty and len({str(arms.look(model)) for model in labels}) == len(labels):
        return arms
    if len(labels) > LISTED and len(levels.columns) > 1:
        return Arms(labels, arms.levels.iloc[:, [0, -1]])
    return arms_by_name(labels)


def arms_by_name(labels: Mapping[str, str]) -> Arms:
    """Looks of networks one by one, where nothing but their names and labels is known."""
    return Arms(labels, pd.Series(labels, name="network").to_frame())


def looks_by_value(values: pd.Series) -> dict[str, Look]:
    """A look for each distinct text, in order of appearance."""
    return _Part("", values, _SHOWN_BY[1][0]).looks


def drawn(look: Look) -> dict[str, Any]:
    """A look as Matplotlib's keywords; the ground of a marker hides the interval behind it."""
    line = {name: look[name] for name in ("color", "marker", "linestyle")}
    if look["fill"] == "none":
        return line | {"markerfacecolor": "white"}
    alternative = {"markerfacecolor": look["color"], "markerfacecoloralt": "white"}
    return line | alternative | {"fillstyle": look["fill"]}


def handle(label: str, look: Look) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], **drawn(look), markersize=5, label=plain(label))
