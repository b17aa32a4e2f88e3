"""``pretrained=True``: timm's published weights, from a Hub cache made here; never a pickle."""

import functools
import json
import pickle
import socket

import hub
import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg

import resnet_variants as rv
from resnet_variants.models.catalogue import list_aliases
from resnet_variants.models.peers import timm_names
from resnet_variants.registry import UserError

TWINS = timm_names()
NAMED = {name: rv.parse_name(name) for name in [*rv.list_models("rv_*"), *list_aliases()]}
X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args):
        pytest.fail("asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Put a file into a Hub cache, from which alone everything is read; returns the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return functools.partial(hub.publish, tmp_path / "cache")


def trained(name, **kwargs):
    """A model of timm's whose norms are not those of a new one."""
    model = timm.create_model(name, **kwargs)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model.eval()


def outputs(model, x=X):
    with torch.no_grad():
        out = model.eval()(x)
    return out if isinstance(out, list) else [out]


def assert_same(ours, theirs):
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# --- what is published ------------------------------------------------------------------------


def published(variant):
    """timm's weights of this network by their tags."""
    cfgs = get_arch_pretrained_cfgs(TWINS[variant]) if variant in TWINS else {}
    return {cfg.tag: cfg for cfg in cfgs.values() if cfg.hf_hub_id}


def test_our_tags_are_those_of_timms_weights_on_the_hub():
    wanted = {f"{name}.{tag}" for name, variant in NAMED.items() for tag in published(variant)}
    assert len(wanted) > 150
    assert set(timm.list_pretrained("rv_*")) == wanted


def test_a_tag_is_timms_but_for_names_of_layers_and_sources():
    own = {"architecture", "url", "hf_hub_filename", "first_conv", "classifier"}
    for name, variant in NAMED.items():
        theirs = published(variant)
        for tag, cfg in theirs.items():
            ours, wanted = get_pretrained_cfg(f"{name}.{tag}").to_dict(), cfg.to_dict()
            for key in {*ours, *wanted} - own:
                assert ours.get(key) == wanted.get(key), (name, tag, key)
        if theirs:
            default = get_pretrained_cfg(TWINS[variant])
            assert get_pretrained_cfg(name).hf_hub_id == default.hf_hub_id, name


def test_no_registered_source_is_anything_but_a_safetensors_file():
    cfgs = [cfg for name in NAMED for cfg in get_arch_pretrained_cfgs(name).values()]
    cfgs += get_arch_pretrained_cfgs("resnet_variant").values()
    sources = {(cfg.url, cfg.file, cfg.state_dict, cfg.custom_load) for cfg in cfgs}
    assert sources == {(None, None, None, False)}
    assert {cfg.hf_hub_filename for cfg in cfgs if cfg.hf_hub_id} == {"model.safetensors"}


# --- loading ----------------------------------------------------------------------------------

SOURCES = {  # what is asked for -> the twin, and where its weights are
    "rv_resnet18_d": ("resnet18d", "timm/resnet18d.ra2_in1k"),
    "rv_resnet18_a.tv_in1k": ("resnet18", "timm/resnet18.tv_in1k"),
    "rv_resnet18_d_preact": ("resnetv2_18d", "timm/resnetv2_18d.ra4_e3600_r224_in1k"),
}
TAGS = {name: hub_id.partition(".")[2] for name, (_, hub_id) in SOURCES.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_published_weights_give_the_twins_outputs(name, publish):
    twin, hub_id = SOURCES[name]
    peer = trained(twin)
    cache = publish(hub_id, save(peer.state_dict()))
    model = timm.create_model(name, pretrained=True, cache_dir=cache)
    (ours,), (theirs,) = outputs(model), outputs(peer)
    if "v2" in twin:  # the head is a 1x1 convolution there
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        theirs, ours = (net.forward_features(X) for net in (peer, model))
    assert torch.equal(ours, theirs)
    assert model.pretrained_cfg["hf_hub_id"] == hub_id
    assert model.pretrained_cfg["tag"] == TAGS[name]
    again = rv.create_model(name, pretrained=True, cache_dir=cache)
    assert_same(outputs(again), outputs(model))


def test_adapted_weights_give_the_outputs_of_a_twin_built_the_same_way(publish):
    name = "rv_resnet18_a.tv_in1k"
    twin, hub_id = SOURCES[name]
    peer = trained(twin)
    cache = publish(hub_id, save(peer.state_dict()))
    build = {"pretrained": True, "cache_dir": cache}
    for kwargs in (
        {"in_chans": 4},
        {"num_classes": 0, "global_pool": ""},
        {"features_only": True, "out_indices": (1, 3), "in_chans": 1},
        {"output_stride": 8},
    ):
        x = torch.randn(1, kwargs.get("in_chans", 3), 64, 64)
        names = (name, f"{twin}.{TAGS[name]}")
        ours, theirs = (outputs(timm.create_model(net, **build, **kwargs), x) for net in names)
        assert_same(ours, theirs)
    model = timm.create_model(name, **build, num_classes=5)
    assert model.fc.weight.shape == (5, 512)
    assert torch.equal(model.eval().forward_features(X), peer.forward_features(X))


def test_adapted_v2_weights_give_the_features_of_a_twin_built_the_same_way(publish):
    twin, hub_id = SOURCES["rv_resnet18_d_preact"]
    peer = trained(twin)
    cache = publish(hub_id, save(peer.state_dict()))
    build = {"pretrained": True, "cache_dir": cache}
    for kwargs in ({"in_chans": 1}, {"num_classes": 0}, {"num_classes": 5}):
        x = torch.randn(1, kwargs.get("in_chans", 3), 64, 64)
        ours, theirs = (
            timm.create_model(name, **build, **kwargs).eval()
            for name in ("rv_resnet18_d_preact", twin)
        )
        assert torch.equal(ours.forward_features(x), theirs.forward_features(x))
    maps = timm.create_model("rv_resnet18_d_preact", features_only=True, **build).eval()(X)
    whole = timm.create_model("rv_resnet18_d_preact", **build).eval()
    assert_same(maps, whole.forward_intermediates(X, intermediates_only=True))
    assert_same(maps[1:], peer.forward_intermediates(X)[1][1:])


def test_weights_of_other_classes_by_default_bring_their_classifier(publish):
    tag = "sw_in12k"
    classes = get_pretrained_cfg(f"resnetaa50d.{tag}").num_classes
    peer = trained("resnetaa50d", num_classes=classes)
    cache = publish(f"timm/resnetaa50d.{tag}", save(peer.state_dict()))
    model = timm.create_model(f"rv_resnet50_d_avg.{tag}", pretrained=True, cache_dir=cache)
    assert model.num_classes == classes == 11821
    assert_same(outputs(model), outputs(peer))


def test_weights_come_from_a_file_from_memory_and_for_unregistered_spellings(publish, tmp_path):
    peer = trained("resnet18")
    path = tmp_path / "x.safetensors"
    save_file(peer.state_dict(), path)
    wanted = outputs(peer)
    for overlay in ({"file": str(path)}, {"state_dict": peer.state_dict()}):
        made = {"pretrained": True, "pretrained_cfg_overlay": overlay}
        assert_same(outputs(timm.create_model("rv_resnet18_b", **made)), wanted)
        other = timm.create_model("resnet_variant", variant="rv_resnet18_s1_b", **made)
        assert torch.equal(other.layer4[1].conv2.weight, peer.layer4[1].conv2.weight)
    cache = publish("timm/resnet18.a1_in1k", save(peer.state_dict()))
    made = {"pretrained": True, "cache_dir": cache}
    for variant in ("rv_resnet18_b", "rv_resnet18_a"):
        assert_same(outputs(timm.create_model("resnet_variant", variant=variant, **made)), wanted)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rv_resnet200_b", "rv_resnet18_c", "rv_resnet20_cifar_b"])
def test_a_network_without_published_weights_says_its_name(name):
    for named in ({"model_name": name}, {"model_name": "resnet_variant", "variant": name}):
        with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}"):
            timm.create_model(**named, pretrained=True, device="meta")


def assert_refused(says, name="rv_resnet18_b", **kwargs):
    with pytest.raises(UserError) as error:
        timm.create_model(name, pretrained=True, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    assert says in message


def test_weights_that_do_not_fit_are_refused(publish, tmp_path):
    path = tmp_path / "x.safetensors"
    state = timm.create_model("resnet34").state_dict()
    save_file(state, path)
    cache = publish("timm/resnet18.a1_in1k", path.read_bytes())
    says = "these weights do not fit rv_resnet18_b: 96 unexpected (first layer1.2."
    assert_refused(says, cache_dir=cache)
    assert_refused(says, pretrained_cfg_overlay={"file": path})
    assert_refused(says, pretrained_cfg_overlay={"state_dict": state}, num_classes=5)
    part = timm.create_model("resnet18").state_dict()
    del part["conv1.weight"]
    says = "these weights do not fit rv_resnet18_b: 1 missing (first conv1.weight)"
    assert_refused(says, pretrained_cfg_overlay={"state_dict": part}, num_classes=5)
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    assert_refused("fc.weight: (7, 512)", pretrained_cfg_overlay={"state_dict": state})


@pytest.mark.parametrize("name", ["rv_resnet18_b", "rv_resnet200_b"])
def test_an_address_is_refused_without_asking_for_the_network(name):
    address = "https://example.com/weights.safetensors"
    assert_refused(address, name, pretrained_cfg_overlay={"url": address})


@pytest.mark.parametrize("filename", ["pytorch_model.bin", "model.safetensors"])
def test_a_malicious_file_folder_or_repository_is_refused(filename, publish, tmp_path):
    marker = tmp_path / "marker"
    malicious = pickle.dumps({"conv1.weight": hub.Malicious(marker)})
    path = tmp_path / filename
    path.write_bytes(malicious)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "rv_resnet18_b"}))
    assert_refused(str(path), pretrained_cfg_overlay={"file": path})
    assert_refused(str(tmp_path), f"local-dir:{tmp_path}")
    cache = publish("timm/resnet18.a1_in1k", malicious, filename)
    for overlay in ({}, {"hf_hub_filename": filename}):
        with pytest.raises((UserError, FileNotFoundError)):
            timm.create_model(
                "rv_resnet18_b", pretrained=True, cache_dir=cache, pretrained_cfg_overlay=overlay
            )
    assert not marker.exists()
