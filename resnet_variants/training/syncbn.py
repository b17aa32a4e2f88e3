"""Batch norm over all processes on CPUs, for which torch's own ``SyncBatchNorm`` has no kernel."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class _Mean(torch.autograd.Function):
    """A tensor's mean over all processes, whose losses it is part of."""

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
    """``BatchNorm2d`` whose batch is that of all processes together; each has equally many images.

    In evaluation it is an ordinary one.
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


def convert(model: nn.Module) -> nn.Module:
    """Exchange every ``BatchNorm2d`` below ``model``, keeping parameters, buffers and names."""
    for child in model.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SyncedBatchNorm2d
    return model
