"""``--minutes``: depth and epochs for a time; ``--more``: seeds for some networks."""

import math
from pathlib import Path

import numpy as np
import pytest

from resnet_variants.analysis.statistics import ALPHA, detectable, sign_flip_p
from resnet_variants.models.grids import grid
from resnet_variants.records.files import to_json
from resnet_variants.registry import UserError
from resnet_variants.settings import Workers
from resnet_variants.sweeps import budget
from resnet_variants.sweeps.estimate import RunTime
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Options
from resnet_variants.training.recipe import Recipe


def experiment(**settings):
    variants = tuple(grid(family="cifar", preset=["B", "D"], preact=[False, True]))
    return Experiment(name="x", variants=variants, free_stem=True, **settings)


@pytest.fixture
def speeds(monkeypatch):
    """Two workers: an epoch of depths 11, 29 and 47 takes the given seconds."""

    def give(*per_epoch):
        def measured(candidates, data, options, seconds):
            each = [
                budget._Speed(len(c.runs) // 2, RunTime(seconds, 0.5))
                for c, seconds in zip(candidates, per_epoch, strict=False)
            ]
            return budget._Speeds(each, starting=5.0)

        monkeypatch.setattr(budget, "_measured", measured)

    return give


def chosen(minutes, tmp_path, depth_is_free=True, **settings):
    options = Options(workers=Workers(engine="local"))
    return budget.fit_to(
        minutes, experiment(**settings), tmp_path, options, depth_is_free=depth_is_free
    )


@pytest.mark.parametrize(
    ("minutes", "per_epoch", "depth", "epochs"),
    [
        (10, (0.1, 0.25, 0.4), 47, range(80, 95)),  # the deepest that can have 15 epochs
        (10, (0.1, 4.0, 9.0), 11, [100]),  # no more than enough
        (2, (0.1, 0.25, 0.4), 29, range(15, 25)),
        (1, (1.0, 2.5, 4.0), 11, [1, 2]),  # few epochs are better than none
    ],
)
def test_the_deepest_network_with_enough_epochs_is_chosen(
    speeds, tmp_path, minutes, per_epoch, depth, epochs
):
    speeds(*per_epoch)
    made = chosen(minutes, tmp_path)
    assert {variant.depth for variant in made.experiment.variants} == {depth}
    assert len(made.experiment.variants) == 4
    assert made.experiment.recipe.epochs in epochs
    assert made.experiment.seeds == 7  # what a verdict on three comparisons takes
    assert made.seconds < 60 * minutes


def test_too_short_a_time_is_refused_with_the_time_that_is_enough(speeds, tmp_path):
    speeds(10.0, 25.0, 40.0)
    with pytest.raises(UserError) as caught:
        chosen(1, tmp_path)
    assert str(caught.value) == (
        "1 minutes are too short for 28 runs: give 4, fewer networks or a smaller --img-size"
    )
    assert caught.value.field == "minutes"
    assert chosen(4, tmp_path).experiment.recipe.epochs == 1


def test_a_depth_that_is_given_stays(speeds, tmp_path):
    speeds(0.1)
    made = chosen(10, tmp_path, depth_is_free=False)
    assert {variant.depth for variant in made.experiment.variants} == {29}


def test_the_same_request_in_the_same_folder_gets_the_same_answer(speeds, tmp_path):
    speeds(0.1, 0.25, 0.4)
    first = chosen(10, tmp_path).experiment
    (tmp_path / "experiment.json").write_text(to_json(first.record()))
    speeds(1.0, 2.5, 4.0)
    again = chosen(10, tmp_path)
    assert again.experiment == first
    assert math.isnan(again.seconds)
    assert chosen(5, tmp_path).experiment.recipe.epochs != first.recipe.epochs


def test_a_cluster_has_no_minutes(tmp_path):
    options = Options(workers=Workers(engine="ray"))
    with pytest.raises(UserError, match="engines of this machine"):
        budget.fit_to(10, experiment(), tmp_path, options, depth_is_free=True)


@pytest.mark.slow
def test_a_minute_is_kept(tmp_path):
    import subprocess
    import sys

    words = ["run", "--variant", "B", "D", "--minutes", "1", "--out"]
    command = [sys.executable, "-m", "resnet_variants", *words, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "for 1 minutes: depth" in done.stdout
    assert "12 done" in done.stdout


# --- how much is needed -----------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "comparisons"), [(6, 1), (7, 3), (15, 1)])
def test_the_detectable_difference_gets_a_verdict_in_most_cases(pairs, comparisons):
    difference = detectable(2.0, pairs, comparisons)
    drawn = np.random.default_rng(0).normal(difference, 2.0, (400, pairs))
    found = np.mean([sign_flip_p(own) * comparisons < ALPHA for own in drawn])
    assert 0.74 < found < 0.88


def test_fewer_pairs_than_a_verdict_takes_detect_nothing():
    assert math.isnan(detectable(1.0, 6, 2))


def test_arms_that_a_depth_does_not_tell_apart_rule_it_out(speeds, tmp_path):
    speeds(0.1, 0.1)
    orders = tuple(grid(family="cifar", order=["post", "relu_preact"], depth=[29]))
    options = Options(workers=Workers(engine="local"))
    both = Experiment(name="x", variants=orders)
    made = budget.fit_to(10, both, tmp_path, options, depth_is_free=True)
    assert len(made.experiment.variants) == 2


def test_a_batch_that_is_too_large_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(UserError, match="batch_size 2048 exceeds the 1078 training images"):
        chosen(10, tmp_path, recipe=Recipe(batch_size=2048))


@pytest.mark.parametrize(
    ("axes", "seeds"),
    [
        ({"preset": ["A"]}, 3),
        ({"preset": ["A", "D"]}, 6),
        ({"preset": list("ABCD"), "preact": [False, True]}, 9),
        ({"preset": ["A", "D"], "depth": [29, 47]}, 7),  # each depth has a baseline of its own
    ],
)
def test_seeds_default_to_what_a_verdict_takes(axes, seeds):
    assert Experiment(name="x", variants=tuple(grid(family="cifar", **axes))).seeds == seeds


def test_more_seeds_are_for_the_arms_and_their_baseline():
    made = experiment(seeds=2).with_more(3, ["D preact"])
    by_model = {v.name: [r.seed for r in made.runs if r.variant == v] for v in made.variants}
    assert by_model == {
        "rv_resnet29_cifar_b": [0, 1, 2, 3, 4],
        "rv_resnet29_cifar_b_preact": [0, 1],
        "rv_resnet29_cifar_d": [0, 1],
        "rv_resnet29_cifar_d_preact": [0, 1, 2, 3, 4],
    }
    assert made.with_more(3, ["rv_resnet29_cifar_d_preact"]) == made


def test_an_arm_that_is_none_is_refused_with_the_labels():
    with pytest.raises(UserError) as caught:
        experiment().with_more(1, ["D preac"])
    assert str(caught.value) == (
        "unknown arm 'D preac'; did you mean 'D preact'? choices: B, B preact, D, D preact"
    )


BAD = {
    "--minutes 0": "--minutes: minutes 0 must be a positive number",
    "--minutes -1": "--minutes: minutes -1 must be a positive number",
    "--minutes 5 --epochs 3": "--minutes: minutes chooses the epochs: drop --epochs",
    "--more 3": "--more: --more N and --arms LABEL ... go together",
    "--arms D": "--more: --more N and --arms LABEL ... go together",
    "--seed 3": "unknown words '--seed 3'; did you mean --seeds?",
}


@pytest.mark.parametrize("words", BAD)
def test_what_makes_no_sense_is_one_line(words, capsys):
    from resnet_variants.terminal import cli

    assert cli.main(["run", *words.split()]) == cli.WRONG_USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"resnet-variants run: {BAD[words]}")


def test_a_folder_without_its_prefix_gets_the_right_spelling(tmp_path, capsys, monkeypatch):
    from resnet_variants.terminal import cli

    monkeypatch.chdir(tmp_path)
    Path("pets").mkdir()
    assert cli.main(["check-data", "pets"]) == cli.WRONG_USAGE
    assert "'pets' is a folder: give folder:pets" in capsys.readouterr().err
