"""Reductions (sum, mean, max…), scans (cumsum…), sorting, counting, and what is made of them.

``dim`` is an int, for most reductions also a tuple of ints, or None for all; negative numbers count
from the end. ``keepdim=True`` leaves reduced dimensions with size 1.
"""

from __future__ import annotations

import builtins
import math
import operator
import warnings
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import DtypeError, ShapeError
from kilograd.functions.calling import all_axes, function, one_axis, tensor_like
from kilograd.ops import activation as activation_ops
from kilograd.ops import decompositions, special
from kilograd.ops import elementwise as ew
from kilograd.ops import linalg as linalg_ops
from kilograd.ops import reduce as ops
from kilograd.ops.op import Op
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "argsort", "bincount",
    "bucketize", "count_nonzero", "cummax", "cummin", "cumprod", "cumsum",
    "cumulative_trapezoid", "diff", "dist", "gradient", "histc", "histogram", "isin",
    "kthvalue", "log_softmax", "logcumsumexp", "logsumexp", "max", "mean", "median", "min",
    "mode", "msort", "nanmean", "nanmedian", "nanquantile", "nansum", "norm", "prod",
    "quantile", "renorm", "searchsorted", "softmax", "sort", "std", "std_mean", "sum", "topk",
    "trapezoid", "trapz", "unique", "unique_consecutive", "var", "var_mean",
]  # fmt: skip

Dim = int | Sequence[int] | None


def _result(name: str, *fields: str) -> Any:
    """A named tuple of tensors, as PyTorch returns from the function of that name."""
    return namedtuple(name, fields, module="kilograd.return_types")


_Max = _result("max", "values", "indices")
_Min = _result("min", "values", "indices")
_Median = _result("median", "values", "indices")
_NanMedian = _result("nanmedian", "values", "indices")
_Mode = _result("mode", "values", "indices")
_KthValue = _result("kthvalue", "values", "indices")
_Sort = _result("sort", "values", "indices")
_TopK = _result("topk", "values", "indices")
_CumMax = _result("cummax", "values", "indices")
_CumMin = _result("cummin", "values", "indices")
_AMinMax = _result("aminmax", "min", "max")
_Histogram = _result("histogram", "hist", "bin_edges")


def _as(input: Tensor, dtype: Any) -> Tensor:
    """The tensor in the dtype asked for (None: its own)."""
    if dtype is None:
        return input
    wanted = dtypes.as_dtype(dtype).dtype
    return input if input.array.dtype == wanted else apply(ew.cast, (input,), {"dtype": wanted})


def _axes(dim: Any, ndim: int) -> Any:
    """NumPy's ``axis`` for ``dim``: most often None or an int."""
    if dim is None:
        return None
    if type(dim) is int and -ndim <= dim < ndim:
        return dim % ndim
    return all_axes(dim, ndim)


def _some(input: Tensor, axis: Any, name: str) -> None:
    """Raise where a reduction that has no neutral element has no elements."""
    if input.array.size:
        return
    axes = range(input.ndim) if axis is None else axis if type(axis) is tuple else (axis,)
    if not builtins.all(input.shape[a] for a in axes):
        text = f"{name}(): Expected reduction dim {axis} to have non-zero size, got {list(input.shape)}"
        raise ShapeError(text) if axis is None else IndexError(text)


def _numbers(input: Tensor, name: str) -> None:
    if input.array.dtype.kind in "bc":
        raise DtypeError(f"{name}: not implemented for {input.dtype}")


def _line(input: Tensor) -> Tensor:
    """A 0-d tensor as a 1-d one, for functions that work along a dimension."""
    return input if input.array.ndim else input.reshape(1)


def _at(
    input: Tensor, index: Tensor, axis: int, keepdim: bool = True, distinct: bool = True
) -> Tensor:
    """The elements at an index along an axis."""
    options = {"axis": axis, "keepdims": keepdim, "distinct": distinct}
    return apply(ops.pick, (input, index), options)


def _places(op: Op, input: Tensor, **options: Any) -> Tensor:
    return apply(op, (input,), options)


# --- sums and moments -------------------------------------------------------------------------------


@function
def sum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum, over all elements or over dimensions; integers give int64.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.sum(), x.sum(0), x.sum(dim=1, keepdim=True)
    (tensor(10.), tensor([4., 6.]), tensor([[3.], [7.]]))
    """
    axis = None if dim is None else _axes(dim, input.array.ndim)
    if dtype is not None:
        input = _as(input, dtype)
        y = apply(ops.sum, (input,), {"axis": axis, "keepdims": keepdim})
        return _as(y, dtype)
    return apply(ops.sum, (input,), {"axis": axis, "keepdims": keepdim})


@function
def nansum(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum, nan counting as 0.

    >>> import kilograd as kg
    >>> kg.nansum(kg.tensor([1.0, float("nan"), 2.0]))
    tensor(3.)
    """
    axis = _axes(dim, input.array.ndim)
    if dtype is None:
        return apply(ops.nansum, (input,), {"axis": axis, "keepdims": keepdim})
    numbers = apply(ew.where, (apply(ew.isnan, (input,)), 0, input))
    return sum(numbers, dim, keepdim, dtype=dtype)


@function
def mean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean, over all elements or over dimensions.

    Raises:
        RuntimeError: of integers (say ``dtype=``).

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.mean(), x.mean(0)
    (tensor(2.5000), tensor([2., 3.]))
    """
    axis = None if dim is None else _axes(dim, input.array.ndim)
    if dtype is not None:
        input = _as(input, dtype)
    return apply(ops.mean, (input,), {"axis": axis, "keepdims": keepdim})


@function
def nanmean(input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean of the elements that are not nan.

    >>> import kilograd as kg
    >>> kg.nanmean(kg.tensor([1.0, float("nan"), 2.0]))
    tensor(1.5000)
    """
    ops.floating(input, "nanmean")
    valid = apply(ew.logical_not, (apply(ew.isnan, (input,)),))
    return nansum(input, dim, keepdim, dtype=dtype) / sum(valid, dim, keepdim)


