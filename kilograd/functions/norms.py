"""Sizes of vectors and matrices. At zero, where a norm has no derivative, it is 0, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kilograd import dtypes
from kilograd.errors import DtypeError, ShapeError
from kilograd.functions.calling import all_axes, function, one_axis, tensor_like
from kilograd.ops import decompositions as factors
from kilograd.ops import linalg as ops
from kilograd.ops import reduce as reduce_ops
from kilograd.ops import shape as shape_ops
from kilograd.ops.elementwise import absolute, cast
from kilograd.tensor import Tensor, apply

Dim = int | Sequence[int] | None


def _in_dtype(x: Tensor, dtype: Any, name: str) -> Tensor:
    """x in the dtype to compute with, which must be a floating-point or complex one and not narrower."""
    if x.array.dtype.kind not in "fc":
        raise DtypeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {x.dtype}"
        )
    if dtype is None:
        return x
    wanted = dtypes.as_dtype(dtype)
    if wanted.kind not in "fc":
        raise DtypeError(f"{name}: dtype should be floating point or complex, but got {wanted}")
    if x.array.dtype.kind == "c" != wanted.kind:
        raise DtypeError(f"{name}: dtype should be complex for complex inputs, but got {wanted}")
    if dtypes.promote_types(x.dtype, wanted) != wanted:
        raise DtypeError(
            f"{name}: the dtype of the input ({x.dtype}) should be convertible without narrowing "
            f"to the specified dtype ({wanted})"
        )
    return x if x.dtype == wanted else cast(x, dtype=wanted.dtype)


def p_norm(x: Tensor, p: float, dim: Dim, keepdim: bool, dtype: Any, name: str) -> Tensor:
    """The p-norm over ``dim``."""
    x = _in_dtype(x, dtype, name)
    axis = all_axes(dim, x.ndim)
    sizes = x.shape if axis is None else [x.shape[a] for a in axis]
    if 0 in sizes and (p < 0 or p == math.inf):
        raise ShapeError(
            f"{name} cannot compute the {p} norm on an empty tensor of shape {list(x.shape)} "
            "because the operation does not have an identity"
        )
    return apply(ops.vector_norm, (x,), {"ord": p, "axis": axis, "keepdims": keepdim})


@function(method=False)
def vector_norm(
    input: Tensor, ord: float = 2, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm (Σ |x|^ord)^(1/ord) of vectors along ``dim`` (None: of all elements).

    ``ord``: inf and -inf give the largest and smallest |x|, 0 the number of nonzeros.

    Raises:
        RuntimeError: not floating point, or empty where there is no smallest or largest.

    >>> import kilograd as kg
    >>> kg.linalg.vector_norm(kg.tensor([3.0, 4.0])), kg.linalg.vector_norm(kg.tensor([3.0, 4.0]), 1)
    (tensor(5.), tensor(7.))
    """
    if not isinstance(ord, (int, float)):
        raise TypeError(f"vector_norm(): argument 'ord' must be Number, not {type(ord).__name__}")
    return p_norm(tensor_like(input), ord, dim, keepdim, dtype, "linalg.vector_norm")


@function(method=False)
def matrix_norm(
    input: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The norm of matrices that lie in two dimensions of ``input``.

    Args:
        input: (*, m, n), unless ``dim`` says otherwise.
        ord: 'fro' (of all elements), 'nuc' (sum of singular values), 2 and -2 (largest and smallest
            singular value), 1 and -1 (columns' sums of |A|), inf and -inf (rows').
        dim: the two dimensions.
        keepdim: keep them, with size 1.
        dtype: convert to this dtype first.

    Raises:
        RuntimeError: less than two dimensions, unknown ``ord``, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.matrix_norm(kg.tensor([[3.0, 0.0], [0.0, 4.0]]), "nuc")
    tensor(7.)
    """
    name = "linalg.matrix_norm"
    A = tensor_like(input)
    if isinstance(dim, int):
        raise TypeError(f"{name}: dim must be a tuple of two ints, not int")
    if A.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    if len(dim) != 2:
        raise ShapeError(f"{name}: dim must be a 2-tuple. Got {tuple(dim)}")
    rows, columns = (one_axis(d, A.ndim) for d in dim)
    if rows == columns:
        raise ShapeError(f"{name}: dims must be different. Got {tuple(dim)}")
    if ord == "fro":
        return p_norm(A, 2, (rows, columns), keepdim, dtype, name)
    if ord == "nuc":
        singular, largest = True, None
    elif isinstance(ord, str) or abs(ord) not in (1, 2, math.inf):
        raise ShapeError(f"{name}: Order {ord} not supported.")
    else:
        singular, largest = abs(ord) == 2, ord > 0
    A = _in_dtype(A, dtype, name)
    if singular:
        rest = tuple(a for a in range(A.ndim) if a not in (rows, columns))
        s = factors.svdvals(shape_ops.permute(A, axes=(*rest, rows, columns)))
        y = reduce_ops.sum(s, axis=-1) if largest is None else _extreme(s, largest, -1)
    else:
        summed, other = (rows, columns) if ord in (1, -1) else (columns, rows)
        y = _extreme(reduce_ops.sum(absolute(A), axis=summed, keepdims=True), bool(largest), other)
    shape = [1 if a in (rows, columns) else n for a, n in enumerate(A.shape)]
    if not keepdim:
        shape = [n for a, n in enumerate(A.shape) if a not in (rows, columns)]
    return shape_ops.reshape(y, shape=tuple(shape))


def _extreme(x: Tensor, largest: bool, axis: int) -> Tensor:
    if largest and not x.shape[axis]:  # the largest of no sizes
        return reduce_ops.sum(x, axis=axis)
    return reduce_ops.amax(x, axis=axis) if largest else reduce_ops.amin(x, axis=axis)


def any_norm(
    A: Tensor, ord: Any = None, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """``linalg.norm``: of a vector or a matrix, as ``ord`` and ``dim`` say."""
    A = tensor_like(A)
    if dim is not None:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        if len(dims) not in (1, 2):
            raise ShapeError(
                f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dims)}"
            )
    elif ord is not None and A.ndim not in (1, 2):
        raise ShapeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. "
            f"Got {A.ndim}D."
        )
    else:
        dims = None
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if isinstance(ord, str) or (A.ndim == 2 if dims is None else len(dims) == 2):
        where = (-2, -1) if dims is None else dims
        return matrix_norm(A, ord, where, keepdim, dtype=dtype)
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)
