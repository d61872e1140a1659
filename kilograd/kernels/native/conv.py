"""Convolution, natively: a matrix product that reads its columns straight from the padded images.

The idea is that of ``kernels/conv.py``: with rows laid end to end, each followed by enough zeros, every
kernel offset meets its elements of x at one constant distance, its *shift*. So no columns need to
be made at all: a tile of the result (a few channels × a few vectors of positions) stays in
registers while a loop over (channel, offset) loads the positions from ``buf`` at their shift, and
multiplies them by one weight per output channel. That loop (``tile``) reaches the speed of a GEMM,
at shapes where a GEMM spends its time packing.

A stride splits an image into *phases*, one per residue, within which all steps are one. Going
forward x is split; for the gradient of x it is the result that is, each phase by its own share of
the kernel's offsets (its *taps*). Both are one kernel, ``correlate``. The weight gradient
(``weight_grad``) is a tile of dot products over the same layout.

Work is cut in panels: some images, or a band of rows of one, whose grid stays in the cache.

Where channels are many, a 3x3 or 5x5 kernel takes fewer multiplications: see ``winograd.py``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kilograd.kernels import conv as numpy_kernels
from kilograd.kernels.native import depthwise, winograd
from kilograd.kernels.native.build import T as T
from kilograd.kernels.native.build import gemm, inline, native, share
from kilograd.kernels.native.plan import floats, twin
from kilograd.kernels.native.vectors import Body, machine, skip_function, vector
from kilograd.kernels.window import Ints, Pairs

MOST = 16  # threads that have scratch
PANEL = 1 << 17  # elements of buf aimed at: a part of a core's second-level cache
TOTALS = 1 << 24  # elements of all threads' weight gradients, at most (but for two threads)
POSITIONS = 1024  # of a panel, about: eight rows of them stay in the first-level cache
FEW = 48  # positions of an image below which a 1x1 convolution is better gathered into panels


# --- vectors --------------------------------------------------------------------------------------

# Channels of a tile -> vectors of positions (forward), and taps (weight gradient): for 32 registers
# or for 16. The tiles of several channels keep many sums going at once, or the adder waits.
_WIDE = {8: (3, 3), 2: (6, 9), 1: (8, 9)}
_NARROW = {8: (1, 1), 2: (4, 4), 1: (6, 4)}
VECTOR = 16  # elements that rows may be read beyond their end, at most


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """What Numba cannot say in a loop: tiles kept in registers, and rows moved by masked vectors."""
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    tiles = _WIDE if machine()[1] else _NARROW
    i64 = ir.IntType(64)

    def make_tile(channels: int, vectors: int) -> Any:
        @intrinsic
        def tile(
            typing_context, acc, acc_at, pitch, buf, buf_at, shifts, shifts_at, w, w_at, count
        ):
            """acc[o, v] = w[0, o] + sum over t of w[1 + t, o] * buf[shifts[t] + v]."""

            def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
                on = Body(builder, acc)
                weights, source = on.at(a[7], a[8]), on.at(a[3], a[4])
                shift, target = on.at(a[5], a[6]), on.at(a[0], a[1])
                sums = [on.spread(weights, o) for o in range(channels) for _ in range(vectors)]

                def body(i: Any, sums: list) -> list:
                    at = on.at(source, builder.load(on.at(shift, i)))
                    x = [on.load(at, v) for v in range(vectors)]
                    row = on.at(weights, builder.mul(builder.add(i, i64(1)), i64(channels)))
                    new = []
                    for o in range(channels):
                        factor = on.spread(row, o)
                        for v in range(vectors):
                            new.append(on.fma(x[v], factor, sums[o * vectors + v]))
                    return new

                sums = on.loop(a[9], 1, sums, body)
                for o in range(channels):
                    for v in range(vectors):
                        on.store(sums[o * vectors + v], target, v)
                    target = on.at(target, a[2])
                return context.get_dummy_value()

            i = nt.int64
            return nt.none(acc, i, i, buf, i, shifts, i, w, i, i), generate

        return tile

    def make_dots(channels: int, taps: int) -> Any:
        @intrinsic
        def dots(
            typing_context, sums, sums_at, g, g_at, pitch, buf, buf_at, shifts, shifts_at, count
        ):
            """sums[o, t] = sum over p of g[o, p] * buf[shifts[t] + p]."""

            def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
                on = Body(builder, sums)
                rows = [on.at(a[2], a[3])]
                for _ in range(channels - 1):
                    rows.append(on.at(rows[-1], a[4]))
                source, shift, result = on.at(a[5], a[6]), on.at(a[7], a[8]), on.at(a[0], a[1])
                places = [on.at(source, builder.load(on.at(shift, i64(t)))) for t in range(taps)]
                zero = ir.Constant(on.vector, [0.0] * on.lanes)

                def body(p: Any, total: list) -> list:
                    x = [on.load(on.at(place, p)) for place in places]
                    new = []
                    for o, row in enumerate(rows):
                        factor = on.load(on.at(row, p))
                        for t in range(taps):
                            new.append(on.fma(factor, x[t], total[o * taps + t]))
                    return new

                total = on.loop(a[9], on.lanes, [zero] * (channels * taps), body)
                on.store_sums(total, result)
                return context.get_dummy_value()

            i = nt.int64
            return nt.none(sums, i, g, i, i, buf, i, shifts, i, i), generate

        return dots

    @intrinsic
    def copy_row(typing_context, y, y_at, x, x_at, n):
        """y[:n] = x[:n], by vectors, the last one masked."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[0], a[1]), on.at(a[2], a[3])
            whole = builder.and_(a[4], i64(-on.lanes))

            def body(i: Any, sums: list) -> list:
                on.store(on.load(on.at(source, i)), on.at(target, i))
                return sums

            on.loop(whole, on.lanes, [], body)
            rest = builder.sub(a[4], whole)
            with builder.if_then(builder.icmp_signed(">", rest, i64(0))):
                mask = on.mask(rest)
                value = on.load_masked(on.at(source, whole), mask)
                on.store_masked(value, on.at(target, whole), mask)
            return context.get_dummy_value()

        return nt.none(y, nt.int64, x, nt.int64, nt.int64), generate

    def pairs(typing_context, y, y_at, x, x_at, n):
        """y[:n] = x[: 2 * n : 2], with nothing read behind the last."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[0], a[1]), on.at(a[2], a[3])

            def body(i: Any, sums: list) -> list:
                left = builder.sub(a[4], i)
                begin = on.at(source, builder.add(i, i))
                reach = builder.sub(builder.add(left, left), i64(1))
                low = on.load_masked(begin, on.mask(reach))
                high = on.mask(builder.sub(reach, i64(on.lanes)))
                high = on.load_masked(on.at(begin, i64(on.lanes)), high)
                even = on.shuffle(low, high, list(range(0, 2 * on.lanes, 2)))
                on.store_masked(even, on.at(target, i), on.mask(left))
                return sums

            on.loop(a[4], on.lanes, [], body)
            return context.get_dummy_value()

        return nt.none(y, nt.int64, x, nt.int64, nt.int64), generate

    def apart(typing_context, y, y_at, x, x_at, n):
        """y[: 2 * n : 2] = x[:n]; what lies between stays."""

        def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
            on = Body(builder, y)
            target, source = on.at(a[0], a[1]), on.at(a[2], a[3])

            def body(i: Any, sums: list) -> list:
                left = builder.sub(a[4], i)
                value = on.load_masked(on.at(source, i), on.mask(left))
                begin = on.at(target, builder.add(i, i))
                reach = builder.add(left, left)
                for k in range(2):
                    lanes = [(j + k * on.lanes) // 2 for j in range(on.lanes)]
                    mask = on.mask(builder.sub(reach, i64(k * on.lanes)), every=2)
                    place = on.at(begin, i64(k * on.lanes))
                    on.store_masked(on.shuffle(value, value, lanes), place, mask)
                return sums

            on.loop(a[4], on.lanes, [], body)
            return context.get_dummy_value()

        return nt.none(y, nt.int64, x, nt.int64, nt.int64), generate

    made: dict[str, Any] = {
        "copy_row": copy_row, "take_pairs": intrinsic(pairs), "put_pairs": intrinsic(apart),
        "skip": skip_function(),
    }  # fmt: skip
    for channels, (vectors, taps) in tiles.items():
        made[f"tile{channels}"] = make_tile(channels, vectors)
        made[f"dots{channels}"] = make_dots(channels, taps)
        made[f"V{channels}"], made[f"K{channels}"] = vectors, taps
    return made


tile8: Any = None  # these are set when a kernel that uses them is compiled
tile2 = tile1 = dots8 = dots2 = dots1 = copy_row = take_pairs = put_pairs = skip = tile8
V8 = V2 = V1 = K8 = K2 = K1 = 0


# --- inside a kernel ------------------------------------------------------------------------------


@inline
def ceiling(a, b):
    """a / b rounded up, for b > 0."""
    return -((-a) // b)


@inline
def fill(
    x, buf, at, pitch, C, H, W, images, image, B, row, rows, fh, fw, sh, sw, dh, dw, ah, aw,
    lh, lw, line, pw,
):  # fmt: skip
    """Lay images (or, if B > 1, a band of rows of one) out in the grid: one copy per phase.

    Position i of phase f is element s * i + (f * d mod s) - a of x. Only rows and columns that x
    has are written: the rest is zeros already, except in a band, where rows come and go.
    """
    for f in range(fh * fw):
        rh, rw = (f // fw) * dh % sh, (f % fw) * dw % sw
        top = min(max(0, ceiling(ah - rh, sh)), lh)
        bottom = min(max(top, ceiling(H + ah - rh, sh)), lh)
        left = min(max(0, ceiling(aw - rw, sw)), lw)
        n = min(max(left, ceiling(W + aw - rw, sw)), lw) - left
        first, last = top, bottom
        if B > 1:
            first, last = row, min(row + rows, lh)
        for c in range(C):
            plane = at + (f * C + c) * pitch + left
            for m in range(images):
                for i in range(first, last):
                    y_at = plane + (i - (row if B > 1 else 0)) * line + m * pw
                    x_at = (((image + m) * C + c) * H + sh * i + rh - ah) * W + sw * left + rw - aw
                    if i < top or i >= bottom:
                        for j in range(n):
                            buf[y_at + j] = T(0)
                    elif sw == 1:
                        copy_row(buf, y_at, x, x_at, n)
                    elif sw == 2:
                        take_pairs(buf, y_at, x, x_at, n)
                    else:
                        for j in range(n):
                            buf[y_at + j] = x[x_at + sw * j]


# --- forward, and the gradient of x ---------------------------------------------------------------


@native(
    "T* w, T* bias, T* packed, i64* taps, i64* offsets, i64 biased, i64 G, i64 Cs, i64 Ct, "
    "i64 of_group, i64 of_source, i64 of_target, i64 kh, i64 kw, i64 qh, i64 qw, i64 sh, i64 sw, "
    "i64 dh, i64 dw, i64 back, i64 jh, i64 jw, i64 fh, i64 fw, i64 pitch, i64 line"
)
def pack(
    w, bias, packed, taps, offsets, biased, G, Cs, Ct, of_group, of_source, of_target, kh, kw, qh, qw,
    sh, sw, dh, dw, back, jh, jw, fh, fw, pitch, line, part, parts,
):  # fmt: skip
    """The weights as tiles read them, and where each tap finds its positions in the grid.

    ``taps``: where the taps of each of the result's phases begin (qh * qw + 1 numbers), then the
    shifts. ``packed``: for each phase and group, for each tile of channels, its bias and then one
    row per tap. Cs and Ct: channels of the source and the target in one group; w's are at
    ``of_source``, ``of_target`` from each other. ``back``: the gradient of x, whose phases are the
    result's and whose offsets run from the last (jh, jw) to the first. ``offsets``: memory.
    """
    at = 0
    total = Ct * G
    for q in range(qh * qw):
        first = at
        # The result's own phase takes the kernel's offsets of one residue; else every offset.
        rh, rw = q // qw, q % qw
        count = 0
        for i in range(kh):
            for j in range(kw):
                if back == 0 or (i * dh % sh == rh and j * dw % sw == rw):
                    count += Cs
        taken = count // Cs
        if part == 0:
            taps[q] = first
        k = 0
        for i in range(kh):
            for j in range(kw):
                if back == 1:
                    if i * dh % sh != rh or j * dw % sw != rw:
                        continue
                    phase, shift = 0, (jh - i * dh // sh) * line + jw - j * dw // sw
                else:
                    phase = (i % fh) * fw + j % fw
                    shift = (i * dh // sh) * line + j * dw // sw
                offsets[first // Cs + k] = i * kw + j  # all threads write this
                if part == 0:
                    for c in range(Cs):
                        taps[qh * qw + 1 + first + c * taken + k] = (
                            phase * G * Cs + c
                        ) * pitch + shift
                k += 1
        start, stop = share(total, part, parts)
        for t in range(start, stop):
            g, o = t // Ct, t % Ct
            # o is in a tile of 8 channels, or of 2 or 1 for what is left.
            begin, size = o // 8 * 8, 8
            if begin + 8 > Ct:
                begin, size = o // 2 * 2, 2
                if begin + 2 > Ct:
                    begin, size = o, 1
            row = packed_at(first + q, total, g * Ct + begin, count) + o - begin
            packed[row] = bias[t] if biased == 1 else T(0)
            for c in range(Cs):
                w_at = g * of_group + o * of_target + c * of_source
                for k in range(taken):
                    row += size
                    packed[row] = w[w_at + offsets[first // Cs + k]]
        at += count
    if part == 0:
        taps[qh * qw] = at


@inline
def packed_at(before, total, channel, count):
    """Where a tile's weights begin: after ``before`` rows of all channels, then whole channels."""
    return before * total + channel * (count + 1)


