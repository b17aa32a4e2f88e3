"""A question and the runs that answer it, from a TOML file or from arguments."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from resnet_variants.analysis.factors import cells_of, short_labels
from resnet_variants.analysis.predictions import Predictions, parse
from resnet_variants.analysis.results import Decode
from resnet_variants.analysis.statistics import FEWEST
from resnet_variants.analysis.verdicts import Plan
from resnet_variants.data.specs import check_spec
from resnet_variants.data.thumbnails import thumbnails
from resnet_variants.models.grids import MOST_CELLS, cells, expand, merge
from resnet_variants.models.stems import stem_stride_for
from resnet_variants.models.variant import Variant
from resnet_variants.plugins import load_plugin
from resnet_variants.records.files import Json
from resnet_variants.records.pictures import Thumbnail
from resnet_variants.records.results_folder import DATA_NAMES, PLAN, ROBUST, SEARCHED, VARIED
from resnet_variants.registry import (
    UserError,
    number_of,
    plain,
    refuse,
    require,
    sequence,
    shown,
)
from resnet_variants.settings import (
    DATA,
    SEEDS,
    SIDE,
    Compared,
    EndpointName,
    Loading,
    Seeds,
    Side,
    check_fields,
    check_margin,
    require_few,
)
from resnet_variants.sweeps.arms import (
    SETTINGS,
    Arm,
    arms_of,
    baselines,
    checked_robust,
    tuning,
    usual,
    varied,
)
from resnet_variants.sweeps.question import check_keys, read_question
from resnet_variants.sweeps.run import Run
from resnet_variants.training.recipe import RECIPES, Recipe

_SEEDS_ALONE = 3  # of a network that is compared with none


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms x seeds on one data set: networks, under one recipe or with some settings varied.

    0 ``seeds`` become as many as a verdict takes.

    Raises:
        ValueError: an unknown data set, no variant, fewer than one seed, a baseline that is not
            among the variants, a name that is no plain file name, or predictions that cannot be
            read or cannot all hold.
    """

    name: str
    variants: tuple[Variant, ...]
    data: str = DATA
    data_name: str = ""  # what captions call the data; its id if empty
    img_size: Side = SIDE
    recipe: Recipe = field(default_factory=Recipe)
    loading: Loading = field(default_factory=Loading)
    seeds: Seeds = SEEDS
    question: str = ""
    expect: str | Sequence[str] = ""  # in words, or as predictions that are judged
    vary: Mapping[str, Sequence[object]] = field(default_factory=dict)  # settings of the recipe
    robust: tuple[str, ...] = ()  # varied settings at each of which arms are compared
    tune: Mapping[str, object] = field(default_factory=dict)  # values to try, and seeds for that
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # each arm's own values
    searched: tuple[Json, ...] = ()  # what came out at each value that was tried
    first_seed: int = 0
    share: str = ""  # I/N: every N-th of the seeds from the I-th on is trained here
    baseline: Mapping[str, object] = field(default_factory=dict)
    margin: float | None = None  # the smallest difference that matters, in points
    endpoint: EndpointName = "test_acc"  # the number that decides
    compare: Compared = "baseline"
    merged: tuple[str, ...] = ()
    further: tuple[tuple[Arm, int], ...] = ()  # with a seed beyond the planned ones
    free_stem: bool = False  # whether the stem stride follows the images' size
    chosen: Mapping[str, object] = field(default_factory=dict)  # what `budget` chose, and for what

    def __post_init__(self) -> None:
        check_fields(
            self, "question", "data", "data_name", "img_size", "recipe", "loading", "seeds"
        )
        check_fields(self, "endpoint", "compare")
        check_spec(self.data)
        for name in ("vary", "tune", "baseline"):
            require(name, getattr(self, name), Mapping, "a table of settings")
        if not self.data_name.isprintable():
            raise UserError("data_name must be one line of plain text", field="data_name")
        check_margin(self.margin)
        if not self.variants:
            raise UserError(f"experiment {self.name!r} has no variants")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.name):
            message = f"name {self.name!r} must be made of letters, digits and . _ + -"
            raise UserError(message, field="name")
        object.__setattr__(self, "expect", _expectation(self.expect))
        object.__setattr__(self, "vary", varied(self.vary))
        object.__setattr__(self, "robust", checked_robust(self.robust, self.vary))
        _ = self.tuning
        _ = self.predictions
        baselines = self.baselines()
        if not self.seeds:
            compared = any(model != base for model, base in baselines.items())
            seeds = FEWEST if compared else _SEEDS_ALONE
            object.__setattr__(self, "seeds", seeds)
        _ = self.own_seeds
        _refuse_twins(self)
        if len(self.arms) * self.seeds > MOST_CELLS:
            message = f"{len(self.arms):,} arms x {self.seeds:,} seeds are"
            raise UserError(f"{message} more runs than the {MOST_CELLS:,} that memory holds")

    @functools.cached_property
    def arms(self) -> list[Arm]:
        """Each network with each combination of the varied settings."""
        arms = arms_of(self.variants, self.recipe, self.vary)
        own = self.tuned
        return [replace(a, recipe=replace(a.recipe, **own.get(a.name, {}))) for a in arms]

    @property
    def tuning(self) -> tuple[int, dict[str, tuple[object, ...]]]:
        """How many seeds a search has, and the values of each setting that it tries.

        Raises:
            ValueError: there are none, or a setting is varied too.
        """
        return tuning(self.tune, self.vary, self.recipe)

    @property
    def own_seeds(self) -> range:
        """The planned seeds that are trained here."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return _shared(seeds, self.share, searches=bool(self.tune))

    @functools.cached_property
    def runs(self) -> list[Run]:
        """Seed by seed, so that every arm has a number early."""
        planned = [(arm, seed) for seed in self.own_seeds for arm in self.arms]
        return [self.run(arm, seed) for arm, seed in (*planned, *self.further)]

    @property
    def first_runs(self) -> list[Run]:
        """One of each arm."""
        return self.runs[: len(self.arms)]

    def run(self, arm: Arm, seed: int) -> Run:
        """The run of an arm with a seed."""
        places = self.img_size, self.loading, arm.settings, arm.name
        return Run(arm.variant, self.data, arm.recipe, seed, *places)

    @functools.cached_property
    def predictions(self) -> Predictions:
        """What is predicted; nothing where the expectation is in words."""
        statements = () if isinstance(self.expect, str) else self.expect
        return parse(statements, cells_of(self.arms))

    def with_more(self, seeds: int, arms: Sequence[str]) -> Experiment:
        """The same with further seeds for some arms and for the baselines of these.

        Args:
            seeds: how many.
            arms: short labels or names of networks.

        Raises:
            ValueError: no such arm.
        """
        labels = short_labels(cells_of(self.arms))
        by_word = {word: a.name for a in self.arms for word in (labels[a.name], a.name)}
        for arm in arms:
            if arm not in by_word:
                refuse("arm", arm, labels.values(), field="arms")
        baselines = self.baselines()
        names = {by_word[arm] for arm in arms}
        names |= {baselines[name] for name in names}
        chosen = [arm for arm in self.arms if arm.name in names]
        added = range(self.seeds, self.seeds + seeds)
        return replace(self, further=tuple((arm, seed) for seed in added for arm in chosen))

    def fitted(self) -> Experiment:
        """The same with stem strides for the size of its images, where they are free.

        Raises:
            ValueError: the images cannot be loaded.
        """
        if not self.free_stem:
            return self
        stride = stem_stride_for(self.runs[0].load().img_size)
        variants, _ = merge((replace(v, stem_stride=stride), v.name) for v in self.variants)
        return replace(self, variants=tuple(variants), free_stem=False)

    def baselines(self) -> dict[str, str]:
        """Name of each arm -> name of the arm it is compared with: same family, depth and block."""
        return baselines(self.arms, self.recipe, self.vary, self.baseline, self.robust)

    @property
    def plan(self) -> Plan:
        """What is fixed before the first run."""
        return Plan(self.seeds, self.margin or 0.0, self.endpoint, self.compare)

    def record(self) -> Json:
        """What ``experiment.json`` holds."""
        return {
            "name": self.name,
            "question": self.question,
            "expect": self.expect if isinstance(self.expect, str) else list(self.expect),
            "baselines": self.baselines(),
            DATA_NAMES: {self.runs[0].dataset: self.data_name} if self.data_name else {},
            "merged": list(self.merged),
            **({VARIED: usual(self.recipe, self.vary)} if self.vary else {}),
            **({ROBUST: list(self.robust)} if self.robust else {}),
            **({SEARCHED: list(self.searched)} if self.searched else {}),
            PLAN: asdict(self.plan) | self.predictions.record(),
            "runs": [run.id for run in self.runs],
            **({"chosen": dict(self.chosen)} if self.chosen else {}),
        }


def thumbnails_of(experiment: Experiment) -> Decode:
    """What makes small pictures of its test images, for ``reporting.build``.

    There are none of other data, and none, with a warning, where the images were moved.
    """

    def decode(dataset: str, split: str, images: Mapping[int, str]) -> Mapping[int, Thumbnail]:
        if dataset != experiment.runs[0].dataset:
            return {}
        try:
            return thumbnails(experiment.data, split, images, experiment.loading)
        except UserError as error:
            logging.getLogger(__name__).warning("the hardest images are not shown: %s", error)
            return {}

    return decode


def _refuse_twins(experiment: Experiment) -> None:
    """Refuse values that are spelt in two ways, such as a path: two arms would be one run."""
    ids: dict[str, str] = {}
    for arm in experiment.arms if experiment.vary else ():
        other = ids.setdefault(experiment.run(arm, 0).id, arm.name)
        if other != arm.name:
            message = f"{other} and {arm.name} are the same network and recipe: drop one"
            raise UserError(message, field="vary")


def _expectation(expect: object) -> str | tuple[str, ...]:
    """Text as it is, or a list of texts as a tuple."""
    texts = () if isinstance(expect, str) else sequence(expect)
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise UserError("expect must be text in quotes, or a list of such", field="expect")
    return expect if isinstance(expect, str) else tuple(texts)


def _shared(seeds: range, share: str, *, searches: bool) -> range:
    """The seeds of a share ``I/N``; all of them without one."""
    if not share:
        return seeds
    require("share", share, str, "text such as 1/2")
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", share, re.ASCII)
    first, shares = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= shares <= len(seeds):
        message = f"share {shown(share)} must be I/N, such as 1/2, with I from 1 to N and N up to"
        raise UserError(f"{message} {number_of(len(seeds), 'seed')}", field="share")
    if searches:
        message = "each share would search for itself: drop the share, or what it tunes"
        raise UserError(message, field="share")
    return seeds[first - 1 :: shares]


def slug(text: str) -> str:
    """Text as a plain file name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._") or "experiment"


