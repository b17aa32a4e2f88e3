"""Folders of class folders: which files they hold, by which split and class."""

import os
from pathlib import Path

import numpy as np
import pictures
import pytest

from resnet_variants.data.dataset import load_dataset, split_indices
from resnet_variants.data.folders import read_folder
from resnet_variants.registry import UserError


def load(root, *, img_size=0):
    return load_dataset.__wrapped__(f"folder:{root}", img_size=img_size)


def refused(root):
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def split_paths(source):
    return {name: [source.paths[i] for i in part] for name, part in source.parts.items()}


def test_train_and_test_are_the_folders_of_that_name(tmp_path):
    source = read_folder(pictures.halves(tmp_path, train=2, test=1))
    assert source.classes == ("a", "b")
    assert split_paths(source) == {
        "train": ["train/a/0.png", "train/a/1.png", "train/b/0.png", "train/b/1.png"],
        "test": ["test/a/0.png", "test/b/0.png"],
    }
    assert source.labels.tolist() == [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("counts", "split", "data"),
    [
        ({"train": 12, "val": 2, "test": 3}, "1f9e8c9b004d01bb", "81f935166b881fb0"),
        ({"train": 12, "test": 3}, "19360a9ec8d504de", "c33ebfb6ef8338f0"),
        ({"": 20}, "646b9b3e1db81095", "7508a73a1f3fa6a6"),
    ],
)
def test_the_hashes_of_plain_folders_are_frozen(tmp_path, counts, split, data):
    pictures.fill(tmp_path, {f"{s}/{c}".strip("/"): n for s, n in counts.items() for c in "ab"})
    found = load(tmp_path)
    assert (found.split_hash, found.data_hash) == (split, data)


SPLITS = {
    "train_set test_set": "train test",
    "training_set test_set": "train test",
    "TrainImages TestImages": "train test",
    "Training Testing": "train test",
    "train eval": "train test",
    "train dev": "train test",
    "train dev test": "train val test",
    "train2017 val2017 annotations": "train test",
    "seg_train seg_test seg_pred": "train test",
    "x_train x_valid x_test": "train val test",
    "train test train_small": "train test",
}


@pytest.mark.parametrize("names", SPLITS)
def test_splits_are_found_by_many_names(tmp_path, names):
    pictures.fill(tmp_path, {f"{name}/{c}": 1 for name in names.split() for c in "ab"})
    source = read_folder(tmp_path)
    assert source.classes == ("a", "b")
    assert {part: paths[0].split("/")[0] for part, paths in split_paths(source).items()} == dict(
        zip(SPLITS[names].split(), names.split(), strict=False)
    )


@pytest.mark.parametrize(
    "names",
    ["my_train your_test", "cat_train cat_test dog_train dog_test", "train seg_train seg_test"],
)
def test_what_looks_like_splits_does_not_become_classes(tmp_path, names):
    pictures.fill(tmp_path, {f"{name}/{c}": 9 for name in names.split() for c in "ab"})
    message = refused(tmp_path)
    assert "which look like splits and not like classes: call them train/ with val/" in message
    assert all(f"{name}/" in message for name in names.split())


@pytest.mark.parametrize(
    "names", ["train_station test_track airport", "test_tube_1 test_tube_2", "trains cars"]
)
def test_classes_may_speak_of_trains_and_tests(tmp_path, names):
    pictures.fill(tmp_path, {name: 9 for name in names.split()})
    assert read_folder(tmp_path).classes == tuple(sorted(names.split()))


def test_classes_that_hold_splits_are_refused(tmp_path):
    pictures.fill(tmp_path, {f"{c}/{s}": 9 for s in ("train", "test") for c in ("cat", "dog")})
    message = refused(tmp_path)
    assert f"'{tmp_path}/cat' holds test/ and train/: name that folder, or put splits" in message


@pytest.mark.parametrize(
    ("folders", "path"),
    [
        (["pets/train/a", "pets/train/b", "pets/test/a", "pets/test/b"], "pets"),
        (["more/images/a", "more/images/b", "__MACOSX/more"], "more/images"),
        (["train/all/a", "train/all/b", "test/all/a", "test/all/b"], "train/all"),
    ],
)
def test_folders_around_the_right_one_are_looked_through(tmp_path, folders, path):
    pictures.fill(tmp_path, dict.fromkeys(folders, 1))
    message = refused(tmp_path)
    assert "holds 1 class folders; it takes two or more; " in message
    assert f"seem to be in '{tmp_path / path}': name that, or move them up" in message


