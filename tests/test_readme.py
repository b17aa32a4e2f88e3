"""README and docs: their numbers, paths, links, commands and code are those of the repository."""

import ast
import json
import re
from functools import partial
from importlib import import_module
from pathlib import Path

import pandas as pd
import pictures
import pytest
import torch
import yaml
from cards import CARDS, card_block

import resnet_variants
from resnet_variants.analysis.depths import ERRORS
from resnet_variants.analysis.results import load_results
from resnet_variants.analysis.verdicts import COMPARED
from resnet_variants.models.stems import STEMS, ConvSpec
from resnet_variants.records.results_folder import read_experiment
from resnet_variants.registry import Registry
from resnet_variants.reporting.findings import headline
from resnet_variants.reporting.names import named_summary
from resnet_variants.reporting.summary import MARKDOWN, summary_cells
from resnet_variants.reporting.text import (
    interval,
    markdown,
    p_value,
    readable_comparisons,
    readable_diagnoses,
    readable_errors,
    readable_predictions,
    readable_robustness,
)
from resnet_variants.run import read as read_flags
from resnet_variants.sweeps.experiment import read_toml
from resnet_variants.terminal import cli

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def read(path):
    return path.read_text(encoding="utf-8")


def page_name(path):
    return path.relative_to(ROOT).as_posix()


# --- blocks that `make golden` writes ---------------------------------------------------------

COLUMNS = ["arm", "params", "MACs (M)", "n", "test accuracy % [95 %]", "delta, points [95 %]"]


# Columns of numbers, in which an empty cell is none.
NUMBERS = {name: "" for name in COMPARED if name != "verdict"}
BEFORE = "stated before the first result"


def results_block(folder):
    """The sentences of the answer and the summary, from the committed files alone."""
    results, experiment = load_results([folder]), read_experiment(folder)
    runs, origin = results.runs, results.provenance
    summary = named_summary(results.comparisons)
    epochs = int(runs["epochs"].iloc[0])
    extent = (
        f"{experiment['question']} {len(runs)} runs of {epochs} epoch{'s'[: epochs != 1]} and "
        f"{' or '.join(origin['threads'])} thread, {runs['seconds'].sum() / 3600:.1f} hours of "
        f"training in all on {origin['device'][0]} (torch {origin['torch'][0]}, "
        f"{runs['precision'][0]})."
    )
    sentences = " ".join([extent, *headline(results.comparisons)])
    return f"{sentences}\n\n{markdown(summary_cells(summary, MARKDOWN)[COLUMNS])}\n"


def origin_block(folder):
    """What was expected, and what the numbers were made with."""
    experiment = json.loads(read(folder / "experiment.json"))
    origin = json.loads(read(folder / "provenance.json"))
    lines = [f"- **Expected before the first run.** {experiment['expect']}"]
    lines = lines if experiment["expect"] else []
    lines += [f"- **Command.** `{command}`" for command in origin["command"]]
    versions = [f"{name} {origin[name][0]}" for name in ("Python", "torch", "torchvision", "timm")]
    commits = " and ".join(f"`{commit[:12]}`" for commit in origin["git commit"])
    lines += [f"- **Made with.** {origin['device'][0]}, {', '.join(versions)}, commit {commits}."]
    return "\n".join(lines) + "\n"


def predictions_block(folder):
    """How the predictions fared, from the committed table."""
    rows = pd.read_csv(folder / "predictions.csv", keep_default_na=False, na_values=NUMBERS)
    (stated,) = rows["stated"].unique()
    lengths = [(epochs, readable_predictions(part)) for epochs, part in rows.groupby("epochs")]
    tables = [part.assign(epochs=epochs) if lengths[1:] else part for epochs, part in lengths]
    text = f"{stated}. The expectation in words above is older" if stated else BEFORE
    return f"The list was {text}.\n\n{markdown(pd.concat(tables))}\n"


