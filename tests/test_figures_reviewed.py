"""What a reviewer asks of every figure and of the LaTeX table."""

import re
import tomllib
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from factories import (
    D_PRE,
    A,
    D,
    comparison,
    diagnosis,
    epoch_records,
    results_folder,
    run_row,
    runs_frame,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.registry import UserError
from resnet_variants.reporting.build import build
from resnet_variants.reporting.figures import FIGURES
from resnet_variants.reporting.summary import summary_latex
from resnet_variants.run import read
from resnet_variants.sweeps.experiment import read_toml

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
    epochs = [
        {key: row[key] for key in ("run_id", "model", "seed")} | record
        for row in rows
        for record in epoch_records(row)
    ]
    tables = [diagnosis(row) for row in rows]
    joined = {
        name: pd.concat([table[name] for table in tables], ignore_index=True) for name in tables[0]
    }
    more = {"epochs": pd.DataFrame(epochs), "diagnosis": joined, "names": names}
    return comparison(runs_frame(rows), dict.fromkeys([row["model"] for row in rows], A), **more)


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


def drawn(part):
    """All figures of a comparison, laid out."""
    figures = {name: draw(part) for name, draw in FIGURES.items()}
    figures = {name: figure for name, figure in figures.items() if figure is not None}
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
    return figures


@pytest.fixture(scope="module")
def figures():
    return drawn(compared())


@pytest.fixture(scope="module")
def grid():
    return of_rows(grid_rows())


def legends(figure):
    own = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [legend for legend in own if legend]


def texts(figure):
    return [
        text.get_text()
        for legend in legends(figure)
        for text in [*legend.get_texts(), legend.get_title()]
    ] + [text.get_text() for axes in figure.axes for text in axes.texts]


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


def test_the_legend_of_many_networks_lists_the_choices_that_make_them():
    rows = [
        row
        | {"depth": depth, "model": f"{row['model']}_{depth}", "run_id": f"{depth}{row['run_id']}"}
        for row in grid_rows()
        for depth in (20, 56)
    ]
    found = entries(FIGURES["training_curves"](of_rows(rows)))
    assert {"stem deep", "downsample 1x1", "depth, order 20, post"} & set(found)
    assert len(found) < 12


# --- accuracy against cost --------------------------------------------------------------------


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


def test_the_bar_to_the_median_time_is_no_interval():
    rows = rows_of()
    rows = [
        row | {"images_per_second": 500 + 100 * row["seed"] + row["macs"] / 1e4} for row in rows
    ]
    axes = FIGURES["accuracy_vs_train_time"](of_rows(rows)).axes[0]
    assert not any(bar.has_xerr for bar in axes.containers)
    assert "to the median run" in texts(axes.figure)


def test_costs_far_apart_are_on_a_logarithmic_axis():
    rows = [row | {"macs": row["macs"] * (100 if row["model"] == A else 1)} for row in rows_of()]
    axes = FIGURES["accuracy_vs_macs"](of_rows(rows)).axes[0]
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) > 2


# --- curves -----------------------------------------------------------------------------------


def test_a_single_epoch_is_drawn_as_points():
    part = compared()
    part = comparison(part.runs, epochs=part.epochs[part.epochs["epoch"] == 1])
    loss, error = FIGURES["training_curves"](part).axes[:2]
    for axes in (loss, error):
        marks = [line for line in axes.lines if line.get_marker() not in ("", "None")]
        assert marks and all(line.get_linestyle() == "None" for line in axes.lines)
    assert error.get_xticks().tolist() == [1]


# --- the name of the data ---------------------------------------------------------------------

NAME = "CIFAR-10 (JPEG), 16 px"


def test_a_name_of_the_data_is_in_captions_tables_and_page(tmp_path):
    out = results_folder(tmp_path / "out", rows_of())
    content = (out / "experiment.json").read_text()
    (out / "experiment.json").write_text(
        content.replace('"question"', f'"data_names": {{"digits": "{NAME}"}}, "question"')
    )
    build(out)
    svg = (out / "accuracy_vs_macs.svg").read_text()
    assert NAME in svg and "digits" not in svg
    assert NAME in (out / "summary.tex").read_text()
    assert NAME in (out / "report.html").read_text()
    build(tmp_path / "both", [out])
    assert read_experiment(tmp_path / "both")["data_names"] == {"digits": NAME}


def test_a_name_of_the_data_changes_no_id(tmp_path):
    named, _ = read(["--variant", "A", "D", "--data-name", NAME])
    plain, _ = read(["--variant", "A", "D"])
    assert [run.id for run in named.runs] == [run.id for run in plain.runs]
    assert named.record()["data_names"] == {"digits": NAME}
    assert not plain.record()["data_names"]
    file = tmp_path / "question.toml"
    file.write_text(f'data_name = "{NAME}"\n[grid]\ndepth = [18]\n')
    assert tomllib.loads(file.read_text())["data_name"] == read_toml(file).data_name
    with pytest.raises(UserError, match="data_name must be text in quotes"):
        file.write_text("data_name = 3\n[grid]\ndepth = [18]\n")
        read_toml(file)
    with pytest.raises(UserError, match="one line of plain text"):
        read(["--variant", "A", "--data-name", "two\nlines"])


# --- LaTeX ------------------------------------------------------------------------------------


def test_latex_has_caption_label_and_what_it_needs():
    text = summary_latex([compared()], "my experiment")
    assert text.startswith(r"% Needs \usepackage{booktabs}")
    assert r"\label{tab:my-experiment}" in text
    assert r"\caption{Test accuracy on digits at 8 px" in text
    assert r"\end{tabular}" in text and r"\end{table}" in text


def test_latex_leaves_out_what_does_not_vary():
    header = re.search(r"\\toprule\n(.*?) \\\\", summary_latex([compared()], "x")).group(1)
    assert header == r"Arm & MACs & Accuracy (\%) & $\Delta$ (points)"


@pytest.mark.parametrize(
    ("best", "bold"), [([0.95, 0.99, 0.985], r"\textbf{97.50} $\pm$"), ([0.91, 0.8, 0.99], "")]
)
def test_latex_has_in_bold_what_no_other_is_tied_with(best, bold):
    text = summary_latex([compared(SCORES | {D_PRE: best})], "x")
    assert text.count(r"\textbf") == bool(bold)
    assert bold in text
    assert ("Bold:" in text) == bool(bold)
