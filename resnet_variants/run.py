"""``python -m resnet_variants.run``: train variants, then write their tables and plots.

--variant D --preact           one network, three seeds, on scikit-learn's digits
--grid                         the 12 combinations of stem, downsampling and order
--experiment FILE.toml         a question from a file; further flags override its settings
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro

from resnet_variants.analysis.report import build
from resnet_variants.api import run as run_variants
from resnet_variants.cli import callable_module, guard, parse
from resnet_variants.console import make_watcher, show_plan, show_report, show_settings
from resnet_variants.models.families import PRESETS
from resnet_variants.models.grids import FULL_GRID, expand
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.registry import UserError
from resnet_variants.sweeps.experiment import Experiment, read_toml, slug
from resnet_variants.sweeps.local import Options, Watcher, check, conduct
from resnet_variants.training.data import DATASETS
from resnet_variants.training.loop import DEVICES
from resnet_variants.training.recipe import PRECISIONS, Recipe

Words: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = tuple[int, ...]
Switch: TypeAlias = tyro.conf.FlagCreatePairsOff[bool]


def _choice(text: str, choices: Iterable[object]) -> Any:
    return tyro.conf.arg(help=f"{text}: {', '.join(map(str, choices))}")


def _axis(axis: str, text: str) -> Any:
    choices = ", ".join(AXES[axis])
    return tyro.conf.arg(help=f"{text}: {choices}", metavar="NAME ...")


# The axes that take a list on the command line.
_LISTS = [field.name for field in fields(Variant) if field.name != "family"]


@dataclass(frozen=True)
class Networks:
    """Lists are crossed with one another; an axis overrides the preset's choice."""

    variant: Annotated[
        Words, tyro.conf.arg(help="presets, A to D if nothing is given", metavar="LETTER ...")
    ] = ()
    preact: Annotated[bool, tyro.conf.arg(help="the order preact instead of post")] = False
    family: Annotated[str, _choice("widths and depths", AXES["family"])] = "cifar"
    depth: Annotated[Numbers, tyro.conf.arg(help="the family's own if empty: 50, cifar 29")] = ()
    block: Annotated[Words, _axis("block", "the depth's own if empty")] = ()
    stem: Annotated[Words, _axis("stem", "before the first stage")] = ()
    stem_stride: Annotated[
        Numbers, tyro.conf.arg(help="the family's own if empty: 4, cifar 1")
    ] = ()
    stride: Annotated[Words, _axis("stride", "which conv carries stride 2")] = ()
    shortcut: Annotated[Words, _axis("shortcut", "where the shape changes")] = ()
    order: Annotated[Words, _axis("order", "of norm, activation and conv")] = ()
    skip: Annotated[Words, _axis("skip", "function of the shortcut")] = ()
    cardinality: Annotated[Numbers, tyro.conf.arg(help="groups of the bottlenecks' 3x3")] = ()
    base_width: Annotated[Numbers, tyro.conf.arg(help="channels per group in the first stage")] = ()
    attention: Annotated[Words, _axis("attention", "before the addition")] = ()
    antialias: Annotated[Words, _axis("antialias", "filter instead of a conv's stride")] = ()
    grid: Annotated[
        Switch, tyro.conf.arg(help="plain and deep stem x 1x1, 3x3, 3x3+avgpool x post, preact")
    ] = False
    experiment: Annotated[
        Path | None, tyro.conf.arg(help="a TOML file instead of the flags above", metavar="FILE")
    ] = None

    @property
    def spec(self) -> dict[str, object]:
        """The grid that the flags ask for, without the file.

        Raises:
            ValueError: flags that contradict one another.
        """
        spec: dict[str, object] = {"family": self.family}
        spec |= {name: list(getattr(self, name)) for name in _LISTS if getattr(self, name)}
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


@dataclass(frozen=True)
class Images:
    """The test split is read once, at the end of a run."""

    data: Annotated[str, _choice("data set", DATASETS)] = Experiment.data
    img_size: Annotated[int, tyro.conf.arg(help="resize to this side in pixels, 0: do not")] = (
        Experiment.img_size
    )


