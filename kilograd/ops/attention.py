"""Attention: every query's average of the values, weighted by the softmax of its scores."""

from __future__ import annotations

import math

import numpy as np

from kilograd.kernels import attention as kernels
from kilograd.kernels.kernel import LARGE
from kilograd.ops.activation import softmax as softmax_op
from kilograd.ops.elementwise import where
from kilograd.ops.linalg import matmul
from kilograd.ops.op import op
from kilograd.ops.shape import swapaxes

# Scores of a head from which making them again is faster than keeping them, or else saves enough
# memory: measured with native kernels, and with NumPy's alone. Those of a few queries are no larger
# than the keys.
TILED, TILED_BY_NUMPY, FEW = 32 * 32, 256 * 256, 16


def tiled(length: int, source: int) -> bool:
    """Whether the softmax (length, source) had better be made again than kept."""
    limit = TILED if LARGE.limit < math.inf else TILED_BY_NUMPY
    return length >= FEW and length * source >= limit


def _composition(q, k, v, mask, keep, *, scale, is_causal):
    s = matmul(q * scale, swapaxes(k, a=-1, b=-2))
    if is_causal:
        s = where(kernels.causal_mask(*s.shape[-2:]), s, -math.inf)
    if mask is not None:
        s = where(mask, s, -math.inf) if mask.dtype.kind == "b" else s + mask
    dead = np.equal(s, -math.inf).all(axis=-1, keepdims=True)
    p = where(dead, 0.0, softmax_op(where(dead, 0.0, s), axis=-1))
    return matmul(p if keep is None else p * keep, v)


@op(weight=8, residuals=("p",), composition=_composition)
def attention(q, k, v, mask, keep, *, scale, is_causal=False):
    """``softmax(scale * q kᵀ + mask) v``: q (..., L, E), k (..., S, E), v (..., S, D) → (..., L, D).

    mask (..., L, S): booleans (True: may look) or numbers to add, or None. keep: what the weights
    are multiplied by after the softmax (dropout), or None. A query that may look nowhere gets 0.
    """
    return kernels.attention(q, k, v, mask, keep, scale, is_causal)


@attention.vjp("q", "k", "v", "mask")
def _(g, q, k, v, keep, p, scale):
    return kernels.attention_gradient(g, q, k, v, keep, p, scale)


@op(weight=8, residuals=("highest", "total"), composition=_composition)
def tiled_attention(q, k, v, mask, keep, *, scale, is_causal=False):
    """The same, without (..., L, S) in memory, and without a gradient of the mask.

    Kept are each query's highest score and the sum of exp(score - highest), both (..., L).
    """
    return kernels.tiled_attention(q, k, v, mask, keep, scale, is_causal)


@tiled_attention.vjp("q", "k", "v")
def _(g, q, k, v, mask, keep, y, highest, total, scale, is_causal):
    return kernels.tiled_attention_gradient(
        g, q, k, v, mask, keep, y, highest, total, scale, is_causal
    )
