"""One picture: every kind becomes upright 8-bit RGB, and every broken one a line that names it."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image, PngImagePlugin

from resnet_variants.data.images import (
    BadImageError,
    brightest,
    picture_size,
    read_picture,
    resized_crop,
)

# EXIF orientation -> what was done to the upright picture before it was stored.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# What keeps the pixels, in a JPEG nearly.
LOSSLESS = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}


def read(path):
    picture = read_picture(path, str(path))
    assert picture.mode == "RGB"
    return np.asarray(picture)


def grey(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


def over_white(rgb, alpha):
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


# --- modes ------------------------------------------------------------------------------------


def test_rgb_grey_and_black_and_white_pictures_keep_their_pixels(tmp_path):
    color, one = pictures.noise(5, 7), pictures.noise(channels=1)
    bits = one > 127
    for stored, shown in (
        (color, color),
        (one, grey(one)),
        (Image.fromarray(bits), grey(bits * np.uint8(255))),
    ):
        assert np.array_equal(read(pictures.save(tmp_path / "x.png", stored)), shown)


def test_16_bit_grey_is_scaled_exactly(tmp_path):
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    path = pictures.save(tmp_path / "x.png", values)
    assert np.array_equal(read(path), grey(np.rint(values / 257).astype(np.uint8)))


def tiff_of_12_bits(path, values):
    """A TIFF as scientific cameras write them: two pixels in three bytes."""
    first, second = values.reshape(-1, 2).T.astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    pixels = packed.astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags[279] = len(pixels)
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    path.write_bytes(head + pixels + struct.pack("<H", len(tags)) + table + bytes(4))
    return path


def test_12_bit_grey_is_scaled_from_12_bits(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = tiff_of_12_bits(tmp_path / "x.tif", values)
    assert np.array_equal(read(path), grey(np.rint(values * (255 / 4095)).astype(np.uint8)))
    assert brightest(path) == 255


def test_transparency_shows_white(tmp_path):
    pixels = pictures.noise(channels=4)
    pixels[0, :3, 3] = 0, 255, 128
    shown = read(pictures.save(tmp_path / "x.png", pixels))
    assert np.abs(shown - over_white(pixels[..., :3], pixels[..., 3])).max() <= 1
    assert shown[0, 0].tolist() == [255] * 3
    assert shown[0, 1].tolist() == pixels[0, 1, :3].tolist()
    pixels = pictures.noise(channels=2)
    shown = read(pictures.save(tmp_path / "x.png", Image.fromarray(pixels, "LA")))
    assert np.abs(shown - over_white(grey(pixels[..., 0]), pixels[..., 1])).max() <= 1
    values = np.array([[500, 1000], [1000, 257]], np.uint16)  # of 16 bits, one is transparent
    path = pictures.save(tmp_path / "x.png", values, transparency=1000)
    assert read(path)[..., 0].tolist() == [[2, 255], [255, 1]]


@pytest.mark.parametrize("kind", [".png", ".gif"])
def test_a_palette_is_its_colours_and_a_transparent_one_is_white(tmp_path, kind):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    for options, first in (({}, [10, 20, 30]), ({"transparency": 0}, [255] * 3)):
        shown = read(pictures.save(tmp_path / f"x{kind}", image, **options))
        assert shown[0, :2].tolist() == [first, [200, 100, 50]]


def test_cmyk_is_converted(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    path = pictures.save(tmp_path / "x.jpg", image, quality=100)
    assert np.abs(read(path).astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("kind", [".gif", ".png", ".webp", ".tif"])
def test_the_first_frame_of_several_counts(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"save_all": True, "append_images": frames[1:]} | LOSSLESS.get(kind, {})
    path = pictures.save(tmp_path / f"x{kind}", frames[0], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.array_equal(read(path), np.asarray(frames[0]))


# --- orientation ------------------------------------------------------------------------------


def turned(path, orientation, **options):
    """A picture that is stored as its EXIF says, and its upright pixels."""
    upright = pictures.noise(2, 3).repeat(8, 0).repeat(8, 1)  # blocks, which a JPEG keeps
    method = STORED[orientation]
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | LOSSLESS.get(path.suffix, {}) | options
    pictures.save(path, image if method is None else image.transpose(method), **options)
    return upright


@pytest.mark.parametrize("kind", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_upright(tmp_path, orientation, kind):
    path = tmp_path / f"x{kind}"
    upright = turned(path, orientation)
    assert np.abs(read(path).astype(int) - upright).max() <= (3 if kind == ".jpg" else 0)
    assert picture_size(path) == (24, 16)


TAGS = (0x010E, 0x010F, 0x0131, 0x011A, 0x8769, 0x8825, 0x9286)  # before and after orientation


def odd_exif(orientation, tag, kind):
    """Two tags, one of which has a type or a place of its value that it must not have."""
    tags = [(0x0112, 3, struct.pack("<HH", orientation, 0)), (tag, kind, b"ab\0\0")]
    table = b"".join(struct.pack("<HHI", t, k, 1) + value for t, k, value in sorted(tags))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + table + bytes(4)


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning", "ignore:.*Tag data:UserWarning")
@pytest.mark.parametrize("kind", [".png", ".webp"])
def test_a_picture_is_turned_upright_whatever_its_other_tags_hold(tmp_path, kind):
    path = tmp_path / f"x{kind}"
    for tag in TAGS:
        for form in (1, 2, 3, 4, 5, 7, 12, 13):
            upright = turned(path, 6, exif=odd_exif(6, tag, form))
            assert np.array_equal(read(path), upright), (tag, form)
            assert picture_size(path) == (24, 16)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_a_picture_whose_exif_is_garbage_is_as_it_is_stored(tmp_path, exif):
    path = tmp_path / "x.png"
    assert np.array_equal(turned(path, 1, exif=exif), read(path))
    assert picture_size(path) == (24, 16)


def png_text(form, text):
    info = PngImagePlugin.PngInfo()
    if form == "iTXt":
        info.add_itxt("words", text, zip=True)
    else:
        info.add_text("words", text, zip=form == "zTXt")
    return info


@pytest.mark.parametrize("form", ["tEXt", "zTXt", "iTXt", "iCCP"])
def test_a_png_may_hold_texts_of_any_size(tmp_path, form):
    """Pillow refuses what is longer than a megabyte, 64 where it is not compressed."""
    text = "x" * (65_000_000 if form == "tEXt" else 1_100_000)
    path = tmp_path / "x.png"
    options = (
        {"icc_profile": text.encode()} if form == "iCCP" else {"pnginfo": png_text(form, text)}
    )
    upright = turned(path, 6, **options)
    assert np.array_equal(read(path), upright)
    assert picture_size(path) == (24, 16)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", pictures.BROKEN)
def test_a_broken_picture_is_one_line_that_names_it(tmp_path, kind):
    breaks, suffix, why = pictures.BROKEN[kind]
    path = breaks(tmp_path / f"broken{suffix}")
    # The size of a picture that breaks off in its pixels can be told without decoding.
    in_its_pixels = kind == "corrupt" or kind.startswith("cut off")
    for reads in (read,) if in_its_pixels else (read, picture_size):
        with pytest.raises(BadImageError, match=why) as caught:
            reads(path)
        assert pictures.is_one_line(caught.value, path)
    assert kind != "cut off png" or picture_size(path) == (64, 64)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (0.5, np.float32, "floating-point pixels; save it"),
        (-1, np.int32, "pixels beyond 16 bits"),
        (2**16, np.int32, "pixels beyond 16 bits"),
    ],
)
def test_pixels_that_have_no_scale_are_refused(tmp_path, value, kind, message):
    path = pictures.save(tmp_path / "x.tif", np.full((4, 4), value, kind))
    with pytest.raises(BadImageError, match=message) as caught:
        read(path)
    assert pictures.is_one_line(caught.value, path)


def test_a_file_without_read_permission_is_one_line_that_names_it(tmp_path):
    path = pictures.save(tmp_path / "x.png")
    path.chmod(0)
    message = pictures.told_to_a_stranger(tmp_path, lambda: read_picture("x.png", "x.png"))
    assert message == "x.png: Permission denied; mend or remove it"


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted on Linux")
def test_no_file_is_left_open(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    options = {"save_all": True, "append_images": frames[1:]}
    files = [pictures.save(tmp_path / f"x{kind}") for kind in (".png", ".gif", ".tif", ".webp")]
    files.append(pictures.save(tmp_path / "two.gif", frames[0], **options))
    for i, (breaks, suffix, _) in enumerate(pictures.BROKEN.values()):
        files.append(breaks(tmp_path / f"{i}{suffix}"))
    before = open_files()
    kept = []  # an error's traceback would keep its picture alive, and the file with it
    for path in files:
        for reads in (read, picture_size):
            try:
                kept.append(reads(path))
            except BadImageError as error:
                kept.append(error)
    assert open_files() == before


@pytest.mark.parametrize(
    ("name", "shown"),
    [("two\nlines\x1b[31m.jpg", r"two\nlines\x1b"), (os.fsdecode(b"caf\xe9.jpg"), r"caf\udce9")],
    ids=["unprintable", "no unicode"],
)
def test_a_file_name_stays_on_the_line(tmp_path, name, shown):
    with pytest.raises(BadImageError) as caught:
        read(tmp_path / name)
    message = str(caught.value)
    assert shown in message
    assert message.endswith("No such file or directory; mend or remove it")
    assert message.isprintable()


def test_an_open_file_and_a_picture_are_read_like_a_path(tmp_path):
    pixels = pictures.noise()
    path = pictures.save(tmp_path / "x.png", pixels)
    for file in (io.BytesIO(path.read_bytes()), Image.open(path), Image.fromarray(pixels)):
        assert np.array_equal(np.asarray(read_picture(file, "x")), pixels)


# --- crops ------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0.08, 0.5, 1.0])
def test_a_crop_is_inside_and_has_its_area(least):
    width, height = 40, 30
    for draws in np.random.default_rng(0).random((200, 4)).tolist():
        left, upper, right, lower = resized_crop((width, height), tuple(draws), least)
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= upper < lower <= height + 1e-9
        wide, high = right - left, lower - upper
        asked = (least + (1 - least) * draws[0]) * width * height
        if wide < width and high < height:
            assert wide * high == pytest.approx(asked)
            assert 3 / 4 - 1e-9 <= wide / high <= 4 / 3 + 1e-9
        else:
            assert wide * high <= asked + 1e-9


def test_the_extreme_draws_reach_all_four_corners():
    corner = resized_crop((40, 30), (0.0, 0.5, 0.0, 0.0), 0.25)
    opposite = resized_crop((40, 30), (0.0, 0.5, 1.0, 1.0), 0.25)
    assert corner == pytest.approx((0, 0, 300**0.5, 300**0.5))
    assert opposite[2:] == pytest.approx((40, 30))
