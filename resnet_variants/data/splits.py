"""The images of a split by position: in memory, or decoded by workers during training."""

from __future__ import annotations

import multiprocessing
import random
import re
import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_variants.data.images import middle, resized, resized_crop
from resnet_variants.data.policy import policy
from resnet_variants.data.sources import Source, as_picture
from resnet_variants.registry import UserError, warn_once


@dataclass(frozen=True)
class Batch:
    """Positions of images, and how to cut and alter each image."""

    order: Tensor  # (n,) positions in the split
    crops: Tensor | None = None  # (n, 4) uniform draws for `resized_crop`; None: centred squares
    least_area: float = 1.0
    policy: str = ""  # timm's name of an automatic augmentation of each image by itself
    seeds: Tensor | None = None  # (n,) for the policy


class Split(Protocol):
    """Images and their labels, by position."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        ...

    def __len__(self) -> int: ...

    def batches(self, plan: Sequence[Batch]) -> Generator[Tensor, None, None]:
        """Images (n, C, side, side) uint8 on the labels' device, batch by batch."""
        ...

    def head(self, n: int) -> Split:
        """Its first ``n`` images."""
        ...

    def to(self, device: torch.device) -> Split:
        """The same split on a device."""
        ...

    def beside(self, device: torch.device) -> Split:
        """Labels on ``device``, images on the CPU (per-image augmentation runs there)."""
        ...


@dataclass(frozen=True)
class ResidentSplit:
    """A split in memory, usually on the training device: a batch is one indexing."""

    images: Tensor  # (N, C, side, side) uint8
    labels: Tensor
    workers: int = 0  # processes that alter single images; 0: this process does

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[object, ...]:
        # As NumPy arrays: other processes can then share the memory instead of copying it.
        return _resident, (self.images.numpy(), self.labels.numpy(), self.workers)

    def batches(self, plan: Sequence[Batch]) -> Generator[Tensor, None, None]:
        """See ``Split``."""
        if any(batch.policy for batch in plan):  # image by image: policies have no batched form
            side = self.images.shape[-1]
            yield from _loaded(self, side, plan, side)
            return
        for batch in plan:
            images = self.images[batch.order]
            yield images if batch.crops is None else _recut(images, batch)

    def picture(self, i: int) -> Image.Image:
        """One of the images."""
        return as_picture(self.images[i])

    def head(self, n: int) -> ResidentSplit:
        """See ``Split``."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def to(self, device: torch.device) -> ResidentSplit:
        """See ``Split``."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def beside(self, device: torch.device) -> ResidentSplit:
        """See ``Split``."""
        return replace(self, labels=self.labels.to(device))


def _resident(images: np.ndarray, labels: np.ndarray, workers: int) -> ResidentSplit:
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # The arrays may be read-only, which torch cannot express; nothing writes to a split.
        return ResidentSplit(torch.from_numpy(images), torch.from_numpy(labels), workers)


def _recut(images: Tensor, batch: Batch) -> Tensor:
    """Random resized crops of a batch in memory; crops are only enlarged, never averaged."""
    side, crops = images.shape[-1], batch.crops
    assert crops is not None
    boxes = [
        resized_crop((side, side), (a, b, c, d), batch.least_area) for a, b, c, d in crops.tolist()
    ]
    left, upper, right, lower = (torch.tensor(boxes) / side * 2 - 1).T
    theta = torch.zeros(len(images), 2, 3, pin_memory=images.is_cuda)
    theta[:, 0, 0], theta[:, 0, 2] = (right - left) / 2, (right + left) / 2
    theta[:, 1, 1], theta[:, 1, 2] = (lower - upper) / 2, (lower + upper) / 2
    theta = theta.to(images.device, non_blocking=True)  # pinned: the CPU need not wait
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    cut = torch.nn.functional.grid_sample(
        images.float(), grid, padding_mode="border", align_corners=False
    )
    return cut.round().to(torch.uint8)


