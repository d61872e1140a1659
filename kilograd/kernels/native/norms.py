"""Normalisation of rows, channels, and groups of channels.

With mean m, r = 1/√(variance + eps), weight w, d = x - m, and over the D elements normalised together
S = Σ g w d and T = Σ g w, the gradient is

    dx = g a + d b + c      a = r w      b = -S r³/D      c = -T r/D

Sums are taken about the mean (or near it), where they do not cancel: numbers far from zero keep their
digits. They are summed in blocks in the element type, and the blocks in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kilograd.kernels import norm
from kilograd.kernels.native.build import T, f64, inline, native, share
from kilograd.kernels.native.plan import floats, size, twin
from kilograd.kernels.native.reductions import sum_columns

SHORT = 64  # planes shorter than this are taken as columns
COLUMNS = 1024  # so many at a time, for their sums to stay in the cache
CHUNK = 32  # rows whose share of dw and db one thread adds up


# --- sums of rows ---------------------------------------------------------------------------------


@inline
def total(x, at, n):
    """Σ x."""
    s = f64(0)
    for i in range(at, at + n, 256):
        part = T(0)
        for j in range(i, min(i + 256, at + n)):
            part += x[j]
        s += f64(part)
    return s


@inline
def moments(x, at, n, k):
    """Σ (x - k) and Σ (x - k)²."""
    s = f64(0)
    q = f64(0)
    for i in range(at, at + n, 256):
        a = T(0)
        b = T(0)
        for j in range(i, min(i + 256, at + n)):
            d = x[j] - k
            a += d
            b += d * d
        s += f64(a)
        q += f64(b)
    return s, q


@inline
def products(g, x, at, n, k):
    """Σ g and Σ g (x - k)."""
    s = f64(0)
    q = f64(0)
    for i in range(at, at + n, 256):
        a = T(0)
        b = T(0)
        for j in range(i, min(i + 256, at + n)):
            a += g[j]
            b += g[j] * (x[j] - k)
        s += f64(a)
        q += f64(b)
    return s, q


@inline
def weighted_products(g, w, x, at, n, k):
    """Σ g w and Σ g w (x - k), w being of one row."""
    s = f64(0)
    q = f64(0)
    for i in range(0, n, 256):
        a = T(0)
        b = T(0)
        for j in range(i, min(i + 256, n)):
            v = g[at + j] * w[j]
            a += v
            b += v * (x[at + j] - k)
        s += f64(a)
        q += f64(b)
    return s, q


@inline
def row_moments(x, at, n):
    """Near the mean, what is missing to the mean, and the variance."""
    k = T(total(x, at, n) / n)
    s, q = moments(x, at, n, k)
    rest = s / n
    return k, rest, max(q / n - rest * rest, 0.0)


# --- rows -----------------------------------------------------------------------------------------


@native(
    "T* x, T* w, T* b, T* y, T* mean, T* r, i64 n, i64 width, f64 eps, i64 has_w, i64 has_b",
    sums=True,
)
def layer_norm_rows(x, w, b, y, mean, r, n, width, eps, has_w, has_b, part, parts):
    """y, and each row's mean and r."""
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        at = i * width
        k, rest, var = row_moments(x, at, width)
        root = 1 / math.sqrt(var + eps)
        mean[i] = T(f64(k) + rest)
        r[i] = T(root)
        a = T(root)
        c = T(-rest * root)
        if has_w and has_b:
            for j in range(width):
                y[at + j] = ((x[at + j] - k) * a + c) * w[j] + b[j]
            continue
        for j in range(at, at + width):
            y[j] = (x[j] - k) * a + c
        if has_w:
            for j in range(width):
                y[at + j] *= w[j]
        if has_b:
            for j in range(width):
                y[at + j] += b[j]


