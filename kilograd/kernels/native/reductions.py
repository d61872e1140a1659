"""Sums, means, products, maxima and minima over any axes of an array in C order.

Axes of an array in C order that are reduced together, or kept together, are one axis. What is left
alternates, and two kernels do it: one for *rows*, where the last axis is reduced, one for *columns*,
where it is kept. A case that needs both runs one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.native.build import Kernel, T, f64, inline, native, share
from kilograd.kernels.native.plan import FLOATS, size

SHORT = 16  # rows shorter than this are better taken as columns, where there are several planes
FEW = 8  # rows that need no sum in float64
PIECE = 8192  # elements of a long row that one thread sums


@inline
def total(x, at, n):
    """Σ of n elements, in blocks, so that the error does not grow with n."""
    s = f64(0)
    for i in range(at, at + n, 256):
        part = T(0)
        for j in range(i, min(i + 256, at + n)):
            part += x[j]
        s += f64(part)
    return s


@native("T* x, T* y, i64 planes, i64 n, i64 width, i64 size, f64 count", sums=True)
def sum_rows(x, y, planes, n, width, size, count, part, parts):
    """x (planes, n, width) -> y (n,), divided by ``count``; x ends after ``size`` elements."""
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        s = f64(0)
        for p in range(planes):
            at = (p * n + i) * width
            s += total(x, at, min(width, size - at))
        y[i] = T(s / count)


@native("T* x, T* y, f64* acc, i64 n, i64 rows, i64 width, f64 count", sums=True)
def sum_columns(x, y, acc, n, rows, width, count, part, parts):
    """x (n, rows, width) -> y (n, width), divided by ``count``.

    Sums of eight rows are added up in float64 (``acc``, of y's size), for columns that fit the
    first-level cache; a few rows are added up where the result goes.
    """
    at, stop = share(n * width, part, parts)
    while at < stop:
        first = at % width
        m = min(stop - at, width - first, 1024)
        base = at // width * rows * width + first
        if rows <= FEW:
            for j in range(m):
                y[at + j] = x[base + j]
            for r in range(1, rows):
                p = base + r * width
                for j in range(m):
                    y[at + j] += x[p + j]
            if count != f64(1):
                for j in range(at, at + m):
                    y[j] = T(f64(y[j]) / count)
            at += m
            continue
        for j in range(m):
            acc[at + j] = f64(0)
        for r in range(0, rows - 7, 8):
            p = base + r * width
            for j in range(p, p + m):
                a = (x[j] + x[j + width]) + (x[j + 2 * width] + x[j + 3 * width])
                b = (x[j + 4 * width] + x[j + 5 * width]) + (x[j + 6 * width] + x[j + 7 * width])
                acc[at + j - p] += f64(a + b)
        for r in range(rows - rows % 8, rows):
            p = base + r * width
            for j in range(m):
                acc[at + j] += f64(x[p + j])
        for j in range(at, at + m):
            y[j] = T(acc[j] / count)
        at += m


@native("T* x, T* y, i64 planes, i64 n, i64 width, i64 size", sums=True)
def product_rows(x, y, planes, n, width, size, part, parts):
    """x (planes, n, width) -> y (n,); x ends after ``size`` elements."""
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        product = T(1)
        for p in range(planes):
            at = (p * n + i) * width
            for j in range(at, min(at + width, size)):
                product *= x[j]
        y[i] = product


@native("T* x, T* y, i64 n, i64 rows, i64 width")
def product_columns(x, y, n, rows, width, part, parts):
    """x (n, rows, width) -> y (n, width)."""
    at, stop = share(n * width, part, parts)
    while at < stop:
        first = at % width
        m = min(stop - at, width - first, 2048)
        base = at // width * rows * width + first
        for j in range(m):
            y[at + j] = x[base + j]
        for r in range(1, rows):
            p = base + r * width
            for j in range(m):
                y[at + j] *= x[p + j]
        at += m


def _extreme_rows(x, bits, y, y_bits, planes, n, width, size, sign, part, parts):
    """x (planes, n, width) -> y (n,): the maximum (sign 1) or minimum (-1); nan if there is one.

    ``bits`` is x seen as integers, whose extremes are found in vectors. Signed integers order
    positive floats as they are and negative ones backwards: the greatest float is the greatest
    integer, unless that is negative, when all are and it is the least integer. Unsigned integers
    give the minimum likewise.
    """
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        high = bits[i * width]
        low = bits[i * width]
        bad = False
        for p in range(planes):
            at = (p * n + i) * width
            for j in range(at, min(at + width, size)):
                high = max(high, bits[j])
                low = min(low, bits[j])
                bad |= x[j] != x[j]
        y_bits[i] = high
        if y[i] * sign < T(0):
            y_bits[i] = low
        if bad:
            y[i] = T(np.nan)


def extreme_kernels(fn: Any, signature: str) -> dict[int, dict[np.dtype, Kernel]]:
    """For maxima (1) and minima (-1) a kernel for each float, with ``B*`` for arrays seen as integers."""
    found: dict[int, dict[np.dtype, Kernel]] = {}
    for sign, name, kind in ((1, "max", "i"), (-1, "min", "u")):
        found[sign] = {
            t: native(signature.replace("B*", f"{kind}{8 * t.itemsize}*"))(fn) for t in FLOATS
        }
        for made in found[sign].values():
            made.name = (
                name + fn.__name__
            )  # signed and unsigned code must not be taken for each other
    return found


_EXTREME_ROWS = extreme_kernels(
    _extreme_rows, "T* x, B* bits, T* y, B* y_bits, i64 planes, i64 n, i64 width, i64 size, T sign"
)


@inline
def greater(a, b):
    """The greater of two numbers, nan if one is."""
    return b if (b > a) | (b != b) else a


@native("T* x, T* y, i64 n, i64 rows, i64 width, T sign")
def extreme_columns(x, y, n, rows, width, sign, part, parts):
    """x (n, rows, width) -> y (n, width): the maximum (sign 1) or minimum (sign -1)."""
    at, stop = share(n * width, part, parts)
    while at < stop:
        first = at % width
        m = min(stop - at, width - first, 2048)
        base = at // width * rows * width + first
        for j in range(m):
            y[at + j] = x[base + j] * sign
        for r in range(1, rows):
            p = base + r * width
            for j in range(m):
                y[at + j] = greater(y[at + j], x[p + j] * sign)
        for j in range(at, at + m):
            y[j] *= sign
        at += m


@native("f64* parts_of, T* y, i64 slots, f64 divisor")
def add_totals(parts_of, y, slots, divisor):
    """What the threads have summed up, added: one number a thread, eight places apart."""
    s = f64(0)
    for k in range(slots):
        s += parts_of[8 * k]
    y[0] = T(s / divisor)


@native("T* parts_of, T* y, i64 slots, i64 n, f64 divisor")
def add_columns(parts_of, y, slots, n, divisor, part, parts):
    """The same for n sums a thread."""
    lo, hi = share(n, part, parts)
    scale = T(f64(1) / divisor)
    for j in range(lo, hi):
        s = parts_of[j]
        for k in range(1, slots):
            s += parts_of[k * n + j]
        y[j] = s * scale


# --- plans ----------------------------------------------------------------------------------------


class _Sum:
    """The kernels for a sum; the first of several steps divides by ``count``."""

    def __init__(self, plan: Any, count: int) -> None:
        self.plan = plan
        self.count = float(count)

    def _divisor(self) -> float:
        count, self.count = self.count, 1.0
        return count

    def rows(self, x: Any, planes: int, n: int, width: int, end: int) -> Any:
        """Of x (planes, n, width), which ends after ``end`` elements, -> (n,)."""
        y = self.plan.empty((n,), x.dtype)
        more = (planes, n, width, end, self._divisor())
        self.plan.call(sum_rows, x, y, *more, dtype=x.dtype, work=end)
        return y

    def columns(self, x: Any, n: int, rows: int, width: int) -> Any:
        """Of x (n, rows, width) -> (n * width,)."""
        y = self.plan.empty((n * width,), x.dtype)
        acc = self.plan.empty((n * width,), np.float64)
        more = (n, rows, width, self._divisor())
        self.plan.call(sum_columns, x, y, acc, *more, dtype=x.dtype, work=n * rows * width)
        return y


class _Product:
    """The kernels for a product."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan

    def rows(self, x: Any, planes: int, n: int, width: int, end: int) -> Any:
        y = self.plan.empty((n,), x.dtype)
        self.plan.call(product_rows, x, y, planes, n, width, end, dtype=x.dtype, work=end)
        return y

    def columns(self, x: Any, n: int, rows: int, width: int) -> Any:
        y = self.plan.empty((n * width,), x.dtype)
        work = n * rows * width
        self.plan.call(product_columns, x, y, n, rows, width, dtype=x.dtype, work=work)
        return y


class _Extreme:
    """The kernels for a maximum (sign 1) or a minimum (sign -1)."""

    def __init__(self, plan: Any, sign: int) -> None:
        self.plan = plan
        self.sign = sign

    def rows(self, x: Any, planes: int, n: int, width: int, end: int) -> Any:
        y = self.plan.empty((n,), x.dtype)
        kernel = _EXTREME_ROWS[self.sign][x.dtype]
        more = (planes, n, width, end, float(self.sign))
        self.plan.call(kernel, x, x, y, y, *more, dtype=x.dtype, work=end)
        return y

    def columns(self, x: Any, n: int, rows: int, width: int) -> Any:
        y = self.plan.empty((n * width,), x.dtype)
        more = (n, rows, width, float(self.sign))
        self.plan.call(extreme_columns, x, y, *more, dtype=x.dtype, work=n * rows * width)
        return y


def _joined(axes: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """(size, whether reduced) of axes, neighbours of one kind made one.

    >>> _joined([(2, True), (3, False), (1, True), (4, False), (5, True)])
    [(2, True), (12, False), (5, True)]
    """
    made: list[tuple[int, bool]] = []
    for n, reduced in axes:
        if n == 1:
            continue
        if made and made[-1][1] == reduced:
            n *= made.pop()[0]
        made.append((n, reduced))
    return made


def _reduce(x: Any, axis: tuple[int, ...], by: _Sum | _Product | _Extreme) -> Any:
    """x without the axes, reduced step by step."""
    shape = x.shape
    if x.dtype not in FLOATS or not size(shape):
        return NotImplemented
    reduced = {a % len(shape) for a in axis}
    left = tuple(n for i, n in enumerate(shape) if i not in reduced)
    axes = _joined([(n, i in reduced) for i, n in enumerate(shape)])
    x = by.plan.as_contiguous(x)
    if not any(
        r for _, r in axes
    ):  # of axes of size 1, or of none: a copy, for x may be written to
        axes = [(1, True), (size(shape), False)]
    while any(r for _, r in axes):
        sizes = [n for n, _ in axes]
        if not axes[-1][1]:  # ..., R, B
            x = by.columns(x, size(tuple(sizes[:-2])), sizes[-2], sizes[-1])
            axes[-2:] = axes[-1:]
        elif len(axes) == 3 and sizes[2] < SHORT:  # R, A, short
            x = by.columns(x, 1, sizes[0], sizes[1] * sizes[2])
            axes = axes[1:]
        elif len(axes) == 3:  # R, A, R
            x = by.rows(x, sizes[0], sizes[1], sizes[2], size(tuple(sizes)))
            axes = axes[1:2]
        elif len(axes) == 1 and sizes[0] > 2 * PIECE:  # all: pieces, which threads can share
            x = by.rows(x, 1, -(-sizes[0] // PIECE), PIECE, sizes[0])
            axes = [(x.shape[0], True)]
        else:  # ..., R
            x = by.rows(x, 1, size(tuple(sizes[:-1])), sizes[-1], size(tuple(sizes)))
            axes = axes[:-1]
        axes = _joined(axes)
    return by.plan.reshape(x, left)


def sum_over(plan: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Σ over axes (they are dropped)."""
    return _reduce(x, axis, _Sum(plan, 1))


def mean_over(plan: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """The mean over axes."""
    return _reduce(x, axis, _Sum(plan, size(tuple(x.shape[a] for a in axis))))


def product_over(plan: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """The product over axes."""
    return _reduce(x, axis, _Product(plan))


def max_over(plan: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """The maximum over axes; nan where there is one."""
    return _reduce(x, axis, _Extreme(plan, 1))


def min_over(plan: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """The minimum over axes; nan where there is one."""
    return _reduce(x, axis, _Extreme(plan, -1))
