"""What a graph reads: tensors and arrays of outside, by reference, each time it runs.

Read next: ``arrays.py``.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from kilograd.compile.graph import Var
from kilograd.tensor import Tensor


class Memory:
    """What several lazy arrays may look at: which value it holds, and how often it was written."""

    __slots__ = ("origin", "var", "version")

    def __init__(self, var: Var, origin: Var | None = None) -> None:
        self.var = var
        self.version = 0
        self.origin = origin  # the input whose memory it is


class Source:
    """An input of a graph: a tensor that was there before, read by reference, or an array."""

    def __init__(self, var: Var, array: Any, owner: Any) -> None:
        self.var = var
        self.array = array
        self.owner = owner  # a tensor; a weak reference to one of the graph's own; None: an array
        self.cell = [0] if owner is None else (owner() if self.own else owner)._cell
        self.memory = Memory(var, origin=var)
        self.kept = False  # what the block writes stays in the graph
        self.shared: list[Any] = []  # other tensors, or arrays of NumPy's, that are the same memory
        self.seen: Any = self.stamp()  # when the graph last looked at it; None: it is to look again

    @property
    def fixed(self) -> bool:
        """Whether its sizes never change: a parameter."""
        return isinstance(self.owner, Tensor) and type(self.owner) is not Tensor

    @property
    def own(self) -> bool:
        """Whether it was made with ``graph.tensor``: it holds a lazy array, its data are here."""
        return isinstance(self.owner, weakref.ref)

    def now(self) -> Any:
        """Its array now; ``t.data = …`` may have given it another."""
        t: Any = self.owner() if type(self.owner) is weakref.ref else self.owner
        held = self.array if t is None else t.__dict__["array"]
        if self.shared:
            self._check_shared(held)
        if t is None:
            return held
        if type(held) is np.ndarray:
            self.array, self.cell = held, t._cell
            if self.own:
                self.array = np.ascontiguousarray(held) if held.ndim else held
                t.__dict__["array"] = self.lazy(t)
        elif not self.own or held.memory is not self.memory:
            raise RuntimeError(
                "an input of a lazy graph was given the memory of a lazy tensor (t.data = …): write "
                "t.copy_(…), which copies values"
            )
        return self.array

    def _check_shared(self, held: Any) -> None:
        """Raise if what was one memory is two."""
        for other in self.shared:
            if (other.__dict__["array"] if isinstance(other, Tensor) else other) is not held:
                raise RuntimeError(
                    "two inputs of a lazy graph that were one memory when it was built are no longer (t.data "
                    "= …): give both the same memory, or build the graph with two"
                )

    def stamp(self) -> tuple[int, ...]:
        """What changes when its values do."""
        if not self.shared:
            return id(self.array), self.cell[0]
        cells = [t._cell[0] for t in self.shared if isinstance(t, Tensor)]
        return id(self.array), self.cell[0], *cells

    def share(self, t: Tensor) -> None:
        """Another tensor is the same memory: no new data."""
        self.shared.append(t)
        if self.seen is not None:
            self.seen = *self.seen, t._cell[0]

    lazy: Any = None  # how a tensor of the graph gets its lazy array again
