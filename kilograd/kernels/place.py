"""Moving elements to places known from shapes, slices or an index array, into a new array."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel

Array = np.ndarray
Pads = tuple[tuple[int, int], ...]


@kernel
def put_zeros(x: Array, shape: tuple[int, ...], index: Any) -> Array:
    """Zeros of a shape with x written at an index of slices and integers.

    >>> put_zeros(np.array([1, 2]), (4,), slice(1, 3))
    array([0, 1, 2, 0])
    """
    y = np.zeros(shape, x.dtype)
    y[index] = x
    return y


@kernel
def put_diagonal(v: Array, shape: tuple[int, ...], offset: int, a: int, b: int) -> Array:
    """Zeros of a shape with v on a diagonal of the axes a and b."""
    y = np.zeros(shape, v.dtype)
    diagonal = np.diagonal(y, offset, a, b)
    diagonal.flags.writeable = True  # NumPy is cautious
    diagonal[...] = v
    return y


@kernel
def put_mask(v: Array, mask: Array) -> Array:
    """Zeros of the mask's shape with the elements of v (1-d), in order, where it holds."""
    y = np.zeros(mask.shape, v.dtype)
    y[mask] = v
    return y


@kernel
def pad_constant(x: Array, pads: Pads, value: float) -> Array:
    """x with (before, after) elements of a value at each end of each axis; negative ones cut.

    >>> pad_constant(np.array([1, 2, 3]), ((2, -1),), 0)
    array([0, 0, 1, 2])
    """
    kept, place, shape = [], [], []
    for (a, b), n in zip(pads, x.shape, strict=True):
        kept.append(slice(max(-a, 0), n - max(-b, 0)))
        place.append(slice(max(a, 0), n + a + b - max(b, 0)))
        shape.append(n + a + b)
    y = np.full(shape, value, x.dtype) if value else np.zeros(shape, x.dtype)
    y[tuple(place)] = x[tuple(kept)]
    return y


# --- an index array of the rank of x ------------------------------------------------------------


def _grid(index: Array, axis: int) -> Any:
    """The NumPy index that reads ``index`` along an axis, and every other axis in step with it."""
    if index.ndim == 0:
        return ...
    parts = []
    for i, n in enumerate(index.shape):
        shape = (1,) * i + (n,) + (1,) * (index.ndim - i - 1)
        parts.append(index if i == axis else np.arange(n).reshape(shape))
    return tuple(parts)


@kernel
def gather(
    x: Array, index: Array, axis: int, refused: tuple[str, type[Exception]] | None = None
) -> Array:
    """``y[i, j, k] = x[i, index[i, j, k], k]`` (for axis 1); index may be smaller than x.

    ``refused``: what ``in_range`` is to say and raise where an index is out of bounds or negative.

    >>> gather(np.array([[1, 2], [3, 4]]), np.array([[1], [0]]), 1)
    array([[2],
           [3]])
    """
    if refused is not None:
        in_range(index, x.shape[axis] if x.ndim else 1, *refused)
    return x[_grid(index, axis)] if index.ndim else x.reshape(()).copy()


@kernel
def scatter(x: Array, v: Any, index: Array, axis: int) -> Array:
    """A copy of x with ``y[i, index[i, j, k], k] = v[i, j, k]`` (for axis 1).

    >>> scatter(np.zeros((2, 2), int), 7, np.array([[1], [0]]), 1)
    array([[0, 7],
           [7, 0]])
    """
    y = x.copy()
    y[_grid(index, axis)] = v
    return y


@kernel
def scatter_zeros(v: Array, index: Array, shape: tuple[int, ...], axis: int) -> Array:
    """Zeros of a shape with v written at an index in which no place occurs twice."""
    y = np.zeros(shape, v.dtype)
    y[_grid(index, axis)] = v
    return y


@kernel
def index_assign(x: Array, v: Any, index: Array, axis: int) -> Array:
    """A copy of x with v written to the slices along an axis that a 1-d index names."""
    y = x.copy()
    where: Any = (*(slice(None),) * axis, index)
    y[where] = v
    return y


# --- tables and classes -------------------------------------------------------------------------


@kernel
def in_range(index: Array, n: int, message: str, wrong: type[Exception]) -> None:
    """Raise unless every index is from 0 to n - 1; ``message`` may say {bad} and {n}."""
    if index.size:
        unsigned = index.view(f"u{index.itemsize}")  # negative ones are very large
        if unsigned.max() >= n:
            raise wrong(message.format(bad=int(index.flat[int(unsigned.argmax())]), n=n))


@kernel
def demand(holds: Array, message: str, wrong: type[Exception]) -> None:
    """Raise unless all elements hold."""
    if not holds.all():
        raise wrong(message)


@kernel
def embedding(w: Array, indices: Array) -> Array:
    """Rows of w (V, D) at indices (any shape): (*indices.shape, D).

    >>> embedding(np.array([[1.0], [2.0]]), np.array([1, 1, 0])).ravel()
    array([2., 2., 1.])
    """
    in_range(indices, len(w), "index out of range in self", IndexError)
    return w.take(indices, axis=0)


@kernel
def one_hot(classes: Array, count: int) -> Array:
    """Zeros with a one at each class number, as int64: (*classes.shape, count).

    >>> one_hot(np.array([2, 0]), 3)
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    if classes.size and classes.min() < 0:
        raise RuntimeError("Class values must be non-negative.")
    if classes.size and classes.max() >= count:
        raise RuntimeError("Class values must be smaller than num_classes.")
    y = np.zeros((classes.size, count), np.int64)
    y[np.arange(classes.size), classes.reshape(-1)] = 1
    return y.reshape((*classes.shape, count))