@native(
    "T* g, T* x, T* w, T* mean, T* r, T* dx, T* dw, T* db, i64 n, i64 width, i64 has_w", sums=True
)
def layer_norm_gradient_rows(g, x, w, mean, r, dx, dw, db, n, width, has_w, part, parts):
    """dx, and for every CHUNK rows a row of dw and of db."""
    start, stop = share((n + CHUNK - 1) // CHUNK, part, parts)
    for chunk in range(start, stop):
        to = chunk * width
        for j in range(to, to + width):
            dw[j] = T(0)
            db[j] = T(0)
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            at = i * width
            k = mean[i]
            a = r[i]
            if has_w:
                t, s = weighted_products(g, w, x, at, width, k)
            else:
                t, s = products(g, x, at, width, k)
            root = f64(a)
            b = T(-s * root * root * root / width)
            c = T(-t * root / width)
            if has_w:
                for j in range(width):
                    v = g[at + j]
                    d = x[at + j] - k
                    dw[to + j] += v * (d * a)
                    db[to + j] += v
                    dx[at + j] = v * (w[j] * a) + (d * b + c)
            else:
                for j in range(width):
                    v = g[at + j]
                    d = x[at + j] - k
                    dw[to + j] += v * (d * a)
                    db[to + j] += v
                    dx[at + j] = v * a + (d * b + c)


@native("T* x, T* w, T* y, T* r, i64 n, i64 width, f64 eps, i64 has_w", sums=True)
def rms_norm_rows(x, w, y, r, n, width, eps, has_w, part, parts):
    """y, and each row's r."""
    start, stop = share(n, part, parts)
    for i in range(start, stop):
        at = i * width
        _, q = moments(x, at, width, T(0))
        a = T(1 / math.sqrt(q / width + eps))
        r[i] = a
        if has_w:
            for j in range(width):
                y[at + j] = x[at + j] * a * w[j]
        else:
            for j in range(at, at + width):
                y[j] = x[j] * a


@native("T* g, T* x, T* w, T* r, T* dx, T* dw, i64 n, i64 width, i64 has_w", sums=True)
def rms_norm_gradient_rows(g, x, w, r, dx, dw, n, width, has_w, part, parts):
    """dx, and for every CHUNK rows a row of dw."""
    start, stop = share((n + CHUNK - 1) // CHUNK, part, parts)
    for chunk in range(start, stop):
        to = chunk * width
        for j in range(to, to + width):
            dw[j] = T(0)
        for i in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK)):
            at = i * width
            a = r[i]
            root = f64(a)
            if has_w:
                _, s = weighted_products(g, w, x, at, width, T(0))
                b = T(-s * root * root * root / width)
                for j in range(width):
                    v = g[at + j]
                    u = x[at + j]
                    dw[to + j] += v * (u * a)
                    dx[at + j] = v * (w[j] * a) + u * b
            else:
                _, s = products(g, x, at, width, T(0))
                b = T(-s * root * root * root / width)
                for j in range(width):
                    v = g[at + j]
                    u = x[at + j]
                    dw[to + j] += v * (u * a)
                    dx[at + j] = v * a + u * b


# --- channels of (n, channels, length), each plane a row of memory ---------------------------------


@inline
def plane_moments(x, c, n, channels, length):
    """Of channel c: near the mean, what is missing to the mean, and the variance.

    The first plane's mean is usually near enough to sum about.
    """
    count = n * length
    k = T(total(x, c * length, length) / length)
    rest = 0.0
    var = 0.0
    for _ in range(2):
        s = 0.0
        q = 0.0
        for i in range(n):
            a, b = moments(x, (i * channels + c) * length, length, k)
            s += a
            q += b
        rest = s / count
        var = max(q / count - rest * rest, 0.0)
        if rest * rest <= 8 * var:
            break
        k = T(f64(k) + rest)
        rest = 0.0
    return k, rest, var


@native("T* x, T* mean, T* var, i64 n, i64 channels, i64 length", sums=True)
def moments_of_planes(x, mean, var, n, channels, length, part, parts):
    """Mean and variance of each channel."""
    start, stop = share(channels, part, parts)
    for c in range(start, stop):
        k, rest, v = plane_moments(x, c, n, channels, length)
        mean[c] = T(f64(k) + rest)
        var[c] = T(v)


@native(
    "T* x, T* w, T* b, T* y, T* mean, T* r, T* var, i64 n, i64 channels, i64 length, f64 eps, i64 has_w, i64 has_b",
    sums=True,
)
def batch_norm_planes(
    x, w, b, y, mean, r, var, n, channels, length, eps, has_w, has_b, part, parts
):  # fmt: skip
    """y, and each channel's mean, r and variance."""
    start, stop = share(channels, part, parts)
    for channel in range(start, stop):
        k, rest, v = plane_moments(x, channel, n, channels, length)
        root = 1 / math.sqrt(v + eps)
        mean[channel] = T(f64(k) + rest)
        r[channel] = T(root)
        var[channel] = T(v)
        if has_w:
            root *= f64(w[channel])
        a = T(root)
        c = T(-rest * root + (f64(b[channel]) if has_b else 0.0))
        for i in range(n):
            at = (i * channels + channel) * length
            for j in range(at, at + length):
                y[j] = (x[j] - k) * a + c


