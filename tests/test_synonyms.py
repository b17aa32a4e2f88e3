"""Names elsewhere: they exist there, stand for one network, and that network has our tensors."""

from collections import Counter
from dataclasses import asdict

import pytest
import timm
import torch
import torchvision

import resnet_variants as rv
from resnet_variants.models.grids import grid, parse_name
from resnet_variants.models.synonyms import PEERS, nearest, synonyms, timm_twins
from resnet_variants.models.variant import Variant

ROWS = [(peer, name, variant) for peer in PEERS for variant, name in peer.names().items()]
BUILT = [row for row in ROWS if row[0].source in ("timm", "torchvision")]
SOURCES = list(dict.fromkeys(peer.source for peer in PEERS))
LIBRARIES = [source for source in SOURCES if not source.startswith("arXiv")]
PAPERS = [source for source in SOURCES if source.startswith("arXiv")]


def row_id(value):
    return value if isinstance(value, str) else getattr(value, "source", getattr(value, "name", ""))


def create_on_meta(source, name):
    if source == "timm":
        return timm.create_model(name, device="meta")
    with torch.device("meta"):
        return torchvision.models.get_model(name)


def spec(state):
    return {key: (tuple(value.shape), value.dtype) for key, value in state.items()}


@pytest.mark.parametrize(("peer", "name", "variant"), BUILT, ids=row_id)
def test_a_librarys_model_has_our_parameters_keys_and_shapes(peer, name, variant):
    theirs = create_on_meta(peer.source, name)
    ours = rv.create_model(variant, device="meta")
    assert sum(p.numel() for p in theirs.parameters()) == rv.cost(variant).params
    state = rv.resnetv2_state_dict(ours) if variant.order == "preact" else ours.state_dict()
    assert spec(state) == spec(theirs.state_dict())


def test_named_networks_are_found_by_our_name_and_by_their_own():
    assert [row for row in ROWS if parse_name(row[2].name) != row[2]] == []
    assert [row for row in ROWS if row[:2] not in synonyms(row[2])] == []


def repeated(values):
    return [value for value, n in Counter(values).items() if n > 1]


@pytest.mark.parametrize("source", LIBRARIES)
def test_a_library_has_one_name_for_a_network_and_one_network_of_a_name(source):
    rows = [row for row in ROWS if row[0].source == source]
    assert repeated(name for _, name, _ in rows) == []
    twice = {name for _, name, variant in rows if variant in repeated(v for _, _, v in rows)}
    # GluonCV's v1b differs from its v1 in bottlenecks only.
    basic = ("resnet18_v1", "resnet18_v1b", "resnet34_v1", "resnet34_v1b")
    assert twice == ({*basic} if source == "GluonCV" else set())


@pytest.mark.parametrize("source", PAPERS)
def test_a_name_in_a_paper_stands_for_one_network_without_a_remark(source):
    rows = [row for row in ROWS if row[0].source == source and not row[0].differs]
    assert repeated(name for _, name, _ in rows) == []


def test_twins_are_the_timm_rows():
    rows = [(variant, name) for peer, name, variant in BUILT if peer.source == "timm"]
    assert timm_twins() == dict(rows)
    assert len(timm_twins()) == len(rows) == len({name for _, name in rows})


def difference(one, other):
    """The axes in which two variants differ, each with both choices."""
    one, other = asdict(one), asdict(other)
    return [(axis, one[axis], other[axis]) for axis in one if one[axis] != other[axis]]


ASKED = [
    *dict.fromkeys(variant for _, _, variant in ROWS),
    *grid(depth=[18, 50], preset=list("ABCD"), stem_stride=[1, 4], order=["preact", "relu_preact"]),
    *grid(depth=50, attention=["se", "eca"], antialias=["none", "blur"], cardinality=[1, 32]),
    Variant(family="cifar", depth=20, skip="scale"),
]


def test_nearest_lists_what_differs_in_one_axis_other_than_the_depth():
    for variant in ASKED:
        wanted = Counter()
        for peer, name, other in ROWS:
            differs = difference(variant, other)
            if len(differs) == 1 and differs[0][0] != "depth" and not peer.differs:
                ((axis, own, theirs),) = differs
                wanted[f"{peer.source} {name}", f"{axis} {theirs} instead of {own}"] += 1
        assert Counter(nearest(variant)) == wanted, variant.name


def test_nearest_finds_the_preact_and_the_blurred_kin_of_resnet50():
    found = dict(nearest(Variant(depth=50)))
    assert found["timm resnetv2_50"] == "order preact instead of post"
    assert found["timm resnetblur50"] == "antialias blur instead of none"
    assert "timm resnet50d" not in found


def test_another_stem_stride_has_no_name_elsewhere():
    assert synonyms(Variant(depth=18, stem_stride=1)) == []
