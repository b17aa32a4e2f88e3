"""Saved models: they load as they were, and their cards say what they are."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

import resnet_variants as rv
from resnet_variants.models.arguments import with_axes
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

NAMED = rv.parse_name("rv_resnet20_cifar_b")
UNNAMED = Variant(
    family="cifar", depth=8, stem_stride=2, skip="shortcut_gate", branch_scale="skipinit"
)
BOTH = pytest.mark.parametrize("variant", [NAMED, UNNAMED], ids=lambda v: v.name)
ARGUMENTS = [
    {},
    {"num_classes": 7, "in_chans": 1},
    {"num_classes": 0},
    {"norm_layer": "group", "act_layer": "silu"},
    {"global_pool": "catavgmax"},
    {"output_stride": 2},
]


@BOTH
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_a_saved_model_loads_as_it_was(variant, arguments, tmp_path):
    by_us = rv.create_model(variant, **arguments)
    by_timm = timm.create_model("resnet_variant", variant=variant.name, **arguments)
    x = torch.randn(2, arguments.get("in_chans", 3), 33, 33)
    for model, folder in ((by_us, tmp_path / "us"), (by_timm, tmp_path / "timm")):
        rv.save_pretrained(model, str(folder))
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.equal(loaded(x), model.eval()(x))
        assert loaded.variant == model.variant == with_axes(variant, arguments)[0]
        assert torch.equal(rv.load_weights(model, folder)(x), loaded(x))


def test_what_timm_saves_with_a_norm_as_argument_is_weights_of_the_network_with_that_norm(tmp_path):
    model = timm.create_model("resnet_variant", variant=NAMED.name, norm_layer="group")
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).variant == model.variant
    rv.load_weights(rv.create_model(model.variant.name), tmp_path)
    with pytest.raises(UserError, match="holds weights of rv_resnet20_cifar_b_groupnorm, not of"):
        rv.load_weights(rv.create_model(NAMED), tmp_path)


@BOTH
def test_classes_are_told_once(variant, tmp_path):
    # Whoever passes the arguments on beside the number of classes, as transformers does, can.
    rv.save_pretrained(rv.create_model(variant, num_classes=7, in_chans=1), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == 7
    model = timm.create_model(config["architecture"], num_classes=5, **config["model_args"])
    assert (model.variant, model.num_classes, model.in_chans) == (variant, 5, 1)


def test_a_model_for_maps_is_refused(tmp_path):
    for kind in ({}, {"feature_cls": "getter"}):
        model = rv.create_model(NAMED, features_only=True, **kind)
        for use in (rv.save_pretrained, rv.model_card):
            with pytest.raises(UserError, match="networks, made without features_only"):
                use(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_saving_leaves_the_model_as_it_is(tmp_path):
    model = rv.create_model(NAMED).to(memory_format=torch.channels_last)
    rv.save_pretrained(model, tmp_path)
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("README.md", "config.json", "model.safetensors"),
    ]


def test_the_card_counts_the_model_itself():
    for arguments in ARGUMENTS:
        model = rv.create_model(NAMED, **arguments)
        card = rv.model_card(model, {"Data": "digits"})
        params = sum(p.numel() for p in model.parameters())
        assert card["details"]["Model Stats"]["Params"] == f"{params:,}"
        assert f"{model.in_chans} x 32 x 32" in card["details"]["Model Stats"]["Image size"]
        assert card["details"]["Training"] == {"Data": "digits"}
        assert card["details"]["Variant"]["order"] == "post"


def test_the_cards_code_runs(tmp_path):
    rv.save_pretrained(rv.create_model(UNNAMED), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path))
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["model"].variant == UNNAMED


def test_a_folder_of_another_network_with_the_same_keys_is_refused(tmp_path):
    a, b = (rv.create_model(letter, depth=14) for letter in "AB")
    rv.save_pretrained(b, tmp_path)
    with pytest.raises(UserError, match="holds weights of rv_resnet14_b, not of rv_resnet14_a"):
        rv.load_weights(a, tmp_path)
    rv.load_weights(b, tmp_path)
