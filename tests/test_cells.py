"""Every cell of the grid trains; a sample with every two choices keeps all of timm's contract."""

import functools
import warnings

import pytest
import timm
import torch
from nets import CHOSEN, buildable, cells, failures, pairwise
from timm.models import group_parameters

from resnet_variants.models.branches import ANTIALIASES, ATTENTIONS, ORDERS, STRIDES
from resnet_variants.models.network import ResNet
from resnet_variants.models.norms import BRANCH_SCALES, NORMS
from resnet_variants.models.shortcuts import SHORTCUTS, SKIPS
from resnet_variants.models.stems import STEM_STRIDES, STEMS
from resnet_variants.models.variant import Variant

# Odd on purpose: a shortcut that rounds otherwise than its branch cannot be added to it.
SIDE = 17
TABLES = {
    "stem": STEMS,
    "stem_stride": STEM_STRIDES,
    "stride": STRIDES,
    "shortcut": SHORTCUTS,
    "order": ORDERS,
}


def assert_trains(model, x):
    logits = model.train()(x)
    assert logits.shape == (len(x), model.num_classes)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert [n for n, p in model.named_parameters() if not p.grad.isfinite().all()] == []


# --- the whole grid ---------------------------------------------------------------------------


@pytest.mark.slow  # the default suite has every two choices, below
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("depth", [8, 11])
def test_every_cell_of_the_grid_trains(depth, stem):
    axes = {"family": ["cifar"], "depth": [depth]} | TABLES | {"stem": [stem]}
    x = torch.randn(2, 3, SIDE, SIDE)
    assert failures(lambda v: assert_trains(ResNet(v, num_classes=7), x), cells(axes)) == {}


# --- every two choices ------------------------------------------------------------------------

# Depth, block, groups and their width; two units per stage show what happens between units.
SIZES = [
    *((11, "bottleneck", 1, 16), (8, "basic", 1, 16), (14, "basic", 1, 16)),
    *((20, "bottleneck", 4, 4), (11, "bottleneck", 1, 32)),
]
AXES = {axis: list(table) for axis, table in TABLES.items()} | {
    "size": SIZES,
    "skip": [skip for skip in SKIPS if skip != "conv"],  # a spelling of conv_all
    "attention": list(ATTENTIONS),
    "antialias": list(ANTIALIASES),
    "norm": list(NORMS),
    "act": ["relu", "silu"],  # all are built in test_arguments
    "branch_scale": list(BRANCH_SCALES),
    "drop_path_rate": [0.0, 0.3],
    "drop_block_rate": [0.0, 0.3],
    "global_pool": ["avg", "catavgmax"],
}
ARGUMENTS = ("drop_path_rate", "drop_block_rate", "global_pool")


def split(row):
    """The fields of a row's variant, and its model's arguments."""
    spelling = {"family": "cifar"} | {k: v for k, v in row.items() if k not in ARGUMENTS}
    sizes = ("depth", "block", "cardinality", "base_width")
    spelling |= dict(zip(sizes, spelling.pop("size"), strict=True))
    return spelling, {name: row[name] for name in ARGUMENTS}


def allowed(row):
    """Whether there is such a variant, and it is not a spelling of another."""
    spelling, args = split(row)
    if not buildable(spelling, **args):
        return False
    variant = Variant(**spelling)
    return all(getattr(variant, field) == value for field, value in spelling.items())


@functools.cache
def sample():
    return pairwise(AXES, allowed)


class Case:
    """A cell with its model's arguments; the same weights in every model that it makes."""

    def __init__(self, row):
        spelling, self.args = split(row)
        self.row, self.variant = row, Variant(**spelling)
        self.name = f"{self.variant.name} {self.args}"
        self.x = torch.randn(2, 3, SIDE, SIDE)
        self.state = self.model().state_dict()

    def model(self, **kwargs):
        kwargs = {"num_classes": 7} | self.args | kwargs
        model = timm.create_model("resnet_variant", variant=self.variant.name, **kwargs)
        if hasattr(self, "state") and kwargs.get("device") != "meta":
            model.load_state_dict(self.state, strict=not kwargs.get("features_only"))
        return model.eval()


