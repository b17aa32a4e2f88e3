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
    """What figures of one name are.

    Attributes:
        part: of the page.
        caption: what they show.
        numbers: the file that has their numbers; NAME.csv if empty.
    """

    part: str
    caption: str
    numbers: str = ""


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
    part: str = ""  # of the page that shows it

    @property
    def url(self) -> str:
        """The picture itself, as an address."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def pictures_of(figures: Mapping[str, bytes]) -> list[Picture]:
    """Those of the figures, by the names of their files, that the page shows as they are."""
    shown = {n: _kind(n) for n in figures if n.endswith(".svg") and _kind(n)}
    return [
        Picture(Path(name).stem, figures[name], _caption(kind), _KINDS[kind].part)
        for name, kind in shown.items()
    ]


def _caption(name: str) -> str:
    kind = _KINDS[name]
    return f"{kind.caption}; the numbers are in {kind.numbers or f'{name}.csv'}."


def _kind(name: str) -> str:
    """The longest name of a kind that a figure's name begins with; empty where none does."""
    return max((kind for kind in _KINDS if name.startswith(kind)), key=len, default="")
