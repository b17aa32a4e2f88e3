"""Pictures that timm's factory finds: read here, so that none is replaced by its neighbour."""

import numpy as np
import pictures
import published
import pytest

from resnet_variants.data import dataset as data_module
from resnet_variants.data.dataset import Loading, load_dataset
from resnet_variants.data.images import BadImageError
from resnet_variants.data.sources import open_source
from resnet_variants.data.splits import Batch
from resnet_variants.registry import UserError

FOLDERS = ["timm:folder", "timm:torch/folder"]


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


def test_a_torch_data_set_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    published.no_network(monkeypatch)
    message = refused("timm:torch/cifar10", tmp_path)
    assert message.startswith(f"timm cannot read 'torch/cifar10' in '{tmp_path}' (train: ")
    assert message.endswith("see --data-dir")


@pytest.mark.parametrize("spec", FOLDERS)
@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_a_folder_is_read_by_split_and_class(spec, held_out, folder):
    (folder / "test").rename(folder / held_out)
    source = open_source(spec, folder)
    names = [f"train/{c}/{i}" for c in "ab" for i in range(12)]
    names += [f"{held_out}/{c}/{i}" for c in "ab" for i in range(3)]
    assert {source.name(i) for i in range(30)} == {str(folder / f"{name}.png") for name in names}
    for i, label in enumerate(source.labels):
        assert f"/{source.classes[label]}/" in source.name(i)
        assert (f"/{held_out}/" in source.name(i)) == (i in source.parts["test"])


@pytest.mark.parametrize("spec", FOLDERS)
def test_a_folder_gives_the_pictures_of_the_folder_spec(spec, folder):
    timms, own = load(spec, folder), load(f"folder:{folder}", folder)
    assert timms.classes == own.classes
    assert len(timms.test) == len(own.test) == 6
    for one, other in zip(timms.test.images, own.test.images, strict=True):
        assert any(one.equal(x) for x in own.test.images)
        assert any(other.equal(x) for x in timms.test.images)


@pytest.mark.parametrize("spec", FOLDERS)
def test_pictures_of_a_folder_are_decoded_here(spec, folder):
    """Upright and over white, neither of which timm or torchvision does."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pictures.save(folder / "train/a/0.png", pixels)
    source = open_source(spec, folder)
    (at,) = [i for i in range(30) if source.name(i).endswith("train/a/0.png")]
    assert (np.asarray(source.picture(at)) == 255).all()


@pytest.mark.parametrize("spec", FOLDERS)
@pytest.mark.parametrize("kind", ["cut off png", "empty", "dangling link"])
def test_a_broken_image_is_named_and_never_replaced(spec, kind, folder):
    path = folder / "test/b/1.png"
    path.unlink()
    pictures.BROKEN[kind][0](path)
    for on_bad_image in ("error", "skip"):
        with pytest.raises(BadImageError) as caught:
            load(spec, folder, on_bad_image=on_bad_image)
        assert pictures.is_one_line(caught.value, path)


@pytest.mark.parametrize("spec", FOLDERS)
def test_a_broken_training_image_can_be_left_out(spec, folder):
    sizes = load(spec, folder).facts["split_sizes"]
    source = open_source(spec, folder)
    indices = data_module.split_indices(source)["train"]
    path = pictures.empty(folder / source.name(int(indices[4])))
    data = load(spec, folder, on_bad_image="skip")
    assert data.facts["split_sizes"] == [sizes[0] - 1, *sizes[1:]]
    assert len(data.skipped) == 1
    assert pictures.is_one_line(data.skipped[0], path)


def test_a_streamed_folder_is_read_by_workers(folder, monkeypatch):
    resident = load("timm:folder", folder)
    monkeypatch.setattr(data_module, "RESIDENT_BYTES", 0)
    streamed = load("timm:folder", folder, workers=2)
    plan = [Batch(part) for part in resident.train.labels.argsort().split(4)]
    batches = zip(resident.train.batches(plan), streamed.train.batches(plan), strict=True)
    assert all(one.equal(other) for one, other in batches)
    pictures.save(folder / "test/a/0.png", pictures.noise(9, 9))
    assert load("timm:folder", folder, workers=2).data_hash != streamed.data_hash


def test_a_folder_without_one_of_the_splits_is_not_read_twice(tmp_path):
    """timm takes the whole folder where there is none of the split's name."""
    pictures.fill(tmp_path, {"a": 2, "b": 2})
    for spec in FOLDERS:
        assert "(train: no such folder)" in refused(spec, tmp_path)
    pictures.fill(tmp_path / "half", {"train/a": 2, "train/b": 2})
    for spec in FOLDERS:
        message = refused(spec, tmp_path / "half")
        assert "(validation: no such folder; test: no such folder)" in message


def test_classes_that_differ_between_splits_are_named(folder):
    (folder / "test/b").rename(folder / "test/c")
    for spec in FOLDERS:
        assert f"{spec}: class 'b' is not in both train and test" in refused(spec, folder)


@pytest.mark.parametrize("spec", FOLDERS)
def test_thumbnails_of_a_system_are_no_pictures(spec, folder):
    path = pictures.save(folder / "train/a/@eaDir/0.png")
    message = refused(spec, folder)
    assert f"timm takes {str(path)!r} for a picture: remove it, or give folder:PATH" in message


@pytest.mark.parametrize("name", ["cifar10", "no-such", "folders", "torch", "torch/", "data/x"])
def test_an_unknown_name_is_not_taken_for_a_folder(name, folder):
    message = refused(f"timm:{name}", folder)
    assert message.startswith(f"unknown data 'timm:{name}';")
    assert message.endswith("choices: timm:folder, timm:torch/NAME, timm:hfds/NAME")


def test_an_unknown_torch_name_is_one_line(folder):
    assert "Unknown torchvision dataset no-such" in refused("timm:torch/no-such", folder)


@pytest.mark.parametrize("prefix", ["hfids", "tfds", "wds", "TFDS"])
def test_streams_are_refused_before_anything_is_downloaded(prefix, folder):
    message = refused(f"timm:{prefix}/x", folder)
    assert "is a stream without numbers" in message
    assert "take the hfds/ or torch/ form" in message


def test_several_names_of_a_class_count_once(folder, monkeypatch):
    """As in torchvision's ImageNet."""
    from torchvision.datasets import ImageFolder

    def find_classes(self, directory):
        return ["a", "b"], {"a": 0, "alpha": 0, "b": 1}

    monkeypatch.setattr(ImageFolder, "find_classes", find_classes)
    for split in ("train", "test"):  # else the second name has no pictures
        (folder / split / "alpha").symlink_to(folder / split / "a")
    assert open_source("timm:torch/folder", folder).classes == ("a", "b")


def test_a_label_that_is_no_number_is_one_line(folder, monkeypatch):
    from torchvision.datasets import ImageFolder

    real = ImageFolder.__init__

    def init(self, *args, **options):
        real(self, *args, **options)
        self.targets = [[1, 2]] * len(self.samples)

    monkeypatch.setattr(ImageFolder, "__init__", init)
    message = refused("timm:torch/folder", folder)
    assert "an image has not one whole number as its class" in message
