"""Whose a file is: the manifest, what `report` replaces and deletes, what dead writers leave."""

import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
from factories import A, diagnosed_folder, results_folder, run_row, without_runs
from warm import WARM

from resnet_variants.records import files, manifest
from resnet_variants.records.diagnosis import TABLES
from resnet_variants.records.files import TEMPORARY, atomic_file, locked, write_atomically
from resnet_variants.records.manifest import MANIFEST, is_whole, refuse_foreign, write_files
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import ALWAYS, build, require_room

COMMITTED = Path(__file__).parents[1] / "results"
# A report of such a run has tables and no figures, which take seconds to draw.
FAILED = run_row(A, 1, status="failed", error="out of luck")


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# --- the manifest -----------------------------------------------------------------------------


def test_what_was_written_is_replaced_and_deleted_and_nothing_else(tmp_path):
    (tmp_path / "mine.csv").write_text("mine")
    write_files(tmp_path, {"a.csv": "1\n", "b.png": b"\0", "c.csv": "3\n"})
    (tmp_path / "c.csv").write_text("changed")
    written = write_files(tmp_path, {"a.csv": "2\n"})
    assert written == [tmp_path / "a.csv"]
    found = content(tmp_path)
    assert set(json.loads(found.pop(MANIFEST))) == {"a.csv"}
    assert found == {"mine.csv": b"mine", "a.csv": b"2\n", "c.csv": b"changed"}


@pytest.mark.parametrize("kind", ["other", "changed", "folder", "link", "dangling"])
def test_a_file_of_another_origin_is_refused_before_anything_is_written(tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    write_files(out, {"a.csv": "1\n", **({"b.csv": "1\n"} if kind == "changed" else {})})
    file = out / "b.csv"
    if kind == "folder":
        file.mkdir()
    elif kind in ("link", "dangling"):
        file.symlink_to("a.csv" if kind == "link" else "nowhere")
    else:
        file.write_text("mine")
    before = content(out)
    with pytest.raises(UserError, match=r"^b\.csv in '.*out' would be overwritten; .*: move"):
        write_files(out, {"a.csv": "2\n", "b.csv": "2\n"})
    assert content(out) == before


def test_a_file_that_has_the_content_already_may_be_of_any_origin(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"1\r\n")  # as git may write it
    write_files(tmp_path, {"a.csv": "1\n"})
    write_files(tmp_path, {"a.csv": "2\n"})
    assert (tmp_path / "a.csv").read_bytes() == b"2\n"


@pytest.mark.parametrize("keep", [True, False])
def test_a_writer_that_dies_leaves_files_that_are_known(tmp_path, monkeypatch, keep):
    old, new = ({name: f"{at}{name}" for name in "abc"} for at in (1, 2))
    real, stops = write_atomically, iter(range(1, 100))
    for stop in stops:
        write_files(tmp_path, old)
        calls = iter(range(100))

        def write(*given, calls=calls, stop=stop):
            if next(calls) == stop:
                raise KeyboardInterrupt
            real(*given)

        with monkeypatch.context() as patched:
            patched.setattr(manifest, "write_atomically", write)
            try:
                write_files(tmp_path, new, keep=keep)
                break
            except KeyboardInterrupt:
                refuse_foreign(tmp_path, old)
                assert not is_whole(tmp_path)
    assert stop == 5  # each file, and both manifests, were the last once
    assert is_whole(tmp_path)
    assert (tmp_path / "a").read_text() == "2a"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"../a": "%s"}' % ("0" * 64), '{"a": 1}', '{"name": "App", "icons": []}']
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json'? is .*move it elsewhere"):
        write_files(tmp_path, {"a": "1"})
    assert content(tmp_path) == {MANIFEST: text.encode()}


# --- reports ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    out = results_folder(tmp_path_factory.mktemp("reported") / "out", [FAILED])
    build(out)
    return out


def test_a_table_of_the_diagnosis_that_is_gone_costs_no_other_file(tmp_path):
    out = diagnosed_folder(tmp_path / "out", [run_row(A)])
    build(out)
    copy = without_runs(out, tmp_path / "copy")
    before = content(copy)
    (copy / "lesion.csv").unlink()
    build(copy)
    assert set(content(copy)) == set(before) - {"lesion.csv"}
    measured = [set(pd.read_csv(folder / "diagnosis.csv")["measure"]) for folder in (out, copy)]
    assert measured[0] - measured[1] == {"acc", "lost_by_one_unit", "lost_by_worst_unit"}
    for other in {*TABLES} - {"lesion"}:
        for path in (f"{other}.csv", f"{other}.svg"):
            assert (copy / path).read_bytes() == before[path]


def test_files_of_the_users_stay_in_a_folder_of_results(reported, tmp_path):
    out = shutil.copytree(reported, tmp_path / "out")
    mine = ("accuracy_vs_latency.png", "lesion.png", "lesion.csv", ".runs.csv.swp", "notes.txt")
    for name in mine:
        (out / name).write_text("mine")
    build(out)
    assert {n for n, own in content(out).items() if own == b"mine"} == {*mine}


