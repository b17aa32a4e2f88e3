"""How every figure looks, and how it is saved: colour-blind safe, readable in grey."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from resnet_variants.reporting.text import span

GREY = "#727A83"  # can be seen on a light and on a dark page
# Okabe and Ito's palette: distinct under the common colour vision deficiencies. Grey takes the
# place of black, which a dark page hides.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY)
COLUMN = 4.2  # inches wide; printed in a column of 80 mm, letters of 9 points are 6.7 points high
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
_FAR = 8.0  # an outlier is so many times as far from the median as half of all values are


class Cost(NamedTuple):
    """A column of the summary as an axis shows it."""

    label: str
    scale: float  # how many units of the axis one of the column's is
    noun: str = ""  # of an exact cost, whose ties are drawn side by side; empty if it is measured


COSTS = {
    "macs": Cost("MACs per image (millions)", 1e-6, "MACs"),
    "flops": Cost("FLOPs per image (millions)", 1e-6, "FLOPs"),
    "params": Cost("parameters (millions)", 1e-6, "parameters"),
    "acts": Cost("activations per image (millions)", 1e-6, "activations"),
    "train_ms_per_image": Cost("training time per image, fastest run (ms)", 1.0),
    "latency_ms": Cost("latency of one image, as measured (ms)", 1.0),
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
            figure.set_layout_engine(None)  # which would draw all for nothing before each
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


def headline(figure: Figure, notes: Sequence[str]) -> None:
    """A caption over the whole figure, in as many lines as its width asks for."""
    title = figure.suptitle("", x=0.01, ha="left", fontsize=9, parse_math=False)
    # Lines end between notes, where these are short.
    joined = ", ".join(note.replace(" ", "\0") if len(note) < 30 else note for note in notes)
    for letters in range(len(joined), 0, -1):
        title.set_text(fill(joined, letters).replace("\0", " "))
        if title.get_window_extent().width < 0.98 * figure.bbox.width:
            break
    _grow(figure, title.get_text().count("\n") + 1)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend under all axes, in as many columns as the figure's width has room for."""
    room = 0.98 * figure.bbox.width
    most = len(handles)
    if most > 1:  # making a legend of many takes a second: begin where the texts alone have room
        legend = _legend(figure, handles, 1)
        widths = [text.get_window_extent().width for text in legend.get_texts()]
        legend.remove()
        columns = range(1, len(handles) + 1)
        most = max((c for c in columns if _least_width(widths, c) < room), default=1)
    for columns in range(most, 0, -1):
        legend = _legend(figure, handles, columns)
        if columns == 1 or legend.get_window_extent().width < room:
            _grow(figure, -(-len(handles) // columns))
            break
        legend.remove()


def _legend(figure: Figure, handles: Sequence[Artist], columns: int) -> Legend:
    return figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        handlelength=2.8,
        columnspacing=1.2,
    )


def _least_width(texts: Sequence[float], columns: int) -> float:
    """Of the longest text in each column of a legend."""
    return float(sum(max(part) for part in np.array_split(texts, columns)))


def _grow(figure: Figure, lines: int) -> None:
    """Room for lines of text, so that axes are of one size in all figures."""
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)


def logarithmic(axes: Axes, name: str) -> None:
    """A logarithmic axis, ``x`` or ``y``, with enough ticks for what is drawn already."""
    axes.set(**{f"{name}scale": "log"})
    low, high = axes.get_xlim() if name == "x" else axes.get_ylim()
    decades = np.log10(high / low)
    axis = axes.xaxis if name == "x" else axes.yaxis
    if decades < 3:  # powers of ten would be too few
        subs = (1, 2, 5) if decades > 1 else (1, 1.5, 2, 3, 5, 7)
        axis.set_major_locator(MaxNLocator(5) if decades < 0.3 else LogLocator(subs=subs))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def counted(numbers: Iterable[Any], noun: str) -> str:
    """``1 seed``, ``9 seeds``, ``3 to 9 seeds``."""
    counts = pd.Series([*numbers])
    return f"{span(counts)} {noun}" + ("s" if counts.max() != 1 else "")


def intervals_named(seeds: int) -> str:
    """What a caption says of the error bars."""
    return "bars: 95 % Student intervals" if seeds > 1 else "one seed: no interval"


def robust_range(values: np.ndarray) -> tuple[float, float] | None:
    """Limits of an axis that leave out far outliers, where these squeeze all other values.

    ``None`` where the other values take more than a quarter of the axis as they are.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    distances = np.abs(values - np.median(values))
    inside = values[distances <= _FAR * np.median(distances)]
    width = float(np.ptp(inside))
    if not 0 < width < np.ptp(values) / 4:
        return None
    return float(inside.min()) - 0.1 * width, float(inside.max()) + 0.1 * width
