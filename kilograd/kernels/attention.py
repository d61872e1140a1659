"""Attention, a few heads at a time, so that their scores stay in the cache; heads on all cores.

In two versions. ``attention`` keeps the softmax of the scores, (…, L, S), for the backward pass.
``tiled_attention`` keeps the highest score of each query and the sum of exp(score - highest): from
these the backward pass makes the softmax again, some queries at a time (Dao et al. 2022,
"FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from kilograd.kernels.blocks import BLOCK, in_blocks
from kilograd.kernels.kernel import kernel
from kilograd.kernels.rows import row_maxima, row_products, row_sums
from kilograd.kernels.threads import scratch, sliced

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


def _softmax(p: Array, may_be_empty: bool) -> tuple[Array, Array]:
    """Over the last axis, in place; a row of minus infinities becomes zeros.

    Returns each row's highest number, and its sum of exp(number - highest).
    """
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
    return highest.reshape(p.shape[:-1]), total.reshape(p.shape[:-1])


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


class _Tiles:
    """The scores of some heads and queries at a time; the arrays are (n, A, B)."""

    def __init__(
        self, q: Array, k: Array, mask: Array | None, batch: tuple[int, ...], scale: float,
        is_causal: bool,
    ) -> None:  # fmt: skip
        self.n, self.scale, self.is_causal = math.prod(batch), scale, is_causal
        self.L, self.S = q.shape[-2], k.shape[-2]
        self.q, self.k = _flat(q, batch), _flat(k, batch)
        self.mask = None
        if mask is not None and not is_causal:  # heads may share it: it is not repeated for each
            lead = mask.shape[:-2]
            which = np.arange(math.prod(lead)).reshape(lead)
            self.which = np.broadcast_to(which, batch).reshape(-1)
            to = (math.prod(lead), self.L, self.S)
            self.mask = np.broadcast_to(mask.reshape(-1, *mask.shape[-2:]), to)
        self.queries = min(self.L, max(16, BLOCK // self.S))
        self.heads = max(1, BLOCK // (self.queries * self.S))

    def run(self, tile: Callable[[slice, slice, slice], None]) -> None:
        """``tile(heads, queries, keys)`` for all of them; heads on all cores."""

        def part(start: int, stop: int) -> None:
            with np.errstate(all="ignore"):  # a thread does not inherit its caller's
                for i in range(start, stop, self.heads):
                    for a in range(0, self.L, self.queries):
                        b = min(a + self.queries, self.L)
                        seen = min(b, self.S) if self.is_causal else self.S
                        tile(slice(i, min(i + self.heads, stop)), slice(a, b), slice(seen))

        sliced(part, self.n, self.n * self.L * self.S)

    def scores(self, heads: slice, queries: slice, keys: slice) -> Array:
        """scale q kᵀ + mask, in scratch memory."""
        q = _some(self.q, heads, queries) * self.scale
        k = _some(self.k, heads, keys)
        a, seen = queries.start, keys.stop
        shape = (heads.stop - heads.start, queries.stop - a, seen)
        s = np.matmul(q, k.swapaxes(-1, -2), out=scratch("attention scores", shape, q.dtype))
        if self.is_causal and a < seen:
            hidden = ~causal_mask(queries.stop - a, seen - a)
            np.copyto(s[..., a:], -math.inf, where=hidden)
        if self.mask is not None:
            mask = self.mask[self.which[heads], queries, keys]
            if mask.dtype.kind == "b":
                np.copyto(s, -math.inf, where=~mask)
            else:
                s += mask
        return s


def _some(a: Array, heads: slice, rows: slice) -> Array:
    return a[:, rows] if len(a) == 1 else a[heads, rows]


def _as_matrices(mask: Array | None) -> Array | None:
    if mask is None or mask.ndim >= 2:
        return mask
    return mask.reshape((1,) * (2 - mask.ndim) + mask.shape)


@kernel
def tiled_attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    keep: Array | None,
    scale: float,
    is_causal: bool,
) -> tuple[Array, Array, Array]:
    """softmax(scale q kᵀ + mask) v (…, L, D); each query's highest score and its sum, (…, L)."""
    mask = _as_matrices(mask)
    batch = _batch(q, k, v, mask, keep)
    v, keep = _flat(v, batch), _flat(keep, batch)
    tiles = _Tiles(q, k, mask, batch, scale, is_causal)
    n, L, may_be_empty = tiles.n, tiles.L, mask is not None or is_causal
    y = np.empty((n, L, v.shape[-1]), q.dtype)
    highest, total = np.empty((n, L), q.dtype), np.empty((n, L), q.dtype)

    def tile(heads: slice, queries: slice, keys: slice) -> None:
        p = tiles.scores(heads, queries, keys)
        highest[heads, queries], total[heads, queries] = _softmax(p, may_be_empty)
        if keep is not None:
            p *= _some(keep, heads, queries)[..., keys]
        np.matmul(p, _some(v, heads, keys), out=y[heads, queries])

    tiles.run(tile)
    return y.reshape(*batch, *y.shape[1:]), highest.reshape(*batch, L), total.reshape(*batch, L)


@kernel
def tiled_attention_gradient(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    keep: Array | None,
    y: Array,
    highest: Array,
    total: Array,
    scale: float,
    is_causal: bool,
) -> tuple[Array, Array, Array]:
    """dq, dk and dv, each with the whole batch shape (the caller sums what was broadcast)."""
    batch = y.shape[:-2]
    tiles = _Tiles(q, k, _as_matrices(mask), batch, scale, is_causal)
    g, v, keep, y = (_flat(a, batch) for a in (g, v, keep, y))
    highest, total = (a.reshape(-1, a.shape[-1], 1) for a in (highest, total))
    q, k, n = tiles.q, tiles.k, tiles.n
    dq = np.empty((n, *q.shape[1:]), g.dtype)
    dk, dv = (np.zeros((n, *a.shape[1:]), g.dtype) for a in (k, v))

    def tile(heads: slice, queries: slice, keys: slice) -> None:
        p = tiles.scores(heads, queries, keys)
        p -= highest[heads, queries]
        np.exp(p, out=p)
        p /= total[heads, queries]
        gi, drop = _some(g, heads, queries), None
        out = scratch("attention gradients", p.shape, p.dtype)
        d = np.matmul(gi, _some(v, heads, keys).swapaxes(-1, -2), out=out)
        if keep is not None:
            drop = _some(keep, heads, queries)[..., keys]
            d *= drop
        d -= np.einsum("...d,...d->...", gi, y[heads, queries])[..., None]
        d *= p
        if drop is not None:
            p *= drop
        dv[heads, keys] += np.matmul(p.swapaxes(-1, -2), gi)
        out = np.matmul(d, _some(k, heads, keys), out=dq[heads, queries])
        out *= scale
        change = np.matmul(d.swapaxes(-1, -2), _some(q, heads, queries))
        change *= scale
        dk[heads, keys] += change

    tiles.run(tile)
    return tuple(a.reshape((*batch, *a.shape[1:])) for a in (dq, dk, dv))  # type: ignore[return-value]
