"""Sizes that are given once for all spatial dimensions or one by one; inputs without a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.errors import ShapeError
from kilograd.ops import elementwise as ew
from kilograd.ops import shape as shape_ops
from kilograd.tensor import Tensor

_HALF = np.dtype("float16")


def per_dim(value: Any, n: int, name: str) -> tuple[int, ...]:
    """``value`` for each of n dimensions: one number for all, or a sequence of n."""
    if type(value) is int:
        return (value,) * n
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return (_whole(value[0], name),) * n
        if len(value) == n:
            return tuple([_whole(v, name) for v in value])
        raise RuntimeError(f"{name} must be one integer or {n}, but got {value}")
    return (_whole(value, name),) * n


def _whole(value: Any, name: str) -> int:
    if isinstance(value, (bool, float)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be int or a tuple of ints, not {type(value).__name__}")
    return int(value.__index__())


def batched(input: Tensor, n: int, name: str) -> tuple[Tensor, bool]:
    """An input as (N, C, *spatial) of n spatial dimensions, and whether the N was added."""
    ndim = input.array.ndim
    if ndim == n + 2:
        return input, False
    if ndim == n + 1:
        return shape_ops.reshape(input, shape=(1, *input.array.shape)), True
    raise ShapeError(
        f"{name}: expected {n + 1}D (unbatched) or {n + 2}D (batched) input, but got input of size "
        f"{list(input.array.shape)}"
    )


def unbatched(output: Tensor, added: bool) -> Tensor:
    """Take away the batch dimension that :func:`batched` added."""
    return shape_ops.reshape(output, shape=output.array.shape[1:]) if added else output


def in_float32(fn: Callable[..., Any]) -> Callable[..., Any]:
    """float16 arguments are computed with as float32, and the results brought back.

    NumPy's own float16 is slow, and sums in it lose digits.
    """

    @functools.wraps(fn)
    def wrapper(input: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(input, "array", input).dtype is not _HALF:
            return fn(input, *args, **kwargs)
        single = np.dtype("float32")

        def up(a: Any) -> Any:
            if isinstance(a, Tensor) and a.array.dtype is _HALF:
                return ew.cast(a, dtype=single)
            return a

        def down(y: Any) -> Any:
            if isinstance(y, tuple):
                return tuple(down(a) for a in y)
            if isinstance(y, Tensor) and y.array.dtype is single:
                return ew.cast(y, dtype=_HALF)
            return y

        return down(fn(up(input), *map(up, args), **{k: up(v) for k, v in kwargs.items()}))

    return wrapper
