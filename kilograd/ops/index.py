"""Reading and writing parts of an array; what reading takes, its gradient puts back.

Families that are closed under differentiation, one line each::

    getitem        put_zeros          index_put      any NumPy index
    index_select   index_add_zeros    index_assign   a 1-d index along an axis
    gather         scatter_add_zeros  scatter        an index of the input's own rank, along an axis
    masked_select  masked_place       where          a mask

The second of each family is the gradient of the first, and the other way round.
"""

from __future__ import annotations

import math

import numpy as np

from kilograd.kernels import place
from kilograd.kernels import scatter as kernels
from kilograd.ops.elementwise import where
from kilograd.ops.op import no_grad_op, op
from kilograd.ops.shape import strided

# --- any NumPy index ----------------------------------------------------------------------------


@op(view=True)
def getitem(x, *, index):
    """``x[index]``, any NumPy index."""
    y = x[index]
    if (
        type(y) is not np.ndarray and not y.ndim
    ):  # NumPy copies a single element: `...` keeps it a view
        y = x[(*index, ...) if type(index) is tuple else (index, ...)]
    return y


@getitem.vjp("x")
def _(g, x_shape, index):
    return put_zeros(g, shape=x_shape, index=index)


def is_basic(index) -> bool:
    """Whether an index selects each element at most once by slices and integers alone."""
    parts = index if type(index) is tuple else (index,)
    return all(i is None or i is Ellipsis or isinstance(i, (int, slice, np.integer)) for i in parts)


@op(weight=2)
def put_zeros(x, *, shape, index):
    """Zeros of a shape with ``x`` added at an index (repeated places add up)."""
    if is_basic(index):
        return place.put_zeros(x, shape, index)
    parts = index if type(index) is tuple else (index,)
    return kernels.index_put_add(shape, parts, x)


@put_zeros.vjp("x")
def _(g, index):
    return getitem(g, index=index)


@op(weight=2)
def index_put(x, v, *, index):
    """A copy of ``x`` with ``v`` written at an index."""
    y = x.copy()
    y[index] = v
    return y


@index_put.vjp("x")
def _(g, index):
    return index_put(g, 0.0, index=index)


@index_put.vjp("v")
def _(g, index):
    return getitem(g, index=index)


@op
def view_put(x, v, *, view):
    """A copy of ``x`` with ``v`` written into the part of it that ``view(x)`` is."""
    y = x.copy()
    view(y)[...] = v
    return y


@view_put.vjp("x")
def _(g, view):
    return view_put(g, 0.0, view=view)


@view_put.vjp("v")
def _(g, view):
    return view(g)


# --- a 1-d index along an axis ------------------------------------------------------------------


@op(weight=2)
def index_select(x, index, *, axis):
    """The slices of ``x`` along an axis that a 1-d index names."""
    return x.take(index, axis)


@index_select.vjp("x")
def _(g, index, x_shape, axis):
    return index_add_zeros(g, index, shape=x_shape, axis=axis)


@op(weight=2)
def index_add_zeros(v, index, *, shape, axis):
    """Zeros of a shape with slices of ``v`` added where a 1-d index says."""
    return kernels.index_add(shape, index, v, axis)


@index_add_zeros.vjp("v")
def _(g, index, axis):
    return index_select(g, index, axis=axis)


@op
def index_assign(x, v, index, *, axis):
    """A copy of ``x`` with ``v`` written to the slices that a 1-d index names."""
    return place.index_assign(x, v, index, axis)


@index_assign.vjp("x")
def _(g, index, axis):
    return index_assign(g, 0.0, index, axis=axis)


@index_assign.vjp("v")
def _(g, index, axis):
    return index_select(g, index, axis=axis)


# --- an index of the input's own rank, along an axis ---------------------------------------------


@op(weight=2)
def gather(x, index, *, axis, refused=None):
    """``y[i, j, k] = x[i, index[i, j, k], k]`` (for axis 1); index may be smaller than x.

    ``refused``: the message and the exception for an index that is negative or too large.
    """
    return place.gather(x, index, axis, refused)


@gather.vjp("x")
def _(g, index, x_shape, axis):
    return scatter_add_zeros(g, index, shape=x_shape, axis=axis)


@op(weight=2)
def scatter_add_zeros(v, index, *, shape, axis):
    """Zeros of a shape with ``y[i, index[i, j, k], k] += v[i, j, k]`` (for axis 1)."""
    if index.ndim == 0:
        return v.reshape(shape).copy()
    return kernels.scatter_add(shape, axis, index, v)


@scatter_add_zeros.vjp("v")
def _(g, index, axis):
    return gather(g, index, axis=axis)


@op(weight=2)
def scatter_add(x, v, index, *, axis, refused=None):
    """``x`` with ``y[i, index[i, j, k], k] += v[i, j, k]`` (for axis 1); ``refused`` as in ``gather``."""
    if index.ndim == 0:
        return x + v.reshape(x.shape)
    return kernels.scatter_add(x.shape, axis, index, v, x, refused)


@scatter_add.vjp("x")
def _(g):
    return g


@scatter_add.vjp("v")
def _(g, index, axis):
    return gather(g, index, axis=axis)


@op(weight=2)
def scatter(x, v, index, *, axis):
    """A copy of ``x`` with ``y[i, index[i, j, k], k] = v[i, j, k]`` (for axis 1)."""
    return place.scatter(x, v, index, axis)


@scatter.vjp("x")
def _(g, index, axis):
    return scatter(g, 0.0, index, axis=axis)


