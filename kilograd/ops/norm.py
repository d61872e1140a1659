"""Normalisation: subtract the mean, divide by the standard deviation, scale and shift.

Each op is fused (few passes over x) and says its composition for higher orders. ``rstd`` is
1/√(variance + eps); x̂ = (x - mean) * rstd is made again in the backward pass rather than kept.

With x̂ and the gradient h of it, and ⟨·⟩ the mean over what was normalised together,

    dx = rstd * (h - ⟨h⟩ - x̂ ⟨h x̂⟩)
"""

from __future__ import annotations

import math

import numpy as np

from kilograd.ops import elementwise as ew
from kilograd.ops.op import op


def _channels(v, ndim):
    """A vector (C,) so that it broadcasts with (N, C, *spatial)."""
    return v if ndim == 2 else v.reshape((-1,) + (1,) * (ndim - 2))


def _affine(y, w, b):
    if w is not None:
        y = y * w
    return y if b is None else y + b


def _standardised(x, axes, eps):
    d = x - x.mean(axis=axes, keepdims=True)
    return d * ew.rsqrt((d * d).mean(axis=axes, keepdims=True) + eps)


# --- batch norm ---------------------------------------------------------------------------------


def _batch_norm_composition(x, w, b, *, eps, running):
    y = _standardised(x, (0, *range(2, x.ndim)), eps)
    shape = (-1,) + (1,) * (x.ndim - 2)
    return _affine(y, None if w is None else w.reshape(shape), None if b is None else b.reshape(shape))


def moments(x, n):
    """The mean and (biased) variance of each channel of x (N, C, L), n = N*L.

    One pass where it is safe: Σx² - (Σx)²/n loses digits only if the mean is large against the
    deviation, and then the sum is taken again about the mean.
    """
    mean = np.einsum("ncl->c", x)
    mean /= n
    var = np.einsum("ncl,ncl->c", x, x)
    var /= n
    square = mean * mean
    var -= square
    if (square > var).any():
        d = x - mean[:, None]
        var = np.einsum("ncl,ncl->c", d, d)
        var /= n
    return mean, var


@op(residuals=("mean", "rstd"), composition=_batch_norm_composition)
def batch_norm(x, w, b, *, eps, running=None):
    """x (N, C, *spatial) normalised over all but C; w and b (C,) or None.

    ``running``: (mean, var, momentum), arrays that are moved towards this batch's (in place).
    """
    flat = x.reshape(*x.shape[:2], -1)
    n = flat.shape[0] * flat.shape[2]
    mean, var = moments(flat, n)
    if running is not None:
        old_mean, old_var, momentum = running
        for old, new in ((old_mean, mean), (old_var, var * (n / max(n - 1, 1)))):
            if old is not None:
                old *= 1 - momentum
                old += momentum * new
    rstd = 1 / np.sqrt(var + eps)
    scale = rstd if w is None else rstd * w
    y = flat * scale[:, None]
    shift = mean * scale
    np.subtract(0 if b is None else b, shift, out=shift)
    y += shift[:, None]
    return y.reshape(x.shape), mean, rstd


@batch_norm.vjp("x", "w", "b")
def _(g, x, w, mean, rstd):
    flat = (*x.shape[:2], -1)
    g3 = g.reshape(flat)
    n = max(g3.shape[0] * g3.shape[2], 1)
    d = x.reshape(flat) - mean[:, None]
    db = np.einsum("ncl->c", g3)
    dw = np.einsum("ncl,ncl->c", g3, d)
    dw *= rstd
    # dx = scale * (g - db/n - x̂ dw/n)
    d *= (rstd * dw * (-1 / n))[:, None]
    d += g3
    d -= (db / n)[:, None]
    d *= (rstd if w is None else rstd * w)[:, None]
    return d.reshape(x.shape), dw, db


# --- layer norm, rms norm -----------------------------------------------------------------------


def _layer_norm_composition(x, w, b, *, ndim, eps):
    return _affine(_standardised(x, tuple(range(-ndim, 0)), eps), w, b)


@op(residuals=("mean", "rstd"), composition=_layer_norm_composition)
def layer_norm(x, w, b, *, ndim, eps):
    """x normalised over its last ``ndim`` dimensions; w and b have their shape, or are None."""
    size = math.prod(x.shape[x.ndim - ndim :])
    rows = x.reshape(-1, size) if size else x.reshape(math.prod(x.shape[: x.ndim - ndim]), 0)
    mean = np.add.reduce(rows, axis=1, keepdims=True)
    mean /= size or 1
    y = rows - mean
    rstd = np.einsum("nd,nd->n", y, y)[:, None]
    rstd /= size or 1
    rstd += eps
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    y *= rstd
    if w is not None:
        y *= w.reshape(-1)
    if b is not None:
        y += b.reshape(-1)
    return y.reshape(x.shape), mean, rstd


