"""Reading and adding at indices: rows of a table, slices along an axis, single elements.

An array is seen as (outer, n, inner) with the indexed axis in the middle. An index out of bounds sets
the status. What may be written twice is never divided between threads: they have outer planes of
their own, or columns of their own.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from kilograd.kernels import place, scatter
from kilograd.kernels.native.build import T, inline, native, share
from kilograd.kernels.native.moves import MOVERS
from kilograd.kernels.native.plan import floats, twin

STRETCH = 512  # indices that are checked before they are used


@inline
def planes(outer, part, parts):
    """This thread's outer planes: its share, or all where there are fewer than threads."""
    start, stop = share(outer, part, parts)
    if outer < parts:
        start, stop = 0, outer
    return start, stop


@inline
def columns(outer, inner, part, parts):
    """This thread's columns: all, or its share where it has all planes."""
    start, stop = share(inner, part, parts)
    if outer >= parts:
        start, stop = 0, inner
    return start, stop


@inline
def place_of(index, n, lowest, status):
    """The place an index means, or -1 if it is out of bounds; ``lowest`` is 0 or -n."""
    if index < lowest or index >= n:
        status[0] = 1
        return -1
    return index + n if index < 0 else index


@native("T* x, i64* index, T* y, i64* status, i64 outer, i64 n, i64 inner, i64 count, i64 lowest")
def take_slices(x, index, y, status, outer, n, inner, count, lowest, part, parts):
    """y[o, k] = x[o, index[k]]."""
    start, stop = share(outer * count, part, parts)
    k = start % max(count, 1)
    plane = start // max(count, 1) * n * inner
    for i in range(start, stop):
        row = place_of(index[k], n, lowest, status)
        if row >= 0:
            at = plane + row * inner
            for j in range(inner):
                y[i * inner + j] = x[at + j]
        k += 1
        if k == count:
            k = 0
            plane += n * inner


@native(
    "T* v, i64* index, T* y, i64* status, i64 outer, i64 n, i64 inner, i64 count, i64 lowest,"
    "i64 skipped"
)
def add_slices(v, index, y, status, outer, n, inner, count, lowest, skipped, part, parts):
    """y[o, index[k]] += v[o, k], but for the row ``skipped``."""
    start, stop = planes(outer, part, parts)
    first, last = columns(outer, inner, part, parts)
    for o in range(start, stop):
        for k in range(count):
            row = place_of(index[k], n, lowest, status)
            if row >= 0 and row != skipped:
                at, to = (o * count + k) * inner, (o * n + row) * inner
                for j in range(first, last):
                    y[to + j] += v[at + j]


@inline
def checked(index, start, stop, n, lowest, status):
    """Whether a stretch of indices is within bounds; else the status is set."""
    outside = 0
    for i in range(start, stop):
        outside |= (index[i] < lowest) | (index[i] >= n)
    if outside:
        status[0] = 1
    return outside == 0


# Indices are checked by the stretch before they are used: then neither loop decides anything.


@native("T* x, i64* index, T* y, i64* status, i64 outer, i64 n, i64 inner, i64 count, i64 lowest")
def take_elements(x, index, y, status, outer, n, inner, count, lowest, part, parts):
    """y[o, k, j] = x[o, index[o, k, j], j]."""
    if inner == 1:
        start, stop = share(outer * count, part, parts)
        while start < stop:
            o = start // count
            end = min(start + STRETCH, stop, (o + 1) * count)
            if checked(index, start, end, n, lowest, status):
                for i in range(start, end):
                    row = index[i]
                    y[i] = x[o * n + (row + n if row < 0 else row)]
            start = end
        return
    start, stop = share(outer * count, part, parts)
    for i in range(start, stop):
        plane = i // count * n * inner
        for first in range(0, inner, STRETCH):
            some, at = min(STRETCH, inner - first), i * inner + first
            if checked(index, at, at + some, n, lowest, status):
                for j in range(some):
                    row = index[at + j]
                    y[at + j] = x[plane + (row + n if row < 0 else row) * inner + first + j]


@native(
    "T* x, i64 from_x, T* v, i64* index, T* y, i64* status, i64 outer, i64 n, i64 inner, i64 count,"
    "i64 lowest, i64 adds"
)
def put_elements(x, from_x, v, index, y, status, outer, n, inner, count, lowest, adds, part, parts):
    """y[o, index[o, k, j], j] = v[o, k, j], or += where ``adds``; y begins as x, or as zeros."""
    start, stop = planes(outer, part, parts)
    left, right = columns(outer, inner, part, parts)
    rows, width, end = (1, count, count * right) if inner == 1 else (count, inner, right)
    whole = right - left == inner  # of a plane, which is one stretch then
    stretches, length = (1, n * inner) if whole else (n, right - left)
    for o in range(start, stop):
        base = o * n * inner
        for r in range(stretches):
            to = base + r * inner + left
            if from_x:
                for j in range(to, to + length):
                    y[j] = x[j]
            else:
                for j in range(to, to + length):
                    y[j] = T(0)
        for k in range(rows):
            for first in range(left, end, STRETCH):
                at, some = (o * rows + k) * width + first, min(STRETCH, end - first)
                if not checked(index, at, at + some, n, lowest, status):
                    continue
                step = 1 if inner > 1 else 0
                to = base + first * step
                if adds:
                    for j in range(some):
                        row = index[at + j]
                        y[to + (row + n if row < 0 else row) * inner + j * step] += v[at + j]
                else:
                    for j in range(some):
                        row = index[at + j]
                        y[to + (row + n if row < 0 else row) * inner + j * step] = v[at + j]


