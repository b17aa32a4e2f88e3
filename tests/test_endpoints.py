"""Endpoints beside test accuracy, all pairs of arms, and the plan that a folder keeps."""

import dataclasses
import json
import shutil

import pytest
import torch
from factories import A, B, D, comparison, paired_rows, runs_frame
from small import sweep

from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.reporting.findings import headline
from resnet_variants.sweeps.experiment import Experiment, read_toml
from resnet_variants.sweeps.sweep import Options, run_sweep

BASE = [0.60, 0.62, 0.61, 0.63, 0.60, 0.61]
SCORES = {A: BASE, B: [acc + 0.02 + i / 1000 for i, acc in enumerate(BASE)], D: BASE[::-1]}


def compared(**plan):
    runs = runs_frame(paired_rows(SCORES))
    runs["train_loss"] = [0.1 * (1 + i % 6) for i in range(len(runs))]
    return dataclasses.replace(comparison(runs, {A: A, B: A, D: A}), plan=Plan(**plan))


def test_each_endpoint_has_its_own_table_and_one_is_primary():
    found = compared(endpoint="test_loss", margin=0.5).endpoints
    roles = found.groupby("endpoint")["role"].unique().map(list)
    assert roles.to_dict() == {
        **{key: ["secondary"] for key in ("test_acc", "val_acc", "train_loss")},
        "test_loss": ["primary"],
    }
    rows = found.set_index(["endpoint", "model"])
    # The loss of these runs is 1 - accuracy: lower is better.
    assert rows.loc[("test_loss", B), "difference"] == pytest.approx(-0.0225)
    assert rows.loc[("test_loss", B), "verdict"] == rows.loc[("test_acc", B), "verdict"] == "better"
    assert rows.loc[("train_loss", B), "verdict"] == "undecided"


def test_the_headline_begins_with_the_declared_endpoint():
    first, second, *_ = headline([compared(endpoint="test_loss")])
    assert first == "By test loss, which was declared to decide, against A: B better, D undecided."
    assert second.startswith("By test accuracy, a secondary endpoint: B is better than A by 2.3")


def test_all_pairs_are_compared_only_if_asked_for():
    assert compared().all_pairs.empty
    found = compared(compare="all").all_pairs
    pairs = [{*pair} for pair in found[["model", "baseline"]].to_numpy().tolist()]
    assert pairs == [{A, B}, {A, D}, {B, D}]
    own = found.set_index(["model", "baseline"])["difference"]
    assert own[(B, A)] == pytest.approx(0.0225)
    assert own[(D, B)] == pytest.approx(-0.0225)


# --- the plan of a folder ---------------------------------------------------------------------

TOML = """
seeds = 6
margin = 0.5
endpoint = "val_acc"
compare = "all"
[grid]
family = "cifar"
depth = [11]
preset = ["A", "D"]
[recipe]
epochs = 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An experiment, and a folder with one run of it."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trained")
    experiment = read_toml(write(root))
    small = dataclasses.replace(experiment, variants=experiment.variants[:1], seeds=1)
    assert sweep(small, root / "out", Options())
    return experiment, root / "out"


@pytest.fixture
def folder(trained, tmp_path):
    """The experiment, and a copy of the folder that a test may spoil."""
    experiment, out = trained
    return experiment, shutil.copytree(out, tmp_path / "out")


def test_a_folder_keeps_the_plan_of_its_first_run(folder):
    experiment, out = folder
    (part,) = load_results([out]).comparisons
    assert part.plan == Plan(1, 0.5, "val_acc", "all")
    for name, value, was in (("margin", 0.2, "0.5"), ("endpoint", "train_loss", "val_acc")):
        with pytest.raises(UserError) as caught:
            run_sweep(dataclasses.replace(experiment, **{name: value}), out, Options())
        assert f"the {name} of " in str(caught.value) and f"has been {was} since" in str(
            caught.value
        )
        assert caught.value.field == name


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"seeds": "nine"}, "seeds 'nine'"),
        ({"margin": -1}, "margin -1"),
        ({"endpoint": "accuracy"}, "unknown endpoint 'accuracy'"),
        (["seeds"], "plan is no table"),
    ],
)
def test_a_damaged_plan_is_one_line(folder, plan, words):
    _, out = folder
    file = out / "experiment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"plan": plan}))
    with pytest.raises(UserError) as caught:
        build(out)
    assert words in str(caught.value) and "experiment.json is damaged" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("margin", [0, -0.2, 100, True, "0.2 %", float("nan")])
def test_a_margin_is_a_number_of_points(tmp_path, margin):
    with pytest.raises(UserError, match="must be a number of points above 0 and below 100"):
        Experiment(name="x", variants=read_toml(write(tmp_path)).variants, margin=margin)


def write(folder):
    (folder / "x.toml").write_text(TOML)
    return folder / "x.toml"


def test_a_folder_of_an_earlier_version_has_no_plan(folder):
    _, out = folder
    file = out / "experiment.json"
    record = json.loads(file.read_text())
    del record["plan"]
    file.write_text(json.dumps(record))
    (part,) = load_results([out]).comparisons
    assert part.plan == Plan()
    assert part.summary["verdict"].tolist() == ["baseline"]
