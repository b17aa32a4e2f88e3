"""``--budget`` and ``--until-decided``: which pairs of runs come next, and when it ends."""

import contextlib
import io
import math
from dataclasses import replace

import pandas as pd
import pytest
from factories import comparison, paired_rows, runs_frame
from rich.console import Console
from small import CPU, recipe

from resnet_variants.analysis.verdicts import BETTER, UNDECIDED, Plan
from resnet_variants.models.grids import grid
from resnet_variants.records.results_folder import read_runs
from resnet_variants.registry import UserError
from resnet_variants.settings import seconds_of_budget
from resnet_variants.sweeps import execute, rounds
from resnet_variants.sweeps.allocation import Row, choose, pairs_needed, rows_of
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.rounds import forecast, run_until_decided
from resnet_variants.sweeps.sweep import Ended, Noted, Options, Planned
from resnet_variants.terminal import cli, live

PLAN = Plan()
SECONDS = dict.fromkeys(("base", "a", "b", "c"), 10.0)


def arm(name, t, *, pairs=6, verdict=UNDECIDED, p=0.0, base_to=6):
    """An arm whose difference is t standard errors; the baseline has so many seeds."""
    mean = t * 0.01 / math.sqrt(pairs)
    missing = {s: (name,) if s < base_to else ("base", name) for s in range(pairs, 24)}
    return Row(name, verdict, pairs, mean, 0.01, p, missing)


# --- the rule ---------------------------------------------------------------------------------


def test_the_cheapest_verdict_comes_first():
    clear, vague = arm("a", 4.0), arm("b", 3.0)
    assert pairs_needed(clear, PLAN) < pairs_needed(vague, PLAN) < 18
    assert choose([vague, clear], PLAN, SECONDS, runs=2).pairs == [(("base", 6), ("a", 6))]
    slow = SECONDS | {"a": 1000.0}
    assert choose([vague, clear], PLAN, slow, runs=2).pairs == [(("base", 6), ("b", 6))]


def test_a_seed_that_the_baseline_has_costs_one_run():
    behind, ahead = arm("a", 3.0), arm("b", 3.0, base_to=12)
    assert choose([behind, ahead], PLAN, SECONDS, runs=1).pairs == [(("b", 6),)]


def test_two_arms_of_one_round_share_the_baselines_run():
    chosen = choose([arm("a", 9.0), arm("b", 8.0)], PLAN, SECONDS, runs=3).pairs
    assert chosen == [(("base", 6), ("a", 6)), (("b", 6),)]


def test_a_decided_arm_gets_nothing():
    decided = arm("a", 9.0, verdict=BETTER)
    assert choose([decided], PLAN, SECONDS, runs=4) == rounds.choose([], PLAN, SECONDS, runs=4)


def test_an_arm_gets_no_more_at_once_than_it_is_expected_to_need():
    clear = arm("a", 9.0)
    assert pairs_needed(clear, PLAN) == 1
    assert choose([clear], PLAN, SECONDS, runs=50).pairs == [(("base", 6), ("a", 6))]


def test_each_further_pair_halves_p_at_most():
    """Four of 64 patterns are as extreme: seven and eight seeds cannot be enough."""
    needs = [pairs_needed(arm("a", 9.0, p=p), PLAN) for p in (2 / 64, 4 / 64, 16 / 64)]
    assert needs == [1, 3, 6]


def test_no_arm_starves():
    """What is far ahead waits, however cheap the next pair seems."""
    ahead, behind = arm("a", 5.0, pairs=10, base_to=10), arm("b", 3.2, base_to=10)
    assert choose([ahead, behind], PLAN, SECONDS, runs=1).pairs == [(("b", 6),)]
    near = arm("a", 5.0, pairs=9, base_to=10)
    assert choose([near, behind], PLAN, SECONDS, runs=1).pairs == [(("a", 9),)]


def test_a_difference_within_its_standard_error_is_skipped_and_that_is_said():
    chosen = choose([arm("a", 0.9), arm("b", 4.0)], PLAN, SECONDS, runs=2)
    assert chosen.skipped == {
        "a": "no number of further seeds is expected to decide it, and 18 are the most"
    }
    assert chosen.pairs == [(("base", 6), ("b", 6))]


