"""Pooling, natively: a row of the result at a time.

A sum has a loop along the row for each element of its window: the loop is long, and borders are only
a matter of where it begins and ends. A maximum is found window by window. Windows of 2x2 that do not
overlap have loops of their own, which the compiler makes vectors of.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels import pool as numpy_kernels
from kilograd.kernels.native.build import T as T
from kilograd.kernels.native.build import inline, native, share
from kilograd.kernels.native.plan import floats, size, twin
from kilograd.kernels.pool import pool_sizes
from kilograd.kernels.window import Ints

# --- maxima ---------------------------------------------------------------------------------------


@inline
def first_in(start, dilation):
    """The first of start, start + dilation, … that is not negative."""
    return start if start >= 0 else start + (-start + dilation - 1) // dilation * dilation


@inline
def reach(offset, stride, n, out):
    """The range of windows o whose element o * stride + offset exists."""
    low = 0 if offset >= 0 else (-offset + stride - 1) // stride
    high = 0 if n <= offset else (n - offset + stride - 1) // stride
    return low, min(high, out)


@native(
    "T* x, T* y, i64* at, T lowest, i64 planes, i64 H, i64 W, i64 OH, i64 OW, i64 kh, i64 kw, "
    "i64 sh, i64 sw, i64 ph, i64 pw, i64 dh, i64 dw"
)
def max_pool(x, y, at, lowest, planes, H, W, OH, OW, kh, kw, sh, sw, ph, pw, dh, dw, part, parts):
    """y, at = the largest element of each window and its flat index in the plane.

    The first of equal ones; but the last NaN, which is larger than all.
    """
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        plane, row = (k // OH) * H * W, k % OH
        top = first_in(row * sh - ph, dh)
        bottom = min(row * sh - ph + (kh - 1) * dh + 1, H)
        for o in range(OW):
            left = first_in(o * sw - pw, dw)
            right = min(o * sw - pw + (kw - 1) * dw + 1, W)
            best, where = lowest, top * W + left
            for r in range(top, bottom, dh):
                for i in range(r * W + left, r * W + right, dw):
                    v = x[plane + i]
                    better = (v > best) | (v != v)
                    best = v if better else best
                    where = i if better else where
            y[k * OW + o] = best
            at[k * OW + o] = where


@native("T* x, T* y, i64* at, i64 planes, i64 H, i64 W, i64 OH, i64 OW")
def max_pool_2x2(x, y, at, planes, H, W, OH, OW, part, parts):
    """``max_pool`` for windows of 2x2 side by side."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        row, to = (k % OH) * 2 * W, k * OW
        a = (k // OH) * H * W + row
        b = a + W
        for o in range(OW):
            best, found = x[a + 2 * o], row + 2 * o
            where = found
            v = x[a + 2 * o + 1]
            better = (v > best) | (v != v)
            best, where = v if better else best, found + 1 if better else where
            v = x[b + 2 * o]
            better = (v > best) | (v != v)
            best, where = v if better else best, found + W if better else where
            v = x[b + 2 * o + 1]
            better = (v > best) | (v != v)
            best, where = v if better else best, found + W + 1 if better else where
            y[to + o] = best
            at[to + o] = where


@native("T* x, T* y, i64* at, i64 planes, i64 H, i64 W, i64 OH, i64 OW")
def adaptive_max(x, y, at, planes, H, W, OH, OW, part, parts):
    """y, at = the largest element of each of (OH, OW) regions, and its flat index in the plane."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        plane, row = (k // OH) * H * W, k % OH
        top, bottom = row * H // OH, -(-(row + 1) * H // OH)
        for o in range(OW):
            left, right = o * W // OW, -(-(o + 1) * W // OW)
            where = top * W + left
            best = x[plane + where]
            for r in range(top, bottom):
                for c in range(left, right):
                    v = x[plane + r * W + c]
                    if v > best or v != v:
                        best, where = v, r * W + c
            y[k * OW + o] = best
            at[k * OW + o] = where


@native("T* g, i64* at, T* x, i64* status, i64 planes, i64 area, i64 out")
def scatter_planes(g, at, x, status, planes, area, out, part, parts):
    """x (planes, area) = zeros, plus g (planes, out) at its indices."""
    start, stop = share(planes, part, parts)
    for p in range(start, stop):
        for i in range(p * area, (p + 1) * area):
            x[i] = T(0)
        for o in range(p * out, (p + 1) * out):
            i = at[o]
            if i < 0 or i >= area:
                status[0] = 1
            else:
                x[p * area + i] += g[o]


@native("T* x, i64* at, T* y, i64* status, i64 planes, i64 area, i64 out")
def gather_planes(x, at, y, status, planes, area, out, part, parts):
    """y (planes, out) = x (planes, area) at its indices."""
    start, stop = share(planes, part, parts)
    for p in range(start, stop):
        for o in range(p * out, (p + 1) * out):
            i = at[o]
            if i < 0 or i >= area:
                status[0] = 1
            else:
                y[o] = x[p * area + i]


# --- averages -------------------------------------------------------------------------------------


@inline
def counted(o, k, s, p, n, include_pad):
    """How many elements window o counts; what hangs over the padding does not."""
    start = o * s - p
    stop = min(start + k, n + p)
    return stop - start if include_pad == 1 else min(stop, n) - max(start, 0)


@native(
    "T* x, T* y, T factor, i64 even, i64 include_pad, i64 planes, i64 H, i64 W, i64 OH, i64 OW, "
    "i64 kh, i64 kw, i64 sh, i64 sw, i64 ph, i64 pw"
)
def avg_pool(
    x, y, factor, even, include_pad, planes, H, W, OH, OW, kh, kw, sh, sw, ph, pw, part, parts
):
    """y = the sum of each window times ``factor``, or if not ``even`` divided by what it counts."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        plane, row, to = (k // OH) * H * W, k % OH, k * OW
        for o in range(OW):
            y[to + o] = T(0)
        begin = row * sh - ph
        for r in range(max(begin, 0), min(begin + kh, H)):
            for j in range(kw):
                low, high = reach(j - pw, sw, W, OW)
                a = plane + r * W + j - pw
                for o in range(low, high):
                    y[to + o] += x[a + o * sw]
        if even == 1:
            for o in range(OW):
                y[to + o] *= factor
        else:
            count = counted(row, kh, sh, ph, H, include_pad)
            for o in range(OW):
                y[to + o] /= T(count * counted(o, kw, sw, pw, W, include_pad))


@native("T* x, T* y, T factor, i64 planes, i64 H, i64 W, i64 OH, i64 OW")
def avg_pool_2x2(x, y, factor, planes, H, W, OH, OW, part, parts):
    """``avg_pool`` for windows of 2x2 side by side."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        a = (k // OH) * H * W + (k % OH) * 2 * W
        b = a + W
        for o in range(OW):
            upper = x[a + 2 * o] + x[a + 2 * o + 1]
            y[k * OW + o] = (upper + (x[b + 2 * o] + x[b + 2 * o + 1])) * factor


@native(
    "T* g, T* x, T factor, i64 even, i64 include_pad, i64 planes, i64 H, i64 W, i64 OH, i64 OW, "
    "i64 kh, i64 kw, i64 sh, i64 sw, i64 ph, i64 pw"
)
def avg_unpool(
    g, x, factor, even, include_pad, planes, H, W, OH, OW, kh, kw, sh, sw, ph, pw, part, parts
):
    """The transpose of ``avg_pool``."""
    start, stop = share(planes, part, parts)
    for p in range(start, stop):
        for i in range(p * H * W, (p + 1) * H * W):
            x[i] = T(0)
        for row in range(OH):
            begin, at = row * sh - ph, (p * OH + row) * OW
            count = counted(row, kh, sh, ph, H, include_pad)
            for r in range(max(begin, 0), min(begin + kh, H)):
                for j in range(kw):
                    low, high = reach(j - pw, sw, W, OW)
                    a = (p * H + r) * W + j - pw
                    if even == 1:
                        for o in range(low, high):
                            x[a + o * sw] += g[at + o] * factor
                    else:
                        for o in range(low, high):
                            n = count * counted(o, kw, sw, pw, W, include_pad)
                            x[a + o * sw] += g[at + o] / T(n)


@native("T* g, T* x, T factor, i64 planes, i64 H, i64 W, i64 OH, i64 OW")
def avg_unpool_2x2(g, x, factor, planes, H, W, OH, OW, part, parts):
    """``avg_unpool`` for windows of 2x2 that tile x."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        a = (k // OH) * H * W + (k % OH) * 2 * W
        b = a + W
        for o in range(OW):
            v = g[k * OW + o] * factor
            x[a + 2 * o] = v
            x[a + 2 * o + 1] = v
            x[b + 2 * o] = v
            x[b + 2 * o + 1] = v


@native("T* x, T* y, i64 planes, i64 H, i64 W, i64 OH, i64 OW", sums=True)
def adaptive_avg(x, y, planes, H, W, OH, OW, part, parts):
    """y = the mean of each of (OH, OW) regions."""
    start, stop = share(planes * OH, part, parts)
    for k in range(start, stop):
        plane, row = (k // OH) * H * W, k % OH
        top, bottom = row * H // OH, -(-(row + 1) * H // OH)
        for o in range(OW):
            left, right = o * W // OW, -(-(o + 1) * W // OW)
            total = T(0)
            if OW == 1:  # whole rows: one stretch of memory
                for i in range(plane + top * W, plane + bottom * W):
                    total += x[i]
            else:
                for r in range(top, bottom):
                    for i in range(plane + r * W + left, plane + r * W + right):
                        total += x[i]
            y[k * OW + o] = total * (T(1) / T((bottom - top) * (right - left)))


@native("T* g, T* x, i64 planes, i64 H, i64 W, i64 OH, i64 OW")
def adaptive_avg_back(g, x, planes, H, W, OH, OW, part, parts):
    """The transpose of ``adaptive_avg``: neighbouring regions may share a row or a column."""
    start, stop = share(planes, part, parts)
    for p in range(start, stop):
        if OH * OW == 1:
            v = g[p] * (T(1) / T(H * W))
            for i in range(p * H * W, (p + 1) * H * W):
                x[i] = v
            continue
        for i in range(p * H * W, (p + 1) * H * W):
            x[i] = T(0)
        for row in range(OH):
            top, bottom = row * H // OH, -(-(row + 1) * H // OH)
            for o in range(OW):
                left, right = o * W // OW, -(-(o + 1) * W // OW)
                v = g[(p * OH + row) * OW + o] * (T(1) / T((bottom - top) * (right - left)))
                for r in range(top, bottom):
                    for i in range((p * H + r) * W + left, (p * H + r) * W + right):
                        x[i] += v


# --- twins ----------------------------------------------------------------------------------------


def _two(sizes: Ints, one: int) -> tuple[int, int]:
    """Sizes of two dimensions; a single one is a row."""
    return (one, *sizes)[-2:]  # type: ignore[return-value]


def _served(*arrays: Any, shape: Ints) -> bool:
    return floats(*arrays) and len(shape) in (3, 4) and 0 not in shape


@twin(numpy_kernels.max_pool_forward)
def max_pool_forward(
    plan: Any, x: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """x (N, C, *spatial) -> (y, indices), both (N, C, *out); indices int64, flat over spatial."""
    if not _served(x, shape=x.shape):
        return NotImplemented
    out = pool_sizes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    if min(out) <= 0:
        return NotImplemented
    x = plan.as_contiguous(x)
    y = plan.empty((*x.shape[:2], *out), x.dtype)
    at = plan.empty((*x.shape[:2], *out), np.int64)
    planes = x.shape[0] * x.shape[1]
    (H, W), (OH, OW) = _two(x.shape[2:], 1), _two(out, 1)
    k, s, p, d = _two(kernel, 1), _two(stride, 1), _two(padding, 0), _two(dilation, 1)
    pairs = k == s == (2, 2) and p == (0, 0) and d == (1, 1)
    if pairs and 2 * OH <= H and 2 * OW <= W:
        plan.call(max_pool_2x2, x, y, at, planes, H, W, OH, OW, dtype=x.dtype, work=size(x.shape))
    else:
        work = size(y.shape) * math.prod(kernel)
        plan.call(
            max_pool, x, y, at, -math.inf, planes, H, W, OH, OW, *k, *s, *p, *d, dtype=x.dtype,
            work=work,
        )  # fmt: skip
    return y, at


@twin(numpy_kernels.adaptive_max_pool_forward)
def adaptive_max_pool_forward(plan: Any, x: Any, output_size: Ints) -> Any:
    """x (N, C, *spatial) -> (y, indices), both (N, C, *output_size)."""
    if not _served(x, shape=x.shape) or 0 in output_size:
        return NotImplemented
    x = plan.as_contiguous(x)
    y = plan.empty((*x.shape[:2], *output_size), x.dtype)
    at = plan.empty((*x.shape[:2], *output_size), np.int64)
    plan.call(
        adaptive_max, x, y, at, x.shape[0] * x.shape[1], *_two(x.shape[2:], 1),
        *_two(output_size, 1), dtype=x.dtype, work=size(x.shape),
    )  # fmt: skip
    return y, at


@twin(numpy_kernels.pool_scatter)
def pool_scatter(plan: Any, g: Any, indices: Any, x_shape: Ints) -> Any:
    """g, indices (N, C, *out) -> (N, C, *spatial) == x_shape: g added at its indices."""
    if not floats(g) or indices.dtype != np.int64 or 0 in g.shape or 0 in x_shape:
        return NotImplemented
    x = plan.empty(tuple(x_shape), g.dtype)
    plan.call(
        scatter_planes, plan.as_contiguous(g), plan.as_contiguous(indices), x, plan.status(),
        x_shape[0] * x_shape[1], size(x_shape[2:]), size(g.shape[2:]), dtype=g.dtype,
        work=size(x_shape) + size(g.shape),
    )  # fmt: skip
    return x


@twin(numpy_kernels.pool_gather)
def pool_gather(plan: Any, x: Any, indices: Any) -> Any:
    """x (N, C, *spatial), indices (N, C, *out) -> (N, C, *out): x at indices."""
    if not floats(x) or indices.dtype != np.int64 or 0 in indices.shape or 0 in x.shape:
        return NotImplemented
    y = plan.empty(tuple(indices.shape), x.dtype)
    plan.call(
        gather_planes, plan.as_contiguous(x), plan.as_contiguous(indices), y, plan.status(),
        x.shape[0] * x.shape[1], size(x.shape[2:]), size(indices.shape[2:]), dtype=x.dtype,
        work=size(indices.shape),
    )  # fmt: skip
    return y


def _divisor(
    shape: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, include_pad: bool,
    divisor_override: int | None,
) -> tuple[float, int]:  # fmt: skip
    """What a window's sum is multiplied by, and 1; or 0 if windows count differently."""
    if divisor_override is not None:
        return 1 / divisor_override, 1
    counts = numpy_kernels._counts(shape, out, kernel, stride, padding, include_pad)
    even = all((c == k).all() for c, k in zip(counts, kernel, strict=True))
    return 1 / math.prod(kernel), int(even)


@twin(numpy_kernels.avg_pool_forward)
def avg_pool_forward(
    plan: Any, x: Any, kernel: Ints, stride: Ints, padding: Ints, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """x (N, C, *spatial) -> (N, C, *out): the mean of each window."""
    if not _served(x, shape=x.shape):
        return NotImplemented
    shape = tuple(x.shape[2:])
    out = pool_sizes(shape, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    if min(out) <= 0:
        return NotImplemented
    x = plan.as_contiguous(x)
    y = plan.empty((*x.shape[:2], *out), x.dtype)
    rule = (shape, out, kernel, stride, padding, count_include_pad, divisor_override)
    factor, even = _divisor(*rule)
    planes, (H, W), (OH, OW) = x.shape[0] * x.shape[1], _two(shape, 1), _two(out, 1)
    k, s, p = _two(kernel, 1), _two(stride, 1), _two(padding, 0)
    if k == s == (2, 2) and p == (0, 0) and even and 2 * OH <= H and 2 * OW <= W:
        plan.call(
            avg_pool_2x2, x, y, factor, planes, H, W, OH, OW, dtype=x.dtype, work=size(x.shape)
        )
    else:
        plan.call(
            avg_pool, x, y, factor, even, int(count_include_pad), planes, H, W, OH, OW, *k, *s, *p,
            dtype=x.dtype, work=size(y.shape) * math.prod(kernel),
        )  # fmt: skip
    return y


@twin(numpy_kernels.avg_pool_backward)
def avg_pool_backward(
    plan: Any, g: Any, x_shape: Ints, kernel: Ints, stride: Ints, padding: Ints,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """g (N, C, *out) -> (N, C, *spatial) == x_shape; the transpose of avg_pool_forward."""
    if not _served(g, shape=g.shape) or 0 in x_shape:
        return NotImplemented
    g = plan.as_contiguous(g)
    shape, out = tuple(x_shape[2:]), tuple(g.shape[2:])
    x = plan.empty(tuple(x_shape), g.dtype)
    rule = (shape, out, kernel, stride, padding, count_include_pad, divisor_override)
    factor, even = _divisor(*rule)
    planes, (H, W), (OH, OW) = g.shape[0] * g.shape[1], _two(shape, 1), _two(out, 1)
    k, s, p = _two(kernel, 1), _two(stride, 1), _two(padding, 0)
    if k == s == (2, 2) and p == (0, 0) and even and (2 * OH, 2 * OW) == (H, W):
        plan.call(
            avg_unpool_2x2, g, x, factor, planes, H, W, OH, OW, dtype=g.dtype, work=size(x_shape)
        )
    else:
        plan.call(
            avg_unpool, g, x, factor, even, int(count_include_pad), planes, H, W, OH, OW, *k, *s,
            *p, dtype=g.dtype, work=size(x_shape) + size(g.shape) * math.prod(kernel),
        )  # fmt: skip
    return x


@twin(numpy_kernels.adaptive_avg_pool_forward)
def adaptive_avg_pool_forward(plan: Any, x: Any, output_size: Ints) -> Any:
    """x (N, C, *spatial) -> (N, C, *output_size)."""
    if not _served(x, shape=x.shape) or 0 in output_size:
        return NotImplemented
    x = plan.as_contiguous(x)
    y = plan.empty((*x.shape[:2], *output_size), x.dtype)
    plan.call(
        adaptive_avg, x, y, x.shape[0] * x.shape[1], *_two(x.shape[2:], 1), *_two(output_size, 1),
        dtype=x.dtype, work=size(x.shape),
    )  # fmt: skip
    return y


@twin(numpy_kernels.adaptive_avg_pool_backward)
def adaptive_avg_pool_backward(plan: Any, g: Any, x_shape: Ints) -> Any:
    """g (N, C, *output_size) -> (N, C, *spatial) == x_shape; transpose of the forward."""
    if not _served(g, shape=g.shape) or 0 in x_shape:
        return NotImplemented
    g = plan.as_contiguous(g)
    x = plan.empty(tuple(x_shape), g.dtype)
    plan.call(
        adaptive_avg_back, g, x, g.shape[0] * g.shape[1], *_two(x_shape[2:], 1),
        *_two(g.shape[2:], 1), dtype=g.dtype, work=size(x_shape),
    )  # fmt: skip
    return x
