"""The names of data sets, as ``--data`` takes them; nothing is opened here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resnet_variants.registry import Registry, UserError, refuse, require_name

if TYPE_CHECKING:  # commands read these names before they load torch
    from resnet_variants.data.sources import Source


class Published(NamedTuple):
    """A data set of torchvision's."""

    kind: str  # its class
    mirror: bool  # whether a mirrored image keeps its label
    splits: tuple[Mapping[str, Any], ...]  # arguments that choose train and test


_BY_FLAG: tuple[Mapping[str, Any], ...] = ({"train": True}, {"train": False})
_BY_NAME: tuple[Mapping[str, Any], ...] = ({"split": "train"}, {"split": "test"})
TORCHVISION: Mapping[str, Published] = {
    "mnist": Published("MNIST", mirror=False, splits=_BY_FLAG),
    "fashion-mnist": Published("FashionMNIST", mirror=True, splits=_BY_FLAG),
    "cifar10": Published("CIFAR10", mirror=True, splits=_BY_FLAG),
    "cifar100": Published("CIFAR100", mirror=True, splits=_BY_FLAG),
    "svhn": Published("SVHN", mirror=False, splits=_BY_NAME),
}
NAMES = ("digits", *TORCHVISION)
PREFIXES = {"folder": "folder:PATH", "timm": "timm:NAME"}


def _built_in(name: str, root: Path) -> Source:
    from resnet_variants.data.sources import BUILT_IN

    return BUILT_IN[name](root)


# An entry opens the pictures of a data set; the folder is that of downloads.
DATASETS: Registry[Callable[[Path], Source]] = Registry(
    "data", **{name: functools.partial(_built_in, name) for name in NAMES}
)


def specs() -> list[str]:
    """The forms of a SPEC."""
    return [*DATASETS, *PREFIXES.values()]


def is_spec(text: str) -> bool:
    """Whether a text is the name of a data set, or a known prefix with something after it."""
    prefix, colon, rest = text.partition(":")
    return text in DATASETS or bool(colon and rest and prefix in PREFIXES)


def may_download(spec: str) -> bool:
    """Whether opening it may fetch files from the network."""
    return spec in TORCHVISION or spec.startswith("timm:")


def check_spec(spec: str) -> None:
    """Refuse a SPEC that names nothing; whether the images are there is not looked at.

    Raises:
        ValueError: neither a name nor a known prefix with something after it.
    """
    require_name(spec, field="data")
    if not is_spec(spec):
        if spec and Path(spec).is_dir():
            raise UserError(f"{spec!r} is a folder: give folder:{spec}", field="data")
        refuse("data", spec, specs())


def require_folder(spec: str) -> None:
    """Refuse a SPEC of a folder that is not there.

    Raises:
        ValueError: it is not there, or it is a file.
    """
    prefix, _, path = spec.partition(":")
    if prefix == "folder" and not Path(path).is_dir():
        about = "is a file" if Path(path).exists() else "does not exist"
        raise UserError(f"the folder {path!r} {about}", field="data")