def test_a_difference_that_was_seen_is_shrunk():
    seen = arm("a", 2.0)
    shrunk = replace(seen, mean=0.75 * seen.mean)
    flat = replace(seen, mean=0.75 * seen.mean, pairs=60, sd=1e-9)
    assert pairs_needed(seen, PLAN) > 18
    assert pairs_needed(shrunk, PLAN) > pairs_needed(seen, PLAN) > pairs_needed(flat, PLAN)


def test_a_margin_makes_a_small_difference_worth_its_seeds():
    """0.1 points cannot be told from 0, but from a point."""
    small = arm("a", 0.3)
    assert math.isinf(pairs_needed(small, PLAN))
    assert pairs_needed(small, Plan(margin=1.0)) < 18
    assert pairs_needed(small, Plan(margin=1.0)) > pairs_needed(small, Plan(margin=3.0))


def test_an_arm_without_a_pair_is_skipped_and_that_is_said():
    lost = arm("a", math.nan, pairs=1, verdict="")
    chosen = choose([replace(lost, pairs=0)], PLAN, SECONDS, runs=2)
    assert chosen.skipped == {"a": "no seed has a finished run of it and of its baseline"}


def test_what_takes_longer_than_there_is_time_is_skipped():
    vague = arm("a", 3.2)
    need = pairs_needed(vague, PLAN)
    assert choose([vague], PLAN, SECONDS, runs=2, left=20 * need).pairs
    short = choose([vague], PLAN, SECONDS, runs=2, left=20 * need - 1)
    assert short.pairs == []
    assert "of runs, and" in short.skipped["a"]


def test_arms_have_the_verdicts_of_the_summary_and_avoid_lost_runs():
    scores = {
        "net_a": [0.80, 0.81, 0.79, 0.80, 0.82, 0.80],
        "net_b": [0.90, 0.92, 0.91, 0.90, 0.93, 0.91],
        "net_d": [0.80, 0.82, 0.80, 0.79, 0.82, 0.81],
    }
    part = comparison(runs_frame(paired_rows(scores)), dict.fromkeys(scores, "net_a"))
    arms = rows_of(part.scores, part.baselines, part.plan, {("net_a", 6), ("net_b", 7)})
    verdicts = part.summary.set_index("model")["verdict"]
    assert {arm.name: arm.verdict for arm in arms} == dict(verdicts.drop("net_a"))
    assert [list(arm.missing)[:2] for arm in arms] == [[8, 9], [7, 8]]
    assert all(set(arm.missing[8]) == {"net_a", arm.name} for arm in arms)


# --- the rounds -------------------------------------------------------------------------------

ORDERS = ("post", "preact", "bn_after_add", "relu_preact")  # the first is the baseline
OVER_POST = {  # differences by seed, the last one for all further seeds
    "post": [0.0],
    "preact": [0.2],  # decided by six seeds
    "bn_after_add": [0.02, 0.021, 0.02, 0.019, 0.02, -0.001, 0.02],  # decided by nine
    "relu_preact": [0.02, -0.02, 0.01, -0.01, 0.02, -0.02],  # not to be decided
}
MINUTE = 60.0


def experiment(orders=ORDERS, **settings):
    variants = tuple(grid(family="cifar", depth=[8], order=orders))
    return Experiment(name="x", variants=variants, recipe=recipe(epochs=1), **settings)


@pytest.fixture
def minutes(monkeypatch):
    """Every run takes a minute of a clock that nothing else moves."""
    now = [1000.0]

    def train(job, data, fabric, stop, gradients):
        now[0] += MINUTE
        own = OVER_POST[job.run.variant.order]
        acc = 0.5 + 0.01 * (job.run.seed % 3) + own[min(job.run.seed, len(own) - 1)]
        yield {"status": "done", "test_acc": acc, "test_loss": 1 - acc, "val_acc": acc} | {
            "train_loss": 1.0,
            "seconds": MINUTE,
            "n_test": 599,
        }

    monkeypatch.setattr(execute, "_train", train)
    monkeypatch.setattr(rounds, "monotonic", lambda: now[0])
    monkeypatch.setattr(rounds, "seconds_of", lambda runs, machine: ([MINUTE] * len(runs), 1))
    return now


