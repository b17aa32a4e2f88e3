"""A new axis is one field of ``Variant``: names, tables, effects, figures and commands read it."""

from dataclasses import fields, replace

import pandas as pd
import pytest
from torch import nn

from resnet_variants import describe
from resnet_variants.analysis import effects, summary
from resnet_variants.models.diagram import diagram, kind_of
from resnet_variants.models.grids import parse_name
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import AXES, SUFFIX, Variant, named_in, token
from resnet_variants.records.results_folder import RUN_COLUMNS
from resnet_variants.records.schema import RUNS
from resnet_variants.reporting.html import varied
from resnet_variants.terminal.flags import Networks

OWN = Variant(family="cifar", depth=110, block="bottleneck")
# Another value of the axes whose values are numbers, or depend on one another.
VALUES = {
    "family": {"family": "imagenet", "depth": 50, "stem": "", "stem_stride": 0, "base_width": 0},
    "depth": {"depth": 29},
    "cardinality": {"cardinality": 4},
    "base_width": {"base_width": 32},
}


def other(axis):
    """A network that differs from ``OWN`` in the axis."""
    choices = AXES[axis].choices
    assert axis in VALUES or choices, f"give another value of {axis} in VALUES, tests/test_axes.py"
    for values in [VALUES[axis]] if axis in VALUES else [{axis: choice} for choice in choices]:
        variant = replace(OWN, **values)
        if getattr(variant, axis) != getattr(OWN, axis):
            return variant
    raise AssertionError(f"{axis} is a dead knob: no choice makes another network")


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_is_a_flag_a_part_of_the_name_and_a_column_of_its_type(axis):
    assert axis in {field.name for field in fields(Networks)}
    assert other(axis).name != OWN.name
    assert parse_name(other(axis).name) == other(axis)
    assert axis in RUN_COLUMNS
    assert axis in summary.SUMMARY_COLUMNS
    (column,) = [column for column in RUNS if column.name == axis]
    assert type(getattr(OWN, axis)) is column.kind


@pytest.mark.parametrize("axis", AXES)
def test_a_diagram_has_each_convolution_and_joins_where_the_shortcut_is_added(axis):
    model = ResNet(other(axis), device="meta")
    drawn = diagram(model)
    assert {"stem", "unit that changes the shape", "head"} <= {*drawn}
    for unit in (model.layer2[0], model.layer2[1]):
        branch, *shortcut = drawn[kind_of(unit)].splitlines()
        for line in shortcut:
            assert (line.index("└"), line.index("┘")) == (branch.index("┬"), branch.index("+"))
        attention = sum(
            isinstance(m, nn.Conv2d) for m in getattr(unit, "se", nn.Module()).modules()
        )
        convs = sum(isinstance(module, nn.Conv2d) for module in unit.modules()) - attention
        assert "".join([branch, *shortcut]).count("conv ") == convs
        assert bool(shortcut) == (not other(axis).is_plain)


def test_no_two_choices_are_one_word_at_the_end_of_names():
    words = [
        token(axis, choice)
        for axis in named_in(SUFFIX)
        for choice in AXES[axis].choices
        if choice != AXES[axis].default
    ]
    assert len({*words}) == len(words)
    assert {"groupnorm", "nonorm", "hardswish", "zerogamma"} <= {*words}


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_is_a_factor_of_effects_and_figures_and_is_told_by_describe_and_page(axis):
    variants = (OWN, other(axis))
    rows = pd.DataFrame({"model": v.name, "preset": v.preset, **vars(v)} for v in variants)
    (factor,) = effects.factors(rows.set_index("model"))
    assert axis in factor.split("/")
    assert axis in varied(rows)
    own, changed = map(describe.axes_of, variants)
    assert set(changed) - set(own)
