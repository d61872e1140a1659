"""Products of matrices, and PyTorch's older top-level names for what ``kilograd.linalg`` does."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kilograd.errors import DtypeError, LinAlgError, ShapeError
from kilograd.functions.calling import function, one_axis, tensor_like
from kilograd.functions.einsum import contracted, einsum
from kilograd.ops import decompositions as factors
from kilograd.ops import elementwise as ew
from kilograd.ops import linalg as ops
from kilograd.ops import reduce as reduce_ops
from kilograd.ops import shape as shape_ops
from kilograd.tensor import Tensor, apply, wrap

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "cdist", "chain_matmul", "cholesky",
    "cholesky_inverse", "cholesky_solve", "corrcoef", "cov", "cross", "det", "dot",
    "einsum", "ger", "inner", "inverse", "kron", "logdet", "lu", "lu_solve", "lu_unpack", "matmul",
    "matrix_exp", "matrix_power", "mm", "mv", "orgqr", "outer", "pinverse", "qr",
    "slogdet", "svd", "tensordot", "trace", "triangular_solve", "vander", "vdot",
]  # fmt: skip


# --- what an argument must be -------------------------------------------------------------------


def matrices(A: Any, name: str, *, square: bool = False, precise: bool = True) -> Tensor:
    """``A`` as a tensor of matrices (*, m, n), or the error PyTorch raises for what it is.

    ``precise``: of a dtype LAPACK computes with.
    """
    A = tensor_like(A)
    if A.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    if square and A.shape[-1] != A.shape[-2]:
        m, n = A.shape[-2:]
        raise ShapeError(
            f"{name}: A must be batches of square matrices, but they are {m} by {n} matrices"
        )
    if precise:
        lapack_dtype(A, name)
    return A


def lapack_dtype(A: Tensor, name: str) -> None:
    """DtypeError unless LAPACK computes with it."""
    if A.array.dtype.kind not in "fc":
        raise DtypeError(
            f"{name}: Expected a floating point or complex tensor as input. Got {A.dtype}"
        )
    if A.array.dtype.char == "e":
        raise DtypeError(f"{name}: Low precision dtypes not supported. Got {A.dtype}")


def same_dtype(name: str, **tensors: Tensor) -> None:
    """DtypeError unless all have one dtype."""
    (first, a), *others = tensors.items()
    for other, b in others:
        if a.array.dtype != b.array.dtype:
            raise DtypeError(
                f"{name}: Expected {first} and {other} to have the same dtype, but found {first} "
                f"of type {a.dtype} and {other} of type {b.dtype} instead"
            )


def _ranks(name: str, wanted: Sequence[int], *tensors: Any) -> None:
    for i, (x, ndim) in enumerate(zip(tensors, wanted, strict=True)):
        if not isinstance(x, (Tensor, np.ndarray)):
            raise TypeError(f"{name}(): argument {i + 1} must be Tensor, not {type(x).__name__}")
        if x.ndim != ndim:
            shapes = ", ".join(str(list(t.shape)) for t in tensors)
            what = ("a number", "a 1D tensor", "a matrix", "a 3D tensor")[ndim]
            raise ShapeError(
                f"{name}: argument {i + 1} must be {what}, but got a {x.ndim}D tensor (shapes {shapes})"
            )


# --- products -----------------------------------------------------------------------------------


@function
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product ``input @ other``: of vectors, matrices, or batches of matrices that broadcast.

    Shapes: (n) @ (n) -> (); (*, m, n) @ (*, n, p) -> (*, m, p); a vector on the left is a row, on
    the right a column, which the result does not have.

    Raises:
        RuntimeError: the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.matmul(kg.ones(2, 3), kg.arange(3.0))
    tensor([3., 3.])
    """
    return apply(ops.matmul, (input, other))


@function
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, (m, n) @ (n, p) -> (m, p).

    Raises:
        RuntimeError: not two matrices, the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.mm(kg.ones(2, 3), kg.ones(3, 1))
    tensor([[3.],
            [3.]])
    """
    _ranks("mm", (2, 2), input, mat2)
    return apply(ops.matmul, (input, mat2))


@function
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices, (B, m, n) @ (B, n, p) -> (B, m, p).

    Raises:
        RuntimeError: not 3-dimensional, or the shapes do not fit (nothing broadcasts).

    >>> import kilograd as kg
    >>> kg.bmm(kg.ones(4, 2, 3), kg.ones(4, 3, 5)).shape
    kilograd.Size([4, 2, 5])
    """
    _ranks("bmm", (3, 3), input, mat2)
    _batches("bmm", input, mat2)
    return apply(ops.matmul, (input, mat2))


