"""Vectors on disk, written in any order and read in blocks: a collection need not fit in memory."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anna.errors import InputError
from anna.segments import Int
from anna.shards import Values
from anna.store import Parts

BLOCK_BYTES = 128 * 2**20
"""Vectors in memory at once."""


class VectorFile:
    """A matrix of float32, (N, D), in a file without a name, which is gone when the process ends, however it ends."""

    def __init__(self, num_rows: int, parts: Parts, folder: Path) -> None:
        """Write the parts.

        Args:
            num_rows: N > 0.
            parts: Places of rows and their vectors; together all rows.
            folder: Where the file lies; the system's folder for temporary files may be in memory.

        Raises:
            InputError: If the disk has no room for them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self.shape = (num_rows, 0)
        for places, values in parts:
            if not self.shape[1]:
                self.shape = (num_rows, values.shape[1])
                _reserve(self._file.fileno(), 4 * num_rows * values.shape[1], folder)
            self._map("r+")[places] = values

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def blocks(self, num_bytes: int = BLOCK_BYTES) -> Iterator[Values]:
        """Yield the matrix in blocks of rows of at most `num_bytes`, but at least one row."""
        step = max(1, num_bytes // (4 * self.shape[1]))
        for start in range(0, len(self), step):
            self._file.seek(4 * start * self.shape[1])
            num_rows = min(step, len(self) - start)
            yield np.fromfile(self._file, dtype="<f4", count=num_rows * self.shape[1]).reshape(num_rows, -1)

    def take(self, rows: Int) -> Values:
        """Return some rows, in their order; `rows` may have any shape."""
        return np.asarray(self._map("r")[rows])

    def _map(self, mode: Literal["r", "r+"]) -> NDArray[np.float32]:
        # Mapped anew each time: what a mapping has touched counts as the process's memory until it goes.
        return np.memmap(self._file, dtype="<f4", mode=mode, shape=self.shape)


def _reserve(file: int, num_bytes: int, folder: Path) -> None:
    """Make an open file so long, its blocks taken: writing to a mapping of one with holes ends in a signal."""
    try:
        os.posix_fallocate(file, 0, num_bytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InputError(
            f"{folder} has no room for {num_bytes / 2**30:.3g} GiB of vectors, which lie there while they are "
            "searched; free so much"
        ) from None
