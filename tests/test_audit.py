"""check-data: what is found wrong with a data set, by path."""

import io

import pictures
import pytest
from PIL import Image

from resnet_variants.data.audit import LEAST_SIDE, audit, near_copies, sketch
from resnet_variants.data.folders import read_folder
from resnet_variants.terminal import cli


@pytest.fixture
def pets(tmp_path):
    """20 cats and 20 dogs to train on, 5 of each to test on, all different."""
    counts = {"train": 20, "test": 5}
    return pictures.fill(
        tmp_path, {f"{s}/{c}": n for s, n in counts.items() for c in ("cat", "dog")}
    )


def checked(capsys, *words):
    status = cli.main(["check-data", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_sound_folder_is_counted_by_split_and_class(pets, capsys):
    status, out, err = checked(capsys, f"folder:{pets}")
    assert (status, err) == (0, "")
    assert "50 images of 2 classes" in out
    for line in ("train       36  cat 18, dog 18", "val          4  cat 2, dog 2"):
        assert line in out
    assert "test        10  cat 5, dog 5" in out
    assert "sizes  8 x 8 to 8 x 8 pixels; most often 8 x 8 (50 images)" in out
    assert out.endswith("all is well\n")


def test_broken_pictures_are_named_in_their_split(pets, capsys):
    (pets / "train" / "cat" / "words.jpg").write_text("words")
    for i in range(25):
        (pets / "test" / "dog" / f"bad{i:02}.jpg").write_text("no picture")
    status, out, _ = checked(capsys, f"folder:{pets}")
    assert status == 1
    assert "test: 25 broken:" in out
    assert f"  {pets}/test/dog/bad00.jpg: " in out
    assert "  and 5 more: --all shows them" in out
    assert "bad24" not in out
    assert "bad24" in checked(capsys, f"folder:{pets}", "--all")[1]
    found = audit(read_folder(pets))
    lines = found.broken["train"] + found.broken["val"]
    assert [str(pets / "train/cat/words.jpg") in line for line in lines] == [True]


def test_equal_pictures_in_two_splits_or_classes_are_found_though_the_files_differ(pets, capsys):
    Image.open(pets / "test/cat/3.png").save(pets / "train/cat/copy.bmp")
    pictures.save(pets / "train/dog/another.png")  # the first cat's pixels
    status, out, _ = checked(capsys, f"folder:{pets}")
    assert status == 1
    assert "1 times the same picture in two splits:" in out
    assert f"  {pets}/train/cat/copy.bmp = {pets}/test/cat/3.png\n" in out
    assert "1 times the same picture in two classes:" in out
    names = {str(pets / "train/cat/0.png"), str(pets / "train/dog/another.png")}
    assert [set(pair) for pair in audit(read_folder(pets)).mislabelled] == [names]


def test_repetition_in_training_is_counted_and_no_fault(pets):
    for name in "abc":
        pictures.save(pets / "train/cat" / f"{name}.png")
    found = audit(read_folder(pets))
    inside = found.repeated + len(found.twice)  # one of them may have been drawn for validation
    assert inside == 3
    assert found.broken == {"train": [], "val": [], "test": []}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "unknown data 'digit'; did you mean 'digits'?"),
        (["folder:/no/such"], "'/no/such' cannot be read as a folder: No such file or directory"),
        (["timm:nope"], "unknown data 'timm:nope'"),
        ([], "missing spec; see --help"),
    ],
)
def test_a_wrong_spec_is_one_line_that_names_no_flag(words, message, capsys):
    status, out, err = checked(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"resnet-variants check-data: {message}")
    assert err.count("\n") == 1


# --- near-copies ------------------------------------------------------------------------------


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file).convert("RGB")


ALTERED = {
    "jpeg": lambda image: saved(image, "jpeg", quality=30),
    "webp": lambda image: saved(image, "webp", quality=30),
    "gif": lambda image: saved(image, "gif"),
    "thumbnail": lambda image: saved(image.resize((40, 32)), "jpeg", quality=75),
    "enlarged": lambda image: image.resize((300, 240)),
    "brighter": lambda image: image.point(lambda value: round(value * 1.15)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.fixture(scope="module")
def strangers():
    return [sketch(pictures.motif(seed)) for seed in range(100, 400)]


@pytest.mark.parametrize("how", ALTERED)
def test_every_altered_copy_is_found_and_nothing_else(strangers, how):
    originals = [pictures.motif(seed) for seed in range(40)]
    others = [sketch(image) for image in originals]
    copies = [sketch(ALTERED[how](image)) for image in originals]
    assert list(near_copies(copies, others)) == [(i, i) for i in range(40)]
    assert list(near_copies(strangers, others)) == []


def test_copies_are_found_among_more_pictures_than_are_compared_at_once():
    others = [sketch(pictures.motif(seed, 32, 32)) for seed in range(2100)]
    held = [sketch(saved(pictures.motif(seed, 32, 32), "jpeg")) for seed in (2099, 7, 1024)]
    assert list(near_copies(held, others)) == [(0, 2099), (1, 7), (2, 1024)]


def test_flat_pictures_and_small_ones_are_not_compared():
    flat = [sketch(Image.new("RGB", (64, 64), (200, 200, level))) for level in range(200, 204)]
    assert list(near_copies(flat, flat)) == []
    assert sketch(Image.new("RGB", (LEAST_SIDE - 1, 100))) is None
    assert list(near_copies([], flat)) == list(near_copies(flat, [])) == []


@pytest.fixture
def leaky(tmp_path):
    """Six pictures of each class in train/, three others in test/, one of them a thumbnail."""
    for number, where in enumerate([*["train"] * 12, *["test"] * 3, *["val"] * 3]):
        for label in "ab":
            image = pictures.motif(100 * number + ord(label))
            pictures.save(tmp_path / where / label / f"{number}.png", image)
    small = Image.open(tmp_path / "test/a/13.png").resize((48, 36))
    pictures.save(tmp_path / "train/a/small.jpg", small, quality=70)
    return tmp_path


def test_a_thumbnail_of_a_test_picture_in_train_is_found(leaky, capsys):
    found = audit(read_folder(leaky))
    assert found.near == [(str(leaky / "train/a/small.jpg"), str(leaky / "test/a/13.png"))]
    assert found.twice == []
    assert cli.main(["check-data", f"folder:{leaky}"]) == 0  # no proof: a person looks at it
    out = capsys.readouterr().out
    assert "1 times two alike pictures in two splits (a thumbnail, another compression?):" in out
    assert out.endswith("look at the pairs that are alike; all else is well\n")
    assert f"  {leaky}/train/a/small.jpg ~ {leaky}/test/a/13.png\n" in out


def test_an_equal_picture_is_named_once(leaky):
    (leaky / "train/a/small.jpg").unlink()
    assert audit(read_folder(leaky)).sound
    pictures.save(leaky / "train/a/same.bmp", Image.open(leaky / "test/a/13.png"))
    found = audit(read_folder(leaky))
    assert (len(found.twice), found.near) == (1, [])
    pictures.save(leaky / "train/b/other.bmp", Image.open(leaky / "test/a/14.png"))
    found = audit(read_folder(leaky))  # of another class, and in another split
    assert (len(found.mislabelled), found.near) == (1, [])
