"""The files of a results folder: written whole, read back as they were."""

import errno
import json
import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pictures
import pytest
from factories import A, B, as_tables, epoch_records, no_space, paired_rows, results_folder, run_row

from resnet_variants.records.files import to_json, write_atomically
from resnet_variants.records.results_folder import (
    EPOCH_COLUMNS,
    planned_runs,
    read_epochs,
    read_runs,
)
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.records.schema import EPOCHS, STEPS, read_table
from resnet_variants.registry import UserError
from resnet_variants.sweeps.experiment import read_toml

# --- what cannot be read ------------------------------------------------------------------------


def forbidden(*_):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_run_that_cannot_be_read_is_no_missing_one(tmp_path, monkeypatch):
    out = results_folder(tmp_path, paired_rows({A: [0.8], B: [0.7]}))
    lost = sorted((out / "runs").iterdir())[0]
    lstat = type(out).lstat
    monkeypatch.setattr(type(out), "lstat", lambda p: forbidden() if p.parent == lost else lstat(p))
    with pytest.raises(UserError, match=f"^{lost} cannot be read: Permission denied$"):
        read_runs(out)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    out = results_folder(tmp_path / "x", paired_rows({A: [0.5]}))
    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UserError, match=r"run\.json cannot be read: Permission denied$"):
        read_runs(out)


# --- what is no file ----------------------------------------------------------------------------


def socket_file(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [pictures.pipe, socket_file, loop, pictures.device, Path.mkdir])
def test_only_regular_files_are_read(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    for name in ("run.json", "result.json", "epochs.jsonl", "experiment.json"):
        out = results_folder(tmp_path / name[:2], paired_rows({A: [0.5]}))
        own = out if name == "experiment.json" else next((out / "runs").iterdir())
        (own / name).unlink()
        make(own / name)
        with pytest.raises(UserError, match=rf"{name} is damaged \(.*\); delete "):
            read_epochs(out, read_runs(out))
    make(tmp_path / "x.toml")
    with pytest.raises(UserError, match=r"^cannot read '.*x\.toml': "):
        read_toml(tmp_path / "x.toml")


def test_a_link_to_a_file_is_read(tmp_path):
    out = results_folder(tmp_path / "x", paired_rows({A: [0.5]}))
    file = next((out / "runs").iterdir()) / "result.json"
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    assert list(read_runs(out)["status"]) == ["done"]


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, owner, call):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    monkeypatch.setattr(owner, call, no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_is_spelt_out(tmp_path):
    write_atomically(tmp_path / "a.txt", "a\ud800b")
    assert (tmp_path / "a.txt").read_text() == r"a\ud800b"


def test_json_has_null_for_a_number_that_is_not_finite():
    nan, inf = float("nan"), float("inf")
    text = to_json({"kept": 0.1, "lost": [nan, inf, -inf, np.float64("nan")], "in": {"lr": nan}})
    assert json.loads(text) == {"kept": 0.1, "lost": [None] * 4, "in": {"lr": None}}


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
    folder = RunFolder(tmp_path / "run")
    folder.start({"seed": 1})
    folder.checkpoint.write_bytes(b"state")
    with pytest.raises(UserError, match=rf"\({change}\): give --fresh or another --out$") as raised:
        folder.start(config)
    assert str(folder.path) in str(raised.value)
    assert folder.checkpoint.read_bytes() == b"state"
    assert folder.unfinished() == {"seed": 1}


# --- reading ----------------------------------------------------------------------------------


MIXED = (
    run_row(B, 0, 0.8),
    run_row(B, 1, status="failed", error="OSError: a 'quoted', \"named\"\nfile"),
    run_row(A, 0, status="diverged", error="train_loss is nan"),
    run_row(A, 1, status="unfinished", seconds=None),
)


def test_rows_follow_the_experiment_and_runs_it_does_not_take_come_last(tmp_path):
    rows = paired_rows({B: [0.8], A: [0.8, 0.9]})
    b0, a0, a1 = (row["run_id"] for row in rows)
    out = results_folder(tmp_path / "out", rows, planned=[a1, "not_started_yet", b0])
    assert read_runs(out)["run_id"].tolist() == [a1, b0, a0]
    assert planned_runs(out) == [a1, "not_started_yet", b0]
    (out / "experiment.json").unlink()  # then in the order of their names
    assert read_runs(out)["run_id"].is_monotonic_increasing
    assert planned_runs(out) == []


def one_run(tmp_path):
    """A results folder, and the folder of the only run in it."""
    out = results_folder(tmp_path / "out", [run_row(A)])
    return out, *(out / "runs").iterdir()


def test_a_half_written_last_line_is_no_epoch_yet(tmp_path):
    out, run = one_run(tmp_path)
    with (run / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lr": 0.')
    assert read_epochs(out, read_runs(out))["epoch"].tolist() == [1, 2]


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


# --- tables instead of runs -------------------------------------------------------------------


def test_tables_stand_in_for_the_runs_they_were_made_from(tmp_path):
    awkward = [run_row(A, seed, acc) for seed, acc in enumerate(np.random.default_rng(0).random(9))]
    out = results_folder(tmp_path / "out", [*MIXED[:2], *awkward[2:]])
    clone = as_tables(out, tmp_path / "clone")
    runs, again = read_runs(out), read_runs(clone)
    assert list(runs["error"][:2]) == list(again["error"][:2]) == ["", MIXED[1]["error"]]
    pd.testing.assert_frame_equal(again, runs, check_exact=True)
    epochs = read_epochs(out, runs)
    pd.testing.assert_frame_equal(read_epochs(clone, again), epochs, check_exact=True)


def test_a_missing_number_of_an_epoch_stays_missing(tmp_path):
    out = results_folder(tmp_path / "out", [run_row(A)])
    clone, numbers = as_tables(out, tmp_path / "clone"), list(EPOCH_COLUMNS[4:])
    epochs = read_epochs(out, read_runs(out))
    epochs.loc[0, numbers] = float("nan")
    epochs.to_csv(clone / "epochs.csv", index=False)
    again = read_epochs(clone, read_runs(clone))
    for column in numbers:
        assert pd.api.types.is_float_dtype(again[column]), column
        assert again[column].isna().tolist() == [True, False], column


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


def test_a_run_from_before_there_was_an_axis_has_the_axis_default(tmp_path):
    out = results_folder(tmp_path / "out", [run_row(A)])
    clone = as_tables(out, tmp_path / "clone")
    pd.read_csv(clone / "runs.csv").drop(columns=["norm", "skip"]).to_csv(clone / "runs.csv")
    (config,) = out.glob("runs/*/run.json")
    record = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in record.items() if k not in ("norm", "skip")}))
    for folder in (out, clone):
        assert read_runs(folder)[["norm", "skip"]].to_numpy().tolist() == [["batch", "identity"]]


