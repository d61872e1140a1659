"""Twins: the native version of a NumPy kernel, written as a plan of native calls.

A twin is declared with the NumPy kernel it stands for, takes the same arguments after a ``plan``,
and returns the same results. It does not compute: it asks the plan for memory and tells it which
native kernels to call with what. The compiler's plan lays this out once and runs it many times;
:class:`AtOnce` is the plan that runs every call immediately, on ndarrays.

A twin returns ``NotImplemented`` for what it does not serve (a dtype, a layout): the NumPy kernel
then does the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilograd.kernels.native.build import Kernel

TWINS: dict[Any, Callable[..., Any]] = {}
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def twin(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the native version of a NumPy kernel (or of several that are one function)."""

    def declare(fn: Callable[..., Any]) -> Callable[..., Any]:
        for f in functions:
            TWINS[f] = fn
        return fn

    return declare


class AtOnce:
    """The plan that runs each call as it is made, on ndarrays."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Memory for a result, or for scratch; contiguous."""
        return np.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Memory filled with zeros, on every run."""
        return np.zeros(shape, dtype)

    def contiguous(self, *arrays: Any) -> bool:
        """Whether all of these (None aside) lie in C order without gaps."""
        return all(a is None or a.flags.c_contiguous for a in arrays)

    def as_contiguous(self, x: Any) -> Any:
        """x in C order: itself, or a copy."""
        return np.ascontiguousarray(x)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        """A contiguous array in another shape, sharing its memory."""
        return x.reshape(shape)

    def view(self, x: Any, index: Any) -> Any:
        """x[index] for slices and integers: another way to look at its memory."""
        return x[index]

    def copy(self, to: Any, source: Any) -> None:
        """``to[...] = source``, with broadcasting and conversion."""
        to[...] = source

    def fill(self, to: Any, value: float) -> None:
        """Give every element one value."""
        to[...] = value

    def call(self, kernel: Kernel, *args: Any, dtype: Any, work: int = 0) -> None:
        """Call a native kernel compiled for ``dtype``: arrays, numbers, or None for no array.

        ``work``: about how many elements it touches (a matrix product: multiplications / 8), from
        which the plan decides whether several threads share it.
        """
        kernel(*args, dtype=dtype)

    def status(self) -> Any:
        """An int64 array (1,): a kernel writes a number other than 0 there to stop with an error.

        The program is then run again by NumPy, which raises the right one.
        """
        return np.zeros(1, np.int64)


def floats(*arrays: Any) -> bool:
    """Whether all of these (None aside) are of one floating dtype that kernels are compiled for."""
    kinds = {a.dtype for a in arrays if a is not None}
    return len(kinds) == 1 and kinds <= set(FLOATS)


def size(shape: tuple[int, ...]) -> int:
    """The number of elements of a shape."""
    return math.prod(shape)
