"""Reading and writing by index: gather and scatter, indexed slices, masks, diagonals, triangles."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from kilograd import dtypes
from kilograd.errors import DtypeError, ShapeError
from kilograd.functions.calling import function, one_axis
from kilograd.functions.shape import as_strided, broadcast_tensors, method, sizes
from kilograd.indexing import as_index
from kilograd.kernels.place import in_range
from kilograd.ops import elementwise as ew
from kilograd.ops import index as ops
from kilograd.ops import shape as shape_ops
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "argwhere", "as_strided_scatter", "diag", "diag_embed", "diagflat", "diagonal",
    "diagonal_scatter", "fill", "gather", "index_add", "index_copy", "index_fill", "index_put",
    "index_put_", "index_reduce", "index_select", "masked_fill", "masked_scatter",
    "masked_select", "nonzero", "nonzero_static", "put", "scatter", "scatter_add",
    "scatter_reduce", "select_scatter", "slice_scatter", "take", "take_along_dim",
    "tril", "tril_indices", "triu", "triu_indices", "unravel_index",
]  # fmt: skip


# --- checks -------------------------------------------------------------------------------------


def _integers(index: Any, name: str, wrong: type[Exception] = DtypeError) -> np.ndarray:
    """The array of an int32 or int64 index."""
    array: np.ndarray = index.array if isinstance(index, Tensor) else index
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if array.dtype != np.int64 and array.dtype != np.int32 and array.size:
        raise wrong(f"{name}(): Expected dtype int32/int64 for index, but got {array.dtype}")
    return array


def _refused(name: str) -> str:
    """What is said of an index that is out of range."""
    return name + "(): index {bad} is out of bounds for a dimension with size {n}"


def _in_range(index: np.ndarray, n: int, name: str, wrong: type[Exception] = ShapeError) -> None:
    """Raise unless every index is from 0 to n - 1."""
    in_range(index, n, _refused(name), wrong)


def _same_dtype(input: Tensor, source: Any, name: str, what: str = "source") -> None:
    if input.array.dtype != source.dtype:
        raise DtypeError(
            f"{name}(): self and {what} expected to have the same dtype, but got {input.dtype} and "
            f"{source.dtype}"
        )


def _fits(index: np.ndarray, shape: tuple[int, ...], axis: int, name: str, of: str) -> None:
    """Raise unless index is no larger than a shape, apart from an axis (-1: in every axis)."""
    if any(n > shape[i] for i, n in enumerate(index.shape) if i != axis):
        raise ShapeError(
            f"{name}(): Expected index {list(index.shape)} to be no larger than {of} {list(shape)}"
            + (f" apart from dimension {axis}" if axis >= 0 else "")
        )


def number(value: Any, dtype: np.dtype, name: str) -> Any:
    """A number, or a 0-d tensor, to be written among elements of a dtype."""
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim:
            raise ShapeError(
                f"{name} only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s)."
            )
        if value.dtype == dtype:
            return value
        if value.dtype.kind == "c" and dtype.kind != "c":
            raise DtypeError(f"{name}: value cannot be converted to type {dtype} without overflow")
        return apply(ew.cast, (value,), {"dtype": dtype})
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, complex)):
        raise TypeError(f"{name}: value must be a number or Tensor, not {type(value).__name__}")
    if dtype.kind in "fc" and type(value) is float:
        return value
    refusal = DtypeError(f"{name}: value cannot be converted to type {dtype} without overflow")
    if dtype.kind == "c":
        return np.asarray(value).astype(dtype)
    if isinstance(value, complex):
        raise refusal
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not low <= value <= high and not (dtype.kind == "u" and -high <= value < 0):
            raise refusal
        return np.asarray(int(value)).astype(dtype)  # wraps -1 in unsigned types, as C does
    return np.asarray(value).astype(dtype)


def _one_dimension(*tensors: Any) -> list[Any]:
    """0-d tensors as 1-d ones, for functions that treat both alike."""
    return [t if t.ndim else t.reshape(1) for t in tensors]


# --- gather and scatter ---------------------------------------------------------------------------


@function
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Elements chosen along a dimension: ``y[i][j] = input[i][index[i][j]]`` for ``dim=1``.

    ``index`` (int64 or int32) has as many dimensions as the input and, apart from ``dim``, is no
    larger; the result has its shape. Raises RuntimeError otherwise.

    >>> import kilograd as kg
    >>> kg.gather(kg.tensor([[1, 2], [3, 4]]), 1, kg.tensor([[0], [1]]))
    tensor([[1],
            [4]])
    """
    axis = one_axis(dim, input.ndim)
    at = _integers(index, "gather")
    shape = input.array.shape
    if at.size == 0:  # of any number of dimensions
        return input.reshape(-1)[:0].reshape(at.shape)
    if at.ndim != len(shape):
        if at.ndim > 1 or len(shape) > 1:
            raise ShapeError(
                "gather(): Index tensor must have the same number of dimensions as input tensor, "
                f"got {at.ndim} and {len(shape)}"
            )
        x, flat = _one_dimension(input, index)
        return gather(x, 0, flat).reshape(at.shape)
    _fits(at, shape, axis, "gather", "input")
    refused = _refused("gather"), ShapeError
    return apply(ops.gather, (input, index), {"axis": axis, "refused": refused})


