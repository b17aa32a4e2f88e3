"""From a results folder to its tables and figures."""

import json
from pathlib import Path

import pandas as pd
import pytest
from factories import D_PRE, A, B, paired_rows, results_folder, run_row
from PIL import Image

from resnet_variants.records import results_folder as records
from resnet_variants.records.manifest import MANIFEST
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import ALWAYS, build

TABLES = {"runs.csv", "runs.parquet", "epochs.csv", "summary.csv", "summary.md", "summary.tex"}
TABLES |= {"effects.csv", "provenance.json", "report.html"}
COSTS = ("accuracy_vs_macs", "accuracy_vs_params", "accuracy_vs_train_time")


def images(*names):
    return {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}


ONE_VARIANT = images(*COSTS, "training_curves")
FIGURES = ONE_VARIANT | images("effects")
PROMISED = [
    "run_id",
    "status",
    "model",
    "preset",
    "family",
    "depth",
    "stem",
    "stem_stride",
    "stride",
    "shortcut",
    "order",
    "dataset",
    "img_size",
    "epochs",
    "seed",
    "params",
    "macs",
    "flops",
    "acts",
    "test_acc",
    "test_loss",
    "val_acc",
    "train_loss",
    "seconds",
    "images_per_second",
    "peak_memory_mb",
    "device",
    "precision",
]
BASELINES = {A: A, B: A, D_PRE: A}
UNSETTLED = (
    run_row(B, 1, status="failed", error="OSError: gone"),
    run_row(D_PRE, 0, status="diverged", error="train_loss is nan"),
    run_row(D_PRE, 1, status="unfinished", seconds=None),
)


def made(out):
    """The files of the report by name, with their bytes."""
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.is_file() and path.name not in ("experiment.json", MANIFEST)
    }


def test_a_report_makes_every_table_and_figure(tmp_path):
    rows = paired_rows({A: [0.8, 0.9], B: [0.7, 0.95], D_PRE: [0.85, 0.86]})
    out = results_folder(tmp_path / "out", rows, baselines=BASELINES)
    report = build(out)
    assert set(made(out)) == TABLES | FIGURES
    assert {path.name for path in report.files} == TABLES | FIGURES
    assert all(path.parent == out for path in report.files)
    assert report.counts == {"done": 6}
    for name in FIGURES:
        if name.endswith("png"):
            with Image.open(out / name) as image:
                assert image.width > 500


def test_the_tables_hold_what_was_measured(tmp_path):
    rows = paired_rows({A: [0.8, 0.9], B: [0.7, 0.95]})
    out = results_folder(tmp_path / "out", rows, baselines=BASELINES)
    report = build(out)
    runs = pd.read_csv(out / "runs.csv")
    assert set(PROMISED) <= set(runs.columns)
    assert runs["test_acc"].tolist() == [0.8, 0.9, 0.7, 0.95]
    assert pd.read_parquet(out / "runs.parquet")["test_acc"].tolist() == [0.8, 0.9, 0.7, 0.95]
    assert len(pd.read_csv(out / "epochs.csv")) == 8
    summary = pd.read_csv(out / "summary.csv").set_index("model")
    assert summary["test_acc_mean"].tolist() == pytest.approx([0.85, 0.825])
    assert summary.loc[B, "baseline"] == A
    assert summary.loc[B, "delta"] == pytest.approx(-0.025)
    assert report.summary["model"].tolist() == [A, B]
    assert "85.00" in (out / "summary.md").read_text()


def test_whole_numbers_are_written_as_such(tmp_path):
    out = results_folder(tmp_path / "out", paired_rows({A: [0.8], B: [0.7]}))
    build(out)
    for name, whole in (
        ("runs.csv", ("depth", "stem_stride", "seed", "macs", "cardinality", "base_width")),
        ("summary.csv", ("depth", "stem_stride", "n", "macs", "cardinality", "base_width")),
    ):
        table = pd.read_csv(out / name, dtype=str)
        for column in whole:
            assert table[column].str.fullmatch(r"\d+").all(), (name, column)


def test_a_second_report_has_the_same_bytes(tmp_path):
    rows = [*paired_rows({A: [0.8, 0.9], B: [0.7]}), *UNSETTLED]
    out = results_folder(tmp_path / "out", rows, baselines=BASELINES)
    build(out)
    first = made(out) | {MANIFEST: (out / MANIFEST).read_bytes()}
    build(out)
    assert made(out) | {MANIFEST: (out / MANIFEST).read_bytes()} == first


def test_the_tables_alone_give_the_same_report(tmp_path):
    rows = [*paired_rows({A: [1 / 3, 0.9], B: [2 / 7]}), *UNSETTLED]
    out = results_folder(tmp_path / "out", rows, baselines=BASELINES)
    build(out)
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("runs.csv", "epochs.csv", "experiment.json", "provenance.json"):
        (clone / name).write_bytes((out / name).read_bytes())
    build(clone)
    original, again = made(out), made(clone)
    assert set(again) == set(original)
    differ = {name for name in original if again[name] != original[name]}
    assert differ <= {"runs.parquet", "report.html"}  # the page has the logs of failed runs
    assert b"trained by hand" in original["report.html"]
    assert b"trained by hand" not in again["report.html"]
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(folder / "runs.parquet") for folder in (out, clone))
    )


