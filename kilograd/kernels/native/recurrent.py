"""Recurrences over time: LSTM, GRU and the plain one, each a single call for all of its steps.

Threads cannot meet inside a kernel, so it is the *sequences* of the batch that are divided: every
part runs all time steps for its own, with a product of a few rows and one fused pass over the gates
per step. The gradients of the weights are one product over all steps afterwards.

Rows are packed as in ``ops/rnn.py``: step t has the rows of the ``sizes[t]`` sequences that are at
least that long. The functions of a plan here take what the ops there take and return the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.native.build import T, gemm, inline, native, share, sigmoid, tanh
from kilograd.kernels.native.plan import floats

# OpenBLAS copies the matrices of a product into blocks first, unless there are at most 100³
# multiplications. For a few rows the copy takes as long as the product.
_FEW, _DEEP, _PANEL = 64, 128, 64


@inline
def product(m, n, k, a, a_at, b, beta, c, c_at):
    """C = A B + beta C of A (m, k), B (k, n), C (m, n); for few rows, in small products.

    B lies in panels, each a contiguous matrix (k, 64): rows that are a power of two apart would
    compete for the same places in the cache.
    """
    deep = _DEEP if m <= _FEW else k
    for j in range(0, n, _PANEL):
        width = min(_PANEL, n - j)
        for i in range(0, k, deep):
            gemm(
                0, 0, m, width, min(deep, k - i), T(1), a, a_at + i, k, b, j * k + i * width, width,
                beta if i == 0 else T(1), c, c_at + j, n,
            )  # fmt: skip


@inline
def copy(x, x_at, y, y_at, n):
    """y = x."""
    for i in range(n):
        y[y_at + i] = x[x_at + i]


@inline
def add(x, x_at, y, y_at, z, z_at, n):
    """z = x + y."""
    for i in range(n):
        z[z_at + i] = x[x_at + i] + y[y_at + i]


@inline
def transpose_tile(x, x_at, columns, y, y_at, rows, r, r_stop, c, c_stop):
    """y[c, r] = x[r, c] for some rows and columns of x (rows, columns)."""
    for j in range(c, c_stop):
        for i in range(r, r_stop):
            y[y_at + j * rows + i] = x[x_at + i * columns + j]


@native("T* x, T* y, i64 n, i64 k")
def transposed_panels(x, y, n, k, part, parts):
    """xᵀ (k, n) in panels, in tiles: what is read of a cache line is used while it is there."""
    start, stop = share((k + 15) // 16, part, parts)
    for first in range(0, n, _PANEL):
        rows, at = min(_PANEL, n - first), first * k
        whole = rows - rows % 4
        for block in range(start, stop):
            c = block * 16
            c_stop = min(c + 16, k)
            if c_stop - c == 16:
                for r in range(0, whole, 4):
                    for j in range(16):  # known sizes: LLVM turns these into shuffles
                        to, of = at + (c + j) * rows + r, at + r * k + c + j
                        y[to] = x[of]
                        y[to + 1] = x[of + k]
                        y[to + 2] = x[of + 2 * k]
                        y[to + 3] = x[of + 3 * k]
                transpose_tile(x, at, k, y, at, rows, whole, rows, c, c_stop)
            else:
                transpose_tile(x, at, k, y, at, rows, 0, rows, c, c_stop)


@native("T* x, T* y, i64 k, i64 n")
def panels(x, y, k, n, part, parts):
    """X (k, n) in panels."""
    start, stop = share(k, part, parts)
    for first in range(0, n, _PANEL):
        width = min(_PANEL, n - first)
        for i in range(start, stop):
            copy(x, i * n + first, y, first * k + i * width, width)


@native("T* x, T* g, T* out, i64 rows, i64 n, i64 k")
def weight_gradient(x, g, out, rows, n, k, part, parts):
    """Out (n, k) = gᵀ x over all rows of g (rows, n), x (rows, k)."""
    start, stop = share(n, part, parts)
    if stop > start:
        gemm(1, 0, stop - start, k, rows, T(1), g, start, n, x, 0, k, T(0), out, start * k, k)


@native("T* x, T* out, i64 rows, i64 n")
def column_sums(x, out, rows, n, part, parts):
    """Out (n) = the sum of the rows of x (rows, n), four at a time."""
    start, stop = share(n, part, parts)
    for j in range(start, stop):
        out[j] = T(0)
    whole = rows - rows % 4
    for r in range(0, whole, 4):
        for j in range(start, stop):
            a = x[r * n + j] + x[r * n + n + j]
            b = x[r * n + 2 * n + j] + x[r * n + 3 * n + j]
            out[j] += a + b
    for r in range(whole, rows):
        for j in range(start, stop):
            out[j] += x[r * n + j]


# --- LSTM -----------------------------------------------------------------------------------------


@inline
def lstm_cell(gates, from_h, f, bias, biased, act, a, c, s, c_before, tanh_c, k, out, size):
    """One row: the gates' activations, the new cell, and what the output gate lets out of it."""
    for j in range(size):
        x_i = gates[a + j] + from_h[f + j]
        x_f = gates[a + size + j] + from_h[f + size + j]
        x_g = gates[a + 2 * size + j] + from_h[f + 2 * size + j]
        x_o = gates[a + 3 * size + j] + from_h[f + 3 * size + j]
        if biased:
            x_i += bias[j]
            x_f += bias[size + j]
            x_g += bias[2 * size + j]
            x_o += bias[3 * size + j]
        into, keep, new, show = sigmoid(x_i), sigmoid(x_f), tanh(x_g), sigmoid(x_o)
        before = c[s + j]
        now = keep * before + into * new
        t = tanh(now)
        act[a + j] = into
        act[a + size + j] = keep
        act[a + 2 * size + j] = new
        act[a + 3 * size + j] = show
        c_before[k + j] = before
        c[s + j] = now
        tanh_c[k + j] = t
        out[s + j] = show * t


