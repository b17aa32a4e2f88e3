"""The page, read as text and used in a browser."""

import base64
import gzip
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from factories import D_PRE, A, B, D, epochs_of, paired_rows, run_row, runs_frame

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.records.results_folder import EPOCH_COLUMNS
from resnet_variants.reporting import html as page_module
from resnet_variants.reporting.figures.arms import arms_of
from resnet_variants.reporting.figures.cost import accuracy_vs_cost
from resnet_variants.reporting.figures.interactive import CURVE_POINTS
from resnet_variants.reporting.findings import answer, headline
from resnet_variants.reporting.html import RUNS_SHOWN, Content, Failure, render

STYLE = Path(page_module.__file__).parent / "assets" / "page.css"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><b>%{x}</b>&lt;\u2028"
LARGEST = 6_000_000  # bytes
PATIENCE = 120_000  # milliseconds: other work on the machine may slow a browser
SCORES = {A: [0.90, 0.91, 0.92], B: [0.915, 0.92, 0.93], D: [0.93, 0.95, 0.94]}
SCORES |= {D_PRE: [0.92, 0.93, 0.94]}


def effect(kind="main", estimate=0.01, **changes):
    numbers = {"estimate": estimate, "ci_low": estimate - 0.02, "ci_high": estimate + 0.02}
    words = {"effect": "order", "contrast": "preact - post", "verdict": "undecided"}
    tests = {"p_value": 0.2, "p_adjusted": 0.4, "cells": 4, "seeds": 3}
    return {"kind": kind} | words | numbers | tests | changes


def grid_of_runs():
    """Parameters that would be out of order as text; the cheapest in MACs is not so in time."""
    params = dict(zip(SCORES, (900, 4_000, 20_000, 100_000), strict=True))
    speeds = dict(zip(SCORES, (500, 600, 750, 1000), strict=True))
    return [
        row | {"params": params[row["model"]], "images_per_second": speeds[row["model"]]}
        for row in paired_rows(SCORES)
    ]


def comparisons_of(runs, epochs, effects):
    """With effects of their own in place of what would follow from the runs."""
    baselines = dict.fromkeys(runs["model"], runs["model"].iloc[0]) if len(runs) else {}
    parts = comparisons(runs, baselines, epochs=epochs_of(runs) if epochs is None else epochs)
    if effects is None:
        effects = pd.DataFrame([effect(), effect("interaction", 0.03, effect="stem x order")])
    for part in parts:
        own = effects if part is parts[0] else pd.DataFrame()
        summary = part.summary.assign(front_probability=0.25)
        vars(part).update(summary=summary, effects=own)
    return parts


def content(rows=None, *, epochs=None, effects=None, **changes):
    runs = runs_frame(grid_of_runs() if rows is None else rows)
    own = Content(
        title="orders",
        question="Which order?",
        expect="preact",
        headline=("D wins.",),
        answer=("Nothing else is clear.",),
        counts=runs["status"].value_counts().to_dict(),
        comparisons=comparisons_of(runs, epochs, effects),
        failures=(),
        provenance={"torch": ["2.15.0"]},
        reproduce=["python -m resnet_variants.run"],
        notes=["Intervals are Student's."],
    )
    return replace(own, **changes)


def hostile():
    names = {
        "model": HOSTILE,
        "order": HOSTILE,
        "dataset": HOSTILE,
        "run_id": f"{HOSTILE}__a__b__s0",
    }
    rows = [run_row(A), run_row(A) | names, run_row(B) | {"dataset": HOSTILE}]
    return content(
        rows,
        title=HOSTILE,
        question=HOSTILE,
        headline=(HOSTILE,),
        answer=(HOSTILE,),
        effects=pd.DataFrame([effect(effect=HOSTILE, contrast=HOSTILE, verdict=HOSTILE)]),
        failures=[Failure(HOSTILE, "failed", HOSTILE, HOSTILE)],
        provenance={HOSTILE: [HOSTILE]},
        reproduce=[HOSTILE],
        notes=[HOSTILE],
        files=[(HOSTILE, HOSTILE)],
    )


