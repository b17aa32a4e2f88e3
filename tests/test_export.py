"""Eager, compiled, exported and ONNX networks compute the same."""

import itertools

import pytest
import torch

import resnet_variants as rv

onnxruntime = pytest.importorskip("onnxruntime")

SIDES = (224, 225, 97)
LETTERS = pytest.mark.parametrize("letter", "ABCD")
ORDERS = pytest.mark.parametrize("preact", [False, True], ids=["post", "preact"])
# D's ceil-mode mean is where exporters fail.
OFTEN = {("A", 225), ("D", 225), ("D", 97)}
CELLS = [
    pytest.param(*cell, marks=() if cell in OFTEN else pytest.mark.slow)
    for cell in itertools.product("ABCD", SIDES)
]
BATCH = ({0: torch.export.Dim("batch", min=1, max=64)},)


def network(letter, preact):
    """The smallest of bottlenecks, where A differs from B; norms as after training."""
    model = rv.create_model(letter, depth=14, preact=preact, num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model.eval()


def same(model, other, side, batches=(1, 3)):
    for n in batches:
        x = torch.randn(n, 3, side, side)
        with torch.no_grad():
            want = model(x)
            assert want.abs().max() > 1e-2
            assert (other(x) - want).abs().max() <= 1e-4


def export(model, side):
    return torch.export.export(model, (torch.randn(2, 3, side, side),), dynamic_shapes=BATCH)


# The exporters' own affairs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("letter", "side"), CELLS)
@ORDERS
def test_exported_networks_compute_the_same(letter, preact, side, tmp_path):
    model = network(letter, preact)
    exported = export(model, side)
    same(model, exported.module(), side)
    torch.onnx.export(exported, dynamo=True, verbose=False).save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    name = session.get_inputs()[0].name
    same(model, lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), side)


def compiled_is_same(letter, preact, side, batches):
    torch.compiler.reset()
    model = network(letter, preact)
    same(model, torch.compile(model, dynamic=False, fullgraph=True), side, batches)


# Odd maps in every stage: 97 -> 49 -> 25 -> 13 -> 7 -> 4.
@ORDERS
def test_a_compiled_network_computes_the_same(preact):
    compiled_is_same("D", preact, 97, [3])


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@ORDERS
@LETTERS
def test_every_compiled_network_computes_the_same(letter, preact, side):
    compiled_is_same(letter, preact, side, [1, 3])
