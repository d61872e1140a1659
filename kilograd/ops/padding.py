"""A border of constants, and its transpose: cutting the border off."""

from __future__ import annotations

import numpy as np

from kilograd.ops.op import op


def _inner(pads, shape):
    """Which part of the input is kept, and where it goes."""
    kept, place = [], []
    for (a, b), n in zip(pads, shape, strict=True):
        kept.append(slice(max(-a, 0), n - max(-b, 0)))
        place.append(slice(max(a, 0), n + a + b - max(b, 0)))
    return tuple(kept), tuple(place)


@op
def pad_constant(x, *, pads, value=0):
    """x with (before, after) elements of a value at each end of each axis; negative ones cut."""
    kept, place = _inner(pads, x.shape)
    shape = [n + a + b for (a, b), n in zip(pads, x.shape, strict=True)]
    y = np.full(shape, value, x.dtype) if value else np.zeros(shape, x.dtype)
    y[place] = x[kept]
    return y


@pad_constant.vjp("x")
def _(g, pads):
    return pad_constant(g, pads=tuple([(-a, -b) for a, b in pads]))