# Far above the baseline, far below it, and no difference on average.
STEPS = {A: np.zeros(9), B: np.linspace(0.018, 0.022, 9), D_PRE: np.linspace(-0.034, -0.026, 9)}
STEPS |= {D: np.linspace(-0.004, 0.004, 9)}
LABELS = {A: "A", B: "B", D: "D", D_PRE: "D preact"}
GROUND = 0.9 + 0.01 * np.sin(np.arange(9))  # how easy each seed is


def told_apart():
    """One arm is better than the baseline, one worse, one cannot be told from it."""
    return paired_rows({model: GROUND + step for model, step in STEPS.items()})


def study(rows=None, *, baselines=None, **changes):
    """With the answer that follows from the runs."""
    runs = runs_frame(told_apart() if rows is None else rows)
    parts = comparisons(
        runs, baselines or dict.fromkeys(STEPS, A), provenance=changes.get("provenance")
    )
    said = {"headline": headline(parts), "answer": answer(parts), "comparisons": parts}
    return content(rows=[], **{"provenance": {}} | said | changes)


class Tags(HTMLParser):
    """The start tags of a page."""

    def __init__(self, html):
        super().__init__()
        self.names = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)


def data_of(html):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    packed = re.search(r'id="data">(.*?)</script>', html)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)), parse_constant=refuse)


def figures_of(html, name):
    """The figures of all comparisons that have one."""
    return [figure for figure in data_of(html)["figures"][name] if figure]


def traces_of(figure, name, **chosen):
    """The traces of a name, as the script makes them from the chosen options."""
    options = [figure["options"][choice][value] for choice, value in chosen.items()]
    traces = [{"name": kind} for kind in figure["columns"]["name"]]
    for columns in [figure["columns"], *(option["columns"] for option in options)]:
        for attribute, values in columns.items():
            for trace, value in zip(traces, values, strict=False):
                trace |= {} if value is None else {attribute: value}
    return [trace for trace in traces if trace["name"] == name]


def first_screen(html):
    return html[html.index("<header>") : html.index("<details")]


def part(html, name):
    """One of the folded parts."""
    return html[html.index(f'<summary id="{name}"') :].partition("</details>")[0]


def cells(html):
    """The cells of each row of an HTML text, without tags."""
    found = re.findall(r"<tr data.*?</tr>", html, re.DOTALL)
    texts = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in found]
    return [[re.sub(r"<.*?>", "", text).strip() for text in row] for row in texts]


def titles(html):
    return re.findall(r'<th scope="row" title="(.*?)"', html)


# --- the text ---------------------------------------------------------------------------------


def test_hostile_names_make_no_element():
    harmless, html = Tags(render(content())), render(hostile())
    tags = Tags(html)
    assert tags.names.count("script") == harmless.names.count("script") == 3
    assert not {"img", "b"} & {*tags.names}
    assert HOSTILE in data_of(html)["rows"]["model"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": []}, "No variant has been run yet"),
        ({"rows": [run_row(A, status="failed")]}, "No run has finished"),
        ({"rows": [run_row(A)]}, "90.00"),
        ({"rows": [run_row(A), run_row(B)]}, "undecided"),
        ({"rows": [run_row(A, acc=float("nan"))]}, "No run has finished"),
        ({"epochs": pd.DataFrame(columns=list(EPOCH_COLUMNS))}, "No finished run has recorded"),
        ({"counts": {}}, "no runs"),
        ({"provenance": {}}, "not recorded"),
    ],
)
def test_what_is_missing_is_said_in_words(change, said):
    html = render(content(**change))
    assert said in html
    data_of(html)
    assert not re.search(r">\s*(nan|inf)\b", html[: html.index('id="data"')])


def test_missing_and_infinite_numbers_are_null():
    rows = [run_row(A), run_row(B)]
    epochs = epochs_of(runs_frame(rows))
    losses = epochs["train_loss"].where(epochs["epoch"] > 1, np.inf)
    html = render(content(rows, epochs=epochs.assign(train_loss=losses)))
    (cost,), (curves,) = figures_of(html, "cost"), figures_of(html, "curves")
    assert [trace["error_y.array"] for trace in traces_of(cost, "means")] == [[None], [None]]
    lines = list(traces_of(curves, "mean", **{"curves-y": "train_loss"}))
    assert [line["y"][0] for line in lines] == [None, None]


