"""Square 3x3 and 5x5 convolutions of many channels by Winograd's algorithm: a quarter of the products.

A row of m results by k weights is a product of polynomials, and needs no more multiplications than
it has coefficients, m + k - 1 = 6: both factors are evaluated at six *points*, multiplied there, and
the result is interpolated. Along rows and columns that makes tiles of 6x6 elements of x, of which
each pair of channels takes 36 multiplications for m x m results: 4x4 where the kernel is 3x3 (instead
of 144), 2x2 where it is 5x5 (instead of 100). Summed over channels they are 36 matrix products,

    M[p] (tiles, O) = V[p] (tiles, C) U[p] (C, O),      V = points of x,  U = points of w,

and the gradient of w is likewise 36 products over the tiles, of the points of g and of x.

The points are 0, ±3/4, ±3/2 and ∞: all sums' factors are then exact in float32, and none is large.
Against float64 the results' error is some three to four times that of plain sums (a root of the mean
square of 8e-7 of the results' own, where plain sums of 64 channels have 2e-7); the usual points 0,
±1, ±2 and ∞ would double it. An element that is not finite reaches all results of its tiles.

Vectors hold channels: images are turned over as they are read and as they are written, a panel of
tiles at a time, whose V and M stay in the second-level cache.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from kilograd.kernels.native import gemm
from kilograd.kernels.native.build import FLAGS, inline, share
from kilograd.kernels.native.build import T as T
from kilograd.kernels.native.build import _text as text_of
from kilograd.kernels.native.vectors import Body, VectorKernel, machine

POINTS = 6  # of a row
A, B = 0.75, 1.5  # the points other than 0 and infinity are ± these
MOST = 16  # threads that have scratch
PANEL = 1 << 18  # elements of V, and of M, aimed at
SHARES = 8  # panels that few images are cut in
WEIGHTS = 1 << 24  # elements of the weights' points, at most
FEW = 1 << 20  # so many of them a thread may have as totals of its own
BLOCK = 16  # channels that a thread takes of others

# --- vectors --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """The transforms of one dimension, a vector of channels at a time; and the tiles of ``gemm``."""
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    i = nt.int64

    def constant(on: Body, value: float) -> Any:
        return ir.Constant(on.vector, [value] * on.lanes)

    def times(on: Body, x: Any, factor: float, more: Any) -> Any:
        """x * factor + more."""
        return on.fma(x, constant(on, factor), more)

    def points_of_data(on: Body, d: list) -> list:
        """The points of six elements, dual to polynomials: products of (x - p) over other points."""
        squares, product = A * A + B * B, A * A * B * B
        found = [times(on, d[2], -squares, times(on, d[0], product, d[4]))]
        for p, other in ((A, B), (B, A)):
            even = times(on, d[2], -other * other, d[4])
            odd = times(on, d[1], -other * other, d[3])
            found += [times(on, odd, p, even), times(on, odd, -p, even)]
        return [*found, times(on, d[3], -squares, times(on, d[1], product, d[5]))]

    def points_of_results(on: Body, g: list) -> list:
        """The values of the polynomial with these two or four coefficients."""
        found = [g[0]]
        for p in (A, B):
            even = times(on, g[2], p * p, g[0]) if len(g) > 2 else g[0]
            odd = times(on, g[3], p * p, g[1]) if len(g) > 2 else g[1]
            found += [times(on, odd, p, even), times(on, odd, -p, even)]
        return [*found, g[-1]]

    def results_of_points(on: Body, v: list, m: int) -> list:
        """The transpose of ``points_of_results``."""
        add = on.b.fadd
        even = [add(v[1], v[2]), add(v[3], v[4])]
        odd = [on.b.fsub(v[1], v[2]), on.b.fsub(v[3], v[4])]
        found = [add(add(v[0], even[0]), even[1])]
        for n in range(1, m):
            one, two = odd if n % 2 else even
            first = on.b.fmul(one, constant(on, A**n))
            if n == m - 1:
                first = times(on, one, A**n, v[5])
            found.append(times(on, two, B**n, first))
        return found

    @intrinsic
    def points(typing_context, m, y, y_at, y_step, x, x_at, x_step):
        """The six points of m results (2 or 4), or of six elements of x if m is 0."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[1], a[2]), on.at(a[4], a[5])
            after = builder.append_basic_block("after")
            blocks = {n: builder.append_basic_block(f"of{n}") for n in (0, 2, 4)}
            switch = builder.switch(a[0], blocks[0])
            for n, block in blocks.items():
                if n:
                    switch.add_case(on.i64(n), block)
                builder.position_at_end(block)
                values = loaded(on, source, a[6], n or POINTS)
                values = points_of_results(on, values) if n else points_of_data(on, values)
                stored(on, values, target, a[3])
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        return nt.none(i, y, i, i, x, i, i), generate

    @intrinsic
    def results(typing_context, m, y, y_at, y_step, x, x_at, x_step, shift, shift_at):
        """The m results (2 or 4) of six points, plus a shift."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[1], a[2]), on.at(a[4], a[5])
            values = loaded(on, source, a[6], POINTS)
            more = on.load(on.at(a[7], a[8]))
            with builder.if_else(builder.icmp_signed("==", a[0], on.i64(4))) as ways:
                for way, m in zip(ways, (4, 2), strict=True):
                    with way:
                        found = results_of_points(on, values, m)
                        stored(on, [builder.fadd(v, more) for v in found], target, a[3])
            return context.get_dummy_value()

        return nt.none(i, y, i, i, x, i, i, shift, i), generate

    @intrinsic
    def mixed(typing_context, y, y_at, y_step, x, x_at, x_step, n, matrix, matrix_at):
        """y[p] = sum over i < n of matrix[i, p] * x[i]: six vectors of n."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source, table = on.at(a[0], a[1]), on.at(a[3], a[4]), on.at(a[7], a[8])

            def body(k: Any, sums: list) -> list:
                x = on.load(on.at(source, builder.mul(k, a[5])))
                row = on.at(table, builder.mul(k, on.i64(POINTS)))
                return [on.fma(x, on.spread(row, p), sums[p]) for p in range(POINTS)]

            stored(on, on.loop(a[6], 1, [constant(on, 0.0)] * POINTS, body), target, a[2])
            return context.get_dummy_value()

        return nt.none(y, i, i, x, i, i, i, matrix, i), generate

    def loaded(on: Body, source: Any, step: Any, n: int) -> list:
        return [on.load(on.at(source, on.b.mul(step, on.i64(k)))) for k in range(n)]

    def stored(on: Body, values: list, target: Any, step: Any) -> None:
        for k, value in enumerate(values):
            on.store(value, on.at(target, on.b.mul(step, on.i64(k))))

    shapes = gemm._WIDE if machine()[1] else gemm._NARROW
    return gemm.vector_functions() | {
        "points": points, "results": results, "mixed": mixed,
        "EIGHT": max(width for width, rows in shapes.items() if rows == 8),
    }  # fmt: skip


