"""Cells without a registered name: timm knows them by it once this process has met them."""

from concurrent.futures import ProcessPoolExecutor

import pytest
import timm
import torch
from timm.models import save_for_hf
from warm import WARM

import resnet_variants as rv
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError


def test_timm_knows_a_cell_that_was_met():
    meet = {
        18: lambda: rv.register(Variant(depth=18, stem_stride=1)),
        26: lambda: rv.register("rv_resnet26_s1_b"),
        34: lambda: rv.create_model("B", depth=34, stem_stride=1, device="meta"),
        50: lambda: rv.parse_name("rv_resnet50_s1_b"),
    }
    for depth, met in meet.items():
        name = f"rv_resnet{depth}_s1_b"
        met()
        assert timm.list_models(name) == [name]
        model = timm.create_model(name, device="meta", num_classes=3)
        assert model.variant == Variant(depth=depth, stem_stride=1)
    assert timm.create_model("rv_resnet18_s1_a", device="meta").variant.name == "rv_resnet18_s1_b"


def test_run_takes_letters_as_create_model_does_and_registers(monkeypatch, tmp_path):
    taken = []

    def take(experiment, *_):
        taken.extend(experiment.variants)
        raise KeyboardInterrupt

    monkeypatch.setattr("resnet_variants.api.run_sweep", take)
    name = "rv_resnet8_cifar_s2_conv3_3x3_convall"
    with pytest.raises(KeyboardInterrupt):
        rv.run(["B", name, Variant(depth=26)], out=tmp_path)
    assert timm.is_model(name)
    assert taken == [rv.preset("B"), rv.parse_name(name), Variant(depth=26)]


def test_registering_twice_or_what_is_registered_says_nothing():  # warnings are errors
    v = Variant(family="cifar", depth=8, stem="tiered")
    assert rv.register(v) == rv.register(v.name) == v.name
    assert rv.register("D") == "rv_resnet50_d"
    with pytest.raises(UserError, match="does not begin with rv_resnet"):
        rv.register("nope")


def test_a_registered_cell_is_a_whole_timm_model():
    name = rv.register(Variant(family="cifar", depth=8, attention="eca"))
    model = timm.create_model(name, features_only=True, out_indices=(1, 3), in_chans=1)
    assert [tuple(x.shape) for x in model(torch.zeros(2, 1, 32, 32))] == [
        (2, 16, 32, 32),
        (2, 64, 8, 8),
    ]
    assert timm.get_pretrained_cfg(name).input_size == (3, 32, 32)
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model(name, pretrained=True)


def test_what_timm_saves_of_it_loads_in_a_process_that_never_met_it(tmp_path):
    name = rv.register(Variant(family="cifar", depth=8, stem="tiered_narrow"))
    model = timm.create_model(name, num_classes=4)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    with ProcessPoolExecutor(1, WARM) as pool:
        assert not pool.submit(timm.is_model, name).result()
        loaded = pool.submit(timm.create_model, f"local-dir:{tmp_path}", pretrained=True).result()
    assert (loaded.variant.name, loaded.num_classes) == (name, 4)
    assert torch.equal(loaded.fc.weight, model.fc.weight)
