"""How settings are declared and checked, and the settings that are no part of a recipe.

A setting is a field of a frozen dataclass. Its annotation says what is checked: the type, the
choices (``Literal``) and the ``Range``. The comment beside it is the help text of its flag: tyro
reads the same dataclasses. Nothing here needs torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeAlias,
    get_args,
    get_origin,
    get_type_hints,
)

from resnet_variants.registry import UserError, plain, refuse, sequence, shown


@dataclass(frozen=True)
class Range:
    """The numbers that a setting takes: ``low`` to ``high``.

    Attributes:
        closed: which of the two ends belong to the range.
        also: one more value that is taken, such as 0 or "auto".
        text: the range in words, where the numbers say it badly.
    """

    low: float
    high: float
    closed: Literal["both", "left", "right", "neither"] = "both"
    also: float | str | None = None
    text: str = ""

    def __contains__(self, value: float) -> bool:
        """Whether the range has the number; it never has NaN."""
        low = self.low <= value if self.closed in ("both", "left") else self.low < value
        high = value <= self.high if self.closed in ("both", "right") else value < self.high
        return (low and high) or value == self.also

    def __str__(self) -> str:
        """As a message says it after "must be"."""
        low = f"at least {self.low}" if self.closed == "left" else f"above {self.low}"
        words = f"{low} and below {self.high}"
        return self.text or (f"from {self.low} to {self.high}" if self.closed == "both" else words)


MILLION = 1_000_000
POSITIVE = Range(0, sys.float_info.max, closed="right", text="a positive number")
FINITE = Range(-sys.float_info.max, sys.float_info.max, text="a finite number")
Count: TypeAlias = Annotated[int, Range(1, MILLION)]
Fraction: TypeAlias = Annotated[float, Range(0, 1, closed="left")]
Amount: TypeAlias = Annotated[float, Range(0, MILLION, closed="left")]
# What the arguments of a network and a recipe share.
InitFan: TypeAlias = Literal["fan_out", "fan_in"]
Head: TypeAlias = Literal["linear", "bn_linear"]
# Fields of a recipe whose names were others before: run ids and older files have those.
FORMER_NAMES = {"drop_path_rate": "drop_path", "zero_init_last": "zero_init"}


# --- the check --------------------------------------------------------------------------------


def check_fields(settings: Any, *names: str) -> None:
    """Refuse a field of a dataclass whose value its annotation does not allow.

    A value that means an allowed one is replaced by it: NumPy's numbers by Python's, whole numbers
    of a real setting by real ones, a list by a tuple, text by a path.

    Args:
        settings: the frozen dataclass.
        names: its fields; all of them by default.

    Raises:
        UserError: names field, value and what is allowed.
    """
    for name, rule in rules_of(type(settings)).items():
        if not names or name in names:
            object.__setattr__(settings, name, rule.read(name, getattr(settings, name)))


@dataclass(frozen=True)
class Rule:
    """What a field's annotation allows."""

    kind: type[Any]
    choices: tuple[object, ...] = ()  # of a Literal; none: every value of the kind
    range: Range | None = None
    each: Rule | None = None  # for the values of a tuple

    def read(self, name: str, given: object) -> Any:
        """The value as the setting has it.

        Raises:
            UserError: it is not allowed.
        """
        value = _converted(self.kind, given)
        if value is None:
            if self.range and isinstance(self.range.also, str):  # a word in place of a number
                word = plain(given)
                if isinstance(word, str) and word == self.range.also:
                    return word
                self._refuse(name, given, str(self.range))
            self._refuse(name, given, f"of type {self.kind.__name__}")
        if self.choices and value not in self.choices:
            refuse(name, value, self.choices)
        if self.range and value not in self.range:
            self._refuse(name, value, str(self.range))
        if self.each:
            return tuple(self.each.read(name, part) for part in value)
        return float(value) if self.kind is float else value

    def _refuse(self, name: str, value: object, allowed: str) -> NoReturn:
        raise UserError(f"{name} {shown(value)} must be {allowed}", field=name)


@functools.cache
def rules_of(settings: type[Any]) -> dict[str, Rule]:
    """What a settings dataclass allows, by field."""
    hints = get_type_hints(settings, include_extras=True)
    found = {field.name: _rule(hints[field.name]) for field in fields(settings)}
    return {name: rule for name, rule in found.items() if rule}


