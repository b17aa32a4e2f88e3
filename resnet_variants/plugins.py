"""Plugins: Python files and modules that register stems, orders, augmentations, data sets.

A plugin enters its parts in the tables of ``OPEN``, as the package's own modules do. Whoever reads
a run later needs the plugin too, so a run records its name and the SHA-256 of its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from resnet_variants.data.specs import DATASETS
from resnet_variants.models.branches import BLOCKS, AntiAlias, Order
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.norms import Activation, BranchScale
from resnet_variants.models.stems import ConvSpec
from resnet_variants.models.variant import AXES, DESIGN, SUFFIX, named_in, token
from resnet_variants.registry import Registry, UserError, blamed, is_within, require_path, shown
from resnet_variants.training.recipe import AUGMENTATIONS

GROUP = "resnet_variants.plugins"  # of the entry points of installed packages
_SPELT = [*named_in(DESIGN), *named_in(SUFFIX)]  # axes whose choices are words in names of networks

# What a plugin may extend, by the setting that takes the choice. A stride is that of a kernel.
OPEN: Mapping[str, Registry[Any]] = {
    **{name: cast("Registry[Any]", AXES[name].choices) for name in _SPELT if name != "stride"},
    "augment": AUGMENTATIONS,
    "data": DATASETS,
}


@dataclass(frozen=True)
class Plugin:
    """A plugin, with all that another process needs to import it.

    Attributes:
        name: ``my_parts.py`` of a file, ``my_package.parts`` of a module.
        module: its name among Python's modules.
        file: where its code was found.
        sha256: of its code: of the file, or of all Python files of a package.
        source: the code of a file, so that other processes execute what was read here; ``None`` of
            a module, which Python finds.
    """

    name: str
    module: str
    file: str = ""
    sha256: str = ""
    source: bytes | None = None


_LOADED: dict[str, Plugin] = {}  # in this process, by name


def loaded() -> tuple[Plugin, ...]:
    """The plugins of this process."""
    return tuple(_LOADED.values())


# --- loading ----------------------------------------------------------------------------------


def load_plugin(plugin: str | os.PathLike[str], *, folder: str | Path = "") -> Plugin:
    """Import a plugin, once per process. Its code is executed.

    Args:
        plugin: a Python file, or the name of a module.
        folder: what the path of a file is relative to.

    Raises:
        ValueError: it cannot be imported; it registers nothing, or what is no such part; the name
            of a part is taken; there is another plugin of this name, or an older version of it.
    """
    text = os.fspath(plugin) if isinstance(plugin, str | os.PathLike) else ""
    if text.endswith(".py") or os.sep in text:
        home = os.path.expanduser(text)  # noqa: PTH111 pathlib raises where there is none
        return enter(_of_file(require_path("folder", folder) / home))
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", text):
        message = f"plugin {shown(plugin)} must be a Python file or the name of a module"
        raise UserError(message, field="plugin")
    return _LOADED.get(text) or enter(Plugin(text, text))


def load_installed() -> None:
    """Import the plugins that installed packages announce as entry points of ``GROUP``.

    Raises:
        ValueError: as ``load_plugin`` does.
    """
    for point in importlib.metadata.entry_points(group=GROUP):
        module = sys.modules.get(point.module)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            continue  # it is being imported and imports this package; `_plugin_of` looks again
        try:
            load_plugin(point.module)
        except UserError as error:
            package = point.dist.name if point.dist else point.name
            message = f"{error}; it comes with the installed package {package}: mend or remove it"
            raise UserError(message, field="plugin") from error


def enter(plugin: Plugin) -> Plugin:
    """Import a plugin from its description, such as that of another process; see ``load_plugin``.

    Raises:
        ValueError: as ``load_plugin`` does.
    """
    known = _LOADED.get(plugin.name)
    if known:
        _require_same(known, plugin)
        return known
    for other in loaded():
        if other.module == plugin.module:  # `my-parts.py` beside `my_parts.py`
            _require_same(other, plugin)
    with _all_or_nothing(plugin):
        if plugin.source is None:
            found = _described(importlib.import_module(plugin.name))
        else:
            found = plugin
            _execute(plugin.module, plugin.file, plugin.source)
        _check_parts(found)
    if plugin.sha256:
        _require_same(found, plugin)
    _LOADED[plugin.name] = found
    return found


def enter_all(plugins: Iterable[Plugin]) -> None:
    """Import the plugins of another process."""
    for plugin in plugins:
        enter(plugin)


def _of_file(path: Path) -> Plugin:
    shown_path = repr(str(path))
    if path.suffix != ".py":
        raise UserError(
            f"plugin {shown_path} is no Python file: its name must end in .py", field="plugin"
        )
    try:
        if not path.is_file():
            raise UserError(f"there is no plugin file {shown_path}", field="plugin")
        source = path.read_bytes()
    except OSError as error:
        message = f"plugin {shown_path} cannot be read: {error.strerror}"
        raise UserError(message, field="plugin") from error
    module = f"plugin_{re.sub(r'[^A-Za-z0-9]', '_', path.stem)}"
    digest = hashlib.sha256(source).hexdigest()
    return Plugin(path.name, module, str(path.resolve()), digest, source)


def _described(module: ModuleType) -> Plugin:
    file = getattr(module, "__file__", None)
    if file is None:
        raise UserError("it has no file")
    digest = hashlib.sha256(Path(file).read_bytes())
    if hasattr(module, "__path__"):  # a package
        folder = Path(file).parent
        for part in sorted(folder.rglob("*.py")):
            digest.update(f"{part.relative_to(folder).as_posix()}\n".encode() + part.read_bytes())
    return Plugin(module.__name__, module.__name__, file, digest.hexdigest())


def _execute(name: str, file: str, source: bytes) -> None:
    module = sys.modules[name] = ModuleType(name)  # pickle finds what it defines
    module.__file__ = file
    try:
        exec(compile(source, file, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise


@contextlib.contextmanager
def _all_or_nothing(plugin: Plugin) -> Iterator[None]:
    """After an error within the block nothing of the plugin is registered; the error is one line.

    Raises:
        UserError: for every error of the plugin's code, with its line.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        for table in OPEN.values():
            for name in _entered(table, plugin.module):
                del table[name]
        own = f"{plugin.module}."
        if isinstance(error, ModuleNotFoundError) and own.startswith(f"{error.name}."):
            message = f"there is no module {plugin.name!r} here; the name of a file ends in .py"
            raise UserError(message, field="plugin") from error
        reason = blamed(error, _file_at_fault(plugin, error))
        raise UserError(f"plugin {reason}", field="plugin") from error


