"""Linear algebra under PyTorch's names: solving, factors, norms; batched, over (*, m, n).

In the docstrings A is the first argument and B the second, whichever names PyTorch gave them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kilograd.errors import LinAlgError, ShapeError
from kilograd.functions import linalg as top
from kilograd.functions.calling import function, tensor_like
from kilograd.functions.linalg import (
    PLU,
    QR,
    Cutoff,
    SignLogDet,
    check_info,
    factored,
    lapack_dtype,
    matrices,
    matrix_exp,
    matrix_power,
    same_dtype,
)
from kilograd.functions.norms import Dim, any_norm, matrix_norm, vector_norm
from kilograd.kernels import factor
from kilograd.ops import decompositions as factors
from kilograd.ops import elementwise as ew
from kilograd.ops import linalg as ops
from kilograd.ops import reduce as reduce_ops
from kilograd.ops import shape as shape_ops
from kilograd.tensor import Tensor, wrap

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh",
    "eigvals", "eigvalsh", "householder_product", "inv", "inv_ex", "lstsq", "lu", "lu_factor",
    "lu_factor_ex", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_ex",
    "solve_triangular", "svd", "svdvals", "tensorinv", "tensorsolve", "vander", "vecdot",
    "vector_norm",
]  # fmt: skip


class Eigen(NamedTuple):
    """Eigenvalues, and eigenvectors in the columns of a matrix."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class USVh(NamedTuple):
    """Singular values, and vectors in the columns of U and the rows of Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class LU(NamedTuple):
    """L below the diagonal and U on and above it, and the row exchanges, counted from 1."""

    LU: Tensor
    pivots: Tensor


class LUInfo(NamedTuple):
    """LU, and where U's diagonal has its first zero (from 1; 0: nowhere)."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class CholeskyInfo(NamedTuple):
    """The factor, and the order of the first minor that is not positive (0: all are)."""

    L: Tensor
    info: Tensor


class InverseInfo(NamedTuple):
    """The inverse, and where the elimination met a zero pivot (from 1; 0: nowhere)."""

    inverse: Tensor
    info: Tensor


class SolveInfo(NamedTuple):
    """The solution, and where the elimination met a zero pivot (from 1; 0: nowhere)."""

    result: Tensor
    info: Tensor


class LeastSquares(NamedTuple):
    """A least-squares solution and how good it is."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


# --- norms and products -------------------------------------------------------------------------


@function(method=False)
def norm(
    input: Tensor, ord: Any = None, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of a vector or a matrix: of a matrix if ``A`` (or ``dim``) has two dimensions.

    Without ``ord``: the 2-norm of all elements. See :func:`vector_norm` and :func:`matrix_norm`.

    Raises:
        RuntimeError: ``ord`` or ``dim`` do not fit ``A``, or it is not floating point.

    >>> import kilograd as kg
    >>> A = kg.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> kg.linalg.norm(A), kg.linalg.norm(A, 2), kg.linalg.norm(A, 1, dim=1)
    (tensor(5.), tensor(4.), tensor([3., 4.]))
    """
    return any_norm(input, ord, dim, keepdim, dtype=dtype)


@function(method=False)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Alias of :func:`kilograd.matmul`.

    >>> import kilograd as kg
    >>> kg.linalg.matmul(kg.ones(1, 3), kg.ones(3))
    tensor([3.])
    """
    return top.matmul(input, other)


@function(method=False)
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices, in the order that takes the fewest multiplications.

    The first may be a vector (a row), the last too (a column).

    Raises:
        RuntimeError: fewer than two, or the shapes do not fit.

    >>> import kilograd as kg
    >>> kg.linalg.multi_dot([kg.ones(9), kg.ones(9, 9), kg.ones(9)])
    tensor(81.)
    """
    chain = [tensor_like(t) for t in tensors]
    if len(chain) < 2:
        raise ShapeError(f"multi_dot(): expected at least 2 tensors but got {len(chain)}")
    for which, x in (("first", chain[0]), ("last", chain[-1])):
        if x.ndim not in (1, 2):
            raise ShapeError(f"multi_dot(): the {which} tensor must be 1D or 2D but got {x.ndim}D")
    for i, x in enumerate(chain[1:-1], 1):
        if x.ndim != 2:
            raise ShapeError(f"multi_dot(): tensor {i} must be 2D but got {x.ndim}D")
    shape = [*chain[0].shape[:-1], *(chain[-1].shape[1:])]
    if chain[0].ndim == 1:
        chain[0] = chain[0][None, :]
    if chain[-1].ndim == 1:
        chain[-1] = chain[-1][:, None]
    return shape_ops.reshape(top.chained(chain, "multi_dot()"), shape=tuple(shape))