@dataclass(frozen=True)
class Training:
    """One recipe for every network."""

    epochs: int = Recipe.epochs
    batch_size: int = Recipe.batch_size
    lr: Annotated[float, tyro.conf.arg(help="at the end of the warm-up")] = Recipe.lr
    seeds: Annotated[
        int, tyro.conf.arg(help="how many: 0 to N - 1; a verdict takes 6, in a grid of twelve 9")
    ] = Experiment.seeds
    device: Annotated[str, _choice("where", DEVICES)] = Options.device
    precision: Annotated[str, _choice("auto: bf16 where it is native", PRECISIONS)] = (
        Recipe.precision
    )
    deterministic: Annotated[
        Switch, tyro.conf.arg(help="same seed, same machine: same weights, bit for bit")
    ] = Recipe.deterministic

    @property
    def recipe(self) -> dict[str, object]:
        """The flags that are fields of ``Recipe``."""
        names = ("epochs", "batch_size", "lr", "precision", "deterministic")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Output:
    """The same command again does only what is missing."""

    out: Annotated[Path | None, tyro.conf.arg(help="results/NAME if none", metavar="DIR")] = None
    name: Annotated[str, tyro.conf.arg(help="of the experiment; made from the flags if empty")] = ""
    dry_run: Annotated[Switch, tyro.conf.arg(help="list the runs and estimate the time")] = False
    fresh: Annotated[Switch, tyro.conf.arg(help="redo these runs from the start")] = False
    retry_failed: Annotated[Switch, tyro.conf.arg(help="redo those that failed")] = False


@dataclass(frozen=True)
class Flags:
    """Train ResNet variants under one recipe with paired seeds and compare them."""

    networks: Networks = field(default_factory=Networks)
    images: Images = field(default_factory=Images)
    training: Training = field(default_factory=Training)
    output: Output = field(default_factory=Output)


def command(argv: Sequence[str]) -> int:
    """Carry out the verb: 0 when every run is done, 1 when some failed or diverged."""
    experiment, output, device = read(argv)
    options = Options(device=device, fresh=output.fresh, retry_failed=output.retry_failed)
    out = output.out or Path("results") / experiment.name
    if output.dry_run:
        check(experiment, options)
        show_settings(experiment, out, device)
        show_plan(experiment, device)
        return 0

    def watch() -> AbstractContextManager[Watcher]:
        show_settings(experiment, out, device)
        return make_watcher()

    complete = conduct(experiment, out, options, watch)
    show_report(build(out), out)
    return 0 if complete else 1


def read(argv: Sequence[str]) -> tuple[Experiment, Output, str]:
    """The experiment that a command line asks for, where it goes and where it runs.

    Raises:
        ValueError: a flag that is wrong or contradicts another.
    """
    _refuse_empty_lists(argv)
    flags = parse(tyro.conf.OmitArgPrefixes[Flags], argv, "run")
    if flags.networks.experiment is None:
        variants, merged = expand(flags.networks.spec)
        base = Experiment(
            name=flags.output.name or _name(flags),
            variants=tuple(variants),
            merged=tuple(merged),
        )
    else:
        if flags.networks != Networks(experiment=flags.networks.experiment):
            message = "the file names the networks: drop the other flags that do"
            raise UserError(message, field="experiment")
        base = read_toml(flags.networks.experiment)
        # Parsed once more with the file's settings as defaults, so that given flags override them.
        flags = parse(tyro.conf.OmitArgPrefixes[Flags], argv, "run", default=_defaults(flags, base))
    experiment = replace(
        base,
        name=flags.output.name or base.name,
        data=flags.images.data,
        img_size=flags.images.img_size,
        seeds=flags.training.seeds,
        recipe=replace(base.recipe, **flags.training.recipe),
    )
    return experiment, flags.output, flags.training.device


def _refuse_empty_lists(argv: Sequence[str]) -> None:
    """``--variant`` without a letter means nothing, and surely not all letters."""
    lists = {f"--{f.name.replace('_', '-')}" for f in fields(Networks) if f.default == ()}
    for word, following in pairwise([*argv, "--"]):
        if word in lists and following.startswith("--"):
            raise UserError("missing a value", field=word.removeprefix("--"))


def _defaults(flags: Flags, base: Experiment) -> Flags:
    own: Mapping[str, Any] = {name: getattr(base.recipe, name) for name in flags.training.recipe}
    return Flags(
        images=Images(data=base.data, img_size=base.img_size),
        training=Training(seeds=base.seeds, **own),
    )


def _name(flags: Flags) -> str:
    """A folder name that says what the flags chose: ``digits_cifar29_D_preact``."""
    chosen = flags.networks
    depth = chosen.depth or (AXES["family"][chosen.family].default_depth,)
    axes = {name: "-".join(map(str, getattr(chosen, name))) for name in _LISTS if name != "depth"}
    parts = [
        flags.images.data,
        chosen.family + "-".join(map(str, depth)),
        "grid" if chosen.grid else "".join(chosen.variant),
        # What no other axis is called needs no name of its axis.
        *(
            text if name in ("stem", "stride", "shortcut", "order") else f"{name}-{text}"
            for name, text in axes.items()
            if text
        ),
        "preact" if chosen.preact else "",
    ]
    return slug("_".join(part for part in parts if part))


def main() -> int:
    """``python -m resnet_variants.run``."""
    return guard(lambda: command(sys.argv[1:]), "run")


callable_module(__name__, run_variants)
if __name__ == "__main__":
    sys.exit(main())
