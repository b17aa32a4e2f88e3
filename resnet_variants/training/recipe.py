"""How any network is trained: everything that is not the variant, the data or the seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from resnet_variants.registry import Registry, UserError, refuse, require_name
from resnet_variants.settings import (
    MILLION,
    POSITIVE,
    Amount,
    Count,
    Fraction,
    Head,
    InitFan,
    Precision,
    Range,
    check_fields,
)

if TYPE_CHECKING:  # commands read the recipe before they load torch
    from torch import Generator, Tensor

PRETRAINED = "pretrained"  # as weights: timm's published ones of the same network
SideShare: TypeAlias = Annotated[
    float, Range(0.1, 1, text="from 0.1 to 1: a share of the image's side")
]

# Augmentations of one's own; the package has none. An entry gets uint8 images (n, C, H, W) and a
# random stream, and returns uint8 images of the same shape.
AUGMENTATIONS: Registry[Callable[[Tensor, Generator], Tensor]] = Registry("augment")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to train; --recipe and RECIPES have those of papers.

    The defaults are also the reference of run ids: a run's id names what differs from them.

    Raises:
        ValueError: a number out of range or an unknown choice; the message names the field.
    """

    epochs: Count = 20  # passes over the training split
    # images per step of the optimizer, on all devices together
    batch_size: Annotated[int, Range(2, MILLION)] = 32
    # nesterov: SGD with Nesterov momentum
    optimizer: Literal["nesterov", "sgd", "adamw", "lamb"] = "nesterov"
    lr: Annotated[float, POSITIVE] = 0.1  # the largest: at the end of the warm-up
    momentum: Fraction = 0.9  # beta 1 of adamw and lamb
    weight_decay: Amount = 5e-4  # on the gradient in sgd, on the step in adamw and lamb
    # tensors that weight decay acts on; weights: those with ndim > 1
    decay: Literal["weights", "all"] = "weights"
    # cosine: to zero; step: see milestones; onecycle: arXiv:1708.07120
    schedule: Literal["cosine", "step", "onecycle", "constant"] = "cosine"
    # step: shares of training at which lr falls to a tenth
    milestones: tuple[Annotated[float, Range(0, 1, closed="neither")], ...] = (0.5, 0.75)
    warmup: Fraction = 0.1  # share of all steps, linear; onecycle: its rise
    label_smoothing: Fraction = 0.0  # arXiv:1512.00567, section 7
    # binary: every class by itself; a label mixed in by over 0.2 counts
    loss: Literal["cross_entropy", "binary"] = "cross_entropy"
    mixup: Amount = 0.0  # alpha of arXiv:1710.09412; 0: none
    cutmix: Amount = 0.0  # alpha of arXiv:1905.04899; 0: none; beside mixup, every second batch
    crop_padding: Fraction = 0.125  # of the side: 4 px at 32 px (arXiv:1512.03385, section 4.2)
    # above 0: random resized crops of at least this area, not padded ones
    crop_area: Fraction = 0.0
    # of images that keep their label; alternating: arXiv:2404.00498
    flip: Literal["random", "alternating", "none"] = "random"
    color_jitter: Fraction = 0.0  # brightness, contrast, saturation within 1 ± this
    cutout: Fraction = 0.0  # side of the square as a share of the image's (arXiv:1708.04552)
    auto_augment: str = ""  # timm's name of a policy, such as rand-m6-mstd0.5-inc1; slow
    augment: str = ""  # an augmentation that a plugin registers, after all others of images
    # side of training images in the first epoch, as a share of img_size
    size_start: SideShare = 1.0
    size_end: SideShare = 1.0  # side in the last epoch; linear in between
    crop_pct: SideShare = 1.0  # share of the side that tests see, as in timm: 0.875 is 224 of 256
    # source of mean and deviation; data: the training images; auto: that of the weights, and data
    # where the weights have none
    normalise: Literal["auto", "data", "imagenet"] = "auto"
    # stochastic depth (arXiv:1603.09382): the rate at the last unit, rising linearly
    drop_path_rate: Fraction = 0.0
    drop_rate: Fraction = 0.0  # dropout before the classifier
    # of the last maps before the classifier
    global_pool: Literal["avg", "max", "avgmax"] = "avg"
    zero_init_last: bool = False  # every branch starts as zero (arXiv:1812.01187, section 3.1)
    init_fan: InitFan = "fan_out"  # whose variance the initial convolutions keep
    conv_bias: bool = False  # biases of convolutions that norms follow; norms subtract them
    weights: str = ""  # initial weights of the body: a run, a results folder, or pretrained
    head: Head = "linear"  # bn_linear: a batch norm of the pooled features before the classifier
    clip_grad: Amount = 0.0  # largest norm of the whole gradient; 0: none
    accumulate: Count = 1  # parts that a batch is computed in; batch norm sees a part
    ema: Fraction = 0.0  # decay of a moving average of the weights, which is then tested; 0: none
    sync_bn: bool = True  # batch statistics over all devices; else each device's own
    select: Literal["last", "best"] = "last"  # epoch whose weights are tested; best: on validation
    precision: Precision = "auto"  # auto: bf16 where the device has instructions for it
    deterministic: bool = False  # same seed, same machine: same weights, bit for bit

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))
        if self.weights:
            object.__setattr__(self, "weights", self._weights_path())
        if self.augment and self.augment not in AUGMENTATIONS:
            registered = AUGMENTATIONS or ["none: --plugin names the file that registers it"]
            refuse("augment", self.augment, registered)
        self._check_together()

    def _weights_path(self) -> str:
        """One spelling of one path: ``first/`` is ``first``, a folder ``pretrained`` has ``./``."""
        require_name(self.weights, field="weights")
        path = os.path.normpath(self.weights)
        return f"{os.curdir}{os.sep}{path}" if path == PRETRAINED != self.weights else path

    @property
    def normalised_by(self) -> str:
        """``data``, ``weights`` or ``imagenet``: the meaning of ``auto`` here."""
        if self.normalise != "auto":
            return self.normalise
        return "weights" if self.weights else "data"

    def size(self, epoch: int) -> float:
        """The side of an epoch's images, from 1 on, as a share of the data set's."""
        done = (epoch - 1) / max(1, self.epochs - 1)
        return self.size_start + (self.size_end - self.size_start) * done

    def _check_together(self) -> None:
        if self.batch_size % self.accumulate:
            message = f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}"
            raise UserError(message, field="accumulate")
        if (self.mixup or self.cutmix) and self.batch_size // self.accumulate % 2:
            message = "mixup and cutmix pair images: they take an even number of them at a time"
            raise UserError(message, field="batch_size")
        if self.label_smoothing and self.loss == "binary" and (self.mixup or self.cutmix):
            message = "label_smoothing is nothing to mixed labels under the binary loss"
            raise UserError(f"{message}: set it to 0", field="label_smoothing")
        if self.head == "bn_linear" and self.batch_size // self.accumulate < 2:
            message = "head 'bn_linear' takes statistics of at least 2 images at a time"
            raise UserError(message, field="accumulate")