@vector(
    "T* x, T* y, T* packed, i64* taps, T* buf, T* acc, i64 lanes, i64 N, i64 G, i64 Cs, i64 H, "
    "i64 W, i64 Ct, i64 OH, i64 OW, i64 fh, i64 fw, i64 sh, i64 sw, i64 dh, i64 dw, i64 ah, i64 aw, "
    "i64 lh, i64 lw, i64 line, i64 pw, i64 Qh, i64 Qw, i64 M, i64 B, i64 R, i64 jh, i64 size, "
    "i64 pitch, i64 length, i64 uh, i64 uw, i64 zh, i64 zw, i64 eh, i64 ew, i64 most"
)
def correlate(
    x, y, packed, taps, buf, acc, lanes, N, G, Cs, H, W, Ct, OH, OW, fh, fw, sh, sw, dh, dw, ah, aw,
    lh, lw, line, pw, Qh, Qw, M, B, R, jh, size, pitch, length, uh, uw, zh, zw, eh, ew, most, part,
    parts,
):  # fmt: skip
    """y (N, G * Ct, OH, OW) from x (N, G * Cs, H, W): every tap's weight times x at its shift.

    Position q of the result's phase r is its element u * (q + z) + r - e. ``Qh, Qw``: positions of
    an image; M images a panel, or B bands of R rows an image. A thread has ``size`` elements of
    buf, ``pitch`` for each channel, and 8 * ``length`` of acc.
    """
    if part >= most:
        return
    parts = min(parts, most)
    at, sums = part * size, skip(acc) + part * 8 * length
    for i in range(size):
        buf[at + i] = T(0)
    unit, stop = share(N * B, part, parts)
    while unit < stop:
        if B == 1:
            m, image, row, rows = min(M, stop - unit), unit, 0, Qh
        else:
            m, image, row = 1, unit // B, (unit % B) * R
            rows = min(R, Qh - row)
        unit += m
        fill(
            x, buf, at, pitch, G * Cs, H, W, m, image, B, row, rows + jh, fh, fw, sh, sw, dh, dw,
            ah, aw, lh, lw, line, pw,
        )  # fmt: skip
        positions = (rows - 1) * line + (m - 1) * pw + Qw
        for q in range(uh * uw):
            rh, rw = q // uw, q % uw
            # what of this phase is in y, and in this band
            top = max(ceiling(eh - rh, uh) - zh, row)
            bottom = min(ceiling(OH + eh - rh, uh) - zh, row + rows)
            left = ceiling(ew - rw, uw) - zw
            n = ceiling(OW + ew - rw, uw) - zw - left
            first, count = taps[q], taps[q + 1] - taps[q]
            shifts = uh * uw + 1 + first
            if top >= bottom or n <= 0:
                continue
            for g in range(G):
                source = at + g * Cs * pitch
                o = 0
                while o < Ct:
                    w_at = packed_at(first + q, G * Ct, g * Ct + o, count)
                    p = 0
                    if Ct - o >= 8:
                        width = 8
                        while p < positions:
                            tile8(
                                acc,
                                sums + p,
                                length,
                                buf,
                                source + p,
                                taps,
                                shifts,
                                packed,
                                w_at,
                                count,
                            )
                            p += V8 * lanes
                    elif Ct - o >= 2:
                        width = 2
                        while p < positions:
                            tile2(
                                acc,
                                sums + p,
                                length,
                                buf,
                                source + p,
                                taps,
                                shifts,
                                packed,
                                w_at,
                                count,
                            )
                            p += V2 * lanes
                    else:
                        width = 1
                        while p < positions:
                            tile1(
                                acc,
                                sums + p,
                                length,
                                buf,
                                source + p,
                                taps,
                                shifts,
                                packed,
                                w_at,
                                count,
                            )
                            p += V1 * lanes
                    for k in range(width):
                        for i in range(m):
                            plane = ((image + i) * G * Ct + g * Ct + o + k) * OH
                            from_row = sums + k * length + i * pw - row * line + left
                            to = uw * (left + zw) + rw - ew
                            for r in range(top, bottom):
                                a = from_row + r * line
                                b = (plane + uh * (r + zh) + rh - eh) * OW + to
                                if uw == 1:
                                    copy_row(y, b, acc, a, n)
                                elif uw == 2:
                                    put_pairs(y, b, acc, a, n)
                                else:
                                    for j in range(n):
                                        y[b + uw * j] = acc[a + j]
                    o += width


