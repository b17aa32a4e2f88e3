"""Results folders read together: whose run counts, and what they disagree on."""

import json
import shutil

import pandas as pd
import pytest
from factories import A, B, D, as_tables, paired_rows, results_folder, run_row

from resnet_variants import report
from resnet_variants.analysis.comparison import joined
from resnet_variants.analysis.results import load_results
from resnet_variants.records.results_folder import read_runs
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.terminal import cli


def two_folders(tmp_path, **second):
    one = results_folder(
        tmp_path / "one", paired_rows({A: [0.8, 0.9], B: [0.7, 0.8]}), baselines={A: A, B: A}
    )
    two = results_folder(tmp_path / "two", paired_rows({A: [0.8, 0.9], D: [0.8, 0.85]}), **second)
    return one, two


HEADER = "arm,stage,model,batch_size,img_size,precision,device,latency_ms\n"


def test_runs_of_several_folders_are_compared_together(tmp_path, capsys):
    one, two = two_folders(tmp_path, baselines={A: A, D: A})
    (one / "bench.csv").write_text(
        f"{HEADER}ours,inference,{A},1,8,fp32,cpu,2.5\nours,inference,{D},1,8,fp32,cpu,3\n"
    )
    step = {"epoch": 1, "step": 5, "steps": 8, "lr": 0.1, "train_loss": 2.0, "train_acc": 0.5}
    for run in (one / "runs").iterdir():
        (run / "steps.jsonl").write_text(json.dumps(step | {"grad_norm": 1.0, "seconds": 3}) + "\n")
    both = tmp_path / "both"
    assert cli.main(["report", str(one), str(two), "--out", str(both)]) == 0
    assert "Too few seeds" in capsys.readouterr().out
    assert len(pd.read_csv(both / "runs.csv")) == 6
    assert len(pd.read_csv(both / "epochs.csv")) == 12
    steps = load_results([both]).steps()  # from its own tables
    assert steps["run_id"].tolist() == [*read_runs(one)["run_id"]]
    assert set(steps["step"]) == {5}
    assert (both / "accuracy_vs_latency.png").is_file()
    page = (both / "report.html").read_text(encoding="utf-8")
    assert f"report {one} {two} --out {both}" in page  # how it was made
    assert not (one / "runs.csv").exists()
    made = joined(load_results([one, two]).comparisons, "summary")
    summary = made.set_index("model")
    assert summary["delta"][D] == pytest.approx(-0.025)
    assert summary["n"][A] == 2  # copies count once
    assert summary["latency_ms"][A] == 2.5
    # From its own tables, which keep the latencies.
    pd.testing.assert_frame_equal(joined(load_results([both]).comparisons, "summary"), made)
    content = json.loads((both / "experiment.json").read_text())
    for wrong in (3, {"net": "fast"}):
        (both / "experiment.json").write_text(json.dumps(content | {"latencies": wrong}))
        with pytest.raises(UserError, match=r"experiment\.json is damaged \(latencies is no table"):
            load_results([both])


def test_several_folders_need_one_for_their_report(tmp_path):
    one, two = two_folders(tmp_path, baselines={A: A, D: A})
    with pytest.raises(UserError, match="name a folder"):
        report(one, two)
    with pytest.raises(UserError, match="has results of its own"):
        build(one, (one, two))
    assert not (one / "runs.csv").exists()


def test_a_finished_run_counts_before_a_failed_one_of_the_same_name(tmp_path):
    failed = results_folder(tmp_path / "one", [run_row(A, status="failed", error="gone")])
    done = results_folder(tmp_path / "two", [run_row(A, acc=0.7)])
    for folders in ((failed, done), (done, failed)):
        found = load_results(folders)
        assert found.runs["status"].tolist() == ["done"]
        assert found.folders == {found.runs["run_id"][0]: done}


