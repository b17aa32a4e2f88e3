"""Every data set by its SPEC, read from files like the published ones; nothing is downloaded."""

import gzip

import numpy as np
import published
import pytest
import torch
import torchvision.datasets as tv

from resnet_variants.data import specs
from resnet_variants.data.dataset import Loading, load_dataset
from resnet_variants.data.sources import (
    DATASETS,
    MemorySource,
    as_picture,
    open_source,
)
from resnet_variants.data.specs import check_spec
from resnet_variants.registry import UserError

NAMES = list(published.KINDS)


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    published.no_network(monkeypatch)


def refused(spec, root):
    with pytest.raises(UserError) as caught:
        open_source(spec, root)
    message = str(caught.value)
    assert "\n" not in message
    return message, caught.value.field


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_read_as_they_are(name, tmp_path, monkeypatch):
    images, labels, train = published.publish(name, tmp_path, monkeypatch)
    source = open_source(name, tmp_path)
    assert np.array_equal(source.images.permute(0, 2, 3, 1).numpy(), images)
    assert source.labels.tolist() == labels.tolist()
    assert {part: (i[0], i[-1] + 1) for part, i in source.parts.items()} == {
        "train": (0, train),
        "test": (train, len(labels)),
    }
    assert (source.in_chans, source.side) == (images.shape[3], images.shape[1])
    assert source.mirror is (name not in ("mnist", "svhn"))
    assert len(source.classes) == labels.max() + 1


def test_classes_have_their_published_names(tmp_path, monkeypatch):
    for name, second in {
        "mnist": "1 - one",
        "fashion-mnist": "Trouser",
        "cifar10": "class 1",
        "cifar100": "class 1",
        "svhn": "1",
    }.items():
        published.publish(name, tmp_path / name, monkeypatch)
        assert open_source(name, tmp_path / name).classes[1] == second


@pytest.mark.parametrize("name", NAMES)
def test_the_published_test_split_is_kept(name, tmp_path, monkeypatch):
    images, labels, train = published.publish(name, tmp_path, monkeypatch)
    data = load_dataset.__wrapped__(name, loading=Loading(data_dir=tmp_path))
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), images[train:])
    assert data.test.labels.tolist() == labels[train:].tolist()
    assert len(data.train) + len(data.val) == train


@pytest.mark.parametrize("name", NAMES)
def test_without_files_and_network_one_line_names_the_folder(name, tmp_path):
    message, field = refused(name, tmp_path / "none")
    assert message.startswith(f"{name} is neither whole in '{tmp_path / 'none'}' nor can it be")
    assert "no route to host" in message
    assert field == "data_dir"


def files(kind, root):
    found = {
        "MNIST": "MNIST/raw/*.gz",
        "FashionMNIST": "FashionMNIST/raw/*.gz",
        "CIFAR10": "cifar-10-batches-py/*",
        "CIFAR100": "cifar-100-python/*",
        "SVHN": "*.mat",
    }
    return sorted(root.glob(found[kind]))


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_never_used(name, tmp_path, monkeypatch):
    published.publish(name, tmp_path, monkeypatch)
    paths = files(published.KINDS[name], tmp_path)
    assert len(paths) >= 2
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        message, field = refused(name, tmp_path)
        assert message.startswith(f"{name} is neither whole in ")
        assert field == "data_dir"
        path.write_bytes(content)
    open_source(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("change", ["pixel", "cut off", "empty", "longer"])
def test_an_unpacked_file_that_differs_from_its_archive_is_never_used(
    name, change, tmp_path, monkeypatch
):
    published.publish(name, tmp_path, monkeypatch)
    raw = tmp_path / published.KINDS[name] / "raw"
    for file in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        path = raw / file
        content = path.read_bytes()
        changed = {
            "pixel": content[:-1] + bytes([content[-1] ^ 1]),
            "cut off": content[: len(content) // 2],
            "empty": b"",
            "longer": content + b"\0",
        }
        path.write_bytes(changed[change])
        message, _ = refused(name, tmp_path)
        assert message.startswith(f"{name} is neither whole in ")
        path.write_bytes(content)
    open_source(name, tmp_path)


def test_a_missing_archive_and_an_older_copy_are_named(tmp_path, monkeypatch):
    published.publish("mnist", tmp_path, monkeypatch)
    raw = tmp_path / "MNIST/raw"
    archive = raw / "t10k-labels-idx1-ubyte.gz"
    archive.rename(tmp_path / "kept")
    assert f"{archive} is missing or damaged: remove {raw}" in refused("mnist", tmp_path)[0]
    (tmp_path / "kept").rename(archive)
    old = tmp_path / "MNIST/processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(9, 28, 28, dtype=torch.uint8), torch.zeros(9).long()), old / name)
    assert f"{old} has no published checksum: remove it" in refused("mnist", tmp_path)[0]


def test_an_archive_alone_is_unpacked(tmp_path, monkeypatch):
    images, _, _ = published.publish("mnist", tmp_path, monkeypatch)
    for path in (tmp_path / "MNIST/raw").glob("*-ubyte"):
        path.unlink()
    source = open_source("mnist", tmp_path)
    assert np.array_equal(source.images[:, 0].numpy(), images[..., 0])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), EOFError("cut off"), gzip.BadGzipFile("x")]
)
def test_a_failing_download_is_one_line(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(tv.CIFAR10, "download", fails)
    message, field = refused("cifar10", tmp_path)
    assert f"({error})" in message
    assert field == "data_dir"


# --- SPECs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["digits", "svhn", "folder:x", "folder:C:/x", "timm:torch/cifar10"]
)
def test_a_spec_is_accepted_without_looking_at_files(spec):
    check_spec(spec)


@pytest.mark.parametrize(
    "spec", ["", "digit", "folder", "folder:", "timm:", "digits:x", ":x", "x:y"]
)
def test_an_unknown_spec_names_the_choices(spec, tmp_path):
    message, field = refused(spec, tmp_path)
    assert message.startswith(f"unknown data {spec!r};")
    assert message.endswith("svhn, folder:PATH, timm:NAME")
    assert field == "data"


def test_every_name_has_an_opener():
    assert set(specs.NAMES) == set(DATASETS)


def test_digits_need_no_files():
    source = DATASETS["digits"](None)
    assert (len(source.labels), source.side, source.in_chans, source.mirror) == (1797, 8, 1, False)
    assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_in_memory_is_its_pixels(channels):
    images = torch.arange(2 * channels * 20).to(torch.uint8).view(2, channels, 4, 5)
    source = MemorySource(images, np.zeros(2, np.int64), ("x",), mirror=True)
    picture = source.picture(1)
    assert picture.size == (5, 4)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(picture).reshape(4, 5, channels), images[1].permute(1, 2, 0))
    assert as_picture(images[1]) == picture


def test_pictures_in_memory_are_told_apart_by_their_pixels():
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    images[2, 0, 3, 3] = 1
    source = MemorySource(images, np.zeros(3, np.int64), ("x",), mirror=True)
    assert source.identity(0) == source.identity(1) != source.identity(2)