@scatter.vjp("v")
def _(g, index, axis):
    return gather(g, index, axis=axis)


@op
def scatter_reduce(x, v, index, *, axis, reduce, include_self):
    """``x`` and the elements of ``v`` that an index sends to one place, reduced to one."""
    return kernels.scatter_reduce(x, axis, index, v, reduce, include_self)


@scatter_reduce.vjp("x", "v")
def _(g, x, v, index, y, axis, reduce, include_self):
    shape = x.shape
    if reduce == "sum":
        to_x, to_v = g, gather(g, index, axis=axis)
    elif reduce == "mean":
        ones = np.ones_like(v)
        count = scatter_add_zeros(ones, index, shape=shape, axis=axis)
        if include_self:
            count = count + 1
        to_x = g / where(count == 0, 1.0, count)
        to_v = gather(to_x, index, axis=axis)
    elif reduce == "prod":
        to_x, to_v = _product_shares(g, x, v, index, y, axis, include_self)
    else:  # amax, amin: those that are the result share its gradient evenly
        v_won = v == gather(y, index, axis=axis)
        count = scatter_add_zeros(v_won * np.ones_like(v), index, shape=shape, axis=axis)
        x_won = x == y
        if include_self:
            count = count + x_won
        each = g / where(count == 0, 1.0, count)
        to_x = where(x_won, each, 0.0)
        to_v = where(v_won, gather(each, index, axis=axis), 0.0)
    if not include_self:
        to_x = scatter(to_x, 0.0, index, axis=axis)
    return to_x, to_v


def _product_shares(g, x, v, index, y, axis, include_self):
    """A product's gradients: the product of the others, also where one factor is zero."""
    how = {"axis": axis, "reduce": "prod", "include_self": include_self}
    x_safe = where(x == 0, 1.0, x)
    to_x = g * scatter_reduce(x_safe, v, index, **how) / x_safe
    v_zero = v == 0
    zeros = scatter_add_zeros(v_zero * np.ones_like(v), index, shape=x.shape, axis=axis)
    only_zero = v_zero & (gather(zeros, index, axis=axis) == 1)
    others = scatter_reduce(x, where(only_zero, 1.0, v), index, **how)
    nonzero_v = where(v_zero, 1.0, v)
    to_v = where(
        only_zero,
        gather(g * others, index, axis=axis),
        gather(g * y, index, axis=axis) / nonzero_v,
    )
    return to_x, to_v


@op
def fill(x, v):
    """``v`` everywhere, in the shape and dtype of ``x``."""
    return np.full_like(x, v)


@fill.vjp("x")
def _(g):
    return np.zeros_like(g)


@fill.vjp("v")
def _(g):
    return g


# --- a mask -------------------------------------------------------------------------------------


@op
def masked_fill(x, v, mask):
    """``x`` with the number ``v`` where the mask holds; keeps x's dtype."""
    if hasattr(v, "astype"):
        v = v.astype(x.dtype, copy=False)
    return np.where(mask, v, x)


@masked_fill.vjp("x")
def _(g, mask):
    return where(mask, 0.0, g)


@masked_fill.vjp("v")
def _(g, mask):
    return where(mask, g, 0.0)


@op
def masked_select(x, mask):
    """The elements where the mask (of x's shape) holds, 1-d."""
    return x[mask]


@masked_select.vjp("x")
def _(g, mask):
    return masked_place(g, mask)


@op
def masked_place(v, mask):
    """Zeros of the mask's shape with the elements of ``v`` (1-d), in order, where it holds."""
    return place.put_mask(v, mask)


@masked_place.vjp("v")
def _(g, mask):
    return masked_select(g, mask)


# --- memory as strides --------------------------------------------------------------------------


def places(shape, stride, offset) -> np.ndarray:
    """The position in memory (counted in elements) of each element of a strided array, flat."""
    at = np.full((), offset)
    for n, s in zip(shape, stride, strict=True):
        at = at[..., None] + np.arange(n) * s
    return at.reshape(-1)


@op(view=True)
def as_strided(x, *, shape, stride, offset, own):
    """Any strided view of the memory of ``x``, which itself lies there as ``own`` says.

    An array with another layout (a gradient, say) is first laid out like that: then the result is a
    copy, which nobody may write into.
    """
    item = x.itemsize
    expected = [s * item for s, n in zip(own[1], x.shape, strict=True) if n != 1]
    if expected == [s for s, n in zip(x.strides, x.shape, strict=True) if n != 1]:
        return strided(x, shape, tuple([s * item for s in stride]), (offset - own[2]) * item)
    mine, taken = places(*own), places(shape, stride, offset)
    memory = np.zeros(int(max(mine.max(initial=-1), taken.max(initial=-1))) + 1, x.dtype)
    memory[mine] = x.reshape(-1)
    y = memory[taken].reshape(shape)
    y.flags.writeable = False
    return y


@as_strided.vjp("x")
def _(g, shape, stride, offset, own):
    mine, taken = places(*own), places(shape, stride, offset)
    size = int(max(mine.max(initial=-1), taken.max(initial=-1))) + 1
    memory = index_add_zeros(g.reshape((math.prod(shape),)), taken, shape=(size,), axis=0)
    share = index_select(memory, mine, axis=0)
    overlaps = np.bincount(mine, minlength=1).max() > 1
    if overlaps:  # several elements of x lie in one place: they share
        share = share / np.bincount(mine)[mine]
    return share.reshape(own[0])


@no_grad_op
def nonzero(x):
    """The indices of the elements that are not zero, one row each."""
    return np.argwhere(x)