def test_plotly_knows_every_attribute_of_every_option():
    html = render(content())
    layout = data_of(html)["layout"]
    for figure in figures_of(html, "cost") + figures_of(html, "curves"):
        for choice, options in figure["options"].items():
            for value, option in options.items():
                for name, kind in figure["kinds"].items():
                    for trace in traces_of(figure, name, **{choice: value}):
                        scatter = go.Scatter(kind)
                        for attribute, own in trace.items():
                            scatter[attribute] = own
                go.Layout(layout | figure["layout"] | option["layout"])


def test_failures_stand_at_the_top_and_in_full_below():
    failures = [
        Failure("a__b__c__s0", "diverged", "loss is inf", ""),
        Failure("a__b__c__s1", "failed", "no memory", "Traceback: here"),
    ]
    html = render(content(failures=failures, counts={"missing": 2, "failed": 1, "done": 3}))
    top = html[html.index("<header>") : html.index("</header>")]
    assert re.findall(r"<li.*>(\d.*)</li>", top) == ["3 done", "1 failed", "2 missing"]
    assert 'href="#failures"' in top
    assert html.count("<summary>End of the log</summary>") == 1
    assert "Traceback: here" in html


def test_rows_that_may_not_be_compared_share_no_table():
    other = [run_row(model, dataset="cifar10") for model in (A, B)]
    html = render(content([*paired_rows(SCORES), *other]))
    tables = re.findall(r'aria-label="Numbers (.*?)".*?</table>', html, re.DOTALL)
    assert tables == ["digits at 8 px", "cifar10 at 8 px"]
    assert "<li>2 epochs, fp32, cpu</li>" in html
    shown = [[t["meta"] for t in traces_of(f, "means")] for f in figures_of(html, "cost")]
    assert shown == [[0, 1, 2, 3], [4, 5]]


def test_an_effect_is_drawn_to_scale_and_one_that_cannot_be_estimated_says_why():
    unknown = dict.fromkeys(("estimate", "ci_low", "ci_high", "p_value", "p_adjusted"), np.nan)
    effects = [effect(estimate=0.0), effect(estimate=0.02), effect(verdict="one stem", **unknown)]
    html = part(render(content(effects=pd.DataFrame(effects))), "effects")
    assert "one stem" in html
    assert html.count('<td class="forest"') == 3
    marks = re.findall(MARK, html)
    assert [tuple(map(float, mark)) for mark in marks] == [(25, 75, 50), (50, 100, 75)]
    assert "<span>-4</span><span>0</span><span>+4</span>" in html


MARK = r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="9" y2="9"/><circle cx="([\d.]+)%"'


def many(variants, seeds, epochs):
    """Each with a name as long as they get."""
    (one,) = comparisons_of(runs_frame([run_row(A, seed) for seed in range(seeds)]), None, None)
    names = [f"net_{i:04}_{'x' * 40}" for i in range(variants)]
    summary = pd.concat([one.summary] * variants).assign(model=names, baseline=names[0])
    runs = pd.concat([one.runs] * variants).assign(model=np.repeat(names, seeds))
    runs["run_id"] = [f"{model}__digits__2__s{i % seeds}" for i, model in enumerate(runs["model"])]
    by_epoch = {name: np.repeat(runs[name].to_numpy(), epochs) for name in ("run_id", "model")}
    by_epoch |= {"epoch": np.tile(np.arange(1, epochs + 1), len(runs))}
    by_epoch |= {"train_loss": 2 / 3, "val_acc": 1 / 3}
    networks = runs.drop_duplicates("model")
    part = replace(one, runs=runs, epochs=pd.DataFrame(by_epoch), networks=networks)
    vars(part).update(summary=summary, effects=one.effects, errors_by_depth=pd.DataFrame())
    return replace(content(), comparisons=[part])