def _scatter_arguments(
    input: Tensor, dim: int, index: Any, src: Any, name: str
) -> tuple[Tensor, int, Any, Any]:
    """Checked (input, axis, index, src) of one rank, src cut to the index's shape."""
    axis, at = one_axis(dim, input.ndim), _integers(index, name)
    is_tensor = isinstance(src, (Tensor, np.ndarray))
    if is_tensor:
        _same_dtype(input, src, name, "src")
    else:
        src = number(src, input.array.dtype, name)
    if at.size == 0:
        return input, axis, None, src
    input, index = _one_dimension(input, index)
    at = at if at.ndim else at.reshape(1)
    if at.ndim != input.ndim:
        raise ShapeError(
            f"{name}(): Index tensor must have the same number of dimensions as self tensor, got "
            f"{at.ndim} and {input.ndim}"
        )
    _fits(at, input.array.shape, axis, name, "self")
    if is_tensor:
        (src,) = _one_dimension(src)
        if src.ndim != at.ndim:
            raise ShapeError(
                f"{name}(): Index tensor must have the same number of dimensions as src tensor, got "
                f"{at.ndim} and {src.ndim}"
            )
        _fits(at, src.shape, -1, name, "src")
        if tuple(src.shape) != at.shape:
            src = src[tuple(slice(0, n) for n in at.shape)]
    if name != "scatter_add":  # which refuses as it goes
        _in_range(at, input.array.shape[axis], name)
    return input, axis, index, src


@function(inplace=True)
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy with ``y[i][index[i][j]] = src[i][j]`` (for ``dim=1``); src is a tensor or a number.

    ``reduce`` ("add" or "multiply") combines with what is there instead of replacing it.

    >>> import kilograd as kg
    >>> kg.zeros(2, 3).scatter(1, kg.tensor([[0], [2]]), 1.0)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    src = value if src is None else src
    if src is None:
        raise TypeError("scatter(): needs src= (a tensor) or value= (a number)")
    shape = input.array.shape
    x, axis, at, v = _scatter_arguments(input, dim, index, src, "scatter")
    if reduce not in (None, "add", "multiply"):
        raise ShapeError("scatter(): reduce argument must be either add or multiply.")
    if at is None:
        return apply(ew.clone, (input,))
    if reduce is None:
        y = apply(ops.scatter, (x, v, at), {"axis": axis})
    else:
        if not isinstance(v, Tensor) or v.shape != at.shape:
            v = wrap(np.full(at.shape, np.asarray(v), x.array.dtype))
        how = {
            "axis": axis,
            "reduce": {"add": "sum", "multiply": "prod"}[reduce],
            "include_self": True,
        }
        y = apply(ops.scatter_reduce, (x, v, at), how)
    return y if y.array.shape == shape else y.reshape(shape)


