"""Products of matrices, what is solved with them, and norms.

Read next: ``ops/decompositions.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kilograd.errors import DtypeError, LinAlgError, ShapeError
from kilograd.kernels import factor
from kilograd.ops.elementwise import promoted, where
from kilograd.ops.op import op
from kilograd.ops.reduce import kept_shape, mirrored, real_only
from kilograd.ops.shape import concatenate, swapaxes, tril, triu


def mT(x):
    """The matrices transposed."""
    return swapaxes(x, a=-1, b=-2)


def _rows(x):
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


# --- products -----------------------------------------------------------------------------------


@op(weight=16, often=False)
def matmul(a, b):
    """Matrix product with NumPy's rules for vectors and batches."""
    try:
        if a.dtype is b.dtype and a.ndim == 2 == b.ndim and a.dtype.char not in "?e":
            return a.dot(b)  # half the overhead of np.matmul
        return _general_matmul(a, b)
    except (ValueError, AttributeError) as e:
        raise _mismatch(a, b, e) from None


def _general_matmul(a, b):
    if a.dtype != b.dtype:
        raise DtypeError(
            f"matmul: expected m1 and m2 to have the same dtype, but got: {a.dtype} != {b.dtype}"
        )
    if a.dtype.char == "e":  # half precision has no BLAS, and PyTorch sums it in float32
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.float16)
    if a.dtype.char == "?":
        raise NotImplementedError("matmul: \"addmm_impl_cpu_\" not implemented for 'Bool'")
    if a.ndim > 2 and 0 < b.ndim <= 2:  # one product with all rows instead of one per matrix
        return _rows(a).dot(b).reshape(a.shape[:-1] + b.shape[1:])
    return np.matmul(a, b)


def _mismatch(a, b, e):
    """The error for operands that cannot be multiplied, in PyTorch's words."""
    for x in (a, b):
        if not hasattr(x, "dtype"):
            return TypeError(f"matmul(): arguments must be Tensors, not {type(x).__name__}")
    if isinstance(e, AttributeError):
        return e
    if a.ndim == 0 or b.ndim == 0:
        return ShapeError(
            f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D"
        )
    if a.ndim == 1 == b.ndim:
        return ShapeError(
            f"matmul: inconsistent tensor size, expected tensor [{len(a)}] and src [{len(b)}] to "
            "have the same number of elements"
        )
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        x, y = "x".join(map(str, a.shape)), "x".join(map(str, b.shape))
        return ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({x} and {y})")
    return ShapeError(f"matmul: batches do not broadcast: {list(a.shape)} and {list(b.shape)}")


@matmul.vjp("a")
def _(g, b, a_shape):
    if b.ndim == 1:  # (..., n) @ (n) -> (...)
        return g[..., None] * b
    if len(a_shape) == 1:  # (n) @ (..., n, p) -> (..., p)
        return matmul(b, g) if b.ndim == 2 else matmul(b, g[..., None])[..., 0]
    return matmul(g, b.T if b.ndim == 2 else mT(b))


@matmul.vjp("b")
def _(g, a, b_shape):
    if a.ndim == 1:
        return g * a if len(b_shape) == 1 else a[:, None] * g[..., None, :]
    if len(b_shape) == 1:
        return matmul(g.reshape((math.prod(g.shape),)), _rows(a))
    if len(b_shape) == 2:
        return matmul(_rows(a).T, _rows(g))
    return matmul(mT(a), g)


@op(weight=16, often=False)
def contract(a, b, *, labels):
    """Σ over the labels that are not the result's: labels = (of a, of b, of the result), as einsum.

    No label repeats within one of the three, and each belongs to two of them at least: then the
    derivatives are contractions of the same kind.
    """
    plan = _plan(labels)
    if not plan.summed:
        a, b = promoted(a, b)
        return a.transpose(plan.a)[plan.spread_a] * b.transpose(plan.b)[plan.spread_b]
    if plan.swap:
        a, b = b, a
    a, b = a.transpose(plan.a), b.transpose(plan.b)
    batch, left = a.shape[: plan.batch], a.shape[plan.batch : a.ndim - plan.summed]
    summed, right = a.shape[a.ndim - plan.summed :], b.shape[plan.batch + plan.summed :]
    inner = math.prod(summed)
    a = a.reshape((*batch, math.prod(left), inner))
    y = matmul(a, b.reshape((*batch, inner, math.prod(right))))
    return y.reshape(batch + left + right).transpose(plan.y)


class _Plan(NamedTuple):
    """How to bring a contraction to a product of matrices, or of broadcast arrays."""

    summed: int  # how many labels are
    batch: int  # how many both have, and the result
    swap: bool
    a: tuple[int, ...]  # the axes in the order batch, left, summed; or in the result's order
    b: tuple[int, ...]  # batch, summed, right; or in the result's order
    y: tuple[int, ...]  # the result's axes, from batch, left, right
    spread_a: tuple[Any, ...] = ()
    spread_b: tuple[Any, ...] = ()


