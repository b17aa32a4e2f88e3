"""What a figure shows of a table, read off its artists and its files."""

import io
import os
import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from factories import (
    D_PRE,
    A,
    B,
    D,
    comparison,
    diagnosis,
    epochs_of,
    paired_rows,
    run_row,
    runs_frame,
    summarised,
)
from factories import summary_row as row
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.reporting.figures import FIGURES
from resnet_variants.reporting.figures.cost import accuracy_vs_cost
from resnet_variants.reporting.figures.curves import training_curves
from resnet_variants.reporting.figures.style import rendered


def markers(figure):
    """The data points as (marker, has an interval), one per error bar container."""
    return [(bar.lines[0], bar.has_yerr) for bar in figure.axes[0].containers]


def curves_of(runs, epochs=None):
    epochs = epochs_of(runs) if epochs is None else epochs
    return training_curves(comparison(runs, epochs=epochs))


def grid_of_runs():
    return runs_frame(paired_rows({A: [0.8, 0.9], D: [0.8, 0.9], D_PRE: [0.8, 0.9]}))


A_PRE = "net_a_preact"
SCORES = {A: [0.80, 0.82, 0.81], A_PRE: [0.83, 0.84, 0.86], D: [0.85, 0.9, 0.88]}
SCORES[D_PRE] = [0.91, 0.92, 0.95]
LABELS = {"A", "A preact", "D", "D preact"}
GRID = [
    (stem, stride, shortcut, order)
    for stem in ("conv3", "deep")
    for stride, shortcut in (("1x1", "conv"), ("3x3", "conv"), ("3x3", "avgpool"))
    for order in ("post", "preact")
]
LONG = "folder-" + "a-name-of-some-length-" * 3


def rows_of(scores=SCORES, **changes):
    """Runs of presets A and D in two orders."""
    rows = []
    for model, accs in scores.items():
        base = A if model == A_PRE else model
        own = {"model": model, "order": "preact" if model in (A_PRE, D_PRE) else "post"}
        for seed, acc in enumerate(accs):
            row = run_row(base, seed, acc, **changes)
            rows.append(row | own | {"run_id": row["run_id"].replace(base, model)})
    return rows


def compared(scores=SCORES, *, names=None, **changes):
    """A comparison with epochs and a diagnosis of each run."""
    return of_rows(rows_of(scores, **changes), names=names)


def of_rows(rows, *, names=None):
    runs = runs_frame(rows)
    tables = [diagnosis(row) for row in rows]
    joined = {
        name: pd.concat([table[name] for table in tables], ignore_index=True) for name in tables[0]
    }
    more = {"epochs": epochs_of(runs), "diagnosis": joined, "names": names or {}}
    return comparison(runs, dict.fromkeys(runs["model"], A), **more)


