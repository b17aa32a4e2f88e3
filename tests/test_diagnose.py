"""`diagnose` on trained runs: what it writes, what it refuses, and what reports make of it."""

import dataclasses
import itertools
import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from factories import A, B, diagnosed_folder, diagnosis, paired_rows, results_folder, run_row
from safetensors.torch import load_file, save_file
from scipy.stats import gmean, t
from small import digits_run, execute, same

import resnet_variants as rv
from resnet_variants.analysis.diagnosis import summarise_diagnoses
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.verdicts import UNDECIDED
from resnet_variants.diagnosis.distances import identity_distance
from resnet_variants.diagnosis.lesions import lesion_study
from resnet_variants.diagnosis.study import Study, diagnose_run, validation_images
from resnet_variants.models.variant import Variant
from resnet_variants.records.diagnosis import TABLES, is_diagnosed, read_diagnoses
from resnet_variants.records.files import to_json
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.reporting.figures.diagnosis import diagnosis_figure
from resnet_variants.reporting.text import readable_comparisons, readable_diagnoses
from resnet_variants.terminal import cli
from resnet_variants.training.device import Machine, full_precision
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.interrupt import Stop

SMALL = {"images": 60, "batch_size": 30, "draws": 1}
NET, PLAIN = "rv_resnet8_cifar_b", "rv_resnet14_cifar_conv3_3x3_none"
SNAPSHOTS = ["epoch_000001.safetensors", "epoch_000002.safetensors"]