@function
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The product, of all elements or over one dimension; integers give int64.

    >>> import kilograd as kg
    >>> kg.prod(kg.tensor([[1, 2], [3, 4]])), kg.prod(kg.tensor([[1, 2], [3, 4]]), 0)
    (tensor(24), tensor([3, 8]))
    """
    axis = None if dim is None else one_axis(dim, input.array.ndim)
    y = apply(ops.prod, (_as(input, dtype),), {"axis": axis, "keepdims": keepdim})
    return _as(y, dtype)


def _spread_options(
    input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any, name: str
) -> dict[str, Any]:
    """The options of var and std: ``var(x, unbiased)`` and ``var(x, dim, unbiased)`` are accepted."""
    ops.floating(input, name)
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"{name}() takes unbiased= or correction=, not both")
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    axis = _axes(dim, input.array.ndim)
    if ops.count(input.array.shape, axis) <= correction and input.array.size:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the "
            f"reduction factor (input numel divided by output numel).",
            UserWarning,
            stacklevel=4,
        )
    return {"axis": axis, "correction": correction, "keepdims": keepdim}


@function
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance: squared deviations from the mean, divided by their number less ``correction`` (1).

    >>> import kilograd as kg
    >>> x = kg.tensor([1.0, 2.0, 3.0, 4.0])
    >>> x.var(), x.var(correction=0)
    (tensor(1.6667), tensor(1.2500))
    """
    options = _spread_options(input, dim, unbiased, keepdim, correction, "var")
    return apply(ops.var, (input,), options)


@function
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The standard deviation, the root of :func:`var`.

    >>> import kilograd as kg
    >>> kg.tensor([1.0, 2.0, 3.0]).std()
    tensor(1.)
    """
    options = _spread_options(input, dim, unbiased, keepdim, correction, "std")
    return apply(ops.std, (input,), options)


@function(method=False)
def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``(var, mean)``.

    >>> import kilograd as kg
    >>> kg.var_mean(kg.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    options = _spread_options(input, dim, unbiased, keepdim, correction, "var_mean")
    where = {"axis": options["axis"], "keepdims": keepdim}
    return apply(ops.var, (input,), options), apply(ops.mean, (input,), where)


@function(method=False)
def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``(std, mean)``.

    >>> import kilograd as kg
    >>> kg.std_mean(kg.tensor([1.0, 2.0, 3.0]))
    (tensor(1.), tensor(2.))
    """
    options = _spread_options(input, dim, unbiased, keepdim, correction, "std_mean")
    where = {"axis": options["axis"], "keepdims": keepdim}
    return apply(ops.std, (input,), options), apply(ops.mean, (input,), where)


@function
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log Σ exp(x) over dimensions, without overflow.

    >>> import kilograd as kg
    >>> kg.logsumexp(kg.tensor([1000.0, 1000.0]), 0)
    tensor(1000.6932)
    """
    axis = _axes(dim, input.array.ndim)
    if input.array.dtype.kind not in "fc":
        input = _as(input, dtypes.get_default_dtype())
    return apply(ops.logsumexp, (input,), {"axis": axis, "keepdims": keepdim})


def _softmax(op: Op, input: Tensor, dim: int, dtype: Any) -> Tensor:
    axis = one_axis(dim, input.array.ndim)
    input = _as(input, dtype)
    half = input.array.dtype.char == "e"
    x = _line(_as(input, dtypes.float32) if half else input)
    y = apply(op, (x,), {"axis": axis})
    y = _as(y, dtypes.float16) if half else y
    return y if input.array.ndim else y.reshape(())


@function
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) divided by its sum along a dimension; ``dtype``: convert the input first.

    >>> import kilograd as kg
    >>> kg.softmax(kg.tensor([[0.0, 0.0, 0.0, 0.0]]), dim=1)
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return _softmax(activation_ops.softmax, input, dim, dtype)


@function
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """The logarithm of :func:`softmax`, without underflow.

    >>> import kilograd as kg
    >>> kg.log_softmax(kg.tensor([[0.0, 0.0, 0.0, 0.0]]), dim=1)
    tensor([[-1.3863, -1.3863, -1.3863, -1.3863]])
    """
    return _softmax(activation_ops.log_softmax, input, dim, dtype)


# --- norms --------------------------------------------------------------------------------------------


@function
def norm(
    input: Tensor, p: Any = "fro", dim: Dim = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The p-norm over dimensions: (Σ |x|ᵖ)^(1/p); "fro" is p=2, "nuc" the sum of singular values.

    >>> import kilograd as kg
    >>> x = kg.tensor([[3.0, 4.0], [6.0, 8.0]])
    >>> kg.norm(x, dim=1), kg.norm(x, p=1), kg.norm(x, p=float("inf"))
    (tensor([ 5., 10.]), tensor(21.), tensor(8.))
    """
    ops.floating(input, "norm")
    axis = _axes(dim, input.array.ndim)
    input = _as(input, dtype)
    if p == "nuc":
        return _nuclear(input, (0, 1) if axis is None else axis, keepdim)
    if isinstance(p, str) and p != "fro":
        raise RuntimeError(f"norm: only valid strings are 'fro' and 'nuc', got {p!r}")
    order = 2.0 if p is None or p == "fro" else float(p)
    options = {"ord": order, "axis": axis, "keepdims": keepdim}
    return apply(linalg_ops.vector_norm, (input,), options)