def _batches(name: str, a: Tensor, b: Tensor) -> None:
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise ShapeError(
            f"{name}: Expected size for first two dimensions of batch2 tensor to be: "
            f"[{a.shape[0]}, {a.shape[2]}] but got: [{b.shape[0]}, {b.shape[1]}]."
        )


@function
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A matrix times a vector, (m, n) @ (n) -> (m).

    Raises:
        RuntimeError: not a matrix and a vector, or the sizes do not fit.

    >>> import kilograd as kg
    >>> kg.mv(kg.eye(2), kg.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    _ranks("mv", (2, 1), input, vec)
    return apply(ops.matmul, (input, vec))


@function
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The dot product of two vectors of one length.

    Raises:
        RuntimeError: not two vectors, or the lengths or dtypes differ.

    >>> import kilograd as kg
    >>> kg.dot(kg.tensor([2, 3]), kg.tensor([2, 1]))
    tensor(7)
    """
    _ranks("dot", (1, 1), input, tensor)
    return apply(ops.matmul, (input, tensor))


@function
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The dot product of two vectors, the first conjugated.

    Raises:
        RuntimeError: not two vectors, or the lengths or dtypes differ.

    >>> import kilograd as kg
    >>> kg.vdot(kg.tensor([2.0, 3.0]), kg.tensor([2.0, 1.0]))
    tensor(7.)
    """
    _ranks("vdot", (1, 1), input, other)
    return apply(ops.matmul, (conjugate(input), other))


def conjugate(x: Tensor) -> Tensor:
    """The complex conjugate; of real numbers the same tensor."""
    return x.conj() if x.array.dtype.kind == "c" else x


@function
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Dot products along the last dimensions, (*, n) and (+, n) -> (*, +); a number multiplies.

    Raises:
        RuntimeError: the last dimensions differ, or the dtypes.

    >>> import kilograd as kg
    >>> kg.inner(kg.ones(2, 3), kg.arange(3.0))
    tensor([3., 3.])
    """
    input, other = tensor_like(input), tensor_like(other)
    same_dtype("inner()", input=input, other=other)
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input.shape)} and {list(other.shape)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@function
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors, (m) and (n) -> (m, n).

    Raises:
        RuntimeError: an argument is not a vector.

    >>> import kilograd as kg
    >>> kg.outer(kg.tensor([1, 2]), kg.tensor([3, 4]))
    tensor([[3, 4],
            [6, 8]])
    """
    _ranks("outer", (1, 1), input, vec2)
    return apply(ew.multiply, (tensor_like(input)[:, None], vec2))


@function
def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """Alias of :func:`outer`.

    >>> import kilograd as kg
    >>> kg.ger(kg.tensor([1, 2]), kg.tensor([3]))
    tensor([[3],
            [6]])
    """
    return outer(input, vec2)


@function
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of ``input`` times the whole of ``other``.

    The result has ``input.shape[i] * other.shape[i]`` elements along dimension i.

    >>> import kilograd as kg
    >>> kg.kron(kg.tensor([[1, 2]]), kg.tensor([[1], [1]]))
    tensor([[1, 2],
            [1, 2]])
    """
    input, other = tensor_like(input), tensor_like(other)
    ndim = max(input.ndim, other.ndim)
    a = (1,) * (ndim - input.ndim) + tuple(input.shape)
    b = (1,) * (ndim - other.ndim) + tuple(other.shape)
    a_spread = tuple(k for n in a for k in (n, 1))
    b_spread = tuple(k for n in b for k in (1, n))
    y = shape_ops.reshape(input, shape=a_spread) * shape_ops.reshape(other, shape=b_spread)
    return shape_ops.reshape(y, shape=tuple(i * j for i, j in zip(a, b, strict=True)))


@function(method=False)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products summed over dimensions of both: the last ``dims`` of ``a`` and first of ``b``.

    ``dims`` may also be two lists: the dimensions of ``a``, and those of ``b`` they go with.

    Raises:
        RuntimeError: sizes or numbers of dimensions do not match.

    >>> import kilograd as kg
    >>> kg.tensordot(kg.ones(2, 3, 4), kg.ones(4, 3, 5), dims=([1, 2], [1, 0])).shape
    kilograd.Size([2, 5])
    """
    a, b = tensor_like(a), tensor_like(b)
    same_dtype("tensordot()", a=a, b=b)
    if isinstance(dims, (Tensor, np.ndarray)):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise ShapeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        of_a, of_b = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        of_a, of_b = ([d] if isinstance(d, int) else list(d) for d in dims)
        of_a = [one_axis(d, a.ndim) for d in of_a]
        of_b = [one_axis(d, b.ndim) for d in of_b]
    if len(of_a) != len(of_b):
        raise ShapeError("tensordot: both dimension lists should have same length")
    for i, j in zip(of_a, of_b, strict=True):
        if a.shape[i] != b.shape[j] and a.shape[i] != 1 and b.shape[j] != 1:
            raise ShapeError(
                f"tensordot: contracted dimensions need to match, but first has size {a.shape[i]} "
                f"in dim {i} and second has size {b.shape[j]} in dim {j}"
            )
    labels_a = list(range(a.ndim))
    labels_b = list(range(a.ndim, a.ndim + b.ndim))
    for i, j in zip(of_a, of_b, strict=True):
        labels_b[j] = labels_a[i]
    rest = [k for i, k in enumerate(labels_a) if i not in of_a]
    rest += [k for j, k in enumerate(labels_b) if j not in of_b]
    y = contracted([a, b], [labels_a, labels_b], rest)
    return y if y.dtype == a.dtype else ew.cast(y, dtype=a.array.dtype)  # sums of ints are int64


@function
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along a dimension of size 3 (``dim=None``: the first of that size).

    Raises:
        RuntimeError: different numbers of dimensions, or no dimension of size 3.

    >>> import kilograd as kg
    >>> kg.cross(kg.tensor([1.0, 0.0, 0.0]), kg.tensor([0.0, 1.0, 0.0]), dim=0)
    tensor([0., 0., 1.])
    """
    input, other = tensor_like(input), tensor_like(other)
    if dim is None:
        if input.ndim == other.ndim and 3 not in input.shape:
            raise ShapeError(f"cross: no dimension of size 3 in input of shape {list(input.shape)}")
        dim = list(input.shape).index(3) if 3 in input.shape else -1
    return vector_product(input, other, dim)


def vector_product(input: Tensor, other: Tensor, dim: int) -> Tensor:
    """The vector product along ``dim``, checked as ``linalg.cross``."""
    if input.ndim != other.ndim:
        raise ShapeError(
            "linalg.cross: inputs must have the same number of dimensions, but have shapes "
            f"{list(input.shape)} and {list(other.shape)}."
        )
    axis = one_axis(dim, input.ndim)
    if not input.ndim or input.shape[axis] != 3 or other.shape[axis] != 3:
        raise ShapeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got shapes "
            f"{list(input.shape)} and {list(other.shape)}"
        )
    return apply(ops.cross, (input, other), {"axis": axis})


@function
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal.

    Raises:
        RuntimeError: not a matrix.

    >>> import kilograd as kg
    >>> kg.trace(kg.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(5.)
    """
    if input.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    return shape_ops.diagonal(input, offset=0, a=0, b=1).sum()


@function(method=False)
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, in the order that takes the fewest multiplications.

    Raises:
        RuntimeError: no matrices, or their shapes do not fit.

    >>> import kilograd as kg
    >>> kg.chain_matmul(kg.ones(2, 9), kg.ones(9, 9), kg.ones(9, 1))
    tensor([[81.],
            [81.]])
    """
    if not matrices:
        raise ShapeError("chain_matmul(): Expected one or more matrices")
    _ranks("chain_matmul", (2,) * len(matrices), *matrices)
    return chained(list(matrices), "chain_matmul()")


def chained(tensors: list[Tensor], name: str) -> Tensor:
    """The product of matrices in the cheapest order."""
    for i, (a, b) in enumerate(itertools.pairwise(tensors)):
        if a.shape[1] != b.shape[0]:
            raise ShapeError(
                f"{name}: tensors {i} and {i + 1} with shapes {list(a.shape)} and {list(b.shape)} "
                "cannot be multiplied"
            )
    size = [tensors[0].shape[0], *(t.shape[1] for t in tensors)]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(tensors))}
    for span in range(1, len(tensors)):
        for i in range(len(tensors) - span):
            j = i + span
            best[i, j] = min(
                (best[i, k][0] + best[k + 1, j][0] + size[i] * size[k + 1] * size[j + 1], k)
                for k in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return tensors[i]
        k = best[i, j][1]
        return ops.matmul(product(i, k), product(k + 1, j))

    return product(0, len(tensors) - 1)


# --- a product added to something ---------------------------------------------------------------


def _added(name: str, input: Any, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * product, of the product's shape."""
    input = tensor_like(input)
    if input.array.dtype != product.array.dtype:
        raise DtypeError(
            f"{name}: self and the product must have the same dtype, but got {input.dtype} and "
            f"{product.dtype}"
        )
    if input.shape != product.shape:
        lead = product.ndim - input.ndim
        if lead < 0 or any(
            n not in (1, m) for n, m in zip(input.shape, product.shape[lead:], strict=True)
        ):
            raise ShapeError(
                f"{name}: input of shape {list(input.shape)} does not expand to the product's shape "
                f"{list(product.shape)}"
            )
    if product.array.dtype.kind in "iu":
        beta, alpha = int(beta), int(alpha)
    if alpha != 1:
        product = product * alpha
    if beta == 0:  # whatever is in it, nan too
        return product
    return product + (input if beta == 1 else input * beta)


@function(inplace=True)
def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``; ``input`` broadcasts, and is not read if beta is 0.

    Raises:
        RuntimeError: not matrices, the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.addmm(kg.ones(2), kg.eye(2), kg.eye(2), alpha=3)
    tensor([[4., 1.],
            [1., 4.]])
    """
    _ranks("addmm", (2, 2), mat1, mat2)
    return _added("addmm", input, ops.matmul(mat1, mat2), beta, alpha)


@function(inplace=True)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``; ``input`` broadcasts.

    Raises:
        RuntimeError: not a matrix and a vector, the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.addmv(kg.ones(2), kg.eye(2), kg.tensor([1.0, 2.0]))
    tensor([2., 3.])
    """
    _ranks("addmv", (2, 1), mat, vec)
    return _added("addmv", input, ops.matmul(mat, vec), beta, alpha)


@function(inplace=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``; ``input`` broadcasts.

    Raises:
        RuntimeError: not vectors, or the shapes do not fit.

    >>> import kilograd as kg
    >>> kg.addr(kg.zeros(2, 2), kg.tensor([1.0, 2.0]), kg.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    _ranks("addr", (1, 1), vec1, vec2)
    product = outer(vec1, vec2)
    if product.array.dtype.kind == "b":
        product = product if alpha else product & False
        return (product | input) if beta else product
    return _added("addr", input, product, beta, alpha)


@function(inplace=True)
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * Σ batch1[i] @ batch2[i]``; ``input`` broadcasts.

    Raises:
        RuntimeError: not 3-dimensional, the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.addbmm(kg.zeros(1, 1), kg.ones(5, 1, 2), kg.ones(5, 2, 1))
    tensor([[10.]])
    """
    _ranks("addbmm", (3, 3), batch1, batch2)
    _batches("addbmm", batch1, batch2)
    product = ops.contract(batch1, batch2, labels=("bij", "bjk", "ik"))
    return _added("addbmm", input, product, beta, alpha)


@function(inplace=True)
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """``beta * input + alpha * (batch1 @ batch2)``, (B, m, n) @ (B, n, p); ``input`` broadcasts.

    Raises:
        RuntimeError: not 3-dimensional, the shapes do not fit, or the dtypes differ.

    >>> import kilograd as kg
    >>> kg.baddbmm(kg.ones(1), kg.ones(2, 1, 3), kg.ones(2, 3, 1)).flatten()
    tensor([4., 4.])
    """
    _ranks("baddbmm", (3, 3), batch1, batch2)
    _batches("baddbmm", batch1, batch2)
    return _added("baddbmm", input, ops.matmul(batch1, batch2), beta, alpha)


# --- statistics and distances -------------------------------------------------------------------


@function
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """Covariances of variables, the rows of ``input``: (V, N) -> (V, V); of one variable a number.

    Args:
        input: observations.
        correction: N − correction divides (1: unbiased).
        fweights: how often each observation was made, integers (N).
        aweights: how much each observation weighs, (N).

    Raises:
        RuntimeError: more than two dimensions, bools, or weights that do not fit.

    >>> import kilograd as kg
    >>> kg.cov(kg.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise ShapeError(
            "cov(): expected input to have two or fewer dimensions but got an input with "
            f"{input.ndim} dimensions"
        )
    if input.array.dtype.kind == "b":
        raise DtypeError("cov(): bool dtype is not supported for input")
    x = input if input.ndim == 2 else shape_ops.reshape(input, shape=(1, input.numel()))
    count = x.shape[1]
    w: Any = None
    if fweights is not None:
        _check_weights("fweights", fweights, count, "iu")
        w = fweights
    if aweights is not None:
        _check_weights("aweights", aweights, count, "f")
        w = aweights if w is None else w * aweights
    total: Any = count if w is None else w.sum()
    if w is not None and count and float(total) == 0:
        raise ShapeError("cov(): weights sum to zero, can't be normalized")
    weighted = x if w is None else x * w
    centred = x - (weighted.sum(1) / total)[:, None]
    if w is not None and aweights is not None and correction != 0:
        divisor = total - correction * (w * aweights).sum() / total
    else:
        divisor = total - correction
    if float(divisor) <= 0:
        warnings.warn("cov(): degrees of freedom is <= 0", UserWarning, stacklevel=3)
        divisor = divisor * 0.0
    c = ops.matmul(centred, conjugate(centred if w is None else centred * w).T) / divisor
    return shape_ops.reshape(c, shape=()) if x.shape[0] == 1 else c


def _check_weights(name: str, w: Any, count: int, kinds: str) -> None:
    if w.ndim > 1:
        raise ShapeError(f"cov(): expected {name} to have one or fewer dimensions")
    if w.array.dtype.kind not in kinds:
        wanted = "integral" if "i" in kinds else "floating point"
        raise DtypeError(f"cov(): expected {name} to have {wanted} dtype but got {w.dtype}")
    if w.numel() != count:
        raise ShapeError(
            f"cov(): expected {name} to have the same numel as there are observations in the input "
            f"but got {w.numel()} != {count}"
        )
    if (w.array < 0).any():
        raise ShapeError(f"cov(): {name} cannot be negative")


@function
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlations of variables, the rows of ``input`` (V, N) -> (V, V).

    Raises:
        RuntimeError: more than two dimensions.

    >>> import kilograd as kg
    >>> kg.corrcoef(kg.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise ShapeError(
            "corrcoef(): expected input to have two or fewer dimensions but got an input with "
            f"{input.ndim} dimensions"
        )
    c = cov(input)
    if not c.ndim:
        return c / c
    deviation = ew.sqrt(shape_ops.diagonal(c, offset=0, a=0, b=1))
    return ew.clamp(c / deviation[:, None] / deviation, -1.0, 1.0)


_MODES = (
    "use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)  # fmt: skip


@function(method=False)
def cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """Distances of all pairs of points: (*, P, M) and (*, R, M) -> (*, P, R), in the p-norm.

    Euclidean distances of more than 25 points come from one matrix product, unless
    ``compute_mode`` says otherwise.

    Raises:
        RuntimeError: different M, less than two dimensions, p < 0, or not floating point.
        ValueError: an unknown compute_mode.

    >>> import kilograd as kg
    >>> kg.cdist(kg.tensor([[0.0, 0.0], [3.0, 4.0]]), kg.zeros(1, 2))
    tensor([[0.],
            [5.]])
    """
    if compute_mode not in (None, *_MODES):
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    x1, x2 = tensor_like(x1), tensor_like(x2)
    for x, name in ((x1, "X1"), (x2, "X2")):
        if x.array.dtype.kind != "f":
            raise DtypeError(f"cdist only supports floating-point dtypes, {name} got: {x.dtype}")
        if x.ndim < 2:
            raise ShapeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
    if x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(
            "cdist: X1 and X2 must have the same number of columns. "
            f"X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    same_dtype("cdist", X1=x1, X2=x2)
    if p < 0:
        raise ShapeError(f"cdist only supports non-negative p values, got {p}")
    if p == 2:
        many = x1.shape[-2] > 25 or x2.shape[-2] > 25
        product = many if compute_mode in (None, _MODES[0]) else compute_mode == _MODES[1]
        return ops.euclidean(x1, x2, product=product)
    d = x1[..., :, None, :] - x2[..., None, :, :]
    if not x1.shape[-1]:
        return reduce_ops.sum(d, axis=-1)
    return ops.vector_norm(d, ord=p, axis=(-1,), keepdims=False)


# --- determinants, inverses, powers -------------------------------------------------------------


class SignLogDet(NamedTuple):
    """The determinant as sign · exp(logabsdet)."""

    sign: Tensor
    logabsdet: Tensor


@function
def det(input: Tensor) -> Tensor:
    """The determinant of square matrices (*, n, n) -> (*).

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.det(kg.tensor([[2.0, 0.0], [0.0, 3.0]]))
    tensor(6.)
    """
    return ops.det(matrices(input, "linalg.det", square=True))


@function
def slogdet(input: Tensor) -> SignLogDet:
    """``(sign, logabsdet)`` of square matrices: the determinant, where it would over- or underflow.

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.slogdet(kg.eye(3) * -1).sign
    tensor(-1.)
    """
    return SignLogDet(*ops.slogdet(matrices(input, "linalg.slogdet", square=True)))


@function
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant of (*, n, n): nan if that is negative, -inf if it is 0.

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.logdet(kg.eye(3))
    tensor(0.)
    """
    sign, logabsdet = ops.slogdet(matrices(input, "logdet", square=True))
    return ew.where(sign.array < 0, math.nan, logabsdet)


@function
def inverse(input: Tensor) -> Tensor:
    """The inverse of square matrices (*, n, n).

    Raises:
        RuntimeError: not square, singular (``linalg.LinAlgError``), or not floating point.

    >>> import kilograd as kg
    >>> kg.inverse(kg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return ops.inv(matrices(input, "linalg.inv", square=True))


@function
def matrix_exp(input: Tensor) -> Tensor:
    """The exponential Σ xᵏ / k! of square matrices (*, n, n).

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.matrix_exp(kg.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    x = matrices(input, "linalg.matrix_exp", square=True, precise=False)
    if x.array.dtype.char != "e":
        lapack_dtype(x, "linalg.matrix_exp")
    return ops.matrix_exp(x)


@function
def matrix_power(input: Tensor, n: int) -> Tensor:
    """Square matrices (*, m, m) multiplied with themselves; n < 0: powers of the inverse.

    Raises:
        RuntimeError: not square, or singular with n < 0.

    >>> import kilograd as kg
    >>> kg.matrix_power(kg.tensor([[1.0, 1.0], [0.0, 1.0]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    x = matrices(input, "linalg.matrix_power", square=True, precise=False)
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool):
        raise TypeError(f"matrix_power(): argument 'n' must be int, not {type(n).__name__}")
    if n == 0:
        return constant(np.eye(x.shape[-1], dtype=x.array.dtype), x)
    if n < 0:
        x, n = inverse(x), -n
    y: Any = ew.clone(x) if n & 1 else None
    while n := n >> 1:
        x = ops.matmul(x, x)
        if n & 1:
            y = x if y is None else ops.matmul(y, x)
    return y


@function
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse of matrices (*, m, n) -> (*, n, m); see :func:`kilograd.linalg.pinv`.

    Raises:
        RuntimeError: less than two dimensions, or not floating point.

    >>> import kilograd as kg
    >>> kg.pinverse(kg.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    A = matrices(input, "linalg.pinv")
    return factors.pinv(A, cutoff=Cutoff(0.0, rcond))


def constant(value: np.ndarray, x: Tensor) -> Tensor:
    """``value`` in the shape of ``x``, and with a gradient to it, which is zero."""
    return ew.where(np.ones((), bool), value, x)


class Cutoff:
    """How small a singular value counts as zero: the larger of atol and rtol · the largest one."""

    def __init__(self, atol: Any, rtol: Any) -> None:
        self.atol, self.rtol = (
            np.asarray(getattr(t, "array", t))[..., None] if hasattr(t, "ndim") else t
            for t in (atol, rtol)
        )

    def __call__(self, s: Any) -> Any:
        largest = s.max(-1, keepdims=True, initial=0)
        return np.maximum(self.atol, self.rtol * largest)


# --- factors ------------------------------------------------------------------------------------


class USV(NamedTuple):
    """Singular values, and vectors in the columns of U and V."""

    U: Tensor
    S: Tensor
    V: Tensor


class QR(NamedTuple):
    """Orthogonal Q and upper triangular R."""

    Q: Tensor
    R: Tensor


class TriangularSolution(NamedTuple):
    """What :func:`triangular_solve` returns."""

    solution: Tensor
    cloned_coefficient: Tensor


class PLU(NamedTuple):
    """A permutation, lower and upper triangular matrices."""

    P: Tensor
    L: Tensor
    U: Tensor


@function
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """Triangular factors of positive definite matrices; see :func:`kilograd.linalg.cholesky`.

    Raises:
        RuntimeError: not square, or not positive definite (``linalg.LinAlgError``).

    >>> import kilograd as kg
    >>> kg.cholesky(kg.tensor([[4.0]]))
    tensor([[2.]])
    """
    A = matrices(input, "cholesky", square=True)
    return ops.mT(factors.cholesky(ops.mT(A))) if upper else factors.cholesky(A)


@function
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The X of A X = ``input`` (*, n, k), given A's Cholesky factor ``L`` (*, n, n).

    Raises:
        RuntimeError: the shapes do not fit.

    >>> import kilograd as kg
    >>> kg.cholesky_solve(kg.tensor([[8.0]]), kg.tensor([[2.0]]))
    tensor([[2.]])
    """
    for x, name in ((input, "b"), (L, "u")):
        if x.ndim < 2:
            raise ShapeError(
                f"cholesky_solve: {name} should have at least 2 dimensions, but has {x.ndim} "
                "dimensions instead"
            )
    L = matrices(L, "cholesky_solve", square=True)
    _fits("cholesky_solve", L, input)
    return ops.cholesky_solve(input, L, upper=upper)


def _fits(name: str, A: Tensor, b: Tensor) -> None:
    if A.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"Incompatible matrix sizes for {name}: each A matrix is {A.shape[-2]} by {A.shape[-1]} "
            f"but each b matrix is {b.shape[-2]} by {b.shape[-1]}"
        )


@function
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, given A's Cholesky factor ``L`` (*, n, n).

    Raises:
        RuntimeError: not square.

    >>> import kilograd as kg
    >>> kg.cholesky_inverse(kg.tensor([[2.0]]))
    tensor([[0.2500]])
    """
    L = matrices(L, "cholesky_inverse", square=True)
    return cholesky_solve(wrap(np.eye(L.shape[-1], dtype=L.array.dtype)), L, upper)


@function
def qr(input: Tensor, some: bool = True) -> QR:
    """Q and R of matrices (*, m, n); see :func:`kilograd.linalg.qr`.

    Raises:
        RuntimeError: less than two dimensions, or not floating point.

    >>> import kilograd as kg
    >>> kg.qr(kg.ones(3, 2)).R.shape
    kilograd.Size([2, 2])
    """
    A = matrices(input, "linalg.qr")
    return QR(*factors.qr(A, mode="reduced" if some else "complete"))


@function
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> USV:
    """U, S and V of matrices (*, m, n); :func:`kilograd.linalg.svd` gives V's transpose instead.

    Raises:
        RuntimeError: less than two dimensions, or not floating point.

    >>> import kilograd as kg
    >>> kg.svd(kg.ones(3, 2)).V.shape
    kilograd.Size([2, 2])
    """
    A = matrices(input, "linalg.svd")
    if not compute_uv:
        u, v = (np.zeros((*A.shape[:-2], n, n), A.array.dtype) for n in A.shape[-2:])
        return USV(wrap(u), factors.svdvals(A), wrap(v))
    u, s, vh = factors.svd(A, full=not some)
    return USV(u, s, conjugate(ops.mT(vh)))


@function
def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolution:
    """The X of A X = b, and A; see :func:`kilograd.linalg.solve_triangular`.

    Raises:
        RuntimeError: the shapes do not fit.

    >>> import kilograd as kg
    >>> kg.triangular_solve(kg.tensor([[8.0]]), kg.tensor([[2.0]])).solution
    tensor([[4.]])
    """
    A = matrices(A, "triangular_solve", square=True)
    b = matrices(b, "triangular_solve")
    _fits("triangular_solve", A, b)
    used = ops.mT(A) if transpose else A
    x = ops.solve_triangular(used, b, upper=upper != transpose, unit=unitriangular)
    return TriangularSolution(x, A)


@function
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """L and U in one matrix, and the row exchanges; see :func:`kilograd.linalg.lu_factor`.

    Raises:
        RuntimeError: not floating point; ``pivot=False``; singular, unless ``get_infos``.

    >>> import kilograd as kg
    >>> kg.lu(kg.tensor([[0.0, 1.0], [2.0, 0.0]]))[1]
    tensor([2, 2], dtype=kilograd.int32)
    """
    packed, pivots, info = factored(A, "torch.linalg.lu_factor", pivot)
    if get_infos:
        return packed, pivots, info
    check_info(info, "lu_factor: U[{0},{0}] is zero: the matrix is singular")
    return packed, pivots


def factored(A: Any, name: str, pivot: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(LU, pivots, info): info (*) counts from 1 the first zero on U's diagonal, 0 if none."""
    A = tensor_like(A)
    if A.ndim < 2:
        raise ShapeError(
            f"{name}: Expected tensor with 2 or more dimensions. Got size: {list(A.shape)} instead"
        )
    lapack_dtype(A, name)
    if not pivot:
        raise LinAlgError(f"{name}: LU without pivoting is not implemented on the CPU")
    packed, pivots = factors.lu_factor(A)
    return packed, pivots, zero_pivots(packed.array)


def zero_pivots(packed: np.ndarray) -> Tensor:
    """Where U's diagonal in LU (*, m, n) has its first zero, from 1 (0: nowhere), int32 (*)."""
    zero = np.diagonal(packed, 0, -2, -1) == 0
    if not zero.shape[-1]:
        return wrap(np.zeros(zero.shape[:-1], np.int32))
    return wrap(np.where(zero.any(-1), zero.argmax(-1) + 1, 0).astype(np.int32))


def check_info(info: Tensor, message: str) -> None:
    """LinAlgError if a factorization failed; ``{0}`` in the message is where."""
    failed = info.array != 0
    if failed.any():
        first = np.argwhere(failed)[0]
        at = int(info.array[tuple(first)])
        where = f"(Batch element {int(first[-1])}): " if len(first) else ""
        raise LinAlgError(where + message.format(at))


@function(method=False)
def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> PLU:
    """P, L and U from what :func:`lu` returns; those not asked for are empty.

    >>> import kilograd as kg
    >>> kg.lu_unpack(*kg.lu(kg.tensor([[0.0, 1.0], [2.0, 0.0]]))).P
    tensor([[0., 1.],
            [1., 0.]])
    """
    dtype = LU_data.array.dtype
    P = L = U = wrap(np.empty(0, dtype))
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    if unpack_pivots:
        if LU_pivots.array.dtype != np.int32:
            raise DtypeError(
                "lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype, "
                f"but got {LU_pivots.dtype}"
            )
        order = factors.permutation(LU_pivots.array, m=m)
        P = wrap((order[..., None, :] == np.arange(m)[:, None]).astype(dtype))
    if unpack_data:
        L = shape_ops.tril(LU_data[..., :k], k=-1) + np.eye(m, k, dtype=dtype)
        U = shape_ops.triu(LU_data[..., :k, :], k=0)
    return PLU(P, L, U)


@function
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """The X of A X = b (*, n, k), given what :func:`lu` returns for A.

    Raises:
        RuntimeError: the shapes do not fit.

    >>> import kilograd as kg
    >>> kg.lu_solve(kg.tensor([[3.0], [4.0]]), *kg.lu(kg.tensor([[0.0, 1.0], [2.0, 0.0]])))
    tensor([[2.],
            [3.]])
    """
    return solved_by_lu(LU_data, LU_pivots, b, False)


def solved_by_lu(LU: Tensor, pivots: Tensor, B: Tensor, transposed: bool) -> Tensor:
    """The X of A X = B, or of Aᵀ X = B: A = P L U."""
    name = "linalg.lu_solve"
    LU = matrices(LU, name, square=True)
    B = tensor_like(B)
    if B.ndim < 2:
        raise ShapeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    same_dtype(name, LU=LU, B=B)
    if pivots.array.dtype != np.int32:
        raise DtypeError(f"{name}: pivots should be a Tensor of scalar type torch.int32")
    n = LU.shape[-1]
    if n != B.shape[-2]:
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation AX = B "
            f"({n}x{n} and {B.shape[-2]}x{B.shape[-1]})"
        )
    order = factors.permutation(pivots.array, m=n)
    solve = ops.solve_triangular
    if transposed:
        t = ops.mT(LU)
        y = solve(t, solve(t, B, upper=False), upper=True, unit=True)
        return factors.take_rows(y, np.argsort(order, -1))
    y = factors.take_rows(B, order)
    return solve(LU, solve(LU, y, upper=False, unit=True), upper=True)


@function
def orgqr(input: Tensor, tau: Tensor) -> Tensor:
    """Alias of :func:`kilograd.linalg.householder_product`.

    >>> import kilograd as kg
    >>> kg.orgqr(kg.tensor([[1.0], [0.0]]), kg.tensor([2.0]))
    tensor([[-1.],
            [ 0.]])
    """
    return reflections(input, tau)


def reflections(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of reflections I − tauᵢ vᵢ vᵢᵀ, vᵢ below A's diagonal."""
    name = "torch.linalg.householder_product"
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    m, n = A.shape[-2:]
    if m < n:
        raise ShapeError(
            f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]"
        )
    if n < tau.shape[-1]:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    if A.ndim - tau.ndim != 1 or A.shape[:-2] != tau.shape[:-1]:
        raise ShapeError(
            f"{name}: tau of shape {list(tau.shape)} does not fit input of shape {list(A.shape)}"
        )
    same_dtype(name, input=A, tau=tau)
    one = np.eye(m, n, dtype=A.array.dtype)
    v = shape_ops.tril(A, k=-1) + one
    q: Any = constant(one, v)
    for i in reversed(range(tau.shape[-1])):
        column = v[..., i : i + 1]
        q = q - (tau[..., i, None, None] * column) * ops.matmul(conjugate(ops.mT(column)), q)
    return q


@function(method=False)
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Powers of a vector's elements, (n) -> (n, N), from x^(N-1) down to x^0.

    Raises:
        RuntimeError: not a vector.

    >>> import kilograd as kg
    >>> kg.vander(kg.tensor([1, 2, 3]), 3)
    tensor([[1, 1, 1],
            [4, 2, 1],
            [9, 3, 1]])
    """
    if x.ndim != 1:
        raise ShapeError("vander: x must be a one-dimensional tensor.")
    powers = np.arange(len(x) if N is None else N)
    return x[:, None] ** wrap(powers if increasing else powers[::-1].copy())
