"""Effects of axes: known ones are found, and nothing is told that the runs do not show."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from factories import A, B, D, paired_rows, run_row, runs_frame, variant_columns
from scipy import stats

from resnet_variants.analysis.comparison import KEY, comparisons, joined
from resnet_variants.analysis.effects import EFFECT_COLUMNS, factors
from resnet_variants.analysis.effects import effects as effect_table
from resnet_variants.analysis.statistics import sign_flip_p
from resnet_variants.analysis.verdicts import UNDECIDED, Plan
from resnet_variants.records.results_folder import FURTHER_COLUMNS

STEMS, DOWN, ORDERS = ("conv3", "deep"), ("1x1", "3x3", "3x3+avgpool"), ("post", "preact")


def cell(stem, down, order, **changes):
    """The columns of one variant of a grid."""
    stride, _, shortcut = down.partition("+")
    name = f"net_{stem}_{down}_{order}".replace("+", "_")
    axes = {"model": name, "preset": "", "stem": stem, "stride": stride, "order": order}
    return variant_columns(A) | axes | {"shortcut": shortcut or "conv"} | changes


def grid_runs(score, seeds=3, cells=None):
    """Runs of a grid of twelve: ``score(stem, down, order, seed)``."""
    chosen = cells or [(s, d, o) for s in STEMS for d in DOWN for o in ORDERS]
    rows = []
    for seed in range(seeds):
        for choice in chosen:
            own = cell(*choice)
            rows.append(
                run_row(A, seed, score(*choice, seed))
                | own
                | {"run_id": f"{own['model']}__digits__2__s{seed}"}
            )
    return runs_frame(rows)


def noisy(seed=0):
    draw = np.random.default_rng(seed)
    return lambda *_: draw.normal(0.8, 0.01)


def effects(runs, baselines):
    return joined(comparisons(runs, baselines), "effects")


def by_contrast(table):
    return table.set_index(table["effect"] + ": " + table["contrast"])


BASE = "net_conv3_1x1_post"
BASELINES = {cell(s, d, o)["model"]: BASE for s in STEMS for d in DOWN for o in ORDERS}


def test_known_effects_are_found_and_an_interaction_is_not_a_main_effect():
    def score(stem, down, order, seed):
        noise = np.random.default_rng([seed, *map(ord, stem + down + order)]).normal(0, 0.001)
        together = 0.04 if (stem, order) == ("deep", "preact") else 0.0
        return 0.2 + 0.05 * seed + 0.02 * (down == "3x3") + together + noise

    found = by_contrast(effects(grid_runs(score, seeds=9), BASELINES))
    expected = {
        "stem: deep - conv3": 0.02,
        "order: preact - post": 0.02,
        "downsample: 3x3 - 1x1": 0.02,
        "downsample: 3x3+avgpool - 1x1": 0.0,
        "stem x order: (deep - conv3) x (preact - post)": 0.04,
        "stem x downsample: (deep - conv3) x (3x3 - 1x1)": 0.0,
    }
    for name, effect in expected.items():
        row = found.loc[name]
        assert row["estimate"] == pytest.approx(effect, abs=0.002), name
        assert row["ci_low"] - 1e-3 < effect < row["ci_high"] + 1e-3
    assert found.loc["stem x order: (deep - conv3) x (preact - post)", "verdict"] == "above the sum"
    assert found.loc["downsample: 3x3 - 1x1", "verdict"] == "better"
    # Both depend on one another: each has its effect within each choice of the other.
    for name in ("stem: deep - conv3", "order: preact - post"):
        assert found.loc[name, "verdict"] == "depends"
    simple = found[found["kind"] == "simple"]
    assert simple["verdict"].to_dict() == {
        "stem (order post): deep - conv3": "undecided",
        "stem (order preact): deep - conv3": "better",
        "order (stem conv3): preact - post": "undecided",
        "order (stem deep): preact - post": "better",
    }
    assert simple["estimate"].tolist() == pytest.approx([0, 0.04, 0, 0.04], abs=0.002)
    assert len(found) == 1 + 2 + 1 + 2 + 1 + 2 + len(simple)
    assert set(found["cells"]) == {12}
    assert set(found["seeds"]) == {9}


def test_the_numbers_are_those_of_paired_differences_and_of_least_squares():
    runs = grid_runs(noisy(1), seeds=5, cells=[(s, "1x1", o) for s in STEMS for o in ORDERS])
    found = by_contrast(effects(runs, BASELINES)).loc["order: preact - post"]
    by_seed = runs.pivot_table(index="seed", columns="order", values="test_acc")
    differences = (by_seed["preact"] - by_seed["post"]).to_numpy()
    low, high = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    assert (found["ci_low"], found["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["p_value"] == sign_flip_p(differences)
    fit = smf.ols("test_acc ~ C(stem, Sum) * C(order, Sum) + C(seed)", data=runs).fit()
    # Sum coding: half the difference, with the first choice's sign.
    assert found["estimate"] == pytest.approx(-2 * fit.params["C(order, Sum)[S.post]"])


def test_the_additive_numbers_are_those_of_least_squares():
    cells = [("conv3", "1x1", "post"), ("deep", "1x1", "post"), ("conv3", "1x1", "preact")]
    runs = grid_runs(noisy(2), cells=[*cells, ("deep", "3x3", "preact"), ("conv3", "3x3", "post")])
    found = by_contrast(effects(runs, BASELINES))
    assert set(found["kind"]) == {"main"}  # without the whole product no interaction is told
    fit = smf.ols("test_acc ~ stem + stride + order + C(seed)", data=runs).fit()
    for axis, choice in (("stem", "deep"), ("stride", "3x3"), ("order", "preact")):
        (row,) = found[found["effect"] == axis].to_dict("records")
        assert row["estimate"] == pytest.approx(fit.params[f"{axis}[T.{choice}]"])
        assert row["model"] == "additive"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize("reaction", [0.0, 0.02])
def test_intervals_cover_and_nothing_is_seldom_called_something(seeds, reaction):
    """600 effects of nothing: seeds differ, and orders react to them by chance."""
    draw = np.random.default_rng(seeds)
    frame = grid_runs(noisy(), seeds, cells=[(s, "1x1", o) for s in STEMS for o in ORDERS])
    seed, preact = frame["seed"].to_numpy(int), frame["order"].eq("preact").to_numpy(float)
    covered, called = [], []
    for _ in range(200):
        block = draw.normal(0, 0.05, seeds)[seed] + draw.normal(0, reaction, seeds)[seed] * preact
        frame["test_acc"] = 0.7 + block + draw.normal(0, 0.01, len(frame))
        scores = frame.pivot(index="seed", columns="model", values="test_acc")
        found = effect_table(frame.drop_duplicates("model"), scores, BASELINES, Plan(seeds))
        covered += ((found["ci_low"] <= 0) & (found["ci_high"] >= 0)).tolist()
        called.append((found["verdict"] != UNDECIDED).any())
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(called) <= 0.09  # 5 % and the error of 200 tables


def test_axes_that_cannot_be_told_apart_are_one_effect_with_both_names():
    cells = [("conv3", "1x1", "post"), ("deep", "1x1", "preact")]
    found = effects(grid_runs(noisy(), cells=cells), BASELINES)
    assert found["effect"].tolist() == ["stem/order"]
    assert found["contrast"].tolist() == ["deep/preact - conv3/post"]


def test_a_contrast_beyond_the_cells_is_not_estimable():
    # Five coefficients: two stems, three ways down, two orders; and four cells.
    cells = [("conv3", "1x1", "post"), ("deep", "1x1", "preact"), ("deep", "3x3", "post")]
    cells.append(("conv3", "3x3+avgpool", "preact"))
    found = effects(grid_runs(noisy(), cells=cells), BASELINES)
    lost = found["verdict"] == "not estimable: cells are missing"
    assert lost.any()
    assert found.loc[lost, ["estimate", "ci_low", "p_value"]].isna().all(axis=None)
    assert found.loc[~lost, ["estimate", "ci_low", "p_value"]].notna().all(axis=None)


def test_presets_are_an_axis_where_their_parts_do_not_cross():
    presets = {"A": "conv3 1x1 conv", "B": "conv3 3x3 conv", "D": "deep 3x3 avgpool"}
    cells = [
        dict(zip(("stem", "stride", "shortcut"), parts.split(), strict=True))
        | {"model": f"{preset}{order}", "preset": preset, "order": order}
        for preset, parts in presets.items()
        for order in ORDERS
    ]
    frame = pd.DataFrame([variant_columns(A) | own for own in cells]).set_index("model")
    assert factors(frame).columns.tolist() == ["preset", "order"]


def test_an_axis_goes_by_its_own_name():
    frame = pd.DataFrame([variant_columns(A), variant_columns(B)]).set_index("model")
    assert factors(frame).columns.tolist() == ["stride"]
    conv = frame.assign(stride="3x3", shortcut=["conv", "pad"])
    assert factors(conv).columns.tolist() == ["shortcut"]
    both = frame.assign(shortcut=["conv", "avgpool"])
    assert factors(both)["downsample"].tolist() == ["1x1", "3x3+avgpool"]


def test_one_seed_gives_estimates_without_intervals():
    found = effects(grid_runs(noisy(), seeds=1), BASELINES)
    assert found["estimate"].notna().all()
    assert found[["ci_low", "ci_high", "p_value"]].isna().all(axis=None)
    assert set(found["verdict"]) == {"undecided"}


def without_a_whole_seed():
    runs = grid_runs(noisy(), seeds=2, cells=[("conv3", "1x1", o) for o in ORDERS])
    return runs[(runs["order"] == "post") == (runs["seed"] == 0)]


@pytest.mark.parametrize(
    "runs",
    [
        runs_frame([]),
        runs_frame(paired_rows({A: [0.8, 0.9]})),
        runs_frame([run_row(model, status="failed") for model in (A, D)]),
        without_a_whole_seed(),
    ],
    ids=["no runs", "one variant", "failed runs", "no common seed"],
)
def test_without_anything_to_compare_there_are_no_rows(runs):
    found = effects(runs, BASELINES)
    assert tuple(found.columns) == (*KEY, *EFFECT_COLUMNS) and found.empty


def test_a_seed_that_lacks_a_cell_is_left_out():
    runs = grid_runs(noisy(), cells=[(s, "1x1", o) for s in STEMS for o in ORDERS])
    whole = effects(runs[runs["seed"] > 0], BASELINES)
    runs.loc[0, ["status", "test_acc"]] = ["failed", np.nan]
    found = effects(runs, BASELINES)
    assert set(found["seeds"]) == {2}
    pd.testing.assert_frame_equal(found, whole)


def test_a_cell_that_lost_most_of_its_runs_does_not_take_the_seeds_of_the_others():
    runs = grid_runs(
        noisy(), 4, cells=[("conv3", d, "post") for d in ("1x1", "3x3", "3x3+avgpool")]
    )
    lost = (runs["model"] == runs["model"].unique()[2]) & (runs["seed"] > 0)
    runs.loc[lost, ["status", "test_acc"]] = ["diverged", np.nan]
    found = effects(runs, BASELINES)
    assert found[["effect", "cells", "seeds"]].to_numpy().tolist() == [["stride", 2, 4]]


def test_an_older_table_beside_a_newer_one():
    runs = runs_frame(paired_rows({A: [0.8, 0.9], B: [0.7, 0.8]}))
    runs.loc[runs["model"] == A, list(FURTHER_COLUMNS)] = np.nan
    assert not effects(runs, {A: A, B: A}).empty
