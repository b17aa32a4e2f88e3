"""``python -m resnet_variants.run``: train variants, then write their tables and plots.

--variant D --preact           one network, three seeds, on scikit-learn's digits
--variant 'rv_resnet29_cifar_*' networks by their names, as `list` shows them
--grid                         the 12 combinations of stem, downsampling and order
--experiment FILE.toml         a question from a file, or by its name from the package, such as
                               bag_of_tricks; further flags override its settings
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from resnet_variants.data.specs import check_spec, require_folder, specs
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.variant import MAIN, shown_as
from resnet_variants.registry import UserError
from resnet_variants.settings import (
    DATA,
    MILLION,
    MOST_RUNS,
    SEEDS,
    SIDE,
    Loading,
    Machine,
    Range,
    Seeds,
    Side,
    Sink,
    Workers,
    check_fields,
    check_margin,
    require_few,
    seconds_of_budget,
)
from resnet_variants.sweeps.question import experiment_file, read_question
from resnet_variants.terminal.cli import (
    Plugins,
    callable_module,
    guard,
    load_plugins,
    parse,
    say,
)
from resnet_variants.terminal.flags import LISTS, Networks, Switch, among, values_of
from resnet_variants.terminal.starting import ready
from resnet_variants.training.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from resnet_variants.sweeps.experiment import Experiment
    from resnet_variants.sweeps.sweep import Events, Options

_LOADING = "loading torch and timm"


@dataclass(frozen=True)
class Images:
    """The test split is read once, at the end of a run."""

    data: Annotated[str, among("data set", specs)] = DATA
    data_name: str = ""  # what captions call the data; its id if empty
    img_size: Side = SIDE  # resize to this side in pixels, 0: do not

    def __post_init__(self) -> None:
        check_fields(self)
        check_spec(self.data)


@dataclass(frozen=True)
class Comparison:
    """What is repeated, and the recipe that the settings below change."""

    # how many: 0 to N - 1. If 0: 6, the fewest that a verdict takes, or 3 of one network alone
    seeds: Seeds = SEEDS
    # train every N-th of these seeds only, from the I-th on; `report` joins the shares
    share: Annotated[str, tyro.conf.arg(metavar="I/N")] = ""
    # settings of the recipe that vary, such as lr=0.03,0.1 mixup=0,0.2; names the arms
    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SETTING=VALUE,...")] = ()
    # of these, those at each of whose values arms are compared
    robust: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SETTING")] = ()
    # first search each arm's own values of these by validation accuracy: lr=0.03,0.1 seeds=2
    tune: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SETTING=VALUE,...")] = ()
    # smallest difference that matters, in points; fixed before the first run
    margin: Annotated[str, tyro.conf.arg(metavar="POINTS")] = ""
    # add so many seeds for the networks of --arms and for what these are compared with
    more: Annotated[int, Range(0, 10_000)] = 0
    # the networks that --more adds seeds for, by labels of the table
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL ...")] = ()
    # choose depth and epochs so that all but --more and --diagnose is done within this time
    minutes: Annotated[float | None, tyro.conf.arg(metavar="N")] = None
    # after the seeds, more of them for networks that are undecided, until this time is over
    budget: Annotated[str, tyro.conf.arg(metavar="10h|90m|1d")] = ""
    # the same, until no further seeds are expected to decide any
    until_decided: Switch = False
    recipe: Annotated[
        str, tyro.conf.arg(help=f"of a paper: {', '.join(RECIPES)}", metavar="NAME")
    ] = "default"

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.points, self.varied, self.tuned
        if self.minutes is not None and not 0 < self.minutes <= MILLION:
            message = f"minutes {self.minutes:g} must be a positive number"
            raise UserError(message, field="minutes")
        if bool(self.more) != bool(self.arms):
            message = "--more N and --arms LABEL ... go together: so many seeds for these networks"
            raise UserError(message, field="more")
        self._check_goal()

    def _check_goal(self) -> None:
        _ = self.seconds
        other = "minutes" if self.minutes is not None else "more" if self.more else ""
        if self.share and (self.goal or other):
            message = (
                "a share has its planned seeds: no --more, --minutes, --budget, --until-decided"
            )
            raise UserError(message, field="share")
        if self.goal and other:
            fixed = {"minutes": "chooses epochs for a time", "more": "adds seeds that you choose"}
            raise UserError(f"--{other} {fixed[other]}: drop one of the two", field=self.goal)

    @property
    def varied(self) -> dict[str, list[object]]:
        """The values of each setting that varies."""
        return values_of("vary", self.vary)

    @property
    def tuned(self) -> dict[str, object]:
        """The values that a search tries for each setting, and how many ``seeds`` it has."""
        found = values_of("tune", self.tune)
        seeds = found.pop("seeds", None)
        if seeds and len(seeds) > 1:
            raise UserError("tune has one number of seeds: seeds=2", field="tune")
        return {**found, **({"seeds": seeds[0]} if seeds else {})}

    @property
    def points(self) -> float | None:
        """The margin.

        Raises:
            ValueError: it is none.
        """
        try:
            margin = float(self.margin) if self.margin else None
        except ValueError:
            margin = self.margin
        check_margin(margin)
        return cast("float | None", margin)

    @property
    def goal(self) -> str:
        """The flag that lets undecided networks have more seeds; empty if none does."""
        return "budget" if self.budget else "until_decided" if self.until_decided else ""

    @property
    def takes_more(self) -> bool:
        """Whether the same command may have ``--more``."""
        return not (self.share or self.goal)

    @property
    def seconds(self) -> float:
        """The budget."""
        return seconds_of_budget(self.budget) if self.budget else math.inf


@dataclass(frozen=True)
class Output:
    """The same command again does only what is missing."""

    out: Annotated[Path | None, tyro.conf.arg(help="results/NAME if none", metavar="DIR")] = None
    name: str = ""  # of the experiment; made from the flags if empty
    dry_run: Switch = False  # list the runs and estimate the time
    fresh: Switch = False  # redo these runs from the start
    retry_failed: Switch = False  # redo those that failed
    diagnose: Switch = False  # then look into the trained networks; see `diagnose`
    yes: Annotated[Switch, tyro.conf.arg(help=f"more than {MOST_RUNS:,} runs are meant")] = False
    wide: Switch = False  # show the names of networks in full, not what differs among them
    log: tuple[Sink, ...] = ()  # send each epoch's numbers there


@dataclass(frozen=True)
class Flags:
    """Train ResNet variants under one recipe with paired seeds and compare them."""

    networks: Networks = field(default_factory=Networks)
    images: Images = field(default_factory=Images)
    loading: Loading = field(default_factory=Loading)
    comparison: Comparison = field(default_factory=Comparison)
    settings: Recipe = field(default_factory=Recipe)
    machine: Machine = field(default_factory=Machine)
    workers: Workers = field(default_factory=lambda: Workers(engine="local"))
    output: Output = field(default_factory=Output)
    plugin: Plugins = ()


def command(argv: Sequence[str]) -> int:
    """Carry out the verb: 0 when every run is done (and diagnosed), 1 when some are not."""
    begun = time.monotonic()
    experiment, flags = read(argv)
    say("loading the images")
    from resnet_variants.api import diagnose_runs
    from resnet_variants.reporting.build import build, require_room
    from resnet_variants.sweeps.experiment import thumbnails_of
    from resnet_variants.sweeps.sweep import check
    from resnet_variants.terminal.console import show_settings
    from resnet_variants.terminal.live import show_events
    from resnet_variants.terminal.screen import next_step, show_report

    ready()
    output, options = flags.output, _options(flags)
    out = output.out or Path("results") / experiment.name
    experiment = _fitted(experiment, flags, out, options, begun)
    if output.dry_run:
        check(experiment, out, options)
        require_room(out, adopt=False)
        _show_dry_run(experiment, flags, out, options)
        return 0

    require_room(out)
    experiment, events = _events(experiment, out, options, flags.comparison)
    show_settings(experiment, out, options)
    show_events(events)
    experiment, complete = _trained(experiment, flags, out)
    if output.diagnose:
        for folder, refusal in diagnose_runs(experiment, out, flags.machine.device):
            what = f"is not diagnosed: {refusal}" if refusal else "is diagnosed"
            say(f"{folder.name} {what}")
            complete = complete and not refusal
    made = build(out, decode=thumbnails_of(experiment))
    show_report(made, out, wide=output.wide, step=next_step(made, more=flags.comparison.takes_more))
    return 0 if complete else 1


def _fitted(
    experiment: Experiment, flags: Flags, out: Path, options: Options, begun: float
) -> Experiment:
    """The experiment for the size of its images, and with the further seeds that are asked for."""
    minutes, more = flags.comparison.minutes, flags.comparison.more
    if minutes is None:
        experiment = experiment.fitted()
    else:
        from resnet_variants.sweeps.budget import fit_to
        from resnet_variants.terminal.console import show_budget

        chosen = flags.networks
        free = not (chosen.depth or chosen.block or chosen.experiment or chosen.named)
        say("measuring steps of the networks")
        spent = time.monotonic() - begun
        budget = fit_to(minutes, experiment, out, options, depth_is_free=free, spent=spent)
        show_budget(minutes, budget)
        experiment = budget.experiment
    if more:
        experiment = experiment.with_more(more, flags.comparison.arms)
        require_few(len(experiment.runs), many=flags.output.yes)
    return experiment


def _show_dry_run(experiment: Experiment, flags: Flags, out: Path, options: Options) -> None:
    from resnet_variants.sweeps.rounds import forecast
    from resnet_variants.terminal.console import search_line, show_goal, show_plan, show_settings

    if experiment.tune:
        from resnet_variants.sweeps.search import search_of

        say(search_line(experiment))
        show_plan(search_of(experiment), options.machine)
        say("\nthen, with the values that are best for each arm:")
    show_settings(experiment, out, options)
    estimates = show_plan(experiment, options.machine)
    if flags.comparison.goal:
        show_goal(forecast(experiment, out, options, flags.comparison.seconds, estimates))


def _events(
    experiment: Experiment, out: Path, options: Options, asked: Comparison
) -> tuple[Experiment, Events]:
    """The training of what is missing; with a goal, round after round.

    Where arms are to be tuned, their search is over, and the experiment has what it found.
    """
    from resnet_variants.sweeps.rounds import run_until_decided
    from resnet_variants.sweeps.search import choose
    from resnet_variants.sweeps.sweep import run_sweep
    from resnet_variants.terminal.console import search_line
    from resnet_variants.terminal.live import show_events

    begun = time.monotonic()
    if experiment.tune:
        say(search_line(experiment))
    experiment = choose(experiment, out, options, show_events)
    for arm, own in experiment.tuned.items():
        say(f"{arm}: {', '.join(f'{name} {value}' for name, value in own.items())}")
    if asked.goal:
        left = asked.seconds - (time.monotonic() - begun)
        if left <= 0:
            message = "the search took all of it; the same command goes on with the arms"
            raise UserError(message, field=asked.goal)
        return experiment, run_until_decided(experiment, out, options, left)
    return experiment, run_sweep(experiment, out, options)


def _trained(experiment: Experiment, flags: Flags, out: Path) -> tuple[Experiment, bool]:
    """The experiment with the further seeds that it has now, and whether all went well."""
    from resnet_variants.sweeps.rounds import grown, none_failed
    from resnet_variants.sweeps.sweep import is_complete

    if not flags.comparison.goal:
        return experiment, is_complete(experiment, out)
    experiment = grown(experiment, out)
    return experiment, none_failed(experiment, out)


def _options(flags: Flags) -> Options:
    from resnet_variants.sweeps.sweep import Options

    output = flags.output
    return Options(
        machine=replace(flags.machine, snapshots=flags.machine.snapshots or output.diagnose),
        workers=flags.workers,
        sinks=output.log,
        fresh=output.fresh,
        retry_failed=output.retry_failed,
    )


def read(argv: Sequence[str]) -> tuple[Experiment, Flags]:
    """The experiment that a command line asks for, and the rest of its flags.

    Raises:
        ValueError: a flag that is wrong or contradicts another.
    """
    _refuse_empty_lists(argv)
    given = load_plugins(argv)
    file, recipe = (next(iter(given.get(f, ())), None) for f in ("--experiment", "--recipe"))
    if None not in (file, recipe):
        raise UserError("the file names the recipe: drop --recipe", field="recipe")
    base = None if file is None else _from_file(file, many="--yes" in argv)
    default = _default(base, "default" if recipe is None else recipe)
    flags = parse(tyro.conf.OmitArgPrefixes[Flags], argv, "run", default=default)
    require_folder(flags.images.data)
    if flags.comparison.minutes is not None and "--epochs" in given:
        raise UserError("minutes chooses the epochs: drop --epochs", field="minutes")
    if base and flags.networks != Networks(experiment=flags.networks.experiment):
        message = "the file names the networks: drop the other flags that do"
        raise UserError(message, field="experiment")
    told = _told(flags)
    base = base or replace(_from_flags(flags), **told)
    for name in sorted({*base.vary, *base.tune} - {"seeds"}):
        if f"--{name.replace('_', '-')}" in given:
            raise UserError(f"{name} is given and varied, or tuned: drop one", field=name)
    if base.tune and flags.comparison.minutes is not None:
        raise UserError("minutes chooses what a search would be for: drop it", field="minutes")
    experiment = replace(
        base,
        name=flags.output.name or base.name,
        data=flags.images.data,
        data_name=flags.images.data_name,
        img_size=flags.images.img_size,
        loading=flags.loading,
        seeds=flags.comparison.seeds,
        share=flags.comparison.share,
        margin=flags.comparison.points,
        recipe=flags.settings,
    )
    require_few(len(experiment.arms) * len(experiment.own_seeds), many=flags.output.yes)
    if flags.comparison.goal:
        _require_rows(experiment, flags.comparison.goal)
    return experiment, flags


def _default(base: Experiment | None, recipe: str) -> Flags:
    """What the file or the recipe says stands where a flag is not given."""
    if base is None:
        return Flags(settings=RECIPES[recipe])
    return Flags(
        images=Images(base.data, base.data_name, base.img_size),
        comparison=Comparison(seeds=base.seeds, margin=f"{base.margin or ''}"),
        settings=base.recipe,
    )


def _told(flags: Flags) -> dict[str, Any]:
    """What flags say of the settings that vary; of those of a file, the file."""
    own = flags.comparison
    told = {"vary": own.varied, "robust": own.robust, "tune": own.tuned}
    if flags.networks.experiment and any(told.values()):
        message = "the file names what varies: drop --vary, --robust and --tune"
        raise UserError(message, field="experiment")
    return told


def _require_rows(experiment: Experiment, goal: str) -> None:
    """Refuse to wait for verdicts that there are none of."""
    if all(name == base for name, base in experiment.baselines().items()):
        message = "there is nothing to decide: no network is compared with another"
        raise UserError(message, field=goal)


def _from_file(name: str, *, many: bool) -> Experiment:
    path = experiment_file(name)
    read_question(path)
    say(_LOADING)
    from resnet_variants.sweeps.experiment import read_toml

    return read_toml(path, many=many)


def _from_flags(flags: Flags) -> Experiment:
    from resnet_variants.models.grids import cells, expand, merge

    named = flags.networks.named
    if named:
        variants, merged = merge(named)
    else:
        spec = flags.networks.spec
        require_few(cells(spec), many=flags.output.yes)
        variants, merged = expand(spec)
    say(_LOADING)
    from resnet_variants.sweeps.experiment import Experiment

    return Experiment(
        name=flags.output.name or _name(flags),
        variants=tuple(variants),
        merged=tuple(merged),
        free_stem=not (named or flags.networks.stem_stride),
    )


def _refuse_empty_lists(argv: Sequence[str]) -> None:
    """``--variant`` without a letter means nothing, and surely not all letters."""
    listed = (f for part in (Networks, Comparison, Output) for f in fields(part))
    lists = {f"--{f.name.replace('_', '-')}" for f in listed if f.default == ()}
    for word, following in pairwise([*argv, "--"]):
        if word.replace("_", "-") in lists and following.startswith("--"):
            raise UserError("missing a value", field=word.removeprefix("--"))


def _name(flags: Flags) -> str:
    """A folder name that says what the flags chose: ``digits_cifar29_D_preact``."""
    from resnet_variants.sweeps.experiment import slug
    from resnet_variants.sweeps.run import dataset_name

    chosen, minutes = flags.networks, flags.comparison.minutes
    depth = chosen.depth or (FAMILIES[chosen.family].default_depth,) * (minutes is None)
    axes = {name: "-".join(map(str, getattr(chosen, name))) for name in LISTS if name != "depth"}
    parts = [
        dataset_name(flags.images.data),
        "" if chosen.named else chosen.family + "-".join(map(str, depth)),
        "grid" if chosen.grid else ("-" if chosen.named else "").join(chosen.variant),
        # What no other axis is called needs no name of its axis.
        *(
            text if name in shown_as(MAIN) else f"{name}-{text}"
            for name, text in axes.items()
            if text
        ),
        "preact" if chosen.preact else "",
        *flags.comparison.varied,
        "tuned" if flags.comparison.tune else "",
        "" if flags.comparison.recipe == "default" else flags.comparison.recipe,
        "" if minutes is None else f"{minutes:g}min",
    ]
    return slug("_".join(part for part in parts if part))


def main() -> int:
    """``python -m resnet_variants.run``."""
    return guard(lambda: command(sys.argv[1:]), "run")


callable_module(__name__, "run")
if __name__ == "__main__":
    sys.exit(main())
