"""The rooms: who may import whom, and how large anything may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "resnet_variants"
FILES = sorted(PACKAGE.rglob("*.py"))

# The axes and their choices: the part of the room ``models`` that needs no torch and lies lowest.
TABLES = ("variant", "families", "stems", "branches", "shortcuts")
# From the bottom up; a module imports its own room and those below it.
ROOMS = (
    *("registry", "settings", "tables", "records", "models", "data", "training", "speed", "sweeps"),
    *("diagnosis", "analysis", "reporting"),
)
VERBS = {"run", "report", "diagnose", "list", "describe", "check-data", "bench"}
BELOW = {
    "registry": set(),
    "settings": {"registry"},
    "tables": {"registry", "settings"},
    "records": {"registry", "tables"},
    "models": {"registry", "settings", "tables", "records"},
    "data": {"registry", "settings", "records"},
    "training": {"registry", "settings", "records", "data"},
    "speed": {"registry", "settings", "tables", "records", "models", "data", "training"},
    "sweeps": {"registry", "settings", "tables", "records", "models", "data", "training"},
    "diagnosis": {
        *("registry", "settings", "tables", "records", "models", "data", "training", "sweeps")
    },
    "analysis": {"registry", "tables", "records"},
    "reporting": {"registry", "tables", "records", "analysis"},
    "api": set(ROOMS),
    "terminal": set(ROOMS),
    "__init__": {*ROOMS, "api", "report", "terminal"},
    **{verb: {*ROOMS, "api", "terminal"} for verb in VERBS},
}


def room(path):
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(parts):
    """The room of a module, given by the parts of its name after the package's."""
    in_tables = parts[0] == "models" and parts[1:] and parts[1] in TABLES
    return "tables" if in_tables else parts[0]


def imported_rooms(path):
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in filter(None, names):
            if name == "resnet_variants" or name.startswith("resnet_variants."):
                yield room_of([*name.split("."), "__init__"][1:])


def statements(node):
    """Every node of a module but what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from statements(child)


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


def test_axes_names_and_flags_need_no_torch():
    code = "import sys, types\n"
    code += "package = sys.modules['resnet_variants'] = types.ModuleType('resnet_variants')\n"
    code += f"package.__path__ = [{str(PACKAGE)!r}]\n"
    code += "from resnet_variants.models import catalogue\n"
    code += "catalogue.as_variant('name', 'rv_resnet50_d'), catalogue.stored_costs()\n"
    code += "print({'torch', 'timm', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_only_the_zoo_registers_models():
    for path in FILES:
        if "register_model" in path.read_text(encoding="utf-8"):
            assert path.name == "zoo.py"


def test_the_import_table_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from resnet_variants.sweeps.run import Run\nimport resnet_variants.models.stems\n"
    )
    assert set(imported_rooms(bad)) == {"sweeps", "tables"}
