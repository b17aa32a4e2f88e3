"""Data sets: splits by class, published splits, hashes, mean and deviation."""

import numpy as np
import pytest
import torch

from resnet_variants.data.dataset import load_dataset
from resnet_variants.data.sources import DATASETS, MemorySource
from resnet_variants.training.augment import Normalise


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


def test_normalised_training_images_have_mean_0_and_deviation_1():
    data = load_dataset("digits")
    x = Normalise.of(data, torch.device("cpu"))(data.train.images)
    assert x.dtype == torch.float32
    assert x.mean().abs() < 1e-5
    assert abs(x.std() - 1) < 1e-3
    assert x.is_contiguous(memory_format=torch.channels_last)


def published(monkeypatch, images, labels, *, classes=("a", "b"), parts=None):
    """Load images in memory under a name of their own."""
    source = MemorySource(images, np.asarray(labels), classes, mirror=True, parts=parts or {})
    monkeypatch.delitem(DATASETS, "own", raising=False)  # a name is entered once
    monkeypatch.setitem(DATASETS, "own", lambda _: source)
    return load_dataset.__wrapped__("own")


def noise(channels=3):
    stream = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (60, channels, 4, 4), generator=stream).to(torch.uint8)


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
    parts = {"train": np.arange(50), "val": np.arange(50, 55), "test": np.arange(55, 60)}
    moved = parts | {"train": np.arange(49), "val": np.arange(49, 55)}
    changed = images.clone()
    changed[17, 2, 3, 3] ^= 1

    def hashes(*content, **more):
        data = published(monkeypatch, *content, **more)
        return data.split_hash, data.data_hash

    first, given = hashes(images, labels), hashes(images, labels, parts=parts)
    assert hashes(images.clone(), labels.copy(), classes=("c", "d")) == first
    assert hashes(changed, labels)[0] == first[0]
    others = [changed, labels], [images, 1 - labels], [images, np.arange(60) // 2 % 2]
    assert first[1] not in {hashes(*other)[1] for other in others}
    shifted = hashes(images, labels, parts=moved)
    assert len({first[0], given[0], shifted[0]}) == 3


def test_published_splits_are_kept_and_only_the_rest_is_drawn(monkeypatch):
    images, labels = noise(), np.arange(60) % 2
    parts = {"train": np.arange(40), "test": np.arange(40, 60)}
    data = published(monkeypatch, images, labels, parts=parts)
    assert torch.equal(data.test.images, images[40:])
    assert (len(data.train), len(data.val)) == (36, 4)
    assert data.val.labels.bincount().tolist() == [2, 2]
    # Every image is in one split, with its own label.
    pixels = torch.cat([part.images for part in (data.train, data.val, data.test)])
    found = [(images == x).flatten(1).all(1).nonzero().item() for x in pixels]
    assert sorted(found) == list(range(60))
    own = torch.cat([part.labels for part in (data.train, data.val, data.test)])
    assert own.tolist() == labels[found].tolist()