@pytest.mark.parametrize(
    ("variants", "seeds"), [(200, 10), pytest.param(1000, 2, marks=pytest.mark.slow)]
)
def test_a_thousand_variants_stay_small(variants, seeds):
    html = render(many(variants, seeds, epochs=50))
    assert len(html.encode()) <= LARGEST
    (cost,), (curves,) = figures_of(html, "cost"), figures_of(html, "curves")
    assert sum(len(trace["text"]) for trace in traces_of(cost, "runs")) == RUNS_SHOWN
    epochs = [line["x"] for line in traces_of(curves, "mean")]
    assert sum(map(len, epochs)) <= CURVE_POINTS
    assert {x[-1] for x in epochs} == {50}


def test_more_runs_than_a_browser_draws_are_left_out_and_that_is_said():
    html = render(many(variants=1, seeds=RUNS_SHOWN + 1, epochs=1))
    (cost,) = figures_of(html, "cost")
    assert not any(trace["text"] for trace in traces_of(cost, "runs"))
    assert "Single runs are left out: there are more than 2,000." in html
    assert "Runs are not listed here: there are more than 2,000." in html
    assert f"<td>{RUNS_SHOWN}</td>" not in html  # the seed of the last one


def test_curves_are_means_of_the_finished_runs():
    rows = [run_row(A, 0), run_row(A, 1), run_row(A, 2, status="diverged")]
    epochs = epochs_of(runs_frame(rows).assign(status="done"))
    (curves,) = figures_of(render(content(rows, epochs=epochs)), "curves")
    (line,) = traces_of(curves, "mean", **{"curves-y": "val_acc"})
    kept = 100 * epochs[epochs["seed"] < 2].groupby("epoch")["val_acc"].agg(["mean", "min", "max"])
    assert "n = 2" in line["text"][0]
    assert line["y"] == pytest.approx(kept["mean"], rel=1e-4)
    assert np.array(line["customdata"]) == pytest.approx(kept[["min", "max"]], rel=1e-4)


def test_the_page_draws_arms_and_equal_costs_as_the_figures_do():
    own = content()
    (figure,) = figures_of(render(own), "cost")
    (part,) = own.comparisons
    drawn = traces_of(figure, "means", colour="arm", **{"cost-x": "macs"})
    looks = [arms_of(part).look(model) for model in part.summary["model"]]
    assert [trace["marker.color"] for trace in drawn] == [look["color"] for look in looks]
    opened = [trace["marker.symbol"].endswith("-open") for trace in drawn]
    assert opened == [look["fill"] == "none" for look in looks]
    layout = figure["options"]["cost-x"]["macs"]["layout"]
    assert "equal MACs, side by side" in layout["xaxis"]["title"]["text"]
    (band,) = layout["shapes"]
    x = [trace["x"][0] for trace in drawn]
    assert [band["x0"] < place < band["x1"] for place in x] == [False, False, True, True]
    axes = accuracy_vs_cost(part).axes[0]
    (grey,) = (patch for patch in axes.patches if patch.get_x() == pytest.approx(band["x0"]))
    assert grey.get_width() == pytest.approx(band["x1"] - band["x0"])
    time = figure["options"]["cost-x"]["train_ms_per_image"]["layout"]
    assert "side by side" not in time["xaxis"]["title"]["text"] and not time["shapes"]


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(mode):
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", blocks[mode]))
    inks = [luminance(colours[name]) for name in ("text", "quiet", "link", "bad", "good")]
    for ground in (luminance(colours[name]) for name in ("ground", "raised")):
        for ink in inks:
            light, dark = max(ink, ground), min(ink, ground)
            assert (light + 0.05) / (dark + 0.05) >= 4.5


# --- the first screen, its names and its links ------------------------------------------------


