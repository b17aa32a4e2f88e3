"""Experiments from TOML and from Python."""

import dataclasses
import re
from pathlib import Path

import pytest

from resnet_variants.analysis.statistics import FEWEST
from resnet_variants.models.grids import preset
from resnet_variants.registry import UserError
from resnet_variants.run import read
from resnet_variants.sweeps.experiment import Experiment, read_toml, recipe_from
from resnet_variants.sweeps.question import PACKAGED, experiment_file
from resnet_variants.training.recipe import RECIPES, Recipe

COMMITTED = sorted(PACKAGED.glob("*.toml"))

GOOD = """
question = "which?"
expect   = "none"
data     = "digits"
seeds    = 2
baseline = { preset = "A", preact = false }

[grid]
family = "cifar"
depth  = [29, 47]
preset = ["A", "D"]
preact = [false, true]

[recipe]
epochs = 3
lr     = 1
"""


def write(tmp_path, text):
    path = tmp_path / "some_question.toml"
    path.write_text(text)
    return path


def test_a_file_expands_to_runs_with_paired_seeds(tmp_path):
    path = write(tmp_path, GOOD)
    experiment = read_toml(path)
    path.write_text(GOOD, encoding="utf-8-sig")  # a byte order mark is no part of the file
    assert read_toml(path) == experiment
    assert (experiment.name, experiment.question) == ("some_question", "which?")
    assert experiment.recipe == Recipe(epochs=3, lr=1.0)
    assert len(experiment.variants) == 8
    runs = experiment.runs
    assert len({run.id for run in runs}) == len(runs) == 16
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8


