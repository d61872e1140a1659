"""Attention without the matrix of scores: tiles of it are made, used, and made again backwards.

A thread takes a block of queries of one head, and the keys block by block. The scores of a block
pair stay in the cache, *turned*: a row for each key, in which the queries lie side by side. So the
softmax over the keys is arithmetic on vectors of queries, and nothing is added up across a vector.
A query's highest score and its sum are brought up to date with every block of keys, as in Dao et
al. 2022, "FlashAttention", and 2023, "FlashAttention-2"; they are what the backward pass needs to
make the scores again. Blocks of keys behind all queries of a block are not looked at, and within a
block only those keys that a few queries next to each other may see.

All products are tiles kept in registers (see ``gemm.py``), with operands read where they lie; only
queries, and backwards the gradients of their results, are turned into panels first.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from kilograd.kernels import vecmath
from kilograd.kernels.native import gemm as products
from kilograd.kernels.native.build import T, inline, native
from kilograd.kernels.native.vectors import Body, machine, vector

MOST = 16  # threads that have scratch
WIDE = 4  # vectors of queries in a block
KEYS = 64  # in a block
GROUP = 8  # rows of a product that begin and end together where some of them are hidden
_INF = math.inf

# --- vectors --------------------------------------------------------------------------------------

# Vectors of a tile -> its rows, which divide a group.
_TILES = {4: 4, 3: 4, 2: 8, 1: 8}
_NARROW = {2: 4, 1: 8}


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """Tiles of a product, and the softmax of a vector of queries."""
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    i64, i = ir.IntType(64), nt.int64
    shapes = _TILES if machine()[1] else _NARROW

    def constant(on: Body, value: float) -> Any:
        return ir.Constant(on.vector, [value] * on.lanes)

    def exp(on: Body, x: Any) -> Any:
        """e^x for x ≤ 0, as in ``vecmath.py``; 0 where that has no exponent of its own."""
        single = on.size == 4
        bits, shift = (ir.IntType(32), 23) if single else (i64, 52)
        bias, magic = (127.0, 12582912.0) if single else (1023.0, 6755399441055744.0)
        ln2 = (vecmath.LN2, vecmath.LN2_REST) if single else (vecmath.LN2_64, vecmath.LN2_64_REST)
        b, least = on.b, constant(on, (1 - bias) * math.log(2) + 0.01)
        low = b.fcmp_ordered("<", x, least)
        x = b.select(low, least, x)
        large = constant(on, magic + bias)
        t = on.fma(x, constant(on, vecmath.LOG2_E), large)
        n = b.fsub(t, large)
        for part in ln2:
            x = on.fma(n, constant(on, -part), x)
        *others, y = (constant(on, c) for c in (vecmath.EXP if single else vecmath.EXP_64))
        for c in reversed(others):
            y = on.fma(y, x, c)
        whole = ir.VectorType(bits, on.lanes)
        power = b.shl(b.bitcast(t, whole), ir.Constant(whole, [shift] * on.lanes))
        return b.select(low, constant(on, 0.0), b.fmul(y, b.bitcast(power, on.vector)))

    def larger(on: Body, x: Any, y: Any) -> Any:
        """The larger of x and y; y where x is nan."""
        return on.b.select(on.b.fcmp_ordered(">", x, y), x, y)

    @intrinsic
    def tile(
        typing_context, vectors, c, c_at, ldc, add, a, a_at, row, step, m, b, b_at, ldb, columns,
        count,
    ):  # fmt: skip
        """C (m, columns) (+)= the sum over k of a[row * i + step * k] * b[ldb * k + j]."""

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            named = dict(zip(names, given, strict=True))
            on = Body(builder, c)
            after = builder.append_basic_block("after")
            choices = {v: builder.append_basic_block(f"wide{v}") for v in shapes}
            switch = builder.switch(named["vectors"], choices[1])
            for v, block in choices.items():
                switch.add_case(i64(v), block)
                builder.position_at_end(block)
                one(on, v, named, after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        def one(on: Body, wide: int, named: dict[str, Any], after: Any) -> None:
            b, starts = on.b, [on.at(named["a"], named["a_at"])]
            last = b.sub(named["m"], i64(1))
            for r in range(1, shapes[wide]):  # rows that A has not are its last again
                k = b.select(b.icmp_signed("<", i64(r), last), i64(r), last)
                starts.append(on.at(starts[0], b.mul(k, named["row"])))
            panel = on.at(named["b"], named["b_at"])
            mask = on.mask(b.sub(named["columns"], i64((wide - 1) * on.lanes)))

            def line(place: Any, v: int) -> Any:
                if v < wide - 1:
                    return on.load(place, v)
                return on.load_masked(on.at(place, i64(v * on.lanes)), mask)

            def body(k: Any, sums: list) -> list:
                place, at = on.at(panel, b.mul(k, named["ldb"])), b.mul(k, named["step"])
                values, new = [line(place, v) for v in range(wide)], []
                for r, start in enumerate(starts):
                    factor = on.spread(on.at(start, at))
                    for v in range(wide):
                        new.append(on.fma(factor, values[v], sums[r * wide + v]))
                return new

            sums = on.loop(named["count"], 1, [constant(on, 0.0)] * (len(starts) * wide), body)
            with b.if_else(b.icmp_signed("!=", named["add"], i64(0))) as ways:
                for way, adding in zip(ways, (True, False), strict=True):
                    with way:
                        place = on.at(named["c"], named["c_at"])
                        done = b.append_basic_block("done")
                        for r in range(len(starts)):
                            for v in range(wide):
                                value = sums[r * wide + v]
                                if adding:
                                    value = b.fadd(value, line(place, v))
                                if v < wide - 1:
                                    on.store(value, place, v)
                                else:
                                    near = on.at(place, i64(v * on.lanes))
                                    on.store_masked(value, near, mask)
                            if r + 1 < len(starts):
                                more = b.append_basic_block("more")
                                b.cbranch(b.icmp_signed("<", i64(r), last), more, done)
                                b.position_at_end(more)
                                place = on.at(place, named["ldc"])
                        b.branch(done)
                        b.position_at_end(done)
            b.branch(after)

        names = (
            "vectors", "c", "c_at", "ldc", "add", "a", "a_at", "row", "step", "m", "b", "b_at",
            "ldb", "columns", "count",
        )  # fmt: skip
        return nt.none(i, c, i, i, i, a, i, i, i, i, b, i, i, i, i), generate

    @intrinsic
    def soften(typing_context, x, at, rows, ld, high_at, total_at, change_at):
        """A column of scores becomes exp(score - highest); ``highest`` and ``total`` follow.

        ``change``: what exp(score - highest) of earlier blocks is now to be multiplied by.
        """

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            x, at, rows, ld, *others = a
            on = Body(builder, signature.args[0])
            column, last = on.at(x, at), builder.sub(rows, i64(1))
            high, total, change = (on.at(x, other) for other in others)
            old = on.load(high)

            def highest(k: Any, found: list) -> list:
                new = []
                for r, y in enumerate(found):  # a few at once: each waits for its last comparison
                    row = builder.add(k, i64(r))
                    row = builder.select(builder.icmp_signed("<", row, last), row, last)
                    new.append(larger(on, on.load(on.at(column, builder.mul(row, ld))), y))
                return new

            new, *rest = on.loop(rows, 4, [old] * 4, highest)
            for y in rest:
                new = larger(on, y, new)

            def weigh(k: Any, sums: list) -> list:
                place = on.at(column, builder.mul(k, ld))
                y = exp(on, builder.fsub(on.load(place), new))
                on.store(y, place)
                return [builder.fadd(sums[0], y)]

            (added,) = on.loop(rows, 1, [constant(on, 0.0)], weigh)
            less = exp(on, builder.fsub(old, new))
            on.store(new, high)
            on.store(less, change)
            on.store(on.fma(on.load(total), less, added), total)
            return context.get_dummy_value()

        return nt.none(x, i, i, i, i, i, i), generate

    @intrinsic
    def weigh_again(typing_context, x, at, z_at, rows, ld, high_at, factor_at, mean_at):
        """Columns of scores x and of gradients z: x becomes p, the softmax, and z p (z - mean)."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            x, at, z_at, rows, ld, *others = a
            on = Body(builder, signature.args[0])
            column, gradients = on.at(x, at), on.at(x, z_at)
            high, factor, mean = (on.load(on.at(x, other)) for other in others)

            def weigh(k: Any, sums: list) -> list:
                k = builder.mul(k, ld)
                place, gradient = on.at(column, k), on.at(gradients, k)
                p = builder.fmul(exp(on, builder.fsub(on.load(place), high)), factor)
                on.store(p, place)
                on.store(builder.fmul(p, builder.fsub(on.load(gradient), mean)), gradient)
                return []

            on.loop(rows, 1, [], weigh)
            return context.get_dummy_value()

        return nt.none(x, i, i, i, i, i, i, i), generate

    @intrinsic
    def hide(typing_context, x, at, count):
        """Minus infinity in the first lanes of a vector."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, signature.args[0])
            on.store_masked(constant(on, -_INF), on.at(a[0], a[1]), on.mask(a[2]))
            return context.get_dummy_value()

        return nt.none(x, i, i), generate

    others = products.vector_functions()
    return {
        "tile": tile, "soften": soften, "weigh_again": weigh_again, "hide": hide,
        "turn": others["turn"], "skip": others["skip"],
        "WIDEST": max(shapes), "HIGH": shapes[max(shapes)],
    }  # fmt: skip


tile: Any = None  # these are set when a kernel that uses them is compiled
soften = weigh_again = hide = turn = skip = tile
WIDEST = HIGH = 1  # the vectors of the widest tile, and its rows


# --- steps ----------------------------------------------------------------------------------------


@inline
def product(c, c_at, ldc, add, a, a_at, row, step, m, b, b_at, ldb, columns, count, lanes):
    """C (m, columns) (+)= A B, tile by tile, where a[row * i + step * k] are A's elements."""
    for j in range(0, columns, WIDEST * lanes):
        real = min(columns - j, WIDEST * lanes)
        vectors = -(-real // lanes)
        high = HIGH if vectors > 2 or vectors == WIDEST else 8
        for i in range(0, m, high):
            tile(
                vectors, c, c_at + i * ldc + j, ldc, add, a, a_at + i * row, row, step,
                min(high, m - i), b, b_at + j, ldb, real, count,
            )  # fmt: skip


@inline
def turn_rows(x, at, ld, source, source_at, source_ld, rows, columns, lanes):
    """x[j, i] = source[i, j]; beyond the last row of the source, it again to the end of a vector."""
    for r in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            turn(
                x, at + j * ld + r, ld, source, source_at + r * source_ld + j, source_ld,
                min(lanes, rows - r), min(lanes, columns - j), lanes,
            )  # fmt: skip


@inline
def lay_mask(x, at, spare, allow, bias, m, m2, m3, masked, rows, n, wide, keys, lanes):
    """x[j, i] = what the mask adds to the score of query i and key j, or if boolean, its bound."""
    for r in range(0, rows, lanes):
        some = min(lanes, rows - r)
        for i in range(some):
            to, first = spare + i * keys, m + (r + i) * m2
            if masked == 2 and m3 == 1:
                for j in range(n):
                    x[to + j] = bias[first + j]
            elif masked == 2:
                for j in range(n):
                    x[to + j] = bias[first + j * m3]
            elif m3 == 1:
                for j in range(n):
                    x[to + j] = T(_INF) if allow[first + j] else T(-_INF)
            else:
                for j in range(n):
                    x[to + j] = T(_INF) if allow[first + j * m3] else T(-_INF)
        turn_rows(x, at + r, wide, x, spare, keys, some, n, lanes)


@inline
def scores(
    x, at, panel, wide, a, a_at, lda, rows, n, depth, ahead, causal, add, lanes
):  # fmt: skip
    """x (n keys, rows queries) (+)= A times a panel of queries.

    ``ahead``: how far the first key is before the first query. Causal: what is hidden is not made.
    """
    if causal == 0 or n <= ahead:
        product(
            x, at, wide, add, a, a_at, lda, 1, n, x, panel, wide, -(-rows // lanes) * lanes, depth,
            lanes,
        )  # fmt: skip
        return
    for r in range(0, n, GROUP):
        first = max(0, r - ahead) // lanes * lanes
        product(
            x, at + r * wide + first, wide, add, a, a_at + r * lda, lda, 1, min(GROUP, n - r),
            x, panel + first, wide, -(-(rows - first) // lanes) * lanes, depth, lanes,
        )  # fmt: skip


@inline
def seen_by(stop, n, ahead, causal):
    """How many of n keys the queries before ``stop`` may look at."""
    return min(n, max(0, stop + ahead)) if causal else n


@inline
def hide_later(x, at, wide, rows, n, ahead, lanes):
    """Minus infinity for the keys after a query, where their scores were made."""
    for r in range(max(0, ahead + 1), n):
        made = max(0, r // GROUP * GROUP - ahead) // lanes * lanes
        for c in range(made, min(rows, r - ahead), lanes):
            hide(x, at + r * wide + c, r - ahead - c)


@inline
def of_queries(
    c, c_at, ldc, add, x, at, wide, b, b_at, ldb, rows, n, columns, ahead, causal, lanes
):  # fmt: skip
    """C (rows, columns) (+)= x.T B: for each query, over the keys that it sees."""
    if causal == 0 or n <= ahead:
        product(c, c_at, ldc, add, x, at, 1, wide, rows, b, b_at, ldb, columns, n, lanes)
        return
    for r in range(0, rows, GROUP):
        count = seen_by(r + GROUP, n, ahead, causal)
        if count > 0:
            product(
                c, c_at + r * ldc, ldc, add, x, at + r, 1, wide, min(GROUP, rows - r),
                b, b_at, ldb, columns, count, lanes,
            )  # fmt: skip


@inline
def of_keys(
    c, c_at, ldc, x, at, wide, b, b_at, ldb, rows, n, columns, ahead, causal, lanes
):  # fmt: skip
    """C (n, columns) += x B: for each key, over the queries that see it."""
    if causal == 0 or n <= ahead:
        product(c, c_at, ldc, 1, x, at, wide, 1, n, b, b_at, ldb, columns, rows, lanes)
        return
    for r in range(0, n, GROUP):
        first = max(0, r - ahead)
        if first < rows:
            product(
                c, c_at + r * ldc, ldc, 1, x, at + r * wide + first, wide, 1, min(GROUP, n - r),
                b, b_at + first * ldb, ldb, columns, rows - first, lanes,
            )  # fmt: skip


@inline
def all_seen(L, S, wide, causal):
    """How many keys the blocks of queries of one head look at, together."""
    total = 0
    for i in range(0, L, wide):
        total += min(S, i + min(wide, L - i)) if causal else S
    return total


# --- forwards -------------------------------------------------------------------------------------


@vector(
    "T* q, T* k, T* v, u8* allow, T* bias, T* keep, T* y, T* highest, T* totals, T* x, i64 size,"
    "i64 lanes, i64 most, i64 keys, i64 outer, i64 inner, i64 L, i64 S, i64 E, i64 D, i64 q0, i64 q1,"
    "i64 q2, i64 k0, i64 k1, i64 k2, i64 v0, i64 v1, i64 v2, i64 m0, i64 m1, i64 m2, i64 m3,"
    "i64 masked, i64 causal, i64 dropped, T scale, T lowest, T empty",
    sums=True,
)
def forward(
    q, k, v, allow, bias, keep, y, highest, totals, x, size, lanes, most, keys, outer, inner, L, S,
    E, D, q0, q1, q2, k0, k1, k2, v0, v1, v2, m0, m1, m2, m3, masked, causal, dropped, scale,
    lowest, empty, part, parts,
):  # fmt: skip
    """y = softmax(scale q kᵀ + mask) v, and each row's highest score and sum of exp(score - highest).

    masked: 0 none, 1 ``allow``, 2 ``bias``; m0 … m3 are how far apart its elements lie. x is
    scratch, ``size`` elements for each of ``most`` threads. ``empty``: what a query that looks nowhere gets, 0 or nan.
    """
    if part >= most:
        return
    parts, wide = min(parts, most), WIDE * lanes
    panel = skip(x) + part * size
    at = panel + E * wide
    high, total, change = at + keys * wide, at + (keys + 1) * wide, at + (keys + 2) * wide
    spare = at + (keys + 3) * wide
    bounds = spare + keys * lanes
    whole, done = 2 * all_seen(L, S, wide, causal) * outer * inner, 0
    for head in range(outer * inner):
        o, h = head // inner, head % inner
        for i in range(0, L, wide):
            rows = min(wide, L - i)
            seen = seen_by(i + rows, S, 0, causal)
            mine = (2 * done + seen) * parts // whole
            done += seen
            if mine != part:
                continue
            turn_rows(x, panel, wide, q, o * q0 + h * q1 + i * q2, q2, rows, E, lanes)
            for j in range(panel, panel + E * wide):
                x[j] *= scale
            for j in range(wide):
                x[high + j], x[total + j] = lowest, T(0)
            first = head * L + i
            for from_key in range(0, seen, keys):
                n, ahead = min(keys, seen - from_key), i - from_key
                if masked != 0:
                    m = o * m0 + h * m1 + i * m2 + from_key * m3
                    lay_mask(
                        x, bounds if masked == 1 else at, spare, allow, bias, m, m2, m3, masked, rows,
                        n, wide, keys, lanes,
                    )  # fmt: skip
                near = o * k0 + h * k1 + from_key * k2
                scores(
                    x, at, panel, wide, k, near, k2, rows, n, E, ahead, causal,
                    1 if masked == 2 else 0, lanes,
                )  # fmt: skip
                if masked == 1:
                    for j in range(n * wide):  # what is hidden may be nan
                        value, bound = x[at + j], x[bounds + j]
                        x[at + j] = value if value < bound else bound
                if causal:
                    hide_later(x, at, wide, rows, n, ahead, lanes)
                step = max(lanes, GROUP)
                for c in range(0, rows, lanes):
                    count = seen_by((c // step + 1) * step, n, ahead, causal)
                    if count > 0:
                        soften(x, at + c, count, wide, high + c, total + c, change + c)
                    else:
                        for j in range(lanes):
                            x[change + c + j] = T(1)
                if dropped:
                    turn_rows(x, spare, wide, keep, first * S + from_key, S, rows, n, lanes)
                    for j in range(n * wide):
                        x[at + j] *= x[spare + j]
                if from_key > 0:
                    for r in range(rows):
                        less = x[change + r]
                        if less != T(1):
                            for j in range((first + r) * D, (first + r + 1) * D):
                                y[j] *= less
                of_queries(
                    y, first * D, D, 1 if from_key > 0 else 0, x, at, wide,
                    v, o * v0 + h * v1 + from_key * v2, v2, rows, n, D, ahead, causal, lanes,
                )  # fmt: skip
            for r in range(rows):
                none = x[total + r] == T(0)
                factor = empty if none else T(1) / x[total + r]
                highest[first + r] = x[high + r]
                totals[first + r] = T(1) + empty if none else x[total + r]
                for j in range((first + r) * D, (first + r + 1) * D):
                    y[j] *= factor


# --- backwards ------------------------------------------------------------------------------------


@vector(
    "T* g, T* q, T* k, T* v, u8* allow, T* bias, T* keep, T* y, T* highest, T* totals, T* dq, T* dk,"
    "T* dv, T* own, i64* begun, T* x, i64 size, i64 lanes, i64 most, i64 keys, i64 outer, i64 inner,"
    "i64 L, i64 S, i64 E, i64 D, i64 g0, i64 g1, i64 g2, i64 q0, i64 q1, i64 q2, i64 k0, i64 k1,"
    "i64 k2, i64 v0, i64 v1, i64 v2, i64 m0, i64 m1, i64 m2, i64 m3, i64 masked, i64 causal,"
    "i64 dropped, T scale",
    sums=True,
)
def backward(
    g, q, k, v, allow, bias, keep, y, highest, totals, dq, dk, dv, own, begun, x, size, lanes, most,
    keys, outer, inner, L, S, E, D, g0, g1, g2, q0, q1, q2, k0, k1, k2, v0, v1, v2, m0, m1, m2, m3,
    masked, causal, dropped, scale, part, parts,
):  # fmt: skip
    """The gradients of q, k and v, contiguous and for every head.

    Blocks of queries are shared. All of a head add to its dk and dv: a thread that begins in the
    middle of one adds to dk and dv of its ``own`` until the head ends, and says in ``begun`` which.
    """
    if part >= most:
        return
    parts, wide = min(parts, most), WIDE * lanes
    panel = skip(x) + part * size
    g_panel = panel + E * wide
    at = g_panel + D * wide
    z = at + keys * wide
    high, factor, mean = z + keys * wide, z + (keys + 1) * wide, z + (keys + 2) * wide
    spare = z + (keys + 3) * wide
    bounds = spare + keys * lanes
    if part == 0:
        begun[0] = parts
    else:
        begun[part] = -1
    whole, done, current = 2 * all_seen(L, S, wide, causal) * outer * inner, 0, -1
    to_k, k_at, to_v, v_at = dk, 0, dv, 0
    for head in range(outer * inner):
        o, h = head // inner, head % inner
        for i in range(0, L, wide):
            rows = min(wide, L - i)
            seen = seen_by(i + rows, S, 0, causal)
            mine = (2 * done + seen) * parts // whole
            done += seen
            if mine != part:
                continue
            if head != current:
                current = head
                to_k, k_at, to_v, v_at = dk, head * S * E, dv, head * S * D
                if i > 0:
                    begun[part] = head
                    to_k, k_at = own, (part - 1) * S * (E + D)
                    to_v, v_at = own, k_at + S * E
                for j in range(k_at, k_at + S * E):
                    to_k[j] = T(0)
                for j in range(v_at, v_at + S * D):
                    to_v[j] = T(0)
            first = head * L + i
            q_at, g_at = o * q0 + h * q1 + i * q2, o * g0 + h * g1 + i * g2
            turn_rows(x, panel, wide, q, q_at, q2, rows, E, lanes)
            turn_rows(x, g_panel, wide, g, g_at, g2, rows, D, lanes)
            for j in range(panel, at):
                x[j] *= scale
            for r in range(wide):  # beyond the last row, where no one looks, it again
                a = min(r, rows - 1)
                sums = T(0)
                for j in range(D):
                    sums += g[g_at + a * g2 + j] * y[(first + a) * D + j]
                x[high + r], x[mean + r] = highest[first + a], sums * scale
                x[factor + r] = T(1) / totals[first + a]
            for from_key in range(0, seen, keys):
                n, ahead = min(keys, seen - from_key), i - from_key
                if masked != 0:
                    m = o * m0 + h * m1 + i * m2 + from_key * m3
                    lay_mask(
                        x, bounds if masked == 1 else at, spare, allow, bias, m, m2, m3, masked, rows,
                        n, wide, keys, lanes,
                    )  # fmt: skip
                k_near, v_near = o * k0 + h * k1 + from_key * k2, o * v0 + h * v1 + from_key * v2
                scores(
                    x, at, panel, wide, k, k_near, k2, rows, n, E, ahead, causal,
                    1 if masked == 2 else 0, lanes,
                )  # fmt: skip
                scores(x, z, g_panel, wide, v, v_near, v2, rows, n, D, ahead, causal, 0, lanes)
                if masked == 1:
                    for j in range(n * wide):  # what is hidden may be nan
                        value, bound = x[at + j], x[bounds + j]
                        x[at + j] = value if value < bound else bound
                if causal:
                    hide_later(x, at, wide, rows, n, ahead, lanes)
                if dropped:
                    turn_rows(x, spare, wide, keep, first * S + from_key, S, rows, n, lanes)
                    for j in range(n * wide):
                        x[z + j] *= x[spare + j]
                step = max(lanes, GROUP)
                for c in range(0, rows, lanes):
                    count = seen_by((c // step + 1) * step, n, ahead, causal)
                    weigh_again(x, at + c, z + c, count, wide, high + c, factor + c, mean + c)
                if dropped:
                    for j in range(n * wide):
                        x[at + j] *= x[spare + j]
                of_queries(
                    dq, first * E, E, 1 if from_key > 0 else 0, x, z, wide, k, k_near, k2, rows, n,
                    E, ahead, causal, lanes,
                )  # fmt: skip
                of_keys(
                    to_k, k_at + from_key * E, E, x, z, wide, q, q_at, q2, rows, n, E, ahead, causal,
                    lanes,
                )  # fmt: skip
                of_keys(
                    to_v, v_at + from_key * D, D, x, at, wide, g, g_at, g2, rows, n, D, ahead, causal,
                    lanes,
                )  # fmt: skip


@native("T* own, i64* begun, T* dk, T* dv, i64 S, i64 E, i64 D")
def gather(own, begun, dk, dv, S, E, D, part, parts):
    """dk and dv += what threads that began in the middle of a head have of it."""
    start, stop = S * part // parts, S * (part + 1) // parts
    for p in range(1, begun[0]):
        if begun[p] >= 0:
            at, to = (p - 1) * S * (E + D), begun[p] * S
            for j in range(start * E, stop * E):
                dk[to * E + j] += own[at + j]
            for j in range(start * D, stop * D):
                dv[to * D + j] += own[at + S * E + j]
