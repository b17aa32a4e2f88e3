"""Maps and pictures as text, in the cells of tables.

class_maps.csv    map       numbers of a row with spaces between, rows with semicolons between
                  picture   a file in base 64: PNG of a small image, else JPEG
hardest.csv       picture   likewise; empty where it was not at hand
                  name      of its file, likewise
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from resnet_variants.records.files import readable, require_regular
from resnet_variants.registry import UserError

CLASS_MAPS, HARDEST = "class_maps", "hardest"  # the tables, NAME.csv


class Thumbnail(NamedTuple):
    """A small picture of an image."""

    name: str  # of its file; empty of an image that is none
    picture: str  # as text


Thumbnails = Mapping[str, Mapping[int, Thumbnail]]  # by data_hash, then place in the test split
_THUMBNAIL = {"data_hash": str, "image": int, "name": str, "picture": str}  # columns
_REMEDIES = {
    CLASS_MAPS: "diagnose its run again, or move the file elsewhere",
    HARDEST: "delete it, and `run` writes it again where the images are",
}
_EXACT, SIDE = 64, 160  # pixels on a side of an image that is kept as it is, and of any


def map_text(values: np.ndarray) -> str:
    """The cell for a map (h, w)."""
    return ";".join(" ".join(f"{value:.6g}" for value in row) for row in values)


def map_of(text: str) -> np.ndarray:
    """The map (h, w) in a cell.

    Raises:
        ValueError: the cell holds none.
    """
    try:
        values = np.array([row.split() for row in text.split(";")], dtype=float)
        if not (values.size and np.isfinite(values).all()):
            raise ValueError("no finite numbers")
    except ValueError as error:
        raise _unreadable("map", CLASS_MAPS) from error
    return values


def picture_text(pixels: np.ndarray) -> str:
    """The cell for an image (H, W, C) uint8 of 1 or 3 channels; a large one is made smaller."""
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    if max(picture.size) <= _EXACT:
        picture.save(file, "PNG")
    else:
        picture.thumbnail((SIDE, SIDE))
        picture.save(file, "JPEG", quality=85, subsampling=0)
    return base64.b64encode(file.getvalue()).decode()


def picture_of(text: str, table: str) -> Image.Image:
    """The picture in a cell of the table ``CLASS_MAPS`` or ``HARDEST``.

    Raises:
        ValueError: the cell holds none.
    """
    try:
        content = io.BytesIO(base64.b64decode(text, validate=True))
        with Image.open(content, formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > SIDE:  # a bomb: ours are smaller
                raise OSError(f"{picture.size} pixels")
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable("picture", table) from error


def _unreadable(what: str, table: str) -> UserError:
    return UserError(f"{table}.csv holds a {what} that cannot be read: {_REMEDIES[table]}")


def read_thumbnails(folders: Sequence[Path]) -> Thumbnails:
    """The pictures that the folders' ``hardest.csv`` hold, as text; of several the first one's.

    Raises:
        ValueError: such a file is damaged.
    """
    found: dict[str, dict[int, Thumbnail]] = {}
    for folder in reversed(folders):
        file = folder / f"{HARDEST}.csv"
        if not file.exists():
            continue
        with readable(file, remedy=_REMEDIES[HARDEST], also=(KeyError, OverflowError)):
            require_regular(file)
            table = pd.read_csv(file, dtype=_THUMBNAIL, usecols=[*_THUMBNAIL], na_filter=False)
            for data_hash, image, name, picture in table[[*_THUMBNAIL]].to_numpy():
                if picture:
                    picture_of(picture, HARDEST)  # or it is refused here, where its file is known
                    found.setdefault(data_hash, {})[image] = Thumbnail(name, picture)
    return found
