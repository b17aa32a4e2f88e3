"""Arms of a comparison: networks, each with the settings of the recipe that are varied.

An arm stands in all tables as the ``model``. Where no setting varies it has its network's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from resnet_variants.records.run_folder import Provenance, recipe_digest, recipe_settings
from resnet_variants.registry import UserError

_AND = " + "  # before each setting in the name of an arm


def setting_text(value: object) -> str:
    """The value of a recipe's field as tables and names have it, and as JSON gives it back."""
    return str(list(value) if isinstance(value, tuple) else value)


def arm_name(network: str, settings: Mapping[str, str], usual: Mapping[str, str]) -> str:
    """A network's name, and the settings that are not usual: ``rv_resnet18_d + mixup 0.2``."""
    own = [setting_words(name, value) for name, value in settings.items() if value != usual[name]]
    return _AND.join([network, *own])


def network_of(arm: str) -> str:
    """The name of an arm's network."""
    return arm.partition(_AND)[0]


def setting_words(name: str, value: str) -> str:
    """A setting and its value in words."""
    if value in ("True", "False", ""):
        return name if value == "True" else f"no {name}"
    return f"{name} {value}"


_OUTCOME = ("arm", "val_acc", "runs", "seconds", "chosen")  # in a row of a search


def tuned_in(searched: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings that a search tried."""
    return [name for name in (searched[0] if searched else ()) if name not in _OUTCOME]


def settings_in(arm: str) -> list[str]:
    """The settings that the name of an arm tells, in words."""
    return arm.split(_AND)[1:]


def with_arms(
    runs: pd.DataFrame,
    varied: Mapping[str, str],
    provenance: Provenance,
    tuned: Collection[str] = (),
) -> pd.DataFrame:
    """The runs, with the names of their arms as ``model``.

    Further columns are each varied setting, as text, and ``recipe``: the digest in the run's id.
    Of recipes that differ in nothing but varied and tuned settings it is the first one's.

    Args:
        runs: ``RUN_COLUMNS``.
        varied: the usual value of each varied setting, which names leave out.
        provenance: has the settings of each recipe.
        tuned: the settings of which each arm has its own value.

    Raises:
        ValueError: the settings of a recipe are not recorded.
    """
    digests = runs["run_id"].map(recipe_digest)
    apart = {*varied, *tuned}
    if not apart:
        return runs.assign(recipe=digests)
    settings = {digest: recipe_settings(provenance, digest) for digest in digests.unique()}
    for digest, own in settings.items():
        for name in sorted(apart - own.keys()):
            message = f"runs of recipe {digest} do not record their {name}: report them apart"
            raise UserError(message)
    first: dict[tuple[tuple[str, str], ...], str] = {}
    for digest, own in settings.items():
        first.setdefault(_others(own, apart), digest)
    chosen = [{name: settings[digest][name] for name in varied} for digest in digests]
    models = [arm_name(str(m), own, varied) for m, own in zip(runs["model"], chosen, strict=True)]
    recipes = digests.map(lambda digest: first[_others(settings[digest], apart)])
    columns = {name: [own[name] for own in chosen] for name in varied}
    return runs.assign(model=models, recipe=recipes, **columns)


def _others(settings: Mapping[str, str], apart: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The other settings."""
    return tuple(sorted((name, text) for name, text in settings.items() if name not in apart))