def _rule(hint: Any) -> Rule | None:
    """The rule in an annotation; ``None`` where nothing can be checked, as in ``X | None``."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        union = get_args(args[0]) if get_origin(args[0]) is UnionType else ()
        if NoneType in union:
            return None
        inner = _rule(union[0] if union else args[0])  # int of ``int | str``
        numbers = next((mark for mark in args[1:] if isinstance(mark, Range)), None)
        return replace(inner, range=numbers) if inner and numbers else inner
    if origin is Literal:
        return Rule(type(args[0]), choices=args)
    if origin is tuple:
        return Rule(tuple, each=_rule(args[0]))
    return Rule(hint) if isinstance(hint, type) else None


def _converted(kind: type[Any], value: Any) -> Any:
    """A value as one of the kind; ``None`` where it means none."""
    if kind is tuple:
        parts = sequence(value)
        return None if parts is None else tuple(parts)
    if issubclass(kind, Path):
        return Path(value) if isinstance(value, str | os.PathLike) else None
    value = value if type(value) is kind else plain(value)
    allowed = (int, float) if kind is float else (kind,)
    return value if type(value) in allowed else None


# --- how a run is computed --------------------------------------------------------------------

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]  # mps: Apple's GPU, not taken by auto
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a run is computed: recorded with the run, no part of its id.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """

    device: Device = "auto"  # auto: the GPU where there is one
    devices: Annotated[int, Range(1, 1024)] = (
        1  # processes that share each batch, a GPU or cores each
    )
    compile: bool = False  # train through torch.compile
    # seeds of an arm that a GPU trains at a time as one network
    fuse_seeds: Annotated[int, Range(1, 256)] = 1
    # seconds between two checkpoints of a run
    checkpoint_seconds: Annotated[float, Range(0, math.inf, text="a number from 0")] = 60.0
    every_steps: Annotated[int, Range(0, 10**9)] = 0  # steps between two records; 0: of epochs only
    snapshots: bool = False  # keep the weights after epochs 1, 2, 4, 8, ...

    def __post_init__(self) -> None:
        check_fields(self)
        if self.fuse_seeds > 1 and (self.compile or self.devices > 1):
            message = "fuse_seeds cannot be with compile, nor with several devices: leave one out"
            raise UserError(message, field="fuse_seeds")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many runs are executed at a time, and by what; no part of a run's id.

    Raises:
        ValueError: an unknown engine or a number out of range.
    """

    # local: processes of this machine; ray: a cluster; inline: this process, one run after another
    engine: Literal["local", "ray", "inline"] = "inline"
    # runs at a time; 0: one per core or GPU, or the number that fits into the cluster
    jobs: Annotated[int, Range(0, 4096)] = 0
    # threads of each run; 0: its share of the cores, 1 in a cluster
    cpus_per_run: Annotated[int, Range(0, 1024)] = 0
    # GPUs of each run in a cluster, such as 0.25; 0: one where there are any
    gpus_per_run: Annotated[float, Range(0, 64)] = 0.0
    # HOST:PORT of a running cluster; if empty, a cluster is started for the command
    ray_address: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.gpus_per_run > 1 and self.gpus_per_run % 1:
            message = f"gpus_per_run {self.gpus_per_run} must be a whole number, or less than 1"
            raise UserError(message, field="gpus_per_run")
        for name in ("gpus_per_run", "ray_address"):
            if getattr(self, name) and self.engine != "ray":
                raise UserError(f"{name} is for --engine ray", field=name)


# --- images and runs --------------------------------------------------------------------------

Side: TypeAlias = Annotated[int, Range(4, 1024, also=0, text="from 4 to 1024, or 0: as they are")]
Seeds: TypeAlias = Annotated[
    int, Range(1, 10_000, also=0, text="from 1 to 10000, or 0: as many as a verdict takes")
]
Sink: TypeAlias = Literal["tensorboard", "wandb", "trackio"]  # of each epoch's numbers
EndpointName: TypeAlias = Literal["test_acc", "test_loss", "val_acc", "train_loss"]
Compared: TypeAlias = Literal["baseline", "all"]  # all: every pair of arms too
MOST_RUNS = 10_000
# Defaults that commands, experiments and models share.
DATA, SIDE, SEEDS, CHANNELS = "digits", 0, 0, 3


def check_margin(margin: object) -> None:
    """Refuse a smallest difference that matters, in points, that is none.

    Raises:
        ValueError: no number above 0 and below 100, and not None.
    """
    value = plain(margin)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if margin is not None and not (is_number and 0 < value < 100):
        message = f"margin {shown(margin)} must be a number of points above 0 and below 100"
        raise UserError(f"{message}, such as 0.2", field="margin")


_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of_budget(text: str) -> float:
    """The seconds of a time such as 90m, 10h, 2.5h or 1d.

    Raises:
        ValueError: no number above 0 with its unit.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)([mhd])", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= 86_400 * MILLION:
        message = f"budget {shown(text)} must be a number above 0 and its unit"
        raise UserError(f"{message}, such as 90m, 10h, 2.5h or 1d", field="budget")
    return seconds


