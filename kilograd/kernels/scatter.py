"""Scatter: writing by index where indices repeat, so that contributions must accumulate.

NumPy's `out[index] += values` keeps only the last of equal indices. `np.add.at` adds all, quickly for one
flat index into one flat array and slowly for anything else; so every function here first says, for each
value, the flat place it goes to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel
from kilograd.kernels.place import in_range


def _add_flat(
    shape: tuple[int, ...], flat: np.ndarray, values: np.ndarray, x: np.ndarray | None = None
) -> np.ndarray:
    """zeros(shape), or a copy of x, with values added at flat indices of the same shape."""
    out = np.zeros(shape, values.dtype) if x is None else np.array(x, order="C")
    np.add.at(out.reshape(-1), flat.reshape(-1), values.reshape(-1))
    return out


def _check(index: np.ndarray, size: int, lowest: int) -> None:
    if index.size and not (lowest <= index.min() and index.max() < size):
        wrong = index[(index < lowest) | (index >= size)].flat[0]
        raise IndexError(f"index {wrong} is out of bounds for dimension with size {size}")


def _add_rows(rows: int, index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """values (K, D) added at rows index (K,) of zeros (rows, D)."""
    _check(index, rows, -rows)
    D = values.shape[1]
    index = np.where(index < 0, index + rows, index)
    flat = index if D == 1 else index[:, None] * D + np.arange(D)
    return _add_flat((rows, D), flat, values)


@kernel
def index_add(
    shape: tuple[int, ...], index: np.ndarray, values: np.ndarray, axis: int = 0
) -> np.ndarray:
    """zeros(shape) with values[..., i, ...] added at index[i] along axis; index is 1-d (K,).

    >>> index_add((3,), np.array([2, 0, 2]), np.array([1.0, 10, 100]))
    array([ 10.,   0., 101.])
    """
    axis %= len(shape)
    others = shape[:axis] + shape[axis + 1 :]
    rows = np.moveaxis(values, axis, 0).reshape(len(index), math.prod(others))
    out = _add_rows(shape[axis], index, rows).reshape(shape[axis], *others)
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


@kernel
def embedding_grad(
    g: np.ndarray, indices: np.ndarray, V: int, padding_idx: int | None = None
) -> np.ndarray:
    """g (*indices.shape, D), indices any shape -> (V, D): rows of g added at their indices.

    >>> embedding_grad(np.ones((2, 2, 1)), np.array([[0, 2], [2, 1]]), 3, padding_idx=1)
    array([[1.],
           [0.],
           [2.]])
    """
    weight = _add_rows(V, indices.reshape(-1), g.reshape(indices.size, g.shape[-1]))
    if padding_idx is not None:
        weight[padding_idx] = 0
    return weight


def _places(shape: tuple[int, ...], axis: int, index: np.ndarray) -> np.ndarray:
    """Flat places in `shape` of scatter's index, which has shape's dimensions but may be smaller."""
    axis %= max(len(shape), 1)
    if not shape:
        return np.zeros(index.shape, np.int64)
    _check(index, shape[axis], 0)
    flat, step = np.zeros((1,) * len(shape), np.int64), 1
    for d in reversed(range(len(shape))):
        if d == axis:
            flat = flat + index * step
        else:
            flat = flat + np.arange(index.shape[d]).reshape(-1, *[1] * (len(shape) - 1 - d)) * step
        step *= shape[d]
    return flat


@kernel
def scatter_add(
    shape: tuple[int, ...],
    axis: int,
    index: np.ndarray,
    src: np.ndarray,
    x: np.ndarray | None = None,
    refused: tuple[str, type[Exception]] | None = None,
) -> np.ndarray:
    """torch.zeros(shape).scatter_add(axis, index, src): index (any shape <= shape, src) along axis.

    With an ``x`` of that shape, x is what is added to (and not changed). ``refused``: what ``in_range``
    is to say and raise where an index is out of bounds.

    >>> scatter_add((2, 3), 1, np.array([[0, 0], [2, 1]]), np.array([[1, 2], [3, 4]]))
    array([[3, 0, 0],
           [0, 4, 3]])
    """
    src = src[tuple(map(slice, index.shape))]
    if refused is not None:
        in_range(index, shape[axis] if shape else 1, *refused)
    return _add_flat(shape, _places(shape, axis, index), src, x)


@kernel
def index_put_add(shape: tuple[int, ...], index: Any, values: np.ndarray) -> np.ndarray:
    """zeros(shape) with np.add.at(out, index, values): the gradient of x[index].

    index: anything NumPy accepts, and so repeated or negative integers, masks, slices, None, Ellipsis.

    >>> index_put_add((2, 3), (slice(None), np.array([0, 0, -1])), np.ones((2, 3)))
    array([[2., 0., 1.],
           [2., 0., 1.]])
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(p) if isinstance(p, (list, np.ndarray)) else p for p in parts)
    if not any(isinstance(p, np.ndarray) and p.dtype.kind in "iu" for p in parts):
        out = np.zeros(shape, values.dtype)  # nothing can repeat
        out[parts] = values
        return out
    used = len(shape)
    if not any(p is Ellipsis for p in parts):
        used = sum(
            p.ndim if isinstance(p, np.ndarray) and p.dtype == bool else p is not None
            for p in parts
        )
    before, rest = shape[:used], shape[used:]
    if len(parts) == used == 1:
        (found,) = parts
        _check(found, before[0], -before[0])
    else:
        # Each coordinate of the chosen elements, by indexing an array that holds that coordinate.
        found = np.int64(0)
        for d, n in enumerate(before):
            coordinate = np.arange(n).reshape(-1, *[1] * (used - 1 - d))
            found = found * n + np.broadcast_to(coordinate, before)[parts]
    rows = np.broadcast_to(values, (*found.shape, *rest)).reshape(found.size, math.prod(rest))
    return _add_rows(math.prod(before), found.reshape(-1), rows).reshape(shape)


@kernel
def scatter_reduce(
    x: np.ndarray,
    axis: int,
    index: np.ndarray,
    src: np.ndarray,
    reduce: str,
    include_self: bool = True,
) -> np.ndarray:
    """torch.scatter_reduce: reduce in {'sum', 'prod', 'mean', 'amax', 'amin'}; a new array.

    >>> x, index, src = np.array([1.0, 2, 3]), np.array([0, 0, 2]), np.array([5.0, 7, 9])
    >>> scatter_reduce(x, 0, index, src, "sum"), scatter_reduce(x, 0, index, src, "mean", False)
    (array([13.,  2., 12.]), array([6., 2., 9.]))
    """
    kind = {"sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum,
            "amin": np.minimum}[reduce]  # fmt: skip
    flat = _places(x.shape, axis, index).reshape(-1)
    values = src[tuple(map(slice, index.shape))].reshape(-1)
    out = np.array(x, order="C")
    at = out.reshape(-1)
    if not include_self:
        at[flat] = values if reduce in ("amax", "amin") else int(reduce == "prod")
    with np.errstate(invalid="ignore"):  # NaN is larger and smaller than everything, as in torch
        kind.at(at, flat, values)
    if reduce == "mean":
        counts = np.bincount(flat, minlength=at.size) + include_self
        counts = np.maximum(counts, 1).astype(at.dtype)
        at[...] = at / counts if at.dtype.kind in "fc" else at // counts
    return out