def _nuclear(input: Tensor, axes: Any, keepdim: bool) -> Tensor:
    if type(axes) is not tuple or len(axes) != 2 or input.ndim < 2:
        raise RuntimeError("norm: the nuclear norm is that of a matrix: dim must be two dimensions")
    y = sum(apply(decompositions.svdvals, (input.movedim(axes, (-2, -1)),)), -1)
    return y.reshape(ops.kept_shape(input.array.shape, axes)) if keepdim else y


@function
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``, all elements together.

    >>> import kilograd as kg
    >>> kg.dist(kg.tensor([0.0, 0.0]), kg.tensor([3.0, 4.0]))
    tensor(5.)
    """
    for t in (input, other):
        if not isinstance(t, (Tensor, np.ndarray)):
            raise TypeError(f"dist(): expected Tensors, got {type(t).__name__}")
    return norm(input - other, p)


@function(inplace=True)
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Every slice along ``dim`` whose p-norm is above ``maxnorm``, scaled down to it.

    >>> import kilograd as kg
    >>> kg.renorm(kg.tensor([[3.0, 4.0], [0.3, 0.4]]), 2, 0, 1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    if input.ndim < 2:
        raise RuntimeError(
            f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions"
        )
    if p <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    axis = one_axis(dim, input.ndim)
    size = norm(input, p, [a for a in range(input.ndim) if a != axis], True)
    large = apply(ew.greater, (size, maxnorm))
    return input * apply(ew.where, (large, maxnorm / (size + 1e-7), 1.0))


# --- extremes -----------------------------------------------------------------------------------------


@function
def amax(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The maximum over dimensions; equal maxima share the gradient.

    >>> import kilograd as kg
    >>> kg.amax(kg.tensor([[1, 5], [7, 2]]), 1)
    tensor([5, 7])
    """
    axis = _axes(dim, input.array.ndim)
    _some(input, axis, "amax")
    return apply(ops.amax, (input,), {"axis": axis, "keepdims": keepdim})


