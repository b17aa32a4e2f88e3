"""The command line: ``resnet-variants VERB`` and ``python -m resnet_variants.VERB`` alike.

A user's mistake is one line on standard error and exit status 2; Ctrl-C is 130.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from io import TextIOWrapper
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, TextIO, TypeAlias, TypeVar, cast, get_type_hints

import tyro
from tyro import _errors as tyro_errors
from tyro._arguments import ArgumentDefinition

from resnet_variants.plugins import load_installed, load_plugin
from resnet_variants.registry import UserError, one_line, refuse
from resnet_variants.terminal.starting import INTERRUPTED

VERBS = {
    "run": "train variants, then write tables and plots",
    "report": "rebuild tables and plots from what is on disk",
    "compare": "two arms, runs or results folders side by side",
    "diagnose": "gradients, lesions, distances and sensitivity of trained runs",
    "predict": "classes and probabilities of pictures by a trained run",
    "list": "registered model names with params and MACs",
    "describe": "one variant: axes, names elsewhere, layers, cost",
    "check-data": "decode every image; say what is wrong, by path",
    "bench": "training and inference speed beside a plain loop and timm's",
}
WRONG_USAGE, READER_GONE, TERMINATED = 2, 141, 143

Flags = TypeVar("Flags")


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: the first word names the verb."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        say("usage: resnet-variants VERB [--help] ...\n")
        for verb, text in VERBS.items():
            say(f"  {verb:<12}{text}")
        return 0 if words else WRONG_USAGE
    if words[0] == "--version":
        say(f"resnet_variants {importlib.metadata.version('resnet_variants')}")
        return 0
    verb, *rest = words
    return guard(lambda: importlib.import_module(_module(verb)).command(rest), verb)


def _module(verb: str) -> str:
    if verb not in VERBS:
        refuse("verb", verb, VERBS, field="")
    return f"resnet_variants.{verb}"


def guard(command: Callable[[], int], verb: str) -> int:
    """Run a verb's command; turn a user's mistake into one line and status 2."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if isinstance(stream, TextIOWrapper):  # a terminal without the letter shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminable():
            load_installed()
            return command()
    except UserError as error:
        flag = f"--{error.field.replace('_', '-')}: " if error.field else ""
        _write(sys.stderr, f"resnet-variants {verb}: {flag}{error}")
        return WRONG_USAGE
    except KeyboardInterrupt:
        _write(sys.stderr, f"resnet-variants {verb}: interrupted; the same command continues")
        return INTERRUPTED
    except SystemExit as error:
        if error.code == TERMINATED:
            message = "terminated; what was done is saved, the same command continues"
            _write(sys.stderr, f"resnet-variants {verb}: {message}")
        raise
    except BrokenPipeError:
        # Nobody reads on. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


@contextlib.contextmanager
def positional(field: str) -> Iterator[None]:
    """Name no flag in errors about a field that is one of other verbs, and a plain word here."""
    try:
        yield
    except UserError as error:
        error.field = "" if error.field == field else error.field
        raise


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM ends the process as an exception does: what is half done is undone.

    In threads other than the main one, which get no signals, nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED)) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class _VerbModule(ModuleType):
    """A verb's module that can be called like the function of ``api`` with its name."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function, also for ``inspect.signature``."""
        return getattr(importlib.import_module("resnet_variants.api"), self._verb)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """What ``help`` shows, which takes the object for a module."""
        signature = inspect.signature(self.__wrapped__)
        return f"{self._verb}{signature}\n\n{inspect.getdoc(self.__wrapped__)}"

    @property
    def __all__(self) -> list[str]:
        """No names for ``help`` to list."""
        return []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


def callable_module(name: str, verb: str) -> None:
    """Let the verb's module be called: ``rv.run(...)`` is ``api.run(...)``.

    Importing ``resnet_variants.run`` binds the package's ``run`` to that module, whichever way it
    comes to be imported, so the module itself has to be what ``rv.run`` promises.
    """
    module = sys.modules[name]
    module._verb = verb  # type: ignore[attr-defined]
    module.__class__ = _VerbModule


def say(text: str = "") -> None:
    """Lines on standard output, at once."""
    _write(sys.stdout, text)