@lru_cache(maxsize=1024)
def _plan(labels):
    of_a, of_b, of_y = labels
    shared = [i for i in of_a if i in of_b]
    summed = [i for i in shared if i not in of_y]
    if not summed:
        axes = [tuple([x.index(i) for i in of_y if i in x]) for x in (of_a, of_b)]
        spread = [tuple([slice(None) if i in x else None for i in of_y]) for x in (of_a, of_b)]
        return _Plan(0, 0, False, axes[0], axes[1], (), spread[0], spread[1])
    batch = [i for i in of_y if i in shared]
    left = [i for i in of_y if i not in of_b]
    right = [i for i in of_y if i not in of_a]
    swap = bool(left and right and of_y.index(right[0]) < of_y.index(left[0]))
    if swap:  # fewer axes to move after
        of_a, of_b, left, right = of_b, of_a, right, left
    order = [*batch, *left, *right]
    return _Plan(
        len(summed), len(batch), swap,
        tuple([of_a.index(i) for i in (*batch, *left, *summed)]),
        tuple([of_b.index(i) for i in (*batch, *summed, *right)]),
        tuple([order.index(i) for i in of_y]),
    )  # fmt: skip


@contract.vjp("a")
def _(g, b, labels):
    of_a, of_b, of_y = labels
    return contract(g, b, labels=(of_y, of_b, of_a))


@contract.vjp("b")
def _(g, a, labels):
    of_a, of_b, of_y = labels
    return contract(g, a, labels=(of_y, of_a, of_b))


@op
def cross(a, b, *, axis):
    """The vector product of vectors (of length 3) along an axis."""
    axis %= max(a.ndim, b.ndim)
    before = (slice(None),) * axis
    x, y, z = ((*before, i) for i in range(3))
    return np.stack(
        [a[y] * b[z] - a[z] * b[y], a[z] * b[x] - a[x] * b[z], a[x] * b[y] - a[y] * b[x]], axis
    )


@cross.vjp("a")
def _(g, b, axis):
    return cross(b, g, axis=axis)


@cross.vjp("b")
def _(g, a, axis):
    return cross(g, a, axis=axis)


# --- solving ------------------------------------------------------------------------------------


@op
def inv(x):
    """The inverse of square matrices (*, n, n)."""
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.inv: the inversion could not be completed because the input matrix (of shape "
            f"{list(x.shape)}) is singular."
        ) from None


@inv.vjp("x")
def _(g, y):
    t = mT(y)
    return -matmul(matmul(t, g), t)


@op
def solve(a, b):
    """The x of a @ x = b: a (*, n, n), b (*, n, k)."""
    try:
        return np.linalg.solve(a, b)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.solve: The solver failed because the input matrix (of shape {list(a.shape)}) "
            "is singular."
        ) from None


@solve.vjp("a", "b")
def _(g, a, y):
    gb = solve(mT(a), g)
    return -matmul(gb, mT(y)), gb


@op
def solve_triangular(a, b, *, upper, unit=False):
    """The x of a @ x = b for triangular a (*, n, n), b (*, n, k)."""
    return factor.substitute(a, b, upper, unit)


@solve_triangular.vjp("a", "b")
def _(g, a, y, upper, unit):
    gb = solve_triangular(mT(a), g, upper=not upper, unit=unit)
    ga = -matmul(gb, mT(y))
    return triu(ga, k=1 if unit else 0) if upper else tril(ga, k=-1 if unit else 0), gb


@op
def cholesky_solve(b, triangle, *, upper):
    """The x of L Lᴴ x = b for triangular factors L (*, n, n) (Lᵀ if ``upper``), b (*, n, k)."""
    lower = mT(triangle).conj() if upper else triangle
    return factor.substitute(mT(lower).conj(), factor.substitute(lower, b, False), True)


@cholesky_solve.vjp("b", "triangle")
def _(g, triangle, y, upper):
    real_only(triangle)
    gb = cholesky_solve(g, triangle, upper=upper)
    change = matmul(gb, mT(y))
    change = change + mT(change)  # of the product of the factors
    if upper:
        return gb, -matmul(triangle, change)
    return gb, -matmul(change, triangle)


@op
def det(x):
    """The determinant of square matrices (*, n, n)."""
    return np.linalg.det(x)


@det.vjp("x")
def _(g, x):
    return g[..., None, None] * cofactor(x)


@op
def cofactor(x):
    """The derivative of det, for singular matrices too: det(x) x⁻ᵀ without the division by zero."""
    return factor.cofactors(x)


@cofactor.vjp("x")
def _(g, x):
    real_only(x)
    return cofactor_slope(g, x)


@op
def cofactor_slope(h, x):
    """The second derivative of det in direction h, for singular matrices too."""
    return factor.cofactors_vjp(h, x)


