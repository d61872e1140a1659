"""What LAPACK knows and ``numpy.linalg`` does not offer: LU factors, triangular systems, exp, cofactors.

Each works on stacks of matrices (*, m, n) at once, in blocks whose products are BLAS's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel

Array = Any
BLOCK = 48  # columns factored one by one before a matrix product brings the rest up to date

# exp(x) = q(x)⁻¹ p(x), numerator coefficients of the [13/13] Padé approximant, constant term first
_PADE = tuple(
    float(math.factorial(26 - j) * math.factorial(13) // math.factorial(13 - j)) / math.factorial(j)
    for j in range(14)
)


@kernel
def substitute(a: Array, b: Array, upper: bool, unit: bool = False) -> Array:
    """The x of a @ x = b for triangular a (*, n, n) and b (*, n, k); a's other half is not read.

    ``unit``: the diagonal is not read either, and taken to be 1.
    """
    if not upper:  # the same equations from the last to the first are upper triangular
        y = substitute(a[..., ::-1, ::-1], b[..., ::-1, :], True, unit)
        return np.ascontiguousarray(y[..., ::-1, :])
    n = a.shape[-1]
    if n <= BLOCK:
        t = np.triu(a)
        if unit:
            t[..., range(n), range(n)] = 1
        try:
            return np.linalg.solve(t, b)  # nothing to eliminate: LAPACK goes on to substitute
        except np.linalg.LinAlgError:  # a zero on the diagonal: infinities, not an error
            return _by_rows(t, b)
    h = n // 2
    last = substitute(a[..., h:, h:], b[..., h:, :], True, unit)
    first = substitute(a[..., :h, :h], b[..., :h, :] - a[..., :h, h:] @ last, True, unit)
    return np.concatenate((first, last), -2)


def _by_rows(t: Array, b: Array) -> Array:
    batch = np.broadcast_shapes(t.shape[:-2], b.shape[:-2])
    x = np.array(np.broadcast_to(b, (*batch, *b.shape[-2:])))
    with np.errstate(all="ignore"):
        for i in reversed(range(t.shape[-1])):
            x[..., i, :] -= (t[..., i, None, i + 1 :] @ x[..., i + 1 :, :])[..., 0, :]
            x[..., i, :] /= t[..., i, i, None]
    return x


@kernel
def lu(a: Array) -> tuple[Array, Array]:
    """(*, m, n) -> L below and U on and above the diagonal (*, m, n), and int32 pivots (*, min(m, n)).

    As LAPACK's getrf: step i exchanged row i with row ``pivots[..., i] - 1``.
    """
    *batch, m, n = a.shape
    k = min(m, n)
    x = a.reshape((math.prod(batch), m, n)).copy()
    pivots = np.empty((len(x), k), np.int32)
    each = np.arange(len(x))
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        for j in range(start, stop):
            p = np.abs(x[:, j:, j]).argmax(1) + j
            pivots[:, j] = p + 1
            row = x[:, j].copy()
            x[:, j] = x[each, p]
            x[each, p] = row
            pivot = x[:, j, j, None]
            x[:, j + 1 :, j] /= np.where(pivot == 0, 1, pivot)  # a zero pivot has zeros below it
            x[:, j + 1 :, j + 1 : stop] -= x[:, j + 1 :, j, None] * x[:, j, None, j + 1 : stop]
        if stop < n:
            panel = x[:, start:stop, start:stop]
            x[:, start:stop, stop:] = substitute(panel, x[:, start:stop, stop:], False, unit=True)
            x[:, stop:, stop:] -= x[:, stop:, start:stop] @ x[:, start:stop, stop:]
    return x.reshape(a.shape), pivots.reshape((*batch, k))


@kernel
def permutation(pivots: Array, m: int) -> Array:
    """The order of rows (*, m) that a sequence of exchanges (*, k), counted from 1, leads to."""
    *batch, k = pivots.shape
    swaps = pivots.reshape((math.prod(batch), k)).astype(np.int64) - 1
    each = np.arange(len(swaps))
    order = np.tile(np.arange(m), (len(swaps), 1))
    for i in range(k):
        p = swaps[:, i]
        kept = order[:, i].copy()
        order[:, i] = order[each, p]
        order[each, p] = kept
    return order.reshape((*batch, m))


@kernel
def exponential(a: Array) -> Array:
    """exp of square matrices (*, n, n): scaled by 2⁻ˢ, a [13/13] Padé approximant, squared s times."""
    n = a.shape[-1]
    if a.size == 0:
        return a.copy()
    x = a.astype(np.result_type(a.dtype, np.float64))
    size = np.abs(x).sum(-2).max(-1)[..., None, None]
    with np.errstate(all="ignore"):
        s = np.where(np.isfinite(size) & (size > 0), np.ceil(np.log2(size / 5.37)), 0).clip(0)
    x = x / 2.0**s
    one = np.eye(n, dtype=x.dtype)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    c = _PADE
    odd = x @ (
        x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one
    )
    even = (
        x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    )
    y = np.linalg.solve(even - odd, even + odd)
    for i in range(int(s.max())):
        y = np.where(i < s, y @ y, y)
    return y.astype(a.dtype)


@kernel
def cofactors(a: Array) -> Array:
    """The derivative of det at (*, n, n), also where a is singular and det(a) a⁻ᵀ is 0 · ∞."""
    u, s, vh = np.linalg.svd(a)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    return (u.conj() * (_product_of_others(s, 1) * sign[..., None])[..., None, :]) @ vh.conj()


@kernel
def cofactors_vjp(g: Array, a: Array) -> Array:
    """Σᵢⱼ gᵢⱼ · ∂cofactorᵢⱼ/∂a, from the second derivatives of det at a diagonal matrix.

    There they are P = ∏ of all singular values but two: ∂²/∂aᵢᵢ∂aⱼⱼ = Pᵢⱼ, ∂²/∂aᵢⱼ∂aⱼᵢ = −Pᵢⱼ.
    """
    u, s, vh = np.linalg.svd(a)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    h = u.swapaxes(-1, -2) @ g @ vh.swapaxes(-1, -2)
    p = _product_of_others(s, 2)
    inner = -p * h.swapaxes(-1, -2)
    i = np.arange(s.shape[-1])
    inner[..., i, i] = (p * h[..., None, i, i]).sum(-1)
    return (u @ inner @ vh) * sign[..., None, None]


def _product_of_others(s: Array, count: int) -> Array:
    """∏ₖ sₖ without sᵢ (count 1), or without sᵢ and sⱼ (count 2; 0 where i is j)."""
    left_out = np.eye(s.shape[-1], dtype=bool)
    if count == 1:
        return np.where(left_out, s.dtype.type(1), s[..., None, :]).prod(-1)
    pair = left_out[:, None, :] | left_out[None, :, :]
    p = np.where(pair, s.dtype.type(1), s[..., None, None, :]).prod(-1)
    return np.where(left_out, s.dtype.type(0), p)
