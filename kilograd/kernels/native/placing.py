"""Twins of the kernels that put an array, or parts of it, at other places of a new one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from kilograd.kernels import place
from kilograd.kernels.native.build import T, native, share
from kilograd.kernels.native.moves import MOVERS
from kilograd.kernels.native.plan import size, twin

Box = list[tuple[int, int]]  # where it begins and ends, axis by axis


def _basic(index: Any) -> bool:
    parts = index if type(index) is tuple else (index,)
    return all(p is None or p is Ellipsis or type(p) in (int, slice) for p in parts)


def _box(shape: tuple[int, ...], index: Any) -> Box | None:
    """The box that a basic index covers without gaps, if it does."""
    parts = [p for p in (index if type(index) is tuple else (index,)) if p is not None]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    box = []
    for n, p in zip(shape, parts, strict=True):
        if type(p) is int:
            box.append((p % n, p % n + 1))
            continue
        places = range(*p.indices(n))
        if len(places) > 1 and abs(places.step) != 1:
            return None
        box.append((min(places), max(places) + 1) if places else (0, 0))
    return box


def _fill_around(plan: Any, y: Any, box: Box, value: float) -> None:
    """Give every element outside of a box one value."""
    inside: tuple[slice, ...] = ()
    for n, (start, stop) in zip(y.shape, box, strict=True):
        for outside in (slice(0, start), slice(stop, n)):
            part = plan.view(y, (*inside, outside))
            if size(part.shape):
                plan.fill(part, value)
        inside = (*inside, slice(start, stop))


@twin(place.put_zeros)
def put_zeros(plan: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """The native form of ``place.put_zeros``."""
    if not _basic(index):
        return NotImplemented
    y = plan.empty(shape, g.dtype)
    box = _box(shape, index)
    _fill_around(plan, y, [(0, 0)] * len(shape) if box is None else box, 0)
    plan.copy(plan.view(y, index), g)
    return y


@twin(place.pad_constant)
def pad_constant(plan: Any, x: Any, pads: Any, value: float) -> Any:
    """The native form of ``place.pad_constant``."""
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
    if x.dtype.kind not in "fib" or any(n < 0 for n in shape):
        return NotImplemented
    y = plan.empty(shape, x.dtype)
    box, source = [], []
    for n, (a, b) in zip(x.shape, pads, strict=True):
        stop = max(a, 0) + n + min(a, 0) + min(b, 0)
        box.append((max(a, 0), max(stop, max(a, 0))))
        source.append(slice(max(-a, 0), n - max(-b, 0)))
    _fill_around(plan, y, box, value)
    plan.copy(plan.view(y, tuple(slice(*b) for b in box)), plan.view(x, tuple(source)))
    return y


@twin(np.roll)
def roll(plan: Any, x: Any, shift: Any, axis: Any = None) -> Any:
    """``np.roll`` along axes: every part is copied to its place."""
    shifts = shift if type(shift) is tuple else (shift,)
    axes = axis if type(axis) is tuple else (axis,)
    if len(shifts) != len(axes) or any(type(k) is not int for k in (*shifts, *axes)):
        return NotImplemented
    by: dict[int, int] = {}
    for k, a in zip(shifts, axes, strict=True):
        if not -x.ndim <= a < x.ndim:
            return NotImplemented
        by[a % x.ndim] = by.get(a % x.ndim, 0) + k
    y = plan.empty(x.shape, x.dtype)
    parts = []
    for d, n in enumerate(x.shape):
        k = by.get(d, 0) % n if n else 0
        whole = (slice(0, n - k), slice(k, n)), (slice(n - k, n), slice(0, k))
        parts.append(whole if k else whole[:1])
    for choice in itertools.product(*parts):
        source, to = (tuple(p[i] for p in choice) for i in (0, 1))
        plan.copy(plan.view(y, to), plan.view(x, source))
    return y


@native("T* x, T* y, i64 rows, i64 width, i64 height, i64 k, i64 upper")
def triangles(x, y, rows, width, height, k, upper, part, parts):
    """y = x below the k-th diagonal of every matrix (``upper``: above it, and on it), else 0."""
    start, stop = share(rows, part, parts)
    for row in range(start, stop):
        edge = min(max(row % height + k, 0), width)
        at, end = row * width, (row + 1) * width
        if upper:
            for j in range(at, at + edge):
                y[j] = T(0)
            for j in range(at + edge, end):
                y[j] = x[j]
        else:
            for j in range(at, at + edge):
                y[j] = x[j]
            for j in range(at + edge, end):
                y[j] = T(0)


def _triangle(plan: Any, x: Any, k: Any, upper: bool) -> Any:
    mover = MOVERS.get(x.dtype.itemsize)
    if mover is None or x.ndim < 2 or type(k) is not int or abs(k) >= 1 << 62:
        return NotImplemented
    y = plan.empty(tuple(x.shape), x.dtype)
    height, width = x.shape[-2:]
    rows = size(tuple(x.shape[:-1]))
    plan.call(
        triangles, plan.as_contiguous(x), y, rows, width, height, k + (not upper), int(upper),
        dtype=mover, work=rows * width,
    )  # fmt: skip
    return y


@twin(np.tril)
def tril(plan: Any, m: Any, k: Any = 0) -> Any:
    """``np.tril``."""
    return _triangle(plan, m, k, upper=False)


@twin(np.triu)
def triu(plan: Any, m: Any, k: Any = 0) -> Any:
    """``np.triu``."""
    return _triangle(plan, m, k, upper=True)
