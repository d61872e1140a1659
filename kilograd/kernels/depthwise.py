"""Depthwise convolution: along a row, sliding a kernel is multiplying by a banded matrix.

One channel has too few numbers per window for columns to pay. But a row of the image times a matrix
(W, OW), whose diagonals hold one row of the kernel, is that row's share of the output, with padding, stride
and dilation built in. So y is a sum over the kernel's rows of small matrix products on views of x: nothing is
padded, copied or rearranged, and for rows of up to about 64 the extra arithmetic is cheaper than all that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from kilograd.kernels.threads import scratch, sliced
from kilograd.kernels.window import Ints, Pairs

WIDEST = 64  # rows longer than this spend too much on the zeros of their matrix
PANEL = 1 << 17  # elements worked on at a time


def suits(x_shape: Ints, w_shape: Ints, out: Ints, groups: int) -> bool:
    """Whether a convolution is of this kind, and one that is quicker this way."""
    rows = len(out) > 1 and out[-2] >= 4
    narrow = max(x_shape[-1], out[-1]) <= WIDEST
    return w_shape[1] == 1 and groups > 1 and rows and narrow and math.prod(w_shape[2:]) > 1


def _share(
    size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Iterator[tuple[Ints, tuple, tuple]]:
    """Per row of the kernel: its offset, the rows of x that it meets and the rows of y they add to."""
    for i in product(*map(range, kernel[:-1])):
        ours, theirs = [], []
        for k, n, o, s, (a, _), d in zip(i, size, out, stride, padding, dilation, strict=False):
            first = max(0, -((k * d - a) // s))
            last = min(o, -((k * d - a - n) // s))
            begin = first * s + k * d - a
            ours.append(slice(begin, begin + max(last - first - 1, 0) * s + 1, s))
            theirs.append(slice(first, max(first, last)))
            if last <= first:
                break
        else:
            yield i, (slice(None), slice(None), *ours), (slice(None), slice(None), *theirs)


def _diagonals(n: int, out: int, k: int, stride: int, before: int, dilation: int) -> tuple:
    """Index (row, column, tap) of the band: column `o` meets tap `j` at row o*stride + j*dilation."""
    column, tap = np.indices((out, k)).reshape(2, -1)
    row = column * stride + tap * dilation - before
    inside = (row >= 0) & (row < n)
    return row[inside], column[inside], tap[inside]


def _bands(w: np.ndarray, n: int, out: int, at: tuple) -> np.ndarray:
    """w (O, 1, *k) -> (*k[:-1], O, *ones, n, out)."""
    rows = np.moveaxis(w[:, 0], 0, -2)
    bands = np.zeros((*rows.shape[:-1], n, out), w.dtype)
    row, column, tap = at
    bands[..., row, column] = rows[..., tap]
    middle = (1,) * (w.ndim - 4)
    return bands.reshape(*rows.shape[:-1], *middle, n, out)
