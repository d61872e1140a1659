"""An index as PyTorch reads it, in terms of NumPy's: what ``t[index]`` does first."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.ops.op import Box


def as_index(index: Any) -> Any:
    """An index as NumPy takes it: tensors become arrays, 0-d integer tensors become ints."""
    if type(index) is tuple:
        return tuple([_index_part(i) for i in index])
    return _index_part(index)


def in_two_steps(index: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """(integers, slices and None first; then arrays), if all at once means something else to NumPy.

    NumPy takes an integer that a slice separates from an index array for one more index array, and
    puts their common dimensions first; in PyTorch an integer only removes its dimension.
    """
    advanced = [k for k, i in enumerate(index) if isinstance(i, np.ndarray)]
    numbers = [k for k, i in enumerate(index) if type(i) is int or isinstance(i, np.integer)]
    if not advanced or not numbers:
        return None
    first, last = min(advanced[0], numbers[0]), max(advanced[-1], numbers[-1])
    if last - first + 1 == len(advanced) + len(numbers):
        return None  # side by side: there is no difference
    before: list[Any] = []
    after: list[Any] = []
    for i in index:
        if isinstance(i, np.ndarray):
            before += [slice(None)] * (i.ndim if i.dtype.kind == "b" else 1)
            after.append(i)
        else:
            before.append(i)
            if i is Ellipsis:
                after.append(i)
            elif i is None or isinstance(i, slice):
                after.append(slice(None))
    return tuple(before), tuple(after)


def _index_part(i: Any) -> Any:
    if isinstance(i, Box):
        i = i.array
    if isinstance(i, np.ndarray):
        if i.dtype == np.uint8:
            return i.astype(bool)
        if i.dtype.kind not in "iub":
            raise IndexError(
                f"tensors used as indices must be long, int, byte or bool tensors, not {i.dtype}"
            )
        return int(i) if i.ndim == 0 and i.dtype.kind != "b" else i
    if isinstance(i, slice):
        if i.step is not None and i.step <= 0:
            raise ValueError("step must be greater than zero (use flip() to reverse)")
        return (
            i
            if not isinstance(i.start, Box) and not isinstance(i.stop, Box)
            else slice(*(None if k is None else int(k) for k in (i.start, i.stop, i.step)))
        )
    if isinstance(i, (list, range)):
        parts = [_index_part(k) for k in i]
        array = np.asarray(parts)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise IndexError(f"a list used as an index must hold integers or bools, got {i!r}")
        return array
    if isinstance(i, (float, str)):
        raise TypeError(
            "only integers, slices (`:`), ellipsis (`...`), None and integer or boolean tensors are "
            f"valid indices (got {type(i).__name__})"
        )
    return i
