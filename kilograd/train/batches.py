"""Batches of a loader, epoch after epoch, with a place among them that can be saved and found again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from kilograd.utils.data import DataLoader
from kilograd.utils.data.resumable import Resumable


class Batches:
    """The batches of a loader; ``epoch`` counts whole passes, ``position`` batches given in this one.

    Iterating it gives what iterating the loader would. As a part of a :class:`Checkpoint` it goes on
    after the last batch that was given out when the checkpoint was made, in the same order. A loop
    that was left early starts a new order when it is entered again; only a loaded state goes on.

    A loader with ``state_dict`` and ``load_state_dict`` (kilograd's, torchdata's) finds the place
    itself; kilograd's does not load again what was seen, unless it is of an iterable dataset. Of any
    other iterable (a list, PyTorch's DataLoader) the batches already seen are thrown away.

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
        self._places: Any = loader if _finds_places(loader) else _Redrawn(loader)
        self.epoch = self.position = 0
        self._skip = 0  # batches of the next epoch that were given out before the state was saved

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        self.position, self._skip = self._skip, 0
        for batch in self._places:
            self.position += 1
            yield batch
        self.epoch += 1
        self.position = 0

    def restart(self) -> None:
        """Let the next iteration begin with its first batch, though a state from midway was loaded.

        Raises:
            RuntimeError: the loader finds its places itself, and is not kilograd's.
        """
        if self._skip:
            if not isinstance(self._places, Resumable):
                kind = type(self.loader).__name__
                raise RuntimeError(f"a {kind} with a place in the middle of an epoch goes on there")
            self._places.restart()
        self.position = self._skip = 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch, position, and where the loader stands."""
        loader = self._places.state_dict()
        sizes = _sizes(self.loader)
        return {"epoch": self.epoch, "position": self.position, "loader": loader, "sizes": sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place: the next iteration goes on from there.

        Generators of the loader's own are put where they were; the global ones a
        :class:`Checkpoint` puts there.

        Raises:
            ValueError: the loader has other generators than the one whose place it was; or the place
                is in the middle of an epoch of other batches, or of another number of samples.
        """
        position = state["position"]
        for what, n in state.get("sizes", {}).items():
            now = _sizes(self.loader).get(what, n)
            if position and n != now:
                raise ValueError(
                    f"the place is in the middle of an epoch, with {what} {n}; the loader now has {now}"
                )
        if "loader" in state:
            place = state["loader"]
        else:  # a file of an earlier kilograd
            place = {"batches": position, "began": state["began"], "own": state["now"]["own"]}
        self._places.load_state_dict(place)
        self.epoch, self.position, self._skip = state["epoch"], position, position


class _Redrawn(Resumable):
    """Any iterable: its batches are drawn again, and those already seen are thrown away."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    @property
    def _owner(self) -> Any:
        return self.loader

    def _order(self) -> Iterable[Any]:
        return self.loader

    def __iter__(self) -> Iterator[Any]:
        return self._epoch()


def _finds_places(loader: Any) -> bool:
    if isinstance(loader, DataLoader):  # a subclass may give other batches than those it counts
        return type(loader).__iter__ is DataLoader.__iter__
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _sizes(loader: Any) -> dict[str, int]:
    """What decides where in an epoch a number of batches leads to, as far as it can be known."""
    found: dict[str, Any] = {"batch_size": getattr(loader, "batch_size", None)}
    of: Any
    for what, of in (("batches", loader), ("samples", getattr(loader, "dataset", None))):
        with contextlib.suppress(TypeError):  # without a length
            found[what] = len(of)
    return {what: n for what, n in found.items() if isinstance(n, int)}
