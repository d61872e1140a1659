"""Recurrences over time, each one op: the loop over steps is plain NumPy, forward and backward.

What does not depend on the previous step is done for all steps at once, outside of the loop: the
inputs' share of the gates arrives ready (``gates``, one matrix product), and so do the gradients of
the weights (one product each).

Sequences of different lengths are *packed*: the rows of step t are those of the ``sizes[t]``
sequences that are at least that long, longest first. A plain batch is the case of equal sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels.kernel import kernel
from kilograd.ops.elementwise import relu, sigmoid, tanh
from kilograd.ops.linear import linear
from kilograd.ops.op import op
from kilograd.ops.shape import concatenate

_CACHE = 1 << 17  # elements


def steps(sizes: tuple[int, ...], reverse: bool) -> list[tuple[int, slice]]:
    """(how many sequences, their rows) of each step, in the order in which time runs."""
    spans, start = [], 0
    for n in sizes:
        spans.append((n, slice(start, start + n)))
        start += n
    return spans[::-1] if reverse else spans


def stretches(
    sizes: tuple[int, ...], reverse: bool, width: int
) -> list[tuple[slice, list[tuple[int, slice]]]]:
    """Steps in stretches of about a cache's worth of gates: (all rows of them, the steps).

    What is the same for all steps is done for a stretch at once, right before or after its steps.
    """
    result: list[tuple[slice, list[tuple[int, slice]]]] = []
    room = 0
    for n, rows in steps(sizes, reverse):
        if room < n * width:
            room = _CACHE
            result.append((rows, []))
        room -= n * width
        whole, inside = result[-1]
        inside.append((n, rows))
        result[-1] = (
            slice(min(whole.start, rows.start), max(whole.stop, rows.stop)), inside
        )  # fmt: skip
    return result


def _unrolled(step: Any, states: tuple[Any, ...], gates: Any, sizes: Any, reverse: bool) -> Any:
    """The same recurrence made of other ops: ``step(gates, *states)`` gives the new states."""
    outputs = []
    for n, rows in steps(sizes, reverse):
        new = step(gates[rows], *[s[:n] for s in states])
        outputs.append(new[0])
        states = tuple(
            a if n == len(s) else concatenate(a, s[n:], axis=0)
            for a, s in zip(new, states, strict=True)
        )
    return (concatenate(*(outputs[::-1] if reverse else outputs), axis=0), *states)


# --- the plain recurrence: h' = f(gates + W h + b) ----------------------------------------------


def _rnn_composition(gates, h, w, bias, *, sizes, reverse, nonlinearity):
    f = tanh if nonlinearity == "tanh" else relu
    return _unrolled(lambda x, h: (f(x + linear(h, w, bias)),), (h,), gates, sizes, reverse)


@op(weight=8, outputs=2, residuals=("act", "before"), composition=_rnn_composition)
@kernel
def rnn(gates, h, w, bias, *, sizes, reverse, nonlinearity):
    """gates (rows, H), h (B, H), w (H, H), bias (H) or None → y (rows, H), last h (B, H)."""
    act = gates.copy() if bias is None else gates + bias
    before = np.empty_like(act)
    h, wT = h.copy(), np.ascontiguousarray(w.T)
    for n, rows in steps(sizes, reverse):
        before[rows] = h[:n]
        a = act[rows]
        a += h[:n] @ wT
        if nonlinearity == "tanh":
            np.tanh(a, out=a)
        else:
            np.maximum(a, 0, out=a)
        h[:n] = a
    return (act.copy(), h), act, before


@rnn.vjp("gates", "h", "w", "bias")
@kernel
def rnn_gradient(g, w, act, before, sizes, reverse, nonlinearity):
    """The gradients of all inputs, from those of the outputs."""
    gy, gh = g
    slope = 1 - act * act if nonlinearity == "tanh" else (act > 0).astype(act.dtype)
    d = np.empty_like(act)
    gh = gh.copy()
    for n, rows in reversed(steps(sizes, reverse)):
        now = d[rows]
        np.add(gy[rows], gh[:n], out=now)
        now *= slope[rows]
        gh[:n] = now @ w
    return d, gh, d.T @ before, d.sum(axis=0)


# --- LSTM ---------------------------------------------------------------------------------------


def _lstm_composition(gates, h, c, w, bias, w_hr, *, sizes, reverse):
    size = c.shape[1]

    def step(x, h, c):
        a = x + linear(h, w, bias)
        i, f, g, o = (a[:, k * size : (k + 1) * size] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return (h if w_hr is None else linear(h, w_hr, None)), c

    return _unrolled(step, (h, c), gates, sizes, reverse)


@op(
    weight=8,
    outputs=3,
    residuals=("act", "before", "c_before", "tanh_c"),
    composition=_lstm_composition,
)
@kernel
def lstm(gates, h, c, w, bias, w_hr, *, sizes, reverse):
    """``c' = σ(f) c + σ(i) tanh(g)``, ``h' = σ(o) tanh(c')``; with w_hr (P, H): ``h' = w_hr h'``.

    gates (rows, 4H) in the order i f g o, h (B, P), c (B, H), w (4H, P)
    → y (rows, P), last h (B, P), last c (B, H).
    """
    size, batch = c.shape[1], len(c)
    # σ(x) = (tanh(x/2) + 1) / 2: one tanh for all four gates, the others scaled before and after
    scale = np.full(4 * size, 0.5, gates.dtype)
    scale[2 * size : 3 * size] = 1
    shift = 1 - scale
    bias = None if bias is None else bias * scale
    wT = np.ascontiguousarray((w * scale[:, None]).T)
    act = np.empty(gates.shape, gates.dtype)
    before = np.empty((len(act), h.shape[1]), act.dtype)
    c_before = np.empty((len(act), size), act.dtype)
    tanh_c = np.empty_like(c_before)
    y = np.empty_like(before)
    h, c = h.copy(), c.copy()
    product = np.empty((batch, 4 * size), act.dtype)
    term = np.empty_like(c)
    for some, inside in stretches(sizes, reverse, 4 * size):
        a = np.multiply(gates[some], scale, out=act[some])
        if bias is not None:
            a += bias
        for n, rows in inside:
            h_now, c_now, a = h[:n], c[:n], act[rows]
            before[rows] = h_now
            c_before[rows] = c_now
            a += np.matmul(h_now, wT, out=product[:n])
            np.tanh(a, out=a)
            a *= scale
            a += shift
            c_now *= a[:, size : 2 * size]
            c_now += np.multiply(a[:, :size], a[:, 2 * size : 3 * size], out=term[:n])
            t = np.tanh(c_now, out=tanh_c[rows])
            if w_hr is None:
                np.multiply(a[:, 3 * size :], t, out=h_now)
            else:
                np.matmul(a[:, 3 * size :] * t, w_hr.T, out=h_now)
            y[rows] = h_now
    return (y, h, c), act, before, c_before, tanh_c


@lstm.vjp("gates", "h", "c", "w", "bias", "w_hr")
@kernel
def lstm_gradient(g, w, w_hr, act, before, c_before, tanh_c, sizes, reverse):
    """The gradients of all inputs, from those of the outputs."""
    gy, gh, gc = g
    size = gc.shape[1]
    gh, gc = gh.copy(), gc.copy()
    i, f, u, o = (act[:, k * size : (k + 1) * size] for k in range(4))
    d = np.empty_like(act)
    gys = np.empty_like(before)
    to_c = np.empty_like(c_before)  # dc/dh'
    for some, inside in reversed(stretches(sizes, reverse, 4 * size)):
        # at first the slopes of the gates in the place of their gradients
        i_now, u_now, o_now, t = i[some], u[some], o[some], tanh_c[some]
        slope = d[some]
        np.subtract(1, act[some], out=slope)
        slope *= act[some]
        slope[:, :size] *= u_now
        slope[:, size : 2 * size] *= c_before[some]
        now = np.multiply(u_now, u_now, out=slope[:, 2 * size : 3 * size])
        np.subtract(1, now, out=now)
        now *= i_now
        slope[:, 3 * size :] *= t
        now = np.multiply(t, t, out=to_c[some])
        np.subtract(1, now, out=now)
        now *= o_now
        for n, rows in reversed(inside):
            gh_now, gc_now, now = gh[:n], gc[:n], d[rows]
            out = np.add(gy[rows], gh_now, out=gys[rows])
            if w_hr is not None:
                out = out @ w_hr
            gc_now += out * to_c[rows]
            gates_now = now.reshape(n, 4, size)
            gates_now[:, :3] *= gc_now[:, None]
            gates_now[:, 3] *= out
            gc_now *= f[rows]
            np.matmul(now, w, out=gh_now)
    g_hr = None if w_hr is None else gys.T @ (o * tanh_c)
    return d, gh, gc, d.T @ before, d.sum(axis=0), g_hr


# --- GRU ----------------------------------------------------------------------------------------


def _gru_composition(gates, h, w, bias, *, sizes, reverse):
    size = h.shape[1]

    def step(x, h):
        a = linear(h, w, bias)
        r = sigmoid(x[:, :size] + a[:, :size])
        z = sigmoid(x[:, size : 2 * size] + a[:, size : 2 * size])
        n = tanh(x[:, 2 * size :] + r * a[:, 2 * size :])
        return (n + z * (h - n),)

    return _unrolled(step, (h,), gates, sizes, reverse)


@op(weight=8, outputs=2, residuals=("act", "before", "inner"), composition=_gru_composition)
@kernel
def gru(gates, h, w, bias, *, sizes, reverse):
    """``h' = (1 - z) n + z h``, ``n = tanh(x_n + r (W_n h + b_n))``, r and z sigmoids.

    gates (rows, 3H) in the order r z n, h (B, H), w (3H, H) → y (rows, H), last h (B, H).
    """
    size = h.shape[1]
    act = gates.copy()
    act[:, : 2 * size] *= 0.5  # σ(x) = (tanh(x/2) + 1) / 2
    scale = np.ones(3 * size, act.dtype)
    scale[: 2 * size] = 0.5
    wT = np.ascontiguousarray((w * scale[:, None]).T)
    bias = None if bias is None else bias * scale
    before = np.empty((len(act), size), act.dtype)
    inner = np.empty_like(before)
    y = np.empty_like(before)
    h = h.copy()
    for n, rows in steps(sizes, reverse):
        h_now = h[:n]
        before[rows] = h_now
        from_h = h_now @ wT
        if bias is not None:
            from_h += bias
        inner[rows] = from_h[:, 2 * size :]
        a = act[rows]
        rz, new = a[:, : 2 * size], a[:, 2 * size :]
        rz += from_h[:, : 2 * size]
        np.tanh(rz, out=rz)
        rz += 1
        rz *= 0.5
        new += rz[:, :size] * from_h[:, 2 * size :]
        np.tanh(new, out=new)
        h_now -= new
        h_now *= rz[:, size:]
        h_now += new
        y[rows] = h_now
    return (y, h), act, before, inner


@gru.vjp("gates", "h", "w", "bias")
@kernel
def gru_gradient(g, w, act, before, inner, sizes, reverse):
    """The gradients of all inputs, from those of the outputs."""
    gy, gh = g
    gh = gh.copy()
    size = gh.shape[1]
    r, z, new = (act[:, k * size : (k + 1) * size] for k in range(3))
    slope = np.empty_like(act)  # from the gradient of h' to those of the gates, all steps at once
    to_new = np.multiply(1 - z, 1 - new * new, out=slope[:, 2 * size :])
    np.multiply(to_new * inner, r * (1 - r), out=slope[:, :size])
    np.multiply(before - new, z * (1 - z), out=slope[:, size : 2 * size])
    d = np.empty_like(act)  # gradients of the gates ...
    d_h = np.empty_like(act)  # ... and of the hidden state's share of them
    for n, rows in reversed(steps(sizes, reverse)):
        gh_now, now, now_h = gh[:n], d[rows], d_h[rows]
        gh_now += gy[rows]
        now[:, :size] = now[:, size : 2 * size] = now[:, 2 * size :] = gh_now
        now *= slope[rows]
        now_h[...] = now
        now_h[:, 2 * size :] *= r[rows]
        gh_now *= z[rows]
        gh_now += now_h @ w
    return d, gh, d_h.T @ before, d_h.sum(axis=0)