tile: Any = None  # these are set when a kernel that uses them is compiled
turn = skip = points = results = mixed = tile
WIDEST = HIGH = EIGHT = 1  # the vectors of the widest tile, its rows; those of the widest of 8 rows


class _Kernel(VectorKernel):
    def source(self) -> str:
        """Also the file of the tiles."""
        return super().source() + text_of(gemm.__file__)


def vector(signature: str) -> Any:
    """Declare a native kernel that uses these vector functions."""
    return lambda fn: _Kernel(fn, signature, FLAGS)


# --- inside a kernel ------------------------------------------------------------------------------


@inline
def to_points(
    kind, m, x, x_at, area, some, H, W, begin, tall, left, wide, th, tw, memory, turned, lines,
    v_at, step, pitch, lanes,
):  # fmt: skip
    """Some channels (a vector of them at most) of th * tw tiles, m apart, as their points.

    x (some, H, W), channels ``area`` apart; the tiles are of rows begin : begin + tall, and of
    columns -left : wide - left, which are zeros where x has none. Tile t's point p goes to
    v_at + p * pitch + t * step. ``turned``: memory for these rows; ``lines``: for six rows, zeros
    where x has no columns. ``kind``: see ``points``.
    """
    top = min(max(0, -begin), tall) * W
    bottom = max(top, min(tall, H - begin) * W)
    for i in range(top * lanes):
        memory[turned + i] = T(0)
    for i in range(bottom * lanes, tall * W * lanes):
        memory[turned + i] = T(0)
    for p in range(top, bottom, lanes):
        n = min(lanes, bottom - p)
        turn(memory, turned + p * lanes, lanes, x, x_at + begin * W + p, area, some, n, lanes)
    for i in range(th):
        for c in range(max(0, -left), min(W, wide - left)):
            points(
                kind, memory, lines + (left + c) * lanes, wide * lanes,
                memory, turned + (m * i * W + c) * lanes, W * lanes,
            )  # fmt: skip
        for j in range(POINTS):
            for t in range(tw):
                points(
                    kind, memory, v_at + j * POINTS * pitch + (i * tw + t) * step, pitch,
                    memory, lines + (j * wide + m * t) * lanes, lanes,
                )  # fmt: skip


