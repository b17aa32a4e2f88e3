"""Variants: what can be constructed, what they are called, and which of them are one network."""

import dataclasses
import re
from dataclasses import fields

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

import resnet_variants as rv
from resnet_variants.models.branches import BLOCKS
from resnet_variants.models.families import FAMILIES, PRESETS
from resnet_variants.models.grids import parse_name
from resnet_variants.models.variant import AXES, WIDEST, Variant
from resnet_variants.registry import UserError


@st.composite
def spellings(draw):
    """A choice for every field; some combinations are refused."""
    spelling = {
        axis: draw(st.sampled_from(list(about.choices)))
        for axis, about in AXES.items()
        if about.choices
    }
    layouts = FAMILIES[spelling["family"]].layouts
    depth = draw(st.sampled_from(list(layouts)))
    block = draw(st.sampled_from(list(layouts[depth])))
    spelling |= {"depth": depth, "block": block, "cardinality": 1, "base_width": 0}
    if block == "bottleneck":
        spelling["cardinality"] = draw(st.sampled_from([1, 1, 2, 32, 64]))
        spelling["base_width"] = draw(st.sampled_from([0, 1, 4, 16, 24, 64, 96, 128]))
    assert spelling.keys() == {*AXES}
    return spelling


def constructed(spelling):
    try:
        return Variant(**spelling)
    except UserError:
        reject()


@st.composite
def neighbours(draw):
    """Two variants spelt with one difference at most; they may be one network."""
    spelling, other = draw(spellings()), draw(spellings())
    field = draw(st.sampled_from(list(AXES)))
    return constructed(spelling), constructed(spelling | {field: other[field]})


# --- names ------------------------------------------------------------------------------------


@given(spellings().map(constructed))
def test_every_name_is_legal_and_reads_back(variant):
    for name in (variant.name, *variant.aliases):
        assert re.fullmatch(r"rv_[a-z0-9_]+", name)
        assert parse_name(name) == variant


@given(neighbours())
def test_names_are_equal_exactly_when_variants_are(pair):
    a, b = pair
    assert (a.name == b.name) == (a == b)
    assert len({a, b}) == 1 + (a != b)


SMALL = {"family": "cifar"}


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (Variant(), "rv_resnet50_b"),
        (rv.preset("B", family="cifar", depth=20), "rv_resnet20_cifar_b"),
        (Variant(norm="group"), "rv_resnet50_b_groupnorm"),
        (Variant(branch_scale="zero_gamma"), "rv_resnet50_b_zerogamma"),
        (Variant(norm="none", branch_scale="fixup"), "rv_resnet50_b_nonorm_fixup"),
        (Variant(norm="none", act="silu", order="preact"), "rv_resnet50_b_preact_nonorm_silu"),
        (Variant(depth=18, stem="conv3", stem_stride=1), "rv_resnet18_s1_conv3_3x3_conv"),
        (Variant(depth=50, stem="deep_wide"), "rv_resnet50_deepwide_3x3_conv"),
        (Variant(**SMALL, depth=110, block="bottleneck"), "rv_resnet110_cifar_bottleneck_b"),
        (Variant(**SMALL, depth=164, block="basic"), "rv_resnet164_cifar_basic_b"),
        (
            Variant(**SMALL, depth=110, shortcut="pad", order="relu_preact"),
            "rv_resnet110_cifar_conv3_3x3_pad_relupreact",
        ),
        (
            rv.preset("D", depth=50, cardinality=32, base_width=4, preact=True),
            "rv_resnext50_32x4d_d_preact",
        ),
        (rv.preset("D", depth=50, base_width=96), "rv_resnext50_1x96d_d"),
        (Variant(depth=50, base_width=32), "rv_resnext50_1x32d_b"),
        (Variant(depth=101, base_width=128), "rv_wide_resnet101_2_b"),
        (Variant(**SMALL, depth=29, cardinality=8, base_width=64), "rv_resnet29_cifar_g8_w64_b"),
        (
            Variant(
                **SMALL,
                depth=110,
                block="bottleneck",
                cardinality=4,
                stem_stride=2,
                shortcut="conv_all",
                order="bn_after_add",
                skip="exclusive_gate",
                attention="se",
                antialias="avg",
                norm="layer",
                act="leaky_relu",
                branch_scale="skipinit",
            ),
            "rv_resnet110_cifar_bottleneck_g4_s2_conv3_3x3_convall_preact_exclusivegate_se_avg"
            "_layernorm_leakyrelu_skipinit",
        ),
    ],
)
def test_names_say_what_differs_from_the_familys_own(variant, name):
    assert variant.name == name
    assert parse_name(name) == variant


