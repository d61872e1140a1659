"""DataLoader: a dataset, an order, a batch size.

Where the dataset can ``gather`` (arrays, tensors and subsets of them), a batch is one fancy index
of each array; otherwise samples are taken one by one and collated. :class:`Fetch` does that, here or
in a worker (``workers.py``).
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
)
from typing import TYPE_CHECKING, Any

import numpy as np

from kilograd import dtypes, random
from kilograd.functions.creation import tensor
from kilograd.functions.shape import stack
from kilograd.tensor import Tensor, wrap
from kilograd.utils.data.dataset import IterableDataset, gatherer, samples
from kilograd.utils.data.resumable import Place, Resumable, Steps, sizes
from kilograd.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler, fresh_seed
from kilograd.utils.randomness import ours

if TYPE_CHECKING:
    from kilograd.utils.data.workers import Processes, Threads


def default_convert(data: Any) -> Any:
    """Arrays as tensors, in any nest; texts and all else as they are.

    Raises:
        TypeError: an array of a dtype that no tensor has, such as dates.
    """
    if isinstance(data, (Tensor, str, bytes)):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in "SUO" else _tensor(np.asarray(data))
    if isinstance(data, Mapping):
        return _like(data, {k: default_convert(v) for k, v in data.items()})
    if isinstance(data, Sequence):
        return _like(data, [default_convert(v) for v in data])
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """A list of samples as one batch: tensors stacked, numbers made tensors, nests kept.

    Raises:
        RuntimeError: samples of different sizes.
        TypeError: something that cannot be collated.
        IndexError: no samples.

    >>> default_collate([(1, 2.0), (3, 4.0)])
    [tensor([1, 3]), tensor([2., 4.], dtype=kilograd.float64)]
    """
    if not len(batch):
        raise IndexError("default_collate: there is no sample in the batch")
    first = batch[0]
    if isinstance(first, Tensor):
        _check_kinds(batch, (Tensor,))
        _check_shapes({t.array.shape for t in batch})
        return stack(list(batch))
    if isinstance(first, np.ndarray):
        arrays = [*map(np.asarray, batch)]
        _check_shapes({a.shape for a in arrays})
        if len({a.dtype for a in arrays}) == 1:
            return _tensor(np.stack(arrays))
        return stack([*map(_tensor, arrays)])
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, (int, float, np.generic)):
        return _numbers(batch)
    if isinstance(first, Mapping):
        return _like(first, {k: default_collate([d[k] for d in batch]) for k in first})
    if isinstance(first, Sequence):
        if len({len(s) for s in batch}) > 1:
            raise RuntimeError("each element in list of batch should be of equal size")
        return _like(first, [default_collate(c) for c in zip(*batch, strict=True)])
    found = f"{type(first).__module__}.{type(first).__qualname__}".removeprefix("builtins.")
    if found.startswith("torch."):
        found += ": let the dataset give arrays (.numpy()), or take PyTorch's DataLoader"
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
        + found
    )


def _tensor(array: np.ndarray) -> Tensor:
    """An array around which there can be a tensor, in this machine's byte order; else TypeError."""
    if array.dtype not in dtypes.FROM_NUMPY:
        array = array.astype(dtypes.as_dtype(array.dtype).dtype)
    return wrap(array)


def _numbers(batch: Sequence[Any]) -> Tensor:
    """Numbers as a tensor: as tensor() makes it, but of Python's floats in float64."""
    first = batch[0]
    if len(set(map(type, batch))) == 1:
        array = np.asarray(batch)
        if isinstance(first, np.generic) or array.dtype.kind in "bif":  # and not too large
            return _tensor(array)
    _check_kinds(batch, (int, float, complex, np.number, np.bool_))
    return tensor(list(batch), dtype=dtypes.float64 if isinstance(first, float) else None)


def _check_kinds(batch: Sequence[Any], known: tuple[type, ...]) -> None:
    for kind in set(map(type, batch)):
        if not issubclass(kind, known):
            raise TypeError(
                "default_collate: samples of several types cannot be batched: the first is "
                f"{type(batch[0]).__name__}, another {kind.__name__}"
            )


def _check_shapes(shapes: set[tuple[int, ...]]) -> None:
    if len(shapes) > 1:
        raise RuntimeError(
            f"each element in a batch should be of equal size, got shapes {sorted(shapes)}: "
            "give the loader a collate_fn that pads them"
        )


def _like(example: Any, values: Any) -> Any:
    """A dict or list in the example's class, if that can be made of it; a list for a tuple."""
    if type(example) in (dict, list):
        return values
    if isinstance(example, tuple):
        return type(example)(*values) if hasattr(example, "_fields") else values
    try:
        if not isinstance(example, (MutableMapping, MutableSequence)):
            return type(example)(values)
        same = copy.copy(example)  # with what else it knows
        for k in example if isinstance(example, Mapping) else range(len(example)):
            same[k] = values[k]
        return same
    except TypeError:
        return values


