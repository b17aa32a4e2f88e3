"""The page's first screen, its names and its links, read as text and used in a browser."""

import re
import shutil

import numpy as np
import pytest
from factories import D_PRE, A, B, D, paired_rows, run_row, runs_frame

from resnet_variants.analysis.comparison import comparisons
from resnet_variants.reporting import html as page_module
from resnet_variants.reporting.findings import answer, headline
from resnet_variants.reporting.html import Content, render

PATIENCE = 60_000  # milliseconds: other work on the machine may slow a browser
# Far above the baseline, far below it, and no difference on average.
STEPS = {A: np.zeros(9), B: np.linspace(0.018, 0.022, 9), D_PRE: np.linspace(-0.034, -0.026, 9)}
STEPS |= {D: np.linspace(-0.004, 0.004, 9)}
LABELS = {A: "1x1", B: "3x3", D: "3x3+avgpool", D_PRE: "3x3+avgpool preact"}
GROUND = 0.9 + 0.01 * np.sin(np.arange(9))  # how easy each seed is


def rows():
    return paired_rows({model: GROUND + step for model, step in STEPS.items()})


def content(own=None, *, baselines=None, **changes):
    runs = runs_frame(rows() if own is None else own)
    baselines = baselines or dict.fromkeys(STEPS, A)
    parts = comparisons(runs, baselines, provenance=changes.get("provenance"))
    given = {
        "title": "tricks",
        "question": "Which order?",
        "expect": "B",
        "headline": headline(parts),
        "answer": answer(parts),
        "counts": {"done": len(runs)},
        "comparisons": parts,
        "failures": (),
        "provenance": {},
        "notes": ["Intervals are Student's."],
    }
    return Content(**given | changes)


def first_screen(html):
    return html[html.index("<header>") : html.index("<details")]


def part(html, name):
    """One of the folded parts."""
    return html[html.index(f'<h2 id="{name}"') :].partition("</details>")[0]


def cells(html):
    """The cells of each row of an HTML text, without tags."""
    found = re.findall(r"<tr data.*?</tr>", html, re.DOTALL)
    texts = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in found]
    return [[re.sub(r"<.*?>", "", text).strip() for text in row] for row in texts]


def titles(html):
    return re.findall(r'<th scope="row" title="(.*?)"', html)


# --- the text ---------------------------------------------------------------------------------


def test_the_first_screen_has_the_question_the_answer_and_the_differences():
    html = first_screen(render(content()))
    assert "Which order?" in html
    assert headline(content().comparisons)[0] in html
    assert "difference to 1x1, points [95 %]" in html
    assert cells(html) == [
        [LABELS[B], "", "+2.00 [+1.89, +2.11]", "better"],
        [LABELS[D], "", "+0.00 [-0.21, +0.21]", "inconclusive"],
        [LABELS[D_PRE], "", "-3.00 [-3.21, -2.79]", "worse"],
    ]
    assert titles(html) == [B, D, D_PRE]


def test_differences_are_drawn_to_scale_and_open_where_nothing_is_decided():
    html = first_screen(render(content()))
    marks = re.findall(r"<span( class=filled)? style=\"--low:(.*?)%;--at:(.*?)%;", html)
    assert [(bool(filled), float(at)) for filled, _, at in marks] == [
        (True, 75.0),  # +2 on a scale from -4 to +4
        (False, 50.0),
        (True, 12.5),
    ]
    assert "<span>-4</span><span>0</span><span>+4</span>" in html


def test_arms_of_several_baselines_say_what_they_are_compared_with():
    html = first_screen(render(content(baselines={A: A, B: A, D: D, D_PRE: D})))
    assert [row[0] for row in cells(html)] == [
        "3x3 against 1x1",
        "3x3+avgpool preact against 3x3+avgpool",
    ]


def test_accuracies_take_the_place_of_differences_that_are_not_there():
    digits, letters = (run_row(A, seed, 0.9, dataset=d) for seed in (0, 1) for d in "ab"), ()
    html = first_screen(render(content([*digits, *letters])))
    assert [row[:3] for row in cells(html)] == [["a", A, "2"], ["b", A, "2"]]


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
    html = render(content(two_recipes(A), provenance=RECIPES, answer=()))
    names = ["lr 0.1, auto_augment none", "lr 0.01, auto_augment rand"]
    assert re.findall(r"<h3>(lr.*)</h3>", html)[:2] == names
    assert re.findall(r"<dt>(.*)</dt>", html) == [f"recipe {name}" for name in names]


