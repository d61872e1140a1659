"""Copies between arrays whose memory runs in different directions.

Where what lies side by side in one array lies far apart in the other, an element by element copy touches
a line of the cache for every element. Here squares as wide as a vector register are turned in registers.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kilograd.kernels.native.build import share
from kilograd.kernels.native.vectors import Body, machine, vector

MOVERS: dict[int, np.dtype[Any]] = {
    4: np.dtype(np.float32),
    8: np.dtype(np.float64),
}  # any element is moved as a float


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """turn(x, x_row, y, y_row): a square of elements from rows of x to columns of y."""
    from numba import types as nt
    from numba.extending import intrinsic

    @intrinsic
    def turn(typing_context, x, x_at, x_row, y, y_at, y_row):
        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, x)
            lanes, rows = on.lanes, []
            for k in range(on.lanes):
                at = builder.add(a[1], builder.mul(a[2], on.i64(k)))
                rows.append(on.load(on.at(a[0], at)))
            distance = lanes // 2
            while distance:  # exchange the corners of ever smaller squares
                low = [i if not i & distance else i - distance + lanes for i in range(lanes)]
                high = [i + distance if not i & distance else i + lanes for i in range(lanes)]
                made = list(rows)
                for k in range(lanes):
                    if not k & distance:
                        made[k] = on.shuffle(rows[k], rows[k + distance], low)
                        made[k + distance] = on.shuffle(rows[k], rows[k + distance], high)
                rows, distance = made, distance // 2
            for k in range(lanes):
                at = builder.add(a[4], builder.mul(a[5], on.i64(k)))
                on.store(rows[k], on.at(a[3], at))
            return context.get_dummy_value()

        return nt.none(x, x_at, x_row, y, y_at, y_row), generate

    return {"turn": turn}


turn: Any = None


@vector(
    "T* x, T* y, i64* sizes, i64* x_steps, i64* y_steps, i64 outer, i64 rows, i64 columns,"
    "i64 x_row, i64 y_row, i64 lanes"
)
def copy_turned(
    x, y, sizes, x_steps, y_steps, outer, rows, columns, x_row, y_row, lanes, part, parts
):
    """y[…, c, r] = x[…, r, c], where neighbours in memory are x's along c, and y's along r.

    The ``outer`` axes before these have any steps. Threads share strips of ``lanes`` rows: a strip of x
    is read along its rows, and fills whole lines of y.
    """
    count = 1
    for d in range(outer):
        count *= sizes[d]
    strips = (rows + lanes - 1) // lanes
    start, stop = share(count * strips, part, parts)
    for i in range(start, stop):
        left, first = i // strips, i % strips * lanes
        x_at, y_at = first * x_row, first
        for d in range(outer - 1, -1, -1):
            x_at += left % sizes[d] * x_steps[d]
            y_at += left % sizes[d] * y_steps[d]
            left //= sizes[d]
        some = min(lanes, rows - first)
        done = columns - columns % lanes if some == lanes else 0
        for c in range(0, done, lanes):
            turn(x, x_at + c, x_row, y, y_at + c * y_row, y_row)
        for r in range(some):
            for c in range(done, columns):
                y[y_at + c * y_row + r] = x[x_at + r * x_row + c]


def lower_turned(plan: Any, to: Any, source: Any, sizes: list[int], steps: list[list[int]]) -> bool:
    """Plan a copy as ``copy_turned``, where that is the way to do it; else say no.

    ``sizes`` and the ``steps`` (in elements) of both are those of as few axes as can be.
    """
    from_steps, to_steps = steps
    mover = MOVERS.get(to.dtype.itemsize)
    if source.dtype != to.dtype or mover is None or len(sizes) < 2:
        return False
    if to_steps[-1] != 1 or from_steps[-1] in (0, 1) or 1 not in from_steps:
        return False
    d, lanes = from_steps.index(1), machine()[0] // mover.itemsize
    if sizes[d] < lanes:
        return False
    axes = np.array([sizes, from_steps, to_steps])
    outer = [i for i in range(len(sizes) - 1) if i != d]
    tables: list[Any] = [np.array(row[outer], np.int64) for row in axes]
    plan.call(
        copy_turned, source, to, *tables, len(outer), sizes[-1], sizes[d], from_steps[-1],
        to_steps[d], lanes, dtype=mover, work=to.size,
    )  # fmt: skip
    return True