def test_the_first_screen_has_the_question_the_answer_and_the_differences():
    html = first_screen(render(study()))
    assert "Which order?" in html
    assert headline(study().comparisons)[0] in html
    assert "difference to A, points [95 %]" in html
    assert cells(html) == [
        [LABELS[B], "", "+2.00 [+1.89, +2.11]", "better", "1.25", ""],
        [LABELS[D], "", "+0.00 [-0.21, +0.21]", "undecided", "1.50", "0.4 points would have shown"],
        [LABELS[D_PRE], "", "-3.00 [-3.21, -2.79]", "worse", "1.50", ""],
    ]
    assert titles(html) == [B, D, D_PRE]


def test_differences_are_drawn_to_scale_and_open_where_nothing_is_decided():
    html = first_screen(render(study()))
    marks = re.findall(r'<circle cx="([\d.]+)%" .*? style="fill:(.*?)"', html)
    assert [(fill == "currentColor", float(at)) for at, fill in marks] == [
        (True, 75.0),  # +2 on a scale from -4 to +4
        (False, 50.0),
        (True, 12.5),
    ]
    assert "<span>-4</span><span>0</span><span>+4</span>" in html


def test_arms_of_several_baselines_say_what_they_are_compared_with():
    html = first_screen(render(study(baselines={A: A, B: A, D: D, D_PRE: D})))
    assert [row[0] for row in cells(html)] == [
        "B against A",
        "D preact against D",
    ]


def test_accuracies_take_the_place_of_differences_that_are_not_there():
    rows = [run_row(A, seed, 0.9, dataset=data) for seed in (0, 1) for data in "ab"]
    html = first_screen(render(study(rows)))
    assert cells(html) == [["a at 8 px", "90.00", "2", A], ["b at 8 px", "90.00", "2", A]]


RECIPES = {
    "recipe 2": ["epochs 2, lr 0.1, milestones [0.5, 0.75], auto_augment , drop_path 0.0"],
    "recipe 3": [
        "epochs 2, lr 0.01, milestones [0.5, 0.75], auto_augment rand, drop_path_rate 0.0"
    ],
}


def two_recipes(model):
    other = {"run_id": f"{model}__digits__3__s0"}
    return [run_row(model, 0, 0.9), run_row(model, 0, 0.8, **other)]


def test_recipes_are_named_by_what_they_differ_in():
    html = render(study(two_recipes(A), provenance=RECIPES, answer=()))
    names = ["lr 0.1, auto_augment none", "lr 0.01, auto_augment rand"]
    assert re.findall(r"<h3>(lr.*)</h3>", html)[:2] == names
    assert re.findall(r"<dt>(.*)</dt>", html) == [f"recipe {name}" for name in names]


def test_sentences_name_recipes_by_what_they_differ_in():
    said = study(two_recipes(A), provenance=RECIPES).answer
    assert [sentence.partition(":")[0] for sentence in said if ":" in sentence] == [
        "lr 0.1, auto_augment none",
        "lr 0.01, auto_augment rand",
    ]


def test_a_recipe_without_a_record_keeps_its_digest():
    html = render(study(two_recipes(A)))
    assert "<h3>recipe 3</h3>" in html


def test_every_run_has_a_row_with_its_full_name_and_links():
    run_id = f"{B}__digits__2__s0"
    own = [run_row(A, 0, 0.9), run_row(B, 0, 0.91), run_row(B, 1, status="failed", seconds=np.nan)]
    links = {run_id: [("folder", f"runs/{run_id}/"), ("log.txt", f"runs/{run_id}/log.txt")]}
    html = part(render(study(own, run_files=links, files=[("summary.csv", "summary.csv")])), "runs")
    assert [row[:6] for row in cells(html)] == [
        [LABELS[A], "0", "done", "90.00", "3", A],
        [LABELS[B], "0", "done", "91.00", "3", B],
        [LABELS[B], "1", "failed", "", "", B],
    ]
    assert re.findall(r'href="(.*?)"', html) == [*(a for _, a in links[run_id]), "summary.csv"]


def test_names_are_short_in_every_table_and_full_on_hover():
    html = render(study())
    assert {*titles(html)} == {*STEPS}
    assert not re.search(r'<th scope="row"[^>]*>net_', html)