def test_unfinished_and_failed_runs_stay_in_the_report(tmp_path):
    rows = [*paired_rows({A: [0.8, 0.9], B: [0.7]}), *UNSETTLED]
    report = build(results_folder(tmp_path / "out", rows, baselines=BASELINES))
    assert report.counts == {"done": 3, "failed": 1, "diverged": 1, "unfinished": 1}
    assert len(report.runs) == 6
    assert report.summary["n"].tolist() == [2, 1, 0]
    assert report.summary["failed"].tolist() == [0, 1, 1]


def test_planned_runs_that_have_not_started_are_counted(tmp_path):
    rows = paired_rows({A: [0.8]})
    planned = [rows[0]["run_id"], "next", "last"]
    report = build(results_folder(tmp_path / "out", rows, planned=planned))
    assert report.counts == {"done": 1, "missing": 2}


def test_runs_that_a_process_has_are_running(tmp_path):
    rows = [*paired_rows({A: [0.8]}), *UNSETTLED]
    begun = next(row["run_id"] for row in rows if row["status"] == "unfinished")
    planned = [*(row["run_id"] for row in rows), "next", "last"]
    out = results_folder(tmp_path / "out", rows, planned=planned)
    with RunFolder(out / "runs" / begun).claim(), RunFolder(out / "runs" / "next").claim():
        report = build(out)
    assert report.counts == {"done": 1, "failed": 1, "diverged": 1, "running": 2, "missing": 1}
    assert report.runs.set_index("run_id").loc[begun, "status"] == "running"
    again = build(out).counts
    assert again == {"done": 1, "failed": 1, "diverged": 1, "unfinished": 1, "missing": 2}


def test_a_run_that_is_started_anew_meanwhile_is_left_out(tmp_path, monkeypatch):
    out = results_folder(tmp_path / "out", paired_rows({A: [0.8, 0.9]}))
    files = sorted((out / "runs").glob("*/run.json"))
    monkeypatch.setattr(Path, "glob", lambda *_: [*files, out / "runs" / "gone" / "run.json"])
    assert len(records.read_runs(out)) == 2


def test_one_seed_is_enough(tmp_path):
    out = results_folder(tmp_path / "out", paired_rows({A: [0.8], B: [0.9]}), baselines=BASELINES)
    build(out)
    assert set(made(out)) == TABLES | FIGURES
    assert "nan" not in (out / "summary.md").read_text()


def test_without_a_done_run_there_are_tables_and_no_figures(tmp_path):
    out = results_folder(tmp_path / "out", UNSETTLED, baselines=BASELINES)
    report = build(out)
    assert set(made(out)) == TABLES == set(ALWAYS)
    assert report.counts == {"failed": 1, "diverged": 1, "unfinished": 1}


def test_a_done_run_whose_epochs_are_gone_still_has_its_score_in_the_report(tmp_path):
    rows = paired_rows({A: [0.8]})
    out = results_folder(tmp_path / "out", rows)
    (out / "runs" / rows[0]["run_id"] / "epochs.jsonl").unlink()
    assert build(out).summary["test_acc_mean"].tolist() == [0.8]
    assert TABLES | {"accuracy_vs_macs.png"} <= set(made(out))


def test_each_data_set_has_its_own_figures(tmp_path):
    rows = [*paired_rows({A: [0.8]}), *paired_rows({A: [0.7]}, dataset="mnist")]
    out = results_folder(tmp_path / "out", rows)
    files = build(out).files
    figures = [path.name for path in files if path.suffix in (".png", ".svg")]
    assert len(figures) == len(set(figures)) == 2 * len(ONE_VARIANT)
    assert sum("mnist" in name for name in figures) == len(ONE_VARIANT)
    assert set(made(out)) == TABLES | set(figures)


@pytest.mark.parametrize("datasets", [("v1.5", "v1.6"), ("folder:a/b", "timm:x/y")])
def test_no_data_set_name_leads_outside_the_folder_or_over_another_figure(tmp_path, datasets):
    rows = [row for name in datasets for row in paired_rows({A: [0.8]}, dataset=name)]
    files = build(results_folder(tmp_path / "out", rows)).files
    assert len(set(files)) == len(files) == len(TABLES) + 2 * len(ONE_VARIANT)
    assert all(path.is_file() and path.parent == tmp_path / "out" for path in files)


def test_a_run_in_progress_is_reported_again_when_it_is_done(tmp_path):
    row = run_row(A, 0, status="unfinished", seconds=None)
    out = results_folder(tmp_path / "out", [row])
    assert build(out).counts == {"unfinished": 1}
    result = {"status": "done", "test_acc": 0.75, "test_loss": 1.0, "seconds": 2.0}
    (out / "runs" / row["run_id"] / "result.json").write_text(json.dumps(result))
    report = build(out)
    assert report.counts == {"done": 1}
    assert report.summary["test_acc_mean"].tolist() == [0.75]


def test_no_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        build(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["empty", "planned"])
def test_a_folder_without_runs_is_an_error_that_names_it(tmp_path, kind):
    out = tmp_path / "some_out"
    out.mkdir() if kind == "empty" else results_folder(out, [], planned=["later"])
    before = sorted(out.rglob("*"))
    with pytest.raises(UserError, match="some_out"):
        build(out)
    assert sorted(out.rglob("*")) == before
