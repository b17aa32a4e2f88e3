"""The figures that the page shows as they are, and in which part of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resnet_variants.analysis.depths import ERRORS
from resnet_variants.records.pictures import HARDEST
from resnet_variants.reporting.figures.diagnosis import DIAGNOSIS_FIGURES


@dataclass(frozen=True)
class _Kind:
    """What figures of one name are."""

    part: str  # of the page
    caption: str  # what they show
    numbers: str = ""  # the file that has their numbers; NAME.csv if empty


_KINDS = {
    ERRORS: _Kind("depths", "Test and training error by depth, a line per design"),
    "classes": _Kind("classes", "Test accuracy by class, the hardest classes first"),
    "confusion": _Kind(
        "classes",
        "What images of a class are taken for, by the arm with the best mean and by its baseline",
        "outcomes.parquet",
    ),
    HARDEST: _Kind(
        "classes",
        "The test images that fewest runs get right, with the most frequent wrong answer",
    ),
    "calibration": _Kind("probabilities", "Accuracy by confidence; on the diagonal it is right"),
    "ensembles": _Kind("probabilities", "Accuracy of the mean probabilities of several seeds"),
    **{name: _Kind("diagnosis", figure.caption) for name, figure in DIAGNOSIS_FIGURES.items()},
}


@dataclass(frozen=True)
class Picture:
    """A figure that is shown as it is."""

    name: str  # of its file
    svg: bytes
    caption: str  # what it shows, and where its numbers are
    part: str  # of the page that shows it

    @property
    def url(self) -> str:
        """The picture itself, as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def pictures_of(figures: Mapping[str, bytes]) -> list[Picture]:
    """Those of the figures, by the names of their files, that the page shows as they are."""
    pictures = []
    for name, content in figures.items():
        kind = _kind(name)
        if kind and name.endswith(".svg"):
            about = _KINDS[kind]
            caption = f"{about.caption}; the numbers are in {about.numbers or f'{kind}.csv'}."
            pictures.append(Picture(Path(name).stem, content, caption, about.part))
    return pictures


def _kind(name: str) -> str:
    """The longest name of a kind that a figure's name begins with; empty where none does."""
    return max((kind for kind in _KINDS if name.startswith(kind)), key=len, default="")
