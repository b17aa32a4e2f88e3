"""The engine ray: two nodes on this machine, one of which is lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from small import CPU, sweep
from test_local import EAGER, experiment, results

from resnet_variants.registry import UserError
from resnet_variants.sweeps.engines import ray as cluster
from resnet_variants.sweeps.engines.base import Workers
from resnet_variants.sweeps.sweep import Ended, EpochDone, Options, Planned, Started
from resnet_variants.training.device import Machine

# Read when Ray is loaded, here and in the nodes. A node that is gone is missed within seconds.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex * 2}
os.environ |= {"RAY_health_check_initial_delay_ms": "0", "RAY_health_check_period_ms": "500"}
pytestmark = pytest.mark.skipif(not find_spec("ray"), reason="the extra ray is not installed")


def options(**workers):
    return Options(machine=EAGER, workers=Workers(engine="ray", **workers))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def node(*words):
    """A node of a cluster, with one core, in a process group of its own."""
    ray_command = Path(sys.executable).parent / "ray"
    words = [ray_command, "start", *words, "--num-cpus=1", "--node-ip-address=127.0.0.1", "--block"]
    return subprocess.Popen(
        words,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def until_it_runs(process):
    for line in process.stdout:
        if "will now block" in line:
            return
    raise AssertionError("a node did not start")


@pytest.fixture(scope="module")
def nodes():
    """The address of a cluster, and its second node."""
    address = f"127.0.0.1:{free_port()}"
    head = node("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false")
    until_it_runs(head)
    second = node(f"--address={address}")
    until_it_runs(second)
    yield address, second
    for process in (second, head):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def test_all_runs_finish_when_a_node_is_lost_and_no_bit_differs(tmp_path, nodes):
    address, second = nodes
    events = []

    def lose_a_node(event):
        """End the second node while both nodes have a run."""
        events.append(event)
        begun, over = (sum(isinstance(e, kind) for e in events) for kind in (Started, Ended))
        if isinstance(event, EpochDone) and begun - over == 2 and second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()

    there, here = tmp_path / "there", tmp_path / "here"
    assert sweep(experiment(2), there, options(ray_address=address), lose_a_node)
    assert isinstance(events[0], Planned)
    assert events[0].engine == "Ray, 2 nodes, 1 CPU per run"
    assert second.poll() is not None
    assert sum(isinstance(event, Started) for event in events) == 5  # one was begun again
    ended = [event.run.id for event in events if isinstance(event, Ended)]
    assert sorted(ended) == sorted(run.id for run in experiment(2).runs)
    assert not list((there / "runs").glob(".*"))
    assert sweep(experiment(2), here, Options(machine=EAGER))
    assert results(there) == results(here)


@pytest.mark.slow  # a node's own words are below
def test_nodes_that_do_not_see_the_results_folder_are_one_line(tmp_path, nodes, monkeypatch):
    monkeypatch.setattr(Path, "touch", lambda _: None)  # nodes know the folder by a file in it
    with pytest.raises(UserError, match="does not see the results folder") as error:
        sweep(experiment(), tmp_path, options(ray_address=nodes[0]))
    assert error.value.field == "out"
    assert str(error.value).endswith(": give --out in a folder that all nodes share at one path")
    assert not list((tmp_path / "runs").glob("rv_*"))


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_elsewhere(tmp_path, nodes):
    one, settings = experiment(epochs=50), options(ray_address=nodes[0])
    epochs = []

    def interrupt(event):
        """Ctrl-C at the first epoch; a second one would not wait for the state to be saved."""
        if isinstance(event, EpochDone):
            epochs.append(event)
            if len(epochs) == 1:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sweep(one, tmp_path, settings, interrupt)
    state, *_ = tmp_path.glob("runs/*/checkpoint.*")
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert not list((tmp_path / "runs").glob(".*"))
    assert sweep(one, tmp_path, Options(machine=EAGER))
    assert "continued" in (state.parent / "log.txt").read_text()


# --- without a cluster ------------------------------------------------------------------------


def test_a_node_says_that_it_does_not_see_the_results_folder(tmp_path):
    token = tmp_path / "runs" / ".token"
    said = (
        f"the node {socket.gethostname()} does not see the results folder {str(tmp_path)!r}: give"
    )
    assert cluster._unseen(token).startswith(said)
    token.parent.mkdir()
    token.touch()
    assert cluster._unseen(token) == ""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "ray_address 'nowhere' must be HOST:PORT"),
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1' ([Errno 111] Connection refused)"),
    ],
)
def test_an_address_without_a_cluster_is_one_line_and_nothing_is_written(
    tmp_path, complaint, address, message
):
    said = complaint("run", "--engine", "ray", "--ray-address", address, "--out", tmp_path / "out")
    assert said.startswith(f"resnet-variants run: --ray-address: {message}")
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray: pip install 'resnet_variants\[ray\]'"):
        cluster.check(CPU, Workers(engine="ray"), "auto")


def test_what_only_ray_takes_is_refused_elsewhere():
    for wrong in ({"ray_address": "a:1"}, {"gpus_per_run": 0.5}):
        with pytest.raises(UserError, match="is for --engine ray"):
            Workers(engine="local", **wrong)
    with pytest.raises(UserError, match=r"gpus_per_run 1\.5 must be a whole number, or less"):
        Workers(engine="ray", gpus_per_run=1.5)


def test_a_node_takes_as_many_runs_as_its_scarcest_part_allows():
    def ray(*nodes):
        """As much of Ray as the counting of slots looks at."""
        return SimpleNamespace(
            nodes=lambda: [{"Alive": alive, "Resources": has} for alive, has in nodes],
            cluster_resources=lambda: {"GPU": sum(has.get("GPU", 0) for _, has in nodes)},
        )

    there = ray((True, {"CPU": 8, "GPU": 2}), (True, {"CPU": 3}), (False, {"CPU": 64}))
    assert cluster._slots(there, {"CPU": 2}) == 5
    assert cluster._slots(there, {"CPU": 1, "GPU": 0.25}) == 8
    assert cluster._slots(there, {"CPU": 0.1, "GPU": 0.2}) == 10
    need, any_device, workers = cluster._need, Machine(), Workers(engine="ray")
    assert need(there, CPU, workers) == {"CPU": 1}
    assert need(there, any_device, workers) == {"CPU": 1, "GPU": 1}
    assert need(ray((True, {"CPU": 1})), any_device, workers) == {"CPU": 1}
    quarter = Workers(engine="ray", gpus_per_run=0.25, cpus_per_run=2)
    assert need(there, any_device, quarter) == {"CPU": 2, "GPU": 0.25}