@function
def amin(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The minimum over dimensions; equal minima share the gradient.

    >>> import kilograd as kg
    >>> kg.amin(kg.tensor([[1, 5], [7, 2]]), 1)
    tensor([1, 2])
    """
    axis = _axes(dim, input.array.ndim)
    _some(input, axis, "amin")
    return apply(ops.amin, (input,), {"axis": axis, "keepdims": keepdim})


@function
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """``(min, max)``, over all elements or one dimension.

    >>> import kilograd as kg
    >>> low, high = kg.aminmax(kg.tensor([3, 1, 2]))
    >>> low, high
    (tensor(1), tensor(3))
    """
    axis = None if dim is None else one_axis(dim, input.array.ndim)
    _some(input, axis, "aminmax")
    options = {"axis": axis, "keepdims": keepdim}
    return _AMinMax(apply(ops.amin, (input,), options), apply(ops.amax, (input,), options))


def _extreme(
    name: str, result: Any, reduction: Op, places: Op, at: Op, pairwise: Op,
    input: Tensor, dim: Any, keepdim: bool, other: Any,
) -> Any:  # fmt: skip
    """max and min: of all elements, along a dimension (with places), or of two tensors."""
    if isinstance(dim, (Tensor, np.ndarray)):
        dim, other = None, dim
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
    if other is not None:
        return apply(pairwise, (input, other))
    if dim is None:
        if not input.array.size:
            raise ShapeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        return apply(reduction, (input,))
    axis = one_axis(dim, input.array.ndim)
    if input.array.dtype.kind == "c":
        raise DtypeError(f"{name}(): complex numbers have no order")
    if not input.array.ndim:
        return result(input.clone(), apply(places, (input,)))
    _some(input, axis, name)
    index = apply(places, (input,), {"axis": axis, "keepdims": True})
    values = apply(at, (input, index), {"axis": axis, "keepdims": keepdim})
    return result(values, index if keepdim else index.reshape(values.array.shape))


@function
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; with ``dim`` the largest along it and their places; or of two tensors.

    Equal maxima share the gradient of ``max(x)``; along a dimension the first one gets it.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> x.max(), x.max(dim=1).values, x.max(dim=1).indices
    (tensor(7.), tensor([5., 7.]), tensor([1, 0]))
    """
    return _extreme(
        "max", _Max, ops.amax, ops.argmax, ops.max_at, ew.maximum, input, dim, keepdim, other
    )


@function
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; with ``dim`` the smallest along it and their places; or of two tensors.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> x.min(), x.min(dim=1).values, x.min(dim=1).indices
    (tensor(1.), tensor([1., 2.]), tensor([0, 1]))
    """
    return _extreme(
        "min", _Min, ops.amin, ops.argmin, ops.min_at, ew.minimum, input, dim, keepdim, other
    )


def _place(op: Op, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    _numbers(input, op.name)
    axis = None if dim is None else one_axis(dim, input.array.ndim)
    if axis is None and not input.array.size:
        raise IndexError(
            f"{op.name}(): Expected reduction dim to be specified for input.numel() == 0."
        )
    _some(input, axis, op.name)
    return apply(op, (input,), {"axis": axis, "keepdims": keepdim})


@function
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place (int64) of the maximum, along a dimension or in the flattened tensor.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> x.argmax(), x.argmax(1)
    (tensor(2), tensor([1, 0]))
    """
    return _place(ops.argmax, input, dim, keepdim)


@function
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The place (int64) of the minimum, along a dimension or in the flattened tensor.

    >>> import kilograd as kg
    >>> x = kg.tensor([[1.0, 5.0], [7.0, 2.0]])
    >>> x.argmin(), x.argmin(1)
    (tensor(0), tensor([0, 1]))
    """
    return _place(ops.argmin, input, dim, keepdim)


# --- truth and counts ---------------------------------------------------------------------------------


def _truth(op: Op, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    if dim is not None and not isinstance(dim, int) and not len(dim):  # no dimension is reduced
        return apply(op, (input.unsqueeze(-1),), {"axis": -1})
    return apply(op, (input,), {"axis": _axes(dim, input.array.ndim), "keepdims": keepdim})


@function
def all(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero.

    >>> import kilograd as kg
    >>> kg.all(kg.tensor([[True, False], [True, True]]), 1)
    tensor([False,  True])
    """
    return _truth(ops.all, input, dim, keepdim)


@function
def any(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero.

    >>> import kilograd as kg
    >>> kg.any(kg.tensor([[True, False], [False, False]]), 1)
    tensor([ True, False])
    """
    return _truth(ops.any, input, dim, keepdim)


@function
def count_nonzero(input: Tensor, dim: Dim = None) -> Tensor:
    """How many elements are not zero (int64).

    >>> import kilograd as kg
    >>> kg.count_nonzero(kg.tensor([[0, 1], [2, 3]]), dim=0)
    tensor([1, 2])
    """
    return apply(ops.count_nonzero, (input,), {"axis": _axes(dim, input.array.ndim)})


# --- scans --------------------------------------------------------------------------------------------


def _scan(op: Op, input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    axis = one_axis(dim, input.array.ndim)
    input = _as(input, dtype)
    y = _as(apply(op, (_line(input),), {"axis": axis}), dtype)
    return y if input.array.ndim else y.reshape(())


@function(inplace=True)
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The sums of the elements up to each place along a dimension; integers give int64.

    >>> import kilograd as kg
    >>> kg.cumsum(kg.tensor([1, 2, 3]), 0)
    tensor([1, 3, 6])
    """
    return _scan(ops.cumsum, input, dim, dtype)


@function(inplace=True)
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """The products of the elements up to each place along a dimension; integers give int64.

    >>> import kilograd as kg
    >>> kg.cumprod(kg.tensor([1, 2, 3, 4]), 0)
    tensor([ 1,  2,  6, 24])
    """
    return _scan(ops.cumprod, input, dim, dtype)


@function
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the cumulative sum of exp(x) along a dimension, without overflow.

    >>> import kilograd as kg
    >>> kg.logcumsumexp(kg.tensor([0.0, 0.0, 0.0]), 0)
    tensor([0.0000, 0.6931, 1.0986])
    """
    return _scan(ops.logcumsumexp, input, dim)


def _along(result: Any, input: Tensor, index: Tensor, axis: int, **how: bool) -> Any:
    """The named tuple of the elements at an index along an axis, and that index."""
    if input.array.ndim:
        return result(_at(input, index, axis, **how), index)
    return result(_at(_line(input), index, axis).reshape(()), index.reshape(()))


@function
def cummax(input: Tensor, dim: int) -> Any:
    """``(values, indices)`` of the largest element up to each place along a dimension.

    >>> import kilograd as kg
    >>> kg.cummax(kg.tensor([1.0, 3.0, 2.0]), 0).values
    tensor([1., 3., 3.])
    """
    axis = one_axis(dim, input.array.ndim)
    return _along(
        _CumMax, input, _places(ops.arg_cummax, _line(input), axis=axis), axis, distinct=False
    )


@function
def cummin(input: Tensor, dim: int) -> Any:
    """``(values, indices)`` of the smallest element up to each place along a dimension.

    >>> import kilograd as kg
    >>> kg.cummin(kg.tensor([3.0, 1.0, 2.0]), 0).values
    tensor([3., 1., 1.])
    """
    axis = one_axis(dim, input.array.ndim)
    return _along(
        _CumMin, input, _places(ops.arg_cummin, _line(input), axis=axis), axis, distinct=False
    )


# --- order --------------------------------------------------------------------------------------------


@function
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
    """``(values, indices)`` sorted along a dimension; always stable; nan comes after all numbers.

    >>> import kilograd as kg
    >>> values, indices = kg.sort(kg.tensor([3, 1, 2]))
    >>> values, indices
    (tensor([1, 2, 3]), tensor([1, 2, 0]))
    """
    axis = one_axis(dim, input.array.ndim)
    if input.array.dtype.kind == "c":
        raise DtypeError("sort(): complex numbers have no order")
    order = _places(ops.argsort, _line(input), axis=axis, descending=descending)
    return _along(_Sort, input, order, axis)


@function
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The places of the sorted elements along a dimension.

    >>> import kilograd as kg
    >>> kg.argsort(kg.tensor([3, 1, 2]))
    tensor([1, 2, 0])
    """
    axis = one_axis(dim, input.array.ndim)
    order = _places(ops.argsort, _line(input), axis=axis, descending=descending)
    return order if input.array.ndim else order.reshape(())


@function
def msort(input: Tensor) -> Tensor:
    """Sorted along the first dimension.

    >>> import kilograd as kg
    >>> kg.msort(kg.tensor([3, 1, 2]))
    tensor([1, 2, 3])
    """
    return sort(input, 0).values


@function
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``(values, indices)`` of the k largest (or smallest) elements along a dimension, in order.

    >>> import kilograd as kg
    >>> kg.topk(kg.tensor([3.0, 1.0, 4.0, 1.5]), 2).values
    tensor([4., 3.])
    """
    axis = one_axis(dim, input.array.ndim)
    _numbers(input, "topk")
    k = operator.index(k)
    x = _line(input)
    n = x.array.shape[axis]
    if not 0 <= k <= n:
        raise RuntimeError(
            f"topk: selected index k={k} out of range for dimension {dim} of size {n}"
        )
    index = _places(ops.arg_topk, x, k=k, axis=axis, largest=largest)
    if not input.array.ndim and k == 0:
        return _TopK(_at(x, index, axis), index)
    return _along(_TopK, input, index, axis)


def _chosen(result: Any, input: Tensor, index: Tensor, axis: int, keepdim: bool) -> Any:
    """The named tuple for one index per line along an axis (index has size 1 there)."""
    if not input.array.ndim or keepdim:
        return _along(result, input, index, axis)
    values = _at(input, index, axis, keepdim)
    return result(values, index.reshape(values.array.shape))


@function
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """``(values, indices)`` of the k-th smallest element (k from 1) along a dimension.

    >>> import kilograd as kg
    >>> kg.kthvalue(kg.tensor([3.0, 1.0, 4.0]), 2).values
    tensor(3.)
    """
    axis = one_axis(dim, input.array.ndim)
    _numbers(input, "kthvalue")
    k = operator.index(k)
    _some(input, axis, "kthvalue")
    x = _line(input)
    if not 1 <= k <= x.array.shape[axis]:
        raise RuntimeError(
            f"kthvalue(): selected number k out of range for dimension {dim}: k={k} of "
            f"{x.array.shape[axis]} elements"
        )
    return _chosen(_KthValue, input, _places(ops.arg_kth, x, k=k, axis=axis), axis, keepdim)


def _middle(result: Any, input: Tensor, dim: Any, keepdim: bool, ignore_nan: bool) -> Any:
    _numbers(input, result.__name__)
    if dim is None:
        return apply(ops.median_of_all, (input,), {"ignore_nan": ignore_nan})
    axis = one_axis(dim, input.array.ndim)
    _some(input, axis, result.__name__)
    index = _places(ops.arg_median, _line(input), axis=axis, ignore_nan=ignore_nan)
    return _chosen(result, input, index, axis, keepdim)


@function
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element (the lower of two); with ``dim`` as ``(values, indices)``; nan wins.

    >>> import kilograd as kg
    >>> kg.median(kg.tensor([4.0, 1.0, 3.0, 2.0]))
    tensor(2.)
    """
    return _middle(_Median, input, dim, keepdim, ignore_nan=False)


@function
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """:func:`median` of the elements that are not nan.

    >>> import kilograd as kg
    >>> kg.nanmedian(kg.tensor([4.0, float("nan"), 3.0]))
    tensor(3.)
    """
    return _middle(_NanMedian, input, dim, keepdim, ignore_nan=True)


@function
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """``(values, indices)`` of the most frequent element along a dimension, the smallest of those.

    >>> import kilograd as kg
    >>> kg.mode(kg.tensor([3, 1, 3, 1, 2])).values
    tensor(1)
    """
    axis = one_axis(dim, input.array.ndim)
    _some(input, axis, "mode")
    return _chosen(_Mode, input, _places(ops.arg_mode, _line(input), axis=axis), axis, keepdim)


_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(
    name: str,
    input: Tensor,
    q: Any,
    dim: int | None,
    keepdim: bool,
    interpolation: str,
    ignore_nan: bool,
) -> Tensor:
    if not input.dtype.is_floating_point or input.array.dtype.char == "e":
        raise DtypeError(f"{name}() input tensor must be either float or double dtype")
    if isinstance(q, (Tensor, np.ndarray)):
        q = tensor_like(q)
        if q.dtype != input.dtype:
            raise DtypeError(f"{name}() q tensor must be same dtype as the input tensor")
        if q.ndim > 1:
            raise ShapeError(f"{name}() q must be a scalar or 1D tensor")
    else:
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
        q = wrap(np.asarray(q, input.array.dtype))
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but "
            f"got {interpolation}"
        )
    if not input.array.size:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if ((q.array < 0) | (q.array > 1)).any():
        raise RuntimeError(f"{name}() q values must be in the range [0, 1]")
    ndim = input.ndim
    axis = None if dim is None else one_axis(dim, ndim)
    x = input.reshape(-1) if axis is None or not ndim else input.movedim(axis, -1)
    ordered = sort(x).values  # nan last
    n = x.shape[-1]
    nans = np.isnan(ordered.array).sum(-1, keepdims=True)
    count = np.maximum(n - nans, 1)
    ranks = q.reshape(-1) * wrap((count - 1).astype(input.array.dtype))  # (*, Q)
    if not ignore_nan:  # one nan makes the whole line nan
        ranks = apply(ew.where, (wrap(nans > 0), wrap(np.asarray(n - 1, input.array.dtype)), ranks))
    if interpolation == "lower":
        below = np.floor(ranks.array)
    elif interpolation == "higher":
        below = np.ceil(ranks.array)
    elif interpolation == "nearest":
        below = np.rint(ranks.array)
    else:
        below = np.floor(ranks.array)
    low = _at(ordered, wrap(below.astype(np.int64)), ordered.ndim - 1, distinct=False)
    if interpolation in ("linear", "midpoint"):
        above = wrap(np.ceil(ranks.array).astype(np.int64))
        high = _at(ordered, above, ordered.ndim - 1, distinct=False)
        weight = ranks - wrap(below) if interpolation == "linear" else 0.5
        low = apply(special.lerp, (low, high, weight))
    y = low.movedim(-1, 0)  # (Q, *)
    rest = ops.kept_shape(input.array.shape, axis) if keepdim else tuple(y.shape[1:])
    return y.reshape(tuple(q.shape) + rest)


@function
def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The q-quantiles (q a number or 1-d tensor in [0, 1]) over all elements or a dimension.

    For a tensor of Q values of q the result is (Q, *).

    >>> import kilograd as kg
    >>> kg.quantile(kg.tensor([0.0, 1.0, 2.0, 3.0]), 0.5)
    tensor(1.5000)
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, ignore_nan=False)