# --- the weight gradient --------------------------------------------------------------------------


@native(
    "i64* taps, i64 Cs, i64 C, i64 kh, i64 kw, i64 sh, i64 sw, i64 dh, i64 dw, i64 fh, i64 fw, i64 pitch, i64 line, i64 extra"
)
def shifts_of(taps, Cs, C, kh, kw, sh, sw, dh, dw, fh, fw, pitch, line, extra):
    """The shifts of all taps, in the order of w's elements; the last one again ``extra`` times."""
    at = 0
    for c in range(Cs):
        for i in range(kh):
            for j in range(kw):
                phase = (i % fh) * fw + j % fw
                taps[at] = (phase * C + c) * pitch + (i * dh // sh) * line + j * dw // sw
                at += 1
    for _ in range(extra):
        taps[at] = taps[at - 1]
        at += 1


@vector(
    "T* g, T* x, T* total, i64* used, i64* taps, T* buf, T* rows_of_g, T* sums, i64 lanes, i64 N, "
    "i64 G, i64 Cs, i64 H, i64 W, i64 Og, i64 OH, i64 OW, i64 K, i64 fh, i64 fw, i64 sh, i64 sw, "
    "i64 dh, i64 dw, i64 ah, i64 aw, i64 lh, i64 lw, i64 line, i64 pw, i64 M, i64 B, i64 R, i64 jh, "
    "i64 size, i64 pitch, i64 length, i64 most"
)
def weight_grad(
    g, x, total, used, taps, buf, rows_of_g, sums, lanes, N, G, Cs, H, W, Og, OH, OW, K, fh, fw, sh,
    sw, dh, dw, ah, aw, lh, lw, line, pw, M, B, R, jh, size, pitch, length, most, part, parts,
):  # fmt: skip
    """total[part] (G * Og, Cs * K): products of g with x at every tap, added over this part's images.

    g (N, G * Og, OH, OW) is laid out on x's grid, with zeros between rows, so a tap's share is one
    long dot product. ``used``: how many parts there are, for ``add_parts``.
    """
    if part >= most:
        return
    parts = min(parts, most)
    if part == 0:
        used[0] = parts
    C, outputs, taps_of_group = G * Cs, G * Og, Cs * K
    at, at_g, at_total, at_sums = (
        part * size,
        skip(rows_of_g) + part * outputs * length,
        part * outputs * Cs * K,
        part * 32,
    )
    for i in range(size):
        buf[at + i] = T(0)
    for i in range(outputs * length):
        rows_of_g[at_g + i] = T(0)
    for i in range(outputs * taps_of_group):
        total[at_total + i] = T(0)
    unit, stop = share(N * B, part, parts)
    while unit < stop:
        if B == 1:
            m, image, row, rows = min(M, stop - unit), unit, 0, OH
        else:
            m, image, row = 1, unit // B, (unit % B) * R
            rows = min(R, OH - row)
        unit += m
        fill(
            x, buf, at, pitch, C, H, W, m, image, B, row, rows + jh, fh, fw, sh, sw, dh, dw, ah, aw,
            lh, lw, line, pw,
        )  # fmt: skip
        positions = (rows - 1) * line + (m - 1) * pw + OW
        for o in range(outputs):
            for i in range(m):
                for r in range(rows):
                    copy_row(
                        rows_of_g, at_g + o * length + r * line + i * pw,
                        g, (((image + i) * outputs + o) * OH + row + r) * OW, OW,
                    )  # fmt: skip
            for i in range(m, M):  # images of an earlier panel
                for r in range(rows):
                    for j in range(OW):
                        rows_of_g[at_g + o * length + r * line + i * pw + j] = T(0)
            # An earlier, longer panel may have left numbers where the last vector ends.
            for i in range(lanes):
                rows_of_g[at_g + o * length + positions + i] = T(0)
        for group in range(G):
            source = at + group * Cs * pitch
            o = 0
            while o < Og:
                g_at = at_g + (group * Og + o) * length
                width = 8 if Og - o >= 8 else 2 if Og - o >= 2 else 1
                t = 0
                while t < taps_of_group:
                    if width == 8:
                        step = K8
                        dots8(
                            sums, at_sums, rows_of_g, g_at, length, buf, source, taps, t, positions
                        )
                    elif width == 2:
                        step = K2
                        dots2(
                            sums, at_sums, rows_of_g, g_at, length, buf, source, taps, t, positions
                        )
                    else:
                        step = K1
                        dots1(
                            sums, at_sums, rows_of_g, g_at, length, buf, source, taps, t, positions
                        )
                    here = min(step, taps_of_group - t)
                    for k in range(width):
                        to = at_total + (group * Og + o + k) * taps_of_group + t
                        for i in range(here):
                            total[to + i] += sums[at_sums + k * step + i]
                    t += step
                o += width


@native("T* total, i64* used, T* y, i64 n")
def add_parts(total, used, y, n, part, parts):
    """y = the sum of what the parts of a weight gradient have made."""
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        y[i] = total[i]
    for k in range(1, used[0]):
        for i in range(start, stop):
            y[i] += total[k * n + i]


# --- 1x1: a matrix product as it stands -----------------------------------------------------------


@native("T* x, T* w, T* bias, T* y, i64 biased, i64 N, i64 G, i64 Cs, i64 Ct, i64 area, i64 back")
def pointwise(x, w, bias, y, biased, N, G, Cs, Ct, area, back, part, parts):
    """y (N, G * Ct, area) from x (N, G * Cs, area) by w (G, Ct, Cs), or by (G, Cs, Ct) if ``back``."""
    start, stop = share(N * G, part, parts)
    for k in range(start, stop):
        g = k % G
        if biased == 1:
            for o in range(Ct):
                for i in range(area):
                    y[(k * Ct + o) * area + i] = bias[g * Ct + o]
        gemm(
            back, 0, Ct, area, Cs, T(1), w, g * Ct * Cs, Ct if back == 1 else Cs,
            x, k * Cs * area, area, T(biased), y, k * Ct * area, area,
        )  # fmt: skip


@native("T* g, T* x, T* total, i64* used, i64 N, i64 G, i64 Cs, i64 Ct, i64 area, i64 most")
def pointwise_weight(g, x, total, used, N, G, Cs, Ct, area, most, part, parts):
    """total[part] (G, Ct, Cs) = g (N, G, Ct, area) times x (N, G, Cs, area), over this part's images."""
    if part >= most:
        return
    parts = min(parts, most)
    if part == 0:
        used[0] = parts
    start, stop = share(N, part, parts)
    if start == stop:
        for i in range(G * Ct * Cs):
            total[part * G * Ct * Cs + i] = T(0)
    for n in range(start, stop):
        for k in range(G):
            gemm(
                0, 1, Ct, Cs, area, T(1), g, (n * G + k) * Ct * area, area,
                x, (n * G + k) * Cs * area, area, T(0 if n == start else 1),
                total, (part * G + k) * Ct * Cs, Cs,
            )  # fmt: skip


# --- geometry -------------------------------------------------------------------------------------


class Side(NamedTuple):
    """One dimension of a grid; see ``fill`` and ``correlate`` for what the letters mean."""

    Q: int  # positions of the result
    j: int  # the longest shift
    f: int  # phases of the source
    s: int
    d: int
    a: int
    pitch: int
    u: int  # phases of the result
    z: int
    e: int

    @property
    def length(self) -> int:
        return self.Q + self.j


def _pitch(Q: int, length: int, spans: list[tuple[int, int]]) -> int:
    """How far apart rows must lie: zeros after one serve as zeros before the next."""
    return max(Q, *(max(last, length - first) for first, last in spans))


def _clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def _forward_side(n: int, k: int, s: int, a: int, d: int, out: int) -> Side:
    j = (k - 1) * d // s
    f = min(k, s // math.gcd(s, d))  # residues repeat from there on
    spans = []
    for r in (i * d % s for i in range(f)):
        first = _clip(-((r - a) // s), 0, out + j)
        spans.append((first, _clip(-((r - a - n) // s), first, out + j)))
    return Side(out, j, f, s, d, a, _pitch(out, out + j, spans), 1, 0, 0)


def _back_side(n: int, k: int, s: int, a: int, d: int, out: int) -> Side:
    begin = min(-((r - a) // s) for r in range(s))
    end = max(-((r - a - n) // s) for r in range(s))
    Q, j = end - begin, (k - 1) * d // s
    first = _clip(j - begin, 0, Q + j)
    last = _clip(j - begin + out, first, Q + j)
    return Side(Q, j, 1, 1, 0, j - begin, _pitch(Q, Q + j, [(first, last)]), s, begin, a)


class Panels(NamedTuple):
    """How the work is cut, and the memory of a thread."""

    images: int  # of a panel,
    bands: int  # or bands of an image,
    rows: int  # of so many rows of the result
    line: int  # elements from row to row: the images of a panel lie side by side
    pitch: int  # elements of a channel in buf
    length: int  # positions of a panel, rounded up to whole tiles
    size: int  # elements of buf


def _panels(N: int, channels: int, tall: Side, wide: Side, step: int) -> Panels:
    """Panels of ``channels`` channels; ``step``: a multiple of all tiles that will be used."""
    one, image = wide.pitch, tall.length * wide.pitch
    rows = max(min(PANEL // (channels * one) - tall.j, POSITIONS // one), 4, tall.j)
    if image * channels <= PANEL or rows >= tall.Q:
        bands, rows = 1, tall.Q
        most = _clip(min(PANEL // (channels * image), POSITIONS // (tall.Q * one)), 1, N)
        # A last panel of few images would cost as much as a full one.
        images = max((k for k in range(most // 2 + 1, most + 1) if N % k == 0), default=most)
    else:
        bands, images = -(-tall.Q // rows), 1
        rows = -(-tall.Q // bands)
        bands = -(-tall.Q // rows)
    line = images * one
    length = -(-((rows - 1) * line + (images - 1) * one + wide.Q) // step) * step
    length = -(-length // VECTOR) * VECTOR
    pitch = max(length + tall.j * line + wide.j, (rows + tall.j) * line + VECTOR)
    pitch = -(-pitch // VECTOR) * VECTOR
    if pitch % 128 == 0:  # channels at such distances would share the cache's sets
        pitch += VECTOR
    return Panels(images, bands, rows, line, pitch, length, channels * pitch + VECTOR)


def _step(channels: int, lanes: int, which: int) -> int:
    """The least common multiple of the positions of the tiles that so many channels take."""
    tiles = _WIDE if machine()[1] else _NARROW
    used = [8] * (channels >= 8) + [2] * (channels % 8 > 1) + [1] * (channels % 2)
    return math.lcm(*(tiles[k][which] for k in used)) * lanes


class _Shape(NamedTuple):
    """A convolution in two dimensions (one: a single row)."""

    N: int
    C: int
    H: int
    W: int
    outputs: int
    OH: int
    OW: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int

    def sides(self, make: Callable[..., Side]) -> tuple[Side, Side]:
        k, s, p, d = self.kernel, self.stride, self.padding, self.dilation
        return (
            make(self.H, k[0], s[0], p[0][0], d[0], self.OH),
            make(self.W, k[1], s[1], p[1][0], d[1], self.OW),
        )

    @property
    def plain(self) -> bool:
        """A 1x1 convolution that is one matrix product per image."""
        ones = self.kernel == self.stride == (1, 1)
        return ones and self.padding == ((0, 0), (0, 0)) and self.H * self.W >= FEW

    @property
    def work(self) -> int:
        per = self.C // self.groups * math.prod(self.kernel)
        return self.N * self.outputs * self.OH * self.OW * per // 8


def _shape(
    x: Ints, w: Ints, g: Ints | None, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> _Shape | None:
    """The convolution of x by w with these arguments, or None for what is not served here."""
    n = len(x) - 2
    if n not in (1, 2):
        return None
    size, kernel = tuple(x[2:]), tuple(w[2:])
    stride, padding, dilation = tuple(stride), tuple(padding), tuple(dilation)
    out = tuple(g[2:]) if g else numpy_kernels.out_sizes(size, kernel, stride, padding, dilation)
    if 0 in x or 0 in w or min(out) <= 0:
        return None
    if n == 1:
        size, kernel, stride, dilation = (1, *size), (1, *kernel), (1, *stride), (1, *dilation)
        padding, out = ((0, 0), *padding), (1, *out)
    return _Shape(
        x[0], x[1], *size, w[0], *out, kernel, stride, padding, dilation, groups  # type: ignore[call-arg,arg-type]
    )  # fmt: skip


# --- twins ----------------------------------------------------------------------------------------


def _correlate(
    plan: Any, x: Any, w: Any, bias: Any, y: Any, shape: _Shape, tall: Side, wide: Side, back: int
) -> None:
    """Plan y = x correlated with w (forward), or x spread by w (back)."""
    dtype, G, K = np.dtype(x.dtype), shape.groups, math.prod(shape.kernel)
    lanes = machine()[0] // dtype.itemsize
    Cs, Ct = shape.C // G, shape.outputs // G
    of_source, of_target, of_group = K, Cs * K, Ct * Cs * K
    source, target = (shape.H, shape.W), (shape.OH, shape.OW)
    if back:
        Cs, Ct, source, target = Ct, Cs, target, source
        of_source, of_target = of_target, of_source
    phases, results = tall.f * wide.f, tall.u * wide.u
    cut = _panels(shape.N, phases * G * Cs, tall, wide, _step(Ct, lanes, 0))
    most = min(MOST, shape.N * cut.bands)
    packed = plan.empty((G * Ct * (Cs * K + results),), dtype)
    taps = plan.empty((results + 1 + Cs * K,), np.int64)
    buf = plan.empty((most, cut.size), dtype)
    acc = plan.empty((most * 8 * cut.length + VECTOR,), dtype)
    plan.call(
        pack, w, bias, packed, taps, plan.empty((K,), np.int64), int(bias is not None), G, Cs, Ct, of_group, of_source,
        of_target, *shape.kernel, tall.u, wide.u, *shape.stride, *shape.dilation, back, tall.j,
        wide.j, tall.f, wide.f, cut.pitch, cut.line, dtype=dtype, work=G * Cs * Ct * K,
    )  # fmt: skip
    plan.call(
        correlate, x, y, packed, taps, buf, acc, lanes, shape.N, G, Cs, *source, Ct, *target,
        tall.f, wide.f, tall.s, wide.s, tall.d, wide.d, tall.a, wide.a, tall.length, wide.length,
        cut.line, wide.pitch, tall.Q, wide.Q, cut.images, cut.bands, cut.rows, tall.j, cut.size,
        cut.pitch, cut.length, tall.u, wide.u, tall.z, wide.z, tall.e, wide.e, most, dtype=dtype,
        work=shape.work,
    )  # fmt: skip


@twin(numpy_kernels.conv_forward)
def conv_forward(
    plan: Any, x: Any, w: Any, stride: Ints, padding: Pairs, dilation: Ints, groups: int = 1,
    bias: Any = None,
) -> Any:  # fmt: skip
    """x (N, C, *spatial), w (O, C/groups, *k), bias (O,) -> y (N, O, *out)."""
    shape = _shape(x.shape, w.shape, None, stride, padding, dilation, groups)
    if not floats(x, w, bias) or shape is None:
        return NotImplemented
    x, w = plan.as_contiguous(x), plan.as_contiguous(w)
    bias = None if bias is None else plan.as_contiguous(bias)
    out = (shape.OH, shape.OW)[4 - x.ndim :]
    y = plan.empty((shape.N, shape.outputs, *out), x.dtype)
    if shape.plain:
        plan.call(
            pointwise, x, w, bias, y, int(bias is not None), shape.N, groups, shape.C // groups,
            shape.outputs // groups, shape.H * shape.W, 0, dtype=x.dtype, work=shape.work,
        )  # fmt: skip
    elif depthwise.suits(x.dtype, shape):
        depthwise.correlate(plan, x, w, bias, y, shape, back=False)
    elif winograd.suits(x.dtype, shape, shape.OH, shape.OW):
        winograd.correlate(plan, x, w, bias, y, shape, back=False)
    else:
        _correlate(plan, x, w, bias, y, shape, *shape.sides(_forward_side), back=0)
    return y


@twin(numpy_kernels.conv_input_grad)
def conv_input_grad(
    plan: Any, g: Any, w: Any, x_shape: Ints, stride: Ints, padding: Pairs, dilation: Ints,
    groups: int = 1,
) -> Any:  # fmt: skip
    """g (N, O, *out), w (O, C/groups, *k) -> (N, C, *spatial) == x_shape."""
    shape = _shape(x_shape, w.shape, g.shape, stride, padding, dilation, groups)
    if not floats(g, w) or shape is None:
        return NotImplemented
    g, w = plan.as_contiguous(g), plan.as_contiguous(w)
    y = plan.empty(tuple(x_shape), g.dtype)
    if shape.plain:
        plan.call(
            pointwise, g, w, None, y, 0, shape.N, groups, shape.outputs // groups, shape.C // groups,
            shape.H * shape.W, 1, dtype=g.dtype, work=shape.work,
        )  # fmt: skip
    elif depthwise.suits(g.dtype, shape):
        depthwise.correlate(plan, g, w, None, y, shape, back=True)
    elif winograd.suits(g.dtype, shape, shape.H, shape.W):
        winograd.correlate(plan, g, w, None, y, shape, back=True)
    else:
        _correlate(plan, g, w, None, y, shape, *shape.sides(_back_side), back=1)
    return y


@twin(numpy_kernels.conv_weight_grad)
def conv_weight_grad(
    plan: Any, g: Any, x: Any, w_shape: Ints, stride: Ints, padding: Pairs, dilation: Ints,
    groups: int = 1,
) -> Any:  # fmt: skip
    """g (N, O, *out), x (N, C, *spatial) -> (O, C/groups, *k) == w_shape."""
    shape = _shape(x.shape, w_shape, g.shape, stride, padding, dilation, groups)
    if not floats(g, x) or shape is None:
        return NotImplemented
    g, x = plan.as_contiguous(g), plan.as_contiguous(x)
    dtype, G = np.dtype(x.dtype), groups
    Cs, Og, K = shape.C // G, shape.outputs // G, math.prod(shape.kernel)
    y = plan.empty(tuple(w_shape), dtype)
    if winograd.suits(dtype, shape, shape.OH, shape.OW):
        winograd.weight_grad(plan, g, x, y, shape)
        return y
    used = plan.empty((1,), np.int64)
    # Each thread has a total of its own: fewer threads where weights are many.
    most = max(2, min(MOST, TOTALS // (shape.outputs * Cs * K)))
    total = plan.empty((most, shape.outputs * Cs * K), dtype)
    if shape.plain:
        plan.call(
            pointwise_weight, g, x, total, used, shape.N, G, Cs, Og, shape.H * shape.W, most,
            dtype=dtype, work=shape.work,
        )  # fmt: skip
    else:
        lanes = machine()[0] // dtype.itemsize
        tall, wide = shape.sides(_forward_side)
        cut = _panels(shape.N, tall.f * wide.f * shape.C, tall, wide, lanes)
        extra = max(taps for _, taps in (*_WIDE.values(), *_NARROW.values()))
        length = -(-cut.length // VECTOR) * VECTOR + VECTOR
        taps = plan.empty((Cs * K + extra,), np.int64)
        buf = plan.empty((most, cut.size), dtype)
        rows_of_g = plan.empty((most * shape.outputs * length + VECTOR,), dtype)
        sums = plan.empty((most, 32), dtype)
        plan.call(
            shifts_of, taps, Cs, shape.C, *shape.kernel, *shape.stride, *shape.dilation, tall.f,
            wide.f, cut.pitch, cut.line, extra, dtype=dtype,
        )  # fmt: skip
        plan.call(
            weight_grad, g, x, total, used, taps, buf, rows_of_g, sums, lanes, shape.N, G, Cs,
            shape.H, shape.W, Og, shape.OH, shape.OW, K, tall.f, wide.f, tall.s, wide.s, tall.d,
            wide.d, tall.a, wide.a, tall.length, wide.length, cut.line, wide.pitch, cut.images,
            cut.bands, cut.rows, tall.j, cut.size, cut.pitch, length, most, dtype=dtype,
            work=shape.work,
        )  # fmt: skip
    plan.call(
        add_parts, total, used, y, shape.outputs * Cs * K, dtype=dtype, work=shape.outputs * Cs * K
    )
    return y
