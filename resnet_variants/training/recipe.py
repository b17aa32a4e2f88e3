"""How any network is trained: everything that is not the variant, the data or the seed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from resnet_variants.data.policy import policy
from resnet_variants.records.files import require_name
from resnet_variants.registry import UserError, refuse, require_types

PRECISIONS = ("auto", "fp32", "bf16")
CHOICES: Mapping[str, Iterable[str]] = {
    "optimizer": ("nesterov", "sgd", "adamw", "lamb"),
    "schedule": ("cosine", "step", "onecycle", "constant"),
    "decay": ("weights", "all"),
    "flip": ("random", "alternating", "none"),
    "loss": ("cross_entropy", "binary"),
    "init_fan": ("fan_out", "fan_in"),
    "select": ("last", "best"),
    "head": ("linear", "bn_linear"),
    "precision": PRECISIONS,
    "normalise": ("auto", "data", "imagenet"),
}
_LARGEST = 1_000_000
_COUNTS = {"epochs": 1, "batch_size": 2, "accumulate": 1}
PRETRAINED = "pretrained"  # as weights: timm's published ones of the same network
# Half-open ranges [low, high).
_RANGES: Mapping[str, tuple[float, float]] = {
    "momentum": (0, 1),
    "weight_decay": (0, _LARGEST),
    "warmup": (0, 1),
    "crop_padding": (0, 1),
    "crop_area": (0, 1),
    "color_jitter": (0, 1),
    "cutout": (0, 1),
    "label_smoothing": (0, 1),
    "mixup": (0, _LARGEST),
    "cutmix": (0, _LARGEST),
    "drop_path": (0, 1),
    "clip_grad": (0, _LARGEST),
    "ema": (0, 1),
}
_SHARES = ("size_start", "size_end", "crop_pct")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to train; see ``recipes`` for those of papers.

    The defaults are also the reference of run ids: a run's id names what differs from them.

    Raises:
        ValueError: a number out of range or an unknown choice; the message names the field.
    """

    epochs: int = 20  # passes over the training split
    batch_size: int = 32  # images per step of the optimizer, on all devices together
    optimizer: str = "nesterov"  # nesterov (SGD with Nesterov momentum), sgd, adamw or lamb
    lr: float = 0.1  # the largest: at the end of the warm-up
    momentum: float = 0.9  # of adamw and lamb: beta 1
    weight_decay: float = 5e-4  # on the gradient in sgd, on the step in adamw and lamb
    decay: str = "weights"  # what weight decay acts on: weights (tensors with ndim > 1) or all
    schedule: str = "cosine"  # cosine to zero, step, onecycle (arXiv:1708.07120) or constant
    milestones: tuple[float, ...] = (0.5, 0.75)  # step: shares of training at which lr falls
    warmup: float = 0.1  # share of all steps, linear; onecycle: its rise
    label_smoothing: float = 0.0  # arXiv:1512.00567, section 7
    loss: str = (  # cross_entropy, or binary: every class by itself
        "cross_entropy"  # or binary: each class by itself; a label mixed in by over 0.2 counts
    )
    mixup: float = 0.0  # alpha of arXiv:1710.09412; 0: none
    cutmix: float = 0.0  # alpha of arXiv:1905.04899; 0: none; beside mixup, every second batch
    crop_padding: float = 0.125  # of the side: 4 px at 32 px (arXiv:1512.03385, section 4.2)
    crop_area: float = 0.0  # above 0: random resized crops of at least this area, not padded ones
    flip: str = "random"  # random, alternating (arXiv:2404.00498) or none, of images one may flip
    color_jitter: float = 0.0  # brightness, contrast, saturation within 1 ± this
    cutout: float = 0.0  # side of the square as a share of the image's (arXiv:1708.04552)
    auto_augment: str = ""  # timm's name of a policy, such as rand-m6-mstd0.5-inc1; slow
    size_start: float = 1.0  # side of training images in the first epoch, as a share of img_size
    size_end: float = 1.0  # and in the last; linear in between
    crop_pct: float = 1.0  # share of the side that tests see, as timm has it: 0.875 is 224 of 256
    # mean and deviation of pictures: data (the training pictures'), imagenet, or auto: those that
    # the weights come with, and data where they come with none
    normalise: str = "auto"
    drop_path: float = 0.0  # stochastic depth (arXiv:1603.09382), rising to this at the last unit
    zero_init: bool = False  # every branch starts as zero (arXiv:1812.01187, section 3.1)
    init_fan: str = "fan_out"  # fan_out or fan_in: whose variance the initial convolutions keep
    weights: str = ""  # what the body starts from: a run, a results folder, or pretrained
    head: str = "linear"  # linear, or bn_linear: a batch norm of the pooled features before it
    clip_grad: float = 0.0  # largest norm of the whole gradient; 0: none
    accumulate: int = 1  # parts that a batch is computed in; batch norm sees a part
    ema: float = 0.0  # decay of a moving average of the weights, which is then tested; 0: none
    sync_bn: bool = True  # batch statistics over all devices; else each device's own
    select: str = "last"  # last or best (on validation): the weights that are tested and kept
    precision: str = "auto"  # auto (bf16 where the device has instructions for it), bf16 or fp32
    deterministic: bool = False  # same seed, same machine: same weights, bit for bit

    def __post_init__(self) -> None:
        require_types(self)
        for name, low in _COUNTS.items():
            value = getattr(self, name)
            if not low <= value <= _LARGEST:
                message = f"{name} {value!r} must be from {low} to {_LARGEST}"
                raise UserError(message, field=name)
        self._check_ranges()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                refuse(name, getattr(self, name), choices)
        self._spell()
        self._check_together()

    def _spell(self) -> None:
        """One spelling of one recipe: 1 as 1.0, ``first/`` as ``first``."""
        for field in fields(self):
            if type(field.default) is float:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        if self.weights:
            require_name(self.weights, field="weights")
            path = os.path.normpath(self.weights)
            if path == PRETRAINED != self.weights:  # a folder of that name
                path = f"{os.curdir}{os.sep}{path}"
            object.__setattr__(self, "weights", path)

    @property
    def normalised_by(self) -> str:
        """``data``, ``weights`` or ``imagenet``: what ``auto`` comes to."""
        if self.normalise != "auto":
            return self.normalise
        return "weights" if self.weights else "data"

    def _check_ranges(self) -> None:
        if not 0 < self.lr <= sys.float_info.max:
            raise UserError(f"lr {self.lr!r} must be a positive number", field="lr")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value < high:
                message = f"{name} {value!r} must be at least {low} and below {high}"
                raise UserError(message, field=name)
        for name in _SHARES:
            value = getattr(self, name)
            if not 0.1 <= value <= 1:
                message = f"{name} {value!r} must be from 0.1 to 1: a share of the image's side"
                raise UserError(message, field=name)
        shares = self.milestones
        if not all(type(x) in (int, float) and 0 < x < 1 for x in shares):
            message = f"milestones {shares!r} must be shares of training, between 0 and 1"
            raise UserError(message, field="milestones")
        object.__setattr__(self, "milestones", tuple(sorted(map(float, shares))))

    def _check_together(self) -> None:
        if self.batch_size % self.accumulate:
            message = f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            raise UserError(message, field="accumulate")
        if (self.mixup or self.cutmix) and self.batch_size // self.accumulate % 2:
            message = "mixup and cutmix pair images: they take an even number of them at a time"
            raise UserError(message, field="batch_size")
        if self.label_smoothing and self.loss == "binary" and (self.mixup or self.cutmix):
            message = (
                "label_smoothing is nothing to mixed labels under the binary loss: set it to 0"
            )
            raise UserError(message, field="label_smoothing")
        if self.head == "bn_linear" and self.batch_size // self.accumulate < 2:
            message = "head 'bn_linear' takes statistics of at least 2 images at a time"
            raise UserError(message, field="accumulate")
        if self.auto_augment:
            policy(self.auto_augment)