@cofactor_slope.vjp("h")
def _(g, x):
    real_only(x)
    return cofactor_slope(g, x)


@cofactor_slope.vjp("x")
def _(g, h, x):
    # ∂³ det in directions g, h: only here x must have an inverse a
    a = inv(x)
    ag, ah = matmul(a, g), matmul(a, h)
    of_g, of_h, of_both = (
        t.sum(axis=(-1, -2))[..., None, None] for t in (a * mT(g), a * mT(h), ag * mT(ah))
    )
    inner = (of_g * of_h - of_both) * a - of_g * matmul(ah, a) - of_h * matmul(ag, a)
    inner = inner + matmul(matmul(ag, ah) + matmul(ah, ag), a)
    return det(x)[..., None, None] * mT(inner)


@op(outputs=2)
def slogdet(x):
    """(sign, log |det|) of square matrices (*, n, n)."""
    return tuple(np.linalg.slogdet(x))


@slogdet.vjp("x")
def _(g, x, y):
    real_only(x)
    try:
        a = inv(x)
    except LinAlgError:  # log 0: the slope is infinite, for the singular ones of a batch
        singular = (y[1] == -math.inf)[..., None, None]
        a = where(singular, math.inf, inv(where(singular, np.eye(x.shape[-1]), x)))
    return g[1][..., None, None] * mT(a)


@op
def matrix_exp(x):
    """Σ xᵏ / k! of square matrices (*, n, n)."""
    return factor.exponential(x)


@matrix_exp.vjp("x")
def _(g, x):
    # exp [xᵀ g; 0 xᵀ] = [exp xᵀ, D; 0, exp xᵀ], where D is the derivative in direction g
    n, t = x.shape[-1], mT(x)
    top = concatenate(t, g, axis=-1)
    bottom = concatenate(np.zeros_like(t), t, axis=-1)
    return matrix_exp(concatenate(top, bottom, axis=-2))[..., :n, n:]


# --- norms and distances ------------------------------------------------------------------------


@op(weight=2)
def vector_norm(x, *, ord, axis, keepdims):
    """(Σ |x|^ord)^(1/ord) over axes; ±inf: the largest, smallest |x|; 0: how many are not 0."""
    half = x.dtype.char == "e"
    if half:  # squares overflow soon
        x = x.astype(np.float32)
    if ord == 2 and x.dtype.kind == "f":
        y = np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))
    else:
        size = np.absolute(x)
        if ord == math.inf:
            y = size.max(axis=axis, keepdims=keepdims)
        elif ord == -math.inf:
            y = size.min(axis=axis, keepdims=keepdims)
        elif ord == 0:
            y = (size != 0).sum(axis=axis, keepdims=keepdims).astype(size.dtype)
        elif ord == 1:
            y = size.sum(axis=axis, keepdims=keepdims)
        else:
            y = (size**ord).sum(axis=axis, keepdims=keepdims) ** (1 / ord)
    return y.astype(np.float16) if half else y


@vector_norm.vjp("x")
def _(g, x, y, ord, axis, keepdims):
    if ord == 0:
        return np.zeros_like(x)
    x = mirrored(x)
    if not keepdims:
        shape = kept_shape(x.shape, axis)
        g, y = g.reshape(shape), y.reshape(shape)
    if ord == 1:
        return g * np.sign(x)
    if ord == 2:
        return x * where(y == 0, 0.0, g / where(y == 0, 1.0, y))  # the subgradient at 0 is 0
    size = np.absolute(x)
    if math.isinf(ord):
        at = size == y
        count = where(at, np.ones_like(size), 0.0).sum(axis=axis, keepdims=True)
        return np.sign(x) * where(at, g / count, 0.0)
    zero = x == 0
    slope = where(zero, 0.0, np.sign(x) * where(zero, 1.0, size) ** (ord - 1))
    return slope * where(y == 0, 0.0, g / where(y == 0, 1.0, y) ** (ord - 1))


@op
def euclidean(a, b, *, product):
    """Distances of all points a (*, P, M) to all points b (*, R, M) -> (*, P, R).

    ``product``: from |a|² + |b|² − 2 a·b, one matrix product; else from the differences, which is
    exact where points nearly coincide.
    """
    if not product:
        d = a[..., :, None, :] - b[..., None, :, :]
        return np.sqrt((d * d).sum(axis=-1))
    squares = (a * a).sum(axis=-1)[..., :, None] + (b * b).sum(axis=-1)[..., None, :]
    return np.sqrt(np.maximum(squares - 2 * np.matmul(a, b.swapaxes(-1, -2)), 0))


@euclidean.vjp("a", "b")
def _(g, a, b, y):
    w = where(y == 0, 0.0, g / where(y == 0, 1.0, y))
    to_a = w.sum(axis=-1)[..., None] * a - matmul(w, b)
    to_b = w.sum(axis=-2)[..., None] * b - matmul(mT(w), a)
    return to_a, to_b
