"""Normalisation of rows, channels, and groups of channels.

With mean m, r = 1/√(variance + eps), weight w, and over the D elements normalised together
S = Σ g w x and T = Σ g w, the gradient is, without making x̂ again,

    dx = g * a + x * b + c      a = r w       b = (m T - S) r³/D       c = -b m - r T/D
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.blocks import in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import column_sums, row_products, row_sums

Array = np.ndarray


def _root(r: Array, count: int, eps: float) -> Array:
    """1/√(r/count + eps), written over r."""
    r /= count or 1
    r += eps
    np.sqrt(r, out=r)
    return np.reciprocal(r, out=r)


def _joined(parts: list[Any]) -> Any:
    """What each block gave, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))


# --- rows ---------------------------------------------------------------------------------------


@kernel
def standardise(x: Array, y: Array, eps: float) -> tuple[Array, Array]:
    """Write x (n, width), each row less its mean and times r, into y; mean and r (n,)."""
    width = x.shape[1]
    mean = row_sums(x)
    mean /= width or 1
    np.subtract(x, mean[:, None], out=y)
    r = _root(row_products(y, y), width, eps)
    y *= r[:, None]
    return mean, r


@kernel
def layer_norm(
    x: Array, w: Array | None, b: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """Each row of x (n, width) normalised; y, mean, r."""
    y = np.empty(x.shape, x.dtype)

    def block(i: int, j: int) -> tuple[Array, Array]:
        out = y[i:j]
        found = standardise(x[i:j], out, eps)
        if w is not None:
            out *= w
        if b is not None:
            out += b
        return found

    return y, *_joined(in_blocks(block, len(x), x.shape[1], row=x.shape[1]))


@kernel
def layer_norm_gradient(
    g: Array, x: Array, w: Array | None, mean: Array, r: Array
) -> tuple[Array, Array, Array]:
    """dx, dw, db."""
    dx = np.empty(x.shape, x.dtype)
    width = x.shape[1] or 1

    def block(i: int, j: int) -> tuple[Array, Array]:
        gi, xi, ri, mi, out = g[i:j], x[i:j], r[i:j], mean[i:j], dx[i:j]
        product = gi * xi
        dw = ri.dot(product) - (ri * mi).dot(gi)
        if w is None:
            T, S = row_sums(gi), row_sums(product)
            np.multiply(gi, ri[:, None], out=out)
        else:
            T, S = gi.dot(w), product.dot(w)
            np.dot(ri[:, None], w[None], out=out)
            out *= gi
        b = (mi * T - S) * (ri * ri * ri / width)
        np.multiply(xi, b[:, None], out=product)
        product -= (b * mi + T * ri / width)[:, None]
        out += product
        return dw, column_sums(gi)

    parts = in_blocks(block, len(x), x.shape[1], row=x.shape[1])
    return dx, sum(p[0] for p in parts), sum(p[1] for p in parts)


@kernel
def rms_norm(x: Array, w: Array | None, eps: float) -> tuple[Array, Array]:
    """Each row of x (n, width) divided by the root of its mean square; y, r."""
    y = np.empty(x.shape, x.dtype)

    def block(i: int, j: int) -> tuple[Array]:
        r = _root(row_products(x[i:j], x[i:j]), x.shape[1], eps)
        out = np.multiply(x[i:j], r[:, None], out=y[i:j])
        if w is not None:
            out *= w
        return (r,)

    return y, *_joined(in_blocks(block, len(x), x.shape[1], row=x.shape[1]))


@kernel
def rms_norm_gradient(g: Array, x: Array, w: Array | None, r: Array) -> tuple[Array, Array]:
    """dx, dw."""
    dx = np.empty(x.shape, x.dtype)
    width = x.shape[1] or 1

    def block(i: int, j: int) -> Array:
        gi, xi, ri, out = g[i:j], x[i:j], r[i:j], dx[i:j]
        product = gi * xi
        dw = ri.dot(product)
        if w is None:
            S = row_sums(product)
            np.multiply(gi, ri[:, None], out=out)
        else:
            S = product.dot(w)
            np.dot(ri[:, None], w[None], out=out)
            out *= gi
        np.multiply(xi, (S * ri * ri * ri / -width)[:, None], out=product)
        out += product
        return dw

    dw: Any = sum(in_blocks(block, len(x), x.shape[1], row=x.shape[1]))
    return dx, dw


# --- channels -----------------------------------------------------------------------------------


def scaled(x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift: x (N, C, L), scale and shift (N or 1, C)."""
    y = np.empty(x.shape, x.dtype)

    def block(i: int, j: int) -> None:
        k = slice(i, j) if len(scale) > 1 else slice(None)
        out = np.multiply(x[i:j], scale[k, :, None], out=y[i:j])
        out += shift[k, :, None]

    in_blocks(block, len(x), x.shape[1] * x.shape[2], row=x.shape[2])
    return y


@kernel
def scaled_gradient(g: Array, x: Array, a: Array, b: Array, c: Array) -> Array:
    """g * a + x * b + c: g and x (N, C, L), the others (N or 1, C)."""
    dx = np.empty(x.shape, x.dtype)

    def block(i: int, j: int) -> None:
        k = slice(i, j) if len(a) > 1 else slice(None)
        out = np.multiply(g[i:j], a[k, :, None], out=dx[i:j])
        other = x[i:j] * b[k, :, None]
        other += c[k, :, None]
        out += other

    in_blocks(block, len(x), x.shape[1] * x.shape[2], row=x.shape[2])
    return dx


def _channel_sums(x: Array, y: Array) -> tuple[Array, Array]:
    """Σ x and Σ x*y over all but the channels of x and y (N, C, L): (C,), (C,)."""

    def block(i: int, j: int) -> tuple[Array, Array]:
        if x.shape[2] == 1:
            flat = x[i:j, :, 0]
            return column_sums(flat), np.einsum("nc,nc->c", flat, y[i:j, :, 0])
        return np.einsum("ncl->c", x[i:j]), np.einsum("ncl,ncl->c", x[i:j], y[i:j])

    parts = in_blocks(block, len(x), x.shape[1] * x.shape[2])
    if len(parts) == 1:
        return parts[0]
    return sum(p[0] for p in parts), sum(p[1] for p in parts)


@kernel
def channel_moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel of x (N, C, L): (C,), (C,).

    In one pass, Σx² - (Σx)²/n, unless a mean is so large against its deviation that this loses
    digits: then a second time, about the mean.
    """
    n = x.shape[0] * x.shape[2]
    mean, var = _channel_sums(x, x)
    mean /= n
    var /= n
    square = mean * mean
    var -= square
    if (square > 8 * var).any():
        d = x - mean[:, None]
        shift, var = _channel_sums(d, d)
        shift /= n
        mean += shift
        var /= n
        var -= shift * shift
    return mean, var


@kernel
def batch_norm(
    x: Array, w: Array | None, b: Array | None, eps: float
) -> tuple[Array, Array, Array, Array]:
    """Each channel of x (N, C, L) normalised; y, mean, r, variance."""
    mean, var = channel_moments(x)
    r = 1 / np.sqrt(var + eps)
    scale = r if w is None else r * w
    shift = mean * scale
    np.subtract(0 if b is None else b, shift, out=shift)
    if x.shape[2] == 1:
        y = x[:, :, 0] * scale
        y += shift
        return y[:, :, None], mean, r, var
    return scaled(x, scale[None], shift[None]), mean, r, var


@kernel
def batch_norm_gradient(
    g: Array, x: Array, w: Array | None, mean: Array, r: Array
) -> tuple[Array, Array, Array]:
    """dx, dw, db."""
    n = x.shape[0] * x.shape[2]
    T, S = _channel_sums(g, x)
    dw = (S - mean * T) * r
    a = r if w is None else r * w
    b = dw * r * a / -n
    c = a * T / -n - b * mean
    if x.shape[2] == 1:
        dx = g[:, :, 0] * a
        dx += x[:, :, 0] * b
        dx += c
        return dx[:, :, None], dw, T
    return scaled_gradient(g, x, a[None], b[None], c[None]), dw, T


@kernel
def group_norm(
    x: Array, w: Array | None, b: Array | None, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """Each of ``groups`` groups of channels of each sample of x (N, C, L) normalised; y, mean, r."""
    N, C, L = x.shape
    y = np.empty(x.shape, x.dtype)

    def block(i: int, j: int) -> tuple[Array, Array]:
        out = y[i:j]
        rows = ((j - i) * groups, C // groups * L)
        found = standardise(x[i:j].reshape(rows), out.reshape(rows), eps)
        if w is not None:
            out *= w[:, None]
        if b is not None:
            out += b[:, None]
        return found

    return y, *_joined(in_blocks(block, N, C * L, row=L))


@kernel
def group_norm_gradient(
    g: Array, x: Array, w: Array | None, mean: Array, r: Array, groups: int
) -> tuple[Array, Array, Array]:
    """dx, dw, db."""
    N, C, L = x.shape
    per = C // groups
    T = row_sums(g.reshape(N * C, L)).reshape(N, C)
    S = row_products(g.reshape(N * C, L), x.reshape(N * C, L)).reshape(N, C)
    each_mean, each_r = mean.repeat(per).reshape(N, C), r.repeat(per).reshape(N, C)
    dw = column_sums((S - each_mean * T) * each_r)
    db = column_sums(T)
    if w is not None:
        T, S = T * w, S * w
    T, S = row_sums(T.reshape(-1, per)), row_sums(S.reshape(-1, per))
    b = (mean * T - S) * (r * r * r / (per * L or 1))
    c = -b * mean - T * r / (per * L or 1)
    a = each_r if w is None else each_r * w
    dx = scaled_gradient(g, x, a, b.repeat(per).reshape(N, C), c.repeat(per).reshape(N, C))
    return dx, dw, db
