"""What came out: statistics, tables, plots."""

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Import it although ``MPLBACKEND`` names a backend that only another process has.

    (A notebook sets the variable for itself, and its child processes inherit it.) The figures here
    need no such backend; the setting holds for others in this process as far as it can.
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
