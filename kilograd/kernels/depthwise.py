"""Depthwise convolution: along a row, sliding a kernel is multiplying by a banded matrix.

One channel has too few numbers per window for columns to pay. But a row of the image times a matrix
(W, OW), whose diagonals hold one row of the kernel, is that row's share of the output, with padding, stride
and dilation built in. So y is a sum over the kernel's rows of small matrix products on views of x: nothing is
padded, copied or rearranged, and for rows of up to about 50 the extra arithmetic is cheaper than all that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel
from kilograd.kernels.threads import sliced
from kilograd.kernels.window import Ints, Pairs

WIDEST = 48  # rows longer than this spend too much on the zeros of their matrix
PANEL = 1 << 17  # elements worked on at a time


def suits(x_shape: Ints, w_shape: Ints, out: Ints, groups: int) -> bool:
    """Whether a convolution is of this kind, and one that is quicker this way."""
    rows = len(out) > 1 and out[-2] >= 4
    narrow = max(x_shape[-1], out[-1]) <= WIDEST
    return w_shape[:2] == (groups, 1) and groups > 1 and rows and narrow and w_shape[-1] > 1


class _Band:
    """One convolution's geometry: which rows meet (`shares`), and where a kernel row's numbers lie (`at`)."""

    def __init__(
        self, size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
    ) -> None:
        self.shape, k = (size[-1], out[-1]), kernel[-1]
        # Column o of the band meets tap j at row o*stride + j*dilation - before.
        column, tap = np.indices((out[-1], k)).reshape(2, -1)
        row = column * stride[-1] + tap * dilation[-1] - padding[-1][0]
        inside = (row >= 0) & (row < size[-1])
        self.at, self.tap = (..., row[inside], column[inside]), tap[inside]
        self.kernel = kernel
        self.shares = list(self._shares(size, out, stride, padding, dilation))

    def _shares(
        self, size: Ints, out: Ints, stride: Ints, padding: Pairs, dilation: Ints
    ) -> Iterator[tuple[Ints, tuple, tuple]]:
        """Per row of the kernel: its offset, the rows of x that it meets, the rows of y they add to."""
        for offset in product(*map(range, self.kernel[:-1])):
            of_x: list[Any] = [slice(None), slice(None)]
            of_y: list[Any] = [slice(None), slice(None)]
            for i, n, o, s, (a, _), d in zip(offset, size, out, stride, padding, dilation):  # noqa: B905
                shift = i * d - a
                first, last = max(0, -(shift // s)), min(o, -((shift - n) // s))
                if last <= first:
                    break
                of_x.append(slice(first * s + shift, (last - 1) * s + shift + 1, s))
                of_y.append(slice(first, last))
            else:
                yield offset, tuple(of_x), tuple(of_y)

    def matrices(self, w: np.ndarray) -> np.ndarray:
        """w (C, 1, *k) -> (*k[:-1], C, *ones, W, OW)."""
        rows = np.moveaxis(w[:, 0], 0, -2)
        bands = np.zeros((*rows.shape[:-1], *self.shape), w.dtype)
        bands[self.at] = rows[..., self.tap]
        return bands.reshape(*rows.shape[:-1], *[1] * (w.ndim - 4), *self.shape)

    def kernel_row(self, total: np.ndarray) -> np.ndarray:
        """The transpose of `matrices` for one row: (C, W, OW) -> (C, k)."""
        taps = np.eye(self.kernel[-1], dtype=total.dtype)[self.tap]
        return total[self.at] @ taps


def _panels(start: int, stop: int, image: int) -> Iterator[slice]:
    count = max(1, PANEL // image)
    return (slice(n, min(n + count, stop)) for n in range(start, stop, count))


@kernel
def depthwise_forward(
    x: np.ndarray,
    w: np.ndarray,
    out: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """x (N, C, *spatial), w (C, 1, *k), bias (C, *ones) -> (N, C, *out), two dimensions or more.

    >>> x, w = np.arange(4.0).reshape(1, 1, 2, 2), np.ones((1, 1, 1, 2))
    >>> depthwise_forward(x, w, (2, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))
    array([[[[1.],
             [5.]]]])
    """
    band = _Band(x.shape[2:], out, w.shape[2:], stride, padding, dilation)
    matrices = band.matrices(w)
    y = np.empty((*x.shape[:2], *out), np.result_type(x, w))

    def run(start: int, stop: int) -> None:
        for at in _panels(start, stop, math.prod(x.shape[1:])):
            y[at] = 0 if bias is None else bias
            for offset, of_x, of_y in band.shares:
                y[at][of_y] += x[at][of_x] @ matrices[offset]

    sliced(run, len(x), x.size + y.size)
    return y


@kernel
def depthwise_input_grad(
    g: np.ndarray, w: np.ndarray, x_shape: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> np.ndarray:
    """g (N, C, *out), w (C, 1, *k) -> x_shape; the transpose of the forward as a map of x.

    >>> g, w = np.ones((1, 1, 2, 1)), np.array([[[[1.0, 2]]]])
    >>> depthwise_input_grad(g, w, (1, 1, 2, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
    array([[[[1., 2.],
             [1., 2.]]]])
    """
    band = _Band(x_shape[2:], g.shape[2:], w.shape[2:], stride, padding, dilation)
    matrices = np.ascontiguousarray(band.matrices(w).swapaxes(-1, -2))
    x = np.zeros(x_shape, np.result_type(g, w))

    def run(start: int, stop: int) -> None:
        for at in _panels(start, stop, math.prod(x_shape[1:])):
            for offset, of_x, of_y in band.shares:
                x[at][of_x] += g[at][of_y] @ matrices[offset]

    sliced(run, len(x), x.size + g.size)
    return x


@kernel
def depthwise_weight_grad(
    g: np.ndarray, x: np.ndarray, w_shape: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> np.ndarray:
    """g (N, C, *out), x (N, C, *spatial) -> (C, 1, *k); the transpose as a map of w.

    >>> g, x = np.ones((1, 1, 2, 1)), np.arange(4.0).reshape(1, 1, 2, 2)
    >>> depthwise_weight_grad(g, x, (1, 1, 1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1))
    array([[[[2., 4.]]]])
    """
    kernel, dtype = w_shape[2:], np.result_type(g, x)
    band = _Band(x.shape[2:], g.shape[2:], kernel, stride, padding, dilation)
    others = (0, *range(2, x.ndim - 2))

    def run(start: int, stop: int) -> np.ndarray:
        total = np.zeros((*kernel[:-1], w_shape[0], *band.shape), dtype)
        for at in _panels(start, stop, math.prod(x.shape[1:])):
            for offset, of_x, of_y in band.shares:
                total[offset] += (x[at][of_x].swapaxes(-1, -2) @ g[at][of_y]).sum(others)
        return np.moveaxis(band.kernel_row(total), -2, 0)[:, None]

    parts = sliced(run, len(x), x.size + g.size)
    return sum(parts[1:], start=parts[0])