@function
def nanquantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """:func:`quantile` of the elements that are not nan.

    >>> import kilograd as kg
    >>> kg.nanquantile(kg.tensor([0.0, float("nan"), 2.0]), 0.5)
    tensor(1.)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, ignore_nan=True)


# --- sets and places ----------------------------------------------------------------------------------


_NO_SLICES = "{}: There are 0 sized dimensions, and they aren't selected; unique cannot be applied"


def _several(
    y: Tensor, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool
) -> Any:
    results = [y]
    if return_inverse:
        results.append(wrap(inverse.astype(np.int64)))
    if return_counts:
        results.append(wrap(counts.astype(np.int64)))
    return tuple(results) if len(results) > 1 else y


@function
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements (or slices along ``dim``), sorted.

    Returns:
        The tensor, or a tuple with (if asked for) the place of each input element in it, and how
        often each occurs.

    >>> import kilograd as kg
    >>> kg.unique(kg.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    x = input.array
    axis = None if dim is None else one_axis(dim, x.ndim)
    if axis is not None and not x.ndim:
        raise IndexError(f"unique: Dimension specified as {dim} but tensor has no dimensions")
    if axis is not None and not x.size:
        if builtins.any(n == 0 for i, n in enumerate(x.shape) if i != axis) and x.shape[axis]:
            raise ShapeError(_NO_SLICES.format("unique"))
        y: Any = x
        inverse: Any = np.zeros(x.shape[axis])
        counts: Any = np.zeros(0)
    else:
        y, inverse, counts = np.unique(
            x, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
        )
        inverse = inverse.reshape(x.shape if axis is None else -1)
    return _several(wrap(y), inverse, counts, return_inverse, return_counts)


@function
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The elements (or slices along ``dim``) that differ from the one before; results as of unique.

    >>> import kilograd as kg
    >>> kg.unique_consecutive(kg.tensor([1, 1, 2, 2, 1]))
    tensor([1, 2, 1])
    """
    x = input.array
    flat = dim is None
    if not flat and not x.ndim:
        raise IndexError(f"unique_consecutive: Dimension {dim} of a tensor that has no dimensions")
    x, axis = (x.reshape(-1), 0) if flat else (x, one_axis(dim, x.ndim))
    rows = np.moveaxis(x, axis, 0)
    if not rows.shape[0] or (not x.size and not flat):
        if not flat and rows.shape[0] and not x.size:
            raise ShapeError(_NO_SLICES.format("unique_consecutive"))
        new = np.zeros(0, bool)
    else:
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]).any(axis=tuple(range(1, rows.ndim)))
    starts = np.flatnonzero(new)
    inverse = np.cumsum(new) - 1
    counts = np.diff(np.append(starts, len(rows)))
    y = wrap(np.ascontiguousarray(np.moveaxis(rows[starts], 0, axis)))
    inverse = inverse.reshape(input.array.shape) if flat else inverse
    return _several(y, inverse, counts, return_inverse, return_counts)


