"""Weights from elsewhere fit to the last tensor or are refused; nothing is ever unpickled."""

import pickle

import pytest
import timm
import torch
from hub import Malicious
from safetensors.torch import save_file
from small import weights

import resnet_variants as rv
from resnet_variants.models.peers import timm_names
from resnet_variants.models.variant import Variant
from resnet_variants.registry import UserError

TINY = Variant(family="cifar", depth=8)
TWINS = {name: variant for variant, name in timm_names().items()}


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def assert_refused(source, says, model=None):
    """A one-line error that holds every string of ``says``, and a model that stayed as it was."""
    model = model or rv.create_model(TINY)
    before = weights(model)
    with pytest.raises(UserError) as error:
        rv.load_weights(model, source)
    assert_same_tensors(model.state_dict(), before)
    message = str(error.value)
    assert "\n" not in message
    assert [part for part in says if part not in message] == []


@pytest.fixture
def trained():
    """The state dict of a network whose buffers are not those of a new one."""
    model = rv.create_model(TINY)
    model(torch.randn(4, 3, 32, 32))
    return weights(model)


@pytest.fixture
def file(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(trained, path)
    return path


def test_a_state_dict_a_file_and_a_folder_load(trained, file):
    for source in (trained, file, str(file.parent)):
        model = rv.create_model(TINY)
        assert rv.load_weights(model, source) is model
        assert_same_tensors(model.state_dict(), trained)
    assert rv.load_backbone(model, trained) is model


def test_weights_without_counters_and_of_another_precision_take_the_models(trained):
    model = rv.create_model(TINY)
    cast = {k: v.double() for k, v in trained.items() if "num_batches" not in k}
    rv.load_weights(model, cast)
    counters = {k: v for k, v in model.state_dict().items() if "num_batches" in k}
    assert set(map(int, counters.values())) == {0}
    assert_same_tensors(model.state_dict(), trained | counters)


@pytest.mark.parametrize("name", ["resnet18d", "resnetv2_18d"])
def test_a_feature_extractor_takes_weights_without_a_classifier(name):
    whole = timm.create_model(name).state_dict()
    # Maps of ``preact`` are raw sums: the norm before the pooling is no part of the extractor.
    headless = {k: v for k, v in whole.items() if not k.startswith(("fc.", "head.", "norm."))}
    model = timm.create_model(TWINS[name].name, features_only=True)
    assert_refused(whole, ["these weights do not fit FeatureListNet: ", " unexpected"], model)
    rv.load_weights(model, headless)
    same = rv.create_model(TWINS[name]).eval()
    rv.load_weights(same, whole)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps, wanted = model.eval()(x), same.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(maps, wanted, strict=True))


# --- timm's ResNetV2 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes"), [("resnetv2_18", 1000), ("resnetv2_18d", 0), ("resnetv2_50t", 10)]
)
def test_v2_weights_go_to_timm_and_come_back(name, classes, tmp_path):
    model = rv.create_model(TWINS[name], num_classes=classes)
    save_file(rv.resnetv2_state_dict(model), tmp_path / "model.safetensors")
    peer = timm.create_model(name, num_classes=classes)
    peer.load_state_dict(rv.resnetv2_state_dict(model), strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = (net.eval().forward_features(x) for net in (model, peer))
    assert torch.equal(ours, theirs)
    for source in (peer.state_dict(), tmp_path):
        back = rv.create_model(TWINS[name], num_classes=classes)
        rv.load_weights(back, source)
        assert_same_tensors(back.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "post"},
        {"attention": "se"},
        {"skip": "shortcut_gate"},
        {"stem": "tiered"},
        {"shortcut": "pad"},
        {"cardinality": 32, "base_width": 4},
    ],
    ids=str,
)
def test_what_timms_v2_cannot_compute_gets_no_keys_of_it(fields):
    model = rv.create_model(Variant(depth=26, **{"order": "preact"} | fields), device="meta")
    with pytest.raises(UserError, match="timm's ResNetV2") as error:
        rv.resnetv2_state_dict(model)
    assert error.value.field in fields


