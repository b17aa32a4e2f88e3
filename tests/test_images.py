"""One picture: every kind becomes upright 8-bit RGB, and every broken one a line that names it."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image, PngImagePlugin

from resnet_variants.data.images import (
    BadImageError,
    brightest,
    centre,
    picture_size,
    read_picture,
    resized,
    resized_crop,
)
from resnet_variants.registry import UserError

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


def read(path):
    picture = read_picture(path, str(path))
    assert picture.mode == "RGB"
    return np.asarray(picture)


def grey(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


def over_white(rgb, alpha):
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def test_an_rgb_picture_is_itself(tmp_path):
    pixels = pictures.noise(5, 7)
    assert np.array_equal(read(pictures.save(tmp_path / "x.png", pixels)), pixels)


def test_grey_becomes_three_equal_channels(tmp_path):
    pixels = pictures.noise(channels=1)
    assert np.array_equal(read(pictures.save(tmp_path / "x.png", pixels)), grey(pixels))


def test_one_bit_is_black_and_white(tmp_path):
    bits = pictures.noise(channels=1) > 127
    path = pictures.save(tmp_path / "x.png", Image.fromarray(bits))
    assert np.array_equal(read(path), grey(bits * np.uint8(255)))


def test_16_bit_grey_is_scaled_exactly(tmp_path):
    values = np.array([[0, 128, 129, 257], [65535, 65407, 65406, 32896]], np.uint16)
    path = pictures.save(tmp_path / "x.png", values)
    assert read(path)[..., 0].tolist() == [[0, 0, 1, 1], [255, 255, 254, 128]]
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    path = pictures.save(tmp_path / "every.png", every)
    assert np.array_equal(read(path), grey(np.rint(every / 257).astype(np.uint8)))


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


def test_bits_that_are_not_in_use_are_seen(tmp_path):
    dark = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    assert brightest(pictures.save(tmp_path / "x.png", dark)) == 16
    assert brightest(pictures.save(tmp_path / "x.tif", dark * 16)) == 255
    assert brightest(pictures.save(tmp_path / "x.jpg", pictures.noise())) is None


def test_a_transparent_value_of_16_bit_grey_is_white(tmp_path):
    values = np.array([[500, 1000], [1000, 257]], np.uint16)
    path = pictures.save(tmp_path / "x.png", values, transparency=1000)
    assert read(path)[..., 0].tolist() == [[2, 255], [255, 1]]


def test_transparency_shows_white(tmp_path):
    pixels = pictures.noise(channels=4)
    pixels[0, :3, 3] = 0, 255, 128
    shown = read(pictures.save(tmp_path / "x.png", pixels))
    assert np.abs(shown - over_white(pixels[..., :3], pixels[..., 3])).max() <= 1
    assert shown[0, 0].tolist() == [255] * 3
    assert shown[0, 1].tolist() == pixels[0, 1, :3].tolist()


def test_transparency_of_grey_shows_white(tmp_path):
    pixels = pictures.noise(channels=2)
    shown = read(pictures.save(tmp_path / "x.png", Image.fromarray(pixels, "LA")))
    assert np.abs(shown - over_white(grey(pixels[..., 0]), pixels[..., 1])).max() <= 1


@pytest.mark.parametrize("kind", [".png", ".gif"])
def test_a_transparent_palette_colour_is_white(tmp_path, kind):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    path = pictures.save(tmp_path / f"x{kind}", image, transparency=0)
    shown = read(path)
    assert shown[0, 0].tolist() == [255] * 3
    assert shown[0, 1].tolist() == [200, 100, 50]


def test_an_opaque_palette_is_its_colours(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert read(pictures.save(tmp_path / "x.png", image))[0, 0].tolist() == [200, 100, 50]


def test_cmyk_is_converted(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    path = pictures.save(tmp_path / "x.jpg", image, quality=100)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    assert np.abs(read(path).astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("kind", [".gif", ".png", ".webp", ".tif"])
def test_the_first_frame_of_several_counts(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == ".webp" else {}
    path = pictures.save(
        tmp_path / f"x{kind}", frames[0], save_all=True, append_images=frames[1:], **options
    )
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.array_equal(read(path), np.asarray(frames[0]))


@pytest.mark.parametrize("kind", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_upright(tmp_path, orientation, kind):
    upright = Image.fromarray(pictures.noise(6, 10))
    method = STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == ".webp" else {}
    path = pictures.save(tmp_path / f"x{kind}", stored, exif=exif, **options)
    assert np.array_equal(read(path), np.asarray(upright))
    assert picture_size(path) == (10, 6)


def test_a_jpeg_is_turned_upright(tmp_path):
    left_red = np.zeros((16, 32, 3), np.uint8)
    left_red[:, :16, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(left_red).transpose(STORED[6])
    shown = read(pictures.save(tmp_path / "x.jpg", stored, exif=exif, quality=100))
    assert shown.shape == left_red.shape
    assert np.abs(shown.astype(int) - left_red)[:, [0, -1]].max() <= 2


TAGS = (0x010E, 0x010F, 0x0131, 0x011A, 0x8769, 0x8825, 0x9286)  # before and after orientation


def odd_exif(orientation, tag, kind):
    """Two tags, one of which has a type or a place of its value that it must not have."""
    tags = [(0x0112, 3, struct.pack("<HH", orientation, 0)), (tag, kind, b"ab\0\0")]
    table = b"".join(struct.pack("<HHI", t, k, 1) + value for t, k, value in sorted(tags))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + table + bytes(4)


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning", "ignore:.*Tag data:UserWarning")
@pytest.mark.parametrize("kind", [".png", ".webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_upright_whatever_its_other_tags_hold(tmp_path, orientation, kind):
    upright = Image.fromarray(pictures.noise(6, 10))
    method = STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    options = {"lossless": True} if kind == ".webp" else {}
    for tag in TAGS:
        for form in (1, 2, 3, 4, 5, 7, 12, 13):
            exif = odd_exif(orientation, tag, form)
            path = pictures.save(tmp_path / f"x{kind}", stored, exif=exif, **options)
            assert np.array_equal(read(path), np.asarray(upright)), (tag, form)
            assert picture_size(path) == (10, 6)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_a_picture_whose_exif_is_garbage_is_as_it_is_stored(tmp_path, exif):
    pixels = pictures.noise(6, 10)
    path = pictures.save(tmp_path / "x.png", pixels, exif=exif)
    assert np.array_equal(read(path), pixels)
    assert picture_size(path) == (10, 6)


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
    upright = pictures.noise(6, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    text = "x" * (65_000_000 if form == "tEXt" else 1_100_000)
    options = (
        {"icc_profile": text.encode()} if form == "iCCP" else {"pnginfo": png_text(form, text)}
    )
    stored = Image.fromarray(upright).transpose(STORED[6])
    path = pictures.save(tmp_path / "x.png", stored, exif=exif, **options)
    for file in (path, io.BytesIO(path.read_bytes())):
        assert np.array_equal(np.asarray(read_picture(file, "x")), upright)
    assert picture_size(path) == (10, 6)


def test_a_text_that_pillow_refuses_behind_the_pixels_is_left_out_too(tmp_path):
    pixels = pictures.noise()
    path = pictures.save(tmp_path / "x.png", pixels, pnginfo=png_text("zTXt", "x" * 1_100_000))
    content = path.read_bytes()
    start = content.index(b"zTXt") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    assert np.array_equal(read(path), pixels)


def test_a_bomb_beside_a_long_text_is_refused(tmp_path):
    bomb = pictures.bomb(tmp_path / "x.png", 20_000).read_bytes()
    long = pictures.save(tmp_path / "y.png", pnginfo=png_text("zTXt", "x" * 1_100_000)).read_bytes()
    start = long.index(b"zTXt") - 4
    end = start + 12 + int.from_bytes(long[start : start + 4], "big")
    path = tmp_path / "z.png"
    path.write_bytes(bomb[:33] + long[start:end] + bomb[33:])
    with pytest.raises(BadImageError, match=r"20000 x 20000 pixels exceed|more than \d+ pixels"):
        read(path)


def test_the_size_is_told_without_decoding(tmp_path):
    path = pictures.cut_off(tmp_path / "x.png")
    assert picture_size(path) == (64, 64)
    with pytest.raises(BadImageError):
        read(path)


@pytest.mark.parametrize("kind", pictures.BROKEN)
def test_a_broken_picture_is_one_line_that_names_it(tmp_path, kind):
    breaks, suffix, why = pictures.BROKEN[kind]
    path = breaks(tmp_path / f"broken{suffix}")
    with pytest.raises(BadImageError, match=why) as caught:
        read(path)
    assert pictures.is_one_line(caught.value, path)


@pytest.mark.timeout(60)  # a pipe without a writer is waited for, a device is read, for ever
@pytest.mark.parametrize(
    "kind",
    ["empty", "text", "dangling link", "one pixel", "bomb", "pipe", "socket", "device"],
)
def test_the_size_of_a_broken_picture_is_one_line_that_names_it(tmp_path, kind):
    breaks, suffix, why = pictures.BROKEN[kind]
    path = breaks(tmp_path / f"broken{suffix}")
    with pytest.raises(BadImageError, match=why) as caught:
        picture_size(path)
    assert pictures.is_one_line(caught.value, path)


def test_a_picture_of_more_pixels_than_memory_should_hold_is_refused(tmp_path):
    path = pictures.bomb(tmp_path / "x.png", 9_000)  # below Pillow's own limits
    with pytest.raises(BadImageError, match=r"9000 x 9000 pixels exceed 16384 .* scale it down"):
        read(path)


def test_floating_point_pixels_are_refused(tmp_path):
    path = pictures.save(tmp_path / "x.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(BadImageError, match="floating-point pixels; save it") as caught:
        read(path)
    assert pictures.is_one_line(caught.value, path)


@pytest.mark.parametrize("value", [-1, 2**16])
def test_integers_beyond_16_bits_are_refused(tmp_path, value):
    path = pictures.save(tmp_path / "x.tif", np.full((4, 4), value, np.int32))
    with pytest.raises(BadImageError, match="pixels beyond 16 bits") as caught:
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
    good = [pictures.save(tmp_path / f"x{kind}") for kind in (".png", ".gif", ".tif", ".webp")]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    good.append(
        pictures.save(tmp_path / "two.gif", frames[0], save_all=True, append_images=frames[1:])
    )
    bad = [
        breaks(tmp_path / f"{i}{suffix}")
        for i, (breaks, suffix, _) in enumerate(pictures.BROKEN.values())
    ]
    before = open_files()
    kept = []  # an error's traceback would keep its picture alive, and the file with it
    for path in good + bad:
        for reads in (read, picture_size):
            try:
                kept.append(reads(path))
            except BadImageError as error:
                kept.append(error)
    assert open_files() == before


def test_a_file_name_stays_on_the_line(tmp_path):
    path = pictures.text(tmp_path / "two\nlines\x1b[31m.jpg")
    with pytest.raises(BadImageError, match=r"two\\nlines\\x1b") as caught:
        read(path)
    assert str(caught.value).isprintable()


def test_a_name_that_is_no_unicode_can_be_printed(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    with pytest.raises(BadImageError) as caught:
        read(path)
    assert (
        str(caught.value).encode().decode().endswith("No such file or directory; mend or remove it")
    )


def test_the_error_is_a_users_and_survives_a_process_boundary(tmp_path):
    with pytest.raises(UserError) as caught:
        read(pictures.empty(tmp_path / "x.png"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is BadImageError
    assert str(again) == str(caught.value)


def test_an_open_file_and_a_picture_are_read_like_a_path(tmp_path):
    pixels = pictures.noise()
    path = pictures.save(tmp_path / "x.png", pixels)
    for file in (io.BytesIO(path.read_bytes()), Image.open(path), Image.fromarray(pixels)):
        assert np.array_equal(np.asarray(read_picture(file, "x")), pixels)


# --- crops ------------------------------------------------------------------------------------


def test_the_centre_is_the_largest_square():
    assert centre((10, 6)) == (2, 0, 8, 6)
    assert centre((5, 8)) == (0, 1.5, 5, 6.5)


@pytest.mark.parametrize("least", [0.08, 0.5, 1.0])
def test_a_crop_lies_inside_and_has_its_area(least):
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


def test_a_picture_of_the_right_size_is_not_resampled():
    pixels = pictures.noise()
    image = Image.fromarray(pixels)
    assert np.array_equal(resized(image, 8, centre(image.size)), pixels.transpose(2, 0, 1))


def test_shrinking_averages_and_a_box_cuts():
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 200
    image = Image.fromarray(pixels)
    assert (resized(image, 4, (8, 0, 16, 8))[..., 1:] == 200).all()  # Pillow looks past an edge
    assert (resized(image, 8, (8, 0, 16, 8)) == 200).all()
    checks = (np.indices((32, 32)).sum(0) % 2 * 200).astype(np.uint8)
    assert np.abs(resized(Image.fromarray(checks), 4, (0, 0, 32, 32)).astype(int) - 100).max() <= 2
