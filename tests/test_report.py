"""From a results folder to its tables and figures."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from factories import D_PRE, A, B, drawing, paired_rows, results_folder, run_row
from PIL import Image

from resnet_variants.records import results_folder as records
from resnet_variants.records.manifest import MANIFEST
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import ALWAYS, build

TABLES = {"runs.csv", "runs.parquet", "epochs.csv", "summary.csv", "summary.md", "summary.tex"}
TABLES |= {"effects.csv", "provenance.json", "report.html"}


def images(*names):
    return {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}


ONE_VARIANT = images("accuracy_vs_macs", "training_curves")
FIGURES = ONE_VARIANT | images("effects")
PROMISED = """
    run_id status model preset family depth stem stem_stride stride shortcut order
    dataset img_size epochs seed params macs flops acts test_acc test_loss val_acc train_loss
    seconds images_per_second peak_memory_mb device precision
"""
BASELINES = {A: A, B: A, D_PRE: A}
SCORES = {A: [1 / 3, 0.9], B: [0.7, 0.95]}
UNSETTLED = (
    run_row(B, 2, status="failed", error="OSError: gone"),
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


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The report of runs that are done, failed, diverged and unfinished."""
    rows = [*paired_rows(SCORES), *UNSETTLED]
    out = results_folder(tmp_path_factory.mktemp("a") / "out", rows, baselines=BASELINES)
    with drawing():
        return build(out)


@pytest.fixture(scope="module")
def out(reported):
    return reported.files[0].parent


def test_a_report_makes_every_table_and_figure(reported, out):
    every = TABLES | FIGURES | {"endpoints.csv"}
    assert set(made(out)) == {path.name for path in reported.files} == every
    assert all(path.parent == out for path in reported.files)
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 500
    # No network has a second depth, and none was diagnosed.
    assert not re.search('id="(depths|diagnosis)"', (out / "report.html").read_text())


def test_every_link_of_the_page_leads_to_a_file(out):
    page = (out / "report.html").read_text(encoding="utf-8").partition("<script")[0]
    links = re.findall(r'href="(?!#|data:)(.*?)"', page)
    assert {"summary.tex", "accuracy_vs_macs.png"} <= {*links}
    assert any(re.fullmatch("runs/[^/]+/", link) for link in links)
    assert [link for link in links if not (out / unquote(link)).exists()] == []


def test_the_tables_hold_what_was_measured(out):
    for runs in (pd.read_csv(out / "runs.csv"), pd.read_parquet(out / "runs.parquet")):
        assert set(PROMISED.split()) <= set(runs.columns)
        assert runs["test_acc"].dropna().tolist() == [*SCORES[A], *SCORES[B]]
    assert len(pd.read_csv(out / "epochs.csv")) == 14
    summary = pd.read_csv(out / "summary.csv").set_index("model")
    assert summary["test_acc_mean"].tolist()[:2] == pytest.approx([(1 / 3 + 0.9) / 2, 0.825])
    assert summary.loc[B, "baseline"] == A
    assert summary.loc[B, "delta"] == pytest.approx(0.825 - (1 / 3 + 0.9) / 2)
    assert "82.50" in (out / "summary.md").read_text()


@pytest.mark.parametrize(("table", "own"), [("runs", "seed"), ("summary", "n")])
def test_whole_numbers_are_written_as_such(out, table, own):
    found = pd.read_csv(out / f"{table}.csv", dtype=str)
    for column in ("depth", "stem_stride", "macs", "cardinality", "base_width", own):
        assert found[column].str.fullmatch(r"\d+").all(), column


def test_unfinished_and_failed_runs_stay_in_the_report(reported):
    assert reported.counts == {"done": 4, "failed": 1, "diverged": 1, "unfinished": 1}
    assert len(reported.runs) == 7
    assert reported.summary["model"].tolist() == [A, B, D_PRE]
    assert reported.summary["n"].tolist() == [2, 2, 0]
    assert reported.summary["failed"].tolist() == [0, 1, 1]


def test_a_second_report_has_the_same_bytes(out, drawn):
    first = made(out) | {MANIFEST: (out / MANIFEST).read_bytes()}
    build(out)
    assert made(out) | {MANIFEST: (out / MANIFEST).read_bytes()} == first