# --- forward, and the gradient of x ---------------------------------------------------------------


@vector(
    "T* w, T* bias, T* u, T* matrix, T* memory, i64 lanes, i64 biased, i64 Cs, i64 Ct, i64 k, "
    "i64 of_source, i64 of_target, i64 back, i64 pitch, i64 most"
)
def transform_weights(
    w, bias, u, matrix, memory, lanes, biased, Cs, Ct, k, of_source, of_target, back, pitch, most,
    part, parts,
):  # fmt: skip
    """u (36, Ct / some vectors, Cs, some vectors): the points of w; then the bias, and zeros.

    w's element of two channels and a tap is found at of_source * c + of_target * o + tap; ``back``
    turns the taps round.
    """
    if part >= most:
        return
    parts, K, vectors = min(parts, most), k * k, -(-Ct // lanes)
    taps = skip(memory) + part * 64 * lanes
    lines = taps + 32 * lanes
    first, stop = share(Cs, part, parts)
    for block in range(0, vectors, WIDEST):
        width = min(WIDEST, vectors - block)
        for c in range(first, stop):
            for v in range(block, block + width):
                some = min(lanes, Ct - v * lanes)
                for i in range(0, K, lanes):
                    n = min(lanes, K - i)
                    w_at = v * lanes * of_target + c * of_source + i
                    turn(memory, taps + i * lanes, lanes, w, w_at, of_target, some, n, lanes)
                from_tap, step = 0, lanes
                if back == 1:
                    from_tap, step = (K - 1) * lanes, -lanes
                for i in range(k):
                    mixed(
                        memory, lines + i * lanes, 5 * lanes,
                        memory, taps + from_tap + i * k * step, step, k, matrix, 0,
                    )  # fmt: skip
                for j in range(POINTS):
                    u_at = (block * Cs + c * width + v - block) * lanes
                    mixed(
                        u, u_at + j * pitch, POINTS * pitch,
                        memory, lines + j * 5 * lanes, lanes, k, matrix, 0,
                    )  # fmt: skip
    if part == 0:
        at = POINTS * POINTS * pitch
        for i in range((vectors + 1) * lanes):
            u[at + i] = bias[i] if biased == 1 and i < Ct else T(0)


@vector(
    "T* x, T* y, T* u, T* memory, i64 size, i64 lanes, i64 N, i64 Cs, i64 H, i64 W, i64 Ct, i64 OH, "
    "i64 OW, i64 ah, i64 aw, i64 m, i64 th, i64 tw, i64 M, i64 bands, i64 R, i64 u_pitch, "
    "i64 v_pitch, i64 m_pitch, i64 tall, i64 wide, i64 most"
)
def correlate_points(
    x, y, u, memory, size, lanes, N, Cs, H, W, Ct, OH, OW, ah, aw, m, th, tw, M, bands, R, u_pitch,
    v_pitch, m_pitch, tall, wide, most, part, parts,
):  # fmt: skip
    """y (N, Ct, OH, OW) from x (N, Cs, H, W) and the weights' points, by panels of tiles.

    th * tw tiles an image; M images a panel, or ``bands`` bands of R rows of tiles an image.
    """
    if part >= most:
        return
    parts, square = min(parts, most), POINTS * POINTS
    sources, targets = -(-Cs // lanes), -(-Ct // lanes)
    turned = skip(memory) + part * size
    lines = turned + (max(tall * W, m * OW) + lanes) * lanes
    v_at = lines + POINTS * max(wide, 4 * tw) * lanes
    m_at = v_at + square * v_pitch
    shift = square * u_pitch
    unit, stop = share(N * bands, part, parts)
    while unit < stop:
        images, image, row, rows = min(M, stop - unit), unit, 0, th
        if bands > 1:
            images, image, row = 1, unit // bands, (unit % bands) * R
            rows = min(R, th - row)
        unit += images
        area, tiles = rows * tw, images * rows * tw
        for i in range(POINTS * wide * lanes):
            memory[lines + i] = T(0)
        for v in range(sources):
            for k in range(images):
                to_points(
                    0, m, x, ((image + k) * Cs + v * lanes) * H * W, H * W,
                    min(lanes, Cs - v * lanes), H, W, m * row - ah, m * (rows - 1) + POINTS, aw,
                    wide, rows, tw, memory, turned, lines,
                    v_at + (k * area * sources + v) * lanes, sources * lanes, v_pitch, lanes,
                )  # fmt: skip
        for block in range(0, targets, WIDEST):
            width = min(WIDEST, targets - block)
            high = HIGH if width == WIDEST else 8
            for p in range(square):
                panel = p * u_pitch + block * Cs * lanes
                soon, line = panel + u_pitch, 0
                for t in range(0, tiles, high):
                    tile(
                        width, memory, m_at + p * m_pitch + t * width * lanes, width * lanes, 0,
                        memory, v_at + p * v_pitch + t * sources * lanes, sources * lanes, 1,
                        min(high, tiles - t), u, panel, Cs, u, soon + line * lanes, width * lanes,
                    )  # fmt: skip
                    line = (line + 1) % width
            for v in range(width):
                o = (block + v) * lanes
                for k in range(images):
                    for i in range(rows):
                        for t in range(tw):
                            at = m_at + (((k * rows + i) * tw + t) * width + v) * lanes
                            for j in range(POINTS):
                                results(
                                    m, memory, lines + (t * POINTS + j) * lanes,
                                    tw * POINTS * lanes, memory, at + j * m_pitch, POINTS * m_pitch,
                                    u, shift + targets * lanes,
                                )  # fmt: skip
                        have = min(m, OH - m * (row + i))
                        # What the last tile has too much, the next row writes over.
                        for j in range(have):
                            for t in range(tw):
                                results(
                                    m, memory, turned + (j * OW + m * t) * lanes, lanes,
                                    memory, lines + (j * tw + t) * POINTS * lanes, lanes,
                                    u, shift + o,
                                )  # fmt: skip
                        y_at = (((image + k) * Ct + o) * OH + m * (row + i)) * OW
                        for j in range(0, have * OW, lanes):
                            n = min(lanes, have * OW - j)
                            turn(
                                y, y_at + j, OH * OW, memory, turned + j * lanes, lanes,
                                n, min(lanes, Ct - o), n,
                            )  # fmt: skip


# --- the gradient of the weights ------------------------------------------------------------------


@vector(
    "T* g, T* x, T* total, i64* used, T* memory, i64 size, i64 lanes, i64 N, i64 Cs, i64 H, i64 W, "
    "i64 Ct, i64 OH, i64 OW, i64 ah, i64 aw, i64 m, i64 th, i64 tw, i64 M, i64 bands, i64 R, "
    "i64 pitch, i64 v_pitch, i64 g_pitch, i64 tall, i64 wide, i64 apart, i64 most"
)
def weight_points(
    g, x, total, used, memory, size, lanes, N, Cs, H, W, Ct, OH, OW, ah, aw, m, th, tw, M, bands, R,
    pitch, v_pitch, g_pitch, tall, wide, apart, most, part, parts,
):  # fmt: skip
    """total[part] (36, Ct + 8, Cs): products of the points of g with those of x, over all tiles.

    A thread has its own images, and a total for these; or if ``apart``, its own channels of g, and
    those rows of the one total that there is.
    """
    if part >= most:
        return
    parts, square = min(parts, most), POINTS * POINTS
    columns, outputs = -(-Cs // lanes), -(-Ct // lanes)
    unit, stop = share(N * bands, part, parts)
    o_first, o_stop, total_at = 0, outputs * lanes, part * square * pitch
    if apart == 1:
        unit, stop, total_at = 0, N * bands, 0
        o_first, o_stop = share(-(-Ct // BLOCK), part, parts)
        o_first, o_stop = o_first * BLOCK, min(o_stop * BLOCK, outputs * lanes)
        if o_first == o_stop:
            return
    if part == 0:
        used[0] = 1 if apart == 1 else parts
    groups = -(-columns // EIGHT)
    turned = skip(memory) + part * size
    lines = turned + max(tall * W, m * R * OW) * lanes
    v_at = lines + POINTS * max(wide, m * tw) * lanes
    g_at = v_at + square * v_pitch
    if unit == stop:
        for i in range(square * pitch):
            total[total_at + i] = T(0)
    add = 0
    while unit < stop:
        images, image, row, rows = min(M, stop - unit), unit, 0, th
        if bands > 1:
            images, image, row = 1, unit // bands, (unit % bands) * R
            rows = min(R, th - row)
        unit += images
        area, tiles = rows * tw, images * rows * tw
        for i in range(POINTS * wide * lanes):
            memory[lines + i] = T(0)
        for group in range(groups):
            v_first, v_stop = share(columns, group, groups)
            for v in range(v_first, v_stop):
                step = (v_stop - v_first) * lanes
                to = v_at + v_first * tiles * lanes + (v - v_first) * lanes
                for k in range(images):
                    to_points(
                        0, m, x, ((image + k) * Cs + v * lanes) * H * W, H * W,
                        min(lanes, Cs - v * lanes), H, W, m * row - ah, m * (rows - 1) + POINTS, aw,
                        wide, rows, tw, memory, turned, lines, to + k * area * step, step, v_pitch,
                        lanes,
                    )  # fmt: skip
        for i in range(POINTS * m * tw * lanes):
            memory[lines + i] = T(0)
        for v in range(o_first // lanes, o_stop // lanes):
            for k in range(images):
                to_points(
                    m, m, g, ((image + k) * Ct + v * lanes) * OH * OW, OH * OW,
                    min(lanes, Ct - v * lanes), OH, OW, m * row, m * rows, 0, m * tw, rows, tw,
                    memory, turned, lines, g_at + (k * area * outputs + v) * lanes,
                    outputs * lanes, g_pitch, lanes,
                )  # fmt: skip
        for p in range(square):
            for group in range(groups):
                v, v_stop = share(columns, group, groups)
                for o in range(o_first, min(o_stop, Ct), 8):
                    to = total_at + p * pitch + (o * columns + v) * lanes
                    tile(
                        v_stop - v, total, to, columns * lanes, add,
                        memory, g_at + p * g_pitch + o, 1, outputs * lanes, min(8, o_stop - o),
                        memory, v_at + p * v_pitch + v * tiles * lanes, tiles,
                        total, to + 8 * columns * lanes, columns * lanes // 8,
                    )  # fmt: skip
        add = 1


@vector(
    "T* total, i64* used, T* y, T* matrix, T* memory, i64 lanes, i64 Ct, i64 Cs, i64 k, i64 pitch, "
    "i64 most"
)
def weights_of_points(total, used, y, matrix, memory, lanes, Ct, Cs, k, pitch, most, part, parts):
    """y (Ct, Cs, k, k): the sum of what the parts have made, taken back from the points to taps."""
    if part >= most:
        return
    parts, columns = min(parts, most), -(-Cs // lanes)
    lines = skip(memory) + part * 72 * lanes
    taps = lines + POINTS * POINTS * lanes
    first, stop = share(Ct, part, parts)
    for o in range(first, stop):
        for v in range(columns):
            at = (o * columns + v) * lanes
            for p in range(POINTS * POINTS):
                for q in range(1, used[0]):
                    for i in range(lanes):
                        total[at + p * pitch + i] += total[
                            at + (q * POINTS * POINTS + p) * pitch + i
                        ]
            for p in range(POINTS):
                mixed(
                    memory, lines + p * lanes, POINTS * lanes,
                    total, at + p * POINTS * pitch, pitch, POINTS, matrix, 0,
                )  # fmt: skip
            for j in range(k):
                mixed(
                    memory, taps + j * lanes, k * lanes,
                    memory, lines + j * POINTS * lanes, lanes, POINTS, matrix, 0,
                )  # fmt: skip
            for i in range(0, k * k, lanes):
                n = min(lanes, k * k - i)
                turn(
                    y, (o * Cs + v * lanes) * k * k + i, k * k, memory, taps + i * lanes, lanes,
                    n, min(lanes, Cs - v * lanes), n,
                )  # fmt: skip


# --- planning -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _points_of_weights(k: int, width: int, dtype: Any) -> np.ndarray:
    """(6, width): the values of 1, x, ..., x^(k-1) at the points, divided so that results are right."""
    finite = [0.0, A, -A, B, -B]
    found = np.zeros((POINTS, width), dtype)
    for row, p in zip(found, finite, strict=False):
        scale = math.prod(p - q for q in finite if q != p)
        row[:k] = [p**i / scale for i in range(k)]
    found[-1, k - 1] = 1
    return found


class _Panels(NamedTuple):
    """How the tiles are cut, and the memory of a thread."""

    m: int
    th: int
    tw: int
    images: int  # of a panel,
    bands: int  # or bands of an image,
    rows: int  # of so many rows of tiles
    tiles: int
    tall: int  # rows and columns of x that they take
    wide: int


def _panels(N: int, m: int, OH: int, OW: int, channels: int, apart: bool = False) -> _Panels:
    th, tw = -(-OH // m), -(-OW // m)
    want = 64 if apart else min(max(PANEL // (POINTS * POINTS * channels), 24), 64)
    if N < SHARES and not apart:  # of few images threads share the bands
        want = min(want, max(-(-N * th * tw // SHARES), 12))
    images, bands, rows = 1, 1, th
    if th * tw <= want:
        images = want // (th * tw)
    else:
        bands = -(-th // max(1, want // tw))
        rows = -(-th // bands)
        bands = -(-th // rows)
    tall, wide = m * (rows - 1) + POINTS, m * (tw - 1) + POINTS
    return _Panels(m, th, tw, images, bands, rows, images * rows * tw, tall, wide)


def suits(dtype: Any, shape: Any, OH: int, OW: int) -> bool:
    """Whether a convolution (see ``conv._Shape``) is quicker this way, of results OH x OW.

    An estimate, in multiplications, as measured: the products run at nearly a machine's speed; a
    channel of a tile takes as long as about 200 of them each way, and the points of a weight 1500,
    or 2000 where they are too many for the cache.
    """
    k = shape.kernel[0]
    plain = shape.stride == (1, 1) == shape.dilation and shape.groups == 1
    if np.dtype(dtype) != np.float32 or shape.kernel not in ((3, 3), (5, 5)) or not plain:
        return False
    m, lanes = POINTS + 1 - k, machine()[0] // 4
    tiles = shape.N * -(-OH // m) * -(-OW // m)
    Cs, Ct = (-(-n // lanes) * lanes for n in (shape.C, shape.outputs))
    weights = POINTS * POINTS * Cs * Ct
    if OW > 512 or weights > WEIGHTS:
        return False
    here = tiles * (weights + 200 * (Cs + Ct))
    here += Cs * Ct * (1500 if weights <= FEW else 2000)
    return here < shape.N * OH * OW * k * k * shape.C * shape.outputs


def _odd(elements: int, lanes: int) -> int:
    """At least so many: an odd number of vectors, lest points share the sets of a cache."""
    return (-(-elements // lanes) | 1) * lanes


def correlate(plan: Any, x: Any, w: Any, bias: Any, y: Any, shape: Any, back: bool) -> None:
    """Plan y = x correlated with w, or, if ``back``, x spread by w: with the taps turned round."""
    dtype, lanes, k = np.dtype(x.dtype), machine()[0] // x.dtype.itemsize, shape.kernel[0]
    Cs, Ct, K = shape.C, shape.outputs, k * k
    (H, W), (OH, OW) = (shape.H, shape.W), (shape.OH, shape.OW)
    of_source, of_target = K, Cs * K
    ah, aw = (pair[0] for pair in shape.padding)
    if back:
        Cs, Ct, (H, W), (OH, OW) = Ct, Cs, (OH, OW), (H, W)
        of_source, of_target = of_target, of_source
        ah, aw = k - 1 - ah, k - 1 - aw
    cut = _panels(shape.N, POINTS + 1 - k, OH, OW, max(Cs, Ct))
    sources, targets = -(-Cs // lanes), -(-Ct // lanes)
    most = min(MOST, shape.N * cut.bands)
    v_pitch = _odd(cut.tiles * sources * lanes, lanes)
    m_pitch = _odd((cut.tiles + 8) * min(targets, 4) * lanes, lanes)
    size = (max(cut.tall * W, cut.m * OW) + lanes + POINTS * max(cut.wide, 4 * cut.tw)) * lanes
    size += POINTS * POINTS * (v_pitch + m_pitch)
    u_pitch = _odd(Cs * targets * lanes, lanes)
    u = plan.empty((POINTS * POINTS * u_pitch + (targets + 1) * lanes,), dtype)
    matrix = np.ascontiguousarray(_points_of_weights(k, k, dtype).T)
    plan.call(
        transform_weights, w, bias, u, matrix, plan.empty((MOST * 64 * lanes + 16,), dtype), lanes,
        int(bias is not None), Cs, Ct, k, of_source, of_target, int(back), u_pitch, MOST, dtype=dtype,
        work=Cs * Ct * K,
    )  # fmt: skip
    plan.call(
        correlate_points, x, y, u, plan.empty((most * size + 16,), dtype), size, lanes, shape.N, Cs,
        H, W, Ct, OH, OW, ah, aw, cut.m, cut.th, cut.tw, cut.images, cut.bands, cut.rows, u_pitch,
        v_pitch, m_pitch, cut.tall, cut.wide, most, dtype=dtype, work=shape.work,
    )  # fmt: skip


def weight_grad(plan: Any, g: Any, x: Any, y: Any, shape: Any) -> None:
    """Plan y (O, C, k, k) from g (N, O, OH, OW) and x (N, C, H, W)."""
    dtype, lanes, k = np.dtype(x.dtype), machine()[0] // x.dtype.itemsize, shape.kernel[0]
    Cs, Ct = shape.C, shape.outputs
    columns, outputs = -(-Cs // lanes), -(-Ct // lanes)
    apart = POINTS * POINTS * Cs * Ct > FEW
    cut = _panels(shape.N, POINTS + 1 - k, shape.OH, shape.OW, max(Cs, Ct), apart)
    pitch = _odd((Ct + 8) * columns * lanes, lanes)
    totals = POINTS * POINTS * pitch
    most = min(MOST, -(-Ct // BLOCK) if apart else shape.N * cut.bands)
    v_pitch = _odd(cut.tiles * columns * lanes, lanes)
    g_pitch = _odd(cut.tiles * outputs * lanes, lanes)
    size = (max(cut.tall * shape.W, cut.m * cut.rows * shape.OW)) * lanes
    size += POINTS * max(cut.wide, cut.m * cut.tw) * lanes + POINTS * POINTS * (v_pitch + g_pitch)
    total, used = plan.empty((1 if apart else most, totals), dtype), plan.empty((1,), np.int64)
    plan.call(
        weight_points, g, x, total, used, plan.empty((most * size + 16,), dtype), size, lanes,
        shape.N, Cs, shape.H, shape.W, Ct, shape.OH, shape.OW, *(pair[0] for pair in shape.padding),
        cut.m, cut.th, cut.tw, cut.images, cut.bands, cut.rows, pitch, v_pitch, g_pitch, cut.tall,
        cut.wide, int(apart), most, dtype=dtype, work=shape.work,
    )  # fmt: skip
    plan.call(
        weights_of_points, total, used, y, _points_of_weights(k, POINTS, dtype),
        plan.empty((MOST * 72 * lanes + 16,), dtype), lanes, Ct, Cs, k, pitch, MOST, dtype=dtype,
        work=POINTS * POINTS * Ct * Cs,
    )  # fmt: skip
