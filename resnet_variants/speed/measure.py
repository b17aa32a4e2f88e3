"""Speeds of the arms, measured in turn in one process, and of the machine's matrix products."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pandas as pd
import torch

from resnet_variants.plugins import enter_all, loaded
from resnet_variants.speed.arms import ARMS, Arm, Task
from resnet_variants.training.device import (
    determinism,
    peak_mb,
    reset_peak,
    resident_mb,
    synchronise,
)

COLUMNS = (
    *("arm", "stage", "model", "batch_size", "img_size", "device", "precision"),
    *("images_per_second", "images_per_second_low", "images_per_second_high"),
    *("ratio_to_plain", "matmul_share", "peak_memory_mb", "compiled", "latency_ms", "device_name"),
)
STAGES = ("step", "epoch", "data", "inference", "latency")
# Matrix products in forward passes: a training step adds gradients of weights and of inputs.
_PASSES = {"step": 3, "epoch": 3, "data": 0, "inference": 1, "latency": 1}
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_SIDES = {"cpu": 2048, "cuda": 8192, "mps": 8192}  # of matrices large enough for the full rate


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating point operations per second of square matrix products, the median of several."""
    side = _SIDES[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=_DTYPES[precision]) for _ in range(2))
    timed = repeated(lambda: torch.mm(a, b), device, 0.3)
    return 2 * side**3 / timed


def repeated(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median seconds of ``work``, repeated for ``seconds`` after one call that does not count."""
    work()
    synchronise(device)
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass(frozen=True)
class Plan:
    """Arms and stages to measure, how often and how long."""

    arms: Sequence[str] = ("ours", "lean", "plain", "timm")
    stages: Sequence[str] = STAGES
    repeats: int = 5
    seconds: float = 2.0  # for each step, inference and latency in each repeat


@determinism(enabled=False)  # as in a run
def measure(task: Task, plan: Plan) -> tuple[dict[tuple[str, str], list[float]], dict[str, Arm]]:
    """Images per second by (arm, stage), and rates of matrix products by ("matmul", precision).

    The arms take turns in every repeat, so that a slow minute of the machine hits all of them.
    """
    arms = {name: ARMS[name](task) for name in plan.arms}
    device = next(iter(arms.values())).device
    rates: dict[tuple[str, str], list[float]] = {}
    for repeat in range(plan.repeats):
        turn = list(arms) if repeat % 2 == 0 else list(arms)[::-1]
        for precision in sorted({arm.precision for arm in arms.values()}):
            found = matmul_rate(device, precision)
            rates.setdefault(("matmul", precision), []).append(found)
        for stage in plan.stages:
            for name in turn:
                found = _rate(arms[name], stage, task, plan.seconds)
                rates.setdefault((name, stage), []).append(found)
    return rates, arms


def _rate(arm: Arm, stage: str, task: Task, seconds: float) -> float:
    if stage in ("epoch", "data"):
        arm.step()  # the caches and threads of this arm are warm again
        synchronise(arm.device)
        start = time.perf_counter()
        arm.epoch() if stage == "epoch" else arm.data()
        synchronise(arm.device)
        return task.steps * task.batch_size / (time.perf_counter() - start)
    images = 1 if stage == "latency" else task.batch_size
    work = arm.step if stage == "step" else lambda: arm.infer(images)
    return images / repeated(work, arm.device, seconds)


def table(
    model: str,
    macs: int,
    task: Task,
    plan: Plan,
    *,
    device_name: str,
    memory: Mapping[tuple[str, str], float],
) -> pd.DataFrame:
    """One row per arm and stage: ``COLUMNS``; the ratios are medians of ratios within a repeat."""
    rates, arms = measure(task, plan)
    rows: list[dict[str, object]] = []
    for name, arm in arms.items():
        for stage in plan.stages:
            own = rates[name, stage]
            plain = rates.get(("plain", stage))
            products, peak = 2 * macs * _PASSES[stage], rates["matmul", arm.precision]
            rows.append(
                {
                    "arm": "ours" if name == "compiled" else name,
                    "stage": "inference" if stage == "latency" else stage,
                    "model": model,
                    "batch_size": 1 if stage == "latency" else task.batch_size,
                    "img_size": task.img_size,
                    "device": arm.device.type,
                    "precision": arm.precision,
                    "images_per_second": statistics.median(own),
                    "images_per_second_low": min(own),
                    "images_per_second_high": max(own),
                    "ratio_to_plain": _ratio(own, plain) if plain else None,
                    "matmul_share": products * _ratio(own, peak) if products else None,
                    "peak_memory_mb": memory.get((name, stage)),
                    "compiled": name == "compiled",
                    "latency_ms": 1000 / statistics.median(own) if stage == "latency" else None,
                    "device_name": device_name,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _ratio(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


# --- memory -----------------------------------------------------------------------------------


def peak_memory(task: Task, plan: Plan) -> dict[tuple[str, str], float]:
    """MiB by (arm, stage) above those of the imports, each arm in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found: dict[tuple[str, str], float] = {}
    for name in plan.arms:
        with ProcessPoolExecutor(1, context, enter_all, (loaded(),)) as pool:
            peaks = pool.submit(_peaks, name, task, tuple(plan.stages)).result()
        found |= {(name, stage): peak for stage, peak in peaks.items()}
    return found


def _peaks(name: str, task: Task, stages: Sequence[str]) -> dict[str, float]:
    if not reset_peak(torch.device("cpu")):
        return {}
    base = resident_mb()
    arm = ARMS[name](task)
    peaks: dict[str, float] = {}
    for stage in stages:
        reset_peak(arm.device)
        _rate(arm, stage, task, 0.0)
        peaks[stage] = peak_mb(arm.device) - (base if arm.device.type == "cpu" else 0.0)
    return peaks
