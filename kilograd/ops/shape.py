"""Ops that move elements without computing: each one's gradient moves them back."""

from __future__ import annotations

import numpy as np

from kilograd.kernels import place
from kilograd.kernels.memory import is_own
from kilograd.ops.op import op


@op(view=True)
def reshape(x, *, shape):
    """The same elements in another shape (a view where the memory layout allows)."""
    return x.reshape(shape)


@reshape.vjp("x")
def _(g, x_shape):
    return g.reshape(x_shape)


@op(view=True)
def view(x, *, shape):
    """The same memory in another shape; ValueError where only a copy could have that shape."""
    y = x.reshape(shape)
    base = y.base
    if base is x or (base is not None and base is x.base) or y is x or x.size <= 1:
        return y
    raise ValueError(
        "view size is not compatible with input tensor's size and stride (at least one dimension "
        "spans across two contiguous subspaces). Use .reshape(...) instead."
    )


@view.vjp("x")
def _(g, x_shape):
    return g.reshape(x_shape)


@op(view=True)
def permute(x, *, axes):
    """The axes in another order."""
    return x.transpose(axes)


@permute.vjp("x")
def _(g, axes):
    inverse = [0] * len(axes)
    for i, a in enumerate(axes):
        inverse[a] = i
    return permute(g, axes=tuple(inverse))


@op(view=True)
def swapaxes(x, *, a, b):
    """Two axes exchanged."""
    return x.swapaxes(a, b)


@swapaxes.vjp("x")
def _(g, a, b):
    return swapaxes(g, a=a, b=b)


@op(view=True)
def broadcast_to(x, *, shape):
    """Axes of size 1 repeated without copying; the driver sums them back."""
    if x.shape == shape:
        return x.view()  # nothing repeats: stays writable
    return np.broadcast_to(x, shape)


@broadcast_to.vjp("x")
def _(g):
    return g


def _copies_apart(shape, times):
    """The shape in which an array repeated along its axes has an axis for the copies before each."""
    shape = (1,) * (len(times) - len(shape)) + tuple(shape)
    return tuple([n for pair in zip(times, shape, strict=True) for n in pair])


@op(weight=2)
def repeat(x, *, times):
    """``times[i]`` copies one after the other along axis i; axes of size 1 come in front."""
    once = _copies_apart(x.shape, (1,) * len(times))
    y = np.broadcast_to(x.reshape(once), _copies_apart(x.shape, times)).copy()
    return y.reshape(tuple([a * b for a, b in zip(y.shape[::2], y.shape[1::2], strict=True)]))


@repeat.vjp("x")
def _(g, x_shape, times):
    copies = g.reshape(_copies_apart(x_shape, times))
    return copies.sum(axis=tuple(range(0, copies.ndim, 2))).reshape(x_shape)


@op
def concatenate(*xs, axis):
    """Arrays joined along an axis."""
    return np.concatenate(xs, axis)


@concatenate.vjp("xs")
def _(g, xs_shape, axis):
    axis = axis % g.ndim
    before = (slice(None),) * axis
    parts, start = [], 0
    for shape in xs_shape:
        stop = start + shape[axis]
        parts.append(g[(*before, slice(start, stop))])
        start = stop
    return parts


@op(outputs=2)
def split(x, *, ends, axis):
    """Consecutive parts along an axis, which stop at ``ends``; together they are all of it."""
    before, parts, start = (slice(None),) * axis, [], 0
    for stop in ends:
        parts.append(x[(*before, slice(start, stop))])
        start = stop
    return tuple(parts)


@split.vjp("x")
def _(g, axis):
    return concatenate(*g, axis=axis)


@op
def stack(*xs, axis):
    """Arrays joined along a new axis."""
    return np.stack(xs, axis)


@stack.vjp("xs")
def _(g, xs_shape, axis):
    before = (slice(None),) * (axis % g.ndim)
    return [g[(*before, i)] for i in range(len(xs_shape))]


@op(outputs=2)
def unbind(x, *, axis):
    """The slices along an axis, without it."""
    before = (slice(None),) * axis
    return tuple([x[(*before, i, ...)] for i in range(x.shape[axis])])


@unbind.vjp("x")
def _(g, axis):
    return stack(*g, axis=axis)


