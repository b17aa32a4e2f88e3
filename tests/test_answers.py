"""The test images one by one: new images as a second source of chance, and seeds that differ."""

import dataclasses
import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from factories import A, B, D, comparison, paired_rows, results_folder, runs_frame

from resnet_variants.analysis.images import Answers, by_class, confusion, crossed, difference
from resnet_variants.analysis.probabilities import calibration_errors
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.statistics import estimate
from resnet_variants.api import report
from resnet_variants.records.predictions import (
    Outcome,
    Predictions,
    read_predictions,
    write_predictions,
)
from resnet_variants.registry import UserError
from resnet_variants.reporting.figures.classes import class_accuracies, confusions
from resnet_variants.reporting.findings import notes

CLASSES = ("a", "b", "c")


def drawn(seeds=6, images=400, *, image_sd=0.8, seed_sd=0.2, start=0):
    """Right answers of one arm: (seeds, images)."""
    draw = np.random.default_rng(start)
    common = np.random.default_rng(99).normal(1, 2, images)
    logits = common + draw.normal(0, image_sd, images) + draw.normal(0, seed_sd, (seeds, 1))
    return draw.random((seeds, images)) < 1 / (1 + np.exp(-logits))


# --- two sources of chance --------------------------------------------------------------------


def test_what_is_real_between_seeds_is_the_estimate_of_the_paper():
    """arXiv:2304.01910, equation 3: the mean covariance of the answers for two different images."""
    right = drawn(images=40, seed_sd=2).astype(float)
    covariance = np.cov(right, rowvar=False)
    pairs = [covariance[i, j] for i, j in itertools.permutations(range(40), 2)]
    found = crossed(right > 0)
    assert np.mean(pairs) > 0
    assert found.sd_of_seeds**2 == pytest.approx(np.mean(pairs))
    alone = right.var(axis=0, ddof=1).sum() / 40**2  # that of independent errors
    assert found.sd_of_images**2 == pytest.approx(alone - found.sd_of_seeds**2 / 40)
    seen = right.mean(axis=1).var(ddof=1)
    assert found.sd_of_images**2 + found.sd_of_seeds**2 == pytest.approx(seen)


def test_seeds_that_err_independently_have_no_deviation_of_their_own():
    draw = np.random.default_rng(3)
    right = draw.random((40, 500)) < draw.random(500)
    found = crossed(right)
    assert found.sd_of_images == pytest.approx(right.mean(axis=1).std(ddof=1), rel=0.2)
    assert found.sd_of_seeds < 0.5 * found.sd_of_images


def test_the_interval_for_new_images_is_never_shorter_and_grows_with_their_chance():
    widths = []
    for image_sd in (0.0, 0.5, 1.0, 2.0):
        delta = np.subtract(
            *(drawn(20, image_sd=image_sd, start=s).astype(np.int8) for s in (1, 2)), dtype=np.int8
        )
        both, alone = crossed(delta), estimate(delta.mean(axis=1))
        assert both.mean == pytest.approx(alone.mean)
        assert both.low <= alone.low + 1e-12
        assert both.high >= alone.high - 1e-12
        widths.append((both.high - both.low) / (alone.high - alone.low))
    assert widths[0] < 1.2 < 2 < widths[-1]
    assert widths == sorted(widths)


@pytest.mark.parametrize("shape", [(1, 50), (6, 1)])
def test_one_seed_or_one_image_has_no_interval(shape):
    found = crossed(np.ones(shape, bool))
    assert found.mean == 1
    assert np.isnan([found.low, found.high, found.sd_of_seeds, found.sd_of_images]).all()


def test_an_interval_ends_at_its_limits():
    found = crossed(np.array([[1, 0, 1], [-1, 0, 1]], np.int8), (-1.0, 1.0))
    assert (found.low, found.high) == (-1.0, 1.0)
    assert np.isnan(crossed(np.ones((0, 3), bool)).mean)


def test_answers_that_are_all_alike_have_no_interval():
    assert np.isnan(crossed(np.ones((6, 50), bool)).low)


# --- arms -------------------------------------------------------------------------------------


def answered(rights, **more):
    """A comparison of arms with these answers: {model: (seeds, images)}; B is the baseline."""
    labels = np.arange(next(iter(rights.values())).shape[1]) % len(CLASSES)
    rows = paired_rows(
        {model: right.mean(axis=1) for model, right in rights.items()}, n_test=len(labels)
    )
    every = itertools.chain.from_iterable(rights.values())
    outcomes = {
        row["run_id"]: Outcome(
            None, "h", CLASSES, labels, np.where(right, labels, (labels + 1) % 3)
        )
        for row, right in zip(rows, every, strict=True)
    }
    return comparison(runs_frame(rows), {model: B for model in rights}, outcomes=outcomes, **more)


