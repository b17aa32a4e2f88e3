"""Stopping in good order: SIGINT and SIGTERM let the step at hand end and its state be saved."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 128 + signal.SIGTERM


class Stop:
    """Whether somebody asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.forward: Callable[[int], object] = lambda _: None  # to processes waited for

    def __call__(self) -> bool:
        """Whether to stop after this step."""
        return self.signal is not None

    def leave(self) -> NoReturn:
        """End as the signal would have: ``KeyboardInterrupt``, or exit status 143."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt


@contextlib.contextmanager
def listening(*, insist: bool) -> Iterator[Stop]:
    """Within the block a signal is only noted; with ``insist`` a second one acts at once.

    In threads other than the main one, which get no signals, nothing changes.
    """
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        again = stop()
        stop.signal = number
        stop.forward(number)
        if again and insist:
            stop.leave()

    numbers = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Like ``listening``: what the block does ends soon after a signal, and then this leaves."""
    with listening(insist=True) as stop:
        yield stop
    if stop():
        stop.leave()


def die_with_parent() -> None:
    """End this process at once when the one that started it has ended, however it did.

    Who comes after may take up the same files: nobody must be left to write to them.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
