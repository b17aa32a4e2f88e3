"""Recipes that are named after papers, as far as this loop can follow them."""

from __future__ import annotations

from dataclasses import replace

from resnet_variants.registry import Registry
from resnet_variants.training.recipe import Recipe

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
    zero_init=True,
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
