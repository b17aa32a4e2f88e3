"""`predict` and `rv.load_run`: what a finished run says of pictures, and what is refused."""

import csv
import io
import json
import pickle
import shutil

import numpy as np
import pictures
import pytest
import torch
from PIL import Image
from small import digits_run, execute, recipe
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import resnet_variants as rv
from resnet_variants.data.sources import Unlabelled
from resnet_variants.data.splits import Batch
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import load_weights
from resnet_variants.records.files import to_json
from resnet_variants.records.predictions import read_predictions
from resnet_variants.sweeps import finished
from resnet_variants.sweeps.run import Run
from resnet_variants.terminal import cli
from resnet_variants.training.augment import Normalise
from resnet_variants.training.evaluate import evaluate

CPU = torch.device("cpu")


def odd_pictures(folder):
    """Grey, palette, 16 bits, turned by EXIF, transparent, and of several sizes."""
    turned = Image.Exif()
    turned[0x0112] = 6
    rgba = np.dstack([pictures.noise(20, 14), pictures.noise(20, 14, seed=1, channels=1)])
    deep = pictures.noise(18, 25, channels=1).astype(np.uint16) * 257
    pictures.save(folder / "grey.png", pictures.noise(17, 13, channels=1))
    pictures.save(
        folder / "palette.png", Image.fromarray(pictures.noise()).quantize(), transparency=0
    )
    pictures.save(folder / "deep.png", Image.fromarray(deep))
    pictures.save(folder / "turned.png", pictures.noise(12, 30), exif=turned)
    pictures.save(folder / "rgba.png", Image.fromarray(rgba))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of two arms on digits, one of them with two seeds, and a run on PNG files."""
    out, root = (tmp_path_factory.mktemp(name) for name in ("results", "pets"))
    torch.set_num_threads(1)
    runs = [digits_run(0), digits_run(1), digits_run(0, order="preact")]
    pictures.halves(root, train=10, test=3, side=21)
    odd_pictures(root / "test" / "a")
    settings = recipe(batch_size=8, epochs=2, crop_pct=0.9)
    pets = Run(Variant(family="cifar", depth=8), f"folder:{root}", settings, 0, img_size=16)
    for run in runs:
        assert execute(run, out / "runs" / run.id)["status"] == "done"
    assert execute(pets, root / "runs" / pets.id)["status"] == "done"
    experiment = {"question": "?", "runs": [run.id for run in runs], "baselines": {}}
    (out / "experiment.json").write_text(to_json(experiment))
    return {"digits": runs[0], "second": runs[1], "preact": runs[2], "pets": pets} | {
        "out": out,
        "root": root,
    }


def folder_of(trained, name):
    return trained["root" if name == "pets" else "out"] / "runs" / trained[name].id


@pytest.fixture
def digits(trained):
    return folder_of(trained, "digits")


@pytest.fixture
def pets(trained):
    return folder_of(trained, "pets")


def evaluated(run, path):
    """The logits that evaluation gives for the run's test images."""
    data = run.load()
    model = load_weights(run.build(data), path).to(memory_format=torch.channels_last)
    return evaluate(model, data.test, Normalise.of(run.prepared(data), CPU), keep=True).logits


def typed(capsys, *words):
    capsys.readouterr()
    status = cli.main(["predict", *map(str, words)])
    return status, *capsys.readouterr()


def shares(text, classes):
    """Names of pictures, and their probabilities (N, classes) by number of the class."""
    rows = [json.loads(line) for line in text.splitlines()]
    table = torch.full((len(rows), len(classes)), torch.nan)
    for row, line in zip(table, rows, strict=True):
        for n in range(len(classes)):
            end = f"_{n + 1}" if n else ""
            row[classes.index(line[f"class{end}"])] = line[f"probability{end}"]
    return [row["file"] for row in rows], table