def test_the_summary_has_both_intervals_and_where_the_deviation_comes_from():
    made = answered({B: drawn(start=1), D: drawn(start=2)})
    base, row = made.summary.to_dict("records")
    expected = crossed(difference(made.answers[D], made.answers[B]))
    assert (row["images_ci_low"], row["images_ci_high"]) == (expected.low, expected.high)
    assert row["images_ci_low"] < row["delta_ci_low"]
    assert expected.mean == pytest.approx(row["delta"])
    assert np.isnan(base["images_ci_low"])
    assert base["sd_of_seeds"] ** 2 + base["sd_of_images"] ** 2 == pytest.approx(
        base["test_acc_sd"] ** 2
    )
    text = " ".join(notes([made], {}))
    wider = (expected.high - expected.low) / (row["delta_ci_high"] - row["delta_ci_low"])
    assert f"intervals of differences are {wider:.2f} times as wide" in text
    assert "Independent errors on the 400 test images of digits would make that" in text


def test_arms_are_compared_over_the_seeds_that_both_have():
    made = answered({B: drawn(seeds=6, start=1), D: drawn(seeds=6, start=2)})
    runs, outcomes = made.runs, dict(made.outcomes)
    lost = runs.loc[(runs["model"] == D) & (runs["seed"] == 2), "run_id"].iloc[0]
    del outcomes[lost]
    fewer = comparison(runs, {D: B}, outcomes=outcomes)
    assert fewer.answers[D].seeds == (0, 1, 3, 4, 5)
    assert difference(fewer.answers[D], fewer.answers[B]).shape == (5, 400)


def test_without_predictions_there_is_no_second_interval():
    made = comparison(runs_frame(paired_rows({A: [0.8, 0.9], B: [0.7, 0.8]})), {A: A, B: A})
    assert made.summary[["images_ci_low", "sd_of_seeds"]].isna().all(axis=None)


# --- classes ----------------------------------------------------------------------------------


def test_accuracy_by_class_is_over_seeds_and_paired_with_the_baseline():
    rights = {B: drawn(start=1), D: drawn(start=2)}
    made = answered(rights)
    table = made.by_class.set_index(["model", "class"])
    assert len(table) == 6
    for at, name in enumerate(CLASSES):
        here = np.arange(400) % 3 == at
        own, base = (rights[model][:, here].mean(axis=1) for model in (D, B))
        row, expected, delta = table.loc[D, name], estimate(own), estimate(own - base)
        assert row["images"] == here.sum()
        assert row["mean"] == pytest.approx(expected.mean)
        assert row["ci_low"] == pytest.approx(expected.low)
        assert (row["baseline"], row["pairs"]) == (B, 6)
        assert row["difference"] == pytest.approx(delta.mean)
        assert row["difference_ci_high"] == pytest.approx(delta.high)
        assert np.isnan(table.loc[(B, name), "difference"])


