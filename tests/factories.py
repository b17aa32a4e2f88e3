"""Runs, summaries and results folders made by hand: nothing is trained."""

import contextlib
import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from resnet_variants.analysis import factors
from resnet_variants.analysis.comparison import Comparison, comparisons
from resnet_variants.analysis.images import IMAGE_COLUMNS
from resnet_variants.analysis.summary import SUMMARY_COLUMNS
from resnet_variants.models.variant import Variant
from resnet_variants.records.diagnosis import NOISE, OTHER_CLASS, SHIFT, TABLES, TRUE_CLASS
from resnet_variants.records.files import to_json, write_atomically
from resnet_variants.records.pictures import picture_text
from resnet_variants.records.results_folder import (
    EPOCH_COLUMNS,
    FURTHER_COLUMNS,
    RUN_COLUMNS,
    read_epochs,
    read_runs,
)
from resnet_variants.records.run_folder import DONE, RunFolder
from resnet_variants.reporting.figures.style import rendered
from resnet_variants.sweeps.arms import arms_of
from resnet_variants.training.recipe import Recipe

DRAWING = ("resnet_variants.api.rendered", "resnet_variants.reporting.build.rendered")
AXES = ("preset", "stem", "stride", "shortcut", "order", "macs")
A, B, D, D_PRE = "net_a", "net_b", "net_d", "net_d_preact"
MODELS = {
    A: ("A", "conv7", "1x1", "conv", "post", 4_000_000),
    B: ("B", "conv7", "3x3", "conv", "post", 5_000_000),
    D: ("D", "deep", "3x3", "avgpool", "post", 6_000_000),
    D_PRE: ("D", "deep", "3x3", "avgpool", "preact", 6_000_000),
    "net_free": ("", "conv7", "1x1", "avgpool", "preact", 4_500_000),
}
PICTURE = picture_text(np.full((8, 8, 1), 128, np.uint8))
# What is known of a run before it starts; the rest of a row is its result.
_BEFORE = RUN_COLUMNS[2 : RUN_COLUMNS.index("test_acc")]
CONFIG = ("run_id", *_BEFORE, "device", "precision", *FURTHER_COLUMNS)


def cells_of(variants: Iterable[Variant]) -> pd.DataFrame:
    """The networks as arms without varied settings."""
    return factors.cells_of(arms_of(tuple(variants), Recipe(), {}))


def no_space(*_: object, **__: object) -> None:
    """What a full disk makes of any call."""
    raise OSError(errno.ENOSPC, "No space left on device")


def undrawn(_: object, name: str) -> dict[str, bytes]:
    """Files in place of those of a figure."""
    return {f"{name}.png": b"", f"{name}.svg": b""}


@contextlib.contextmanager
def drawing(only: str = "") -> Iterator[None]:
    """Within the block, reports draw their figures, or one of them."""

    def draw(figure: Figure, name: str) -> dict[str, bytes]:
        return rendered(figure, name) if only in ("", name) else undrawn(figure, name)

    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWING:
            patch.setattr(name, draw)
        yield


def variant_columns(model: str) -> dict[str, object]:
    """The columns of a run and of a summary that depend on the variant alone."""
    axes = dict(zip(AXES, MODELS[model], strict=True))
    size = {"params": 70_000, "flops": 2 * MODELS[model][-1], "acts": 90_000}
    own = {"model": model, "family": "cifar", "depth": 29, "stem_stride": 1}
    own |= {"block": "bottleneck", "base_width": 16}
    return {name: vars(Variant())[name] for name in FURTHER_COLUMNS} | own | axes | size