@layer_norm.vjp("x", "w", "b")
def _(g, x, w, b, mean, rstd, ndim):
    shape = x.shape[x.ndim - ndim :]
    size = math.prod(shape)
    g = g.reshape(len(mean), size)
    y = x.reshape(len(mean), size) - mean
    y *= rstd
    dw = None if w is None else np.einsum("nd,nd->d", g, y).reshape(shape)
    db = None if b is None else np.add.reduce(g, axis=0).reshape(shape)
    h = g if w is None else g * w.reshape(-1)
    c = np.einsum("nd,nd->n", h, y)[:, None]
    c /= -size if size else 1
    m = np.add.reduce(h, axis=1, keepdims=True)
    m /= size or 1
    y *= c
    y += h
    y -= m
    y *= rstd
    return y.reshape(x.shape), dw, db


def _rms_norm_composition(x, w, *, ndim, eps):
    scale = ew.rsqrt((x * x).mean(axis=tuple(range(-ndim, 0)), keepdims=True) + eps)
    return _affine(x * scale, w, None)


@op(residuals=("rstd",), composition=_rms_norm_composition)
def rms_norm(x, w, *, ndim, eps):
    """x divided by the root of the mean square over its last ``ndim`` dimensions."""
    size = math.prod(x.shape[x.ndim - ndim :])
    rows = x.reshape(-1, size) if size else x.reshape(math.prod(x.shape[: x.ndim - ndim]), 0)
    rstd = np.einsum("nd,nd->n", rows, rows)[:, None]
    rstd /= size or 1
    rstd += eps
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    y = rows * rstd
    if w is not None:
        y *= w.reshape(-1)
    return y.reshape(x.shape), rstd


@rms_norm.vjp("x", "w")
def _(g, x, w, rstd, ndim):
    shape = x.shape[x.ndim - ndim :]
    size = math.prod(shape)
    g = g.reshape(len(rstd), size)
    y = x.reshape(len(rstd), size) * rstd
    dw = None if w is None else np.einsum("nd,nd->d", g, y).reshape(shape)
    h = g if w is None else g * w.reshape(-1)
    c = np.einsum("nd,nd->n", h, y)[:, None]
    c /= -size if size else 1
    y *= c
    y += h
    y *= rstd
    return y.reshape(x.shape), dw


# --- group norm ---------------------------------------------------------------------------------


def _group_norm_composition(x, w, b, *, groups, eps):
    rows = x.reshape((x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    y = _standardised(rows, (2,), eps).reshape(x.shape)
    shape = (-1,) + (1,) * (x.ndim - 2)
    return _affine(y, None if w is None else w.reshape(shape), None if b is None else b.reshape(shape))


@op(residuals=("mean", "rstd"), composition=_group_norm_composition)
def group_norm(x, w, b, *, groups, eps):
    """x (N, C, *spatial) normalised over each of ``groups`` groups of channels of each sample."""
    N, C = x.shape[:2]
    size = math.prod(x.shape[1:]) // groups
    rows = x.reshape(N * groups, size)
    mean = np.add.reduce(rows, axis=1, keepdims=True)
    mean /= size or 1
    y = rows - mean
    rstd = np.einsum("nd,nd->n", y, y)[:, None]
    rstd /= size or 1
    rstd += eps
    np.sqrt(rstd, out=rstd)
    np.reciprocal(rstd, out=rstd)
    if w is None and b is None:
        y *= rstd
    else:
        y = y.reshape(N, C, size // (C // groups) if C else 0)
        scale = rstd.repeat(C // groups).reshape(N, C, 1)
        y *= scale if w is None else scale * w[:, None]
        if b is not None:
            y += b[:, None]
    return y.reshape(x.shape), mean, rstd


@group_norm.vjp("x", "w", "b")
def _(g, x, w, b, mean, rstd, groups):
    N, C = x.shape[:2]
    size = math.prod(x.shape[1:]) // groups
    length = math.prod(x.shape[2:])
    y = x.reshape(len(mean), size) - mean
    y *= rstd
    g = g.reshape(N, C, length)
    gy = np.einsum("ncl,ncl->nc", g, y.reshape(N, C, length))
    gs = np.add.reduce(g, axis=2)
    dw = None if w is None else np.add.reduce(gy, axis=0)
    db = None if b is None else np.add.reduce(gs, axis=0)
    if w is not None:
        gy, gs, g = gy * w, gs * w, g * w[:, None]
    c = np.add.reduce(gy.reshape(N * groups, -1), axis=1, keepdims=True) / -(size or 1)
    m = np.add.reduce(gs.reshape(N * groups, -1), axis=1, keepdims=True) / (size or 1)
    y *= c
    y += g.reshape(y.shape)
    y -= m
    y *= rstd
    return y.reshape(x.shape), dw, db