def test_figures_that_raw_runs_no_longer_give_are_deleted(tmp_path):
    done = run_row(A)
    out = results_folder(tmp_path / "out", [done, FAILED])
    build(out)
    assert (out / "accuracy_vs_macs.png").is_file()
    shutil.rmtree(out / "runs" / done["run_id"])
    build(out)
    assert not (out / "accuracy_vs_macs.png").exists()
    assert "accuracy_vs_macs.png" not in (out / MANIFEST).read_text()


def test_a_report_over_a_file_of_the_users_is_refused_in_one_line(tmp_path, complaint):
    out = results_folder(tmp_path / "out", [FAILED])
    (out / "summary.md").write_text("mine")
    (out / "report.html").write_text("mine")
    before = content(out)
    said = complaint("report", out)
    assert f"summary.md, report.html in {str(out)!r} would be overwritten" in said
    assert content(out) == before
    with pytest.raises(UserError, match="would be overwritten"):
        require_room(out)


def test_a_folder_without_a_manifest_is_known_again_where_nothing_has_changed(reported, tmp_path):
    out = shutil.copytree(reported, tmp_path / "out")
    (out / MANIFEST).unlink()
    # The page names its folder.
    (out / "report.html").unlink()
    require_room(out)  # as `run` asks before it trains
    assert {*ALWAYS} == set(json.loads((out / MANIFEST).read_text()))
    refuse_foreign(out, ALWAYS)


def test_run_refuses_before_it_trains(tmp_path, complaint):
    (tmp_path / "summary.md").write_text("mine")
    words = ["--variant", "B", "--depth", "8", "--epochs", "1", "--seeds", "1"]
    assert "summary.md in " in complaint("run", *words, "--out", tmp_path, "--engine", "inline")
    assert set(content(tmp_path)) == {"summary.md"} and not (tmp_path / "runs").exists()


def test_run_refuses_a_clone_whose_tables_are_the_only_ones(reported, tmp_path, complaint):
    out = without_runs(reported, tmp_path / "out")
    before = content(out)
    said = complaint("run", "--variant", "B", "--depth", "20", "--out", out)
    assert "tables of runs that are not there" in said
    assert content(out) == before


def test_a_run_that_is_redone_leaves_files_of_the_users(tmp_path):
    run = next((results_folder(tmp_path, [FAILED]) / "runs").iterdir())
    (run / "snapshots").mkdir()
    for name in ("notes.md", "snapshots/epoch_000001.safetensors", "lesion.csv", "lesion.txt"):
        (run / name).write_text("mine")
    RunFolder(run).remove()
    assert {path.name for path in run.iterdir()} == {"notes.md", "lesion.txt"}
    assert RunFolder(run).result() is None
    RunFolder(run).start({"run_id": run.name})
    assert {path.name for path in run.iterdir()} == {"notes.md", "lesion.txt", "run.json"}


def test_reports_of_one_folder_take_turns(tmp_path, monkeypatch, complaint):
    out = results_folder(tmp_path / "out", [FAILED])
    monkeypatch.setattr("resnet_variants.reporting.build._PATIENCE", 0.05)
    with locked(out / ".report.lock", 1.0) as mine:
        assert mine
        said = complaint("report", out)
    assert "is being reported by another command: try again" in said
    assert not (out / ".report.lock").exists()


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in COMMITTED.glob("*/runs.csv")))
def test_the_committed_results_have_a_manifest(folder):
    names = {p.name for p in (COMMITTED / folder).iterdir() if p.is_file()}
    own = json.loads((COMMITTED / folder / MANIFEST).read_text())
    assert names - {"experiment.json", MANIFEST} <= set(own)
    refuse_foreign(COMMITTED / folder, own)


# --- writers that die -------------------------------------------------------------------------


def scratch(folder):
    return sorted(folder.glob(f".*{TEMPORARY}"))


def dies_as_it_writes(path):
    with atomic_file(path) as file:
        file.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_writer_left_goes_and_what_a_living_one_has_stays(tmp_path):
    for name in (".a.swp", ".a.12345678", f".mine{TEMPORARY}"):
        (tmp_path / name).write_text("mine")
    writer = WARM.Process(target=dies_as_it_writes, args=(tmp_path / "dead",))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    dead = [p for p in scratch(tmp_path) if p.is_dir()]
    assert len(dead) == 1 and not (tmp_path / "dead").exists()
    with atomic_file(tmp_path / "slow") as file:
        file.write_text("slow")
        write_atomically(tmp_path / "other", "other")
        assert not dead[0].exists()
    assert content(tmp_path) == {
        **dict.fromkeys((".a.swp", ".a.12345678", f".mine{TEMPORARY}"), b"mine"),
        **{"slow": b"slow", "other": b"other"},
    }


def test_a_scratch_folder_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, asked = files.fcntl.flock, []

    def flock(file, kind):
        asked.append(kind)
        if len(asked) == 1:  # another writer, at this very moment
            write_atomically(tmp_path / "b", "2")
        real(file, kind)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_atomically(tmp_path / "a", "1")
    assert content(tmp_path) == {"a": b"1", "b": b"2"} and not scratch(tmp_path)
