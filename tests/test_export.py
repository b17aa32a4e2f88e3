"""Compiled, exported and ONNX networks compute what eager ones do."""

import itertools

import pytest
import torch

import resnet_variants as rv

onnxruntime = pytest.importorskip("onnxruntime")

# Maps of 33 px are odd in every stage, where D's ceil-mode mean makes exporters fail.
SIDES = (33, 97, 224, 225)
CELLS = list(itertools.product("ABCD", ("post", "preact"), SIDES))


def often(*cells):
    """All cells; those that are not named are slow."""
    return [pytest.param(*c, marks=() if c in cells else pytest.mark.slow) for c in CELLS]


BATCH = ({0: torch.export.Dim("batch", min=1, max=64)},)


def network(letter, order):
    """The smallest of bottlenecks, where A differs from B; norms as after training."""
    model = rv.create_model(letter, depth=14, order=order, num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model.eval()


def same(model, other, side):
    for n in (1, 3):
        x = torch.randn(n, 3, side, side)
        with torch.no_grad():
            want = model(x)
            assert want.abs().max() > 1e-2
            assert (other(x) - want).abs().max() <= 1e-4


# The exporters' own affairs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("letter", "order", "side"), often(("D", "preact", 33)))
def test_exported_networks_compute_the_same(letter, order, side, tmp_path):
    model, x = network(letter, order), torch.randn(2, 3, side, side)
    exported = torch.export.export(model, (x,), dynamic_shapes=BATCH)
    same(model, exported.module(), side)
    torch.onnx.export(exported, dynamo=True, verbose=False).save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    name = session.get_inputs()[0].name
    same(model, lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), side)


@pytest.mark.slow  # test_contract compiles smaller ones
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize(("letter", "order", "side"), CELLS)
def test_compiled_networks_compute_the_same(letter, order, side, backend):
    torch.compiler.reset()
    model = network(letter, order)
    compiled = torch.compile(model, dynamic=False, fullgraph=True, backend=backend)
    same(model, compiled, side)
