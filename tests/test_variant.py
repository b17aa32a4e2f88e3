"""Variants, their names and grids."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import resnet_variants as rv
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import FULL_GRID, expand, parse_name, variant_from
from resnet_variants.models.stems import STEM_STRIDES
from resnet_variants.models.variant import AXES, Variant
from resnet_variants.registry import UserError


@st.composite
def variants(draw):
    family = draw(st.sampled_from(list(FAMILIES)))
    depth = draw(st.sampled_from(list(FAMILIES[family].layouts)))
    return Variant(
        family=family,
        depth=depth,
        block=draw(st.sampled_from(list(FAMILIES[family].layouts[depth]))),
        stem=draw(st.sampled_from(list(STEMS))),
        stem_stride=draw(st.sampled_from(list(STEM_STRIDES))),
        stride=draw(st.sampled_from(list(STRIDES))),
        shortcut=draw(st.sampled_from(list(SHORTCUTS))),
        order=draw(st.sampled_from(list(ORDERS))),
    )


@given(variants())
def test_every_name_is_legal_and_reads_back(variant):
    assert re.fullmatch(r"rv_resnet\d+(_[a-z0-9]+)*", variant.name)
    assert parse_name(variant.name) == variant
    assert all(parse_name(alias) == variant for alias in variant.aliases)


@given(variants(), variants())
def test_names_are_equal_exactly_when_variants_are(a, b):
    assert (a.name == b.name) == (a == b)


def test_presets_spell_the_axes_of_the_paper():
    assert rv.preset("D", depth=50, preact=True) == Variant(
        depth=50, stem="deep", stride="3x3", shortcut="avgpool", order="preact"
    )
    assert rv.preset("A", depth=50) == Variant(
        depth=50, stem="conv7", stride="1x1", shortcut="conv", order="post"
    )


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (rv.preset("D", depth=50, preact=True), "rv_resnet50_d_preact"),
        (rv.preset("B", family="cifar", depth=20), "rv_resnet20_cifar_b"),
        (Variant(depth=18, stem="conv3", stem_stride=1), "rv_resnet18_s1_conv3_3x3_conv"),
        (Variant(depth=50, stride="1x1", stem="deep"), "rv_resnet50_deep_1x1_conv"),
        (
            Variant(family="cifar", depth=110, block="bottleneck"),
            "rv_resnet110_cifar_bottleneck_b",
        ),
    ],
)
def test_names_say_what_differs_from_the_familys_own(variant, name):
    assert variant.name == name


def test_a_preset_takes_further_axes():
    assert rv.preset("D", order="preact") == rv.preset("D", preact=True)
    assert rv.preset("B", family="cifar", depth=20, stem="deep").preset == "C"


def test_a_and_b_of_basic_blocks_are_one_network():
    a, b = (rv.preset(letter, depth=18) for letter in "AB")
    assert a == b
    assert (a.name, a.aliases, a.preset) == ("rv_resnet18_b", ["rv_resnet18_a"], "B")
    assert rv.preset("A", depth=50) != rv.preset("B", depth=50)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "name 'resnet50' does not begin with rv_resnet<depth>"),
        ("rv_resnet50.d", "name 'rv_resnet50.d' does not begin with rv_resnet<depth>"),
        ("rv_resnet50_D", "unknown stem in name 'rv_resnet50_D': 'D'; choices: conv7, conv3, deep"),
        ("rv_resnet50_d_preacts", "cannot read 'preacts' at the end of name"),
        ("rv_resnet050_d", "name 'rv_resnet050_d' is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_conv7_1x1_conv", "is spelt 'rv_resnet50_a'"),
        ("rv_resnet50_s4_d", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_d_post", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet51_d", "unknown depth 51 for family 'imagenet'"),
    ],
)
def test_other_spellings_are_refused_with_the_right_one(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_name(name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "cifa"}, "unknown family 'cifa'; did you mean 'cifar'?"),
        (
            {"family": "cifar", "depth": 21},
            "unknown depth 21 for family 'cifar'; choices: 6n+2 with basic blocks "
            "(20, 32, 44, 56, 110), 9n+2 with bottlenecks (29, 47, 164, 1001)",
        ),
        ({"depth": 50, "block": "basic"}, "unknown block for depth 50 of family 'imagenet'"),
        ({"stem": "conv9"}, "unknown stem 'conv9'"),
        ({"stem_stride": 3}, "unknown stem_stride 3; choices: 4, 2, 1"),
        ({"stride": "5x5"}, "unknown stride '5x5'"),
        ({"shortcut": "pool"}, "unknown shortcut 'pool'; did you mean 'avgpool'?"),
        ({"order": "pre"}, "unknown order 'pre'; did you mean 'preact'?"),
        ({"stem_stride": True}, "stem_stride True must be of type int"),
        ({"depth": 50.0}, "depth 50.0 must be of type int"),
        ({"depth": [50]}, "depth [50] must be of type int"),
        ({"stem": None}, "stem None must be of type str"),
    ],
)
def test_what_cannot_be_built_cannot_be_constructed(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Variant(**fields)


def test_the_full_grid_has_twelve_cells_of_bottlenecks_and_eight_of_basic_blocks():
    cells, merged = expand(FULL_GRID | {"family": "cifar", "depth": 29})
    assert (len(cells), merged) == (12, [])
    letters = {v.preset for v in cells}
    assert letters == {*PRESETS, ""}
    cells, merged = expand(FULL_GRID | {"family": "cifar", "depth": 20})
    assert (len(cells), len(merged)) == (8, 4)
    assert all("is the same network as" in line for line in merged)


def test_grid_is_the_product_of_its_lists():
    cells = rv.grid(depth=[50, 101], stem=["conv7", "deep"], order=["post", "preact"])
    wanted = itertools.product((50, 101), ("conv7", "deep"), ("post", "preact"))
    assert [(v.depth, v.stem, v.order) for v in cells] == list(wanted)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"stems": ["deep"]}, "unknown axis 'stems'; did you mean 'stem'?"),
        ({"preset": "E"}, "unknown variant 'E'; choices: A, B, C, D"),
        ({"preact": True, "order": "post"}, "give either preact or order"),
        ({"preact": "yes"}, "unknown preact 'yes'"),
        ({"stem": [["deep"]]}, "stem ['deep'] must be of type str"),
    ],
)
def test_grids_refuse_what_they_do_not_know(grid, message):
    with pytest.raises(UserError, match=re.escape(message)):
        expand(grid)


def test_no_axis_is_a_dead_knob():
    own = Variant()
    others = {
        "family": "cifar",
        "depth": 101,
        "stem": "deep",
        "stem_stride": 2,
        "stride": "1x1",
        "shortcut": "avgpool",
        "order": "preact",
    }
    for axis, choice in others.items():
        assert variant_from({axis: choice}).name != own.name
