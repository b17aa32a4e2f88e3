"""Fine-tuning: bodies of trained runs under new classifiers."""

import shutil
from dataclasses import replace

import pictures
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small import digits_run, execute, network, same, weights

import resnet_variants as rv
from resnet_variants.diagnosis.study import diagnose_run
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import WEIGHTS_FILE
from resnet_variants.registry import UserError
from resnet_variants.settings import Study
from resnet_variants.sweeps import run as runs
from resnet_variants.training.recipe import Recipe


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two seeds of one network on all digits."""
    out = tmp_path_factory.mktemp("results")
    torch.set_num_threads(1)
    for seed in (0, 1):
        run = digits_run(seed, epochs=1)
        assert execute(run, out / "runs" / run.id)["status"] == "done"
    return out


def body(state):
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


# --- heads ------------------------------------------------------------------------------------


def test_a_head_may_begin_with_a_batch_norm():
    variant = Variant(family="cifar", depth=8)
    model = ResNet(variant, num_classes=2, head="bn_linear").eval()
    norm, linear = model.fc
    assert isinstance(norm, torch.nn.BatchNorm1d) and norm.num_features == 64
    assert (linear.in_features, linear.out_features) == (64, 2)
    torch.nn.init.uniform_(norm.running_mean)
    x = torch.randn(3, 3, 32, 32)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert torch.equal(model(x), linear(norm(features)))
    model.reset_classifier(5)
    assert model.fc[1].out_features == 5 and model(x).shape == (3, 5)
    assert isinstance(model.reset_classifier(0) or model.fc, torch.nn.Identity)


def test_a_model_with_such_a_head_is_saved_and_loaded(tmp_path):
    model = rv.create_model("rv_resnet20_cifar_b", num_classes=2, head="bn_linear").eval()
    torch.nn.init.uniform_(model.fc[0].running_mean)
    rv.save_pretrained(model, tmp_path)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x))
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7).eval()
    assert same(body(other.state_dict()), body(model.state_dict()))
    assert other(x).shape == (2, 7)


# --- bodies -----------------------------------------------------------------------------------


def test_a_body_is_loaded_under_another_classifier():
    source, model = network(0), network(1)
    before = weights(model)
    rv.load_backbone(model, source.state_dict())
    assert same(body(model.state_dict()), body(source.state_dict()))
    assert torch.equal(model.fc.weight, before["fc.weight"])


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "misshapen"])
def test_a_body_that_does_not_fit_is_refused_and_nothing_is_changed(spoil):
    model, state = network(1), network(0).state_dict()
    if spoil == "missing":
        del state["layer1.0.conv1.weight"]
    elif spoil == "unexpected":
        state["layer9.weight"] = torch.zeros(1)
    else:
        state["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    before = weights(model)
    with pytest.raises(UserError, match=f"do not fit rv_resnet8_cifar_b: 1 {spoil}"):
        rv.load_backbone(model, state)
    assert same(model.state_dict(), before)


# --- runs -------------------------------------------------------------------------------------


def tuned(seed, **fields):
    run = digits_run(seed, epochs=1, **fields)
    return run, run.build(run.load())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_starts_from_a_file_a_runs_folder_or_its_run_in_a_results_folder(results, seed):
    folder = next((results / "runs").glob(f"*__s{seed}"))
    trained = load_file(folder / WEIGHTS_FILE)
    for source in (folder / WEIGHTS_FILE, folder, results):
        _, model = tuned(seed, weights=str(source))
        assert same(body(model.state_dict()), body(trained))
        assert not torch.equal(model.fc.weight, trained["fc.weight"])


def test_published_weights_are_timms(monkeypatch):
    made = network(5)
    asked = []
    monkeypatch.setattr(runs, "create_model", lambda *a, **k: asked.append((a, k)) or made)
    run, model = tuned(0, weights="pretrained")
    assert asked == [((run.variant,), {"pretrained": True, "in_chans": 1})]
    assert same(body(model.state_dict()), body(made.state_dict()))


def test_a_folder_that_is_called_pretrained_is_a_folder():
    assert Recipe(weights="pretrained").weights == "pretrained"
    assert {Recipe(weights=w).weights for w in ("./pretrained", "pretrained/")} == {"./pretrained"}
    assert {Recipe(weights=w).weights for w in ("first", "./first/")} == {"first"}
    run = digits_run(weights="./pretrained")
    with pytest.raises(UserError, match="there is no file 'pretrained'"):
        run.build(run.load())


def test_weights_of_several_runs_or_of_none_are_refused(results, tmp_path):
    out = shutil.copytree(results, tmp_path / "out")
    first = next((out / "runs").glob("*__s0"))
    shutil.copytree(first, out / "runs" / first.name.replace("digits", "other"))
    with pytest.raises(UserError, match="holds 2 finished runs of rv_resnet8_cifar_b with seed 0"):
        tuned(0, weights=str(out))
    with pytest.raises(UserError, match="holds no finished run of rv_resnet8_cifar_b with seed 7"):
        tuned(7, weights=str(out))
    with pytest.raises(UserError, match=r"rv_resnet8_cifar_b: .*pretrained"):  # none are published
        tuned(0, weights="pretrained")


@pytest.mark.parametrize(
    ("source", "depth", "message"),
    [
        ("nowhere", 8, "nowhere"),
        ("nothing.safetensors", 8, "nothing.safetensors"),
        ("the run", 14, "holds weights of rv_resnet8_cifar_b, not of rv_resnet14"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_made(
    results, tmp_path, complaint, source, depth, message
):
    (tmp_path / "the run").symlink_to(next((results / "runs").glob("*__s0")))
    words = ["--depth", depth, "--variant", "B", "--weights", tmp_path / source]
    assert message in complaint("run", *words, "--device", "cpu", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_classes_are_learnt_from_a_trained_body_under_a_new_head(tmp_path):
    three = {f"{split}/{name}": 12 for split in ("train", "test") for name in "abc"}
    pictures.fill(tmp_path / "three", three)
    pictures.halves(tmp_path / "two", train=20)
    one = digits_run(epochs=1, batch_size=16)
    assert execute(replace(one, data=f"folder:{tmp_path}/three"), tmp_path / "first")
    tuned = replace(one.recipe, weights=str(tmp_path / "first"), head="bn_linear")
    other = replace(one, data=f"folder:{tmp_path}/two", recipe=tuned)
    assert execute(other, tmp_path / "other")["status"] == "done"
    model = timm.create_model(f"local-dir:{tmp_path}/other", pretrained=True)
    assert model.num_classes == 2 and isinstance(model.fc[0], torch.nn.BatchNorm1d)


def test_initial_weights_that_have_changed_since_are_refused(results, tmp_path):
    source, folder = shutil.copytree(results, tmp_path / "source"), tmp_path / "run"
    execute(digits_run(epochs=1, weights=str(source)), folder)  # without snapshots
    study = Study(images=40, batch_size=20, draws=1, paths=1)
    assert diagnose_run(folder, study)["gradient_flow"]["epoch"].min() == 0
    weights = next((source / "runs").glob("*__s0")) / WEIGHTS_FILE
    state = load_file(weights)
    state["conv1.weight"] += 1
    save_file(state, weights)
    with pytest.raises(UserError, match=r"source' is no longer what this run began with, and it"):
        diagnose_run(folder, study)


def test_the_cost_is_that_of_the_head():
    run, model = tuned(0, head="bn_linear")
    assert run.cost(run.load()).params == sum(p.numel() for p in model.parameters())


def test_a_batch_norm_of_one_image_is_refused():
    with pytest.raises(UserError, match="takes statistics of at least 2 images at a time"):
        digits_run(head="bn_linear", batch_size=4, accumulate=4)


def test_a_head_of_another_kind_is_no_obstacle(tmp_path):
    _, model = tuned(0, head="bn_linear")
    save_file(weights(model), tmp_path / "w.safetensors")
    _, plain = tuned(1, weights=str(tmp_path / "w.safetensors"))
    assert same(body(plain.state_dict()), body(model.state_dict()))
    assert isinstance(plain.fc, torch.nn.Linear)
