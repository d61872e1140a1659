"""Resampling an image on another grid: a linear map and its transpose."""

from __future__ import annotations

import numpy as np

from kilograd.kernels import resize as kernels
from kilograd.kernels.memory import is_own
from kilograd.ops.op import op


@op
def resize(x, *, size, mode, align_corners=False, scales=None, antialias=False):
    """x (N, C, *spatial) interpolated to (N, C, *size)."""
    if x.dtype == np.uint8 and mode in ("bilinear", "bicubic"):
        return _resize_bytes(x, size, mode, align_corners, scales or (None, None), antialias)
    return kernels.resize_forward(x, size, mode, align_corners, scales, antialias)


def _resize_bytes(x, size, mode, align_corners, scales, antialias):
    """An image of bytes: rows, then columns, each rounded; weights are 16-bit fractions, as PyTorch's."""
    for axis in (3, 2):
        n, m = x.shape[axis], size[axis - 2]
        if n == m:
            continue
        each = np.eye(n).reshape(1, n, 1, n)
        w = kernels.resize_forward(
            each, (1, m), mode, align_corners, (None, scales[axis - 2]), antialias
        )
        w = w.reshape(n, m)
        bits = 0
        while bits < 22 and int(0.5 + w.max() * (1 << (bits + 1))) < 1 << 15:
            bits += 1
        w = np.trunc(w * (1 << bits) + np.copysign(0.5, w))
        y = np.moveaxis(x, axis, -1) @ w  # exact: integers below 2**53
        y = np.floor((y + (1 << (bits - 1))) / (1 << bits))
        x = np.moveaxis(np.clip(y, 0, 255).astype(np.uint8), -1, axis)
    return x if is_own(x) else x.copy()


@op
def resize_transpose(x, *, shape, mode, align_corners=False, scales=None, antialias=False):
    """The transpose of ``resize``: (N, C, *size) → shape (N, C, *spatial)."""
    return kernels.resize_backward(x, shape, mode, align_corners, scales, antialias)


@resize.vjp("x")
def _(g, x_shape, mode, align_corners, scales, antialias):
    return resize_transpose(g, shape=x_shape, mode=mode, align_corners=align_corners,
                            scales=scales, antialias=antialias)  # fmt: skip


@resize_transpose.vjp("x")
def _(g, x_shape, mode, align_corners, scales, antialias):
    return resize(g, size=tuple(x_shape[2:]), mode=mode, align_corners=align_corners,
                  scales=scales, antialias=antialias)  # fmt: skip