@function(inplace=True)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy with ``y[i][index[i][j]] += src[i][j]`` (for ``dim=1``).

    >>> import kilograd as kg
    >>> kg.zeros(3).scatter_add(0, kg.tensor([0, 0, 2]), kg.ones(3))
    tensor([2., 0., 1.])
    """
    shape = input.array.shape
    x, axis, at, v = _scatter_arguments(input, dim, index, src, "scatter_add")
    if at is None:
        return apply(ew.clone, (input,))
    refused = _refused("scatter_add"), ShapeError
    y = apply(ops.scatter_add, (x, v, at), {"axis": axis, "refused": refused})
    return y if y.array.shape == shape else y.reshape(shape)


@function(inplace=True)
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy in which what ``src`` sends to one place is reduced: sum, prod, mean, amax or amin.

    Without ``include_self`` the elements of ``input`` at those places do not take part.

    >>> import kilograd as kg
    >>> kg.zeros(3).scatter_reduce(0, kg.tensor([0, 0, 2]), kg.tensor([1.0, 3.0, 5.0]), "mean",
    ...                            include_self=False)
    tensor([2., 0., 5.])
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ShapeError(
            f"scatter_reduce(): reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    shape = input.array.shape
    x, axis, at, v = _scatter_arguments(input, dim, index, src, "scatter_reduce")
    if at is None:
        return apply(ew.clone, (input,))
    how = {"axis": axis, "reduce": reduce, "include_self": include_self}
    y = apply(ops.scatter_reduce, (x, v, at), how)
    return y if y.array.shape == shape else y.reshape(shape)


# --- slices by a 1-d index --------------------------------------------------------------------------


def _vector(index: Any, name: str, wrong: type[Exception] = DtypeError) -> Any:
    """A 1-d (or 0-d) integer index, as 1-d."""
    at = _integers(index, name, wrong)
    if at.ndim > 1:
        raise IndexError(
            f"{name}(): Index is supposed to be a vector, but got {at.ndim} dimensions"
        )
    return index if at.ndim else index.reshape(1)


@function
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along a dimension that a 1-d integer index names; IndexError if out of range.

    >>> import kilograd as kg
    >>> kg.index_select(kg.tensor([[1, 2], [3, 4]]), 1, kg.tensor([1, 1]))
    tensor([[2, 2],
            [4, 4]])
    """
    axis = one_axis(dim, input.ndim)
    at = _vector(index, "index_select")
    array = at.array if isinstance(at, Tensor) else at
    if input.ndim == 0:
        if len(array) != 1:
            raise IndexError("index_select(): Index to scalar can have only 1 value")
        return index_select(input.reshape(1), 0, at).reshape(())
    _in_range(array, input.array.shape[axis], "index_select", IndexError)
    return apply(ops.index_select, (input, at), {"axis": axis})


def _slices(
    input: Tensor, dim: int, index: Any, source: Any, name: str, wrong: type[Exception] = ShapeError
) -> tuple[Tensor, int, Any, Any]:
    """Checked (input, axis, index, source) where source has one slice for each index."""
    axis = one_axis(dim, input.ndim)
    at = _vector(index, name, wrong if wrong is IndexError else DtypeError)
    array = at.array if isinstance(at, Tensor) else at
    _same_dtype(input, source, name)
    if input.ndim == 0 or source.ndim == 0:
        if source.numel() != len(array) or (source.ndim == 0 and input.ndim > 1):
            raise wrong(
                f"{name}(): Number of indices ({len(array)}) should be equal to the number of "
                f"slices of source {list(source.shape)}"
            )
        input, source = _one_dimension(input, source)
    if source.ndim != input.ndim:
        raise wrong(
            f"{name}(): source has {source.ndim} dimensions, the tensor it goes to has {input.ndim}"
        )
    shape = list(input.shape)
    if source.shape[axis] != len(array):
        raise wrong(
            f"{name}(): Number of indices ({len(array)}) should be equal to source.size(dim): "
            f"({source.shape[axis]}), for dim: {dim}"
        )
    shape[axis] = len(array)
    if list(source.shape) != shape:
        raise (RuntimeError if wrong is ShapeError else wrong)(
            f"{name}(): source of shape {list(source.shape)} does not fit slices of shape {shape}"
        )
    return input, axis, at, source


