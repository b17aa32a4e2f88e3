"""The README's numbers, file tree, commands and code are those of the repository."""

import re
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from resnet_variants import cli
from resnet_variants.analysis.effects import effects
from resnet_variants.analysis.findings import answer
from resnet_variants.analysis.formats import markdown, readable
from resnet_variants.analysis.gather import gather
from resnet_variants.analysis.tables import summarise
from resnet_variants.models.stems import STEMS, ConvSpec
from resnet_variants.records import read_experiment
from resnet_variants.registry import Registry

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
FOLDER = ROOT / "results" / "digits_grid"
COLUMNS = ["model", "params", "MACs (M)", "n", "test accuracy % [95 %]", "delta, points [95 %]"]
BLOCK = re.compile(r"(<!-- results: .*? -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)


def results_block():
    """The answer, the table, and a sentence on what it took, from the committed files alone."""
    found, experiment = gather([FOLDER]), read_experiment(FOLDER)
    runs, origin = found.runs, found.provenance
    summary = summarise(runs, found.baselines)
    took = (
        f"{experiment['question']} {len(runs)} runs of {' or '.join(origin['threads'])} thread, "
        f"{runs['seconds'].sum() / 60:.0f} minutes of training in all on {origin['device'][0]} "
        f"(torch {origin['torch'][0]}, {runs['precision'][0]})."
    )
    said = " ".join([took, *answer(summary, effects(runs, found.baselines))])
    return f"{said}\n\n{markdown(readable(summary)[COLUMNS])}\n"


def test_the_results_are_those_on_disk(rewrite):
    text = TEXT
    if rewrite:
        text = BLOCK.sub(lambda m: m[1] + results_block() + m[3], text)
        README.write_text(text, encoding="utf-8")
    assert BLOCK.search(text)[2] == results_block()


SPEED = re.compile(r"(<!-- speed: .*? -->\n)(.*?)(<!-- end of speed -->)", re.DOTALL)
SPEEDS = {
    "model": "model",
    "arm": "loop",
    "precision": "precision",
    "images_per_second": "images/s",
    "ratio_to_plain": "times plain",
    "matmul_share": "of matrix products",
    "peak_memory_mb": "peak MiB",
}


def speed_block():
    """The epochs of all committed bench tables."""
    tables = [pd.read_csv(path) for path in sorted((ROOT / "results/bench").glob("*/bench.csv"))]
    rows = pd.concat(tables).query("stage == 'epoch'").rename(columns=SPEEDS)
    text = pd.DataFrame(
        {
            "model": rows["model"] + ", batch " + rows["batch_size"].astype(str),
            "device": rows["device_name"],
            "loop": rows["loop"].where(~rows["compiled"], "ours, compiled"),
            "precision": rows["precision"],
            "images/s": rows["images/s"].map("{:,.0f}".format),
            "times plain": rows["times plain"].map("{:.2f}".format),
            "of matrix products": rows["of matrix products"].map("{:.2f}".format),
            "peak MiB": rows["peak MiB"].map("{:.0f}".format),
        }
    )
    return f"{markdown(text)}\n"


def test_the_speeds_are_those_on_disk(rewrite):
    text = README.read_text(encoding="utf-8")
    if rewrite:
        text = SPEED.sub(lambda m: m[1] + speed_block() + m[3], text)
        README.write_text(text, encoding="utf-8")
    assert SPEED.search(text)[2] == speed_block()


def test_the_tree_is_the_one_on_disk():
    block = re.search(r"<!-- tree -->\n(.*)<!-- end of tree -->", TEXT, re.DOTALL)[1]
    told = re.findall(r"^ {6}(\S+\.py) ", block, re.MULTILINE)
    package = ROOT / "resnet_variants"
    found = [p.relative_to(package).as_posix() for p in package.rglob("*.py")]
    assert sorted(told) == sorted(p for p in found if not p.endswith("__init__.py"))
    assert all((ROOT / folder).is_dir() for folder in re.findall(r"^ {4}(\S+)/ ", block, re.M))


def test_links_and_pictures_exist():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT)
    assert len(links) >= 3
    assert all((ROOT / link).is_file() for link in links)


ONE_LINE_EACH = re.sub(r" \\\n *", " ", TEXT)


@pytest.mark.parametrize(
    "line", re.findall(r"^    (python -m resnet_variants.*|make \w+)", ONE_LINE_EACH, re.M)
)
def test_commands_exist(line, tmp_path, monkeypatch, capsys):
    command = line.split("#")[0].replace("'", "").split()
    if command[0] == "make":
        assert f"\n{command[1]}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    verb, words = command[2].removeprefix("resnet_variants."), command[3:]
    monkeypatch.chdir(ROOT)
    if verb == "run":
        # Read as it will be, not trained: the full commands take minutes.
        from resnet_variants.run import read

        assert read(words)[0].runs
    elif verb == "report":
        assert Path(words[0]).is_dir()
    elif verb == "diagnose":
        assert Path(words[0]).parents[1].is_dir()
    elif verb in ("check-data", "bench"):
        flags = import_module(f"resnet_variants.{verb}").Flags
        assert cli.parse(flags, words, verb) != cli.parse(flags, ["another"], verb)
    else:
        assert cli.main([verb, *words]) == 0


def test_the_library_example_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(import timm.*?)```", TEXT, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    code = code.replace("epochs=10, seeds=3", "epochs=1, seeds=1")
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert list(scope["frame"]["status"]) == ["done"] * 4


def test_the_stem_example_registers_a_stem(monkeypatch):
    code = re.search(r"```python\n(@STEMS.*?)```", TEXT, re.DOTALL)[1]
    table = Registry("stem")
    exec(compile(code, "README.md", "exec"), {"STEMS": table, "ConvSpec": ConvSpec})
    ((name, stem),) = table.items()
    assert name not in STEMS
    assert all(isinstance(spec, ConvSpec) for spec in stem(64, 2))
