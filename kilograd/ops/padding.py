"""A border of constants, and its transpose: cutting the border off."""

from __future__ import annotations

from kilograd.kernels import place
from kilograd.ops.op import op


@op(weight=2)
def pad_constant(x, *, pads, value=0):
    """x with (before, after) elements of a value at each end of each axis; negative ones cut."""
    return place.pad_constant(x, pads, value)


@pad_constant.vjp("x")
def _(g, pads):
    return pad_constant(g, pads=tuple([(-a, -b) for a, b in pads]))
