"""Processes that begin with everything imported: each import of torch takes seconds.

One server for each process of pytest imports all of it; the others are its forks.
"""

import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

from resnet_variants.terminal import cli

COLD = multiprocessing.get_context


class _Process(ForkServerProcess):
    """A fork of the server with the environment and the blocked signals of its starter."""

    def start(self):
        self.inherited = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        super().start()

    def run(self):
        environment, blocked = self.inherited
        os.environ.clear()
        os.environ.update(environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        super().run()


class _Context(ForkServerContext):
    Process = _Process


WARM = _Context()
WARM.set_forkserver_preload(
    ["pytest", "resnet_variants.run", "resnet_variants.report", "resnet_variants.sweeps.sweep"]
    + [f"resnet_variants.sweeps.engines.{name}" for name in ("inline", "local")]
)


def get_context(method=None):
    """``multiprocessing.get_context``, but processes that are to be spawned are warm."""
    return WARM if method == "spawn" else COLD(method)


class Command:
    """The console script in a process of its own, which is heard as long as this object lasts."""

    def __init__(self, words):
        self.heard, say = WARM.Pipe(duplex=False)
        self.process = WARM.Process(target=_say_into, args=(say, words))
        self.process.start()
        say.close()

    def ended(self):
        """Its exit status, and what it said on both streams."""
        with os.fdopen(os.dup(self.heard.fileno())) as text:
            said = text.read()
        self.process.join()
        return self.process.exitcode, said


def _say_into(pipe, words):
    os.dup2(pipe.fileno(), 1)
    os.dup2(pipe.fileno(), 2)
    pipe.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
    sys.argv = ["resnet-variants", *words]
    # Its own workers are forks of the same server, which this process cannot ask whether it lives.
    multiprocessing.get_context = get_context
    forkserver._forkserver.ensure_running = lambda: None
    sys.exit(cli.main(words))
