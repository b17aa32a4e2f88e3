"""Decoded images that are kept are those of the files as they are now, or none."""

import json
import os
import shutil
from types import SimpleNamespace

import pictures
import pytest
import torch
from factories import no_space
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from resnet_variants.data import dataset as data_module
from resnet_variants.data import kept
from resnet_variants.data.dataset import load_dataset
from resnet_variants.data.folders import FolderSource
from resnet_variants.registry import warn_once
from resnet_variants.settings import Loading

SPLITS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path):
    return pictures.halves(tmp_path / "pictures", train=8, test=3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    warn_once.cache_clear()
    return tmp_path / "caches" / "resnet_variants"


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of the pictures that are decoded."""
    numbers, decode = [], FolderSource.picture
    monkeypatch.setattr(
        FolderSource, "picture", lambda self, i: numbers.append(i) or decode(self, i)
    )
    return numbers


def load(folder, *, img_size=0, crop_pct=1.0, **loading):
    """As a new command would."""
    load_dataset.cache_clear()
    kept.clear_once.cache_clear()
    spec = f"folder:{folder}"
    return load_dataset(spec, img_size=img_size, crop_pct=crop_pct, loading=Loading(**loading))


def content(data):
    splits = {name: getattr(data, name) for name in SPLITS}
    arrays = {n: (s.images.tolist(), s.labels.tolist(), s.workers) for n, s in splits.items()}
    others = (data.classes, data.img_size, data.mean, data.std, data.mirror, data.crop_pct)
    return arrays, others, data.facts, data.account


@pytest.mark.parametrize("fields", [{}, {"img_size": 4}, {"crop_pct": 0.5}])
def test_the_next_command_has_the_same_images_and_decodes_none(folder, decoded, fields):
    first = load(folder, **fields)
    assert decoded
    decoded.clear()
    again = load(folder, **fields)
    assert not decoded
    assert content(again) == content(first)
    assert content(load(folder, **fields, image_cache="off")) == content(first)


def repainted(folder):
    """Other pixels in a file of the same size and time."""
    path = folder / "train" / "a" / "0.bmp"
    before = path.stat()
    Image.fromarray(pictures.noise(seed=999)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replaced(folder):
    shutil.copy2(folder / "train" / "b" / "1.png", folder / "train" / "a" / "1.png")


def added(folder):
    pictures.save(folder / "train" / "a" / "new.png", pictures.noise(seed=77))


def renamed(folder):
    (folder / "train" / "a" / "1.png").rename(folder / "train" / "a" / "zz.png")


def removed(folder):
    (folder / "test" / "b" / "2.png").unlink()


def other_class(folder):
    (folder / "train" / "b" / "1.png").rename(folder / "train" / "a" / "b1.png")


def exchanged(folder):
    one, other = folder / "train" / "a", folder / "train" / "b"
    one.rename(folder / "t")
    other.rename(one)
    (folder / "t").rename(other)


def linked_anew(folder):
    link = folder / "train" / "a" / "1.png"
    link.unlink()
    link.symlink_to(folder / "train" / "b" / "1.png")


CHANGES = (repainted, replaced, added, renamed, removed, other_class, exchanged, linked_anew)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_decoded_anew(folder, decoded, change):
    pictures.save(folder / "train" / "a" / "0.bmp", pictures.noise(seed=9))
    (folder / "train" / "a" / "0.png").unlink()
    before = load(folder)
    change(folder)
    decoded.clear()
    after = load(folder)
    assert decoded
    assert content(after) == content(load(folder, image_cache="off"))
    assert after.data_hash != before.data_hash


def test_files_are_told_apart_that_have_one_size_and_one_time(folder, monkeypatch):
    same, stat = {"st_size": 7, "st_mtime_ns": 8, "st_ctime_ns": 9}, os.stat

    def alike(path, **options):
        found = stat(path, **options)
        if not str(path).endswith(".png"):
            return found
        others = {name: getattr(found, name) for name in ("st_mode", "st_dev", "st_ino")}
        return SimpleNamespace(**same, **others)

    monkeypatch.setattr(os, "stat", alike)
    before = load(folder)
    exchanged(folder)
    after = load(folder)
    assert content(after) == content(load(folder, image_cache="off"))
    assert after.data_hash != before.data_hash


def test_another_size_another_reader_and_another_folder_have_their_own_files(
    folder, cache, tmp_path, monkeypatch
):
    load(folder)
    load(folder, img_size=4)
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(kept, "_decoder", lambda: b"another Pillow")
    load(folder)
    assert len(list(cache.iterdir())) == 3
    load(shutil.copytree(folder, tmp_path / "copy"))
    assert len(list(cache.iterdir())) == 4


def test_off_keeps_nothing_and_clear_keeps_only_the_new(folder, cache):
    load(folder, image_cache="off")
    assert not cache.exists()
    load(folder)
    load(folder, img_size=4)
    own = pictures.placed(cache / "notes.txt")
    own.write_text("not ours")
    load(folder, img_size=6, image_cache="clear")
    assert [path.name for path in sorted(cache.iterdir())][1:] == [own.name]
    assert load(folder, img_size=6).img_size == 6


def test_images_that_are_streamed_or_of_which_some_are_broken_are_not_kept(
    folder, cache, monkeypatch
):
    broken = folder / "train" / "a" / "broken.png"
    broken.write_bytes(b"no picture")
    assert load(folder, img_size=8, on_bad_image="skip").skipped
    broken.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(data_module, "RESIDENT_BYTES", 0)
        load(folder)
    assert not cache.exists()


def flipped(file):
    bytes_ = bytearray(file.read_bytes())
    bytes_[-5] ^= 1
    file.write_bytes(bytes_)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def text(file):
    file.write_text("no images")


def foreign(file):
    save_file({"train_images": torch.zeros(1)}, file, metadata={"facts": "{}", "digest": "0"})


def without_facts(file):
    save_file({"a": torch.zeros(1)}, file)


def parts(file):
    """Metadata and tensors."""
    with safe_open(file, framework="pt") as opened:
        names = sorted(opened.keys())
        return opened.metadata(), {name: opened.get_tensor(name).clone() for name in names}


def of_other_type(file):
    about, tensors = parts(file)
    tensors["val_images"] = tensors["val_images"].view(torch.int8)
    save_file(tensors, file, metadata=about)


def rewritten(change):
    """A file with a right digest of other content."""

    def damage(file):
        about, tensors = parts(file)
        facts = json.loads(about["facts"])
        kept.write(file, tensors, change(tensors, facts) or facts)

    return damage


REWRITTEN = {
    "list": lambda tensors, facts: [1, 2],
    "extra": lambda tensors, facts: facts | {"name": "x"},
    "no mean": lambda tensors, facts: {k: v for k, v in facts.items() if k != "mean"},
    "short mean": lambda tensors, facts: facts | {"mean": [0.5]},
    "size": lambda tensors, facts: facts | {"img_size": 9},
    "no tensor": lambda tensors, facts: tensors.__delitem__("test_images"),
    "labels": lambda tensors, facts: tensors.update(train_labels=tensors["train_labels"] + 50),
    "floats": lambda tensors, facts: tensors.update(val_images=tensors["val_images"].float()),
    "none": lambda tensors, facts: tensors.update(train_images=tensors["train_images"][:0]),
}
DAMAGES = {one.__name__: one for one in (flipped, cut, text, foreign, without_facts, of_other_type)}
DAMAGES |= {name: rewritten(change) for name, change in REWRITTEN.items()}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_line_and_made_anew(folder, cache, caplog, decoded, damage):
    first = content(load(folder))
    (file,) = cache.iterdir()
    damage(file)
    assert content(load(folder)) == first
    (line,) = caplog.messages
    assert line.startswith(f"{file} cannot be used (")
    assert line.endswith("): the images are decoded anew")
    decoded.clear()
    assert content(load(folder)) == first
    assert not decoded
    assert len(caplog.messages) == 1


def test_images_in_use_do_not_change_with_their_file(folder, cache):
    load(folder)
    again = load(folder)
    expected = content(again)
    (file,) = cache.iterdir()
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    assert content(again) == expected
    file.write_bytes(b"")
    assert content(again) == expected


def test_clear_deletes_once_in_a_command(folder, cache):
    load(folder, img_size=5)
    load(folder, img_size=6, image_cache="clear")
    load_dataset.cache_clear()
    spec = f"folder:{folder}"
    load_dataset(spec, img_size=7, loading=Loading(image_cache="clear"))
    assert len(list(cache.iterdir())) == 2


def test_what_another_process_deletes_is_no_trouble(folder, cache, caplog):
    pictures.placed(cache / "gone.safetensors").symlink_to("nowhere")
    load(folder)
    assert not caplog.messages


def test_a_cache_that_cannot_be_written_is_one_line(folder, cache, caplog, monkeypatch):
    expected = content(load(folder, image_cache="off"))
    with monkeypatch.context() as patch:
        patch.setattr(kept, "save_file", no_space)
        assert content(load(folder)) == expected
    assert not list(cache.iterdir())
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    assert content(load(folder)) == expected
    full_disk, no_folder = caplog.messages
    begin = f"decoded images cannot be kept in {cache} ("
    assert full_disk == f"{begin}No space left on device): see --image-cache"
    assert no_folder == f"{begin}File exists): see --image-cache"


def test_a_user_without_a_home_has_no_cache(folder, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setattr(kept.Path, "home", homeless)
    assert len(load(folder).train) > 0


def test_what_was_used_longest_ago_makes_room(folder, cache, monkeypatch):
    made = []
    for age, size in enumerate((4, 5)):
        load(folder, img_size=size)
        made += [file for file in cache.iterdir() if file not in made]
        os.utime(made[-1], (age, age))
    load(folder, img_size=4)  # the older one is used once more
    monkeypatch.setattr(kept, "LIMIT", 2 * made[1].stat().st_size)
    load(folder, img_size=3)
    left = set(cache.iterdir())
    assert (made[0] in left, made[1] in left, len(left)) == (True, False, 2)


def test_the_folder_is_the_users_own(folder, cache):
    load(folder)
    assert cache.stat().st_mode & 0o777 == 0o700