class Fetch:
    """What turns indices, or samples of a stream, into a batch.

    It is all that a worker needs of a loader.
    """

    def __init__(
        self, dataset: Any, collate_fn: Callable[[Any], Any], batch_size: int | None,
        drop_last: bool, batched: bool,
    ) -> None:  # fmt: skip
        self.dataset = dataset
        self.streams = isinstance(dataset, IterableDataset)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.batched = batched
        self.gather = gatherer(dataset) if batched and collate_fn is default_collate else None
        self.collate_fn = collate_fn

    def __call__(self, task: Any) -> Any:
        """The batch of some indices, or of what :meth:`stream` gives; or a single sample."""
        if self.gather is not None:
            rows = np.asarray(task)
            if rows.dtype.kind in "iu" and rows.ndim == 1:
                batch = self.gather(rows)
                if batch is not None:
                    return batch
        if self.streams:
            return self.collate_fn(task)
        return self.collate_fn(samples(self.dataset, task) if self.batched else self.dataset[task])

    def stream(self) -> Iterator[Any]:
        """What the batches of an :class:`IterableDataset` are made of."""
        if self.batch_size is None:
            return iter(self.dataset)
        return _Cut(iter(self.dataset), self.batch_size, self.drop_last)


class _Cut(Iterator[list[Any]]):
    """The samples of a stream, a batch at a time; it goes on after what the stream raises."""

    def __init__(self, stream: Iterator[Any], size: int, drop_last: bool) -> None:
        self.stream = stream
        self.size = size
        self.drop_last = drop_last

    def __next__(self) -> list[Any]:
        batch = list(itertools.islice(self.stream, self.size))
        if len(batch) < self.size:
            self.stream = iter(())
            if not batch or self.drop_last:
                raise StopIteration
        return batch


_FIXED = (
    "batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers",
)  # fmt: skip


class DataLoader(Resumable):
    """Batches of a dataset, in PyTorch's order for the same seed.

    The last, smaller batch is kept unless ``drop_last``; with ``shuffle`` every iteration has a
    new order; leaving an iteration early leaves nothing behind.

    With ``num_workers`` the batches are loaded in processes or threads and arrive in the same order.
    A process that dies, or that takes longer than ``timeout``, is a RuntimeError; an exception in a
    worker is raised here with its own type, its message ending in the worker's traceback.

    An exception does not end an iteration: ``next`` of it goes on with the next batch. (After a
    worker's death or a timeout there is none.)

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
        TypeError: a dataset or function that a worker process needs and that cannot be pickled;
            a generator or a stream of another library's.

    >>> import kilograd as kg
    >>> ds = kg.utils.data.TensorDataset(kg.arange(5))
    >>> [x.tolist() for (x,) in kg.utils.data.DataLoader(ds, batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    _made = False  # whether __init__ is over

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
        _refuse_torchs_streams(dataset)
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
        self.generator = ours(generator)
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.worker_type = worker_type
        self._batched = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if self._batched else default_convert)
        self._pool: Threads | Processes | None = None  # persistent workers
        self._seed = 0  # of the workers
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._made and name in _FIXED:
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[Any]:
        if not self._resume and self._living_pool() is None:
            # PyTorch draws the workers' seed here, with workers or without.
            self._seed = fresh_seed(self.generator)
        return self._epoch(seed=self._seed)

    @property
    def _ahead(self) -> bool:  # type: ignore[override]
        return self.num_workers > 0

    def _begin(self, place: Place) -> Steps:
        self._seed = place["seed"] if "seed" in place else fresh_seed(self.generator)
        fetch = Fetch(self.dataset, self.collate_fn, self.batch_size, self.drop_last, self._batched)
        if not self.num_workers:
            tasks = fetch.stream() if self._iterable else iter(self._order())
            return Steps(tasks, fetch, tasks)
        from kilograd.utils.data.workers import opened  # with multiprocessing: few programs need it

        order = itertools.repeat(None) if self._iterable else iter(self._order())
        answers = self._from_workers(fetch, order, self._seed)
        return Steps(answers, opened, answers if self._iterable else order)

    def _order(self) -> Iterable[Any]:
        return self.batch_sampler if self.batch_sampler is not None else self.sampler  # type: ignore[return-value]

    def _living_pool(self) -> Threads | Processes | None:
        """The persistent workers, unless they have ended or are those of a process forked from."""
        if self._pool is not None and not self._pool.alive:
            self._pool = None
        return self._pool

    def _from_workers(self, fetch: Fetch, order: Iterator[Any], seed: int) -> Iterator[Any]:
        from kilograd.utils.data import workers

        pool = self._living_pool()
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

    def _sizes(self) -> dict[str, int]:
        shares = {"workers": max(1, self.num_workers)} if self._iterable else {}
        return sizes(self) | shares

    def state_dict(self) -> dict[str, Any]:
        """How far the latest iteration has come, and where the generators were when it began.

        An iteration begins with its first batch, and a batch counts as soon as the loop has it.
        Between iterations the count is 0.

        Raises:
            RuntimeError: in the middle of an epoch whose batches come in no order that could be
                found again, that of ``in_order=False``.
        """
        if self._place and self._place["batches"] and not self.in_order and self.num_workers > 1:
            raise RuntimeError(
                "in the middle of an epoch with in_order=False it is not known which batches are "
                "still to come: save between epochs, or make the DataLoader with in_order=True"
            )
        return super().state_dict()

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


def _refuse_torchs_streams(dataset: Any) -> None:
    data = sys.modules.get("torch.utils.data")
    if data is not None and isinstance(dataset, data.IterableDataset):
        raise TypeError(
            "the dataset is PyTorch's IterableDataset, which asks PyTorch for its share in a worker: "
            "derive it from kilograd.utils.data.IterableDataset, or take PyTorch's DataLoader"
        )


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
