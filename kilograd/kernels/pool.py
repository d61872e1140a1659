"""Pooling: a maximum is a gather whose indices are the answer, an average is a linear map.

Both are separable. The maximum over a window is the maximum of the maxima of its rows, the sum the sum of
the rows' sums, so a kernel of k x k costs 2k passes over ever smaller arrays instead of k*k. While a
maximum is found, where it was found travels with it as its distance from the window's corner.

Adaptive pooling is the same with windows of unequal length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel
from kilograd.kernels.separable import Taps, apply
from kilograd.kernels.threads import sliced
from kilograd.kernels.window import Ints, pad

PANEL = 1 << 17  # elements worked on at a time, so that passes after the first find them in cache


def pool_sizes(
    size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Ints:
    """Output size; with ceil_mode a last window may hang over, if it starts before the right padding.

    >>> pool_sizes((6,), (3,), (2,), (0,), (1,), False), pool_sizes((6,), (3,), (2,), (0,), (1,), True)
    ((2,), (3,))
    """
    sizes = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        out = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        sizes.append(out)
    return tuple(sizes)


def _padding(
    size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> tuple[tuple[int, int], ...]:
    """What goes before and after so that every window is whole."""
    return tuple(
        (p, max(0, (o - 1) * s + (k - 1) * d + 1 - n - p))
        for n, o, k, s, p, d in zip(size, out, kernel, stride, padding, dilation, strict=True)
    )


def _slide(
    x: np.ndarray, axis: int, k: int, out: int, stride: int, dilation: int = 1
) -> np.ndarray:
    """View of x: element k of each of the `out` windows along an axis."""
    first = k * dilation
    return x[(slice(None),) * axis + (slice(first, first + (out - 1) * stride + 1, stride),)]


def _lowest(dtype: np.dtype) -> float:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


@kernel
def max_pool_forward(
    x: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """x (N, C, *spatial) -> (y, indices), both (N, C, *out); indices int64, flat over spatial.

    The first of equal maxima is chosen; a NaN is larger than everything and the last NaN is chosen.

    >>> max_pool_forward(np.array([[[1.0, 3, 2, 5, 4]]]), (2,), (2,), (0,), (1,))
    (array([[[3., 5.]]]), array([[[1, 3]]]))
    """
    N, C, *rest = x.shape
    size = tuple(rest)
    out = pool_sizes(size, kernel, stride, padding, dilation, ceil_mode)
    y = np.empty((N * C, *out), x.dtype)
    indices = np.empty((N * C, *out), np.int64)
    if y.size == 0:
        return y.reshape(N, C, *out), indices.reshape(N, C, *out)
    border = _padding(size, out, kernel, stride, padding, dilation)
    planes = x.reshape(N * C, 1, *size)
    steps = [math.prod(size[i + 1 :]) for i in range(len(size))]
    reach = zip(kernel, dilation, padding, steps, strict=True)
    farthest = sum(((k - 1) * d + p + d) * t for k, d, p, t in reach)
    compact = np.int16 if farthest < 1 << 15 else np.int32 if farthest < 1 << 31 else np.int64
    corner = np.zeros((), np.int64)  # flat index of each window's first element
    for o, s, p, t in zip(out, stride, padding, steps, strict=True):
        corner = corner[..., None] + (np.arange(o) * s - p) * t
    passes = []  # last dimension first, as memory lies
    for i in reversed(range(len(size))):
        begin = np.maximum(padding[i] - np.arange(out[i]) * stride[i], 0)
        begin = -(-begin // dilation[i]) * dilation[i]  # the first element that exists
        begin = begin.reshape(-1, *[1] * (len(size) - 1 - i))
        distances = [np.array(k * dilation[i]) for k in range(kernel[i])]
        pick = partial(_slide, axis=i + 1, out=out[i], stride=stride[i], dilation=dilation[i])
        passes.append((pick, *((d * steps[i]).astype(compact) for d in (begin, *distances))))
    count = max(1, PANEL // math.prod(size))

    def run(start: int, stop: int) -> None:
        for n in range(start, stop, count):
            at = slice(n, min(n + count, stop))
            best = pad(planes[at], border, _lowest(x.dtype))[:, 0]
            found: Any = None
            for pick, begin, *distances in passes:
                best, found = _best(best, found, pick, begin, distances)
            y[at] = best
            np.add(corner, found, out=indices[at])

    sliced(run, N * C, x.size)
    return y.reshape(N, C, *out), indices.reshape(N, C, *out)


def _best(
    x: np.ndarray,
    found: np.ndarray | None,
    pick: Callable[..., np.ndarray],
    begin: np.ndarray,
    distances: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of the windows along one axis, and where they are, counted from the window's corner.

    found: where they are for the axes done before. pick(a, k=k): element k of each window of a, which is
    distances[k] from the corner; begin: the distance of the first element that may win (padding never
    does, not even where everything is -inf). Distances are in flat indices.
    """
    best = pick(x, k=0)
    where = np.broadcast_to(begin, best.shape) if found is None else pick(found, k=0) + begin
    for k in range(1, len(distances)):
        value = pick(x, k=k)
        better = value > best
        best = np.maximum(best, value, out=None if k == 1 else best)
        if best.dtype.kind == "f" and np.isnan(best.max()):
            better |= np.isnan(value)
        if found is None:  # distances only grow, so the largest that improved is the maximum's
            where = np.maximum(where, better * distances[k], out=None if k == 1 else where)
        else:  # where better: arithmetic, because masked copies are ten times slower
            change = pick(found, k=k) - where
            change += distances[k]
            change *= better
            where += change
    return best, where


