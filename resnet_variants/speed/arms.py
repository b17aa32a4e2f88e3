"""Ways to train one network: this package's, with and without what it measures, a script, timm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import joblib
import numpy as np
import torch
from PIL import Image
from timm.data.loader import create_loader
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision import transforms

from resnet_variants.data.dataset import Dataset
from resnet_variants.data.splits import ResidentSplit
from resnet_variants.settings import CHANNELS, Device, Machine
from resnet_variants.training.batches import train_batches
from resnet_variants.training.device import make_fabric, resolve
from resnet_variants.training.gradients import Gradients
from resnet_variants.training.recipe import Recipe
from resnet_variants.training.trainer import Trainer

CLASSES = 10
_MEAN, _STD = (0.5,) * CHANNELS, (0.25,) * CHANNELS
_RATE = 1e-4  # small: training on random labels must stay finite


@dataclass(frozen=True)
class Task:
    """The work of every arm."""

    make: Callable[[], nn.Module]  # (N, CHANNELS, H, W) -> (N, CLASSES)
    batch_size: int
    img_size: int
    steps: int  # of an epoch
    device: Device = "auto"
    precision: str = "auto"

    @property
    def images(self) -> np.ndarray:
        """Random pictures, (N, H, W, C) uint8."""
        shape = (self.steps * self.batch_size, self.img_size, self.img_size, CHANNELS)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    @property
    def labels(self) -> np.ndarray:
        """Random labels, (N,) int64."""
        return np.random.default_rng(1).integers(0, CLASSES, self.steps * self.batch_size)


class Arm(ABC):
    """One way to train, set up and ready."""

    precision: str
    device: torch.device

    @abstractmethod
    def step(self) -> None:
        """A training step on images that are already on the device."""

    @abstractmethod
    def epoch(self) -> None:
        """All training steps of an epoch, data included."""

    @abstractmethod
    def data(self) -> None:
        """The images and labels of an epoch, without training."""

    @abstractmethod
    def infer(self, images: int) -> None:
        """Classify ``images`` images that are already on the device."""


class Ours(Arm):
    """This package: resident uint8 images augmented in batches, bf16 where native."""

    def __init__(self, task: Task, *, compiled: bool = False) -> None:
        machine = Machine(device=task.device)
        fabric = make_fabric(machine, task.precision)
        self.precision = resolve(task.precision, fabric.device.type)
        self.device, self.batch_size = fabric.device, task.batch_size
        images = torch.from_numpy(task.images).permute(0, 3, 1, 2).contiguous()
        train = ResidentSplit(images, torch.from_numpy(task.labels))
        data = Dataset(
            name="random",
            train=train,
            val=train,
            test=train,
            classes=tuple(map(str, range(CLASSES))),
            in_chans=CHANNELS,
            img_size=task.img_size,
            mirror=True,
            mean=_MEAN,
            std=_STD,
            split_hash="",
            data_hash="",
        )
        recipe = Recipe(
            epochs=10**6, batch_size=task.batch_size, lr=_RATE, schedule="constant", warmup=0.0
        )
        how = Gradients(compiled=compiled)
        self.training = Trainer(task.make(), data, recipe, seed=0, fabric=fabric, gradients=how)
        split = self.training.data.train
        assert isinstance(split, ResidentSplit)
        first = split.head(task.batch_size)
        self.batch = first.images, first.labels

    def step(self) -> None:
        """See ``Arm``; normalising is part of our step."""
        self.training.net.train()
        self.training.take_step(iter([self.batch]))

    def epoch(self) -> None:
        """See ``Arm``."""
        for _ in self.training.rest_of_epoch():
            pass
        self.training.means()
        self.training.epoch, self.training.step = self.training.epoch + 1, 0

    def data(self) -> None:
        """See ``Arm``."""
        training = self.training
        for images, _ in train_batches(
            training.data, training.recipe, seed=0, epoch=training.epoch
        ):
            training.normalise(images)

    @torch.no_grad()
    def infer(self, images: int) -> None:
        """See ``Arm``."""
        self.training.model.eval()
        with self.training.fabric.autocast():
            self.training.model(self.training.normalise(self.batch[0][:images]))


class Lean(Ours):
    """Our batches, network and optimizer in a loop that measures, schedules and watches nothing."""

    def step(self) -> None:
        """See ``Arm``."""
        self._train([self.batch])

    def epoch(self) -> None:
        """See ``Arm``."""
        own = self.training
        self._train(train_batches(own.data, own.recipe, seed=0, epoch=own.epoch))
        own.epoch += 1

    def _train(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        own = self.training
        own.model.train()
        for images, labels in batches:
            with own.fabric.autocast():
                loss = cross_entropy(own.model(own.normalise(images)), labels)
            loss.backward()
            own.optimizer.step()
            own.optimizer.zero_grad()


class _Script(Arm):
    """The loop of most scripts: float batches of a loader, loss and accuracy at each step."""

    memory_format = torch.contiguous_format

    def __init__(self, task: Task) -> None:
        self.device = make_fabric(Machine(device=task.device), task.precision).device
        self.model = task.make().to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = self.make_optimizer()
        self.loader = self.make_loader(task)
        images = torch.randn(task.batch_size, CHANNELS, task.img_size, task.img_size)
        labels = torch.from_numpy(task.labels[: task.batch_size])
        self.batch = self.placed(images), labels.to(self.device)

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Over the model's parameters."""

    @abstractmethod
    def make_loader(self, task: Task) -> Iterable[Any]:
        """Of float images and labels."""

    def placed(self, images: Tensor) -> Tensor:
        """The images on the device in the arm's memory format."""
        return images.to(self.device, memory_format=self.memory_format)

    def autocasting(self) -> AbstractContextManager[Any]:
        """The arm's precision."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if enabled else nullcontext()

    def train(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step; the logits and the loss."""
        self.optimizer.zero_grad()
        with self.autocasting():
            logits = self.model(images)
            loss = cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        return logits, loss

    def step(self) -> None:
        self.model.train()
        self.train(*self.batch)

    def epoch(self) -> None:
        self.model.train()
        total = hits = 0.0
        for images, labels in self.loader:
            target = labels.to(self.device)
            logits, loss = self.train(self.placed(images), target)
            total += loss.item()
            hits += (logits.argmax(1) == target).sum().item()

    def data(self) -> None:
        for images, labels in self.loader:
            _ = self.placed(images), labels.to(self.device)

    @torch.no_grad()
    def infer(self, images: int) -> None:
        self.model.eval()
        with self.autocasting():
            self.model(self.batch[0][:images])


