"""The files of a results folder: written whole, read back as they were."""

import errno
import json
import os
import socket

import numpy as np
import pandas as pd
import pytest
from factories import A, B, epoch_records, paired_rows, results_folder, run_row

from resnet_variants.records.files import to_json, write_atomically
from resnet_variants.records.results_folder import (
    EPOCH_COLUMNS,
    RUN_COLUMNS,
    planned_runs,
    read_epochs,
    read_runs,
)
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.records.schema import EPOCHS
from resnet_variants.registry import UserError
from resnet_variants.sweeps.experiment import read_toml


def as_tables(out, target):
    """The same results as a clone holds them: runs.csv and epochs.csv, no runs folder."""
    target.mkdir()
    runs = read_runs(out)
    runs.to_csv(target / "runs.csv", index=False)
    read_epochs(out, runs).to_csv(target / "epochs.csv", index=False)
    return target


# --- what cannot be read ------------------------------------------------------------------------


def test_a_run_that_cannot_be_read_is_no_missing_one(tmp_path, monkeypatch):
    out = results_folder(tmp_path, paired_rows({A: [0.8], B: [0.7]}))
    lost = sorted((out / "runs").iterdir())[0]

    def lstat(path):
        if path.parent == lost:
            raise PermissionError(errno.EACCES, "Permission denied")
        return os.lstat(path)

    monkeypatch.setattr(type(out), "lstat", lstat)
    with pytest.raises(UserError, match=f"^{lost} cannot be read: Permission denied$"):
        read_runs(out)


# --- what is no file ----------------------------------------------------------------------------


def pipe(path):
    os.mkfifo(path)