def warn(text: str) -> None:
    """Lines on standard error, at once."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # it is closed
        return
    try:
        # What comes from files, folders and libraries must not move a terminal.
        stream.write("\n".join(map(one_line, text.split("\n"))) + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"what it prints cannot be written: {error.strerror}") from error


def given(argv: Sequence[str]) -> dict[str, list[str]]:
    """By flag what follows each of its occurrences, before the flags can be read.

    A flag may be spelt with underscores.
    """
    found: dict[str, list[str]] = {}
    for word, following in pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            found.setdefault(name.replace("_", "-"), []).append(value if equals else following)
    return found


def load_plugins(argv: Sequence[str]) -> dict[str, list[str]]:
    """Import the plugins that a command line names, for they change what its flags may say.

    Returns:
        See ``given``.

    Raises:
        UserError: one of them cannot be imported.
    """
    found = given(argv)
    for plugin in found.get(_PLUGIN, ()):
        load_plugin(plugin)
    return found


_PLUGIN = "--plugin"
# The field of a command's flags. `parse` imports what it names.
Plugins: TypeAlias = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        help="Python file or module with parts of your own, which is executed; may be repeated",
        metavar="FILE|MODULE",
    ),
]


def parse(flags: type[Flags], argv: Sequence[str], verb: str, *, default: Any = None) -> Flags:
    """Read flags into a frozen dataclass.

    Raises:
        UserError: an unknown flag, or a value of the wrong type.
    """
    for name, values in load_plugins(argv).items():
        if name != _PLUGIN and len(values) > 1:
            raise UserError("given twice: name all values after one flag", field=name.lstrip("-"))
    extra = {} if default is None else {"default": default}
    with tyro_errors.on_parse_error(functools.partial(_refuse_flags, flags)):
        return tyro.cli(flags, args=list(argv), prog=f"resnet-variants {verb}", **extra)


# How tyro says that words are neither numbers nor None, or not all numbers; how Python says it.
_NO_NUMBERS = re.compile(
    r"from \[(.*?)\]\. Got errors: .*NoneType.*<class '(?:float|int)'>"
    r'|valid parse for arguments: \[([^"]*)\]'
    r"|(?:invalid literal for int\(\)|could not convert string to float).*?: ('.*')"
)


def _refuse_flags(flags: type[Any], event: tyro_errors.ParseErrorEvent) -> None:
    match event:
        case tyro_errors.InvalidChoice():
            name = _field(event.argument)
            refuse(name.replace("-", "_"), event.value, event.choices, field=name)
        case tyro_errors.BadValue():
            reason = event.reason.replace("_", " ")
            raise UserError(f"{reason}; see --help", field=_field(event.argument))
        case tyro_errors.InstantiationFailure():
            cause = sys.exc_info()[1]  # a settings class refused: it knows the flag
            while cause is not None:
                if isinstance(cause, UserError):
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            field = _field(event.argument) if event.argument else ""
            raise UserError(_no_number(" ".join(event.message.split())), field=field)
        case tyro_errors.UnrecognizedArgs():
            first = event.tokens[0].lstrip("-").replace("_", "-")
            near = difflib.get_close_matches(first, _flags(flags), n=1)
            hint = f"did you mean --{near[0]}?" if near and event.tokens[0][:1] == "-" else ""
            raise UserError(f"unknown words {' '.join(event.tokens)!r}; {hint or 'see --help'}")
        case tyro_errors.MissingArgs():
            names = (_field(missing.arg) for missing in event.missing_arguments)
            raise UserError(f"missing {', '.join(names)}; see --help")
        case _:
            raise UserError(f"wrong usage ({type(event).__name__}); see --help")


def _no_number(message: str) -> str:
    """The message, in plain words where it says that a word is no number."""
    found = _NO_NUMBERS.search(message)
    words = re.findall("'([^']*)'", found[found.lastindex or 0]) if found else []
    for kind, number in (("number", float), ("whole number", int)):
        for word in words:
            try:
                number(word)
            except ValueError:
                return f"{word!r} is no {kind}"
    return message


def _flags(settings: type[Any]) -> Iterator[str]:
    """The flags of a dataclass and of the dataclasses in it."""
    for name, hint in get_type_hints(getattr(settings, "__origin__", settings)).items():
        if is_dataclass(hint):
            yield from _flags(cast("type[Any]", hint))
        else:
            yield name.replace("_", "-")


def _field(argument: ArgumentDefinition) -> str:
    return argument.display_name().lstrip("-")


if __name__ == "__main__":
    sys.exit(main())
