"""``python -m resnet_variants.predict RUN IMAGE...``: the classes that a trained network sees."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnet_variants.data.specs import is_spec, specs
from resnet_variants.registry import UserError, number_of, one_line, refuse
from resnet_variants.settings import Count, Device, Loading, Machine, check_fields
from resnet_variants.terminal.cli import Plugins, guard, parse, positional, say, warn
from resnet_variants.terminal.starting import ready

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from resnet_variants.data.sources import Pictures


@dataclass(frozen=True)
class Flags:
    """Classes and probabilities of pictures by a finished run, which prepares them as its own.

    A picture that cannot be decoded is named on standard error, and the exit status is 1.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, such as results/NAME/runs/RUN_ID; with --ensemble a results folder."""
    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE ...")
    ] = ()
    """Picture files and folders of them, or one SPEC (digits, folder:PATH): its test split."""
    top: Count = 3  # most probable classes of each picture; all where there are fewer
    format: Literal["table", "csv", "jsonl"] = "table"
    """On standard output, for a pipe or `> FILE`; jsonl keeps every letter of a file's name."""
    ensemble: tyro.conf.FlagCreatePairsOff[bool] = False
    """Mean probabilities over the finished seeds of one arm."""
    arm: str = ""  # label or name of that arm; needed where there are several
    device: Device = Machine.device
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Loading.data_dir
    plugin: Plugins = ()

    def __post_init__(self) -> None:
        check_fields(self, "top")
        if self.arm and not self.ensemble:
            raise UserError("it is for --ensemble", field="arm")


def command(argv: Sequence[str]) -> int:
    """Carry out the verb: 1 when a picture could not be decoded."""
    flags = parse(Flags, argv, "predict")
    if not flags.images:
        raise UserError("missing IMAGE: name pictures, folders of pictures or a SPEC")
    from resnet_variants.sweeps.finished import load_run, predicted

    ready()
    if not flags.ensemble and (flags.run / "runs").is_dir():
        message = f"{str(flags.run)!r} is a results folder"
        raise UserError(f"{message}: name one of its runs, or give --ensemble")
    folders = _seeds(flags.run, flags.arm) if flags.ensemble else [flags.run]
    runs = [load_run(folder, device=flags.device) for folder in folders]
    with positional("data"):
        source, index = _pictures(flags, runs[0].transform.in_chans)
    read = faults = 0
    for names, probabilities, broken in predicted(runs, source, index):
        for line in broken:
            warn(line)
        if names:
            rows = _rows(names, probabilities, runs[0].classes, flags.top)
            say(_text(rows, flags.format, header=not read))
        read, faults = read + len(names), faults + len(broken)
    if not read and any(Path(word).is_dir() for word in flags.images):
        raise UserError(f"{number_of(faults, 'picture')}, and none can be read")
    return 1 if faults else 0


def _seeds(out: Path, arm: str) -> list[Path]:
    """The finished runs of an arm, by its label or name; if that is empty, of the only one."""
    from resnet_variants.analysis.results import load_results

    results = load_results([out])
    chosen = results.finished_arms(arm)
    every = chosen or results.finished_arms()
    labels = [*dict.fromkeys(part.labels[name] for part, name in every)]
    if not labels:
        raise UserError(f"{str(out)!r} holds no finished run")
    if not chosen:
        refuse("arm", arm, labels)
    if len(labels) > 1:
        raise UserError(f"{str(out)!r} has several: give one of {', '.join(labels)}", field="arm")
    if len(chosen) > 1:
        message = f"{labels[0]} was trained under several conditions, which are not mixed"
        raise UserError(f"{message}: name a run instead", field="arm")
    ((part, name),) = chosen
    own = part.done[part.done["model"] == name].sort_values("seed")
    seeds = ", ".join(map(str, own["seed"]))
    warn(f"mean over {number_of(len(own), 'seed')} of {labels[0]}: {seeds}")
    return [out / "runs" / str(run_id) for run_id in own["run_id"]]


def _pictures(flags: Flags, in_chans: int) -> tuple[Pictures, np.ndarray]:
    """The pictures that the words name, and the numbers of those to predict."""
    import numpy as np

    from resnet_variants.data.dataset import split_indices
    from resnet_variants.data.sources import Unlabelled, open_source

    spec = next(filter(is_spec, flags.images), "")
    if not spec:
        files = [file for word in flags.images for file in _files(word)]
        return Unlabelled(files, in_chans), np.arange(len(files))
    if len(flags.images) > 1:
        raise UserError(f"the SPEC {spec} is given alone: drop it, or the other words")
    source = open_source(spec, flags.data_dir)
    if source.in_chans != in_chans:
        message = f"{spec} has pictures of {source.in_chans} channels, and this network takes"
        raise UserError(f"{message} {in_chans}")
    return source, split_indices(source)["test"]


def _files(word: str) -> list[Path]:
    """The file that a word names, or the pictures below the folder."""
    from resnet_variants.data.folders import none_in, pictures_below

    path, left = Path(word), Counter()
    try:
        os.lstat(word)  # a link to nothing is a broken picture
    except (OSError, ValueError) as error:
        message = f"{word!r} is no SPEC ({', '.join(specs())}), and no file or folder"
        raise UserError(f"{message}: {getattr(error, 'strerror', error)}") from error
    if not path.is_dir():
        return [path]
    found = [Path(picture) for picture in pictures_below(path, left)]
    if not found:
        raise UserError(none_in(path, left))
    return found


def _rows(
    names: Sequence[str], probabilities: Tensor, classes: Sequence[str], top: int
) -> pd.DataFrame:
    """``file, class, probability, class_2, probability_2`` and so on."""
    import pandas as pd

    # Of equal probabilities the first class counts, as in evaluation.
    shares, order = probabilities.sort(dim=1, descending=True, stable=True)
    columns: dict[str, Sequence[object]] = {"file": names}
    for at in range(min(top, len(classes))):
        end = f"_{at + 1}" if at else ""
        columns[f"class{end}"] = [classes[number] for number in order[:, at].tolist()]
        columns[f"probability{end}"] = shares[:, at].tolist()
    return pd.DataFrame(columns)


def _text(rows: pd.DataFrame, style: str, *, header: bool) -> str:
    if style == "jsonl":
        return "\n".join(map(json.dumps, rows.to_dict("records")))
    if style == "csv":
        return rows.to_csv(index=False, header=header).removesuffix("\n")
    cells = rows.map(lambda cell: f"{cell:.4f}" if isinstance(cell, float) else one_line(cell))
    return cells.to_markdown(index=False, tablefmt="plain", disable_numparse=True)


def main() -> int:
    """``python -m resnet_variants.predict``."""
    return guard(lambda: command(sys.argv[1:]), "predict")


if __name__ == "__main__":
    sys.exit(main())
