"""A residual unit written out from the papers, for comparison: no table of the package is used.

It has batch norm, or no norms and biases; its activation is a function.

Figures 2 and 4 of arXiv:1603.05027, options A to C of arXiv:1512.03385 and figure 2 of
arXiv:1812.01187, on the state dict of one unit. What the papers leave open is this package's
choice: a shortcut that changes shape reads what the branch's first convolution reads; its
convolution takes a norm, but for ``bn_after_add`` and ``preact``; attention and then drop path
stand right before the addition, the function of the skip connection on what the shortcut carries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from resnet_variants.models.block import Drops, ResidualBlock
from resnet_variants.models.layers import Layers
from resnet_variants.models.shortcuts import Change


@dataclass
class Unit:
    """One unit in training mode."""

    state: dict[str, Tensor]
    convs: int  # 2 or 3
    stride: int = 1
    strided: int = 1  # the convolution that carries the stride
    antialias: str = "none"
    shortcut: str = "conv"
    skip: str = "identity"
    attention: str = "none"
    drop_path: float = 0.0
    act: Callable[[Tensor], Tensor] = functional.relu

    def forward(self, order: str, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the output of the unit."""
        assert hasattr(self, order), f"order {order!r} is new: write it below, tests/reference.py"
        return getattr(self, order)(x)

    # --- figure 4 of arXiv:1603.05027 ---------------------------------------------------------

    def post(self, x):
        y = x
        for i in range(1, self.convs):
            y = self.act(self.norm(i, self.conv(i, y)))
        y = self.norm(self.convs, self.conv(self.convs, y))
        return self.act(self.add(y, self.carried(x, x, norm=True)))

    def bn_after_add(self, x):
        y = x
        for i in range(1, self.convs):
            y = self.act(self.norm(i, self.conv(i, y)))
        y = self.conv(self.convs, y)
        return self.act(self.norm(self.convs, self.add(y, self.carried(x, x, norm=False))))

    def relu_before_add(self, x):
        y = x
        for i in range(1, self.convs + 1):
            y = self.act(self.norm(i, self.conv(i, y)))
        return self.add(y, self.carried(x, x, norm=True))

    def relu_preact(self, x):
        y = activated = self.act(x)
        for i in range(1, self.convs + 1):
            y = self.norm(i, self.conv(i, y if i == 1 else self.act(y)))
        return self.add(y, self.carried(x, activated, norm=True))

    def preact(self, x):
        activated = self.act(self.norm(1, x))
        y = self.conv(1, activated)
        for i in range(2, self.convs + 1):
            y = self.conv(i, self.act(self.norm(i, y)))
        return self.add(y, self.carried(x, activated, norm=False))

    # --- layers -------------------------------------------------------------------------------

    def conv(self, i, y):
        weight = self.state[f"conv{i}.weight"]
        filtered = self.antialias != "none" and self.stride > 1
        if filtered and i == self.strided + 1:
            y = self.downsampled(y)
        stride = self.stride if i == self.strided and not filtered else 1
        groups = y.shape[1] // weight.shape[1]
        bias = self.state.get(f"conv{i}.bias")
        return functional.conv2d(
            y, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=groups
        )

    def norm(self, i, y):
        return self._norm(f"bn{i}", y)

    def _norm(self, name, y):
        if f"{name}.weight" not in self.state:
            return y
        mean = y.mean((0, 2, 3), keepdim=True)
        variance = (y - mean).square().mean((0, 2, 3), keepdim=True)
        weight, bias = (self.state[f"{name}.{key}"][:, None, None] for key in ("weight", "bias"))
        return (y - mean) / (variance + 1e-5).sqrt() * weight + bias

    def downsampled(self, y):
        if self.antialias == "avg":
            return mean_2x2(y)
        tent = torch.tensor([0.25, 0.5, 0.25], dtype=y.dtype)
        kernel = (tent[:, None] * tent).expand(y.shape[1], 1, 3, 3)
        y = functional.pad(y, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(y, kernel, stride=2, groups=y.shape[1])

    # --- what runs beside the branch ----------------------------------------------------------

    def carried(self, x, read, *, norm):
        """What the shortcut carries: x, or a projection of what conv1 reads."""
        if self.shortcut == "none":
            return None
        weights = [w for key, w in self.state.items() if key.startswith("downsample.")]
        if self.shortcut == "pad" and self.width != x.shape[1]:
            h = read[:, :, :: self.stride, :: self.stride]
            zeros = h.new_zeros(len(h), self.width - h.shape[1], *h.shape[2:])
            return torch.cat([h, zeros], 1)
        if not weights:
            return x
        biased = "conv1.bias" in self.state
        bias = weights[1] if biased else None
        if self.shortcut == "avgpool":
            h = functional.conv2d(mean_2x2(read) if self.stride > 1 else read, weights[0], bias)
        else:
            h = functional.conv2d(read, weights[0], bias, stride=self.stride)
        assert biased or norm == (len(weights) > 1)
        place = 2 if self.shortcut == "avgpool" else 1
        return self._norm(f"downsample.{place}", h) if norm else h

    @property
    def width(self):
        return self.state[f"conv{self.convs}.weight"].shape[0]

    def add(self, y, h):
        """The addition, with everything right before it."""
        y = self.attended(y)
        if h is None:
            return y
        if self.skip == "scale":
            h = 0.5 * h
        elif self.skip == "scale_both":
            h, y = 0.5 * h, 0.5 * y
        elif self.skip == "exclusive_gate":
            g = self.gate("gate.conv", h)
            h, y = (1 - g) * h, g * y
        elif self.skip == "shortcut_gate":
            h = (1 - self.gate("skip.conv", h)) * h
        elif self.skip == "dropout":
            h = functional.dropout(h, 0.5)
        if self.drop_path:
            keep = 1 - self.drop_path
            y = y * torch.empty(len(y), 1, 1, 1, dtype=y.dtype).bernoulli_(keep) / keep
        return y + h

    def gate(self, name, h):
        return functional.conv2d(
            h, self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        ).sigmoid()

    def attended(self, y):
        means = y.mean((2, 3))
        if self.attention == "se":
            for fc, act in (("fc1", torch.relu), ("fc2", torch.sigmoid)):
                weight, bias = (self.state[f"se.{fc}.{key}"] for key in ("weight", "bias"))
                means = act(means @ weight[:, :, 0, 0].T + bias)
            return y * means[:, :, None, None]
        if self.attention == "eca":
            weight = self.state["se.conv.weight"]
            near = functional.conv1d(means[:, None], weight, padding=weight.shape[-1] // 2)
            return y * near[:, 0, :, None, None].sigmoid()
        return y


def mean_2x2(y):
    """The mean of each 2x2 square, at odd borders of what there is of it."""
    height, width = y.shape[2:]
    rows = [y[:, :, i : i + 2].mean(2) for i in range(0, height, 2)]
    y = torch.stack(rows, 2)
    return torch.stack([y[..., j : j + 2].mean(-1) for j in range(0, width, 2)], -1)


# Odd on purpose: a shortcut that rounds otherwise than its branch cannot be added to it.
SIDE = 7
SIZES = {
    "basic": {"depth": 8},
    "bottleneck": {"depth": 11},
    **{f"basic{convs}": {"depth": 38, "block": f"basic{convs}"} for convs in (1, 3, 4)},
}
CHANGES = {"identity": Change(16, 16, 1), "wider": Change(8, 16, 1), "strided": Change(8, 16, 2)}


def unit_pair(variant, change, drop_path=0.0):
    """One of the package's units with random parameters, and the same unit written out."""
    layers = Layers(variant.norm, variant.act, dtype=torch.float64)
    unit = ResidualBlock(change, variant, drops=Drops(drop_path), layers=layers)
    for parameter in unit.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    convs = {"basic": 2, "bottleneck": 3}.get(variant.block) or int(variant.block[-1])
    written = Unit(
        dict(unit.named_parameters()),
        convs,
        stride=change.stride,
        strided=2 if variant.block == "bottleneck" and variant.stride == "3x3" else 1,
        antialias=variant.antialias,
        shortcut=variant.shortcut,
        skip=variant.skip,
        attention=variant.attention,
        drop_path=drop_path,
        act=getattr(functional, variant.act),
    )
    return unit.train(), written


def assert_exact(variant, change, drop_path=0.0):
    """The unit's outputs and all its gradients are those of the one written out."""
    unit, written = unit_pair(variant, change, drop_path)
    x = torch.randn(4, change.w_in, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    before, results = x.detach().clone(), []
    for run in (unit, lambda x: written.forward(variant.order, x)):
        torch.manual_seed(0)
        y = run(x)
        probe = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).cos()
        grads = torch.autograd.grad((y * probe).sum(), [x, *unit.parameters()])
        results.append([y, *grads])
    assert results[0][0].shape == (4, change.w_out, *[-(-SIDE // change.stride)] * 2)
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() < 1e-12
    assert torch.equal(x.detach(), before)
