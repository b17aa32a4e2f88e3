"""Small pictures, folders of them and broken ones, made on the spot."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def noise(height=8, width=8, *, seed=0, channels=3):
    """Random pixels (H, W, C) uint8, or (H, W) for one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def motif(seed, height=96, width=120):
    """A picture of large coloured shapes, which survives what noise does not."""
    few = Image.fromarray(noise(9, 11, seed=seed))
    return few.resize((width, height), Image.Resampling.BICUBIC)


def placed(path):
    """The path, in a folder that exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(path, pixels=None, **options):
    """A lossless picture of random pixels, unless told which ones."""
    if not isinstance(pixels, Image.Image):
        pixels = Image.fromarray(noise() if pixels is None else pixels)
    pixels.save(placed(path), **options)
    return path


def fill(root, counts, *, side=8):
    """``counts`` images, by folder below ``root``: every one has other pixels."""
    places = [(folder, i) for folder, count in counts.items() for i in range(count)]
    for seed, (folder, i) in enumerate(places):
        save(root / folder / f"{i}.png", noise(side, side, seed=seed))
    return root


def halves(root, train=6, test=2, *, side=8):
    """Two classes in train/ and test/."""
    counts = {f"train/{name}": train for name in "ab"} | {f"test/{name}": test for name in "ab"}
    return fill(root, counts, side=side)


def bomb(path, side=100_000):
    """A PNG of some bytes that claims side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, chunk in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        checksum = zlib.crc32(kind + chunk)
        content += struct.pack(">I", len(chunk)) + kind + chunk + struct.pack(">I", checksum)
    placed(path).write_bytes(content)
    return path


def cut_off(path):
    """The first half of a file of noise, which ends inside its pixels."""
    content = save(path, noise(64, 64)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def corrupt(path):
    """A PNG with a byte changed in the middle of its pixels."""
    content = bytearray(save(path, noise(64, 64)).read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def text(path):
    placed(path).write_text("no picture at all\n")
    return path


def empty(path):
    placed(path).write_bytes(b"")
    return path


def dangling(path):
    placed(path).symlink_to(path.parent / "nowhere.png")
    return path


def pipe(path):
    os.mkfifo(placed(path))
    return path


def device(path):
    placed(path).symlink_to("/dev/zero")
    return path


NOT_REGULAR = "a folder, pipe, socket or device instead of a regular file"
# How a file can be broken, the end of its name, and the words that say so.
BROKEN = {
    "corrupt": (corrupt, ".png", "broken|corrupt|invalid|decod|checksum|CRC"),
    "cut off png": (cut_off, ".png", "truncated"),
    "cut off jpg": (cut_off, ".jpg", "truncated"),
    "cut off gif": (cut_off, ".gif", "truncated"),
    "cut off bmp": (cut_off, ".bmp", "truncated"),
    "cut off webp": (cut_off, ".webp", "no picture|truncated|decode"),
    "empty": (empty, ".png", "no picture .*empty"),
    "text": (text, ".jpg", "no picture"),
    "dangling link": (dangling, ".png", "No such file or directory"),
    "one pixel": (lambda path: save(path, noise(1, 1)), ".png", "1 x 1 pixels are too few"),
    "20,000 wide": (
        lambda path: save(path, np.zeros((2, 20_000, 3), np.uint8)),
        ".png",
        "20000 x 2 pixels exceed",
    ),
    "bomb": (bomb, ".png", "pixels"),
    # Below Pillow's own limits.
    "large": (lambda path: bomb(path, 9_000), ".png", "9000 x 9000 pixels exceed 16384 .* scale"),
    "pipe": (pipe, ".png", NOT_REGULAR),
    "device": (device, ".png", NOT_REGULAR),
}


def is_one_line(error, path):
    """Whether a message is one line that begins with the file and ends with the remedy."""
    message = str(error)
    remedies = ("mend or remove it", "remove it", "scale it down", "save it with 8 or 16 bits")
    return (
        "\n" not in message
        and len(message) < 300 + len(str(path))
        and message.startswith(f"{Path(path)}: ")
        and message.endswith(remedies)
    )


def told_to_a_stranger(folder, action):
    """The message of an action's ``ValueError`` in a folder, without root's right to read all."""
    folder.chmod(0o755)
    Image.init()  # what is imported later may be where a stranger cannot read
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if not child:
        try:
            os.chdir(folder)  # the folders above may be closed to others
            if os.geteuid() == 0:
                os.seteuid(65534)
            action()
        except ValueError as error:
            os.write(there, str(error).encode())
        finally:
            os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    with os.fdopen(here) as answer:
        return answer.read()
