"""Separable linear maps: along each dimension every output is a weighted sum of a few inputs, its taps.

Averaging over uneven windows and every kind of interpolation is such a map, and so is its transpose, whose
taps are the same numbers sorted by input. So there is one loop, over taps, and it runs both ways. A
matrix product would be as quick, but multiplies what it does not need by zero, and 0 * inf is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kilograd.kernels.threads import sliced


@dataclass(frozen=True, eq=False)
class Taps:
    """A sparse matrix (outputs, inputs): output `row` gets `weight` times input `column`."""

    row: np.ndarray
    column: np.ndarray
    weight: np.ndarray
    outputs: int
    inputs: int

    @cached_property
    def T(self) -> Taps:
        """The transposed matrix."""
        return Taps(self.column, self.row, self.weight, self.inputs, self.outputs)

    @cached_property
    def ranks(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The first tap of every output that has one, the second, …: each as (row, column, weight)."""
        order = np.argsort(self.row, kind="stable")
        row, column, weight = self.row[order], self.column[order], self.weight[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        at = [rank == k for k in range(rank.max(initial=-1) + 1)]
        return [(row[k], column[k], weight[k]) for k in at]


def apply(x: np.ndarray, maps: Sequence[Taps | None]) -> np.ndarray:
    """x (N, C, *spatial), one map per spatial dimension (None: identity) -> (N, C, *outputs).

    >>> mean_of_pairs = Taps(np.array([0, 0, 1, 1]), np.arange(4), np.full(4, 0.5), 2, 4)
    >>> apply(np.array([[[1.0, 3, 2, 6]]]), [mean_of_pairs])
    array([[[2., 4.]]])
    >>> apply(np.array([[[2.0, 4]]]), [mean_of_pairs.T])
    array([[[1., 1., 2., 2.]]])
    """
    N, C, *size = x.shape
    shape = [n if m is None else m.outputs for n, m in zip(size, maps, strict=True)]
    y = np.empty((N * C, *shape), x.dtype)
    # Shrinking dimensions first and growing ones last: the fewest elements in between.
    order = sorted(
        ((i, m) for i, m in enumerate(maps, 1) if m is not None),
        key=lambda at: (at[1].outputs / at[1].inputs, at[0] * (at[1].inputs - at[1].outputs)),
    )
    planes = x.reshape(N * C, *size)

    def run(start: int, stop: int) -> None:
        part = planes[start:stop]
        for axis, taps in order:
            part = _apply(part, axis, taps)
        y[start:stop] = part

    if y.size and x.size:
        sliced(run, N * C, x.size + y.size)
    else:
        y[...] = 0
    return y.reshape(N, C, *shape)


def _apply(x: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    """x (…, inputs at axis, …) -> (…, outputs at axis, …)."""
    before: Any = (slice(None),) * axis
    after = (1,) * (x.ndim - 1 - axis)
    y: np.ndarray | None = None
    for row, column, weight in taps.ranks:
        part = x.take(column, axis)
        if not (weight == 1).all():
            part *= weight.astype(x.dtype).reshape(-1, *after)
        if y is None and len(row) == taps.outputs:
            y = part  # ranks are sorted by row: these are all of them
        else:
            if y is None:
                y = np.zeros((*x.shape[:axis], taps.outputs, *x.shape[axis + 1 :]), x.dtype)
            y[(*before, row if len(row) < taps.outputs else slice(None))] += part
    assert y is not None
    return y