def test_pairs_of_too_many_arms_are_left_out(monkeypatch):
    monkeypatch.setattr(page_module, "PAIRED", 3)
    assert 'class="controls pair"' not in render(study())


# --- the browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(names)} is on the PATH")
    with library.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def loaded(context, own, file, *, scripts=True):
    """A page that has started, and what ``watched`` sees of it."""
    file.write_text(render(own), encoding="utf-8")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    troubles = watched(page)
    page.goto(file.as_uri())
    if scripts:
        page.locator("body[aria-busy=false]").wait_for()
    return page, troubles


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page of its own; whatever ``watched`` sees but the page itself fails the test."""
    contexts, seen = [], []

    def open_page(own, *, scripts=True, **options):
        contexts.append(browser.new_context(java_script_enabled=scripts, **options))
        page, troubles = loaded(contexts[-1], own, tmp_path / "report.html", scripts=scripts)
        seen.append((page.url, troubles))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert all(troubles == [own] for own, troubles in seen)


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """One page for all that only use it: most of the time goes into loading one."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    own = loaded(context, content(), tmp_path_factory.mktemp("page") / "report.html")
    own[0].evaluate(FOLD, arg=True)
    return own


@pytest.fixture
def page(opened):
    """The page as it opens: light, every control at its default, nothing shown alone."""
    page, troubles = opened
    yield page
    page.mouse.move(0, 0)
    page.emulate_media(media="screen", color_scheme="light")
    page.evaluate(RESET)
    assert troubles == [page.url]


FOLD = "open => document.querySelectorAll('details').forEach(fold => { fold.open = open })"
RESET = """() => {
  document.querySelectorAll('[aria-pressed=true]').forEach(button => button.click());
  document.querySelectorAll('select, input').forEach(control => {
    const chosen = [...control.options ?? []].find(option => option.defaultSelected);
    control.value = chosen?.value ?? control.options?.[0].value ?? '';
    for (const name of ['input', 'change']) control.dispatchEvent(new Event(name));
  });
  document.activeElement.blur();
}"""


def watched(page):
    """Whatever a page complains of, asks for or pops up; what it makes itself is its own."""
    troubles = []

    def request(sent):
        if not sent.url.startswith(("blob:", "data:")):
            troubles.append(sent.url)

    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on("request", request)
    return troubles


def settles(page, script, value):
    """Wait until a script gives a value; what follows a change comes a frame later."""
    page.wait_for_function(
        f"value => JSON.stringify({script}) === JSON.stringify(value)", arg=value
    )


def variants(page, where="details:has(#summary)"):
    """The full names of the arms whose rows can be seen in a part of the page."""
    rows = page.locator(f"{where} tbody tr:visible th")
    return rows.evaluate_all("all => all.map(name => name.title || name.textContent)")


def drawn(page, name, attributes, plot="cost"):
    """Attributes of the traces of a name that can be seen."""
    seen = f"t.data.filter(d => d.name === '{name}' && d.visible !== false)"
    return page.locator(f"#{plot}").evaluate(f"t => {seen}.map(d => {attributes})")


def means(page):
    """Where the mean of each variant is drawn."""
    return drawn(page, "means", "[...d.x, ...d.y]")


def front(page):
    return [y for ys in drawn(page, "front", "d.y") for y in ys]


def test_sorting_is_numeric_and_announced(page):
    header = page.locator("details:has(#summary) th", has_text="MACs (M)").first
    assert page.locator("[aria-sort]").count() == 0
    page.get_by_role("button", name=re.compile("^delta")).focus()
    page.keyboard.press("Enter")
    assert variants(page) == [B, D_PRE, D, A]  # the baseline has no difference to itself
    page.keyboard.press("Enter")
    assert variants(page) == [D, D_PRE, B, A]
    header.get_by_role("button").click()
    assert variants(page)[0] == A
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="params").click()
    assert variants(page) == [A, B, D, D_PRE]  # 900, 4,000, 20,000 and 100,000


