"""Normalisation: subtract the mean, divide by the standard deviation, scale and shift.

Each op is fused (see ``kernels/norm.py``) and says its composition for higher orders.
"""

from __future__ import annotations

import math

from kilograd.kernels import norm as kernels
from kilograd.ops import elementwise as ew
from kilograd.ops.op import op


def _affine(y, w, b):
    if w is not None:
        y = y * w
    return y if b is None else y + b


def _per_channel(v, ndim):
    """A vector (C,) so that it broadcasts with (N, C, *spatial)."""
    return v if v is None or ndim == 2 else v.reshape((-1,) + (1,) * (ndim - 2))


def _standardised(x, axes, eps):
    d = x - x.mean(axis=axes, keepdims=True)
    return d * ew.rsqrt((d * d).mean(axis=axes, keepdims=True) + eps)


def _planes(x):
    return x.reshape((*x.shape[:2], math.prod(x.shape[2:])))


def _rows(x, ndim):
    """x as rows, each of its last ``ndim`` dimensions."""
    split = x.ndim - ndim
    return x.reshape((math.prod(x.shape[:split]), math.prod(x.shape[split:])))


def _flat(v):
    return None if v is None else v.reshape(-1)


def _batch_norm_composition(x, w, b, *, eps, running):
    y = _standardised(x, (0, *range(2, x.ndim)), eps)
    return _affine(y, _per_channel(w, x.ndim), _per_channel(b, x.ndim))


@op(weight=4, residuals=("mean", "r"), composition=_batch_norm_composition)
def batch_norm(x, w, b, *, eps, running=None):
    """x (N, C, *spatial) normalised over all but C; w and b (C,) or None.

    ``running``: (mean, var, momentum), arrays that are moved towards this batch's (in place).
    """
    y, mean, r, var = kernels.batch_norm(_planes(x), w, b, eps)
    if running is not None:
        n = x.size // len(mean)
        old_mean, old_var, momentum = running
        for old, new in ((old_mean, mean), (old_var, var * (n / max(n - 1, 1)))):
            if old is not None:
                old *= 1 - momentum
                old += momentum * new
    return y.reshape(x.shape), mean, r


@batch_norm.vjp("x", "w", "b")
def _(g, x, w, mean, r):
    dx, dw, db = kernels.batch_norm_gradient(_planes(g), _planes(x), w, mean, r)
    return dx.reshape(x.shape), dw, db


def _layer_norm_composition(x, w, b, *, ndim, eps):
    return _affine(_standardised(x, tuple(range(-ndim, 0)), eps), w, b)


@op(weight=4, residuals=("mean", "r"), composition=_layer_norm_composition)
def layer_norm(x, w, b, *, ndim, eps):
    """x normalised over its last ``ndim`` dimensions; w and b have their shape, or are None."""
    y, mean, r = kernels.layer_norm(_rows(x, ndim), _flat(w), _flat(b), eps)
    return y.reshape(x.shape), mean, r


@layer_norm.vjp("x", "w", "b")
def _(g, x, w, mean, r, ndim):
    dx, dw, db = kernels.layer_norm_gradient(_rows(g, ndim), _rows(x, ndim), _flat(w), mean, r)
    shape = x.shape[x.ndim - ndim :]
    return dx.reshape(x.shape), dw.reshape(shape), db.reshape(shape)


def _rms_norm_composition(x, w, *, ndim, eps):
    r = ew.rsqrt((x * x).mean(axis=tuple(range(-ndim, 0)), keepdims=True) + eps)
    return _affine(x * r, w, None)


@op(weight=4, residuals=("r",), composition=_rms_norm_composition)
def rms_norm(x, w, *, ndim, eps):
    """x divided by the root of the mean square over its last ``ndim`` dimensions."""
    y, r = kernels.rms_norm(_rows(x, ndim), _flat(w), eps)
    return y.reshape(x.shape), r


@rms_norm.vjp("x", "w")
def _(g, x, w, r, ndim):
    dx, dw = kernels.rms_norm_gradient(_rows(g, ndim), _rows(x, ndim), _flat(w), r)
    return dx.reshape(x.shape), dw.reshape(x.shape[x.ndim - ndim :])


def _group_norm_composition(x, w, b, *, groups, eps):
    rows = x.reshape((x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    y = _standardised(rows, (2,), eps).reshape(x.shape)
    return _affine(y, _per_channel(w, x.ndim), _per_channel(b, x.ndim))


@op(weight=4, residuals=("mean", "r"), composition=_group_norm_composition)
def group_norm(x, w, b, *, groups, eps):
    """x (N, C, *spatial) normalised over each of ``groups`` groups of channels of each sample."""
    y, mean, r = kernels.group_norm(_planes(x), w, b, groups, eps)
    return y.reshape(x.shape), mean, r


@group_norm.vjp("x", "w", "b")
def _(g, x, w, mean, r, groups):
    dx, dw, db = kernels.group_norm_gradient(_planes(g), _planes(x), w, mean, r, groups)
    return dx.reshape(x.shape), dw, db
