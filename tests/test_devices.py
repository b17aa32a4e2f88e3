"""Two processes on CPUs compute what one does, and stop, fail and continue like one."""

import dataclasses
import itertools
import json
import os
import signal

import pytest
import torch
from small import CPU, digits, digits_run, execute, measured, network, recipe, same, weights
from torch import nn

from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.training import device, trainer
from resnet_variants.training.augment import Normalise
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.device import (
    Machine,
    SyncedBatchNorm2d,
    determinism,
    environment,
    make_fabric,
    synced,
)
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.interrupt import stopping
from resnet_variants.training.trainer import StoppedError, fit

TWO = Machine(device="cpu", devices=2)
ODD = (1, 41)  # images to evaluate on

# A small rate: at a large one, rounding alone moves some activation over a ReLU's corner.
CURVES = {
    "post": ("post", recipe(lr=0.003, epochs=2)),
    "preact": ("preact", recipe(lr=0.003, epochs=2)),
    "further": (
        "post",
        recipe(lr=0.003, epochs=2, clip_grad=0.5, ema=0.5, cutout=0.3, color_jitter=0.3),
    ),
    "own statistics": ("post", recipe(lr=0.05, epochs=3, sync_bn=False, ema=0.5)),
}
CUT = recipe(epochs=2, batch_size=16, drop_path_rate=0.5, ema=0.5)  # six steps an epoch


def curves(fabric):
    """Records and weights by name."""
    results = {}
    for name, (order, one) in CURVES.items():
        model = network(order=order)
        with determinism(True):
            records = list(fit(model, digits(), one, seed=0, fabric=fabric))
        results[name] = [dataclasses.asdict(record) for record in records], weights(model)
    return results


def scores(fabric):
    data, model = digits(), network()
    normalise = Normalise.of(data, fabric.device)
    splits = [data.train.head(n) for n in ODD]
    found = [evaluate(model, split, normalise, fabric=fabric, keep=True) for split in splits]
    return [dataclasses.asdict(score) for score in found]


IMAGES = torch.linspace(-1, 1, 4 * 3 * 5 * 5, dtype=torch.float64).sin_().view(4, 3, 5, 5) * 10 + 3
WEIGHTS = torch.linspace(0, 9, 4 * 3 * 5 * 5, dtype=torch.float64).cos().view(4, 3, 5, 5)


def normalised(images, weights, norm):
    """Outputs, the images' gradients, those of the norm, and its state after two steps."""
    images = images.clone().requires_grad_()
    for _ in range(2):
        out = norm(images)
    (out.square() * weights).sum().backward()
    state = {name: tensor.double() for name, tensor in norm.state_dict().items()}
    return out.detach(), images.grad, norm.weight.grad, norm.bias.grad, state


def norm_layer():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=0.3).double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return norm


def synced_norm(fabric):
    """The halves of a batch, one in each process."""
    norm = synced(nn.Sequential(norm_layer()), torch.device("cpu"))[0]
    assert type(norm) is SyncedBatchNorm2d
    half = slice(2 * fabric.global_rank, 2 * fabric.global_rank + 2)
    return fabric.all_gather(normalised(IMAGES[half], WEIGHTS[half], norm))


def fitted(model, fabric, checkpointer=None):
    return measured(fit(model, digits(), CUT, seed=0, fabric=fabric, checkpointer=checkpointer))


def cut(fabric, folder):
    """A whole training; one that the second process asks to stop, and its continuation."""
    trainer.CHECK_EVERY = 2
    whole, stopped, model = (network(seed, recipe=CUT) for seed in (0, 0, 99))
    count = itertools.count(1)
    stop = [lambda: False, lambda: next(count) == 4][fabric.global_rank]
    with determinism(True):
        results = [(fitted(whole, fabric), weights(whole))]
        with pytest.raises(StoppedError):
            fitted(stopped, fabric, Checkpointer(folder / "state", 1e9, stop))
        records = fitted(model, fabric, Checkpointer(folder / "state", 1e9))
    return [*results, (records, weights(model))]