# --- presets ----------------------------------------------------------------------------------


def test_presets_spell_the_axes_of_the_paper():
    assert rv.preset("D", depth=50, preact=True) == Variant(
        depth=50, stem="deep", stride="3x3", shortcut="avgpool", order="preact"
    )
    assert rv.preset("A", depth=50) == Variant(
        depth=50, stem="conv7", stride="1x1", shortcut="conv", order="post"
    )
    changed = [
        {key for key in PRESETS[b] if PRESETS[a][key] != PRESETS[b][key]}
        for a, b in (("A", "B"), ("B", "C"), ("C", "D"))
    ]
    assert changed == [{"stride"}, {"stem"}, {"shortcut"}]


def test_a_preset_takes_further_axes():
    assert rv.preset("D", order="preact") == rv.preset("D", preact=True)
    assert rv.preset("B", family="cifar", depth=20, stem="deep").preset == "C"
    assert rv.preset("B", depth=50, attention="se").preset == "B"
    model = rv.create_model("D", family="cifar", depth=29, attention="se", device="meta")
    assert model.variant.name == "rv_resnet29_cifar_d_se"
    with pytest.raises(UserError, match="depth go with a preset letter, not with 'rv_resnet18_b'"):
        rv.create_model("rv_resnet18_b", depth=50)


def test_cifar_depths_default_to_the_blocks_they_were_published_with():
    blocks = {d: next(iter(b)) for d, b in FAMILIES["cifar"].layouts.items()}
    basic, bottleneck = (20, 32, 44, 56, 110, 1202), (29, 47, 164, 1001)
    assert {blocks[d] for d in basic} == {"basic"}
    assert {blocks[d] for d in bottleneck} == {"bottleneck"}


@pytest.mark.parametrize("size", [{"family": "cifar", "depth": 38}, {"depth": 18}])
def test_units_of_one_to_four_layers_have_equal_parameters_and_macs(size):
    family = Variant(**size).family
    blocks = [name for name in FAMILIES[family].layouts[size["depth"]] if name != "bottleneck"]
    assert len(blocks) > 2
    variants = [Variant(**size, block=block) for block in blocks]
    costs = [rv.cost(variant) for variant in variants]
    assert len({(cost.params, cost.macs) for cost in costs}) == 1
    for variant in variants:
        layers = [units * len(BLOCKS[variant.block].kernels) for units in variant.units]
        assert layers == [2 * units for units in variants[0].units]


def test_where_no_shortcut_passes_them_units_of_any_length_are_one_network():
    plain = [
        Variant(family="cifar", depth=38, block=block, shortcut="none")
        for block in ("basic", "basic1", "basic3", "basic4")
    ]
    assert len(set(plain)) == 1
    kept = [dataclasses.replace(variant, attention="se", block="basic1") for variant in plain]
    assert kept[0].block == "basic1"  # one attention per unit


# --- refusals ---------------------------------------------------------------------------------


