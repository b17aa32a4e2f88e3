"""What becomes of every file of a folder, and who is told."""

import os

import numpy as np
import pictures
import pytest
from PIL import Image

from resnet_variants.data.folders import read_folder
from resnet_variants.data.sources import open_source
from resnet_variants.models.variant import Variant
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Options
from resnet_variants.terminal import cli
from resnet_variants.terminal.console import show_settings

PLAIN = {"train/a": 20, "train/b": 20, "test/a": 3, "test/b": 3}


@pytest.fixture
def folder(tmp_path):
    return pictures.fill(tmp_path / "pets", PLAIN)


def checked(folder, capsys):
    status = cli.main(["check-data", f"folder:{folder}"])
    return status, capsys.readouterr().out


SYSTEM = (
    *("train/a/@eaDir/0.png", "train/a/.git/x.png", "train/b/.thumbnails/x.png", "train/b/._0.png"),
    *("train/__MACOSX/x.png", "@eaDir/x.png", "#recycle/x.png", "test/b/$RECYCLE.BIN/x.png"),
)


def test_what_systems_put_there_is_no_picture(folder, capsys):
    before, account = read_folder(folder).paths, read_folder(folder).account
    assert account.summary == ["46 files taken: .png 46"]
    assert account.by_folder == account.faults == []
    assert open_source("digits", None).account.summary == []  # no folder was searched
    for name in SYSTEM:
        pictures.save(folder / name)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "0.png:Zone.Identifier"):
        pictures.text(folder / "train/a" / name)
    source = read_folder(folder)
    assert source.paths == before
    assert (
        "train/a: hidden or system files 4, folder .git/ 1, folder @eaDir/ 1"
        in source.account.by_folder
    )
    assert ".: folder #recycle/ 1, folder @eaDir/ 1" in source.account.by_folder
    status, out = checked(folder, capsys)
    assert status == 0
    assert "left out: hidden or system files 5, folder @eaDir/ 2, " in out


KINDS = ("avif", "bmp", "gif", "jp2", "jpe", "JFIF", "mpo", "pgm", "qoi", "tga", "tif", "webp")


@pytest.mark.parametrize("suffix", [*(f".{kind}" for kind in KINDS), ""])
def test_every_kind_that_pillow_decodes_is_taken(folder, suffix):
    path = pictures.save(folder / f"train/a/x{suffix or '.png'}", pictures.noise(40, 40))
    path = path.rename(path.with_suffix(suffix))
    source = read_folder(folder)
    assert str(path.relative_to(folder)) in source.paths
    kind = suffix.lower() or "without suffix"
    assert source.account.summary == [f"47 files taken: .png 46, {kind} 1"]
    assert source.picture(source.paths.index(str(path.relative_to(folder)))).size == (40, 40)


def test_what_is_no_picture_is_left_out_by_its_suffix_or_content(folder):
    before = read_folder(folder).paths
    for name in ("notes.txt", "x.heic", "features.h5", "x.eps", "x.mpg", "LICENSE", "x.png.bak"):
        pictures.text(folder / "train/a" / name)
    pictures.pipe(folder / "train/a/pipe")
    source = read_folder(folder)
    assert source.paths == before
    (line,) = source.account.by_folder
    assert line.startswith("train/a: no suffix, no picture 2, ")
    assert source.account.faults == [line.replace(": ", ": 8 files left out (", 1) + ")"]


def test_more_than_a_few_left_out_of_a_class_are_a_fault(folder, capsys):
    for i in range(3):
        pictures.text(folder / f"train/b/{i}.heic")
    for name in ("README.md", "labels.csv", "LICENSE", "a.txt", "b.txt"):  # beside the classes
        pictures.text(folder / name)
    (folder / "annotations").mkdir()
    status, out = checked(folder, capsys)
    assert status == 0
    assert "left out: .heic 3, .txt 2, " in out
    assert "annotations/ 1" in out
    pictures.text(folder / "train/b/deeper/3.HEIC")
    for i in range(4):
        pictures.save(folder / f"train/{i}.png")
    status, out = checked(folder, capsys)
    assert status == 1
    assert "  train/b: 4 files left out (.heic 4)\n" in out
    assert "  train: 4 files left out (.png of no class 4)\n" in out


def test_a_name_that_breaks_the_line_is_escaped(folder):
    (folder / "train/a/.two\nlines").mkdir()
    pictures.text(folder / "train/a/x.odd\x1bsuffix")
    account = read_folder(folder).account
    assert all(line.isprintable() for line in (*account.summary, *account.by_folder))


def test_bits_that_are_not_in_use_are_told(folder, capsys):
    for number, path in enumerate(folder.rglob("*.png")):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 2**12, (8, 8), np.uint16)).save(path)
    status, out = checked(folder, capsys)
    assert status == 1
    assert "46 pictures of 16 bits that were looked at use 17 of 256 levels: scale" in out
    for path in folder.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) * 16).save(path)
    assert checked(folder, capsys)[0] == 0


def test_run_says_what_it_took(folder, capsys, tmp_path):
    pictures.text(folder / "notes.txt")
    for i in range(5):
        for name in ("train/a", "train/b", "test/a", "test/b"):
            pictures.text(folder / name / f"{i}.heic")
    variant = Variant(depth=20, family="cifar")
    experiment = Experiment(name="x", variants=(variant,), data=f"folder:{folder}", seeds=1)
    show_settings(experiment, tmp_path, Options())
    lines = capsys.readouterr().out.splitlines()
    assert "files      46 files taken: .png 46; left out: .heic 20, .txt 1" in lines
    assert [line for line in lines if line.startswith("mind")] == [
        "mind       test/a: 5 files left out (.heic 5)",
        "mind       test/b: 5 files left out (.heic 5)",
        "mind       train/a: 5 files left out (.heic 5)",
        "mind       and 1 more: check-data lists them",
    ]


def test_a_file_without_suffix_that_may_not_be_read_is_left_to_who_decodes_it(folder, monkeypatch):
    pictures.text(folder / "train/a/secret")
    real = os.stat

    def refused(path, *args, **options):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert "train/a/secret" in read_folder(folder).paths
