"""Tiny stand-ins for published data sets: torchvision's own code reads them, by their checksums."""

import gzip
import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torchvision.datasets as tv
from scipy.io import savemat

KINDS = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}


def no_network(monkeypatch):
    """Whatever torchvision would download cannot be reached."""

    def fails(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fails)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)


def publish(name, root, monkeypatch):
    """Write a data set and its checksums; return images (N, H, W, C) and labels, train first."""
    kind = KINDS[name]
    channels, side = (1, 28) if "mnist" in name else (3, 32)
    count = 100 if name == "cifar100" else 10
    train, n = 12 * count, 13 * count  # classes take turns
    draw = np.random.default_rng(len(name))
    images = draw.integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    labels = np.arange(n) % count
    parts = (images[:train], labels[:train]), (images[train:], labels[train:])
    {"mnist": _idx, "fashion-mnist": _idx, "svhn": _mat}.get(name, _pickled)(
        getattr(tv, kind), root, parts, monkeypatch
    )
    return images, labels, train


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def _idx(kind, root, parts, monkeypatch):
    raw = root / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    resources = []
    for prefix, (images, labels) in zip(("train", "t10k"), parts, strict=True):
        for what, values in (("images-idx3", images[..., 0]), ("labels-idx1", labels)):
            values = values.astype(np.uint8)
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            path = raw / f"{prefix}-{what}-ubyte"
            path.write_bytes(head + values.tobytes())
            packed = Path(f"{path}.gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            resources.append((packed.name, _md5(packed)))
    monkeypatch.setattr(kind, "resources", resources)


def _pickled(kind, root, parts, monkeypatch):
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    lists = []
    for names, (images, labels) in zip((kind.train_list, kind.test_list), parts, strict=True):
        key = "labels" if kind is tv.CIFAR10 else "fine_labels"
        listed = []
        shares = np.array_split(np.arange(len(labels)), len(names))
        for (file, _), own in zip(names, shares, strict=True):
            flat = images[own].transpose(0, 3, 1, 2).reshape(len(own), -1)
            path = folder / file
            path.write_bytes(pickle.dumps({"data": flat, key: labels[own].tolist()}))
            listed.append([file, _md5(path)])
        lists.append(listed)
    names = [f"class {i}" for i in range(10 if kind is tv.CIFAR10 else 100)]
    meta = folder / kind.meta["filename"]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "train_list", lists[0])
    monkeypatch.setattr(kind, "test_list", lists[1])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(meta)})


def _mat(kind, root, parts, monkeypatch):
    root.mkdir(parents=True, exist_ok=True)
    listed = {}
    for split, (images, labels) in zip(("train", "test"), parts, strict=True):
        path = root / f"{split}_32x32.mat"
        ten_for_zero = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": ten_for_zero})
        listed[split] = ["http://nowhere.invalid/x", path.name, _md5(path)]
    monkeypatch.setattr(kind, "split_list", listed)
