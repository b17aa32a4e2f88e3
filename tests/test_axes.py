"""Every axis of ``Variant`` is in every list of axes: one that is forgotten would say nothing."""

from dataclasses import fields, replace

import pandas as pd
import pytest

from resnet_variants import describe
from resnet_variants.analysis import effects, published, tables
from resnet_variants.models.grids import GRID_KEYS, parse_name
from resnet_variants.models.variant import AXES, DESIGN, SUFFIXES, Variant
from resnet_variants.models.weights import _V2_HAS
from resnet_variants.records.results_folder import RUN_COLUMNS
from resnet_variants.records.schema import RUNS
from resnet_variants.reporting import page_data
from resnet_variants.reporting.figures import style
from resnet_variants.terminal.flags import Networks

FIELDS = [field.name for field in fields(Variant)]
OWN = Variant(family="cifar", depth=110, block="bottleneck")
# Another choice of each axis; where one follows from another, both change.
OTHERS = {
    "family": replace(OWN, family="imagenet", depth=50, stem="", stem_stride=0, base_width=0),
    "depth": replace(OWN, depth=29),
    "block": replace(OWN, block="basic"),
    "stem": replace(OWN, stem="deep"),
    "stem_stride": replace(OWN, stem_stride=2),
    "stride": replace(OWN, stride="1x1"),
    "shortcut": replace(OWN, shortcut="avgpool"),
    "order": replace(OWN, order="preact"),
    "skip": replace(OWN, skip="scale"),
    "cardinality": replace(OWN, cardinality=4),
    "base_width": replace(OWN, base_width=32),
    "attention": replace(OWN, attention="se"),
    "antialias": replace(OWN, antialias="blur"),
}


def test_another_choice_of_every_axis_is_here():
    assert list(OTHERS) == FIELDS
    assert all(getattr(other, axis) != getattr(OWN, axis) for axis, other in OTHERS.items())


def rows(axis):
    """Two variants as the tables have them."""
    columns = [{"model": v.name, "preset": v.preset, **vars(v)} for v in (OWN, OTHERS[axis])]
    return pd.DataFrame(columns)


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_has_its_choices_or_is_a_number(axis):
    assert (axis in AXES) == (type(getattr(OWN, axis)) is str)


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_is_in_the_name_and_read_from_it(axis):
    assert OTHERS[axis].name != OWN.name
    assert parse_name(OTHERS[axis].name) == OTHERS[axis]
    head = ("family", "depth", "block", "stem_stride", "cardinality", "base_width")
    assert (axis in head) != (axis in (*DESIGN, *SUFFIXES))


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_is_a_key_of_grids_and_a_flag(axis):
    assert axis in GRID_KEYS
    assert axis in {field.name for field in fields(Networks)}


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_is_a_column_of_its_type(axis):
    assert axis in RUN_COLUMNS
    assert axis in tables.SUMMARY_COLUMNS
    (column,) = [column for column in RUNS if column.name == axis]
    assert type(getattr(OWN, axis)) is column.kind


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_has_an_effect(axis):
    (factor,) = effects.factors(rows(axis).set_index("model"))
    assert axis in factor.split("/")


def test_a_forgotten_axis_has_none(monkeypatch):
    monkeypatch.setattr(effects, "AXES", [axis for axis in effects.AXES if axis != "skip"])
    assert effects.factors(rows("skip").set_index("model")).empty


@pytest.mark.parametrize("axis", FIELDS)
def test_an_axis_is_drawn_and_told_on_the_page(axis):
    assert axis in page_data.varied(rows(axis))


@pytest.mark.parametrize("axis", FIELDS)
def test_describe_tells_an_axis(axis):
    own, other = describe._heading(OWN), describe._heading(OTHERS[axis])
    assert set(other[1:]) - set(own[1:])


@pytest.mark.parametrize("axis", [a for a in FIELDS if a not in ("depth", "block")])
def test_timms_class_is_asked_for_an_axis(axis):
    v = Variant(order="preact")
    assert getattr(v, axis) in _V2_HAS[axis]


def test_what_papers_report_is_compared_at_equal_axes():
    assert sorted([*published._SAME, *published._PARTS]) == sorted(FIELDS)


@pytest.mark.parametrize("axis", [a for a in FIELDS if a not in ("stem", "order")])
def test_figures_tell_an_axis_by_the_text_if_not_by_colour_or_mark(axis):
    assert style.design(rows(axis)).nunique() == 2
