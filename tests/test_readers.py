"""Pictures that timm's factory finds: read here, so that none is replaced by its neighbour."""

import re
from pathlib import Path

import numpy as np
import pictures
import published
import pytest
from torchvision.datasets import ImageFolder

from resnet_variants.data import dataset as data_module
from resnet_variants.data import readers
from resnet_variants.data.dataset import Loading, load_dataset, split_indices
from resnet_variants.data.images import BadImageError
from resnet_variants.data.sources import open_source
from resnet_variants.data.splits import Batch
from resnet_variants.registry import UserError

FOLDERS = ["timm:folder", "timm:torch/folder"]
EITHER = pytest.mark.parametrize("spec", FOLDERS)


def load(spec, root, **loading):
    loading = Loading(data_dir=root, **loading)
    return load_dataset.__wrapped__(spec, img_size=8, loading=loading)


def refused(spec, root):
    with pytest.raises(UserError) as caught:
        open_source(spec, root)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path):
    return pictures.halves(tmp_path, train=12, test=3)


def test_torch_data_sets_are_read_by_their_checksums(tmp_path, monkeypatch):
    published.no_network(monkeypatch)
    images, labels, train = published.publish("cifar10", tmp_path, monkeypatch)
    source = open_source("timm:torch/cifar10", tmp_path)
    assert source.labels.tolist() == labels.tolist()
    assert source.classes == tuple(f"class {i}" for i in range(10))
    assert [len(source.parts[part]) for part in ("train", "test")] == [train, len(labels) - train]
    for i in (0, train - 1, train, len(labels) - 1):
        assert np.array_equal(np.asarray(source.picture(i)), images[i])
        assert source.identity(i) == images[i].tobytes()
    assert (source.name(2), source.name(train + 2)) == ("CIFAR10 image 2", "CIFAR10 image 2")
    with pytest.raises(IndexError):
        source.picture(len(labels))


def test_grey_torch_data_sets_become_rgb_and_are_checked_unpacked(tmp_path, monkeypatch):
    published.no_network(monkeypatch)
    images, _, _ = published.publish("mnist", tmp_path, monkeypatch)
    source = open_source("timm:torch/mnist", tmp_path)
    assert np.array_equal(np.asarray(source.picture(3)), np.repeat(images[3], 3, axis=2))
    path = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert "is not what train-labels-idx1-ubyte.gz holds: remove it" in refused(
        "timm:torch/mnist", tmp_path
    )


@EITHER
@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_a_folder_is_read_by_split_and_class(spec, held_out, folder):
    (folder / "test").rename(folder / held_out)
    # Seen through and turned upright: neither timm nor torchvision does that.
    pictures.save(folder / "train/a/0.png", np.zeros((8, 8, 4), np.uint8))
    source = open_source(spec, folder)
    names = [f"train/{c}/{i}" for c in "ab" for i in range(12)]
    names += [f"{held_out}/{c}/{i}" for c in "ab" for i in range(3)]
    assert {source.name(i) for i in range(30)} == {str(folder / f"{name}.png") for name in names}
    for i, label in enumerate(source.labels):
        name = source.name(i)
        assert f"/{source.classes[label]}/" in name
        assert (f"/{held_out}/" in name) == (i in source.parts["test"])
        seed = names.index(name.removeprefix(f"{folder}/").removesuffix(".png"))
        pixels = pictures.noise(seed=seed) if seed else np.full((8, 8, 3), 255)
        assert np.array_equal(source.picture(i), pixels)


@EITHER
def test_a_broken_image_is_named_and_never_replaced(spec, folder):
    sizes = load(spec, folder).facts["split_sizes"]
    source = open_source(spec, folder)
    path = pictures.empty(Path(source.name(int(split_indices(source)["train"][4]))))
    data = load(spec, folder, on_bad_image="skip")  # left out of training
    assert data.facts["split_sizes"] == [sizes[0] - 1, *sizes[1:]]
    assert len(data.skipped) == 1
    assert pictures.is_one_line(data.skipped[0], path)
    path = pictures.cut_off(folder / "test/b/1.png")  # an error elsewhere
    with pytest.raises(BadImageError) as caught:
        load(spec, folder, on_bad_image="skip")
    assert pictures.is_one_line(caught.value, path)