@native(
    "T* gates, T* bias, T* h0, T* c0, T* w, T* w_hr, T* y, T* h, T* c, T* act, T* before,"
    "T* c_before, T* tanh_c, T* from_h, T* out, i64* sizes, i64 steps, i64 rows, i64 batch,"
    "i64 size, i64 wide, i64 reverse, i64 biased, i64 projected"
)
def lstm_forward(
    gates, bias, h0, c0, w, w_hr, y, h, c, act, before, c_before, tanh_c, from_h, out, sizes, steps,
    rows, batch, size, wide, reverse, biased, projected, part, parts,
):  # fmt: skip
    """All steps; wᵀ (P, 4H), w_hrᵀ (H, P) lie in panels, from_h (B, 4H), out (B, H) are scratch."""
    start, stop = share(batch, part, parts)
    copy(h0, start * wide, h, start * wide, (stop - start) * wide)
    copy(c0, start * size, c, start * size, (stop - start) * size)
    at = rows if reverse else 0
    for t in range(steps):
        n = sizes[steps - 1 - t if reverse else t]
        if reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row = at + start
            copy(h, start * wide, before, row * wide, m * wide)
            product(m, 4 * size, wide, h, start * wide, w, T(0), from_h, start * 4 * size)
            for i in range(m):
                k, s = (row + i) * size, (start + i) * size
                lstm_cell(
                    gates, from_h, 4 * s, bias, biased, act, 4 * k, c, s, c_before, tanh_c, k,
                    out if projected else h, size,
                )  # fmt: skip
            if projected:
                product(m, wide, size, out, start * size, w_hr, T(0), h, start * wide)
            copy(h, start * wide, y, row * wide, m * wide)
        if not reverse:
            at += n


@inline
def lstm_cell_gradient(act, a, c_before, tanh_c, k, out, o, gc, s, d, size):
    """From the gradients of a row's output and cell to those of its gates and the cell before."""
    for j in range(size):
        into = act[a + j]
        keep = act[a + size + j]
        new = act[a + 2 * size + j]
        show = act[a + 3 * size + j]
        t = tanh_c[k + j]
        g = out[o + j]
        g_c = gc[s + j] + g * (show * (T(1) - t * t))
        d[a + j] = g_c * (new * (into * (T(1) - into)))
        d[a + size + j] = g_c * (c_before[k + j] * (keep * (T(1) - keep)))
        d[a + 2 * size + j] = g_c * (into * (T(1) - new * new))
        d[a + 3 * size + j] = g * (t * (show * (T(1) - show)))
        gc[s + j] = g_c * keep


