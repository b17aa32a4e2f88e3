"""Grids, merged duplicates, and names read back."""

import itertools
import re
import time

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
    letters = {v.preset for v in cells}
    assert letters == {*PRESETS, ""}
    cells, merged = expand(FULL_GRID | {"family": "cifar", "depth": 20})
    assert (len(cells), len(merged)) == (8, 4)
    assert all("is the same network as" in line for line in merged)


def test_grid_is_the_product_of_its_lists():
    cells = rv.grid(depth=[50, 101], stem=["conv7", "deep"], order=["post", "preact"])
    wanted = itertools.product((50, 101), ("conv7", "deep"), ("post", "preact"))
    assert [(v.depth, v.stem, v.order) for v in cells] == list(wanted)
    assert rv.grid() == [Variant()]
    assert rv.grid(stem=()) == []


def test_a_grid_crosses_groups_attention_and_antialiasing():
    cells = rv.grid(
        preset="D",
        depth=50,
        cardinality=[1, 32],
        base_width=[4, 64],
        attention=["none", "eca"],
        antialias=["none", "blur"],
    )
    names = [v.name for v in cells]
    assert len(names) == 16
    assert names[:5] == [
        "rv_resnext50_1x4d_d",
        "rv_resnext50_1x4d_d_blur",
        "rv_resnext50_1x4d_d_eca",
        "rv_resnext50_1x4d_d_eca_blur",
        "rv_resnet50_d",
    ]


@pytest.mark.parametrize(
    ("grid", "merged"),
    [
        (
            {"depth": 18, "stride": ["3x3", "1x1"]},
            "depth=18 stride=1x1 is the same network as depth=18 stride=3x3: rv_resnet18_b",
        ),
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
        (
            {"base_width": [0, 64]},
            "base_width=64 is the same network as base_width=0: rv_resnet50_b",
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
)
def test_a_grid_is_counted_before_it_is_made(grid, message):
    start = time.perf_counter()
    for make in (expand, lambda axes: rv.grid(**axes), count):
        with pytest.raises(UserError, match=re.escape(message)):
            make(grid)
    assert time.perf_counter() - start < 1


# --- names read back --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "name 'resnet50' does not begin with rv_resnet<depth>"),
        ("rv_resnet50.d", "name 'rv_resnet50.d' does not begin with rv_resnet<depth>"),
        (
            "rv_resnet50_D",
            "unknown stem in name 'rv_resnet50_D': 'D'; "
            "choices: conv7, conv3, deep, deepwide, tiered, tierednarrow",
        ),
        ("rv_resnet50", "unknown stem in name 'rv_resnet50': ''"),
        ("rv_resnet50_deep_3x3", "unknown shortcut in name 'rv_resnet50_deep_3x3': ''"),
        ("rv_resnet50_deep_wide_3x3_conv", "unknown stride in name"),
        ("rv_resnet50_d_preacts", "cannot read 'preacts' at the end of name"),
        ("rv_resnet50_d_blur_se", "cannot read 'se' at the end of name"),
        ("rv_resnet50_d_preact_post", "cannot read 'post' at the end of name"),
        ("rv_resnet050_d", "name 'rv_resnet050_d' is spelt 'rv_resnet50_d'"),
        ("rv_resnet0_d", "name 'rv_resnet0_d' is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_conv7_1x1_conv", "is spelt 'rv_resnet50_a'"),
        ("rv_resnet50_s4_d", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_d_post", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_d_none_none", "is spelt 'rv_resnet50_d'"),
        ("rv_resnet50_b_conv", "is spelt 'rv_resnet50_conv7_3x3_convall'"),
        ("rv_resnet50_conv7_3x3_none_preact", "shortcut 'none' goes with order 'post'"),
        ("rv_resnet164_cifar_bottleneck_b", "is spelt 'rv_resnet164_cifar_b'"),
        ("rv_resnext50_1x64d_b", "is spelt 'rv_resnet50_b'"),
        ("rv_resnext50_1x128d_b", "is spelt 'rv_wide_resnet50_2_b'"),
        ("rv_resnext50_32x04d_b", "is spelt 'rv_resnext50_32x4d_b'"),
        ("rv_resnext50_32x0d_b", "is spelt 'rv_resnext50_32x64d_b'"),
        ("rv_resnet50_g32_w4_b", "is spelt 'rv_resnext50_32x4d_b'"),
        ("rv_resnet29_cifar_g1_w64_b", "is spelt 'rv_resnet29_cifar_w64_b'"),
        ("rv_resnet29_cifar_w64_g8_b", "unknown stem in name"),
        ("rv_wide_resnet50_1_b", "is spelt 'rv_resnet50_b'"),
        ("rv_wide_resnet50_0_b", "is spelt 'rv_resnet50_b'"),
        ("rv_resnet51_d", "unknown depth 51 for family 'imagenet'"),
        ("rv_resnet21_cifar_b", "unknown depth 21 for family 'cifar'"),
        ("rv_resnext18_32x4d_b", "cardinality and base_width are those of a bottleneck's"),
        ("rv_resnext50_0x4d_b", "cardinality 0 must be from 1"),
        ("rv_resnext50_99999x1d_b", "cardinality 99999 must be from 1"),
        ("rv_wide_resnet50_999_b", "base_width 63936 must be from 1"),
        ("rv_resnet18_deepwide_3x3_pad", "shortcut 'pad' only adds channels"),
    ],
)
def test_other_spellings_are_refused_with_the_right_one(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_name(name)


OTHER = "means another network: on small images ResNeXt has stages of 256-512-1024 channels"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("rv_resnext29_8x64d_cifar_b", "rv_resnet29_cifar_g8_w64_b"),
        ("rv_resnext29_16x64d_cifar_d_preact", "rv_resnet29_cifar_g16_w64_d_preact"),
        ("rv_resnext29_32x4d_cifar_b", "rv_resnet29_cifar_g32_w4_b"),
        ("rv_resnext29_1x64d_cifar_b", "rv_resnet29_cifar_w64_b"),
        ("rv_resnext110_2x16d_cifar_bottleneck_b", "rv_resnet110_cifar_bottleneck_g2_b"),
        ("rv_wide_resnet29_10_cifar_b", "rv_resnet29_cifar_w160_b"),
    ],
)
def test_a_published_name_of_another_network_is_refused_with_the_reason(name, ours):
    with pytest.raises(UserError, match=re.escape(f"{name!r} {OTHER}")) as error:
        parse_name(name)
    assert str(error.value).endswith(f"is spelt {ours!r}")
    assert parse_name(ours).name == ours


