"""Splits that are decoded batch by batch give what splits in memory give."""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import resource
import signal
import time
from multiprocessing import active_children

import numpy as np
import pictures
import pytest
import torch
from factories import no_space
from PIL import Image

from resnet_variants.data import dataset as data_module
from resnet_variants.data import splits
from resnet_variants.data.dataset import Loading, load_dataset
from resnet_variants.data.images import BadImageError, resized_crop
from resnet_variants.data.splits import Batch, ResidentSplit, StreamedSplit
from resnet_variants.registry import UserError, warn_once

ORDER = torch.tensor([7, 0, 3, 11, 2])
SEEDS = torch.tensor([5, 2**31 - 1, 0, 5, 8])


@pytest.fixture
def folder(tmp_path):
    return pictures.halves(tmp_path / "pictures", train=8, test=3, side=16)


@pytest.fixture
def streaming(monkeypatch):
    monkeypatch.setattr(data_module, "RESIDENT_BYTES", 0)


def load(spec, **loading):
    return load_dataset.__wrapped__(str(spec), loading=Loading(**loading))


def images(split, *plan):
    return torch.cat(list(split.batches(plan)))


def by_workers(split, workers=1):
    return dataclasses.replace(split, workers=workers)


def crops():
    return Batch(ORDER, torch.rand(5, 4, generator=torch.Generator().manual_seed(1)), 0.3)


def states():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def both(spec, monkeypatch, **loading):
    """The same images in memory and decoded batch by batch."""
    loading["image_cache"] = "off"
    resident = load(spec, **loading)
    monkeypatch.setattr(data_module, "RESIDENT_BYTES", 0)
    return resident, load(spec, workers=1, **loading)


def test_streamed_batches_are_the_resident_ones_pixel_for_pixel(folder, monkeypatch):
    resident, streamed = both(f"folder:{folder}", monkeypatch)
    assert isinstance(resident.train, ResidentSplit)
    assert isinstance(streamed.train, StreamedSplit)
    assert (resident.facts["resident"], streamed.facts["resident"]) == (True, False)
    for name in ("train", "val", "test"):
        one, other = getattr(resident, name), getattr(streamed, name)
        plan = [Batch(part) for part in torch.arange(len(one)).flip(0).split(4)]
        for made, expected in zip(other.batches(plan), one.batches(plan), strict=True):
            assert torch.equal(made, expected)
        assert torch.equal(one.labels, other.labels)
    assert streamed.mean == resident.mean
    assert streamed.std == resident.std
    assert streamed.split_hash == resident.split_hash
    first = resident.train.head(4), streamed.train.head(4)
    assert [len(part) for part in first] == [4, 4]
    assert torch.equal(*(images(part, Batch(torch.arange(4))) for part in first))
    assert torch.equal(*(part.labels for part in first))


def test_streamed_digits_are_grey_like_the_resident_ones(monkeypatch):
    resident, streamed = both("digits", monkeypatch)
    assert torch.equal(images(streamed.test, Batch(ORDER)), resident.test.images[ORDER])


