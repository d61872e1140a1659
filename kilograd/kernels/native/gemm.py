"""Matrix products in tiles kept in registers, for shapes at which OpenBLAS does not reach its speed.

A tile of C, a few rows by a few vectors of columns, stays in registers while a loop over k takes a
few elements of A (each spread over a vector) and one row of a *panel* of B: the tile's columns of
some rows of B, copied so that they lie without gaps. A is read where it lies, transposed or not.

Where C has few rows and B lies transposed (``x @ w.T`` for a batch x), C.T = B.T A.T is made instead
(*turned*): then the small A is what is copied into panels, and the large B is read once, in order;
a block of C.T goes through a little memory to be turned over.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kilograd.kernels.native.build import T as T
from kilograd.kernels.native.build import share
from kilograd.kernels.native.vectors import Body, machine, skip_function, vector

MOST = 16  # threads that have scratch
DEPTH = 128  # rows of B in a panel: four vectors wide it stays in the first-level cache
ACROSS = 64  # vectors of columns that are copied at a time: long rows are read fastest
TURNED = (
    1 << 18
)  # elements of A, at most, that are copied at once: they stay in the second-level cache
BLOCK = 48  # rows of C that pass over all panels: a multiple of all tiles' rows

# Vectors of a tile -> its rows: all sums, a row of B and an element of A fit 32 registers, or 16.
_WIDE = {4: 6, 3: 8, 2: 8, 1: 8}
_NARROW = {2: 6, 1: 8}


# --- vectors --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """Tiles of a product, and the moves of rows into panels."""
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    i64, i = ir.IntType(64), nt.int64
    shapes = _WIDE if machine()[1] else _NARROW

    @intrinsic
    def tile(
        typing_context, vectors, c, c_at, ldc, add, a, a_at, row, step, m, b, b_at, count, soon,
        soon_at, soon_step,
    ):  # fmt: skip
        """A tile of C (+)= the sum over k of a[row * i + step * k] * b[k, j], the i below m.

        ``soon``: an address to prefetch at each k.
        """

        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            named = dict(zip(names, given, strict=True))
            on, last = Body(builder, c), builder.sub(named["m"], i64(1))
            target = on.at(named["c"], named["c_at"])
            elements = on.at(named["a"], named["a_at"])
            panel = on.at(named["b"], named["b_at"])
            later = on.at(named["soon"], named["soon_at"])
            after = builder.append_basic_block("after")
            choices = {v: builder.append_basic_block(f"wide{v}") for v in shapes}
            switch = builder.switch(named["vectors"], choices[1])
            for v, block in choices.items():
                switch.add_case(i64(v), block)
                builder.position_at_end(block)
                one(on, v, target, elements, panel, later, last, named)
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        def one(
            on: Body, wide: int, target: Any, elements: Any, panel: Any, later: Any, last: Any,
            named: dict[str, Any],
        ) -> None:  # fmt: skip
            b, starts = on.b, [elements]
            for r in range(1, shapes[wide]):  # rows that A has not are its last again
                k = b.select(b.icmp_signed("<", i64(r), last), i64(r), last)
                starts.append(on.at(elements, b.mul(k, named["row"])))

            def body(k: Any, sums: list) -> list:
                on.prefetch(on.at(later, b.mul(k, named["soon_step"])))
                line = on.at(panel, b.mul(k, i64(wide * on.lanes)))
                values = [on.load(line, v) for v in range(wide)]
                at, new = b.mul(k, named["step"]), []
                for r, start in enumerate(starts):
                    factor = on.spread(on.at(start, at))
                    for v in range(wide):
                        new.append(on.fma(factor, values[v], sums[r * wide + v]))
                return new

            zero = ir.Constant(on.vector, [0.0] * on.lanes)
            sums = on.loop(named["count"], 1, [zero] * (len(starts) * wide), body)
            with b.if_else(b.icmp_signed("!=", named["add"], i64(0))) as ways:
                for way, adding in zip(ways, (True, False), strict=True):
                    with way:
                        place = target
                        for r in range(len(starts)):
                            for v in range(wide):
                                value = sums[r * wide + v]
                                if adding:
                                    value = b.fadd(value, on.load(place, v))
                                on.store(value, place, v)
                            place = on.at(place, named["ldc"])

        names = (
            "vectors", "c", "c_at", "ldc", "add", "a", "a_at", "row", "step", "m", "b", "b_at",
            "count", "soon", "soon_at", "soon_step",
        )  # fmt: skip
        return nt.none(i, c, i, i, i, a, i, i, i, i, b, i, i, soon, i, i), generate

    @intrinsic
    def fill_row(typing_context, y, y_at, x, x_at, n):
        """y[:n] = x[:n], and zeros up to a whole vector."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[0], a[1]), on.at(a[2], a[3])
            whole = builder.and_(a[4], i64(-on.lanes))

            def body(k: Any, sums: list) -> list:
                on.store(on.load(on.at(source, k)), on.at(target, k))
                return sums

            on.loop(whole, on.lanes, [], body)
            rest = builder.sub(a[4], whole)
            with builder.if_then(builder.icmp_signed(">", rest, i64(0))):
                value = on.load_masked(on.at(source, whole), on.mask(rest))
                on.store(value, on.at(target, whole))
            return context.get_dummy_value()

        return nt.none(y, i, x, i, i), generate

    @intrinsic
    def settle_row(typing_context, y, y_at, x, x_at, n, add):
        """y[:n] = x[:n], or y[:n] += x[:n] if ``add``; x has whole vectors."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[0], a[1]), on.at(a[2], a[3])
            added = builder.select(builder.icmp_signed("!=", a[5], i64(0)), a[4], i64(0))

            def body(k: Any, sums: list) -> list:
                place = on.at(target, k)
                old = on.load_masked(place, on.mask(builder.sub(added, k)))
                value = builder.fadd(on.load(on.at(source, k)), old)
                on.store_masked(value, place, on.mask(builder.sub(a[4], k)))
                return sums

            on.loop(a[4], on.lanes, [], body)
            return context.get_dummy_value()

        return nt.none(y, i, x, i, i, i), generate

    @intrinsic
    def turn(typing_context, y, y_at, ldy, x, x_at, ldx, rows, columns, width):
        """y[j, i] = x[i, j] for a square of a vector's lanes, or for those of x that there are.

        The rows of y have ``width`` elements: beyond those of x, its last again.
        """

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source, last = on.at(a[0], a[1]), on.at(a[3], a[4]), builder.sub(a[6], i64(1))
            mask, lines = on.mask(a[7]), []
            for r in range(on.lanes):
                have = builder.icmp_signed("<", i64(r), last)
                at = builder.mul(builder.select(have, i64(r), last), a[5])
                lines.append(on.load_masked(on.at(source, at), mask))
            # Squares of `distance` lanes change places, from single elements to halves.
            distance = 1
            while distance < on.lanes:
                low = [j if not j & distance else j - distance + on.lanes for j in range(on.lanes)]
                high = [k + distance for k in low]
                for r in range(on.lanes):
                    if not r & distance:
                        p, q = lines[r], lines[r + distance]
                        lines[r] = on.shuffle(p, q, low)
                        lines[r + distance] = on.shuffle(p, q, high)
                distance *= 2
            mask, done = on.mask(a[8]), builder.append_basic_block("done")
            for r in range(on.lanes):
                on.store_masked(lines[r], target, mask)
                if r + 1 < on.lanes:
                    more = builder.append_basic_block("more")
                    builder.cbranch(builder.icmp_signed("<", i64(r + 1), a[7]), more, done)
                    builder.position_at_end(more)
                    target = on.at(target, a[2])
            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return nt.none(y, i, i, x, i, i, i, i, i), generate

    return {
        "tile": tile, "fill_row": fill_row, "settle_row": settle_row, "turn": turn,
        "skip": skip_function(),
        "WIDEST": max(shapes), "HIGH": shapes[max(shapes)],
    }  # fmt: skip


tile: Any = None  # these are set when a kernel that uses them is compiled
fill_row = settle_row = turn = skip = tile
WIDEST = HIGH = 1  # the vectors of the widest tile, and its rows; others have 8


# --- the product ----------------------------------------------------------------------------------


@vector(
    "T* a, i64 ta, i64 lda, T* b, i64 tb, i64 ldb, T* c, i64 ldc, i64 m, i64 n, i64 k, T* scratch, "
    "i64 size, i64 lanes, i64 most, i64 depth, i64 across, i64 turned"
)
def tiled(
    a, ta, lda, b, tb, ldb, c, ldc, m, n, k, scratch, size, lanes, most, depth, across, turned,
    part, parts,
):  # fmt: skip
    """C (m, n) = A (m, k) B (k, n), or C.T (n, m) if ``turned``; threads share rows or columns.

    Each of ``most`` threads has ``size`` elements of scratch: a tile, the panels, and if turned a
    block of C.
    """
    if part >= most:
        return
    parts = min(parts, most)
    spare = skip(scratch) + part * size
    copied = spare + 12 * WIDEST * lanes
    panels = copied + (BLOCK * depth if ta == 1 else 0)
    top, bottom, left, right = 0, m, 0, n
    if turned == 1 or (n < m and n < 2 * parts * WIDEST * lanes):
        top, bottom = share(-(-m // lanes), part, parts)
        top, bottom = top * lanes, min(m, bottom * lanes)
    else:
        left, right = share(-(-n // lanes), part, parts)
        left, right = left * lanes, min(n, right * lanes)
    if top >= bottom or left >= right:
        return
    blocks = -(-(right - left) // (across * lanes))
    total = -(-(right - left) // lanes)
    stage = k if turned == 1 else depth  # rows of B that are in panels at a time
    for block in range(blocks):
        first, stop = share(total, block, blocks)
        vectors, first = stop - first, left + first * lanes
        columns, wide = min(right - first, vectors * lanes), vectors * lanes
        count = -(-vectors // WIDEST)
        turning = panels + wide * k
        for stage_at in range(0, k, stage):
            end = min(stage_at + stage, k)
            for q in range(stage_at, end, depth):  # make panels
                here = min(depth, end - q)
                for p in range(count):
                    v, v_stop = share(vectors, p, count)
                    y, width = panels + ((q - stage_at) * vectors + v * here) * lanes, v_stop - v
                    column, real = first + v * lanes, min(columns - v * lanes, width * lanes)
                    if tb == 0:
                        for r in range(here):
                            fill_row(
                                scratch, y + r * width * lanes, b, (q + r) * ldb + column, real
                            )
                    else:
                        for j in range(0, real, lanes):
                            for r in range(0, here, lanes):
                                turn(
                                    scratch, y + r * width * lanes + j, width * lanes,
                                    b, (column + j) * ldb + q + r, ldb,
                                    min(lanes, real - j), min(lanes, here - r), lanes,
                                )  # fmt: skip
            # Meanwhile the next rows of B come nearer: a line of all of them for every tile.
            soon, soon_step, line = 0, 0, vectors
            if tb == 0 and end < k:
                soon, soon_step, line = end * ldb + first, ldb, 0
            for begin in range(top, bottom, BLOCK):
                limit = min(begin + BLOCK, bottom)
                for q in range(stage_at, end, depth):
                    here = min(depth, end - q)
                    if ta == 1:  # elements far apart would push each other out of the cache
                        for r in range(here):
                            fill_row(
                                scratch, copied + r * BLOCK, a, (q + r) * lda + begin, limit - begin
                            )
                    for p in range(count):
                        v, v_stop = share(vectors, p, count)
                        panel = panels + ((q - stage_at) * vectors + v * here) * lanes
                        width = v_stop - v
                        rows = HIGH if width == WIDEST else 8
                        real = min(columns - v * lanes, width * lanes)
                        add = 1 if q > 0 else 0
                        for i in range(begin, limit, rows):
                            left_over = min(rows, limit - i)
                            out, y_at, ldy, adds = c, i * ldc + first + v * lanes, ldc, add
                            edge = turned == 0 and (left_over < rows or real < width * lanes)
                            if turned == 1:
                                y_at = turning + (i - begin) * wide + v * lanes
                                out, ldy = scratch, wide
                            elif edge:  # a tile that C has only a part of
                                out, y_at, ldy, adds = scratch, spare, width * lanes, 0
                            x, x_at, row, step = a, i * lda + q, lda, 1
                            if ta == 1:
                                x, x_at, row, step = scratch, copied + i - begin, 1, BLOCK
                            tile(
                                width, out, y_at, ldy, adds, x, x_at, row, step,
                                left_over, scratch, panel, here, b, soon + line * lanes, soon_step,
                            )  # fmt: skip
                            if line + 1 < vectors:
                                line += 1
                            if edge:
                                to = i * ldc + first + v * lanes
                                for r in range(left_over):
                                    settle_row(c, to + r * ldc, scratch, spare + r * ldy, real, add)
                if turned == 1:
                    for j in range(0, columns, lanes):
                        for r in range(0, limit - begin, lanes):
                            turn(
                                c, (first + j) * ldc + begin + r, ldc,
                                scratch, turning + r * wide + j, wide,
                                min(lanes, limit - begin - r), min(lanes, columns - j),
                                min(lanes, limit - begin - r),
                            )  # fmt: skip


# --- planning one ---------------------------------------------------------------------------------


def choose(ta: int, tb: int, m: int, n: int, k: int) -> str:
    """Which way is quicker by 5 % and more: "blas", "tiled" or "turned".

    As measured with vectors of 64 bytes, on one thread and on two. OpenBLAS does not copy operands
    of up to a million multiplications, but for those that must be turned; that is hard to beat.
    """
    size = m * n * k
    if machine() != (64, True) or n < 32 or m < 4:
        return "blas"
    large = size >= 1 << 21
    if tb == 0 or ta == 1:
        strided = ta == 1 and m > 4 * n and k >= 256  # little work for each element of A copied
        return "tiled" if large and not strided else "blas"
    if large and m <= 64 and m * k <= TURNED:
        return "turned"
    tall = m >= 64 or (m >= 16 and n > 128)
    return "tiled" if large or (tall and size >= 1 << 16) else "blas"


def lower(
    plan: Any, a: Any, ta: int, lda: int, b: Any, tb: int, ldb: int, c: Any, ldc: int,
    m: int, n: int, k: int, turned: bool,
) -> None:  # fmt: skip
    """Plan C (m, n) = A (m, k) B (k, n); ``turned``: by way of C.T."""
    dtype = np.dtype(c.dtype)
    lanes = machine()[0] // dtype.itemsize
    work = m * n * k // 8
    if turned:  # C.T = B.T A.T
        a, ta, lda, b, tb, ldb, m, n = b, 1 - tb, ldb, a, 1 - ta, lda, n, m
    # Stages of about one depth; panels of B.T are made in squares of one vector.
    depth = -(-k // -(-k // DEPTH))
    depth = min(k, -(-depth // lanes) * lanes)
    vectors = -(-n // lanes)
    across = vectors if turned else min(vectors, ACROSS)
    size = (k if turned else depth) * across + (BLOCK + 8) * across * turned + 12 * 4
    size += BLOCK // lanes * depth * ta
    most = min(MOST, max(-(-m // lanes), vectors))  # no more threads than can have a share
    scratch = plan.empty((most * size * lanes + 64 // dtype.itemsize,), dtype)  # to align it
    plan.call(
        tiled, a, ta, lda, b, tb, ldb, c, ldc, m, n, k, scratch, size * lanes, lanes, most, depth,
        across, int(turned), dtype=dtype, work=work,
    )  # fmt: skip