class Plain(_Script):
    """The usual CIFAR script: fp32, two loader workers, crop and flip image by image, SGD."""

    precision = "fp32"

    def make_optimizer(self) -> torch.optim.Optimizer:
        """See ``_Script``."""
        return torch.optim.SGD(self.model.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4)

    def make_loader(self, task: Task) -> Iterable[Any]:
        """See ``_Script``."""
        transform = transforms.Compose(
            [
                transforms.RandomCrop(task.img_size, padding=task.img_size // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(_MEAN, _STD),
            ]
        )
        pictures = _Pictures(task, transform)
        return torch.utils.data.DataLoader(pictures, task.batch_size, shuffle=True, num_workers=2)


class Timm(_Script):
    """The same network through timm's loader and optimizer, in our precision and memory format."""

    memory_format = torch.channels_last

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.precision = resolve(task.precision, self.device.type)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """See ``_Script``."""
        return create_optimizer_v2(self.model, "sgd", lr=_RATE, momentum=0.9, weight_decay=5e-4)

    def make_loader(self, task: Task) -> Iterable[Any]:
        """See ``_Script``: random resized crop and flip, timm's default without colour jitter."""
        return create_loader(
            cast(Any, _Pictures(task, None)),
            input_size=(CHANNELS, task.img_size, task.img_size),
            batch_size=task.batch_size,
            is_training=True,
            color_jitter=0.0,
            mean=_MEAN,
            std=_STD,
            num_workers=joblib.cpu_count(),
            device=self.device,
        )


class _Pictures(torch.utils.data.Dataset[Any]):
    def __init__(self, task: Task, transform: Callable[[Image.Image], Any] | None) -> None:
        self.images, self.labels, self.transform = task.images, task.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.images[i])
        return self.transform(picture) if self.transform else picture, int(self.labels[i])


ARMS: Mapping[str, Callable[[Task], Arm]] = {
    "ours": Ours,
    "compiled": lambda task: Ours(task, compiled=True),
    "lean": Lean,
    "plain": Plain,
    "timm": Timm,
}
