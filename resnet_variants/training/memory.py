"""Peak memory of a stretch of work: the GPU's where there is one, else the process's."""

from __future__ import annotations

from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_MB = 1024**2


def reset_peak(device: torch.device) -> bool:
    """Start measuring afresh; whether the system allows it (no /proc: no)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def peak_mb(device: torch.device) -> float:
    """Peak in MiB since ``reset_peak`` returned true."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    return _status("VmHWM")


def resident_mb() -> float:
    """What the process holds in memory now, in MiB; only where ``reset_peak`` returns true."""
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = (_PROCESS / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) / 1024
