"""Single test images as small pictures, with what runs say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from resnet_variants.analysis.comparison import Comparison
from resnet_variants.records.pictures import HARDEST, picture_of
from resnet_variants.registry import number_of, one_line
from resnet_variants.reporting.figures.style import headline, plain, shortened, styled
from resnet_variants.reporting.text import POINTS

_COLUMNS, _LETTERS = 8, 14  # pictures in a row; letters that one is wide
_SIDE, _GAP, _LINE = 0.9, 0.1, 0.14  # inches: a picture, between two, a line of text

Shown = tuple[Image.Image, Sequence[str]]  # a picture, and the lines below it


def hardest_images(comparison: Comparison) -> Figure | None:
    """The test images that fewest runs get right, of which there are pictures; ``None`` if none."""
    table = comparison.hardest
    kept = table[table["picture"] != ""]
    if kept.empty:
        return None
    rows = kept[["picture", "class", "answer", "answered"]].itertuples(index=False, name=None)
    shown: list[Shown] = [
        (picture_of(picture, HARDEST), (title, answer, f"{POINTS * answered:.0f} %"))
        for picture, title, answer, answered in rows
    ]
    runs = number_of(int(kept["runs"].iloc[0]), "run")
    say = f"below each image its class, the most frequent wrong answer, and its share of {runs}"
    notes = [shortened(comparison.data), say]
    if len(kept) < len(table):
        notes.append(f"{len(table) - len(kept)} of the {len(table)} hardest are not at hand")
    return pictures_figure(shown, notes)


def pictures_figure(shown: Sequence[Shown], notes: Sequence[str]) -> Figure:
    """Pictures in rows, each enlarged pixel by pixel to the same width."""
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    wide, high = _SIDE + _GAP, _SIDE + _GAP + _LINE * len(shown[0][1])
    with styled():
        size = max(4.2, columns * wide), rows * high + 0.05
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        for at, (picture, lines) in enumerate(shown):
            row, column = divmod(at, columns)
            left, top = column * wide, -row * high
            extent = (left, left + _SIDE, top - _SIDE, top)
            axes.imshow(np.asarray(picture), extent=extent, interpolation="none")
            for line, text in enumerate(lines):
                label = plain(shortened(one_line(text), _LETTERS))
                # Without a room of its own a text takes no time in the layout.
                y = top - _SIDE - 0.03 - _LINE * line
                axes.text(left, y, label, fontsize=7, va="top", in_layout=False)
        axes.set(xlim=(0, max(4.2, columns * wide)), ylim=(-rows * high, 0), aspect="equal")
        headline(figure, notes)
    return figure