def effects_block(folder):
    """The main effects, from the committed table."""
    rows = pd.read_csv(folder / "effects.csv").query("kind == 'main'")
    bounds = rows[["estimate", "ci_low", "ci_high"]].to_numpy()
    text = pd.DataFrame(
        {
            "axis": rows["effect"],
            "contrast": rows["contrast"],
            "points [95 %]": [interval(*row, sign="+") for row in bounds],
            "p (adjusted)": rows["p_adjusted"].map(p_value),
            "verdict": rows["verdict"],
        }
    )
    return f"{markdown(text)}\n"


DIAGNOSED = [
    *("model", "seeds", "lost without a unit (median), points", "lost without the worst, points"),
    *("gradient x input max/min, initial", "gradient x input max/min, trained"),
]


def diagnosis_block(folder):
    """The networks' measures, and their differences from the baselines."""
    rows = pd.read_csv(folder / "diagnosis.csv", keep_default_na=False, na_values=NUMBERS)
    compared = readable_comparisons(rows)
    compared = compared[compared["measure"].isin(DIAGNOSED)].drop(columns="against")
    return f"{markdown(readable_diagnoses(rows)[DIAGNOSED])}\n\n{markdown(compared)}\n"


def depths_block(folder):
    """Errors by depth, from the committed table."""
    rows = pd.read_csv(folder / f"{ERRORS}.csv", keep_default_na=False, na_values=NUMBERS)
    return f"{markdown(readable_errors(rows))}\n"


def speed_block(folder):
    """The epochs of all committed bench tables."""
    tables = [pd.read_csv(path) for path in sorted(folder.glob("*/bench.csv"))]
    rows = pd.concat(tables).query("stage == 'epoch'")
    text = pd.DataFrame(
        {
            "model": rows["model"] + ", batch " + rows["batch_size"].astype(str),
            "device": rows["device_name"],
            "loop": rows["arm"].where(~rows["compiled"], "ours, compiled"),
            "precision": rows["precision"],
            "images/s": rows["images_per_second"].map("{:,.0f}".format),
            "times plain": rows["ratio_to_plain"].map("{:.2f}".format),
            "of matrix products": rows["matmul_share"].map("{:.2f}".format),
            "peak MiB": rows["peak_memory_mb"].map("{:.0f}".format),
        }
    )
    return f"{markdown(text)}\n"


def intervals(rows, name, sign=""):
    """The cells of a column in points with its interval."""
    columns = [name, f"{name}_low", f"{name}_high"]
    return [interval(*row, sign=sign) for row in rows[columns].to_numpy() / 100]


def spread_block(folder):
    """The deviations between seeds by epochs, in points."""
    rows = pd.read_csv(folder / "spread.csv")
    text = pd.DataFrame(
        {
            "epochs": rows["epochs"],
            "seeds": rows["seeds"],
            "accuracy %": rows["accuracy"].map("{:.2f}".format),
            "deviation between seeds [95 %]": intervals(rows, "observed"),
            "by independent errors": rows["independent"].map("{:.2f}".format),
            "remaining": rows["remaining"].map("{:.2f}".format),
        }
    )
    return f"{markdown(text)}\n"


def lengths_block(folder):
    """Differences, deviations and the price of a verdict by epochs, in points."""
    rows = pd.read_csv(folder / "lengths.csv")
    text = pd.DataFrame(
        {
            "epochs": rows["epochs"],
            "seeds": rows["seeds"],
            "accuracy of B %": rows["accuracy"].map("{:.2f}".format),
            "D - B [95 %]": intervals(rows, "difference", sign="+"),
            "deviation of runs [95 %]": intervals(rows, "runs"),
            "of paired differences [95 %]": intervals(rows, "pairs"),
            "pairs needed": rows["pairs_needed"],
            "their epochs": rows["epochs_needed"].map("{:,}".format),
        }
    )
    return f"{markdown(text)}\n"


def robustness_block(folder):
    """At how many learning rates each verdict holds."""
    rows = pd.read_csv(folder / "robustness.csv", keep_default_na=False, na_values=NUMBERS)
    return f"{markdown(readable_robustness(rows).drop(columns='against'))}\n"


