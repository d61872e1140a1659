"""Scans along an axis, and the places of the largest elements.

An array in C order is (n, rows, width) around the axis. With width 1 the axis lies in memory as rows; else
a thread takes columns, as many as fit the cache, and goes down them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels import order
from kilograd.kernels.native.build import T, inline, native, share
from kilograd.kernels.native.plan import floats, size, twin
from kilograd.kernels.native.reductions import extreme_kernels, max_over, min_over

MOST = 32  # elements of which the places are found by insertion

# --- scans ----------------------------------------------------------------------------------------


@native("T* x, T* y, i64 n, i64 width, i64 step, i64 multiplies")
def scan_rows(x, y, n, width, step, multiplies, part, parts):
    """Sums or products up to each element of a row; from its end with step -1.

    Each waits for the one before, so that four rows take no longer than one.
    """
    start, stop = share(n, part, parts)
    first = 0 if step > 0 else width - 1
    i = start
    while i < stop:
        a = i * width + first
        together = i + 4 <= stop
        b, c, d = a + width, a + 2 * width, a + 3 * width
        if multiplies:
            p, q, r, s = T(1), T(1), T(1), T(1)
            if together:
                for j in range(0, width * step, step):
                    p *= x[a + j]
                    q *= x[b + j]
                    r *= x[c + j]
                    s *= x[d + j]
                    y[a + j] = p
                    y[b + j] = q
                    y[c + j] = r
                    y[d + j] = s
            else:
                for j in range(0, width * step, step):
                    p *= x[a + j]
                    y[a + j] = p
        else:
            p, q, r, s = T(0), T(0), T(0), T(0)
            if together:
                for j in range(0, width * step, step):
                    p += x[a + j]
                    q += x[b + j]
                    r += x[c + j]
                    s += x[d + j]
                    y[a + j] = p
                    y[b + j] = q
                    y[c + j] = r
                    y[d + j] = s
            else:
                for j in range(0, width * step, step):
                    p += x[a + j]
                    y[a + j] = p
        i += 4 if together else 1


@native("T* x, T* y, i64 n, i64 rows, i64 width, i64 step, i64 multiplies")
def scan_columns(x, y, n, rows, width, step, multiplies, part, parts):
    """The same down the columns of every plane."""
    at, stop = share(n * width, part, parts)
    while at < stop:
        column = at % width
        m = min(stop - at, width - column, 1024)
        first = at // width * rows * width + column + (0 if step > 0 else (rows - 1) * width)
        for j in range(first, first + m):
            y[j] = x[j]
        for r in range(1, rows):
            to = first + r * step * width
            before = to - step * width
            if multiplies:
                for j in range(m):
                    y[to + j] = y[before + j] * x[to + j]
            else:
                for j in range(m):
                    y[to + j] = y[before + j] + x[to + j]
        at += m


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """(n, rows, width) around an axis."""
    return size(shape[:axis]), shape[axis], size(shape[axis + 1 :])


def _scan(plan: Any, x: Any, axis: Any, reverse: bool, multiplies: bool) -> Any:
    shape = tuple(x.shape)
    if not floats(x) or type(axis) is not int or not -len(shape) <= axis < len(shape):
        return NotImplemented
    n, rows, width = _around(shape, axis % len(shape))
    y = plan.empty(shape, x.dtype)
    if size(shape):
        kernel, sizes = (scan_rows, (n, rows)) if width == 1 else (scan_columns, (n, rows, width))
        plan.call(
            kernel, plan.as_contiguous(x), y, *sizes, -1 if reverse else 1, int(multiplies),
            dtype=x.dtype, work=2 * size(shape),
        )  # fmt: skip
    return y


@twin(order.cumsum)
def cumsum(plan: Any, x: Any, axis: Any, reverse: bool = False) -> Any:
    """The native form of ``order.cumsum``."""
    return _scan(plan, x, axis, reverse, False)


@twin(order.cumprod)
def cumprod(plan: Any, x: Any, axis: Any, reverse: bool = False) -> Any:
    """The native form of ``order.cumprod``."""
    return _scan(plan, x, axis, reverse, True)


# --- the places of extremes -----------------------------------------------------------------------


def _first_in_rows(x, bits, v, v_bits, y, n, width, sign, part, parts):
    """y[i]: the first place of the extreme of row i (a nan, if there is one), whose value is v[i].

    How the extreme is found among integers is said in ``reductions._extreme_rows``.
    """
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        at = i * width
        high = bits[at]
        low = bits[at]
        nan = False
        for j in range(at, at + width):
            high = max(high, bits[j])
            low = min(low, bits[j])
            nan |= x[j] != x[j]
        v_bits[i] = high
        if v[i] * sign < T(0):
            v_bits[i] = low
        value = T(np.nan) if nan else v[i]
        for j in range(0, width, 64):  # stretches are looked through in vectors
            end = min(j + 64, width)
            hit = False
            for k in range(at + j, at + end):
                hit |= (x[k] == value) | (x[k] != x[k])
            if hit:
                while x[at + j] == x[at + j] and x[at + j] != value:
                    j += 1
                y[i] = j
                break


_FIRST_IN_ROWS = extreme_kernels(
    _first_in_rows, "T* x, B* bits, T* v, B* v_bits, i64* y, i64 n, i64 width, T sign"
)


@native("T* x, T* v, T* place, i64* y, i64 n, i64 rows, i64 width")
def first_in_columns(x, v, place, y, n, rows, width, part, parts):
    """y[i]: the first place in column i that holds v[i] (nan: any nan).

    Places are floats until they are known: numbers of one size are chosen from in vectors.
    """
    at, stop = share(n * width, part, parts)
    while at < stop:
        column = at % width
        m = min(stop - at, width - column, 1024)
        base = at // width * rows * width + column
        for r in range(rows - 1, -1, -1):
            p, here = base + r * width, T(r)
            for j in range(m):
                one, before = x[p + j], place[at + j]
                met = (one == v[at + j]) | (one != one)  # with a nan, nan is the extreme
                place[at + j] = here if met else before
        for j in range(at, at + m):
            y[j] = np.int64(place[j])
        at += m


def _first(plan: Any, sign: int, x: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    """Where the maximum (sign 1) or minimum (-1) is met first along an axis."""
    shape = tuple(x.shape)
    if not floats(x) or type(axis) is not int or out is not None or not size(shape):
        return NotImplemented
    if not -len(shape) <= axis < len(shape) or type(keepdims) is not bool:
        return NotImplemented
    axis %= len(shape)
    n, rows, width = _around(shape, axis)
    if rows > 1 << 24:  # more than a float32 counts
        return NotImplemented
    x = plan.as_contiguous(x)
    y = plan.empty((*shape[:axis], *(1,) * keepdims, *shape[axis + 1 :]), np.dtype(np.int64))
    if width == 1:
        kernel, v = _FIRST_IN_ROWS[sign][x.dtype], plan.empty((n,), x.dtype)
        more = (x, x, v, v, y, n, rows, float(sign))
        plan.call(kernel, *more, dtype=x.dtype, work=2 * size(shape))
        return y
    v, place = (max_over if sign > 0 else min_over)(plan, x, (axis,)), plan.empty(y.shape, x.dtype)
    plan.call(first_in_columns, x, v, place, y, n, rows, width, dtype=x.dtype, work=size(shape))
    return y


@twin(np.ndarray.argmax, np.argmax)
def argmax(plan: Any, x: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """``argmax`` along one axis: the first place, of a nan if there is one."""
    return _first(plan, 1, x, axis, out, keepdims)


@twin(np.ndarray.argmin, np.argmin)
def argmin(plan: Any, x: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """``argmin`` along one axis: the first place, of a nan if there is one."""
    return _first(plan, -1, x, axis, out, keepdims)


# --- the k largest --------------------------------------------------------------------------------


@inline
def precedes(a, b, sign):
    """Whether a comes before b: the larger with sign 1 (nan is the largest), the smaller with -1."""
    if sign > T(0):
        return (a > b) | ((a != a) & (b == b))
    return (a < b) | ((b != b) & (a == a))


@native("T* x, T* v, i64* y, i64 n, i64 width, i64 k, T sign")
def top_of_rows(x, v, y, n, width, k, sign, part, parts):
    """y (n, k): the places of the k first elements of each row, in order; v is their values.

    They are inserted one by one. Stretches in which none can be among them are told in vectors.
    """
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        at, to, found = i * width, i * k, 0
        for j in range(0, width, 16):
            end = min(j + 16, width)
            if found == k and end == j + 16:
                last = v[to + k - 1]
                hit, limit = last != last, last * sign
                for q in range(16):
                    one = x[at + j + q]
                    hit |= (one * sign > limit) | (one != one)
                if not hit:
                    continue
            for q in range(j, end):
                one = x[at + q]
                if found < k:
                    found += 1
                elif not precedes(one, v[to + k - 1], sign):
                    continue
                p = found - 1
                while p > 0 and precedes(one, v[to + p - 1], sign):
                    v[to + p] = v[to + p - 1]
                    y[to + p] = y[to + p - 1]
                    p -= 1
                v[to + p] = one
                y[to + p] = q


@twin(order.arg_topk)
def arg_topk(plan: Any, x: Any, k: int, axis: int, largest: bool) -> Any:
    """The native form of ``order.arg_topk`` for a few of the last axis."""
    shape = tuple(x.shape)
    if not floats(x) or axis % len(shape) != len(shape) - 1 or not 0 < k <= MOST:
        return NotImplemented
    left = (*shape[:-1], k)
    v, y = plan.empty(left, x.dtype), plan.empty(left, np.dtype(np.int64))
    plan.call(
        top_of_rows, plan.as_contiguous(x), v, y, size(shape[:-1]), shape[-1], k,
        1.0 if largest else -1.0, dtype=x.dtype, work=2 * size(shape),
    )  # fmt: skip
    return y