@function(inplace=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy with ``alpha`` times slices of ``source`` added where a 1-d index says.

    >>> import kilograd as kg
    >>> kg.index_add(kg.zeros(3), 0, kg.tensor([0, 0, 2]), kg.ones(3))
    tensor([2., 0., 1.])
    """
    old = input.array.shape
    x, axis, at, v = _slices(input, dim, index, source, "index_add")
    _in_range(at.array if isinstance(at, Tensor) else at, x.array.shape[axis], "index_add")
    if alpha != 1:
        v = apply(ew.multiply, (v, number(alpha, x.array.dtype, "index_add")))
    added = apply(ops.index_add_zeros, (v, at), {"shape": x.array.shape, "axis": axis})
    y = apply(ew.add, (x, added))
    return y if y.array.shape == old else y.reshape(old)


@function(inplace=True)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy with slices of ``source`` written where a 1-d index says.

    >>> import kilograd as kg
    >>> kg.index_copy(kg.zeros(2, 2), 0, kg.tensor([1]), kg.ones(1, 2))
    tensor([[0., 0.],
            [1., 1.]])
    """
    old = input.array.shape
    x, axis, at, v = _slices(input, dim, index, source, "index_copy", IndexError)
    array = at.array if isinstance(at, Tensor) else at
    _in_range(array, x.array.shape[axis], "index_copy", IndexError)
    y = apply(ops.index_assign, (x, v, at), {"axis": axis})
    return y if y.array.shape == old else y.reshape(old)


@function(inplace=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy with a number written to the slices that a 1-d index (negative allowed) names.

    >>> import kilograd as kg
    >>> kg.index_fill(kg.zeros(2, 2), 1, kg.tensor([-1]), 5.0)
    tensor([[0., 5.],
            [0., 5.]])
    """
    axis = one_axis(dim, input.ndim)
    at = _vector(index, "index_fill", IndexError)
    v = number(value, input.array.dtype, "index_fill_")
    (x,) = _one_dimension(input)
    if isinstance(v, Tensor) and v.requires_grad:  # a slice named twice is filled once
        array = at.array if isinstance(at, Tensor) else at
        at = np.unique(np.where(array < 0, array + x.array.shape[axis], array))
    y = apply(ops.index_assign, (x, v, at), {"axis": axis})
    return y if input.ndim else y.reshape(())


@function(inplace=True)
def index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """A copy in which slices that a 1-d index sends to one place are reduced: prod, mean, amax, amin.

    >>> import kilograd as kg
    >>> kg.index_reduce(kg.ones(2), 0, kg.tensor([0, 0]), kg.tensor([2.0, 3.0]), "prod")
    tensor([6., 1.])
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise ShapeError(
            f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}."
        )
    old = input.array.shape
    x, axis, at, v = _slices(input, dim, index, source, "index_reduce")
    array = at.array if isinstance(at, Tensor) else at
    _in_range(array, x.array.shape[axis], "index_reduce", IndexError)
    along = [1] * x.ndim
    along[axis] = len(array)
    at = np.broadcast_to(array.reshape(along), v.shape)
    how = {"axis": axis, "reduce": reduce, "include_self": include_self}
    y = apply(ops.scatter_reduce, (x, v, at), how) if at.size else apply(ew.clone, (x,))
    return y if y.array.shape == old else y.reshape(old)


# --- any index ----------------------------------------------------------------------------------------


@function
def index_put(
    input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False
) -> Tensor:
    """A copy with ``values`` written (or added) at ``input[indices]``.

    >>> import kilograd as kg
    >>> kg.index_put(kg.zeros(3), (kg.tensor([0, 0]),), kg.tensor([1.0, 2.0]), accumulate=True)
    tensor([3., 0., 0.])
    """
    if not isinstance(indices, (tuple, list)):
        raise TypeError(
            f"index_put(): indices must be tuple of Tensors, not {type(indices).__name__}"
        )
    _same_dtype(input, values, "index_put", "values")
    index = as_index(tuple(slice(None) if i is None else i for i in indices))
    taken = input.array[index].shape  # IndexError if out of range
    while values.ndim > len(taken) and values.shape[0] == 1:
        values = values[0]
    try:
        fits = np.broadcast_shapes(values.shape, taken) == taken
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"index_put: shape mismatch: value tensor of shape {list(values.shape)} cannot be "
            f"broadcast to indexing result of shape {list(taken)}"
        )
    if accumulate:
        v = apply(shape_ops.broadcast_to, (values,), {"shape": taken})
        added = apply(ops.put_zeros, (v,), {"shape": input.array.shape, "index": index})
        return apply(ew.add, (input, added))
    return apply(ops.index_put, (input, values), {"index": index})