def test_the_baseline_has_the_depth_of_what_it_is_compared_with(tmp_path):
    baselines = read_toml(write(tmp_path, GOOD)).baselines()
    assert len(baselines) == 8
    for model, base in baselines.items():
        depth = 29 if "resnet29_" in model else 47
        assert base == preset("A", family="cifar", depth=depth).name
    # Without one in the file, the first variant of each depth is it.
    variants = tuple(preset(x, family="cifar", depth=d) for d in (29, 47) for x in "DA")
    baselines = Experiment(name="x", variants=variants).baselines()
    assert set(baselines.values()) == {"rv_resnet29_cifar_d", "rv_resnet47_cifar_d"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds    = 2", "seed = 2", "unknown key 'seed'; did you mean 'seeds'?"),
        ("seeds    = 2", "seeds = -1", "seeds -1 must be from 1 to 10000, or 0: as many"),
        ("seeds    = 2", 'seeds = "2"', "seeds '2' must be of type int"),
        ("seeds    = 2", "seeds = true", "seeds True must be of type int"),
        ('"digits"', '"digit"', "unknown data 'digit'; did you mean 'digits'?"),
        ('"digits"', "3", "data must be text in quotes"),
        ("depth  =", "dept  =", "unknown axis 'dept'; did you mean 'depth'?"),
        ("[29, 47]", "[21]", "unknown depth 21 for family 'cifar'"),
        ("[29, 47]", "[]", "depth has no values in the grid"),
        ('["A", "D"]', '["B", "D"]', "baseline 'rv_resnet29_cifar_a' is not among the variants"),
        ("epochs =", "epoch =", "unknown recipe setting 'epoch'; did you mean 'epochs'?"),
        ("epochs = 3", "epochs = 3.5", "epochs 3.5 must be of type int"),
        ("epochs = 3", "epochs = 0", "epochs 0 must be from 1"),
        ("[recipe]", "[[recipe]]", "recipe must be a table"),
        ("seeds    = 2", "seeds = 2\ntune = 3", "tune must be a table"),
        ("[grid]", "[grid", "is not valid TOML"),
        (GOOD[GOOD.index("[grid]") : GOOD.index("[recipe]")], "", "no [grid]: name the networks"),
        ("data     =", "img_size = 2\ndata =", "img_size 2 must be from 4 to 1024"),
        ("epochs = 3", 'preset = "he2017"', "unknown recipe 'he2017'; did you mean 'he2016'?"),
        ("epochs = 3", "preset = 3", "preset 3 must be a recipe's name"),
        ("epochs = 3", 'milestones = ["x"]', "milestones 'x' must be of type float"),
        ('"digits"', '"folder:"', "unknown data 'folder:'; did you mean 'folder:PATH'?"),
        ('"digits"', '"cifar10:x"', "unknown data 'cifar10:x'; did you mean 'cifar10'?"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_file_and_key(tmp_path, old, new, message):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_toml(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../up", "/abs", "", "a b", ".hidden", "a/b"])
def test_a_name_stays_inside_its_folder(name):
    with pytest.raises(UserError, match="must be made of letters"):
        Experiment(name=name, variants=(preset("A"),))


def test_a_recipe_may_start_from_one_of_a_paper():
    assert recipe_from({"preset": "he2015"}) == RECIPES["he2015"]
    changed = recipe_from({"preset": "he2015", "epochs": 3, "milestones": [0.8]})
    assert changed == dataclasses.replace(RECIPES["he2015"], epochs=3, milestones=(0.8,))


@pytest.mark.parametrize(
    ("img_size", "stem_stride"), [(0, 1), (48, 1), (49, 2), (112, 2), (113, 4)]
)
def test_a_stem_that_is_free_follows_the_images(tmp_path, img_size, stem_stride):
    free = dataclasses.replace(read_toml(write(tmp_path, GOOD)), img_size=img_size)
    fitted = free.fitted()
    assert {v.stem_stride for v in fitted.variants} == {stem_stride}
    assert [v.preset for v in fitted.variants] == [v.preset for v in free.variants]
    assert len(set(fitted.baselines().values())) == 2
    assert fitted.fitted() == fitted
    path = write(tmp_path, GOOD.replace("[grid]", "[grid]\nstem_stride = [1]"))
    chosen = dataclasses.replace(read_toml(path), img_size=img_size)
    assert {v.stem_stride for v in chosen.fitted().variants} == {1}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_packaged_experiments_state_question_expectation_and_cost(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(path.stem).mkdir()  # such as a results folder of the same name
    experiment = read_toml(path)
    assert read(["--experiment", path.stem])[0] == experiment
    assert experiment.question.endswith("?")
    assert experiment.expect
    command, *rest = path.read_text().splitlines()
    assert command.removesuffix(" --diagnose").removesuffix(" --out results/again") == (
        f"# python -m resnet_variants.run --experiment {path.stem}"
    )
    assert any(re.match(r"# Cost: .*\d (hours|minutes)", line) for line in rest)
    assert experiment.seeds >= FEWEST
    guide = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert f"`{path.stem}`" in guide


def test_a_file_beside_the_user_is_read_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    assert read(["--experiment", "some_question.toml"])[0].name == "some_question"
    assert experiment_file("./some_question") == Path("some_question")


# --- size -------------------------------------------------------------------------------------

HUGE = """
seeds = 1000
[grid]
family = "cifar"
depth = [8, 14, 20, 26, 32]
stem = ["conv3", "deep"]
order = ["post", "bn_after_add", "relu_before_add", "relu_preact", "preact"]
shortcut = ["conv", "avgpool"]
attention = ["none", "eca"]
"""


def test_more_runs_than_anybody_means_are_refused_without_making_them(tmp_path, monkeypatch):
    path = write(tmp_path, HUGE)
    assert len(read_toml(path).variants) == 200  # the seeds of the command line count
    line = ["--experiment", str(path)]
    with pytest.raises(UserError, match="200,000 runs: give --yes if they are meant"):
        read(line)
    assert len(read([*line, "--seeds", "50"])[0].runs) == 10_000
    assert read([*line, "--yes"])[0].seeds == 1000
    wide = HUGE.replace("[8, 14, 20, 26, 32]", str([8] * 1_000))
    monkeypatch.setattr("resnet_variants.sweeps.experiment.expand", None)
    with pytest.raises(UserError, match=r"some_question.toml': 40,000 runs: give --yes"):
        read_toml(write(tmp_path, wide))


def test_a_name_of_the_data_changes_no_id(tmp_path):
    name = "CIFAR-10 (JPEG), 16 px"
    named, _ = read(["--variant", "A", "D", "--data-name", name])
    plain, _ = read(["--variant", "A", "D"])
    assert [run.id for run in named.runs] == [run.id for run in plain.runs]
    assert named.record()["data_names"] == {"digits": name}
    assert not plain.record()["data_names"]
    file = tmp_path / "question.toml"
    file.write_text(f'data_name = "{name}"\n[grid]\ndepth = [18]\n')
    assert read_toml(file).data_name == name
    with pytest.raises(UserError, match="data_name must be text in quotes"):
        file.write_text("data_name = 3\n[grid]\ndepth = [18]\n")
        read_toml(file)
    with pytest.raises(UserError, match="one line of plain text"):
        read(["--variant", "A", "--data-name", "two\nlines"])