def _file_at_fault(plugin: Plugin, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    files = [
        frame.f_code.co_filename
        for frame in frames
        if is_within(frame.f_globals.get("__name__", ""), plugin.module)
    ]
    return files[-1] if files else plugin.file or plugin.name


def _require_same(known: Plugin, plugin: Plugin) -> None:
    if known.sha256 != plugin.sha256:
        both = f"{known.file} ({known.sha256[:12]}) and {plugin.file} ({plugin.sha256[:12]})"
        message = f"plugin {plugin.name!r} has two versions, by SHA-256: {both}; rename one,"
        raise UserError(f"{message} or start Python again after a change", field="plugin")


# --- what it has registered -------------------------------------------------------------------


def _entered(table: Registry[Any], module: str) -> list[str]:
    """The names that a module, or a part of the package that it is, has entered."""
    return [name for name in table if is_within(table.origins.get(name, ""), module)]


def _is_stem(entry: Any) -> bool:
    specs = entry(64, 2) if callable(entry) else None
    return isinstance(specs, list) and bool(specs) and all(isinstance(s, ConvSpec) for s in specs)


# What an entry must be; anything that can be called where nothing is said here.
_ENTRIES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "stem": ("a function of width and stride that returns a list of ConvSpec", _is_stem),
    "order": ("an Order", lambda entry: isinstance(entry, Order)),
    "antialias": ("an AntiAlias", lambda entry: isinstance(entry, AntiAlias)),
    "branch_scale": ("a BranchScale", lambda entry: isinstance(entry, BranchScale)),
    "act": ("an Activation", lambda entry: isinstance(entry, Activation)),
}