@native("i64* classes, i64* y, i64* status, i64 n, i64 count")
def set_ones(classes, y, status, n, count, part, parts):
    """y[i, classes[i]] = 1, the other elements 0."""
    start, stop = share(n, part, parts)
    for i in range(start * count, stop * count):
        y[i] = 0
    for i in range(start, stop):
        at = place_of(classes[i], count, 0, status)
        if at >= 0:
            y[i * count + at] = 1


@native("i64* index, i64* status, i64 size, i64 n")
def find_outside(index, status, size, n, part, parts):
    """Set the status if an index is not in [0, n)."""
    start, stop = share(size, part, parts)
    outside = 0
    for i in range(start, stop):
        outside |= (index[i] < 0) | (index[i] >= n)
    if outside:
        status[0] = 1


# --- slices along an axis -------------------------------------------------------------------------


def take_slices_along(plan: Any, x: Any, index: Any, axis: int, wraps: bool = True) -> Any:
    """``x.take(index, axis)``, index of any shape."""
    if index.dtype != np.int64 or x.dtype.itemsize not in MOVERS or x.dtype.kind == "c":
        return NotImplemented
    if not x.ndim or not -x.ndim <= axis < x.ndim:
        return NotImplemented
    axis %= x.ndim
    n, before, after = x.shape[axis], tuple(x.shape[:axis]), tuple(x.shape[axis + 1 :])
    outer, inner = math.prod(before), math.prod(after)
    y = plan.empty((*before, *index.shape, *after), x.dtype)
    plan.call(
        take_slices, plan.as_contiguous(x), plan.as_contiguous(index), y, plan.status(), outer, n,
        inner, index.size, -n if wraps else 0, dtype=MOVERS[x.dtype.itemsize], work=y.size,
    )  # fmt: skip
    return y


def add_slices_along(
    plan: Any, shape: Any, index: Any, values: Any, axis: int, skipped: int = -1
) -> Any:
    """Zeros of a shape with slices of ``values`` added where ``index`` (any shape) says."""
    shape = tuple(shape)
    if index.dtype != np.int64 or not floats(values) or not -len(shape) <= axis < len(shape):
        return NotImplemented
    axis %= len(shape)
    before, n, after = shape[:axis], shape[axis], shape[axis + 1 :]
    if tuple(values.shape) != (*before, *index.shape, *after):
        return NotImplemented
    y = plan.zeros(shape, values.dtype)
    plan.call(
        add_slices, plan.as_contiguous(values), plan.as_contiguous(index), y, plan.status(),
        math.prod(before), n, math.prod(after), index.size, -n, skipped, dtype=values.dtype,
        work=2 * values.size,
    )  # fmt: skip
    return y


def take_rows(plan: Any, x: Any, index: Any) -> Any:
    """``x[index]``, index an array of integers, negative ones from the end."""
    return take_slices_along(plan, x, index, 0)


def put_rows_add(plan: Any, shape: Any, index: Any, values: Any) -> Any:
    """Zeros of a shape with ``values`` added at ``[index]``."""
    return add_slices_along(plan, shape, index, values, 0)


@twin(np.take, np.ndarray.take)
def take(
    plan: Any, x: Any, index: Any, axis: Any = None, out: Any = None, mode: str = "raise"
) -> Any:
    """``np.take``."""
    if type(axis) is not int or out is not None or mode != "raise" or not hasattr(index, "dtype"):
        return NotImplemented
    return take_slices_along(plan, x, index, axis)


def _array_and_axis(index: Any, ndim: int) -> tuple[Any, int] | None:
    """The one integer array of an index that else takes all, and its axis."""
    parts = index if type(index) is tuple else (index,)
    if parts and parts[-1] is Ellipsis:
        parts = parts[:-1]
    if parts and parts[0] is Ellipsis:  # the axes are counted from the end
        parts = (slice(None),) * (ndim - len(parts) + 1) + parts[1:]
    found = [i for i, p in enumerate(parts) if hasattr(p, "dtype") and hasattr(p, "shape")]
    if len(found) != 1 or len(parts) > ndim:
        return None
    (axis,) = found
    others = parts[:axis] + parts[axis + 1 :]
    if any(type(p) is not slice or p != slice(None) for p in others):
        return None
    return parts[axis], axis


