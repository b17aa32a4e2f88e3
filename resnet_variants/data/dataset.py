"""A data set: three splits of square uint8 images, and what a network must know of them."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import center_crop

from resnet_variants.data import kept
from resnet_variants.data.account import Account
from resnet_variants.data.folders import FolderSource
from resnet_variants.data.images import INTERPOLATION, BadImageError, middle, shorter_edge
from resnet_variants.data.sources import MemorySource, Pictures, Source, open_source
from resnet_variants.data.splits import Batch, ResidentSplit, Split, StreamedSplit
from resnet_variants.registry import UserError
from resnet_variants.settings import Loading

SPLITS = ("train", "val", "test")
RESIDENT_BYTES = 2**30  # of decoded images: a larger data set is streamed
TEST_SHARE, VAL_SHARE = 1 / 3, 0.1  # of the images, and of what the test split leaves
SPLIT_SEED = 0  # of all runs: their seeds vary the training, not the test set
_SMALL, _LOOKED_AT = 64, 8  # pixels on a side; pictures
_SAMPLE, _PART = 1024, 64  # streamed images for mean and deviation; images decoded at a time


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits of square images."""

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    in_chans: int
    img_size: int  # side in pixels
    mirror: bool  # whether a mirrored image keeps its label
    mean: tuple[float, ...]  # per channel in [0, 1], for normalisation: of the training images
    std: tuple[float, ...]  # unless the recipe asks for others
    split_hash: str  # of the indices in each split
    data_hash: str  # of the pixels, or of paths and sizes of streamed files
    skipped: tuple[str, ...] = ()  # a line on each broken training image that was left out
    account: Account = field(default_factory=Account)  # of a folder's files
    crop_pct: float = 1.0  # see ``load_dataset``

    def decoded_by(self, workers: int) -> Dataset:
        """The same data, decoded or altered image by image by ``workers`` processes."""
        splits = {n: replace(getattr(self, n), workers=workers) for n in SPLITS}
        return replace(self, **splits)

    @property
    def facts(self) -> dict[str, object]:
        """What ``run.json`` records of the data."""
        return {
            "split_hash": self.split_hash,
            "data_hash": self.data_hash,
            "split_sizes": [len(self.train), len(self.val), len(self.test)],
            "classes": list(self.classes),
            "resident": isinstance(self.train, ResidentSplit),
            "skipped_images": list(self.skipped),
        }


@functools.lru_cache(maxsize=4)
def load_dataset(
    spec: str, *, img_size: int = 0, crop_pct: float = 1.0, loading: Loading | None = None
) -> Dataset:
    """The data set that a SPEC names, resized to ``img_size``; 0 keeps the native size.

    Validation and test images are the middle of a picture, ``crop_pct`` of its side as in timm.
    The publisher's splits are kept; missing ones are drawn by class with one fixed seed. Images of
    a folder that fit into memory are kept for the next command, as ``loading.image_cache`` says.

    Raises:
        ValueError: no such data, images of several sizes without ``img_size``, broken images.
    """
    loading = loading or Loading()
    source = open_source(spec, loading.data_dir)
    if loading.image_cache == "clear":
        kept.clear_once()
    file = None
    if isinstance(source, FolderSource) and loading.image_cache != "off":
        file = kept.place_of(source, img_size, crop_pct)
    like = functools.partial(_restored, spec, source, crop_pct, loading)
    if file and (restored := kept.read(file, like)):
        return restored
    data = _decoded(spec, source, img_size, crop_pct, loading)
    if file and isinstance(data.train, ResidentSplit) and not data.skipped:
        kept.write(file, _tensors(data), {name: getattr(data, name) for name in _MEASURED})
    return data


def _decoded(
    spec: str, source: Source, img_size: int, crop_pct: float, loading: Loading
) -> Dataset:
    side = img_size or source.side
    if not side:
        message = f"the images of {spec!r} have not one square size: give the side in pixels"
        raise UserError(f"{message}, such as --img-size 224", field="img_size")
    indices = split_indices(source)
    resident = len(source.labels) * source.in_chans * side**2 <= RESIDENT_BYTES
    skipped: list[str] = []
    splits: dict[str, Split] = {}
    for name, index in indices.items():
        left_out = skipped if name == "train" and loading.on_bad_image == "skip" else None
        edge = side if name == "train" else shorter_edge(side, crop_pct)
        make = _resident if resident else _streamed
        splits[name] = make(source, index, (side, edge), loading, left_out)
    _check_left(source, indices["train"], splits["train"], skipped)
    mean, std = _moments(splits["train"])
    return Dataset(
        name=spec,
        classes=source.classes,
        in_chans=source.in_chans,
        img_size=side,
        mirror=source.mirror,
        mean=mean,
        std=std,
        split_hash=split_hash(indices),
        # The same images whatever part of them a recipe tests on.
        data_hash=_hash(piece for split in splits.values() for piece in _contents(split))
        if crop_pct == 1
        else load_dataset(spec, img_size=img_size, loading=loading).data_hash,
        skipped=tuple(skipped),
        account=source.account,
        crop_pct=crop_pct,
        **splits,
    )


