"""The flags that choose networks, and those that name values of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro

from resnet_variants.models.catalogue import as_variant, list_aliases, list_extended, list_models
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import FULL_GRID
from resnet_variants.models.variant import AXES, Axis, Variant
from resnet_variants.registry import UserError

Words: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = tuple[int, ...]
Switch: TypeAlias = tyro.conf.FlagCreatePairsOff[bool]


def among(meaning: str, choices: Callable[[], Iterable[str]], **more: Any) -> Any:
    """The help of a flag, with the choices that there are when it is shown: plugins add some."""

    def hint(default: str) -> str:
        usual = f" (default: {default})" if default else ""
        return f"{{{','.join(choices())}}}{usual}"

    return tyro.conf.arg(help=meaning, help_behavior_hint=hint, **more)


def _axis(about: Axis) -> Any:
    if not about.is_text:
        return Annotated[Numbers, tyro.conf.arg(help=about.meaning)]
    return Annotated[Words, among(about.meaning, lambda: about.choices or (), metavar="NAME ...")]


# The axes that take a list on the command line.
LISTS = [name for name in AXES if name != "family"]


@dataclass(frozen=True)
class _Chosen:
    variant: Annotated[
        Words,
        tyro.conf.arg(
            help="presets, A to D if nothing is given; or names and wildcards, as `list` has them",
            metavar="LETTER|NAME ...",
        ),
    ] = ()
    preact: Annotated[bool, tyro.conf.arg(help="the order preact instead of post")] = False
    family: Annotated[
        str, tyro.conf.arg(help=f"{AXES['family'].meaning}: {', '.join(FAMILIES)}")
    ] = "cifar"


_Lists: Any = make_dataclass(
    "_Lists", [(name, _axis(AXES[name]), ()) for name in LISTS], bases=(_Chosen,), frozen=True
)


@dataclass(frozen=True)
class Networks(_Lists):
    """Lists are crossed with one another; an axis overrides the preset's choice."""

    grid: Annotated[
        Switch, tyro.conf.arg(help="plain and deep stem x 1x1, 3x3, 3x3+avgpool x post, preact")
    ] = False
    experiment: Annotated[
        Path | None,
        tyro.conf.arg(
            help="a TOML file, or the name of a packaged one, instead of the flags above",
            metavar="FILE",
        ),
    ] = None

    @property
    def named(self) -> list[tuple[Variant, str]]:
        """The networks that ``--variant`` names, each with its name; none where it has letters.

        Raises:
            ValueError: a name of none, or a flag that contradicts it.
        """
        words = [word for word in self.variant if len(word) > 1 or word in "*?"]
        if not words:
            return []
        if len(words) < len(self.variant) or replace(self, variant=()) != Networks():
            message = "a name says all of a network: drop letters, and other flags that choose it"
            raise UserError(message, field="variant")
        names = dict.fromkeys(name for word in words for name in _names(word))
        return [(_named(name), name) for name in names]

    @property
    def spec(self) -> dict[str, object]:
        """The grid that the flags ask for, without names and the file.

        Raises:
            ValueError: flags that contradict one another.
        """
        spec: dict[str, object] = {"family": self.family}
        spec |= {name: list(getattr(self, name)) for name in LISTS if getattr(self, name)}
        if self.preact and self.order:
            raise UserError("give either --preact or --order", field="preact")
        if self.preact:
            spec["order"] = ["preact"]
        if self.grid:
            for name in ("variant", "stem", "stride", "shortcut"):
                if getattr(self, name):
                    raise UserError(f"--grid sets it already: drop --{name}", field=name)
            return FULL_GRID | spec
        axes = self.stem or self.stride or self.shortcut
        if self.variant or not axes:
            spec["preset"] = list(self.variant or PRESETS)
        return spec


def _names(word: str) -> list[str]:
    """The names of `list` that match a wildcard; any other word is a name itself."""
    if not re.search(r"[*?\[]", word):
        return [word]
    found = [*list_models(word), *list_extended(word), *list_aliases(word)]
    if not found:
        message = f"no registered model matches {word!r}; `list` shows them"
        raise UserError(message, field="variant")
    return found


def _named(name: str) -> Variant:
    try:
        return as_variant("variant", name)
    except UserError as error:
        raise UserError(str(error), field="variant") from error


def values_of(flag: str, texts: Sequence[str]) -> dict[str, list[object]]:
    """The values of each setting.

    Raises:
        ValueError: it is spelt otherwise, or named twice.
    """
    found = dict[str, list[object]]()
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name in found or "" in values.split(","):
            message = f"{text!r} must be a setting with its values, once: lr=0.03,0.1"
            raise UserError(message, field=flag)
        found[name] = [_value(one) for one in values.split(",")]
    return found


def _value(text: str) -> object:
    """A number, a truth value, a list of such with colons between, or the text itself."""
    if ":" in text:
        return [_value(part) for part in text.split(":")]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)
