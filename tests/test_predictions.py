"""What runs answered, image by image: kept with the run, joined by the report."""

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factories import A, B, D, results_folder, run_row, without_runs
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from small import digits_run, execute

from resnet_variants.analysis.results import load_results
from resnet_variants.records.predictions import (
    Predictions,
    outcomes_parquet,
    read_predictions,
    write_predictions,
)
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.training.augment import Normalise
from resnet_variants.training.device import Machine
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.interrupt import Stop

FILE, TABLE = "predictions.safetensors", "outcomes.parquet"

# --- a run ------------------------------------------------------------------------------------


def accuracy(logits, labels):
    return np.count_nonzero(logits.argmax(1) == labels) / len(labels)


def require_own(path, run, result):
    """The file of a run: its scores from its logits, which are those of its weights."""
    found, data = read_predictions(path), run.load()
    assert (found.run_id, found.split_hash) == (run.id, data.split_hash)
    assert found.classes == data.classes
    assert accuracy(found.test_logits, found.test_labels) == result["test_acc"]
    assert accuracy(found.val_logits, found.val_labels) == result["val_acc"]
    model = run.build(data)
    kept = load_file(path / "model.safetensors")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in kept.items()})
    for split, own in (("test", data.test), ("val", data.val)):
        assert np.array_equal(getattr(found, f"{split}_labels"), own.labels.numpy())
        again = evaluate(model, own, Normalise.of(data, torch.device("cpu")), keep=True).logits
        # bf16 has eight bits.
        close = {"rtol": 0.05, "atol": 0.2} if run.recipe.precision == "bf16" else {"atol": 0.01}
        np.testing.assert_allclose(getattr(found, f"{split}_logits"), again, **close)
    return found


@pytest.mark.parametrize("fields", [{"ema": 0.9}, {"precision": "bf16"}], ids=["ema", "bf16"])
def test_a_run_keeps_the_logits_that_its_scores_come_from(tmp_path, fields):
    run = digits_run(**fields)
    result = execute(run, tmp_path / run.id)
    found = require_own(tmp_path / run.id, run, result)
    assert len(found.test_labels) == result["n_test"] == 599
    assert found.test_labels.dtype == np.uint8
    (entry,) = (tmp_path / run.id).glob(f"*{FILE}*")
    assert entry.stat().st_mode & 0o777 == 0o644


def test_the_best_epochs_answers_are_there_where_an_earlier_process_found_it(tmp_path):
    # Its first epoch is the best.
    run, stop = digits_run(lr=1.5, epochs=3, schedule="onecycle", select="best"), Stop()

    def tell(record):
        stop.signal = signal.SIGTERM if record.epoch == 2 else None

    cut, whole = (tmp_path / name / run.id for name in ("cut", "whole"))
    assert execute(run, cut, hear=tell, stop=stop) is None
    assert execute(run, cut)["best_epoch"] == 1
    require_own(whole, run, execute(run, whole))
    assert (cut / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_a_run_killed_between_its_answers_and_its_result_is_done_again(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    run, path = digits_run(), tmp_path / "killed"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunFolder, "finish", killed)
        execute(run, path)
    answered_then = (path / FILE).read_bytes()
    assert not (path / "result.json").exists()
    assert execute(run, path)["status"] == "done"
    assert (path / FILE).read_bytes() == answered_then


@pytest.mark.slow  # two processes; test_devices trains on two in the default suite
def test_two_devices_keep_every_image_once_and_in_order(tmp_path):
    run = digits_run(epochs=1)  # 599 images, which two do not share evenly
    path = tmp_path / run.id
    result = execute(run, path, Machine(device="cpu", devices=2))
    require_own(path, run, result)


# --- the file ---------------------------------------------------------------------------------


def answers(run_id, predicted, labels, classes=("a", "b", "c"), split_hash="hash"):
    """Those of a network that is quite sure."""
    logits = 4 * np.eye(len(classes), dtype=np.float32)[predicted]
    labels = np.asarray(labels)
    return Predictions(run_id, split_hash, tuple(classes), logits, labels, logits, labels)


HALF = np.float32(1) + np.float32(2**-12)  # becomes 1


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ([1.0, 2.0, -3.0], np.float16),
        ([2.0, 2.0, 1.0], np.float16),  # a tie that was there before
        ([float("nan"), 2.0, 1.0], np.float16),
        ([float("inf"), 2.0, 1.0], np.float16),
        ([1.0, HALF, 0.0], np.float32),  # another class would be the first of the largest
        ([HALF, 1.0, 0.0], np.float32),  # the same, and no longer alone
        ([1e5, 1.0, 0.0], np.float32),  # infinite
        ([1.0, 0.0, -1e5], np.float32),
        ([2e5, 1e5, 0.0], np.float32),
    ],
)
def test_logits_are_halved_where_that_changes_no_answer(tmp_path, row, kind):
    one = answers(tmp_path.name, [0, 1, 2, 1], [0, 1, 2, 2])
    logits = np.array([[9.0, 1.0, 0.0], row, [0.0, 0.5, 0.0], [0.0, 0.0, 3.0]], np.float32)
    write_predictions(tmp_path, dataclasses.replace(one, test_logits=logits))
    found = read_predictions(tmp_path)
    assert found.test_logits.dtype == kind
    assert found.val_logits.dtype == np.float16
    assert np.array_equal(found.test_logits.argmax(1), logits.argmax(1))
    if kind == np.float32:
        assert np.array_equal(found.test_logits, logits)


