"""Errors by depth, as a table and as a figure."""

import numpy as np
import pandas as pd
import pytest
from factories import A, comparison, epoch_records, results_folder, run_row, runs_frame
from scipy import stats

from resnet_variants.analysis.depths import DEPTH_COLUMNS, ERRORS, TEST, TRAINING
from resnet_variants.reporting.build import build
from resnet_variants.reporting.figures.effects import error_vs_depth
from resnet_variants.reporting.text import readable_errors

PAIRS = 8
NOISE = 0.002 * np.arange(PAIRS)
# Plain nets get worse with depth, residual ones better.
MEANS = {(20, "none"): 0.2, (44, "none"): 0.4, (20, "conv"): 0.18, (44, "conv"): 0.15}


def net(depth, shortcut, seed, error, **changes):
    name = f"net{depth}_{shortcut}"
    own = {"depth": depth, "shortcut": shortcut, "preset": "", "model": name}
    own |= {"run_id": f"{name}__digits__0__s{seed}"} | changes
    return run_row(A, seed, 1 - error) | own


def nets(means=None, seeds=PAIRS):
    return [
        net(*key, seed, error + NOISE[seed])
        for key, error in (means or MEANS).items()
        for seed in range(seeds)
    ]


def epochs_of(rows, train_acc=None):
    """Two epochs of each run, in the end with half of its test error; or with ``train_acc``."""
    frames = []
    for row in rows:
        records = pd.DataFrame(epoch_records(row)).assign(run_id=row["run_id"], model=row["model"])
        last = 0.5 + row["test_acc"] / 2 if train_acc is None else train_acc
        records.loc[records["epoch"] == 2, "train_acc"] = last
        frames.append(records[::-1])  # in no order
    return pd.concat(frames, ignore_index=True)


def compared(rows, train_acc=None):
    return comparison(runs_frame(rows), epochs=epochs_of(rows, train_acc))


def table_of(rows):
    return compared(rows).errors_by_depth


def test_each_depth_is_compared_with_the_next_shallower_of_its_design():
    found = table_of(nets())
    assert tuple(found) == DEPTH_COLUMNS
    test = found[found["split"] == TEST].set_index("model")
    training = found[found["split"] == TRAINING].set_index("model")
    assert len(test) == len(training) == len(MEANS)
    deep, shallow = test.loc["net44_none"], test.loc["net20_none"]
    assert (deep["shallower"], deep["pairs"], deep["seeds"]) == ("net20_none", PAIRS, PAIRS)
    assert (shallow["shallower"], shallow["pairs"], shallow["verdict"]) == ("", 0, "")
    assert deep["difference"] == pytest.approx(0.2)
    assert training.loc["net44_none", "difference"] == pytest.approx(0.1)
    assert deep["p_adjusted"] == pytest.approx(2 / 2**PAIRS)  # both comparisons flip together
    assert test["verdict"].to_dict() == {
        **{"net20_none": "", "net44_none": "higher", "net20_conv": "", "net44_conv": "lower"}
    }
    errors = 0.4 + NOISE
    interval = stats.t.interval(0.95, PAIRS - 1, errors.mean(), stats.sem(errors))
    assert (deep["ci_low"], deep["ci_high"]) == pytest.approx(interval)


def test_differences_are_of_seeds_that_both_have_finished():
    rows = nets({(20, "none"): 0.2, (44, "none"): 0.4})
    failed = net(44, "none", 7, 0.5, status="failed")
    rows = [failed if row["run_id"] == failed["run_id"] else row for row in rows]
    found = table_of(rows).set_index(["split", "model"]).loc[(TEST, "net44_none")]
    assert (found["seeds"], found["pairs"]) == (7, 7)
    assert found["difference"] == pytest.approx(0.2)


def test_no_interval_of_an_error_leaves_zero_to_one():
    rows = nets({(20, "none"): 0.2, (44, "none"): 0.4}, seeds=2)
    epochs = epochs_of(rows)
    last = epochs["epoch"] == 2
    epochs.loc[last, "train_acc"] = epochs.loc[last, "run_id"].str.endswith("s0").astype(float)
    training = comparison(runs_frame(rows), epochs=epochs).errors_by_depth
    training = training[training["split"] == TRAINING]
    assert training["ci_low"].tolist() == [0.0, 0.0]
    assert training["ci_high"].tolist() == [1.0, 1.0]


def test_training_error_that_was_not_recorded_has_no_rows_and_no_panel():
    found = compared(nets(), train_acc=np.nan)
    assert set(found.errors_by_depth["split"]) == {TEST}
    assert len(error_vs_depth(found).axes) == 1


@pytest.mark.parametrize(
    "keys",
    [[(20, "none"), (20, "conv")], [(20, "none"), (44, "conv")], [(20, "none")]],
)
def test_without_two_depths_of_one_design_there_is_nothing(keys):
    found = table_of(nets(dict.fromkeys(keys, 0.2)))
    assert found.empty and tuple(found) == DEPTH_COLUMNS


def in_both_orders(family, depth):
    for order in ("post", "preact"):
        name = f"{family}{depth}{order}"
        own = {"family": family, "order": order, "model": name, "run_id": f"{name}__d__0__s0"}
        yield net(depth, "conv", 0, 0.1, **own)


def test_families_are_never_joined():
    rows = [*in_both_orders("cifar", 20), *in_both_orders("imagenet", 18)]
    assert table_of(rows).empty
    test, _ = error_vs_depth(compared([*rows, *in_both_orders("imagenet", 34)])).axes
    assert [bar.lines[0].get_xdata().tolist() for bar in test.containers] == [[18, 34]] * 2


def test_the_figure_shows_the_table():
    found = table_of(nets())
    test, train = error_vs_depth(compared(nets())).axes
    for axes, split in ((test, TEST), (train, TRAINING)):
        own = found[found["split"] == split]
        assert [bar.get_label() for bar in axes.containers] == ["plain net (none)", "conv"]
        for bar, (_, line) in zip(axes.containers, own.groupby("design", sort=False), strict=True):
            assert bar.lines[0].get_xdata().tolist() == [20, 44]
            assert bar.lines[0].get_ydata() == pytest.approx(line["mean"].to_numpy())
            ends = [segment[:, 1] for segment in bar.lines[2][0].get_segments()]
            assert np.array(ends) == pytest.approx(line[["ci_low", "ci_high"]].to_numpy())


def test_a_reader_gets_percent_and_points():
    told = readable_errors(table_of(nets())).set_index(["error of", "design", "depth"])
    row = told.loc[(TEST, "plain net (none)", 44)]
    assert row["error % [95 %]"].startswith("40.70 [")
    assert row["more than the shallower, points [95 %]"] == "+20.00"  # no two pairs differ
    assert (row["p (adjusted)"], row["verdict"]) == ("0.008", "higher")


def test_reports_have_it_where_there_are_depths(tmp_path):
    out = results_folder(tmp_path / "a", nets(seeds=2))
    files = {path.name for path in build(out).files}
    assert {f"{ERRORS}.csv", f"{ERRORS}.svg", f"{ERRORS}.png"} <= files
    page = (out / "report.html").read_text(encoding="utf-8")
    assert '<summary id="depths"><h2>Error by depth</h2>' in page
    assert page.count('src="data:image/svg+xml;base64,') == 1
    table = page.partition('aria-label="Error by depth')[2].partition("</table>")[0]
    assert table.count("<tr data-arm") == len(pd.read_csv(out / f"{ERRORS}.csv")) == 8
