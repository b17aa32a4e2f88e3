"""``--minutes``: depth and epochs for a time; ``--more``, ``--share``: which seeds."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest

from resnet_variants.models.grids import grid
from resnet_variants.records.files import to_json
from resnet_variants.registry import UserError
from resnet_variants.settings import Workers
from resnet_variants.sweeps import budget
from resnet_variants.sweeps.estimate import RunTime
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sweep import Options


def experiment(**settings):
    variants = tuple(grid(family="cifar", preset=["B", "D"], preact=[False, True]))
    return Experiment(name="x", variants=variants, free_stem=True, **settings)


@pytest.fixture
def speeds(monkeypatch):
    """Two workers: an epoch of depths 8, 11, 29 and 47 takes the given seconds."""

    def give(*per_epoch):
        def measured(candidates, data, options, seconds):
            each = [
                budget._Speed(len(c.runs) // 2, RunTime(seconds, 0.5))
                for c, seconds in zip(candidates, per_epoch, strict=False)
            ]
            return each, 5.0  # seconds until a worker computes

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
        (8, (0.07, 0.1, 0.25, 0.4), 47, range(75, 95)),  # the deepest that can have 15 epochs
        (10, (0.1, 3.0, 4.0, 9.0), 8, [100]),  # no more than enough
        (1.6, (0.07, 0.1, 0.25, 0.4), 29, range(15, 25)),
        (1, (1.0, 2.5, 4.0, 6.0), 8, [1, 2]),  # few epochs are better than none
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
    assert made.experiment.seeds == 6  # the fewest that a verdict takes
    assert made.seconds < 60 * minutes


def test_too_short_a_time_is_refused_with_the_time_that_is_enough(speeds, tmp_path):
    speeds(10.0, 25.0, 40.0)
    with pytest.raises(UserError) as caught:
        chosen(1, tmp_path)
    assert str(caught.value) == (
        "1 minutes are too short for 24 runs: give 3, fewer networks or a smaller --img-size"
    )
    assert caught.value.field == "minutes"
    assert chosen(3, tmp_path).experiment.recipe.epochs == 1


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
    words = ["run", "--variant", "B", "D", "--minutes", "1", "--out"]
    command = [sys.executable, "-m", "resnet_variants", *words, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    assert "for 1 minutes: depth" in done.stdout
    assert "12 done" in done.stdout


# --- shares of the seeds ------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_are_parts_of_the_same_experiment(shares):
    whole = experiment(seeds=7)
    assert whole.own_seeds == range(7)
    parts = [replace(whole, share=f"{i}/{shares}") for i in range(1, shares + 1)]
    assert sorted(run.id for part in parts for run in part.runs) == sorted(
        run.id for run in whole.runs
    )
    assert all(abs(len(part.own_seeds) - 7 / shares) < 1 for part in parts)
    assert {part.plan for part in parts} == {whole.plan}
    assert all({run.seed for run in part.first_runs} == {part.own_seeds[0]} for part in parts)


@pytest.mark.parametrize("share", ["3/2", "0/2", "1/0", "1/8", "1", "1/2/3", "-1/2", "a/b", 2])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=r"^share .* must be ") as caught:
        experiment(seeds=7, share=share)
    assert caught.value.field == "share"


def test_shares_do_not_search_each_for_themselves():
    with pytest.raises(UserError, match="each share would search for itself"):
        experiment(share="1/2", tune={"lr": [0.1, 0.2], "seeds": 1})
