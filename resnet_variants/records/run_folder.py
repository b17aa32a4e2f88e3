"""The directory of one run: its files during the training, and its result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, cast

from resnet_variants.records.diagnosis import TABLES
from resnet_variants.records.files import (
    TEMPORARY,
    Json,
    damaged,
    finite,
    locked,
    read_json,
    readable,
    short,
    to_json,
    write_atomically,
    writing,
)
from resnet_variants.records.schema import MEASURED_WHEN_DONE, RESULT, RUNS, check_record
from resnet_variants.registry import UserError
from resnet_variants.settings import FORMER_NAMES

DONE, FAILED, DIVERGED = "done", "failed", "diverged"
_RESULT = [column for column in RUNS if column.file == RESULT]
_RESULT_WHEN_DONE = [
    dataclasses.replace(column, optional=False) if column.name in MEASURED_WHEN_DONE else column
    for column in _RESULT
]

# Keys of run.json that may differ when a run is continued. A newer library or another folder makes
# no other run. ``compile`` stays as it was. The mean and the deviation of decoded images differ in
# their last digits from machine to machine.
_MAY_DIFFER = ("provenance", "compile", "mean", "std")

PLUGINS, PLUGIN = "plugins", "plugin"  # a key of run.json, and how its facts begin

_FORMER_CHECKPOINT = "checkpoint.safetensors"  # in a format that is no longer read
# Files and folders in a run's directory, besides those of a diagnosis.
_OURS = (
    *("run.json", "epochs.jsonl", "steps.jsonl", "result.json", "log.txt", "checkpoint.pt"),
    *("model.safetensors", "config.json", "README.md", "predictions.safetensors", "manifest.json"),
    *("snapshots", "tensorboard", "wandb", _FORMER_CHECKPOINT),
)
_SAFETENSORS = ".tmp??????"  # the library writes weights to such a file first


def is_ours(name: str) -> bool:
    """Whether this package writes files or folders of this name to a run's directory."""
    stem, _, suffix = name.partition(".")
    diagnosed = stem in TABLES and suffix in ("csv", "png", "svg")
    return diagnosed or name in _OURS or name.endswith(TEMPORARY) or fnmatch(name, _SAFETENSORS)


