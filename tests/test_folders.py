"""Folders of class folders: which files they hold, by which split and class."""

import os
from pathlib import Path

import numpy as np
import pictures
import pytest

from resnet_variants.data.dataset import load_dataset
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
    "training_set test_set": "train test",
    "TrainImages TestImages": "train test",
    "train valid": "train test",
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
    "names", ["train_station test_track airport", "test_tube_1 test_tube_2", "trains cars"]
)
def test_classes_may_speak_of_trains_and_tests(tmp_path, names):
    pictures.fill(tmp_path, {name: 9 for name in names.split()})
    assert read_folder(tmp_path).classes == tuple(sorted(names.split()))


def test_class_names_that_no_reader_can_tell_apart_are_told_as_such(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    counts = {"train/x": 1, f"train/{composed}": 1, "test/x": 1, f"test/{decomposed}": 1}
    message = refused(pictures.fill(tmp_path / "splits", counts))
    assert f"class '{composed}' is written in two Unicode forms" in message
    assert message.endswith(r"'cafe\u0301' and 'caf\xe9': rename one like the other")
    heap = pictures.fill(tmp_path / "heap", {composed: 9, decomposed: 9})
    assert "is written in two Unicode forms" in refused(heap)


def test_class_names_are_any_text_and_sorted(tmp_path):
    names = [
        "<script>alert(1)<|script",
        "Zebra",
        "a b",
        "b,'\"",
        os.fsdecode(b"caf\xe9"),
        "日本",
        "é",
    ]
    pictures.fill(tmp_path, {f"{split}/{name}": 1 for split in ("train", "test") for name in names})
    source = read_folder(tmp_path)
    assert source.classes == tuple(sorted(names))
    assert [path.split("/")[1] for path in source.paths] == 2 * sorted(names)
    assert source.labels.tolist() == 2 * list(range(len(names)))
    at = source.paths.index(os.fsdecode(b"train/caf\xe9/0.png"))
    assert source.identity(at).startswith(b"train/caf\xe9/")
    assert np.array_equal(source.picture(at), pictures.noise(seed=4))


def test_a_missing_folder_is_named(tmp_path):
    assert "nowhere' cannot be read as a folder: No such file" in refused(tmp_path / "nowhere")
    assert "cannot be read as a folder: Not a" in refused(pictures.text(tmp_path / "file"))
    assert "No such file" in refused("~no-such-user/pictures")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "Too many levels of symbolic links" in refused(tmp_path / "loop")
    assert "File name too long" in refused(tmp_path / ("n" * 256))


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_named(tmp_path, split):
    pictures.halves(tmp_path)
    for path in (tmp_path / split / "b").iterdir():
        path.rename(path.with_suffix(".txt"))
    message = refused(tmp_path)
    assert f"{split}/b' holds no pictures (.txt)" in message
    assert message.endswith("fill or remove it")


LIKE_SPLITS = "which look like splits and not like classes: call them train/ with val/"


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("", "holds 0 class folders; it takes two or more"),
        ("only", "holds 1 class folders; it takes two or more"),
        # The right ones are further inside.
        (
            "pets/train/a pets/train/b pets/test/a",
            "; its class folders seem to be in '{root}/pets':",
        ),
        ("more/images/a more/images/b __MACOSX/more", "seem to be in '{root}/more/images': name"),
        ("train/all/a train/all/b test/all/a", "seem to be in '{root}/train/all': name that, or"),
        ("cat/train cat/test dog/train dog/test", "'{root}/cat' holds test/ and train/: name that"),
        ("train/a train/b", "holds train alone: it takes train/ with val/ or test/"),
        ("val/a val/b test/a test/b", "holds val and test alone"),
        ("train/a val/a valid/a", "holds both val/ and valid/: which is the val split?"),
        ("my_train your_test", f"holds my_train/, your_test/, {LIKE_SPLITS}"),
        (
            "a_train a_test b_train b_test",
            f"holds a_test/, a_train/, b_test/, b_train/, {LIKE_SPLITS}",
        ),
        ("train seg_train seg_test", f"holds seg_test/, seg_train/, train/, {LIKE_SPLITS}"),
        (
            "train/a train/b train/extra val/a val/b test/a test/b",
            "class 'extra' is not in both train and val; every split needs the same classes",
        ),
        (
            "train/a train/b test/a test/b test/extra",
            "class 'extra' is not in both train and test; every split needs the same classes",
        ),
    ],
)
def test_folders_whose_splits_or_classes_are_not_clear_are_refused(tmp_path, folders, message):
    pictures.fill(tmp_path, dict.fromkeys(folders.split(), 9))
    assert message.format(root=tmp_path) in refused(tmp_path)


@pytest.mark.parametrize("link", ["test", "train/c"])
def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path, link):
    pictures.fill(tmp_path, {f"{s}/{c}": 1 for s in ("train", "val") for c in "ab"})
    (tmp_path / link).symlink_to(tmp_path / "nowhere")
    assert f"{tmp_path / link}' is a link to nothing: restore or remove it" in refused(tmp_path)


def test_a_class_may_hold_folders_and_links_but_not_itself(tmp_path):
    pictures.halves(tmp_path)
    pictures.save(tmp_path / "train/a/deep/deeper/x.PNG")
    pictures.save(tmp_path / "elsewhere/y.png")
    (tmp_path / "train/a/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/b").rename(tmp_path / "kept")
    (tmp_path / "train/b").symlink_to(tmp_path / "kept")
    source = read_folder(tmp_path)
    labels = dict(zip(source.paths, source.labels.tolist(), strict=True))
    assert labels["train/a/deep/deeper/x.PNG"] == labels["train/a/more/y.png"] == 0
    assert labels["train/b/0.png"] == 1
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
