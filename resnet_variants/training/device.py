"""Where training runs: device, precision, processes, deterministic kernels, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import logging
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast, get_args

import joblib
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from resnet_variants.registry import UserError
from resnet_variants.settings import Device, Machine

# Fabric announces precision and processes for every run; run.json records them. The level is set
# at import, so that it also holds in child processes.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def make_fabric(machine: Machine, precision: str) -> Fabric:
    """Fabric for the device; ``auto`` takes the GPU if there is one, and bf16 if it is native.

    Raises:
        ValueError: this machine lacks the device, or has fewer devices.
    """
    cuda = torch.cuda.is_available()
    seen = {"cuda": cuda, "mps": torch.backends.mps.is_available()}
    if not seen.get(machine.device, True):
        choices = ", ".join(name for name in get_args(Device) if seen.get(name, True))
        what = {"cuda": "CUDA GPU", "mps": "Apple GPU"}[machine.device]
        message = f"unknown device {machine.device!r}: torch sees no {what} here"
        message += f"; choices: {choices}"
        raise UserError(message, field="device")
    kind = ("cuda" if cuda else "cpu") if machine.device == "auto" else machine.device
    there = {"cuda": torch.cuda.device_count(), "cpu": joblib.cpu_count()}.get(kind, 1)
    if machine.devices > there:
        message = f"devices {machine.devices} exceeds the {there} of this machine ({kind})"
        raise UserError(message, field="devices")
    if machine.devices > 1:
        _check_loopback()
    if kind == "cpu":
        _keep_freed_memory()
    precise = resolve(precision, kind)
    if kind == "cuda" and precise == "fp32":  # torch's default is TF32, with 10 bits of mantissa
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    strategy = _Spawned(start_method="spawn", timeout=timedelta(seconds=PATIENCE), **_OWN_BUFFERS)
    # Fabric would prefer the variables of its own command line tool.
    names = ("ACCELERATOR", "STRATEGY", "DEVICES", "NUM_NODES", "PRECISION")
    with environment({f"LT_{name}": None for name in names}):
        return Fabric(
            accelerator=kind,
            devices=machine.devices,
            strategy="auto" if machine.devices == 1 else strategy,
            precision=_PRECISION[precise],
            plugins=[_OwnProcesses()],
        )


@functools.cache
def _keep_freed_memory() -> None:
    """Have this process keep the memory that a step frees for the next step.

    glibc's allocator would give it back to the system, which clears each page again: on CPUs a
    twentieth to an eighth of a step of small networks. Other allocators are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, size in _KEPT.items():
            mallopt(option, size)


# Options of malloc.h: M_TRIM_THRESHOLD, and the most that M_MMAP_THRESHOLD may be.
_KEPT = {-1: 2**31 - 1, -3: 2**25}


# --- processes --------------------------------------------------------------------------------

PATIENCE = 600.0  # seconds that one process of a run waits for another
_LOOPBACK = "127.0.0.1"


class _OwnProcesses(LightningEnvironment):
    """Processes on this machine, started here; a scheduler's variables are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self._starter = os.getpid()
        with socket.socket() as one:  # a free port, the same for all processes
            one.bind((_LOOPBACK, 0))
            self._main_port = one.getsockname()[1]

    @property
    def creates_processes_externally(self) -> bool:
        """False: no launcher has started them."""
        return False

    @property
    def main_address(self) -> str:
        """The address at which the processes connect."""
        return _LOOPBACK

    def local_rank(self) -> int:
        """The rank of a process that Fabric started; 0 in the process that starts them."""
        return 0 if os.getpid() == self._starter else int(os.environ["LOCAL_RANK"])

    def node_rank(self) -> int:
        """There is one node."""
        return 0


class _Spawned(DDPStrategy):
    """``DDPStrategy`` for processes of this machine alone."""

    def setup_environment(self) -> None:
        """Connect to the other processes at the address of ``_OwnProcesses``."""
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # torch would wait for an agent there
        os.environ["GLOO_SOCKET_IFNAME"] = _loopback_interface()
        _keep_freed_memory()
        super().setup_environment()


def _loopback_interface() -> str:
    """``lo`` on Linux, ``lo0`` elsewhere."""
    names = [name for _, name in socket.if_nameindex()]
    return next(name for name in names if name.startswith("lo"))


def _check_loopback() -> None:
    """Refuse processes that cannot connect to one another: they would wait for minutes."""
    try:
        with socket.socket() as one:
            one.bind((_LOOPBACK, 0))
            one.listen()
            socket.create_connection(one.getsockname(), 5.0).close()
    except OSError as error:
        reason = error.strerror or error
        message = f"processes cannot reach one another at {_LOOPBACK} ({reason}): bring up the"
        raise UserError(
            f"{message} loopback interface, or take one device", field="devices"
        ) from error


@contextlib.contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables inside the block; ``None`` removes one."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# Each process keeps its own running statistics until they are averaged for evaluation. torch 2.15
# renames the argument.
_NAMES = inspect.signature(nn.parallel.DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}
_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
}


def resolve(precision: str, device: str) -> str:
    """``auto`` as ``bf16`` or ``fp32``: emulated bf16 is slower than fp32."""
    if precision != "auto":
        return precision
    if device == "mps":
        return "fp32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu.get_capabilities()
    return "bf16" if native.get("avx512_bf16") or native.get("amx_bf16") else "fp32"


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Full fp32 in convolutions inside the block: TF32 has only 10 bits of mantissa."""
    settings: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextlib.contextmanager
def determinism(enabled: bool) -> Iterator[None]:  # noqa: FBT001
    """Deterministic kernels inside the block, if ``enabled``."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if enabled:
        # cuBLAS reads it when CUDA starts; torch refuses matrix products on the GPU without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled or before)
    # Batches have few sizes: the search for the fastest kernels pays, but is not repeatable.
    torch.backends.cudnn.benchmark = not enabled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def double(numbers: Tensor) -> Tensor:
    """In float64 on their device; on the CPU if the device is an Apple GPU, which lacks float64."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


def synced(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms whose statistics cover all devices; names and weights stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for child in model.modules():  # torch's SyncBatchNorm has no kernel for CPUs
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d
    return model


class _Mean(torch.autograd.Function):
    """The mean of a tensor over all processes, and of its gradient on the way back."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return _mean(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        return _mean(*gradients)


def _mean(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` over the batches of all processes, which have equally many images.

    In evaluation it is an ordinary ``BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same, in the input's precision."""
        x = input
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        world = torch.distributed.get_world_size()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # Two passes: a mean of squares minus a squared mean would lose digits.
        mean = cast(Tensor, _Mean.apply(wide.mean((0, 2, 3))))
        centred = wide - mean.view(1, -1, 1, 1)
        var = cast(Tensor, _Mean.apply(centred.square().mean((0, 2, 3))))
        with torch.no_grad():
            n = world * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var * (n / (n - 1)), share)
        scale = torch.rsqrt(var + self.eps) * self.weight
        return torch.addcmul(self.bias.view(1, -1, 1, 1), centred, scale.view(1, -1, 1, 1)).to(
            x.dtype
        )


# --- peak memory ------------------------------------------------------------------------------

_PROCESS = Path("/proc/self")
_MB = 1024**2


def reset_peak(device: torch.device) -> bool:
    """Start to measure the peak anew; false where the system cannot (without /proc)."""
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
    """Memory of the process at the moment, in MiB; only where ``reset_peak`` returns true."""
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = (_PROCESS / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) / 1024
