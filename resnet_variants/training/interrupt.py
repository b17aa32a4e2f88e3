"""Stopping in good order: after SIGINT or SIGTERM the current step ends and is saved."""

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
    """Whether a signal asked to stop, and which; or whether ``also`` says to."""

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self.signal: int | None = None
        self.also = also
        self.forward: Callable[[int], object] = lambda _: None  # pass the signal to other processes

    def __call__(self) -> bool:
        """Whether to stop after this step."""
        return self.signal is not None or self.also()

    def leave(self) -> NoReturn:
        """End as after the signal: ``KeyboardInterrupt``, or exit status 143."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt


@contextlib.contextmanager
def listening(*, insist: bool) -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM set a flag; with ``insist``, a second one ends the block.

    Threads other than the main thread get no signals; there, nothing changes.
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
    """After the block, raise what the signal that was noted in it would have raised."""
    with listening(insist=True) as stop:
        yield stop
    if stop():
        stop.leave()


def die_with_parent() -> None:
    """End this process at once when its parent process has ended, for whatever reason.

    Another process may continue with the same files: no orphan may write to them.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