def heard(out, budget=math.inf, made=None, **options):
    events = run_until_decided(made or experiment(), out, Options(machine=CPU, **options), budget)
    with contextlib.closing(events):
        return list(events)


def seeds(out):
    runs = read_runs(out)
    done = runs[runs["status"] == "done"]
    return {order: sorted(done.loc[done["order"] == order, "seed"]) for order in ORDERS}


def assert_whole_pairs(out):
    of = seeds(out)
    others = {seed for order in ORDERS[1:] for seed in of[order]}
    assert set(of["post"]) == others


def lines(events):
    return [event.text for event in events if isinstance(event, Noted)]


@pytest.mark.parametrize("endpoint", ["test_acc", "test_loss"])
def test_undecided_rows_get_seeds_until_further_ones_would_not_help(minutes, tmp_path, endpoint):
    events = heard(tmp_path / "out", made=experiment(endpoint=endpoint))
    assert {order: len(own) for order, own in seeds(tmp_path / "out").items()} == {
        "post": 9,
        "preact": 6,
        "bn_after_add": 9,
        "relu_preact": 6,
    }
    assert lines(events) == [
        "relu_preact is undecided and gets no further seeds: no number of further seeds is "
        "expected to decide it, and 18 are the most",
        *(
            f"2 of 3 rows are undecided; next: post seed {s}, bn_after_add seed {s}"
            for s in (6, 7, 8)
        ),
        "1 of 3 rows are undecided: it ends here",
    ]
    again = heard(tmp_path / "out")
    assert not any(isinstance(event, Ended) for event in again)


def test_a_budget_ends_between_pairs_and_the_same_command_goes_on(minutes, tmp_path):
    """30 runs are to be done; each command has time for 10 and a half."""
    out, counts = tmp_path / "out", []
    for _ in range(4):
        begun = minutes[0]
        heard(out, 10.5 * MINUTE)
        assert minutes[0] - begun <= 10.5 * MINUTE
        assert_whole_pairs(out)
        counts.append(sum(map(len, seeds(out).values())))
    assert counts == [10, 20, 30, 30]


def test_a_pair_that_does_not_fit_is_not_begun(minutes, tmp_path):
    events = heard(tmp_path / "out", 5.9 * MINUTE)
    assert seeds(tmp_path / "out")["post"] == [0]  # one more minute holds no pair of the next seed
    assert lines(events) == ["the budget ends: 1.9 min are left, a pair takes 2.0 min"]


def test_a_budget_that_holds_no_pair_is_refused_before_anything_is_written(minutes, tmp_path):
    with pytest.raises(UserError) as caught:
        heard(tmp_path / "out", 1.9 * MINUTE)
    assert str(caught.value) == (
        "1.9 min is too short: a network and its baseline take about 2.0 min; give more, or fewer "
        "--epochs"
    )
    assert caught.value.field == "budget"
    assert not (tmp_path / "out").exists()


def test_fresh_forgets_further_seeds_too(minutes, tmp_path):
    heard(tmp_path / "out")
    heard(tmp_path / "out", 4.5 * MINUTE, fresh=True)
    assert {order: len(own) for order, own in seeds(tmp_path / "out").items()} == dict.fromkeys(
        ORDERS, 1
    )


def test_what_a_dry_run_expects(minutes, tmp_path):
    told = dict.fromkeys((v.name for v in experiment().variants), MINUTE)
    options = Options(machine=CPU)
    expected = forecast(experiment(), tmp_path / "out", options, 60 * MINUTE, told)
    assert (expected.planned, expected.most) == (24 * MINUTE, 24)
    heard(tmp_path / "out", 4.5 * MINUTE)
    expected = forecast(experiment(), tmp_path / "out", options, 60 * MINUTE, told)
    assert expected.planned == 20 * MINUTE


