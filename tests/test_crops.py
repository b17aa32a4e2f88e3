"""Which part of a picture is taken, and how it is brought to a size."""

import numpy as np
import pictures
import pytest
from PIL import Image

from resnet_variants.data.images import centre, resized, resized_crop


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
