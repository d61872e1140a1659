"""Softmax, its logarithm, and their gradients, along any axis.

An array in C order is (n, rows, width) around the axis. With width 1 the axis lies in memory as rows;
else a thread takes columns, as many as fit the cache, and goes down them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels import activation
from kilograd.kernels.native.build import Kernel, T, exp, inline, log, native, share
from kilograd.kernels.native.plan import FLOATS, floats, size, twin

# The rows' maximum is found among integers (see `largest`): a kernel for each size of float.
Kernels = dict[np.dtype, Kernel]


def _with_bits(signature: str) -> Any:
    """Declare a kernel for both floats; ``B*`` is an array of integers as long as a float."""

    def declare(fn: Any) -> Kernels:
        return {
            dtype: native(signature.replace("B*", f"i{8 * dtype.itemsize}*"), sums=True)(fn)
            for dtype in FLOATS
        }

    return declare


@inline
def largest(bits, at, n, out, out_bits, to):
    """The maximum of n floats, given as integers; any number if one is nan. Uses out[to].

    Integers order positive floats as they are and negative ones backwards: the greatest float is the
    greatest integer, unless that is negative, when all are and it is the least integer. LLVM finds
    both in vectors, which it cannot do for floats on account of nan.
    """
    high = bits[at]
    low = bits[at]
    for i in range(at, at + n):
        high = max(high, bits[i])
        low = min(low, bits[i])
    out_bits[to] = high if high >= 0 else low
    return out[to]


@inline
def greater(a, b):
    """The greater of two numbers, nan if one is."""
    return b if (b > a) | (b != b) else a


# --- rows -----------------------------------------------------------------------------------------


@_with_bits("T* x, B* bits, T* y, B* y_bits, i64 n, i64 width")
def softmax_rows(x, bits, y, y_bits, n, width, part, parts):
    """exp(x - max) over its sum."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        top = largest(bits, at, width, y, y_bits, at)
        s = T(0)
        for j in range(at, at + width):
            e = exp(x[j] - top)
            y[j] = e
            s += e
        s = T(1) / s
        for j in range(at, at + width):
            y[j] *= s


@native("T* g, T* y, T* d, i64 n, i64 width", sums=True)
def softmax_gradient_rows(g, y, d, n, width, part, parts):
    """y (g - Σ g y)."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        s = T(0)
        for j in range(at, at + width):
            s += g[j] * y[j]
        for j in range(at, at + width):
            d[j] = (g[j] - s) * y[j]


@_with_bits("T* x, B* bits, T* y, B* y_bits, i64 n, i64 width")
def log_softmax_rows(x, bits, y, y_bits, n, width, part, parts):
    """x - max - log Σ exp(x - max)."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        top = largest(bits, at, width, y, y_bits, at)
        s = T(0)
        for j in range(at, at + width):
            d = x[j] - top
            y[j] = (
                d  # kept: LLVM would make the result x - (top + s), which loses s beside a large top
            )
            s += exp(d)
        s = log(s)
        for j in range(at, at + width):
            y[j] -= s


