"""What a dry run estimates, and how long it takes to."""

import pytest
from small import CPU, digits_run, network, recipe

from resnet_variants.data.dataset import load_dataset
from resnet_variants.sweeps import estimate
from resnet_variants.training import timing
from resnet_variants.training.device import make_fabric


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the measured steps move: a second for each image of a batch."""
    now, batches = [0.0], []

    def step(model, data, recipe, fabric, *, warm, timed):
        batches.append(recipe.batch_size)
        now[0] += (warm + timed) * recipe.batch_size
        return float(recipe.batch_size)

    monkeypatch.setattr(timing, "seconds_per_step", step)
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    return now, batches


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [(1, [2]), (4, [2]), (20, [2, 8]), (90, [2, 8, 32]), (1000, [2, 8, 32, 64, 64])],
)
def test_the_batch_that_is_measured_grows_as_the_time_allows(clock, seconds, batches):
    fabric = make_fabric(CPU, "fp32")
    rate = timing.seconds_per_image(
        network(),
        load_dataset("digits"),
        recipe(batch_size=128, accumulate=2),
        fabric,
        seconds=seconds,
    )
    assert rate == 1
    assert clock[1] == batches
    assert clock[0][0] <= max(4, seconds)


def test_a_plan_measures_some_networks_and_takes_the_others_by_their_macs(monkeypatch):
    runs = [digits_run(order=order) for order in ("post", "preact")] * 20
    now, measured = [0.0], []

    def per_run(run, machine, seconds):
        measured.append(run)
        now[0] += seconds
        return 7.0

    monkeypatch.setattr(estimate, "seconds_per_run", per_run)
    monkeypatch.setattr(estimate.time, "monotonic", lambda: now[0])
    seconds, count = estimate.seconds_of(runs, CPU)
    assert count == len(measured) == 4
    assert now[0] <= 10
    macs = [run.cost(run.load()).macs for run in runs]
    assert seconds == pytest.approx([7.0 * m / macs[0] for m in macs], rel=0.05)