def run_row(model: str, seed: int = 0, acc: float = 0.9, **changes: object) -> dict[str, object]:
    """One done run; with a ``status`` other than done it has no scores."""
    dataset, epochs = changes.get("dataset", "digits"), changes.get("epochs", 2)
    row = variant_columns(model) | {
        "run_id": f"{model}__{dataset}__{epochs}__s{seed}".replace("/", "-"),
        "status": DONE,
        "dataset": dataset,
        "img_size": 8,
        "epochs": epochs,
        "seed": seed,
        "device": "cpu",
        "precision": "fp32",
        "seconds": 3.3,
    }
    scores = {"test_acc": acc, "test_loss": 1 - acc, "val_acc": acc, "train_loss": 0.1}
    if changes.get("status", DONE) == DONE:
        row |= scores | {"images_per_second": 1234.5, "peak_memory_mb": 99.25}
    return row | changes


def runs_frame(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Rows as ``records.read_runs`` returns them."""
    return pd.DataFrame(list(rows), columns=list(RUN_COLUMNS))


def paired_rows(scores: Mapping[str, Iterable[float]], **changes: object) -> list[dict]:
    """Done runs: the accuracies of each model by seed, from 0."""
    return [
        run_row(model, seed, acc, **changes)
        for model, accs in scores.items()
        for seed, acc in enumerate(accs)
    ]


def summary_row(model: str, mean: float = 0.9, half: float = 0.01, n: int = 3) -> dict:
    """A row of a summary; ``half`` is half the width of the interval."""
    nan = float("nan")
    missing = dict.fromkeys(("delta", "delta_ci_low", "delta_ci_high", "p_value"), nan)
    low, high = (mean - half, mean + half) if n > 1 else (nan, nan)
    measured = {"n": n, "seeds": " ".join(map(str, range(n))), "failed": 0}
    measured |= {"test_acc_mean": mean, "test_acc_sd": half if n > 1 else nan}
    measured |= {"test_acc_ci_low": low, "test_acc_ci_high": high, "images_per_second": 1234.5}
    labels = {"baseline": "", "verdict": "", "on_pareto_front": False, "pairs": 0}
    labels |= {"paper": "", "paper_delta": nan, "front_probability": nan, "test_acc_common": mean}
    group = {"dataset": "digits", "img_size": 8, "epochs": 2}
    return variant_columns(model) | missing | measured | labels | group


def comparison(runs: pd.DataFrame, baselines=None, **more) -> Comparison:
    """The runs as the one comparison that they are."""
    (only,) = comparisons(runs, baselines or {}, **more)
    return only


def summarised(*rows: Mapping[str, object]) -> Comparison:
    """A comparison with this summary, whatever its runs."""
    axes, dataset = variant_columns(A).keys(), rows[0]["dataset"]
    runs = [
        run_row(A, seed, dataset=dataset) | {name: row[name] for name in axes}
        for seed, row in enumerate(rows)
    ]
    made = comparison(runs_frame(runs))
    vars(made)["summary"] = pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, *IMAGE_COLUMNS])
    return made


def epoch_records(row: Mapping[str, object]) -> list[dict[str, object]]:
    """What a run of two epochs writes while it trains; no two runs or epochs alike."""
    seed = float(str(row["seed"]))
    return [
        {
            "epoch": epoch,
            "lr": 0.1 / epoch,
            "train_loss": 1 / (epoch + seed / 7),
            "val_loss": 1.1 / epoch,
            "val_acc": 1 - 0.3 / (epoch + seed / 3),
            "seconds": 1.7,
            "images_per_second": 1000 / 3,
            "train_acc": 1 - 0.4 / (epoch + seed / 3),
            "grad_norm": 2.5 / epoch,
        }
        for epoch in (1, 2)
    ]


def epochs_of(runs: pd.DataFrame) -> pd.DataFrame:
    """What finished runs wrote, as ``read_epochs`` returns it."""
    records = [
        {name: row[name] for name in ("run_id", "model", "seed")} | record
        for row in runs[runs["status"] == DONE].to_dict("records")
        for record in epoch_records(row)
    ]
    return pd.DataFrame(records, columns=list(EPOCH_COLUMNS))


def results_folder(
    out: Path,
    rows: Iterable[Mapping[str, object]],
    *,
    planned: Iterable[str] | None = None,
    baselines: Mapping[str, str] | None = None,
) -> Path:
    """The files that these runs leave behind; ``unfinished`` ones have no result."""
    rows = list(rows)
    ids = [str(row["run_id"]) for row in rows] if planned is None else list(planned)
    (out / "runs").mkdir(parents=True)
    experiment = {"question": "?", "runs": ids, "baselines": dict(baselines or {})}
    write_atomically(out / "experiment.json", to_json(experiment))
    for row in rows:
        folder = RunFolder(out / "runs" / str(row["run_id"]))
        folder.start({key: row[key] for key in CONFIG})
        for record in epoch_records(row):
            folder.append("epochs", record)
        folder.log("trained by hand")
        if row["status"] != "unfinished":
            folder.finish({key: value for key, value in row.items() if key not in CONFIG})
    return out


def as_tables(out: Path, target: Path) -> Path:
    """The same results as a clone holds them: runs.csv and epochs.csv, no runs folder."""
    target.mkdir()
    runs = read_runs(out)
    runs.to_csv(target / "runs.csv", index=False)
    read_epochs(out, runs).to_csv(target / "epochs.csv", index=False)
    return target


def without_runs(out: Path, target: Path) -> Path:
    """All that a report left in the folder, as a repository keeps it: no raw runs."""
    return shutil.copytree(out, target, ignore=shutil.ignore_patterns("runs"))


def diagnosis(row: Mapping[str, object]) -> dict[str, pd.DataFrame]:
    """The smallest tables that a diagnosis of a run may have: one unit, two paths."""
    keys = {name: row[name] for name in ("run_id", "model", "seed")} | {"n": 9, "unit": 0}
    at = keys | {"name": "layer1.0", "epoch": 2}
    norms = {"input_norm": 1.0, "grad_norm": 0.5, "shortcut_norm": 1.0, "branch_norm": 0.2}
    path = {"share": 0.5, "grad_norm_sd": 0.1, "contribution": 0.5, "draws": 2}
    rows = {
        "gradient_flow": [at | norms | {"epoch": epoch} for epoch in (0, 2)],
        "paths": [at | norms | path | {"length": length} for length in (0, 1)],
        "lesion": [
            at
            | {"kind": kind, "keeps_shape": 1, "deleted": n, "exchanged": 0, "draw": 0}
            | {"acc": 0.9 - 0.1 * n, "loss": 0.3, "kendall_tau": 1.0}
            for n, kind in enumerate(("none", "delete"))
        ],
        "identity_distance": [at | {"branch_to_shortcut": 0.5, "cosine": 0.9, "epoch": 2}],
        "sensitivity": [
            at | {"kind": "growth", "growth": 1.5},
            *(at | {"kind": "noise", "noise_sd": sd, "acc": 0.9 - sd} for sd in (0.0, NOISE)),
        ],
        "shifts": [
            at | {"share": share, "shift": 4, "acc": 0.9 - share, "kept": 1 - share}
            for share in (0.0, SHIFT)
        ],
        "class_maps": [
            at
            | {"image": 0, "kind": kind, "class": n, "class_name": f"0{n}", "logit": 1.0 - n}
            | {"probability": 0.6 - 0.2 * n, "map": "0 1;1 2", "picture": PICTURE * (n == 0)}
            for n, kind in enumerate((TRUE_CLASS, OTHER_CLASS))
        ],
    }
    return {name: pd.DataFrame(own, columns=[*TABLES[name].header]) for name, own in rows.items()}


def diagnosed_folder(out: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """``results_folder`` whose runs have been diagnosed."""
    rows = list(rows)
    results_folder(out, rows)
    for row in rows:
        for name, table in diagnosis(row).items():
            table.to_csv(out / "runs" / str(row["run_id"]) / f"{name}.csv", index=False)
    return out