def refused(capsys, *words):
    status, out, err = typed(capsys, *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    return line.removeprefix("resnet-variants predict: ")


# --- the same as evaluation -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "pets"])
def test_a_spec_gives_what_evaluation_gives_to_the_last_bit(trained, name, capsys):
    run, path = trained[name], folder_of(trained, name)
    expected, kept = evaluated(run, path), read_predictions(path)
    status, out, err = typed(capsys, path, run.data, "--format", "jsonl", "--top", "99")
    assert (status, err) == (0, "")
    names, found = shares(out, kept.classes)
    assert torch.equal(found, expected.softmax(1))
    assert np.array_equal(found.argmax(1), kept.test_logits.argmax(1))
    assert [json.loads(line)["class"] for line in out.splitlines()] == [
        kept.classes[at] for at in kept.test_logits.argmax(1)
    ]
    assert len(names) == len(kept.test_labels) > 10


def test_files_and_folders_give_what_evaluation_gives_whatever_their_kind(trained, pets, capsys):
    test, run = trained["root"] / "test", rv.load_run(pets, device="cpu")
    files = sorted(path for path in test.rglob("*.png"))
    assert {path.stem for path in files} > {"grey", "palette", "deep", "turned", "rgba"}
    expected = evaluated(trained["pets"], pets).softmax(1)
    assert run.recipe == trained["pets"].recipe
    assert run.metrics == json.loads((pets / "result.json").read_text())
    assert torch.equal(run.predict(files), expected)
    assert torch.equal(run.predict(map(str, files)), expected)
    assert torch.equal(run.predict([Image.open(path) for path in files]), expected)
    for words in ([test], [test / "a", test / "b"], files):
        _, out, _ = typed(capsys, pets, *words, "--format", "jsonl")
        names, found = shares(out, run.classes)
        assert names == [str(path) for path in files]
        assert torch.equal(found, expected)


def test_files_of_grey_pictures_are_those_of_a_grey_network(trained, digits, tmp_path):
    images = trained["digits"].load().test.images[:5, 0].numpy()
    files = [pictures.save(tmp_path / f"{i}.png", image) for i, image in enumerate(images)]
    found = rv.load_run(digits).predict(files)
    expected = evaluated(trained["digits"], digits)[:5].softmax(1)
    torch.testing.assert_close(found, expected)  # a batch of another size rounds otherwise


def test_the_transform_and_the_model_fit_other_code(trained, pets):
    run, test = rv.load_run(pets, device="cpu"), trained["root"] / "test"
    assert (run.run_id, run.classes) == (trained["pets"].id, ("a", "b"))
    assert not run.model.training
    data = trained["pets"].load()
    pixels = next(data.test.batches([Batch(torch.arange(len(data.test)))]))
    own = ImageFolder(str(test), pickle.loads(pickle.dumps(run.transform)), loader=Image.open)
    images, labels = next(iter(DataLoader(own, batch_size=99)))
    assert images.shape == (len(data.test), 3, 16, 16)
    assert torch.equal(labels, data.test.labels)
    assert torch.equal(images, Normalise.of(run.transform, CPU)(pixels))
    with torch.no_grad():
        found = run.model(images).softmax(1)
    torch.testing.assert_close(found, run.predict([path for path, _ in own.samples]))


def test_one_picture_is_one_row_and_none_are_none(trained, pets):
    run, path = rv.load_run(str(pets)), trained["root"] / "test" / "a" / "turned.png"
    one = run.predict(path)
    assert one.shape == (1, 2) and one.dtype == torch.float32
    assert one.sum().item() == pytest.approx(1)
    opened = Image.open(path)
    assert torch.equal(run.predict(opened), one)
    assert torch.equal(run.predict(opened), one)  # it was not closed
    assert torch.equal(run.transform(opened), run.transform(str(path)))
    assert run.predict([]).shape == (0, 2)


def test_the_precision_is_that_of_the_training(trained, digits, tmp_path):
    folder = shutil.copytree(digits, tmp_path / "bf16")
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(config | {"precision": "bf16"}))
    with torch.autocast("cpu", torch.bfloat16):
        expected = evaluated(trained["digits"], digits)[:512].softmax(1)
    images = trained["digits"].load().test.images[:512]
    assert torch.equal(rv.load_run(folder).predict(map(as_image, images)), expected)
    assert not torch.equal(rv.load_run(digits).predict(map(as_image, images)), expected)


def test_neither_images_nor_initial_weights_are_needed(digits, tmp_path):
    started = shutil.copytree(digits, tmp_path / "started")
    run = digits_run(weights=str(started))
    path = tmp_path / "runs" / run.id
    assert execute(run, path)["status"] == "done"
    expected = evaluated(run, path).softmax(1)
    shutil.rmtree(started)
    config = json.loads((path / "run.json").read_text())
    moved = config["provenance"] | {"data": "folder:gone"}
    (path / "run.json").write_text(json.dumps(config | {"provenance": moved}))
    found = rv.load_run(path).predict(map(as_image, run.load().test.images[:512]))
    assert torch.equal(found, expected[:512])


