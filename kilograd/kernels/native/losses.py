"""Losses over classes in one pass a row, and checks of what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from kilograd.kernels import losses
from kilograd.kernels.native.build import Kernel, T, exp, log, native, plus, share
from kilograd.kernels.native.plan import FLOATS, floats, twin
from kilograd.kernels.native.softmax import largest

_HOW = {"none": 0, "sum": 1, "mean": 2}


def _with_bits(fn: Any) -> dict[np.dtype, Kernel]:
    """A kernel for each float, which sees its arrays also as integers as long (see ``largest``)."""
    signature = (
        "T* x, B* bits, i64* target, T* w, i64 has_w, T* e, B* e_bits, T* total, i64* at, T* each, "
        "T* weight, i64* status, i64 n, i64 c, i64 ignored, i64 softmax"
    )
    return {t: native(signature.replace("B*", f"i{8 * t.itemsize}*"))(fn) for t in FLOATS}


@_with_bits
def class_losses(
    x: Any, bits: Any, target: Any, w: Any, has_w: int, e: Any, e_bits: Any, total: Any, at: Any,
    each: Any, weight: Any, status: Any, n: int, c: int, ignored: int, softmax: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """Each row's loss and weight; for a cross entropy also exp(x - max) and its sum."""
    lo, hi = share(n, part, parts)
    for row in range(lo, hi):
        first = row * c
        kind = target[row]
        counts = kind != ignored
        if not counts:
            kind = 0
        elif kind < 0 or kind >= c:
            status[0] = 1
            kind = 0
        at[row] = first + kind
        share_of = T(0.0)
        if counts:
            share_of = w[kind] if has_w != 0 else T(1.0)
        weight[row] = share_of
        loss = -x[first + kind]
        if softmax != 0:
            top = largest(bits, first, c, e, e_bits, first)
            amount = T(0.0)
            for j in range(first, first + c):
                v = exp(x[j] - top)
                e[j] = v
                amount = plus(amount, v)
            total[row] = amount
            loss = log(amount) - (x[first + kind] - top)
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
    "i64 ignored, i64 how, i64 softmax"
)
def class_losses_gradient(
    g: Any, e: Any, total: Any, at: Any, target: Any, w: Any, has_w: int, n: Any, d: Any, rows: int,
    c: int, ignored: int, how: int, softmax: int, part: int, parts: int,
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
        first = row * c
        if softmax != 0:
            scale = f / total[row]
            for j in range(first, first + c):
                d[j] = e[j] * scale
        else:
            for j in range(first, first + c):
                d[j] = T(0.0)
        d[at[row]] -= f


def _forward(plan: Any, x: Any, target: Any, w: Any, ignored: int, how: str, softmax: bool) -> Any:
    if not floats(x, w) or target.dtype != np.int64 or not x.size or not plan.contiguous(w):
        return NotImplemented
    if x.ndim != 2:  # classes a stride apart: NumPy's columns are quicker
        return NotImplemented
    x, target = plan.as_contiguous(x), plan.as_contiguous(target)
    rows, c = x.shape
    e, total = (
        (plan.empty(x.shape, x.dtype), plan.empty(target.shape, x.dtype))
        if softmax
        else (None, None)
    )
    at = plan.empty(target.shape, np.int64)
    each, weight = plan.empty(target.shape, x.dtype), plan.empty(target.shape, x.dtype)
    loss = each if how == "none" else plan.empty((), x.dtype)
    count = plan.empty((), np.float64)
    plan.call(
        class_losses[x.dtype], x, x, target, w, int(w is not None), e, e, total, at, each, weight, plan.status(),
        rows, c, ignored, int(softmax), dtype=x.dtype, work=8 * x.size,
    )  # fmt: skip
    plan.call(reduced, each, weight, rows, loss, count, _HOW[how], dtype=x.dtype, work=rows)
    return (loss, e, total, at, count) if softmax else (loss, at, count)


@twin(losses.cross_entropy)
def cross_entropy(plan: Any, x: Any, target: Any, w: Any, ignore_index: int, reduction: str) -> Any:
    """The native form of ``losses.cross_entropy``."""
    return _forward(plan, x, target, w, ignore_index, reduction, True)


@twin(losses.nll_loss)
def nll_loss(plan: Any, x: Any, target: Any, w: Any, ignore_index: int, reduction: str) -> Any:
    """The native form of ``losses.nll_loss``."""
    return _forward(plan, x, target, w, ignore_index, reduction, False)


def _backward(
    plan: Any, g: Any, shape: Any, e: Any, total: Any, at: Any, target: Any, w: Any, n: Any,
    ignored: int, how: str,
) -> Any:  # fmt: skip
    if not floats(g, w) or target.dtype != np.int64 or not plan.contiguous(w):
        return NotImplemented
    if len(shape) != 2:
        return NotImplemented
    g, target = plan.as_contiguous(g), plan.as_contiguous(target)
    count, c = shape
    d = plan.empty(shape, g.dtype)
    plan.call(
        class_losses_gradient, g, e, total, at, target, w, int(w is not None), n, d, count,
        c, ignored, _HOW[how], int(e is not None), dtype=g.dtype, work=d.size,
    )  # fmt: skip
    return d


@twin(losses.cross_entropy_gradient)
def cross_entropy_gradient(
    plan: Any, g: Any, e: Any, total: Any, at: Any, target: Any, w: Any, n: Any, ignore_index: int,
    reduction: str,
) -> Any:  # fmt: skip
    """The native form of ``losses.cross_entropy_gradient``."""
    return _backward(plan, g, e.shape, e, total, at, target, w, n, ignore_index, reduction)


@twin(losses.nll_loss_gradient)
def nll_loss_gradient(
    plan: Any, g: Any, shape: Any, at: Any, target: Any, w: Any, n: Any, ignore_index: int,
    reduction: str,
) -> Any:  # fmt: skip
    """The native form of ``losses.nll_loss_gradient``."""
    return _backward(plan, g, shape, None, None, at, target, w, n, ignore_index, reduction)


@native("T* p, T* t, T* loss, i64* status, i64 n")
def binary_losses(p: Any, t: Any, loss: Any, status: Any, n: int) -> None:
    """Each element's loss; the status is set where p is no probability."""
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
    """The native form of ``losses.binary_cross_entropy``."""
    if not floats(p, t) or p.shape != t.shape:
        return NotImplemented
    p, t = plan.as_contiguous(p), plan.as_contiguous(t)
    loss = plan.empty(p.shape, p.dtype)
    plan.call(binary_losses, p, t, loss, plan.status(), p.size, dtype=p.dtype, work=4 * p.size)
    return loss