def _check_parts(plugin: Plugin) -> None:
    parts = {kind: _entered(table, plugin.module) for kind, table in OPEN.items()}
    if not any(parts.values()):
        raise UserError(f"it registers nothing; a plugin enters its parts as {', '.join(OPEN)}")
    for kind, names in parts.items():
        for name in names:
            _check_name(kind, name)
            what, fits = _ENTRIES.get(kind, ("a function", callable))
            if not fits(OPEN[kind][name]):
                raise UserError(f"{kind} {name!r} must be {what}")


def _check_name(kind: str, name: object) -> None:
    if kind not in _SPELT:
        if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9.+-]*", name)):
            message = "must be small letters, digits and . + -"
            raise UserError(f"the name of {kind} {shown(name)} {message}")
        return
    if not (isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*", name)):
        message = "must be small letters and digits: it is one word in the names of networks"
        raise UserError(f"the name of {kind} {shown(name)} {message}")
    words = [token(axis, choice) for axis in _SPELT for choice in AXES[axis].choices or ()]
    words += [*BLOCKS, *(family.token for family in FAMILIES.values())]
    word = token(kind, name)
    if words.count(word) > 1 or word.upper() in PRESETS or re.fullmatch(r"[sgw][0-9]+", word):
        message = "means something else in the names of networks: take another one"
        raise UserError(f"the name of {kind} {name!r} {message}")


def _plugin_of(kind: str, name: str) -> Plugin | None:
    """The plugin that has entered a choice; ``None`` where other code has."""
    origin = OPEN[kind].origins.get(name, "")
    if not any(is_within(origin, plugin.module) for plugin in loaded()):
        load_installed()
    return next((plugin for plugin in loaded() if is_within(origin, plugin.module)), None)


def _own_choices(choices: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The choices, by setting, that the package itself does not have."""
    for kind, table in OPEN.items():
        name = choices.get(kind)
        if isinstance(name, str) and name in table and name not in table.built_in:
            yield kind, name


# --- what a run needs -------------------------------------------------------------------------


def used_plugins(choices: Mapping[str, object]) -> dict[str, str]:
    """Name and SHA-256 of the plugins that some choices come from.

    Args:
        choices: by setting, such as the fields of a ``Variant``.
    """
    plugins = [_plugin_of(kind, name) for kind, name in _own_choices(choices)]
    return {plugin.name: plugin.sha256 for plugin in plugins if plugin}


def require_plugins(choices: Mapping[str, object]) -> None:
    """Refuse a choice that no plugin has registered: no other process could read its runs.

    Raises:
        UserError: names the choice and who registered it.
    """
    for kind, name in _own_choices(choices):
        if _plugin_of(kind, name) is None:
            origin = OPEN[kind].origins.get(name)
            message = f"{kind} {name!r} was registered by {origin}, which is no plugin: write it"
            raise UserError(f"{message} to a file of its own, and name that as plugin", field=kind)


def absent_plugins(recorded: object) -> str:
    """One line on a plugin that a record names and this process lacks; empty if it has all."""
    for name, digest in _recorded(recorded).items():
        if name not in _LOADED:
            message = f"it needs the plugin {name!r} (SHA-256 {digest[:12]}):"
            return f"{message} give --plugin, or call rv.load_plugin"
    return ""


def changed_plugins(recorded: object) -> str:
    """One line on a plugin whose code is not what a record names; empty if all is the same."""
    for name, digest in _recorded(recorded).items():
        if name in _LOADED and _LOADED[name].sha256 != digest:
            here = _LOADED[name].sha256[:12]
            return f"plugin {name!r} has changed: SHA-256 {digest[:12]} there, {here} here"
    return ""


def _recorded(content: object) -> dict[str, str]:
    pairs = content.items() if isinstance(content, Mapping) else ()
    return {str(name): str(digest) for name, digest in pairs}
