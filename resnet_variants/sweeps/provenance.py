"""Provenance of a result: code, libraries, machine and command."""

from __future__ import annotations

import functools
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from resnet_variants.registry import one_line

_PATIENCE = 30.0  # seconds that git may take
_PACKAGES = ("resnet_variants", "torch", "torchvision", "timm", "numpy", "scikit-learn")


@functools.cache
def origin() -> dict[str, object]:
    """Git commit and command line: this process knows them, its workers do not."""
    return {**_git(Path(__file__).parents[1]), "command": command()}


def machine_facts(device: torch.device) -> dict[str, object]:
    """Versions, device and threads of the process that computes."""
    return {
        "python": platform.python_version(),
        "versions": _versions(),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def command() -> str:
    """The command line of this process, without the path of the program."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else ""
    program = ["python", "-m", module] if spec else [Path(sys.argv[0]).name]
    return one_line(shlex.join([*program, *sys.argv[1:]]))


def device_name(device: torch.device) -> str:
    """The manufacturer's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def _git(folder: Path) -> dict[str, object]:
    """The checkout that holds ``folder``; ``None`` for an installed package or without git."""

    def ask(*words: str) -> str:
        return subprocess.run(  # fixed arguments, no shell
            ["git", "-C", str(folder), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        ).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # not merely inside a checkout
        return {"git_commit": ask("rev-parse", "HEAD"), "git_dirty": bool(ask("status", "-s", "."))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}