@function(name="index_put_")
def index_put_(
    input: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False
) -> Tensor:
    """In-place form of :func:`index_put`; returns the tensor.

    >>> import kilograd as kg
    >>> kg.zeros(3).index_put_((kg.tensor([1]),), kg.tensor(2.0))
    tensor([0., 2., 0.])
    """
    return input._inplace(index_put, indices, values, accumulate)


@function
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements by their position in the flattened input; the result has the index's shape.

    >>> import kilograd as kg
    >>> kg.take(kg.tensor([[1, 2], [3, 4]]), kg.tensor([3, -4]))
    tensor([4, 1])
    """
    at = _flat_index(index, input.numel(), "take")
    flat = apply(shape_ops.reshape, (input,), {"shape": (input.numel(),)})
    y = apply(ops.index_select, (flat, at.reshape(-1)), {"axis": 0})
    return y.reshape(at.shape)


def _flat_index(index: Any, n: int, name: str) -> np.ndarray:
    at: np.ndarray = index.array if isinstance(index, Tensor) else index
    if at.dtype != np.int64:
        raise DtypeError(f"{name}(): Expected a long tensor for index, but got {at.dtype}")
    if at.size and n == 0:
        raise IndexError(f"{name}(): tried to take from an empty tensor")
    if at.size and (at.max() >= n or at.min() < -n):
        bad = int(at.max() if at.max() >= n else at.min())
        raise IndexError(
            f"{name}(): out of range: tried to access index {bad} on a tensor of {n} elements."
        )
    return np.where(at < 0, at + n, at)


@function(inplace=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with ``source`` written (or added) at positions of the flattened input.

    >>> import kilograd as kg
    >>> kg.put(kg.zeros(2, 2), kg.tensor([0, 3]), kg.tensor([1.0, 2.0]))
    tensor([[1., 0.],
            [0., 2.]])
    """
    _same_dtype(input, source, "put")
    at = _flat_index(index, input.numel(), "put").reshape(-1)
    if len(at) != math.prod(source.shape):
        raise IndexError(
            "put(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {math.prod(source.shape)}, index.numel() = {len(at)}"
        )
    shape = input.array.shape
    flat = apply(shape_ops.reshape, (input,), {"shape": (input.numel(),)})
    v = apply(shape_ops.reshape, (source,), {"shape": (len(at),)})
    if accumulate:
        y = apply(
            ew.add,
            (flat, apply(ops.index_add_zeros, (v, at), {"shape": flat.array.shape, "axis": 0})),
        )
    else:
        y = apply(ops.index_assign, (flat, v, at), {"axis": 0})
    return y.reshape(shape)


@function
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """:func:`gather` with the other dimensions broadcast, as ``argsort`` and ``argmax`` need it.

    Without ``dim`` the input and the indices are flattened.

    >>> import kilograd as kg
    >>> x = kg.tensor([[3, 1], [2, 5]])
    >>> kg.take_along_dim(x, kg.tensor([[0], [1]]), dim=1)
    tensor([[3],
            [5]])
    """
    at: np.ndarray = indices.array if isinstance(indices, Tensor) else indices
    if at.dtype != np.int64:
        raise DtypeError(f"take_along_dim(): dtype of indices should be Long but got {at.dtype}")
    if dim is None:
        flat = apply(shape_ops.reshape, (input,), {"shape": (input.numel(),)})
        return gather(flat, 0, wrap(at.reshape(-1)))
    if at.ndim != input.ndim:
        raise ShapeError(
            "take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} dimensions for input, and {at.ndim} dimensions for indices"
        )
    axis = one_axis(dim, input.ndim)
    shape = list(input.shape)
    if shape:
        try:
            other = [1 if i == axis else n for i, n in enumerate(shape)]
            common = np.broadcast_shapes(
                other, [1 if i == axis else n for i, n in enumerate(at.shape)]
            )
        except ValueError:
            raise ShapeError(
                f"take_along_dim(): shapes {shape} and {list(at.shape)} do not broadcast apart from "
                f"dimension {axis}"
            ) from None
        input = input.expand((*common[:axis], shape[axis], *common[axis + 1 :]))
        at = np.broadcast_to(at, (*common[:axis], at.shape[axis], *common[axis + 1 :]))
        n = shape[axis]
        at = np.where(at < 0, at + n, at)
    return gather(input, axis, wrap(at))


# --- masks ----------------------------------------------------------------------------------------------


