"""Memory-mapped vectors with a bound on resident memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import IdArray, VectorArray

_MOST_MAPPED = 2**29

_AROUND = 2**21
"""The most bytes that the kernel maps when one byte is touched: a huge page."""


class MappedVectors:
    """A float16 matrix of shape (B, D), memory-mapped from a .npy file. At most `most` bytes stay resident.

    Reading one row makes the kernel map the pages around it too, so a large file would soon count fully as memory of
    this process. Beyond the limit the pages are released. They are read again from the page cache when needed. Raises
    ValueError if the file is not a float16 matrix.
    """

    def __init__(self, path: Path, *, most: int = _MOST_MAPPED) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"{path.name} is of version {version}; expected (1, 0)")
            self.shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            if len(self.shape) != 2 or fortran or kind != np.float16:
                raise ValueError(f"{path.name} is no matrix of float16: {self.shape}, {kind}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            count = self.shape[0] * self.shape[1]
            self.array_BD: npt.NDArray[np.float16] = np.frombuffer(
                self._map, dtype=np.float16, count=count, offset=file.tell()
            ).reshape(self.shape)
        self._bounded = len(self._map) > most and hasattr(mmap, "MADV_DONTNEED")
        self._most = most
        self._mapped = 0

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, at: IdArray) -> VectorArray:
        """The rows at the given positions as float32, shape (n, D)."""
        if not self._bounded:
            return self.array_BD[at].astype(np.float32)
        found = np.empty((len(at), self.shape[1]), dtype=np.float32)
        step = max(1, self._most // _AROUND - 1)
        for first in range(0, len(at), step):
            some = at[first : first + step]
            span = (int(some.max()) - int(some.min()) + 1) * self.shape[1] * 2
            touched = min(span + _AROUND, len(some) * _AROUND)
            if self._mapped + touched > self._most:
                self._map.madvise(mmap.MADV_DONTNEED)
                self._mapped = 0
            found[first : first + step] = self.array_BD[some]
            self._mapped += touched
        return found
