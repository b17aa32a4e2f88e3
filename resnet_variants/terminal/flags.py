"""Flags that several verbs share, as frozen dataclasses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import tyro

from resnet_variants.data.dataset import AUTO, ON_BAD_IMAGE, Loading
from resnet_variants.data.sources import SPECS
from resnet_variants.diagnosis.study import Study
from resnet_variants.models.catalogue import as_variant, list_aliases, list_models
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import FULL_GRID
from resnet_variants.models.variant import AXES, Axis, Variant
from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines.base import ENGINES, Workers
from resnet_variants.sweeps.experiment import Experiment
from resnet_variants.sweeps.sinks import SINKS
from resnet_variants.training.device import DEVICES, Machine

Words: TypeAlias = tuple[str, ...]
Numbers: TypeAlias = tuple[int, ...]
Switch: TypeAlias = tyro.conf.FlagCreatePairsOff[bool]


def _choice(text: str, choices: Iterable[object]) -> Any:
    return tyro.conf.arg(help=f"{text}: {', '.join(map(str, choices))}")


def _axis(about: Axis) -> Any:
    if not about.is_text:
        return Annotated[Numbers, tyro.conf.arg(help=about.meaning)]
    text = f"{about.meaning}: {', '.join(about.choices or ())}"
    return Annotated[Words, tyro.conf.arg(help=text, metavar="NAME ...")]


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
    family: Annotated[str, _choice(AXES["family"].meaning, FAMILIES)] = "cifar"


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
    """The registered names that a wildcard stands for; any other word alone."""
    if not re.search(r"[*?\[]", word):
        return [word]
    found = [*list_models(word), *list_aliases(word)]
    if not found:
        message = f"no registered model matches {word!r}; `list` shows them"
        raise UserError(message, field="variant")
    return found


def _named(name: str) -> Variant:
    try:
        return as_variant("variant", name)
    except UserError as error:
        raise UserError(str(error), field="variant") from error


@dataclass(frozen=True)
class Images:
    """The test split is read once, at the end of a run."""

    data: Annotated[str, _choice("data set", SPECS)] = Experiment.data
    data_dir: Annotated[Path, tyro.conf.arg(help="where downloads are and go", metavar="DIR")] = (
        Loading.data_dir
    )
    img_size: Annotated[int, tyro.conf.arg(help="resize to this side in pixels, 0: do not")] = (
        Experiment.img_size
    )
    on_bad_image: Annotated[str, _choice("a broken training image", ON_BAD_IMAGE)] = (
        Loading.on_bad_image
    )
    workers: Annotated[
        str,
        tyro.conf.arg(
            help="processes that decode what memory cannot hold; auto: one per core; 0: none, the "
            "one that trains does",
            metavar="N",
        ),
    ] = AUTO

    @property
    def loading(self) -> Loading:
        """How the images are got at."""
        workers: Any = self.workers
        with contextlib.suppress(ValueError):  # what is no number is told by `Loading`
            workers = int(workers)
        return Loading(data_dir=self.data_dir, on_bad_image=self.on_bad_image, workers=workers)


@dataclass(frozen=True)
class Sampling:
    """What trained networks are diagnosed on: images of the validation split."""

    images: Annotated[int, tyro.conf.arg(help="drawn at random; all where there are fewer")] = (
        Study.images
    )
    batch_size: Annotated[
        int, tyro.conf.arg(help="for gradients, paths and so on; 0: 100, or all there are")
    ] = Study.batch_size
    draws: Annotated[int, tyro.conf.arg(help="random deletions and orders of each size")] = (
        Study.draws
    )
    paths: Annotated[int, tyro.conf.arg(help="paths of each length that are followed")] = (
        Study.paths
    )
    seed: Annotated[int, tyro.conf.arg(help="which images and draws")] = Study.seed
    device: Annotated[str, _choice("where", DEVICES)] = Study.device
    data: Annotated[str, tyro.conf.arg(help="where the run's images are now, if moved")] = (
        Study.data
    )
    data_dir: Annotated[Path, tyro.conf.arg(help="where downloads are", metavar="DIR")] = (
        Loading.data_dir
    )

    @property
    def settings(self) -> dict[str, Any]:
        """As ``Study`` takes it."""
        settings = dict(vars(self))
        return settings | {"loading": Loading(data_dir=settings.pop("data_dir"))}


@dataclass(frozen=True)
class Hardware:
    """Where and how: recorded with a run, no part of its id."""

    device: Annotated[str, _choice("where", DEVICES)] = Machine.device
    devices: Annotated[
        int, tyro.conf.arg(help="processes that share each batch, a GPU or cores each")
    ] = Machine.devices
    compile: Annotated[Switch, tyro.conf.arg(help="train through torch.compile")] = Machine.compile
    checkpoint_seconds: Annotated[float, tyro.conf.arg(help="between two checkpoints of a run")] = (
        Machine.checkpoint_seconds
    )
    snapshots: Annotated[
        Switch, tyro.conf.arg(help="keep the weights after epochs 1, 2, 4, 8, ...")
    ] = Machine.snapshots

    @property
    def machine(self) -> Machine:
        """As the training takes it."""
        return Machine(**vars(self))


@dataclass(frozen=True)
class Sharing:
    """How many runs at a time, and by what: no part of a run's id."""

    engine: Annotated[str, _choice("what carries the runs out", ENGINES)] = "local"
    jobs: Annotated[
        int, tyro.conf.arg(help="runs at a time, 0: one per core or GPU, or what a cluster takes")
    ] = Workers.jobs
    cpus_per_run: Annotated[
        int, tyro.conf.arg(help="threads of each run, 0: its share of the cores, 1 in a cluster")
    ] = Workers.cpus_per_run
    gpus_per_run: Annotated[
        float, tyro.conf.arg(help="of a cluster, such as 0.25; 0: one where there are any")
    ] = Workers.gpus_per_run
    ray_address: Annotated[
        str,
        tyro.conf.arg(help="of a running cluster; one is started if empty", metavar="HOST:PORT"),
    ] = Workers.ray_address
    log: Annotated[Words, _choice("send each epoch's numbers to", SINKS)] = ()

    @property
    def workers(self) -> Workers:
        """As the engines take it."""
        return Workers(**{name: value for name, value in vars(self).items() if name != "log"})
