"""Near-copies: a picture saved again or scaled is told from another one."""

import io

import numpy as np
import pictures
import pytest
from PIL import Image

from resnet_variants.data.audit import audit
from resnet_variants.data.copies import LEAST_SIDE, near_copies, sketch
from resnet_variants.data.folders import read_folder
from resnet_variants.terminal import cli


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


@pytest.mark.parametrize("how", ALTERED)
def test_every_altered_copy_is_found_and_nothing_else(how):
    originals = [pictures.motif(seed) for seed in range(40)]
    others = [sketch(image) for image in originals]
    copies = [sketch(ALTERED[how](image)) for image in originals]
    assert list(near_copies(copies, others)) == [(i, i) for i in range(40)]
    strangers = [sketch(pictures.motif(seed)) for seed in range(100, 400)]
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


def test_a_sketch_is_of_grey_values():
    image = Image.fromarray(np.full((64, 64, 3), 100, np.uint8))
    assert (sketch(image) == 100).all()
    assert sketch(image).shape == (16, 16)