@kernel
def pool_scatter(g: np.ndarray, indices: np.ndarray, x_shape: Ints) -> np.ndarray:
    """g, indices (N, C, *out) -> (N, C, *spatial) == x_shape: g added at its indices (max-pool grad).

    >>> pool_scatter(np.array([[[1.0, 2, 4]]]), np.array([[[1, 1, 3]]]), (1, 1, 5))
    array([[[0., 3., 0., 4., 0.]]])
    """
    x = np.zeros((math.prod(x_shape[:2]), math.prod(x_shape[2:])), g.dtype)
    if g.size:
        planes, at = g.reshape(len(x), -1), indices.reshape(len(x), -1)

        def run(start: int, stop: int) -> None:
            begin = np.arange(stop - start)[:, None] * x.shape[1]
            flat = (at[start:stop] + begin).ravel()
            np.add.at(x[start:stop].reshape(-1), flat, planes[start:stop].reshape(-1))

        sliced(run, len(x), g.size)
    return x.reshape(x_shape)


@kernel
def pool_gather(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """x (N, C, *spatial), indices (N, C, *out) -> (N, C, *out): x at indices; transpose of scatter.

    >>> pool_gather(np.array([[[1.0, 2, 3]]]), np.array([[[2, 0]]]))
    array([[[3., 1.]]])
    """
    planes = math.prod(x.shape[:2])
    begin = np.arange(planes)[:, None] * math.prod(x.shape[2:])
    flat = indices.reshape(planes, -1) + begin if indices.size else indices.reshape(planes, 0)
    return x.reshape(-1)[flat].reshape(indices.shape)


# --- averages: sums along one dimension after the other -----------------------------------------


def _counts(
    size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, include_pad: bool
) -> list[np.ndarray]:
    """Per dimension, how many elements each window counts (what hangs over by ceil_mode does not)."""
    counts = []
    for n, o, k, s, p in zip(size, out, kernel, stride, padding, strict=True):
        start = np.arange(o) * s - p
        stop = np.minimum(start + k, n + p)
        counts.append(stop - start if include_pad else np.minimum(stop, n) - np.maximum(start, 0))
    return counts


def _scale(
    y: np.ndarray,
    size: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    count_include_pad: bool,
    divisor_override: int | None,
) -> np.ndarray:
    """y (N, C, *out) divided by what each window's sum has to be divided by."""
    out = y.shape[2:]
    if divisor_override is not None:
        return y * y.dtype.type(1 / divisor_override)
    counts = _counts(size, out, kernel, stride, padding, count_include_pad)
    if all((c == k).all() for c, k in zip(counts, kernel, strict=True)):
        return y * y.dtype.type(1 / math.prod(kernel))
    divisor = np.ones((), y.dtype)
    for c in counts:
        divisor = divisor[..., None] * c.astype(y.dtype)
    return y / divisor


@kernel
def avg_pool_forward(
    x: np.ndarray,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> np.ndarray:
    """x (N, C, *spatial) -> (N, C, *out).

    >>> avg_pool_forward(np.array([[[1.0, 3, 2, 6]]]), (2,), (2,), (0,))
    array([[[2., 4.]]])
    """
    N, C, *rest = x.shape
    size, one = tuple(rest), (1,) * len(kernel)
    out = pool_sizes(size, kernel, stride, padding, one, ceil_mode)
    y = np.empty((N * C, 1, *out), x.dtype)
    if y.size:
        border = _padding(size, out, kernel, stride, padding, one)
        planes = x.reshape(N * C, 1, *size)
        count = max(1, PANEL // math.prod(size))

        def run(start: int, stop: int) -> None:
            for n in range(start, stop, count):
                at = slice(n, min(n + count, stop))
                total = pad(planes[at], border)
                for axis in range(x.ndim - 1, 1, -1):
                    rule = (out[axis - 2], stride[axis - 2])
                    first = _slide(total, axis, 0, *rule)
                    for i in range(1, kernel[axis - 2]):
                        part = _slide(total, axis, i, *rule)
                        first = np.add(first, part, out=None if i == 1 else first)
                    total = first
                y[at] = _scale(
                    total, size, kernel, stride, padding, count_include_pad, divisor_override
                )

        sliced(run, N * C, x.size)
    return y.reshape(N, C, *out)


@kernel
def avg_pool_backward(
    g: np.ndarray,
    x_shape: Ints,
    kernel: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> np.ndarray:
    """g (N, C, *out) -> (N, C, *spatial) == x_shape; the transpose of avg_pool_forward.

    >>> avg_pool_backward(np.array([[[2.0, 4]]]), (1, 1, 4), (2,), (2,), (0,))
    array([[[1., 1., 2., 2.]]])
    """
    N, C, *rest = x_shape
    size, out, one = tuple(rest), g.shape[2:], (1,) * len(kernel)
    x = np.zeros((N * C, 1, *size), g.dtype)
    if g.size:
        border = _padding(size, out, kernel, stride, padding, one)
        planes = g.reshape(N * C, 1, *out)
        count = max(1, PANEL // math.prod(size))

        def run(start: int, stop: int) -> None:
            for n in range(start, stop, count):
                at = slice(n, min(n + count, stop))
                part = _scale(
                    planes[at], size, kernel, stride, padding, count_include_pad, divisor_override
                )
                for axis, (a, b) in enumerate(border, 2):
                    n, k, o, s = (v[axis - 2] for v in (size, kernel, out, stride))
                    shape = (*part.shape[:axis], n + a + b, *part.shape[axis + 1 :])
                    tiled = k == s and n + a + b == o * k  # every element is in one window
                    wide = np.empty(shape, g.dtype) if tiled else np.zeros(shape, g.dtype)
                    for i in range(k):
                        if tiled:
                            _slide(wide, axis, i, o, s)[...] = part
                        else:
                            _slide(wide, axis, i, o, s)[...] += part
                    inside = slice(a, a + n)
                    part = wide[(slice(None),) * axis + (inside,)]
                x[at] = part

        sliced(run, N * C, x.size)
    return x.reshape(x_shape)


# --- adaptive: windows of unequal length --------------------------------------------------------


def _bounds(n: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `out` windows over n elements starts and stops; neighbours may share an element.

    >>> _bounds(5, 3)
    (array([0, 1, 3]), array([2, 4, 5]))
    """
    i = np.arange(out)
    return i * n // out, -(-(i + 1) * n // out)


def _even(size: Ints, out: Ints) -> Ints | None:
    """The common length of all windows along each dimension, if that is what they have."""
    if any(o == 0 or n % o or n > 8 * o for n, o in zip(size, out, strict=True)):
        return None
    return tuple(n // o for n, o in zip(size, out, strict=True))


@lru_cache(maxsize=256)
def _averaging(n: int, out: int) -> Taps:
    """Each output is the mean of its window."""
    start, stop = _bounds(n, out)
    length = stop - start
    row = np.repeat(np.arange(out), length)
    column = np.concatenate([np.arange(a, b) for a, b in zip(start, stop, strict=True)])
    return Taps(row, column, np.repeat(1 / length, length), out, n)


@kernel
def adaptive_avg_pool_forward(x: np.ndarray, output_size: Ints) -> np.ndarray:
    """x (N, C, *spatial) -> (N, C, *output_size).

    >>> adaptive_avg_pool_forward(np.array([[[1.0, 3, 2, 6]]]), (2,))
    array([[[2., 4.]]])
    """
    area = math.prod(x.shape[2:])
    if set(output_size) == {1} and x.size:
        y = x.reshape(-1, area) @ np.full(area, 1 / area, x.dtype)
        return y.reshape(*x.shape[:2], *output_size)
    if steps := _even(x.shape[2:], output_size):
        return avg_pool_forward(x, steps, steps, (0,) * len(steps))
    return apply(x, [_averaging(n, o) for n, o in zip(x.shape[2:], output_size, strict=True)])


@kernel
def adaptive_avg_pool_backward(g: np.ndarray, x_shape: Ints) -> np.ndarray:
    """g (N, C, *output_size) -> (N, C, *spatial) == x_shape; transpose of the forward.

    >>> adaptive_avg_pool_backward(np.array([[[2.0, 4]]]), (1, 1, 4))
    array([[[1., 1., 2., 2.]]])
    """
    out = g.shape[2:]
    if set(out) == {1}:
        x = np.empty(x_shape, g.dtype)
        x[...] = g * g.dtype.type(1 / math.prod(x_shape[2:]))
        return x
    if steps := _even(x_shape[2:], out):
        return avg_pool_backward(g, x_shape, steps, steps, (0,) * len(steps))
    return apply(g, [_averaging(n, o).T for n, o in zip(x_shape[2:], out, strict=True)])


@kernel
def adaptive_max_pool_forward(x: np.ndarray, output_size: Ints) -> tuple[np.ndarray, np.ndarray]:
    """x (N, C, *spatial) -> (y, indices), both (N, C, *output_size); grad is pool_scatter.

    >>> adaptive_max_pool_forward(np.array([[[1.0, 3, 2, 6]]]), (2,))
    (array([[[3., 6.]]]), array([[[1, 3]]]))
    """
    N, C, *size = x.shape
    best, found, step = x.reshape(N * C, *size), None, 1
    if 0 in x.shape or 0 in output_size:
        return np.empty((N, C, *output_size), x.dtype), np.empty((N, C, *output_size), np.int64)
    for i in reversed(range(len(size))):
        start, stop = _bounds(size[i], output_size[i])
        longest = (stop - start).max()
        elements = [np.minimum(start + k, stop - 1) for k in range(longest)]
        after = (-1, *[1] * (len(size) - 1 - i))
        best, found = _best(
            best,
            found,
            lambda a, k, axis=i + 1, elements=elements: np.take(a, elements[k], axis),
            start.reshape(after) * step,
            [element.reshape(after) * step for element in elements],
        )
        step *= size[i]
    shape = (N, C, *output_size)
    return np.array(best).reshape(shape), np.array(found).reshape(shape)