@native(
    "T* gy, T* gh0, T* gc0, T* w, T* w_hr, T* act, T* c_before, T* tanh_c, T* d, T* gh, T* gc,"
    "T* gys, T* shown, T* out, i64* sizes, i64 steps, i64 rows, i64 batch, i64 size, i64 wide,"
    "i64 reverse, i64 projected"
)
def lstm_backward(
    gy, gh0, gc0, w, w_hr, act, c_before, tanh_c, d, gh, gc, gys, shown, out, sizes, steps, rows,
    batch, size, wide, reverse, projected, part, parts,
):  # fmt: skip
    """All steps, the last one first; w (4H, P) and w_hr (P, H) lie in panels.

    gys (rows, P): gradients of what each step gave; shown (rows, H): what w_hr was multiplied by.
    """
    start, stop = share(batch, part, parts)
    copy(gh0, start * wide, gh, start * wide, (stop - start) * wide)
    copy(gc0, start * size, gc, start * size, (stop - start) * size)
    at = 0 if reverse else rows
    for t in range(steps):
        n = sizes[t if reverse else steps - 1 - t]
        if not reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row = at + start
            if projected:
                add(gy, row * wide, gh, start * wide, gys, row * wide, m * wide)
                product(m, size, wide, gys, row * wide, w_hr, T(0), out, start * size)
                for i in range(m):
                    a, k = (row + i) * 4 * size + 3 * size, (row + i) * size
                    for j in range(size):
                        shown[k + j] = act[a + j] * tanh_c[k + j]
            else:
                add(gy, row * wide, gh, start * wide, out, start * wide, m * wide)
            for i in range(m):
                a, k, s = (row + i) * 4 * size, (row + i) * size, (start + i) * size
                lstm_cell_gradient(act, a, c_before, tanh_c, k, out, s, gc, s, d, size)
            product(m, wide, 4 * size, d, row * 4 * size, w, T(0), gh, start * wide)
        if reverse:
            at += n