@function(method=False)
def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element is among the test elements (``invert``: is not).

    >>> import kilograd as kg
    >>> kg.isin(kg.tensor([1, 2, 3]), kg.tensor([2, 5]))
    tensor([False,  True, False])
    """
    a, b = tensor_like(elements).array, tensor_like(test_elements).array
    return wrap(np.asarray(np.isin(a, b, assume_unique=False, invert=invert)))


@function(method=False)
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where to insert values to keep the last dimension of a sorted sequence in order.

    ``sorted_sequence`` is 1-d, or has the leading dimensions of ``input``. ``right``
    (``side="right"``): behind equal elements.

    >>> import kilograd as kg
    >>> kg.searchsorted(kg.tensor([1, 3, 5]), kg.tensor([3, 4]))
    tensor([1, 2])
    """
    if side is not None and side not in ("left", "right"):
        raise RuntimeError(f"searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError(
            "searchsorted(): side and right can't be set to opposites, got side of left while right "
            "was True"
        )
    values = tensor_like(input)
    sequence = sorted_sequence.array
    v = values.array
    if sequence.ndim == 0:
        raise RuntimeError("searchsorted(): boundaries tensor should have positive dimension")
    if sequence.ndim > 1 and sequence.shape[:-1] != v.shape[:-1]:
        raise ShapeError(
            "searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
            "boundaries tensor and input value tensor must match, but we got boundaries tensor "
            f"{list(sequence.shape)} and input value tensor {list(v.shape)}"
        )
    if sorter is not None:
        if sorter.array.shape != sequence.shape:
            raise ShapeError("searchsorted(): boundary and sorter must have the same size")
        if sorter.array.dtype != np.int64:
            raise DtypeError("searchsorted(): sorter must be a tensor of long dtype")
        if (
            sorter.array.size
            and not 0 <= sorter.array.min() <= sorter.array.max() < sequence.shape[-1]
        ):
            raise RuntimeError("searchsorted(): sorter index out of range")
        sequence = np.take_along_axis(sequence, sorter.array, -1)
    where: Any = "right" if right or side == "right" else "left"
    if sequence.ndim == 1 or not v.size:
        y = np.searchsorted(sequence.reshape(-1), v, where)
    else:
        rows = zip(
            sequence.reshape(-1, sequence.shape[-1]), v.reshape(-1, v.shape[-1]), strict=True
        )
        y = np.array([np.searchsorted(s, r, where) for s, r in rows]).reshape(v.shape)
    return wrap(np.asarray(y).astype(np.int32 if out_int32 else np.int64))


