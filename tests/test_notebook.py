"""What Python callers get and see: results that show themselves, progress, help."""

import io
import os
import pydoc
import sys
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from factories import D_PRE, A, D, paired_rows, results_folder
from nbclient import NotebookClient

import resnet_variants as rv
from resnet_variants.reporting.build import read
from resnet_variants.terminal import live

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


@pytest.fixture
def results(tmp_path):
    """A folder in which D is better than A."""
    scores = {A: [0.8 + i / 999 for i in range(8)], D: [0.9 + i / 700 for i in range(8)]}
    return results_folder(tmp_path / "out", paired_rows(scores), baselines={A: A, D: A})


def test_results_show_the_answer_and_the_table(results):
    made = rv.report(results)
    for shown in (repr(made), made._repr_html_()):
        assert made.headline[0] in shown
        assert "verdict" in shown and "better" in shown
    html = made._repr_html_()
    assert html.count("<svg") == 1  # the baseline has no difference
    assert html.count("<tr>") == 3
    assert made.report == results / "report.html"
    assert made.figures["accuracy_vs_macs"] == results / "accuracy_vs_macs.png"


def test_what_a_notebook_shows_is_escaped(tmp_path):
    rows = paired_rows({D: [0.8, 0.9], D_PRE: [0.9, 0.8]})
    rows = [row | {"order": row["order"].replace("preact", "<script>")} for row in rows]
    html = read(results_folder(tmp_path / "out", rows, baselines={D_PRE: D}))._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html


def test_results_can_be_read_without_writing(results):
    before = sorted(results.iterdir())
    made = read(results)
    assert (made.figures, made.report, made.files) == ({}, None, ())
    assert sorted(results.iterdir()) == before
    pd.testing.assert_frame_equal(made.summary, rv.report(results).summary)


def test_a_run_without_a_report_writes_no_tables(tmp_path):
    made = rv.run(
        "rv_resnet8_cifar_b", seeds=1, epochs=1, batch_size=256, out=tmp_path, report=False
    )
    assert (len(made.runs), made.report) == (1, None)
    assert not [*tmp_path.glob("*.csv"), *tmp_path.glob("*.html")]


def test_a_notebook_has_a_bar_of_all_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "Console", lambda: SimpleNamespace(is_jupyter=True))
    said = io.StringIO()
    with redirect_stderr(said):
        rv.run("rv_resnet8_cifar_b", seeds=2, epochs=2, batch_size=256, out=tmp_path, report=False)
    assert "2/2 runs: 100%" in said.getvalue() and "4/4" in said.getvalue()


def test_help_begins_with_the_signature():
    text = pydoc.plain(pydoc.render_doc(rv.run))
    assert "run(variants: " in text.partition("DESCRIPTION")[0]
    assert "paired seeds" in text and "class Flags" not in text


def test_the_notebook_of_the_examples_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two test workers share two cores
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # on one core no worker is started
    root = str(Path(rv.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *sys.path]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if "seeds=6" in cell.source)
    cell.source = cell.source.replace("seeds=6", "seeds=2")  # a third of the time
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    html = "".join(out["data"].get("text/html", "") for out in shown if "data" in out)
    assert "<svg" in html and "<td>C</td>" in html
    assert any("image/png" in out.get("data", {}) for out in shown)
