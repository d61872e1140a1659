"""Where values lie: which value's memory a view looks at, from where, and how it walks.

Reshapes, transposes and slices compute nothing: they are another way to look at memory. A
:class:`Layout` says so for every value; results of real steps are contiguous.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from kilograd.compile.graph import Equation, Graph, Var, leaves
from kilograd.compile.scalar import F64

_VIEWS = {
    np.transpose, np.ndarray.transpose, np.reshape, np.ndarray.reshape, np.broadcast_to,
    np.swapaxes, np.ndarray.swapaxes, np.squeeze, np.ndarray.squeeze, np.expand_dims, np.moveaxis,
    operator.getitem, np.flip, np.ravel, np.ndarray.diagonal, np.diagonal,
}  # fmt: skip


class Layout(NamedTuple):
    """A way to look at the memory of ``root``: from ``offset`` bytes on, with ``strides`` in bytes."""

    root: Var
    offset: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: Any

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return contiguous(self.shape, self.strides, self.dtype.itemsize)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for k in self.shape:
            n *= k
        return n


def contiguous(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether strides are those of C order."""
    step = itemsize
    for n, s in zip(shape[::-1], strides[::-1], strict=True):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of an array in C order, in bytes."""
    strides = []
    step = itemsize
    for n in shape[::-1]:
        strides.append(step)
        step *= max(n, 1)
    return tuple(strides[::-1])


def fresh(v: Var) -> Layout:
    """The layout of a value with memory of its own."""
    dtype = F64 if v.number else v.dtype
    return Layout(v, 0, c_strides(v.shape, dtype.itemsize), v.shape, dtype)


def stand_in(layout: Layout) -> Any:
    """An array with this layout and no memory behind it: it may be looked at in other ways, not read."""
    base = np.zeros(1, layout.dtype)
    return np.lib.stride_tricks.as_strided(base, layout.shape, layout.strides)


def viewed(layout: Layout, fn: Any, args: Any, kwargs: Any) -> Layout | None:
    """The layout of ``fn(x, …)`` if it only looks at x's memory in another way."""
    x = stand_in(layout)
    start = x.__array_interface__["data"][0]
    if fn in (np.reshape, np.ndarray.reshape, np.ravel):
        shape = args[0] if fn is np.reshape else args
        if fn is np.ravel:
            shape = (-1,)
        if not layout.contiguous:
            try:
                y = np.reshape(x, shape, copy=False)
            except (ValueError, TypeError):
                return None
        else:
            y = np.reshape(x, shape)
    elif fn is operator.getitem:
        index = args[0] if type(args[0]) is tuple else args
        y = x[index if any(i is Ellipsis for i in index) else (*index, Ellipsis)]  # never a number
    else:
        y = fn(x, *args, **kwargs)
    if layout.size == 0:
        return Layout(layout.root, layout.offset, y.strides, y.shape, layout.dtype)
    if y.size and not np.may_share_memory(x, y):  # an op's own reshape of memory with gaps
        return None
    offset = y.__array_interface__["data"][0] - start
    return Layout(layout.root, layout.offset + offset, y.strides, y.shape, layout.dtype)


def is_basic_index(index: Any) -> bool:
    """Whether an index takes a view: integers, slices, None and Ellipsis only."""
    parts = index if type(index) is tuple else (index,)
    return all(
        type(p) is int or p is None or p is Ellipsis or type(p) is slice for p in parts
    ) and not any(isinstance(x, Var) for x in leaves(index))


def layouts_of(
    graph: Graph, strides: dict[Var, tuple[int, ...]]
) -> tuple[dict[Var, Layout], set[int]]:
    """The layout of every value, and which equations (ids) only give a view.

    ``strides``: those of the inputs and constants.
    """
    layouts: dict[Var, Layout] = {}
    views: set[int] = set()
    for v in (*graph.inputs, *graph.constants):
        known = strides.get(v)
        plain = fresh(v)
        layouts[v] = plain if known is None else plain._replace(strides=known)
    for eq in graph.equations:
        found = _view(eq, layouts)
        if found is not None:
            layouts[eq.outs[0]] = found
            views.add(id(eq))
        else:
            for v in eq.outs:
                layouts[v] = fresh(v)
    return layouts, views


def _view(eq: Equation, layouts: dict[Var, Layout]) -> Layout | None:
    if eq.fn not in _VIEWS or not eq.args or not isinstance(eq.args[0], Var) or eq.args[0].number:
        return None
    if any(isinstance(x, Var) for x in (*leaves(eq.args[1:]), *leaves(eq.kwargs))):
        return None
    if eq.fn is operator.getitem and not is_basic_index(eq.args[1]):
        return None
    return viewed(layouts[eq.args[0]], eq.fn, eq.args[1:], eq.kwargs)
