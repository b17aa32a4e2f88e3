"""The rooms: who may import whom, and how large anything may grow."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnet_variants"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up; a module imports its own room and those below it.
ROOMS = (
    *("registry", "files", "manifest", "models", "training"),
    *("diagnosis_files", "run_folder", "predictions", "records"),
    *("sweeps", "analysis", "diagnosis", "speed"),
)
VERBS = {"run", "report", "diagnose", "list", "describe", "check-data", "bench"}
BELOW = {
    "registry": set(),
    "models": {"registry", "files"},
    "training": {"registry", "files"},
    "files": {"registry"},
    "manifest": {"registry", "files"},
    "run_folder": {"registry", "files", "diagnosis_files"},
    "predictions": {"registry", "files", "run_folder"},
    "records": {"registry", "files", "run_folder"},
    "sweeps": {
        *("registry", "files", "models", "training", "run_folder", "predictions", "records"),
    },
    "diagnosis_files": {"registry", "manifest"},
    "analysis": {
        *("registry", "files", "manifest", "run_folder", "predictions", "records"),
        "diagnosis_files",
    },
    "diagnosis": {
        *("registry", "files", "models", "training", "run_folder", "diagnosis_files", "sweeps"),
    },
    "speed": {"registry", "files", "models", "training"},
    "flags": {"registry", "models", "training", "sweeps", "diagnosis"},
    "api": set(ROOMS),
    "starting": set(),
    "cli": {"registry", "starting"},
    "live": {*ROOMS, "cli"},
    "console": {*ROOMS, "cli", "live"},
    "outcome": {*ROOMS, "cli"},
    "__init__": {*ROOMS, "api", "report", "starting"},
    **{verb: {*ROOMS, "api", "cli", "console", "live", "outcome", "flags"} for verb in VERBS},
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
        "from resnet_variants.sweeps.runs import Run\nimport resnet_variants.models.stems\n"
    )
    assert set(imported_rooms(bad)) == {"sweeps", "models"}
