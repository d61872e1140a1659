"""Samplers: the order in which a loader visits a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from kilograd import random
from kilograd.utils.data.resumable import Resumable, own_states
from kilograd.utils.randomness import ours

T = TypeVar("T", covariant=True)


def fresh_seed(generator: random.Generator | None = None) -> int:
    """A 63-bit seed, drawn as PyTorch draws one."""
    return int(random.full_range_integers(generator, (), np.int64))


class Sampler(Generic[T]):
    """An iterable of indices; a subclass defines ``__iter__`` (and ``__len__``)."""

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError


class SequentialSampler(Sampler[int]):
    """0, 1, 2, …"""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Resumable, Sampler[int]):
    """A new random order at every iteration; PyTorch's for the same seed.

    With ``replacement``, ``num_samples`` independent draws. Without, ``num_samples`` larger than
    the dataset goes through it again.

    ``state_dict`` and ``load_state_dict`` let an iteration go on where another one was. A
    :class:`DataLoader` that prefetches is ahead of its loop: take its own state then.

    Raises:
        ValueError: ``num_samples`` is not a positive integer.
    """

    _given = "indices"

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: random.Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got {replacement!r}")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ValueError(
                f"num_samples should be a positive integer value, but got {num_samples}"
            )
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = ours(generator)

    @property
    def num_samples(self) -> int:
        """How many indices one iteration gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def blocks(self, generator: random.Generator) -> Iterator[list[int]]:
        """The indices, in the blocks in which they are drawn."""
        n = len(self.data_source)
        if self.replacement:
            for start in range(0, self.num_samples, 32):
                size = min(32, self.num_samples - start)
                yield random.random_integers(generator, 0, n, (size,)).tolist()
            return
        for _ in range(self.num_samples // n if n else 0):
            yield random.permutation(generator, n).tolist()
        rest = self.num_samples % n if n else 0
        yield random.permutation(generator, n).tolist()[:rest]

    def _states(self) -> dict[str, Any]:
        return {"global": {"kilograd": random.get_rng_state()}, "own": own_states(self)}

    def _sizes(self) -> dict[str, int]:
        return {"samples": len(self.data_source), "indices": self.num_samples}

    def _order(self) -> Iterator[int]:
        generator = self.generator
        if generator is None:
            generator = random.Generator().manual_seed(fresh_seed())
        return itertools.chain.from_iterable(self.blocks(generator))

    def __iter__(self) -> Iterator[int]:
        # A generator: it is quicker than an Iteration, and nothing fails here for one index alone.
        place, steps = self._start({})
        for index in steps.tasks:
            place["indices"] += 1
            yield index
        self._ended(place)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: random.Generator | None = None) -> None:
        self.indices = indices
        self.generator = ours(generator)

    def __iter__(self) -> Iterator[int]:
        order = random.permutation(self.generator, len(self.indices)).tolist()
        return (self.indices[i] for i in order)

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """``num_samples`` indices drawn with probabilities proportional to ``weights``."""

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: random.Generator | None = None,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(
                f"num_samples should be a positive integer value, but got {num_samples}"
            )
        if not isinstance(replacement, bool):
            raise ValueError(
                f"replacement should be a boolean value, but got replacement={replacement}"
            )
        self.weights = np.asarray(getattr(weights, "array", weights), np.float64)
        if self.weights.ndim != 1:
            raise ValueError(
                f"weights should be a 1d sequence but given weights have shape {self.weights.shape}"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = ours(generator)

    def __iter__(self) -> Iterator[int]:
        drawn = random.multinomial(self.generator, self.weights, self.num_samples, self.replacement)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Batches of the indices another sampler gives.

    >>> list(BatchSampler(range(7), batch_size=3, drop_last=False))
    [[0, 1, 2], [3, 4, 5], [6]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in self.sampler:
            batch.append(i)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
