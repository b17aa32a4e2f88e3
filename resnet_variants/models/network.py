"""The network: one class, built from a variant's tables, with timm's model interface.

Children have the names of torchvision and timm (``conv1 bn1 layer1.0.conv1 ...
downsample.0 fc``), so their ``post`` weights load unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from timm.layers import SelectAdaptivePool2d, create_classifier, get_device_dtype
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from resnet_variants.models.arguments import ModelArgs, require_count
from resnet_variants.models.block import Drops, ResidualBlock, unused
from resnet_variants.models.branches import ANTIALIASES, BLOCKS
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.initial import initialise
from resnet_variants.models.layers import Layers
from resnet_variants.models.norms import BRANCH_SCALES
from resnet_variants.models.shortcuts import Change
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import Variant
from resnet_variants.registry import refuse


class ResNet(nn.Module):
    """A variant as a timm-style model, (N, in_chans, H, W) -> (N, num_classes).

    Args:
        cfg: the variant.
        model_args: the fields of ``ModelArgs``.

    Raises:
        TypeError: an argument that ``ModelArgs`` does not have.
        ValueError: an argument that this variant cannot have.
    """

    __constants__ = ("body",)  # TorchScript unrolls a loop over a constant

    def __init__(self, cfg: Variant, **model_args: object) -> None:
        super().__init__()
        args = ModelArgs(**model_args)  # type: ignore[arg-type]
        args.check(cfg)
        self.variant = cfg
        self.num_classes = args.num_classes
        self.in_chans = args.in_chans
        self.drop_rate = args.drop_rate
        self.head_type = args.head
        self.grad_checkpointing = False
        self.feature_info = list[dict[str, object]]()
        layers = Layers(cfg.norm, cfg.act, args.device, args.dtype, args.conv_bias)

        width = self._add_stem(cfg, args.in_chans, layers)
        width = self._add_stages(cfg, width, args, layers)
        self._add_norm_act(cfg.lines.head, width, ("norm", "act"), layers)
        self.num_features = width
        # The modules up to the features, in order. A module that a user adds later does not run.
        self.body = tuple(self._modules)
        self.taps = [str(info["module"]) for info in self.feature_info]
        self._set_head(args.global_pool, layers.factory_kwargs)
        self.init_weights(args.zero_init_last, fan=args.init_fan, gate_bias=args.gate_bias)

    # --- building -----------------------------------------------------------------------------

    def _add_stem(self, variant: Variant, in_chans: int, layers: Layers) -> int:
        conv_stride, pool = STEM_STRIDES[variant.stem_stride]
        specs = STEMS[variant.stem](FAMILIES[variant.family].widths[0], conv_stride)
        modules: list[nn.Module] = []
        width = in_chans
        for spec in specs:
            if modules:
                modules += [layers.norm(width), layers.act(inplace=True)]
            modules.append(layers.conv(width, spec.width, spec.kernel, stride=spec.stride))
            width = spec.width
        self.conv1 = nn.Sequential(*modules) if len(modules) > 1 else modules[0]
        self._add_norm_act(variant.lines.stem, width, ("bn1", "act1"), layers)
        last = next(reversed(self._modules))
        self.feature_info.append({"num_chs": width, "reduction": conv_stride, "module": last})
        if pool:
            self.maxpool = _stem_pool(variant, width, layers)
        return width

    def _add_norm_act(self, steps: str, width: int, names: tuple[str, str], layers: Layers) -> None:
        for step in steps.split():
            if step == "norm":
                self.add_module(unused(names[0], self._modules), layers.norm(width))
            else:
                # An activation before a norm would overwrite the feature map before it.
                act = layers.act(inplace="norm" in steps.partition("act")[0])
                self.add_module(unused(names[1], self._modules), act)

    def _add_stages(self, variant: Variant, width: int, args: ModelArgs, layers: Layers) -> int:
        family, block = FAMILIES[variant.family], BLOCKS[variant.block]
        drops = _drops(args, variant.units)
        reduction, dilation = variant.stem_stride, 1
        for i, (stage_width, units) in enumerate(zip(family.widths, variant.units, strict=True)):
            stride, dilation_in = 1 if i == 0 else 2, dilation
            if reduction * stride > args.output_stride:
                stride, dilation = 1, dilation * stride
            reduction *= stride
            stage = nn.Sequential()
            for _ in range(units):
                w_out = stage_width * block.expansion
                change = Change(width, w_out, stride, dilation=dilation, dilation_in=dilation_in)
                unit = ResidualBlock(change, variant, drops=next(drops), layers=layers)
                stage.append(unit)
                width, stride, dilation_in = w_out, 1, dilation
            self.add_module(f"layer{i + 1}", stage)
            info = {"num_chs": width, "reduction": reduction, "module": f"layer{i + 1}"}
            self.feature_info.append(info)
        return width

    def init_weights(
        self,
        zero_init_last: bool = False,  # noqa: FBT001, FBT002
        *,
        fan: str = ModelArgs.init_fan,
        gate_bias: float = ModelArgs.gate_bias,
    ) -> None:
        """See ``initial.initialise``; on the meta device there are no values."""
        scale = "zero_gamma" if zero_init_last else self.variant.branch_scale
        if not any(parameter.is_meta for parameter in self.parameters()):
            initialise(self, BRANCH_SCALES[scale], fan=fan, gate_bias=gate_bias)

    # --- running ------------------------------------------------------------------------------

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> unpooled (N, num_features, ceil(H / r), ceil(W / r))."""
        no_maps: list[int] = []
        return self._tapped(x, no_maps, len(self.taps))[0]

    def _run(self, step: str, x: Tensor) -> Tensor:
        layer = getattr(self, step)
        if self.grad_checkpointing and step.startswith("layer"):
            return cast(Tensor, checkpoint_seq(layer, x))
        return cast(Tensor, layer(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        """Features -> (N, num_classes), or the pooled features with ``pre_logits``."""
        x = self.global_pool(x)
        if self.drop_rate:
            x = nn.functional.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,  # noqa: FBT001, FBT002
        stop_early: bool = False,  # noqa: FBT001, FBT002
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,  # noqa: FBT001, FBT002
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features, and the maps after the stem and after each stage.

        With ``preact`` a map is the raw sum of its last unit. With ``norm`` the last map has passed
        the norm and the activation before the pooling.

        Args:
            x: (N, in_chans, H, W).
            indices: the last n maps, or the maps with these indices; all by default.
            norm: see above.
            stop_early: run no layer after the last requested map, except after the last stage.
            output_fmt: only ``NCHW``.
            intermediates_only: return the list of maps alone.
        """
        if not torch.jit.is_scripting() and output_fmt != "NCHW":
            refuse("output_fmt", output_fmt, ["NCHW"])
        assert output_fmt == "NCHW"
        take, last = feature_take_indices(len(self.taps), indices)
        final = len(self.taps) - 1
        x, maps = self._tapped(x, take, last if stop_early and last < final else len(self.taps))
        if norm and final in take:
            maps[-1] = x
        if intermediates_only:  # TorchScript has no conditional expression of two types
            return maps
        return x, maps

    def _tapped(self, x: Tensor, take: list[int], last: int) -> tuple[Tensor, list[Tensor]]:
        """The output of the ``last`` tap, or the features if there is none, and the maps."""
        maps: list[Tensor] = []
        tap = -1
        for step in self.body:
            if tap < last:
                if torch.jit.is_scripting():  # see ResidualBlock.forward
                    ran = False
                    for name, layer in self.named_children():
                        if name == step:
                            x, ran = layer(x), True
                    assert ran, step
                else:
                    x = self._run(step, x)
                if step in self.taps:
                    tap += 1
                    if tap in take:
                        maps.append(x)
        return x, maps

    # --- timm's contract ----------------------------------------------------------------------

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,  # noqa: FBT001, FBT002
        prune_head: bool = True,  # noqa: FBT001, FBT002
    ) -> list[int]:
        """Remove the layers after the last given map; return the maps' absolute indices."""
        take, last = feature_take_indices(len(self.taps), indices)
        cut = last < len(self.taps) - 1
        following = self.body[self.body.index(self.taps[last]) + 1 :]
        for name in following if cut or prune_norm else ():
            # Empty, not the identity: gradient checkpointing iterates over a stage.
            setattr(self, name, nn.Sequential() if name.startswith("layer") else nn.Identity())
        if cut:
            self.num_features = self.head_hidden_size = int(str(self.feature_info[last]["num_chs"]))
        if cut or prune_head:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:  # noqa: FBT001, FBT002
        """The classifier, or its name."""
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier on the old one's device and dtype; ``None`` keeps the pooling."""
        self.num_classes = require_count("num_classes", num_classes, 0)
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self._set_head(pool, get_device_dtype(self))
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def _set_head(self, pool: str, factory_kwargs: dict[str, Any]) -> None:
        made = create_classifier(self.num_features, self.num_classes, pool, **factory_kwargs)
        self.global_pool, self.fc = cast("tuple[SelectAdaptivePool2d, nn.Module]", made)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        if self.head_type == "bn_linear" and self.num_classes:
            norm = nn.BatchNorm1d(self.head_hidden_size, **factory_kwargs)
            self.fc = nn.Sequential(norm, self.fc)

    def set_grad_checkpointing(self, enable: bool = True) -> None:  # noqa: FBT001, FBT002
        """Recompute each unit in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: FBT001, FBT002
        """Regular expressions that group parameters by depth, for layer-wise learning rates."""
        unit = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|bn1|maxpool", "blocks": unit}


def _stem_pool(variant: Variant, width: int, layers: Layers) -> nn.Module:
    antialias = ANTIALIASES[variant.antialias]
    if antialias is None:
        return nn.MaxPool2d(3, stride=2, padding=1)
    down = antialias.down(width, 2, layers)
    if not antialias.keeps_max:
        return down
    return nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), down)


# Side and gamma of DropBlock's squares in the last two stages, counted from the end (as in timm).
_DROP_BLOCKS = {2: (5, 0.25), 1: (3, 1.0)}


def _drops(args: ModelArgs, units: tuple[int, ...]) -> Iterator[Drops]:
    """The ``Drops`` of each unit of the network."""
    last = max(1, sum(units) - 1)
    stages = [len(units) - stage for stage, n in enumerate(units) for _ in range(n)]
    for i, stage in enumerate(stages):
        size, gamma = _DROP_BLOCKS.get(stage, (0, 1.0)) if args.drop_block_rate else (0, 1.0)
        yield Drops(args.drop_path_rate * i / last, args.drop_block_rate, size, gamma)