@op
def flip(x, *, axes):
    """The order reversed along axes."""
    return np.flip(x, axes).copy()


@flip.vjp("x")
def _(g, axes):
    return flip(g, axes=axes)


@op(weight=2)
def roll(x, *, shifts, axes):
    """Elements shifted along axes, those pushed out re-entering at the other end."""
    return np.roll(x, shifts, axes)


@roll.vjp("x")
def _(g, shifts, axes):
    back = tuple(-s for s in shifts) if isinstance(shifts, tuple) else -shifts
    return roll(g, shifts=back, axes=axes)


# --- diagonals and triangles --------------------------------------------------------------------


@op(view=True)
def diagonal(x, *, offset, a, b):
    """The elements ``offset`` to the right of the diagonal of axes a and b, as the last axis."""
    y = np.diagonal(x, offset, a, b)
    if x.flags.writeable:
        y.flags.writeable = True  # NumPy is cautious; here a view of the diagonal may be written
    return y


@diagonal.vjp("x")
def _(g, x_shape, offset, a, b):
    return diagonal_put(g, shape=x_shape, offset=offset, a=a, b=b)


@op
def diagonal_put(v, *, shape, offset, a, b):
    """Zeros of a shape with ``v`` on a diagonal."""
    return place.put_diagonal(v, shape, offset, a, b)


@diagonal_put.vjp("v")
def _(g, offset, a, b):
    return diagonal(g, offset=offset, a=a, b=b)


@op(weight=2)
def tril(x, *, k):
    """The lower triangles of the last two axes, from k above the diagonal; zero elsewhere."""
    return np.tril(x, k)


@tril.vjp("x")
def _(g, k):
    return tril(g, k=k)


@op(weight=2)
def triu(x, *, k):
    """The upper triangles of the last two axes, from k above the diagonal; zero elsewhere."""
    return np.triu(x, k)


@triu.vjp("x")
def _(g, k):
    return triu(g, k=k)


# --- windows and strides ------------------------------------------------------------------------


def owner(x: np.ndarray) -> np.ndarray:
    """The array whose memory ``x`` looks into, as far down as there are arrays."""
    while not is_own(x) and isinstance(x.base, np.ndarray):
        x = x.base
    return x


def address(x: np.ndarray) -> int:
    """Where the first element lies in memory."""
    return x.ctypes.data


def packed_strides(shape, itemsize: int) -> tuple[int, ...]:
    """The strides of an array without gaps, for elements of ``itemsize``."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def strided(x: np.ndarray, shape, strides, offset: int = 0) -> np.ndarray:
    """A view of the memory ``x`` lies in: strides in bytes, offset in bytes from x's first element."""
    top = owner(x)
    if not top.flags.c_contiguous:
        top = top.T if top.flags.f_contiguous else x
    if not top.flags.c_contiguous:
        raise ValueError("the memory of this tensor has gaps and cannot be strided over")
    y = np.ndarray(shape, x.dtype, top, address(x) - address(top) + offset, strides)
    if any(s == 0 and n > 1 for s, n in zip(strides, shape, strict=True)):
        y.flags.writeable = False
    return y


@op(view=True)
def unfold(x, *, axis, size, step):
    """Windows of ``size`` elements along an axis, ``step`` apart; the window is the last axis."""
    if x.ndim == 0:
        return x.reshape(1)[:size]
    count = (x.shape[axis] - size) // step + 1
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :], size)
    stride = x.strides[axis]
    strides = (*x.strides[:axis], stride * step, *x.strides[axis + 1 :], stride)
    return strided(x, shape, strides)


@unfold.vjp("x")
def _(g, x_shape, axis, size, step):
    return unfold_put(g, shape=x_shape, axis=axis, size=size, step=step)


@op
def unfold_put(v, *, shape, axis, size, step):
    """Windows added up where they lay in an array of a shape."""
    y = np.zeros(shape, v.dtype)
    if y.ndim == 0:
        return v.sum(axis=0, dtype=v.dtype) if size else y
    before, span = (slice(None),) * axis, (v.shape[axis] - 1) * step + 1
    for k in range(size):
        y[(*before, slice(k, k + span, step))] += v[..., k]
    return y


@unfold_put.vjp("v")
def _(g, axis, size, step):
    return unfold(g, axis=axis, size=size, step=step)