def test_filters_by_text_and_by_axis(page):
    page.get_by_label("text", exact=True).fill("NET_D")
    assert {*variants(page)} == {D, D_PRE}
    page.locator("#filter-order").select_option("post")
    assert variants(page) == [D]
    assert page.locator("#matches").inner_text() == "1 of 4 arms"
    assert len(means(page)) == len(drawn(page, "mean", "d.x", "curves")) == 1
    assert variants(page, "main > div") == [*{*variants(page, "details:has(#runs)")}] == [D]
    page.get_by_label("text", exact=True).fill("")
    assert {*variants(page)} == {A, B, D}


def test_the_axes_of_the_plot_can_be_chosen(page):
    assert means(page)[0] == pytest.approx([4, 91], abs=0.05)
    assert drawn(page, "runs", "d.x")[0] == pytest.approx([4, 4, 4], abs=0.05)
    assert front(page) == pytest.approx([91, 92.1667, 94], abs=0.01)
    page.locator("#cost-x").select_option("train_ms_per_image")
    assert [x for x, _ in means(page)] == pytest.approx([2, 5 / 3, 4 / 3, 1], abs=0.01)
    assert front(page) == []  # noise would rank
    page.locator("#cost-x").select_option("params")
    assert front(page) == pytest.approx([91, 92.1667, 94], abs=0.01)
    assert page.locator("#cost-x option").count() == 5  # no latency was measured


def test_a_point_tells_what_it_is(page):
    said = page.locator("#cost .hoverlayer")
    rings = page.locator("#cost .points path")  # the front's are the last: A, B and D
    rings.nth(rings.count() - 2).hover(force=True)
    said.filter(has_text="92.17 [90.27, 94.06] %, n = 3").wait_for()
    assert LABELS[B] in said.text_content()
    assert "undecided" in said.text_content()
    runs = [text for texts in drawn(page, "runs", "d.text") for text in texts]
    assert len(runs) == 12
    assert f"{A}__digits__2__s1" in runs


def test_the_legend_shows_the_colours_of_the_arms_that_are_drawn(page):
    legend = page.locator(".legend li:visible")
    page.locator("#colour").select_option("order")
    assert legend.all_inner_texts() == ["\u25a0\npost", "\u25cf\npreact"]
    page.get_by_label("text", exact=True).fill("net_b")
    assert legend.all_inner_texts() == ["\u25a0\npost"]


def test_the_measure_of_the_curves_can_be_chosen(page):
    errors = drawn(page, "mean", "d.y", "curves")
    page.locator("#curves-y").select_option("val_acc")
    assert np.add(errors, drawn(page, "mean", "d.y", "curves")) == pytest.approx(100, abs=1e-3)
    page.locator("#curves-y").select_option("train_loss")
    assert page.locator("#curves").evaluate("t => t.layout.yaxis.type") == "log"


def test_one_group_is_shown_at_a_time(visit):
    other = [run_row(model, dataset="cifar10", acc=0.5) for model in (A, B)]
    page = visit(content([*paired_rows(SCORES), *other]))
    assert len(variants(page)) == 4
    page.get_by_label("Show the runs of").select_option("1")
    assert variants(page) == [A, B]
    assert [y for _, y in means(page)] == [50, 50]
    assert len(drawn(page, "mean", "d.y", "curves")) == 2


