"""Trainings that take a second: a hundred digits and an eight-layer network."""

import contextlib
import dataclasses

import torch

from resnet_variants.data.dataset import load_dataset
from resnet_variants.models.variant import Variant
from resnet_variants.models.zoo import build
from resnet_variants.registry import UserError
from resnet_variants.sweeps.execute import Job, RunStatus, execute_run
from resnet_variants.sweeps.run import Run
from resnet_variants.sweeps.sweep import is_complete, run_sweep
from resnet_variants.training.device import Machine, determinism, make_fabric
from resnet_variants.training.interrupt import Stop
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import fit

CPU = Machine(device="cpu")


def digits(val=40):
    data = load_dataset("digits")
    return dataclasses.replace(data, train=data.train.head(96), val=data.val.head(val))


def recipe(**fields):
    """Three steps an epoch of 96 digits, in fp32 and repeatable."""
    fields = {"epochs": 3, "precision": "fp32", "deterministic": True} | fields
    return Recipe(**fields)


def network(seed=0, *, order="post", recipe=None):
    torch.manual_seed(seed)
    recipe = recipe or Recipe()
    return build(
        Variant(family="cifar", depth=8, order=order),
        in_chans=1,
        num_classes=10,
        drop_path_rate=recipe.drop_path_rate,
        zero_init_last=recipe.zero_init_last,
        init_fan=recipe.init_fan,
    )


def train(model, recipe, *, data=None, seed=0, checkpointer=None):
    fabric = make_fabric(CPU, recipe.precision)
    with determinism(recipe.deterministic):
        data = data or digits()
        return list(fit(model, data, recipe, seed=seed, fabric=fabric, checkpointer=checkpointer))


def digits_run(seed=0, *, order="post", **fields):
    """A run on all digits, four steps an epoch."""
    fields = {"batch_size": 256, "epochs": 2} | fields
    variant = Variant(family="cifar", depth=8, order=order)
    return Run(variant, "digits", recipe(**fields), seed)


def execute(run, path, machine=CPU, *, hear=lambda record: None, stop=None, **job):
    """Execute a run and hear its records: its result, ``None`` where it was stopped."""
    job = Job(run, path, machine, **job)
    with contextlib.closing(execute_run(job, run.load(), stop or Stop())) as messages:
        for message in messages:
            if not isinstance(message, RunStatus):
                hear(message)
                continue
            if message.kind not in ("ended", "stopped"):
                raise UserError(message.reason)
            return message.result
    return None


def sweep(experiment, out, options, hear=lambda event: None):
    """Train the runs that are missing and hear the events; whether all runs are done."""
    with contextlib.closing(run_sweep(experiment, out, options)) as events:
        for event in events:
            hear(event)
    return is_complete(experiment, out)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    """Whether two dicts of tensors are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def measured(records):
    """Records, or lines of epochs.jsonl, without what a clock says."""
    rows = [r if isinstance(r, dict) else dataclasses.asdict(r) for r in records]
    clock = ("seconds", "images_per_second")
    return [{key: row[key] for key in row if key not in clock} for row in rows]
