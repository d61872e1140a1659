"""Going on in the middle of an epoch.

What an epoch gives follows from where the generators were when it began. So a place in it is: those
states, and how much has been given since. To go on there, the order is drawn again from them, and
its beginning is left out.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kilograd.utils.randomness import all_states, back_at, own_states, set_own_states

Place = dict[str, Any]


class Resumable:
    """An iterable whose iterations can be gone on with: ``state_dict`` and ``load_state_dict``.

    A subclass iterates in :meth:`_epoch`, and overrides :meth:`_begin` or :meth:`_order`.
    """

    _given = "batches"  # what is counted
    _ahead = False  # whether the order is drawn further ahead than what has been given
    _place: Place | None = None  # of the iteration that began last
    _resume: Place | None = None  # where the next one goes on

    @property
    def _owner(self) -> Any:
        """Who has the generators."""
        return self

    def _states(self) -> dict[str, Any]:
        """Where all is that the order may be drawn from."""
        return all_states(self._owner)

    def _order(self) -> Iterable[Any]:
        """What an iteration gives, drawn anew."""
        raise NotImplementedError

    def _begin(self, place: Place) -> tuple[Iterator[Any], Iterator[Any]]:
        """What gives the items of an iteration, and what leaves items out when it is advanced."""
        items = iter(self._order())
        return items, items

    def _epoch(self, **known: Any) -> Iterator[Any]:
        """One iteration, from where it stands; ``known`` is kept with its place."""
        resume, self._resume = self._resume, None
        place = resume or {self._given: 0, "began": self._states(), **known}
        self._place = place
        skip = place[self._given]
        began = place["began"]
        again = back_at(self._owner, began, not self._ahead) if skip else contextlib.nullcontext()
        with again:
            items, skippable = self._begin(place)
            if sum(1 for _ in itertools.islice(skippable, skip)) < skip:
                raise RuntimeError(
                    f"the place is after {skip} {self._given}, which there are not: make the "
                    f"{type(self._owner).__name__} as it was made when the place was saved"
                )
        for item in items:
            place[self._given] += 1
            yield item
        if self._place is place:  # no newer iteration has begun
            self._place = None

    def restart(self) -> None:
        """Let the next iteration begin at the beginning, though a place was loaded."""
        self._resume = None

    def state_dict(self) -> dict[str, Any]:
        """How far the latest iteration has come, and where the generators were when it began.

        An iteration begins with its first item, and an item counts as soon as the loop has it.
        Between iterations the count is 0.
        """
        place = self._resume or self._place or {self._given: 0}
        began = place if place[self._given] else {self._given: 0, "began": None}
        return {**began, "own": own_states(self._owner)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration go on where :meth:`state_dict` was taken.

        Generators of one's own are put where they were. The global ones are left as they are, so
        that a state restored for the rest of the program holds (:func:`kilograd.train.set_rng_state`,
        or a :class:`~kilograd.train.Checkpoint`).

        Raises:
            ValueError: the state is of something with other generators.
        """
        place = {k: v for k, v in state_dict.items() if k != "own"}
        given = place[self._given] = int(place[self._given])
        if given < 0 or (given and not place["began"]):
            raise ValueError(
                f"{type(self._owner).__name__}: {given} {self._given} are no place in an epoch"
            )
        set_own_states(self._owner, state_dict["own"])
        self._place, self._resume = None, place if given else None