@dataclass(frozen=True)
class StreamedSplit:
    """A split that is decoded anew in every epoch."""

    source: Source
    index: np.ndarray  # positions in the source
    labels: Tensor
    side: int
    edge: int  # pixels of the shorter edge before the middle is cut out
    workers: int  # processes that decode; 0: this process does

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, plan: Sequence[Batch]) -> Generator[Tensor, None, None]:
        """See ``Split``."""
        yield from _loaded(self, self.side, plan, self.edge)

    def picture(self, i: int) -> Image.Image:
        """Decode one of the images.

        Raises:
            BadImageError: it cannot be decoded.
        """
        return self.source.picture(int(self.index[i]))

    def head(self, n: int) -> StreamedSplit:
        """See ``Split``."""
        return replace(self, index=self.index[:n], labels=self.labels[:n])

    def to(self, device: torch.device) -> StreamedSplit:
        """See ``Split``."""
        return replace(self, labels=self.labels.to(device))

    def beside(self, device: torch.device) -> StreamedSplit:
        """See ``Split``."""
        return self.to(device)


# --- image by image ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    at: int
    crop: tuple[float, ...] | None
    seed: int
    least_area: float
    policy: str


class _Pictures(Dataset[np.ndarray | UserError]):
    """What a worker decodes. It draws no random numbers: the result depends on the item alone.

    A user's error is returned: raised in a worker, it would arrive with its traceback as text.
    """

    def __init__(self, picture: Callable[[int], Image.Image], side: int, edge: int) -> None:
        self.picture, self.side, self.edge = picture, side, edge

    def __getitem__(self, item: _Item) -> np.ndarray | UserError:
        try:
            return self._pixels(item)
        except UserError as error:
            return error

    def _pixels(self, item: _Item) -> np.ndarray:
        image = self.picture(item.at)
        if item.crop is None:
            pixels = middle(image, self.side, self.edge)
        else:
            box = resized_crop(image.size, item.crop, item.least_area)  # type: ignore[arg-type]
            pixels = resized(image, self.side, box)
        return _altered(pixels, item) if item.policy else pixels


def _altered(pixels: np.ndarray, item: _Item) -> np.ndarray:
    """The image after timm's policy; Python's and NumPy's global streams are restored after it."""
    before = random.getstate(), np.random.get_state()
    random.seed(item.seed)
    np.random.seed(item.seed % 2**32)
    try:
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        altered = np.asarray(policy(item.policy)(image.convert("RGB")).convert(image.mode))
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    return altered[None] if altered.ndim == 2 else altered.transpose(2, 0, 1)


def _stacked(items: list[np.ndarray | UserError]) -> np.ndarray | UserError:
    images = [item for item in items if not isinstance(item, UserError)]
    if len(images) == len(items):
        return np.stack(images)
    return next(item for item in items if isinstance(item, UserError))


def _shared(items: list[np.ndarray | UserError]) -> Tensor | np.ndarray | UserError:
    """What a worker sends: images in shared memory, or an array if shared memory is full.

    An array is copied through a pipe. torch would allocate the shared memory in a thread of the
    worker, where an error is lost: the trainer would wait for ever.
    """
    images = _stacked(items)
    if isinstance(images, UserError):
        return images
    try:
        return torch.from_numpy(images).share_memory_()
    except RuntimeError:
        return images


WORKER = "DataLoader worker"  # in torch's message on a worker that has ended
_GRACE = 30  # seconds that a worker outlives SIGTERM
_LOOK = 5  # seconds between two checks that the workers are alive
_PATIENCE = 300  # seconds for a batch, and one more for each of its images


class _UnsharedError(Exception):
    """Workers cannot be started, or cannot send what they decode."""


def lost(text: str) -> str:
    """One line on a worker that has ended, from torch's message ``text``."""
    found = re.search(r"killed by signal: ([\w ]+)", text)
    how = f" (signal: {found[1]})" if found else ""
    message = f"a process that decodes pictures has been killed{how}, mostly for want of memory"
    return f"{message}: give fewer of them, or --workers 0 for none"


