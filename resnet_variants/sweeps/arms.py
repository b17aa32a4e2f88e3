"""Arms: networks, each with the settings of the recipe that an experiment varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from resnet_variants.analysis.arms import arm_name, setting_text
from resnet_variants.models.grids import variant_from
from resnet_variants.models.variant import Variant
from resnet_variants.records.files import LARGEST
from resnet_variants.registry import UserError, plain, refuse, sequence, shown
from resnet_variants.training.recipe import Recipe

SETTINGS = tuple(field.name for field in fields(Recipe))
# What cannot vary within a comparison, and why.
_SHARED = {
    "crop_pct": "all arms are tested on the same images",
    "epochs": "runs of other lengths are other comparisons: report two folders together",
    "precision": "runs in another precision are another comparison: report two folders together",
}
_SEARCH_SEEDS, _MOST_SEARCH_SEEDS = 2, 1_000
Settings = tuple[tuple[str, str], ...]  # each varied field of the recipe, and its value as text


@dataclass(frozen=True)
class Arm:
    """What is compared: a network and its recipe.

    Attributes:
        variant: the network.
        recipe: with the values of the varied settings.
        settings: these values as text.
        name: ``rv_resnet20_cifar_d + mixup 0.2``; the network's alone where all are the usual ones.
    """

    variant: Variant
    recipe: Recipe
    settings: Settings
    name: str


def varied(vary: Mapping[str, object], flag: str = "vary") -> dict[str, tuple[object, ...]]:
    """The values of each varied field of a recipe.

    Raises:
        ValueError: an unknown field, no list of values, or one value twice.
    """
    listed: dict[str, tuple[object, ...]] = {}
    for field, values in vary.items():
        if field not in SETTINGS:
            further = ("seeds",) if flag == "tune" else ()
            refuse("recipe setting", field, (*further, *SETTINGS), field=flag)
        if field in _SHARED:
            raise UserError(f"{field} cannot vary: {_SHARED[field]}", field=flag)
        given = sequence(values)
        if not given:
            raise UserError(f"{field} {shown(values)} must be a list of values", field=flag)
        own = [_as_recipes(field, plain(value)) for value in given]
        texts = [setting_text(value) for value in own]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise UserError(f"{field} lists {twice} twice: two arms would be one", field=flag)
        listed[field] = tuple(own)
    return listed


def _as_recipes(field: str, value: object) -> object:
    """The value as a recipe holds it: 0 as 0.0 where it may have a fraction."""
    default = getattr(Recipe, field)
    if isinstance(default, float) and type(value) is int and abs(value) < LARGEST:
        return float(value)
    return tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value


def usual(recipe: Recipe, vary: Mapping[str, Sequence[object]]) -> dict[str, str]:
    """The value of each varied field that names leave out: the recipe's own, else the first."""
    own = {field: setting_text(getattr(recipe, field)) for field in vary}
    texts = {field: [setting_text(value) for value in values] for field, values in vary.items()}
    return {field: own[field] if own[field] in texts[field] else texts[field][0] for field in vary}


def arms_of(
    variants: Sequence[Variant], recipe: Recipe, vary: Mapping[str, Sequence[object]]
) -> list[Arm]:
    """Every network with every combination of the varied settings; the last one varies fastest.

    Raises:
        ValueError: a value that the recipe cannot have.
    """
    left_out = usual(recipe, vary)
    each = [_changed(recipe, dict(zip(vary, one, strict=True))) for one in product(*vary.values())]
    return [
        Arm(variant, own, tuple(settings.items()), arm_name(variant.name, settings, left_out))
        for variant in variants
        for own, settings in each
    ]


def _changed(recipe: Recipe, chosen: Mapping[str, Any]) -> tuple[Recipe, dict[str, str]]:
    """The recipe with the chosen values, and these as text."""
    settings = {field: setting_text(value) for field, value in chosen.items()}
    try:
        return replace(recipe, **chosen), settings
    except UserError as error:
        at = ", ".join(f"{field} {text}" for field, text in settings.items())
        raise UserError(f"at {at}: {error}", field=error.field) from error