KINDS = {
    "results": results_block,
    "origin": origin_block,
    "effects": effects_block,
    "predictions": predictions_block,
    "diagnosis": diagnosis_block,
    "depths": depths_block,
    "speed": speed_block,
    "spread": spread_block,
    "lengths": lengths_block,
    "robustness": robustness_block,
    **{axis: partial(card_block, axis) for axis in CARDS},
}
BLOCK = re.compile(
    r"(<!-- (\w+): generated by `make golden` from results/(\w+) -->\n)(.*?)(<!-- end of \2 -->)",
    re.DOTALL,
)


def generated(block):
    """The block as the files on disk make it now."""
    head, kind, name, _, end = block.groups()
    return head + KINDS[kind](RESULTS / name) + end


@pytest.mark.parametrize("path", [p for p in PAGES if BLOCK.search(read(p))], ids=page_name)
def test_the_numbers_are_those_on_disk(path, rewrite):
    text = read(path)
    if rewrite:
        text = BLOCK.sub(generated, text)
        path.write_text(text, encoding="utf-8")
    assert all(block[0] == generated(block) for block in BLOCK.finditer(text))
    assert text.count("generated by `make golden`") == len(BLOCK.findall(text))


def test_every_axis_with_names_has_its_section():
    blocks = {block[2] for block in BLOCK.finditer(read(ROOT / "docs" / "choices.md"))}
    assert blocks == CARDS


def test_every_results_folder_has_its_page():
    names = {part.parent.name for part in RESULTS.glob("*/*") if part.name != "runs"}
    pages = {path.stem: read(path) for path in (ROOT / "docs" / "results").glob("*.md")}
    assert set(pages) == names | {"index"}
    assert all(f"results/{name} -->" in pages[name] for name in names)
    assert all(f"({name}.md)" in pages["index"] for name in names)


def test_what_fine_tuning_reached_is_on_disk():
    rows = pd.read_csv(RESULTS / "cats_and_dogs" / "summary.csv")
    ends = ["test_acc_mean", "test_acc_ci_low", "test_acc_ci_high"]
    measured = [
        f"{mean:.2f} % [{low:.2f}, {high:.2f}]" for mean, low, high in 100 * rows[ends].to_numpy()
    ]
    assert len(measured) == 3
    text = read(ROOT / "docs" / "results" / "cats_and_dogs.md")
    assert re.findall(r"[\d.]+ % \[[^]]+\]", text) == measured


# --- paths and links --------------------------------------------------------------------------


