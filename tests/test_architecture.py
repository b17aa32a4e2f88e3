"""The rooms: who may import whom, and how large anything may grow."""

import ast
import subprocess
import sys
from pathlib import Path

from nets import failures

PACKAGE = Path(__file__).parents[1] / "resnet_variants"
FILES = sorted(PACKAGE.rglob("*.py"))

# The axes and their choices: the part of the room ``models`` that needs no torch and lies lowest.
TABLES = ("variant", "families", "stems", "branches", "shortcuts", "norms")
# From the bottom up; a module imports its own room and those below it.
ROOMS = (
    *("registry", "settings", "tables", "records", "data", "training", "plugins", "models"),
    *("speed", "analysis", "sweeps", "diagnosis", "reporting"),
)
VERBS = {"__main__", "run", "report", "diagnose", "predict", "list"}
VERBS |= {"compare", "describe", "check-data", "bench"}
NETWORKS = {"registry", "settings", "tables", "records", "plugins", "models"}
TRAINING = NETWORKS | {"data", "training"}
BELOW = {
    "registry": set(),
    "settings": {"registry"},
    "tables": {"registry", "settings"},
    "records": {"registry", "settings", "tables"},
    "data": {"registry", "settings", "records"},
    "training": {"registry", "settings", "records", "data"},
    "plugins": {"registry", "tables", "data", "training"},
    "models": NETWORKS,
    "speed": TRAINING,
    "analysis": {"registry", "settings", "tables", "records"},
    "sweeps": TRAINING | {"analysis"},
    "diagnosis": TRAINING | {"analysis", "sweeps"},
    "reporting": {"registry", "tables", "records", "analysis"},
    "api": {*ROOMS, "terminal"},
    "experiments": set(ROOMS),  # scripts beside the TOML files
    "terminal": set(ROOMS),
    "__init__": {*ROOMS, "api", "report", "terminal"},
    **{verb: {*ROOMS, "api", "terminal"} for verb in VERBS},
}


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


def test_imports_go_down_only():
    def check(path):
        room = room_of(path.relative_to(PACKAGE).with_suffix("").parts)
        assert set(imported_rooms(path)) <= BELOW[room] | {room}

    assert failures(check, FILES) == {}


def test_files_and_functions_stay_short():
    def check(path):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 500
        functions = [f for f in ast.walk(ast.parse(text)) if isinstance(f, ast.FunctionDef)]
        assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 50] == []

    assert failures(check, FILES) == {}


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
    found = {path.name for path in FILES if "register_model" in path.read_text(encoding="utf-8")}
    assert found == {"zoo.py"}