def test_trained_networks_end_with_whole_pairs_and_go_on(monkeypatch, tmp_path):
    """The same with real runs, of less than a second each."""
    monkeypatch.setattr(rounds, "seconds_of", lambda runs, machine: ([0.5] * len(runs), 1))
    variants = tuple(grid(family="cifar", depth=[8], order=ORDERS[:2]))
    quick = recipe(epochs=1, batch_size=512)
    made = Experiment(name="x", variants=variants, recipe=quick, seeds=60)
    out, counts = tmp_path / "out", [0]
    budget = 2.0
    for _ in range(2):
        heard(out, budget, made)
        assert_whole_pairs(out)
        counts.append(len(read_runs(out)))
        budget = 8 * read_runs(out)["seconds"].max()
    assert 0 < counts[1] < counts[2] < 120
    assert set(read_runs(out)["status"]) == {"done"}


# --- what is shown ----------------------------------------------------------------------------


def test_the_table_and_its_time_to_go_last_over_the_rounds():
    made = experiment(ORDERS[:2], seeds=1)
    first, second = made.runs
    done = {"status": "done", "test_acc": 0.75, "seconds": 1.0}
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=100)
    table = live.SweepTable(Planned([first], {}, "1 worker", 1, more=True), console)
    tally = table.tally
    tally.trained, tally.seconds = tally.cost[first.id], 10.0  # an epoch took 10 s
    table.count(Ended(first, done, 10.0))
    table.count(Planned([second], {first: done}, "1 worker", 1, more=True))
    table.count(Noted("1 of 1 rows are undecided"))
    console.print(table.render())
    text = screen.getvalue()
    assert text.startswith("1 of 1 rows are undecided\n1/2 done, 0 running, 0:")
    assert "to go in this round; 1 worker" in text


def test_lines_say_what_comes_next(capsys):
    run = experiment().runs[0]
    noted = Noted("every row is decided")
    live.show_events(event for event in [Planned([], {run: {"status": "done"}}, "", 0), noted])
    assert capsys.readouterr().out == "the run is over\nevery row is decided\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("10h", 36000), ("2.5h", 9000), ("1d", 86400)]
)
def test_a_budget_has_a_unit(text, seconds):
    assert seconds_of_budget(text) == seconds


FORM = "must be a number above 0 and its unit, such as 90m, 10h, 2.5h or 1d"
BAD = {
    "--budget 0": f"--budget: budget '0' {FORM}",
    "--budget 0h": f"--budget: budget '0h' {FORM}",
    "--budget 10": f"--budget: budget '10' {FORM}",
    "--budget -1h": f"--budget: budget '-1h' {FORM}",
    "--budget 1h --minutes 5": "--budget: --minutes chooses epochs for a time: drop one",
    "--until-decided --minutes 5": "--until-decided: --minutes chooses epochs for a time: drop one",
    "--budget 1h --more 2 --arms D": "--budget: --more adds seeds that you choose: drop one",
    "--variant D --budget 1h": "--budget: there is nothing to decide: no network is compared",
    "--variant D --until-decided": "--until-decided: there is nothing to decide",
}


@pytest.mark.parametrize("words", BAD)
def test_what_makes_no_sense_is_one_line(words, capsys):
    assert cli.main(["run", *words.split()]) == cli.WRONG_USAGE
    out, err = capsys.readouterr()
    assert (out.replace("loading torch and timm\n", ""), err.count("\n")) == ("", 1)
    assert err.startswith(f"resnet-variants run: {BAD[words]}")


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        ("--budget 10h", "then undecided networks get about 9.9 h, up to 24 seeds each\n"),
        ("--until-decided", "then undecided networks get more seeds, up to 24 seeds each\n"),
        ("--budget 5m", "the budget of 5.0 min ends before; the same command goes on\n"),
    ],
)
def test_a_dry_run_says_what_it_expects_to_spend(words, ends, capsys, tmp_path, monkeypatch):
    each = MINUTE if "5m" in words else MINUTE / 4
    seconds_of = "resnet_variants.terminal.console.seconds_of"
    monkeypatch.setattr(seconds_of, lambda runs, machine: ([each] * len(runs), 1))
    command = ["run", "--variant", "A", "D", "--depth", "8", "--engine", "inline", "--dry-run"]
    assert cli.main([*command, "--out", str(tmp_path / "out"), *words.split()]) == 0
    out = capsys.readouterr().out
    assert out.endswith(ends)
    assert "the planned seeds that are missing take about" in out


def test_runs_without_scores_are_no_arms():
    assert rows_of(pd.DataFrame(), {}, PLAN) == []
