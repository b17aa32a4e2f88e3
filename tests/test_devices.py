"""Two processes on CPUs compute what one does, and stop, fail and continue like one."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from small import CPU, digits, digits_run, execute, measured, network, recipe, same, weights
from torch import nn

from resnet_variants.records.run_folder import RunFolder
from resnet_variants.registry import UserError
from resnet_variants.training import checkpoint, device, trainer
from resnet_variants.training.augment import Normalise
from resnet_variants.training.checkpoint import Checkpointer
from resnet_variants.training.device import (
    Machine,
    SyncedBatchNorm2d,
    determinism,
    make_fabric,
    synced,
)
from resnet_variants.training.evaluate import evaluate
from resnet_variants.training.interrupt import stopping
from resnet_variants.training.trainer import StoppedError, check_batch, fit

TWO = Machine(device="cpu", devices=2)
ODD = (1, 41)  # images to evaluate on

# A small rate: at a large one, rounding alone moves some activation over a ReLU's corner.
CURVES = {
    "post": ("post", recipe(lr=0.003)),
    "preact": ("preact", recipe(lr=0.003)),
    "further": ("post", recipe(lr=0.003, clip_grad=0.5, ema=0.5, cutout=0.3, color_jitter=0.3)),
    "own statistics": ("post", recipe(lr=0.05, epochs=6, sync_bn=False)),
    "own statistics, ema": ("post", recipe(lr=0.05, epochs=6, sync_bn=False, ema=0.5)),
}
CUT = recipe(epochs=2, batch_size=16, drop_path=0.5, ema=0.5)  # six steps an epoch


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


def normalised(images, weights, norm, steps=2):
    """Outputs, the images' gradients and the norm's state after some steps."""
    images = images.clone().requires_grad_()
    for _ in range(steps):
        out = norm(images)
    (out.square() * weights).sum().backward()
    return out.detach(), images.grad, norm.weight.grad, norm.bias.grad, weights_of(norm)


def weights_of(norm):
    return {name: tensor.double() for name, tensor in norm.state_dict().items()}


def norm_layer():
    norm = nn.BatchNorm2d(3, momentum=0.3).double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return norm


def synced_norm(fabric):
    """The halves of a batch, one in each process."""
    torch.manual_seed(0)
    norm = synced(nn.Sequential(norm_layer()), torch.device("cpu"))[0]
    assert type(norm) is SyncedBatchNorm2d
    half = slice(2 * fabric.global_rank, 2 * fabric.global_rank + 2)
    return fabric.all_gather(normalised(IMAGES[half], WEIGHTS[half], norm))


def cut(fabric, folder):
    """A training that the second process asks to stop, and its continuation; and a whole one."""
    trainer.CHECK_EVERY = 2
    results = []
    with determinism(True):
        whole = network(recipe=CUT)
        records = list(fit(whole, digits(), CUT, seed=0, fabric=fabric))
        results.append((measured(records), weights(whole)))
        count = itertools.count(1)
        stop = [lambda: False, lambda: next(count) == 4][fabric.global_rank]
        stopped = 0
        try:
            list(_fitted(network(recipe=CUT), fabric, Checkpointer(folder / "state", 1e9, stop)))
        except StoppedError:
            stopped = 1
        torch.manual_seed(99)
        model = network(99, recipe=CUT)
        records = _fitted(model, fabric, Checkpointer(folder / "state", 1e9))
        results.append((measured(records), weights(model)))
    return results, fabric.all_gather(torch.tensor(stopped))


def _fitted(model, fabric, checkpointer):
    return fit(model, digits(), CUT, seed=0, fabric=fabric, checkpointer=checkpointer)


def saves(fabric, folder):
    """How often each process writes when every second one is due once."""
    trainer.CHECK_EVERY, written, save = 2, [], checkpoint.save

    def noted(*args):
        written.append(args)
        save(*args)

    checkpoint.save = noted
    checkpointer = Checkpointer(folder / "once", 1e6, saved_at=-1e9)
    with determinism(True):
        list(_fitted(network(), fabric, checkpointer))
    checkpoint.save = save
    return fabric.all_gather(torch.tensor(len(written)))


def work(fabric, folder):
    """All that two processes are asked for: starting them takes longest."""
    torch.set_num_threads(1)
    results = curves(fabric)
    finals = {name: fabric.all_gather(final) for name, (_, final) in results.items()}
    found = {
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


def test_the_curves_compared_above_can_differ(one):
    first = [records[0]["train_loss"] for records, _ in one["curves"].values()]
    assert abs(first[0] - first[1]) > 1e-3
    assert abs(first[0] - first[2]) > 1e-3


@pytest.mark.parametrize("name", ["own statistics", "own statistics, ema"])
def test_without_synchronisation_each_process_has_its_own_batch_statistics(one, two, name):
    alone, together = one["curves"][name][0], two["curves"][name]
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
    torch.manual_seed(0)
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
    ((whole, final), (records, again)), stopped = two["cut"]
    assert stopped.tolist() == [1, 1]
    assert records == whole
    assert same(final, again)


def test_the_first_process_alone_saves_and_both_know(two):
    assert two["saves"].tolist() == [1, 0]


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"batch_size 33 is no multiple of 2 \(devices x"):
        check_batch(digits(), recipe(batch_size=33), 2)
    with pytest.raises(UserError, match="leaves each of 2 parts an odd number"):
        check_batch(digits(), recipe(batch_size=6, mixup=0.1), 2)


# --- Apple's GPU ------------------------------------------------------------------------------


def test_apples_gpu_is_taken_where_torch_has_it(monkeypatch):
    """As far as this can be seen elsewhere: what is asked of Fabric, which needs the GPU."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(device, "Fabric", lambda **asked: asked)
    asked = make_fabric(Machine(device="mps"), "auto")
    assert (asked["accelerator"], asked["devices"], asked["precision"]) == ("mps", 1, "32-true")
    assert make_fabric(Machine(), "auto")["accelerator"] != "mps"
    with pytest.raises(UserError, match=r"devices 2 exceeds the 1 of this machine \(mps\)"):
        make_fabric(Machine(device="mps", devices=2), "auto")


