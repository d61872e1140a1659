"""Attention, a few heads at a time, so that their scores stay in the cache; heads on all cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from kilograd.kernels.blocks import in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import row_maxima, row_products, row_sums
from kilograd.kernels.threads import sliced

Array = np.ndarray


@lru_cache(maxsize=64)
def causal_mask(length: int, source: int) -> Array:
    """True where a query may look: at keys of its own position and before."""
    mask = np.tri(length, source, dtype=bool)
    mask.flags.writeable = False
    return mask


def _batch(*arrays: Any) -> tuple[int, ...]:
    """The batch shape (…) of arrays (…, A, B)."""
    shapes = {a.shape[:-2] for a in arrays if a is not None}
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)


def _flat(a: Any, batch: tuple[int, ...]) -> Any:
    """(…, A, B) as (n, A, B), n the size of the batch; or (1, A, B) where the whole batch shares it."""
    if a is None:
        return None
    if a.shape[:-2] == batch:
        return a.reshape((math.prod(batch), *a.shape[-2:]))
    if math.prod(a.shape[:-2]) == 1:
        return a.reshape((1, *a.shape[-2:]))
    return np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape((math.prod(batch), *a.shape[-2:]))


def _part(a: Any, i: int, j: int) -> Any:
    return a if a is None or len(a) == 1 else a[i:j]


def _over_heads(block: Callable[[int, int], None], n: int, width: int, row: int) -> None:
    """Call ``block`` on a few of the n heads at a time; large ones on all cores."""

    def part(start: int, stop: int) -> None:
        with np.errstate(all="ignore"):  # a thread does not inherit its caller's
            in_blocks(lambda i, j: block(start + i, start + j), stop - start, width, row)

    if n * width < 1 << 17:
        in_blocks(block, n, width, row)
    else:
        sliced(part, n, n * width)


def _softmax(p: Array, may_be_empty: bool) -> None:
    """Over the last axis, in place; a row of minus infinities becomes zeros."""
    rows = p.reshape(-1, p.shape[-1])
    highest = row_maxima(rows)
    if may_be_empty:
        highest = np.maximum(highest, np.finfo(p.dtype).min)
    rows -= highest
    np.exp(rows, out=rows)
    total = row_sums(rows)
    if may_be_empty:
        total[total == 0] = 1
    rows /= total[:, None]


@kernel
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    keep: Array | None,
    scale: float,
    is_causal: bool,
) -> tuple[Array, Array]:
    """softmax(scale q kᵀ + mask) v, and the softmax: q (..., L, E), k (..., S, E), v (..., S, D)."""
    if is_causal:
        mask = causal_mask(q.shape[-2], k.shape[-2])
    if mask is not None and mask.ndim < 2:
        mask = mask.reshape((1,) * (2 - mask.ndim) + mask.shape)
    batch = _batch(q, k, v, mask, keep)
    q, k, v, mask, keep = (_flat(a, batch) for a in (q, k, v, mask, keep))
    n, L, S = math.prod(batch), q.shape[-2], k.shape[-2]
    p = np.empty((n, L, S), q.dtype)
    y = np.empty((n, L, v.shape[-1]), q.dtype)
    shut = None if mask is None or mask.dtype.kind != "b" else ~mask

    def block(i: int, j: int) -> None:
        scores = np.matmul(_part(q, i, j) * scale, _part(k, i, j).swapaxes(-1, -2), out=p[i:j])
        if shut is not None:
            np.copyto(scores, -math.inf, where=_part(shut, i, j))
        elif mask is not None:
            scores += _part(mask, i, j)
        if S:
            _softmax(scores, mask is not None)
        weights = scores if keep is None else scores * _part(keep, i, j)
        np.matmul(weights, _part(v, i, j), out=y[i:j])

    _over_heads(block, n, L * S, S)
    return y.reshape((*batch, *y.shape[1:])), p.reshape((*batch, L, S))


@kernel
def attention_gradient(
    g: Array, q: Array, k: Array, v: Array, keep: Array | None, p: Array, scale: float
) -> tuple[Array, Array, Array, Array]:
    """dq, dk, dv and dmask, each with the whole batch shape (the caller sums what was broadcast)."""
    batch = p.shape[:-2]
    g, q, k, v, keep, p = (_flat(a, batch) for a in (g, q, k, v, keep, p))
    n = len(p)
    dq, dk, dv, ds = (
        np.empty((n, *size), g.dtype)
        for size in (q.shape[1:], k.shape[1:], v.shape[1:], p.shape[1:])
    )

    def block(i: int, j: int) -> None:
        gi, qi, ki, vi, pi = (_part(a, i, j) for a in (g, q, k, v, p))
        weights = pi if keep is None else pi * _part(keep, i, j)
        np.matmul(weights.swapaxes(-1, -2), gi, out=dv[i:j])
        d = np.matmul(gi, vi.swapaxes(-1, -2), out=ds[i:j])
        if keep is not None:
            d *= _part(keep, i, j)
        rows = (d.shape[0] * d.shape[1], d.shape[2])
        d -= row_products(d.reshape(rows), pi.reshape(rows)).reshape((*d.shape[:-1], 1))
        d *= pi
        out = np.matmul(d, ki, out=dq[i:j])
        out *= scale
        out = np.matmul(d.swapaxes(-1, -2), qi, out=dk[i:j])
        out *= scale

    _over_heads(block, n, p.shape[1] * p.shape[2], p.shape[2])
    return tuple(a.reshape((*batch, *a.shape[1:])) for a in (dq, dk, dv, ds))  # type: ignore[return-value]
