"""Twins of the kernels that put an array into a larger one of zeros."""

from __future__ import annotations

from typing import Any

from kilograd.kernels import place
from kilograd.kernels.native.plan import twin


def _basic(index: Any) -> bool:
    parts = index if type(index) is tuple else (index,)
    return all(p is None or p is Ellipsis or type(p) in (int, slice) for p in parts)


@twin(place.put_zeros)
def put_zeros(plan: Any, g: Any, shape: tuple[int, ...], index: Any) -> Any:
    """The native form of ``place.put_zeros``."""
    if not _basic(index):
        return NotImplemented
    y = plan.zeros(shape, g.dtype)
    plan.copy(plan.view(y, index), g)
    return y


@twin(place.pad_constant)
def pad_constant(plan: Any, x: Any, pads: Any, value: float) -> Any:
    """The native form of ``place.pad_constant``."""
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
    if x.dtype.kind not in "fib" or any(n < 0 for n in shape):
        return NotImplemented
    y = plan.empty(shape, x.dtype)
    inside, source = [], []
    for n, (a, b) in zip(x.shape, pads, strict=True):
        inside.append(slice(max(a, 0), max(a, 0) + n + min(a, 0) + min(b, 0)))
        source.append(slice(max(-a, 0), n - max(-b, 0)))
    plan.fill(y, value)
    plan.copy(plan.view(y, tuple(inside)), plan.view(x, tuple(source)))
    return y