@function(method=False)
def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The place of each value among 1-d sorted boundaries (see :func:`searchsorted`).

    >>> import kilograd as kg
    >>> kg.bucketize(kg.tensor([0.5, 2.0]), kg.tensor([1.0, 2.0, 3.0]))
    tensor([0, 1])
    """
    if boundaries.ndim != 1:
        raise ShapeError(
            f"bucketize(): boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})"
        )
    values = tensor_like(input)
    y = np.searchsorted(boundaries.array, values.array, "right" if right else "left")
    return wrap(np.asarray(y).astype(np.int32 if out_int32 else np.int64))


# --- histograms ---------------------------------------------------------------------------------------


@function
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, … occurs in a 1-d tensor of non-negative integers.

    ``weights``: add these up instead of counting.

    >>> import kilograd as kg
    >>> kg.bincount(kg.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    x = input.array
    if x.dtype.kind not in "iu":
        raise NotImplementedError(f"bincount: not implemented for {input.dtype}")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if (x.ndim != 1 and x.size) or (x.size and x.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return wrap(np.bincount(x.reshape(-1).astype(np.int64), minlength=minlength))
    w = weights.array
    if w.shape != x.shape:
        raise ShapeError("bincount: weights should be 1-d and have the same length as input")
    y = np.bincount(x.astype(np.int64), w, minlength)
    return wrap(y.astype(w.dtype if w.dtype == np.float32 else np.float64))


@function
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts in equal bins between two numbers (both 0: the extremes of the input).

    >>> import kilograd as kg
    >>> kg.histc(kg.tensor([1.0, 2.0, 1.0]), bins=4, min=0, max=3)
    tensor([0., 2., 1., 0.])
    """
    x = input.array.reshape(-1)
    if bins <= 0:
        raise RuntimeError("histc: bins must be > 0")
    if x.dtype.kind != "f":
        raise NotImplementedError(f"histc: not implemented for {input.dtype}")
    low, high = min, max
    if low == high and x.size:
        low, high = x.min(), x.max()
    if low == high:
        low, high = low - 1, high + 1
    low, high = float(low), float(high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("histc: max must be larger than min")
    return wrap(_histogram(x, bins, low, high).astype(x.dtype))


def _histogram(x: np.ndarray, bins: int, low: float, high: float, weight: Any = None) -> np.ndarray:
    inside = (x >= low) & (x <= high)
    x = x[inside]
    place = np.minimum(((x - low) * bins / (high - low)).astype(np.int64), bins - 1)
    return np.bincount(place, None if weight is None else weight[inside], bins)


@function
def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """``(hist, bin_edges)`` for a number of equal bins, or for a 1-d tensor of edges.

    >>> import kilograd as kg
    >>> kg.histogram(kg.tensor([1.0, 2.0, 1.0]), bins=4, range=(0.0, 3.0)).hist
    tensor([0., 2., 1., 0.])
    """
    x = input.array
    if x.dtype.kind != "f":
        raise NotImplementedError(f"histogram: not implemented for {input.dtype}")
    w = None
    if weight is not None:
        if weight.array.shape != x.shape:
            raise ShapeError(
                "histogram(): if weight tensor is provided it should have the same shape as the input "
                f"tensor, got {list(weight.shape)} and {list(input.shape)}"
            )
        if weight.dtype != input.dtype:
            raise DtypeError(
                "histogram(): if weight tensor is provided, input tensor and weight tensor should have "
                f"the same dtype, got {input.dtype} and {weight.dtype}"
            )
        w = weight.array.reshape(-1).astype(np.float64)
    if isinstance(bins, Tensor):
        edges = bins.array
        if edges.ndim != 1 or not edges.size:
            raise ShapeError(
                f"histogram(): bins tensor should have one dimension, got {edges.ndim}"
            )
        if edges.dtype != x.dtype:
            raise DtypeError(
                "histogram(): input tensor and bins tensors should have the same dtype"
            )
    else:
        if bins <= 0:
            raise RuntimeError(f"histogram(): bins must be > 0, but got {bins}")
        low, high = range if range is not None else (x.min(), x.max()) if x.size else (0.0, 1.0)
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            raise RuntimeError(f"histogram(): range [{low}, {high}] is not finite and increasing")
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, bins + 1, dtype=x.dtype)
    flat = x.reshape(-1)
    inside = (flat >= edges[0]) & (flat <= edges[-1])
    if w is not None:
        w = w[inside]
    flat = flat[inside]
    n = len(edges) - 1
    place = np.minimum(np.searchsorted(edges, flat, "right") - 1, n - 1)
    hist = np.bincount(place, w, n).astype(x.dtype)
    if density:
        hist = hist / hist.sum() / np.diff(edges)
    return _Histogram(wrap(hist), wrap(edges.copy()))


# --- differences and integrals ------------------------------------------------------------------------


