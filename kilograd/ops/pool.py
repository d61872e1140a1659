"""Pooling: an average is a linear map and its transpose; a maximum gathers at indices it finds."""

from __future__ import annotations

import math

import numpy as np

from kilograd.kernels import pool as kernels
from kilograd.ops.op import op

# --- maxima -------------------------------------------------------------------------------------


@op(weight=4, residuals=("indices",))
def max_pool(x, *, kernel, stride, padding, dilation, ceil_mode):
    """The largest element of each window: x (N, C, *spatial) → (N, C, *out)."""
    return kernels.max_pool_forward(x, kernel, stride, padding, dilation, ceil_mode)


@op(weight=4, residuals=("indices",))
def adaptive_max_pool(x, *, size):
    """The largest element of each of ``size`` regions that tile x (N, C, *spatial)."""
    return kernels.adaptive_max_pool_forward(x, size)


@max_pool.vjp("x")
@adaptive_max_pool.vjp("x")
def _(g, indices, x_shape):
    return pool_scatter(g, indices, shape=x_shape)


@op
def pool_gather(x, indices):
    """x (N, C, *spatial) at indices (N, C, *out), flat over spatial."""
    return kernels.pool_gather(x, indices)


@op(weight=4)
def pool_scatter(x, indices, *, shape):
    """The transpose of ``pool_gather``: x added into zeros of a shape."""
    return kernels.pool_scatter(x, indices, shape)


@op
def unpool(x, indices, *, size):
    """x (N, C, *spatial) written into zeros (N, C, *size) at indices, flat over size."""
    y = np.zeros((*x.shape[:2], math.prod(size)), x.dtype)
    flat = (*x.shape[:2], -1)
    np.put_along_axis(y, indices.reshape(flat), x.reshape(flat), -1)
    return y.reshape((*x.shape[:2], *size))


@pool_gather.vjp("x")
def _(g, indices, x_shape):
    return pool_scatter(g, indices, shape=x_shape)


@pool_scatter.vjp("x")
@unpool.vjp("x")
def _(g, indices):
    return pool_gather(g, indices)


# --- averages -----------------------------------------------------------------------------------


@op(weight=4)
def avg_pool(x, *, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """The mean of each window: x (N, C, *spatial) → (N, C, *out)."""
    if x.dtype.kind in "iu":  # integer division, towards zero
        y = kernels.avg_pool_forward(
            x.astype(np.float64),
            kernel,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            divisor_override,
        )
        return np.trunc(np.round(y, 6)).astype(x.dtype)
    return kernels.avg_pool_forward(
        x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@op(weight=4)
def avg_unpool(x, *, shape, kernel, stride, padding, ceil_mode, count_include_pad,
               divisor_override):  # fmt: skip
    """The transpose of ``avg_pool``: (N, C, *out) → shape (N, C, *spatial)."""
    return kernels.avg_pool_backward(
        x, shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@avg_pool.vjp("x")
def _(g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    return avg_unpool(g, shape=x_shape, kernel=kernel, stride=stride, padding=padding,
                      ceil_mode=ceil_mode, count_include_pad=count_include_pad,
                      divisor_override=divisor_override)  # fmt: skip


@avg_unpool.vjp("x")
def _(g, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    return avg_pool(g, kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode,
                    count_include_pad=count_include_pad,
                    divisor_override=divisor_override)  # fmt: skip


@op(weight=4)
def adaptive_avg_pool(x, *, size):
    """The mean of each of ``size`` regions that tile x (N, C, *spatial)."""
    return kernels.adaptive_avg_pool_forward(x, size)


@op
def adaptive_avg_unpool(x, *, shape):
    """The transpose of ``adaptive_avg_pool``: (N, C, *size) → shape."""
    return kernels.adaptive_avg_pool_backward(x, shape)


@adaptive_avg_pool.vjp("x")
def _(g, x_shape):
    return adaptive_avg_unpool(g, shape=x_shape)


@adaptive_avg_unpool.vjp("x")
def _(g, x_shape):
    return adaptive_avg_pool(g, size=tuple(x_shape[2:]))