@native(
    "T* g, T* x, T* w, T* mean, T* r, T* dx, T* dw, T* db, i64 n, i64 channels, i64 length, i64 has_w",
    sums=True,
)
def batch_norm_gradient_planes(
    g, x, w, mean, r, dx, dw, db, n, channels, length, has_w, part, parts
):  # fmt: skip
    """dx, dw and db, a channel at a time."""
    start, stop = share(channels, part, parts)
    count = n * length
    for channel in range(start, stop):
        k = mean[channel]
        t = 0.0
        s = 0.0
        for i in range(n):
            t_i, s_i = products(g, x, (i * channels + channel) * length, length, k)
            t += t_i
            s += s_i
        root = f64(r[channel])
        dw[channel] = T(s * root)
        db[channel] = T(t)
        scale = root * f64(w[channel]) if has_w else root
        a = T(scale)
        b = T(-s * root * root * scale / count)
        c = T(-t * scale / count)
        for i in range(n):
            at = (i * channels + channel) * length
            for j in range(at, at + length):
                dx[j] = g[j] * a + ((x[j] - k) * b + c)


@native("T* x, T* a, T* c, T* y, i64 planes, i64 length, i64 period", sums=True)
def scaled_planes(x, a, c, y, planes, length, period, part, parts):
    """Each plane x a + c, the numbers repeating after ``period`` planes."""
    start, stop = share(planes, part, parts)
    for i in range(start, stop):
        s = a[i % period]
        t = c[i % period]
        for j in range(i * length, (i + 1) * length):
            y[j] = x[j] * s + t


