"""Arms: settings of the recipe that vary like axes of the network, and robust ones."""

import dataclasses
import itertools
import shutil

import numpy as np
import pandas as pd
import pytest
from factories import comparison, run_row, runs_frame
from small import CPU, recipe, sweep

from resnet_variants.analysis.results import load_results
from resnet_variants.api import report
from resnet_variants.models.grids import grid
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.registry import UserError
from resnet_variants.reporting.figures.robustness import search_curves
from resnet_variants.reporting.text import readable_search
from resnet_variants.run import read
from resnet_variants.sweeps import execute
from resnet_variants.sweeps.experiment import Experiment, read_toml
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.search import choose, search_of, tuned
from resnet_variants.sweeps.sweep import Options

B, D = "rv_resnet11_cifar_b", "rv_resnet11_cifar_d"
NETWORKS = tuple(grid(family="cifar", depth=11, preset=["B", "D"]))


def experiment(**fields):
    return Experiment(**{"name": "x", "variants": NETWORKS, "recipe": recipe(epochs=1)} | fields)


def names(**fields):
    return [arm.name for arm in experiment(**fields).arms]


# --- what an arm is ---------------------------------------------------------------------------


def test_an_arm_is_named_by_what_is_not_usual():
    assert names() == [B, D]
    assert names(vary={"mixup": [0, 0.2]}) == [B, f"{B} + mixup 0.2", D, f"{D} + mixup 0.2"]
    vary = {"zero_init_last": [True, False], "auto_augment": ["", "rand-m6"], "lr": [0.3, 0.1]}
    assert names(variants=NETWORKS[:1], vary=vary)[:4] == [
        f"{B} + zero_init_last + lr 0.3",
        f"{B} + zero_init_last",
        f"{B} + zero_init_last + auto_augment rand-m6 + lr 0.3",
        f"{B} + zero_init_last + auto_augment rand-m6",
    ]


def test_where_the_recipes_own_value_is_not_listed_the_first_is_usual():
    assert names(variants=NETWORKS[:1], vary={"lr": [0.3, 1]}) == [B, f"{B} + lr 1.0"]


def test_an_arm_trains_as_its_recipe_alone_would():
    varied = experiment(vary={"mixup": [0.0, 0.2]}).runs
    alone = [
        Run(network, "digits", recipe(epochs=1, mixup=mixup), 0)
        for network in NETWORKS
        for mixup in (0.0, 0.2)
    ]
    assert [run.id for run in varied[:4]] == [run.id for run in alone]


@pytest.mark.parametrize(
    ("fields", "bases"),
    [
        ({}, [B, B, B, B]),
        ({"baseline": {"preset": "D"}}, [D, D, D, D]),
        ({"baseline": {"preset": "D", "mixup": 0.2}}, [f"{D} + mixup 0.2"] * 4),
        ({"baseline": {"mixup": 0}}, [B, B, D, D]),
        ({"robust": ["mixup"]}, [B, f"{B} + mixup 0.2"] * 2),
    ],
)
def test_a_baseline_names_fields_of_networks_and_settings(fields, bases):
    assert [*experiment(vary={"mixup": [0.0, 0.2]}, **fields).baselines().values()] == bases


