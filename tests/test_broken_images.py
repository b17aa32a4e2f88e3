"""A broken image of a folder is an error, or left out of training: by name, and never replaced."""

import pictures
import pytest

from resnet_variants.data.dataset import Loading, load_dataset, split_indices
from resnet_variants.data.folders import read_folder
from resnet_variants.data.images import BadImageError

SKIP = Loading(on_bad_image="skip")


def load(root, *, img_size=0, loading=None):
    return load_dataset.__wrapped__(f"folder:{root}", img_size=img_size, loading=loading)


KINDS = [k for k in pictures.BROKEN if not k.startswith("cut off") or k.endswith("png")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_training_image_is_an_error_or_left_out_and_listed(tmp_path, kind):
    whole = load(pictures.fill(tmp_path, {"a": 20, "b": 20}), img_size=8)
    source = read_folder(tmp_path)
    path = tmp_path / source.paths[split_indices(source)["train"][3]]
    path.unlink()
    breaks, _, why = pictures.BROKEN[kind]
    breaks(path)
    with pytest.raises(BadImageError, match=why) as caught:
        load(tmp_path, img_size=8)
    assert pictures.is_one_line(caught.value, path)

    data = load(tmp_path, img_size=8, loading=SKIP)
    assert [len(data.train), len(data.val), len(data.test)] == [22, 3, 14]
    assert data.facts["split_sizes"] == [22, 3, 14]
    assert len(data.skipped) == 1
    assert pictures.is_one_line(data.skipped[0], path)
    assert data.facts["skipped_images"] == list(data.skipped)
    kept = [0, 1, 2, *range(4, 23)]
    assert data.train.images.equal(whole.train.images[kept])
    assert data.train.labels.equal(whole.train.labels[kept])
    assert data.test.images.equal(whole.test.images)
    assert data.split_hash == whole.split_hash
    assert data.data_hash != whole.data_hash


def test_nothing_is_skipped_where_nothing_is_broken(tmp_path):
    pictures.halves(tmp_path, train=20)
    data, skipping = load(tmp_path), load(tmp_path, loading=SKIP)
    assert skipping.skipped == ()
    assert skipping.data_hash == data.data_hash
    assert skipping.split_hash == data.split_hash


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_broken_image_outside_training_is_an_error_even_when_skipping(tmp_path, split):
    pictures.fill(tmp_path, {f"{s}/{c}": 4 for s in ("train", "val", "test") for c in "ab"})
    path = pictures.text(tmp_path / split / "b/2.png")
    with pytest.raises(BadImageError) as caught:
        load(tmp_path, loading=SKIP)
    assert pictures.is_one_line(caught.value, path)


def test_several_broken_images_are_counted(tmp_path):
    pictures.fill(tmp_path, {f"{s}/{c}": 4 for s in ("train", "val", "test") for c in "ab"})
    names = ("a/1.png", "a/2.png", "b/1.png")
    paths = [pictures.empty(tmp_path / "train" / name) for name in names]
    with pytest.raises(BadImageError, match=r"a/1.png: no picture .* [(]2 more like it") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    skipped = load(tmp_path, loading=SKIP).skipped
    assert [text.split(": ")[0] for text in skipped] == list(map(str, paths))


def test_a_class_that_loses_all_its_training_images_is_an_error(tmp_path):
    pictures.fill(tmp_path, {f"{s}/{c}": 2 for s in ("train", "val", "test") for c in "ab"})
    for i in range(2):
        pictures.empty(tmp_path / f"train/b/{i}.png")
    with pytest.raises(BadImageError, match=r"no training image of class 'b' can be read: .*b/0"):
        load(tmp_path, loading=SKIP)
