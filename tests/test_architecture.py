"""The rooms: who may import whom, and how large anything may grow."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnet_variants"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up; a module imports its own room and those below it.
ROOMS = (
    *("registry", "records", "models", "data", "training", "speed", "sweeps"),
    *("diagnosis", "analysis", "reporting"),
)
VERBS = {"run", "report", "diagnose", "list", "describe", "check-data", "bench"}
BELOW = {
    "registry": set(),
    "records": {"registry"},
    "models": {"registry", "records"},
    "data": {"registry", "records"},
    "training": {"registry", "records", "data"},
    "speed": {"registry", "records", "models", "data", "training"},
    "sweeps": {"registry", "records", "models", "data", "training"},
    "diagnosis": {"registry", "records", "models", "data", "training", "sweeps"},
    "analysis": {"registry", "records"},
    "reporting": {"registry", "records", "analysis"},
    "api": set(ROOMS),
    "terminal": set(ROOMS),
    "__init__": {*ROOMS, "api", "report", "terminal"},
    **{verb: {*ROOMS, "api", "terminal"} for verb in VERBS},
}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in filter(None, names):
            if name == "resnet_variants" or name.startswith("resnet_variants."):
                yield [*name.split("."), "__init__"][1]


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down_only(path):
    assert set(imported_rooms(path)) <= BELOW[room(path)] | {room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    too_long = {f.name: n for f in functions(path) if (n := f.end_lineno - f.lineno + 1) > 50}
    assert too_long == {}


def test_only_the_zoo_registers_models():
    for path in FILES:
        if "register_model" in path.read_text(encoding="utf-8"):
            assert path.name == "zoo.py"


def test_the_import_table_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from resnet_variants.sweeps.run import Run\nimport resnet_variants.models.stems\n"
    )
    assert set(imported_rooms(bad)) == {"sweeps", "models"}