def lstm(
    plan: Any, gates: Any, h: Any, c: Any, w: Any, bias: Any, w_hr: Any, *, sizes: Any, reverse: Any
) -> Any:
    """``ops.rnn.lstm``'s forward: ((y, h, c), act, before, c_before, tanh_c)."""
    if not floats(gates, h, c, w, bias, w_hr):
        return NotImplemented
    dtype, rows, (batch, size), wide = gates.dtype, gates.shape[0], c.shape, h.shape[1]
    before, y = (plan.empty((rows, wide), dtype) for _ in range(2))
    c_before, tanh_c = (plan.empty((rows, size), dtype) for _ in range(2))
    act = plan.empty((rows, 4 * size), dtype)
    last_h, last_c = plan.empty((batch, wide), dtype), plan.empty((batch, size), dtype)
    out = None if w_hr is None else plan.empty((batch, size), dtype)
    plan.call(
        lstm_forward, *_ready(plan, gates, bias, h, c), _transposed(plan, w),
        _transposed(plan, w_hr), y, last_h, last_c, act, before, c_before,
        tanh_c, plan.empty((batch, 4 * size), dtype), out, *_time(sizes), rows, batch, size, wide, reverse, bias is not None,
        w_hr is not None, dtype=dtype, work=rows * size * (wide // 2 + 40),
    )  # fmt: skip
    return (y, last_h, last_c), act, before, c_before, tanh_c


def lstm_gradient(
    plan: Any, g: Any, w: Any, w_hr: Any, act: Any, before: Any, c_before: Any, tanh_c: Any,
    sizes: Any, reverse: Any,
) -> Any:  # fmt: skip
    """The rule of ``ops.rnn.lstm``: gradients of gates, h, c, w, bias and w_hr."""
    if not floats(*g, w, w_hr, act, before, c_before, tanh_c):
        return NotImplemented
    gy, gh, gc = _ready(plan, *g)
    act, before, c_before, tanh_c = _ready(plan, act, before, c_before, tanh_c)
    dtype, rows, (batch, size), wide = act.dtype, act.shape[0], gc.shape, gh.shape[1]
    d = plan.empty((rows, 4 * size), dtype)
    d_h, d_c = plan.empty((batch, wide), dtype), plan.empty((batch, size), dtype)
    gys = None if w_hr is None else plan.empty((rows, wide), dtype)
    shown = None if w_hr is None else plan.empty((rows, size), dtype)
    plan.call(
        lstm_backward, gy, gh, gc, _panels(plan, w), _panels(plan, w_hr), act, c_before, tanh_c, d, d_h, d_c, gys,
        shown, plan.empty((batch, size), dtype), *_time(sizes), rows, batch, size, wide, reverse,
        w_hr is not None, dtype=dtype, work=rows * size * (wide // 2 + 20),
    )  # fmt: skip
    g_hr = None if w_hr is None else _weight_gradient(plan, shown, gys)
    return d, d_h, d_c, _weight_gradient(plan, before, d), _column_sums(plan, d), g_hr


# --- GRU ------------------------------------------------------------------------------------------


@inline
def gru_cell(act, a, gates, from_h, f, bias, biased, inner, k, h, s, size):
    """One row: the activations of its gates, and the new state; ``from_h`` is h wᵀ."""
    for j in range(size):
        x_r, x_z, x_n = from_h[f + j], from_h[f + size + j], from_h[f + 2 * size + j]
        if biased:
            x_r += bias[j]
            x_z += bias[size + j]
            x_n += bias[2 * size + j]
        r = sigmoid(gates[a + j] + x_r)
        z = sigmoid(gates[a + size + j] + x_z)
        new = tanh(gates[a + 2 * size + j] + r * x_n)
        inner[k + j] = x_n
        act[a + j] = r
        act[a + size + j] = z
        act[a + 2 * size + j] = new
        h[s + j] = (h[s + j] - new) * z + new


@native(
    "T* gates, T* bias, T* h0, T* w, T* y, T* h, T* act, T* before, T* inner, T* from_h,"
    "i64* sizes, i64 steps, i64 rows, i64 batch, i64 size, i64 reverse, i64 biased"
)
def gru_forward(
    gates, bias, h0, w, y, h, act, before, inner, from_h, sizes, steps, rows, batch, size, reverse,
    biased, part, parts,
):  # fmt: skip
    """All steps; wᵀ (H, 3H) lies in panels, from_h (B, 3H) is scratch."""
    start, stop = share(batch, part, parts)
    copy(h0, start * size, h, start * size, (stop - start) * size)
    at = rows if reverse else 0
    for t in range(steps):
        n = sizes[steps - 1 - t if reverse else t]
        if reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row, here = at + start, start * size
            copy(h, here, before, row * size, m * size)
            product(m, 3 * size, size, h, here, w, T(0), from_h, 3 * here)
            for i in range(m):
                k, s = (row + i) * size, (start + i) * size
                gru_cell(act, 3 * k, gates, from_h, 3 * s, bias, biased, inner, k, h, s, size)
            copy(h, here, y, row * size, m * size)
        if not reverse:
            at += n


@inline
def gru_cell_gradient(gy, act, a, before, inner, k, d, d_h, gh, s, size):
    """From the gradient of a row's new state to those of its gates, and z's share of the one before."""
    for j in range(size):
        r, z, new = act[a + j], act[a + size + j], act[a + 2 * size + j]
        g = gh[s + j] + gy[k + j]
        to_new = g * ((T(1) - z) * (T(1) - new * new))
        to_r = to_new * (inner[k + j] * (r * (T(1) - r)))
        to_z = g * ((before[k + j] - new) * (z * (T(1) - z)))
        d[a + j] = to_r
        d[a + size + j] = to_z
        d[a + 2 * size + j] = to_new
        d_h[a + j] = to_r
        d_h[a + size + j] = to_z
        d_h[a + 2 * size + j] = to_new * r
        gh[s + j] = g * z


@native(
    "T* gy, T* gh0, T* w, T* act, T* before, T* inner, T* d, T* d_h, T* gh, i64* sizes, i64 steps,"
    "i64 rows, i64 batch, i64 size, i64 reverse"
)
def gru_backward(
    gy, gh0, w, act, before, inner, d, d_h, gh, sizes, steps, rows, batch, size, reverse, part,
    parts,
):  # fmt: skip
    """All steps, the last one first; w (3H, H) lies in panels, d_h the gradients of the state's share."""
    start, stop = share(batch, part, parts)
    copy(gh0, start * size, gh, start * size, (stop - start) * size)
    at = 0 if reverse else rows
    for t in range(steps):
        n = sizes[t if reverse else steps - 1 - t]
        if not reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row = at + start
            for i in range(m):
                k, s = (row + i) * size, (start + i) * size
                gru_cell_gradient(gy, act, 3 * k, before, inner, k, d, d_h, gh, s, size)
            product(m, size, 3 * size, d_h, row * 3 * size, w, T(1), gh, start * size)
        if reverse:
            at += n


def gru(
    plan: Any, gates: Any, h: Any, w: Any, bias: Any, *, sizes: Any, reverse: Any
) -> Any:  # fmt: skip
    """``ops.rnn.gru``'s forward: ((y, h), act, before, inner)."""
    if not floats(gates, h, w, bias):
        return NotImplemented
    dtype, rows, (batch, size) = gates.dtype, gates.shape[0], h.shape
    y, before, inner = (plan.empty((rows, size), dtype) for _ in range(3))
    act, last = plan.empty((rows, 3 * size), dtype), plan.empty((batch, size), dtype)
    plan.call(
        gru_forward, *_ready(plan, gates, bias, h), _transposed(plan, w), y, last, act, before,
        inner, plan.empty((batch, 3 * size), dtype), *_time(sizes), rows, batch, size, reverse,
        bias is not None, dtype=dtype, work=rows * size * (size // 3 + 30),
    )  # fmt: skip
    return (y, last), act, before, inner


def gru_gradient(
    plan: Any, g: Any, w: Any, act: Any, before: Any, inner: Any, sizes: Any, reverse: Any
) -> Any:
    """The rule of ``ops.rnn.gru``: gradients of gates, h, w and bias."""
    if not floats(*g, w, act, before, inner):
        return NotImplemented
    gy, gh, act, before, inner = _ready(plan, *g, act, before, inner)
    dtype, rows, (batch, size) = act.dtype, act.shape[0], gh.shape
    d, d_h = (plan.empty((rows, 3 * size), dtype) for _ in range(2))
    first = plan.empty((batch, size), dtype)
    plan.call(
        gru_backward, gy, gh, _panels(plan, w), act, before, inner, d, d_h, first, *_time(sizes), rows, batch,
        size, reverse, dtype=dtype, work=rows * size * (size // 3 + 20),
    )  # fmt: skip
    return d, first, _weight_gradient(plan, before, d_h), _column_sums(plan, d_h)


# --- the plain recurrence -------------------------------------------------------------------------


@native(
    "T* gates, T* bias, T* h0, T* w, T* y, T* h, T* act, T* before, i64* sizes, i64 steps,"
    "i64 rows, i64 batch, i64 size, i64 reverse, i64 biased, i64 is_tanh"
)
def rnn_forward(
    gates, bias, h0, w, y, h, act, before, sizes, steps, rows, batch, size, reverse, biased,
    is_tanh, part, parts,
):  # fmt: skip
    """All steps; wᵀ lies in panels."""
    start, stop = share(batch, part, parts)
    copy(h0, start * size, h, start * size, (stop - start) * size)
    at = rows if reverse else 0
    for t in range(steps):
        n = sizes[steps - 1 - t if reverse else t]
        if reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row, here = (at + start) * size, start * size
            copy(h, here, before, row, m * size)
            if biased:
                for i in range(m):
                    add(gates, row + i * size, bias, 0, act, row + i * size, size)
            else:
                copy(gates, row, act, row, m * size)
            product(m, size, size, h, here, w, T(1), act, row)
            if is_tanh:
                for i in range(m * size):
                    act[row + i] = tanh(act[row + i])
            else:
                for i in range(m * size):
                    x = act[row + i]
                    act[row + i] = T(0) if x <= T(0) else x  # nan stays nan
            copy(act, row, h, here, m * size)
            copy(act, row, y, row, m * size)
        if not reverse:
            at += n


@native(
    "T* gy, T* gh0, T* w, T* act, T* d, T* gh, i64* sizes, i64 steps, i64 rows, i64 batch,"
    "i64 size, i64 reverse, i64 is_tanh"
)
def rnn_backward(
    gy, gh0, w, act, d, gh, sizes, steps, rows, batch, size, reverse, is_tanh, part, parts
):
    """All steps, the last one first; w lies in panels."""
    start, stop = share(batch, part, parts)
    copy(gh0, start * size, gh, start * size, (stop - start) * size)
    at = 0 if reverse else rows
    for t in range(steps):
        n = sizes[t if reverse else steps - 1 - t]
        if not reverse:
            at -= n
        m = min(stop, n) - start
        if m > 0:
            row, here = (at + start) * size, start * size
            if is_tanh:
                for i in range(m * size):
                    y = act[row + i]
                    d[row + i] = (gy[row + i] + gh[here + i]) * (T(1) - y * y)
            else:
                for i in range(m * size):
                    slope = T(1) if act[row + i] > T(0) else T(0)
                    d[row + i] = (gy[row + i] + gh[here + i]) * slope
            product(m, size, size, d, row, w, T(0), gh, here)
        if reverse:
            at += n


def rnn(
    plan: Any, gates: Any, h: Any, w: Any, bias: Any, *, sizes: Any, reverse: Any, nonlinearity: Any
) -> Any:
    """``ops.rnn.rnn``'s forward: ((y, h), act, before)."""
    if not floats(gates, h, w, bias):
        return NotImplemented
    dtype, rows, (batch, size) = gates.dtype, gates.shape[0], h.shape
    y, act, before = (plan.empty((rows, size), dtype) for _ in range(3))
    last = plan.empty((batch, size), dtype)
    plan.call(
        rnn_forward, *_ready(plan, gates, bias, h), _transposed(plan, w), y, last, act, before,
        *_time(sizes), rows, batch, size, reverse, bias is not None, nonlinearity == "tanh",
        dtype=dtype, work=rows * size * (size // 8 + 10),
    )  # fmt: skip
    return (y, last), act, before


def rnn_gradient(
    plan: Any, g: Any, w: Any, act: Any, before: Any, sizes: Any, reverse: Any, nonlinearity: Any
) -> Any:
    """The rule of ``ops.rnn.rnn``: gradients of gates, h, w and bias."""
    if not floats(*g, w, act, before):
        return NotImplemented
    gy, gh, act, before = _ready(plan, *g, act, before)
    dtype, rows, (batch, size) = act.dtype, act.shape[0], gh.shape
    d, first = plan.empty((rows, size), dtype), plan.empty((batch, size), dtype)
    plan.call(
        rnn_backward, gy, gh, _panels(plan, w), act, d, first, *_time(sizes), rows, batch, size, reverse,
        nonlinearity == "tanh", dtype=dtype, work=rows * size * (size // 8 + 5),
    )  # fmt: skip
    return d, first, _weight_gradient(plan, before, d), _column_sums(plan, d)


# --- what they share ------------------------------------------------------------------------------


def _ready(plan: Any, *arrays: Any) -> list[Any]:
    """The arrays (None aside) in C order."""
    return [None if a is None else plan.as_contiguous(a) for a in arrays]


def _time(sizes: tuple[int, ...]) -> tuple[np.ndarray, int]:
    return np.array(sizes, np.int64), len(sizes)


def _transposed(plan: Any, w: Any) -> Any:
    """wᵀ in panels."""
    if w is None:
        return None
    n, k = w.shape
    out = plan.empty((n * k,), w.dtype)
    w = plan.as_contiguous(w)
    plan.call(transposed_panels, w, out, n, k, dtype=w.dtype, work=n * k)
    return out


def _panels(plan: Any, w: Any) -> Any:
    """W in panels; a narrow matrix is one as it is."""
    if w is None or w.shape[1] <= _PANEL:
        return None if w is None else plan.as_contiguous(w)
    out = plan.empty((w.size,), w.dtype)
    w = plan.as_contiguous(w)
    plan.call(panels, w, out, *w.shape, dtype=w.dtype, work=w.size)
    return out


def _weight_gradient(plan: Any, x: Any, g: Any) -> Any:
    rows, n, k = g.shape[0], g.shape[1], x.shape[1]
    out = plan.empty((n, k), g.dtype)
    plan.call(weight_gradient, x, g, out, rows, n, k, dtype=g.dtype, work=rows * n * k // 8)
    return out


def _column_sums(plan: Any, x: Any) -> Any:
    out = plan.empty((x.shape[1],), x.dtype)
    plan.call(column_sums, x, out, *x.shape, dtype=x.dtype, work=x.shape[0] * x.shape[1])
    return out