def test_sentences_name_recipes_by_what_they_differ_in():
    said = content(two_recipes(A), provenance=RECIPES).answer
    assert [sentence.partition(":")[0] for sentence in said if ":" in sentence] == [
        "lr 0.1, auto_augment none",
        "lr 0.01, auto_augment rand",
    ]


def test_a_recipe_without_a_record_keeps_its_digest():
    html = render(content(two_recipes(A)))
    assert "<h3>recipe 3, whose settings are not recorded</h3>" in html


def test_every_run_has_a_row_with_its_full_name_and_links():
    run_id = f"{B}__digits__2__s0"
    own = [run_row(A, 0, 0.9), run_row(B, 0, 0.91), run_row(B, 1, status="failed", seconds=np.nan)]
    links = {run_id: [("folder", f"runs/{run_id}/"), ("log.txt", f"runs/{run_id}/log.txt")]}
    html = part(
        render(content(own, run_files=links, files=[("summary.csv", "summary.csv")])), "runs"
    )
    assert [row[:6] for row in cells(html)] == [
        [LABELS[A], "0", "done", "90.00", "3", A],
        [LABELS[B], "0", "done", "91.00", "3", B],
        [LABELS[B], "1", "failed", "", "", B],
    ]
    assert re.findall(r'href="(.*?)"', html) == [*(a for _, a in links[run_id]), "summary.csv"]


def test_names_are_short_in_every_table_and_full_on_hover():
    html = render(content())
    assert {*titles(html)} == {*STEPS}
    assert not re.search(r'<th scope="row"[^>]*>net_', html)


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


@pytest.fixture
def page(browser, tmp_path):
    """The page on a phone; whatever the browser complains of fails the test."""
    file = tmp_path / "report.html"
    file.write_text(render(content()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE)
    troubles = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(file.as_uri())
    page.locator("body[aria-busy=false]").wait_for()
    yield page
    page.close()
    assert troubles == []


def arms(page, where):
    """The arms whose rows can be seen in a part of the page."""
    return page.locator(f"{where} tbody tr:visible th").all_inner_texts()


def test_verdicts_can_be_seen_on_a_phone_and_columns_that_do_not_fit_are_announced(page):
    verdicts = page.locator("td.verdict:visible")
    assert verdicts.count() == 7  # the baseline has one in the table of numbers only
    edges = [box["x"] + box["width"] for box in (v.bounding_box() for v in verdicts.all())]
    assert max(edges) <= 390
    notes = page.locator(".more:visible")
    notes.first.wait_for()
    assert notes.all_inner_texts() == ["More columns: scroll or print."]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_filters_act_on_differences_tables_and_charts_alike(page):
    page.get_by_text("Filter and compare arms").click()
    page.locator("#filter-stem").select_option("deep")
    assert arms(page, "main > div") == [LABELS[D], LABELS[D_PRE]]
    assert arms(page, "details:has(#summary)") == [LABELS[D_PRE], LABELS[D]]
    means = "p => p.data.filter(trace => trace.name === 'means').length"
    assert page.locator("#cost-plot").evaluate(means) == 2
    assert page.locator("#matches").inner_text() == "2 of 4 arms"
    page.locator("details:has(#runs) > summary").click()
    assert {*arms(page, "details:has(#runs)")} == {LABELS[D], LABELS[D_PRE]}
    page.locator("#filter-verdict").select_option("worse")
    assert arms(page, "main > div") == [LABELS[D_PRE]]


def test_two_arms_can_be_compared(page):
    page.get_by_text("Filter and compare arms").click()
    said = page.locator(".pair output")
    assert said.inner_text() == "+2.00 [+1.89, +2.11] points over 9 common seeds, p 0.004"
    page.locator("#other-0").select_option(label=LABELS[D_PRE])
    assert said.inner_text() == "+5.00 [+4.89, +5.11] points over 9 common seeds, p 0.004"


def test_pairs_of_too_many_arms_are_left_out(monkeypatch):
    monkeypatch.setattr(page_module, "PAIRED", 3)
    assert 'class="controls pair"' not in render(content())


def test_all_is_there_in_print(page):
    assert page.get_by_text("Intervals are Student's.").is_hidden()
    page.emulate_media(media="print")
    assert page.get_by_text("Intervals are Student's.").is_visible()