def test_a_confusion_has_the_answers_to_each_class():
    answers = Answers(
        seeds=(0, 1),
        labels=np.array([0, 0, 1], np.uint8),
        predicted=np.array([[0, 1, 1], [0, 2, 2]], np.uint8),
        classes=CLASSES,
    )
    expected = [[0.5, 0.25, 0.25], [0, 0.5, 0.5], [np.nan] * 3]  # no image is of class c
    assert confusion(answers) == pytest.approx(np.array(expected), nan_ok=True)
    table = by_class({B: answers}, {})
    assert table["class"].tolist() == ["a", "b"]
    assert table["mean"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("classes", [3, 30])
def test_figures_of_classes_show_the_hardest_ones(classes):
    names = tuple(f"class {number}" for number in range(classes))
    labels = np.arange(600) % classes
    draw = np.random.default_rng(0)
    outcomes, rows = {}, paired_rows({B: [0.5] * 3, D: [0.5] * 3})
    for row in rows:  # the first classes are the easiest
        right = draw.random(600) < 1 - labels / classes
        row["test_acc"] = right.mean()
        predicted = np.where(right, labels, (labels + 1) % classes)
        outcomes[row["run_id"]] = Outcome(None, "h", names, labels, predicted)
    made = comparison(runs_frame(rows), {B: B, D: B}, outcomes=outcomes)
    (axes,) = class_accuracies(made).axes
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert len(shown) == min(20, classes)
    assert shown[0] == names[-1]
    best = made.summary.set_index("model")["test_acc_mean"].idxmax()
    panels = [axes for axes in confusions(made).axes if axes.get_title("left")]
    assert [axes.get_title("left") for axes in panels] == [*dict.fromkeys(["B", best[-1].upper()])]
    assert len(panels[0].get_xticks()) == min(20, classes)


def test_without_predictions_there_are_no_classes():
    made = comparison(runs_frame(paired_rows({A: [0.8, 0.9]})), {A: A})
    assert made.by_class.empty
    assert class_accuracies(made) is None
    assert confusions(made) is None


# --- probabilities ----------------------------------------------------------------------------


def folder_with_logits(out, logits, labels):
    """A results folder of runs with these test logits: {model: (seeds, images, classes)}."""
    accuracies = {m: (own.argmax(2) == labels).mean(1) for m, own in logits.items()}
    rows = paired_rows(accuracies, n_test=len(labels), split_hash="h")
    results_folder(out, rows, baselines={B: B, D: B})
    for row, own in zip(rows, itertools.chain(*logits.values()), strict=True):
        kept = Predictions(row["run_id"], "h", CLASSES, own, labels, own[:2], labels[:2])
        write_predictions(out / "runs" / row["run_id"], kept)
    return out


@pytest.fixture
def answering(tmp_path):
    """Four seeds of two arms, one of them three times as confident; rounding changes nothing."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    clear = 1.0 * (labels[:, None] == np.arange(3))
    one = np.float32(np.float16(clear + draw.normal(size=(4, 300, 3))))
    logits = {B: one, D: np.float32(np.float16(3 * one))}
    return folder_with_logits(tmp_path / "out", logits, labels), logits, labels


def test_calibration_is_by_bins_of_confidence(answering):
    out, logits, labels = answering
    (part,) = load_results([out]).comparisons
    errors = calibration_errors(part.calibration).set_index("model")
    for model, own in logits.items():
        each = []
        for one in own:
            shares = torch.softmax(torch.from_numpy(one), 1)
            confidence, answer = (tensor.numpy() for tensor in shares.max(1))
            right, error = answer == labels, 0.0
            for low in np.arange(15) / 15:
                here = (confidence >= low) & (confidence < low + 1 / 15)
                if here.any():
                    error += here.mean() * abs(confidence[here].mean() - right[here].mean())
            each.append(error)
        found = errors.loc[model, ["mean", "ci_low", "ci_high"]].astype(float).tolist()
        expected = estimate(np.array(each))
        assert found == pytest.approx([expected.mean, expected.low, expected.high], abs=1e-6)
    assert errors.loc[D, "confidence"] > errors.loc[B, "confidence"]
    assert errors.loc[D, "accuracy"] == pytest.approx(errors.loc[B, "accuracy"])


def test_an_ensemble_of_one_is_the_mean_and_that_of_all_has_one_accuracy(answering):
    out, logits, labels = answering
    (part,) = load_results([out]).comparisons
    own = part.ensembles[part.ensembles["model"] == B]
    assert own["members"].tolist() == [1, 2, 3, 4]
    assert own["accuracy"].iloc[0] == pytest.approx(part.scores[B].mean())
    assert own["lowest"].iloc[0] == part.scores[B].min()
    together = torch.softmax(torch.from_numpy(logits[B]), 2).mean(0).argmax(1).numpy()
    last = own.iloc[-1][["accuracy", "lowest", "highest"]].astype(float)
    assert last.tolist() == pytest.approx([np.mean(together == labels)] * 3)
    assert own["accuracy"].is_monotonic_increasing


def test_of_many_seeds_some_orders_are_taken_and_one_member_is_still_each_seed(tmp_path):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 40)
    logits = np.float32(labels[:, None] == np.arange(3)) + draw.normal(size=(60, 40, 3))
    own = np.float32(np.float16(logits))
    (part,) = load_results([folder_with_logits(tmp_path / "out", {B: own}, labels)]).comparisons
    alone = (own.argmax(2) == labels).mean(1)
    first = part.ensembles.iloc[0][["accuracy", "lowest", "highest"]].astype(float)
    assert first.tolist() == pytest.approx([alone.mean(), alone.min(), alone.max()])
    assert part.ensembles["members"].tolist() == list(range(1, 21))
    assert part.ensembles["accuracy"].iloc[-1] > alone.mean()


def test_a_clone_keeps_calibration_and_ensembles(answering, tmp_path):
    out, *_ = answering
    made = report(out)
    assert {"calibration.png", "ensembles.png", "classes.png", "confusion.png"} <= {
        file.name for file in made.files
    }
    tables = [(out / f"{name}.csv").read_bytes() for name in ("calibration", "ensembles")]
    shutil.rmtree(out / "runs")
    report(out)
    assert [(out / f"{name}.csv").read_bytes() for name in ("calibration", "ensembles")] == tables
    page = (out / "report.html").read_text()
    assert "Confidence and ensembles" in page
    renamed = pd.read_csv(out / "calibration.csv").assign(model="another")
    renamed.to_csv(out / "calibration.csv", index=False)
    (part,) = load_results([out]).comparisons
    assert set(part.calibration["model"]) == {B, D}  # arms may have other names elsewhere
    fewer = pd.read_csv(out / "ensembles.csv").query(f"model == '{B}' or members < 4")
    fewer.to_csv(out / "ensembles.csv", index=False)
    (part,) = load_results([out]).comparisons
    assert set(part.ensembles["model"]) == {B}  # the other arm's are of other seeds
    (out / "ensembles.csv").write_text("run_id,model\n")
    with pytest.raises(UserError, match=r"ensembles\.csv is damaged \(it lacks the columns seed"):
        report(out)


def test_logits_that_are_not_finite_are_one_line(answering):
    out, _, labels = answering
    folder = next((out / "runs").iterdir())
    kept = read_predictions(folder)
    broken = kept.test_logits.astype(np.float32)
    broken[0, (labels[0] + 1) % 3] = -np.inf
    write_predictions(folder, dataclasses.replace(kept, test_logits=broken))
    with pytest.raises(UserError, match="logits of test images are not all finite"):
        report(out)
