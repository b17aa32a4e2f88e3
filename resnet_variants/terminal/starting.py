"""Ctrl-C while a command is still loading its libraries: one line, for there is nothing to save.

To import this is to begin with it, in a process that was started as a command of the package.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 130


def ready() -> None:
    """All is loaded: from now on Ctrl-C is Python's exception."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # so Python calls it until it has found the module
        following = [name for word, name in pairwise(sys.orig_argv) if word == "-m"]
        return following[:1] != [] and following[0].startswith("resnet_variants.")
    started = "--multiprocessing-fork" in sys.orig_argv  # by a command, which ends it
    return Path(program).name == "resnet-variants" and not started


def _leave(*_: object) -> NoReturn:
    # An exception could be lost in a library that is half loaded.
    os.write(2, b"resnet-variants: interrupted; the same command continues\n")
    os._exit(INTERRUPTED)


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
