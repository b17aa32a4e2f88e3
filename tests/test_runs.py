"""Run ids, and what one run leaves behind."""

import dataclasses
import json
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
from resnet_variants.records.run_folder import DONE
from resnet_variants.sweeps import execute as execution
from resnet_variants.sweeps.run import REFERENCE, Run, dataset_name
from resnet_variants.training import trainer
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.recipe import AUGMENTATIONS, Recipe

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


def test_every_recipe_field_is_in_the_id(monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "mine", lambda images, stream: images)
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
        ("fashion-mnist", 0, "fashion-mnist"),
        ("folder:/some/café", 0, "folder-caf"),
        ("folder:/some/数据", 0, "folder-vxup8b"),
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder, its result and the records of its epochs."""
    torch.set_num_threads(1)
    folder, records = tmp_path_factory.mktemp("runs") / tiny().id, []
    return folder, execute(tiny(), folder, hear=records.append), records


def test_a_run_leaves_its_records(trained):
    folder, result, records = trained
    assert sorted(p.name for p in folder.iterdir()) == [
        *("README.md", "config.json", "epochs.jsonl", "log.txt", "model.safetensors"),
        *("predictions.safetensors", "result.json", "run.json"),
    ]
    assert result["status"] == DONE
    assert json.loads((folder / "result.json").read_text()) == result
    config = json.loads((folder / "run.json").read_text())
    assert set(RUN_COLUMNS) - {"error"} <= {*config, *result}
    assert Recipe(**config["recipe"]) == tiny().recipe
    assert config["split_sizes"] == [1078, 120, 599]
    assert {"git_commit", "versions", "device_name", "threads", "command"} <= set(
        config["provenance"]
    )
    (epoch,) = map(json.loads, (folder / "epochs.jsonl").read_text().splitlines())
    assert epoch == dataclasses.asdict(records[0])
    cost = rv.cost(TINY, img_size=8, in_chans=1, num_classes=10)
    assert (config["params"], config["macs"]) == (cost.params, cost.macs)


def test_provenance_names_no_path_of_the_machine(trained):
    text = (trained[0] / "run.json").read_text()
    assert f"{Path.home()}/" not in text
    assert str(trained[0].parent) not in text


def test_the_same_run_twice_gives_the_same_weights(trained, tmp_path):
    execute(tiny(), tmp_path)
    one, other = (folder / "model.safetensors" for folder in (trained[0], tmp_path))
    assert one.read_bytes() == other.read_bytes()


def test_a_trained_run_loads_in_timm_by_its_folder(trained):
    run, (folder, result, _) = tiny(), trained
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.variant == run.variant
    assert model.pretrained_cfg["label_names"] == list("0123456789")
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())
    data = run.load()
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(-1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        logits = model((data.test.images / 255 - mean) / std)
    acc = (logits.argmax(1) == data.test.labels).double().mean()
    assert acc == pytest.approx(result["test_acc"], abs=0.01)  # it may have evaluated in bf16


def test_the_test_split_is_read_once_at_the_end(tmp_path, monkeypatch):
    seen = []

    def counted(model, split, *args, **kwargs):
        seen.append(len(split))
        return evaluate(model, split, *args, **kwargs)

    for module in (execution, trainer):
        monkeypatch.setattr(module, "evaluate", counted)
    execute(tiny(epochs=2), tmp_path)
    assert seen == [120, 120, 599, 120]
