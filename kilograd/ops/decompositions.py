"""Matrices as products of simpler ones; a rule moves gradients of the factors back to the matrix.

Singular and eigenvectors are unique up to signs only, and for equal singular or eigenvalues not even
that: there their gradients divide by zero, as PyTorch's do. Those of the values are always fine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kilograd.errors import GradError, LinAlgError
from kilograd.kernels import factor
from kilograd.ops.elementwise import where
from kilograd.ops.index import gather
from kilograd.ops.linalg import matmul, mT, solve_triangular
from kilograd.ops.op import no_grad_op, op
from kilograd.ops.reduce import real_only
from kilograd.ops.shape import broadcast_to, concatenate, tril, triu


@lru_cache(maxsize=64)
def _on_diagonal(n):
    mask = np.eye(n, dtype=bool)
    mask.flags.writeable = False
    return mask


def _diag(v):
    """Diagonal matrices (*, n, n) with the vectors v (*, n) on them."""
    return where(_on_diagonal(v.shape[-1]), v[..., None], 0.0)


def _half_diagonal(x):
    return where(_on_diagonal(x.shape[-1]), x * 0.5, x)


def _unused(g):
    """Whether an output's gradient is the zeros of one that nothing has used."""
    if hasattr(g, "requires_grad"):
        return not g.requires_grad and not g.array.any()
    return not g.any()


# --- positive definite matrices -----------------------------------------------------------------


@op
def cholesky(x):
    """Lower triangular L with L Lᵀ = x (*, n, n); only the lower half of x is read."""
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "linalg.cholesky: The factorization could not be completed because the input (of shape "
            f"{list(x.shape)}) is not positive-definite."
        ) from None


@cholesky.vjp("x")
def _(g, y):
    real_only(y)
    t = mT(y)
    half = _half_diagonal(tril(matmul(t, g), k=0))
    half = (half + mT(half)) * 0.5  # a change of x counts as its symmetric part
    inner = solve_triangular(t, half, upper=True)
    return mT(solve_triangular(t, mT(inner), upper=True))


# --- eigenvalues --------------------------------------------------------------------------------


@op(outputs=2)
def eigh(x, *, upper=False):
    """Eigenvalues (*, n), ascending, and eigenvectors (*, n, n) of symmetric matrices."""
    if not np.isfinite(x).all():
        return np.full(x.shape[:-1], np.nan, x.real.dtype), np.full_like(x, np.nan)
    return tuple(np.linalg.eigh(x, "U" if upper else "L"))


@eigh.vjp("x")
def _(g, y):
    (gw, gv), (w, v) = g, y
    real_only(v)
    inner = _diag(gw)
    if not _unused(gv):
        gaps = w[..., None, :] - w[..., :, None]
        gaps = where(_on_diagonal(w.shape[-1]), 1.0, gaps)
        turn = matmul(mT(v), gv)
        inner = inner + (turn - mT(turn)) * 0.5 / gaps
    return matmul(matmul(v, inner), mT(v))


@op
def eigvalsh(x, *, upper=False):
    """The eigenvalues of symmetric matrices, ascending."""
    if not np.isfinite(x).all():
        return np.full(x.shape[:-1], np.nan, x.real.dtype)
    return np.linalg.eigvalsh(x, "U" if upper else "L")


@eigvalsh.vjp("x")
def _(g, x, upper):
    real_only(x)
    _, v = eigh(x, upper=upper)
    return matmul(v * g[..., None, :], mT(v))


@op(outputs=2)
def eig(x):
    """Complex eigenvalues (*, n) and eigenvectors (*, n, n) of square matrices."""
    w, v = np.linalg.eig(x)
    complex_ = np.result_type(x.dtype, np.complex64)
    return w.astype(complex_), v.astype(complex_)


@eig.vjp("x")
def _(g):
    raise GradError(
        "linalg.eig has complex results, of which kilograd has no gradients yet; for symmetric "
        "matrices linalg.eigh has"
    )