@native("T* x, T* a, T* c, T* y, i64 n, i64 width", sums=True)
def scaled_columns(x, a, c, y, n, width, part, parts):
    """x (n, width) a + c, numbers for each column."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        for j in range(width):
            y[at + j] = x[at + j] * a[j] + c[j]


@native("T* g, T* x, T* a, T* b, T* c, T* dx, i64 planes, i64 length, i64 period", sums=True)
def scaled_gradient_planes(g, x, a, b, c, dx, planes, length, period, part, parts):
    """Each plane g a + x b + c, the numbers repeating after ``period`` planes."""
    start, stop = share(planes, part, parts)
    for i in range(start, stop):
        p = a[i % period]
        q = b[i % period]
        t = c[i % period]
        for j in range(i * length, (i + 1) * length):
            dx[j] = g[j] * p + (x[j] * q + t)


@native("T* g, T* x, T* a, T* b, T* c, T* dx, i64 n, i64 width", sums=True)
def scaled_gradient_columns(g, x, a, b, c, dx, n, width, part, parts):
    """g a + x b + c of (n, width), numbers for each column."""
    start, stop = share(n, part, parts)
    for at in range(start * width, stop * width, width):
        for j in range(width):
            dx[at + j] = g[at + j] * a[j] + (x[at + j] * b[j] + c[j])


# --- channels of (n, channels, length) as columns, where planes are short --------------------------
# Each of the channels * length columns gets its own sums; those of a channel are then put together.


@inline
def column_moments(x, n, first, stop, width, k, s, q):
    """In s and q: Σ (x - k) and Σ (x - k)² of columns; k is given for each of them."""
    for j in range(first, stop):
        s[j] = f64(0)
        q[j] = f64(0)
    for i in range(0, n - 3, 4):
        at = i * width
        for j in range(first, stop):
            d0 = x[at + j] - k[j]
            d1 = x[at + width + j] - k[j]
            d2 = x[at + 2 * width + j] - k[j]
            d3 = x[at + 3 * width + j] - k[j]
            s[j] += f64((d0 + d1) + (d2 + d3))
            q[j] += f64((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3))
    for i in range(n - n % 4, n):
        at = i * width
        for j in range(first, stop):
            d = x[at + j] - k[j]
            s[j] += f64(d)
            q[j] += f64(d * d)


@inline
def channel_from_columns(x, n, c, length, width, k, s, q):
    """Of channel c, from its columns: what is missing from k to the mean, and the variance."""
    count = n * length
    first = c * length
    rest = 0.0
    var = 0.0
    for _ in range(2):
        a = 0.0
        b = 0.0
        for j in range(first, first + length):
            a += s[j]
            b += q[j]
        rest = a / count
        var = max(b / count - rest * rest, 0.0)
        if rest * rest <= 16 * var:
            break
        # k was far off: again, about the mean (rare: the first element is usually near)
        near = T(f64(k[first]) + rest)
        for j in range(first, first + length):
            k[j] = near
        column_moments(x, n, first, first + length, width, k, s, q)
        rest = 0.0
    return rest, var


@native(
    "T* x, T* w, T* b, T* y, T* mean, T* r, T* var, T* k, T* a, T* c, f64* s, f64* q, i64 n, i64 channels, i64 length, f64 eps, i64 has_w, i64 has_b, i64 has_y",
    sums=True,
)
def batch_norm_columns(
    x, w, b, y, mean, r, var, k, a, c, s, q, n, channels, length, eps, has_w, has_b, has_y,
    part, parts,
):  # fmt: skip
    """Also the moments alone, where there is no y."""
    start, stop = share(channels, part, parts)
    width = channels * length
    step = max(1, COLUMNS // length)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        for channel in range(begin, end):
            for j in range(channel * length, (channel + 1) * length):
                k[j] = x[channel * length]
        column_moments(x, n, begin * length, end * length, width, k, s, q)
        for channel in range(begin, end):
            rest, v = channel_from_columns(x, n, channel, length, width, k, s, q)
            mean[channel] = T(f64(k[channel * length]) + rest)
            var[channel] = T(v)
            if has_y:
                root = 1 / math.sqrt(v + eps)
                r[channel] = T(root)
                if has_w:
                    root *= f64(w[channel])
                shift = -rest * root + (f64(b[channel]) if has_b else 0.0)
                for j in range(channel * length, (channel + 1) * length):
                    a[j] = T(root)
                    c[j] = T(shift)
        if has_y:
            for i in range(n):
                at = i * width
                for j in range(begin * length, end * length):
                    y[at + j] = (x[at + j] - k[j]) * a[j] + c[j]


@inline
def column_products(g, x, n, start, stop, width, k, t, s):
    """In t and s: Σ g and Σ g (x - k) of columns."""
    for j in range(start, stop):
        t[j] = f64(0)
        s[j] = f64(0)
    for i in range(0, n - 3, 4):
        at = i * width
        for j in range(start, stop):
            g0 = g[at + j]
            g1 = g[at + width + j]
            g2 = g[at + 2 * width + j]
            g3 = g[at + 3 * width + j]
            d0 = g0 * (x[at + j] - k[j])
            d1 = g1 * (x[at + width + j] - k[j])
            d2 = g2 * (x[at + 2 * width + j] - k[j])
            d3 = g3 * (x[at + 3 * width + j] - k[j])
            t[j] += f64((g0 + g1) + (g2 + g3))
            s[j] += f64((d0 + d1) + (d2 + d3))
    for i in range(n - n % 4, n):
        at = i * width
        for j in range(start, stop):
            t[j] += f64(g[at + j])
            s[j] += f64(g[at + j] * (x[at + j] - k[j]))


@native(
    "T* g, T* x, T* w, T* mean, T* r, T* dx, T* dw, T* db, T* k, T* a, T* b, T* c, f64* t, f64* s, i64 n, i64 channels, i64 length, i64 has_w",
    sums=True,
)
def batch_norm_gradient_columns(
    g, x, w, mean, r, dx, dw, db, k, a, b, c, t, s, n, channels, length, has_w, part, parts
):  # fmt: skip
    """dx, dw and db, COLUMNS at a time."""
    start, stop = share(channels, part, parts)
    width = channels * length
    count = n * length
    step = max(1, COLUMNS // length)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        for channel in range(begin, end):
            for j in range(channel * length, (channel + 1) * length):
                k[j] = mean[channel]
        column_products(g, x, n, begin * length, end * length, width, k, t, s)
        for channel in range(begin, end):
            t_all = 0.0
            s_all = 0.0
            for j in range(channel * length, (channel + 1) * length):
                t_all += t[j]
                s_all += s[j]
            root = f64(r[channel])
            dw[channel] = T(s_all * root)
            db[channel] = T(t_all)
            scale = root * f64(w[channel]) if has_w else root
            for j in range(channel * length, (channel + 1) * length):
                a[j] = T(scale)
                b[j] = T(-s_all * root * root * scale / count)
                c[j] = T(-t_all * scale / count)
        for i in range(n):
            at = i * width
            for j in range(begin * length, end * length):
                dx[at + j] = g[at + j] * a[j] + ((x[at + j] - k[j]) * b[j] + c[j])


# --- groups ---------------------------------------------------------------------------------------


@native(
    "T* x, T* w, T* b, T* y, T* mean, T* r, i64 n, i64 groups, i64 per, i64 length, f64 eps, i64 has_w, i64 has_b",
    sums=True,
)
def group_norm_rows(
    x, w, b, y, mean, r, n, groups, per, length, eps, has_w, has_b, part, parts
):  # fmt: skip
    """Groups of ``per`` channels."""
    start, stop = share(n * groups, part, parts)
    for i in range(start, stop):
        at = i * per * length
        k, rest, var = row_moments(x, at, per * length)
        root = 1 / math.sqrt(var + eps)
        mean[i] = T(f64(k) + rest)
        r[i] = T(root)
        for p in range(per):
            channel = i % groups * per + p
            scale = root * f64(w[channel]) if has_w else root
            a = T(scale)
            c = T(-rest * scale + (f64(b[channel]) if has_b else 0.0))
            for j in range(at + p * length, at + (p + 1) * length):
                y[j] = (x[j] - k) * a + c


@native(
    "T* g, T* x, T* w, T* mean, T* r, T* dx, T* dw, T* db, i64 n, i64 groups, i64 per, i64 length, i64 has_w",
    sums=True,
)
def group_norm_gradient_rows(
    g, x, w, mean, r, dx, dw, db, n, groups, per, length, has_w, part, parts
):  # fmt: skip
    """dx, and each sample's dw and db (n, channels)."""
    start, stop = share(n * groups, part, parts)
    count = per * length
    for i in range(start, stop):
        k = mean[i]
        root = f64(r[i])
        t = 0.0
        s = 0.0
        for p in range(i * per, (i + 1) * per):
            t_p, s_p = products(g, x, p * length, length, k)
            dw[p] = T(s_p * root)
            db[p] = T(t_p)
            v = f64(w[p % (groups * per)]) if has_w else 1.0
            t += t_p * v
            s += s_p * v
        b = T(-s * root * root * root / count)
        c = T(-t * root / count)
        for p in range(i * per, (i + 1) * per):
            a = T(root * f64(w[p % (groups * per)]) if has_w else root)
            for j in range(p * length, (p + 1) * length):
                dx[j] = g[j] * a + ((x[j] - k) * b + c)


