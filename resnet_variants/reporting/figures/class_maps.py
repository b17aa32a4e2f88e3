"""Class activation maps over their images: two classes of one network, or one class of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resnet_variants.records.diagnosis import OTHER_CLASS, TRUE_CLASS
from resnet_variants.records.pictures import CLASS_MAPS, map_of, picture_of
from resnet_variants.reporting.figures.arms import LISTED
from resnet_variants.reporting.figures.style import headline, plain, shortened

_COLOURS, _OPAQUE = "inferno", 0.6  # of a map; the image is seen through it
_PANEL, _LETTERS = 1.65, 24  # inches, and letters of a title, that a panel is wide


def class_maps_figure(frame: pd.DataFrame, labels: Mapping[str, str], data: str) -> Figure:
    """A row for each image of the first network, whose maps share one scale.

    The columns: the image; then, of one network, the map of the true class and of the most probable
    other one; of several, the map of the true class by the first seed of each.

    Args:
        frame: rows of the table ``class_maps``.
        labels: what readers call networks.
        data: what the caption calls the images.
    """
    models = [str(model) for model in frame["model"].unique()]
    shown = models[:LISTED]
    first = frame["seed"] == frame.groupby("model")["seed"].transform("min")
    own = frame[first].set_index(["model", "kind"])
    kinds = (TRUE_CLASS, OTHER_CLASS) if len(models) == 1 else (TRUE_CLASS,)
    columns = [(model, kind) for model in shown for kind in kinds]
    images = frame.loc[first & (frame["model"] == shown[0]), "image"].unique()
    size = (_PANEL * (len(columns) + 1) + 0.6, (_PANEL + 0.3) * len(images) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    headline(figure, [shortened(data), *_notes(frame[first], models, labels)])
    widths = [1.0] * (len(columns) + 1) + [0.05]  # the last one: of the scale
    shape = (len(images), len(widths))
    grid = figure.subplots(*shape, squeeze=False, width_ratios=widths)
    for axes in grid[:, :-1].flat:
        axes.set_axis_off()
    for panels, image in zip(grid, images, strict=True):
        _draw_row(panels, own[own["image"] == image].to_dict("index"), columns)
        panels[0].set_title(f"validation\nimage {image}", fontsize=8)
    if len(models) > 1:
        for axes, model in zip(grid[0, 1:-1], shown, strict=True):
            label = plain(shortened(labels[model], _LETTERS))
            axes.set_title(f"{label}\n{axes.get_title()}", fontsize=8)
    return figure


def _notes(own: pd.DataFrame, models: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    """What the caption says of the maps."""
    colours = "bright: for the class (the mean of a map is the logit without its bias)"
    if len(models) == 1:
        return [labels[models[0]], f"seed {own['seed'].iloc[0]}", colours]
    many = [f"the first {LISTED} of {len(models)} networks"] if len(models) > LISTED else []
    return [*many, "maps of the true class", "first seed of each", colours]


def _draw_row(
    panels: Sequence[Axes], rows: Mapping[Any, Any], columns: Sequence[tuple[str, str]]
) -> None:
    """The image, its maps over it, and their scale; a network without this image has none."""
    maps = {column: map_of(rows[column]["map"]) for column in columns if column in rows}
    picture = picture_of(rows[columns[0]]["picture"], CLASS_MAPS)
    values = np.concatenate([own.ravel() for own in maps.values()])
    scale: Any = {"norm": Normalize(values.min(), values.max()), "cmap": _COLOURS}
    over: Any = {"extent": (0, picture.width, picture.height, 0)}
    panels[0].imshow(picture)
    for axes, column in zip(panels[1:-1], columns, strict=True):
        if column in maps:
            axes.imshow(picture.convert("L"), cmap="gray", vmin=-128, vmax=255, **over)
            axes.imshow(maps[column], interpolation="bilinear", alpha=_OPAQUE, **over, **scale)
            axes.set_title(_title(rows, *column), fontsize=8)
    bar = Colorbar(panels[-1], ScalarMappable(**scale), ticks=MaxNLocator(5))
    bar.ax.tick_params(labelsize=7)


def _title(rows: Mapping[Any, Any], model: str, kind: str) -> str:
    """The class and its probability, and whether it is the true one and the predicted one."""
    both = [rows[model, each] for each in (TRUE_CLASS, OTHER_CLASS)]
    answer = max(both, key=lambda row: row["probability"])["class_name"]
    own = rows[model, kind]
    is_answer = own["class_name"] == answer
    what = {
        TRUE_CLASS: "true, predicted" if is_answer else f"taken for {answer}",
        OTHER_CLASS: "predicted" if is_answer else "next",
    }[kind]
    texts = f"{own['class_name']}, {100 * own['probability']:.0f} %", what
    return "\n".join(plain(shortened(text, _LETTERS)) for text in texts)