def socket_file(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def loop(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(100)
@pytest.mark.parametrize("make", [pipe, socket_file, loop, device])
@pytest.mark.parametrize("name", ["run.json", "result.json", "epochs.jsonl", "experiment.json"])
def test_only_regular_files_are_read(tmp_path, make, name, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    out = results_folder(tmp_path / "x", paired_rows({A: [0.5]}))
    own = out if name == "experiment.json" else next((out / "runs").iterdir())
    (own / name).unlink(missing_ok=True)
    make(own / name)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\); delete "):
        read_epochs(out, read_runs(out))


@pytest.mark.timeout(100)
@pytest.mark.parametrize("make", [pipe, socket_file, loop, device])
def test_only_regular_files_are_experiments(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.toml")
    with pytest.raises(UserError, match=r"^cannot read '.*x\.toml': "):
        read_toml(tmp_path / "x.toml")


def test_a_link_to_a_file_is_read(tmp_path):
    out = results_folder(tmp_path / "x", paired_rows({A: [0.5]}))
    file = next((out / "runs").iterdir()) / "result.json"
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    assert list(read_runs(out)["status"]) == ["done"]


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    out = results_folder(tmp_path / "x", paired_rows({A: [0.5]}))

    def forbidden(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UserError, match=r"run\.json cannot be read: Permission denied$"):
        read_runs(out)


# --- writing ----------------------------------------------------------------------------------


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.json"
    for text in ("old ", "new, and not ASCII: ä\n"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def _full_disk(_):
    raise OSError("no space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    owner = os if call == "fsync" else type(path)
    monkeypatch.setattr(owner, call, lambda *_: _full_disk(_))
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_is_spelt_out(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "a\ud800b")
    assert path.read_text() == r"a\ud800b"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_json_has_null_for_a_number_that_is_not_finite(value):
    assert json.loads(to_json({"lost": value, "kept": 0.1})) == {"lost": None, "kept": 0.1}


def test_json_has_null_for_such_a_number_at_any_depth():
    nan = float("nan")
    text = to_json({"recipe": {"lr": nan, "sizes": [1, nan]}})
    assert json.loads(text) == {"recipe": {"lr": None, "sizes": [1, None]}}


def test_the_life_of_a_run(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "some_run")
    folder.start({"run_id": "some_run", "seed": 3})
    assert json.loads((folder.path / "run.json").read_text()) == {"run_id": "some_run", "seed": 3}
    assert folder.result() is None
    for record in ({"epoch": 1}, {"epoch": 2}):
        folder.append_epoch(record)
        folder.log(f"epoch {record['epoch']}")
    assert (folder.path / "epochs.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert (folder.path / "log.txt").read_text() == "epoch 1\nepoch 2\n"
    folder.finish({"status": "diverged", "test_acc": float("nan")})
    assert folder.result() == {"status": "diverged", "test_acc": None}


def test_a_new_start_clears_what_an_earlier_attempt_left(tmp_path):
    folder = RunFolder(tmp_path / "some_run")
    folder.start({"seed": 1})
    folder.append_epoch({"epoch": 1})
    folder.finish({"status": "failed"})
    folder.start({"seed": 2})
    assert folder.result() is None
    assert [file.name for file in folder.path.iterdir()] == ["run.json"]


def saved(path, config):
    """A run that was cut off after its state had been saved."""
    folder = RunFolder(path)
    folder.start(config)
    folder.append_epoch({"epoch": 1})
    folder.checkpoint.write_bytes(b"state")
    return folder


def test_a_start_with_a_saved_state_goes_on_and_leaves_it(tmp_path):
    folder = saved(tmp_path / "run", {"seed": 1, "sides": (8, 16), "provenance": "old"})
    folder.start({"seed": 1, "sides": (8, 16), "provenance": "new"})
    assert folder.checkpoint.read_bytes() == b"state"
    assert folder.unfinished()["provenance"] == "old"
    assert (folder.path / "log.txt").read_text() == 'continued: "new"\n'
    assert not (folder.path / "epochs.jsonl").exists()  # the state holds them
    folder.finish({"status": "failed"})
    assert folder.checkpoint.exists()  # --retry-failed goes on from it
    folder.reopen()
    assert folder.result() is None
    folder.finish({"status": "done"})
    assert not folder.checkpoint.exists()
    assert folder.unfinished() == {}


@pytest.mark.parametrize(
    ("config", "change"),
    [
        ({"seed": 2}, "seed was 1, is now 2"),
        ({"seed": 1, "epochs": 3}, "epochs was None, is now 3"),
        ({}, "seed was 1, is now None"),
        ({"seed": [0] * 99}, r"seed was 1, is now \[0(, 0)+, ?\.\.\."),
    ],
)
def test_a_saved_state_is_not_taken_up_by_another_configuration(tmp_path, config, change):
    folder = saved(tmp_path / "run", {"seed": 1})
    with pytest.raises(UserError, match=rf"\({change}\): give --fresh or another --out$") as raised:
        folder.start(config)
    assert str(folder.path) in str(raised.value)
    assert folder.checkpoint.read_bytes() == b"state"
    assert folder.unfinished() == {"seed": 1}


@pytest.mark.parametrize("key", ["split_hash", "data_hash"])
def test_a_run_on_other_images_under_the_same_name_is_refused(tmp_path, key):
    folder, facts = RunFolder(tmp_path / "run"), {"split_hash": "a", "data_hash": "b"}
    folder.start(facts)
    folder.refuse_other_images(facts)
    message = rf"other images \({key} {facts[key]}, now c\): take another --out, or give --fresh"
    with pytest.raises(UserError, match=message):
        folder.refuse_other_images(facts | {key: "c"})


# --- reading ----------------------------------------------------------------------------------


MIXED = (
    run_row(B, 0, 0.8),
    run_row(B, 1, status="failed", error="OSError: a 'quoted', \"named\"\nfile"),
    run_row(A, 0, status="diverged", error="train_loss is nan"),
    run_row(A, 1, status="unfinished", seconds=None),
)


def test_every_run_that_was_started_has_a_row(tmp_path):
    runs = read_runs(results_folder(tmp_path / "out", MIXED))
    assert tuple(runs.columns) == RUN_COLUMNS
    assert runs["status"].tolist() == ["done", "failed", "diverged", "unfinished"]
    assert runs["test_acc"].isna().tolist() == [False, True, True, True]
    assert runs["test_acc"][0] == 0.8
    assert runs["seed"].tolist() == [0, 1, 0, 1]
    assert runs["error"][2] == "train_loss is nan"


def test_rows_follow_the_experiment_and_runs_it_does_not_take_come_last(tmp_path):
    rows = paired_rows({B: [0.8], A: [0.8, 0.9]})
    b0, a0, a1 = (row["run_id"] for row in rows)
    out = results_folder(tmp_path / "out", rows, planned=[a1, "not_started_yet", b0])
    assert read_runs(out)["run_id"].tolist() == [a1, b0, a0]
    assert planned_runs(out) == [a1, "not_started_yet", b0]


def test_without_an_experiment_the_rows_are_in_order_of_their_names(tmp_path):
    out = results_folder(tmp_path / "out", paired_rows({B: [0.8], A: [0.8, 0.9]}))
    (out / "experiment.json").unlink()
    assert read_runs(out)["run_id"].is_monotonic_increasing
    assert planned_runs(out) == []


def test_a_folder_in_which_no_run_has_started_gives_no_rows(tmp_path):
    runs = read_runs(results_folder(tmp_path / "out", [], planned=["later"]))
    assert runs.empty
    assert tuple(runs.columns) == RUN_COLUMNS


@pytest.mark.parametrize("name", ["result.json", "run.json"])
@pytest.mark.parametrize("content", ['{"status": "do', "[1, 2]", "", "\xff"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    path = out / "runs" / row["run_id"] / name
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as raised:
        read_runs(out)
    assert str(path) in str(raised.value)


def test_a_half_written_last_line_is_no_epoch_yet(tmp_path):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    with (out / "runs" / row["run_id"] / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lr": 0.')
    epochs = read_epochs(out, read_runs(out))
    assert epochs["epoch"].tolist() == [1, 2]


def test_a_damaged_epoch_in_the_middle_is_an_error_that_names_the_file(tmp_path):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    path = out / "runs" / row["run_id"] / "epochs.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch" 2}\n{"epoch": 3}\n')
    with pytest.raises(UserError) as raised:
        read_epochs(out, read_runs(out))
    assert str(path) in str(raised.value)


def test_epochs_carry_their_run_and_every_number(tmp_path):
    rows = paired_rows({A: [0.8, 0.9]})
    out = results_folder(tmp_path / "out", rows)
    epochs = read_epochs(out, read_runs(out))
    assert tuple(epochs.columns) == EPOCH_COLUMNS
    expected = [
        {"run_id": row["run_id"], "model": A, "seed": row["seed"]} | record
        for row in rows
        for record in epoch_records(row)
    ]
    assert epochs.to_dict("records") == expected


def test_a_run_without_epochs_has_none(tmp_path):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    (out / "runs" / row["run_id"] / "epochs.jsonl").unlink()
    epochs = read_epochs(out, read_runs(out))
    assert epochs.empty
    assert tuple(epochs.columns) == EPOCH_COLUMNS


# --- tables instead of runs -------------------------------------------------------------------


def test_tables_stand_in_for_the_runs_they_were_made_from(tmp_path):
    awkward = [run_row(A, seed, acc) for seed, acc in enumerate(np.random.default_rng(0).random(9))]
    out = results_folder(tmp_path / "out", [*MIXED[:2], *awkward[2:]])
    clone = as_tables(out, tmp_path / "clone")
    runs = read_runs(out)
    pd.testing.assert_frame_equal(
        read_epochs(clone, read_runs(clone)), read_epochs(out, runs), check_exact=True
    )
    text = ["error"]
    pd.testing.assert_frame_equal(
        read_runs(clone).drop(columns=text), runs.drop(columns=text), check_exact=True
    )


def test_a_run_without_an_error_has_empty_text_there_from_runs_and_from_tables(tmp_path):
    out = results_folder(tmp_path / "out", MIXED[:2])
    for folder in (out, as_tables(out, tmp_path / "clone")):
        assert read_runs(folder)["error"].tolist() == ["", MIXED[1]["error"]]


def test_an_empty_preset_stays_text_and_a_missing_number_stays_missing(tmp_path):
    rows = [run_row("net_free", 0, 0.8), run_row("net_free", 1, status="failed", seconds=None)]
    runs = read_runs(as_tables(results_folder(tmp_path / "out", rows), tmp_path / "clone"))
    assert runs["preset"].tolist() == ["", ""]
    scores = ["test_acc", "test_loss", "val_acc", "train_loss", "images_per_second"]
    for column in (*scores, "seconds", "peak_memory_mb"):
        assert pd.api.types.is_float_dtype(runs[column]), column
        assert runs[column].isna().tolist() == [False, True], column


@pytest.mark.parametrize("column", EPOCH_COLUMNS[4:])
def test_a_missing_number_of_an_epoch_stays_missing(tmp_path, column):
    out = results_folder(tmp_path / "out", [run_row(A)])
    clone = as_tables(out, tmp_path / "clone")
    epochs = read_epochs(out, read_runs(out))
    epochs.loc[0, column] = float("nan")
    epochs.to_csv(clone / "epochs.csv", index=False)
    again = read_epochs(clone, read_runs(clone))[column]
    assert pd.api.types.is_float_dtype(again)
    assert again.isna().tolist() == [True, False]


LATER_EPOCH_COLUMNS = [column.name for column in EPOCHS if column.later]


def test_a_table_from_before_there_were_further_columns_has_no_numbers_there(tmp_path):
    out = results_folder(tmp_path / "out", [run_row(A)])
    clone = as_tables(out, tmp_path / "clone")
    older = pd.read_csv(clone / "epochs.csv").drop(columns=LATER_EPOCH_COLUMNS)
    older.to_csv(clone / "epochs.csv", index=False)
    epochs = read_epochs(clone, read_runs(clone))
    assert tuple(epochs.columns) == EPOCH_COLUMNS
    assert epochs[LATER_EPOCH_COLUMNS].isna().all(axis=None)
    assert epochs["images_per_second"].notna().all()


@pytest.mark.parametrize(("name", "read"), [("runs.csv", read_runs), ("epochs.csv", None)])
def test_a_table_that_lacks_columns_is_refused_by_name(tmp_path, name, read):
    clone = as_tables(results_folder(tmp_path / "out", [run_row(A)]), tmp_path / "clone")
    runs = read_runs(clone)
    lacking = pd.read_csv(clone / name).drop(columns=["seed", "train_loss"])
    lacking.to_csv(clone / name, index=False)
    with pytest.raises(UserError, match="lacks the columns seed, train_loss") as raised:
        read(clone) if read else read_epochs(clone, runs)
    assert str(clone / name) in str(raised.value)


def test_a_folder_with_neither_runs_nor_tables_is_refused_by_name(tmp_path):
    with pytest.raises(UserError) as raised:
        read_runs(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", "{}", "depth is None, not a number"),
        ("result.json", '{"status": "done", "test_acc": "x"}', "test_acc is 'x', not a number"),
        ("result.json", '{"test_acc": 1}', "no status"),
        ("epochs.jsonl", "5\n", "5 is no JSON object"),
        ("epochs.jsonl", '{"epoch": "x"}\n', "epoch is 'x', not a number"),
        ("epochs.jsonl", '{"epoch": 1e400}\n', "epoch is inf, not a number"),
        ("epochs.jsonl", f'{{"epoch": {"9" * 400}}}\n', f"epoch is {'9' * 57}..., not a number"),
    ],
)
def test_a_record_edited_by_hand_is_named_with_its_fault(tmp_path, name, content, reason):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    path = out / "runs" / row["run_id"] / name
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        read_epochs(out, read_runs(out))
    assert str(raised.value) == f"{path} is damaged ({reason}); delete its folder to redo the run"


@pytest.mark.parametrize(
    ("name", "key", "value", "kind"),
    [
        *(("run.json", key, 5, "text") for key in ("model", "order", "block", "device")),
        ("run.json", "preset", ["A"], "text"),
        ("run.json", "macs", 10**400, "number"),
        ("run.json", "depth", float("nan"), "number"),
        ("result.json", "test_acc", float("inf"), "number"),
        ("result.json", "val_acc", "x", "number"),
        ("result.json", "error", 5, "text"),
    ],
)
def test_a_value_of_another_type_or_size_is_named(tmp_path, name, key, value, kind):
    row = run_row(A)
    path = results_folder(tmp_path / "out", [row]) / "runs" / row["run_id"] / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=rf"damaged \({key} is .{{1,60}}, not a {kind}\)"):
        read_runs(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("run.json", "macs", 0), ("run.json", "depth", -1), ("result.json", "test_acc", 91.5)],
)
def test_sizes_below_one_and_scores_that_are_no_shares_are_named(tmp_path, name, key, value):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    path = out / "runs" / row["run_id"] / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=rf"{key} of {row['run_id']} is {value}"):
        read_runs(out)


@pytest.mark.parametrize("name", ["run.json", "epochs.jsonl"])
def test_a_folder_or_endless_brackets_in_place_of_a_record_are_damage(tmp_path, name):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    runs, path = read_runs(out), out / "runs" / row["run_id"] / name
    for spoil in (lambda: path.write_text("[" * 200_000 + "\n"), path.mkdir):
        path.unlink()
        spoil()
        with pytest.raises(UserError, match=rf"{name} is damaged"):
            read_runs(out) if name == "run.json" else read_epochs(out, runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_acc": "much"}, r"test_acc of .*__s0 is much, not a number from 0 to 1"),
        ({"macs": -1}, "macs of .*__s0 is -1, not a whole number from 1"),
        ({"depth": 20.5}, "depth of .*__s0 is 20.5, not a whole number"),
        ({"test_acc": None}, "__s0 is done and has no test_acc"),
        ({"status": "fine"}, "__s0 has none of the statuses done, running"),
        ({"run_id": "mine"}, "mine is no run_id"),
    ],
)
def test_a_table_edited_by_hand_is_refused(tmp_path, change, message):
    clone = as_tables(results_folder(tmp_path / "out", [run_row(A)]), tmp_path / "clone")
    pd.read_csv(clone / "runs.csv").assign(**change).to_csv(clone / "runs.csv", index=False)
    with pytest.raises(UserError, match=message) as raised:
        read_runs(clone)
    assert str(clone / "runs.csv") in str(raised.value)


@pytest.mark.parametrize("content", ['{"runs": 5, "baselines": {}}', '{"runs": []}', "[]", "{"])
def test_a_damaged_experiment_is_not_to_be_mended_by_deleting_the_results(tmp_path, content):
    out = results_folder(tmp_path / "out", [run_row(A)])
    (out / "experiment.json").write_text(content)
    with pytest.raises(UserError, match=r"experiment\.json is damaged .*; delete it and give the"):
        read_runs(out)


def test_a_run_under_another_name_is_refused(tmp_path):
    row = run_row(A)
    out = results_folder(tmp_path / "out", [row])
    (out / "runs" / row["run_id"]).rename(out / "runs" / "net__digits__0__s9")
    with pytest.raises(UserError, match="is not its folder's name"):
        read_runs(out)


@pytest.mark.parametrize("content", ["", "\xff\xfe"])
def test_a_table_that_is_none_is_named(tmp_path, content):
    (tmp_path / "runs.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"runs\.csv is no table: "):
        read_runs(tmp_path)
