"""Splits and batches: a pure function of the seed, and the same for every variant."""

import numpy as np
import pytest
import torch

from resnet_variants.data.dataset import Dataset, Loading, load_dataset
from resnet_variants.data.sources import DATASETS, Pixels
from resnet_variants.data.splits import Resident
from resnet_variants.registry import UserError
from resnet_variants.training.augment import Normalise, cropped
from resnet_variants.training.batches import Share, train_batches
from resnet_variants.training.recipe import Recipe


def epoch(data, *, seed=0, number=1, batch_size=32, crop_padding=0.125):
    recipe = Recipe(batch_size=batch_size, crop_padding=crop_padding)
    batches = train_batches(data, recipe, seed=seed, epoch=number)
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def numbered(n=10, side=6, *, mirror=False):
    """Images whose pixels tell index, row and column."""
    index = torch.arange(n).view(-1, 1, 1, 1) * side * side
    images = (index + torch.arange(side * side).view(1, 1, side, side)) % 251 + 1
    split = Resident(images.to(torch.uint8), torch.arange(n))
    return Dataset(
        name="numbered",
        train=split,
        val=split,
        test=split,
        classes=("x",),
        in_chans=1,
        img_size=side,
        mirror=mirror,
        mean=(0.5,),
        std=(0.5,),
        split_hash="",
        data_hash="",
    )


def test_digits_are_split_by_class_without_overlap():
    data = load_dataset("digits")
    parts = (data.train, data.val, data.test)
    assert [len(part) for part in parts] == [1078, 120, 599]
    assert (data.img_size, data.in_chans, len(data.classes)) == (8, 1, 10)
    for part in parts:
        share = torch.bincount(part.labels).double() / len(part)
        assert share.max() - share.min() < 0.02
    pixels = torch.cat([part.images for part in parts])
    assert pixels.dtype == torch.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert data.split_hash == "73f51f35a6ba781a"  # the numbers in results/ are of these splits


def test_every_image_of_the_source_is_in_exactly_one_split(monkeypatch):
    images = torch.arange(200).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    source = Pixels(images, np.arange(200) % 2, ("even", "odd"), mirror=True)
    monkeypatch.setitem(DATASETS, "count", lambda _: source)
    data = load_dataset.__wrapped__("count")
    seen = torch.cat([part.images[:, 0, 0, 0] for part in (data.train, data.val, data.test)])
    assert seen.sort().values.tolist() == list(range(200))
    for part in (data.train, data.val, data.test):
        assert torch.equal(part.images[:, 0, 0, 0].long() % 2, part.labels)


def test_resizing_keeps_brightness():
    small, large = load_dataset("digits"), load_dataset("digits", img_size=16)
    assert large.img_size == 16
    assert large.split_hash == small.split_hash
    assert abs(large.train.images.double().mean() - small.train.images.double().mean()) < 1


def test_unknown_data_names_the_choices():
    with pytest.raises(UserError, match="unknown data 'digit'; did you mean 'digits'\\? choices"):
        load_dataset("digit")


def test_an_epoch_is_a_function_of_seed_and_epoch_alone():
    data = load_dataset("digits")
    torch.manual_seed(1)
    images, labels = epoch(data)
    torch.manual_seed(2)
    torch.rand(7)
    again, same = epoch(data)
    assert torch.equal(images, again)
    assert torch.equal(labels, same)
    assert not torch.equal(labels, epoch(data, number=2)[1])
    assert not torch.equal(labels, epoch(data, seed=1)[1])


def test_an_epoch_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    epoch(load_dataset("digits"))
    assert torch.equal(before, torch.get_rng_state())


def test_an_epoch_shows_each_image_once_and_drops_the_incomplete_batch():
    _, labels = epoch(numbered(10), batch_size=4)
    assert len(labels) == len(set(labels.tolist())) == 8


@pytest.mark.parametrize("start", [1, 2, 3])
def test_an_epoch_goes_on_at_any_step(start):
    data, recipe = load_dataset("digits"), Recipe(batch_size=256, color_jitter=0.4, cutout=0.3)
    whole = list(train_batches(data, recipe, seed=0, epoch=2))[start:]
    rest = list(train_batches(data, recipe, seed=0, epoch=2, start=start))
    assert len(rest) == len(whole) == 4 - start
    for pair in zip(rest, whole, strict=True):
        assert all(map(torch.equal, *pair))


@pytest.mark.parametrize(("world", "accumulate"), [(1, 4), (4, 1), (2, 2)])
def test_the_parts_of_a_batch_make_up_the_batch(world, accumulate):
    data = load_dataset("digits")
    (whole, _), *_ = train_batches(data, Recipe(), seed=0, epoch=1)
    recipe = Recipe(accumulate=accumulate)
    shares = [
        train_batches(data, recipe, seed=0, epoch=1, share=Share(rank, world))
        for rank in range(world)
    ]
    parts = [next(share)[0] for share in shares * accumulate]
    assert torch.equal(torch.cat(parts), whole)


def test_without_padding_or_mirroring_images_are_themselves():
    data = numbered()
    images, labels = epoch(data, batch_size=10, crop_padding=0.0)
    assert torch.equal(images, data.train.images[labels])


