"""Batches of a loader, epoch after epoch, with a place among them that can be saved and found again.

The order of an epoch follows from where the generators were when it began. So a place is: those
states, and how many batches have been given out since.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kilograd import random
from kilograd.train.randomness import (
    generator_state,
    is_generator,
    rng_state,
    set_generator_state,
    set_rng_state,
)
from kilograd.utils.data import DataLoader, IterableDataset


class Batches:
    """The batches of a loader; ``epoch`` counts whole passes, ``position`` batches given in this one.

    Iterating it gives what iterating the loader would. As a part of a :class:`Checkpoint` it goes on
    after the last batch that was given out when the checkpoint was made, in the same order. A loop
    that was left early starts a new order when it is entered again; only a loaded state goes on.

    Batches already seen are not loaded again, unless there are worker processes, an iterable
    dataset, or a loader of another kind: then they are loaded and thrown away.

    Args:
        loader: a :class:`~kilograd.utils.data.DataLoader`, or any iterable of batches whose order
            depends on random numbers alone.

    >>> import kilograd as kg
    >>> data = kg.utils.data.TensorDataset(kg.arange(6))
    >>> def loader():
    ...     return Batches(kg.utils.data.DataLoader(data, batch_size=2, shuffle=True))
    >>> first = loader()
    >>> for (x,) in first:
    ...     place = first.state_dict()
    ...     break
    >>> second = loader()
    >>> second.load_state_dict(place)
    >>> rest = [x.tolist() for (x,) in second]
    >>> len(rest), sorted(sum(rest, x.tolist())), second.epoch
    (2, [0, 1, 2, 3, 4, 5], 1)
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.epoch = self.position = 0
        self._skip = 0  # batches of the next epoch that were given out before the state was saved
        self._began: Any = None  # where the generators were when this epoch began

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        if not skip:
            self._began = self._states()
        self.position = skip
        for batch in self._after(skip) if skip else self.loader:
            self.position += 1
            yield batch
        self.epoch += 1
        self.position = 0

    def _after(self, skip: int) -> Iterable[Any]:
        """What is left of an epoch; the generators then are where they are now."""
        now = self._states()
        self._set_states(self._began)

        def skipping(order: Iterable[Any]) -> Iterator[Any]:
            drawn = iter(order)
            if sum(1 for _ in itertools.islice(drawn, skip)) < skip:
                raise RuntimeError(
                    f"the place is after {skip} batches, which the loader does not have: make it as "
                    "it was made when the place was saved"
                )
            self._set_states(now)
            yield from drawn

        loader = self.loader
        if type(loader) is not DataLoader or loader.num_workers:
            return skipping(loader)
        if isinstance(loader.dataset, IterableDataset):
            return skipping(loader)
        rest = copy.copy(loader)
        if rest.batch_sampler is not None:
            rest.batch_sampler = _Order(rest.batch_sampler, skipping)
        else:
            rest.sampler = _Order(rest.sampler, skipping)
        return rest

    def _generators(self) -> dict[str, Any]:
        """The generators of the loader's own, by the place where they were found."""
        found = {}
        for place in ("", "sampler", "batch_sampler", "batch_sampler.sampler"):
            owner: Any = self.loader
            for name in place.split(".") if place else ():
                owner = getattr(owner, name, None)
            generator = getattr(owner, "generator", None)
            if is_generator(generator) and generator is not random.default_generator:
                found[place] = generator
        return found

    def _states(self) -> Any:
        own = {place: generator_state(g) for place, g in self._generators().items()}
        return {"global": rng_state(), "own": own}

    def _set_states(self, states: Any) -> None:
        set_rng_state(states["global"])
        for place, generator in self._generators().items():
            set_generator_state(generator, states["own"][place])

    def state_dict(self) -> dict[str, Any]:
        """Epoch, position, and where the generators are and were when the epoch began."""
        return {
            "epoch": self.epoch, "position": self._skip or self.position,
            "began": self._began, "now": self._states(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place: the next iteration goes on from there.

        Raises:
            ValueError: the loader has other generators than the one whose place it was.
        """
        mine, theirs = set(self._generators()), set(state["now"]["own"])
        if mine != theirs:
            raise ValueError(
                f"the loader has generators of its own at {sorted(mine)}, the one saved had them at "
                f"{sorted(theirs)}: make the loader as it was made then"
            )
        self._set_states(state["now"])
        self.epoch, self._began = state["epoch"], state["began"]
        self.position = self._skip = state["position"]


class _Order:
    """A sampler that begins later."""

    def __init__(self, order: Any, skipping: Callable[[Iterable[Any]], Iterator[Any]]) -> None:
        self.order, self.skipping = order, skipping

    def __iter__(self) -> Iterator[Any]:
        return self.skipping(self.order)

    def __len__(self) -> int:
        return len(self.order)
