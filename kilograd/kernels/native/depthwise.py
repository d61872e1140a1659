"""Depthwise 5x5 and 7x7 convolutions of stride 1, and the gradients of x: straight from x to y.

A channel has but one weight a tap, so nearly all is loading x. Here each vector of a row of x is
loaded once for all columns of the kernel: what each of them adds up over the kernel's rows is
shifted by its column at the end, between this vector and the next, instead of x for every tap.
"""

from __future__ import annotations

import functools
from typing import Any

from kilograd.kernels.native.build import T, share
from kilograd.kernels.native.vectors import Body, machine, vector

WIDTHS = (5, 7)  # of kernels that are served: with 3, loading x for every tap is as quick


@functools.lru_cache(maxsize=1)
def vector_functions() -> dict[str, Any]:
    """One row of the result, for each width of kernel."""
    from llvmlite import ir
    from numba import types as nt
    from numba.extending import intrinsic

    def make(kw: int) -> Any:
        @intrinsic
        def row(typing_context, y, y_at, n, x, x_at, pitch, first, last, w, w_at, step, kh, shift):
            """y[p] = shift + sum over i < kh, j < kw of w[(i * kw + j) * step] * x[i * pitch + p + j].

            For p < n; of a row of x there are only the elements first to last, the others are zeros.
            """

            def generate(context: Any, builder: Any, signature: Any, a: Any) -> Any:
                on = Body(builder, y)
                i64, b = on.i64, builder
                if kw - 1 > on.lanes:  # never called
                    return context.get_dummy_value()
                target, source, weights = on.at(a[0], a[1]), on.at(a[3], a[4]), on.at(a[8], a[9])
                zero = ir.Constant(on.vector, [0.0] * on.lanes)
                lanes = ir.Constant(ir.VectorType(ir.IntType(1), on.lanes), [1] * on.lanes)

                def columns(p: Any) -> list:
                    """For each j its sums over i, at p + j where y needs them at p."""
                    before = b.xor(on.mask(b.sub(a[6], p)), lanes)
                    mask = b.and_(on.mask(b.sub(a[7], p)), before)

                    def body(i: Any, sums: list) -> list:
                        v = on.load_masked(on.at(source, b.add(p, b.mul(i, a[5]))), mask)
                        at = on.at(weights, b.mul(b.mul(i, i64(kw)), a[10]))
                        new = []
                        for s in sums:
                            new.append(on.fma(v, on.spread(at), s))
                            at = on.at(at, a[10])
                        return new

                    some = b.icmp_signed("<", p, a[7])  # behind the row there are zeros only
                    return on.loop(b.select(some, a[11], i64(0)), 1, [zero] * kw, body)

                def body(p: Any, sums: list) -> list:
                    new = columns(b.add(p, i64(on.lanes)))
                    value = b.fadd(spread_value(on, a[12]), sums[0])
                    for j in range(1, kw):
                        value = b.fadd(
                            value, on.shuffle(sums[j], new[j], list(range(j, j + on.lanes)))
                        )
                    on.store_masked(value, on.at(target, p), on.mask(b.sub(a[2], p)))
                    return new

                on.loop(a[2], on.lanes, columns(i64(0)), body)
                return context.get_dummy_value()

            i = nt.int64
            return nt.none(y, i, i, x, i, i, i, i, w, i, i, i, y.dtype), generate

        return row

    def spread_value(on: Body, value: Any) -> Any:
        undefined = ir.Constant(on.vector, ir.Undefined)
        one = on.b.insert_element(undefined, value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), on.lanes), [0] * on.lanes)
        return on.b.shuffle_vector(one, undefined, zeros)

    return {f"row{kw}": make(kw) for kw in WIDTHS}


row5: Any = None  # these are set when a kernel that uses them is compiled
row7 = row5


@vector(
    "T* x, T* w, T* bias, T* y, i64 biased, i64 N, i64 C, i64 H, i64 W, i64 OH, i64 OW, i64 kh, "
    "i64 kw, i64 ah, i64 aw, i64 back"
)
def slide(x, w, bias, y, biased, N, C, H, W, OH, OW, kh, kw, ah, aw, back, part, parts):
    """y (N, C, OH, OW) from x (N, C, H, W) by w (C, kh, kw), its taps turned round if ``back``."""
    start, stop = share(N * C, part, parts)
    for plane in range(start, stop):
        c = plane % C
        shift = bias[c] if biased == 1 else T(0)
        for r in range(OH):
            top = min(max(0, ah - r), kh)
            rows = max(0, min(kh, H + ah - r) - top)
            w_at, step = (c * kh + top) * kw, 1
            if back == 1:
                w_at, step = ((c + 1) * kh - top) * kw - 1, -1
            y_at, x_at = (plane * OH + r) * OW, (plane * H + r - ah + top) * W - aw
            if kw == 5:
                row5(y, y_at, OW, x, x_at, W, aw, W + aw, w, w_at, step, rows, shift)
            else:
                row7(y, y_at, OW, x, x_at, W, aw, W + aw, w, w_at, step, rows, shift)


def suits(dtype: Any, shape: Any) -> bool:
    """Whether a convolution (see ``conv._Shape``) is of this kind, on a machine with masked loads."""
    width, lanes = shape.kernel[1], machine()[0] // dtype.itemsize
    plain = shape.stride == (1, 1) == shape.dilation and machine()[0] >= 32
    single = shape.groups == shape.C == shape.outputs
    return plain and single and width in WIDTHS and width - 1 <= lanes


def correlate(plan: Any, x: Any, w: Any, bias: Any, y: Any, shape: Any, back: bool) -> None:
    """Plan y = x correlated with w, or, if ``back``, x spread by w."""
    (H, W), (OH, OW), (kh, kw) = (shape.H, shape.W), (shape.OH, shape.OW), shape.kernel
    ah, aw = (pair[0] for pair in shape.padding)
    if back:
        (H, W), (OH, OW) = (OH, OW), (H, W)
        ah, aw = kh - 1 - ah, kw - 1 - aw
    plan.call(
        slide, x, w, bias, y, int(bias is not None), shape.N, shape.C, H, W, OH, OW, kh, kw, ah, aw,
        int(back), dtype=x.dtype, work=shape.work,
    )  # fmt: skip
