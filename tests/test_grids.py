"""Grids, merged duplicates, and names read back."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import resnet_variants as rv
from resnet_variants.models.families import PRESETS
from resnet_variants.models.grids import FULL_GRID, MOST_CELLS, expand, parse_name
from resnet_variants.models.grids import cells as count
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

# --- grids ------------------------------------------------------------------------------------


def test_the_full_grid_has_twelve_cells_of_bottlenecks_and_eight_of_basic_blocks():
    cells, merged = expand(FULL_GRID | {"family": "cifar", "depth": 29})
    assert (len(cells), merged) == (12, [])
    assert {v.preset for v in cells} == {*PRESETS, ""}
    cells, merged = expand(FULL_GRID | {"family": "cifar", "depth": 20})
    assert (len(cells), len(merged)) == (8, 4)


def test_grid_is_the_product_of_its_lists():
    cells = rv.grid(depth=[50, 101], stem=["conv7", "deep"], order=["post", "preact"])
    wanted = itertools.product((50, 101), ("conv7", "deep"), ("post", "preact"))
    assert [(v.depth, v.stem, v.order) for v in cells] == list(wanted)
    assert rv.grid() == [Variant()]
    assert rv.grid(stem=()) == []
    groups = {"cardinality": [1, 32], "base_width": [4, 64], "antialias": ["none", "blur"]}
    assert [v.name for v in rv.grid(preset="D", depth=50, **groups)][:5] == [
        *("rv_resnext50_1x4d_d", "rv_resnext50_1x4d_d_blur"),
        *("rv_resnet50_d", "rv_resnet50_d_blur", "rv_resnext50_32x4d_d"),
    ]


@pytest.mark.parametrize(
    ("grid", "merged"),
    [
        (
            {"depth": 18, "preset": ["A", "B"]},
            "depth=18 preset=B is the same network as depth=18 preset=A: rv_resnet18_b",
        ),
        (
            {"shortcut": ["conv_all", "pad"], "skip": "conv"},
            "shortcut=pad skip=conv is the same network as shortcut=conv_all skip=conv: "
            "rv_resnet50_conv7_3x3_convall",
        ),
        (
            {"depth": 14, "shortcut": ["conv", "conv_all"]},
            "depth=14 shortcut=conv_all is the same network as depth=14 shortcut=conv: "
            "rv_resnet14_b",
        ),
        (
            {"shortcut": "conv_all", "stem_stride": 1, "order": ["preact", "bn_after_add"]},
            "stem_stride=1 shortcut=conv_all order=bn_after_add is the same network as "
            "stem_stride=1 shortcut=conv_all order=preact: rv_resnet50_s1_conv7_3x3_convall_preact",
        ),
        (
            {"stem_stride": [0, 4]},
            "stem_stride=4 is the same network as stem_stride=0: rv_resnet50_b",
        ),
    ],
)
def test_expand_reports_what_it_merged(grid, merged):
    cells, lines = expand(grid)
    assert (len(cells), lines) == (1, [merged])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"stems": ["deep"]}, "unknown axis 'stems'; did you mean 'stem'?"),
        ({"preset": "E"}, "unknown variant 'E'; choices: A, B, C, D"),
        ({"preact": True, "order": "post"}, "give either preact or order"),
        ({"preact": "yes"}, "unknown preact 'yes'"),
        ({"stem": [["deep"]]}, "stem ['deep'] must be of type str"),
        ({"cardinality": ["32"]}, "cardinality '32' must be of type int"),
        ({"skip": {"scale"}}, "skip {'scale'} must be of type str"),
        ({"depth": [50, 18], "cardinality": 32}, "cardinality and base_width are those of a"),
    ],
)
def test_grids_refuse_what_they_do_not_know(grid, message):
    with pytest.raises(UserError, match=re.escape(message)):
        expand(grid)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"depth": range(10**9)}, "the grid has 1,000,000,000 combinations (1,000,000,000 depth)"),
        ({"depth": range(10**30)}, "a list of the grid has more than 9,223,372,036,854,775,807"),
        (
            {"cardinality": range(10**4), "base_width": [1, 2, 3], "depth": np.arange(10**4)},
            "(10,000 cardinality x 3 base_width x 10,000 depth), and memory holds 1,000,000",
        ),
        ({"depth": [50] * (MOST_CELLS + 1)}, "the grid has 1,000,001 combinations"),
    ],
    ids=["billion", "no size", "product", "one too many"],
)
def test_a_grid_is_counted_before_it_is_made(grid, message):
    for make in (expand, lambda axes: rv.grid(**axes), count):
        with pytest.raises(UserError, match=re.escape(message)):
            make(grid)


# --- names read back --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "name 'resnet50' does not begin with rv_resnet<depth>"),
        (
            "rv_resnet50_D",
            "unknown stem in name 'rv_resnet50_D': 'D'; "
            "choices: conv7, conv3, deep, deepwide, tiered, tierednarrow",
        ),
        ("rv_resnet50", "unknown stem in name 'rv_resnet50': ''"),
        ("rv_resnet50_deep_3x3", "unknown shortcut in name 'rv_resnet50_deep_3x3': ''"),
        ("rv_resnet50_s3_b", "unknown stem stride in name 'rv_resnet50_s3_b': 's3'; choices: s4"),
        ("rv_resnet50_d_blur_se", "'rv_resnet50_d_blur_se': it stands earlier in a name"),
        ("rv_resnet50_d_preacct", "'preacct'; did you mean 'preact'? choices: bnafteradd"),
        ("rv_resnet050_d", "name 'rv_resnet050_d' is spelt 'rv_resnet50_d'"),
        ("rv_resnet0_d", "name 'rv_resnet0_d' is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_conv7_1x1_conv", "is spelt 'rv_resnet50_a'"),
        ("rv_resnet50_s4_d", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_d_post", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_b_conv", "is spelt 'rv_resnet50_conv7_3x3_convall'"),
        ("rv_resnet50_conv7_3x3_none_preact", "shortcut 'none' goes with order 'post'"),
        ("rv_resnet164_cifar_bottleneck_b", "is spelt 'rv_resnet164_cifar_b'"),
        ("rv_resnext50_1x128d_b", "is spelt 'rv_wide_resnet50_2_b'"),
        ("rv_resnext50_32x04d_b", "is spelt 'rv_resnext50_32x4d_b'"),
        ("rv_resnext50_32x0d_b", "is spelt 'rv_resnext50_32x64d_b'"),
        ("rv_resnet50_g32_w4_b", "is spelt 'rv_resnext50_32x4d_b'"),
        ("rv_resnet29_cifar_w64_g8_b", "unknown stem in name"),
        ("rv_wide_resnet50_1_b", "is spelt 'rv_resnet50_b'"),
        ("rv_resnet51_d", "unknown depth 51 for family 'imagenet'"),
        ("rv_wide_resnet28_10_b", "unknown depth 28 for family 'imagenet'"),
        ("rv_resnext50_0x4d_b", "cardinality 0 must be from 1"),
        ("rv_wide_resnet50_999_b", "base_width 63936 must be from 1"),
    ],
)
def test_other_spellings_are_refused_with_the_right_one(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_name(name)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("rv_resnext29_8x64d_cifar_b", "rv_resnet29_cifar_g8_w64_b"),
        ("rv_resnext29_32x4d_cifar_d_preact", "rv_resnet29_cifar_g32_w4_d_preact"),
        ("rv_resnext110_2x16d_cifar_bottleneck_b", "rv_resnet110_cifar_bottleneck_g2_b"),
        ("rv_wide_resnet29_10_cifar_b", "rv_resnet29_cifar_w160_b"),
        ("rv_wide_resnet28_10_cifar_b", ""),  # this family has nothing like it
    ],
)
def test_a_published_name_of_another_network_is_refused_with_the_reason(name, ours):
    reason = "means another network: on small images ResNeXt has stages of 256-512-1024 channels"
    with pytest.raises(UserError, match=re.escape(f"name {name!r} {reason}")) as error:
        parse_name(name)
    assert not ours or str(error.value).endswith(f"is spelt {ours!r}")
    assert not ours or parse_name(ours).name == ours


NO_NAMES = [
    *("", "_", "a", "E", "rv_", "rv_resnet", "rv_resnet_50_b", "rv__resnet50_b"),
    *("../rv_resnet50_b", "rv_resnet50_b/..", "a\\b", "rv_resnet50_b.", "hf-hub:rv_resnet50_b"),
    *("RV_RESNET50_B", "rv_resnet50_B", "rv_resneXt50_32x4d_b", "resnet50.a1_in1k"),
    *("rv_resnet\u0665\u0660_b", "rv_resnet\u00b2_b", "rv_resnet50_s\u0661_b"),
    *("rv_resnext50_3\u0662x4d_b", "rv_wide_resnet50_\u0662_b", "rv_resnet50_\u1d47"),
    *("rv_resnet50_b\n", "rv_resnet50\nb", "A\n", "rv_resnet50_b\u2028", "rv_resnet50_b\x00"),
    *("\ud800", "rv_resnet50_b ", "rv_resnet50__b", "rv_resnet50_b_", "rv_resnet-50_b"),
    *("rv_resnet" + "9" * 5000 + "_b", "rv_resnext50_" + "9" * 5000 + "x4d_b"),
    *("x" * 100_000, "rv_resnet50_b" + "_preact" * 10_000, "rv_resnet50_" + "b" * 100_000),
]


@pytest.mark.parametrize("read", [parse_name, rv.create_model], ids=["parse_name", "create_model"])
def test_what_is_no_name_is_one_line(read):
    for name in NO_NAMES:
        with pytest.raises(UserError) as error:
            read(name)
        assert len(str(error.value).splitlines()) == 1, name[:40]
        assert error.value.field == "name"


def assert_name_or_one_line(text):
    try:
        variant = parse_name(text)
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert text in (variant.name, *variant.aliases)


@given(st.text() | st.text(alphabet="rv_resnxtwid0123456789ABCDcifar.\n/").map("rv_".__add__))
def test_any_text_is_a_name_or_one_line(text):
    assert_name_or_one_line(text)


WHOLE = "rv_resnet29_cifar_g32_w4_s2_deep_1x1_conv_preact_scaleboth_se_blur"


@given(st.integers(0, len(WHOLE)), st.integers(0, 2), st.sampled_from([*"_0159xdsab\n. ", ""]))
def test_a_damaged_name_is_another_name_or_one_line(at, length, inserted):
    assert_name_or_one_line(WHOLE[:at] + inserted + WHOLE[at + length :])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rv_resnet50_b.a1", "unknown weights of rv_resnet50_b 'a1'"),
        ("resnet50d", "unknown name 'resnet50d'; did you mean 'rv_resnet50_d'?"),
        ("d", "unknown name 'd'; did you mean 'D'?"),
        (None, "variant None must be a letter, a name or a Variant"),
        (b"rv_resnet50_b", "variant b'rv_resnet50_b' must be a letter, a name or a Variant"),
    ],
)
def test_what_is_no_variant_is_one_line(value, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        rv.create_model(value)
    assert len(str(error.value).splitlines()) == 1