@function(method=False)
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along a dimension of size 3.

    Raises:
        RuntimeError: different numbers of dimensions, or ``dim`` has not size 3.

    >>> import kilograd as kg
    >>> kg.linalg.cross(kg.tensor([1.0, 0.0, 0.0]), kg.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.])
    """
    return top.vector_product(tensor_like(input), tensor_like(other), dim)


@function(method=False)
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Dot products along a dimension, the first factor conjugated; the others broadcast.

    Raises:
        RuntimeError: different dtypes, not floating point, or shapes that do not fit.

    >>> import kilograd as kg
    >>> kg.linalg.vecdot(kg.ones(2, 3), kg.ones(2, 3))
    tensor([3., 3.])
    """
    x, y = tensor_like(x), tensor_like(y)
    if x.array.dtype.kind not in "fc":
        lapack_dtype(x, "linalg.vecdot")
    same_dtype("linalg.vecdot", x=x, y=y)
    return (top.conjugate(x) * y).sum(dim)


@function(method=False)
def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of matrices (*, m, n), as a view; see :func:`kilograd.diagonal`.

    >>> import kilograd as kg
    >>> kg.linalg.diagonal(kg.eye(2))
    tensor([1., 1.])
    """
    return A.diagonal(offset, dim1, dim2)


@function(method=False)
def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Powers 0, 1, … N-1 of the elements of vectors, (*, n) -> (*, n, N).

    Raises:
        RuntimeError: a 0-d tensor, or N < 2.

    >>> import kilograd as kg
    >>> kg.linalg.vander(kg.tensor([1, 2, 3]))
    tensor([[1, 1, 1],
            [1, 2, 4],
            [1, 3, 9]])
    """
    x = tensor_like(x)
    if not x.ndim:
        x = shape_ops.reshape(x, shape=(1,))
    count = x.shape[-1] if N is None else N
    if count <= 1:
        raise ShapeError(f"linalg.vander: N must be greater than 1, got {count}.")
    return x[..., None] ** wrap(np.arange(count))


# --- determinants, inverses, solving ------------------------------------------------------------


@function(method=False)
def det(A: Tensor) -> Tensor:
    """The determinant of square matrices (*, n, n) -> (*).

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.det(kg.tensor([[2.0, 0.0], [0.0, 3.0]]))
    tensor(6.)
    """
    return top.det(A)


@function(method=False)
def slogdet(A: Tensor) -> SignLogDet:
    """``(sign, logabsdet)`` of square matrices: the determinant, where it would over- or underflow.

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.slogdet(kg.eye(3)).logabsdet
    tensor(0.)
    """
    return top.slogdet(A)


