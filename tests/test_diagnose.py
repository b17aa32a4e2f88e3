"""`diagnose` on trained runs: what it writes, what it refuses, and what reports make of it."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import gmean, t
from small import digits_run, execute

import resnet_variants as rv
from resnet_variants.analysis.diagnosis import summarise_diagnoses
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.statistics import TOO_FEW
from resnet_variants.diagnosis.distances import identity_distance
from resnet_variants.diagnosis.gradients import gradient_flow
from resnet_variants.diagnosis.lesions import lesion_study
from resnet_variants.diagnosis.study import MEASURES, Study, diagnose_run, validation_images
from resnet_variants.models.variant import Variant
from resnet_variants.records.diagnosis import TABLES, is_diagnosed, read_diagnoses
from resnet_variants.records.files import to_json
from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.reporting.figures.diagnosis import diagnosis_figure
from resnet_variants.reporting.text import readable_comparisons, readable_diagnoses
from resnet_variants.terminal import cli
from resnet_variants.training.device import Machine
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.interrupt import Stop

SMALL = {"images": 60, "batch_size": 30, "draws": 1}
NET, PLAIN = "rv_resnet8_cifar_b", "rv_resnet14_cifar_conv3_3x3_none"


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


def test_every_table_is_measured():
    assert MEASURES.keys() == TABLES.keys()


def test_a_run_gets_tables_and_figures(diagnosed):
    for folder in (diagnosed / "runs").iterdir():
        assert is_diagnosed(folder)
        plain = "none" in folder.name
        for name in TABLES:
            table = pd.read_csv(folder / f"{name}.csv")
            assert tuple(table) == TABLES[name].header
            assert table.empty == (plain and name == "paths")
            assert (folder / f"{name}.png").is_file() != table.empty
            assert (folder / f"{name}.svg").is_file() != table.empty
            assert set(table["run_id"]) <= {folder.name}


def test_the_states_are_those_before_during_and_after_training(diagnosed):
    by_run = {folder.name: folder for folder in (diagnosed / "runs").iterdir()}
    for name, folder in by_run.items():
        kept = [0, 1, 2, 3] if name.endswith("s0") else [0, 3]
        for table in ("gradient_flow", "identity_distance"):
            assert sorted(pd.read_csv(folder / f"{table}.csv")["epoch"].unique()) == kept
        for table in ("lesion", "sensitivity"):
            assert set(pd.read_csv(folder / f"{table}.csv")["epoch"]) == {3}


def test_the_initial_weights_are_those_that_the_run_began_with(folder):
    run = digits_run(epochs=3)
    model = run.build(run.load())
    table = diagnose_run(folder, Study(**SMALL))["identity_distance"]
    by_epoch = table.set_index("epoch")["branch_to_shortcut"]
    images, _ = validation_images(run.load(), Study(**SMALL), torch.device("cpu"))
    model = model.to(memory_format=torch.channels_last)
    expected = identity_distance(model, images[:30])["branch_to_shortcut"]
    assert by_epoch[0].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)
    assert by_epoch[3].to_numpy() != pytest.approx(expected.to_numpy(), rel=1e-3)


def test_the_whole_network_has_the_accuracy_of_the_run(folder):
    found = diagnose_run(folder, Study(images=1000, batch_size=100, draws=1))
    whole = found["lesion"].query("kind == 'none'")["acc"].item()
    assert whole == json.loads((folder / "result.json").read_text())["val_acc"]
    assert set(found["lesion"]["n"]) == {120}  # all that there are


@pytest.fixture
def asked(monkeypatch):
    """For each lesion study, whether it ran under autocast and with which seed."""
    seen = []

    def study(*args, **settings):
        seen.append((torch.is_autocast_enabled("cpu"), settings["seed"]))
        return lesion_study(*args, **settings)

    monkeypatch.setattr("resnet_variants.diagnosis.lesions.lesion_study", study)
    return seen


def test_the_precision_is_that_of_the_training_wherever_that_was(folder, asked, monkeypatch):
    diagnose_run(folder, Study(**SMALL))
    config = json.loads((folder / "run.json").read_text())
    config |= {"precision": "bf16", "recipe": config["recipe"] | {"precision": "auto"}}
    (folder / "run.json").write_text(json.dumps(config))
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)  # where `auto` would be fp32
    diagnose_run(folder, Study(**SMALL))
    assert [autocast for autocast, _ in asked] == [False, True]


def test_the_runs_of_a_network_lose_different_units(results, asked):
    for path in sorted((results / "runs").glob("rv_resnet8*")):
        for seed in (0, 0, 1):
            diagnose_run(path, Study(**SMALL, seed=seed))
    seeds = [seed for _, seed in asked]
    assert seeds[::3] == seeds[1::3]
    assert len(set(seeds)) == 4


def test_the_same_run_gives_the_same_tables(folder):
    first, again = (diagnose_run(folder, Study(**SMALL)) for _ in range(2))
    for name in TABLES:
        pd.testing.assert_frame_equal(first[name], again[name])
    other = diagnose_run(folder, Study(**SMALL, seed=1))
    assert not other["sensitivity"].equals(first["sensitivity"])


def test_the_command_says_what_it_found(folder, capsys):
    words = [str(folder), "--images", "60", "--batch-size", "30", "--draws", "1"]
    assert cli.main(["diagnose", *words]) == 0
    said = capsys.readouterr().out
    assert "rv_resnet8_cifar_b" in said and "lost without a unit" in said
    assert "gradient_flow.csv" in said
    assert is_diagnosed(folder)


LACKING = object()

# --- bad input --------------------------------------------------------------------------------


def refused(folder, capsys, *words):
    """The one line that says why."""
    known = len(folder.name) < 256 and folder.is_dir()
    before = sorted(path.name for path in folder.iterdir()) if known else None
    assert cli.main(["diagnose", str(folder), "--batch-size", "30", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    if before is not None:
        assert sorted(path.name for path in folder.iterdir()) == before
    return line


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "is no run's directory: it has no run.json" in refused(tmp_path, capsys)
    assert "is no run's directory" in refused(tmp_path / "nowhere", capsys)
    assert cli.main(["diagnose"]) == 2
    assert "missing RUN_DIR" in capsys.readouterr().err


def test_a_run_without_weights_is_refused(folder, capsys):
    (folder / "model.safetensors").unlink()
    assert "holds no weights: model.safetensors is missing" in refused(folder, capsys)
    (folder / "result.json").write_text('{"status": "failed", "seconds": 1}')
    assert "is failed: only a finished run can be diagnosed" in refused(folder, capsys)
    (folder / "result.json").unlink()
    assert "is not finished: only a finished run" in refused(folder, capsys)


@pytest.mark.parametrize("config", [True, False])
def test_weights_of_another_variant_are_refused(results, folder, capsys, config):
    other = next((results / "runs").glob("*none*"))
    for name in ("model.safetensors", "config.json")[: 1 + config]:
        shutil.copy(other / name, folder / name)
    said = refused(folder, capsys)
    if config:
        assert (
            "holds weights of rv_resnet14_cifar_conv3_3x3_none, not of rv_resnet8_cifar_b" in said
        )
    else:
        assert "these weights do not fit rv_resnet8_cifar_b: " in said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, capsys, value):
    weights = load_file(folder / "model.safetensors")
    weights["conv1.weight"][0, 0, 0, 0] = value
    save_file(weights, folder / "model.safetensors")
    assert "holds weights that are not finite" in refused(folder, capsys)


def test_a_name_that_is_too_long_is_refused(tmp_path, capsys):
    assert "File name too long" in refused(tmp_path / ("a" * 300), capsys)


@pytest.mark.parametrize("content", [b"", b"not a tensor" * 10])
def test_damaged_weights_are_refused(folder, capsys, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot read weights" in refused(folder, capsys)


def test_a_damaged_snapshot_is_refused(folder, capsys):
    (folder / "snapshots" / "epoch_000001.safetensors").write_bytes(b"x")
    assert "cannot read weights from" in refused(folder, capsys)


def test_fewer_images_than_the_batch_are_refused(folder, capsys):
    said = refused(folder, capsys, "--images", "20")
    assert said.endswith("--batch-size: batch_size 30 exceeds the 20 images")
    assert cli.main(["diagnose", str(folder), "--batch-size", "500"]) == 2
    assert "batch_size 500 exceeds the 120 validation images" in capsys.readouterr().err


def test_other_images_are_refused(folder, capsys, tmp_path):
    config = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(config | {"data_hash": "other"}))
    assert "--data: digits is not the images of this run (data_hash other" in refused(
        folder, capsys
    )
    assert "--data: " in refused(folder, capsys, "--data", "nothing")
    moved = config | {"provenance": {"data": f"folder:{tmp_path / 'gone'}"}}
    (folder / "run.json").write_text(json.dumps(moved))
    assert "gone" in refused(folder, capsys)
    assert cli.main(["diagnose", str(folder), "--data", "digits", "--draws", "1"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        *({"recipe": None}, {"recipe": {"epochs": "x"}}, {"recipe": {"unknown": 1}}),
        *({"model": "rv_x"}, {"seed": "a"}, {"precision": "fp8"}),
        *({"dataset": LACKING}, {"run_id": LACKING}, {"precision": LACKING}),
        {"split_hash": LACKING},
    ],
)
def test_a_damaged_configuration_is_refused(folder, capsys, change):
    config = json.loads((folder / "run.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not LACKING}
    (folder / "run.json").write_text(json.dumps(config))
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


def test_snapshots_are_the_weights_after_their_epochs(results, tmp_path):
    kept = next((results / "runs").glob("rv_resnet8*__s0")) / "snapshots"
    assert sorted(p.name for p in kept.iterdir()) == [
        "epoch_000001.safetensors",
        "epoch_000002.safetensors",
    ]
    assert not (next((results / "runs").glob("rv_resnet8*__s1")) / "snapshots").exists()
    first = load_file(kept / "epoch_000001.safetensors")
    assert first["bn1.num_batches_tracked"] == 4  # steps of an epoch


def test_run_diagnoses_when_asked_and_one_refusal_costs_no_other_run_its_report(tmp_path, capsys):
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


def test_a_run_that_was_stopped_at_the_end_of_an_epoch_keeps_its_snapshot(tmp_path, monkeypatch):
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
    names = [file.name for file in sorted((path / "snapshots").iterdir())]
    assert names == ["epoch_000001.safetensors", "epoch_000002.safetensors"]
    (tmp_path / "whole").mkdir()
    whole = trained(tmp_path / "whole", run, snapshots=True) / "snapshots"
    for name in names:
        expected = load_file(whole / name)
        found = load_file(path / "snapshots" / name)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


# --- reports ----------------------------------------------------------------------------------


def test_a_report_shows_all_diagnosed_runs(diagnosed, reported):
    files = {path.name for path in reported.files}
    assert {f"{name}.csv" for name in TABLES} | {"diagnosis.csv"} <= files
    assert {f"{name}.svg" for name in TABLES} <= files
    assert pd.read_csv(diagnosed / "lesion.csv")["run_id"].nunique() == 3
    summary = pd.read_csv(diagnosed / "diagnosis.csv").query("measure == 'acc'")
    assert summary.set_index("model")["seeds"].to_dict() == {NET: 2, PLAIN: 1}
    page = (diagnosed / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="diagnosis">Diagnosis</h2>' in page
    assert page.count('src="data:image/svg+xml;base64,') == len(TABLES)
    assert len(page) < 6_000_000


def test_a_report_compares_diagnosed_runs_with_their_baseline(diagnosed, reported):
    rows = pd.read_csv(diagnosed / "diagnosis.csv").query("pairs > 0")
    assert set(rows["model"]) == {NET} and set(rows["baseline"]) == {PLAIN}
    assert set(rows["pairs"]) == {1} and set(rows["verdict"]) == {TOO_FEW}
    compared = set(rows["measure"])
    assert {"acc", "lost_by_one_unit", "scaled_ratio_trained"} <= compared
    assert "branch_to_shortcut" not in compared  # a plain net has no shortcut
    page = (diagnosed / "report.html").read_text(encoding="utf-8")
    table = page.partition("Diagnosis, compared")[2].partition("</table>")[0]
    assert table.count("<tr data-row") == len(rows)


def test_the_tables_alone_give_the_same_report(diagnosed, reported, tmp_path):
    clone = tmp_path / diagnosed.name
    clone.mkdir()
    for path in diagnosed.iterdir():
        if path.suffix in (".csv", ".json"):
            shutil.copy(path, clone / path.name)
    build(clone)
    for name in (*TABLES, "diagnosis"):
        assert (clone / f"{name}.csv").read_bytes() == (diagnosed / f"{name}.csv").read_bytes()
        if name in TABLES:
            assert (clone / f"{name}.svg").read_bytes() == (diagnosed / f"{name}.svg").read_bytes()


def test_a_run_that_lacks_a_table_is_read_with_the_others(diagnosed, tmp_path):
    out = shutil.copytree(diagnosed, tmp_path / "out")
    run = next((out / "runs").glob("rv_resnet8*__s0"))
    (run / "gradient_flow.csv").unlink()
    assert not is_diagnosed(run)  # `run --diagnose` does it again
    tables = read_diagnoses(out, [path.name for path in (out / "runs").iterdir()])
    assert {name: table["run_id"].nunique() for name, table in tables.items()} == {
        **{"gradient_flow": 2, "paths": 2},
        **dict.fromkeys(("lesion", "identity_distance", "sensitivity"), 3),
    }
    seeds = summarise_diagnoses(tables).set_index(["model", "measure"])["seeds"]
    assert (seeds[NET]["acc"], seeds[NET]["gradient_ratio_trained"]) == (2, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_a_diagnosis_in_one_of_two_copies_of_a_run_is_kept(results, diagnosed, order):
    both, alone = load_results((results, diagnosed)[::order]), load_results([diagnosed])
    for name in TABLES:
        pd.testing.assert_frame_equal(both.diagnosis[name], alone.diagnosis[name])


def test_two_diagnoses_of_one_run_exclude_each_other(folder, capsys):
    before = sorted(path.name for path in folder.iterdir())
    with RunFolder(folder).claim():
        assert f"another command uses {str(folder)!r}: wait for it" in refused(folder, capsys)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert cli.main(["diagnose", str(folder), "--batch-size", "30", "--draws", "1"]) == 0


def test_whole_numbers_stay_whole(diagnosed, reported):
    whole = {"gradient_flow": ["seed", "epoch", "unit", "n"], "lesion": ["deleted"]}
    for name, columns in whole.items():
        for path in (diagnosed, next((diagnosed / "runs").iterdir())):
            table = pd.read_csv(path / f"{name}.csv")
            assert all(pd.api.types.is_integer_dtype(table[column]) for column in columns)


def test_a_directory_of_another_name_is_a_run_as_well(folder):
    other = folder.rename(folder.parent / "mymodel")
    assert set(rv.diagnose(other, **SMALL).tables["lesion"]["run_id"]) == {folder.name}


def test_a_results_folder_is_pointed_to_its_runs(results, capsys):
    assert f"name one of those in {results / 'runs'}" in refused(results, capsys)


def test_nothing_is_measured_where_one_of_several_cannot_be(folder, tmp_path, capsys):
    assert cli.main(["diagnose", str(folder), str(tmp_path)]) == 2
    assert not is_diagnosed(folder)
    assert "is no run's directory" in capsys.readouterr().err


def test_the_weights_of_the_best_epoch_are_called_so(tmp_path):
    run = digits_run(epochs=3, lr=1.0, select="best")
    path = trained(tmp_path, run, snapshots=True)
    best = json.loads((path / "result.json").read_text())["best_epoch"]
    found = diagnose_run(path, Study(**SMALL))
    assert set(found["lesion"]["epoch"]) == {best}
    before = {epoch for epoch in (1, 2) if epoch < best}
    assert set(found["gradient_flow"]["epoch"]) == {0, best, *before}


def test_a_damaged_table_is_refused(diagnosed, tmp_path):
    run = next((diagnosed / "runs").iterdir())
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    for text in ("", "a,b\n1,2\n", "\x00"):
        (copy / "lesion.csv").write_text(text)
        with pytest.raises(
            UserError, match=r"lesion\.csv is no table of diagnose .*: move it elsewhere"
        ):
            read_diagnoses(tmp_path, [run.name])


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
@pytest.mark.parametrize("whole", [False, True])
def test_a_table_that_cannot_be_is_refused(diagnosed, tmp_path, name, change, said, whole):
    run = next((diagnosed / "runs").glob("rv_resnet8*"))
    copy = tmp_path if whole else tmp_path / "runs" / run.name
    shutil.copytree(run, copy, dirs_exist_ok=True)
    change(pd.read_csv(copy / f"{name}.csv")).to_csv(copy / f"{name}.csv", index=False)
    with pytest.raises(UserError, match=rf"is no table of diagnose \({said}\): move it elsewhere"):
        read_diagnoses(tmp_path, [run.name])


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
    rv.diagnose(copy, **SMALL)
    assert is_diagnosed(copy)
    for name in TABLES:
        assert (copy / f"{name}.csv").read_bytes() == (run / f"{name}.csv").read_bytes()


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
        | {"acc": acc, "grad_norm": ratio, "epoch": 1}
        for model, seeds in values.items()
        for seed, (acc, ratio) in enumerate(seeds)
    ]
    frame = pd.DataFrame(rows)
    flow = [frame.assign(branch_norm=1.0, input_norm=1.0, grad_norm=g) for g in (1.0, None)]
    flow[1]["grad_norm"] = frame["grad_norm"]
    return {name: frame[:0] for name in TABLES} | {
        "gradient_flow": pd.concat(flow),
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
    half = t.ppf(0.975, 5) * np.std(accs, ddof=1) / 6**0.5
    assert own["ci_low"] == pytest.approx(np.mean(accs) - half)
    assert own["ci_high"] == pytest.approx(np.mean(accs) + half)
    assert own["verdict"] == "" and own["pairs"] == 0
    logs = np.log([ratio for _, ratio in base])
    half = t.ppf(0.975, 5) * np.std(logs, ddof=1) / 6**0.5
    assert found.loc["post", "gradient_ratio_trained"]["ci_high"] == pytest.approx(
        np.exp(logs.mean() + half)
    )


def test_holms_correction_of_measures_is_over_the_networks():
    base = [(0.1 * i, 2.0 + i) for i in range(7)]
    others = {name: [(a + 0.1, 0.5 * r) for a, r in base] for name in "abc"}
    found = summarise_diagnoses(measured(base=base, **others), dict.fromkeys("abc", "base"))
    rows = found[found["pairs"] > 0].set_index("measure")
    assert rows.loc["acc", "p_adjusted"].tolist() == pytest.approx([3 * 2 / 2**7] * 3)
    assert rows.loc["acc", "verdict"].tolist() == ["higher"] * 3
    assert rows.loc["gradient_ratio_trained", "verdict"].tolist() == ["lower"] * 3
    few = {name: own[:6] for name, own in ({"base": base} | others).items()}
    found = summarise_diagnoses(measured(**few), dict.fromkeys("abc", "base"))
    assert set(found.loc[found["measure"] == "acc", "verdict"]) == {"", TOO_FEW}


def test_one_seed_has_no_interval_and_no_verdict():
    tables = measured(a=[(0.1, 2.0)], b=[(0.3, 8.0)])
    found = summarise_diagnoses(tables, {"b": "a"}).set_index(["model", "measure"])
    ratio = found.loc["b", "gradient_ratio_trained"]
    assert ratio["difference"] == pytest.approx(4.0) and ratio["verdict"] == TOO_FEW
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
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "(rank correlation +1.00, p 0.003, 6 networks)"),
        ([0.6, 0.5, 0.4, 0.3, 0.1, 0.2], "(rank correlation -0.94, p 0.017, 6 networks)"),
        ([0.1, 0.3, 0.2, 0.4, 0.5], ""),  # too few
        ([0.1] * 6, ""),  # nothing varies
    ],
)
def test_the_figure_relates_growth_to_what_noise_costs(lost, said):
    figure = diagnosis_figure("sensitivity", sensitivities(lost), "digits")
    first, *rest = figure.axes[-1].get_title(loc="left").splitlines()
    assert first == "share of accuracy lost by noise of 0.1"
    assert "".join(rest) == said


# --- networks with little to show -------------------------------------------------------------


def test_a_plain_net_without_units_of_one_shape_has_fewer_figures(tmp_path):
    plain = Variant(depth=14, block="bottleneck", shortcut="none", stem_stride=4)
    run = dataclasses.replace(digits_run(epochs=1, batch_size=512), variant=plain)
    found = rv.diagnose(trained(tmp_path, run), **SMALL)
    assert found.tables["identity_distance"]["cosine"].isna().all()
    assert {path.stem for path in found.files if path.suffix == ".svg"} == {
        *("gradient_flow", "lesion", "sensitivity")
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


def test_where_no_unit_keeps_its_shape_none_is_lost_that_does(tmp_path):
    """Three bottlenecks that all change the shape can be deleted, but compare with no plain net."""
    short = Variant(family="cifar", depth=11, block="bottleneck")
    run = dataclasses.replace(digits_run(epochs=1), variant=short)
    tables = rv.diagnose(trained(tmp_path, run), **SMALL).tables
    assert tables["lesion"].query("kind == 'delete'")["keeps_shape"].tolist() == [0, 0, 0]
    found = summarise_diagnoses(tables).set_index("measure")["mean"]
    assert np.isnan(found["lost_by_one_unit"]) and np.isfinite(found["gradient_ratio_trained"])


def test_points_are_explained_by_the_legend():
    figure = diagnosis_figure("sensitivity", sensitivities([0.1] * 8), "digits")
    (legend,) = figure.legends
    looks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len(looks) == 8
    assert {(p.get_color(), p.get_marker()) for p in figure.axes[-1].lines} == looks


def test_gradients_are_measured_in_full_precision(folder, monkeypatch):
    settings, seen = torch.backends.cudnn.conv, []
    before = settings.fp32_precision

    def flow(*args):
        seen.append(settings.fp32_precision)
        return gradient_flow(*args)

    monkeypatch.setattr("resnet_variants.diagnosis.gradients.gradient_flow", flow)
    diagnose_run(folder, Study(**SMALL))
    assert set(seen) == {"ieee"}
    assert settings.fp32_precision == before


def test_a_gradient_of_zero_has_no_ratio():
    model = rv.create_model("rv_resnet8_cifar_b_preact", num_classes=3)
    torch.nn.init.zeros_(model.fc.weight)
    found = gradient_flow(model, torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
    assert found["grad_norm"].eq(0).all()
    assert found["recursion_error"].isna().all()
