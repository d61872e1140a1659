"""Attention that keeps the softmax, for masks that have gradients; twins of all attention.

One head after the other, and a few dozen queries at a time; heads are divided among threads.
The scores of those queries stay in the cache from the product q kᵀ over their softmax to the
product with v. Under a causal mask the keys behind the last of them are not looked at at all.

Heads are outer × inner. ``q0 q1 q2`` are how far apart, in elements, outer heads, inner heads and
rows lie in q: so the heads of one matrix (B, L, heads · E) are read where they are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kilograd.kernels import attention as numpy_kernels
from kilograd.kernels import threads
from kilograd.kernels.native import attention_tiles as tiles
from kilograd.kernels.native.build import T, exp, gemm, inline, native, share
from kilograd.kernels.native.plan import FLOATS, floats, twin
from kilograd.kernels.native.vectors import machine

_QUERIES = 64  # at a time
OFTEN = 512  # queries for which it pays to have the rows of operands next to each other
_INF = math.inf


@inline
def exps(x, at, n, highest, least):
    """x = exp(x - highest), and the sum; 0 below exp(least), as denormal numbers are slow."""
    total = T(0)
    for i in range(at, at + n):
        d = x[i] - highest
        e = exp(least if d < least else d)
        e = T(0) if d < least else e
        x[i] = e
        total += e
    return total


@inline
def hide_behind(p, at, last, S):
    """Minus infinity, or where nobody will look, 0, behind the last element of a row that counts.

    How many may count: up to the end of a block of 32, which is written in vectors.
    """
    block = last - last % 32
    n = min(S, block + 32)
    if n == block + 32:
        for j in range(32):
            p[at + block + j] = p[at + block + j] if block + j <= last else T(-_INF)
    else:
        for j in range(last + 1, n):
            p[at + j] = T(-_INF)
    for j in range(n, S):
        p[at + j] = T(0)
    return n


@inline
def softmax_row(p, bits, at, n, lowest, least, spare, spare_bits, lane):
    """A row of n scores becomes its softmax; a row without any score above ``lowest``, zeros.

    ``bits`` is p seen as integers, whose maximum is found in vectors: they order positive floats as
    they are, and negative ones (when all are) backwards. 32 numbers at ``lane`` of spare are for the
    end of the row, which is then a whole number of vectors, too.
    """
    high = bits[at]
    low = high
    for i in range(at, at + n):
        high = max(high, bits[i])
        low = min(low, bits[i])
    spare_bits[lane] = low if high < 0 else high
    highest = lowest if spare[lane] < lowest else spare[lane]
    rest = n % 32
    whole = at + n - rest
    total = exps(p, at, n - rest, highest, least)
    if rest:
        for i in range(32):
            spare[lane + i] = T(-_INF)
        for i in range(rest):
            spare[lane + i] = p[whole + i]
        total += exps(spare, lane, 32, highest, least)
        for i in range(rest):
            p[whole + i] = spare[lane + i]
    scale = T(1) / (T(1) if total == T(0) else total)
    for i in range(at, at + n):
        p[i] *= scale


def attention_forward(
    q, k, v, allow, bias, keep, p, bits, kept, y, spare, spare_bits, outer, inner, L, S, E, D, q0,
    q1, q2, k0, k1, k2, v0, v1, v2, m0, m1, m2, m3, masked, causal, dropped, scale, lowest,
    least, part, parts,
):  # fmt: skip
    """softmax(scale q kᵀ + mask) v, and the softmax p; kept = p keep is scratch.

    masked: 0 none, 1 ``allow``, 2 ``bias``; m0 … m3 are how far apart its elements lie.
    """
    start, stop = share(outer * inner, part, parts)
    for head in range(start, stop):
        o, h = head // inner, head % inner
        for i in range(0, L, _QUERIES):
            rows = min(_QUERIES, L - i)
            seen = min(S, i + rows) if causal else S
            first = (head * L + i) * S
            gemm(
                0, 1, rows, seen, E, scale, q, o * q0 + h * q1 + i * q2, q2,
                k, o * k0 + h * k1, k2, T(0), p, first, S,
            )  # fmt: skip
            for r in range(rows):
                at, m, n = first + r * S, o * m0 + h * m1 + (i + r) * m2, S
                if masked == 1:
                    for j in range(S):
                        p[at + j] = p[at + j] if allow[m + j * m3] else T(-_INF)
                elif masked == 2:
                    for j in range(S):
                        p[at + j] += bias[m + j * m3]
                elif causal:
                    n = hide_behind(p, at, i + r, S)
                softmax_row(p, bits, at, n, lowest, least, spare, spare_bits, head * 32)
            if dropped:
                for j in range(first, first + rows * S):
                    kept[j] = p[j] * keep[j]
            gemm(
                0, 0, rows, D, seen, T(1), kept if dropped else p, first, S,
                v, o * v0 + h * v1, v2, T(0), y, (head * L + i) * D, D,
            )  # fmt: skip


FORWARD = {
    dtype: native(
        f"T* q, T* k, T* v, u8* allow, T* bias, T* keep, T* p, {bits}* bits, T* kept, T* y,"
        f"T* spare, {bits}* spare_bits, i64 outer, i64 inner, i64 L, i64 S, i64 E, i64 D, i64 q0,"
        "i64 q1, i64 q2, i64 k0, i64 k1, i64 k2, i64 v0, i64 v1, i64 v2, i64 m0, i64 m1, i64 m2,"
        "i64 m3, i64 masked, i64 causal, i64 dropped, T scale, T lowest, T least",
        sums=True,
    )(attention_forward)
    for dtype, bits in zip(FLOATS, ("i32", "i64"), strict=True)
}


@native(
    "T* g, T* q, T* k, T* v, T* keep, T* p, T* kept, T* dq, T* dk, T* dv, T* ds, i64 outer,"
    "i64 inner, i64 L, i64 S, i64 E, i64 D, i64 g0, i64 g1, i64 g2, i64 q0, i64 q1, i64 q2, i64 k0,"
    "i64 k1, i64 k2, i64 v0, i64 v1, i64 v2, i64 dropped, T scale",
    sums=True,
)
def attention_backward(
    g, q, k, v, keep, p, kept, dq, dk, dv, ds, outer, inner, L, S, E, D, g0, g1, g2, q0, q1, q2, k0,
    k1, k2, v0, v1, v2, dropped, scale, part, parts,
):  # fmt: skip
    """The gradients of q, k, v and the scores, contiguous and for every head."""
    start, stop = share(outer * inner, part, parts)
    for head in range(start, stop):
        o, h = head // inner, head % inner
        for i in range(0, L, _QUERIES):
            rows, first = min(_QUERIES, L - i), (head * L + i) * S
            g_at, q_at = o * g0 + h * g1 + i * g2, o * q0 + h * q1 + i * q2
            earlier = T(0) if i == 0 else T(1)
            if dropped:
                for j in range(first, first + rows * S):
                    kept[j] = p[j] * keep[j]
            gemm(
                1, 0, S, D, rows, T(1), kept if dropped else p, first, S, g, g_at, g2,
                earlier, dv, head * S * D, D,
            )  # fmt: skip
            gemm(
                0, 1, rows, S, D, T(1), g, g_at, g2, v, o * v0 + h * v1, v2, T(0), ds, first, S
            )  # fmt: skip
            if dropped:
                for j in range(first, first + rows * S):
                    ds[j] *= keep[j]
            for at in range(first, first + rows * S, S):
                total = T(0)
                for j in range(at, at + S):
                    total += ds[j] * p[j]
                for j in range(at, at + S):
                    ds[j] = (ds[j] - total) * p[j]
            gemm(
                0, 0, rows, E, S, scale, ds, first, S, k, o * k0 + h * k1, k2,
                T(0), dq, (head * L + i) * E, E,
            )  # fmt: skip
            gemm(
                1, 0, S, E, rows, scale, ds, first, S, q, q_at, q2, earlier, dk, head * S * E, E
            )  # fmt: skip


class _LaidOut(NamedTuple):
    """What kernels are told of their operands: where they lie, and how far apart what is in them."""

    batch: tuple[int, ...]
    sizes: tuple[int, ...]  # outer, inner, L, S, E, D
    arrays: list[Any]
    steps: list[int]  # three for each of them
    masks: tuple[Any, Any, Any]  # booleans, numbers to add, factors
    mask_steps: list[int]
    masked: int  # 0: no mask, 1: booleans, 2: numbers

    def work(self, products: int) -> int:
        """About how much there is to do."""
        outer, inner, L, S, E, D = self.sizes
        return outer * inner * L * S * (products * (E + D) // 16 + 4)


@twin(numpy_kernels.attention)
def attention(
    plan: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, scale: Any, is_causal: Any
) -> Any:
    """``kernels.attention.attention``: (y, p)."""
    given = _laid_out(plan, None, q, k, v, mask, keep, is_causal)
    if given is NotImplemented:
        return NotImplemented
    outer, inner, L, S, _, D = given.sizes
    dtype, n = q.dtype, outer * inner
    p, y = plan.empty((n, L, S), dtype), plan.empty((n, L, D), dtype)
    spare = plan.empty((n, 32), dtype)
    lowest = -math.inf if mask is None and not is_causal else float(np.finfo(dtype).min)
    kept = None if keep is None else plan.empty((n, L, S), dtype)
    plan.call(
        FORWARD[dtype], *given.arrays, *given.masks, p, p, kept, y, spare, spare, *given.sizes,
        *given.steps, *given.mask_steps, given.masked, bool(is_causal), keep is not None,
        float(scale), lowest, math.log(np.finfo(dtype).tiny), dtype=dtype, work=given.work(2),
    )  # fmt: skip
    return plan.reshape(y, (*given.batch, L, D)), plan.reshape(p, (*given.batch, L, S))


@twin(numpy_kernels.attention_gradient)
def attention_gradient(
    plan: Any, g: Any, q: Any, k: Any, v: Any, keep: Any, p: Any, scale: Any
) -> Any:
    """``kernels.attention.attention_gradient``: (dq, dk, dv, dmask), with the whole batch shape."""
    if not floats(g, p):
        return NotImplemented
    given = _laid_out(plan, g, q, k, v, None, keep, False, tuple(p.shape[:-2]))
    if given is NotImplemented:
        return NotImplemented
    outer, inner, L, S, E, D = given.sizes
    dtype, n = p.dtype, outer * inner
    dq, dk, dv, ds = (plan.empty((n, *s), dtype) for s in ((L, E), (S, E), (S, D), (L, S)))
    plan.call(
        attention_backward, *given.arrays, given.masks[2], plan.as_contiguous(p),
        None if keep is None else plan.empty((n, L, S), dtype), dq, dk, dv, ds, *given.sizes,
        *given.steps, keep is not None, float(scale), dtype=dtype, work=given.work(4),
    )  # fmt: skip
    return tuple(plan.reshape(x, (*given.batch, *x.shape[1:])) for x in (dq, dk, dv, ds))


@twin(numpy_kernels.tiled_attention)
def tiled_attention(
    plan: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, scale: Any, is_causal: Any
) -> Any:
    """``kernels.attention.tiled_attention``: (y, highest, total)."""
    given = _laid_out(plan, None, q, k, v, mask, keep, is_causal)
    if given is NotImplemented:
        return NotImplemented
    outer, inner, L, _, E, D = given.sizes
    dtype, n = q.dtype, outer * inner
    y = plan.empty((n, L, D), dtype)
    highest, total = plan.empty((n, L), dtype), plan.empty((n, L), dtype)
    plan.call(
        tiles.forward, *given.arrays, *given.masks, y, highest, total,
        *_scratch(plan, given, E, 1), *given.sizes, *given.steps, *given.mask_steps,
        given.masked, bool(is_causal), keep is not None, float(scale),
        float(np.finfo(dtype).min), 0.0 if is_causal or mask is not None else math.nan,
        dtype=dtype, work=given.work(2),
    )  # fmt: skip
    batch = given.batch
    return tuple(plan.reshape(x, (*batch, *x.shape[1:])) for x in (y, highest, total))


@twin(numpy_kernels.tiled_attention_gradient)
def tiled_attention_gradient(
    plan: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, y: Any, highest: Any,
    total: Any, scale: Any, is_causal: Any,
) -> Any:  # fmt: skip
    """``kernels.attention.tiled_attention_gradient``: (dq, dk, dv), with the whole batch shape."""
    if not floats(g, y, highest, total):
        return NotImplemented
    given = _laid_out(plan, g, q, k, v, mask, keep, is_causal, tuple(y.shape[:-2]))
    if given is NotImplemented:
        return NotImplemented
    outer, inner, L, S, E, D = given.sizes
    dtype, n = y.dtype, outer * inner
    dq, dk, dv = (plan.empty((n, *s), dtype) for s in ((L, E), (S, E), (S, D)))
    scratch = _scratch(plan, given, E + D, 2)
    most = scratch[3]
    own = plan.empty((max(1, most - 1), S, E + D), dtype)
    begun = plan.empty((most,), np.dtype(np.int64))
    work = given.work(5)
    plan.call(
        tiles.backward, *given.arrays, *given.masks, *map(plan.as_contiguous, (y, highest, total)),
        dq, dk, dv, own, begun, *scratch, *given.sizes,
        *given.steps, *given.mask_steps, given.masked, bool(is_causal), keep is not None,
        float(scale), dtype=dtype, work=work,
    )  # fmt: skip
    plan.call(tiles.gather, own, begun, dk, dv, S, E, D, dtype=dtype, work=work)
    return tuple(plan.reshape(x, (*given.batch, *x.shape[1:])) for x in (dq, dk, dv))


def _scratch(
    plan: Any, given: _LaidOut, panels: int, blocks: int
) -> tuple[Any, int, int, int, int]:
    """Memory for threads; its size for each, lanes of a vector, how many threads, keys in a block.

    ``panels``: rows of the panels of queries. ``blocks``: how many blocks of scores.
    """
    outer, inner, L, S, *_ = given.sizes
    dtype = given.arrays[0].dtype
    lanes = machine()[0] // dtype.itemsize
    wide, keys = tiles.WIDE * lanes, min(tiles.KEYS, -(-S // lanes) * lanes)
    size = (panels + blocks * keys + 3) * wide
    if given.masked:
        size += keys * (lanes + (wide if given.masked == 1 else 0))
    if given.masks[2] is not None:
        size += keys * wide
    most = min(tiles.MOST, threads.cores(), outer * inner * -(-L // wide))
    return plan.empty((most * size + 64 // dtype.itemsize,), dtype), size, lanes, most, keys


def _laid_out(
    plan: Any, g: Any, q: Any, k: Any, v: Any, mask: Any, keep: Any, is_causal: Any,
    batch: tuple[int, ...] | None = None,
) -> Any:  # fmt: skip
    """The operands as kernels take them, or NotImplemented if they do not."""
    mask = None if is_causal else mask
    L, S, E, D = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    boolean = mask is not None and mask.dtype == np.bool_
    if not floats(q, k, v, keep, g, None if boolean else mask) or 0 in (L, S, E, D):
        return NotImplemented
    if mask is not None and mask.ndim < 2:
        mask = plan.reshape(plan.as_contiguous(mask), (1,) * (2 - mask.ndim) + tuple(mask.shape))
    if batch is None:
        given = [x for x in (q, k, v, mask, keep) if x is not None]
        batch = np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in given))
    if len(batch) > 2 or 0 in batch or (keep is not None and keep.shape != (*batch, L, S)):
        return NotImplemented
    if g is not None and tuple(g.shape) != (*batch, L, D):
        return NotImplemented
    laid = [_matrices(plan, x, L >= OFTEN) for x in (g, q, k, v) if x is not None]
    mask_steps = [0] * 4
    if mask is not None:
        mask = plan.as_contiguous(mask)
        mask_steps = _steps(mask.shape, _contiguous(mask.shape))
    masks = (
        mask if boolean else None,
        None if boolean else mask,
        None if keep is None else plan.as_contiguous(keep),
    )
    outer, inner = (1, 1, *batch)[-2:]
    return _LaidOut(
        batch, (outer, inner, L, S, E, D), [x for x, *_ in laid],
        [s for _, *steps in laid for s in steps], masks, mask_steps,
        0 if mask is None else 2 - boolean,
    )  # fmt: skip


def _contiguous(shape: Any) -> list[int]:
    """How far apart the elements of a contiguous array lie along each axis."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


def _steps(shape: Any, steps: list[int]) -> list[int]:
    """Those of an array (…, A, B), with two axes before A and B; 0 along what is broadcast."""
    steps = [0 if n == 1 else s for n, s in zip(shape, steps, strict=True)]
    return [0] * (4 - len(steps)) + steps


def _matrices(plan: Any, x: Any, often: bool) -> tuple[Any, int, int, int]:
    """An array (…, A, B) as matrices with contiguous rows: itself, or a copy; and their steps.

    ``often``: it is read many times, for which rows far apart are in each other's way in the cache.
    """
    shape, strides = x.shape, getattr(x, "strides", None)
    steps = [s // x.dtype.itemsize for s in strides] if strides is not None else []
    apart = often and 0 not in steps and steps[-2:-1] != [shape[-1]]
    if not steps or apart or steps[-1] != 1 or steps[-2] < shape[-1] or min(steps) < 0:
        x = plan.as_contiguous(x)
        steps = _contiguous(shape)
    outer, inner, row, _ = _steps(shape, steps)
    return x, outer, inner, max(row, shape[-1])