@function(method=False)
def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices (*, n, n).

    Raises:
        LinAlgError: singular (a RuntimeError).
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.inv(kg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return top.inverse(A)


@function(method=False)
def inv_ex(A: Tensor, *, check_errors: bool = False) -> InverseInfo:
    """The inverse, and whether it exists: a singular matrix gives infinities, not an error.

    Raises:
        RuntimeError: not square, not floating point, or singular with ``check_errors``.

    >>> import kilograd as kg
    >>> kg.linalg.inv_ex(kg.ones(2, 2)).info
    tensor(2, dtype=kilograd.int32)
    """
    x = matrices(A, "linalg.inv_ex", square=True)
    result, info = _tried(lambda a: ops.inv(a), x, x, "linalg.inv_ex", check_errors)
    return InverseInfo(result, info)


@function(method=False)
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The X of A X = B, or with ``left=False`` of X A = B.

    A is (*, n, n); B a matrix (*, n, k), or a vector: (n), or (*, n) with A's batch dimensions.

    Raises:
        LinAlgError: A is singular (a RuntimeError).
        RuntimeError: the shapes do not fit, different dtypes, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.solve(kg.tensor([[2.0, 0.0], [0.0, 4.0]]), kg.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    return _solved(A, B, left, "linalg.solve", ops.solve)


def _solved(A: Any, B: Any, left: bool, name: str, solver: Any) -> Tensor:
    A, B = matrices(A, name, square=True), tensor_like(B)
    same_dtype(name, A=A, B=B)
    vector = B.ndim == 1 or (B.ndim and A.ndim - 1 == B.ndim and A.shape[:-1] == B.shape)
    if not vector and B.ndim < 2:
        raise ShapeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    if vector:
        if not left:
            raise ShapeError(f"{name}: left=False needs a matrix B, got a vector {list(B.shape)}")
        B = B[..., None]
    n, rows = A.shape[-1], B.shape[-2 if left else -1]
    if n != rows:
        what = "AX = B" if left else "XA = B"
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {what} "
            f"({n}x{n} and {B.shape[-2]}x{B.shape[-1]})"
        )
    x = solver(A, B) if left else ops.mT(solver(ops.mT(A), ops.mT(B)))
    return x[..., 0] if vector else x


@function(method=False)
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveInfo:
    """The X of A X = B, and whether it exists: a singular A gives infinities, not an error.

    Raises:
        RuntimeError: as :func:`solve`; singular only with ``check_errors``.

    >>> import kilograd as kg
    >>> kg.linalg.solve_ex(kg.eye(2), kg.ones(2, 1)).info
    tensor(0, dtype=kilograd.int32)
    """
    name = "linalg.solve_ex"
    info: list[Tensor] = []

    def solver(a: Tensor, b: Tensor) -> Tensor:
        x, found = _tried(lambda a: ops.solve(a, b), a, b, name, check_errors)
        info.append(found)
        return x

    return SolveInfo(_solved(A, B, left, name, solver), info[0])


def _tried(f: Any, A: Tensor, B: Tensor, name: str, check_errors: bool) -> tuple[Tensor, Tensor]:
    """f(A) and where each A is singular; f is not called on singular ones, which give infinities."""
    try:
        return f(A), wrap(np.zeros(A.shape[:-2], np.int32))
    except LinAlgError:
        info = top.zero_pivots(factor.lu(A.array)[0])
        if check_errors:
            check_info(info, name + ": the diagonal element {0} is zero: A is singular.")
    singular = (info.array != 0)[..., None, None]
    safe = ew.where(singular, np.eye(A.shape[-1], dtype=A.array.dtype), A)
    return ew.where(singular, math.inf, f(safe)), info


@function(method=False)
def solve_triangular(
    input: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """The X of A X = B (or X A = B) for triangular A (*, n, n) and B (*, n, k).

    Args:
        input: A; its other half is not read; with ``unitriangular`` nor is its diagonal, taken to be 1.
        B: the right-hand sides.
        upper: which half of A counts.
        left: False solves X A = B, B (*, k, n).
        unitriangular: the diagonal is 1.

    Raises:
        RuntimeError: the shapes do not fit, different dtypes, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.solve_triangular(kg.tensor([[2.0, 7.0], [0.0, 4.0]]), kg.ones(2, 1), upper=False)
    tensor([[0.5000],
            [0.2500]])
    """
    name = "linalg.solve_triangular"
    A, B = matrices(input, name, square=True), tensor_like(B)
    if B.ndim < 2:
        raise ShapeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    same_dtype(name, A=A, B=B)
    n = A.shape[-1]
    if n != B.shape[-2 if left else -1]:
        what = "AX = B" if left else "XA = B"
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {what} "
            f"({n}x{n} and {B.shape[-2]}x{B.shape[-1]})"
        )
    if left:
        return ops.solve_triangular(A, B, upper=upper, unit=unitriangular)
    y = ops.solve_triangular(ops.mT(A), ops.mT(B), upper=not upper, unit=unitriangular)
    return ops.mT(y)


@function(method=False)
def tensorinv(input: Tensor, ind: int = 2) -> Tensor:
    """The inverse under :func:`kilograd.tensordot` over ``ind`` dimensions.

    Raises:
        RuntimeError: the first ``ind`` dimensions and the others differ in size, or singular.

    >>> import kilograd as kg
    >>> kg.linalg.tensorinv(kg.eye(6).reshape(2, 3, 6), ind=2).shape
    kilograd.Size([6, 2, 3])
    """
    if ind <= 0:
        raise ShapeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    first, last = tuple(input.shape[:ind]), tuple(input.shape[ind:])
    m, n = math.prod(first), math.prod(last)
    if m != n:
        raise ShapeError(
            "linalg.tensorinv: Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {n} != {m}"
        )
    return shape_ops.reshape(inv(shape_ops.reshape(input, shape=(m, n))), shape=last + first)


@function(method=False)
def tensorsolve(input: Tensor, other: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """The X of tensordot(A, X, X.ndim) = B; ``dims`` of A are moved to the end first.

    Raises:
        RuntimeError: the shapes do not fit, or singular.

    >>> import kilograd as kg
    >>> kg.linalg.tensorsolve(kg.eye(6).reshape(2, 3, 6), kg.ones(2, 3))
    tensor([1., 1., 1., 1., 1., 1.])
    """
    A, B = tensor_like(input), tensor_like(other)
    if dims is not None:
        moved = [d % A.ndim for d in dims]
        rest = [d for d in range(A.ndim) if d not in moved]
        A = shape_ops.permute(A, axes=(*rest, *moved))
    shape = tuple(A.shape[B.ndim :])
    m, n = math.prod(A.shape[: B.ndim]), math.prod(shape)
    if m != n:
        raise ShapeError(
            "linalg.tensorsolve: Expected self to satisfy the requirement "
            f"prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), but got {n} != {m}"
        )
    flat = shape_ops.reshape(B, shape=(math.prod(B.shape),))
    return shape_ops.reshape(solve(shape_ops.reshape(A, shape=(m, n)), flat), shape=shape)


@function(method=False)
def pinv(
    input: Tensor,
    rcond: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> Tensor:
    """The pseudo-inverse of matrices (*, m, n) -> (*, n, m).

    Singular values up to max(atol, rtol · the largest) count as zero; rtol is max(m, n) times the
    dtype's epsilon unless atol is given (``rcond``: another name of rtol).

    Raises:
        RuntimeError: less than two dimensions, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.pinv(kg.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    x = matrices(input, "linalg.pinv", square=hermitian)
    cutoff = _cutoff(x, atol, rtol if rcond is None else rcond)
    return factors.pinv(x, cutoff=cutoff, hermitian=hermitian)


def _cutoff(A: Tensor, atol: Any, rtol: Any) -> Cutoff:
    default = max(A.shape[-2:]) * float(np.finfo(A.array.dtype).eps)
    if rtol is None:
        if atol is None:
            rtol = default
        elif hasattr(atol, "ndim"):
            rtol = np.where(getattr(atol, "array", atol) > 0, 0.0, default)
        else:
            rtol = 0.0 if atol > 0 else default
    return Cutoff(0.0 if atol is None else atol, rtol)


@function(method=False)
def matrix_rank(
    input: Tensor,
    tol: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> Tensor:
    """How many singular values exceed max(atol, rtol · the largest), as int64 (*).

    ``tol``: an absolute tolerance alone. Not differentiable.

    Raises:
        RuntimeError: less than two dimensions, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.matrix_rank(kg.ones(3, 3))
    tensor(1)
    """
    x = matrices(input, "torch.linalg.matrix_rank", square=hermitian)
    cutoff = _cutoff(x, atol, rtol) if tol is None else Cutoff(tol, 0.0)
    if hermitian:
        s = np.absolute(factors.eigvalsh(x.array))
    else:
        s = factors.svdvals(x.array)
    return wrap(np.asarray((s > cutoff(s)).sum(-1), np.int64))


@function(method=False)
def cond(input: Tensor, p: Any = None) -> Tensor:
    """The condition number |A| · |A⁻¹| in a matrix norm; in the 2-norm if ``p`` is None.

    Raises:
        RuntimeError: an unknown norm, not square (but for None, 2, -2), or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.cond(kg.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor(2.)
    """
    x = matrices(input, "linalg.cond")
    if p not in (None, "fro", "nuc") and (isinstance(p, str) or abs(p) not in (1, 2, math.inf)):
        raise ShapeError(f"linalg.cond got an invalid norm type: {p}")
    if p is None or abs(p if not isinstance(p, str) else 0) == 2:
        s = factors.svdvals(x)
        if not s.shape[-1]:
            return reduce_ops.sum(s, axis=-1)
        return s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    x = matrices(x, f"linalg.cond(ord={p})", square=True)
    if not x.shape[-1]:
        return wrap(np.zeros(x.shape[:-2], x.array.dtype))
    inverse, info = _tried(lambda a: ops.inv(a), x, x, "linalg.cond", False)
    both = matrix_norm(x, p) * matrix_norm(inverse, p)
    if info.array.any():
        both = ew.where(info.array != 0, math.inf, both)
    return both


@function(method=False)
def lstsq(
    input: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> LeastSquares:
    """The X for which |A X − B| is least; of several, the shortest.

    A is (*, m, n); B a matrix (*, m, k), or a vector (*, m).

    Returns:
        ``solution`` (*, n, k); ``residuals`` (*, k), the squared distances, if m > n, A has full
        rank and the driver is not gelsy, else empty; ``rank`` (*) unless the driver is gels;
        ``singular_values`` for gelsd and gelss. Drivers differ in nothing else here.

    Raises:
        RuntimeError: the shapes do not fit, an unknown driver, or not floating point.

    >>> import kilograd as kg
    >>> A = kg.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> kg.linalg.lstsq(A, kg.tensor([1.0, 3.0, 5.0])).solution.round(decimals=3)
    tensor([1., 2.])
    """
    name = "torch.linalg.lstsq"
    A, B = tensor_like(input), tensor_like(b)
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    if B.ndim < 1:
        raise ShapeError(f"{name}: other must have at least 1 dimension.")
    lapack_dtype(A, name)
    same_dtype(name, input=A, other=B)
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ShapeError(
            f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver}"
        )
    vector = A.ndim - 1 == B.ndim and A.shape[:-1] == B.shape
    if vector:
        B = B[..., None]
    if A.ndim - B.ndim > 1 or B.ndim < 2:
        raise ShapeError(
            f"{name}: input.dim() must be greater or equal to other.dim() and "
            "(input.dim() - other.dim()) <= 1"
        )
    m, n = A.shape[-2:]
    if m != B.shape[-2]:
        raise ShapeError(
            f"{name}: input.size(-2) should match other.size(-2), got {list(A.shape)} and "
            f"{list(B.shape)}"
        )
    driver = driver or "gelsy"
    full = driver == "gels"
    eps = float(np.finfo(A.array.dtype).eps)
    cutoff = Cutoff(0.0, 0.0 if full else max(m, n) * eps if rcond is None else rcond)
    x = factors.lstsq(A, B, cutoff=cutoff)
    dtype = A.array.dtype
    residuals = shape_ops.reshape(x, shape=(math.prod(x.shape),))[:0]
    rank = wrap(np.empty(0, np.int64))
    s = None
    if not full:
        s = factors.svdvals(A.array)
        rank = wrap(np.asarray((s > cutoff(s)).sum(-1), np.int64))
    if m > n and driver != "gelsy" and (full or (rank.array == n).all()):
        d = ops.matmul(A, x) - B
        residuals = reduce_ops.sum(ew.square(d), axis=-2)
    values = wrap(s if s is not None and driver in ("gelsd", "gelss") else np.empty(0, dtype))
    return LeastSquares(x[..., 0] if vector else x, residuals, rank, values)


# --- factors ------------------------------------------------------------------------------------


@function(method=False)
def cholesky(input: Tensor, *, upper: bool = False) -> Tensor:
    """Lower triangular L with L Lᵀ = A, or upper triangular U with Uᵀ U = A, for (*, n, n).

    Only that half of A is read.

    Raises:
        LinAlgError: not positive definite (a RuntimeError).
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.cholesky(kg.tensor([[4.0, 2.0], [2.0, 10.0]]))
    tensor([[2., 0.],
            [1., 3.]])
    """
    return top.cholesky(matrices(input, "linalg.cholesky", square=True), upper)


@function(method=False)
def cholesky_ex(input: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyInfo:
    """The Cholesky factor, and whether it exists: else it is nan, which is not an error.

    Raises:
        RuntimeError: not square, not floating point, or with ``check_errors`` not positive definite.

    >>> import kilograd as kg
    >>> kg.linalg.cholesky_ex(-kg.eye(2)).info
    tensor(1, dtype=kilograd.int32)
    """
    x = matrices(input, "linalg.cholesky_ex", square=True)
    try:
        return CholeskyInfo(top.cholesky(x, upper), wrap(np.zeros(x.shape[:-2], np.int32)))
    except LinAlgError:
        n = x.shape[-1]
        stack = x.array.reshape((-1, n, n))
        if upper:
            stack = stack.swapaxes(-1, -2)
        info = np.array([_first_minor(a) for a in stack], np.int32).reshape(x.shape[:-2])
        if check_errors:
            message = "linalg.cholesky_ex: the leading minor of order {0} is not positive-definite."
            check_info(wrap(info), message)
    bad = (info != 0)[..., None, None]
    safe = ew.where(bad, np.eye(n, dtype=x.array.dtype), x)
    return CholeskyInfo(ew.where(bad, math.nan, top.cholesky(safe, upper)), wrap(info))


def _first_minor(a: Any) -> int:
    """The order of the first leading minor that is not positive definite; 0 if all are."""
    for k in range(1, len(a) + 1):
        try:
            np.linalg.cholesky(a[:k, :k])
        except np.linalg.LinAlgError:
            return k
    return 0


@function(method=False)
def qr(A: Tensor, mode: str = "reduced") -> QR:
    """Orthogonal Q and upper triangular R with A = Q R, A (*, m, n), k = min(m, n).

    ``mode``: 'reduced' (Q (*, m, k), R (*, k, n)), 'complete' (Q (*, m, m), R (*, m, n)), or 'r'
    (Q empty). Gradients: not for 'r', nor for 'complete' with m > n.

    Raises:
        RuntimeError: less than two dimensions, unknown mode, or not floating point.

    >>> import kilograd as kg
    >>> Q, R = kg.linalg.qr(kg.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> kg.allclose(Q @ R, kg.tensor([[0.0, 1.0], [2.0, 3.0]]), atol=1e-6)
    True
    """
    x = matrices(A, "linalg.qr")
    if mode not in ("reduced", "complete", "r"):
        raise ShapeError(
            f"qr received unrecognized mode {mode!r} but expected one of 'reduced' (default), 'r', "
            "or 'complete'"
        )
    return QR(*factors.qr(x, mode=mode))


@function(method=False)
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> USVh:
    """U, S, Vh with A = U diag(S) Vh; S (*, k) descends, k = min(m, n).

    U is (*, m, m) and Vh (*, n, n); without ``full_matrices`` (*, m, k) and (*, k, n).

    Raises:
        RuntimeError: less than two dimensions, a ``driver`` (CUDA only), or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.svd(kg.tensor([[3.0, 0.0], [0.0, 4.0]])).S
    tensor([4., 3.])
    """
    x = matrices(A, "linalg.svd")
    _no_driver("svd", driver)
    return USVh(*factors.svd(x, full=full_matrices))


def _no_driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise LinAlgError(
            f"linalg.{name}: keyword argument `driver=` is only supported on CUDA inputs"
        )


@function(method=False)
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values of (*, m, n), descending: (*, min(m, n)).

    Raises:
        RuntimeError: less than two dimensions, a ``driver`` (CUDA only), or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.svdvals(kg.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor([4., 3.])
    """
    x = matrices(A, "linalg.svdvals")
    _no_driver("svdvals", driver)
    return factors.svdvals(x)


def _upper(UPLO: str) -> bool:
    if UPLO not in ("L", "U", "l", "u"):
        raise ShapeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO in "Uu"


@function(method=False)
def eigh(input: Tensor, UPLO: str = "L") -> Eigen:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices (*, n, n).

    ``UPLO``: which half of A is read, 'L' or 'U'.

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.eigh(kg.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([1., 2.])
    """
    x = matrices(input, "linalg.eigh", square=True)
    return Eigen(*factors.eigh(x, upper=_upper(UPLO)))


@function(method=False)
def eigvalsh(input: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices (*, n, n), ascending: (*, n).

    Raises:
        RuntimeError: not square, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.eigvalsh(kg.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([1., 2.])
    """
    x = matrices(input, "linalg.eigvalsh", square=True)
    return factors.eigvalsh(x, upper=_upper(UPLO))


@function(method=False)
def eig(input: Tensor) -> Eigen:
    """Complex eigenvalues and eigenvectors of square matrices (*, n, n). Not differentiable.

    Raises:
        RuntimeError: not square, not floating point, or a gradient is asked for.

    >>> import kilograd as kg
    >>> kg.linalg.eig(kg.tensor([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    tensor([2.+0.j, 1.+0.j])
    """
    return Eigen(*factors.eig(matrices(input, "linalg.eig", square=True)))


@function(method=False)
def eigvals(input: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices (*, n, n) -> (*, n). Not differentiable.

    Raises:
        RuntimeError: not square, not floating point, or a gradient is asked for.

    >>> import kilograd as kg
    >>> kg.linalg.eigvals(kg.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([2.+0.j, 1.+0.j])
    """
    return factors.eig(matrices(input, "linalg.eigvals", square=True))[0]


@function(method=False)
def lu(A: Tensor, *, pivot: bool = True) -> PLU:
    """P, L and U with A = P L U: a permutation, L with ones on its diagonal, U upper triangular.

    Raises:
        RuntimeError: less than two dimensions, ``pivot=False``, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.lu(kg.tensor([[0.0, 1.0], [2.0, 0.0]])).U
    tensor([[2., 0.],
            [0., 1.]])
    """
    packed, pivots, _ = factored(A, "linalg.lu", pivot)
    return top.lu_unpack(packed, pivots)


@function(method=False)
def lu_factor(A: Tensor, *, pivot: bool = True) -> LU:
    """L and U in one matrix, and the row exchanges: what :func:`lu_solve` takes.

    Raises:
        LinAlgError: singular (a RuntimeError).
        RuntimeError: less than two dimensions, ``pivot=False``, or not floating point.

    >>> import kilograd as kg
    >>> kg.linalg.lu_factor(kg.tensor([[0.0, 1.0], [2.0, 0.0]])).pivots
    tensor([2, 2], dtype=kilograd.int32)
    """
    packed, pivots, info = factored(A, "linalg.lu_factor", pivot)
    check_info(info, "linalg.lu_factor: U[{0},{0}] is zero: the matrix is singular")
    return LU(packed, pivots)


@function(method=False)
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUInfo:
    """As :func:`lu_factor`, and where U's diagonal has its first zero, which is not an error.

    Raises:
        RuntimeError: as :func:`lu_factor`; singular only with ``check_errors``.

    >>> import kilograd as kg
    >>> kg.linalg.lu_factor_ex(kg.ones(2, 2)).info
    tensor(2, dtype=kilograd.int32)
    """
    packed, pivots, info = factored(A, "linalg.lu_factor_ex", pivot)
    if check_errors:
        check_info(info, "linalg.lu_factor_ex: U[{0},{0}] is zero: the matrix is singular")
    return LUInfo(packed, pivots, info)


@function(method=False)
def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """The X of A X = B given A's :func:`lu_factor`; ``left=False``: of X A = B; ``adjoint``: Aᵀ for A.

    Raises:
        RuntimeError: the shapes or dtypes do not fit.

    >>> import kilograd as kg
    >>> A = kg.tensor([[0.0, 1.0], [2.0, 0.0]])
    >>> kg.linalg.lu_solve(*kg.linalg.lu_factor(A), kg.tensor([[3.0], [4.0]]))
    tensor([[2.],
            [3.]])
    """
    if adjoint:
        LU = top.conjugate(LU)
    if left:
        return top.solved_by_lu(LU, pivots, B, adjoint)
    if B.ndim < 2:
        raise ShapeError("linalg.lu_solve: The input tensor B must have at least 2 dimensions.")
    return ops.mT(top.solved_by_lu(LU, pivots, ops.mT(B), not adjoint))


@function(method=False)
def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of k reflections I − tauᵢ vᵢ vᵢᵀ.

    vᵢ has zeros, a one at i, and then what stands below A's (*, m, n) diagonal; tau is (*, k).

    Raises:
        RuntimeError: m < n, n < k, or batches that differ.

    >>> import kilograd as kg
    >>> kg.linalg.householder_product(kg.tensor([[1.0], [0.0]]), kg.tensor([2.0]))
    tensor([[-1.],
            [ 0.]])
    """
    return top.reflections(input, tau)
