"""How every figure looks, and how it is saved: colour-blind safe, readable in grey."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from resnet_variants.models.variant import FURTHER, SIZE, shown_as

# Okabe and Ito's palette: distinct under the common colour vision deficiencies.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("s", "o", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
FILLS = ("none", "full", "left", "top", "right", "bottom")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "resnet_variants",  # the same data gives the same bytes
    "svg.fonttype": "none",
}
DPI = 200
COSTS = {  # columns of the summary: what an axis says, and how many of its units one is
    "macs": ("MACs per image (millions)", 1e-6),
    "flops": ("FLOPs per image (millions)", 1e-6),
    "params": ("parameters (millions)", 1e-6),
    "acts": ("activations per image (millions)", 1e-6),
    "train_ms_per_image": ("training time per image, fastest run (ms)", 1.0),
    "latency_ms": ("latency of one image, as measured (ms)", 1.0),
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's defaults and ``STYLE`` within the block, whatever the user's settings say."""
    defaults: dict[Any, Any] = dict(mpl.rcParamsDefault)
    del defaults["backend"]  # no figure here asks for it
    with mpl.rc_context(defaults | STYLE):
        yield


def rendered(figure: Figure, name: str) -> dict[str, bytes]:
    """The figure as the files ``NAME.png`` and ``NAME.svg``."""
    FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    with styled():
        layout = figure.get_layout_engine()
        if layout is not None:  # once for both
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(png, format="png", dpi=DPI, backend="agg")
        figure.savefig(svg, format="svg", metadata={"Date": None}, backend="svg")
    return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue()}


def plain(text: object) -> str:
    """Text that matplotlib draws as it is spelt, where it would look for formulas."""
    return str(text).replace("$", r"\$")


def shortened(text: object, most: int = 60) -> str:
    """The text as a caption has room for it: of a long one, both ends."""
    text = str(text)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def styles(values: pd.Series, choices: Sequence[Any]) -> dict[Hashable, Any]:
    """One of the choices per distinct value, in order of appearance."""
    return {value: choices[i % len(choices)] for i, value in enumerate(values.unique())}


def line_styles(values: pd.Series) -> dict[Hashable, dict[str, Any]]:
    """Matplotlib's colour, line and marker per distinct value, in order of appearance."""
    each = {"color": PALETTE, "linestyle": LINES, "marker": MARKERS}
    by_property = {name: styles(values, choices) for name, choices in each.items()}
    return {
        value: {name: chosen[value] for name, chosen in by_property.items()}
        for value in values.unique()
    }


def headline(figure: Figure, text: str) -> None:
    """A caption over the whole figure, which may be wider than its axes."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=9, parse_math=False)


def intervals_named(seeds: int) -> str:
    """What a caption says of the error bars."""
    return "95 % Student intervals" if seeds > 1 else "one seed: no interval"


SIZES = tuple(shown_as(SIZE))


def marker_label(frame: pd.DataFrame, sizes: Sequence[str] = SIZES) -> pd.Series:
    """Downsampling, and what else the rows differ in; ``sizes`` are the sizes to include."""
    text = frame["stride"] + " stride, " + frame["shortcut"] + " shortcut"
    for axis in (*sizes, *shown_as(FURTHER)):
        if frame[axis].nunique() > 1:
            text += f", {axis.replace('_', ' ')} " + frame[axis].astype(str)
    return text
