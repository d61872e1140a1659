"""Which worker of a ``DataLoader`` is running this code, if any."""

from __future__ import annotations

import threading
from typing import Any

from kilograd import random


class WorkerInfo:
    """What :func:`get_worker_info` returns inside of a worker.

    Attributes:
        id: 0 … ``num_workers`` - 1.
        num_workers: how many there are.
        seed: the base seed of the loader's iteration plus ``id``. In a process, Python's, NumPy's
            (its low 32 bits) and kilograd's generators start at it.
        dataset: the worker's dataset; its own copy in a process.
        generator: what to draw from: the default generator in a process, one of its own in a thread.
    """

    def __init__(
        self, id: int, num_workers: int, seed: int, dataset: Any, generator: random.Generator
    ) -> None:
        self.id = id
        self.num_workers = num_workers
        self.seed = seed
        self.dataset = dataset
        self.generator = generator
        self._streams: dict[int, random.Generator] = {}

    def stream(self, generator: random.Generator | None) -> random.Generator:
        """This worker's version of a generator, so that no two workers draw the same numbers.

        Its seed is the sum of the generator's first seed and the worker's.
        """
        if generator is None:
            return self.generator
        if id(generator) not in self._streams:
            seed = (generator.initial_seed() + self.seed) % 2**63
            self._streams[id(generator)] = random.Generator().manual_seed(seed)
        return self._streams[id(generator)]

    def __repr__(self) -> str:
        return f"WorkerInfo(id={self.id}, num_workers={self.num_workers}, seed={self.seed})"


class _Here(threading.local):
    info: WorkerInfo | None = None


here = _Here()


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a ``DataLoader``, which one it is; None elsewhere.

    An :class:`IterableDataset` uses it to give each worker its share:

    >>> from kilograd.utils.data import DataLoader, IterableDataset, get_worker_info
    >>> class Count(IterableDataset):
    ...     def __iter__(self):
    ...         info = get_worker_info()
    ...         return iter(range(6) if info is None else range(info.id, 6, info.num_workers))
    >>> [b.tolist() for b in DataLoader(Count(), 2, num_workers=2, worker_type="thread")]
    [[0, 2], [1, 3], [4], [5]]
    """
    return here.info
