"""Reductions and scans: many elements become one, or each one the sum of those before it.

A reduction's gradient is spread back over what was reduced; a scan's is the same scan from the other
end. What selects an element (max over a dimension, sort, kthvalue) is ``pick`` with the places found.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.errors import DtypeError
from kilograd.kernels import order as orders
from kilograd.kernels import place
from kilograd.kernels import scatter as kernels
from kilograd.ops.elementwise import cast, where
from kilograd.ops.op import no_grad_op, op
from kilograd.ops.shape import broadcast_to, concatenate, flip

_SMALL = 1 << 14  # elements
_add: Any = np.add.reduce
_max: Any = np.maximum.reduce
_min: Any = np.minimum.reduce


def kept_shape(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """The shape a reduction over ``axis`` leaves with ``keepdims=True``."""
    if axis is None:
        return (1,) * len(shape)
    axes = {a % len(shape) for a in (axis if type(axis) is tuple else (axis,))} if shape else ()
    return tuple([1 if i in axes else n for i, n in enumerate(shape)])


def spread(g: Any, shape: tuple[int, ...], axis: Any) -> Any:
    """A reduction's gradient, repeated along the axes that were reduced."""
    g = keep(g, shape, axis)
    if math.prod(shape) < _SMALL:
        return repeated(g, shape=shape)
    return broadcast_to(g, shape=shape)


def keep(g: Any, shape: tuple[int, ...], axis: Any) -> Any:
    """A reduction's result with the reduced axes of ``shape`` as axes of size 1."""
    return g.reshape(kept_shape(shape, axis))


@op
def repeated(x, *, shape):
    """``broadcast_to`` with memory of its own: ten times quicker for a small array."""
    if type(x) is not np.ndarray:  # being recorded: what a fused loop can read
        return np.broadcast_to(x, shape).copy()
    y = np.empty(shape, x.dtype)
    y[...] = x
    return y


@repeated.vjp("x")
def _(g):
    return g  # the driver sums it


