"""One picture file as upright 8-bit RGB, or one line that says what is wrong with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision import transforms

from resnet_variants.registry import UserError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
SMALLEST_SIDE, LARGEST_SIDE = 2, 16_384  # pixels
LARGEST_AREA = 2**26  # pixels: a file of kilobytes may claim any number of them
INTERPOLATION = "bilinear"  # of every resizing, as timm and Pillow call it
_RATIO = 4 / 3  # the most oblong crop, as torchvision's and timm's random resized crop has it

Box = tuple[float, float, float, float]


class BadImageError(UserError):
    """A file that is no usable picture; the message names it and says why."""


def read_picture(file: Any, name: str) -> Image.Image:
    """A file, path or picture as RGB, turned as its EXIF says, the first frame of several.

    Transparent pixels become white; 16-bit grey is scaled to 8 bits.

    Raises:
        BadImageError: missing, unreadable, cut off, no picture, or of an absurd size.
    """
    name = shown(name)
    with (
        blamed_on(name),
        file if isinstance(file, Image.Image) else Image.open(file) as image,
    ):
        _check_size(image.size, name)
        ImageOps.exif_transpose(image, in_place=True)
        return as_rgb(image, name)


@contextlib.contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Turn whatever is raised inside into a ``BadImageError`` that names the file."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise BadImageError(f"{name}: {_reason(error)}; mend or remove it") from error


def shown(name: str) -> str:
    """A file's name for a message: escaped where it would break the line or the encoding."""
    return name if name.isprintable() else repr(name)


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    what = f"{name}: {width} x {height} pixels"
    if min(size) < SMALLEST_SIDE:
        raise BadImageError(f"{what} are too few to learn from; remove it")
    if max(size) > LARGEST_SIDE or width * height > LARGEST_AREA:
        message = f"{what} exceed {LARGEST_SIDE} on a side or {LARGEST_AREA} in all; scale it down"
        raise BadImageError(message)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture that Pillow can read (empty, or another kind of file)"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {LARGEST_AREA} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any of Pillow's modes as RGB.

    Raises:
        BadImageError: floating-point pixels, or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise BadImageError(f"{name}: floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 2**16 - 1:
            raise BadImageError(f"{name}: pixels beyond 16 bits; save it with 8 or 16 bits")
        pixels[pixels == image.info.get("transparency", -1)] = 2**16 - 1
        image = Image.fromarray(np.rint(pixels / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def centre(size: tuple[int, int]) -> Box:
    """The largest centred square of a picture: left, upper, right, lower in pixels."""
    width, height = size
    side = min(size)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def resized_crop(size: tuple[int, int], draws: Box, least_area: float) -> Box:
    """A crop of random area, shape and place (arXiv:1409.4842, section 6) from four draws.

    Args:
        size: width and height of the picture.
        draws: uniform in [0, 1): area, aspect ratio, place across, place down.
        least_area: of the picture's, the largest being 1.
    """
    width, height = size
    area = (least_area + (1 - least_area) * draws[0]) * width * height
    ratio = math.exp((2 * draws[1] - 1) * math.log(_RATIO))
    wide = min(width, math.sqrt(area * ratio))
    high = min(height, math.sqrt(area / ratio))
    left, upper = draws[2] * (width - wide), draws[3] * (height - high)
    return left, upper, left + wide, upper + high


def middle(image: Image.Image, side: int, edge: int) -> np.ndarray:
    """(C, side, side) uint8 from the middle of a picture whose shorter edge becomes ``edge``.

    It is what timm's transform shows; where the two are equal, timm rounds the longer edge and the
    margin to pixels, so that its cut of an oblong picture is less than a pixel beside this one.
    """
    if edge != side:
        how = transforms.InterpolationMode(INTERPOLATION)
        cut: Any = transforms.Compose([transforms.Resize(edge, how), transforms.CenterCrop(side)])
        image = cut(image)
    return resized(image, side, centre(image.size))


def resized(image: Image.Image, side: int, box: Box) -> np.ndarray:
    """The box of a picture as (C, side, side) uint8, averaged where it shrinks."""
    if (*image.size, *box) != (side, side, 0, 0, side, side):
        image = image.resize((side, side), Image.Resampling[INTERPOLATION.upper()], box=box)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's head states them, upright.

    Raises:
        BadImageError: see ``read_picture``; the pixels themselves are not looked at.
    """
    name = shown(str(path))
    with blamed_on(name), Image.open(path) as image:
        _check_size(image.size, name)
        width, height = image.size
        # Of TIFF, Pillow gives the upright size; of PNG, it decodes all pixels to find the EXIF.
        if width == height or image.format == "TIFF":
            return width, height
        sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8
        return (height, width) if sideways else (width, height)