def read_toml(path: Path, *, many: bool = False) -> Experiment:
    """The experiment in a TOML file, called like the file.

    Nothing in the file is executed. The Python files that its ``plugin`` names are.

    Raises:
        ValueError: no such file, not TOML, an unknown key or choice, or more than ``MOST_RUNS``
            without ``many``; the message says where.
    """
    content = read_question(path)
    try:
        for plugin in _listed_plugins(content.pop("plugin", [])):
            load_plugin(plugin, folder=path.parent)
        return _from_content(slug(path.stem), content, many=many)
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}", field="experiment") from error


def _listed_plugins(value: object) -> list[str]:
    plugins = [value] if isinstance(value, str) else value
    if not isinstance(plugins, list) or not all(isinstance(plugin, str) for plugin in plugins):
        raise UserError("plugin must be the name of a Python file or module, or a list of names")
    return plugins


def _from_content(name: str, content: Mapping[str, object], *, many: bool) -> Experiment:
    settings = {key: value for key, value in content.items() if key not in ("grid", "recipe")}
    for key in ("question", "data", "data_name"):
        if not isinstance(settings.get(key, ""), str):
            raise UserError(f"{key} must be text in quotes")
    for table in ("grid", "recipe", "tune"):
        if not isinstance(content.get(table, {}), dict):
            raise UserError(f"{table} must be a table")
    if not content.get("grid"):
        raise UserError("no [grid]: name the networks, for example depth and preset")
    grid, recipe = cast(Mapping[str, object], content["grid"]), content.get("recipe", {})
    grid, fixed, vary = _split(grid, cast(Mapping[str, object], recipe))
    for key in fixed.keys() & cast(Mapping[str, object], content.get("tune", {})).keys():
        raise UserError(f"{key} is fixed and tuned: name it once")
    require_few(cells(grid) * math.prod(map(len, vary.values())), many=many)
    variants, merged = expand(grid)
    return Experiment(
        name=name,
        variants=tuple(variants),
        merged=tuple(merged),
        free_stem="stem_stride" not in grid,
        vary=vary,
        recipe=recipe_from(fixed),
        **settings,  # type: ignore[arg-type]
    )