def _mask(mask: Any, name: str) -> Any:
    if not isinstance(mask, (Tensor, np.ndarray)):
        raise TypeError(f"{name}(): argument 'mask' must be Tensor, not {type(mask).__name__}")
    array = mask.array if isinstance(mask, Tensor) else mask
    if array.dtype.kind != "b":
        raise DtypeError(f"{name}: expected a boolean mask, but got a mask of dtype {array.dtype}")
    return mask


@function(inplace=True)
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` (a number or 0-d tensor) where the bool mask holds, the input elsewhere.

    The mask and the input broadcast; the result has the input's dtype.

    >>> import kilograd as kg
    >>> kg.tensor([1.0, 2.0]).masked_fill(kg.tensor([True, False]), -1)
    tensor([-1.,  2.])
    """
    mask = _mask(mask, "masked_fill")
    return apply(ops.masked_fill, (input, number(value, input.array.dtype, "masked_fill"), mask))


@function
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the bool mask (broadcast with the input) holds; 1-d.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).masked_select(kg.tensor([True, False]))
    tensor([1, 3])
    """
    x, m = broadcast_tensors(input, _mask(mask, "masked_select"))
    return apply(ops.masked_select, (x, m))


@function(inplace=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of ``source``, in order, where the bool mask holds; the input elsewhere.

    >>> import kilograd as kg
    >>> kg.zeros(3).masked_scatter(kg.tensor([True, False, True]), kg.tensor([1.0, 2.0]))
    tensor([1., 0., 2.])
    """
    _same_dtype(input, source, "masked_scatter")
    x, m = broadcast_tensors(input, _mask(mask, "masked_scatter"))
    count = int(m.array.sum())
    flat = apply(shape_ops.reshape, (source,), {"shape": (math.prod(source.shape),)})
    if len(flat) < count:
        raise ShapeError(
            f"masked_scatter: Number of elements of source ({len(flat)}) < number of ones in mask ({count})"
        )
    placed = apply(ops.masked_place, (flat[:count], m))
    return apply(ew.where, (m, placed, x))


@function
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices of the elements that are not zero: int64, one row each (or one tensor per dimension).

    >>> import kilograd as kg
    >>> kg.nonzero(kg.tensor([0, 3, 0, 5]))
    tensor([[1],
            [3]])
    """
    if as_tuple:
        return tuple([wrap(i) for i in np.nonzero(np.atleast_1d(input.array))])
    return apply(ops.nonzero, (input,))


@function
def argwhere(input: Tensor) -> Tensor:
    """:func:`nonzero` under NumPy's name.

    >>> import kilograd as kg
    >>> kg.argwhere(kg.tensor([True, False]))
    tensor([[0]])
    """
    return apply(ops.nonzero, (input,))


@function
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` rows of :func:`nonzero`, made up with ``fill_value`` where there are fewer.

    >>> import kilograd as kg
    >>> kg.nonzero_static(kg.tensor([0, 3]), size=2)
    tensor([[ 1],
            [-1]])
    """
    if size < 0:
        raise ShapeError(f"nonzero_static: 'size' must be a non-negative integer, got {size}")
    found = np.argwhere(input.array)[:size]
    y = np.full((size, input.ndim), fill_value, np.int64)
    y[: len(found)] = found
    return wrap(y)


# --- a part replaced --------------------------------------------------------------------------------------


def _replaced(input: Tensor, src: Any, part: tuple[int, ...], name: str) -> None:
    if tuple(src.shape) != tuple(part):
        raise ShapeError(
            f"{name}: expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(part)}"
        )


@function
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with one slice along a dimension replaced by ``src``.

    >>> import kilograd as kg
    >>> kg.select_scatter(kg.zeros(2, 2), kg.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    part = input.select(dim, index)
    _replaced(input, src, part.shape, "select_scatter")
    axis = one_axis(dim, input.ndim)
    at = (*(slice(None),) * axis, operator.index(index), ...)
    return apply(ops.index_put, (input, src), {"index": at})


@function
def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """A copy with the slice ``start:end:step`` along a dimension replaced by ``src``.

    >>> import kilograd as kg
    >>> kg.slice_scatter(kg.zeros(4), kg.ones(2), start=1, end=3)
    tensor([0., 1., 1., 0.])
    """
    if step <= 0:
        raise ShapeError("slice_scatter: slice step must be positive")
    at = (*(slice(None),) * one_axis(dim, input.ndim), slice(start, end, step))
    _replaced(input, src, input.array[at].shape, "slice_scatter")
    return apply(ops.index_put, (input, src), {"index": at})


@function
def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy with a diagonal replaced by ``src``.

    >>> import kilograd as kg
    >>> kg.diagonal_scatter(kg.zeros(2, 2), kg.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    options = _diagonal_options(input, offset, dim1, dim2)
    _replaced(input, src, shape_ops.diagonal(input.array, **options).shape, "diagonal_scatter")

    def view(x: Any) -> Any:
        return shape_ops.diagonal(x, **options)

    return apply(ops.view_put, (input, src), {"view": view})


@function
def as_strided_scatter(
    input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """A copy with what ``as_strided(input, size, stride, storage_offset)`` shows replaced by ``src``.

    >>> import kilograd as kg
    >>> kg.as_strided_scatter(kg.zeros(4), kg.ones(2), (2,), (2,))
    tensor([1., 0., 1., 0.])
    """
    base = input if input.is_contiguous() and not input.storage_offset() else input.clone()
    part = as_strided(base.detach(), size, stride, storage_offset)
    _replaced(input, src, part.shape, "as_strided_scatter")
    at = ops.places(part.shape, sizes(stride, "as_strided"), storage_offset or 0)
    flat = apply(shape_ops.reshape, (input,), {"shape": (input.numel(),)})
    v = apply(shape_ops.reshape, (src,), {"shape": (math.prod(part.shape),)})
    return apply(ops.index_assign, (flat, v, at), {"axis": 0}).reshape(input.shape)


# --- diagonals and triangles ----------------------------------------------------------------------------


def _diagonal_options(input: Tensor, offset: int, dim1: int, dim2: int) -> dict[str, int]:
    a, b = _axis(dim1, input.ndim), _axis(dim2, input.ndim)
    if a == b:
        raise ShapeError(f"diagonal: diagonal dimensions cannot be identical {dim1}, {dim2}")
    return {"offset": operator.index(offset), "a": a, "b": b}


def _axis(dim: int, ndim: int) -> int:
    if ndim == 0:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return one_axis(dim, ndim)


@function
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, as the last dimension.

    >>> import kilograd as kg
    >>> kg.tensor([[1, 2], [3, 4]]).diagonal(), kg.tensor([[1, 2], [3, 4]]).diagonal(1)
    (tensor([1, 4]), tensor([2]))
    """
    return apply(shape_ops.diagonal, (input,), _diagonal_options(input, offset, dim1, dim2))