# --- twins ----------------------------------------------------------------------------------------


def _served(x: Any, *others: Any) -> bool:
    """Whether all are of one float dtype, and x has elements."""
    return floats(x, *others) and size(x.shape) > 0


def _column_sums(plan: Any, x: Any) -> Any:
    """x (n, width) -> (width,); x itself where it is one row."""
    n, width = x.shape
    if n == 1:
        return plan.reshape(x, (width,))
    y, acc = plan.empty((width,), x.dtype), plan.empty((width,), np.float64)
    plan.call(sum_columns, x, y, acc, 1, n, width, 1.0, dtype=x.dtype, work=n * width)
    return y


def _has(w: Any) -> int:
    return 0 if w is None else 1


def _packed(plan: Any, *arrays: Any) -> list[Any]:
    """The arrays in C order, None as it is."""
    return [None if a is None else plan.as_contiguous(a) for a in arrays]


@twin(norm.layer_norm)
def layer_norm(plan: Any, x: Any, w: Any, b: Any, eps: float) -> Any:
    """y, mean, r."""
    if not _served(x, w, b):
        return NotImplemented
    x, w, b = _packed(plan, x, w, b)
    dtype = x.dtype
    n, width = x.shape
    y, mean, r = plan.empty(x.shape, dtype), plan.empty((n,), dtype), plan.empty((n,), dtype)
    sizes = (n, width, float(eps), _has(w), _has(b))
    plan.call(layer_norm_rows, x, w, b, y, mean, r, *sizes, dtype=dtype, work=3 * n * width)
    return y, mean, r