# --- singular values ----------------------------------------------------------------------------


@op(outputs=3)
def svd(x, *, full):
    """U, S, Vᴴ with x = U diag(S) Vᴴ; ``full``: square U and V."""
    return tuple(_svd(x, full_matrices=full))


def _svd(x, **how):
    try:
        return np.linalg.svd(x, **how)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.svd: The algorithm failed to converge for the input matrix (of shape "
            f"{list(x.shape)}); does it contain non-finite values?"
        ) from None


@svd.vjp("x")
def _(g, y):
    (gu, gs, gvh), (u, s, vh) = g, y
    real_only(u)
    k, m, n = s.shape[-1], u.shape[-2], vh.shape[-1]
    u, gu, vh, gvh = u[..., :k], gu[..., :k], vh[..., :k, :], gvh[..., :k, :]
    inner = _diag(gs)
    if _unused(gu) and _unused(gvh):
        return matmul(matmul(u, inner), vh)
    squares = s * s
    gaps = where(_on_diagonal(k), 1.0, squares[..., None, :] - squares[..., :, None])
    turn_u, turn_v = matmul(mT(u), gu), matmul(vh, mT(gvh))
    inner = (
        inner
        + (turn_u - mT(turn_u)) / gaps * s[..., None, :]
        + s[..., :, None] * ((turn_v - mT(turn_v)) / gaps)
    )
    gx = matmul(matmul(u, inner), vh)
    if m > k:  # the part of gu outside of what u spans
        gx = gx + matmul((gu - matmul(u, turn_u)) / s[..., None, :], vh)
    if n > k:
        gx = gx + matmul(u, (gvh - matmul(mT(turn_v), vh)) / s[..., :, None])
    return gx


@op
def svdvals(x):
    """The singular values, descending."""
    return _svd(x, compute_uv=False)


@svdvals.vjp("x")
def _(g, x):
    real_only(x)
    u, _, vh = svd(x, full=False)
    return matmul(u * g[..., None, :], vh)


@op
def pinv(x, *, cutoff, hermitian=False):
    """The Moore-Penrose inverse; ``cutoff(s)``: how small singular values s (*, k) count as 0."""
    if hermitian:
        w, u = np.linalg.eigh(x)
        s = np.absolute(w)
        vh = u.conj().swapaxes(-1, -2)
    else:
        u, w, vh = _svd(x, full_matrices=False)
        s = w
    keep = s > cutoff(s)
    scaled = np.where(keep, 1 / np.where(keep, w, 1), 0).astype(s.dtype)
    return (vh.conj().swapaxes(-1, -2) * scaled[..., None, :]) @ u.conj().swapaxes(-1, -2)


@pinv.vjp("x")
def _(g, x, y):
    return pinv_gradient(g, x, y)


def pinv_gradient(g, x, y):
    """The gradient of x, given the gradient g of its pseudo-inverse y (Golub & Pereyra 1973)."""
    real_only(x)
    gt, yt = mT(g), mT(y)
    k = matmul(gt, y)
    ky = matmul(k, yt)
    return (
        ky - mT(matmul(y, k)) - matmul(matmul(x, y), ky) + matmul(matmul(yt, y), gt - matmul(k, x))
    )


@op
def lstsq(a, b, *, cutoff):
    """The shortest of the x (*, n, k) for which |a @ x − b| is least: a (*, m, n), b (*, m, k)."""
    return pinv(a, cutoff=cutoff) @ b


@lstsq.vjp("a", "b")
def _(g, a, b, cutoff):
    p = pinv(a, cutoff=cutoff)
    return pinv_gradient(matmul(g, mT(b)), a, p), matmul(mT(p), g)


# --- QR and LU ----------------------------------------------------------------------------------