@dataclass(frozen=True)
class RunFolder:
    """The directory of one run."""

    path: Path

    # --- the lock -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def claim(self, seconds: float = 0.0) -> Iterator[bool]:
        """Hold the run's lock within the block; ``False`` where another process holds it.

        Args:
            seconds: how long to wait for another process.

        Raises:
            ValueError: the folder cannot be written.
        """
        with writing(self.path):
            self._lock.parent.mkdir(exist_ok=True)  # only ``runs``: the results folder must exist
        with locked(self._lock, seconds, owner=self.path) as mine:
            yield mine

    @property
    def claimed(self) -> bool:
        """Whether a process holds the run's lock at this moment."""
        if not self._lock.exists():
            return False
        with self.claim() as free:
            return not free

    @property
    def _lock(self) -> Path:
        # Outside the folder, which may be deleted.
        return self.path.parent / f".{self.path.name}.lock"

    # --- during the training ------------------------------------------------------------------

    def start(self, config: Mapping[str, object]) -> None:
        """Start the run, or prepare to continue it if it has a checkpoint.

        Raises:
            ValueError: the run in this folder was started with another configuration.
        """
        file, before = self.path / "run.json", self.unfinished()
        if before:
            self._refuse_other(before, cast(Json, json.loads(to_json(config))))
            for part in self.path.glob(_SAFETENSORS):
                part.unlink()
            now = {name: config.get(name) for name in ("provenance", "compile")}
            self.log(f"continued: {json.dumps(finite(now))}")
            for name in ("epochs.jsonl", "steps.jsonl"):  # the checkpoint holds their lines too
                (self.path / name).unlink(missing_ok=True)
            self.predictions.unlink(missing_ok=True)
            return
        former = (self.path / _FORMER_CHECKPOINT).is_file()
        self.remove()
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(file, to_json(config))
        if former:
            line = "starts over: its checkpoint has a format that is no longer read"
            self.log(line)
            logging.getLogger(__name__).warning("%s %s", self.path.name, line)

    def refuse_other_images(self, facts: Mapping[str, object]) -> None:
        """Refuse a finished run that was trained on other images of the same name.

        Raises:
            ValueError: its record and ``facts`` differ in the split or in the content.
        """
        before = self.config()
        for key in ("split_hash", "data_hash"):
            if key in before and before[key] != facts[key]:
                message = f"{self.path} was trained on other images ({key} {before[key]}, now"
                raise UserError(f"{message} {facts[key]}): take another --out, or give --fresh")

    def refuse_other_plugins(self, plugins: Mapping[str, str]) -> None:
        """Refuse a run that was made with another version of a plugin.

        Args:
            plugins: the SHA-256 of each by its name.

        Raises:
            ValueError: names run, plugin and both versions.
        """
        for name, before in _mapping(self.config().get(PLUGINS)).items():
            now = plugins.get(name, before)
            if now != before:
                message = f"{self.path} was made with another plugin {name!r} (SHA-256"
                message = f"{message} {str(before)[:12]}, now {str(now)[:12]}): take another --out"
                raise UserError(f"{message}, or give --fresh for all its runs", field="plugin")

    def _refuse_other(self, before: Json, now: Json) -> None:
        for key in {**before, **now}:
            was, new = before.get(key), now.get(key)
            if isinstance(was, dict) and isinstance(new, dict):
                # A setting that the record lacks had its default: else the run's id would differ.
                was, new = ({k: d.get(k) for k in was if was[k] != new.get(k)} for d in (was, new))
            if key not in _MAY_DIFFER and was != new:
                change = f"{key} was {short(was)}, is now {short(new)}"
                message = f"{self.path} was started with other settings ({change})"
                raise UserError(f"{message}: give --fresh or another --out")

    def config(self) -> Json:
        """The content of ``run.json``; the fields of the recipe have their present names.

        Raises:
            FileNotFoundError: the run has not started.
            ValueError: the file is damaged.
        """
        config = read_json(self.path / "run.json")
        recipe = config.get("recipe")
        if isinstance(recipe, dict):
            config["recipe"] = {_present(name): value for name, value in recipe.items()}
        return config

    def unfinished(self) -> Json:
        """The configuration of an interrupted run with a checkpoint; else empty."""
        started = (self.path / "run.json").is_file()
        return self.config() if started and self.checkpoint.is_file() else {}

    @property
    def compiled(self) -> bool:
        """Whether the run was started with ``torch.compile``."""
        how = cast("Json", self.config().get("compile", {}))
        return bool(how.get("used"))

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of an unfinished training."""
        return self.path / "checkpoint.pt"

    @property
    def predictions(self) -> Path:
        """The logits of each test and validation image: see ``records.predictions``."""
        return self.path / "predictions.safetensors"

    def snapshot(self, epoch: int) -> Path:
        """The weights after an epoch, kept for ``diagnose``."""
        return self.path / "snapshots" / f"epoch_{epoch:06d}.safetensors"

    @property
    def snapshots(self) -> list[tuple[int, Path]]:
        """The epochs with a snapshot, in order, and the files."""
        files = sorted(self.snapshot(0).parent.glob("epoch_*.safetensors"))
        return [(int(file.stem.removeprefix("epoch_")), file) for file in files]

    def remove(self) -> None:
        """Delete the run. Entries of its directory with other names than ours are kept.

        Raises:
            ValueError: there is a file in place of the directory.
        """
        self._require_folder()
        if not self.path.is_dir():
            return
        self.reopen()  # first: a half deleted run must not count as finished
        for entry in filter(lambda entry: is_ours(entry.name), self.path.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not self.path.is_symlink() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _require_folder(self) -> None:
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            raise UserError(f"{str(self.path)!r} is no folder: move it elsewhere")

    def append(self, name: Literal["epochs", "steps"], record: Mapping[str, object]) -> None:
        """Add one line to ``epochs.jsonl`` or ``steps.jsonl``."""
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(record), allow_nan=False) + "\n")

    def log(self, text: str) -> None:
        """Add a line to ``log.txt``."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        """Within the block, write the output of this process and its children to ``log.txt``."""
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(number) for number in (1, 2)]
        with (self.path / "log.txt").open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        try:
            yield
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)

    # --- the result ---------------------------------------------------------------------------

    def finish(self, result: Mapping[str, object]) -> None:
        """Write the result. From now on the run counts as done, failed or diverged."""
        write_atomically(self.path / "result.json", to_json(result))
        if result["status"] == DONE:  # a failed run may be continued
            self.checkpoint.unlink(missing_ok=True)

    def reopen(self) -> None:
        """Delete the result: the run is continued from its checkpoint, if it has one."""
        if self.path.is_dir():
            (self.path / "result.json").unlink(missing_ok=True)

    def result(self) -> Json | None:
        """The result, or ``None`` if the run is not finished.

        Raises:
            ValueError: the result is damaged, or there is a file in place of the directory.
        """
        file = self.path / "result.json"
        try:
            with readable(file):
                if not (self.path / "run.json").exists():
                    self._require_folder()
                    return None
            result = read_json(file)
        except FileNotFoundError:
            return None
        if result.get("status") not in (DONE, FAILED, DIVERGED):
            raise damaged(file, "no status")
        check_record(file, result, _RESULT_WHEN_DONE if result["status"] == DONE else _RESULT)
        return result


# --- the origin of its numbers ----------------------------------------------------------------

_PRESENT_NAMES = {former: now for now, former in FORMER_NAMES.items()}
Provenance = dict[str, list[str]]  # fact -> its distinct values, in order of appearance


def note_provenance(provenance: Provenance, config: Json) -> None:
    """Add the machine, the software and the settings of a run, from its configuration."""
    origin = _mapping(config.get("provenance"))
    versions = _mapping(origin.get("versions"))
    facts: Json = {"command": origin.get("command"), "device": origin.get("device_name")}
    facts |= {"threads": origin.get("threads"), "git commit": origin.get("git_commit")}
    if origin.get("git_commit") and origin.get("git_dirty"):
        facts["git commit"] = f"{origin['git_commit']} with changes"
    facts |= {"Python": origin.get("python"), **versions}
    facts |= {f"{PLUGIN} {name}": sha for name, sha in _mapping(config.get(PLUGINS)).items()}
    facts["split"], facts["images"] = config.get("split_hash"), config.get("data_hash")
    recipe = _mapping(config.get("recipe"))
    if recipe:
        settings = ", ".join(f"{name} {value}" for name, value in recipe.items())
        facts[recipe_label(recipe_digest(str(config["run_id"])))] = settings
    for name, value in facts.items():
        values = provenance.setdefault(name, [])
        if value is not None and str(value) not in values:
            values.append(str(value))


def recorded_data(config: Json) -> str:
    """The SPEC of a run's images, from its configuration; from their id in an old one."""
    spec = _mapping(config.get("provenance")).get("data")
    return str(spec or re.sub(r"-\d+px$", "", str(config["dataset"])))


def recipe_settings(provenance: Provenance, digest: str) -> dict[str, str]:
    """The settings of a recipe as text, by today's names; empty where they are not recorded."""
    text = next(iter(provenance.get(recipe_label(digest), ())), "")
    pairs = (part.partition(" ") for part in re.split(r", (?=[a-z_]+ )", text) if part)
    return {_present(name): value for name, _, value in pairs}


def _present(name: str) -> str:
    """The name that a field of a recipe has now."""
    return _PRESENT_NAMES.get(name, name)


def recipe_label(digest: str) -> str:
    """The name of a recipe's settings in a ``Provenance``."""
    return f"recipe {digest}"


def _mapping(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}


def recipe_digest(run_id: str) -> str:
    """The part of a run's id that encodes its differences from the default recipe."""
    return run_id.rsplit("__", 2)[1]