@pytest.mark.parametrize("change", [{"test_acc": 0.1}, {"device": "cuda"}, {"precision": "bf16"}])
def test_two_runs_of_one_name_that_are_no_copies_are_refused(tmp_path, change):
    one = results_folder(tmp_path / "one", [run_row(A)])
    two = results_folder(tmp_path / "two", [run_row(A) | change])
    with pytest.raises(UserError, match=r"another result, device or precision in .*one and .*two"):
        load_results([one, two])


def test_other_images_under_the_same_name_are_refused(tmp_path):
    folders = [results_folder(tmp_path / name, [run_row(m)]) for name, m in (("1", A), ("2", B))]
    for i, folder in enumerate(folders):
        path = next((folder / "runs").glob("*/run.json"))
        content = json.loads(path.read_text()) | {"data_hash": f"hash{i}", "split_hash": "s"}
        path.write_text(json.dumps(content))
    tables = [as_tables(folder, tmp_path / f"clone of {folder.name}") for folder in folders]
    for several in (folders, tables):
        with pytest.raises(UserError, match=r"digits is not the same images .*data_hash hash0"):
            load_results(several)


def test_folders_that_disagree_on_a_baseline_are_refused(tmp_path):
    folders = two_folders(tmp_path, baselines={A: D, D: D})
    with pytest.raises(UserError, match=r"net_a is compared with net_a in .*one' and with net_d"):
        load_results(folders)


def test_latencies_come_from_bench_in_the_folder(tmp_path):
    one, _ = two_folders(tmp_path)
    (one / "bench" / "b").mkdir(parents=True)
    (one / "bench.csv").write_text(
        f"{HEADER}ours,inference,{A},1,8,fp32,cpu,2.5\nours,step,{A},128,8,fp32,cpu,\n"
        f"timm,inference,{A},1,8,fp32,cpu,9\nours,inference,{A},1,8,bf16,cpu,1\n"
    )
    (one / "bench" / "b" / "bench.csv").write_text(f"{HEADER}ours,inference,{B},1,8,fp32,cpu,3\n")
    summary = joined(load_results([one]).comparisons, "summary").set_index("model")
    assert summary["latency_ms"].to_dict() == {A: 2.5, B: 3}
    (one / "bench.csv").write_text("arm,model\nours,x\n")  # which measured no latency
    load_results([one])
    (one / "bench.csv").write_text("latency_ms\n3\n")
    with pytest.raises(UserError, match=r"bench\.csv is no table of bench"):
        load_results([one])


def test_one_run_under_two_names_is_refused(tmp_path):
    rows = [run_row(A), run_row(A, run_id=f"{A}__copy__2__s0")]
    folder = results_folder(tmp_path / "one", rows)
    with pytest.raises(UserError, match="are the same run twice: delete one of them"):
        load_results([folder])


def test_provenance_is_kept_for_who_has_the_tables_alone(tmp_path):
    one = results_folder(tmp_path / "one", [run_row(A, status="failed", error="gone")])
    (path,) = (one / "runs").glob("*/run.json")
    origin = {"git_commit": "abc", "git_dirty": True, "command": "run me", "threads": 2}
    origin |= {"versions": {"torch": "9.9"}, "python": "3.11", "device_name": "a machine"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": origin}))
    assert report(one).counts == {"failed": 1}
    clone = as_tables(one, tmp_path / "clone")
    shutil.copy(one / "provenance.json", clone)
    for folder in (one, clone):
        found = load_results([folder]).provenance
        assert found["git commit"] == ["abc with changes"]
        assert (found["torch"], found["command"], found["threads"]) == (["9.9"], ["run me"], ["2"])
    page = (one / "report.html").read_text(encoding="utf-8")
    assert "abc with changes" in page
    assert "run me" in page
    (clone / "provenance.json").write_text('{"torch": 5}')
    with pytest.raises(UserError, match=r"provenance\.json is damaged .*; delete it"):
        load_results([clone])