def count(shape: tuple[int, ...], axis: Any) -> int:
    """How many elements a reduction over ``axis`` makes into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod([shape[a] for a in (axis if type(axis) is tuple else (axis,))]) if shape else 1


def floating(x: Any, name: str) -> None:
    """Refuse integers."""
    if x.dtype.kind not in "fc":
        raise DtypeError(
            f"{name}: could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {x.dtype}"
        )


# --- sums -------------------------------------------------------------------------------------------


@op
def sum(x, *, axis=None, keepdims=False):
    """The sum over axes; integers add up as int64, float16 in float32."""
    code = x.dtype.char
    if code in "fdFD":
        return _add(x, axis, None, None, keepdims)
    if code == "e":
        return _add(x, axis, np.float32, None, keepdims).astype(np.float16)
    return _add(x, axis, np.int64, None, keepdims)


@sum.vjp("x")
def _(g, x_shape, axis):
    return spread(g, x_shape, axis)


@op
def mean(x, *, axis=None, keepdims=False):
    """The mean over axes."""
    floating(x, "mean()")
    if x.dtype.char == "e":
        return mean.forward(x.astype(np.float32), axis=axis, keepdims=keepdims).astype(np.float16)
    y = _add(x, axis, None, None, keepdims)
    return y / (x.size // y.size if y.size else 1)


@mean.vjp("x")
def _(g, x_shape, axis):
    return spread(g * (1 / max(count(x_shape, axis), 1)), x_shape, axis)


@op
def nansum(x, *, axis=None, keepdims=False):
    """The sum over axes of what is not nan."""
    return sum.forward(np.where(np.isnan(x), x.dtype.type(0), x), axis=axis, keepdims=keepdims)


@nansum.vjp("x")
def _(g, x, axis):
    return where(np.isnan(x), 0.0, spread(g, x.shape, axis))


def mirrored(x):
    """The conjugate, where a slope of |x| points along x (``autograd/conjugate.py``); real x as they are."""
    return x.conj() if x.dtype.kind == "c" else x


def real_only(x):
    """Raise for complex numbers, of which a rule is not the derivative."""
    if x.dtype.kind == "c":
        raise NotImplementedError("there is no gradient of complex numbers through this yet")


def _variance(x, axis, correction, keepdims):
    if x.dtype.char == "e":
        y, n = _variance(x.astype(np.float32), axis, correction, keepdims)
        return y.astype(np.float16), n
    n = count(x.shape, axis)
    d = x - _add(x, axis, None, None, True) / max(n, 1)
    if d.dtype.kind == "c":
        d = np.absolute(d)
    d *= d
    return _add(d, axis, None, None, keepdims) / max(n - correction, 0), n


@op(weight=2)
def var(x, *, axis=None, correction=1, keepdims=False):
    """The variance over axes: squared deviations divided by their number less a correction."""
    floating(x, "var")
    return _variance(x, axis, correction, keepdims)[0]


def _var_slope(g, x, axis, correction):
    n = count(x.shape, axis) - correction
    slope = g * (2 / n if n > 0 else math.inf)
    return slope * mirrored(x - mean(x, axis=axis, keepdims=True))


@var.vjp("x")
def _(g, x, axis, correction):
    return _var_slope(keep(g, x.shape, axis), x, axis, correction)


@op(weight=2)
def std(x, *, axis=None, correction=1, keepdims=False):
    """The standard deviation over axes: the root of ``var``."""
    floating(x, "std")
    return np.sqrt(_variance(x, axis, correction, keepdims)[0])


@std.vjp("x")
def _(g, x, y, axis, correction):
    g = where(y == 0, 0.0, g / (y * 2))
    return _var_slope(keep(g, x.shape, axis), x, axis, correction)


@op(weight=2)
def logsumexp(x, *, axis, keepdims=False):
    """The logarithm of the sum of exponentials over axes, without overflow."""
    if not x.size:
        return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    y = np.log(np.exp(x - top).sum(axis=axis, keepdims=keepdims))
    return y + (top if keepdims else top.reshape(y.shape))


@logsumexp.vjp("x")
def _(g, x, y, axis):
    y = keep(y, x.shape, axis)
    return keep(g, x.shape, axis) * np.exp(x - where(y == -math.inf, 0.0, y))


# --- products ---------------------------------------------------------------------------------------


@op(weight=2)
def prod(x, *, axis=None, keepdims=False):
    """The product over axes."""
    code = x.dtype.char
    if code in "fdFD":
        return x.prod(axis=axis, keepdims=keepdims)
    if code == "e":
        return x.prod(axis=axis, keepdims=keepdims, dtype=np.float32).astype(np.float16)
    return x.prod(axis=axis, keepdims=keepdims, dtype=np.int64)


@prod.vjp("x")
def _(g, x, y, axis):
    if axis is None:
        flat = x.reshape((math.prod(x.shape),))
        return prod_gradient(g.reshape((1,)), flat, y.reshape((1,)), 0).reshape(x.shape)
    shape = kept_shape(x.shape, axis)
    return prod_gradient(g.reshape(shape), x, y.reshape(shape), axis)


def prod_gradient(g: Any, x: Any, y: Any, axis: Any) -> Any:
    """``g`` times the product of all others: y / x, or from both sides where x has zeros."""
    if math.prod(x.shape) == 0 or x.ndim == 0:
        return g * (x * 0 + 1)
    if type(x) is np.ndarray and (x != 0).all():
        return g * y / x
    axis = (axis[0] if type(axis) is tuple else axis) % x.ndim
    before = cumprod(_moved_up(x, axis), axis=axis)
    after = cumprod(_moved_up(flip(x, axes=(axis,)), axis), axis=axis)
    return g * before * flip(after, axes=(axis,))


def _moved_up(x, axis):
    """``x`` moved one place up an axis, 1 coming in."""
    first = (*(slice(None),) * axis, slice(0, 1))
    rest = (*(slice(None),) * axis, slice(0, x.shape[axis] - 1))
    return concatenate(np.zeros_like(x[first]) + 1, x[rest], axis=axis)


# --- scans ------------------------------------------------------------------------------------------


@op(weight=2)
def cumsum(x, *, axis, reverse=False):
    """The sums of the elements up to each place along an axis, or with ``reverse`` from there on."""
    return orders.cumsum(x, axis, reverse)


@cumsum.vjp("x")
def _(g, axis, reverse):
    return cumsum(g, axis=axis, reverse=not reverse)


def _from_the_end(scan, x, axis):
    return flip(scan(flip(x, axes=(axis,)), axis=axis), axes=(axis,))


@op(weight=2)
def cumprod(x, *, axis):
    """The products of the elements up to each place along an axis."""
    return orders.cumprod(x, axis)


@cumprod.vjp("x")
def _(g, x, y, axis):
    if (x != 0).all():
        return cumsum(g * y, axis=axis, reverse=True) / x
    # Row k holds the products with x[k] left out: n² numbers, but only for inputs with zeros.
    n = x.shape[axis]
    others = x[(*(slice(None),) * axis, None)]  # (*, 1, n, *)
    row = np.arange(n).reshape((n,) + (1,) * (x.ndim - axis))
    column = np.arange(n).reshape((n,) + (1,) * (x.ndim - axis - 1))
    products = cumprod(where(row == column, 1.0, others), axis=axis + 1)
    gk = g[(*(slice(None),) * axis, None)]
    return where(column >= row, gk * products, 0.0).sum(axis=axis + 1)


@op(weight=2)
def logcumsumexp(x, *, axis):
    """The logarithm of the cumulative sum of exponentials along an axis, without overflow."""
    floating(x, "logcumsumexp")
    return np.logaddexp.accumulate(x, axis=axis)


@logcumsumexp.vjp("x")
def _(g, x, y, axis):
    # Σ g exp(x - y) over the places from here on, summed in logarithms, by sign
    def part(g):
        positive = g > 0
        log = where(positive, np.log(where(positive, g, 1.0)), -1e30)  # exp of it is 0
        return np.exp(_from_the_end(logcumsumexp, log - y, axis) + x)

    return part(g) - part(-g)


# --- extremes ---------------------------------------------------------------------------------------


@op(weight=2)
def amax(x, *, axis=None, keepdims=False):
    """The maximum over axes; equal maxima share the gradient."""
    return _max(x, axis, None, None, keepdims)


@op(weight=2)
def amin(x, *, axis=None, keepdims=False):
    """The minimum over axes; equal minima share the gradient."""
    return _min(x, axis, None, None, keepdims)


@op
def median_of_all(x, *, ignore_nan=False):
    """The lower median of all elements."""
    flat = np.sort(x, axis=None)
    n = len(flat)
    if not n:
        return x.dtype.type(math.nan if x.dtype.kind == "f" else 0)
    valid = n - np.isnan(flat).sum()
    if valid < n and not (ignore_nan and valid):
        return flat[-1]
    return flat[(valid - 1) // 2]


def _share_among_equals(g, at, axis):
    ones = cast(at, dtype=g.dtype) if g.dtype.itemsize > 2 else at  # counted as floats, in a loop
    return where(at, cast(g / ones.sum(axis=axis, keepdims=True), dtype=g.dtype), 0.0)


@amax.vjp("x")
@amin.vjp("x")
def _(g, x, y, axis):
    y, g = keep(y, x.shape, axis), keep(g, x.shape, axis)
    at = x == y
    if type(y) is not np.ndarray or np.isnan(y).any():
        at = at | (x != x)  # the extreme of something with a nan is nan
    return _share_among_equals(g, at, axis)


@median_of_all.vjp("x")
def _(g, x, y):
    y, g = keep(y, x.shape, None), keep(g, x.shape, None)
    return _share_among_equals(g, (x == y) | (np.isnan(x) & np.isnan(y)), None)


# --- choosing elements along an axis ------------------------------------------------------------------


@op(weight=2)
def pick(x, index, *, axis, keepdims=True, distinct=True):
    """``x`` at an index array along an axis.

    ``keepdims=False`` drops that axis, of size 1; ``distinct``: no element is read twice.
    """
    if not x.ndim:
        return x.copy()
    y = place.gather(x, index, axis)
    return y if keepdims else y.reshape(y.shape[:axis] + y.shape[axis + 1 :])


def _picked(g, index, x_shape, axis, distinct):
    return unpick(g.reshape(index.shape), index, shape=x_shape, axis=axis, distinct=distinct)


pick.vjp("x")(_picked)


@op(weight=2)
def unpick(v, index, *, shape, axis, distinct=True):
    """Zeros of a shape with ``v`` added at an index array along an axis."""
    if not shape:
        return v.reshape(shape).copy()
    if not distinct:
        return kernels.scatter_add(shape, axis, index, v)
    return place.scatter_zeros(v, index, shape, axis)


@unpick.vjp("v")
def _(g, index, axis, distinct):
    return pick(g, index, axis=axis, distinct=distinct)


@op(weight=2)
def max_at(x, index, *, axis, keepdims=True, distinct=True):
    """The maximum along an axis, of which the place (kept dimension) is known."""
    return _max(x, axis, None, None, keepdims)


@op(weight=2)
def min_at(x, index, *, axis, keepdims=True, distinct=True):
    """The minimum along an axis, of which the place (kept dimension) is known."""
    return _min(x, axis, None, None, keepdims)


max_at.vjp("x")(_picked)
min_at.vjp("x")(_picked)


# --- places: not differentiable -------------------------------------------------------------------------


@no_grad_op
def argsort(x, *, axis, descending=False):
    """The places of the sorted elements, equal ones in their order; nan is the largest."""
    return orders.argsort(x, axis, descending)


@op(differentiable=False, weight=2)
def arg_topk(x, *, k, axis, largest):
    """The places of the k largest (or smallest) elements, in order."""
    return orders.arg_topk(x, k, axis, largest)


@no_grad_op
def arg_kth(x, *, k, axis):
    """The place of the k-th smallest element, as an axis of size 1."""
    return argsort.forward(x, axis=axis)[(*(slice(None),) * axis, slice(k - 1, k))]


@no_grad_op
def arg_median(x, *, axis, ignore_nan=False):
    """The place of the lower median, as an axis of size 1; of a nan if there is one to heed."""
    nans = np.isnan(x).sum(axis=axis, keepdims=True)
    numbers = x.shape[axis] - nans
    middle = np.maximum(numbers - 1, 0) // 2
    if not ignore_nan:
        middle = np.where(nans > 0, numbers, middle)  # nan sorts behind the numbers
    return np.take_along_axis(argsort.forward(x, axis=axis), middle, axis)


@no_grad_op
def arg_mode(x, *, axis):
    """The last place of the most frequent element (the smallest of those), as an axis of size 1."""
    order = np.moveaxis(argsort.forward(x, axis=axis), axis, -1)
    ordered = np.take_along_axis(np.moveaxis(x, axis, -1), order, -1)
    place = np.arange(ordered.shape[-1])
    new = np.ones(ordered.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    run = place - np.maximum.accumulate(np.where(new, place, 0), -1)  # how many equal ones before
    best = run.argmax(-1)[..., None]
    return np.moveaxis(np.take_along_axis(order, best, -1), -1, axis)


def _running(x, axis, running):
    met = x == running
    if x.dtype.kind == "f":
        met |= np.isnan(x)
    place = np.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - axis - 1))
    return np.maximum.accumulate(np.where(met, place, 0), axis=axis)


@no_grad_op
def arg_cummax(x, *, axis):
    """The latest place so far where the maximum so far was met."""
    return _running(x, axis, np.maximum.accumulate(x, axis=axis))


@no_grad_op
def arg_cummin(x, *, axis):
    """The latest place so far where the minimum so far was met."""
    return _running(x, axis, np.minimum.accumulate(x, axis=axis))


@no_grad_op
def argmax(x, *, axis=None, keepdims=False):
    """The first place of the maximum (of a nan, if there is one)."""
    return x.argmax(axis=axis, keepdims=keepdims)


@no_grad_op
def argmin(x, *, axis=None, keepdims=False):
    """The first place of the minimum (of a nan, if there is one)."""
    return x.argmin(axis=axis, keepdims=keepdims)


@no_grad_op
def all(x, *, axis=None, keepdims=False):
    """Whether no element is zero; a bool, for uint8 a uint8."""
    y = x.all(axis=axis, keepdims=keepdims)
    return y.astype(np.uint8) if x.dtype.char == "B" else y


@no_grad_op
def any(x, *, axis=None, keepdims=False):
    """Whether an element is not zero; a bool, for uint8 a uint8."""
    y = x.any(axis=axis, keepdims=keepdims)
    return y.astype(np.uint8) if x.dtype.char == "B" else y


@no_grad_op
def count_nonzero(x, *, axis=None):
    """How many elements are not zero."""
    return (x != 0).sum(axis=axis, dtype=np.int64)