# --- keeping ----------------------------------------------------------------------------------

_MEASURED = ("img_size", "mean", "std", "split_hash", "data_hash")  # of a `Dataset`


def _require_like(
    source: Source, tensors: Mapping[str, Tensor], measured: Mapping[str, Any]
) -> None:
    images = [tensors[f"{name}_images"] for name in SPLITS]
    labels = [tensors[f"{name}_labels"] for name in SPLITS]
    every = torch.cat(labels)
    shape = (source.in_chans, measured["img_size"], measured["img_size"])
    if not (
        set(measured) == set(_MEASURED)
        and len(measured["mean"]) == len(measured["std"]) == source.in_chans
        and all(part.dtype == torch.uint8 and part.shape[1:] == shape for part in images)
        and [*map(len, images)] == [*map(len, labels)]
        and every.dtype == torch.int64
        and torch.equal(every.sort().values, torch.from_numpy(np.sort(source.labels)))
    ):
        raise ValueError("it holds no images of this folder")


def _tensors(data: Dataset) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {}
    for name in SPLITS:
        split = getattr(data, name)
        parts |= {f"{name}_images": split.images, f"{name}_labels": split.labels}
    return parts


def _restored(
    spec: str,
    source: Source,
    crop_pct: float,
    loading: Loading,
    tensors: Mapping[str, Tensor],
    measured: Mapping[str, Any],
) -> Dataset:
    """The data set whose ``_tensors`` and ``_MEASURED`` these are.

    Raises:
        ValueError: they are of no images of this source.
    """
    _require_like(source, tensors, measured)
    workers = loading.decoders(joblib.cpu_count())
    splits: dict[str, Any] = {
        name: ResidentSplit(tensors[f"{name}_images"], tensors[f"{name}_labels"], workers)
        for name in SPLITS
    }
    return Dataset(
        name=spec,
        classes=source.classes,
        in_chans=source.in_chans,
        mirror=source.mirror,
        account=source.account,
        crop_pct=crop_pct,
        **{name: tuple(v) if isinstance(v, list) else v for name, v in measured.items()},
        **splits,
    )


# --- splitting --------------------------------------------------------------------------------


def split_indices(source: Source) -> dict[str, np.ndarray]:
    """Positions of train, val and test: the publisher's splits, the others drawn by class.

    Raises:
        ValueError: a class with too few images to appear in every split.
    """
    parts = {name: np.asarray(index) for name, index in source.parts.items()}
    parts.setdefault("train", np.arange(len(source.labels)))
    for name, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
        if name not in parts:
            parts["train"], parts[name] = _drawn(source, parts["train"], share)
    return {name: np.sort(parts[name]) for name in SPLITS}


def split_hash(indices: Mapping[str, np.ndarray]) -> str:
    """A digest of the indices in each split."""
    return _hash(name.encode() + own.astype("<i8").tobytes() for name, own in indices.items())


