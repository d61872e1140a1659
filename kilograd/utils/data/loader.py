"""DataLoader: a dataset, an order, a batch size.

Where the dataset can ``gather`` (arrays, tensors and subsets of them), a batch is one fancy index
of each array; otherwise samples are taken one by one and collated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kilograd import dtypes, random
from kilograd.functions.shape import stack
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import IterableDataset
from kilograd.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler, fresh_seed


def default_convert(data: Any) -> Any:
    """Arrays as tensors, in any nest; everything else as it is."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind in "biufc":
        return wrap(np.asarray(data))
    if isinstance(data, Mapping):
        return {k: default_convert(v) for k, v in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*[default_convert(v) for v in data])
    if isinstance(data, tuple):
        return [default_convert(v) for v in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return [default_convert(v) for v in data]
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """A list of samples as one batch: tensors stacked, numbers made tensors, nests kept.

    Raises:
        RuntimeError: samples of different sizes.
        TypeError: something that cannot be collated.

    >>> default_collate([(1, 2.0), (3, 4.0)])
    [tensor([1, 3]), tensor([2., 4.], dtype=kilograd.float64)]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        shapes = {t.array.shape for t in batch}
        if len(shapes) > 1:
            raise RuntimeError(
                f"each element in a batch should be of equal size, got shapes {sorted(shapes)}: "
                "give the loader a collate_fn that pads them"
            )
        return stack(list(batch))
    if isinstance(first, np.ndarray):
        if first.dtype.kind not in "biufc":
            raise TypeError(f"default_collate: arrays of dtype {first.dtype} cannot be batched")
        return wrap(np.stack(batch))
    if isinstance(first, np.generic):
        return wrap(np.asarray(batch))
    if isinstance(first, bool):
        return wrap(np.asarray(batch))
    if isinstance(first, float):
        return wrap(np.asarray(batch, np.float64))
    if isinstance(first, int):
        return wrap(np.asarray(batch, dtypes.int64.dtype))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return {k: default_collate([d[k] for d in batch]) for k in first}
    if isinstance(first, Sequence):
        if len({len(s) for s in batch}) > 1:
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(c) for c in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
        f"{type(first).__name__}"
    )


def get_worker_info() -> None:
    """None: samples are loaded in the main process."""
    return None


class DataLoader:
    """Batches of a dataset, in PyTorch's order for the same seed.

    The last, smaller batch is kept unless ``drop_last``; with ``shuffle`` every iteration has a
    new order; leaving an iteration early leaves nothing behind.

    Args:
        dataset: has ``len`` and ``[i]``, or is an :class:`IterableDataset`.
        batch_size: samples a batch; None gives single samples, uncollated.
        shuffle, sampler, batch_sampler: the order; at most one of them.
        collate_fn: makes a batch of a list of samples.
        drop_last: drop a last batch that is not full.
        generator: draws the order, instead of the default generator.
        num_workers, pin_memory, timeout, worker_init_fn, prefetch_factor, persistent_workers: taken
            for PyTorch's sake; samples are loaded in the main process (a warning says so once).

    Raises:
        ValueError: options that exclude each other.

    >>> import kilograd as kg
    >>> ds = kg.utils.data.TensorDataset(kg.arange(5))
    >>> [x.tolist() for (x,) in kg.utils.data.DataLoader(ds, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: random.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError(
                "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing."
            )
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError(
                "prefetch_factor option could only be specified in multiprocessing. let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
            )
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        if num_workers:
            warnings.warn(
                f"DataLoader(num_workers={num_workers}): kilograd loads in the main process for now",
                stacklevel=2,
            )
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            if shuffle:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
                )
            if sampler is not None or batch_sampler is not None:
                raise ValueError(
                    "DataLoader with IterableDataset: expected unspecified sampler and batch_sampler options"
                )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None:
            if drop_last:
                raise ValueError(
                    "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
                )
        elif not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if sampler is None and not self._iterable:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        self.sampler = sampler
        if batch_sampler is None and batch_size is not None and not self._iterable:
            assert sampler is not None
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.generator = generator
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        batched = batch_size is not None or batch_sampler is not None
        self._gather = getattr(dataset, "gather", None) if collate_fn is None and batched else None
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)

    def __iter__(self) -> Iterator[Any]:
        fresh_seed(self.generator)  # PyTorch draws a seed for its workers here
        if self._iterable:
            return self._stream()
        if self.batch_sampler is None:
            assert self.sampler is not None
            return (self.collate_fn(self.dataset[i]) for i in self.sampler)
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        dataset, gather = self.dataset, self._gather
        many = getattr(dataset, "__getitems__", None)
        assert self.batch_sampler is not None
        for indices in self.batch_sampler:
            batch = gather(np.asarray(indices)) if gather is not None else None
            if batch is None:
                samples = many(indices) if many is not None else [dataset[i] for i in indices]
                batch = self.collate_fn(samples)
            yield batch

    def _stream(self) -> Iterator[Any]:
        if self.batch_size is None:
            for sample in self.dataset:
                yield self.collate_fn(sample)
            return
        samples: list[Any] = []
        for sample in self.dataset:
            samples.append(sample)
            if len(samples) == self.batch_size:
                yield self.collate_fn(samples)
                samples = []
        if samples and not self.drop_last:
            yield self.collate_fn(samples)

    def __len__(self) -> int:
        """The number of batches."""
        if self._iterable:
            n = len(self.dataset)
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self.batch_sampler if self.batch_sampler is not None else self.sampler)  # type: ignore[arg-type]
