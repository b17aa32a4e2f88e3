"""A picture file as upright 8-bit RGB, or one line that says what is wrong with the file."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from torchvision import transforms

from resnet_variants.registry import UserError

SMALLEST_SIDE, LARGEST_SIDE = 2, 16_384  # pixels
LARGEST_AREA = 2**26  # pixels: a file of kilobytes may claim any number
INTERPOLATION = "bilinear"  # of every resizing; timm's and Pillow's name
_RATIO = 4 / 3  # of the most oblong crop, as in torchvision's and timm's random resized crop

Box = tuple[float, float, float, float]


class BadImageError(UserError):
    """A file is no usable picture; the message names the file and the reason."""


# Kinds that Pillow opens but does not decode itself: stubs, films, and PostScript, a program.
_UNDECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
# Icons, layers of an editor, data of fonts and instruments: no images of a data set.
_NO_DATA = (
    *("CUR", "FITS", "FTEX", "GBR", "ICNS", "ICO", "IM", "IPTC", "MSP", "PCD", "PSD", "XBM", "XPM"),
)
# EXIF orientation -> what turns the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 0x0102  # tags of EXIF and TIFF
# Comments of a PNG in bytes: Pillow would refuse pictures for a compressed one of a megabyte.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**28


@functools.cache
def suffixes() -> Mapping[str, str]:
    """Suffixes of files that Pillow decodes itself, and their kinds."""
    Image.preinit()  # the usual kinds first: files are tried in this order
    Image.init()
    known = Image.registered_extensions().items()
    # An MPO file begins as a JPEG and is opened as one.
    kinds = {"MPO", *Image.OPEN} - {*_UNDECODED, *_NO_DATA}
    return {suffix: kind for suffix, kind in known if kind in kinds}


@functools.cache
def _kinds() -> tuple[str, ...]:
    return tuple(kind for kind in Image.ID if kind in set(suffixes().values()))


def read_picture(file: Any, name: str) -> Image.Image:
    """A file, path or picture as RGB, turned as its EXIF says; of several frames, the first.

    Transparent pixels become white. Grey of more than 8 bits is scaled to 8 bits from the range
    that the file's format states: the result depends on that file alone.

    Raises:
        BadImageError: missing, unreadable, no regular file, cut off, no picture, or of an absurd
            size.
    """
    name = shown(name)
    with blamed_on(name), _opened(file) as image:
        _check_size(image.size, name)
        image.load()
        largest = _largest(image)
        method = _UPRIGHT.get(_orientation(image))
        return as_rgb(image if method is None else image.transpose(method), name, largest)


@contextlib.contextmanager
def _opened(file: Any) -> Iterator[Image.Image]:
    """A picture with its head read; a path must be a regular file or a link to one."""
    with contextlib.ExitStack() as stack:
        if not isinstance(file, Image.Image):
            if isinstance(file, str | os.PathLike):
                path = Path(file)
                if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never begin, a device end
                    kinds = "a folder, pipe, socket or device"
                    raise OSError(errno.EINVAL, f"{kinds} instead of a regular file")
                file = stack.enter_context(path.open("rb"))
            file = Image.open(file, formats=_kinds())
        yield stack.enter_context(file)


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation, even if other tags are damaged; 1 (as stored) if none can be read."""
    exif = image.info.get("exif")
    try:
        stated = _orientation_tag(exif) if isinstance(exif, bytes) else None
        # Pillow also reads texts and XMP, but stops at a damaged tag.
        return stated or image.getexif().get(_ORIENTATION, 1)
    except (ValueError, SyntaxError, LookupError, TypeError, OSError, struct.error):
        return 1


def _orientation_tag(exif: bytes) -> int | None:
    """The orientation in EXIF's first directory: a table of tag, type, count and value."""
    content = exif.removeprefix(b"Exif\0\0")
    order = ">" if content.startswith(b"MM") else "<"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", content, at)
        if tag == _ORIENTATION and kind in (3, 4):  # 16 or 32 bits
            return struct.unpack_from(order + " HI"[kind - 2], content, at + 8)[0]
    return None


def _largest(image: Image.Image) -> int:
    """The largest possible value of an integer pixel: Pillow does not scale a TIFF's 12 bits."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return 2 ** min(int(bits[0]), 16) - 1


def brightest(path: Path) -> int | None:
    """The largest 8-bit value of a picture stored with more bits; ``None`` for other pictures.

    Raises:
        BadImageError: see ``read_picture``.
    """
    name = shown(str(path))
    with blamed_on(name), _opened(path) as image:
        tiles: list[Any] = getattr(image, "tile", [])
        if not image.mode.startswith("I") and ";16" not in repr(tiles):  # how its pixels are stored
            return None
    return int(np.asarray(read_picture(path, name)).max())


def is_picture(path: Path) -> bool:
    """Whether a file begins like a picture; no pixel is decoded."""
    try:
        with _opened(path):
            return True
    except PermissionError:  # reported when it is decoded
        return True
    except Exception:  # Pillow tries every kind; the error depends on the last one
        return False


@contextlib.contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Turn any error inside into a ``BadImageError`` that names the file."""
    try:
        yield
    except BadImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise BadImageError(f"{name}: {_reason(error)}; mend or remove it") from error


def shown(name: str) -> str:
    """A file's name for a message, escaped if it would break the line or the encoding."""
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


def as_rgb(image: Image.Image, name: str, largest: int) -> Image.Image:
    """A picture of any of Pillow's modes as RGB; ``largest`` is white if pixels are integers.

    Raises:
        BadImageError: floating-point pixels, or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise BadImageError(f"{name}: floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 2**16 - 1:
            raise BadImageError(f"{name}: pixels beyond 16 bits; save it with 8 or 16 bits")
        pixels[pixels == image.info.get("transparency", -1)] = largest
        image = Image.fromarray(np.rint(pixels * (255 / largest)).astype(np.uint8))
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


def shorter_edge(side: int, crop_pct: float) -> int:
    """Pixels of the shorter edge of a picture before its middle of ``side`` pixels is taken."""
    return math.floor(side / crop_pct)


def middle(image: Image.Image, side: int, edge: int) -> np.ndarray:
    """(C, side, side) uint8 from the middle of a picture whose shorter edge becomes ``edge``.

    timm's transform gives the same. Where ``side`` equals ``edge``, timm rounds the longer edge
    and the margin to pixels: its crop of an oblong picture is less than a pixel away.
    """
    if edge != side:
        how = transforms.InterpolationMode(INTERPOLATION)
        cut: Any = transforms.Compose([transforms.Resize(edge, how), transforms.CenterCrop(side)])
        image = cut(image)
    return resized(image, side, centre(image.size))


def resized(image: Image.Image, side: int, box: Box) -> np.ndarray:
    """The box of a picture as (C, side, side) uint8; pixels are averaged where it shrinks."""
    if (*image.size, *box) != (side, side, 0, 0, side, side):
        image = image.resize((side, side), Image.Resampling[INTERPOLATION.upper()], box=box)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's head states them, upright.

    Raises:
        BadImageError: see ``read_picture``; the pixels are not decoded.
    """
    name = shown(str(path))
    with blamed_on(name), _opened(path) as image:
        _check_size(image.size, name)
        width, height = image.size
        # Pillow gives the upright size of a TIFF, and would decode a PNG to find its EXIF.
        if width == height or image.format == "TIFF":
            return width, height
        sideways = _orientation(image) in (5, 6, 7, 8)
        return (height, width) if sideways else (width, height)
