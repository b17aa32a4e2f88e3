"""Augmentation of batches against plain loops, torchvision and Pillow."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from small import recipe
from torchvision.transforms import functional as tv

from resnet_variants.data.images import resized_crop
from resnet_variants.data.splits import Batch, ResidentSplit
from resnet_variants.training.augment import Mixing, cut_out, jittered, scaled


def pictures(n, channels, side=16):
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8)


# --- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_one_after_another(channels):
    # Far from black and white: torchvision cuts off what lies beyond after each, we after the last.
    images, draws = pictures(12, channels) // 5 + 100, torch.rand(12, 3)
    for image, draw, ours in zip(images, draws, jittered(images, draws, 0.3), strict=True):
        brightness, contrast, saturation = (1 + 0.3 * (2 * draw - 1)).tolist()
        expected = tv.adjust_brightness(image / 255, brightness)
        expected = tv.adjust_contrast(expected, contrast)
        if channels == 3:
            expected = tv.adjust_saturation(expected, saturation)
        assert 0 < expected.min() < expected.max() < 1
        assert (ours - 255 * expected).abs().max() <= 0.55  # rounding, and its luma's last digit
    assert torch.equal(jittered(images, draws, 0.0), images)


def test_the_extremes_of_jitter_lie_at_its_strength():
    images = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    draws = torch.tensor([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]])
    assert jittered(images, draws, 0.3).amax((1, 2, 3)).tolist() == [70, 130]
    assert jittered(images + 100, draws, 0.9).amax((1, 2, 3)).tolist() == [20, 255]


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_paints_a_square_around_its_centre(side):
    n, size, fill = 20, 8, torch.tensor([7, 8, 9], dtype=torch.uint8)
    images = pictures(n, 3, size)
    centres = torch.rand(2, n)
    centres[:, 0], centres[:, 1] = 0.0, 1 - 1e-7  # corners
    result = cut_out(images, centres, side, fill)
    for i in range(n):
        row, column = (int(c * size) - side // 2 for c in centres[:, i].tolist())
        expected = images[i].clone()
        expected[:, max(0, row) : row + side, max(0, column) : column + side] = fill.view(3, 1, 1)
        assert torch.equal(result[i], expected)


# --- resized crops ----------------------------------------------------------------------------


def smooth(n, channels, side):
    """Pictures without jumps: at jumps two ways to interpolate differ most."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [
        torch.sin(rows * 0.35 + columns * 0.2 * (c + 1) + i)
        for i in range(n)
        for c in range(channels)
    ]
    return (127 + 120 * torch.stack(waves)).to(torch.uint8).view(n, channels, side, side)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_resized_crop_is_what_pillow_makes_of_the_box(channels):
    images = smooth(16, channels, 32)
    split = ResidentSplit(images, torch.zeros(16, dtype=torch.int64))
    order, crops = torch.randperm(16), torch.rand(16, 4)
    (result,) = split.batches([Batch(order, crops=crops, least_area=0.2)])
    for at, draw, ours in zip(order.tolist(), crops, result, strict=True):
        box = resized_crop((32, 32), tuple(draw.tolist()), 0.2)
        resized = Image.Resampling.BILINEAR
        theirs = [
            np.asarray(Image.fromarray(plane.numpy()).resize((32, 32), resized, box=box))
            for plane in images[at]
        ]
        difference = np.abs(np.stack(theirs).astype(int) - ours.numpy().astype(int))
        assert difference.max() <= 2
        assert difference.mean() < 0.6


# --- floating point ---------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "side"), [(0.5, 4), (0.75, 6), (0.8, 6), (0.05, 1)])
def test_scaled_images_have_the_rounded_side_and_keep_what_is_constant(share, side):
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 8, 8)
    small = scaled(images, share)
    assert small.shape == (3, 2, side, side)
    assert torch.allclose(small, images[:, :, :side, :side])
    assert scaled(images, 0.99) is images
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 1.0  # averaged where it shrinks
    small = scaled(board.expand(1, 1, 8, 8), 0.5)
    assert (small[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.05


# --- mixing -----------------------------------------------------------------------------------


def test_mixup_is_the_weighted_sum_that_the_targets_tell():
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6)
    one = recipe(mixup=1.0, label_smoothing=0.06)
    mixed, targets = Mixing.of(one, 6)(images.clone(), labels, 3)
    assert torch.allclose(targets.sum(1), torch.ones(6))
    share = (float(targets[0, 0]) - 0.01) / 0.94
    assert 0.01 < share < 0.99
    # The first of a pair is mixed with the last, the second with the last but one.
    assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0))


def test_cutmix_is_the_share_of_pixels_that_the_targets_tell():
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6)
    mixed, targets = Mixing.of(recipe(cutmix=1.0), 6)(images.clone(), labels, 3)
    own = mixed == images
    assert torch.equal(mixed, torch.where(own, images, images.flip(0)))
    assert 0 < targets[0, 0] < 1
    assert torch.allclose(own.float().mean((1, 2, 3)), targets.diagonal())


def test_mixing_depends_on_the_seed_alone_and_leaves_numpys_stream():
    mixing = Mixing.of(recipe(mixup=0.2, cutmix=1.0), 10)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    first = mixing(images.clone(), labels, 1)
    with pytest.raises(AssertionError):  # an odd number of images cannot be paired
        mixing(images[:3], labels[:3], 1)
    assert np.random.rand() == expected
    again = mixing(images.clone(), labels, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    others = [mixing(images.clone(), labels, seed)[1] for seed in range(2, 8)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations([first[1], *others], 2))
