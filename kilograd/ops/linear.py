"""The affine map of a layer, as one op."""

from __future__ import annotations

import numpy as np

from kilograd.errors import DtypeError, ShapeError
from kilograd.ops.linalg import matmul
from kilograd.ops.op import op
from kilograd.ops.shape import permute


def _rows(x):
    return x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))


@op(weight=16, often=False)
def linear(x, w, bias):
    """``x @ w.T + bias``: x (*, I), w (O, I) or (I,), bias (O,), () or None → (*, O)."""
    if x.dtype is not w.dtype and x.dtype != w.dtype:
        raise DtypeError(
            f"linear: input is {x.dtype} and weight is {w.dtype}: they must be the same"
        )
    if x.shape[-1:] != w.shape[-1:] or not 1 <= w.ndim <= 2:
        raise ShapeError(
            f"linear: input {list(x.shape)} and weight {list(w.shape)} cannot be multiplied: "
            "their last dimensions differ"
        )
    if x.ndim == 2:
        y = x.dot(w.T)
    elif w.ndim == 1 or x.ndim == 1:
        y = np.asarray(np.matmul(x, w.T))
    else:
        y = x.reshape((-1, x.shape[-1]) if x.size else (0, x.shape[-1])).dot(w.T)
        y = y.reshape((*x.shape[:-1], len(w)))
    if bias is None:
        return y
    if bias.dtype is not y.dtype and bias.dtype != y.dtype:
        raise DtypeError(
            f"linear: input is {x.dtype} and bias is {bias.dtype}: they must be the same"
        )
    y += bias
    return y


@linear.vjp("x")
def _(g, w, x_shape):
    if w.ndim == 1:
        return g[..., None] * w
    if g.ndim <= 2:
        return matmul(g, w)
    return matmul(_rows(g), w).reshape(x_shape)


@linear.vjp("w")
def _(g, x, w_shape):
    if len(w_shape) == 1:
        return g[..., None] * x
    if g.ndim == 1:
        return g[:, None] * x
    return matmul(permute(_rows(g), axes=(1, 0)), _rows(x))


@linear.vjp("bias")
def _(g):
    return g


@op
def bilinear(a, b, w):
    """y[..., o] = Σᵢⱼ a[..., i] w[o, i, j] b[..., j]."""
    return np.einsum("...i,oij,...j->...o", a, w, b, optimize=True)


@bilinear.vjp("a")
def _(g, b, w):
    return bilinear(g, b, permute(w, axes=(1, 0, 2)))


@bilinear.vjp("b")
def _(g, a, w):
    return bilinear(g, a, permute(w, axes=(2, 0, 1)))


@bilinear.vjp("w")
def _(g, a, b, w_shape):
    outer = _rows(a)[:, :, None] * _rows(b)[:, None, :]  # (N, I, J)
    n, i, j = outer.shape
    return matmul(permute(_rows(g), axes=(1, 0)), outer.reshape((n, i * j))).reshape(w_shape)