def test_the_file_is_safetensors_and_says_what_it_is_of(tmp_path):
    write_predictions(tmp_path, answers("run", [0, 2], [0, 1]))
    with safe_open(tmp_path / FILE, framework="np") as file:
        facts = json.loads(file.metadata()["run"])
        assert file.get_tensor("test_predicted").tolist() == [0, 2]
    known = {"format": 1, "run_id": "run", "split_hash": "hash", "classes": ["a", "b", "c"]}
    assert facts == known


def rewritten(file, facts=None, **changes):
    """The same file with other content."""
    with safe_open(file, framework="np") as content:
        metadata = json.loads(content.metadata()["run"]) | (facts or {})
    arrays = {name: a for name, a in (load_file(file) | changes).items() if a is not None}
    save_file(arrays, file, metadata={"run": json.dumps(metadata)})


def cut(file):
    file.write_bytes(file.read_bytes()[:-3])


def piped(file):
    file.unlink()
    os.mkfifo(file)


U8 = np.uint8
DAMAGES = {
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "pipe": piped,
    "no safetensors": lambda file: file.write_bytes(b"\x80\x04junk" * 9),
    "no metadata": lambda file: save_file(load_file(file), file),
    "of another run": lambda file: rewritten(file, {"run_id": "other"}),
    "no class names": lambda file: rewritten(file, {"classes": 3}),
    "no labels": lambda file: rewritten(file, test_labels=None),
    "labels of no class": lambda file: rewritten(file, test_labels=np.full(4, 3, U8)),
    "labels no numbers": lambda file: rewritten(file, test_labels=np.ones(4, np.float32)),
    "too few answers": lambda file: rewritten(file, test_predicted=np.zeros(3, U8)),
    "answers of no class": lambda file: rewritten(file, test_predicted=np.full(4, 7, U8)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, complaint, damage):
    out = answered(tmp_path / "out", {A: [0, 1, 2, 2]})
    (file,) = out.glob(f"runs/*/{FILE}")
    DAMAGES[damage](file)
    with pytest.raises(UserError) as told:
        read_predictions(file.parent)
    assert str(told.value).startswith(f"{file} is damaged (")
    line = complaint("report", out)
    assert f"{file} is damaged (" in line
    assert "delete it, the runs stay valid" in line


FLAT, NARROW = np.zeros((4, 3), np.float16), np.zeros((4, 2), np.float16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_logits": NARROW}, r"test_logits are float16 of shape \(4, 2\)"),
        ({"val_labels": np.zeros(3, U8)}, "val_logits are"),
        ({"test_logits": FLAT}, "test_predicted is not what test_logits say"),
        ({"facts": {"format": 2}}, "has format 2, which a newer version may read"),
    ],
)
def test_what_only_its_reader_looks_at_is_checked_there(tmp_path, changes, message):
    out = answered(tmp_path / "out", {A: [0, 1, 2, 2]})
    (file,) = out.glob(f"runs/*/{FILE}")
    rewritten(file, **changes)
    with pytest.raises(UserError, match=message):
        read_predictions(file.parent)