def test_a_streamed_folder_is_read_by_workers(folder, monkeypatch):
    resident = load("timm:folder", folder)
    monkeypatch.setattr(data_module, "RESIDENT_BYTES", 0)
    streamed = load("timm:folder", folder, workers=2)
    plan = [Batch(part) for part in resident.train.labels.argsort().split(4)]
    batches = zip(resident.train.batches(plan), streamed.train.batches(plan), strict=True)
    assert all(one.equal(other) for one, other in batches)
    pictures.save(folder / "test/a/0.png", pictures.noise(9, 9))
    assert load("timm:folder", folder, workers=2).data_hash != streamed.data_hash


@EITHER
def test_a_folder_without_one_of_the_splits_is_not_read_twice(spec, tmp_path):
    """timm takes the whole folder where there is none of the split's name."""
    pictures.fill(tmp_path, {"a": 2, "b": 2})
    assert "(train: no such folder)" in refused(spec, tmp_path)
    pictures.fill(tmp_path / "half", {"train/a": 2, "train/b": 2})
    message = refused(spec, tmp_path / "half")
    assert "(validation: no such folder; test: no such folder)" in message


@EITHER
def test_classes_that_differ_and_thumbnails_of_a_system_are_named(spec, folder):
    path = pictures.save(folder / "train/a/@eaDir/0.png")
    message = refused(spec, folder)
    assert f"timm takes {str(path)!r} for a picture: remove it, or give folder:PATH" in message
    path.unlink()
    (folder / "test/b").rename(folder / "test/c")
    assert f"{spec}: class 'b' is not in both train and test" in refused(spec, folder)


CHOICES = "choices: timm:folder, timm:torch/NAME, timm:hfds/NAME"
STREAM = "is a stream without numbers; .*: take the hfds/ or torch/ form"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, f"^unknown data 'timm:{name}';.* {CHOICES}$") for name in ("cifar10", "folders")),
        *((name, f"^unknown data 'timm:{name}';.* {CHOICES}$") for name in ("torch/", "data/x")),
        *((f"{prefix}/x", f"{STREAM}$") for prefix in ("hfids", "tfds", "wds", "TFDS")),
        ("torch/no-such", "Unknown torchvision dataset no-such"),
        # No file is there, and nothing can be downloaded.
        ("torch/cifar10", r"^timm cannot read 'torch/cifar10' in '/.*' \(train: .*see --data-dir$"),
    ],
)
def test_a_name_that_timm_cannot_read_is_one_line(name, message, folder, monkeypatch):
    published.no_network(monkeypatch)
    assert re.search(message, refused(f"timm:{name}", folder))


def test_several_names_of_a_class_count_once(folder, monkeypatch):
    """As in torchvision's ImageNet."""

    def find_classes(self, directory):
        return ["a", "b"], {"a": 0, "alpha": 0, "b": 1}

    monkeypatch.setattr(ImageFolder, "find_classes", find_classes)
    for split in ("train", "test"):  # else the second name has no pictures
        (folder / split / "alpha").symlink_to(folder / split / "a")
    assert open_source("timm:torch/folder", folder).classes == ("a", "b")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([1, 2], "an image has not one whole number as its class"),
        (1.9, "an image has not one whole number as its class"),
        (-1, "an image has the label -1, which is no class"),
    ],
)
def test_a_label_that_is_no_class_is_one_line(label, message, folder, monkeypatch):
    real = ImageFolder.__init__

    def init(self, *args, **options):
        real(self, *args, **options)
        self.targets = [label] * len(self.samples)

    monkeypatch.setattr(ImageFolder, "__init__", init)
    assert message in refused("timm:torch/folder", folder)


@pytest.mark.parametrize(
    ("name", "mirror"),
    [
        ("torch/mnist", False),
        ("hfds/ylecun/mnist", False),
        ("hfds/ufldl-stanford/svhn", False),
        ("torch/cifar10", True),
        ("hfds/zalando-datasets/fashion_mnist", True),
    ],
)
def test_a_mirrored_digit_is_no_digit_wherever_it_comes_from(name, mirror, folder, monkeypatch):
    real = readers.open_timm("torch/folder", folder)
    found = iter(real.readers)
    monkeypatch.setattr(readers, "_split", lambda *_: next(found))
    assert readers.open_timm(name, folder).mirror == mirror
