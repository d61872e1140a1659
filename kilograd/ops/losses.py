"""Losses that are worth one op: computed in one pass, their gradients too.

Each takes ``reduction`` ("mean", "sum" or "none"); the other losses are made of public functions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels import losses as kernels
from kilograd.kernels.activation import log_softmax, softplus
from kilograd.ops import elementwise as ew
from kilograd.ops.activation import log_softmax as log_softmax_op
from kilograd.ops.elementwise import where
from kilograd.ops.index import gather
from kilograd.ops.op import Box, op
from kilograd.ops.reduce import mean as mean_op
from kilograd.ops.reduce import mirrored
from kilograd.ops.reduce import sum as sum_op


def reduced(loss, reduction):
    """The mean or sum of a loss, or (``"none"``) the loss itself; also of Tensors."""
    if reduction == "mean":
        return mean_op(loss)
    return sum_op(loss) if reduction == "sum" else loss


def _spread(g, reduction, count):
    """The gradient of each element's loss, from that of their mean, sum, or themselves."""
    return g * (1.0 / max(count, 1)) if reduction == "mean" else g


# --- distances between x and its target ----------------------------------------------------------


@op
def squared_error(a, b, *, reduction="mean"):
    """``(a - b)²``."""
    d = a - b
    if reduction == "none":
        return d * d
    d = d.reshape(-1)
    total = d.dot(d)
    if reduction == "mean":
        return total / d.size if d.size else total * math.nan
    return total


@squared_error.vjp("a")
def _(g, a, b, reduction):
    d = a - b
    return d * (_spread(g, reduction, math.prod(d.shape)) * 2.0)


@squared_error.vjp("b")
def _(g, a, b, reduction):
    d = b - a
    return d * (_spread(g, reduction, math.prod(d.shape)) * 2.0)


@op
def absolute_error(a, b, *, reduction="mean"):
    """``|a - b|``."""
    d = np.absolute(a - b)
    return reduced(d, reduction)


@absolute_error.vjp("a")
def _(g, a, b, reduction):
    d = a - b
    return np.sign(mirrored(d)) * _spread(g, reduction, math.prod(d.shape))


@absolute_error.vjp("b")
def _(g, a, b, reduction):
    d = b - a
    return np.sign(mirrored(d)) * _spread(g, reduction, math.prod(d.shape))


@op(weight=4)
def smooth_absolute_error(a, b, *, beta, scale=1.0, reduction="mean"):
    """``scale * d²/(2 beta)`` where d = |a - b| < beta, else ``scale * (d - beta/2)``."""
    if a.shape != b.shape or a.dtype != b.dtype:
        a, b = np.broadcast_arrays(*ew.promoted(a, b))
    return reduced(kernels.smooth_absolute_error(a, b, beta=beta, scale=scale), reduction)


def _smooth_slope(d, beta, scale):
    return np.minimum(np.maximum(d * (scale / beta), -scale), scale)


@smooth_absolute_error.vjp("a")
def _(g, a, b, beta, scale, reduction):
    d = a - b
    return _smooth_slope(d, beta, scale) * _spread(g, reduction, math.prod(d.shape))


@smooth_absolute_error.vjp("b")
def _(g, a, b, beta, scale, reduction):
    d = b - a
    return _smooth_slope(d, beta, scale) * _spread(g, reduction, math.prod(d.shape))


# --- binary cross entropy ------------------------------------------------------------------------


@op(weight=2)
def binary_cross_entropy(p, t, w, *, reduction="mean"):
    """``-w (t log p + (1 - t) log(1 - p))`` of probabilities; w broadcasts, or is None."""
    loss = kernels.binary_cross_entropy(p, t)
    if w is not None:
        loss *= w
    return reduced(loss, reduction)


@binary_cross_entropy.vjp("p")
def _(g, p, t, w, reduction):
    if isinstance(p, Box):
        q: Any = p
        slope = (q - t) / np.maximum(q * (1 - q), 1e-12)
    else:
        slope = kernels.binary_cross_entropy_slope(p, t)
    if w is not None:
        slope = slope * w
    return slope * _spread(g, reduction, math.prod(p.shape))


@binary_cross_entropy.vjp("t")
def _(g, p, t, w, reduction):
    slope = np.maximum(np.log(1 - p), -100.0) - np.maximum(np.log(p), -100.0)
    if w is not None:
        slope = slope * w
    return slope * _spread(g, reduction, math.prod(p.shape))


@binary_cross_entropy.vjp("w")
def _(g, p, t, reduction):
    loss = (t - 1) * np.maximum(np.log(1 - p), -100.0) - t * np.maximum(np.log(p), -100.0)
    return loss * _spread(g, reduction, math.prod(p.shape))


def _bce_with_logits_composition(x, t, w, pos_weight, *, reduction):
    soft = ew.softplus(-x)
    loss = (1 - t) * x + (soft if pos_weight is None else ((pos_weight - 1) * t + 1) * soft)
    if w is not None:
        loss = loss * w
    return reduced(loss, reduction)


@op(weight=4, residuals=("s",), composition=_bce_with_logits_composition)
def binary_cross_entropy_with_logits(x, t, w, pos_weight, *, reduction="mean"):
    """Binary cross entropy of sigmoid(x): ``(1 - t) x + (1 + (pos_weight - 1) t) log(1 + e^-x)``."""
    loss, s = kernels.binary_cross_entropy_with_logits(x, t)
    if pos_weight is not None:
        loss += (pos_weight - 1) * t * softplus(-x)
    if w is not None:
        loss *= w
    return reduced(loss, reduction), s


