"""Attention: every query's average of the values, weighted by the softmax of its scores."""

from __future__ import annotations

import math

import numpy as np

from kilograd.ops.activation import softmax as softmax_op
from kilograd.ops.elementwise import where
from kilograd.ops.linalg import matmul
from kilograd.ops.op import op
from kilograd.ops.shape import swapaxes


def causal_mask(length, source):
    """True where a query may look: at keys of its own position and before."""
    return np.tri(length, source, dtype=bool)


def _composition(q, k, v, mask, keep, *, scale, is_causal):
    s = matmul(q * scale, swapaxes(k, a=-1, b=-2))
    if is_causal:
        s = where(causal_mask(*s.shape[-2:]), s, -math.inf)
    if mask is not None:
        s = where(mask, s, -math.inf) if mask.dtype.kind == "b" else s + mask
    dead = np.equal(s, -math.inf).all(axis=-1, keepdims=True)
    p = where(dead, 0.0, softmax_op(where(dead, 0.0, s), axis=-1))
    return matmul(p if keep is None else p * keep, v)


@op(residuals=("p",), composition=_composition)
def attention(q, k, v, mask, keep, *, scale, is_causal=False):
    """``softmax(scale * q kᵀ + mask) v``: q (..., L, E), k (..., S, E), v (..., S, D) → (..., L, D).

    mask (..., L, S): booleans (True: may look) or numbers to add, or None. keep: what the weights
    are multiplied by after the softmax (dropout), or None. A query that may look nowhere gets 0.
    """
    p = np.matmul(q * scale, k.swapaxes(-1, -2))
    if is_causal:
        np.copyto(p, -math.inf, where=~causal_mask(*p.shape[-2:]))
    if mask is not None:
        if mask.dtype.kind == "b":
            np.copyto(p, -math.inf, where=~mask)
        else:
            p += mask
    if p.size:
        highest = np.maximum.reduce(p, axis=-1, keepdims=True)
        if is_causal or mask is not None:
            np.maximum(highest, np.finfo(p.dtype).min, out=highest)
        p -= highest
        np.exp(p, out=p)
        total = np.add.reduce(p, axis=-1, keepdims=True)
        if is_causal or mask is not None:
            np.copyto(total, 1, where=total == 0)
        p /= total
    return np.matmul(p if keep is None else p * keep, v), p


@attention.vjp("q", "k", "v", "mask")
def _(g, q, k, v, keep, y, p, scale):
    dv = np.matmul((p if keep is None else p * keep).swapaxes(-1, -2), g)
    ds = np.matmul(g, v.swapaxes(-1, -2))
    if keep is not None:
        ds *= keep
    ds -= np.einsum("...d,...d->...", g, y)[..., None]
    ds *= p
    dq = np.matmul(ds, k)
    dq *= scale
    dk = np.matmul(ds.swapaxes(-1, -2), q)
    dk *= scale
    return dq, dk, dv, ds