def test_one_that_this_family_has_nothing_like_says_the_reason_too():
    with pytest.raises(UserError, match=re.escape(f"name 'rv_wide_resnet28_10_cifar_b' {OTHER}")):
        parse_name("rv_wide_resnet28_10_cifar_b")
    with pytest.raises(UserError, match="unknown depth 28 for family 'imagenet'"):
        parse_name("rv_wide_resnet28_10_b")


def test_resnext29_of_the_paper_is_not_what_this_family_has():
    # 34.4 M parameters (arXiv:1611.05431, table 7); these 3x3 convolutions in stages of 64-128-256.
    assert rv.cost("rv_resnet29_cifar_g8_w64_b").params == 22_447_578


NO_NAMES = [
    *("", " ", "rv", "rv_", "rv_resnet", "rv_resnet_50_b", "rv__resnet50_b", "_", "a", "E"),
    *("..", "../rv_resnet50_b", "rv_resnet50_b/..", "rv_resnet50/b", "/rv_resnet50_b", "a\\b"),
    *("rv_resnet50_b.", "resnet50.a1_in1k", ".rv_resnet50_b", "hf-hub:rv_resnet50_b"),
    *("RV_RESNET50_B", "rv_resnet50_B", "Rv_resnet50_b", "rv_resneXt50_32x4d_b", "ab"),
    *(
        "rv_resnet\u0665\u0660_b",
        "rv_resnet5\uff10_b",
        "rv_resnet\u00b2_b",
        "rv_resnet50_s\u0661_b",
    ),
    *("rv_resnext50_3\u0662x4d_b", "rv_wide_resnet50_\u0662_b", "rv_resnet50_\u1d47"),
    *("rv_resnet50_b\n", "rv_resnet50\n", "\nrv_resnet50_b", "rv_resnet50_b_se\n", "A\n"),
    *("rv_resnet50\nb", "rv_resnet50_b\u2028", "rv_resnet50_b\x00", "rv_resnet50_b\r\n", "\ud800"),
    *("rv_resnet50_b ", "rv_resnet50__b", "rv_resnet50_b_", "rv_resnet50_b__se", "rv_resnet-50_b"),
    *("rv_resnet99999_b", "rv_resnet" + "9" * 5000 + "_b", "rv_resnext50_" + "9" * 5000 + "x4d_b"),
    *("x" * 100_000, "rv_resnet50_b" + "_preact" * 10_000, "rv_resnet50_" + "b" * 100_000),
]


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: ascii(name)[:40])
@pytest.mark.parametrize("read", [parse_name, rv.create_model], ids=["parse_name", "create_model"])
def test_what_is_no_name_is_one_line(read, name):
    with pytest.raises(UserError) as error:
        read(name)
    assert len(str(error.value).splitlines()) == 1
    assert error.value.field == "name"


def test_weights_that_there_are_not_are_one_line():
    with pytest.raises(UserError, match="unknown weights of rv_resnet50_b 'a1'") as error:
        rv.create_model("rv_resnet50_b.a1")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("value", [None, 50, 5.0, [], b"rv_resnet50_b", Variant])
def test_what_is_no_variant_is_one_line(value):
    with pytest.raises(
        UserError, match=f"^variant {re.escape(repr(value))} must be a letter, a name or"
    ):
        rv.create_model(value)


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
    text = WHOLE[:at] + inserted + WHOLE[at + length :]
    assert_name_or_one_line(text)