@function
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Zeros with the last dimension of the input on a diagonal of two new dimensions.

    >>> import kilograd as kg
    >>> kg.diag_embed(kg.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    ndim = input.ndim + 1
    a, b = one_axis(dim1, ndim), one_axis(dim2, ndim)
    if a == b:
        raise ShapeError(f"diag_embed: diagonal dimensions cannot be identical {dim1}, {dim2}")
    x = input.array.shape
    n = x[-1] + abs(offset)
    shape = list(x[:-1])
    for axis in sorted((a, b)):
        shape.insert(axis, n)
    options = {"shape": tuple(shape), "offset": offset, "a": a, "b": b}
    return apply(shape_ops.diagonal_put, (input,), options)


@function
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix (a copy), or the matrix with a vector on its diagonal.

    >>> import kilograd as kg
    >>> kg.diag(kg.tensor([1, 2])), kg.diag(kg.tensor([[1, 2], [3, 4]]))
    (tensor([[1, 0],
            [0, 2]]), tensor([1, 4]))
    """
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim == 2:
        options = {"offset": diagonal, "a": 0, "b": 1}
        return apply(ew.clone, (apply(shape_ops.diagonal, (input,), options),))
    raise ShapeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")


@function
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the elements of the flattened input on a diagonal.

    >>> import kilograd as kg
    >>> kg.diagflat(kg.tensor([1, 2]), 1)
    tensor([[0, 1, 0],
            [0, 0, 2],
            [0, 0, 0]])
    """
    return diag_embed(input.reshape(-1), offset)


@function(inplace=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangles of matrices, from ``diagonal`` to the right of the main one; zeros elsewhere.

    >>> import kilograd as kg
    >>> kg.tril(kg.ones(2, 3))
    tensor([[1., 0., 0.],
            [1., 1., 0.]])
    """
    if input.ndim < 2:
        raise ShapeError("tril: input tensor must have at least 2 dimensions")
    return apply(shape_ops.tril, (input,), {"k": operator.index(diagonal)})


@function(inplace=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangles of matrices, from ``diagonal`` to the right of the main one; zeros elsewhere.

    >>> import kilograd as kg
    >>> kg.triu(kg.ones(2, 3))
    tensor([[1., 1., 1.],
            [0., 1., 1.]])
    """
    if input.ndim < 2:
        raise ShapeError("triu: input tensor must have at least 2 dimensions")
    return apply(shape_ops.triu, (input,), {"k": operator.index(diagonal)})


def _triangle(row: int, col: int, dtype: Any, name: str) -> np.dtype:
    if row < 0 or col < 0:
        raise ShapeError(f"{name}: row and col must be non-negative, got {row} and {col}")
    kind = dtypes.numpy_dtype(dtype) or np.dtype(np.int64)
    if kind.kind not in "iu":
        raise NotImplementedError(f'"{name}" not implemented for {dtype}')
    return kind


@function(method=False)
def tril_indices(
    row: int,
    col: int,
    offset: int = 0,
    *,
    dtype: Any = None,
    device: Any = None,
    layout: Any = None,
) -> Tensor:
    """Row and column numbers (2, n) of the lower triangle of a row × col matrix.

    >>> import kilograd as kg
    >>> kg.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    kind = _triangle(row, col, dtype, "tril_indices")
    return wrap(np.stack(np.tril_indices(row, offset, col)).astype(kind))


@function(method=False)
def triu_indices(
    row: int,
    col: int,
    offset: int = 0,
    *,
    dtype: Any = None,
    device: Any = None,
    layout: Any = None,
) -> Tensor:
    """Row and column numbers (2, n) of the upper triangle of a row × col matrix.

    >>> import kilograd as kg
    >>> kg.triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    kind = _triangle(row, col, dtype, "triu_indices")
    return wrap(np.stack(np.triu_indices(row, offset, col)).astype(kind))


@function(method=False)
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The coordinates, one tensor per dimension of ``shape``, of positions in a flattened array.

    >>> import kilograd as kg
    >>> kg.unravel_index(kg.tensor([3, 5]), (2, 3))
    (tensor([1, 1]), tensor([0, 2]))
    """
    if not isinstance(indices, (Tensor, np.ndarray)) or not np.issubdtype(
        np.asarray(getattr(indices, "array", indices)).dtype, np.integer
    ):
        raise ValueError("expect 'indices' to be integer dtype")
    dims = sizes(shape, "unravel_index")
    if any(n < 0 for n in dims):
        raise ValueError("'shape' cannot have negative values")
    rest: Any = np.asarray(getattr(indices, "array", indices)).astype(np.int64)
    found = []
    for n in reversed(dims):
        found.append(wrap(np.asarray(rest % n)))
        rest = rest // n
    return tuple(reversed(found))


# --- filling ----------------------------------------------------------------------------------------------


@function(method=False)
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like ``input`` with every element ``value`` (a number or 0-d tensor).

    >>> import kilograd as kg
    >>> kg.fill(kg.zeros(2), 3)
    tensor([3., 3.])
    """
    v = number(value, input.array.dtype, "fill_")
    return apply(ops.fill, (input, v))


@method
def fill_(self: Tensor, value: Any) -> Tensor:
    """Set every element to ``value``, a number or 0-d tensor; returns the tensor."""
    return self._inplace(fill, value)


@method
def zero_(self: Tensor) -> Tensor:
    """Set every element to zero; returns the tensor."""
    return self._inplace(fill, 0)


@method
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Set the main diagonal to a number; returns the tensor.

    With ``wrap``, a tall matrix gets further diagonals below, one row apart.
    """
    shape = self.array.shape
    if len(shape) < 2:
        raise ShapeError("fill_diagonal_: dimensions must larger than 1")
    if len(shape) > 2 and len(set(shape)) > 1:
        raise ShapeError("fill_diagonal_: all dimensions of input must be of equal length")
    mask = np.zeros(shape, bool)
    np.fill_diagonal(mask, True, wrap=wrap)
    return self._inplace(masked_fill, mask, fill_value)