@native("T* g, T* y, T* d, i64 n, i64 width", sums=True)
def log_softmax_gradient_rows(g, y, d, n, width, part, parts):
    """g - exp(y) Σ g."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        s = T(0)
        for j in range(at, at + width):
            s += g[j]
        for j in range(at, at + width):
            d[j] = g[j] - exp(y[j]) * s


# --- columns --------------------------------------------------------------------------------------
# `at` runs over the results (n, width); `m` columns from there lie `base` into the array.


@native("T* x, T* y, T* tops, T* sums, i64 n, i64 rows, i64 width, i64 logarithm", sums=True)
def softmax_columns(x, y, tops, sums, n, rows, width, logarithm, part, parts):
    """The softmax, or its logarithm."""
    at, stop = share(n * width, part, parts)
    while at < stop:
        first = at % width
        m = min(stop - at, width - first, 512)
        base = at // width * rows * width + first
        for j in range(m):
            tops[at + j] = x[base + j]
            sums[at + j] = T(0)
        for p in range(base + width, base + rows * width, width):
            for j in range(m):
                tops[at + j] = greater(tops[at + j], x[p + j])
        if logarithm:
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    d = x[p + j] - tops[at + j]
                    y[p + j] = d
                    sums[at + j] += exp(d)
            for j in range(at, at + m):
                sums[j] = log(sums[j])
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    y[p + j] -= sums[at + j]
        else:
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    e = exp(x[p + j] - tops[at + j])
                    y[p + j] = e
                    sums[at + j] += e
            for j in range(at, at + m):
                sums[j] = T(1) / sums[j]
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    y[p + j] *= sums[at + j]
        at += m


@native("T* g, T* y, T* d, T* sums, i64 n, i64 rows, i64 width, i64 logarithm", sums=True)
def softmax_gradient_columns(g, y, d, sums, n, rows, width, logarithm, part, parts):
    """The gradient of the softmax, or of its logarithm."""
    at, stop = share(n * width, part, parts)
    while at < stop:
        first = at % width
        m = min(stop - at, width - first, 512)
        base = at // width * rows * width + first
        for j in range(at, at + m):
            sums[j] = T(0)
        if logarithm:
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    sums[at + j] += g[p + j]
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    d[p + j] = g[p + j] - exp(y[p + j]) * sums[at + j]
        else:
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    sums[at + j] += g[p + j] * y[p + j]
            for p in range(base, base + rows * width, width):
                for j in range(m):
                    d[p + j] = (g[p + j] - sums[at + j]) * y[p + j]
        at += m


# --- twins ----------------------------------------------------------------------------------------


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Sizes before, of, and after the axis."""
    axis %= len(shape)
    return size(shape[:axis]), shape[axis], size(shape[axis + 1 :])


def _served(axis: Any, *arrays: Any) -> bool:
    """Whether the arrays are floats of one shape, with elements, that have the axis."""
    shape = arrays[0].shape
    if not floats(*arrays) or any(a.shape != shape for a in arrays) or not size(shape):
        return False
    return isinstance(axis, int) and -len(shape) <= axis < len(shape)


def _forward(plan: Any, x: Any, axis: int, by_rows: Kernels, logarithm: int) -> Any:
    if not _served(axis, x):
        return NotImplemented
    x = plan.as_contiguous(x)
    dtype, work = x.dtype, size(x.shape) * 4
    n, rows, width = _around(x.shape, axis)
    y = plan.empty(x.shape, dtype)
    if width == 1:
        plan.call(by_rows[dtype], x, x, y, y, n, rows, dtype=dtype, work=work)
    else:
        tops, sums = plan.empty((n * width,), dtype), plan.empty((n * width,), dtype)
        more = (n, rows, width, logarithm)
        plan.call(softmax_columns, x, y, tops, sums, *more, dtype=dtype, work=work)
    return y


def _gradient(plan: Any, g: Any, y: Any, axis: int, by_rows: Kernel, logarithm: int) -> Any:
    if not _served(axis, g, y):
        return NotImplemented
    g, y = plan.as_contiguous(g), plan.as_contiguous(y)
    dtype, work = y.dtype, size(y.shape) * (4 if logarithm else 2)
    n, rows, width = _around(y.shape, axis)
    d = plan.empty(y.shape, dtype)
    if width == 1:
        plan.call(by_rows, g, y, d, n, rows, dtype=dtype, work=work)
    else:
        sums = plan.empty((n * width,), dtype)
        more = (n, rows, width, logarithm)
        plan.call(softmax_gradient_columns, g, y, d, sums, *more, dtype=dtype, work=work)
    return d


@twin(activation.softmax)
def softmax(plan: Any, x: Any, axis: int) -> Any:
    """Of floats along any axis."""
    return _forward(plan, x, axis, softmax_rows, 0)


@twin(activation.softmax_gradient)
def softmax_gradient(plan: Any, g: Any, y: Any, axis: int) -> Any:
    """y (g - Σ g y)."""
    return _gradient(plan, g, y, axis, softmax_gradient_rows, 0)


@twin(activation.log_softmax)
def log_softmax(plan: Any, x: Any, axis: int) -> Any:
    """Of floats along any axis."""
    return _forward(plan, x, axis, log_softmax_rows, 1)


@twin(activation.log_softmax_gradient)
def log_softmax_gradient(plan: Any, g: Any, y: Any, axis: int) -> Any:
    """g - exp(y) Σ g."""
    return _gradient(plan, g, y, axis, log_softmax_gradient_rows, 1)