def _part(input: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    return input[(*(slice(None),) * axis, slice(start, stop))]


@function
def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """The n-th differences of neighbours along a dimension.

    >>> import kilograd as kg
    >>> kg.diff(kg.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    from kilograd.functions.shape import cat

    if not input.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    axis = one_axis(dim, input.ndim)
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    for extra in (prepend, append):
        if extra is not None and extra.ndim != input.ndim:
            raise ShapeError("diff expects prepend or append to be the same dimension as input")
    if n == 0:
        return input.clone()
    parts = [t for t in (prepend, input, append) if t is not None]
    y = cat(parts, axis) if len(parts) > 1 else input
    op = ew.not_equal if y.dtype == dtypes.bool_ else ew.subtract
    for _ in range(builtins.min(n, y.shape[axis])):
        y = apply(op, (_part(y, axis, 1, None), _part(y, axis, None, -1)))
    return y


def _strips(y: Tensor, x: Tensor | None, axis: int) -> Tensor:
    """Twice the areas of the trapezoids between neighbours; without x, for a width of 1."""
    heights = _part(y, axis, 1, None) + _part(y, axis, None, -1)
    if x is None:
        return heights
    if x.ndim == 1:
        if x.shape[0] != y.shape[axis]:
            raise ShapeError(
                f"trapezoid(): There must be one `x` value for each sample point; got {x.shape[0]} "
                f"for {y.shape[axis]}"
            )
        width = diff(x).reshape((-1,) + (1,) * (y.ndim - axis - 1))
    else:
        width = diff(x, dim=axis - y.ndim)
    return heights * width


def _check_strips(y: Tensor, dx: Any, dim: int, name: str) -> int:
    axis = one_axis(dim, y.ndim)
    if y.dtype == dtypes.bool_:
        raise DtypeError(f"{name}: received a bool input for `y`, but bool is not supported")
    if isinstance(dx, (bool, complex)):
        raise RuntimeError(f"{name}: Currently, we only support dx as a real number.")
    return axis


@function(method=False)
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1, dim: int = -1) -> Tensor:
    """The integral of samples y along a dimension, at places x (or dx apart), by trapezoids.

    >>> import kilograd as kg
    >>> kg.trapezoid(kg.tensor([1.0, 2.0, 3.0]))
    tensor(4.)
    """
    axis = _check_strips(y, dx, dim, "trapezoid")
    if y.shape[axis] == 0:
        shape = y.shape[:axis] + y.shape[axis + 1 :]
        return wrap(np.zeros(shape, y.array.dtype))
    total = sum(_strips(y, x, axis), axis)
    return total / 2 if x is not None else total * (dx / 2)


trapz = trapezoid


@function(method=False)
def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float = 1, dim: int = -1
) -> Tensor:
    """The cumulative integral by trapezoids: one element fewer along the dimension.

    >>> import kilograd as kg
    >>> kg.cumulative_trapezoid(kg.tensor([1.0, 2.0, 3.0]))
    tensor([1.5000, 4.0000])
    """
    axis = _check_strips(y, dx, dim, "cumulative_trapezoid")
    strips = _strips(y, x, axis)
    return cumsum(strips, axis) / 2 if x is not None else cumsum(strips * (dx / 2), axis)


@function(method=False)
def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Dim = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Derivatives along dimensions by central differences (one-sided of ``edge_order`` at the ends).

    ``spacing``: a number, one for each dimension, or 1-d tensors of coordinates.

    >>> import kilograd as kg
    >>> kg.gradient(kg.tensor([1.0, 4.0, 9.0, 16.0]))
    (tensor([3., 4., 6., 7.]),)
    """
    if dim is None:
        axes = tuple(range(input.ndim))
    else:
        axes = tuple(one_axis(d, input.ndim) for d in ((dim,) if isinstance(dim, int) else dim))
        if len(set(axes)) < len(axes):
            raise RuntimeError("torch.gradient: dim appears multiple times in the list of dims")
    spacing = 1 if spacing is None else spacing
    steps = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(axes)
    if len(steps) != len(axes):
        raise RuntimeError(
            f"gradient expected spacing to be unspecified, a scalar or {len(axes)} of them, got {len(steps)}"
        )
    if edge_order not in (1, 2):
        raise RuntimeError("gradient only supports edge_order=1 and edge_order=2.")
    if input.dtype == dtypes.uint8:
        raise DtypeError("gradient does not support uint8 input.")
    if input.dtype.kind not in "fc":
        input = input * 1.0
    return tuple(_slope(input, s, a, edge_order) for s, a in zip(steps, axes, strict=True))


def _slope(f: Tensor, step: Any, axis: int, edge_order: int) -> Tensor:
    from kilograd.functions.shape import cat

    n = f.shape[axis]
    if n < edge_order + 1:
        raise RuntimeError(
            "gradient expected each dimension size to be at least edge_order+1, got "
            f"{n} for dimension {axis}"
        )
    rest = (1,) * (f.ndim - axis - 1)
    if isinstance(step, Tensor) and step.ndim:
        if step.shape[0] != n:
            raise ShapeError(
                f"gradient expected each element of spacing to have {n} coordinates, got {step.shape[0]}"
            )
        h: Any = diff(step)
    else:
        dtype = (
            f.array.real.dtype if f.array.dtype.kind in "fc" else dtypes.get_default_dtype().dtype
        )
        h = wrap(np.full(n - 1, step.item() if isinstance(step, Tensor) else step, dtype))

    def part(start: int | None, stop: int | None) -> Tensor:
        return _part(f, axis, start, stop)

    def width(index: Any) -> Tensor:
        w: Tensor = h[index]
        return w.reshape((-1, *rest)) if w.ndim else w

    left, right = width(slice(None, -1)), width(slice(1, None))
    parts = []
    if edge_order == 1:
        first = (part(1, 2) - part(0, 1)) / width(0)
        last = (part(n - 1, None) - part(n - 2, n - 1)) / width(-1)
    else:
        a, b = width(0), width(1)
        first = (
            part(0, 1) * (-(a * 2 + b) / (a * (a + b)))
            + part(1, 2) * ((a + b) / (a * b))
            - part(2, 3) * (a / (b * (a + b)))
        )
        a, b = width(-2), width(-1)
        last = (
            part(n - 3, n - 2) * (b / (a * (a + b)))
            - part(n - 2, n - 1) * ((a + b) / (a * b))
            + part(n - 1, None) * ((a + b * 2) / (b * (a + b)))
        )
    parts.append(first)
    if n > 2 and not (isinstance(step, Tensor) and step.ndim):
        parts.append((part(2, None) - part(0, n - 2)) / (left + right))
    elif n > 2:
        total = left + right
        parts.append(
            part(0, n - 2) * (-right / (left * total))
            + part(1, n - 1) * ((right - left) / (left * right))
            + part(2, None) * (left / (right * total))
        )
    parts.append(last)
    return cat(parts, axis)
