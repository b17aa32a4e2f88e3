"""Maps and pictures as text, in the cells of the table ``class_maps``.

map       numbers of a row with spaces between, rows with semicolons between
picture   a file in base 64: PNG of a small image, else JPEG
"""

from __future__ import annotations

import base64
import binascii
import io

import numpy as np
from PIL import Image

from resnet_variants.registry import UserError

_EXACT, _SIDE = 64, 160  # pixels on a side of an image that is kept as it is, and of any


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
        raise _unreadable("map") from error
    return values


def picture_text(pixels: np.ndarray) -> str:
    """The cell for an image (H, W, C) uint8 of 1 or 3 channels; a large one is made smaller."""
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    if max(picture.size) <= _EXACT:
        picture.save(file, "PNG")
    else:
        picture.thumbnail((_SIDE, _SIDE))
        picture.save(file, "JPEG", quality=85, subsampling=0)
    return base64.b64encode(file.getvalue()).decode()


def picture_of(text: str) -> Image.Image:
    """The picture in a cell.

    Raises:
        ValueError: the cell holds none.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            return picture.convert("RGB")
    except (OSError, binascii.Error) as error:
        raise _unreadable("picture") from error


def _unreadable(what: str) -> UserError:
    message = f"class_maps.csv holds a {what} that cannot be read"
    return UserError(f"{message}: diagnose its run again, or move the file elsewhere")