def test_the_tables_alone_give_the_same_report(out, tmp_path, drawn):
    clone = tmp_path / out.name
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


def test_runs_that_a_process_has_are_running_and_planned_ones_missing(tmp_path):
    begun = UNSETTLED[-1]["run_id"]
    planned = [*(row["run_id"] for row in UNSETTLED), "next", "last"]
    out = results_folder(tmp_path / "out", UNSETTLED, planned=planned)
    with RunFolder(out / "runs" / begun).claim(), RunFolder(out / "runs" / "next").claim():
        report = build(out)
    assert report.counts == {"failed": 1, "diverged": 1, "running": 2, "missing": 1}
    assert report.runs.set_index("run_id").loc[begun, "status"] == "running"
    again = build(out).counts
    assert again == {"failed": 1, "diverged": 1, "unfinished": 1, "missing": 2}


def test_a_run_that_is_started_anew_meanwhile_is_left_out(tmp_path, monkeypatch):
    out = results_folder(tmp_path / "out", paired_rows({A: [0.8, 0.9]}))
    files = sorted((out / "runs").glob("*/run.json"))
    monkeypatch.setattr(Path, "glob", lambda *_: [*files, out / "runs" / "gone" / "run.json"])
    assert len(records.read_runs(out)) == 2


def test_a_run_in_progress_is_reported_again_when_it_is_done(tmp_path):
    row = run_row(A, 0, status="unfinished", seconds=None)
    out = results_folder(tmp_path / "out", [row])
    assert build(out).counts == {"unfinished": 1}
    assert set(made(out)) == TABLES == set(ALWAYS)  # no figures
    result = {"status": "done", "test_acc": 0.75, "test_loss": 1.0, "seconds": 2.0}
    (out / "runs" / row["run_id"] / "result.json").write_text(json.dumps(result))
    report = build(out)
    assert report.counts == {"done": 1}
    assert report.summary["test_acc_mean"].tolist() == [0.75]


def test_a_done_run_whose_epochs_are_gone_still_has_its_score_in_the_report(tmp_path):
    rows = paired_rows({A: [0.8]})
    out = results_folder(tmp_path / "out", rows)
    (out / "runs" / rows[0]["run_id"] / "epochs.jsonl").unlink()
    assert build(out).summary["test_acc_mean"].tolist() == [0.8]
    assert TABLES | {"accuracy_vs_macs.png"} <= set(made(out))


def test_each_data_set_has_its_own_figures_inside_the_folder(tmp_path):
    names = ("v1.5", "v1.6", "folder:a/b")
    rows = [row for name in names for row in paired_rows({A: [0.8]}, dataset=name)]
    files = build(results_folder(tmp_path / "out", rows)).files
    assert len({*files}) == len(files) == len(TABLES) + len(names) * len(ONE_VARIANT)
    assert all(path.is_file() and path.parent == tmp_path / "out" for path in files)
    for name in ("v1.5", "v1.6", "folder-a-b"):
        assert sum(f"_{name}-at-8-px." in path.name for path in files) == len(ONE_VARIANT)


@pytest.mark.parametrize("kind", ["nowhere", "empty", "planned"])
def test_a_folder_without_runs_is_an_error_that_names_it(tmp_path, kind):
    out = tmp_path / "some_out"
    if kind == "empty":
        out.mkdir()
    if kind == "planned":
        results_folder(out, [], planned=["later"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="some_out"):
        build(out)
    assert sorted(tmp_path.rglob("*")) == before


CIFAR = "CIFAR-10 (JPEG), 16 px"


def test_a_name_of_the_data_is_in_captions_tables_and_page(tmp_path):
    out = results_folder(tmp_path / "out", paired_rows(SCORES))
    content = (out / "experiment.json").read_text()
    (out / "experiment.json").write_text(
        content.replace('"question"', f'"data_names": {{"digits": "{CIFAR}"}}, "question"')
    )
    with drawing("accuracy_vs_macs"):
        build(out)
    svg = (out / "accuracy_vs_macs.svg").read_text()
    assert CIFAR in svg and "digits" not in svg
    assert CIFAR in (out / "summary.tex").read_text()
    assert CIFAR in (out / "report.html").read_text()
    build(tmp_path / "both", [out])
    assert records.read_experiment(tmp_path / "both")["data_names"] == {"digits": CIFAR}
