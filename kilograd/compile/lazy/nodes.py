"""Nodes of the backward pass, and the gradients that a block leaves behind.

A node of a lazy graph serves every realization: it never lets go of what it kept, and outside of
blocks what it kept is computed, at the values of now.

Read next: ``values.py``.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from kilograd.autograd.driver import Node
from kilograd.autograd.function import FunctionNode
from kilograd.compile.graph import leaves
from kilograd.compile.lazy.arrays import LazyArray
from kilograd.compile.lazy.sizes import Dim
from kilograd.errors import GradError
from kilograd.tensor import Tensor, wrap


class BlockGrad:
    """What a block does with the ``.grad`` of one tensor."""

    def __init__(self, owner: Tensor, before: Any, adds: bool) -> None:
        lazy = type(owner.__dict__["array"]) is LazyArray
        self.owner: Any = weakref.ref(owner) if lazy else lambda: owner
        self.before = before
        self.adds = adds  # to what is there when the graph is realized; else it is replaced
        self.read_at: Any = None  # how many steps there were when it was read, and what it was
        self.used = False  # whether something was computed from it
        self.after: Any = None  # the Var of the gradient, or a tensor of outside


class LazyNode(Node):
    """A node of a lazy graph: what it kept is computed when a backward pass outside wants it."""

    __slots__ = ()
    recorder: Any
    written: bool  # whether something that it kept was written to before it became one
    computed: Any  # version counters of what it kept, inputs left out: those are refilled
    versions: int

    @staticmethod
    def of(node: Any, recorder: Any, since: float) -> None:
        """Make one of a node: when the block ends that began at ``since``, or when a pass begins."""
        counters = [c for c in node.cells if c is not None]
        node.written = node.order > since and sum(c[0] for c in counters) != node.seen
        node.computed = [
            c
            for c, x in zip(node.cells, node.kept, strict=False)
            if c is not None and type(x) is LazyArray and x.memory.origin is None
        ]
        node.versions = sum(c[0] for c in node.computed)
        node.recorder, node.__class__ = recorder, LazyNode

    def release(self) -> None:
        """The same node serves the next realization."""

    def _values(self) -> tuple[Any, ...]:
        if self.written or sum(c[0] for c in self.computed) != self.versions:
            return super()._values()  # raises
        if self.recorder.active:
            return self.kept or ()
        return self.recorder.kept_by(self)

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        shares = super().shares(g, create_graph)
        if self.recorder.active or create_graph:
            return shares
        kept = {id(a) for a in leaves(self._values())}  # belongs to the graph
        return [(e, s.copy() if id(s) in kept else s) for e, s in shares]


class LazyFunctionNode(FunctionNode):
    """The same for a custom function."""

    __slots__ = ()
    recorder: Any

    def release(self) -> None:
        """The same node serves the next realization."""

    def saved(self) -> tuple[Any, ...]:
        written = any(
            type(array) is LazyArray and array.memory.origin is None and cell[0] != version
            for array, _, cell, version, _ in filter(None, self.raw or ())
        )
        if self.recorder.active or written:
            return super().saved()  # raises if something was written to
        arrays = self.recorder.realized([item and item[0] for item in self.raw or ()])
        return tuple([None if a is None else wrap(a) for a in arrays])

    def shares(self, g: Any, create_graph: bool) -> list[tuple[Any, Any]]:
        if create_graph and not self.recorder.active:
            raise GradError(
                f"{self.name()}: second derivatives through a custom function of a lazy graph: ask for "
                "them inside of the block"
            )
        shares = super().shares(g, create_graph)
        return shares if self.recorder.active else [(e, np.asarray(s)) for e, s in shares]


def is_eager(kept: Any) -> bool:
    """Whether what a node kept is of an eager graph: arrays, and nothing that is lazy."""
    kinds = {type(x) for x in leaves(kept)}
    return np.ndarray in kinds and not kinds & {LazyArray, Dim}
