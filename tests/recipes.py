"""A value other than the default for every field of ``Recipe``."""

OTHERS = {
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.05,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "warmup": 0.9,
    "crop_padding": 0.25,
    "precision": "bf16",
    "deterministic": True,
}
