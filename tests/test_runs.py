"""Run ids, and what one run leaves behind."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from recipes import OTHERS
from small import execute

import resnet_variants as rv
from resnet_variants.data.dataset import Loading
from resnet_variants.models.grids import preset
from resnet_variants.models.variant import Variant
from resnet_variants.records.results_folder import RUN_COLUMNS
from resnet_variants.records.run_folder import DIVERGED, DONE, FAILED
from resnet_variants.registry import UserError
from resnet_variants.sweeps import execute as execution
from resnet_variants.sweeps.run import REFERENCE, Run, dataset_name
from resnet_variants.training import trainer
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.recipe import Recipe

TINY = Variant(family="cifar", depth=11, stem="deep", stride="1x1")


def tiny(**recipe):
    return Run(TINY, "digits", Recipe(**{"epochs": 1, "deterministic": True} | recipe), 0)


def test_run_ids_are_frozen(golden):
    d50 = preset("D", depth=50, preact=True)
    examples = [
        Run(d50, "digits", Recipe(), 0),
        Run(d50, "digits", Recipe(), 7),
        Run(d50, "digits", Recipe(epochs=30), 0),
        Run(d50, "digits", Recipe(epochs=30, lr=0.05, batch_size=128), 0),
        Run(d50, "digits", Recipe(deterministic=True), 0, img_size=16),
        Run(TINY, "digits", Recipe(precision="fp32", weight_decay=0), 1),
    ]
    golden("run_ids", [{"run_id": run.id} for run in examples])


def test_a_changed_default_changes_no_old_id(golden):
    """When this fails, give REFERENCE the old value of the field; a new field adds a line."""
    golden(
        "reference_recipe",
        [{"field": k, "value": v} for k, v in dataclasses.asdict(REFERENCE).items()],
    )
    other = dataclasses.replace(REFERENCE, lr=REFERENCE.lr / 2)
    assert Run(TINY, "digits", other, 0).id != Run(TINY, "digits", REFERENCE, 0).id


def test_every_recipe_field_is_in_the_id():
    assert OTHERS.keys() == {field.name for field in dataclasses.fields(Recipe)}
    ids = {Run(TINY, "digits", Recipe(**{key: value}), 0).id for key, value in OTHERS.items()}
    assert len(ids | {Run(TINY, "digits", Recipe(), 0).id}) == len(OTHERS) + 1


def test_how_images_are_got_at_is_not_in_the_id():
    loading = Loading(data_dir="elsewhere", on_bad_image="skip", workers=3)
    assert dataclasses.replace(tiny(), loading=loading).id == tiny().id


@pytest.mark.parametrize(
    ("spec", "img_size", "name"),
    [
        ("digits", 0, "digits"),
        ("digits", 16, "digits-16px"),
        ("folder:/some/pets", 224, "folder-pets-224px"),
        ("folder:/some/my  pets__2/", 0, "folder-my-pets-2"),
        ("timm:hfds/a/b", 0, "timm-hfds-a-b"),
        ("fashion-mnist", 0, "fashion-mnist"),
        ("folder:/some/café", 0, "folder-caf"),
        ("folder:/some/数据", 0, "folder-vxup8b"),
        ("folder:/some/чат", 0, "folder-80a0bn"),
        ("folder:/some/й", 0, "folder-i1a"),
        ("folder:/some/и\u0306", 0, "folder-i1a"),
        ("folder:~nobody2", 0, "folder-nobody2"),
        ("folder:/some/" + "n" * 121, 0, "folder-" + "n" * 121),
        ("folder:/some/" + "n" * 255, 0, "folder-" + "n" * 112 + "-3bb555e4"),
    ],
)
def test_data_have_a_name_that_fits_into_a_file_name(spec, img_size, name):
    run = Run(TINY, spec, Recipe(), 0, img_size)
    assert run.dataset == name
    assert run.id.split("__")[1] == name


def test_a_link_to_itself_has_a_name(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert dataset_name(f"folder:{tmp_path}/loop") == "folder-loop"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        *(("folder:", "unknown data .*; .*choices: digits"), ("no-such", "unknown data .*choices")),
        *((f"folder:a{letter}b", "NUL or bytes that are no UTF-8") for letter in "\0\udce9"),
    ],
)
def test_what_names_no_data_has_no_name(spec, message):
    with pytest.raises(UserError, match=message):
        dataset_name(spec)


def test_a_run_leaves_its_records_and_a_timm_model(tmp_path):
    run, seen = tiny(), []
    result = execute(run, tmp_path / run.id, hear=seen.append)
    folder = tmp_path / run.id
    assert sorted(p.name for p in folder.iterdir()) == [
        *("README.md", "config.json", "epochs.jsonl", "log.txt", "model.safetensors"),
        *("predictions.safetensors", "result.json", "run.json"),
    ]
    assert result["status"] == DONE
    assert json.loads((folder / "result.json").read_text()) == result
    config = json.loads((folder / "run.json").read_text())
    assert set(RUN_COLUMNS) - {"error"} <= {*config, *result}
    assert Recipe(**config["recipe"]) == run.recipe
    assert config["split_sizes"] == [1078, 120, 599]
    assert {"git_commit", "versions", "device_name", "threads", "command"} <= set(
        config["provenance"]
    )
    (epoch,) = map(json.loads, (folder / "epochs.jsonl").read_text().splitlines())
    assert epoch == dataclasses.asdict(seen[0])
    cost = rv.cost(TINY, img_size=8, in_chans=1, num_classes=10)
    assert (config["params"], config["macs"]) == (cost.params, cost.macs)


@pytest.mark.parametrize(
    "variant",
    [TINY, preset("D", family="cifar", depth=20), Variant(family="cifar", depth=8, stem_stride=2)],
    ids=lambda v: v.name,
)
def test_a_trained_run_loads_in_timm_by_its_folder(variant, tmp_path):
    run = dataclasses.replace(tiny(), variant=variant)
    execute(run, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert model.variant == variant
    assert model.pretrained_cfg["label_names"] == list("0123456789")
    saved = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())
    data = run.load()
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(-1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        logits = model((data.test.images / 255 - mean) / std)
    acc = (logits.argmax(1) == data.test.labels).double().mean()
    told = json.loads((tmp_path / "result.json").read_text())["test_acc"]
    assert acc == pytest.approx(told, abs=0.01)  # the run may have evaluated in bf16


def test_the_same_run_twice_gives_the_same_weights(tmp_path):
    weights = []
    for name in ("one", "other"):
        execute(tiny(), tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_test_split_is_read_once_at_the_end(tmp_path, monkeypatch):
    seen = []

    def counted(model, split, *args, **kwargs):
        seen.append(len(split))
        return evaluate(model, split, *args, **kwargs)

    for module in (execution, trainer):
        monkeypatch.setattr(module, "evaluate", counted)
    execute(tiny(epochs=2), tmp_path)
    assert seen == [120, 120, 599, 120]


def test_an_error_becomes_a_failed_run_with_its_traceback(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(execution, "fit", broken)
    result = execute(tiny(), tmp_path)
    assert (result["status"], result["error"]) == (FAILED, "RuntimeError: out of luck")
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" in log
    assert "in broken" in log
    assert not (tmp_path / "model.safetensors").exists()


def test_a_diverged_run_says_when(tmp_path):
    result = execute(tiny(lr=1e30, precision="fp32"), tmp_path)
    assert result["status"] == DIVERGED
    assert re.match(r"the (loss|gradient) is not finite at step \d+ \(epoch 1\)", result["error"])
    assert result["error"] in (tmp_path / "log.txt").read_text()


def test_an_interrupted_run_has_no_result_and_starts_afresh(tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(tiny(epochs=2), tmp_path, hear=stop)
    assert not (tmp_path / "result.json").exists()
    assert execute(tiny(epochs=2), tmp_path)["status"] == DONE
    assert len((tmp_path / "epochs.jsonl").read_text().splitlines()) == 2


def test_provenance_names_no_path_of_the_machine(tmp_path):
    execute(tiny(), tmp_path / "run")
    text = (tmp_path / "run" / "run.json").read_text()
    assert f"{Path.home()}/" not in text
    assert str(tmp_path) not in text
