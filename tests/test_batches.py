"""Batches: what they show depends on seed, epoch and position alone."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from small import recipe
from torch.nn.functional import pad

from resnet_variants.data.dataset import load_dataset
from resnet_variants.data.splits import ResidentSplit
from resnet_variants.training.batches import Draws, Share, generator, train_batches

NONE = {"crop_padding": 0.0, "flip": "none"}
EVERYTHING = {
    "flip": "alternating",
    "color_jitter": 0.4,
    "cutout": 0.4,
    "crop_padding": 0.25,
    "batch_size": 24,
}


def colours(n=64, mirror=True):
    """Random pictures in colour whose label is their position."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=stream)
    split = ResidentSplit(images, torch.arange(n))
    return dataclasses.replace(
        load_dataset("digits"),
        train=split,
        in_chans=3,
        mirror=mirror,
        mean=(0.2, 0.4, 0.6),
        std=(0.2, 0.2, 0.2),
    )


def batches(data, recipe, **where):
    return list(train_batches(data, recipe, **({"seed": 0, "epoch": 1} | where)))


def epoch(data, recipe, **where):
    """One epoch's images and labels in one tensor each."""
    images, labels = zip(*batches(data, recipe, **where), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_without_augmentation_every_image_comes_once_as_it_is():
    data = colours()
    images, labels = epoch(data, recipe(**NONE))
    assert sorted(labels.tolist()) == list(range(64))
    assert labels.tolist() != list(range(64))
    assert torch.equal(images, data.train.images[labels])


def test_what_a_full_batch_leaves_over_sits_out_and_is_other_images_each_time():
    absent = set()
    for number in range(1, 30):
        rows = batches(colours(20), recipe(batch_size=6), epoch=number)
        assert [len(labels) for _, labels in rows] == [6, 6, 6]
        absent |= set(range(20)) - {i for _, labels in rows for i in labels.tolist()}
    assert absent == set(range(20))


def test_a_crop_is_a_window_of_the_image_in_a_black_frame():
    data, one = colours(), recipe(flip="none", crop_padding=0.25)  # two pixels of eight
    images, labels = epoch(data, one)
    frames = pad(data.train.images, [2] * 4)
    shifts = Draws.of(64, one, 2, 0, 1).shifts.T.tolist()
    for image, label, (row, column) in zip(images, labels, shifts, strict=True):
        assert torch.equal(image, frames[label, :, row : row + 8, column : column + 8])
    assert {tuple(shift) for shift in shifts} <= {(r, c) for r in range(5) for c in range(5)}
    assert {row for row, _ in shifts} == {column for _, column in shifts} == set(range(5))


def mirrored(data, recipe, **where):
    """By label, whether an image was shown as its mirror image."""
    images, labels = epoch(data, recipe, **where)
    flips = {}
    for image, label in zip(images, labels.tolist(), strict=True):
        own = data.train.images[label]
        flips[label] = torch.equal(image, own.flip(-1))
        assert flips[label] or torch.equal(image, own)
    return flips


def test_random_flips_are_a_coin_for_each_image_and_epoch():
    data, one = colours(), recipe(crop_padding=0.0)
    flips = [mirrored(data, one, epoch=e) for e in (1, 2, 3)]
    assert all(16 < sum(flip.values()) < 48 for flip in flips)
    assert flips[0] != flips[1] != flips[2] != flips[0]


def test_alternating_flips_are_a_coin_at_first_and_then_every_other_epoch():
    data, one = colours(), recipe(crop_padding=0.0, flip="alternating")
    flips = [mirrored(data, one, epoch=e) for e in range(1, 6)]
    assert 16 < sum(flips[0].values()) < 48
    for before, after in pairwise(flips):
        assert all(before[label] != after[label] for label in before)
    assert mirrored(data, one, seed=1) != flips[0]


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_no_image_is_mirrored_where_that_changes_its_label(flip):
    assert not any(mirrored(colours(mirror=False), recipe(crop_padding=0.0, flip=flip)).values())


def test_cutout_paints_a_part_in_the_mean_colour():
    data, one = colours(), recipe(**NONE, cutout=0.5)
    images, labels = epoch(data, one)
    mean = torch.tensor([51, 102, 153]).view(3, 1, 1)
    for image, label in zip(images, labels, strict=True):
        changed = (image != data.train.images[label]).any(0)
        assert 4 <= changed.sum() <= 16  # four by four pixels, less what is outside
        assert (image[:, changed] == mean.expand(3, 8, 8)[:, changed]).all()


def test_resized_crops_take_the_place_of_padded_ones():
    data = colours()
    images, labels = epoch(data, recipe(flip="none", crop_area=0.3))
    padded, _ = epoch(data, recipe(flip="none"))
    assert not torch.equal(images, padded)
    corners = data.train.images[labels][:, :, 0, 0]
    assert not (images[:, :, 0, 0] == 0).all(1).any()  # no black frame
    assert not torch.equal(images[:, :, 0, 0], corners)


# --- what they depend on ----------------------------------------------------------------------


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("fields", [EVERYTHING, {"crop_area": 0.2, "batch_size": 24}])
def test_an_epoch_depends_on_seed_and_epoch_alone(fields):
    data, one = colours(), recipe(**fields)
    first = batches(data, one)
    torch.manual_seed(77)
    np.random.seed(77)
    torch.rand(5)
    state = torch.get_rng_state()
    assert equal(first, batches(data, one))
    assert torch.equal(torch.get_rng_state(), state)
    assert not equal(first, batches(data, one, seed=1))
    assert not torch.equal(epoch(data, one)[1], epoch(data, one, epoch=2)[1])
    # Not on how it is trained.
    assert equal(first, batches(data, dataclasses.replace(one, lr=0.2, epochs=9, mixup=0.2)))


def test_random_streams_differ_by_each_part_of_their_key():
    keys = [("data", 0, 1), ("data", 1, 0), ("data", 0, 2), ("flip", 0, 1), ("data", 0, 11)]
    draws = {tuple(torch.rand(4, generator=generator(*key)).tolist()) for key in keys}
    assert len(draws) == len(keys)
    # The same on every machine: a run can be repeated elsewhere.
    drawn = torch.randint(0, 1000, (4,), generator=generator("data", 0, 1))
    assert drawn.tolist() == [877, 622, 787, 110]


POLICY = {"auto_augment": "rand-m6-mstd0.5-inc1"}


@pytest.mark.parametrize("fields", [{}, EVERYTHING, {"crop_area": 0.2, "batch_size": 24}, POLICY])
def test_starting_later_gives_exactly_the_rest_of_the_epoch(fields):
    data, one = colours(), recipe(**{"batch_size": 16} | fields)
    whole = batches(data, one)
    for start in range(len(whole) + 1):
        assert equal(batches(data, one, start=start), whole[start:])


# --- shares -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3), (4, 2)])
def test_processes_and_parts_cut_each_batch_into_what_one_process_sees(world, accumulate):
    data = colours()
    whole = batches(data, recipe(**EVERYTHING))
    one = recipe(**EVERYTHING, accumulate=accumulate)
    shares = [batches(data, one, share=Share(rank, world)) for rank in range(world)]
    size = 24 // (world * accumulate)
    for step, (images, labels) in enumerate(whole):
        steps = slice(step * accumulate, (step + 1) * accumulate)
        # Part by part, and in each process by process.
        parts = [part for row in zip(*(s[steps] for s in shares), strict=True) for part in row]
        assert {len(x) for x, _ in parts} == {size}
        assert torch.equal(torch.cat([x for x, _ in parts]), images)
        assert torch.equal(torch.cat([y for _, y in parts]), labels)
    last = Share(world - 1, world)  # starts later as well
    assert equal(batches(data, one, share=last, start=1), shares[-1][accumulate:])