def test_hostile_names_stay_text_and_fit_a_narrow_screen(visit):
    page = visit(hostile(), viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_label("Show the runs of").select_option("1")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.locator("#cost svg").first.bounding_box()["width"] <= 320
    assert HOSTILE in variants(page)
    assert any(HOSTILE in text for text in page.locator(".legend li").all_text_contents())
    page.locator("#cost .points path").last.hover(force=True)
    hover = page.locator("#cost .hoverlayer").text_content()
    assert "".join(HOSTILE.split()) in "".join(hover.split())
    assert page.locator("img, b, a[href^=x]").count() == 0
    box = page.locator("details:has(#summary) .scroll:visible")
    box.evaluate("b => { b.scrollLeft = 300 }")
    names = box.locator("tbody th").first.bounding_box()
    assert names["x"] == pytest.approx(box.bounding_box()["x"], abs=2)


WIDTH = "document.querySelector('#cost .main-svg').getBoundingClientRect().width"


def test_plots_follow_the_width(page):
    page.set_viewport_size({"width": 450, "height": 800})
    settles(page, f"{WIDTH} < 460", True)
    page.set_viewport_size({"width": 1000, "height": 800})
    settles(page, f"{WIDTH} > 460", True)


INK = "getComputedStyle(document.querySelector('#cost .xtick text')).fill"


def test_dark_and_light_may_change_while_the_page_is_open_and_print_is_light_and_whole(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(f"[{ground}, {INK}]") == ["rgb(255, 255, 255)", "rgb(22, 25, 29)"]
    page.emulate_media(color_scheme="dark")
    settles(page, INK, "rgb(230, 232, 235)")
    assert page.evaluate(ground) == "rgb(20, 23, 27)"
    page.get_by_label("text", exact=True).fill("net_a")
    assert len(variants(page)) == 1
    page.emulate_media(media="print")
    settles(page, INK, "rgb(22, 25, 29)")
    assert page.locator(".controls:visible, .skip:visible").count() == 0
    assert len(variants(page)) == 4


def test_without_scripts_the_tables_are_all_there(visit):
    other = [run_row(A, dataset="cifar10")]
    page = visit(content([*paired_rows(SCORES), *other]), scripts=False)
    assert len(variants(page)) == 5
    assert page.locator(".controls:visible").count() == 0
    assert page.get_by_text("This plot needs JavaScript").first.is_visible()


def test_everything_that_can_be_used_has_a_name(page):
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("heading", level=1).count() == 1
    nameless = """() => [...document.querySelectorAll('select, input, button, figure [role=group]')]
        .filter(e => !(e.labels?.[0]?.textContent || e.ariaLabel || e.textContent).trim())
        .map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []


def test_a_plot_can_be_kept_as_a_picture_and_sent_nowhere(page):
    buttons = page.locator("#cost .modebar-btn")
    names = buttons.evaluate_all("all => all.map(b => b.dataset.title)")
    assert names == ["Zoom", "Zoom in", "Zoom out", "Reset axes", "Download plot as a PNG"]
    with page.expect_download() as download:
        buttons.last.click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_the_first_key_leads_past_the_head(visit):
    page = visit(content([]))
    page.keyboard.press("Tab")
    assert page.locator(".skip:focus-visible").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "summary"


@pytest.mark.parametrize(
    "rows", [[run_row(A, status="failed")], [run_row(A)]], ids=["failed", "one"]
)
def test_pages_with_little_to_show_load(visit, rows):  # above is one with nothing
    page = visit(content(rows))
    assert page.locator("#cost svg").count() == 0 or rows[0]["status"] == "done"


def test_two_arms_can_be_compared(page):
    said = page.locator(".pair output")
    assert said.inner_text() == "+1.00 [-1.48, +3.48] points over 3 common seeds, p 0.500"
    page.locator("#other-0").select_option(label=LABELS[B])
    assert said.inner_text() == "+1.83 [-0.75, +4.42] points over 3 common seeds, p 0.250"
    page.locator("#arm-0").select_option(label=LABELS[B])
    assert said.inner_text() == "the same arm"


def test_on_a_phone_verdicts_are_seen_and_columns_that_do_not_fit_are_announced(visit):
    page = visit(study(), viewport={"width": 390, "height": 844})
    verdicts = page.locator("td.verdict:visible")
    assert verdicts.count() == 7  # the baseline has one in the table of numbers only
    edges = [box["x"] + box["width"] for box in (v.bounding_box() for v in verdicts.all())]
    assert max(edges) <= 390
    announced = page.locator(".more:visible")
    announced.wait_for()
    assert announced.inner_text() == "More columns: scroll or print."
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_folds_are_open_in_print(page):
    page.evaluate(FOLD, arg=False)
    notes = page.get_by_text("Intervals are Student's.")
    assert notes.is_hidden()
    page.emulate_media(media="print")
    assert notes.is_visible()
    page.evaluate(FOLD, arg=True)
