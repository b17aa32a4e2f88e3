"""A data set handed to other processes: its images lie in files that all of them map."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from resnet_variants.data.dataset import Dataset
from resnet_variants.registry import UserError


@dataclass(frozen=True)
class Handover:
    """What a process needs to have the data set too, without decoding or copying it."""

    head: bytes
    arrays: tuple[Path, ...]

    def take(self, workers: int) -> Dataset:
        """The data set, its images in memory once for all processes; ``workers`` decode for it."""
        arrays = [np.memmap(file, mode="r") for file in self.arrays]
        return pickle.loads(self.head, buffers=arrays).decoded_by(workers)


@contextmanager
def handed_over(data: Dataset) -> Iterator[Handover]:
    """The data set as files that last as long as the block.

    Raises:
        ValueError: there is no room for them.
    """
    arrays: list[pickle.PickleBuffer] = []
    head = pickle.dumps(data, protocol=5, buffer_callback=arrays.append)
    with TemporaryDirectory(prefix="resnet_variants-") as folder:
        files = tuple(Path(folder, str(i)) for i in range(len(arrays)))
        try:
            for file, array in zip(files, arrays, strict=True):
                file.write_bytes(array.raw())
        except OSError as error:
            size = sum(array.raw().nbytes for array in arrays)
            message = f"the images, {size / 1e6:,.0f} MB, cannot be written to {folder}"
            raise UserError(
                f"{message} ({error.strerror}): set TMPDIR to where they can"
            ) from error
        yield Handover(head, files)