def _drawn(source: Source, index: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    labels = source.labels[index]
    try:
        rest, drawn = train_test_split(
            index, test_size=share, stratify=labels, random_state=SPLIT_SEED
        )
        if any(set(source.labels[part]) != set(labels) for part in (rest, drawn)):
            raise ValueError("a class is in one of both only")
    except ValueError as error:
        counts = np.bincount(labels, minlength=len(source.classes))
        least = int(counts.argmin())
        message = f"class {source.classes[least]!r} has {counts[least]} images, too few to draw"
        message += f" a share of {share:.2g} by class: add some, or make the splits yourself"
        raise UserError(message, field="data") from error
    return np.asarray(rest), np.asarray(drawn)


# --- decoding ---------------------------------------------------------------------------------


def decode(
    source: Pictures, index: np.ndarray, out: Tensor | None, edge: int, skipped: list[str] | None
) -> np.ndarray:
    """Decode images, into ``out`` (n, C, side, side) if given; return which could be decoded.

    The shorter edge is resized to ``edge`` pixels before the middle is cut out. Broken images are
    listed in ``skipped``.

    Raises:
        BadImageError: an image is broken, and ``skipped`` is ``None``.
    """
    sides: list[int] = []

    def one(at: int) -> BadImageError | None:
        try:
            picture = source.picture(int(index[at]))
        except BadImageError as error:
            return error
        sides.append(max(picture.size))
        if out is not None:
            pixels = middle(picture, out.shape[-1], edge)
            out[at] = torch.from_numpy(np.array(pixels))  # a copy, which may be written to
        return None

    first, rest = np.split(np.arange(len(index)), [_LOOKED_AT])
    errors = list(map(one, first))
    # Decoding small pictures holds Python's lock: threads took four times longer.
    if sides and max(sides) <= _SMALL:
        errors += map(one, rest)
    else:
        with ThreadPoolExecutor(joblib.cpu_count()) as pool:
            errors += pool.map(one, rest)
    broken = [error for error in errors if error is not None]
    if broken and skipped is None:
        more = f" ({len(broken) - 1} more like it: check-data lists them)" if broken[1:] else ""
        raise BadImageError(f"{broken[0]}{more}", field="data")
    (skipped if skipped is not None else []).extend(map(str, broken))
    return np.array([error is None for error in errors], bool)


def _check_left(source: Source, index: np.ndarray, train: Split, skipped: list[str]) -> None:
    lost = set(source.labels[index].tolist()) - set(train.labels.tolist())
    if lost:
        message = f"no training image of class {source.classes[min(lost)]!r} can be read"
        raise BadImageError(f"{message}: {skipped[0]}", field="data")


Cut = tuple[int, int]  # side of the images; edge of the pictures they are the middle of


def middles(
    source: Pictures, index: np.ndarray, cut: Cut, skipped: list[str] | None
) -> tuple[Tensor, np.ndarray]:
    """The middle of each picture (n, C, side, side) uint8, and the positions of those pictures.

    Broken images are left out and listed in ``skipped``.

    Raises:
        BadImageError: an image is broken, and ``skipped`` is ``None``.
    """
    side, edge = cut
    if isinstance(source, MemorySource):
        images = _resized(source.images[torch.from_numpy(index)], edge)
        return center_crop(images, [side]).contiguous(), index
    images = torch.empty(len(index), source.in_chans, side, side, dtype=torch.uint8)
    good = decode(source, index, images, edge, skipped)
    return (images, index) if good.all() else (images[torch.from_numpy(good)], index[good])


def _resident(
    source: Source, index: np.ndarray, cut: Cut, loading: Loading, skipped: list[str] | None
) -> ResidentSplit:
    images, index = middles(source, index, cut, skipped)
    labels = torch.from_numpy(source.labels[index])
    return ResidentSplit(images, labels, loading.decoders(joblib.cpu_count()))


def _resized(images: Tensor, side: int) -> Tensor:
    if side == images.shape[-1]:
        return images
    out = torch.nn.functional.interpolate(
        images.float(), size=(side, side), mode=INTERPOLATION, antialias=True
    )
    return out.round().clamp(0, 255).to(torch.uint8)


def _streamed(
    source: Source, index: np.ndarray, cut: Cut, loading: Loading, skipped: list[str] | None
) -> StreamedSplit:
    # Broken images must be known before the first epoch: its order depends on the number left.
    if skipped is not None:
        index = index[decode(source, index, None, cut[1], skipped)]
    labels = torch.from_numpy(source.labels[index])
    return StreamedSplit(source, index, labels, *cut, loading.decoders(joblib.cpu_count()))


# --- measuring --------------------------------------------------------------------------------


def _moments(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel in [0, 1]; of streamed images, those of a sample."""
    if isinstance(split, ResidentSplit):
        parts = iter([split.images])
    else:
        sample = torch.linspace(0, len(split) - 1, min(_SAMPLE, len(split))).long()
        parts = split.batches([Batch(part) for part in sample.split(_PART)])
    # From counts of the 256 levels: no float copy of all images is made.
    counts = sum(torch.stack([_levels(channel) for channel in part.unbind(1)]) for part in parts)
    assert isinstance(counts, Tensor)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for count in counts.double():
        average = (count @ values / count.sum()).item()
        mean.append(average)
        deviation = ((count @ (values - average) ** 2) / (count.sum() - 1)).sqrt().item()
        std.append(deviation or 1.0)  # a channel without content becomes zeros, not 0/0
    return tuple(mean), tuple(std)


def _levels(channel: Tensor) -> Tensor:
    return torch.bincount(channel.flatten(), minlength=256)


def _contents(split: Split) -> Iterable[bytes | memoryview[int]]:
    if isinstance(split, StreamedSplit):
        labels = split.labels.numpy().data
        return itertools.chain([labels], (split.source.identity(int(i)) for i in split.index))
    assert isinstance(split, ResidentSplit)
    return (split.images.numpy().data, split.labels.numpy().data)


def _hash(pieces: Iterable[bytes | memoryview[int]]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:16]
