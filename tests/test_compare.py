"""Two arms side by side: ``compare`` and ``rv.compare``."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from factories import B, D, as_tables, paired_rows, results_folder
from scipy.stats import binomtest

from resnet_variants import compare, report
from resnet_variants.analysis.statistics import estimate
from resnet_variants.data.dataset import split_hash, split_indices
from resnet_variants.data.sources import open_source
from resnet_variants.records.predictions import Predictions, write_predictions
from resnet_variants.registry import UserError
from resnet_variants.terminal import cli

CLASSES, SEEDS, IMAGES = ("first", "second\n2"), 6, 80
LABELS = np.arange(IMAGES) % 2


def folder(
    out,
    models=(B, D),
    *,
    start=0,
    kept=True,
    seeds=SEEDS,
    labels=LABELS,
    classes=CLASSES,
    **changes,
):
    """A results folder whose runs have answers; D is right a little oftener."""
    draw = np.random.default_rng(start)
    rights = {m: draw.random((seeds, IMAGES)) < 0.7 + 0.1 * (m == D) for m in models}
    row = {"n_test": IMAGES, "split_hash": "h"} | changes
    rows = paired_rows({m: own.mean(axis=1) for m, own in rights.items()}, **row)
    results_folder(out, rows, baselines={m: models[0] for m in models})
    for row, right in zip(rows, itertools.chain(*rights.values()), strict=True):
        answers = np.where(right, labels, (labels + 1) % len(classes))
        logits = np.float32(answers[:, None] == np.arange(len(classes)))
        own = Predictions(row["run_id"], row["split_hash"], classes, logits, labels, logits, labels)
        if kept:
            write_predictions(out / "runs" / row["run_id"], own)
    return out, rights


def run_of(out, model, seed):
    (path,) = (out / "runs").glob(f"{model}__*__s{seed}")
    return path


def printed(capsys, *words):
    assert cli.main(["compare", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_two_arms_of_a_folder(tmp_path, capsys):
    out, rights = folder(tmp_path / "x")
    found = compare(out, B, D)
    settings = found.settings.set_index("setting")
    assert {"model", "stem", "shortcut", "macs"} <= {*settings.index}
    assert not {"order", "dataset", "epochs", "lr", "device"} & {*settings.index}
    own, base = (rights[model].mean(axis=1) for model in (D, B))
    expected = estimate(own - base)
    assert found.accuracy.difference.low == pytest.approx(expected.low)
    assert found.images.low <= expected.low + 1e-12
    both = [(rights[B] & rights[D]).mean(), (rights[B] & ~rights[D]).mean()]
    assert found.flips.iloc[:2].tolist() == pytest.approx(both)
    assert found.flips.sum() == pytest.approx(1)
    assert np.isnan(found.mcnemar_p)
    assert found.classes["images"].tolist() == [40] * 4
    shares = np.abs(rights[B].mean(axis=0) - rights[D].mean(axis=0))
    assert found.apart["image"].iloc[0] == shares.argmax()
    text = printed(capsys, out, "B", "D")
    assert "D against B, on digits at 8 px." in text
    assert f"{100 * expected.mean:+.2f} [" in text
    assert "Test accuracy over 6 pairs of seeds: B " in text
    assert "for new images too" in text


def test_two_runs_are_one_pair_whatever_their_seeds(tmp_path, capsys):
    out, rights = folder(tmp_path / "x")
    paths = run_of(out, B, 1), run_of(out, D, 4)
    found = compare(*paths)
    one, other = rights[B][1], rights[D][4]
    assert found.accuracy.difference.mean == pytest.approx(other.mean() - one.mean())
    only = int((one & ~other).sum()), int((~one & other).sum())
    assert found.mcnemar_p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    text = printed(capsys, *paths)
    assert "D seed 4 against B seed 1" in text
    assert "McNemar's p" in text


def test_two_folders_of_one_arm_each_are_paired_by_the_seeds_that_both_have(tmp_path, capsys):
    one, before = folder(tmp_path / "before", (B,), seeds=6)
    other, after = folder(tmp_path / "after", (B,), seeds=4, start=1)
    found = compare(one, other)
    own, base = after[B], before[B][:4]
    assert found.accuracy.pairs == 4
    assert found.accuracy.difference.mean == pytest.approx(own.mean() - base.mean())
    assert found.first.scores.mean() == pytest.approx(base.mean())
    assert found.flips["only the first right"] == pytest.approx((base & ~own).mean())
    accuracies = found.classes.set_index(["model", "class"])["mean"]
    for number, name in enumerate(CLASSES):
        here = number == LABELS
        assert accuracies["before", name] == pytest.approx(base[:, here].mean())
        assert accuracies["after", name] == pytest.approx(own[:, here].mean())
    assert found.settings.empty
    text = printed(capsys, one, other)
    assert "after against before" in text
    assert "No setting differs." in text
    assert f"over 4 pairs of seeds: before {100 * base.mean():.2f} %" in text
    assert r"| second\n2 |" in text


def test_a_run_and_a_folder_are_paired_by_the_runs_seed(tmp_path):
    one, before = folder(tmp_path / "before", (B,))
    other, after = folder(tmp_path / "after", (B,), start=1)
    found = compare(run_of(one, B, 3), other)
    assert found.first.name == f"{B} seed 3"
    expected = after[B][3].mean() - before[B][3].mean()
    assert found.accuracy.difference.mean == pytest.approx(expected)


def test_folders_of_one_name_are_called_by_their_paths(tmp_path):
    one, other = (folder(tmp_path / name / "x", (B,))[0] for name in ("p", "q"))
    found = compare(one, other)
    assert (found.first.name, found.second.name) == (str(one), str(other))


def test_a_clone_is_compared_by_its_tables(tmp_path, capsys):
    out, _ = folder(tmp_path / "x", kept=False)
    found = compare(as_tables(out, tmp_path / "clone"), B, D)
    assert found.accuracy.pairs == SEEDS
    assert found.images is None
    assert found.classes.empty
    assert found.apart.empty
    text = printed(capsys, tmp_path / "clone", "B", "D")
    assert "Predictions of one side were not kept: no more can be said." in text


def test_arms_of_two_folders_are_named_with_their_folders(tmp_path):
    one, before = folder(tmp_path / "p")
    other, after = folder(tmp_path / "q", start=1)
    found = compare(one, "D", other, D)
    assert (found.first.name, found.second.name) == (f"D in {one}", f"D in {other}")
    expected = after[D].mean() - before[D].mean()
    assert found.accuracy.difference.mean == pytest.approx(expected)


def page_of(out):
    return (out / "compare.html").read_text(encoding="utf-8")


def test_the_page_has_what_the_terminal_shows_and_pictures(tmp_path, capsys):
    source = open_source("digits", tmp_path)
    parts = split_indices(source)
    labels = source.labels[parts["test"][:IMAGES]]
    more = {"labels": labels, "classes": source.classes, "split_hash": split_hash(parts)}
    out, _ = folder(tmp_path / "x", **more)
    for path in (out / "runs").iterdir():
        (path / "epochs.jsonl").write_text('{"epoch": 1, "train_loss": 1.0, "val_acc": 0.5}\n')
    text = printed(capsys, out, "B", "D", "--out", tmp_path / "page")
    assert f"open {tmp_path / 'page' / 'compare.html'}" in text
    page = page_of(tmp_path / "page")
    assert "<h1>D against B</h1>" in page
    (sentence,) = [line for line in text.splitlines() if line.startswith("Test accuracy over")]
    assert sentence in page
    for name in ("training_curves", "classes", "images"):
        assert f'aria-label="{name.replace("_", " ")}"' in page
        assert {f"{name}.png", f"{name}.svg"} <= {
            path.name for path in (tmp_path / "page").iterdir()
        }
    assert "without a picture" not in page
    assert f"resnet_variants.compare {out} B D --out {tmp_path / 'page'}" in page
    table = pd.read_csv(tmp_path / "page" / "images.csv")
    apart = (table["first"] - table["second"]).abs().round(9)
    assert apart.is_monotonic_decreasing
    assert (apart > 0).all()


def test_names_are_text_on_the_page(tmp_path):
    bad = "<b>x"
    one, _ = folder(tmp_path / "p" / bad, (B,))
    other, _ = folder(tmp_path / "q", (B,), start=1)
    compare(one, other, out=tmp_path / "page")
    assert bad not in page_of(tmp_path / "page")
    assert "&lt;b&gt;x" in page_of(tmp_path / "page")


def test_pictures_of_other_images_are_refused(tmp_path):
    parts = split_indices(open_source("digits", tmp_path))
    out, _ = folder(tmp_path / "x", split_hash=split_hash(parts))  # of two classes
    with pytest.raises(UserError, match="digits has other images than the runs were tested on"):
        compare(out, B, D, out=tmp_path / "page", data="digits")


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, _ = folder(tmp_path / "x", dataset="cifar10")
    compare(out, B, D, out="page")
    assert "cifar10 might have to be downloaded" in page_of(tmp_path / "page")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "x"]


def test_runs_are_not_reported_where_a_comparison_is(tmp_path):
    out, _ = folder(tmp_path / "x")
    compare(out, B, D, out=tmp_path / "page")
    before = {path: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    with pytest.raises(UserError, match="holds what `compare` wrote: take another folder"):
        report(out, out=tmp_path / "page")
    assert {path: path.read_bytes() for path in (tmp_path / "page").iterdir()} == before


def test_images_equally_far_apart_are_so_whatever_the_rounding(tmp_path):
    out, rights = folder(tmp_path / "x", seeds=6)
    table = compare(out, B, D).apart
    gaps = np.abs(rights[B].sum(axis=0) - rights[D].sum(axis=0))[table["image"]]
    assert (np.diff(gaps) <= 0).all()
    for gap in set(gaps):  # each class has its turn
        classes = table["class"][gaps == gap].tolist()
        both = 2 * min(map(classes.count, CLASSES))
        assert all(
            {*pair} == {*CLASSES} for pair in zip(classes[:both:2], classes[1:both:2], strict=True)
        )


def test_without_the_images_the_page_says_why_there_are_no_pictures(tmp_path):
    out, _ = folder(tmp_path / "x")
    compare(out, B, D, out=tmp_path / "page")
    assert "Images without a picture: digits has other splits than" in page_of(tmp_path / "page")
    with pytest.raises(UserError, match="digits has other splits than"):
        compare(out, B, D, out=tmp_path / "other", data="digits")
    assert not (tmp_path / "other").exists()


def test_a_page_without_predictions_has_no_classes(tmp_path):
    out, _ = folder(tmp_path / "x", kept=False)
    compare(out, B, D, out=tmp_path / "page")
    assert "Predictions of one side were not kept" in page_of(tmp_path / "page")
    assert {path.name for path in (tmp_path / "page").iterdir()} == {
        *("compare.html", "settings.csv", "training_curves.png", "training_curves.svg"),
        "manifest.json",
    }


def test_a_page_takes_no_place_of_other_files(tmp_path):
    out, _ = folder(tmp_path / "x")
    for place in (out, run_of(out, B, 0)):
        with pytest.raises(UserError, match="has results of its own"):
            compare(out, B, D, out=place)
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "classes.csv").write_text("mine")
    with pytest.raises(UserError, match="would be overwritten"):
        compare(out, B, D, out=tmp_path / "page")
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["classes.csv"]


def test_a_data_set_without_a_page_is_one_line(tmp_path, complaint):
    out, _ = folder(tmp_path / "x")
    said = complaint("compare", out, "B", "D", "--data", "digits")
    assert "--data: it is for the pictures of the page: give --out" in said


def test_arms_without_a_common_seed_are_not_paired(tmp_path):
    one, _ = folder(tmp_path / "one", (B,), seeds=1)
    other, _ = folder(tmp_path / "other", (B,), seeds=3)
    run_of(other, B, 0).joinpath("result.json").unlink()
    with pytest.raises(UserError, match="one and other have no seed in common"):
        compare(one, other)


def test_each_run_has_the_software_that_it_was_trained_with(tmp_path):
    out, _ = folder(tmp_path / "x", (B,))
    for seed in (0, 1):
        file = run_of(out, B, seed) / "run.json"
        content = json.loads(file.read_text())
        content["provenance"] = {"git_commit": f"commit {seed}", "versions": {"torch": "2"}}
        file.write_text(json.dumps(content))
    found = compare(run_of(out, B, 0), run_of(out, B, 1))
    assert found.settings.to_numpy().tolist() == [["git commit", "commit 0", "commit 1"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("x", "name two results folders, two runs, a results folder and two of its arms, or two"),
        ("x B D D B", "name two results folders, two runs"),
        ("x B D D", "no results folder 'D'"),
        ("x B x B", "B is named twice: name something else"),
        ("x B nope", "unknown arm 'nope'; choices: B, D"),
        ("x B B", "B is named twice: name something else"),
        ("y y", "y is named twice"),
        ("x y", "'x' has several arms: name two of its runs, or two arms of B, D"),
        ("nope y", "no results folder 'nope'"),
        ("y z", "y and z were tested on other images: split_hash h and other"),
    ],
)
def test_what_cannot_be_compared_is_one_line(words, message, tmp_path, monkeypatch, complaint):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "x")
    folder(tmp_path / "y", (B,))
    folder(tmp_path / "z", (B,), split_hash="other")
    assert complaint("compare", *words.split()).startswith(f"resnet-variants compare: {message}")


def test_a_run_that_is_not_finished_is_one_line(tmp_path):
    out, _ = folder(tmp_path / "x")
    path = run_of(out, B, 0)
    (path / "result.json").unlink()
    with pytest.raises(UserError, match="is not finished: only finished runs are compared"):
        compare(path, run_of(out, D, 0))