def as_image(pixels):
    return Image.fromarray(pixels[0].numpy())


# --- several seeds ----------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_over_the_seeds_of_an_arm(trained, capsys):
    names = ["digits", "second"]
    each = [evaluated(trained[name], folder_of(trained, name)).softmax(1) for name in names]
    model = trained["digits"].variant.name
    words = [trained["out"], "digits", "--ensemble", "--format", "jsonl", "--top", "10"]
    for arm in (model, "post"):
        status, out, err = typed(capsys, *words, "--arm", arm)
        assert (status, err) == (0, "mean over 2 seeds of post: 0, 1\n")
        found = shares(out, tuple("0123456789"))[1]
        assert torch.equal(found, torch.stack(each).mean(0))
        assert not torch.equal(found, each[0])


def test_an_ensemble_needs_its_arm(trained, capsys):
    words = [trained["out"], "digits", "--ensemble"]
    said = refused(capsys, *words)
    assert said == f"--arm: {str(trained['out'])!r} has several: give one of post, preact"
    said = refused(capsys, *words, "--arm", "pre")
    assert said == "--arm: unknown arm 'pre'; did you mean 'preact'? choices: post, preact"
    assert refused(capsys, *words[:2], "--arm", "post") == "--arm: it is for --ensemble"


# --- what is shown ----------------------------------------------------------------------------


def test_the_three_most_probable_classes_are_shown_or_all(trained, digits, pets, capsys):
    picture = trained["root"] / "test" / "a" / "0.png"
    for path, classes in ((digits, 3), (pets, 2)):
        _, out, _ = typed(capsys, path, picture, "--format", "csv")
        header, row = csv.reader(io.StringIO(out))
        ends = ["", "_2", "_3"][:classes]
        assert header == [
            "file",
            *(f"{name}{e}" for e in ends for name in ("class", "probability")),
        ]
        assert row[0] == str(picture)
        assert sorted(row[2::2], reverse=True) == row[2::2]
        _, table, _ = typed(capsys, path, picture)
        assert table.splitlines()[0].split() == header
        assert table.splitlines()[1].split() == [
            cell if at % 2 or not at else f"{float(cell):.4f}" for at, cell in enumerate(row)
        ]
        _, first, _ = typed(capsys, path, picture, "--format", "jsonl", "--top", "1")
        assert json.loads(first) == {
            "file": row[0],
            "class": row[1],
            "probability": float(row[2]),
        }


def test_a_header_is_written_once(digits, capsys, monkeypatch):
    monkeypatch.setattr(finished, "EVAL_BATCH", 100)
    _, out, _ = typed(capsys, digits, "digits", "--format", "csv")
    assert len(out.splitlines()) == 600
    assert out.count("probability_2") == 1


NAMES = (
    "two words.png",
    "käse, \u732b.png",
    "|<&.png",
    "-leading.png",
    "--top.png",
    "a\u202fb.png",
)


def test_names_may_have_any_letters(pets, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (*NAMES, "two\nlines.png"):
        pictures.save(tmp_path / name)
    given = [*NAMES, "two\nlines.png", "."]
    status, out, err = typed(capsys, pets, "--format", "jsonl", "--", *given)
    assert (status, err) == (0, "")
    assert [json.loads(line)["file"] for line in out.splitlines()] == [
        *given[:-1],
        *sorted(given[:-1]),
    ]
    _, out, _ = typed(capsys, pets, "--format", "csv", "--", *NAMES[:-1])
    assert [row[0] for row in csv.reader(io.StringIO(out))][1:] == [*NAMES[:-1]]
    _, out, _ = typed(capsys, pets, "--", *given)
    assert len(out.splitlines()) == 1 + 2 * len(given[:-1])


def test_pictures_are_read_batch_by_batch(pets, trained, monkeypatch):
    read, files = [], sorted((trained["root"] / "test").rglob("*.png"))

    class Counted(Unlabelled):
        def picture(self, i):
            read.append(i)
            return super().picture(i)

    monkeypatch.setattr(finished, "EVAL_BATCH", 4)
    every = finished.predicted([rv.load_run(pets)], Counted(files, 3), np.arange(len(files)))
    names, _, _ = next(every)
    assert names == [str(path) for path in files[:4]]
    assert sorted(read) == [0, 1, 2, 3]


# --- what cannot be read ----------------------------------------------------------------------


def test_a_broken_picture_is_named_and_the_others_go_on(pets, tmp_path, capsys):
    good = [pictures.save(tmp_path / name) for name in ("a.png", "sub/z.png")]
    pictures.cut_off(tmp_path / "b.png")
    pictures.text(tmp_path / "c.jpg")
    pictures.dangling(tmp_path / "d.png")
    pictures.text(tmp_path / "notes.txt")  # no picture by its name
    status, out, err = typed(capsys, pets, tmp_path, "--format", "jsonl")
    assert status == 1
    names, found = shares(out, ("a", "b"))
    assert names == [str(path) for path in good]
    assert torch.equal(found, rv.load_run(pets).predict(good))
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        str(tmp_path / n) for n in ("b.png", "c.jpg", "d.png")
    ]
    assert "truncated" in lines[0] and "no picture" in lines[1] and "No such file" in lines[2]
    status, out, err = typed(capsys, pets, tmp_path / "notes.txt")
    assert (status, out, err.count("no picture that Pillow can read")) == (1, "", 1)
    with pytest.raises(ValueError, match=r"b.png: .*truncated"):
        rv.load_run(pets).predict([good[0], tmp_path / "b.png", good[1]])