def test_class_names_that_no_reader_can_tell_apart_are_told_as_such(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    counts = {"train/x": 1, f"train/{composed}": 1, "test/x": 1, f"test/{decomposed}": 1}
    message = refused(pictures.fill(tmp_path / "splits", counts))
    assert f"class '{composed}' is written in two Unicode forms" in message
    assert message.endswith(r"'cafe\u0301' and 'caf\xe9': rename one like the other")
    heap = pictures.fill(tmp_path / "heap", {composed: 9, decomposed: 9})
    assert "is written in two Unicode forms" in refused(heap)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_val_without_a_test_is_the_test_split(tmp_path, val):
    pictures.fill(tmp_path, {"train/a": 10, "train/b": 10, f"{val}/a": 1, f"{val}/b": 1})
    source = read_folder(tmp_path)
    assert split_paths(source)["test"] == [f"{val}/a/0.png", f"{val}/b/0.png"]
    data = load(tmp_path)
    assert data.facts["split_sizes"] == [18, 2, 2]


def test_one_heap_is_split_by_class_with_one_seed(tmp_path):
    pictures.fill(tmp_path, {"a": 30, "b": 60})
    source = read_folder(tmp_path)
    parts = split_indices(source)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [54, 6, 30]
    assert sorted(np.concatenate(list(parts.values()))) == list(range(90))
    for part in parts.values():
        assert 2 * (source.labels[part] == 0).sum() == (source.labels[part] == 1).sum()
    again = split_indices(read_folder(tmp_path))
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    assert load(tmp_path).split_hash == load(tmp_path).split_hash


def test_a_picture_of_a_heap_keeps_its_pixels_and_label(tmp_path):
    pictures.fill(tmp_path, {"a": 10, "b": 20})
    source, data = read_folder(tmp_path), load(tmp_path)
    for name, index in split_indices(source).items():
        split = getattr(data, name)
        assert split.labels.tolist() == source.labels[index].tolist()
        for i, at in enumerate(index):
            seed = int(at)  # the pictures were drawn in the order of their paths' numbers
            label, number = source.paths[seed].split("/")
            seed = int(number.removesuffix(".png")) + (10 if label == "b" else 0)
            assert np.array_equal(split.images[i], pictures.noise(seed=seed).transpose(2, 0, 1))


def test_nested_folders_belong_to_their_class(tmp_path):
    pictures.halves(tmp_path)
    pictures.save(tmp_path / "train/a/deep/deeper/x.PNG")
    linked = tmp_path / "elsewhere/more"
    pictures.save(linked / "y.png")
    (tmp_path / "train/b/linked").symlink_to(linked)
    source = read_folder(tmp_path)
    labels = dict(zip(source.paths, source.labels.tolist(), strict=True))
    assert labels["train/a/deep/deeper/x.PNG"] == 0
    assert labels["train/b/linked/y.png"] == 1


def test_class_names_are_any_text_and_sorted(tmp_path):
    names = ["<script>alert(1)</script".replace("/", "|"), "Zebra", "a b", "b,'\"", "日本", "é"]
    pictures.fill(
        tmp_path, {f"{split}/{name}": 10 for split in ("train", "test") for name in names}
    )
    data, source = load(tmp_path), read_folder(tmp_path)
    assert data.classes == tuple(sorted(names))
    assert data.facts["classes"] == sorted(names)
    for label, name in enumerate(data.classes):
        own = np.array(source.paths)[source.labels == label]
        assert {path.split("/")[1] for path in own} == {name}


def test_a_class_name_that_is_no_unicode_is_read(tmp_path):
    pictures.fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 2, "test/b": 2})
    for split in ("train", "test"):
        (tmp_path / split / "b").rename(tmp_path / split / os.fsdecode(b"caf\xe9"))
    source = read_folder(tmp_path)
    assert source.identity(10).startswith(b"train/caf\xe9/")
    assert len(load(tmp_path).test) == 4


def test_a_missing_folder_is_named(tmp_path):
    assert "nowhere' cannot be read as a folder: No such file" in refused(tmp_path / "nowhere")
    assert "cannot be read as a folder: Not a" in refused(pictures.text(tmp_path / "file"))
    assert "No such file" in refused("~no-such-user/pictures")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "Too many levels of symbolic links" in refused(tmp_path / "loop")
    assert "File name too long" in refused(tmp_path / ("n" * 256))


