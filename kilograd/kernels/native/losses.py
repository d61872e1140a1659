"""Losses over classes in one pass a row, and checks of what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels import losses
from kilograd.kernels.native.build import T, exp, log, native, share
from kilograd.kernels.native.plan import floats, twin
from kilograd.kernels.native.softmax import _with_bits as with_bits
from kilograd.kernels.native.softmax import greater, largest

_HOW = {"none": 0, "sum": 1, "mean": 2}


@with_bits(
    "T* x, B* bits, i64* target, T* w, i64 has_w, T* e, B* e_bits, T* total, i64* at, T* each, "
    "T* weight, i64* status, i64 n, i64 c, i64 length, i64 ignored, i64 softmax"
)
def class_losses(
    x: Any, bits: Any, target: Any, w: Any, has_w: int, e: Any, e_bits: Any, total: Any, at: Any, each: Any, weight: Any,
    status: Any, n: int, c: int, length: int, ignored: int, softmax: int, part: int, parts: int,
) -> None:  # fmt: skip
    """Each row's loss and weight; for a cross entropy also exp(x - max) and its sum."""
    lo, hi = share(n * length, part, parts)
    for row in range(lo, hi):
        first = row // length * c * length + row % length
        kind = target[row]
        counts = kind != ignored
        if not counts:
            kind = 0
        elif kind < 0 or kind >= c:
            status[0] = 1
            kind = 0
        place = first + kind * length
        at[row] = place
        share_of = T(0.0)
        if counts:
            share_of = w[kind] if has_w != 0 else T(1.0)
        weight[row] = share_of
        loss = -x[place]
        if softmax != 0:
            if length == 1:
                top = largest(bits, first, c, e, e_bits, first)
            else:
                top = x[first]
                for j in range(c):
                    top = greater(x[first + j * length], top)
            amount = T(0.0)
            for j in range(c):
                v = exp(x[first + j * length] - top)
                e[first + j * length] = v
                amount += v
            total[row] = amount
            loss += top + log(amount)
        each[row] = loss * share_of if share_of != T(0.0) else T(0.0)


@native("T* each, T* weight, i64 count, T* loss, f64* n, i64 how")
def reduced(each: Any, weight: Any, count: int, loss: Any, n: Any, how: int) -> None:
    """The sum or mean of the rows' losses, and how much they weigh together."""
    amount = 0.0
    weights = 0.0
    for i in range(count):
        amount += each[i]
        weights += weight[i]
    n[0] = weights
    if how == 1:
        loss[0] = T(amount)
    elif how == 2:
        loss[0] = T(amount / weights)


@native(
    "T* g, T* e, T* total, i64* at, i64* target, T* w, i64 has_w, f64* n, T* d, i64 rows, i64 c, "
    "i64 length, i64 ignored, i64 how, i64 softmax"
)
def class_losses_gradient(
    g: Any, e: Any, total: Any, at: Any, target: Any, w: Any, has_w: int, n: Any, d: Any, rows: int,
    c: int, length: int, ignored: int, how: int, softmax: int, part: int, parts: int,
) -> None:  # fmt: skip
    """dx = f (softmax - one-hot), or -f one-hot, where f is each row's factor."""
    lo, hi = share(rows, part, parts)
    for row in range(lo, hi):
        f = g[row] if how == 0 else g[0]
        if how == 2:
            f = T(f * (1.0 / n[0])) if n[0] != 0.0 else T(0.0)
        if target[row] == ignored:
            f = T(0.0)
        elif has_w != 0:
            f = f * w[target[row]]
        first = row // length * c * length + row % length
        if softmax != 0:
            scale = f / total[row]
            for j in range(c):
                d[first + j * length] = e[first + j * length] * scale
        else:
            for j in range(c):
                d[first + j * length] = T(0.0)
        d[at[row]] -= f