def test_apples_gpu_is_refused_where_torch_has_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "^unknown device 'mps': torch sees no Apple GPU here; choices: auto, cpu$"
    with pytest.raises(UserError, match=message):
        make_fabric(Machine(device="mps"), "auto")


class OnApple(torch.Tensor):
    """A tensor that says it is on a device without float64, and cannot become one."""

    @property
    def device(self):
        return torch.device("mps")

    def double(self):
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_numbers_become_float64_on_the_host_where_the_device_has_none():
    numbers = torch.tensor([1.5, 2.0])
    found = device.double(numbers.as_subclass(OnApple))
    assert (type(found), found.dtype, found.device.type) == (torch.Tensor, torch.float64, "cpu")
    assert torch.equal(found, numbers.double())


def test_a_batch_that_leaves_the_batch_norm_of_a_device_one_image_is_refused():
    with pytest.raises(
        UserError, match="leaves each of 2 devices 1 image, too few for a batch norm"
    ):
        check_batch(digits(), recipe(batch_size=2, sync_bn=False), 2)
    check_batch(digits(), recipe(batch_size=2), 2)
    check_batch(digits(), recipe(batch_size=2, accumulate=2), 1)


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


def place(fabric, folder):
    total = fabric.all_reduce(torch.ones(()), reduce_op="sum").item()
    (folder / str(fabric.global_rank)).write_text(f"{fabric.world_size} {total:g}")


@pytest.mark.timeout(120)
def test_processes_are_ours_whatever_a_scheduler_says(tmp_path, monkeypatch):
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    alone = make_fabric(CPU, "fp32")
    assert (alone.world_size, alone.global_rank, alone.is_global_zero) == (1, 0, True)
    monkeypatch.setattr(device, "PATIENCE", 60.0)
    make_fabric(TWO, "fp32").launch(place, tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"0": "2 2", "1": "2 2"}
    assert os.environ["LT_DEVICES"] == "3"


def test_processes_that_cannot_reach_one_another_are_refused_at_once(monkeypatch):
    def unreachable(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(device.socket, "create_connection", unreachable)
    with pytest.raises(UserError, match=r"at 127\.0\.0\.1 \(Network is unreachable\): bring up"):
        make_fabric(TWO, "fp32")
    make_fabric(CPU, "fp32")


# --- a run in its folder ----------------------------------------------------------------------


def test_a_run_on_two_devices_stops_at_a_signal_and_names_what_breaks_it(tmp_path):
    told, run = [], digits_run(epochs=50)

    def tell(record):
        told.append(record)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as left, stopping() as stop:
        assert execute(run, tmp_path / "run", TWO, hear=tell, stop=stop) is None
    assert left.value.code == 143
    folder = RunFolder(tmp_path / "run")
    assert json.loads((folder.path / "run.json").read_text())["devices"] == 2
    # One line for each epoch, so only one of the two wrote them.
    epochs = list(map(json.loads, (folder.path / "epochs.jsonl").read_text().splitlines()))
    assert [record["epoch"] for record in epochs] == [record.epoch for record in told]
    assert len((folder.path / "log.txt").read_text().splitlines()) == len(told) < 50
    assert {file.name for file in folder.path.iterdir()} == {
        *("run.json", "epochs.jsonl", "log.txt", "checkpoint.pt")
    }

    folder.checkpoint.write_bytes(b"garbage")
    with stopping() as stop:
        result = execute(run, tmp_path / "run", TWO, hear=tell, stop=stop)
    assert result["status"] == "failed"
    assert result["error"].startswith(f"{folder.checkpoint} is damaged (")
    assert len(result["error"].splitlines()) == 1
    assert "Traceback" in (folder.path / "log.txt").read_text()


@pytest.mark.slow
def test_a_command_on_two_devices_stops_at_a_signal_and_continues(tmp_path):
    flags = "--variant D --depth 8 --seeds 1 --epochs 15 --device cpu --devices 2 --precision fp32"
    words = [sys.executable, "-m", "resnet_variants.run", *flags.split(), "--out", str(tmp_path)]
    words += ["--checkpoint-seconds", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 143
    assert "Traceback" not in text
    assert not list(tmp_path.glob("runs/*/result.json"))
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert "1 done" in done.stdout
    (result,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(result.read_text())["test_acc"] > 0.8
    assert len((result.parent / "epochs.jsonl").read_text().splitlines()) == 15
