"""The first module that a command loads: it answers Ctrl-C while libraries are being loaded.

Loading takes seconds and there is nothing to save yet, so the answer is one line.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 130


@functools.cache
def is_command() -> bool:
    """Whether this process was started as a command of the package, not by one."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # the name of the program until Python has found the module
        following = [name for word, name in pairwise(sys.orig_argv) if word == "-m"]
        return following[:1] != [] and following[0].partition(".")[0] == "resnet_variants"
    worker = "--multiprocessing-fork" in sys.orig_argv
    return Path(program).name == "resnet-variants" and not worker


def ready() -> None:
    """Everything is loaded: from now on Ctrl-C raises ``KeyboardInterrupt``."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> NoReturn:
    # A library that is half loaded could swallow an exception.
    os.write(2, b"resnet-variants: interrupted; the same command continues\n")
    os._exit(INTERRUPTED)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