def _forward(plan: Any, x: Any, target: Any, w: Any, ignored: int, how: str, softmax: bool) -> Any:
    if not floats(x, w) or target.dtype != np.int64 or not x.size or not plan.contiguous(w):
        return NotImplemented
    x, target = plan.as_contiguous(x), plan.as_contiguous(target)
    n, c, length = (*x.shape, 1)[:3]
    rows = n * length
    e, total = (plan.empty(x.shape, x.dtype), plan.empty(target.shape, x.dtype)) if softmax else (None, None)
    at = plan.empty(target.shape, np.int64)
    each, weight = plan.empty(target.shape, x.dtype), plan.empty(target.shape, x.dtype)
    loss = each if how == "none" else plan.empty((), x.dtype)
    count = plan.empty((), np.float64)
    plan.call(
        class_losses[x.dtype], x, x, target, w, int(w is not None), e, e, total, at, each, weight, plan.status(),
        n, c, length, ignored, int(softmax), dtype=x.dtype, work=8 * x.size,
    )  # fmt: skip
    plan.call(reduced, each, weight, rows, loss, count, _HOW[how], dtype=x.dtype, work=rows)
    return (loss, e, total, at, count) if softmax else (loss, at, count)


@twin(losses.cross_entropy)
def cross_entropy(plan: Any, x: Any, target: Any, w: Any, ignore_index: int, reduction: str) -> Any:
    return _forward(plan, x, target, w, ignore_index, reduction, True)


@twin(losses.nll_loss)
def nll_loss(plan: Any, x: Any, target: Any, w: Any, ignore_index: int, reduction: str) -> Any:
    return _forward(plan, x, target, w, ignore_index, reduction, False)


def _backward(
    plan: Any, g: Any, shape: Any, e: Any, total: Any, at: Any, target: Any, w: Any, n: Any,
    ignored: int, how: str,
) -> Any:  # fmt: skip
    if not floats(g, w) or target.dtype != np.int64 or not plan.contiguous(w):
        return NotImplemented
    g, target = plan.as_contiguous(g), plan.as_contiguous(target)
    count, c, length = (*shape, 1)[:3]
    d = plan.empty(shape, g.dtype)
    plan.call(
        class_losses_gradient, g, e, total, at, target, w, int(w is not None), n, d, count * length,
        c, length, ignored, _HOW[how], int(e is not None), dtype=g.dtype, work=d.size,
    )  # fmt: skip
    return d


@twin(losses.cross_entropy_gradient)
def cross_entropy_gradient(
    plan: Any, g: Any, e: Any, total: Any, at: Any, target: Any, w: Any, n: Any, ignore_index: int,
    reduction: str,
) -> Any:  # fmt: skip
    return _backward(plan, g, e.shape, e, total, at, target, w, n, ignore_index, reduction)


@twin(losses.nll_loss_gradient)
def nll_loss_gradient(
    plan: Any, g: Any, shape: Any, at: Any, target: Any, w: Any, n: Any, ignore_index: int,
    reduction: str,
) -> Any:  # fmt: skip
    return _backward(plan, g, shape, None, None, at, target, w, n, ignore_index, reduction)


@native("T* p, T* t, T* loss, i64* status, i64 n")
def binary_losses(p: Any, t: Any, loss: Any, status: Any, n: int) -> None:
    wrong = 0
    for i in range(n):
        x = p[i]
        if not (x >= T(0.0) and x <= T(1.0)):
            wrong += 1
        yes = max(log(x), T(-100.0))
        no = max(log(T(1.0) - x), T(-100.0))
        loss[i] = (t[i] - T(1.0)) * no - t[i] * yes
    if wrong > 0:
        status[0] = 1


@twin(losses.binary_cross_entropy)
def binary_cross_entropy(plan: Any, p: Any, t: Any) -> Any:
    if not floats(p, t) or p.shape != t.shape:
        return NotImplemented
    p, t = plan.as_contiguous(p), plan.as_contiguous(t)
    loss = plan.empty(p.shape, p.dtype)
    plan.call(binary_losses, p, t, loss, plan.status(), p.size, dtype=p.dtype, work=4 * p.size)
    return loss