@binary_cross_entropy_with_logits.vjp("x", "t", "w", "pos_weight")
def _(g, x, t, w, pos_weight, s, reduction):
    g = _spread(g, reduction, math.prod(x.shape))
    gw = g if w is None else g * w
    if pos_weight is None:
        dx = s - t
        dx *= gw
        return dx, -x * gw, _bce_weight(g, x, t, None) if w is not None else None, None
    lw = (pos_weight - 1) * t + 1
    dx = ((1 - t) - lw * (1 - s)) * gw
    soft = ew.softplus(-x)
    dt = ((pos_weight - 1) * soft - x) * gw
    dw = _bce_weight(g, x, t, pos_weight) if w is not None else None
    return dx, dt, dw, t * soft * gw


def _bce_weight(g, x, t, pos_weight):
    return g * _bce_with_logits_composition(x, t, None, pos_weight, reduction="none")


# --- classes -------------------------------------------------------------------------------------
#
# Scores x are (C,), (N, C) or (N, C, d1, d2, …), targets the same without C. Inside they are
# (N, C) and (N,), or (N, C, L) and (N, L) where a sample has L positions (pixels).


def _layout(shape):
    if len(shape) == 1:
        return 1, *shape
    L = math.prod(shape[2:])
    return (shape[0], shape[1]) if L == 1 else (shape[0], shape[1], L)


def _class_weight_gradient(g, logp, target, w, ignore_index, reduction):
    keep = target != ignore_index
    t = np.where(keep, target, 0)
    loss = np.where(keep, -np.take_along_axis(logp, t[:, None], 1)[:, 0], 0)
    if reduction == "mean":
        n = (w[t] * keep).sum()
        loss = np.where(keep, loss - (w[t] * loss).sum() / n, 0) / n
    loss = loss * g.reshape(t.shape if reduction == "none" else ())
    return np.bincount(t.reshape(-1), loss.reshape(-1), len(w)).astype(w.dtype)


def _nll_composition(x, target, w, *, ignore_index, reduction):
    shape = _layout(x.shape)
    keep = target != ignore_index
    t = where(keep, target, 0)
    index = t.reshape((shape[0], 1, *shape[2:]))
    loss = -gather(x.reshape(shape), index, axis=1).reshape(t.shape)
    each = None if w is None else where(keep, w[t], 0.0)
    loss = where(keep, loss if each is None else loss * each, 0.0)
    if reduction != "mean":
        return reduced(loss, reduction)
    return sum_op(loss) / sum_op(keep if each is None else each)


def _as(x, shape):
    return x if x.shape == shape else x.reshape(shape)


def _shaped(x, target):
    """Scores and targets in the layout of the kernels."""
    shape = _layout(x.shape)
    return _as(x, shape), _as(target, (shape[0], *shape[2:]))


@op(weight=2, residuals=("at", "n"), composition=_nll_composition)
def nll_loss(x, target, w, *, ignore_index=-100, reduction="mean"):
    """Minus x at each target's class, weighted by w (C,) or None."""
    x, t = _shaped(x, target)
    loss, at, n = kernels.nll_loss(x, t, w, ignore_index, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss, at, n


@nll_loss.vjp("x")
def _(g, x_shape, target, w, at, n, ignore_index, reduction):
    shape, target = _layout(x_shape), _as(target, at.shape)
    d = kernels.nll_loss_gradient(g, shape, at, target, w, n, ignore_index, reduction)
    return _as(d, x_shape)


@nll_loss.vjp("w")
def _(g, x, target, w, ignore_index, reduction):
    shape = _layout(x.shape)
    target = target.reshape((shape[0], *shape[2:]))
    return _class_weight_gradient(g, x.reshape(shape), target, w, ignore_index, reduction)


def _cross_entropy_composition(x, target, w, *, ignore_index, reduction):
    logp = log_softmax_op(x, axis=min(x.ndim - 1, 1))
    return _nll_composition(logp, target, w, ignore_index=ignore_index, reduction=reduction)


@op(weight=4, residuals=("e", "total", "at", "n"), composition=_cross_entropy_composition)
def cross_entropy(x, target, w, *, ignore_index=-100, reduction="mean"):
    """``nll_loss(log_softmax(x))``, the softmax being over classes."""
    x, t = _shaped(x, target)
    loss, *kept = kernels.cross_entropy(x, t, w, ignore_index, reduction)
    return loss.reshape(target.shape) if reduction == "none" else loss, *kept


@cross_entropy.vjp("x")
def _(g, x_shape, target, w, e, total, at, n, ignore_index, reduction):
    target = _as(target, at.shape)
    d = kernels.cross_entropy_gradient(g, e, total, at, target, w, n, ignore_index, reduction)
    return _as(d, x_shape)


@cross_entropy.vjp("w")
def _(g, x, target, w, ignore_index, reduction):
    shape = _layout(x.shape)
    target = target.reshape((shape[0], *shape[2:]))
    logp = log_softmax(x.reshape(shape), 1)
    return _class_weight_gradient(g, logp, target, w, ignore_index, reduction)