def saves(fabric, folder):
    """Which processes write when a checkpoint is due once."""
    trainer.CHECK_EVERY, path = 2, folder / str(fabric.global_rank)
    with determinism(True):
        fitted(network(), fabric, Checkpointer(path, 1e6, saved_at=-1e9))
    fabric.barrier()
    return [(folder / str(rank)).exists() for rank in range(2)]


# What Slurm, MPI, torchrun, clusters and Fabric's own command leave in the environment.
FOREIGN = {
    **dict.fromkeys(("SLURM_NTASKS", "SLURM_NPROCS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"), "4"),
    **dict.fromkeys(("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "1"),
    **dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "PMI_RANK"), "1"),
    **{"WORLD_SIZE": "4", "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "1"},
    **{"SLURM_JOB_NAME": "sbatch", "TORCHELASTIC_RUN_ID": "1", "STANDALONE_PORT": "1"},
    **{"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "none0"},
    **{"LT_DEVICES": "3", "LT_PRECISION": "64-true", "LT_NUM_NODES": "2", "LT_STRATEGY": "fsdp"},
}


def work(fabric, folder):
    """All that two processes are asked for: starting them takes longest."""
    torch.set_num_threads(1)
    results = curves(fabric)
    finals = {name: fabric.all_gather(final) for name, (_, final) in results.items()}
    found = {
        "world": (fabric.world_size, fabric.all_reduce(torch.ones(()), reduce_op="sum").item()),
        "curves": {name: records for name, (records, _) in results.items()},
        "finals": finals,
        "scores": scores(fabric),
        "norm": synced_norm(fabric),
        "cut": cut(fabric, folder),
        "saves": saves(fabric, folder),
    }
    if fabric.is_global_zero:
        torch.save(found, folder / "found.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("two")
    with environment(FOREIGN):
        make_fabric(TWO, "fp32").launch(work, folder)
    return torch.load(folder / "found.pt")


@pytest.fixture(scope="module")
def one():
    torch.set_num_threads(1)
    fabric = make_fabric(CPU, "fp32")
    return {"curves": curves(fabric), "scores": scores(fabric)}


@pytest.mark.parametrize("name", ["post", "preact", "further"])
def test_two_processes_train_like_one(one, two, name):
    records, _ = one["curves"][name]
    for a, b in zip(records, two["curves"][name], strict=True):
        for key in ("train_loss", "val_loss"):
            assert a[key] == pytest.approx(b[key], abs=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.01)
        assert (a["epoch"], a["lr"]) == (b["epoch"], b["lr"])
        assert a["train_acc"] == pytest.approx(b["train_acc"], abs=2 / 96)
    others = [curve[0]["train_loss"] for curve, _ in one["curves"].values() if curve != records]
    assert all(abs(records[0]["train_loss"] - other) > 1e-3 for other in others)


def test_without_synchronisation_each_process_has_its_own_batch_statistics(one, two):
    alone, together = one["curves"]["own statistics"][0], two["curves"]["own statistics"]
    assert abs(alone[0]["train_loss"] - together[0]["train_loss"]) > 1e-3
    assert together[-1]["train_loss"] < together[0]["train_loss"]


@pytest.mark.parametrize("name", CURVES)
def test_both_processes_end_with_the_same_weights_and_statistics(two, name):
    for key, both in two["finals"][name].items():
        assert torch.equal(both[0], both[1]), key


def test_an_odd_number_of_images_is_counted_once(one, two):
    for alone, together, n in zip(one["scores"], two["scores"], ODD, strict=True):
        assert together["n"] == alone["n"] == n
        assert together["acc"] == alone["acc"]
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        assert together["logits"].shape == (n, 10)
        torch.testing.assert_close(together["logits"], alone["logits"], rtol=1e-4, atol=1e-4)


def test_synced_batch_norm_is_batch_norm_on_the_joined_batch(two):
    out, grad, *of_norm, state = normalised(IMAGES, WEIGHTS, norm_layer())
    halves = two["norm"]
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(halves[0].flatten(0, 1), out, **close)
    torch.testing.assert_close(halves[1].flatten(0, 1), grad, **close)
    for both, expected in zip(halves[2:4], of_norm, strict=True):
        torch.testing.assert_close(both.sum(0), expected, **close)
    for name, both in halves[4].items():
        torch.testing.assert_close(both, torch.stack([state[name]] * 2), **close)


def test_what_two_processes_continue_ends_as_if_never_stopped(two):
    (whole, final), (records, again) = two["cut"]
    assert records == whole
    assert same(final, again)


def test_the_first_process_alone_saves(two):
    assert two["saves"] == [True, False]


# --- devices and processes -------------------------------------------------------------------


def test_apples_gpu_is_taken_where_torch_has_it(monkeypatch):
    """As far as this can be seen elsewhere: what is asked of Fabric, which needs the GPU."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(device, "Fabric", lambda **asked: asked)
    asked = make_fabric(Machine(device="mps"), "auto")
    assert (asked["accelerator"], asked["devices"], asked["precision"]) == ("mps", 1, "32-true")
    assert make_fabric(Machine(), "auto")["accelerator"] != "mps"
    with pytest.raises(UserError, match=r"devices 2 exceeds the 1 of this machine \(mps\)"):
        make_fabric(Machine(device="mps", devices=2), "auto")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("cuda", "unknown device 'cuda': torch sees no CUDA GPU here; choices: auto, cpu"),
        ("mps", "unknown device 'mps': torch sees no Apple GPU here; choices: auto, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device, message, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"^{message}"):
        make_fabric(Machine(device=device), "auto")


def test_processes_are_ours_whatever_a_scheduler_says(two, monkeypatch):
    assert two["world"] == (2, 2)
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    alone = make_fabric(CPU, "fp32")
    assert (alone.world_size, alone.global_rank, alone.is_global_zero) == (1, 0, True)
    assert os.environ["LT_DEVICES"] == "3"


def test_processes_that_cannot_reach_one_another_are_refused_at_once(monkeypatch):
    def unreachable(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(device.socket, "create_connection", unreachable)
    with pytest.raises(UserError, match=r"at 127\.0\.0\.1 \(Network is unreachable\): bring up"):
        make_fabric(TWO, "fp32")
    make_fabric(CPU, "fp32")


# --- a run in its folder ----------------------------------------------------------------------


def stopped_run(path):
    """The epochs of a run on two devices that a signal stops."""
    told = []

    def tell(record):
        told.append(record)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as left, stopping() as stop:
        assert execute(digits_run(epochs=50), path, TWO, hear=tell, stop=stop) is None
    assert left.value.code == 143
    return told


def test_a_run_on_two_devices_stops_at_a_signal(tmp_path):
    folder = RunFolder(tmp_path / "run")
    told = stopped_run(folder.path)
    assert json.loads((folder.path / "run.json").read_text())["devices"] == 2
    # One line for each epoch, so only one of the two wrote them.
    epochs = list(map(json.loads, (folder.path / "epochs.jsonl").read_text().splitlines()))
    assert [record["epoch"] for record in epochs] == [record.epoch for record in told]
    assert len((folder.path / "log.txt").read_text().splitlines()) == len(told) < 50
    assert {file.name for file in folder.path.iterdir()} == {
        *("run.json", "epochs.jsonl", "log.txt", "checkpoint.pt")
    }


# That of one device is in test_resume.
@pytest.mark.slow
def test_a_damaged_checkpoint_of_two_devices_fails_the_run_in_one_line(tmp_path):
    folder = RunFolder(tmp_path / "run")
    stopped_run(folder.path)
    folder.checkpoint.write_bytes(b"garbage")
    result = execute(digits_run(epochs=50), folder.path, TWO)
    assert result["status"] == "failed"
    assert result["error"].startswith(f"{folder.checkpoint} is damaged (")
    assert len(result["error"].splitlines()) == 1
    assert "Traceback" in (folder.path / "log.txt").read_text()