def _trouble(error: Exception) -> Exception:
    """Torch's error of a worker as ours: the worker has ended, or cannot share memory."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if WORKER in text and "Bus error" not in text:  # a bus error means that shared memory is full
        return UserError(lost(text), field="workers")
    text = re.sub(r"\(pid\S* [^)]*\) ", "", text)  # it differs each time, the warning must not
    return _UnsharedError(f"workers cannot share pictures ({text})")


def _leave_signals_to_the_trainer(_: int) -> None:
    # Both signals may reach every process of a job, but the trainer still needs the images of its
    # step. SIGTERM must end the worker in the end: Python sends it to workers when it exits.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))


def _loaded(
    split: ResidentSplit | StreamedSplit, side: int, plan: Sequence[Batch], edge: int
) -> Generator[Tensor, None, None]:
    """The batches of a plan on the labels' device, by workers unless they cannot share memory.

    Raises:
        BadImageError: an image cannot be decoded.
        ValueError: a worker was killed, or sent nothing for a long time.
    """
    pictures, device, done = _Pictures(split.picture, side, edge), split.labels.device, 0
    if split.workers:
        try:
            with closing(_by_workers(pictures, plan, split)) as batches:
                for images in batches:
                    yield images.to(device, non_blocking=True)
                    done += 1
        except _UnsharedError as error:
            warn_once(f"{error}: this process decodes the pictures itself, as with --workers 0")
    for batch in plan[done:]:
        yield _tensor(_stacked([pictures[item] for item in _items(batch)])).to(device)


def _by_workers(
    pictures: _Pictures, plan: Sequence[Batch], split: ResidentSplit | StreamedSplit
) -> Generator[Tensor, None, None]:
    loader = DataLoader(
        pictures,
        batch_sampler=[_items(batch) for batch in plan],
        num_workers=split.workers,
        collate_fn=_shared,
        pin_memory=split.labels.is_cuda,
        timeout=_LOOK,
        worker_init_fn=_leave_signals_to_the_trainer,
        generator=torch.Generator(),  # else it draws the workers' seed from the global stream
    )
    try:
        # Try the workers' queues first: torch's half-made iterator prints tracebacks when it fails.
        del [multiprocessing.Queue() for _ in range(split.workers + 2)][:]
        batches: Any = iter(loader)
    except (OSError, RuntimeError) as error:  # such as no shared memory for their locks
        raise _trouble(error) from error
    try:
        for batch in plan:
            yield _tensor(_awaited(batches, len(batch.order), split.workers))
    finally:
        # An exception can keep the iterator alive. Its workers would then never end, and this
        # process would wait for them at its exit.
        batches._shutdown_workers()


def _tensor(images: Tensor | np.ndarray | UserError) -> Tensor:
    if isinstance(images, UserError):
        raise images
    return torch.as_tensor(images)


def _awaited(batches: Iterator[Any], n: int, workers: int) -> Any:
    """The next batch, of ``n`` images."""
    # Checks, not a clock: this process may be stopped meanwhile.
    for _ in range((_PATIENCE + n) // _LOOK):
        try:
            return next(batches)
        except (OSError, RuntimeError) as error:
            text = str(error)
            if "in DataLoader worker process" in text:  # raised by the worker's own code
                raise
            if "timed out" not in text:
                raise _trouble(error) from error
    for worker in batches._workers:  # type: ignore[attr-defined]
        # It may ignore other signals, and Python would wait for it at its exit.
        with suppress(RuntimeError):  # torch reports the first that ended
            worker.kill()
            worker.join(_LOOK)
    message = f"none of {workers} processes has decoded {n} pictures in {_PATIENCE + n} seconds"
    raise UserError(f"{message}: can the disk that holds them be read?", field="workers")


def _items(batch: Batch) -> list[_Item]:
    n = len(batch.order)
    crops = [None] * n if batch.crops is None else [tuple(c) for c in batch.crops.tolist()]
    seeds = [0] * n if batch.seeds is None else batch.seeds.tolist()
    return [
        _Item(at, crop, seed, batch.least_area, batch.policy)
        for at, crop, seed in zip(batch.order.tolist(), crops, seeds, strict=True)
    ]
