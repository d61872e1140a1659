"""Losses and their derivatives as short chains of passes over cache-sized blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.activation import EXP_LIMIT, over
from kilograd.kernels.blocks import blockwise, in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import row_maxima, row_sums

Array = np.ndarray


@kernel
@blockwise
def binary_cross_entropy(p: Array, t: Array) -> Array:
    """-(t log p + (1 - t) log(1 - p)), the logarithms held above -100."""
    with np.errstate(divide="ignore"):
        loss = over(np.log, 1 - p)
        log_p = np.log(p)
    loss = np.maximum(loss, -100)
    log_p = np.maximum(log_p, -100)
    loss *= t - 1
    log_p *= t
    loss -= log_p
    return loss


@kernel
@blockwise
def binary_cross_entropy_slope(p: Array, t: Array) -> Array:
    """(p - t)/(p (1 - p)), the denominator held above 1e-12."""
    d = 1 - p
    d *= p
    d = np.maximum(d, 1e-12)
    return (p - t) / d


@kernel
@blockwise
def binary_cross_entropy_with_logits(x: Array, t: Array) -> tuple[Array, Array]:
    """(1 - t) x + log(1 + e⁻ˣ), and σ(x)."""
    n = -x
    e = over(np.exp, np.minimum(n, EXP_LIMIT[x.dtype.itemsize]))
    s = e + 1
    s = over(np.reciprocal, s)
    loss = over(np.log1p, e)
    loss = np.maximum(loss, n)  # above the limit of exp they are equal
    n *= t
    loss += x
    loss += n
    return loss, s


@kernel
@blockwise
def smooth_absolute_error(a: Array, b: Array, beta: float, scale: float) -> Array:
    """scale d²/(2 beta) where d = |a - b| < beta, else scale (d - beta/2)."""
    d = a - b
    d = over(np.absolute, d)
    near = np.minimum(d, beta)
    near *= -0.5
    d += near
    near *= -2 * scale / beta
    d *= near
    return d


@kernel
def cross_entropy(x: Array, at: Array) -> tuple[Array, Array, Array]:
    """-log softmax(x) at flat indices ``at``, and exp(x - max), and its sum; x (N, C) or (N, C, L)."""
    e = np.empty(x.shape, x.dtype)
    flat = e.reshape(-1)
    if x.ndim == 3:
        np.subtract(x, np.maximum.reduce(x, axis=1, keepdims=True), out=e)
        picked = flat[at]
        np.exp(e, out=e)
        total = np.add.reduce(e, axis=1)
        return np.log(total) - picked, e, total
    width = x.shape[1]

    def block(i: int, j: int) -> Any:
        part = np.subtract(x[i:j], row_maxima(x[i:j]), out=e[i:j])
        picked = flat[at[i:j]]
        np.exp(part, out=part)
        total = row_sums(part)
        return np.log(total) - picked, total

    parts = in_blocks(block, len(x), width, row=width)
    if len(parts) == 1:
        loss, total = parts[0]
    else:
        loss, total = (np.concatenate(p) for p in zip(*parts, strict=True))
    return loss, e, total
