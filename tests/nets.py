"""Small networks: cells of the grid, samples of them, and what tells two networks apart."""

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
import timm
import torch

from resnet_variants.models.arguments import ModelArgs
from resnet_variants.models.branches import ORDERS, Order
from resnet_variants.models.catalogue import list_models
from resnet_variants.models.grids import parse_name
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

# PyramidNet's: two norms at the last convolution, of which the second is bn2b or bn3b.
PYRAMID = Order("norm act conv", "norm act conv norm +", stem="norm", head="norm act", project="")


def small(**fields):
    """A network of eight layers, but for these fields."""
    return Variant(**{"family": "cifar", "depth": 8} | fields)


def cells(axes):
    """The product of the choices, without what cannot be built and without duplicates."""
    rows = (dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values()))
    return list(dict.fromkeys(Variant(**row) for row in rows if buildable(row)))


def buildable(fields, **model_args):
    try:
        ModelArgs(**model_args).check(Variant(**fields))
    except UserError:
        return False
    return True


def pairwise(axes, allowed):
    """Rows that hold every two choices of two axes, and the pairs that no row may hold.

    Greedy: of many rows with one pair that is missing, the row with most missing pairs. The first
    choices go with most others: the fewer further ones in a row, the likelier it is allowed.
    """
    rng = random.Random(0)
    missing = dict.fromkeys(
        pair
        for a, b in itertools.combinations(axes, 2)
        for pair in itertools.product(((a, x) for x in axes[a]), ((b, y) for y in axes[b]))
    )
    rows, impossible = [], []
    while missing:
        wanted = next(iter(missing))
        tries = [
            {a: rng.choice(axes[a]) if rng.random() < share / 100 else axes[a][0] for a in axes}
            | dict(wanted)
            for share in range(101)
        ]
        tries = [row for row in tries if allowed(row)]
        if tries:
            best = max(tries, key=lambda row: len(_pairs(row) & missing.keys()))
            rows.append(best)
        else:
            impossible.append(dict(wanted))
        for pair in _pairs(best) if tries else [wanted]:
            missing.pop(pair, None)
    return rows, impossible


def _pairs(row):
    return set(itertools.combinations(row.items(), 2))


def each_once(rows):
    """The rows that hold a choice which no row before them holds."""
    seen, kept = set(), []
    for row in rows:
        if not seen.issuperset(row.items()):
            kept.append(row)
            seen.update(row.items())
    return kept


# Which rows of a sample a test looks at: the slow one at all of them.
CHOSEN = [
    pytest.param(each_once, id="every choice"),
    pytest.param(list, id="every two choices", marks=pytest.mark.slow),
]


def one_of_each_kind():
    """The shallowest registered name of each kind of unit, with each stem and order."""

    def kind(name):
        v = parse_name(name)
        return v.family, v.block, v.cardinality, v.base_width, v.stem, v.order

    deepest_first = sorted(list_models(), key=lambda name: -parse_name(name).depth)
    return list({kind(name): name for name in deepest_first}.values())


def failures(check, cases):
    """What went wrong in which case: one test speaks of hundreds."""
    found = {}
    for case in cases:
        try:
            check(case)
        except (Exception, pytest.fail.Exception) as error:
            found[str(getattr(case, "name", case))] = (
                f"{type(error).__name__}: {error}".splitlines()[0]
            )
    return found


def forced(variant, **fields):
    """The variant with fields that its constructor would have replaced."""
    other = replace(variant)
    for name, value in fields.items():
        object.__setattr__(other, name, value)
    return other


def structure(model):
    """Every module by name, with its type and what its constructor was told."""
    simple = (bool, int, float, str, tuple)
    return [
        (name, type(m).__name__, {k: v for k, v in vars(m).items() if isinstance(v, simple)})
        for name, m in model.named_modules()
    ]


def function(model, x):
    """Some outputs that tell what a float64 model computes, whatever its layers are called.

    The n-th layer of a kind, in the order in which layers run, gets the n-th weights of that kind.
    """
    seen = Counter()
    for module in model.train().modules():
        for name, tensor in module.named_parameters(recurse=False):
            numbers = torch.arange(tensor.numel(), dtype=torch.float64)
            waves = (1.7 * numbers + 2.9 * seen[type(module)]).sin().reshape(tensor.shape)
            # Below zero an activation like silu falls: no max-pool may stand on its other side.
            shift = (-1.0 if name == "bias" else 1.0) if tensor.ndim == 1 else 0.0
            scale = tensor[0].numel() ** -0.5
            tensor.data.copy_(waves * scale + shift)
        seen[type(module)] += 1
    torch.manual_seed(0)
    return tuple(round(y, 9) for y in model(x).flatten().tolist())


def trains(variant):
    """The model that a name stands for, after a backward pass that reached every parameter."""
    assert parse_name(variant.name) == variant
    model = timm.create_model("resnet_variant", variant=variant.name, num_classes=3)
    model(torch.randn(2, 3, 17, 17)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    return model


def orders(shortcut):
    """The orders that go with a shortcut: a plain net has no addition to differ at."""
    return ["post"] if shortcut == "none" else list(ORDERS)