def trained(out, run, **machine):
    """A run's directory, as `run` leaves it."""
    path = out / "runs" / run.id
    result = execute(run, path, Machine(device="cpu", **machine))
    assert result["status"] == "done", result
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two seeds of a residual net and one plain net, three epochs each."""
    out = tmp_path_factory.mktemp("results")
    torch.set_num_threads(1)
    runs = [digits_run(seed, epochs=3) for seed in (0, 1)]
    plain = Variant(family="cifar", depth=14, shortcut="none")
    runs.append(dataclasses.replace(digits_run(epochs=3), variant=plain))
    for run in runs:
        trained(out, run, snapshots=run.seed == 0)
    experiment = {"question": "?", "runs": [run.id for run in runs], "baselines": {NET: PLAIN}}
    (out / "experiment.json").write_text(to_json(experiment))
    return out


@pytest.fixture
def folder(results, tmp_path):
    """A copy of the first run, which a test may spoil."""
    first = next((results / "runs").glob("rv_resnet8*__s0"))
    return shutil.copytree(first, tmp_path / first.name)


@pytest.fixture(scope="module")
def diagnosed(results, tmp_path_factory):
    out = shutil.copytree(results, tmp_path_factory.mktemp("diagnosed") / "out")
    for folder in sorted((out / "runs").iterdir()):
        rv.diagnose(folder, **SMALL)
    return out


@pytest.fixture(scope="module")
def reported(diagnosed):
    """The report of all diagnosed runs, in their own folder."""
    return build(diagnosed)


def test_a_run_gets_tables_and_figures(diagnosed):
    for folder in (diagnosed / "runs").iterdir():
        assert is_diagnosed(folder)
        for name in TABLES:
            table = pd.read_csv(folder / f"{name}.csv")
            assert tuple(table) == TABLES[name].header
            assert table.empty == ("none" in folder.name and name == "paths")
            for ending in ("png", "svg"):
                assert (folder / f"{name}.{ending}").is_file() != table.empty
            assert set(table["run_id"]) <= {folder.name}


def test_the_states_are_those_before_during_and_after_training(diagnosed):
    for folder in (diagnosed / "runs").iterdir():
        kept = {0, 1, 2, 3} if folder.name.endswith("s0") else {0, 3}
        for table in ("gradient_flow", "identity_distance"):
            assert set(pd.read_csv(folder / f"{table}.csv")["epoch"]) == kept
        for table in ("lesion", "sensitivity"):
            assert set(pd.read_csv(folder / f"{table}.csv")["epoch"]) == {3}


def test_the_initial_weights_are_those_that_the_run_began_with(diagnosed):
    run = digits_run(epochs=3)
    path = diagnosed / "runs" / run.id
    by_epoch = pd.read_csv(path / "identity_distance.csv").set_index("epoch")["branch_to_shortcut"]
    data = run.load()
    images, _ = validation_images(data, Study(**SMALL), torch.device("cpu"))
    model = run.build(data).to(memory_format=torch.channels_last)
    expected = identity_distance(model, images[:30])["branch_to_shortcut"]
    assert by_epoch[0].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)
    assert by_epoch[3].to_numpy() != pytest.approx(expected.to_numpy(), rel=1e-3)


def test_the_whole_network_has_the_accuracy_of_the_run(folder):
    found = diagnose_run(folder, Study(images=1000, batch_size=100, draws=1))
    whole = found["lesion"].query("kind == 'none'")["acc"].item()
    assert whole == json.loads((folder / "result.json").read_text())["val_acc"]
    assert set(found["lesion"]["n"]) == {120}  # all that there are


def test_the_same_run_gives_the_same_tables_and_another_seed_others(diagnosed, folder):
    kept = {name: (diagnosed / "runs" / folder.name / f"{name}.csv").read_text() for name in TABLES}
    again = diagnose_run(folder, Study(**SMALL))
    assert {name: table.to_csv(index=False) for name, table in again.items()} == kept
    other = diagnose_run(folder, Study(**SMALL, seed=1))
    assert not other["sensitivity"].equals(again["sensitivity"])


def test_the_runs_of_a_network_lose_different_units(results, monkeypatch):
    seeds = []

    def study(*args, **settings):
        seeds.append(settings["seed"])
        return lesion_study(*args, **settings)

    monkeypatch.setattr("resnet_variants.diagnosis.lesions.lesion_study", study)
    for path in sorted((results / "runs").glob("rv_resnet8*")):
        diagnose_run(path, Study(**SMALL))
    assert len(set(seeds)) == 2


def test_accuracies_are_in_the_precision_of_the_training_and_gradients_in_full(
    diagnosed, folder, monkeypatch
):
    config = json.loads((folder / "run.json").read_text())
    config |= {"precision": "bf16", "recipe": config["recipe"] | {"precision": "auto"}}
    (folder / "run.json").write_text(json.dumps(config))
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)  # where `auto` would be fp32
    found = diagnose_run(folder, Study(**SMALL))
    fp32 = diagnosed / "runs" / folder.name
    for name, equal in (("gradient_flow", True), ("lesion", False)):
        assert (found[name].to_csv(index=False) == (fp32 / f"{name}.csv").read_text()) is equal


def test_convolutions_in_full_precision_are_so_within_the_block_alone():
    settings = torch.backends.cudnn.conv
    before = settings.fp32_precision
    with full_precision():
        assert settings.fp32_precision == "ieee"
    assert settings.fp32_precision == before


def test_the_command_says_what_it_found_whatever_was_renamed_since(folder, tmp_path, capsys):
    other = folder.rename(tmp_path / "mymodel")
    config = json.loads((other / "run.json").read_text())
    moved = config | {"provenance": {"data": f"folder:{tmp_path / 'gone'}"}}
    (other / "run.json").write_text(json.dumps(moved))
    words = ["--images", "60", "--draws", "1"]
    assert "gone" in refused(other, capsys, *words)
    words += ["--batch-size", "30", "--data", "digits"]
    assert cli.main(["diagnose", str(other), *words]) == 0
    said = capsys.readouterr().out
    assert NET in said and "lost without a unit" in said
    assert "gradient_flow.csv" in said
    assert is_diagnosed(other)
    assert set(pd.read_csv(other / "lesion.csv")["run_id"]) == {folder.name}


# --- bad input --------------------------------------------------------------------------------


def refused(folder, capsys, *words):
    """The one line that says why."""
    before = sorted(folder.parent.rglob("*"))
    assert cli.main(["diagnose", str(folder), "--batch-size", "30", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert sorted(folder.parent.rglob("*")) == before
    return line


def test_what_is_no_run_is_refused(tmp_path, capsys, complaint):
    assert "is no run's directory: it has no run.json" in refused(tmp_path, capsys)
    assert "is no run's directory" in refused(tmp_path / "nowhere", capsys)
    assert "File name too long" in refused(tmp_path / ("a" * 300), capsys)
    assert "missing RUN_DIR" in complaint("diagnose")


def removed(name):
    return lambda folder: (folder / name).unlink()


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    weights["conv1.weight"][0, 0, 0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors")


SPOILT = {
    "no weights": (
        removed("model.safetensors"),
        "holds no weights: model.safetensors is missing",
    ),
    "failed": (
        written("result.json", b'{"status": "failed", "seconds": 1}'),
        "is failed: only a finished run has the weights for this",
    ),
    "not finished": (removed("result.json"), "is not finished: only a finished run"),
    "not finite": (not_finite, "holds weights that are not finite"),
    "empty weights": (written("model.safetensors", b""), "cannot read weights"),
    "damaged weights": (written("model.safetensors", b"no tensor" * 10), "cannot read weights"),
    "damaged snapshot": (
        written("snapshots/epoch_000001.safetensors", b"x"),
        "cannot read weights from",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILT.values(), ids=SPOILT)
def test_a_run_that_is_not_whole_is_refused(folder, capsys, spoil, said):
    spoil(folder)
    assert said in refused(folder, capsys)


@pytest.mark.parametrize("config", [True, False])
def test_weights_of_another_variant_are_refused(results, folder, capsys, config):
    other = next((results / "runs").glob("*none*"))
    for name in ("model.safetensors", "config.json")[: 1 + config]:
        shutil.copy(other / name, folder / name)
    said = refused(folder, capsys)
    if config:
        assert f"holds weights of {PLAIN}, not of {NET}" in said
    else:
        assert f"these weights do not fit {NET}: " in said


def test_fewer_images_than_the_batch_are_refused(folder, capsys, complaint):
    said = refused(folder, capsys, "--images", "20")
    assert said.endswith("--batch-size: batch_size 30 exceeds the 20 images")
    said = complaint("diagnose", folder, "--batch-size", "500")
    assert "batch_size 500 exceeds the 120 validation images" in said


def test_other_images_are_refused(folder, capsys):
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(config | {"data_hash": "other"}))
    said = refused(folder, capsys)
    assert "--data: digits is not the images of this run (data_hash other" in said
    assert "--data: " in refused(folder, capsys, "--data", "nothing")


def test_a_damaged_configuration_is_refused(folder, capsys):
    config = json.loads((folder / "run.json").read_text())
    changes = [
        *({"recipe": None}, {"recipe": {"epochs": "x"}}, {"recipe": {"unknown": 1}}),
        *({"model": "rv_x"}, {"seed": "a"}, {"precision": "fp8"}),
    ]
    damaged = [config | change for change in changes]
    for lacking in ("dataset", "run_id", "precision", "split_hash"):
        damaged.append({name: value for name, value in config.items() if name != lacking})
    for content in damaged:
        (folder / "run.json").write_text(json.dumps(content))
        assert "run.json is damaged" in refused(folder, capsys)


def test_the_batch_is_100_or_what_there_is_unless_it_is_asked_for():
    assert Study().fitted(1000).batch_size == 100
    assert Study().fitted(60).batch_size == 60
    assert Study(images=40).fitted(1000).batch_size == 40
    assert Study(batch_size=30).fitted(60).batch_size == 30
    for study, there in ((Study(batch_size=100), 60), (Study(), 1)):
        with pytest.raises(UserError, match=f"exceeds the {there} validation images"):
            study.fitted(there)


@pytest.mark.parametrize(
    "changes", [{"images": 0}, {"draws": 0}, {"batch_size": 1}, {"paths": 10**7}]
)
def test_counts_out_of_range_are_refused(changes):
    with pytest.raises(UserError, match=r"must be from [12] to 1000000"):
        Study(**changes)


# --- runs that keep snapshots -----------------------------------------------------------------


def test_snapshots_are_the_weights_after_their_epochs(results):
    kept = next((results / "runs").glob("rv_resnet8*__s0")) / "snapshots"
    assert sorted(path.name for path in kept.iterdir()) == SNAPSHOTS
    assert not (next((results / "runs").glob("rv_resnet8*__s1")) / "snapshots").exists()
    first = load_file(kept / "epoch_000001.safetensors")
    assert first["bn1.num_batches_tracked"] == 4  # steps of an epoch


def test_run_diagnoses_when_asked_and_one_refusal_costs_no_other_run_its_report(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("resnet_variants.api.Study", partial(Study, **SMALL))
    out = tmp_path / "out"
    words = ["--variant", "B", "--depth", "8", "--epochs", "2", "--seeds", "2", "--diagnose"]
    words += ["--out", str(out), "--engine", "inline", "--batch-size", "256"]
    assert cli.main(["run", *words]) == 0
    first, second = sorted((out / "runs").glob("rv_*"))
    assert is_diagnosed(first) and is_diagnosed(second)
    assert (second / "snapshots" / "epoch_000001.safetensors").is_file()
    assert (out / "lesion.png").is_file()
    before = (second / "lesion.csv").stat().st_mtime_ns
    for path in (first / "model.safetensors", first / "lesion.csv", out / "report.html"):
        path.unlink()
    capsys.readouterr()
    assert cli.main(["run", *words]) == 1
    said = capsys.readouterr().out
    assert f"{first.name} is not diagnosed: " in said and "holds no weights" in said
    assert not is_diagnosed(first)
    assert (second / "lesion.csv").stat().st_mtime_ns == before  # once is enough
    assert (out / "report.html").is_file() and (out / "lesion.png").is_file()
    variant = Variant(family="cifar", depth=8)
    with pytest.raises(UserError, match=r"1 not diagnosed, all else is in .* holds no weights"):
        rv.run(variant, seeds=2, out=out, epochs=2, batch_size=256, diagnose=True)


def test_a_run_that_was_stopped_at_the_end_of_an_epoch_keeps_its_snapshot(
    results, tmp_path, monkeypatch
):
    run, stop = digits_run(epochs=3), Stop()
    path = tmp_path / "runs" / run.id
    machine = Machine(device="cpu", snapshots=True)
    calls = []

    def validated(*args, **settings):
        calls.append(0)
        stop.signal = 2 if len(calls) == 2 else None  # while the second epoch is validated
        return evaluate(*args, **settings)

    monkeypatch.setattr("resnet_variants.training.trainer.evaluate", validated)
    assert execute(run, path, machine, stop=stop) is None
    assert len(calls) == 2
    execute(run, path, machine)
    assert sorted(file.name for file in (path / "snapshots").iterdir()) == SNAPSHOTS
    for name in SNAPSHOTS:
        expected = load_file(results / "runs" / run.id / "snapshots" / name)
        assert same(load_file(path / "snapshots" / name), expected)


# --- reports ----------------------------------------------------------------------------------


def test_a_report_shows_all_diagnosed_runs(diagnosed, reported):
    files = {path.name for path in reported.files}
    assert {f"{name}.csv" for name in TABLES} | {"diagnosis.csv"} <= files
    assert {f"{name}.svg" for name in TABLES} <= files
    assert pd.read_csv(diagnosed / "lesion.csv")["run_id"].nunique() == 3
    summary = pd.read_csv(diagnosed / "diagnosis.csv").query("measure == 'acc'")
    assert summary.set_index("model")["seeds"].to_dict() == {NET: 2, PLAIN: 1}
    page = (diagnosed / "report.html").read_text(encoding="utf-8")
    assert '<summary id="diagnosis"><h2>Diagnosis</h2>' in page
    of_predictions = {"classes", "confusion", "calibration", "ensembles"}
    assert page.count('src="data:image/svg+xml;base64,') == len({*TABLES, *of_predictions})
    assert len(page) < 6_000_000


def test_a_report_compares_diagnosed_runs_with_their_baseline(diagnosed, reported):
    rows = pd.read_csv(diagnosed / "diagnosis.csv").query("pairs > 0")
    assert set(rows["model"]) == {NET} and set(rows["baseline"]) == {PLAIN}
    assert set(rows["pairs"]) == {1} and set(rows["verdict"]) == {UNDECIDED}
    compared = set(rows["measure"])
    assert {"acc", "lost_by_one_unit", "scaled_ratio_trained"} <= compared
    assert "branch_to_shortcut" not in compared  # a plain net has no shortcut
    page = (diagnosed / "report.html").read_text(encoding="utf-8")
    table = page.partition("Diagnosis, compared")[2].partition("</table>")[0]
    assert table.count("<tr data-arm") == len(rows)


def test_the_tables_alone_give_the_same_report(diagnosed, reported, tmp_path):
    clone = tmp_path / diagnosed.name
    clone.mkdir()
    for path in diagnosed.iterdir():
        if path.suffix in (".csv", ".json"):
            shutil.copy(path, clone / path.name)
    again = build(clone)
    assert {f"{name}.svg" for name in TABLES} <= {path.name for path in again.files}
    for name in (*TABLES, "diagnosis"):
        assert (clone / f"{name}.csv").read_bytes() == (diagnosed / f"{name}.csv").read_bytes()


def test_a_run_that_lacks_a_table_is_read_with_the_others(tmp_path):
    rows = paired_rows({A: [0.8, 0.9], B: [0.7]})
    out, ids = diagnosed_folder(tmp_path / "out", rows), [row["run_id"] for row in rows]
    (out / "runs" / ids[0] / "gradient_flow.csv").unlink()
    assert not is_diagnosed(out / "runs" / ids[0])  # `run --diagnose` does it again
    tables = read_diagnoses(out, ids)
    known = {name: table["run_id"].nunique() for name, table in tables.items()}
    assert known == dict.fromkeys(TABLES, 3) | {"gradient_flow": 2}
    seeds = summarise_diagnoses(tables).set_index(["model", "measure"])["seeds"]
    assert (seeds[A]["acc"], seeds[A]["gradient_ratio_trained"]) == (2, 1)


def test_a_diagnosis_in_one_of_two_copies_of_a_run_is_kept(tmp_path):
    rows = paired_rows({A: [0.8, 0.9], B: [0.7]})
    folders = [results_folder(tmp_path / "a", rows), diagnosed_folder(tmp_path / "b", rows)]
    alone = load_results(folders[1:]).diagnosis
    for own in (folders, folders[::-1]):
        both = load_results(own).diagnosis
        for name in TABLES:
            pd.testing.assert_frame_equal(both[name], alone[name])


def test_a_run_that_another_command_uses_is_refused(folder, capsys):
    with RunFolder(folder).claim():
        assert f"another command uses {str(folder)!r}: wait for it" in refused(folder, capsys)


def test_whole_numbers_stay_whole(diagnosed, reported):
    whole = {"gradient_flow": ["seed", "epoch", "unit", "n"], "lesion": ["deleted"]}
    for name, columns in whole.items():
        for path in (diagnosed, next((diagnosed / "runs").iterdir())):
            table = pd.read_csv(path / f"{name}.csv")
            assert all(pd.api.types.is_integer_dtype(table[column]) for column in columns)


def test_a_results_folder_is_pointed_to_its_runs(results, capsys):
    assert f"name one of those in {results / 'runs'}" in refused(results, capsys)


def test_nothing_is_measured_where_one_of_several_cannot_be(folder, tmp_path, complaint):
    assert "is no run's directory" in complaint("diagnose", folder, tmp_path)
    assert not is_diagnosed(folder)


def test_the_weights_of_the_best_epoch_are_called_so(tmp_path):
    run = digits_run(epochs=3, lr=1.0, select="best")
    path = trained(tmp_path, run, snapshots=True)
    best = json.loads((path / "result.json").read_text())["best_epoch"]
    found = diagnose_run(path, Study(**SMALL))
    assert set(found["lesion"]["epoch"]) == {best}
    before = {epoch for epoch in (1, 2) if epoch < best}
    assert set(found["gradient_flow"]["epoch"]) == {0, best, *before}


def test_a_damaged_table_is_refused(tmp_path):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    for text in ("", "a,b\n1,2\n", "\x00"):
        (tmp_path / "runs" / "x" / "lesion.csv").write_text(text)
        with pytest.raises(
            UserError, match=r"lesion\.csv is no table of diagnose .*: move it elsewhere"
        ):
            read_diagnoses(tmp_path, ["x"])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("lesion", lambda t: t[t["kind"] != "none"], "no row of kind none"),
        ("sensitivity", lambda t: t[t["kind"] != "growth"], "no row of kind growth"),
        ("sensitivity", lambda t: t[t["noise_sd"] != 0.1], "no row of kind noise and noise_sd 0.1"),
        ("gradient_flow", lambda t: t[:0], "it is of other runs"),
        ("gradient_flow", lambda t: t.assign(run_id="other"), "it is of other runs"),
        (
            "gradient_flow",
            lambda t: t.assign(grad_norm=np.inf),
            "grad_norm of .* is inf, not a number",
        ),
        (
            "gradient_flow",
            lambda t: t.assign(unit=10**12),
            "unit of .* is 1000000000000, not a whole number from 0 to 9999",
        ),
        ("lesion", lambda t: t.assign(acc=5), "acc of .* is 5, not a number from 0 to 1"),
        ("sensitivity", lambda t: t.assign(model="other"), "its tables are of several networks"),
    ],
)
@pytest.mark.parametrize("raw", [True, False], ids=["of a run", "of a folder"])
def test_a_table_that_cannot_be_is_refused(tmp_path, name, change, said, raw):
    row = run_row(A)
    tables = diagnosis(row) | {name: change(diagnosis(row)[name])}
    folder = tmp_path / "runs" / row["run_id"] if raw else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    for own, table in tables.items():
        table.to_csv(folder / f"{own}.csv", index=False)
    with pytest.raises(UserError, match=rf"is no table of diagnose \({said}\): move it elsewhere"):
        read_diagnoses(tmp_path, [row["run_id"]])


def test_an_interrupted_diagnosis_is_no_mixture_of_two(diagnosed, tmp_path, monkeypatch):
    run = next((diagnosed / "runs").glob("rv_resnet8*"))
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    assert is_diagnosed(copy) and len(read_diagnoses(tmp_path, [run.name])["lesion"])

    def write(path, content):
        if path.name == "lesion.csv":
            raise KeyboardInterrupt
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("resnet_variants.records.manifest.write_atomically", write)
        rv.diagnose(copy, **SMALL | {"draws": 2, "images": 30})
    assert not is_diagnosed(copy)
    assert all(table.empty for table in read_diagnoses(tmp_path, [run.name]).values())


def test_a_file_of_the_users_is_not_overwritten(folder, capsys):
    (folder / "lesion.csv").write_text("mine")
    said = refused(folder, capsys, "--draws", "1", "--images", "60")
    assert f"lesion.csv in {str(folder)!r} would be overwritten; there is no manifest.json" in said
    assert (folder / "lesion.csv").read_text() == "mine"


def test_the_summary_is_what_the_tables_come_to(diagnosed):
    ids = [path.name for path in (diagnosed / "runs").glob("rv_resnet8*")]
    tables = read_diagnoses(diagnosed, ids)
    found = summarise_diagnoses(tables).set_index("measure")
    row = found["mean"]
    lesion = tables["lesion"]
    whole = lesion[lesion["kind"] == "none"].set_index("run_id")["acc"]
    alike = lesion[lesion["unit"] == 0]  # of three units, one per stage, only the first
    single = alike.groupby("run_id")["acc"]
    assert row["acc"] == pytest.approx(whole.mean())
    assert row["lost_by_one_unit"] == pytest.approx((whole - single.median()).mean())
    assert row["lost_by_worst_unit"] == pytest.approx((whole - single.min()).mean())
    flow = tables["gradient_flow"].query("name != 'output' and epoch == 3")
    for name, norms in {
        "gradient_ratio_trained": flow["grad_norm"],
        "scaled_ratio_trained": flow["grad_norm"] * flow["input_norm"],
    }.items():
        by_run = norms.groupby(flow["run_id"])
        assert row[name] == pytest.approx(gmean(by_run.max() / by_run.min()))
    assert set(found["seeds"]) == {2}
    assert np.isfinite(row["growth"])
    assert set(found["verdict"]) == {""} and not found["pairs"].any()  # nothing to compare with


def measured(**values):
    """Tables of runs of which only the accuracy and the gradients tell: by network and seed."""
    rows = [
        {"model": model, "seed": seed, "run_id": f"{model}{seed}", "n": 9, "unit": 0, "name": "x"}
        | {"acc": acc, "grad_norm": ratio, "input_norm": 1.0, "epoch": 1}
        for model, seeds in values.items()
        for seed, (acc, ratio) in enumerate(seeds)
    ]
    frame = pd.DataFrame(rows)
    return {name: frame[:0] for name in TABLES} | {
        "gradient_flow": pd.concat([frame, frame.assign(grad_norm=1.0)]),
        "identity_distance": frame.assign(branch_to_shortcut=0.5),
        "lesion": frame.assign(kind="none", keeps_shape=np.nan),
        "sensitivity": frame.assign(kind="growth", growth=1.0, noise_sd=np.nan),
    }


def test_measures_are_compared_by_pairs_of_seeds():
    accs = [0.1, 0.5, 0.2, 0.9, 0.4, 0.3]
    base = [(acc, 2.0 + i) for i, acc in enumerate(accs)]
    tables = measured(post=base, pre=[(acc + 0.05, 3 * ratio) for acc, ratio in base])
    found = summarise_diagnoses(tables, {"post": "post", "pre": "post"})
    found = found.set_index(["model", "measure"])
    acc, ratio = found.loc["pre", "acc"], found.loc["pre", "gradient_ratio_trained"]
    assert acc["difference"] == pytest.approx(0.05)
    assert ratio["difference"] == pytest.approx(3.0)
    assert ratio["mean"] == pytest.approx(3 * gmean([ratio for _, ratio in base]))
    for one in (acc, ratio):
        assert (one["pairs"], one["baseline"], one["verdict"]) == (6, "post", "higher")
        assert one["p_value"] == one["p_adjusted"] == 2 / 2**6
    own = found.loc["post", "acc"]
    assert own["verdict"] == "" and own["pairs"] == 0
    logs = np.log([ratio for _, ratio in base])
    half = t.ppf(0.975, 5) * np.std(logs, ddof=1) / 6**0.5
    assert found.loc["post", "gradient_ratio_trained"]["ci_high"] == pytest.approx(
        np.exp(logs.mean() + half)
    )


def test_the_networks_of_a_measure_are_adjusted_together():
    base = [(0.1 * i, 2.0 + i) for i in range(7)]
    others = {name: [(a + 0.1, 0.5 * r) for a, r in base] for name in "abc"}
    found = summarise_diagnoses(measured(base=base, **others), dict.fromkeys("abc", "base"))
    rows = found[found["pairs"] > 0].set_index("measure")
    assert rows.loc["acc", "p_adjusted"].tolist() == pytest.approx([2 / 2**7] * 3)
    assert rows.loc["acc", "verdict"].tolist() == ["higher"] * 3
    assert rows.loc["gradient_ratio_trained", "verdict"].tolist() == ["lower"] * 3


def test_one_seed_has_no_interval_and_no_verdict():
    tables = measured(a=[(0.1, 2.0)], b=[(0.3, 8.0)])
    found = summarise_diagnoses(tables, {"b": "a"}).set_index(["model", "measure"])
    ratio = found.loc["b", "gradient_ratio_trained"]
    assert ratio["difference"] == pytest.approx(4.0) and ratio["verdict"] == UNDECIDED
    assert np.isnan([ratio["ci_low"], ratio["difference_ci_low"], ratio["p_value"]]).all()
    told = readable_comparisons(found.reset_index()).set_index("measure")
    assert told.loc["gradient max/min, trained"].tolist()[:4] == ["b", "a", "x 4", 1]
    assert told.loc["validation accuracy %", "difference or quotient [95 %]"] == "+20.00"


def test_a_gradient_that_vanishes_breaks_nothing():
    tables = measured(a=[(0.1, 2.0), (0.1, 3.0)], b=[(0.1, np.inf), (0.1, 3.0)])
    found = summarise_diagnoses(tables, {"b": "a"}).set_index(["model", "measure"])
    ratio = found.loc["b", "gradient_ratio_trained"]
    assert np.isinf(ratio["mean"]) and np.isnan(ratio["ci_low"])
    told = readable_diagnoses(found.reset_index()).set_index("model")
    assert told.loc["b", "gradient max/min, trained"] == "inf"


# --- growth against noise ---------------------------------------------------------------------


def sensitivities(lost):
    """Tables of networks whose disturbances grow by 1, 2, 3, ... and what each loses by noise."""
    rows = []
    for i, (loss, seed) in enumerate(itertools.product(lost, (0, 1))):
        run = {"run_id": f"run{i}", "model": f"net{i // 2}", "seed": seed, "epoch": 1, "n": 9}
        run["name"] = "layer1.0"
        # Inside a network it is the other way round.
        rows += [
            run | {"kind": "growth", "unit": unit, "growth": i // 2 + unit - 0.1 * seed}
            for unit in (0, 1)
        ]
        noisy = 0.9 - loss - 0.01 * seed
        rows += [
            run | {"kind": "noise", "noise_sd": sd, "acc": noisy if sd else 0.9} for sd in (0, 0.1)
        ]
    frame = pd.DataFrame(rows)
    empty = {name: frame[:0] for name in TABLES}
    flow = frame[frame["kind"] == "growth"].assign(grad_norm=1.0, input_norm=1.0)
    return empty | {"gradient_flow": flow, "sensitivity": frame}


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "rank correlation +1.00, p 0.003 (6 networks)"),
        ([0.6, 0.5, 0.4, 0.3, 0.1, 0.2], "rank correlation -0.94, p 0.017 (6 networks)"),
        ([0.1, 0.3, 0.2, 0.4, 0.5], ""),  # too few
        ([0.1] * 6, ""),  # nothing varies
    ],
)
def test_the_figure_relates_growth_to_what_noise_costs(lost, said):
    figure = diagnosis_figure("sensitivity", sensitivities(lost), "digits")
    assert figure.axes[-1].get_ylabel() == "share of accuracy lost by noise of 0.1"
    assert figure.axes[-1].get_title(loc="left") == said


# --- networks with little to show -------------------------------------------------------------


def test_a_plain_net_without_units_of_one_shape_has_fewer_figures(tmp_path):
    plain = Variant(family="cifar", depth=11, shortcut="none", stem_stride=4)
    run = dataclasses.replace(digits_run(epochs=1, batch_size=512), variant=plain)
    found = rv.diagnose(trained(tmp_path, run), **SMALL)
    assert found.tables["identity_distance"]["cosine"].isna().all()
    assert {path.stem for path in found.files if path.suffix == ".svg"} == {
        *("gradient_flow", "lesion", "sensitivity", "shifts", "class_maps")
    }


def test_the_trained_state_is_drawn_of_runs_whose_best_epochs_differ():
    run = {"model": "a", "seed": 0, "n": 9, "unit": 0, "name": "layer1.0"}
    run |= {"grad_norm": 1.0, "input_norm": 1.0}
    ends = {"x": (0, 1, 2, 3), "y": (0, 1, 2, 4, 5)}
    rows = [run | {"run_id": i, "epoch": epoch} for i, own in ends.items() for epoch in own]
    frame = pd.DataFrame(rows)
    tables = {name: frame[:0] for name in TABLES} | {"gradient_flow": frame}
    panels = diagnosis_figure("gradient_flow", tables, "digits").axes
    assert [axes.get_title(loc="left") for axes in panels[:3]] == [
        *("initial weights", "after epoch 2", "trained (epoch 3 to 5)"),
    ]


def test_points_are_explained_by_the_legend():
    figure = diagnosis_figure("sensitivity", sensitivities([0.1] * 8), "digits")
    (legend,) = figure.legends
    looks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len(looks) == 8
    assert {(p.get_color(), p.get_marker()) for p in figure.axes[-1].lines} == looks