def test_an_empty_folder_and_a_single_class_are_refused(tmp_path):
    assert "holds 0 class folders; it takes two or more" in refused(tmp_path)
    pictures.save(tmp_path / "only/x.png")
    assert "holds 1 class folders; it takes two or more" in refused(tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_named(tmp_path, split):
    pictures.halves(tmp_path)
    for path in (tmp_path / split / "b").iterdir():
        path.rename(path.with_suffix(".txt"))
    message = refused(tmp_path)
    assert f"{split}/b' holds no pictures (.txt)" in message
    assert message.endswith("fill or remove it")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_classes_that_differ_between_splits_are_named(tmp_path, split):
    pictures.fill(tmp_path, {f"{s}/{c}": 1 for s in ("train", "val", "test") for c in "ab"})
    pictures.save(tmp_path / split / "extra/x.png")
    message = refused(tmp_path)
    assert "class 'extra' is not in both" in message
    assert message.endswith("every split needs the same classes")


def test_a_split_alone_or_twice_is_refused(tmp_path):
    pictures.fill(tmp_path, {"train/a": 1, "train/b": 1})
    assert "holds train alone: it takes train/ with val/ or test/" in refused(tmp_path)
    pictures.fill(tmp_path, {"val/a": 1, "val/b": 1, "valid/a": 1, "valid/b": 1})
    assert "holds both val/ and valid/: which is the val split?" in refused(tmp_path)


def test_test_and_val_without_train_are_refused(tmp_path):
    pictures.fill(tmp_path, {f"{s}/{c}": 1 for s in ("val", "test") for c in "ab"})
    assert "holds val and test alone" in refused(tmp_path)


@pytest.mark.parametrize("link", ["test", "train/c"])
def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path, link):
    pictures.fill(tmp_path, {f"{s}/{c}": 1 for s in ("train", "val") for c in "ab"})
    (tmp_path / link).symlink_to(tmp_path / "nowhere")
    assert f"{tmp_path / link}' is a link to nothing: restore or remove it" in refused(tmp_path)


def test_a_class_may_be_a_link_but_not_into_itself(tmp_path):
    pictures.halves(tmp_path)
    (tmp_path / "train/b").rename(tmp_path / "kept")
    (tmp_path / "train/b").symlink_to(tmp_path / "kept")
    assert "train/b/0.png" in read_folder(tmp_path).paths
    (tmp_path / "train/a/again").symlink_to(tmp_path / "train/a")
    assert "a link leads to" in refused(tmp_path)


def test_a_folder_without_read_permission_is_named(tmp_path):
    pictures.halves(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "train").chmod(0o711)
    message = pictures.told_to_a_stranger(tmp_path, lambda: read_folder(Path()))
    assert message == "'train' cannot be read as a folder: Permission denied"
    (tmp_path / "train").chmod(0o755)
    (tmp_path / "train/b").chmod(0)
    message = pictures.told_to_a_stranger(tmp_path, lambda: read_folder(Path()))
    assert message == "'train/b' cannot be read as a folder: Permission denied"
    (tmp_path / "train/b").chmod(0o744)
    message = pictures.told_to_a_stranger(tmp_path, lambda: load(Path()))
    assert message.startswith("train/b/0.png: Permission denied; mend or remove it (")


@pytest.mark.parametrize(("a", "b"), [(1, 9), (2, 2), (3, 60)])
def test_a_class_with_too_few_images_to_split_is_named(tmp_path, a, b):
    pictures.fill(tmp_path, {"a": a, "b": b})
    message = refused(tmp_path)
    assert "class 'a' has " in message
    assert "too few to draw a share of" in message


def test_sizes_that_differ_ask_for_one(tmp_path):
    pictures.halves(tmp_path, train=20)
    assert load(tmp_path).img_size == 8
    pictures.save(tmp_path / "train/a/wide.png", pictures.noise(8, 12))
    message = refused(tmp_path)
    assert "have not one square size" in message
    assert "--img-size" in message
    assert load(tmp_path, img_size=6).train.images.shape[1:] == (3, 6, 6)


def test_the_hashes_follow_pixels_and_places(tmp_path):
    pictures.fill(tmp_path, {"a": 20, "b": 20})
    first = load(tmp_path)
    again = load(tmp_path)
    assert (again.data_hash, again.split_hash) == (first.data_hash, first.split_hash)
    pictures.save(tmp_path / "a/0.png", pictures.noise(seed=999))
    other_pixels = load(tmp_path)
    assert other_pixels.data_hash != first.data_hash
    assert other_pixels.split_hash == first.split_hash
    pictures.save(tmp_path / "a/more.png")
    other_indices = load(tmp_path)
    assert other_indices.split_hash != first.split_hash


def test_a_moved_folder_is_the_same_data(tmp_path):
    first = load(pictures.halves(tmp_path / "here", train=20))
    (tmp_path / "here").rename(tmp_path / "there")
    second = load(tmp_path / "there")
    assert (second.data_hash, second.split_hash) == (first.data_hash, first.split_hash)


def test_a_message_keeps_to_its_line_whatever_a_folder_is_called(tmp_path):
    for names in (["train\n", "x"], ["a_train\n", "b_test"], ["train", "val", "val\n2"]):
        root = tmp_path / str(len(names[0]))
        pictures.fill(root, {f"{name}/{c}": 1 for name in names for c in "ab"})
        assert refused(root).isprintable()