def grid_rows():
    """Twelve networks of four costs, with long labels."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (stem, stride, shortcut, order) in enumerate(GRID):
        axes = {"stem": stem, "stride": stride, "shortcut": shortcut, "order": order, "preset": ""}
        macs = 4_000_000 + 400_000 * (stem == "deep") + 700_000 * (stride == "3x3")
        for seed in range(3):
            own = axes | {"model": f"rv_{i}", "run_id": f"rv_{i}__digits__2__s{seed}"}
            rows.append(run_row(A, seed, rng.uniform(0.8, 0.9)) | own | {"macs": macs})
    return rows


def laid_out(part):
    """All figures of a comparison."""
    figures = {name: draw(part) for name, draw in FIGURES.items()}
    figures = {name: figure for name, figure in figures.items() if figure is not None}
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
    return figures


@pytest.fixture(scope="module")
def figures():
    return laid_out(compared())


@pytest.fixture(scope="module")
def grid():
    return of_rows(grid_rows())


def legends(figure):
    own = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [legend for legend in own if legend]


def legend_texts(figure):
    return [text.get_text() for legend in legends(figure) for text in legend.get_texts()]


def texts(figure):
    titles = [legend.get_title() for legend in legends(figure)]
    own = [text for axes in figure.axes for text in axes.texts]
    return legend_texts(figure) + [text.get_text() for text in [*titles, *own]]


def entries(figure):
    """Label -> colour, marker and line of the legend under the axes."""
    (legend,) = figure.legends
    return {
        line.get_label(): (to_hex(line.get_color()), line.get_marker(), line.get_linestyle())
        for line in legend.get_lines()
    }


# --- all figures ------------------------------------------------------------------------------


def test_networks_are_named_by_what_they_differ_in(figures):
    assert {"accuracy_vs_macs", "training_curves", "effects", "lesion"} <= set(figures)
    for figure in figures.values():
        assert not [text for text in texts(figure) if "net_" in text]
    for name in ("training_curves", "gradient_flow", "sensitivity"):
        assert set(entries(figures[name])) == LABELS


def test_a_network_has_one_look_in_all_figures(figures):
    looks = [entries(figures[name]) for name in ("training_curves", "lesion", "accuracy_vs_macs")]
    for label in LABELS - {"A"}:  # the baseline, as one of them says
        assert len({own[label] for own in looks}) == 1
    assert len(set(looks[0].values())) == 4


def test_a_network_has_one_look_in_the_figures_of_two_data_sets():
    rows = rows_of() + rows_of({A_PRE: SCORES[A_PRE], D: SCORES[D]}, dataset="mnist")
    both = comparisons(runs_frame(rows), {})
    looks = [entries(FIGURES["accuracy_vs_macs"](part)) for part in both]
    assert looks[0]["A preact"] == looks[1]["A preact"]
    assert looks[0]["D"] == looks[1]["D"]


def test_effects_have_no_colour_of_a_network(figures):
    used = {colour for colour, *_ in entries(figures["training_curves"]).values()}
    (axes,) = figures["effects"].axes
    assert used.isdisjoint(to_hex(bar.lines[0].get_color()) for bar in axes.containers)


@pytest.mark.parametrize("data", [LONG, "x" * 200])
def test_captions_are_inside_the_figure(data):
    part = compared(names={"digits": data})
    for name in ("accuracy_vs_macs", "training_curves", "effects", "interactions", "lesion"):
        figure = FIGURES[name](part)
        FigureCanvasAgg(figure).draw()
        box = figure.texts[0].get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name


def test_every_panel_has_labels_and_ticks(figures):
    for name, figure in figures.items():
        for axes in figure.axes:
            if not axes.axison or hasattr(axes, "_colorbar"):  # a picture, or a scale
                continue
            last = axes.get_subplotspec().is_last_row() or axes.get_xlabel()
            assert not last or axes.get_xlabel(), name
            row = [*axes.get_shared_y_axes().get_siblings(axes)]
            assert any(one.get_ylabel() for one in row) or name == "effects"
            low, high = sorted(axes.get_ylim())
            if axes.get_yscale() == "log" and high > 1.2 * low:
                assert sum(low <= tick <= high for tick in axes.get_yticks()) > 1, name


def test_every_entry_of_a_legend_has_a_mark(figures, grid):
    for figure in [*figures.values(), FIGURES["accuracy_vs_macs"](grid)]:
        for legend in legends(figure):
            for line in legend.get_lines():
                assert line.get_linestyle() != "None" or line.get_marker() not in ("", "None")


def at_depths(*depths):
    return [
        row
        | {"depth": depth, "model": f"{row['model']}_{depth}", "run_id": f"{depth}{row['run_id']}"}
        for row in grid_rows()
        for depth in depths
    ]


def test_the_legend_of_many_networks_lists_the_choices_that_make_them():
    found = entries(FIGURES["training_curves"](of_rows(at_depths(20, 56))))
    assert {"stem deep", "downsample 1x1", "depth, order 20, post"} & set(found)
    assert len(found) < 12


def test_of_networks_with_more_choices_than_looks_two_factors_are_shown():
    found = entries(FIGURES["accuracy_vs_macs"](of_rows(at_depths(8, 14, 20, 26))))
    of_factors = [text for text in found if not text.startswith(("MACs", "Pareto"))]
    assert {text.split()[0] for text in of_factors} == {"downsample", "depth"}
    assert len(found) < 12


def test_curves_have_bands_unless_they_would_cover_one_another():
    rows = at_depths(8, 14)
    twice = [
        row | {"model": row["model"] + act, "run_id": act + row["run_id"], "act": act}
        for row in rows
        for act in ("relu", "silu")
    ]
    few, many = (FIGURES["training_curves"](of_rows(own)) for own in (rows, twice))
    assert all(axes.collections for axes in few.axes)
    assert not any(axes.collections for axes in many.axes)


# --- accuracy against MACs --------------------------------------------------------------------


def test_every_variant_with_a_score_has_one_marker_at_its_macs_and_accuracy():
    without = row(D_PRE) | {"n": 0, "test_acc_mean": np.nan}
    summary = summarised(row(A, 0.8), row(B, 0.85), row(D, 0.9), without)
    points = [line.get_xydata() for line, _ in markers(accuracy_vs_cost(summary))]
    assert [len(point) for point in points] == [1, 1, 1]
    assert np.concatenate(points) == pytest.approx(np.array([[4, 0.8], [5, 0.85], [6, 0.9]]))


def test_an_interval_is_drawn_only_where_there_is_one_and_need_not_be_centred():
    skewed = row(A, 0.9) | {"test_acc_ci_low": 0.7, "test_acc_ci_high": 0.95}
    figure = accuracy_vs_cost(summarised(skewed, row(B, n=1)))
    assert [interval for _, interval in markers(figure)] == [True, False]
    (bar,) = figure.axes[0].containers[0].lines[2]
    assert bar.get_segments()[0][:, 1] == pytest.approx([0.7, 0.95])


@pytest.mark.parametrize("models", [(D, D_PRE), (A, D, D_PRE), (A, D, D_PRE, D, D)])
def test_equal_macs_and_accuracies_do_not_coincide(models):
    figure = accuracy_vs_cost(summarised(*[row(model) for model in models]))
    figure.draw_without_rendering()
    places = figure.axes[0].transData.transform(
        [line.get_xydata()[0] for line, _ in markers(figure)]
    )
    gaps = np.diff(np.sort(places[:, 0]))
    # In points, of which a marker is 6 wide: half of it stays in sight.
    assert gaps.min() * 72 / figure.dpi > 3


def test_the_line_joins_the_markers_of_the_front_from_cheap_to_dear():
    unranked = row("net_free", 0.99) | {"test_acc_common": np.nan}
    rows = (row(D_PRE), row(B, 0.6), row(D), unranked, row(A, 0.8))
    figure = accuracy_vs_cost(summarised(*rows))
    dearest, _, dear, _, cheap = (marker.get_xydata()[0] for marker, _ in markers(figure))
    joined = sorted([tuple(cheap), tuple(dear), tuple(dearest)])
    assert figure.axes[0].lines[-1].get_xydata() == pytest.approx(np.array(joined))


def test_the_front_is_that_of_the_cost_on_the_axis():
    costs = {"params": 2_000_000, "latency_ms": 5.0}
    dear, cheap = row(A, 0.7) | costs, row(D, 0.9) | dict.fromkeys(costs, 1.0)
    for name, label in (("params", "param"), ("latency", "lat")):
        figure = accuracy_vs_cost(summarised(dear, cheap), name)
        front = figure.axes[0].lines[-1]
        assert front.get_xydata()[:, 1].tolist() == [0.9]
        assert figure.axes[0].get_xlabel().startswith(label)


def test_training_time_has_no_front_and_a_bar_to_the_median_that_is_no_interval():
    fast, slow = row(A, 0.7), row(D, 0.9)
    fast |= {"train_ms_per_image": 1.0, "images_per_second": 500.0}
    slow |= {"train_ms_per_image": 4.0, "images_per_second": 250.0}
    figure = accuracy_vs_cost(summarised(fast, slow), "train_time")
    assert "Pareto front of the means" not in legend_texts(figure)
    assert "to the median run" in legend_texts(figure)
    assert [marker.get_xdata().tolist() for marker, _ in markers(figure)] == [[1.0], [4.0]]
    assert not any(bar.has_xerr for bar in figure.axes[0].containers)
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1.0, 2.0]


def test_a_variant_without_the_cost_has_no_marker():
    rows = [row(A) | {"latency_ms": 2.5}, row(B), row(D) | {"latency_ms": 3.0}]
    found = [
        marker.get_xdata()[0]
        for marker, _ in markers(accuracy_vs_cost(summarised(*rows), "latency"))
    ]
    assert found == [2.5, 3.0]


def test_flops_are_twice_the_macs_on_the_upper_axis():
    figure = accuracy_vs_cost(summarised(row(A), row(D)))
    figure.draw_without_rendering()
    (top,) = figure.axes[0].child_axes
    assert top.get_xlabel() == "FLOPs per image (millions)"
    assert np.array(top.get_xlim()) == pytest.approx(2 * np.array(figure.axes[0].get_xlim()))


def test_networks_are_named_beside_their_markers_and_baselines_in_the_legend():
    figure = accuracy_vs_cost(summarised(row(A) | {"verdict": "baseline"}, row(D)))
    assert {text.get_text() for text in figure.axes[0].texts} == {"A", "D"}
    assert {"A (baseline)", "D"} < set(legend_texts(figure))


@pytest.mark.parametrize(
    ("ns", "words"),
    [((1, 1), "one seed: no interval"), ((3, 3), "n = 3 seeds"), ((2, 6), "n = 2 to 6 seeds")],
)
def test_the_title_says_what_was_measured(ns, words):
    rows = [row(model, n=n) for model, n in zip((A, D), ns, strict=True)]
    title = " ".join(accuracy_vs_cost(summarised(*rows)).get_suptitle().split())
    assert words in title
    assert all(fact in title for fact in ("digits", "8 px", "cifar", "29", "2 epochs"))


@pytest.mark.parametrize(
    ("dataset", "drawn"),
    [
        ("<script>alert(1)</script> $x$ a & b %d {x} \\", None),
        (r"$\nothing{$", None),
        ("$" + "ä" * 51, None),
        ("a" * 150 + "b" * 150, f"{'a' * 30}...{'b' * 22}"),
    ],
    ids=["markup", "broken formula", "52 letters", "too long"],
)
def test_a_name_is_drawn_as_it_is_spelt_a_long_one_with_both_its_ends(dataset, drawn):
    figure = accuracy_vs_cost(summarised(row(A) | {"dataset": dataset}))
    svg = rendered(figure, "figure")["figure.svg"]
    assert b"<script" not in svg
    # What is seen: comments, where the source of a formula would stand, are not read.
    seen = "".join("".join(ElementTree.fromstring(svg).itertext()).split())
    assert f"on{drawn or dataset}at8px".replace(" ", "") in seen


def bands(axes):
    return [patch.get_extents() for patch in axes.patches]


def test_networks_of_equal_cost_share_a_marked_band():
    axes = FIGURES["accuracy_vs_macs"](compared()).axes[0]
    places = {bar.lines[0].get_xdata()[0] for bar in axes.containers}
    assert len(places) == 4
    for cost, band in zip((4, 6), bands(axes), strict=True):
        inside = [x for x in places if band.x0 < axes.transData.transform((x, 0.9))[0] < band.x1]
        assert len(inside) == 2
        assert np.mean(inside) == pytest.approx(cost)
    assert "equal MACs, side by side" in texts(axes.figure)


def test_costs_that_are_nearly_equal_are_said_to_be():
    rows = rows_of()
    rows = [row | {"params": 1_000_000 + 9_000 * (row["model"] == A)} for row in rows]
    assert FIGURES["accuracy_vs_params"](of_rows(rows)) is None
    rows = [row | {"macs": 5_000_000 + 9_000 * (row["model"] == A)} for row in rows]
    figure = FIGURES["accuracy_vs_macs"](of_rows(rows))
    assert "all have nearly the same MACs" in figure.get_suptitle()
    assert len(figure.axes[0].get_xticks()) == 1
    assert "MACs equal to 0.2 %, side by side" in texts(figure)


def test_an_outlier_is_at_the_edge_with_its_value():
    scores = SCORES | {A: [0.101, 0.1, 0.099]}
    axes = FIGURES["accuracy_vs_macs"](compared(scores)).axes[0]
    low, high = axes.get_ylim()
    assert 0.7 < low < 0.85 and high < 1
    assert axes.containers[0].lines[0].get_ydata() == pytest.approx([low])
    assert "A 10.0 % ↓" in texts(axes.figure)
    assert "beyond the frame" in axes.figure.get_suptitle()


def test_a_low_accuracy_that_squeezes_nothing_is_drawn_where_it_is():
    scores = SCORES | {A: [0.6, 0.61, 0.62]}
    axes = FIGURES["accuracy_vs_macs"](compared(scores)).axes[0]
    assert axes.containers[0].lines[0].get_ydata() == pytest.approx([0.61])
    assert axes.get_ylim()[0] < 0.61


def test_labels_overlap_neither_labels_nor_marks(grid):
    figure = FIGURES["accuracy_vs_macs"](grid)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert boxes
    assert all(not one.overlaps(other) for one, other in combinations(boxes, 2))
    marks = [axes.transData.transform(bar.lines[0].get_xydata()[0]) for bar in axes.containers]
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(axes.bbox.count_contains(box.corners()) == 4 for box in boxes)


def test_costs_far_apart_are_on_a_logarithmic_axis():
    rows = [row | {"macs": row["macs"] * (100 if row["model"] == A else 1)} for row in rows_of()]
    axes = FIGURES["accuracy_vs_macs"](of_rows(rows)).axes[0]
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) > 2


# --- training curves --------------------------------------------------------------------------


def test_curves_have_a_column_per_order_and_a_line_per_variant():
    figure = curves_of(grid_of_runs())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["order post", "order preact", "", ""]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 2, 1]
    assert len(legend_texts(figure)) == 3


def test_a_curve_is_the_mean_of_its_seeds():
    runs = runs_frame(paired_rows({A: [0.8, 0.9]}))
    epochs = epochs_of(runs)
    loss, error = (axes.lines[0].get_xydata() for axes in curves_of(runs, epochs).axes)
    mean = epochs.groupby("epoch").mean(numeric_only=True)
    assert loss == pytest.approx(np.array([[1, mean["train_loss"][1]], [2, mean["train_loss"][2]]]))
    assert error[:, 1] == pytest.approx(1 - mean["val_acc"].to_numpy())


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([0.35, 0.2], ""),
        ([1.0, 0.99, 0.6], ""),
        ([0.74, *[0.2] * 6], ""),
        ([0.0, 0.0], ""),
        ([0.76, *[0.2] * 6], ", errors above 75 % are cut off"),
    ],
)
def test_what_the_curves_do_not_show_is_said(errors, said):
    runs = runs_frame([run_row(A, 0)])
    first = epochs_of(runs).head(1).to_dict("records")
    epochs = pd.DataFrame(
        [first[0] | {"epoch": i + 1, "val_acc": 1 - error} for i, error in enumerate(errors)]
    )
    figure = curves_of(runs, epochs)
    assert figure.get_suptitle().replace("\n", " ").endswith(f"n = 1 seed{said}")
    assert (figure.axes[1].get_ylim()[1] < max(errors)) == bool(said)


def test_curves_of_two_depths_are_never_averaged():
    deeper = {"model": "deeper", "depth": 101, "run_id": "deeper__digits__2__s0"}
    rows = [run_row(A), run_row(A) | deeper]
    losses = [1.0, 1.0, 3.0, 3.0]
    epochs = epochs_of(runs_frame(rows)).assign(train_loss=losses)
    lines = curves_of(runs_frame(rows), epochs).axes[0].lines
    assert [[*line.get_ydata()] for line in lines] == [losses[:2], losses[2:]]


def test_a_single_epoch_is_drawn_as_points():
    part = compared()
    part = comparison(part.runs, epochs=part.epochs[part.epochs["epoch"] == 1])
    loss, error = FIGURES["training_curves"](part).axes[:2]
    for axes in (loss, error):
        marks = [line for line in axes.lines if line.get_marker() not in ("", "None")]
        assert marks and all(line.get_linestyle() == "None" for line in axes.lines)
    assert error.get_xticks().tolist() == [1]


# --- files ------------------------------------------------------------------------------------


def drawn():
    """Figures of two kinds as files."""
    scatter = accuracy_vs_cost(summarised(row(A), row(D), row(D_PRE)))
    return rendered(scatter, "of_v1.5_8") | rendered(curves_of(grid_of_runs()), "curves")


@pytest.fixture(scope="module")
def files():
    return drawn()


def test_a_figure_becomes_a_png_and_an_svg_of_plausible_size(files):
    assert [*files] == ["of_v1.5_8.png", "of_v1.5_8.svg", "curves.png", "curves.svg"]
    for name in ("of_v1.5_8", "curves"):
        with Image.open(io.BytesIO(files[f"{name}.png"])) as image:
            pixels = np.asarray(image.convert("L"))
        assert 800 < pixels.shape[1] < 3000 and 800 < pixels.shape[0] < 2000
        assert 0.01 < (pixels < 200).mean() < 0.5  # neither blank nor black
        assert b"<svg" in files[f"{name}.svg"]


def test_the_settings_of_the_process_stay_as_they_are_and_change_no_figure(files):
    with mpl.rc_context({"font.size": 21, "text.usetex": True}):
        before = dict(mpl.rcParams)
        assert drawn() == files
        assert dict(mpl.rcParams) == before


_DRAWN = """
import os, pathlib, sys
out, backend = sys.argv[1:]
sys.argv = ["resnet-variants"]  # the package loads no torch for a command
import resnet_variants.reporting
import test_plots
for name, data in test_plots.drawn().items():
    pathlib.Path(out, name).write_bytes(data)
assert os.environ.get("MPLBACKEND") == backend, os.environ.get("MPLBACKEND")
"""


def test_no_setting_of_the_users_changes_a_figure(tmp_path, files):
    """Neither a style of their own nor a notebook's backend."""
    backend, style = "module://matplotlib_inline.backend_inline", tmp_path / "matplotlibrc"
    style.write_text(
        "text.usetex: True\nfont.size: 20\nsavefig.bbox: tight\nsavefig.transparent: True\n"
        "axes.grid.axis: x\nlines.linewidth: 9\nsvg.hashsalt: other\nfigure.dpi: 31\n"
    )
    settings = {"MATPLOTLIBRC": str(style), "MPLBACKEND": backend}
    settings |= {"PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", _DRAWN, str(tmp_path), backend],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, data in files.items():
        assert (tmp_path / name).read_bytes() == data, name
