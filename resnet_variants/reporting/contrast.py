"""Two arms side by side, as text and as a page."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from resnet_variants.analysis.contrast import FLIPS, Contrast
from resnet_variants.analysis.images import MOST
from resnet_variants.analysis.statistics import DIFFERENCE
from resnet_variants.records.files import locked, writing
from resnet_variants.records.manifest import write_files
from resnet_variants.records.pictures import HARDEST, picture_of
from resnet_variants.records.results_folder import COMPARED, COST_COLUMNS
from resnet_variants.registry import UserError, number_of, one_line
from resnet_variants.reporting.figures.arms import arms_by_name
from resnet_variants.reporting.figures.classes import by_class
from resnet_variants.reporting.figures.curves import curves
from resnet_variants.reporting.figures.images import Shown, pictures_figure
from resnet_variants.reporting.figures.style import rendered, shortened
from resnet_variants.reporting.pictures import Picture
from resnet_variants.reporting.template import Table, filled
from resnet_variants.reporting.text import POINTS, interval, markdown, p_value

_LETTERS = 30  # of a name in a figure
_LISTED = 10  # images that are most apart, in a terminal
_PARTS = {  # of the page: the title, and the caption of its figure, which is called like it
    "training_curves": ("Training", "Training loss and validation error by epoch"),
    "classes": ("Classes", "Test accuracy by class, the hardest classes first"),
    "images": ("Images most apart", "Test images that one is right on more often than the other"),
}
_OTHERS = ("runs", "runs.csv", "run.json")  # of a results folder, of a run's


def contrast_text(found: Contrast) -> str:
    """What differs in settings, then in accuracy, answers, classes and single images."""
    one, other = found.first.name, found.second.name
    settings = _settings(found)
    parts = [f"{other} against {one}, on {found.first.data}."]
    parts += [markdown(settings) if len(settings) else "No setting differs.", *_sentences(found)]
    if len(found.classes):
        parts.append(markdown(_classes(found)))
    if len(found.apart):
        parts.append(f"Test images that {one} and {other} are right on most unequally often:")
        parts.append(markdown(_apart(found, _LISTED)))
    return "\n\n".join(parts)


def require_free(out: Path) -> None:
    """Refuse a folder that holds runs or is one.

    Raises:
        ValueError: names it.
    """
    if any((out / name).exists() for name in _OTHERS) or any(out.glob("*/run.json")):
        message = f"{str(out)!r} has results of its own: name a folder for the comparison"
        raise UserError(message, field="out")


def write_contrast(found: Contrast, out: Path, absent: str, command: str) -> list[Path]:
    """The same as ``compare.html`` in a folder, with tables and figures beside it.

    Args:
        found: with the thumbnails that are at hand.
        out: the folder; it may hold an earlier comparison.
        absent: why pictures are missing; empty if none is.
        command: what the page says of how it was made.

    Raises:
        ValueError: the folder holds runs or other files of these names, or cannot be written.
    """
    require_free(out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / ".report.lock") as alone:
            if not alone:
                raise UserError(f"{str(out)!r} is being written by another command: try again")
            return write_files(out, _contents(found, absent, command))


def _contents(found: Contrast, absent: str, command: str) -> dict[str, str | bytes]:
    """The content of each file by its name."""
    tables = {"settings": found.settings, "classes": found.classes, "images": _named(found)}
    files: dict[str, str | bytes] = {
        f"{name}.csv": table.to_csv(index=False) for name, table in tables.items() if len(table)
    }
    pictures: list[Picture] = []
    for name, figure in _figures(found).items():
        if figure is not None:
            drawn = rendered(figure, name)
            pictures.append(Picture(name, drawn[f"{name}.svg"], _PARTS[name][1], name))
            files |= drawn
    shown = {
        "training_curves": pd.DataFrame(),
        "classes": _classes(found),
        "images": _apart(found, MOST),
    }
    there = {picture.part for picture in pictures}
    return files | {
        COMPARED: filled(
            "contrast.html.j2",
            title=f"{found.second.name} against {found.first.name}",
            data=found.first.data,
            one=found.first.name,
            other=found.second.name,
            sentences=_sentences(found),
            settings=Table.of(_settings(found)),
            sections=[
                (name, title, Table.of(shown[name]))
                for name, (title, _) in _PARTS.items()
                if name in there or len(shown[name])
            ],
            pictures=pictures,
            absent=absent,
            files=[*files],
            command=command,
        )
    }


def _figures(found: Contrast) -> dict[str, Figure | None]:
    """By the names of ``_PARTS``; ``None`` where there is nothing to show."""
    arms, data = arms_by_name(_shown_names(found)), found.first.data
    return {
        "training_curves": curves(found.epochs, arms, data),
        "classes": by_class(found.classes, arms, data),
        "images": _most_apart(found, data),
    }


def _most_apart(found: Contrast, data: str) -> Figure | None:
    table = found.apart.head(MOST)
    own = found.thumbnails
    rows = table[["image", "class", "first", "second"]].itertuples(index=False, name=None)
    shown: list[Shown] = [
        (
            picture_of(own[image].picture, HARDEST),
            (title, f"{POINTS * first:.0f} | {POINTS * second:.0f} %"),
        )
        for image, title, first, second in rows
        if image in own
    ]
    one, other = _shown_names(found).values()
    say = f"below each image its class, and how many runs of {one} | {other} are right"
    return pictures_figure(shown, [shortened(data), say]) if shown else None


def _shown_names(found: Contrast) -> dict[str, str]:
    """The names of the sides as a figure has room for them."""
    names = [found.first.name, found.second.name]
    short = [shortened(name, _LETTERS) for name in names]
    if short[0] == short[1]:
        short = [
            f"{text} ({which})" for text, which in zip(short, ("first", "second"), strict=True)
        ]
    return dict(zip(names, short, strict=True))


def _settings(found: Contrast) -> pd.DataFrame:
    title = "what differs"  # the name of a column, as those of the sides are
    names = [
        title,
        *(f"{s.name} " if s.name == title else s.name for s in (found.first, found.second)),
    ]
    counts = found.settings["setting"].isin(COST_COLUMNS)
    shown = found.settings.map(lambda text: f"{int(text):,}" if text.isdecimal() else text)
    return found.settings.where(~counts, shown).set_axis(names, axis=1)


def _sentences(found: Contrast) -> list[str]:
    one, other, compared = found.first.name, found.second.name, found.accuracy
    delta = compared.difference
    pairs = number_of(compared.pairs, "pair of seeds", "pairs of seeds")
    text = (
        f"Test accuracy over {pairs}: {one} {POINTS * found.first.scores.mean():.2f} %, {other} "
        f"{POINTS * found.second.scores.mean():.2f} %; difference "
        f"{interval(delta.mean, delta.low, delta.high, sign='+')} points"
    )
    text += f", p {p_value(compared.p_value)}" if not math.isnan(compared.p_value) else ""
    if found.images and not math.isnan(found.images.low):
        ends = (f"{POINTS * end:+.2f}" for end in (found.images.low, found.images.high))
        text += f"; for new images too [{', '.join(ends)}]"
    if found.flips.empty:
        return [f"{text}.", "Predictions of one side were not kept: no more can be said."]
    shares = [f"{POINTS * found.flips[name]:.2f} %" for name in FLIPS]
    answers = f"Answers: both right {shares[0]}, only {one} {shares[1]}, only {other} {shares[2]}"
    answers += f", both wrong {shares[3]}"
    if not math.isnan(found.mcnemar_p):
        answers += f"; McNemar's p {p_value(found.mcnemar_p)}, of these two runs alone"
    return [f"{text}.", f"{answers}."]


def _classes(found: Contrast) -> pd.DataFrame:
    """The classes by their differences, the largest loss first."""
    own, table = (
        found.classes[found.classes["model"] == side.name].set_index("class")
        for side in (found.first, found.second)
    )
    table = table.sort_values("difference", kind="stable")
    shares = {
        f"{side.name} %": (POINTS * rows["mean"][table.index]).map("{:.2f}".format)
        for side, rows in ((found.first, own), (found.second, table))
    }
    deltas = [interval(*row, sign="+") for row in table[[*DIFFERENCE]].itertuples(index=False)]
    cells = {"class": map(one_line, table.index), "images": table["images"]}
    return pd.DataFrame({**cells, **shares, "difference, points [95 %]": deltas})


def _named(found: Contrast) -> pd.DataFrame:
    """The images that are most apart, with the names of files as far as they are known."""
    own = found.thumbnails
    return found.apart.assign(
        name=[own[image].name if image in own else "" for image in found.apart["image"]]
    )


def _apart(found: Contrast, most: int) -> pd.DataFrame:
    table = _named(found).head(most)
    shares = {
        f"{side.name} right": [f"{POINTS * share:.0f} %" for share in table[name]]
        for name, side in (("first", found.first), ("second", found.second))
    }
    images = table["name"].where(table["name"] != "", table["image"].astype(str))
    cells = {"test image": images.map(one_line), "class": table["class"].map(one_line)}
    return pd.DataFrame(cells | shares)
