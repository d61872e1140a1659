"""Sliding windows: one view of every window at once, its copy (im2col) and the transpose (col2im).

The view costs nothing: element i of window o along a dimension lies at o*stride + i*dilation, so kernel
and position are two axes over one memory. Its transpose cannot be a view, because windows overlap and
their contributions add; it is a loop over the few kernel offsets, each adding a whole strided plane.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from kilograd.kernels.kernel import kernel

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def out_sizes(size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Ints:
    """How many windows fit along each dimension.

    >>> out_sizes((5, 6), (3, 3), (1, 2), ((1, 1), (0, 0)), (1, 1))
    (5, 2)
    """
    return tuple(
        (n + a + b - d * (k - 1) - 1) // s + 1
        for n, k, s, (a, b), d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def pad(x: np.ndarray, padding: Pairs, value: float = 0) -> np.ndarray:
    """x (N, C, *spatial) with a border of `value`; x itself where there is no border.

    >>> pad(np.ones((1, 1, 2), int), ((1, 2),))
    array([[[0, 1, 1, 0, 0]]])
    """
    if not any(map(any, padding)):
        return x
    size = x.shape[2:]
    shape = tuple(n + a + b for n, (a, b) in zip(size, padding, strict=True))
    padded = np.full((*x.shape[:2], *shape), value, x.dtype)
    inside: Any = (..., *(slice(a, a + n) for n, (a, _) in zip(size, padding, strict=True)))
    padded[inside] = x
    return padded


def windows(x: np.ndarray, kernel: Ints, stride: Ints, dilation: Ints, out: Ints) -> np.ndarray:
    """View of padded x (N, C, *spatial) -> (N, C, *kernel, *out), read-only.

    >>> windows(np.arange(5).reshape(1, 1, 5), (3,), (1,), (1,), (3,))[0, 0]
    array([[0, 1, 2], [1, 2, 3], [2, 3, 4]])
    """
    near = tuple(t * d for t, d in zip(x.strides[2:], dilation, strict=True))
    far = tuple(t * s for t, s in zip(x.strides[2:], stride, strict=True))
    return as_strided(
        x, (*x.shape[:2], *kernel, *out), (*x.strides[:2], *near, *far), writeable=False
    )


def offsets(kernel: Ints, stride: Ints, dilation: Ints, out: Ints) -> list[tuple[Ints, Any]]:
    """For every kernel offset: (offset, index of the elements of padded x that it meets).

    >>> offsets((2,), (2,), (1,), (3,))
    [((0,), (Ellipsis, slice(0, 5, 2))), ((1,), (Ellipsis, slice(1, 6, 2)))]
    """
    return [
        (i, (..., *(slice(j * d, j * d + (o - 1) * s + 1, s)
                    for j, d, s, o in zip(i, dilation, stride, out, strict=True))))
        for i in product(*map(range, kernel))
    ]  # fmt: skip


def both_sides(padding: Ints) -> Pairs:
    """The same padding before and after.

    >>> both_sides((1, 2))
    ((1, 1), (2, 2))
    """
    return tuple((p, p) for p in padding)


@kernel
def unfold(x: np.ndarray, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints) -> np.ndarray:
    """im2col: x (N, C, *spatial) -> (N, C*prod(kernel), L), L = number of window positions.

    >>> unfold(np.arange(4).reshape(1, 1, 4), (2,), (1,), (0,), (1,))
    array([[[0, 1, 2],
            [1, 2, 3]]])
    """
    N, C, *size = x.shape
    out = out_sizes(tuple(size), kernel, stride, both_sides(padding), dilation)
    view = windows(pad(x, both_sides(padding)), kernel, stride, dilation, out)
    return np.ascontiguousarray(view).reshape(N, C * math.prod(kernel), math.prod(out))


@kernel
def fold(
    cols: np.ndarray,
    output_size: Ints,
    kernel: Ints,
    dilation: Ints,
    padding: Ints,
    stride: Ints,
) -> np.ndarray:
    """col2im, the transpose of unfold: cols (N, C*prod(kernel), L) -> (N, C, *output_size).

    >>> fold(np.ones((1, 2, 3)), (4,), (2,), (1,), (0,), (1,))
    array([[[1., 2., 2., 1.]]])
    """
    out = out_sizes(output_size, kernel, stride, both_sides(padding), dilation)
    N, C = len(cols), cols.shape[1] // math.prod(kernel)
    cols = cols.reshape(N, C, *kernel, *out)
    padded = np.zeros(
        (N, C, *(n + 2 * p for n, p in zip(output_size, padding, strict=True))), cols.dtype
    )
    for i, where in offsets(kernel, stride, dilation, out):
        part: Any = (slice(None), slice(None), *i)
        padded[where] += cols[part]
    inside: Any = (..., *(slice(p, p + n) for n, p in zip(output_size, padding, strict=True)))
    return np.ascontiguousarray(padded[inside])