def require_few(runs: int, *, many: bool) -> None:
    """Refuse more runs than anybody types by intention, unless the command says ``--yes``.

    Raises:
        ValueError: more than ``MOST_RUNS``, and not ``many``.
    """
    if runs > MOST_RUNS and not many:
        raise UserError(f"{runs:,} runs: give --yes if they are meant")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How images are read; no part of a run's id.

    Raises:
        ValueError: an unknown choice or a number out of range.
    """

    data_dir: Path = Path("data")  # folder of downloads
    on_bad_image: Literal["error", "skip"] = "error"  # skip: leave a broken training image out
    # decoded images of folders are kept in ~/.cache/resnet_variants for the next command; clear:
    # first delete all that is there
    image_cache: Literal["on", "off", "clear"] = "on"
    # processes that decode images which do not fit into memory; auto: one per core; 0: none, the
    # training process decodes them
    workers: Annotated[int | str, Range(0, 1024, also="auto", text="from 0 to 1024, or auto")] = (
        "auto"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def decoders(self, cores: int) -> int:
        """Number of decoding processes for a training process with this number of cores."""
        return cores if self.workers == "auto" else int(self.workers)


# --- diagnosis --------------------------------------------------------------------------------

MOST_MAPPED = 16  # images whose class maps a figure shows


@dataclass(frozen=True, kw_only=True)
class Study:
    """How a trained run is diagnosed, on images of its validation split.

    Raises:
        ValueError: a number out of range.
    """

    images: Annotated[int, Range(2, MILLION)] = 1000  # drawn at random; all where there are fewer
    # images for gradients, paths, distances and growth; 0: 100, or all there are
    batch_size: Annotated[int, Range(2, MILLION, also=0, text=f"from 2 to {MILLION}, or 0")] = 0
    draws: Count = 2  # random deletions and orders of each size
    paths: Count = 8  # paths of each length that are followed
    # places in the validation split, from 0, of the images whose class maps are drawn; without any,
    # the first image of each of four classes
    map_images: tuple[Annotated[int, Range(0, MILLION)], ...] = ()
    seed: int = 0  # which images; and which draws, others for each seed of a training
    device: Device = Machine.device  # auto: the GPU where there is one
    data: str = ""  # SPEC of the run's images if they were moved; empty: as the run names them
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.batch_size > self.images:
            message = f"batch_size {self.batch_size} exceeds the {self.images} images"
            raise UserError(message, field="batch_size")
        object.__setattr__(self, "map_images", tuple(dict.fromkeys(self.map_images)))
        if len(self.map_images) > MOST_MAPPED:
            message = f"map_images names {len(self.map_images)} images: a figure has room for"
            raise UserError(f"{message} {MOST_MAPPED}", field="map_images")

    def fitted(self, available: int) -> Study:
        """The same study for a number of validation images.

        Raises:
            ValueError: fewer images than the batch size that was asked for, or than two; or a place
                of ``map_images`` beyond the last one.
        """
        beyond = [place for place in self.map_images if place >= available]
        if beyond:
            message = f"map_images {beyond[0]} must be below {available}, the number of validation"
            raise UserError(f"{message} images", field="map_images")
        if available < max(2, self.batch_size):
            size = max(2, self.batch_size)
            message = f"batch_size {size} exceeds the {available} validation images"
            raise UserError(message, field="batch_size")
        return replace(self, batch_size=self.batch_size or min(100, self.images, available))
