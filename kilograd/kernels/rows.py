"""Reductions of a matrix's rows and columns by whatever does them fastest.

NumPy's own reductions along the last axis pay for every row; a product with a vector of ones goes to
BLAS and costs a tenth. A maximum of short rows is taken along the columns of a transposed copy, of
long rows at the place that ``argmax`` finds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray


@lru_cache(maxsize=256)
def ones(n: int, dtype: Any) -> Array:
    """Ones (n,), read-only."""
    a = np.ones(n, dtype)
    a.flags.writeable = False
    return a


def row_sums(x: Array) -> Array:
    """x (n, width) -> (n,)."""
    return x.dot(ones(x.shape[1], x.dtype))


def column_sums(x: Array) -> Array:
    """x (n, width) -> (width,)."""
    return ones(x.shape[0], x.dtype).dot(x)


def row_products(x: Array, y: Array) -> Array:
    """Σ x*y along rows: (n, width) -> (n,)."""
    return np.einsum("nd,nd->n", x, y)


def row_maxima(x: Array) -> Array:
    """x (n, width) -> (n, 1).

    >>> row_maxima(np.array([[1.0, 3.0, 2.0], [0.0, -1.0, np.nan]]))
    array([[ 3.], [nan]])
    """
    n, width = x.shape
    if n < 16:
        return np.maximum.reduce(x, axis=1, keepdims=True)
    if width < 48:
        return np.maximum.reduce(np.ascontiguousarray(x.T), axis=0)[:, None]
    return np.take_along_axis(x, x.argmax(1)[:, None], 1)
