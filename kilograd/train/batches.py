"""Batches of a loader, epoch after epoch, with a place among them that can be saved and found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kilograd.utils.data import DataLoader
from kilograd.utils.data.resumable import END, Resumable, check_sizes, sizes


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
        return _Pass(self)

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
        return {
            "epoch": self.epoch, "position": self.position, "loader": loader,
            "sizes": sizes(self.loader),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place: the next iteration goes on from there.

        Generators of the loader's own are put where they were; the global ones a
        :class:`Checkpoint` puts there.

        Raises:
            ValueError: the loader has other generators than the one whose place it was; or the place
                is in the middle of an epoch of other batches, or of another number of samples.
        """
        position = state["position"]
        if position:
            check_sizes(state.get("sizes", {}), sizes(self.loader))
        if "loader" in state:
            place = state["loader"]
        else:  # a file of an earlier kilograd
            place = {"batches": position, "began": state["began"], "own": state["now"]["own"]}
        self._places.load_state_dict(place)
        self.epoch, self.position, self._skip = state["epoch"], position, position


class _Pass(Iterator[Any]):
    """One pass over batches. It begins with the first, and what the loader raises does not end it."""

    def __init__(self, of: Batches) -> None:
        self._of = of
        self._batches: Iterator[Any] | None = None
        self._over = False

    def __next__(self) -> Any:
        of = self._of
        if self._batches is None:
            of.position, of._skip = of._skip, 0
            self._batches = iter(of._places)
        batch = END if self._over else next(self._batches, END)
        if batch is not END:
            of.position += 1
            return batch
        if not self._over:
            self._over = True
            of.epoch += 1
            of.position = 0
        raise StopIteration


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
