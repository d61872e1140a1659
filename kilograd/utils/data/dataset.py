"""Datasets: things with ``len`` and ``[i]``, or things to iterate.

Those of kilograd that can gather a whole batch by one index have ``gather(indices)``, which returns
the collated batch (or None where it cannot); the loader then needs no per-sample loop.
"""

from __future__ import annotations

import bisect
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np

from kilograd import random
from kilograd.tensor import Tensor
from kilograd.utils.randomness import ours

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """A map from index to sample: implement ``__getitem__`` (and ``__len__``)."""

    def __getitem__(self, index: Any) -> T:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """A stream of samples: implement ``__iter__``."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other: Dataset[T]) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


def gatherer(dataset: Any) -> Callable[[np.ndarray], Any] | None:
    """``dataset.gather``, where it is kilograd's own and gives what the samples one by one would.

    A class that changes the samples after it does not have it, and tensors and other libraries have
    other methods of that name.
    """
    return dataset.gather if _gathers(type(dataset)) else None  # type: ignore[arg-type]


@functools.lru_cache(maxsize=64)
def _gathers(kind: type) -> bool:
    names = {"gather", "__getitem__", "__getitems__"}
    first = next((c for c in kind.__mro__ if names & vars(c).keys()), object)
    known = issubclass(kind, Dataset) and first.__module__.startswith("kilograd.")
    return known and "gather" in vars(first)


def samples(dataset: Any, indices: Iterable[Any]) -> list[Any]:
    """The samples at some indices, all at once where the dataset has ``__getitems__``."""
    many = getattr(dataset, "__getitems__", None)
    return many(indices) if many is not None else [dataset[i] for i in indices]


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples are the rows of tensors of equal length.

    Raises:
        AssertionError: the first dimensions differ.

    >>> import kilograd as kg
    >>> ds = TensorDataset(kg.arange(6).reshape(3, 2), kg.tensor([0, 1, 0]))
    >>> len(ds), ds[1]
    (3, (tensor([2, 3]), tensor(1)))
    """

    def __init__(self, *tensors: Tensor) -> None:
        sizes = {t.array.shape[0] for t in tensors}
        if len(sizes) > 1:
            raise AssertionError(f"Size mismatch between tensors: first dimensions {sorted(sizes)}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def gather(self, indices: Any) -> list[Tensor]:
        """The batch ``[t[indices] for each tensor]``."""
        return [t[indices] for t in self.tensors]

    def __len__(self) -> int:
        return len(self.tensors[0]) if self.tensors else 0


class StackDataset(Dataset[Any]):
    """Several datasets side by side: sample ``i`` is the tuple (or dict) of their samples ``i``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError(
                "StackDataset takes datasets either as positional or as keyword arguments"
            )
        parts = list(args) or list(kwargs.values())
        if len({len(d) for d in parts}) != 1:
            raise ValueError("Size mismatch between datasets")
        self.datasets: Any = args or kwargs
        self._length = len(parts[0])

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {k: d[index] for k, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Any]):
    """Datasets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        for d in self.datasets:
            if isinstance(d, IterableDataset):
                raise ValueError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Any:
        n = len(self)
        if not -n <= index < n:
            raise ValueError(
                f"absolute value of index {index} should not exceed dataset length {n}"
            )
        index = index % n
        k = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[k][index - (self.cumulative_sizes[k - 1] if k else 0)]


class ChainDataset(IterableDataset[Any]):
    """Streams one after the other."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise TypeError("ChainDataset only supports IterableDataset")
            yield from d

    def __len__(self) -> int:
        total = 0
        for d in self.datasets:
            total += len(d)  # type: ignore[arg-type]
        return total


class Subset(Dataset[Any]):
    """The samples of a dataset at some indices.

    Raises:
        TypeError: a mask of bools in place of indices.

    >>> list(Subset([10, 20, 30], [2, 0]))
    [30, 10]
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        if _is_mask(indices):
            raise TypeError("Subset takes indices, not a mask: np.flatnonzero(mask) gives them")
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def gather(self, indices: Any) -> Any:
        """The batch of the underlying dataset, where it can gather."""
        inner = gatherer(self.dataset)
        if inner is None:
            return None
        if isinstance(self.indices, list):  # looked up now: the list may have changed
            return inner(np.asarray([self.indices[i] for i in indices.tolist()], np.int64))
        return inner(np.asarray(self.indices)[indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


def _is_mask(indices: Any) -> bool:
    if isinstance(indices, (list, tuple)):
        return not {bool, np.bool_}.isdisjoint(map(type, indices))
    return hasattr(indices, "dtype") and np.asarray(indices).dtype == np.bool_


def random_split(
    dataset: Any, lengths: Sequence[float], generator: random.Generator | None = None
) -> list[Subset]:
    """Split a dataset at random into parts of given lengths, or of given fractions of it.

    Fractions are rounded down; what is left goes one by one to the parts in turn. The same
    ``manual_seed`` gives PyTorch's split.

    Raises:
        ValueError: the lengths do not sum to the dataset's length.

    >>> [len(part) for part in random_split(range(10), [0.75, 0.25])]
    [8, 2]
    """
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for i, f in enumerate(lengths):
            if not 0 <= f <= 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        sizes = [math.floor(n * f) for f in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        for i, size in enumerate(sizes):
            if size == 0:
                warnings.warn(
                    f"Length of split at index {i} is 0. This might result in an empty dataset.",
                    stacklevel=2,
                )
    else:
        sizes = [int(k) for k in lengths]
        if list(sizes) != list(lengths):
            raise ValueError(
                f"random_split: lengths must be integers or fractions that sum to 1, got {lengths}"
            )
    if sum(sizes) != n:
        raise ValueError(
            f"Sum of input lengths does not equal the length of the input dataset! ({sum(sizes)} "
            f"and {n})"
        )
    order = random.permutation(ours(generator), n).tolist()
    return [
        Subset(dataset, order[stop - size : stop])
        for stop, size in zip(accumulate(sizes), sizes, strict=True)
    ]