FILE = """
seeds = 6
[grid]
family = "cifar"
depth = 11
preset = ["B", "D"]
mixup = [0.0, 0.2]
batch_size = 64
[recipe]
epochs = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", "lr = [0.1, 0.3]", "lr is a list: what varies belongs to [grid]"),
        ("epochs = 1", "mixup = 0.2", "mixup is fixed in [recipe] and varied in [grid]"),
        ("[0.0, 0.2]", "[0.0, 0]", "mixup lists 0.0 twice: two arms would be one"),
        ("[0.0, 0.2]", "[]", "mixup [] must be a list of values"),
        ("[0.0, 0.2]", f"[0, 1{'0' * 400}]", "must be at least 0 and below 1000000"),
        (
            "mixup = [0.0, 0.2]",
            "milestones = [[0.5, 0.7], [0.7, 0.5]]",
            "rv_resnet11_cifar_b and rv_resnet11_cifar_b + milestones [0.7, 0.5] are the same",
        ),
        ("[0.0, 0.2]", "[0.0, -1]", "at mixup -1.0: mixup -1.0 must be"),
        ("seeds", "baseline = { mixup = 0.3 }\nseeds", "unknown mixup of the baseline '0.3'"),
        ("seeds", "baseline = { lr = 0.3 }\nseeds", "lr does not vary: list its values in [grid]"),
        ("seeds", 'robust = ["lr"]\nseeds', "'lr' does not vary: give its values"),
        (
            "seeds",
            'robust = ["mixup"]\nbaseline = { mixup = 0.2 }\nseeds',
            "mixup is robust: each arm is compared at its own: drop it from baseline",
        ),
        ("seeds", "tune = { batch_size = [32, 64] }\nseeds", "batch_size is fixed and tuned"),
        (
            "seeds",
            "tune = { milestones = [[0.5, 0.7], [0.7, 0.5]] }\nseeds",
            "milestones lists one value in two spellings",
        ),
        ("mixup =", "crop_pct =", "crop_pct cannot vary: all arms are tested on the same images"),
        ("mixup = [0.0, 0.2]", "epochs = [1, 2]", "epochs is fixed in [recipe] and varied"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(old, new, message, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(UserError) as error:
        read_toml(path)
    assert message in str(error.value)


def test_a_file_and_flags_say_the_same(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(FILE)
    made = read_toml(path)
    assert made.recipe.batch_size == 64  # one value is no axis
    flags = "--variant B D --depth 11 --epochs 1 --batch-size 64 --vary mixup=0,0.2 --seeds 6"
    told, _ = read(flags.split())
    assert [run.id for run in told.runs] == [run.id for run in made.runs]
    assert told.name == "digits_cifar11_BD_mixup"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--vary lr", "--vary: 'lr' must be a setting with its values, once: lr=0.03,0.1"),
        ("--vary lr=1,2 lr=3", "--vary: 'lr=3' must be a setting"),
        ("--vary lr=", "--vary: 'lr=' must be a setting with its values, once: lr=0.03,0.1"),
        ("--vary", "--vary: missing a value"),
        (
            "--vary milestones=0.5:2,0.5:0.7",
            "--milestones: at milestones [0.5, 2]: milestones 2 must be above 0 and below 1",
        ),
        ("--robust lr", "--robust: 'lr' does not vary: give its values"),
        ("--vary lr=1,2 --robust lr lr", "--robust: lr is named twice"),
        ("--tune lr=1,2 seeds=1,2", "--tune: tune has one number of seeds"),
        ("--vary lr=1,2 --lr 3", "--lr: lr is given and varied, or tuned: drop one"),
        ("--vary weight_decay=0,1 --weight_decay 3", "--weight-decay: weight_decay is given and"),
        ("--vary lr=1 --stem_stride --epochs 1", "--stem-stride: missing a value"),
        (
            "--vary normalise=auto,data",
            "--vary: rv_resnet29_cifar_a and rv_resnet29_cifar_a + normalise data are",
        ),
        ("--vary foo=1", "--vary: unknown recipe setting 'foo'"),
        ("--vary optimizer=sgd,foo", "--optimizer: at optimizer foo: unknown optimizer 'foo'"),
        ("--experiment recipe_tricks --mixup 0.1", "--mixup: mixup is given and varied"),
        ("--experiment digits_grid --vary lr=1,2", "--experiment: the file names what varies"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(flags, message, complaint):
    assert complaint("run", *flags.split()).startswith(f"resnet-variants run: {message}")


# --- results ----------------------------------------------------------------------------------

LR = (0.03, 0.1, 0.3)
D_OVER_B = {0.03: 0.05, 0.1: 0.04, 0.3: -0.05}  # by learning rate


def trains_by(monkeypatch, score):
    """Every run gets the accuracy that a function of network, recipe and seed says."""

    def train(job, data, fabric, stop, gradients):
        acc = score(job.run.variant.preset, job.run.recipe, job.run.seed)
        numbers = {"test_loss": 1.0, "val_acc": acc, "train_loss": 1.0, "seconds": 1.0}
        yield {"status": "done", "test_acc": acc, "n_test": 599} | numbers

    monkeypatch.setattr(execute, "_train", train)


def swept(made, out):
    sweep(made, out, Options(machine=CPU))


def trained(out, monkeypatch, score, **fields):
    trains_by(monkeypatch, score)
    swept(experiment(**fields), out)
    return out


def test_a_verdict_holds_at_the_values_where_it_is_the_same(monkeypatch, tmp_path):
    def score(preset, own, seed):
        return 0.6 + 0.01 * seed + 0.001 * (seed % 2) + (preset == "D") * D_OVER_B[own.lr]

    vary = {"lr": LR}
    out = trained(tmp_path / "x", monkeypatch, score, seeds=6, vary=vary, robust=["lr"])
    (part,) = load_results([out]).comparisons
    (row,) = part.robustness.to_dict("records")
    assert (row["model"], row["baseline"], row["verdict"]) == (D, B, "better")
    assert (row["values"], row["same_sign"], row["holds"]) == (3, 2, 2)
    assert (row["delta_lowest"], row["delta_highest"]) == pytest.approx((-0.05, 0.05))
    made = report(out)
    assert "Over values of lr, the verdict on D holds at 2 of 3." in " ".join(made.headline)
    assert {"robustness.csv", "robustness.png"} <= {file.name for file in made.files}


def test_effects_over_networks_and_settings_are_those_of_least_squares(monkeypatch, tmp_path):
    """The grid of Bag of Tricks, table 6: three settings, two networks."""
    vary = {"schedule": ["step", "cosine"], "label_smoothing": [0.0, 0.1], "mixup": [0.0, 0.2]}
    draw = np.random.default_rng(0)
    cells = itertools.product("BD", *vary.values(), range(6))
    scores = {cell: 0.8 + 0.05 * draw.standard_normal() for cell in cells}

    def score(preset, own, seed):
        return scores[preset, *(getattr(own, name) for name in vary), seed]

    out = trained(tmp_path / "x", monkeypatch, score, seeds=6, vary=vary)
    (part,) = load_results([out]).comparisons
    found = part.effects.set_index("effect")["estimate"]
    usual = {"preset": "B", "schedule": "cosine", "label_smoothing": 0.0, "mixup": 0.0}
    axes = ("preset", *vary)
    is_other = np.array(
        [[own != usual[axis] for axis, own in zip(axes, cell, strict=False)] for cell in scores]
    )
    signs = np.where(is_other, 0.5, -0.5)
    columns = {axis: signs[:, i] for i, axis in enumerate(axes)}
    for (i, one), (j, other) in itertools.combinations(enumerate(axes), 2):
        columns[f"{one} x {other}"] = signs[:, i] * signs[:, j]
    design = np.column_stack([np.ones(len(signs)), *columns.values()])
    fit = np.linalg.lstsq(design, np.array([*scores.values()]), rcond=None)[0][1:]
    expected = dict(zip(columns, fit, strict=True))
    assert {*found.index} == {*expected}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_clone_has_the_arms_of_the_original(monkeypatch, tmp_path):
    def score(preset, own, seed):
        return 0.6 + 0.01 * seed + own.mixup / 10

    out = trained(tmp_path / "x", monkeypatch, score, seeds=6, vary={"mixup": [0.0, 0.2]})
    report(out)
    first = pd.read_csv(out / "summary.csv")
    assert first["model"].tolist() == names(vary={"mixup": [0.0, 0.2]})
    assert first["mixup"].tolist() == [0.0, 0.2] * 2
    assert set(pd.read_csv(out / "runs.csv")["mixup"]) == {0.0, 0.2}
    shutil.rmtree(out / "runs")
    report(out, out=tmp_path / "again")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again" / "summary.csv"), first)


def test_a_folder_keeps_what_names_leave_out(monkeypatch, tmp_path):
    out = trained(tmp_path / "x", monkeypatch, lambda *_: 0.5, seeds=1, vary={"mixup": [0.0, 0.2]})
    trained(out, monkeypatch, lambda *_: 0.5, seeds=1, vary={"lr": [0.1, 0.3]})
    assert read_experiment(out)["varied"] == {"mixup": "0.0", "lr": "0.1"}
    with pytest.raises(UserError, match="without a mixup in their name have"):
        trained(out, monkeypatch, lambda *_: 0.5, seeds=1, vary={"mixup": [0.1, 0.2]})


# --- a search before ---------------------------------------------------------------------------


TUNE = {"lr": LR, "seeds": 2}
BEST = {"B": 0.1, "D": 0.3}  # of seeds from 10,000 on; other seeds are never asked


def by_own_best(preset, own, seed):
    return 0.6 + 0.001 * seed % 0.005 + 0.2 * (own.lr == BEST[preset]) + 0.05 * (preset == "D")


def test_each_arm_is_trained_with_its_own_best_value_and_fresh_seeds(monkeypatch, tmp_path):
    trains_by(monkeypatch, by_own_best)
    out, made = tmp_path / "x", experiment(seeds=6, tune=TUNE)
    search = search_of(made)
    assert {run.seed for run in search.runs} == {10_000, 10_001}
    assert [arm.recipe.lr for arm in search.arms] == [*LR] * 2
    with pytest.raises(UserError, match="has not ended"):
        tuned(made, out)
    swept(search, out / "search")
    more = tuned(made.with_more(1, [D]), out).runs[12:]  # have the tuned values too
    assert {(run.name, run.recipe.lr, run.seed) for run in more} == {(B, 0.1, 6), (D, 0.3, 6)}
    made = tuned(made, out)
    assert made.tuned == {B: {"lr": 0.1}, D: {"lr": 0.3}}
    assert {(run.name, run.recipe.lr) for run in made.runs} == {(B, 0.1), (D, 0.3)}
    assert {run.seed for run in made.runs} == set(range(6))
    swept(made, out)
    (part,) = load_results([out]).comparisons  # other recipes, one comparison
    (row,) = part.summary.loc[part.summary["model"] == D].to_dict("records")
    assert (row["baseline"], row["verdict"], row["pairs"]) == (B, "better", 6)
    assert row["delta"] == pytest.approx(0.05)
    assert dict(zip(part.summary["model"], part.summary["lr"], strict=True)) == {B: "0.1", D: "0.3"}
    assert [row["chosen"] for row in part.searched] == [False, True, False, False, False, True]
    made = report(out)
    runs = pd.read_csv(out / "runs.csv").set_index("model")
    assert [*runs["lr"][B], *runs["lr"][D]] == [0.1] * 6 + [0.3] * 6
    assert {"search.png", "search.svg"} <= {file.name for file in made.files}
    assert "The search took" in (out / "report.html").read_text()
    table = pd.read_csv(out / "search.csv")
    assert table["arm"].tolist() == [B] * 3 + [D] * 3
    assert table.loc[table["chosen"], "lr"].tolist() == [0.1, 0.3]


def test_a_folder_whose_search_was_interrupted_says_so(tmp_path):
    (tmp_path / "search" / "runs").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a search, and no runs yet: the same `run` goes on"):
        report(tmp_path)


def test_a_value_at_which_a_run_fails_is_not_chosen(monkeypatch, tmp_path):
    def score(preset, own, seed):
        if own.lr == BEST[preset]:
            raise ValueError("diverged")
        return by_own_best(preset, own, seed)

    trains_by(monkeypatch, score)
    made = experiment(seeds=6, tune=TUNE)
    swept(search_of(made), tmp_path / "search")
    made = tuned(made, tmp_path)
    assert made.tuned == {B: {"lr": 0.03}, D: {"lr": 0.03}}
    swept(made, tmp_path)
    (part,) = load_results([tmp_path]).comparisons
    cells = readable_search(part.search)["validation accuracy %"]
    assert (cells == "").tolist() == [False, True, False, False, False, True]
    with pytest.raises(UserError, match="lr was tuned in these folders, so that each arm has its"):
        load_results([tmp_path], ["lr"])


def test_a_search_of_lists_has_no_figure():
    part = comparison(runs_frame([run_row("net_b")]))
    tried = [
        {"arm": "net_b", "milestones": own, "val_acc": 0.5} for own in ([0.5, 0.7], [0.4, 0.6])
    ]
    numbers = [row | {"milestones": i} for i, row in enumerate(tried)]
    assert search_curves(dataclasses.replace(part, searched=numbers)) is not None
    assert search_curves(dataclasses.replace(part, searched=tried)) is None


def test_folders_of_other_recipes_are_compared_by_what_is_named(monkeypatch, tmp_path):
    plain = trained(tmp_path / "plain", monkeypatch, by_own_best, vary={})
    mixed = trained(
        tmp_path / "mixed", monkeypatch, by_own_best, vary={}, recipe=recipe(epochs=1, mixup=0.2)
    )
    apart = report(plain, mixed, out=tmp_path / "apart")
    assert len(apart.comparisons) == 2
    made = report(plain, mixed, out=tmp_path / "both", vary=["mixup"])
    (part,) = made.comparisons
    assert part.varied == {"mixup": "0.0"}
    assert set(part.summary["model"]) == {B, D, f"{B} + mixup 0.2", f"{D} + mixup 0.2"}
    assert set(part.summary["baseline"]) == {B}
    rows = part.effects[(part.effects["kind"] == "main") & (part.effects["effect"] == "mixup")]
    (effect,) = rows.to_dict("records")
    scores = part.scores
    halves = [scores[[f"{name} + mixup 0.2" for name in (B, D)]], scores[[B, D]]]
    means = [half.to_numpy().mean() for half in halves]
    assert effect["estimate"] == pytest.approx(means[0] - means[1])
    shutil.rmtree(tmp_path / "plain" / "runs")  # a clone keeps what it is a report of
    again = report(tmp_path / "both")
    assert again.summary.equals(made.summary)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x --vary mixup", "--vary: names what differs among folders: give --out too"),
        ("x --out y --vary mixupp", "'mixupp' is no recorded setting of these runs; recorded are"),
        ("x --out y --vary epochs", "--vary: runs of other epochs are never compared"),
    ],
)
def test_what_folders_cannot_differ_in_is_one_line(line, message, monkeypatch, tmp_path, complaint):
    trained(tmp_path / "x", monkeypatch, by_own_best, vary={})
    monkeypatch.chdir(tmp_path)
    assert message in complaint("report", *line.split())
    assert not (tmp_path / "y" / "summary.csv").exists()


def searched_and_swept(made, out):
    swept(choose(made, out, Options(machine=CPU), list), out)


def test_what_would_be_refused_after_the_search_is_refused_before_it(monkeypatch, tmp_path):
    trains_by(monkeypatch, by_own_best)
    swept(experiment(seeds=6), tmp_path)
    for other, message in (
        (experiment(seeds=6, tune=TUNE, margin=9.0), "has been none since its first run"),
        (
            experiment(seeds=6, tune=TUNE),
            "come from a search of nothing: give another --out for 2 ",
        ),
    ):
        with pytest.raises(UserError, match=message):
            searched_and_swept(other, tmp_path)
        assert not (tmp_path / "search").exists()


def test_a_folder_has_one_search(monkeypatch, tmp_path):
    trains_by(monkeypatch, by_own_best)
    made = experiment(seeds=6, tune=TUNE)
    searched_and_swept(made, tmp_path)
    searched_and_swept(made, tmp_path)  # nothing is left to do
    before = sorted((tmp_path / "runs").iterdir())
    for tune in ({"lr": [0.1, 0.2], "seeds": 2}, {**TUNE, "seeds": 3}, {}):
        with pytest.raises(UserError, match=r"come from a search of 2 seeds, lr 0.03, 0.1, 0.3:"):
            searched_and_swept(experiment(seeds=6, tune=tune), tmp_path)
    assert sorted((tmp_path / "runs").iterdir()) == before


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"seeds": 2}, "tune names no setting"),
        ({"lr": [0.1, 0.3], "seeds": 0}, "seeds 0 of tune must be a whole number from 1"),
        ({"mixup": [0.0, 0.2]}, "mixup is varied and tuned: name it once"),
        ({"foo": [1]}, "unknown recipe setting 'foo'"),
        ({"lr": 0.1}, "lr 0.1 must be a list of values"),
        ({"seed": 1}, "unknown recipe setting 'seed'; did you mean 'seeds'?"),
        ({"lr": [0.1]}, "lr has one value, so that there is nothing to choose"),
        ({"lr": [0.1, -1]}, "at lr -1.0: lr -1.0 must be a positive number"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(tune, message):
    with pytest.raises(UserError) as error:
        experiment(tune=tune, vary={"mixup": [0.0, 0.2]})
    assert message in str(error.value)


def test_a_prediction_may_name_an_arm_in_full():
    made = experiment(vary={"mixup": [0.0, 0.2]}, expect=(f"{D} + mixup 0.2 > {B}",))
    (prediction,) = made.predictions.each
    assert prediction.models == {f"{D} + mixup 0.2", B}
