"""Fine-tuning: bodies of trained runs under new classifiers."""

import json
import shutil

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import digits_run, execute, network, weights

import resnet_variants as rv
from resnet_variants.models.network import ResNet
from resnet_variants.models.variant import Variant
from resnet_variants.models.weights import WEIGHTS_FILE
from resnet_variants.registry import UserError
from resnet_variants.sweeps import run as runs
from resnet_variants.terminal import cli
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


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


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


def test_an_unknown_head_is_refused():
    with pytest.raises(UserError, match="unknown head 'mlp'"):
        rv.create_model("rv_resnet20_cifar_b", head="mlp")


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


def tuned(seed=0, **fields):
    run = digits_run(seed, epochs=1, **fields)
    return run, run.build(run.load())


def test_a_run_starts_from_the_run_of_its_network_and_seed(results):
    for seed in (0, 1):
        _, model = tuned(seed, weights=str(results))
        trained = load_file(next((results / "runs").glob(f"*__s{seed}")) / "model.safetensors")
        assert same(body(model.state_dict()), body(trained))
        assert not torch.equal(model.fc.weight, trained["fc.weight"])


def test_a_run_starts_from_a_runs_folder_or_a_file(results, tmp_path):
    folder = next((results / "runs").glob("*__s1"))
    file = shutil.copy(folder / "model.safetensors", tmp_path / "w.safetensors")
    for source in (folder, file):
        _, model = tuned(0, weights=str(source))
        assert same(body(model.state_dict()), body(load_file(folder / "model.safetensors")))


def test_weights_and_heads_are_part_of_a_runs_id(results):
    choices = ({}, {"weights": str(results)}, {"head": "bn_linear"})
    assert len({tuned(0, **fields)[0].id for fields in choices}) == 3


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
    assert Recipe(weights="./first/").weights == "first"
    run = digits_run(weights="./pretrained")
    with pytest.raises(UserError, match="there is no file 'pretrained'"):
        run.build(run.load())


def test_a_network_without_published_weights_is_refused():
    with pytest.raises(UserError, match=r"rv_resnet8_cifar_b: .*pretrained"):
        tuned(0, weights="pretrained")


def test_of_several_runs_none_is_chosen(results, tmp_path):
    out = shutil.copytree(results, tmp_path / "out")
    first = next((out / "runs").glob("*__s0"))
    shutil.copytree(first, out / "runs" / first.name.replace("digits", "other"))
    with pytest.raises(UserError, match="holds 2 finished runs of rv_resnet8_cifar_b with seed 0"):
        tuned(0, weights=str(out))
    with pytest.raises(UserError, match="holds no finished run of rv_resnet8_cifar_b with seed 7"):
        tuned(7, weights=str(out))


def command(*words, out, epochs=1):
    words = ["--depth", "8", "--variant", "B", "--epochs", str(epochs), "--seeds", "1", *words]
    return cli.main(["run", *words, "--engine", "inline", "--out", str(out)])


@pytest.mark.parametrize("source", ["nowhere", "nothing.safetensors"])
def test_weights_that_are_not_there_are_refused_before_anything_is_made(tmp_path, capsys, source):
    out = tmp_path / "out"
    assert command("--weights", str(tmp_path / source), out=out) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert source in line
    assert not out.exists()


def test_weights_of_another_network_are_refused(results, tmp_path, capsys):
    folder = next((results / "runs").glob("*__s0"))
    out = tmp_path / "out"
    words = ["--depth", "14", "--variant", "B", "--seeds", "1", "--out", str(out)]
    assert cli.main(["run", *words, "--weights", str(folder)]) == 2
    assert "holds weights of rv_resnet8_cifar_b, not of rv_resnet14" in capsys.readouterr().err


def test_two_classes_of_pictures_are_learnt_from_a_trained_body(tmp_path):
    """Ten sizes of squares first, then two classes of the user's own under a new head."""
    many = pictures(tmp_path / "many", sizes=range(2, 12), each=24)
    two = pictures(tmp_path / "two", sizes=(3, 10), each=90)
    first = tmp_path / "first"
    assert command("--data", f"folder:{many}", "--lr", "0.05", out=first, epochs=8) == 0
    out = tmp_path / "out"
    words = ["--weights", str(first), "--head", "bn_linear", "--lr", "0.01"]
    assert command("--data", f"folder:{two}", *words, out=out, epochs=4) == 0
    (folder,) = (out / "runs").glob("rv_*")
    result = json.loads((folder / "result.json").read_text())
    assert result["test_acc"] == 1
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert model.num_classes == 2 and isinstance(model.fc[0], torch.nn.BatchNorm1d)


def pictures(folder, sizes, each):
    """White squares on black, a class per size, anywhere in pictures of 16 pixels."""
    draw = torch.Generator().manual_seed(0)
    for size in sizes:
        for i in range(each):
            image = Image.new("RGB", (16, 16))
            x, y = torch.randint(0, 17 - size, (2,), generator=draw).tolist()
            image.paste((255, 255, 255), (x, y, x + size, y + size))
            place = folder / ("test" if i % 3 == 0 else "train") / f"size{size:02d}"
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{i}.png")
    return folder


def test_a_finished_run_needs_its_source_no_more(results, tmp_path):
    source = shutil.copytree(results, tmp_path / "source")
    out = tmp_path / "out"
    words = ["--weights", str(source), "--snapshots"]
    assert command(*words, out=out) == 0
    (folder,) = (out / "runs").glob("rv_*")
    config = json.loads((folder / "run.json").read_text())
    assert len(config["weights_hash"]) == 16
    shutil.rmtree(source)
    assert command(*words, out=out) == 0  # nothing to do
    found = rv.diagnose(folder, images=40, batch_size=20, draws=1).tables
    assert found["gradient_flow"]["epoch"].min() == 0


def test_initial_weights_that_have_changed_since_are_refused(results, tmp_path):
    source = shutil.copytree(results, tmp_path / "source")
    out = tmp_path / "out"
    assert command("--weights", str(source), out=out) == 0  # without snapshots
    (folder,) = (out / "runs").glob("rv_*")
    settings = {"images": 40, "batch_size": 20, "draws": 1, "paths": 1}
    assert rv.diagnose(folder, **settings).tables["gradient_flow"]["epoch"].min() == 0
    weights = next((source / "runs").glob("*__s0")) / WEIGHTS_FILE
    state = load_file(weights)
    state["conv1.weight"] += 1
    save_file(state, weights)
    with pytest.raises(UserError, match=r"source' is no longer what this run began with, and it"):
        rv.diagnose(folder, **settings)


def test_a_folder_is_one_however_it_is_spelt():
    ids = {digits_run(0, weights=text).id for text in ("first", "first/", "./first")}
    assert len(ids) == 1


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