@twin(norm.layer_norm_gradient)
def layer_norm_gradient(plan: Any, g: Any, x: Any, w: Any, mean: Any, r: Any) -> Any:
    """dx, dw, db."""
    if not _served(x, g, w, mean, r) or g.shape != x.shape:
        return NotImplemented
    g, x, w, mean, r = _packed(plan, g, x, w, mean, r)
    dtype = x.dtype
    n, width = x.shape
    chunks = (-(-n // CHUNK), width)
    dx, dw, db = plan.empty(x.shape, dtype), plan.empty(chunks, dtype), plan.empty(chunks, dtype)
    arrays = (g, x, w, mean, r, dx, dw, db)
    work = 4 * n * width
    plan.call(layer_norm_gradient_rows, *arrays, n, width, _has(w), dtype=dtype, work=work)
    return dx, _column_sums(plan, dw), _column_sums(plan, db)


@twin(norm.rms_norm)
def rms_norm(plan: Any, x: Any, w: Any, eps: float) -> Any:
    """y, r."""
    if not _served(x, w):
        return NotImplemented
    x, w = _packed(plan, x, w)
    dtype = x.dtype
    n, width = x.shape
    y, r = plan.empty(x.shape, dtype), plan.empty((n,), dtype)
    sizes = (n, width, float(eps), _has(w))
    plan.call(rms_norm_rows, x, w, y, r, *sizes, dtype=dtype, work=2 * n * width)
    return y, r


@twin(norm.rms_norm_gradient)
def rms_norm_gradient(plan: Any, g: Any, x: Any, w: Any, r: Any) -> Any:
    """dx, dw."""
    if not _served(x, g, w, r) or g.shape != x.shape:
        return NotImplemented
    g, x, w, r = _packed(plan, g, x, w, r)
    dtype = x.dtype
    n, width = x.shape
    dx, dw = plan.empty(x.shape, dtype), plan.empty((-(-n // CHUNK), width), dtype)
    sizes = (n, width, _has(w))
    plan.call(rms_norm_gradient_rows, g, x, w, r, dx, dw, *sizes, dtype=dtype, work=4 * n * width)
    return dx, _column_sums(plan, dw)


def _scale_layout(x: Any, a: Any) -> tuple[bool, int, int, int]:
    """Whether as columns; planes (or rows), their length, and after how many the scales repeat."""
    n, channels, length = x.shape
    if length == 1:
        each = a.shape[0] > 1  # then all elements have their own scale
        return True, 1 if each else n, n * channels if each else channels, 0
    return False, n * channels, length, a.shape[0] * channels


@twin(norm.scaled)
def scaled(plan: Any, x: Any, scale: Any, shift: Any) -> Any:
    """Scale and shift may be one row for all samples, or one for each."""
    if not _served(x, scale, shift) or scale.shape != shift.shape:
        return NotImplemented
    x, scale, shift = _packed(plan, x, scale, shift)
    y = plan.empty(x.shape, x.dtype)
    columns, n, length, period = _scale_layout(x, scale)
    arrays, work = (x, scale, shift, y), size(x.shape)
    if columns:
        plan.call(scaled_columns, *arrays, n, length, dtype=x.dtype, work=work)
    else:
        plan.call(scaled_planes, *arrays, n, length, period, dtype=x.dtype, work=work)
    return y


@twin(norm.scaled_gradient)
def scaled_gradient(plan: Any, g: Any, x: Any, a: Any, b: Any, c: Any) -> Any:
    """The scales may be one row for all samples, or one for each."""
    if not _served(x, g, a, b, c) or g.shape != x.shape or not a.shape == b.shape == c.shape:
        return NotImplemented
    g, x, a, b, c = _packed(plan, g, x, a, b, c)
    dx = plan.empty(x.shape, x.dtype)
    columns, n, length, period = _scale_layout(x, a)
    arrays, work = (g, x, a, b, c, dx), 2 * size(x.shape)
    if columns:
        plan.call(scaled_gradient_columns, *arrays, n, length, dtype=x.dtype, work=work)
    else:
        plan.call(scaled_gradient_planes, *arrays, n, length, period, dtype=x.dtype, work=work)
    return dx


@twin(norm.channel_moments)
def channel_moments(plan: Any, x: Any) -> Any:
    """Mean, variance."""
    if not _served(x):
        return NotImplemented
    x = plan.as_contiguous(x)
    dtype, work = x.dtype, size(x.shape)
    n, channels, length = x.shape
    mean, var = plan.empty((channels,), dtype), plan.empty((channels,), dtype)
    if length >= SHORT:
        plan.call(moments_of_planes, x, mean, var, n, channels, length, dtype=dtype, work=work)
        return mean, var
    k, s, q = _scratch(plan, channels * length, dtype, 1)
    arrays = (x, None, None, None, mean, None, var, k, None, None, s, q)
    sizes = (n, channels, length, 0.0, 0, 0, 0)
    plan.call(batch_norm_columns, *arrays, *sizes, dtype=dtype, work=work)
    return mean, var


def _scratch(plan: Any, width: int, dtype: Any, rows: int) -> list[Any]:
    """``rows`` rows of ``width`` elements, and two of sums in float64."""
    kinds = [dtype] * rows + [np.dtype(np.float64)] * 2
    return [plan.empty((width,), kind) for kind in kinds]


@twin(norm.batch_norm)
def batch_norm(plan: Any, x: Any, w: Any, b: Any, eps: float) -> Any:
    """y, mean, r, variance."""
    if not _served(x, w, b):
        return NotImplemented
    x, w, b = _packed(plan, x, w, b)
    dtype, work = x.dtype, 2 * size(x.shape)
    n, channels, length = x.shape
    y = plan.empty(x.shape, dtype)
    mean, r, var = (plan.empty((channels,), dtype) for _ in range(3))
    arrays = (x, w, b, y, mean, r, var)
    sizes = (n, channels, length, float(eps), _has(w), _has(b))
    if length >= SHORT:
        plan.call(batch_norm_planes, *arrays, *sizes, dtype=dtype, work=work)
    else:
        scratch = _scratch(plan, channels * length, dtype, 3)
        plan.call(batch_norm_columns, *arrays, *scratch, *sizes, 1, dtype=dtype, work=work)
    return y, mean, r, var


@twin(norm.batch_norm_gradient)
def batch_norm_gradient(plan: Any, g: Any, x: Any, w: Any, mean: Any, r: Any) -> Any:
    """dx, dw, db."""
    if not _served(x, g, w, mean, r) or g.shape != x.shape:
        return NotImplemented
    g, x, w, mean, r = _packed(plan, g, x, w, mean, r)
    dtype, work = x.dtype, 4 * size(x.shape)
    n, channels, length = x.shape
    dx = plan.empty(x.shape, dtype)
    dw, db = plan.empty((channels,), dtype), plan.empty((channels,), dtype)
    arrays = (g, x, w, mean, r, dx, dw, db)
    sizes = (n, channels, length, _has(w))
    if length >= SHORT:
        plan.call(batch_norm_gradient_planes, *arrays, *sizes, dtype=dtype, work=work)
    else:
        scratch = _scratch(plan, channels * length, dtype, 4)
        plan.call(batch_norm_gradient_columns, *arrays, *scratch, *sizes, dtype=dtype, work=work)
    return dx, dw, db


@twin(norm.group_norm)
def group_norm(plan: Any, x: Any, w: Any, b: Any, groups: int, eps: float) -> Any:
    """y, mean, r."""
    if not _served(x, w, b):
        return NotImplemented
    x, w, b = _packed(plan, x, w, b)
    dtype = x.dtype
    n, channels, length = x.shape
    y = plan.empty(x.shape, dtype)
    mean, r = plan.empty((n * groups,), dtype), plan.empty((n * groups,), dtype)
    sizes = (n, groups, channels // groups, length, float(eps), _has(w), _has(b))
    work = 3 * size(x.shape)
    plan.call(group_norm_rows, x, w, b, y, mean, r, *sizes, dtype=dtype, work=work)
    return y, mean, r


@twin(norm.group_norm_gradient)
def group_norm_gradient(plan: Any, g: Any, x: Any, w: Any, mean: Any, r: Any, groups: int) -> Any:
    """dx, dw, db."""
    if not _served(x, g, w, mean, r) or g.shape != x.shape:
        return NotImplemented
    g, x, w, mean, r = _packed(plan, g, x, w, mean, r)
    dtype = x.dtype
    n, channels, length = x.shape
    dx = plan.empty(x.shape, dtype)
    dw, db = plan.empty((n, channels), dtype), plan.empty((n, channels), dtype)
    arrays = (g, x, w, mean, r, dx, dw, db)
    sizes = (n, groups, channels // groups, length, _has(w))
    work = 4 * size(x.shape)
    plan.call(group_norm_gradient_rows, *arrays, *sizes, dtype=dtype, work=work)
    return dx, _column_sums(plan, dw), _column_sums(plan, db)