@pytest.mark.parametrize(
    "batch",
    [Batch(ORDER), crops(), Batch(ORDER, policy="rand-m9-mstd0.5", seeds=SEEDS)],
    ids=["whole", "crops", "policy"],
)
def test_the_number_of_workers_changes_nothing(folder, streaming, batch):
    rest = Batch(torch.tensor([1, 4]))
    made = [images(load(f"folder:{folder}", workers=n).train, batch, rest) for n in (0, 1, 2)]
    assert made[0].shape == (7, 3, 16, 16)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def test_a_streamed_crop_is_what_pillow_makes_of_the_box(folder, streaming):
    split, batch = load(f"folder:{folder}", workers=1).train, crops()
    for got, at, draws in zip(images(split, batch), ORDER.tolist(), batch.crops, strict=True):
        image = split.picture(at)
        box = resized_crop(image.size, tuple(draws.tolist()), 0.3)
        expected = image.resize((16, 16), Image.Resampling.BILINEAR, box=box)
        assert np.array_equal(got.numpy().transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original", "augmix-m5", "3a"])
def test_a_policy_is_a_function_of_the_seed(policy):
    split = by_workers(load_dataset("digits").train, 0)  # grey: a policy takes and gives RGB
    first = images(split, Batch(ORDER, policy=policy, seeds=SEEDS))
    random.seed(1)
    np.random.seed(1)
    assert torch.equal(first, images(split, Batch(ORDER, policy=policy, seeds=SEEDS)))
    # An image does not depend on its place in a batch either.
    alone = [
        images(split, Batch(ORDER[i : i + 1], policy=policy, seeds=SEEDS[i : i + 1]))
        for i in range(5)
    ]
    assert torch.equal(first, torch.cat(alone))
    others = [images(split, Batch(ORDER, policy=policy, seeds=SEEDS + n)) for n in range(1, 4)]
    assert not all(torch.equal(first, other) for other in others)


def test_batches_leave_the_global_random_streams_alone(folder, monkeypatch):
    unknown = Batch(ORDER, policy="no-such", seeds=SEEDS)
    for data in both(f"folder:{folder}", monkeypatch):
        before = states()
        images(data.train, crops(), Batch(ORDER, policy="original", seeds=SEEDS))
        with pytest.raises(UserError, match="auto_augment 'no-such' is none of timm's") as caught:
            images(data.train, unknown)
        assert "\n" not in str(caught.value)
        assert states() == before


# --- broken pictures --------------------------------------------------------------------------


def test_an_image_that_breaks_during_training_is_one_line_that_names_it(folder, streaming):
    data = load(f"folder:{folder}", workers=2)
    path = pictures.empty(folder / data.train.source.paths[data.train.index[3]])
    batches = data.train.batches([Batch(torch.tensor([0, 1])), Batch(torch.tensor([2, 3]))])
    assert len(next(batches)) == 2
    with pytest.raises(BadImageError) as caught:
        next(batches)
    assert pictures.is_one_line(caught.value, path)


def test_skipping_leaves_the_same_images_out_of_a_streamed_split(folder, monkeypatch):
    whole = load(f"folder:{folder}")
    path = pictures.empty(folder / "train/a/2.png")
    resident, streamed = both(f"folder:{folder}", monkeypatch, on_bad_image="skip")
    assert streamed.skipped == resident.skipped
    assert pictures.is_one_line(streamed.skipped[0], path)
    assert len(streamed.train) == len(resident.train) == len(whole.train) - 1
    every = Batch(torch.arange(len(resident.train)))
    assert torch.equal(images(streamed.train, every), images(resident.train, every))
    assert streamed.split_hash == resident.split_hash == whole.split_hash


# --- what workers share -----------------------------------------------------------------------


PLAN = [crops(), Batch(ORDER), Batch(torch.tensor([1]))]


@pytest.fixture
def split(folder, streaming):
    """A streamed split that this process decodes."""
    return load(f"folder:{folder}", workers=0).train


def without_room(_):
    """What a worker does first: from then on it gets next to no shared memory."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def test_workers_without_room_in_shared_memory_send_the_same(split, monkeypatch):
    whole = images(split, *PLAN)
    shared = list(by_workers(split).batches(PLAN))
    monkeypatch.setattr(splits, "_leave_signals_to_the_trainer", without_room)
    copied = list(by_workers(split).batches(PLAN))
    assert (shared[0].is_shared(), copied[0].is_shared()) == (True, False)
    assert torch.equal(torch.cat(shared), whole)
    assert torch.equal(torch.cat(copied), whole)


def unmapped(*args, **kwargs):
    raise RuntimeError("unable to mmap 768 bytes from file <x>: Cannot allocate memory (12)")


def out_of_pages(split, i, picture=StreamedSplit.picture):
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGBUS)
    return picture(split, i)


@pytest.mark.parametrize(
    ("place", "name", "broken", "says"),
    [
        (multiprocessing, "Queue", no_space, "No space left on device"),
        (torch.multiprocessing.reductions, "rebuild_storage_fd", unmapped, "unable to mmap"),
        (StreamedSplit, "picture", out_of_pages, "Bus error"),
    ],
)
def test_where_workers_cannot_share_this_process_decodes_and_says_so_once(
    split, monkeypatch, caplog, place, name, broken, says
):
    warn_once.cache_clear()
    whole = images(split, *PLAN)
    batches = by_workers(split, 2).batches(PLAN)
    first = [next(batches)] if name == "rebuild_storage_fd" else []  # it fails in the middle
    monkeypatch.setattr(place, name, broken)
    assert torch.equal(torch.cat([*first, *batches]), whole)
    assert torch.equal(images(by_workers(split, 2), *PLAN), whole)
    assert active_children() == []
    record = caplog.records[0]
    assert len(caplog.records) == 1
    assert says in record.message
    assert record.message.endswith("this process decodes the pictures itself, as with --workers 0")
    assert "\n" not in record.message


def test_auto_is_one_worker_for_each_core(folder, streaming, monkeypatch):
    monkeypatch.setattr(data_module.joblib, "cpu_count", lambda: 1)
    assert load(f"folder:{folder}").train.workers == 1
    assert [Loading(workers=n).decoders(4) for n in ("auto", 0, 7)] == [4, 0, 7]


# --- what becomes of workers ------------------------------------------------------------------


def test_a_closed_iterator_ends_its_workers(split):
    batches = by_workers(split, 2).batches([crops()] * 20)
    next(batches)
    assert len(active_children()) == 2
    batches.close()
    assert active_children() == []


def test_an_error_in_a_worker_ends_the_workers(split, monkeypatch):
    monkeypatch.setattr(splits, "policy", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        images(by_workers(split, 2), Batch(ORDER, policy="x", seeds=SEEDS))
    assert "splits.py" in str(caught.value)  # where it happened
    assert active_children() == []


def test_a_worker_outlives_a_signal_to_the_whole_job_for_a_while(split, monkeypatch):
    batches = by_workers(split).batches([crops()] * 20)
    next(batches)
    (worker,) = active_children()
    os.kill(worker.pid, signal.SIGINT)
    worker.terminate()
    assert len([next(batches) for _ in range(9)]) == 9
    batches.close()
    monkeypatch.setattr(splits, "_GRACE", 1)
    batches = by_workers(split).batches([crops()] * 20)
    next(batches)
    (worker,) = active_children()
    worker.terminate()
    with contextlib.suppress(RuntimeError):  # torch may notice first
        worker.join(120)
    assert not worker.is_alive()
    batches.close()


def test_a_worker_that_is_killed_is_one_line_that_says_what_to_do(split, monkeypatch):
    monkeypatch.setattr(StreamedSplit, "picture", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError) as caught:
        images(by_workers(split), crops())
    told = str(caught.value)
    assert told.startswith("a process that decodes pictures has been killed (signal: Killed)")
    assert told.endswith("give fewer of them, or --workers 0 for none")
    assert "\n" not in told
    assert active_children() == []


def deaf(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_workers_that_hang_are_ended_and_told(split, monkeypatch):
    monkeypatch.setattr(StreamedSplit, "picture", lambda *_: time.sleep(600))
    monkeypatch.setattr(splits, "_leave_signals_to_the_trainer", deaf)
    monkeypatch.setattr(splits, "_LOOK", 1)
    monkeypatch.setattr(splits, "_PATIENCE", -3)
    with pytest.raises(UserError, match=r"^none of 2 processes has decoded 5 pictures in 2 sec"):
        images(by_workers(split, 2), crops())
    assert active_children() == []


def test_a_slow_picture_is_waited_for(split, monkeypatch):
    whole, picture = images(split, Batch(ORDER)), StreamedSplit.picture
    monkeypatch.setattr(StreamedSplit, "picture", lambda *a: time.sleep(0.5) or picture(*a))
    monkeypatch.setattr(splits, "_LOOK", 1)
    assert torch.equal(images(by_workers(split), Batch(ORDER)), whole)


# --- what is measured of streamed files -------------------------------------------------------


def test_the_hash_of_streamed_files_follows_their_paths_sizes_and_labels(folder, streaming):
    first = load(f"folder:{folder}", workers=0)
    assert load(f"folder:{folder}", workers=0).data_hash == first.data_hash
    pictures.save(folder / "test/a/0.png", Image.new("RGB", (16, 16)))
    longer = load(f"folder:{folder}", workers=0)
    assert longer.data_hash != first.data_hash
    assert longer.split_hash == first.split_hash
    (folder / "test/a/0.png").rename(folder / "test/b/0.5.png")
    assert load(f"folder:{folder}", workers=0).data_hash != longer.data_hash