@pytest.mark.parametrize("name", ["runs.csv", "epochs.csv"])
def test_a_table_that_lacks_columns_is_refused_by_name(tmp_path, name):
    clone = as_tables(results_folder(tmp_path / "out", [run_row(A)]), tmp_path / "clone")
    lacking = pd.read_csv(clone / name).drop(columns=["seed", "train_loss"])
    lacking.to_csv(clone / name, index=False)
    message = f"^{clone / name} is no table: it lacks the columns seed, train_loss$"
    with pytest.raises(UserError, match=message):
        read_epochs(clone, read_runs(clone))


def test_a_folder_with_neither_runs_nor_tables_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=f"^{tmp_path} holds neither a folder of runs nor runs.csv"):
        read_runs(tmp_path)


# --- damage -----------------------------------------------------------------------------------


def changed(**values):
    """The content of a JSON file with other values."""
    return lambda text: json.dumps(json.loads(text) | values)


def replaced(text):
    return lambda _: text


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("result.json", replaced('{"status": "do'), ""),
        ("run.json", replaced("[1, 2]"), "no JSON object"),
        ("run.json", replaced(""), ""),
        ("result.json", replaced("\xff"), ""),
        ("run.json", replaced("[" * 200_000), ""),
        ("epochs.jsonl", replaced("[" * 200_000 + "\n"), ""),
        ("epochs.jsonl", replaced('{"epoch": 1}\n{"epoch" 2}\n{"epoch": 3}\n'), ""),
        ("epochs.jsonl", replaced('{"epoch": 1\n"lr": 2}\n'), "a line is no JSON object"),
        ("epochs.jsonl", replaced("5\n"), "5 is no JSON object"),
        ("epochs.jsonl", replaced('{"epoch": "x"}\n'), "epoch is 'x', not a number"),
        ("epochs.jsonl", replaced('{"epoch": 1e400}\n'), "epoch is inf, not a number"),
        (
            "epochs.jsonl",
            replaced(f'{{"epoch": {"9" * 400}}}\n'),
            f"epoch is {'9' * 57}..., not a number",
        ),
        ("run.json", replaced("{}"), "depth is None, not a number"),
        ("run.json", changed(model=5), "model is 5, not a text"),
        ("run.json", changed(preset=["A"]), "preset is ['A'], not a text"),
        ("run.json", changed(macs=10**400), f"macs is 1{'0' * 56}..., not a number"),
        ("run.json", changed(depth=float("nan")), "depth is nan, not a number"),
        ("result.json", replaced('{"test_acc": 1}'), "no status"),
        ("result.json", changed(test_acc="x"), "test_acc is 'x', not a number"),
        ("result.json", changed(test_acc=float("inf")), "test_acc is inf, not a number"),
        ("result.json", changed(error=5), "error is 5, not a text"),
    ],
)
def test_a_damaged_record_is_named_with_its_fault(tmp_path, name, change, reason):
    out, run = one_run(tmp_path)
    path = run / name
    path.write_text(change(path.read_text()), encoding="latin-1")
    with pytest.raises(UserError) as raised:
        read_epochs(out, read_runs(out))
    before, after = f"{path} is damaged (", "); delete its folder to redo the run"
    message = str(raised.value)
    assert message == f"{before}{reason}{after}" if reason else message.startswith(before)
    assert message.endswith(after)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("run.json", "macs", 0), ("run.json", "depth", -1), ("result.json", "test_acc", 91.5)],
)
def test_sizes_below_one_and_scores_that_are_no_shares_are_named(tmp_path, name, key, value):
    out, run = one_run(tmp_path)
    path = run / name
    path.write_text(changed(**{key: value})(path.read_text()))
    with pytest.raises(UserError, match=rf"{key} of {run.name} is {value}"):
        read_runs(out)


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


def test_a_folder_in_the_place_of_a_table_is_one_line(tmp_path):
    (tmp_path / "steps.csv").mkdir()
    with pytest.raises(UserError, match=r"^no table: .*[Ii]s a directory"):
        read_table(tmp_path / "steps.csv", STEPS, lambda why: UserError(f"no table: {why}"))
