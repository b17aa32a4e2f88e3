"""What a report shows: tables as text, figures, sentences and the page."""

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Import matplotlib although ``MPLBACKEND`` may name a backend that is not installed here.

    (A notebook sets the variable for itself, and its child processes inherit it.) The figures of
    this package need no such backend. Other code in this process keeps the setting where it can.
    """
    backend = os.environ.pop("MPLBACKEND", "")
    try:
        import matplotlib as mpl
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            mpl.rcParams["backend"] = backend


if "matplotlib" not in sys.modules:
    _import_matplotlib()
