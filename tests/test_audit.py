"""check-data: what is found wrong with a data set, by path."""

import numpy as np
import pytest
from PIL import Image

from resnet_variants.data.audit import audit
from resnet_variants.data.folders import read_folder
from resnet_variants.terminal import cli


def picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pets(tmp_path):
    """20 cats and 20 dogs to train on, 5 of each to test on, all different."""
    seeds = iter(range(100))
    for split, n in (("train", 20), ("test", 5)):
        for name in ("cat", "dog"):
            for i in range(n):
                picture(tmp_path / split / name / f"{i}.png", next(seeds))
    return tmp_path


def test_a_sound_folder_is_counted_by_split_and_class(pets):
    found = audit(read_folder(pets))
    assert found.sound
    assert {split: dict(counts) for split, counts in found.counts.items()} == {
        "train": {"cat": 18, "dog": 18},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 5, "dog": 5},
    }
    assert found.sizes == {(8, 8): 50}


def test_broken_pictures_are_named_in_their_split(pets):
    (pets / "test" / "dog" / "0.png").write_bytes(b"")
    (pets / "train" / "cat" / "words.jpg").write_text("words")
    found = audit(read_folder(pets))
    assert not found.sound
    assert [str(pets / "test/dog/0.png") in line for line in found.broken["test"]] == [True]
    lines = found.broken["train"] + found.broken["val"]
    assert [str(pets / "train/cat/words.jpg") in line for line in lines] == [True]


def test_what_is_trained_and_tested_on_is_found_though_the_files_differ(pets):
    Image.open(pets / "test/cat/3.png").save(pets / "train/cat/copy.bmp")
    found = audit(read_folder(pets))
    assert found.twice == [(str(pets / "train/cat/copy.bmp"), str(pets / "test/cat/3.png"))]
    assert not found.sound


def test_one_picture_in_two_classes_is_found(pets):
    picture(pets / "train/dog/another.png", 0)  # the first cat's pixels
    found = audit(read_folder(pets))
    names = {str(pets / "train/cat/0.png"), str(pets / "train/dog/another.png")}
    assert [set(pair) for pair in found.mislabelled] == [names]


def test_repetition_in_training_is_counted_and_no_fault(pets):
    for name in "abc":
        picture(pets / "train/cat" / f"{name}.png", 0)
    found = audit(read_folder(pets))
    inside = found.repeated + len(found.twice)  # one of them may have been drawn for validation
    assert inside == 3
    assert found.broken == {"train": [], "val": [], "test": []}


def typed(capsys, *words):
    status = cli.main(["check-data", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_verb_says_what_is_wrong_and_returns_1(pets, capsys):
    for i in range(25):
        (pets / "test" / "dog" / f"bad{i:02}.jpg").write_text("no picture")
    status, out, _ = typed(capsys, f"folder:{pets}")
    assert status == 1
    assert "test: 25 broken:" in out
    assert f"  {pets}/test/dog/bad00.jpg: " in out
    assert "  and 5 more: --all shows them" in out
    assert "bad24" not in out
    assert "bad24" in typed(capsys, f"folder:{pets}", "--all")[1]


def test_the_verb_returns_0_where_all_is_well(pets, capsys):
    status, out, err = typed(capsys, f"folder:{pets}")
    assert (status, err) == (0, "")
    assert "50 images of 2 classes" in out
    assert "8 x 8 to 8 x 8 pixels" in out
    assert out.endswith("all is well\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "unknown data 'digit'; did you mean 'digits'?"),
        (["folder:/no/such"], "'/no/such' cannot be read as a folder: No such file or directory"),
        ([], "missing spec; see --help"),
    ],
)
def test_a_wrong_spec_is_one_line(words, message, capsys):
    status, out, err = typed(capsys, *words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
