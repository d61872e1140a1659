"""Losses and their derivatives as short chains of passes over cache-sized blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels.activation import EXP_LIMIT, over
from kilograd.kernels.blocks import blockwise, in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import row_maxima, row_sums

Array = np.ndarray


@kernel
def binary_cross_entropy(p: Array, t: Array) -> Array:
    """-(t log p + (1 - t) log(1 - p)), the logarithms held above -100."""
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise RuntimeError("all elements of input should be between 0 and 1")
    return _binary_cross_entropy(p, t)


@blockwise
def _binary_cross_entropy(p: Array, t: Array) -> Array:
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


# --- classes -------------------------------------------------------------------------------------
#
# Scores x are (N, C) or (N, C, L), the targets' classes (N,) or (N, L). ``at`` are the flat places
# of the targets in x (an ignored one counts as class 0), ``n`` is how many targets count, or
# the sum of their weights (0-d, float64).


def _places(shape: tuple[int, ...], target: Array, ignore_index: int) -> tuple[Array, Any]:
    """The scores' flat indices at the targets; which targets are ignored (None: none)."""
    N, C, *length = shape
    ignored = None
    if target.size and target.view(f"u{target.itemsize}").max() >= C:  # negative ones are huge
        ignored = target == ignore_index
        target = np.where(ignored, 0, target)
        low, high = target.min(), target.max()
        if low < 0 or high >= C:
            raise IndexError(f"Target {low if low < 0 else high} is out of bounds.")
    elif 0 <= ignore_index < C:
        ignored = target == ignore_index
    if not length:
        return target + np.arange(0, N * C, C), ignored
    (L,) = length
    at = target.astype(np.int64)
    at *= L
    at += np.arange(0, N * C * L, C * L)[:, None]
    at += np.arange(L)
    return at, ignored


def _weights(at: Array, shape: tuple[int, ...], w: Array | None, ignored: Any, dtype: Any) -> Any:
    """Each target's weight, 0 where ignored; None if all are 1."""
    if w is None:
        return None if ignored is None else (~ignored).astype(dtype)
    each = w[at % shape[1] if len(shape) == 2 else at // shape[2] % shape[1]]
    return each if ignored is None else np.where(ignored, w.dtype.type(0), each)


def _weighted(loss: Array, each: Array | None, reduction: str) -> tuple[Any, Array]:
    """The loss of all targets from that of each one; n."""
    if each is not None:
        loss = np.where(each == 0, loss.dtype.type(0), loss * each)
    n = loss.size if each is None else np.add.reduce(each, axis=None)
    if reduction != "none":
        loss = np.add.reduce(loss, axis=None)
    if reduction == "mean":
        loss = loss / n if n else loss * math.nan
    return loss, np.asarray(n, np.float64)


def _factor(
    g: Array, at: Array, target: Array, shape: tuple[int, ...], w: Array | None, n: Array,
    ignore_index: int, reduction: str,
) -> Any:  # fmt: skip
    """What the derivative of each target's own loss is multiplied by: a number, or one for each."""
    ignored = None if w is None and n == target.size else target == ignore_index
    each = _weights(at, shape, w, ignored, g.dtype)
    if reduction == "mean":
        g = g * (1.0 / float(n) if n else 0.0)  # all ignored: the mean is nan, its gradient 0
    elif reduction == "none":
        g = g.reshape(at.shape)
    return g if each is None else g * each


@kernel
def nll_loss(
    x: Array, target: Array, w: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Array, Array]:
    """Minus x at each target's class, weighted by w (C,) or None; loss, at, n."""
    at, ignored = _places(x.shape, target, ignore_index)
    each = _weights(at, x.shape, w, ignored, x.dtype)
    loss, n = _weighted(-x.reshape(-1)[at], each, reduction)
    return loss, at, n


@kernel
def nll_loss_gradient(
    g: Array, shape: tuple[int, ...], at: Array, target: Array, w: Array | None, n: Array,
    ignore_index: int, reduction: str,
) -> Array:  # fmt: skip
    """dx."""
    d = np.zeros(math.prod(shape), g.dtype)
    d[at] = -_factor(g, at, target, shape, w, n, ignore_index, reduction)
    return d.reshape(shape)


@kernel
def cross_entropy(
    x: Array, target: Array, w: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Array, Array, Array, Array]:
    """``nll_loss(log_softmax(x))``; loss, e = exp(x - max), its sum over classes, at, n."""
    at, ignored = _places(x.shape, target, ignore_index)
    each = _weights(at, x.shape, w, ignored, x.dtype)
    loss, e, total = _minus_log_softmax(x, at)
    loss, n = _weighted(loss, each, reduction)
    return loss, e, total, at, n


@kernel
def cross_entropy_gradient(
    g: Array, e: Array, total: Array, at: Array, target: Array, w: Array | None, n: Array,
    ignore_index: int, reduction: str,
) -> Array:  # fmt: skip
    """dx: the softmax, less 1 at the target's class."""
    f = _factor(g, at, target, e.shape, w, n, ignore_index, reduction)
    d = e * (f / total)[:, None]
    d.reshape(-1)[at] -= f
    return d


def _minus_log_softmax(x: Array, at: Array) -> tuple[Array, Array, Array]:
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