def test_the_sample_leaves_out_only_what_is_no_variant():
    _, impossible = sample()
    wanted = [{"shortcut": "none", "skip": skip} for skip in AXES["skip"][1:]]
    wanted += [{"shortcut": "none", "order": order} for order in AXES["order"][1:]]
    wanted += [{"shortcut": "none", "drop_path_rate": 0.3}]
    wanted += [{"shortcut": "none", "branch_scale": scale} for scale in AXES["branch_scale"][1:]]
    wanted += [{"norm": "none", "branch_scale": "zero_gamma"}]
    wanted += [{"norm": norm, "branch_scale": "fixup"} for norm in AXES["norm"] if norm != "none"]
    wanted += [
        {"order": order, "branch_scale": "fixup"}
        for order in ("bn_after_add", "relu_before_add", "relu_preact")
    ]
    wanted += [{"order": "relu_before_add", "branch_scale": "zero_gamma"}]
    wanted += [{"order": order, "norm": "none"} for order in ("bn_after_add", "relu_preact")]
    wanted += [{"stride": "1x1", "size": size} for size in SIZES if "basic" in size]
    wanted += [{"shortcut": "conv_all", "size": size} for size in SIZES if size[0] == 11]
    assert [pair for pair in wanted if pair not in impossible] == []
    assert [pair for pair in impossible if pair not in wanted] == []


CHECKS = []


def contract(check):
    CHECKS.append(check)
    return check


@contract
def heads_and_pooling(case):
    model = case.model()
    final = model.forward_features(case.x)
    assert final.shape[1] == model.num_features
    assert torch.equal(model.forward_head(final), model(case.x))
    pooled = model.forward_head(final, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pooled), model(case.x))
    model.reset_classifier(5)
    assert (model(case.x).shape, model.num_classes) == ((2, 5), 5)
    assert model.global_pool.pool_type == case.args["global_pool"]
    model.reset_classifier(0)
    assert torch.equal(model(case.x), pooled)
    model.reset_classifier(0, "")
    assert torch.equal(model(case.x), final)
    model.reset_classifier(3, "max")
    assert (model(case.x).shape, model.head_hidden_size) == ((2, 3), model.num_features)


@contract
def features(case):
    model, listed = case.model(), case.model(features_only=True)
    final, maps = model.forward_intermediates(case.x)
    assert torch.equal(final, model.forward_features(case.x))
    for one, other in zip(maps, listed(case.x), strict=True):
        assert torch.equal(one, other)
    assert [m.shape[1] for m in maps] == listed.feature_info.channels()
    sides = [-(-SIDE // reduction) for reduction in listed.feature_info.reduction()]
    assert [m.shape[2] for m in maps] == sides
    assert len(maps) == 1 + len(case.variant.units)
    (normed,) = model.forward_intermediates(case.x, 1, norm=True, intermediates_only=True)
    assert torch.equal(normed, final)
    early = model.forward_intermediates(case.x, [0, 1], stop_early=True, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(early, maps[:2], strict=True))


@contract
def pruning(case):
    maps = case.model().forward_intermediates(case.x, intermediates_only=True)
    for take in ([0], [0, 2], [3]):
        model = case.model()
        assert model.prune_intermediate_layers(take, prune_norm=True) == take
        final, kept = model.forward_intermediates(case.x, take)
        assert all(torch.equal(kept[i], maps[at]) for i, at in enumerate(take))
        assert torch.equal(final, kept[-1])
        assert final.shape[1] == model.num_features
        assert model(case.x).shape == final.shape
    model = case.model()
    model.prune_intermediate_layers([3], prune_norm=False, prune_head=False)
    assert torch.equal(model(case.x), case.model()(case.x))


@contract
def dtype_and_device(case):
    wide = case.model(dtype=torch.float64)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    assert torch.allclose(wide(case.x.double()).float(), case.model()(case.x), atol=1e-4)
    wide.reset_classifier(3)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    meta = case.model(device="meta")
    assert {t.device.type for t in [*meta.parameters(), *meta.buffers()]} == {"meta"}
    assert meta(case.x.to("meta")).shape == (2, 7)


@contract
def checkpointing(case):
    results = []
    for enable in (False, True):
        model = case.model().train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        logits = model(case.x)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@contract
def scripting(case):
    model = case.model()
    model.reset_classifier(7, "avg")  # timm's catavgmax cannot be scripted
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and says so
        scripted = torch.jit.script(model)
        assert torch.allclose(scripted(case.x), model(case.x), atol=1e-5)


@contract
def parameter_groups(case):
    model = case.model()
    groups = group_parameters(model, model.group_matcher())
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(groups) == 2 + sum(case.variant.units)
    assert all(name.startswith(("conv1", "bn1")) for name in groups[0])
    assert all(name.startswith(("norm", "fc")) for name in list(groups.values())[-1])
    assert len(group_parameters(model, model.group_matcher(coarse=True))) == 2 + 3


@pytest.fixture(scope="module")
def cases():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return [Case(row) for row in sample()[0]]


def test_every_two_choices_train(cases):
    assert failures(lambda case: assert_trains(case.model(), case.x), cases) == {}


@pytest.mark.parametrize("chosen", CHOSEN)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_choices_keep_the_contract(check, chosen, cases):
    rows = chosen(sample()[0])
    assert failures(check, [case for case in cases if case.row in rows]) == {}
