"""Every data set by its SPEC, read from files like the published ones; nothing is downloaded."""

import numpy as np
import published
import pytest
import torch

from resnet_variants.data import specs
from resnet_variants.data.dataset import Loading, load_dataset
from resnet_variants.data.sources import DATASETS, open_source
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


SECOND = dict(zip(NAMES, ("1 - one", "Trouser", "class 1", "class 1", "1"), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_read_as_they_are(name, tmp_path, monkeypatch):
    images, labels, train = published.publish(name, tmp_path, monkeypatch)
    source = open_source(name, tmp_path)
    assert np.array_equal(source.images.permute(0, 2, 3, 1).numpy(), images)
    assert source.labels.tolist() == labels.tolist()
    assert np.array_equal(np.asarray(source.picture(1)).reshape(images[1].shape), images[1])
    assert {part: (i[0], i[-1] + 1) for part, i in source.parts.items()} == {
        "train": (0, train),
        "test": (train, len(labels)),
    }
    assert (source.in_chans, source.side) == (images.shape[3], images.shape[1])
    assert source.mirror is (name not in ("mnist", "svhn"))
    assert len(source.classes) == labels.max() + 1
    assert source.classes[1] == SECOND[name]
    # The publisher's test split is kept.
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


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_never_used(name, tmp_path, monkeypatch):
    published.publish(name, tmp_path, monkeypatch)
    found = tmp_path.rglob("*.gz" if "mnist" in name else "*")
    paths = [path for path in found if path.is_file()]
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
def test_an_unpacked_file_that_differs_from_its_archive_is_never_used(name, tmp_path, monkeypatch):
    images, _, _ = published.publish(name, tmp_path, monkeypatch)
    raw = tmp_path / published.KINDS[name] / "raw"
    for file in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = (raw / file).read_bytes()
        other_pixel = content[:-1] + bytes([content[-1] ^ 1])
        for changed in (other_pixel, content[: len(content) // 2], b"", content + b"\0"):
            (raw / file).write_bytes(changed)
            message, _ = refused(name, tmp_path)
            assert message.startswith(f"{name} is neither whole in ")
        (raw / file).write_bytes(content)
    for path in raw.glob("*-ubyte"):  # an archive alone is unpacked
        path.unlink()
    assert np.array_equal(open_source(name, tmp_path).images[:, 0].numpy(), images[..., 0])


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


# --- SPECs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["", "digit", "folder", "folder:", "timm:", "digits:x", ":x", "x:y"]
)
def test_an_unknown_spec_names_the_choices(spec, tmp_path):
    message, field = refused(spec, tmp_path)
    assert message.startswith(f"unknown data {spec!r};")
    assert message.endswith("svhn, folder:PATH, timm:NAME")
    assert field == "data"
    for known in ("digits", "svhn", "folder:x", "folder:C:/x", "timm:torch/cifar10"):
        check_spec(known)  # files are not looked at


def test_every_name_has_an_opener():
    assert set(specs.NAMES) == set(DATASETS)


def test_digits_need_no_files():
    source = open_source("digits", None)
    assert (len(source.labels), source.side, source.in_chans, source.mirror) == (1797, 8, 1, False)
    assert source.classes == tuple("0123456789")
    pixels = source.images[5, 0]
    assert np.array_equal(source.picture(5), pixels)
    # Pictures in memory are told apart by their pixels.
    assert source.identity(5) == pixels.numpy().tobytes() != source.identity(6)