@op(outputs=2)
def qr(x, *, mode="reduced"):
    """Orthogonal Q and upper triangular R with x = Q R; ``mode``: reduced, complete, or r (no Q)."""
    if mode == "r":
        return np.empty(0, x.dtype), np.linalg.qr(x, "r")
    return tuple(np.linalg.qr(x, mode))


@qr.vjp("x")
def _(g, y, mode):
    (gq, gr), (q, r) = g, y
    real_only(r)
    if mode == "r":
        raise GradError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please "
            "use linalg.qr(A, mode='reduced') if you are going to differentiate through linalg.qr."
        )
    m, n = q.shape[-2], r.shape[-1]
    if mode == "complete" and m > n:
        raise GradError(
            "The QR decomposition is not differentiable when mode='complete' and nrows > ncols."
        )
    if n > m:  # x = [x₁ x₂]: only x₁ makes Q, and R₂ = Qᵀ x₂
        gr2, r2 = gr[..., m:], r[..., m:]
        g2 = matmul(q, gr2)
        g1 = _qr_gradient(gq + matmul(matmul(q, r2), mT(gr2)), gr[..., :m], q, r[..., :m])
        return concatenate(g1, g2, axis=-1)
    return _qr_gradient(gq, gr, q, r)


def _qr_gradient(gq, gr, q, r):
    inner = triu(matmul(gr, mT(r)) - matmul(mT(q), gq), k=0)
    inner = _half_diagonal(inner + mT(inner))
    gx = gq + matmul(q, inner)
    return mT(solve_triangular(r, mT(gx), upper=True))  # gx R⁻ᵀ


@op(outputs=2, residuals=("order",))
def lu_factor(x):
    """L (below the diagonal, ones left out) and U in one matrix (*, m, n), and the row exchanges."""
    packed, pivots = factor.lu(x)
    return (packed, pivots), factor.permutation(pivots, x.shape[-2])


@lu_factor.vjp("x")
def _(g, y, order):
    packed, g = y[0], g[0]
    m, n = packed.shape[-2:]
    k = min(m, n)
    lower, upper = tril(packed[..., :k], k=-1), triu(packed[..., :k, :], k=0)
    gl, gu = tril(g[..., :k], k=-1), triu(g[..., :k, :], k=0)
    if m > n:  # the rows below: L₂ = x₂ U⁻¹
        below = solve_triangular(upper, mT(gl[..., k:, :]), upper=True)  # (g_x₂)ᵀ
        gu = gu - triu(mT(matmul(below, lower[..., k:, :])), k=0)
        rest, axis = mT(below), -2
    elif n > m:  # the columns to the right: U₂ = L⁻¹ x₂
        rest, axis = solve_triangular(mT(lower), gu[..., k:], upper=True, unit=True), -1
        gl = gl - tril(matmul(rest, mT(upper[..., k:])), k=-1)
    lower, upper, gl, gu = lower[..., :k, :], upper[..., :k], gl[..., :k, :], gu[..., :k]
    inner = tril(matmul(mT(lower), gl) + gl, k=-1) + triu(matmul(gu, mT(upper)), k=0)
    inner = solve_triangular(mT(lower), inner, upper=True, unit=True)
    gx = mT(solve_triangular(upper, mT(inner), upper=True))
    if m != n:
        gx = concatenate(gx, rest, axis=axis)
    return take_rows(gx, np.argsort(order, -1))


def take_rows(x, order):
    """Rows of x (*, m, n) as numbered by an int array (*, m)."""
    batch = np.broadcast_shapes(x.shape[:-2], order.shape[:-1])
    x = broadcast_to(x, shape=(*batch, *x.shape[-2:]))
    index = np.broadcast_to(order[..., None], (*batch, order.shape[-1], x.shape[-1]))
    return gather(x, index, axis=x.ndim - 2)


@no_grad_op
def permutation(pivots, *, m):
    """The order of rows (*, m) that row exchanges (*, k), counted from 1, lead to."""
    return factor.permutation(pivots, m)