def test_a_run_of_before_has_none_and_stays_valid(tmp_path):
    out = results_folder(tmp_path / "out", [run_row(A)])
    (folder,) = (out / "runs").iterdir()
    with pytest.raises(UserError, match=f"holds no {FILE}: they were not kept"):
        read_predictions(folder)
    assert joined(out) == b""


# --- the report -------------------------------------------------------------------------------

LABELS = [0, 1, 2, 1]


def answered(out, predicted, *, labels=LABELS, without=(), split_hash="hash", **row):
    """A results folder whose runs gave these answers; some kept none."""
    facts = {"n_test": len(labels), "split_hash": split_hash} | row
    rows = [
        run_row(model, acc=float(np.mean(np.array(own) == labels)), **facts)
        for model, own in predicted.items()
    ]
    more = [run_row(model, acc=0.5) for model in without]
    results_folder(out, [*rows, *more])
    for one, own in zip(rows, predicted.values(), strict=True):
        given = answers(one["run_id"], own, labels, split_hash=split_hash)
        write_predictions(out / "runs" / str(one["run_id"]), given)
    return out


def joined(*folders):
    """Their common table, as bytes."""
    found = load_results(folders)
    return outcomes_parquet(found.outcomes, found.runs)


def columns(table):
    """The answers by model."""
    runs = table.columns.drop(["dataset", "split_hash", "image", "label"])
    return {run_id.split("__")[0]: table[run_id].tolist() for run_id in runs}


def test_the_table_has_a_row_for_each_image_and_a_column_for_each_run(tmp_path):
    out = answered(tmp_path / "out", {A: [0, 1, 2, 2], B: [0, 0, 0, 0]}, without=[D])
    content = joined(out)
    assert joined(out) == content
    table = pd.read_parquet(io.BytesIO(content))
    assert columns(table) == {A: [0, 1, 2, 2], B: [0, 0, 0, 0]}
    assert table["label"].tolist() == LABELS
    assert table["image"].tolist() == [0, 1, 2, 3]
    assert set(table["dataset"]) == {"digits"}
    assert set(table["split_hash"]) == {"hash"}
    assert table.attrs["classes"] == {"digits": {"hash": ["a", "b", "c"]}}
    assert {str(kind) for kind in table.dtypes[3:]} == {"uint8", "UInt8"}


def test_several_data_sets_have_rows_of_their_own(tmp_path):
    one = answered(tmp_path / "one", {A: [0, 1, 2, 2]})
    other = answered(
        tmp_path / "two", {B: [1, 1], A: [0, 0]}, labels=[1, 0], split_hash="h2", dataset="other"
    )
    table = pd.read_parquet(io.BytesIO(joined(one, other)))
    assert table["dataset"].tolist() == ["digits"] * 4 + ["other"] * 2
    assert table["image"].tolist() == [0, 1, 2, 3, 0, 1]
    assert table["label"].tolist() == [*LABELS, 1, 0]
    assert table[f"{A}__digits__2__s0"].dropna().tolist() == [0, 1, 2, 2]
    assert table[f"{B}__other__2__s0"].isna().tolist() == [True] * 4 + [False] * 2
    assert set(table.attrs["classes"]) == {"digits", "other"}


def test_a_folder_without_raw_runs_keeps_its_table(tmp_path, reported):
    copy = without_runs(reported, tmp_path / "clone")
    assert joined(copy) == (reported / TABLE).read_bytes()
    other = answered(tmp_path / "other", {D: [0, 1, 2, 1]}, seed=5)
    table = pd.read_parquet(io.BytesIO(joined(copy, other)))
    assert columns(table) == {A: [0, 1, 2, 2], D: [0, 1, 2, 1]}


@pytest.mark.parametrize("first", [True, False])
def test_of_two_copies_of_a_run_the_one_that_has_answers_gives_them(tmp_path, first):
    full = answered(tmp_path / "full", {A: [0, 1, 2, 2]})
    bare = shutil.copytree(full, tmp_path / "bare")
    next(bare.glob(f"runs/*/{FILE}")).unlink()
    table = joined(*((full, bare) if first else (bare, full)))
    assert columns(pd.read_parquet(io.BytesIO(table))) == {A: [0, 1, 2, 2]}