# --- recipes of papers, as far as this loop can follow them -----------------------------------

RECIPES: Registry[Recipe] = Registry("recipe", default=Recipe())

# arXiv:1512.03385, section 4.2: 64k steps of 128 CIFAR images, lr 0.1, divided by ten at 32k and
# 48k, weight decay on everything; without the warm-up that ResNet-110 alone has there. 45,000
# training images make 351 steps an epoch.
RECIPES["he2015"] = Recipe(
    epochs=182,
    batch_size=128,
    optimizer="sgd",
    lr=0.1,
    weight_decay=1e-4,
    decay="all",
    schedule="step",
    milestones=(0.5, 0.75),
    warmup=0.0,
    init_fan="fan_in",  # arXiv:1502.01852, equation 10
)
# arXiv:1603.05027, appendix: as before, after 400 steps of warm-up. There lr is 0.01 for all of
# them; here it rises linearly.
RECIPES["he2016"] = replace(RECIPES["he2015"], warmup=400 / 64_000)
# arXiv:1812.01187, sections 2.1, 3.1 and 5: Nesterov SGD, lr 0.1 per 256 images, five epochs of
# warm-up, cosine, no decay of biases, zero gamma, label smoothing, mixup, 200 epochs. Left out are
# jitter of hue, the noise along principal components, Xavier's initialisation and distillation;
# jitter of contrast comes with timm's form of it. Tests there are on the central 224 of 256 pixels:
# `--crop-pct 0.875`.
RECIPES["bag_of_tricks"] = Recipe(
    epochs=200,
    batch_size=256,
    lr=0.1,
    weight_decay=1e-4,
    warmup=5 / 200,
    label_smoothing=0.1,
    mixup=0.2,
    crop_area=0.08,
    color_jitter=0.4,
    zero_init_last=True,
)
# arXiv:2110.00476, table 2, column A3: LAMB, binary loss, training at 160 for testing at 224 px.
# It takes `--img-size 224`. The batch is 2,048 there, on several GPUs: `accumulate` makes it fit on
# one. Tests there are on the central 95 %: `--crop-pct 0.95`.
RECIPES["rsb_a3"] = Recipe(
    epochs=100,
    batch_size=2048,
    optimizer="lamb",
    lr=8e-3,
    weight_decay=0.02,
    clip_grad=1.0,  # timm's LAMB does so by itself
    warmup=0.05,
    loss="binary",
    mixup=0.1,
    cutmix=1.0,
    crop_area=0.08,
    auto_augment="rand-m6-mstd0.5-inc1",
    size_start=160 / 224,
    size_end=160 / 224,
)
# For small images and little time: one cycle, alternating flips, the average of the weights.
RECIPES["fast"] = Recipe(
    epochs=12,
    batch_size=256,
    lr=0.4,
    schedule="onecycle",
    warmup=0.25,
    label_smoothing=0.1,
    flip="alternating",
    ema=0.99,
)