def test_a_crop_is_the_image_shifted_over_zeros():
    data = numbered(2)
    padded = torch.nn.functional.pad(data.train.images, [2] * 4)
    corners = torch.tensor([[0, 3], [4, 2]])
    first, second = cropped(padded, corners, 6)
    assert torch.equal(first[0], padded[0, 0, 0:6, 4:10])
    assert torch.equal(second[0], padded[1, 0, 3:9, 2:8])


def test_shifts_span_the_padding_and_differ_between_images():
    data = numbered(400, side=8)
    images, labels = epoch(data, batch_size=400, crop_padding=0.125)
    padded = torch.nn.functional.pad(data.train.images, [1] * 4)
    shifts = set()
    for image, label in zip(images, labels, strict=True):
        found = [
            (r, c)
            for r in range(3)
            for c in range(3)
            if torch.equal(image[0], padded[label, 0, r : r + 8, c : c + 8])
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert shifts == {(r, c) for r in range(3) for c in range(3)}


@pytest.mark.parametrize("mirror", [False, True])
def test_images_are_mirrored_only_where_the_label_allows(mirror):
    data = numbered(200, mirror=mirror)
    images, labels = epoch(data, batch_size=200, crop_padding=0.0)
    flipped = [
        not torch.equal(i, data.train.images[n]) for i, n in zip(images, labels, strict=True)
    ]
    assert 60 < sum(flipped) < 140 if mirror else not any(flipped)


def test_normalised_training_images_have_mean_0_and_deviation_1():
    data = load_dataset("digits")
    x = Normalise.of(data, torch.device("cpu"))(data.train.images)
    assert x.dtype == torch.float32
    assert x.mean().abs() < 1e-5
    assert abs(x.std() - 1) < 1e-3
    assert x.is_contiguous(memory_format=torch.channels_last)


def published(monkeypatch, images, labels, *, classes=("a", "b"), parts=None):
    """Load images in memory under a name of their own."""
    source = Pixels(images, np.asarray(labels), classes, mirror=True, parts=parts or {})
    monkeypatch.setitem(DATASETS, "own", lambda _: source)
    return load_dataset.__wrapped__("own")


def noise(n=60, channels=3, side=4):
    stream = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, channels, side, side), generator=stream).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_the_training_images(monkeypatch, channels):
    data = published(monkeypatch, noise(channels=channels), np.arange(60) % 2)
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), rel=1e-12)
    assert len(data.mean) == len(data.std) == channels


def test_a_channel_without_content_becomes_zeros(monkeypatch):
    images = noise()
    images[:, 1] = 77
    data = published(monkeypatch, images, np.arange(60) % 2)
    assert data.std[1] == 1
    x = Normalise.of(data, torch.device("cpu"))(data.train.images)
    assert x[:, 1].abs().max() < 1e-6
    assert x.isfinite().all()


def test_the_hashes_follow_images_labels_and_splits_alone(monkeypatch):
    images, labels = noise(), np.arange(60) % 2
    first = published(monkeypatch, images, labels)
    again = published(monkeypatch, images.clone(), labels.copy(), classes=("c", "d"))
    assert (again.split_hash, again.data_hash) == (first.split_hash, first.data_hash)
    changed = images.clone()
    changed[17, 2, 3, 3] ^= 1
    other = published(monkeypatch, changed, labels)
    assert (other.split_hash == first.split_hash, other.data_hash == first.data_hash) == (
        True,
        False,
    )
    for relabelled in (1 - labels, np.arange(60) // 2 % 2):
        assert published(monkeypatch, images, relabelled).data_hash != first.data_hash
    parts = {"train": np.arange(50), "val": np.arange(50, 55), "test": np.arange(55, 60)}
    given = published(monkeypatch, images, labels, parts=parts)
    moved = {"train": np.arange(49), "val": np.arange(49, 55), "test": np.arange(55, 60)}
    shifted = published(monkeypatch, images, labels, parts=moved)
    assert len({first.split_hash, given.split_hash, shifted.split_hash}) == 3


def test_published_splits_are_kept_and_only_the_rest_is_drawn(monkeypatch):
    images, labels = noise(), np.arange(60) % 2
    parts = {"train": np.arange(40), "test": np.arange(40, 60)}
    data = published(monkeypatch, images, labels, parts=parts)
    assert torch.equal(data.test.images, images[40:])
    assert (len(data.train), len(data.val)) == (36, 4)
    assert data.val.labels.bincount().tolist() == [2, 2]


def test_a_class_that_would_be_missing_in_a_split_is_named(monkeypatch):
    labels = np.zeros(60, int)
    labels[:3] = 1
    with pytest.raises(UserError, match=r"class 'b' has [123] images, too few to draw a share of"):
        published(monkeypatch, noise(), labels)


@pytest.mark.parametrize(
    ("field", "value"),
    [("workers", -1), ("workers", 1.0), ("workers", True), ("on_bad_image", "x")],
)
def test_a_way_of_loading_that_is_none_is_refused(field, value):
    with pytest.raises(UserError) as caught:
        Loading(**{field: value})
    assert caught.value.field == field