def altered(change):
    def alter(file):
        table = pd.read_parquet(file)
        names, table = table.attrs, change(table)
        table.attrs = names
        table.to_parquet(file, index=False)

    return alter


RUN_A = f"{A}__digits__2__s0"
TABLE_DAMAGES = {
    "cut": cut,
    "empty": lambda file: file.write_bytes(b""),
    "pipe": piped,
    "no parquet": lambda file: file.write_bytes(b"PAR1" * 99),
    "no names": lambda file: pd.DataFrame({"dataset": ["d"]}).to_parquet(file),
    "a row is gone": altered(lambda t: t.iloc[:3]),
    "rows in another order": altered(lambda t: t.iloc[::-1]),
    "no labels": altered(lambda t: t.drop(columns="label")),
    "labels of no class": altered(lambda t: t.assign(label=9)),
    "answers of no class": altered(lambda t: t.assign(**{RUN_A: 9})),
    "answers no numbers": altered(lambda t: t.assign(**{RUN_A: "x"})),
    "an answer is missing": altered(lambda t: t.assign(**{RUN_A: t[RUN_A].where(t["image"] > 0)})),
    "other answers": altered(lambda t: t.assign(**{RUN_A: t["label"]})),
}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    out = answered(tmp_path_factory.mktemp("reported") / "out", {A: [0, 1, 2, 2]})
    build(out)
    return out


@pytest.mark.parametrize("damage", TABLE_DAMAGES)
def test_a_damaged_table_is_one_line_that_names_it(tmp_path, complaint, reported, damage):
    copy = without_runs(reported, tmp_path / "clone")
    load_results([copy])
    TABLE_DAMAGES[damage](copy / TABLE)
    assert f"{copy / TABLE} is damaged (" in complaint("report", copy)


@pytest.mark.parametrize("name", [FILE, TABLE])
def test_a_file_that_may_not_be_read_is_one_line_that_names_it(
    reported, tmp_path, monkeypatch, name
):
    def forbidden(path, *given):
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return os_open(path, *given)

    os_open = os.open
    out = reported if name == FILE else without_runs(reported, tmp_path / "clone")
    load_results([out])
    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UserError, match=rf"{name} cannot be read: Permission denied$"):
        load_results([out])


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"n_test": 5}, "n_test of .* is 4 here and 5"),
        ({"test_acc": 0.5}, "test_acc of .* is 0.75 here and 0.5"),
        ({"split_hash": "else"}, "split_hash of .* is 'hash' here and 'else'"),
    ],
)
def test_answers_that_the_result_does_not_know_are_refused(tmp_path, result, message):
    out = answered(tmp_path / "out", {A: [0, 1, 2, 2]})
    (file,) = out.glob("runs/*/result.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | result))
    with pytest.raises(UserError, match=rf"{FILE} is damaged \({message}"):
        load_results([out])


@pytest.mark.parametrize("change", [{"labels": [0, 1, 0, 2]}, {"classes": ("a", "b", "z")}])
def test_other_labels_for_the_same_images_are_refused(tmp_path, change):
    predicted = [0, 1, 2, 2]  # three of four, by either labels
    out = answered(tmp_path / "out", {A: predicted, B: predicted})
    folder = next((out / "runs").glob(f"{B}__*"))
    write_predictions(folder, answers(folder.name, predicted, **{"labels": LABELS} | change))
    with pytest.raises(UserError, match=r"other labels for the same images .*report them apart"):
        joined(out)


def test_ten_thousand_images_take_less_than_ten_kilobytes_a_run(tmp_path):
    draws, n = np.random.default_rng(0), 10_000
    labels, easy = draws.integers(0, 10, n), draws.random(n)
    classes = tuple(map(str, range(10)))
    rows = []
    for seed in range(6):
        wrong = easy + draws.normal(0, 0.2, n) < 0.1 + 0.05 * seed
        predicted = np.where(wrong, draws.integers(0, 10, n), labels)
        acc = np.count_nonzero(predicted == labels) / n
        rows.append((run_row(A, seed, acc), predicted))
    out = results_folder(tmp_path / "out", [row for row, _ in rows])
    for row, predicted in rows:
        folder = out / "runs" / row["run_id"]
        write_predictions(folder, answers(row["run_id"], predicted, labels, classes))
    assert len(joined(out)) < 6 * 10_000