def test_a_folder_without_a_readable_picture_is_refused(pets, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    said = refused(capsys, pets, tmp_path / "empty")
    assert said == f"folder {str(tmp_path / 'empty')!r} holds no pictures (nothing)"
    pictures.text(tmp_path / "texts" / "a.txt")
    assert refused(capsys, pets, tmp_path / "texts").endswith("holds no pictures (.txt)")
    pictures.cut_off(tmp_path / "broken" / "a.png")
    status, out, err = typed(capsys, pets, tmp_path / "broken")
    assert (status, out) == (2, "")
    assert err.splitlines()[1] == "resnet-variants predict: 1 picture, and none can be read"


def test_what_names_no_pictures_is_one_line(trained, digits, pets, tmp_path, capsys):
    assert "'nowhere' is no SPEC (digits, " in refused(capsys, pets, "nowhere")
    assert "no file or folder: File name too long" in refused(capsys, pets, "a" * 300)
    assert "'' is no SPEC" in refused(capsys, pets, "")
    assert refused(capsys, pets, f"folder:{tmp_path / 'gone'}").startswith(
        f"'{tmp_path}/gone' cannot"
    )
    assert refused(capsys, pets).startswith("missing IMAGE")
    assert refused(capsys).startswith("missing run")
    alone = "the SPEC digits is given alone: drop it, or the other words"
    assert refused(capsys, digits, "digits", tmp_path) == alone
    channels = "digits has pictures of 1 channels, and this network takes 3"
    assert refused(capsys, pets, "digits") == channels
    assert (
        refused(capsys, digits, "digits", "--top", "0") == "--top: top 0 must be from 1 to 1000000"
    )
    (tmp_path / "again").symlink_to(tmp_path)
    assert "a link leads to" in refused(capsys, pets, tmp_path)


def test_what_is_no_finished_run_is_one_line(trained, digits, tmp_path, capsys):
    out = trained["out"]
    said = refused(capsys, out, "digits")
    assert said.endswith("is a results folder: name one of its runs, or give --ensemble")
    assert "it has no run.json" in refused(capsys, tmp_path, "digits")
    assert "no results folder" in refused(capsys, tmp_path / "no", "digits", "--ensemble")
    assert "neither a folder of runs" in refused(capsys, digits, "digits", "--ensemble")
    folder = shutil.copytree(digits, tmp_path / "copy")
    config = json.loads((folder / "run.json").read_text())
    for lacking in ("classes", "mean", "img_size"):
        less = {name: value for name, value in config.items() if name != lacking}
        (folder / "run.json").write_text(json.dumps(less))
        assert "run.json is damaged" in refused(capsys, folder, "digits")
    (folder / "result.json").unlink()
    assert "is not finished: only a finished run" in refused(capsys, folder, "digits")


@pytest.mark.parametrize("images", [3, None, b"x", [np.zeros((8, 8))], ["a.png", 3]])
def test_what_is_no_picture_is_one_line(digits, images):
    with pytest.raises(ValueError, match=r"images .* must be a path, a picture of PIL's or a list"):
        rv.load_run(digits).predict(images)