def _split(
    grid: Mapping[str, object], recipe: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object], dict[str, Sequence[object]]]:
    """What a file says of the networks, of the recipe, and of the settings that vary."""
    networks = {key: value for key, value in grid.items() if key not in SETTINGS}
    own = {key: value for key, value in grid.items() if key in SETTINGS}
    for key, value in recipe.items():
        if key in own:
            raise UserError(f"{key} is fixed in [recipe] and varied in [grid]: name it once")
        if isinstance(value, list) and key != "milestones":
            raise UserError(f"{key} is a list: what varies belongs to [grid]")
    vary: dict[str, Sequence[object]] = {k: v for k, v in own.items() if isinstance(v, list)}
    return networks, {**recipe, **{k: v for k, v in own.items() if k not in vary}}, vary


def recipe_from(settings: Mapping[str, object]) -> Recipe:
    """A recipe with some fields changed: the ``preset``, such as he2016, or the default one.

    Raises:
        ValueError: an unknown preset or field, or a value out of range.
    """
    check_keys(settings, ["preset", *(f.name for f in fields(Recipe))], "recipe setting")
    changed = cast("dict[str, Any]", dict(settings))
    preset = plain(changed.pop("preset", "default"))
    require("preset", preset, str, "a recipe's name")
    return replace(RECIPES[preset], **changed)
