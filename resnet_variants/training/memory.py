"""Peak memory of a stretch of work: the GPU's where there is one, else the process's."""

from __future__ import annotations

from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
_MB = 1024**2


def reset_peak(device: torch.device) -> None:
    """Start measuring afresh."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (_PROCESS / "clear_refs").exists():
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def peak_mb(device: torch.device) -> float | None:
    """Peak since ``reset_peak`` in MiB; ``None`` on a system that does not tell (no /proc)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    if not (_PROCESS / "clear_refs").exists():
        return None
    lines = (_PROCESS / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]) / 1024
