"""The TOML file of an experiment: where it is, and whether its keys are known.

Nothing here needs torch, so a wrong name or key is refused at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_variants.records.files import read_text
from resnet_variants.registry import UserError, refuse

_KEYS = (
    *("question", "expect", "data", "data_name", "img_size", "seeds"),
    *("baseline", "robust", "tune", "margin", "endpoint", "compare", "plugin", "grid", "recipe"),
)
PACKAGED = Path(__file__).parents[1] / "experiments"


def experiment_file(name_or_path: str) -> Path:
    """The TOML file of an experiment: a path, or the name of one that the package brings along.

    A word without a folder and without a suffix such as ``.toml`` is a name.

    Raises:
        UserError: an unknown name; the message lists the packaged experiments.
    """
    path = Path(name_or_path)
    if path.name != name_or_path or path.suffix:
        return path
    packaged = {file.stem: file for file in sorted(PACKAGED.glob("*.toml"))}
    if name_or_path not in packaged:
        refuse("experiment", name_or_path, packaged)
    return packaged[name_or_path]


def read_question(path: Path) -> dict[str, Any]:
    """The content of a TOML file, with no other keys than an experiment's.

    Raises:
        ValueError: no such file, not TOML, or an unknown key.
    """
    try:
        content = tomllib.loads(read_text(path).removeprefix("\ufeff"))
    except OSError as error:
        message = f"cannot read {str(path)!r}: {error.strerror}"
        raise UserError(message, field="experiment") from error
    except (ValueError, RecursionError) as error:
        message = f"{str(path)!r} is not valid TOML: {error}"
        raise UserError(message, field="experiment") from error
    try:
        check_keys(content, _KEYS, "key")
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}", field="experiment") from error
    return content


def check_keys(content: Mapping[str, object], known: Sequence[str], kind: str) -> None:
    """Refuse a key that is not among the ``known`` ones."""
    for key in content:
        if key not in known:
            refuse(kind, key, known)