def test_the_readme_ends():
    text = read(ROOT / "README.md")
    assert len(text.splitlines()) <= 250
    assert len(text.encode()) <= 15 * 1024


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_pictures_anchors_and_named_files_exist(path):
    for name in re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|csv|toml|md|j2|js))`", read(path)):
        assert (ROOT / name).is_file() or (ROOT / "resnet_variants" / name).is_file(), name
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", read(path)):
        file, _, anchor = link.partition("#")
        target = path.parent / file
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", read(target), re.M) if anchor else []
        anchors = [
            re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
        ]
        assert not anchor or anchor in anchors, link


def test_the_map_has_twelve_paths_that_exist():
    block = re.search(r"<!-- map -->\n(.*)<!-- end of map -->", read(ROOT / "README.md"), re.S)[1]
    paths = [line.split()[0] for line in block.splitlines()]
    assert len(paths) == 12
    assert all((ROOT / path).exists() for path in paths)
    rooms = {p.parent.name for p in (ROOT / "resnet_variants").glob("*/__init__.py")}
    assert rooms == {Path(path).name for path in paths if path.endswith("/")}


def spine_lines(entry):
    """Lines of a file, or of one function or class in it: ``file.py: name``."""
    name, _, part = entry.partition(": ")
    text = read(ROOT / "resnet_variants" / name)
    if not part:
        return len(text.splitlines())
    (node,) = (n for n in ast.parse(text).body if getattr(n, "name", "") == part)
    return node.end_lineno - node.lineno + 1


def test_the_spine_reads_in_an_hour():
    text = read(ROOT / "docs" / "architecture.md")
    block = re.search(r"<!-- spine -->\n(.*)<!-- end of spine -->", text, re.S)[1]
    entries = re.findall(r"^\| \d+ \| `([^`]+)` ", block, re.M)
    assert len(entries) >= 10
    assert sum(map(spine_lines, entries)) <= 2000


def test_the_site_shows_every_page():
    (text,) = re.findall(r"^nav:\n(?:[ -].*\n)+", read(ROOT / "mkdocs.yml"), re.M)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES[2:]}
    listed = re.findall(r"[\w/]+\.md", json.dumps(yaml.safe_load(text)))
    assert sorted(listed) == sorted(pages)


def test_the_reference_names_what_there_is():
    names = re.findall(r"^::: (.+)$", read(ROOT / "docs" / "reference.md"), re.M)
    public = set(resnet_variants.__all__)
    assert {name.rpartition(".")[2] for name in names} >= public
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


# --- commands and code ------------------------------------------------------------------------

COMMAND = r"^    ((?:python -m resnet_variants\.|resnet-variants |make )\w+.*)"
COMMANDS = sorted(
    {
        line.split("#")[0].strip().replace("resnet-variants ", "python -m resnet_variants.")
        for path in PAGES
        for line in re.findall(COMMAND, re.sub(r" \\\n *", " ", read(path)), re.M)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line, monkeypatch, tmp_path):
    command = line.replace("'", "").split()
    if command[0] == "make":
        assert f"\n{command[1]}: " in read(ROOT / "Makefile")
        return
    verb, words = command[2].removeprefix("resnet_variants."), command[3:]
    monkeypatch.chdir(ROOT)
    if verb == "run":
        # Read, not trained: the full commands take minutes.
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pets").mkdir()
        assert read_flags(words)[0].runs
    elif verb == "report":
        assert Path(words[0]).is_dir()
    elif verb == "diagnose":
        assert Path(words[0]).parents[1].is_dir()
    elif verb in ("predict", "check-data", "bench"):
        flags = import_module(f"resnet_variants.{verb}").Flags
        assert cli.parse(flags, words, verb) != cli.parse(flags, ["another"], verb)
    else:
        assert cli.main([verb, *words]) == 0


def test_the_library_example_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(import timm.*?)```", read(ROOT / "README.md"), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    pictures.save(tmp_path / "photo.jpg")
    code = code.replace("depth=[29]", "depth=[11]").replace(
        "epochs=10", "epochs=1, seeds=1, batch_size=256"
    )
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert list(scope["result"].runs["status"]) == ["done"] * 4
    assert scope["run"].predict("photo.jpg").shape == (1, 10)


def test_the_stem_example_registers_a_stem():
    code = re.search(r"```python\n(@STEMS.*?)```", read(ROOT / "README.md"), re.DOTALL)[1]
    table = Registry("stem")
    exec(compile(code, "README.md", "exec"), {"STEMS": table, "ConvSpec": ConvSpec})
    ((name, stem),) = table.items()
    assert name not in STEMS
    assert all(isinstance(spec, ConvSpec) for spec in stem(64, 2))


def test_the_torchvision_example_of_the_docs_runs():
    text = read(ROOT / "docs" / "elsewhere.md")
    code = re.search(r"```python\n(import torch\nfrom torchvision.*?)```", text, re.DOTALL)[1]
    scope = {}
    exec(compile(code, "elsewhere.md", "exec"), scope)
    maps = scope["backbone"](torch.zeros(1, 3, 64, 64))
    assert [[*one.shape] for one in maps.values()] == [[1, 256, n, n] for n in (16, 8, 4, 2, 1)]
    assert scope["detector"].backbone is scope["backbone"]


def test_the_names_in_other_training_code_are_registered():
    names = set(re.findall(r"\brv_\w+", read(ROOT / "docs" / "elsewhere.md")))
    assert len(names) >= 3
    assert names <= set(resnet_variants.list_models())


def test_the_experiment_file_of_the_docs_is_one(tmp_path):
    text = re.search(r"```toml\n(.*?)```", read(ROOT / "docs" / "sweeps.md"), re.DOTALL)[1]
    (tmp_path / "question.toml").write_text(text)
    assert len(read_toml(tmp_path / "question.toml").runs) == 72
