"""Arrays on disk, read a row at a time: what is larger than memory is as easy as what is not."""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import Dataset


class MemmapDataset(Dataset[tuple[Tensor, ...]]):
    """Samples are the rows of ``.npy`` files of equal length, which stay on disk.

    The files are memory-mapped: the operating system reads the pages that rows are on, and keeps those
    it has room for. Sample ``i`` is the tuple of the files' rows ``i``, each a tensor in memory of its
    own, in the file's dtype; a batch is one index of each file. A pickled dataset is the paths alone: each
    worker of a ``DataLoader`` opens maps of its own.

    Args:
        paths: files as ``np.save`` writes them, of arrays with at least one dimension.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is not such an array, or lengths that differ.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/x.npy", np.arange(6).reshape(3, 2))
    ...     np.save(folder + "/y.npy", np.array([0, 1, 0]))
    ...     data = MemmapDataset(folder + "/x.npy", folder + "/y.npy")
    ...     len(data), data[1]
    (3, (tensor([2, 3]), tensor(1)))
    """

    def __init__(self, *paths: str | os.PathLike[str]) -> None:
        if not paths:
            raise ValueError("MemmapDataset takes the paths of one or more .npy files")
        self.paths = tuple(os.path.abspath(path) for path in paths)
        self.arrays = tuple(_mapped(path) for path in self.paths)
        lengths = {path: len(a) for path, a in zip(self.paths, self.arrays, strict=True)}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "MemmapDataset: the files have different lengths: "
                + ", ".join(f"{path} {n}" for path, n in lengths.items())
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"MemmapDataset: index {i} is out of range for {len(self)} samples")
        return tuple(wrap(np.array(a[i], _native(a))) for a in self.arrays)

    def gather(self, indices: Any) -> list[Tensor]:
        """The batch ``[rows of each file]``."""
        rows = np.asarray(indices, dtype=np.intp)
        return [wrap(np.asarray(a[rows], _native(a))) for a in self.arrays]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "arrays": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.arrays = tuple(_mapped(path) for path in self.paths)

    def __repr__(self) -> str:
        return f"MemmapDataset({', '.join(map(repr, self.paths))})"


def _mapped(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy's are of many types: ValueError, EOFError, BadZipFile, …
        raise ValueError(f"{path} is not an array that np.save wrote: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} is an .npz archive; MemmapDataset takes .npy files, one an array")
    if array.ndim == 0:
        raise ValueError(f"{path} holds a single number, which has no rows")
    if _native(array) not in dtypes.FROM_NUMPY:
        raise ValueError(f"{path} holds {array.dtype}, not numbers that a tensor can have")
    return array


def _native(array: np.ndarray) -> np.dtype:
    return array.dtype.newbyteorder("=")  # the file may be of a machine of the other byte order