def baselines(
    arms: Sequence[Arm],
    recipe: Recipe,
    vary: Mapping[str, Sequence[object]],
    baseline: Mapping[str, object],
    robust: Sequence[str],
) -> dict[str, str]:
    """Name of each arm -> name of the arm it is compared with: same family, depth and block.

    Without a ``baseline`` this is the first network of that size with the usual settings. A
    baseline that names settings only has the arm's own network. A setting of ``robust`` is the
    arm's own.

    Raises:
        ValueError: no such arm.
    """
    network = {key: value for key, value in baseline.items() if key not in SETTINGS}
    own = {key: _as_recipes(key, value) for key, value in baseline.items() if key in SETTINGS}
    wanted = {key: setting_text(value) for key, value in own.items()}
    _check_settings(wanted, vary)
    for name in wanted:
        if name in robust:
            message = f"{name} is robust: each arm is compared at its own: drop it from baseline"
            raise UserError(message, field="baseline")
    first: dict[tuple[str, int, str], Variant] = {}
    names = {(arm.variant, arm.settings): arm.name for arm in arms}
    found = dict[str, str]()
    for arm in arms:
        net = arm.variant
        base = first.setdefault((net.family, net.depth, net.block), net)
        if network:
            size = {name: getattr(net, name) for name in ("family", "depth", "block")}
            base = variant_from(size | {"stem_stride": net.stem_stride} | network)
        elif wanted:
            base = net
        settings = usual(recipe, vary) | wanted
        settings |= {name: value for name, value in arm.settings if name in robust}
        place = base, tuple((name, settings[name]) for name, _ in arm.settings)
        if place not in names:
            raise UserError(f"baseline {base.name!r} is not among the variants")
        found[arm.name] = names[place]
    return found


def _check_settings(settings: Mapping[str, str], vary: Mapping[str, Sequence[object]]) -> None:
    """Refuse a baseline with a setting that does not vary, or with another value than these."""
    for name, value in settings.items():
        if name not in vary:
            raise UserError(f"baseline: {name} does not vary: list its values in [grid]")
        if value not in (texts := [setting_text(one) for one in vary[name]]):
            refuse(f"{name} of the baseline", value, texts, field="baseline")


def checked_robust(robust: Sequence[str], vary: Mapping[str, Sequence[object]]) -> tuple[str, ...]:
    """The settings at each of whose values arms are compared.

    Raises:
        ValueError: one of them does not vary.
    """
    names = sequence(robust)
    if names is None:
        message = f"robust {shown(robust)} must be a list of varied settings"
        raise UserError(message, field="robust")
    for name in names:
        if name not in vary:
            message = f"{shown(name)} does not vary: give its values, or drop it from robust"
            raise UserError(message, field="robust")
        if names.count(name) > 1:
            raise UserError(f"{name} is named twice", field="robust")
    return tuple(names)


def tuning(
    tune: Mapping[str, object], vary: Mapping[str, Sequence[object]], recipe: Recipe
) -> tuple[int, dict[str, tuple[object, ...]]]:
    """How many seeds a search has, and the values of each setting that it tries.

    Raises:
        ValueError: no such number, nothing to choose from, a setting that is varied too, or a
            value that the recipe cannot have.
    """
    seeds = plain(tune.get("seeds", _SEARCH_SEEDS))
    values = varied({name: own for name, own in tune.items() if name != "seeds"}, "tune")
    if type(seeds) is not int or not 1 <= seeds <= _MOST_SEARCH_SEEDS:
        message = f"seeds {shown(seeds)} of tune must be a whole number from 1 to"
        raise UserError(f"{message} {_MOST_SEARCH_SEEDS}", field="tune")
    if tune and not values:
        raise UserError("tune names no setting: for example lr = [0.03, 0.1]", field="tune")
    for name, own in values.items():
        if name in vary:
            raise UserError(f"{name} is varied and tuned: name it once", field="tune")
        made = [_changed(recipe, {name: value})[0] for value in own]
        if len({*made}) < len(made):
            raise UserError(f"{name} lists one value in two spellings", field="tune")
    if values and all(len(own) == 1 for own in values.values()):
        message = f"{', '.join(values)} has one value, so that there is nothing to choose"
        raise UserError(f"{message}: give several", field="tune")
    return seeds, values