GROUPS = "cardinality and base_width are those of a bottleneck's 3x3 convolution; depth "


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"family": "cifa"}, "unknown family 'cifa'; did you mean 'cifar'?"),
        (
            {"family": "cifar", "depth": 21},
            "unknown depth 21 for family 'cifar'; choices: 6n+2 with basic blocks "
            "(20, 32, 44, 56, 110), 9n+2 with bottlenecks (29, 47, 164, 1001)",
        ),
        ({"block": "basic"}, "unknown block for depth 50 of family 'imagenet' 'basic'"),
        ({"stem": "conv9"}, "unknown stem 'conv9'"),
        ({"stem_stride": 3}, "unknown stem_stride 3; choices: 4, 2, 1"),
        ({"stride": "5x5"}, "unknown stride '5x5'"),
        ({"shortcut": "pool"}, "unknown shortcut 'pool'; did you mean 'avgpool'?"),
        ({"order": "pre"}, "unknown order 'pre'; did you mean 'preact'?"),
        ({"skip": "gates"}, "unknown skip 'gates'; choices: identity, scale"),
        ({"attention": ""}, "unknown attention ''; choices: none, se, eca"),
        ({"antialias": "blurr"}, "unknown antialias 'blurr'; did you mean 'blur'?"),
        ({"norm": "instance"}, "unknown norm 'instance'; choices: batch, group, layer, none"),
        ({"act": "prelu"}, "unknown act 'prelu'; did you mean 'relu'?"),
        ({"branch_scale": "rezero"}, "unknown branch_scale 'rezero'"),
        ({"branch_scale": "fixup"}, "branch_scale 'fixup' needs norm 'none': norm 'batch' undoes"),
        (
            {"branch_scale": "zero_gamma", "norm": "none"},
            "branch_scale 'zero_gamma' zeroes a norm, and norm 'none' has none",
        ),
        (
            {"branch_scale": "zero_gamma", "order": "relu_before_add"},
            "branch_scale 'zero_gamma' does not go with order 'relu_before_add'",
        ),
        (
            {"branch_scale": "fixup", "norm": "none", "order": "relu_before_add"},
            "branch_scale 'fixup' does not go with order 'relu_before_add'",
        ),
        (
            {"branch_scale": "layerscale", "shortcut": "none"},
            "branch_scale 'layerscale' needs a shortcut",
        ),
        ({"depth": 18, "cardinality": 32}, GROUPS + "18 of family 'imagenet' has basic blocks"),
        (
            {"base_width": 32, "family": "cifar", "depth": 164, "block": "basic"},
            GROUPS + "164 of family 'cifar' has basic blocks",
        ),
        (
            {"depth": 18, "block": "basic1", "antialias": "blur"},
            "antialias needs a layer after the strided one: block 'basic1' has one",
        ),
        ({"cardinality": 0}, f"cardinality 0 must be from 1 to {WIDEST}"),
        ({"base_width": WIDEST + 1}, f"base_width {WIDEST + 1} must be from 1 to {WIDEST}"),
        (
            {"base_width": 64, "cardinality": 64},
            "cardinality 64 x base_width 64 makes 3x3 convolutions of more than 16384 channels",
        ),
        (
            {"shortcut": "none", "order": "preact"},
            "shortcut 'none' goes with order 'post', not 'preact'",
        ),
        (
            {"shortcut": "none", "skip": "scale"},
            "skip 'scale' acts on a shortcut, and shortcut 'none' has none",
        ),
        (
            {"shortcut": "avgpool", "skip": "conv"},
            "skip 'conv' is the shortcut 'conv_all': it does not go with shortcut 'avgpool'",
        ),
        (
            {"depth": 18, "shortcut": "pad", "stem": "deep_wide"},
            "shortcut 'pad' only adds channels: stem 'deep_wide' has 128, the first stage 64",
        ),
    ],
)
def test_what_cannot_be_built_cannot_be_constructed(spelling, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Variant(**spelling)
    assert error.value.field in spelling
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("field", fields(Variant), ids=lambda field: field.name)
def test_a_field_takes_its_own_type_only(field):
    for value in (True, 1.0, None, [], b"se", Variant):
        message = f"{field.name} {value!r} must be of type {type(field.default).__name__}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$") as error:
            Variant(**{field.name: value})
        assert error.value.field == field.name