@pytest.mark.parametrize("fields", [{"head": "bn_linear"}, {"conv_bias": True}], ids=str)
def test_layers_that_timms_v2_lacks_get_no_keys_of_it(fields):
    model = rv.create_model("rv_resnet18_b_preact", device="meta", **fields)
    with pytest.raises(UserError, match="timm's ResNetV2 has no bn_linear head and no biases"):
        rv.resnetv2_state_dict(model)
    if "head" in fields:
        model.reset_classifier(0)
        assert "head.fc.weight" not in rv.resnetv2_state_dict(model)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"depth": 11, "stem": "deep"},
            [
                "rv_resnet8_cifar_b: 1 missing (first conv1.weight), ",
                "unexpected (first conv1.0.weight), ",
                "misshapen (first layer1.0.conv1.weight: (16, 16, 1, 1), "
                "the model has (16, 16, 3, 3))",
            ],
        ),
        ({"depth": 14}, ["36 unexpected (first layer1.1.conv1.weight)"]),
        ({"depth": 8, "num_classes": 7}, ["2 misshapen", "fc.weight"]),
        ({"depth": 8, "num_classes": 0}, ["2 missing", "fc.weight"]),
    ],
    ids=str,
)
def test_another_networks_weights_are_refused_by_their_keys(other, says):
    state = rv.create_model("B", family="cifar", **other).state_dict()
    assert_refused(state, says)


def test_v2_weights_of_another_network_are_refused():
    model = rv.create_model("rv_resnet18_b_preact")
    for name, says in (
        ("resnetv2_18d", ["1 missing (first conv1.weight)", "(first stem.conv1.weight)"]),
        ("resnet18", ["missing (first norm.weight)", "unexpected (first bn1.weight)"]),
    ):
        assert_refused(timm.create_model(name).state_dict(), says, model)
    v2 = timm.create_model("resnetv2_18").state_dict()
    assert_refused(v2, ["missing", "unexpected"], rv.create_model("rv_resnet18_b"))


BIAS = "fc.bias"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, ["'state_dict' holds a dict, not a t"]),
        (lambda state: state | {BIAS: state[BIAS].tolist()}, ["'fc.bias' holds a list"]),
        (
            lambda state: list(state.items()),
            ["source [('conv1.weight', tens", " must be a path or a state dict"],
        ),
        (lambda state: {}, ["missing (first conv1.weight)"]),
        (lambda state: state | {("a", 1): torch.ones(1)}, ["1 unexpected (first ('a', 1))"]),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, ["(first module.conv1.w"]),
        (lambda state: state | {BIAS: torch.ones(9)}, ["1 misshapen (first fc.bias: (9,), "]),
        (lambda state: state | {BIAS: state[BIAS].to("meta")}, [BIAS]),
        (lambda state: state | {BIAS: state[BIAS].to_sparse()}, [BIAS]),
        (lambda state: state | {BIAS: state[BIAS].to(torch.int8)}, [BIAS]),
        (lambda state: state | {BIAS: state[BIAS].to(torch.complex64)}, [BIAS]),
    ],
    ids=[
        *("checkpoint", "list", "items", "empty", "key", "prefix", "shape"),
        *("meta", "sparse", "int8", "complex"),
    ],
)
def test_what_is_no_state_dict_of_the_network_is_refused(trained, change, says):
    assert_refused(change(trained), says)


def test_a_model_without_storage_takes_no_weights(trained):
    with pytest.raises(UserError, match="on the meta device"):
        rv.load_weights(rv.create_model(TINY, device="meta"), trained)


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ""])
def test_a_file_of_another_kind_is_refused(trained, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    torch.save(trained, path)
    for source in (path, str(path)):
        assert_refused(source, [str(path), "is no .safetensors file, and no other kind is read"])


def test_what_is_not_there_is_refused(tmp_path):
    assert_refused(tmp_path / "no.safetensors", ["there is no file", "no.safetensors"])
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert_refused(tmp_path, ["there is no file", str(tmp_path / "model.safetensors")])
    assert_refused(f"{'a' * 300}.safetensors", ["aaa.safetensors"])  # no file can have the name


def test_a_damaged_file_is_refused(file):
    whole = file.read_bytes()
    damaged = [whole[:end] for end in (0, 4, 100, -1)]
    heads = ((2**60).to_bytes(8, "little"), (5).to_bytes(8, "little") + b"hello")
    damaged += [head + whole[len(head) :] for head in heads]
    for content in damaged:
        file.write_bytes(content)
        assert_refused(file, ["cannot read weights from", str(file)])


@pytest.mark.parametrize("save", [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o))])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_malicious_pickle_is_not_run(tmp_path, suffix, save):
    path, marker = tmp_path / f"model{suffix}", tmp_path / "marker"
    save({"conv1.weight": Malicious(marker)}, path)
    for source in (path, tmp_path):
        assert_refused(source, ["model"])
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()
