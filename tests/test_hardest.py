"""The test images that fewest runs get right, and the small pictures of them."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import B, without_runs
from pictures import fill
from PIL import Image
from test_compare import folder

import resnet_variants as rv
from resnet_variants.analysis.images import HARDEST_COLUMNS, MOST, Answers, hardest
from resnet_variants.data.dataset import load_dataset, split_hash, split_indices
from resnet_variants.data.sources import open_source
from resnet_variants.data.thumbnails import thumbnails
from resnet_variants.models.variant import Variant
from resnet_variants.records.pictures import HARDEST, picture_of, picture_text
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build, read
from resnet_variants.reporting.figures.images import hardest_images
from resnet_variants.settings import Loading
from resnet_variants.sweeps.experiment import Experiment, thumbnails_of

CLASSES = ("cat", "dog", "frog")


def answers(labels, *predicted):
    """Of one arm: the answers of each seed."""
    seeds = tuple(range(len(predicted)))
    return Answers(seeds, np.array(labels, np.uint8), np.array(predicted, np.uint8), CLASSES)


def test_the_hardest_are_those_that_fewest_runs_of_all_arms_get_right():
    labels = [0, 0, 1, 1]
    arms = {"a": answers(labels, [0, 1, 2, 0], [0, 1, 2, 1]), "b": answers(labels, [0, 1, 0, 1])}
    rows = [
        (1, "cat", 3, 0.0, "dog", 1.0),  # all agree
        (2, "dog", 3, 0.0, "frog", 2 / 3),
        (3, "dog", 3, 2 / 3, "cat", 1 / 3),
    ]
    expected = pd.DataFrame(rows, columns=[*HARDEST_COLUMNS])
    pd.testing.assert_frame_equal(hardest(arms), expected)


def test_of_equally_hard_images_each_class_has_its_turn():
    labels = np.repeat([0, 1, 2], MOST)
    found = hardest({"a": answers(labels, (labels + 1) % 3)})
    assert found["class"].tolist() == [*CLASSES] * (MOST // 3)
    assert found["image"].tolist()[:4] == [0, MOST, 2 * MOST, 1]


def test_without_answers_or_errors_nothing_is_hard():
    assert hardest({}).empty
    assert hardest({"a": answers([0, 1], [0, 1])}).empty


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("hardest") / "x"
    net = Variant(family="cifar", depth=8)
    rv.run(net, data="digits", seeds=2, epochs=1, device="cpu", out=out, report=False)
    experiment = Experiment(name="x", data="digits", variants=(net,), seeds=2).fitted()
    return build(out, decode=thumbnails_of(experiment))


def kept(out):
    return pd.read_csv(Path(out) / f"{HARDEST}.csv", dtype={"class": str, "answer": str})


def test_a_sweep_shows_the_hardest_images_as_the_data_set_has_them(trained):
    out = trained.report.parent
    table, outcomes = kept(out), pd.read_parquet(out / "outcomes.parquet")
    runs = outcomes.drop(columns=["dataset", "split_hash", "image", "label"])
    right = runs.eq(outcomes["label"], axis=0).mean(axis=1)
    assert table["right"].tolist() == right.sort_values().head(len(table)).tolist()
    assert table["class"].tolist() == outcomes["label"][table["image"]].astype(str).tolist()
    images = load_dataset("digits").test.images
    for image, picture in zip(table["image"], table["picture"], strict=True):
        pixels = np.asarray(picture_of(picture, HARDEST))[..., 0]
        np.testing.assert_array_equal(pixels, images[image, 0].numpy())
    assert (out / "hardest.svg").is_file()
    assert 'aria-label="hardest"' in trained.report.read_text()


def test_a_clone_shows_them_too(trained, tmp_path):
    out = trained.report.parent
    clone = without_runs(out, tmp_path / "clone")
    files = {f"{HARDEST}.csv", f"{HARDEST}.svg"}
    before = {name: (out / name).read_bytes() for name in files}
    build(clone)
    assert {name: (clone / name).read_bytes() for name in files} == before


def test_without_pictures_there_is_the_table_alone(tmp_path):
    out, _ = folder(tmp_path / "x", (B,))
    made = build(out)
    assert kept(out)["picture"].isna().all()
    assert HARDEST not in made.figures


def test_images_that_are_not_at_hand_are_named_in_the_figure(trained):
    (part,) = read(trained.report.parent).comparisons
    (key,) = part.thumbnails
    few = dict([*part.thumbnails[key].items()][:3])
    figure = hardest_images(replace(part, thumbnails={key: few}))
    said = figure.get_suptitle().replace("\n", " ")
    assert f"{len(part.hardest) - 3} of the {len(part.hardest)} hardest are not at hand" in said


def test_pictures_of_other_images_are_not_taken(trained):
    (part,) = read(trained.report.parent).comparisons
    (own,) = part.thumbnails.values()
    other = replace(part, thumbnails={"the hash of other pixels": own})
    assert (other.hardest["picture"] == "").all()


def png(side):
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("picture", ["no base 64", base64.b64encode(b"x").decode(), png(20_000)])
def test_a_damaged_picture_is_one_line(trained, tmp_path, picture, complaint):
    clone = without_runs(trained.report.parent, tmp_path / "clone")
    kept(clone).assign(picture=picture).to_csv(clone / "hardest.csv", index=False)
    said = complaint("report", clone)
    assert "hardest.csv holds a picture that cannot be read: delete it" in said


@pytest.mark.parametrize("content", ["", "image,picture\n1,x\n", "image\n\0", b"\xff\xfe"])
def test_a_damaged_table_is_one_line(trained, tmp_path, content, complaint):
    clone = without_runs(trained.report.parent, tmp_path / "clone")
    content = content if isinstance(content, bytes) else content.encode()
    (clone / "hardest.csv").write_bytes(content)
    assert "hardest.csv is damaged" in complaint("report", clone)


def test_pictures_of_other_splits_or_moved_data_are_refused(caplog):
    with pytest.raises(UserError, match="digits has other splits than"):
        thumbnails("digits", "another", {0: "0"}, Loading())
    gone = Experiment(name="x", data="folder:gone", variants=(Variant(),), seeds=1, img_size=8)
    (run,) = gone.runs
    assert thumbnails_of(gone)("digits", "another", {0: "0"}) == {}
    assert not caplog.records
    assert thumbnails_of(gone)(run.dataset, "another", {0: "0"}) == {}
    (record,) = caplog.records
    assert "the hardest images are not shown: " in record.getMessage()


def test_pictures_of_a_folder_have_the_names_of_their_files(tmp_path):
    fill(tmp_path / "pets", {f"{split}/{name}": 12 for split in ("train", "test") for name in "ab"})
    spec = f"folder:{tmp_path / 'pets'}"
    source = open_source(spec, tmp_path)
    parts = split_indices(source)
    found = thumbnails(spec, split_hash(parts), {0: "a", 23: "b"}, Loading())
    for image, (name, picture) in found.items():
        assert Path(name).parent == tmp_path / "pets" / "test" / ("a" if image == 0 else "b")
        with Image.open(name) as file:
            np.testing.assert_array_equal(picture_of(picture, HARDEST), file.convert("RGB"))


def test_a_large_picture_is_kept_small():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    text = picture_text(pixels)
    assert picture_of(text, HARDEST).size == (160, 160)
    assert len(text) < 40_000
