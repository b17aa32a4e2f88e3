"""Names elsewhere: they exist there, stand for one network, and that network has our tensors."""

from collections import Counter
from dataclasses import asdict

import pytest
import timm
import torch
import torchvision
from nets import failures
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import resnet_variants as rv
from resnet_variants.models.catalogue import stored_costs
from resnet_variants.models.families import FAMILIES
from resnet_variants.models.grids import grid, parse_name
from resnet_variants.models.peers import (
    PEERS,
    named_elsewhere,
    names_elsewhere,
    nearest,
    timm_names,
)
from resnet_variants.models.variant import Variant

ROWS = [(peer, name, variant) for peer in PEERS for variant, name in peer.names().items()]
BUILT = [row for row in ROWS if row[0].source in ("timm", "torchvision")]


def create_on_meta(source, name):
    if source == "timm":
        return timm.create_model(name, device="meta")
    with torch.device("meta"):
        return torchvision.models.get_model(name)


def spec(state):
    return {key: (tuple(value.shape), value.dtype) for key, value in state.items()}


def has_our_tensors(row):
    peer, name, variant = row
    theirs = create_on_meta(peer.source, name)
    ours = rv.create_model(variant, device="meta")
    params, _ = stored_costs()[variant.name]
    assert sum(p.numel() for p in theirs.parameters()) == params
    state = rv.resnetv2_state_dict(ours) if variant.order == "preact" else ours.state_dict()
    assert spec(state) == spec(theirs.state_dict())


def one_of_each_kind():
    """The shallowest network of each kind."""

    def kind(row):
        peer, _, v = row
        return peer.source, v.block, v.stem, v.shortcut, v.order, v.norm, v.attention, v.antialias

    return list({kind(row): row for row in sorted(BUILT, key=lambda row: -row[2].depth)}.values())


@pytest.mark.parametrize(
    "rows",
    [one_of_each_kind(), pytest.param(BUILT, marks=pytest.mark.slow)],
    ids=["one of each kind", "all"],
)
def test_a_librarys_models_have_our_parameters_keys_and_shapes(rows, without_values):
    assert {row[0].source for row in rows} == {"timm", "torchvision"}
    assert failures(has_our_tensors, rows) == {}


def test_named_networks_are_found_by_our_name_and_by_their_own():
    assert [row for row in ROWS if parse_name(row[2].name) != row[2]] == []
    assert [row for row in ROWS if row[:2] not in names_elsewhere(row[2])] == []


def repeated(values):
    return [value for value, n in Counter(values).items() if n > 1]


@pytest.mark.parametrize("source", sorted({peer.source for peer in PEERS}))
def test_a_source_has_one_name_for_a_network_and_one_network_of_a_name(source):
    rows = [row for row in ROWS if row[0].source == source]
    if source.startswith("arXiv"):  # there a name with a remark stands for another network too
        assert repeated(name for peer, name, _ in rows if not peer.differs) == []
        return
    assert repeated(name for _, name, _ in rows) == []
    twice = {name for _, name, variant in rows if variant in repeated(v for _, _, v in rows)}
    # GluonCV's v1b differs from its v1 in bottlenecks only.
    basic = ("resnet18_v1", "resnet18_v1b", "resnet34_v1", "resnet34_v1b")
    assert twice == ({*basic} if source == "GluonCV" else set())


def test_twins_are_the_timm_rows():
    rows = [(variant, name) for peer, name, variant in BUILT if peer.source == "timm"]
    assert timm_names() == dict(rows)
    assert len(timm_names()) == len(rows) == len({name for _, name in rows})


@pytest.mark.parametrize(
    ("ours", "theirs", "fewer"),
    [
        # kuangliu's PreActResNet18 has 11,171,146 parameters, Keras' networks as many as can be
        # trained of the 25,636,712 and 25,613,800 that its documentation counts.
        ("rv_resnet18_s1_conv3_3x3_conv_preact", 11_171_146, 2 * 512),
        ("rv_resnet50_a", 25_583_592, -26_560),
        ("rv_resnet50_b_preact", 25_568_360, -19_008),
    ],
)
def test_networks_that_are_close_differ_by_what_is_said(ours, theirs, fewer):
    classes = 10 if "_s1_" in ours else 1000
    assert rv.cost(ours, num_classes=classes).params - theirs == fewer


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (
            "rv_resnet20_cifar_conv3_3x3_pad",
            "akamaster/pytorch_resnet_cifar10 resnet20 (differs: h",
        ),
        ("rv_resnet50_b_preact", "pytorchcv preresnet50b (differs: its stem has norm and ReLU, as"),
        ("rv_resnet542_cifar_bottleneck_b", "pytorchcv resnet542bn_cifar10"),
        ("rv_resnet50_a", "Keras ResNet50 (differs: its convolutions have biases, its norms an ep"),
    ],
)
def test_what_popular_code_builds_is_told_by_its_name(ours, said):
    told = [f"{peer.source} {name}{peer.text}" for peer, name in names_elsewhere(parse_name(ours))]
    assert [text for text in told if text.startswith(said)]


def test_a_name_that_means_two_networks_names_both():
    assert named_elsewhere("resnet50") == {
        parse_name("rv_resnet50_b"): ["timm", "torchvision"],
        parse_name("rv_resnet50_a"): ["pytorchcv"],
    }
    assert list(named_elsewhere("resnet50.a1_in1k")) == [parse_name("rv_resnet50_b")]
    assert named_elsewhere("resnet5") == named_elsewhere("rv_resnet50_b") == {}


def difference(one, other):
    """The axes in which two variants differ, each with both choices."""
    one, other = asdict(one), asdict(other)
    return [(axis, one[axis], other[axis]) for axis in one if one[axis] != other[axis]]


def test_nearest_lists_what_differs_in_one_axis_other_than_the_depth():
    for variant in grid(depth=[18, 50], preset=list("BD"), order=["post", "preact"]):
        wanted = Counter()
        for peer, name, other in ROWS:
            differs = difference(variant, other)
            if len(differs) == 1 and differs[0][0] != "depth" and not peer.differs:
                ((axis, own, theirs),) = differs
                wanted[f"{peer.source} {name}", f"{axis} {theirs} instead of {own}"] += 1
        assert Counter(nearest(variant)) == wanted, variant.name
    found = dict(nearest(Variant(depth=50)))
    assert found["timm resnetv2_50"] == "order preact instead of post"
    assert found["timm resnetblur50"] == "antialias blur instead of none"
    assert "timm resnet50d" not in found


def test_imagenets_moments_are_timms():
    family = FAMILIES["imagenet"]
    assert (family.mean, family.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
