"""Another value than the default for every field of ``Recipe``, and where it shows."""

from resnet_variants.training.recipe import Recipe

OTHERS = {
    "epochs": 3,
    "batch_size": 16,
    "optimizer": "adamw",
    "lr": 0.05,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "decay": "all",
    "schedule": "step",
    "milestones": (0.25,),
    "warmup": 0.9,
    "label_smoothing": 0.1,
    "loss": "binary",
    "mixup": 0.2,
    "cutmix": 1.0,
    "crop_padding": 0.25,
    "crop_area": 0.5,
    "flip": "alternating",
    "color_jitter": 0.4,
    "cutout": 0.5,
    "auto_augment": "rand-m6-mstd0.5-inc1",
    "size_start": 0.5,
    "size_end": 0.5,
    "crop_pct": 0.5,
    "normalise": "imagenet",
    "drop_path": 0.5,
    "zero_init": True,
    "init_fan": "fan_in",
    "weights": "pretrained",
    "head": "bn_linear",
    "clip_grad": 0.1,
    "accumulate": 2,
    "ema": 0.9,
    "sync_bn": False,
    "select": "best",
    "precision": "bf16",
    "deterministic": True,
}

# What else a field needs to matter.
BESIDE = {"milestones": {"schedule": "step"}}


def changed(base: Recipe, field: str) -> tuple[Recipe, Recipe]:
    """Two recipes that differ in one field, where it matters."""
    settings = vars(base) | BESIDE.get(field, {})
    return Recipe(**settings), Recipe(**settings | {field: OTHERS[field]})
