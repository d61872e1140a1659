"""DataLoader: a dataset, an order, a batch size.

Where the dataset can ``gather`` (arrays, tensors and subsets of them), a batch is one fancy index
of each array; otherwise samples are taken one by one and collated. :class:`Fetch` does that, here or
in a worker (``workers.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd import dtypes, random
from kilograd.functions.shape import stack
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import IterableDataset
from kilograd.utils.data.resumable import Place, Resumable
from kilograd.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler, fresh_seed

if TYPE_CHECKING:
    from kilograd.utils.data.workers import Processes, Threads


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


class Fetch:
    """What turns indices into a batch, or a stream of samples into batches of them.

    It is all that a worker needs of a loader.
    """

    def __init__(
        self, dataset: Any, collate_fn: Callable[[Any], Any] | None, batch_size: int | None,
        drop_last: bool, batched: bool,
    ) -> None:  # fmt: skip
        self.dataset = dataset
        self.streams = isinstance(dataset, IterableDataset)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.batched = batched
        self.gathers = batched and collate_fn is None and hasattr(dataset, "gather")
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)

    def __call__(self, indices: Any) -> Any:
        """The batch of some indices; without batches, the sample of one."""
        dataset = self.dataset
        if not self.batched:
            return self.collate_fn(dataset[indices])
        if self.gathers:
            batch = dataset.gather(np.asarray(indices))
            if batch is not None:
                return batch
        many = getattr(dataset, "__getitems__", None)
        samples = many(indices) if many is not None else [dataset[i] for i in indices]
        return self.collate_fn(samples)

    def stream(self) -> Iterator[Any]:
        """The batches of an :class:`IterableDataset`."""
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


class DataLoader(Resumable):
    """Batches of a dataset, in PyTorch's order for the same seed.

    The last, smaller batch is kept unless ``drop_last``; with ``shuffle`` every iteration has a
    new order; leaving an iteration early leaves nothing behind.

    With ``num_workers`` the batches are loaded in processes or threads and arrive in the same order.
    A process that dies, or that takes longer than ``timeout``, is a RuntimeError; an exception in a
    worker is raised here with its own type, its message ending in the worker's traceback.

    After ``load_state_dict`` the next iteration goes on where ``state_dict`` was taken. Batches
    already seen are not loaded again (those of an :class:`IterableDataset` are, and are dropped).
    What workers have drawn themselves for them, for random transforms, is then not drawn again.

    Args:
        dataset: has ``len`` and ``[i]``, or is an :class:`IterableDataset`.
        batch_size: samples a batch; None gives single samples, uncollated.
        shuffle, sampler, batch_sampler: the order; at most one of them.
        num_workers: how many workers load batches; 0 loads them here, when they are asked for.
        collate_fn: makes a batch of a list of samples.
        pin_memory, pin_memory_device: taken for PyTorch's sake; there is nothing to pin.
        drop_last: drop a last batch that is not full.
        timeout: seconds to wait for a batch from a worker; 0 waits for ever.
        worker_init_fn: called in each worker with its number, before it loads anything.
        multiprocessing_context: ``"fork"``, ``"spawn"``, ``"forkserver"`` or a context; None is
            Python's default. Only ``"fork"`` can do without pickling the dataset.
        generator: draws the order and the workers' seeds, instead of the default generator.
        prefetch_factor: how many batches each worker loads ahead (2).
        persistent_workers: keep the workers from one iteration to the next. They keep their copy of
            the dataset too, and go on drawing from their generators.
        in_order: False gives each batch as soon as it is there.
        worker_type: ``"process"``, or ``"thread"`` for loading that waits for files or is in NumPy:
            threads share the dataset and start at once.

    Raises:
        ValueError: options that exclude each other.
        TypeError: a dataset or function that a worker process needs and that cannot be pickled.

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
        worker_type: str = "process",
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
        if prefetch_factor is not None and prefetch_factor < 1:
            raise ValueError(f"prefetch_factor option should be positive, got {prefetch_factor}")
        if worker_type not in ("process", "thread"):
            raise ValueError(f"worker_type should be 'process' or 'thread', got {worker_type!r}")
        self.multiprocessing_context = _context(multiprocessing_context, num_workers, worker_type)
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
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.worker_type = worker_type
        self._batched = batch_size is not None or batch_sampler is not None
        self._collate = collate_fn
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self._pool: Threads | Processes | None = None  # persistent workers
        self._seed = 0  # of the workers

    def __iter__(self) -> Iterator[Any]:
        if not self._resume and self._pool is None:
            # PyTorch draws the workers' seed here, with workers or without.
            self._seed = fresh_seed(self.generator)
        return self._epoch(seed=self._seed)

    @property
    def _ahead(self) -> bool:  # type: ignore[override]
        return self.num_workers > 0

    def _begin(self, place: Place) -> tuple[Iterator[Any], Iterator[Any]]:
        self._seed = place["seed"] if "seed" in place else fresh_seed(self.generator)
        fetch = Fetch(self.dataset, self._collate, self.batch_size, self.drop_last, self._batched)
        order = itertools.repeat(None) if self._iterable else iter(self._order())
        if self.num_workers:
            batches = self._from_workers(fetch, order, self._seed)
        else:
            batches = fetch.stream() if self._iterable else (fetch(i) for i in order)
        return batches, batches if self._iterable else order

    def _order(self) -> Iterable[Any]:
        return self.batch_sampler if self.batch_sampler is not None else self.sampler  # type: ignore[return-value]

    def _from_workers(self, fetch: Fetch, order: Iterator[Any], seed: int) -> Iterator[Any]:
        from kilograd.utils.data import workers  # with multiprocessing, which few programs need

        pool = self._pool
        if pool is None:
            job = workers.Job(fetch, self.worker_init_fn, self.num_workers, seed)
            pool = workers.start(job, self.worker_type, self.multiprocessing_context)
            if self.persistent_workers:
                self._pool = pool
        healthy, epoch = False, pool.epoch + 1
        assert self.prefetch_factor is not None
        try:
            yield from workers.answers(
                pool, order, self.num_workers, prefetch=self.prefetch_factor,
                timeout=self.timeout, in_order=self.in_order,
            )  # fmt: skip
            healthy = True
        except GeneratorExit:  # the loop was left
            healthy = True
            raise
        finally:
            if not self.persistent_workers or (not healthy and pool.epoch == epoch):
                pool.close()
                if self._pool is pool:
                    self._pool = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pool": None}  # a copy starts workers of its own

    def __len__(self) -> int:
        """The number of batches."""
        if self._iterable:
            n = len(self.dataset)
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self._order())  # type: ignore[arg-type]


def _context(context: Any, num_workers: int, worker_type: str) -> Any:
    """The multiprocessing context that an argument means; None where there are no processes."""
    if context is not None and (num_workers == 0 or worker_type == "thread"):
        raise ValueError(
            "multiprocessing_context can only be used with worker processes (num_workers > 0 and "
            f"worker_type='process'), but got num_workers={num_workers}, worker_type={worker_type!r}"
        )
    if num_workers == 0 or worker_type == "thread":
        return None
    import multiprocessing

    if context is None or isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context is not None and context not in methods:
            raise ValueError(
                "multiprocessing_context option should specify a valid start method in "
                f"{methods}, but got multiprocessing_context={context!r}"
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, multiprocessing.context.BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string "
            f"specifying the start method, but got multiprocessing_context={context!r}"
        )
    return context