@twin(operator.getitem)
def getitem(plan: Any, x: Any, index: Any) -> Any:
    """``x[index]`` where the index is one array of integers, with whole axes before and after."""
    found = _array_and_axis(index, x.ndim)
    return NotImplemented if found is None else take_slices_along(plan, x, *found)


@twin(scatter.index_put_add)
def index_put_add(plan: Any, shape: Any, index: Any, values: Any) -> Any:
    """``kernels.scatter.index_put_add`` for the indices that ``getitem`` serves."""
    found = _array_and_axis(index, len(shape))
    if found is None:
        return NotImplemented
    return add_slices_along(plan, shape, found[0], values, found[1])


@twin(scatter.index_add)
def index_add(plan: Any, shape: Any, index: Any, values: Any, axis: int = 0) -> Any:
    """``kernels.scatter.index_add``."""
    return add_slices_along(plan, shape, index, values, axis)


@twin(place.embedding)
def embedding(plan: Any, w: Any, indices: Any) -> Any:
    """``kernels.place.embedding``."""
    return take_slices_along(plan, w, indices, 0, wraps=False)


@twin(scatter.embedding_grad)
def embedding_grad(plan: Any, g: Any, indices: Any, V: int, padding_idx: Any = None) -> Any:
    """``kernels.scatter.embedding_grad``."""
    skipped = -1 if padding_idx is None else padding_idx % V
    return add_slices_along(plan, (V, g.shape[-1]), indices, g, 0, skipped)


# --- elements along an axis -----------------------------------------------------------------------


def _elements(shape: Any, index: Any, axis: int) -> tuple[int, int, int, int] | None:
    """(outer, n, inner, count) if index has the other axes of shape as they are."""
    shape = tuple(shape)
    if index.dtype != np.int64 or index.ndim != len(shape) or not shape:
        return None
    axis %= len(shape)
    before, n, after = shape[:axis], shape[axis], shape[axis + 1 :]
    count = index.shape[axis]
    if tuple(index.shape) != (*before, count, *after):
        return None
    return math.prod(before), n, math.prod(after), count


@twin(place.gather)
def gather(plan: Any, x: Any, index: Any, axis: int, refused: Any = None) -> Any:
    """``kernels.place.gather``, index as large as x along the other axes."""
    seen = _elements(x.shape, index, axis)
    if seen is None or x.dtype.itemsize not in MOVERS or x.dtype.kind == "c":
        return NotImplemented
    y = plan.empty(tuple(index.shape), x.dtype)
    plan.call(
        take_elements, plan.as_contiguous(x), plan.as_contiguous(index), y, plan.status(), *seen,
        -seen[1] if refused is None else 0, dtype=MOVERS[x.dtype.itemsize], work=2 * y.size,
    )  # fmt: skip
    return y


def put_elements_along(
    plan: Any, x: Any, v: Any, index: Any, shape: Any, axis: int, adds: bool, lowest: Any
) -> Any:
    """x, or zeros of a shape, with ``v`` written or added at places along an axis."""
    seen = _elements(shape, index, axis)
    if seen is None or not floats(x, v) or tuple(v.shape) != tuple(index.shape):
        return NotImplemented
    y = plan.empty(tuple(shape), v.dtype)
    plan.call(
        put_elements, None if x is None else plan.as_contiguous(x), int(x is not None),
        plan.as_contiguous(v), plan.as_contiguous(index), y, plan.status(), *seen,
        -seen[1] if lowest is None else lowest, adds, dtype=v.dtype, work=y.size + 2 * v.size,
    )  # fmt: skip
    return y


@twin(place.scatter_zeros)
def scatter_zeros(plan: Any, v: Any, index: Any, shape: Any, axis: int) -> Any:
    """``kernels.place.scatter_zeros``."""
    return put_elements_along(plan, None, v, index, shape, axis, False, None)


@twin(scatter.scatter_add)
def scatter_add(
    plan: Any, shape: Any, axis: int, index: Any, src: Any, x: Any = None, refused: Any = None
) -> Any:
    """``kernels.scatter.scatter_add``."""
    return put_elements_along(plan, x, src, index, shape, axis, True, 0)


# --- classes --------------------------------------------------------------------------------------


@twin(place.one_hot)
def one_hot(plan: Any, classes: Any, count: int) -> Any:
    """``kernels.place.one_hot``."""
    if classes.dtype != np.int64:
        return NotImplemented
    y = plan.empty((*classes.shape, count), np.dtype(np.int64))
    plan.call(
        set_ones, plan.as_contiguous(classes), y, plan.status(), classes.size, count,
        dtype=np.dtype(np.float64), work=y.size,
    )  # fmt: skip
    return y


@twin(place.in_range)
def in_range(plan: Any, index: Any, n: int, message: str, wrong: type[Exception]) -> Any:
    """``kernels.place.in_range``: NumPy raises the error."""
    if index.dtype != np.int64:
        return NotImplemented
    plan.call(
        find_outside, plan.as_contiguous(index), plan.status(), index.size, n,
        dtype=np.dtype(np.float64), work=index.size,
    )  # fmt: skip
    return None
