"""Forests and interactions, read off their artists."""

import numpy as np
import pytest
from factories import A, comparison, run_row, runs_frame
from test_effects import BASELINES, ORDERS, STEMS, grid_runs, noisy

from resnet_variants.analysis.statistics import estimate
from resnet_variants.reporting.figures.effects import forest, interactions


def two_by_two():
    return grid_runs(noisy(), cells=[(s, "1x1", o) for s in STEMS for o in ORDERS])


def labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_each_effect_has_its_interval_in_points_and_its_name():
    compared = comparison(two_by_two(), BASELINES)
    found = compared.effects
    (axes,) = forest(compared).axes
    names = [label.replace("\n", " ") for label in labels(axes)]
    assert names == (found["effect"] + ": " + found["contrast"]).tolist()
    assert len(axes.containers) == len(found) == 3
    for bar, effect in zip(axes.containers, found.to_dict("records"), strict=True):
        assert bar.lines[0].get_xdata()[0] == pytest.approx(100 * effect["estimate"])
        (segment,) = bar.lines[2][0].get_segments()
        assert segment[:, 0] == pytest.approx([100 * effect["ci_low"], 100 * effect["ci_high"]])
    assert {bar.lines[0].get_marker() for bar in axes.containers} == {"s", "o"}


def test_an_effect_without_an_interval_is_a_marker():
    runs = grid_runs(noisy(), 1, [("conv3", "1x1", o) for o in ORDERS])
    (axes,) = forest(comparison(runs, BASELINES)).axes
    assert not axes.containers[0].has_xerr


def test_two_axes_have_one_panel_with_the_means_of_the_seeds_that_all_have():
    runs = two_by_two()
    lost = (runs["order"] == "post") & (runs["stem"] == "deep") & (runs["seed"] == 0)
    runs.loc[lost, "status"] = "failed"
    (axes,) = interactions(comparison(runs, BASELINES)).axes
    for bar in axes.containers:
        own = runs[(runs["order"] == bar.get_label()) & (runs["seed"] > 0)]
        by_stem = own.groupby("stem", sort=False)["test_acc"]
        assert bar.lines[0].get_ydata() == pytest.approx(by_stem.mean().to_numpy())
        told = [estimate(accs.to_numpy()) for _, accs in by_stem]
        ends = [segment[:, 1].tolist() for segment in bar.lines[2][0].get_segments()]
        assert ends == [pytest.approx([max(one.low, 0), min(one.high, 1)]) for one in told]
    assert {bar.get_label() for bar in axes.containers} == set(ORDERS)
    assert len({bar.lines[0].get_linestyle() for bar in axes.containers}) == 2


def test_what_has_no_verdict_is_not_filled():
    compared = comparison(two_by_two(), BASELINES)
    compared.effects["verdict"] = ["better", "undecided", "worse"]
    faces = [bar.lines[0].get_markerfacecolor() for bar in forest(compared).axes[0].containers]
    assert [face == "white" for face in faces] == [False, True, False]


def test_one_axis_has_no_interaction():
    runs = grid_runs(noisy(), cells=[("conv3", "1x1", o) for o in ORDERS])
    assert interactions(comparison(runs, BASELINES)) is None


def test_no_interval_of_an_accuracy_leaves_zero_to_one():
    runs = two_by_two().query("seed < 2")
    runs["test_acc"] = runs["seed"].astype(float)  # as far apart as can be
    (axes,) = interactions(comparison(runs, BASELINES)).axes
    ends = np.concatenate([s for bar in axes.containers for s in bar.lines[2][0].get_segments()])
    assert ends[:, 1].min() >= 0
    assert ends[:, 1].max() <= 1


def test_any_name_is_drawn_as_it_is_spelt():
    runs = runs_frame(
        run_row(A, seed, 0.8 + 0.01 * seed * i) | {"order": order, "model": f"m{i}"}
        for seed in range(3)
        for i, order in enumerate(("$x$", "$", "%d"))
    )
    figure = forest(comparison(runs))
    figure.draw_without_rendering()
    assert labels(figure.axes[0])[0] == "order: $ - $x$"
