"""A chain of elementwise passes, run on one cache-sized block at a time.

NumPy makes a pass over memory for every operation. On blocks that fit the cache only the first and
the last pass of a chain touch memory. (Threads do not help here: a pass over a block takes about as
long as it takes to wake the other thread up.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 1 << 16  # elements
LONG = range(128, 8192)  # rows that a ufunc had better not copy to its buffer; see in_blocks


def in_blocks(f: Callable[[int, int], Any], n: int, width: int = 1, row: int = 0) -> list[Any]:
    """``f(start, stop)`` over range(n), about BLOCK elements at a time where each i has ``width``.

    Returns what the calls returned, in order. ``row``: f combines rows of this length with a number
    for each. NumPy repeats the number in a buffer if a row is shorter than the buffer; beyond about
    128 elements it is twice as fast not to, so the buffer is made short.

    >>> in_blocks(lambda start, stop: stop - start, 5, width=1 << 15)
    [2, 2, 1]
    """
    step = max(1, BLOCK // max(width, 1))
    if n <= step + step // 2:
        step = max(n, 1)
    if row not in LONG or n * width < 4096:
        return [f(i, min(i + step, n)) for i in range(0, n, step)] if n else [f(0, 0)]
    before = np.setbufsize(64)
    try:
        return [f(i, min(i + step, n)) for i in range(0, n, step)]
    finally:
        np.setbufsize(before)


def blockwise(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` of arrays of one shape and dtype, elementwise, computed block by block where large.

    ``fn`` may return a tuple of such arrays, and take keyword arguments.

    >>> half_and_square = blockwise(lambda x: (x / 2, x * x))
    >>> half, square = half_and_square(np.full((400, 400), 4.0))
    >>> half.shape, float(half[-1, -1]), float(square[0, 0])
    ((400, 400), 2.0, 16.0)
    """

    @functools.wraps(fn)
    def whole(*xs: np.ndarray, **options: Any) -> Any:
        x = xs[0]
        if x.size <= 2 * BLOCK:
            return fn(*xs, **options)
        flat = [a.reshape(-1) for a in xs]  # copies what is not contiguous
        first = fn(*[a[:BLOCK] for a in flat], **options)
        several = type(first) is tuple
        made = [np.empty(x.size, a.dtype) for a in (first if several else (first,))]

        def block(i: int, j: int) -> None:
            done = first if i == 0 and j == BLOCK else fn(*[a[i:j] for a in flat], **options)
            for a, b in zip(made, done if several else (done,), strict=True):
                a[i:j] = b

        in_blocks(block, x.size)
        shaped = tuple(a.reshape(x.shape) for a in made)
        return shaped if several else shaped[0]

    return whole
