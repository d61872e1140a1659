"""Going on in the middle of an epoch.

What an epoch gives follows from where the generators were when it began. So a place in it is: those
states, and how much has been given since. To go on there, the order is drawn again from them, and
its beginning is left out.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from kilograd.utils.randomness import (
    State,
    generator_state,
    is_generator,
    is_global,
    rng_state,
    set_generator_state,
    set_rng_state,
)

Place = dict[str, Any]
END = object()


class Steps(NamedTuple):
    """An iteration that has begun: a task for each of its items, and what makes an item of a task."""

    tasks: Iterator[Any]
    item: Callable[[Any], Any]
    skippable: Iterator[Any]  # what leaves items out when it is advanced


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

    def _sizes(self) -> dict[str, int]:
        """What decides where in an epoch a number of items leads to."""
        return {}

    def _order(self) -> Iterable[Any]:
        """What an iteration gives, drawn anew."""
        raise NotImplementedError

    def _begin(self, place: Place) -> Steps:
        """An iteration from its beginning."""
        items = iter(self._order())
        return Steps(items, _as_it_is, items)

    def _start(self, known: Place) -> tuple[Place, Steps]:
        """An iteration from where it stands, and that place, with which ``known`` is kept."""
        resume, self._resume = self._resume, None
        place = resume or {self._given: 0, "began": self._states(), **known}
        self._place = place
        skip = place[self._given]
        began = place["began"]
        again = back_at(self._owner, began, not self._ahead) if skip else contextlib.nullcontext()
        with again:
            steps = self._begin(place)
            if sum(1 for _ in itertools.islice(steps.skippable, skip)) < skip:
                raise RuntimeError(
                    f"the place is after {skip} {self._given}, which there are not: make the "
                    f"{type(self._owner).__name__} as it was made when the place was saved"
                )
        return place, steps

    def _ended(self, place: Place) -> None:
        if self._place is place:  # no newer iteration has begun
            self._place = None

    def _epoch(self, **known: Any) -> Iteration:
        """One iteration; ``known`` is kept with its place."""
        return Iteration(self, known)

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
        return {**began, "own": own_states(self._owner), "sizes": self._sizes()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iteration go on where :meth:`state_dict` was taken.

        Generators of one's own are put where they were. The global ones are left as they are, so
        that a state restored for the rest of the program holds (:func:`kilograd.train.set_rng_state`,
        or a :class:`~kilograd.train.Checkpoint`).

        Raises:
            ValueError: the state is of something with other generators; or it is in the middle of an
                epoch, and sizes have changed since.
        """
        place = {k: v for k, v in state_dict.items() if k not in ("own", "sizes")}
        given = place[self._given] = int(place[self._given])
        if given < 0 or (given and not place["began"]):
            raise ValueError(
                f"{type(self._owner).__name__}: {given} {self._given} are no place in an epoch"
            )
        if given:
            check_sizes(state_dict.get("sizes", {}), self._sizes())
        set_own_states(self._owner, state_dict["own"])
        self._place, self._resume = None, place if given else None


class Iteration(Iterator[Any]):
    """One iteration of a :class:`Resumable`; what an item raises does not end it.

    An item that has failed counts as given once one after it has been.
    """

    _place: Place
    _tasks: Iterator[Any]
    _item: Callable[[Any], Any]
    _count: int  # of tasks: given, and failed

    def __init__(self, of: Resumable, known: Place) -> None:
        self._of = of
        self._given = of._given
        self.close()
        self._known: Place | None = known  # None: it has begun

    def __next__(self) -> Any:
        task = next(self._tasks, END)
        if task is END:
            return self._begin_or_end()
        self._count += 1
        try:
            item = self._item(task)
        except StopIteration as error:  # it would end the loop without a word
            raise RuntimeError(f"loading raised StopIteration({error})") from error
        self._place[self._given] = self._count
        return item

    def _begin_or_end(self) -> Any:
        if self._known is not None:
            known, self._known = self._known, None
            self._place, (self._tasks, self._item, _) = self._of._start(known)
            self._count = self._place[self._given]
            return next(self)
        self._of._ended(self._place)
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Give nothing more; workers that were there for this iteration alone end."""
        self._place = {}
        self._tasks = iter(())
        self._item = _as_it_is
        self._known = None


def _as_it_is(task: Any) -> Any:
    return task


def check_sizes(saved: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Compare the sizes that a place in an epoch depends on.

    Raises:
        ValueError: one is another.
    """
    for what, n in saved.items():
        if now.get(what, n) != n:
            raise ValueError(
                f"the place is in the middle of an epoch, with {what} {n}; the loader now has {now[what]}"
            )


def sizes(loader: Any) -> dict[str, int]:
    """What decides where in an epoch a number of batches leads to, as far as it can be known."""
    found: dict[str, Any] = {"batch_size": getattr(loader, "batch_size", None)}
    of: Any
    for what, of in (("batches", loader), ("samples", getattr(loader, "dataset", None))):
        with contextlib.suppress(TypeError, NotImplementedError):  # without a length
            found[what] = len(of)
    return {what: n for what, n in found.items() if isinstance(n, int)}


# --- what decides an order ----------------------------------------------------------------------


class _Own(NamedTuple):
    """Something that a loader's order is drawn from: how to take its state, and how to set it."""

    state: Callable[[], Any]
    set_state: Callable[[Any], None]


def _own(loader: Any) -> dict[str, _Own]:
    """What a loader and its samplers draw their order from, by the place where it was found.

    The state of a sampler that can tell it, else the generators among the attributes. Global
    generators are not among them, nor what kilograd's own samplers tell: their place in an order.
    """
    found = {}
    for place in ("", "sampler", "batch_sampler", "batch_sampler.sampler"):
        owner: Any = loader
        for name in place.split(".") if place else ():
            owner = getattr(owner, name, None)
        able = hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict")
        if place and able and not isinstance(owner, Resumable):
            found[place] = _Own(owner.state_dict, owner.load_state_dict)
            continue
        for name in sorted({"generator", *getattr(owner, "__dict__", ())}):
            g = getattr(owner, name, None)
            if is_generator(g) and not is_global(g):
                key = place if name == "generator" else f"{place}.{name}".lstrip(".")
                found[key] = _Own(partial(generator_state, g), partial(set_generator_state, g))
    return found


def own_states(loader: Any) -> State:
    """The states of what a loader's order is drawn from, but for the global generators."""
    return {place: copy.deepcopy(own.state()) for place, own in _own(loader).items()}


def set_own_states(loader: Any, states: State) -> None:
    """Put what a loader draws its order from where it was at :func:`own_states`.

    Raises:
        ValueError: it has other generators.
    """
    found = _own(loader)
    if set(found) != set(states):
        raise ValueError(
            f"the loader has generators of its own at {sorted(found)}, the one saved had them at "
            f"{sorted(states)}: make the loader as it was made then"
        )
    for place, own in found.items():
        own.set_state(copy.deepcopy(states[place]))


def all_states(loader: Any) -> State:
    """Where everything is that an order may be drawn from."""
    return {"global": rng_state(), "own": own_states(loader)}


@contextlib.contextmanager
def back_at(loader: Any, states: State, own: bool = True) -> Iterator[None]:
    """A block in which the generators go on from an earlier :func:`all_states`.

    Afterwards they are where they were before; without ``own``, the loader's stay where they came to.
    """
    now = all_states(loader)
    try:
        set_rng_state(states["global"])
        set_own_states(loader, states["own"])
        yield
    finally:
        set_rng_state(now["global"])
        if own:
            set_own_states(loader, now["own"])
